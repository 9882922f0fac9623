"""What a scripted broker tells of the past: snapshots a test let it remember."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from support.fake_state import START, FakeState

from agentvault_tui.clock import iso, parse_iso

ROUTINE = ("token.", "operator.", "upstream.", "stepup.authorizing")


def remember(fake: FakeState) -> None:
    """Keep how things stand, as what was known from this event on."""

    def keep() -> None:
        fake.moments.append(
            copy.deepcopy(
                {
                    "seq": fake.head,
                    "agents": list(fake.agents.values()),
                    "stepups": list(fake.stepups.values()),
                    "panic": fake.panic,
                }
            )
        )

    fake.act(keep)


def past_of(fake: FakeState, query: Mapping[str, str]) -> dict[str, Any] | str:
    """Answer ``GET /api/past``; a text when there is no such moment."""
    events = fake.events
    if "seq" in query:
        seq = int(query["seq"])
        found = [event for event in events if event["seq"] == seq]
        at = found[0]["time"] if found else ""
    else:
        at = iso(parse_iso(query["at"]))
        found = [event for event in events if event["time"] <= at]
    if not found:
        return "nothing was recorded by then"
    here = found[-1]
    known = [kept for kept in fake.moments if kept["seq"] <= here["seq"]]
    then = known[-1] if known else fake.moments[0]
    turns = [e for e in events if not e["type"].startswith(ROUTINE)]
    before = [e for e in turns if e["seq"] < here["seq"]]
    after = [e for e in turns if e["seq"] > here["seq"]]
    return {
        "seq": here["seq"],
        "time": here["time"],
        "at": at,
        "status": {
            **fake.status_shape(),
            "ledger": {"head": here["seq"], "hash": here["hash"]},
            "panic": then["panic"],
            "warnings": fake.doubts,
        },
        "agents": then["agents"],
        "stepups": then["stepups"],
        "minute": {},
        "around": {
            "first": _place(events[0]),
            "last": _place(events[-1]),
            "before": None,
            "after": None,
            "turn_before": _place(before[-1]) if before else None,
            "turn_after": _place(after[0]) if after else None,
        },
    }


def _place(event: dict[str, Any]) -> dict[str, Any]:
    return {"seq": event["seq"], "time": event["time"]}


def incident(fake: FakeState) -> dict[str, Any]:
    """An afternoon: agents come, one asks for a payment, everything is stopped."""
    now = fake.now
    agents: dict[str, Any] = {}

    def register(name: str, *scopes: str, **more: Any) -> None:
        agents[name] = fake.add_agent(name, *scopes, created_at=iso(fake.now), **more)
        fake.add_event("agent.registered", agents[name])

    fake.now = START - timedelta(hours=2)
    fake.add_event("broker.started")
    register("calendar-agent", "write:calendar", "read:contacts")
    remember(fake)
    fake.now = START - timedelta(minutes=40)
    register("payments-agent", "send:payment", owner="bob@acme.test")
    remember(fake)
    fake.now = START - timedelta(minutes=14)
    fake.decide(
        agents["calendar-agent"],
        "write:calendar",
        "allowed",
        resource="calendar:primary",
    )
    fake.add_token(agents["calendar-agent"], "write:calendar", 46 * 60)
    fake.decide(
        agents["payments-agent"],
        "send:payment",
        "escalated",
        resource="stripe:acct_42",
        rule="payments-need-step-up",
        detail={
            "parameters": {"amount": 4200, "currency": "USD"},
            "money": {"unit": "minor", "exponent": 2},
        },
    )
    fake.add_stepup(agents["payments-agent"])
    fake.add_event("stepup.requested", agents["payments-agent"], action="send:payment")
    remember(fake)
    fake.now = START - timedelta(minutes=6)
    agents["calendar-agent"]["tokens"].clear()
    for stepup in fake.stepups.values():
        stepup.update(status="cancelled", decided_at=iso(fake.now))
    fake.panic = {
        "on": True,
        "since": iso(fake.now),
        "by": "alice",
        "reason": "runaway bookings",
    }
    fake.add_event("panic.on", reason="runaway bookings")
    remember(fake)
    fake.now = START - timedelta(minutes=2)
    fake.panic = {"on": False, "since": None, "by": None, "reason": None}
    fake.add_event("panic.off")
    remember(fake)
    register("email-agent", "send:email", "read:email")
    fake.decide(agents["email-agent"], "send:email", "allowed", resource="mail:out")
    fake.add_token(agents["email-agent"], "send:email", 58 * 60)
    remember(fake)
    fake.now = now
    return agents
