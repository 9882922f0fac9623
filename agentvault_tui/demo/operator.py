"""The demo's client of the operators' HTTP: registers agents, counts events."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx

from agentvault_tui.errors import AgentVaultError, RefusedError, UnreachableError

_PAGE: Final = 1000
_CALLBACK: Final = "http://127.0.0.1:7719/callback"
"""The final address of a browser; its parameters are read from it."""
Visit = Callable[[str], Awaitable[str]]
"""Opens a page, follows its requests, and returns the address at which it ended."""


@dataclass(frozen=True, slots=True)
class AgentCredentials:
    """Client credentials of one agent, as registration gave them."""

    agent_id: str
    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"AgentCredentials({self.client_id!r})"


@dataclass(slots=True)
class Record:
    """The ledger's decisions, from some event on."""

    outcomes: dict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    """Decisions by agent id, then by outcome."""
    decisions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By decision, each outcome: a waiting one may be allowed later."""

    def add(self, event: dict[str, Any]) -> None:
        """Count one event."""
        if outcome := event["outcome"]:
            self.outcomes[event["agent_id"]][outcome] += 1
            self.decisions[event["decision_id"]].add(outcome)


class Operator:
    """A client of the operators' HTTP on the Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://agentvault",
            trust_env=False,
            timeout=30.0,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def names(self) -> dict[str, str]:
        """Return the names of all registered agents by id."""
        reply = await self._call("GET", "/api/agents")
        return {agent["id"]: agent["name"] for agent in reply["agents"]}

    async def register(self, agent: dict[str, object]) -> AgentCredentials:
        """Register *agent* and return its credentials."""
        reply = await self._call("POST", "/api/agents", json=agent)
        return AgentCredentials(reply["id"], reply["client_id"], reply["client_secret"])

    async def delegate(self, agent_id: str, to: str, scope: str) -> None:
        """Let an agent pass tokens with a scope on to another."""
        body = {"agent_id": agent_id, "to": to, "scopes": [scope]}
        await self._call("POST", "/api/agents/delegates", json=body)

    async def keep_secret(self, name: str, value: str) -> None:
        """Seal *value* as a secret that services attach."""
        await self._call("POST", "/api/secrets", json={"name": name, "value": value})
        # Reads what was written into the folder of services since.
        await self._call("GET", "/api/services")

    async def head(self) -> int:
        """Return the ledger's last sequence number."""
        reply = await self._call("GET", "/api/status")
        return int(reply["ledger"]["head"])

    async def record(self, after: int = 0) -> Record:
        """Count every event after sequence number *after*."""
        record, place = Record(), after
        while True:
            page = await self._call(
                "GET", "/api/audit", params={"after": place, "limit": _PAGE}
            )
            for event in page["events"]:
                record.add(event)
            if page["next"] is None:
                return record
            place = page["next"]

    async def connected(self) -> set[str]:
        """Return the ids of the agents that use an account at a provider."""
        reply = await self._call("GET", "/api/connections")
        return {account["agent_id"] for account in reply["connections"]}

    async def connect(
        self, agent_id: str, connection: str, scope: str, visit: Visit
    ) -> None:
        """Connect an account; *visit* acts as its owner at the pages."""
        step = await self._call(
            "POST",
            "/api/connections",
            json={
                "agent_id": agent_id,
                "connection": connection,
                "scopes": [scope],
                "redirect_uri": _CALLBACK,
            },
        )
        while step["step"] != "done":
            address = await visit(step["page"])
            step = await self._call(
                "POST",
                "/api/connections/continue",
                json={"id": step["id"], "address": address},
            )

    async def _call(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        try:
            reply = await self._http.request(method, path, **what)
            body: dict[str, Any] = reply.json()
        except httpx.TransportError as error:
            raise UnreachableError(
                "the demo's broker does not answer", "see broker.log in the demo's home"
            ) from error
        except ValueError as error:
            raise AgentVaultError(f"{path} did not answer with JSON") from error
        if reply.is_error:
            raise RefusedError(
                str(body.get("detail") or body), body.get("remedy") or ""
            )
        return body
