"""A shadow policy decides everything once, answers nothing, and outlives a restart."""

from __future__ import annotations

import pytest
from support.bench import Bench
from support.policies import CALENDAR, NARROW, THREE_AN_HOUR
from support.stepups import ask

from agentvault_tui.broker.answers import Granted
from agentvault_tui.errors import PolicyError
from agentvault_tui.policy import shipped_policy
from agentvault_tui.watch import shadow as module
from agentvault_tui.watch.shadow import Shadow


def counted(bench: Bench) -> tuple[int, int, list[tuple[str, str, str, int]]]:
    info = bench.broker.deciding.state.shadow
    assert info is not None
    by = [(one.scope, one.was, one.to, one.count) for one in info.by]
    return info.decisions, info.differences, by


async def test_it_answers_nothing_and_counts_what_differs(bench: Bench) -> None:
    """What it would deny is granted; from when it was set on each is counted once."""
    agent, shadow = await bench.agent(), Shadow(bench.broker)
    await ask(bench, agent, CALENDAR)
    await shadow.set(NARROW)
    for _ in range(2):
        assert isinstance(await ask(bench, agent, CALENDAR), Granted)
    await ask(bench, agent)
    await shadow.look()
    await shadow.look()
    assert counted(bench) == (3, 2, [("write:calendar", "allowed", "denied", 2)])
    info = bench.broker.deciding.state.shadow
    assert info is not None
    assert info.version != bench.broker.deciding.policy.version
    await shadow.set("")
    assert bench.broker.deciding.state.shadow is None


async def test_counts_outlive_a_restart(bench: Bench) -> None:
    """What was recorded while nobody counted is counted by the next process."""
    agent, shadow = await bench.agent(), Shadow(bench.broker)
    await shadow.set(NARROW)
    await ask(bench, agent, CALENDAR)
    await shadow.look()
    await shadow.save()
    await ask(bench, agent, CALENDAR)
    async with bench.restarted() as again:
        shadow = Shadow(again.broker)
        shadow.restore()
        await shadow.look()
        assert counted(again) == (2, 2, [("write:calendar", "allowed", "denied", 2)])


async def test_its_own_limits_hold_what_it_allows_also_after_a_restart(
    bench: Bench,
) -> None:
    """Their windows begin empty when it is set, and are filled again by a start."""
    agent, shadow = await bench.agent(), Shadow(bench.broker)
    await ask(bench, agent, CALENDAR)
    await shadow.set(shipped_policy(), THREE_AN_HOUR)
    for _ in range(2):
        await ask(bench, agent, CALENDAR)
    await shadow.look()
    assert counted(bench) == (2, 0, [])
    await shadow.save()
    await ask(bench, agent, CALENDAR)
    async with bench.restarted() as again:
        shadow = Shadow(again.broker)
        shadow.restore()
        await shadow.look()
        await ask(again, again.broker.registry.agent(agent.id), CALENDAR)
        await shadow.look()
        beyond = [("write:calendar", "allowed", "denied", 1)]
        assert counted(again) == (4, 1, beyond)


async def test_limits_that_are_none_are_refused(bench: Bench) -> None:
    """A file that is broken, or lacks a limit that a rule reads, sets nothing."""
    shadow = Shadow(bench.broker)
    reads = shipped_policy() + (
        '\n@id("l") @why("w")\nforbid (principal, action, resource)'
        " when { context.limits.gone.left < 1 };\n"
    )
    for policy, limits in ((shipped_policy(), "[[limits]]\n"), (reads, THREE_AN_HOUR)):
        with pytest.raises(PolicyError):
            await shadow.set(policy, limits)
    assert bench.broker.deciding.state.shadow is None


async def test_a_backlog_is_caught_up_with_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that are cut short count each record exactly once."""
    monkeypatch.setattr(module, "_A_LOOK", 2)
    agent, shadow = await bench.agent(), Shadow(bench.broker)
    await shadow.set(NARROW)
    for _ in range(5):
        await ask(bench, agent, CALENDAR)
    for expected in (2, 4, 5, 5):
        await shadow.look()
        assert counted(bench)[0] == expected


async def test_a_broken_candidate_leaves_the_one_before(bench: Bench) -> None:
    """What is no policy is refused, and what was kept and cannot be read is off."""
    shadow = Shadow(bench.broker)
    await shadow.set(NARROW)
    with pytest.raises(PolicyError):
        await shadow.set("permit (")
    assert bench.broker.deciding.state.shadow is not None
    bench.broker.recording.meta["shadow"] = '{"texts": {"policy": "permit ("}}'
    bench.broker.deciding.state.shadow = None
    Shadow(bench.broker).restore()
    assert bench.broker.deciding.state.shadow is None
