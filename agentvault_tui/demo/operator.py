"""The demo as its operator: registers agents, and reads the ledger's numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

from agentvault_tui.errors import AgentVaultError, RefusedError, UnreachableError

_PAGE: Final = 1000
_CALLBACK: Final = "http://127.0.0.1:7719/callback"
"""Where a browser is sent in the end; what it brings is read off its address."""
Visit = Callable[[str], Awaitable[str]]
"""Opens a page, does what it asks, and returns the address at which it ended."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Client credentials of one agent, as registration gave them."""

    agent_id: str
    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Registration({self.client_id!r})"


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger holds about token decisions, from some event on."""

    events: int
    """Events counted, of every type."""
    outcomes: dict[str, dict[str, int]]
    """Decisions by agent id, then by outcome."""
    withheld: dict[str, dict[str, int]]
    """By agent id, what was allowed and yet not given, under ``allowed``; and under
    ``denied`` how much of that was answered with a refusal."""

    def answers(self, agent_id: str) -> dict[str, int]:
        """Return how often the agent was answered with each outcome."""
        decided = Counter(self.outcomes.get(agent_id, {}))
        withheld = self.withheld.get(agent_id, {})
        decided["allowed"] -= withheld.get("allowed", 0)
        decided["denied"] += withheld.get("denied", 0)
        return decided


class Operator:
    """A client of the operators' HTTP on the Unix socket."""

    def __init__(self, socket: Path) -> None:
        """Use the broker that listens at *socket*."""
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url="http://agentvault",
            trust_env=False,
            timeout=30.0,
        )

    async def __aenter__(self) -> Self:
        """Enter the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self._http.aclose()

    async def names(self) -> dict[str, str]:
        """Return the names of all registered agents by id."""
        reply = await self._call("GET", "/api/agents")
        return {agent["id"]: agent["name"] for agent in reply["agents"]}

    async def register(self, agent: dict[str, Any]) -> Registration:
        """Register *agent* and return its credentials."""
        reply = await self._call("POST", "/api/agents", json=agent)
        return Registration(reply["id"], reply["client_id"], reply["client_secret"])

    async def head(self) -> int:
        """Return the ledger's last sequence number."""
        reply = await self._call("GET", "/api/status")
        return int(reply["ledger"]["head"])

    async def record(self, after: int = 0) -> Record:
        """Count every event after sequence number *after*."""
        outcomes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        withheld: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        events, place = 0, after
        while True:
            page = await self._call(
                "GET", "/api/audit", params={"after": place, "limit": _PAGE}
            )
            for event in page["events"]:
                events += 1
                if event["type"] == "token.decision":
                    outcomes[event["agent_id"]][event["outcome"]] += 1
                elif event["type"] == "token.not_exchanged":
                    # A revocation overtook it, or the tenant gave none: refused, but
                    # for a tenant that is away, which is no refusal (503).
                    withheld[event["agent_id"]]["allowed"] += 1
                    if event["reason"] != "unavailable":
                        withheld[event["agent_id"]]["denied"] += 1
            if page["next"] is None:
                return Record(events, dict(outcomes), dict(withheld))
            place = page["next"]

    async def connected(self) -> set[str]:
        """Return the ids of the agents that use an account at a provider."""
        reply = await self._call("GET", "/api/connections")
        return {account["agent_id"] for account in reply["connections"]}

    async def connect(
        self, agent_id: str, connection: str, scope: str, visit: Visit
    ) -> None:
        """Connect an account for an agent; *visit* is its owner at the pages."""
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
