"""Fuzzed: whatever arrives between keys, a decision lands on what the operator saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.dialog_stand import Stand, StandApp, scene

from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.dialogs.stepups import StepUpsDialog, open_stepups
from agentvault_tui.console.records import LinkState

KEYS = ["a", "d", "n", "v", "y", "j", "enter", "escape", "space"]
STEPS = st.one_of(
    st.tuples(st.just("key"), st.sampled_from(KEYS)),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.59, 0.6, 2.0])),
    st.tuples(
        st.sampled_from(["arrive", "expire", "deny", "approve", "authorize"]),
        st.integers(0, 5),
    ),
    st.tuples(
        st.sampled_from(["lose", "return", "problem", "repeat", "tick"]), st.just(0)
    ),
)


EVENTS: dict[str, Callable[[Stand, str], object]] = {
    "expire": lambda stand, one: stand.change(one, status="expired"),
    "deny": lambda stand, one: stand.deny(one, "carol"),
    "approve": lambda stand, one: stand.approve(one, "carol"),
    "authorize": lambda stand, one: stand.authorize(one),
    "problem": lambda stand, one: stand.change(one, problem="the code ran out"),
    "repeat": lambda stand, one: stand.change(one, count=7),
}


def happen(stand: Stand, what: str, value: float) -> None:
    """Let one thing happen that is not a key."""
    waiting = stand.mirror.open_stepups()
    if what == "wait":
        stand.clock.advance(value)
    elif what == "arrive":
        stand.ask(next(iter(stand.mirror.agents)), "send:payment")
    elif what in {"lose", "return"}:
        stand.mirror.set_link(LinkState.LOST if what == "lose" else LinkState.LIVE)
    elif waiting:
        EVENTS[what](stand, waiting[int(value) % len(waiting)].id)


async def play(steps: list[tuple[str, object]]) -> int:
    """Play *steps*; after each key, compare what was asked with what was on top."""
    stand = scene()
    app = StandApp(stand, StepUpsDialog)
    decided = 0
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for what, value in steps:
            top = app.screen
            if not isinstance(top, StepUpDialog | StepUpsDialog):
                open_stepups(app, stand.desk)
                await pilot.pause()
                top = app.screen
            if what == "tick":
                top.update_page()
                continue
            if what != "key":
                happen(stand, what, float(str(value)))
                continue
            live = stand.mirror.link.live
            before = len(stand.actions.asked)
            await pilot.press(str(value))
            await app.workers.wait_for_complete()
            asked = stand.actions.asked[before:]
            assert len(asked) <= 1
            for decision, stepup_id, detail in asked:
                decided += 1
                assert live
                assert isinstance(top, StepUpDialog)
                assert stepup_id == top.stepup_id
                if decision == "approve":
                    assert value == "a"
                    assert detail == stand.state.stepups[stepup_id]["digest"]
                else:
                    assert value in {"d", "enter"}
    return decided


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.lists(STEPS, min_size=6, max_size=14))
def test_a_decision_never_lands_on_another_request(
    steps: list[tuple[str, object]],
) -> None:
    """Arrivals, expiries, other operators and link losses between keys change no id."""
    keys = sum(what == "key" for what, _ in steps)
    assert asyncio.run(play(steps)) <= keys


def test_the_fuzz_does_reach_decisions() -> None:
    """The same player, on a plain path, does deny: the property is not empty."""
    steps: list[tuple[str, object]] = [
        ("arrive", 0),
        ("tick", 0),
        ("key", "j"),
        ("key", "enter"),
        ("arrive", 0),
        ("expire", 0),
        ("wait", 0.6),
        ("key", "d"),
    ]
    assert asyncio.run(play(steps)) == 1
