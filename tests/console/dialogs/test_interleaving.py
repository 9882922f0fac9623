"""Fuzzed: whatever arrives between keys, a decision lands on what the operator saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.dialog_stand import Stand, StandApp, scene

from agentvault_tui.console.dialogs import base
from agentvault_tui.console.dialogs.lists import StepUpsDialog, open_stepups
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.state.link_state import LinkState

KEYS = ["a", "d", "n", "v", "y", "j", "enter", "escape", "space"]
Steps = list[tuple[str, object]]
HAPPENS = st.one_of(
    st.tuples(
        st.sampled_from(["arrive", "expire", "deny", "approve", "authorize"]),
        st.integers(0, 5),
    ),
    st.tuples(st.sampled_from(["problem", "repeat", "tick"]), st.just(0)),
)
LINK = st.sampled_from([("lose", 0), ("return", 0)])
PRESS = st.tuples(st.just("key"), st.sampled_from(KEYS))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.1, 0.59, 0.6, 2.0]))
ATTEMPTS = st.tuples(
    st.lists(st.just("j"), max_size=2),
    st.lists(HAPPENS, max_size=2),
    st.sampled_from([0.5, 0.6, 0.7]),
    st.lists(HAPPENS, max_size=1),
    st.sampled_from("aadd"),
).map(
    lambda a: [
        *[("return", 0), ("arrive", 0), ("arrive", 0), ("wait", 0.6)],
        *(("key", key) for key in ("escape", "escape", *a[0], "enter")),
        *a[1],
        ("tick", 0),
        ("wait", a[2]),
        *a[3],
        ("key", a[4]),
    ]
)
"""What an operator does who means it, with things happening in between."""
PLAYS = st.lists(
    st.one_of(st.lists(st.one_of(HAPPENS, LINK, PRESS, WAIT), max_size=4), ATTEMPTS),
    min_size=4,
    max_size=12,
).map(lambda blocks: [step for block in blocks for step in block])
EVENTS: dict[str, Callable[[Stand, str], object]] = {
    "expire": lambda stand, one: stand.change(one, status="expired"),
    "deny": lambda stand, one: stand.deny(one, "carol"),
    "approve": lambda stand, one: stand.approve(one, "carol"),
    "authorize": lambda stand, one: stand.authorize(one),
    "problem": lambda stand, one: stand.change(one, problem="the code ran out"),
    "repeat": lambda stand, one: stand.change(one, count=7),
}


@pytest.fixture(scope="module", autouse=True)
def _only_ticks_of_the_play() -> Iterator[None]:
    """Dialogs look at the clock when the play says so.

    Their timer runs by the real clock, the play by one of its own: a look that came in
    between, on a busy machine, made the keys wait anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_TICK", 3600.0)
        yield


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


async def play(steps: Steps) -> int:
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
            await pilot.pause()
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


@pytest.mark.slow
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(PLAYS)
def test_a_decision_never_lands_on_another_request(steps: Steps) -> None:
    """Arrivals, expiries, other operators and link losses between keys change no id."""
    keys = sum(what == "key" for what, _ in steps)
    assert asyncio.run(play(steps)) <= keys


def test_the_fuzz_does_reach_decisions() -> None:
    """The same player, on a plain path, does deny: the property is not empty."""
    steps: Steps = [
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
