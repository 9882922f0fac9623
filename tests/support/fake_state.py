"""What a scripted broker knows, and how a test changes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from agentvault_tui.clock import iso
from agentvault_tui.operator_api.proof import genesis, link

START = datetime(2026, 11, 24, 14, 2, 11, tzinfo=UTC)
LEDGER = "000102030405060708090a0b0c0d0e0f"
CATALOGUE = {
    "read:calendar": ("read calendars", "low", "It no longer sees calendars."),
    "write:calendar": (
        "create and change events in calendars",
        "medium",
        "No new events; events already booked stay.",
    ),
    "read:contacts": ("read contacts", "low", "It no longer sees contacts."),
    "read:email": ("read mail", "low", "It no longer sees mail."),
    "send:email": ("send mail", "medium", "No new mail; mail already sent stays sent."),
    "read:finance": ("read accounts", "medium", "It no longer sees accounts."),
    "send:payment": (
        "move money out of the company",
        "high",
        "No new payments; payments already made are not called back.",
    ),
    "read:records": ("read customer records", "low", "It no longer sees records."),
    "delete:records": (
        "delete customer records",
        "high",
        "No new deletions; what is deleted stays deleted.",
    ),
}


class FakeState:
    """What the scripted broker knows, and the frames its changes send."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.agents: dict[str, dict[str, Any]] = {}
        self.stepups: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, dict[str, Any]] = {}
        """In flight and held."""
        self.services: list[dict[str, Any]] = []
        self.advice: list[dict[str, Any]] = []
        self.shadow: dict[str, Any] | None = None
        self.planned: dict[str, Any] | None = None
        self.broken_files: dict[str, str] = {}
        self.sinks: list[dict[str, Any]] = []
        self.limits: list[dict[str, Any]] = []
        self.uses: list[dict[str, Any]] = []
        self.hooks: list[dict[str, Any]] = []
        self.dead: list[dict[str, Any]] = []
        """Alerts that did not arrive."""
        self.events: list[dict[str, Any]] = []
        self.bodies: dict[int, str] = {}
        self.befores: dict[int, str] = {}
        """The hash before each event."""
        self.first_seq = 1
        self.writable = True
        self.fault: str | None = None
        self.reachable = True
        self.warnings: list[str] = []
        self.team: dict[str, Any] | None = None
        """The brokers that share a ledger, as `TeamInfo` has them."""
        self.partial = False
        """Whether activity of the past counts the latest requests alone."""
        self.doubts: list[str] = []
        """What the past is unsure of."""
        self.moments: list[dict[str, Any]] = []
        """What `fake_past.remember` kept."""
        self.panic: dict[str, Any] = {
            "on": False,
            "since": None,
            "by": None,
            "reason": None,
        }
        self.requests: list[tuple[str, str, Any]] = []
        """Every request that was not a read: method, path, body."""
        self.answers: dict[str, Callable[[], Response]] = {}
        """Path to a response that is given in place of the usual one."""
        self.catalogue: dict[str, Any] = {
            name: {"description": words, "risk": risk, "revoking": revoking}
            for name, (words, risk, revoking) in CATALOGUE.items()
        }
        self.past: dict[str, list[list[int]]] = {}
        """By agent: what its day was before any event there is."""
        self.activity_reads = 0
        self.roster_reads = 0
        """How often all agents were read: a snapshot each."""
        self.rereads: list[list[str]] = []
        """The ids of agents that were read again, by request."""
        self.agents_a_page = 500
        """Agents on a page of the list."""
        self._subscribers: set[asyncio.Queue[str | None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    # What a test scripts: from any thread

    def act(self, change: Callable[[], Any]) -> Any:
        """Run *change* inside the server's loop, so that no reader sees half of it."""
        if self._loop is None:
            return change()
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(change())
            except Exception as error:  # noqa: BLE001 - handed to the caller
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(10)

    def add_agent(self, name: str, *scopes: str, **more: Any) -> dict[str, Any]:
        number = len(self.agents) + 1
        agent = {
            "id": f"agt_{number:016d}",
            "client_id": f"agt_{number:016d}",
            "name": name,
            "owner": "alice@acme.test",
            "purpose": "",
            "status": "active",
            "scopes": sorted(scopes),
            "resource_server": False,
            "created_at": iso(self.now - timedelta(days=30)),
            "revoked_at": None,
            "last_seen_at": iso(self.now - timedelta(seconds=3)),
            "tokens": [],
            "counts": {"allowed": 0, "denied": 0, "escalated": 0},
            **more,
        }
        self.act(lambda: self.put_agent(agent))
        return agent

    def add_token(
        self, agent: dict[str, Any], scope: str, left: float, kind: str = "standard"
    ) -> dict[str, Any]:
        token = {
            "id": f"tok_{len(self.events):08d}{len(agent['tokens']):08d}",
            "agent_id": agent["id"],
            "scope": scope,
            "kind": kind,
            "issued_at": iso(self.now + timedelta(seconds=left - 3600)),
            "expires_at": iso(self.now + timedelta(seconds=left)),
        }
        self.act(lambda: self._put_token(agent, token))
        return token

    def add_stepup(self, agent: dict[str, Any], **more: Any) -> dict[str, Any]:
        number = len(self.stepups) + 1
        stepup = {
            "id": f"sup_{number:016d}",
            "agent_id": agent["id"],
            "agent_name": agent["name"],
            "scope": "send:payment",
            "action": "send:payment",
            "resource": "stripe:acct_42",
            "parameters": {"amount": 4200, "currency": "USD", "to": "Northwind GmbH"},
            "money": {"unit": "minor", "exponent": 2},
            "reason": "Invoice 1881 is due today.",
            "rule": "payments-need-step-up",
            "why": "Money leaves the company.",
            "risk": "high",
            "digest": f"sha256:7f3a{number:060x}",
            "fingerprint": "7F3A",
            "ttl": 300,
            "count": 1,
            "problem": None,
            "requested_at": iso(self.now - timedelta(seconds=48)),
            "expires_at": iso(self.now + timedelta(seconds=252)),
            "status": "pending",
            "decided_by": None,
            "decided_at": None,
            "denial": None,
            "device": None,
            **more,
        }
        self.act(lambda: self.put_stepup(stepup))
        return stepup

    def add_call(self, agent: dict[str, Any], **more: Any) -> dict[str, Any]:
        call = {
            "id": f"call_{len(self.calls) + 1:016d}",
            "agent_id": agent["id"],
            "agent_name": agent["name"],
            "service": "files",
            "route": "GET /files/{file}",
            "method": "GET",
            "path": "/files/export.zip",
            "state": "streaming",
            "started_at": iso(self.now - timedelta(seconds=41)),
            "bytes_in": 41_200_000,
            "bytes_out": 0,
            "status": 200,
            "ended": None,
            "decision_id": "dec_1",
            "stepup_id": None,
            **more,
        }
        self.act(lambda: self.put_call(call))
        return call

    def add_service(self, name: str, **more: Any) -> None:
        service = {
            "name": name,
            "origin": f"https://api.{name}.test",
            "unmatched": "deny",
            "allow_private": False,
            "credential": {"kind": "bearer", "secret": name, "connection": None},
            "routes": [],
            "health": "ok",
            "problem": None,
            "last_used_at": iso(self.now - timedelta(seconds=12)),
            **more,
        }
        self.act(lambda: self.services.append(service))

    def put_call(self, call: dict[str, Any]) -> None:
        self.calls[call["id"]] = call
        self.send("call", call)

    def add_event(self, kind: str, agent: Any = None, **more: Any) -> dict[str, Any]:
        return self.act(lambda: self.record(kind, agent, **more))

    def decide(
        self, agent: dict[str, Any], scope: str, outcome: str, **more: Any
    ) -> dict[str, Any]:
        """One token decision, with the count that belongs to it."""

        def change() -> dict[str, Any]:
            agent["counts"][outcome] += 1
            fields = {"action": scope, "outcome": outcome, **more}
            return self.record("token.decision", agent, **fields)

        return self.act(change)

    def push(self, kind: str, data: dict[str, Any]) -> None:
        """Send any frame, as it is, to whoever listens."""
        self.act(lambda: self.send(kind, data))

    def push_status(self) -> None:
        self.act(lambda: self.send("status", self.status_shape()))

    # Inside the loop

    @property
    def head(self) -> int:
        return self.events[-1]["seq"] if self.events else self.first_seq - 1

    def send(self, kind: str, data: dict[str, Any]) -> None:
        number = f"id: {data['seq']}\n" if kind == "audit" else ""
        frame = f"event: {kind}\n{number}data: {json.dumps(data)}\n\n"
        for queue in self._subscribers:
            queue.put_nowait(frame)

    def put_agent(self, agent: dict[str, Any]) -> None:
        self.agents[agent["id"]] = agent
        self.send("agent", agent)

    def _put_token(self, agent: dict[str, Any], token: dict[str, Any]) -> None:
        agent["tokens"].append(token)
        agent["tokens"].sort(key=lambda each: each["expires_at"])
        self.send("token", token)

    def put_stepup(self, stepup: dict[str, Any]) -> None:
        self.stepups[stepup["id"]] = stepup
        self.send("stepup", stepup)

    def record(self, kind: str, agent: Any = None, **more: Any) -> dict[str, Any]:
        seq = self.head + 1
        actor = {"kind": "system", "id": "broker", "name": "broker"}
        if agent is not None:
            actor = {"kind": "agent", "id": agent["id"], "name": agent["name"]}
        event = {
            "seq": seq,
            "time": iso(self.now),
            "type": kind,
            "actor": actor,
            "agent_id": agent["id"] if agent else None,
            "action": None,
            "resource": None,
            "outcome": None,
            "reason": None,
            "rule": None,
            "decision_id": f"dec_{seq:016d}",
            "detail": {},
            **more,
        }
        self.bodies[seq] = json.dumps(event, sort_keys=True, separators=(",", ":"))
        before = self.events[-1]["hash"] if self.events else genesis(LEDGER)
        self.befores[seq] = before
        event = {**event, "hash": link(before, seq, self.bodies[seq])}
        self.events.append(event)
        self.send("audit", event)
        return event

    def status_shape(self) -> dict[str, Any]:
        pending = [s for s in self.stepups.values() if s["status"] == "pending"]
        last = self.events[-1]["hash"] if self.events else ""
        return {
            "version": "0.1.0",
            "tenant": {
                "issuer": "https://acme.eu.auth0.com/",
                "kind": "auth0",
                "reachable": self.reachable,
            },
            "ledger": {
                "head": self.head,
                "hash": last,
                "writable": self.writable,
                "fault": self.fault,
            },
            "panic": self.panic,
            "agents": len(self.agents),
            "stepups_pending": len(pending),
            "alerts_dead": len(self.dead),
            "warnings": self.warnings,
            **({"team": self.team} if self.team else {}),
        }
