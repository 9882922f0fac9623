"""The screen of calls in flight: what is there, and cutting one with `x`, then `y`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from support import console_scenes as scenes
from support.console_scenes import HOSTILE, Board, console, flying, running, settle
from support.dialog_stand import text_of
from support.fake_operator import FakeOperator
from textual.pilot import Pilot

from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.screens.calls import CallsScreen, CutDialog
from agentvault_tui.presenters.moments import size


@pytest.fixture
async def board(short: Path) -> AsyncIterator[Board]:
    async with scenes.board(short, flying) as (pilot, fake):
        await pilot.press("c")
        await settle(pilot, lambda: isinstance(pilot.app.screen, CallsScreen))
        yield pilot, fake


HEADS_LAST = ["request", "for", "moved"]


def rows(pilot: Pilot[Any]) -> list[str]:
    """The rows of calls, as they stand on the screen."""
    lines = text_of(pilot.app).splitlines()
    start = next(n for n, line in enumerate(lines) if "Calls" in line)
    heads = lines[start + 1].split()
    assert [*heads[:3], *heads[-3:]] == ["state", "agent", "service", *HEADS_LAST]
    found = (line.strip("▌▐ ") for line in lines[start + 2 : -1])
    return list(takewhile(lambda line: line != "Services", filter(None, found)))


async def again(pilot: Pilot[Any]) -> None:
    pilot.app.screen.pulse()  # type: ignore[attr-defined]
    await pilot.pause()


async def test_calls_name_their_broker_where_a_team_has_several(short: Path) -> None:
    """By its host; a broker alone is named nowhere."""

    def of_a_team(fake: FakeOperator) -> None:
        flying(fake)
        known = {"version": "1", "since": "", "last_seen_at": "", "alive": True}
        fake.team = {
            "name": "payments",
            "store": "postgresql",
            "brokers": [
                {**known, "id": f"brk_{host}", "host": host, "in_step": True}
                for host in ("gate-north", "gate-south")
            ],
        }
        for call in fake.calls.values():
            call["broker"] = "brk_gate-south"

    for wide in ((80, 24), (120, 40)):
        async with scenes.board(short, of_a_team, size=wide) as (pilot, _):
            await pilot.press("c")
            await settle(pilot, lambda: isinstance(pilot.app.screen, CallsScreen))
            found = rows(pilot)
            assert all("ate-south" in row for row in found)
            assert "POST /v1" in found[0]


async def test_each_call_has_agent_route_age_and_bytes(board: Board) -> None:
    """What waits for a person is first, then the oldest."""
    pilot, _ = board
    held, download, mail = rows(pilot)
    assert held.split()[:5] == [
        *("HELD", "payments-agent", "stripe", "POST", "/v1/transfers/acct_42")
    ]
    assert "0:41" in held
    assert "waits for you" in held
    assert "streaming" in download
    assert "GET /files/export.zip" in download
    assert "41 MB ↓" in download
    assert "3.1 kB ↑" in mail
    assert "2 in flight, 1 held" in text_of(pilot.app)


async def test_x_then_y_cuts_the_call_under_the_cursor(board: Board) -> None:
    """`x` asks, `y` cuts; the row is gone, and no other call was touched."""
    pilot, fake = board
    await pilot.press("j", "x")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CutDialog))
    assert "GET /files/export.zip" in text_of(pilot.app)
    assert fake.requests == []
    pilot.app.desk.mirror.clock.advance(0.6)  # type: ignore[attr-defined]
    await pilot.press("y")
    await settle(pilot, lambda: bool(fake.requests))
    method, path, _ = fake.requests[0]
    assert (method, path) == ("POST", "/api/calls/call_0000000000000001/cut")
    mirror = pilot.app.desk.mirror  # type: ignore[attr-defined]
    await settle(pilot, lambda: len(mirror.calls) == 2)
    mirror.clock.advance(0.6)
    pilot.app.screen.update_page()  # type: ignore[attr-defined]
    assert "✓ cut" in text_of(pilot.app)
    mirror.clock.advance(0.6)
    await pilot.press("escape")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CallsScreen))
    await again(pilot)
    assert len(rows(pilot)) == 2
    assert "export.zip" not in text_of(pilot.app)


async def test_a_revoke_says_which_calls_it_cuts_and_cut(board: Board) -> None:
    """`r` acts on the call's agent: its plan and its outcome count calls in flight."""
    pilot, _ = board
    mirror = pilot.app.desk.mirror  # type: ignore[attr-defined]
    await pilot.press("j", "r")
    await settle(pilot, lambda: isinstance(pilot.app.screen, RevokeDialog))
    assert "0 tokens, 0 step-ups, 2 calls in flight" in text_of(pilot.app)
    mirror.clock.advance(0.6)
    await pilot.press("y")
    await settle(pilot, lambda: len(mirror.calls) == 1)
    await settle(
        pilot, lambda: "2 calls (1 may have taken effect)" in text_of(pilot.app)
    )


async def test_the_audit_opens_from_a_list(board: Board) -> None:
    """`L` opens the whole audit here too, and Esc leads back to the calls."""
    pilot, _ = board
    await pilot.press("L")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AuditScreen))
    await pilot.press("escape")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CallsScreen))
    assert isinstance(pilot.app.screen, CallsScreen)


async def test_the_cursor_is_a_call_and_not_a_row(board: Board) -> None:
    """A call that arrives or ends above moves no cursor."""
    pilot, fake = board
    await pilot.press("j")
    screen = pilot.app.screen
    assert isinstance(screen, CallsScreen)
    before = screen.calls.cursor
    fake.push("call", {**fake.calls["call_0000000000000002"], "state": "ended"})
    await settle(pilot, lambda: len(screen.desk.mirror.calls) == 2)
    assert screen.calls.cursor == before
    await pilot.press("x")
    await settle(pilot, lambda: isinstance(pilot.app.screen, CutDialog))
    fake.push("call", {**fake.calls[before], "state": "ended"})
    await settle(pilot, lambda: before not in screen.desk.mirror.calls)
    pilot.app.screen.update_page()  # type: ignore[attr-defined]
    await pilot.pause()
    assert "It has ended" in text_of(pilot.app)


async def test_enter_looks_at_the_step_up_or_the_agent(board: Board) -> None:
    """A held call leads to its decision, another one to its agent; Esc comes back."""
    pilot, _ = board
    await pilot.press("enter")
    await settle(pilot, lambda: isinstance(pilot.app.screen, StepUpDialog))
    await pilot.press("escape", "j", "enter")
    await settle(pilot, lambda: isinstance(pilot.app.screen, AgentScreen))
    await pilot.press("escape")
    assert isinstance(pilot.app.screen, CallsScreen)
    await pilot.press("escape")
    assert pilot.app.screen is pilot.app.watch_screen  # type: ignore[attr-defined]


async def test_home_names_the_key_while_there_are_calls(board: Board) -> None:
    """The key bar at 120 columns has `c` as long as there is a call to look at."""
    pilot, fake = board
    await pilot.press("escape")
    home = pilot.app.watch_screen  # type: ignore[attr-defined]
    home.pulse()
    assert "c calls" in text_of(pilot.app).splitlines()[-1]
    for call in fake.calls.values():
        fake.push("call", {**call, "state": "ended"})
    await settle(pilot, lambda: not home.desk.mirror.calls)
    home.show_keys()
    await pilot.pause()
    assert "c calls" not in text_of(pilot.app).splitlines()[-1]


async def test_hostile_names_and_paths_are_inert(board: Board) -> None:
    """Whatever an agent puts into a path, a row is one row of displayable text."""
    pilot, fake = board
    agent = fake.add_agent(HOSTILE[0], "read:email")
    for text in HOSTILE:
        fake.add_call(agent, path=text, method="GET", service="x", agent_name=text)
    mirror = pilot.app.desk.mirror  # type: ignore[attr-defined]
    await settle(pilot, lambda: len(mirror.calls) == 3 + len(HOSTILE))
    await again(pilot)
    assert len(rows(pilot)) == 3 + len(HOSTILE)
    assert not {"\x1b", "\x9b", "\u202e", "\u200b"} & {*text_of(pilot.app)}


async def test_without_calls_the_screen_says_so(short: Path) -> None:
    """Nothing in flight is said in words, and `x` does nothing."""
    with FakeOperator(short / "s.sock") as fake:
        fake.add_agent("calendar-agent")
        async with running(console(fake.socket, short), (80, 24)) as pilot:
            await pilot.press("c")
            await settle(pilot, lambda: isinstance(pilot.app.screen, CallsScreen))
            await pilot.press("x")
            assert isinstance(pilot.app.screen, CallsScreen)
            assert "No call is in flight or held." in text_of(pilot.app)


async def test_each_service_says_how_its_last_calls_went(short: Path) -> None:
    """What is wrong with a service comes first, in words; a broken file is told too."""
    with FakeOperator(short / "s.sock") as fake:
        flying(fake)
        async with running(console(fake.socket, short)) as pilot:
            await pilot.press("c")
            app: Any = pilot.app
            await settle(pilot, lambda: bool(getattr(app.screen, "services", None)))
            await settle(pilot, lambda: bool(app.screen.services.rows))
            text = text_of(app)
            low = text.partition("Services")[2].splitlines()[1:5]
            assert low[0].split()[:2] == ["broken", "files.toml"]
            assert "no origin" in low[0]
            assert "\x1b" not in text
            assert low[1].split()[:2] == ["failing", "stripe"]
            assert "the service does not answer" in low[1]
            assert low[2].split()[:2] == ["ok", "gmail"]
            assert "used 12 s ago" in low[2]
            assert "not used since the start" in low[3]


@pytest.mark.parametrize(
    ("result", "reason", "words"),
    [
        ({"ended": "done", "status": 200, "ms": 212}, None, "200 in 212 ms, 3.1 kB"),
        ({"ended": "done", "status": 201, "ms": 20_232}, None, "201 in 20 s, 3.1 kB"),
        (
            {"ended": "cut", "status": 200, "cut_by": {"name": "alice"}},
            None,
            "by alice",
        ),
        ({"ended": "done", "status": 500, "ms": 9}, None, "500 in 9 ms, 3.1 kB"),
        (
            {"ended": "failed", "status": None},
            "upstream_reset",
            "the service closed the connection, after 3.1 kB",
        ),
        ({"ended": "unknown", "bytes_in": None}, None, "the broker stopped"),
    ],
)
async def test_attempt_and_result_are_one_row_that_completes(
    short: Path, result: dict[str, Any], reason: str | None, words: str
) -> None:
    """The row of an allowed call says how it ended, once it has."""
    with FakeOperator(short / "s.sock") as fake:
        agent = fake.add_agent("email-agent", "send:email")
        said = {"action": "send:email", "resource": "mail:outbox"}
        same = {**said, "decision_id": "dec_1"}
        fake.add_event("gateway.attempt", agent, outcome="allowed", **same)
        async with running(console(fake.socket, short), (200, 30)) as pilot:
            app: Any = pilot.app

            def audit() -> list[str]:
                lines = text_of(app).splitlines()
                return [line for line in lines if "mail:outbox" in line]

            (before,) = audit()
            assert before.rstrip().endswith("allowed")
            detail = {"bytes_in": 3_100, **result}
            fake.add_event(
                "gateway.result", agent, reason=reason, detail=detail, **same
            )
            await settle(pilot, lambda: len(app.desk.mirror.events) == 2)
            (after,) = audit()
            word = "failed" if result.get("status") == 500 else result["ended"]
            assert f" {word} " in after
            assert words in app.desk.mirror.events[-1].reason
            if word in {"done", "failed"}:
                assert words in " ".join(text_of(app).split())


def test_sizes_are_rounded_down() -> None:
    """Bytes are written in thousands, with their unit."""
    assert [size(n) for n in (0, 999, 3_100, 41_999_999, 5_000_000_000)] == [
        *("0 B", "999 B", "3.1 kB", "41 MB", "5.0 GB")
    ]
