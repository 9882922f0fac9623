"""Scenes for the console's tests and pictures: what a scripted broker holds in each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from support.fake_operator import FakeOperator
from support.fake_state import START
from support.manual_clock import ManualClock
from textual.pilot import Pilot

from agentvault_tui.clock import Clock, iso
from agentvault_tui.console.app import ConsoleApp, build
from agentvault_tui.console_settings import ConsoleSettings

HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[31m",
    "\x9b31m\x9d0;title\x9c",
    "\u202egnp.exe\u200b\u2066",
    "[bold red]pay[/] [/b] bad [",
    "line\nbreak\r\rtab\t\x00\x7f",
    "a\u0301\u0302\u0303\u0304\u0305" * 3,
    "日本語のエージェント" * 20,
)


def quiet(fake: FakeOperator) -> None:
    """One agent that has done nothing yet."""
    fake.add_agent("calendar-agent", "read:calendar")


def empty(fake: FakeOperator) -> None:
    """A vault without agents."""
    fake.add_event("broker.started")


def busy(fake: FakeOperator) -> dict[str, Any]:
    """The story of the wireframes."""
    agents = {
        name: fake.add_agent(name, *scopes, owner=owner, purpose=purpose)
        for name, owner, scopes, purpose in (
            (
                "calendar-agent",
                "alice@acme.test",
                ("write:calendar", "read:contacts"),
                "Books meetings for the sales team",
            ),
            (
                "payments-agent",
                "bob@acme.test",
                ("send:payment", "read:finance"),
                "Pays approved invoices",
            ),
            ("email-agent", "alice@acme.test", ("send:email", "read:email"), ""),
            ("records-agent", "carol@acme.test", ("read:records",), ""),
            ("finance-agent", "bob@acme.test", ("read:finance",), ""),
            ("research-agent", "dave@acme.test", ("read:email", "read:contacts"), ""),
        )
    }
    calendar, payments = agents["calendar-agent"], agents["payments-agent"]
    calendar["counts"].update(allowed=298, denied=4, escalated=2)
    agents["email-agent"]["counts"].update(allowed=1200, escalated=3)
    agents["records-agent"]["counts"].update(allowed=77, denied=8)
    payments["counts"].update(allowed=12, escalated=9, denied=1)
    agents["finance-agent"]["counts"].update(allowed=41)
    fake.add_token(calendar, "write:calendar", 41 * 60 + 7)
    fake.add_token(calendar, "read:contacts", 58 * 60 + 40)
    fake.add_token(agents["email-agent"], "send:email", 9 * 60 + 58)
    fake.add_token(agents["records-agent"], "read:records", 41)
    fake.add_token(agents["finance-agent"], "read:finance", 25 * 60)
    agents["research-agent"].update(
        status="revoked", revoked_at=iso(START - timedelta(minutes=4))
    )
    now = fake.now
    for second in range(14):
        fake.now = now - timedelta(seconds=40 - 2 * second)
        fake.decide(calendar, "write:calendar", "allowed", resource="calendar:primary")
    _answers(fake, agents)
    fake.now = now
    fake.add_stepup(payments)
    fake.add_stepup(
        agents["email-agent"],
        action="send:email",
        scope="send:email",
        resource="mailbox:sales",
        parameters={"recipients": 500},
        risk="medium",
        rule="bulk-sends-need-step-up",
        why="More than 20 people would get it.",
        requested_at=iso(now - timedelta(seconds=4)),
        expires_at=iso(now + timedelta(seconds=296)),
    )
    return agents


def working_day(fake: FakeOperator) -> None:
    """The same story, after a day of work."""
    for number, agent in enumerate(busy(fake).values()):
        hours = range(96)
        fake.past[agent["id"]] = [
            [max(0, (n * 7 + number) % 23 - 6) * (20 < n < 85) for n in hours],
            [3 if n in {30 + number, 61} else 0 for n in hours],
            [int((n + number) % 19 == 0 and n > 40) for n in hours],
        ]


def _answers(fake: FakeOperator, agents: dict[str, Any]) -> None:
    email, records = agents["email-agent"], agents["records-agent"]
    fake.now += timedelta(seconds=4)
    fake.decide(
        email,
        "send:email",
        "escalated",
        resource="mailbox:sales",
        rule="bulk-sends-need-step-up",
        detail={"parameters": {"recipients": 500}},
    )
    fake.decide(email, "send:email", "allowed", resource="mailbox:sales")
    for _ in range(4):
        fake.now += timedelta(seconds=2)
        fake.decide(
            records,
            "delete:records",
            "denied",
            resource="crm:88",
            reason="scope_not_granted",
        )
    fake.add_event("agent.revoked", agents["research-agent"], reason="odd hours")
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
    fake.decide(
        agents["calendar-agent"],
        "write:calendar",
        "allowed",
        resource="calendar:primary",
    )


def flying(fake: FakeOperator) -> None:
    """A held payment, a download, a mail on its way, and services of each kind."""
    research = fake.add_agent("research-agent", "read:email")
    payments = fake.add_agent("payments-agent", "send:payment")
    stepup = fake.add_stepup(payments)
    fake.add_call(research)
    path = "/v1/transfers/acct_42"
    held = {"state": "held", "stepup_id": stepup["id"], "status": None, "bytes_in": 0}
    fake.add_call(payments, service="stripe", method="POST", path=path, **held)
    sending = {"state": "sending", "status": None, "bytes_in": 0, "bytes_out": 3100}
    fake.add_call(research, service="gmail", method="POST", path="/send", **sending)
    fake.add_service("gmail")
    failing = {"health": "failing", "problem": "the service does not answer"}
    fake.add_service("stripe", **failing)
    fake.add_service("slack", health="unused", last_used_at=None)
    fake.broken_files["files.toml"] = HOSTILE[0] + "no origin"


def undelivered(fake: FakeOperator) -> None:
    """A sink that takes nothing, two alerts it never took, and an export behind."""
    busy(fake)
    at = iso(START - timedelta(hours=25))
    for number, title in enumerate(("A person has to decide", HOSTILE[0])):
        fake.dead.append(
            {
                "id": f"msg_{number}",
                "sink": "ops",
                "kind": "needs_person",
                "title": title,
                "events": [number + 1],
                "at": at,
                "died_at": iso(START),
                "problem": "it answered 404",
            }
        )
    known = {"events": [], "seq": 1, "held": 0, "dead": 0, "problem": None}
    known |= {"next_at": None, "sent_at": None, "behind": 0}
    fake.sinks += [
        {**known, "name": "ops", "kind": "slack", "dead": 2, "behind": 3}
        | {"problem": "it answered 404"},
        {**known, "name": "siem", "kind": "syslog", "sent_at": iso(START)},
        {**known, "name": "night", "kind": "email", "held": 4},
    ]


def panic(fake: FakeOperator) -> None:
    """Everything stopped."""
    busy(fake)
    fake.panic.update(
        on=True, since=iso(START), by="alice", reason="runaway agents in sales"
    )


def ledger_down(fake: FakeOperator) -> None:
    """The disk is full, and the policy file is broken."""
    busy(fake)
    fake.writable = False
    fake.warnings.append(
        "policy.cedar is broken at line 12: the policy loaded at 13:40:02Z is in force"
    )


def hostile(fake: FakeOperator) -> None:
    """Every text an agent can choose is an attack."""
    for number, text in enumerate(HOSTILE):
        agent = fake.add_agent(text, "read:email", text, owner=text, purpose=text)
        fake.add_token(agent, text, 600 + number)
        fake.add_stepup(
            agent, action=text, resource=text, reason=text, parameters={text: text}
        )
        fake.decide(agent, text, "denied", resource=text, reason=text, rule=text)
    fake.warnings.append(HOSTILE[0])


SCENES: dict[str, Callable[[FakeOperator], object]] = {
    "busy": busy,
    "empty": empty,
    "panic": panic,
    "ledger_down": ledger_down,
    "hostile": hostile,
    "quiet": quiet,
}


def console(
    socket: Path,
    folder: Path,
    *,
    theme: str = "agentvault",
    alphabet: str = "no",
    config: Path | None = None,
    clock: Clock | None = None,
) -> ConsoleApp:
    """A console on that socket, with a clock that stands still if no other."""
    return build(
        socket,
        read_only=False,
        settings=ConsoleSettings(theme=theme, ascii=alphabet),
        clock=clock or ManualClock(START),
        memory_folder=folder,
        config_folder=config,
        environ={},
    )


def drawn(app: ConsoleApp) -> str:
    """All that is on the screen, on one line."""
    strips = app.screen._compositor.render_strips()
    return " ".join(" ".join(strip.text for strip in strips).split())


async def settle(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Let the app run until *condition* holds, then paint."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the console did not get there"
        await pilot.pause()
        await asyncio.sleep(0 if condition() else 0.002)
    app: Any = pilot.app
    app.watch_screen.pulse()
    await pilot.pause()


async def live(pilot: Pilot[Any]) -> None:
    """Wait for the link."""
    app: Any = pilot.app
    await settle(pilot, lambda: app.desk.mirror.link.live)


@contextlib.asynccontextmanager
async def running(
    app: ConsoleApp, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Pilot[Any]]:
    """Run *app* headless, connected."""
    async with app.run_test(size=size) as pilot:
        await live(pilot)
        yield pilot


Board = tuple[Pilot[Any], FakeOperator]


@contextlib.asynccontextmanager
async def board(
    short: Path,
    scene: Callable[[FakeOperator], object],
    size: tuple[int, int] = (120, 40),
) -> AsyncIterator[Board]:
    """Run a console, connected, before a scripted broker that holds *scene*."""
    with FakeOperator(short / "s.sock") as fake:
        scene(fake)
        async with running(console(fake.socket, short), size=size) as pilot:
            yield pilot, fake


def advice(agent: str, kind: str, scope: str, **more: Any) -> dict[str, Any]:
    """Return a piece of advice as the broker tells it."""
    evidence = {
        "since": iso(START),
        "until": iso(START),
        "rhythm": "weekly",
        "count": 7,
        **more.pop("evidence", {}),
    }
    change = more.pop("change", {"ungrant": [scope]})
    told = {"id": f"adv_{kind}_{scope[:8]}", "kind": kind, "agent_id": agent}
    return {**told, "scope": scope, "evidence": evidence, "change": change, **more}
