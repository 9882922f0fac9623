"""How often the console paints: by the kind of link, and never for show over SSH."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.dialog_stand import Stand
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.virtual_time import VirtualLoop
from support.wire_shapes import tell
from textual import constants

from agentvault_tui.console.app import build
from agentvault_tui.console.screens.base import PULSES, beats
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.state.feed import EventWindow
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console_settings import ConsoleSettings

SECONDS = 30


def _frames(speed: str, every: float) -> int:
    """How many frames a stream of events, so far apart, makes in half a minute."""
    clock, state = ManualClock(START), FakeState(START)
    agent = state.add_agent("calendar-agent", "read:calendar")
    mirror = Mirror(clock)
    mirror.set_link(LinkState.LIVE)
    tell(mirror, "agent", agent)
    feed, frames = EventWindow(mirror), 0

    async def paint() -> None:
        nonlocal frames
        async for _ in beats(mirror, PULSES[speed]):
            frames += feed.update()

    async def stream() -> None:
        painting = asyncio.create_task(paint())
        for _ in range(int(SECONDS / every)):
            await asyncio.sleep(every)
            tell(mirror, "audit", state.decide(agent, "read:calendar", "allowed"))
        await asyncio.sleep(1)
        painting.cancel()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(stream())
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("every", [0.01, 0.05])
def test_a_slow_link_halves_the_frames(every: float) -> None:
    """Over the same half minute of events a slow console paints half as often."""
    fast, slow = _frames("fast", every), _frames("slow", every)
    assert fast <= SECONDS * 4 + 4
    assert SECONDS <= slow <= fast / 2 + 1


def test_what_is_read_while_the_console_opens_is_painted_at_once() -> None:
    """The first agents wait for no pulse; once it is live, pulses stand apart."""
    clock = ManualClock(START)
    mirror, looks = Mirror(clock), [0]

    async def paint() -> None:
        async for _ in beats(mirror, 0.25):
            looks[0] += 1

    async def opening() -> None:
        painting = asyncio.create_task(paint())
        for count in (1, 2, 3):
            await asyncio.sleep(0.01)
            assert looks == [count]
            mirror.notify()
        await asyncio.sleep(0.01)
        mirror.set_link(LinkState.LIVE)
        await asyncio.sleep(0.01)
        shown = looks[0]
        mirror.notify()
        await asyncio.sleep(0.1)
        assert looks == [shown]
        await asyncio.sleep(0.2)
        assert looks == [shown + 1]
        painting.cancel()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(opening())


@pytest.mark.parametrize("urgent", ["stepups", "roster", "status"])
def test_what_is_more_than_routine_waits_for_no_pulse(urgent: str) -> None:
    """A step-up, a revocation, a panic or a lost link is painted as it is heard."""
    clock = ManualClock(START)
    mirror, looks = Mirror(clock), [0]
    mirror.set_link(LinkState.LIVE)

    async def paint() -> None:
        async for _ in beats(mirror, 0.25):
            looks[0] += 1

    async def stream() -> None:
        painting = asyncio.create_task(paint())
        await asyncio.sleep(0.01)
        assert looks == [1]
        mirror.versions.events += 1
        mirror.notify()
        await asyncio.sleep(0.01)
        assert looks == [1]
        setattr(mirror.versions, urgent, getattr(mirror.versions, urgent) + 1)
        mirror.notify()
        await asyncio.sleep(0.01)
        assert looks == [2]
        painting.cancel()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(stream())


def test_a_flood_of_routine_is_painted_with_the_second_and_a_denial_at_once() -> None:
    """More rows than the pane has, and nothing but routine, cannot be read."""
    stand = Stand()
    agent = stand.state.add_agent("mailer", "read:email")
    watch = Watch(stand.desk)

    def happen(outcome: str) -> None:
        told = stand.state.decide(agent, "read:email", outcome)
        tell(stand.mirror, "audit", told)

    for _ in range(5):
        happen("allowed")
    assert not watch._feed_due()
    happen("denied")
    assert watch._feed_due()
    watch._fed = stand.mirror.last_seq
    assert watch._feed_due()


def test_few_events_are_painted_one_by_one() -> None:
    """One event every two seconds: each is seen, on either link."""
    assert _frames("fast", 2.0) == _frames("slow", 2.0) == SECONDS // 2


def test_no_second_is_missed() -> None:
    """News just before each second: every one of them is looked at as it begins."""
    clock = ManualClock(START)
    mirror, first = Mirror(clock), dict[int, float]()

    async def look() -> None:
        async for _ in beats(mirror, PULSES["fast"]):
            second, part = divmod((clock.now() - START).total_seconds(), 1)
            first.setdefault(int(second), part)

    async def stream() -> None:
        looking = asyncio.create_task(look())
        await asyncio.sleep(0.9)
        for _ in range(SECONDS):
            mirror.notify()
            await asyncio.sleep(1)
        looking.cancel()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(stream())
    assert list(first) == list(range(SECONDS + 1))
    assert max(first.values()) < PULSES["fast"]


@pytest.mark.parametrize(
    ("environ", "link", "still"),
    [
        ({}, "fast", False),
        ({}, "slow", True),
        ({"SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}, "fast", True),
        ({"SSH_TTY": "/dev/pts/4"}, "fast", True),
    ],
)
def test_nothing_animates_over_ssh(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    link: str,
    still: bool,
) -> None:
    """Over SSH or a slow link nothing moves, whatever TEXTUAL_ANIMATIONS asks for."""
    monkeypatch.setattr(constants, "TEXTUAL_ANIMATIONS", "full")
    app = build(
        tmp_path / "s.sock",
        read_only=False,
        settings=ConsoleSettings(link=link),
        clock=ManualClock(START),
        memory_folder=tmp_path,
        environ=environ,
    )
    assert app.animation_level == ("none" if still else "full")
    assert app.desk.pulse == PULSES[link]
