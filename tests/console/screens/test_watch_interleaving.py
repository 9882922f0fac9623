"""Fuzzed: however the agents move under the keys, a cut lands on the one that was seen.

What was seen is read from what is drawn: the marked card, and the dialog's title.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.dialog_stand import Stand, scene
from support.wire_shapes import tell
from textual.app import App
from textual.pilot import Pilot

from agentvault_tui.console.dialogs.revoke import RestoreDialog, RevokeDialog
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.term import textual_theme

KEYS = ["j", "k", "G", "g", "r", "u", "y", "y", "enter", "escape", "tab"]
Steps = list[tuple[str, Any]]
HAPPENS = st.one_of(
    st.tuples(
        st.sampled_from(["asks", "denied", "allowed", "revoked", "restored"]),
        st.integers(0, 9),
    ),
    st.tuples(st.sampled_from(["arrives", "draw"]), st.just(0)),
)
LINK = st.sampled_from([("lost", 0), ("back", 0)])
PRESS = st.tuples(st.just("key"), st.sampled_from(KEYS))
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.1, 0.6, 2.0, 70.0]))
ATTEMPTS = st.tuples(
    st.lists(st.sampled_from("jkgG"), max_size=3),
    st.sampled_from("rru"),
    st.lists(HAPPENS, max_size=3),
    st.sampled_from([0.5, 0.6, 0.7]),
    st.lists(HAPPENS, max_size=2),
).map(
    lambda a: [
        *[("back", 0), ("wait", 0.6), ("key", "escape"), ("key", "escape")],
        *(("key", key) for key in (*a[0], a[1])),
        *a[2],
        ("wait", a[3]),
        *a[4],
        ("key", "y"),
    ]
)
"""What an operator does who means it, with things happening in between."""
PLAYS = st.lists(
    st.one_of(st.lists(st.one_of(HAPPENS, LINK, PRESS, WAIT), max_size=4), ATTEMPTS),
    min_size=4,
    max_size=12,
).map(lambda blocks: [step for block in blocks for step in block])
_CARD = re.compile(r"^▌(agent-\d+|\w+-agent)")
_TITLE = re.compile(r"(Revoke|Restore)  (\S+)")


class WatchApp(App[None]):
    """The home screen over a scene: no broker, scripted decisions."""

    def __init__(self, stand: Stand) -> None:
        super().__init__()
        self.stand = stand
        stand.desk.pulse = 60.0
        self.watch_screen = Watch(stand.desk)
        textual_theme.install(self, "agentvault")

    def get_default_screen(self) -> Watch:
        return self.watch_screen

    def rows(self) -> list[str]:
        strips = self.screen._compositor.render_strips()
        return [strip.text for strip in strips]


def named(app: WatchApp) -> str:
    """The name on the marked card, as drawn."""
    found = [match[1] for row in app.rows() if (match := _CARD.match(row))]
    return found[0] if found else ""


def happen(stand: Stand, what: str, number: int) -> None:
    """Let something happen that moves agents, or what may be done about them."""
    ids = list(stand.mirror.agents)
    one = ids[number % len(ids)]
    happens: dict[str, Callable[[], object]] = {
        "asks": lambda: stand.ask(one, "send:payment"),
        "denied": lambda: _decide(stand, one, "denied"),
        "allowed": lambda: _decide(stand, one, "allowed"),
        "revoked": lambda: stand.agent(one, status="revoked", tokens=[]),
        "restored": lambda: stand.agent(one, status="active"),
        "arrives": lambda: stand.add_agent(f"agent-{len(ids):02}", "send:payment"),
        "lost": lambda: stand.mirror.set_link(LinkState.LOST, "gone"),
        "back": lambda: stand.mirror.set_link(LinkState.LIVE),
    }
    happens[what]()


def _decide(stand: Stand, agent: str, outcome: str) -> None:
    event = stand.state.decide(stand.state.agents[agent], "send:payment", outcome)
    tell(stand.mirror, "audit", event)


async def play(steps: Steps) -> int:
    """Play *steps*; hold each cut against the name that was drawn before its key."""
    stand = scene()
    for number in range(3):
        stand.add_agent(f"agent-{number:02}", "send:payment")
    app, decided = WatchApp(stand), 0
    async with app.run_test(size=(80, 40)) as pilot:
        await pilot.pause()
        for what, value in steps:
            if what == "wait":
                stand.clock.advance(value)
            elif what == "draw":
                _drawn(app)
                await pilot.pause()
            elif what != "key":
                happen(stand, what, value)
            else:
                decided += await _pressed(pilot, app, value)
    return decided


def _drawn(app: WatchApp) -> None:
    screen: Any = app.screen
    (screen.pulse if isinstance(screen, Watch) else screen.update_page)()


async def _pressed(pilot: Pilot[None], app: WatchApp, key: str) -> int:
    """Press a key on what is drawn now; return how many decisions it led to."""
    stand, top = app.stand, app.screen
    _drawn(app)
    await pilot.pause()
    card, rows = named(app), "\n".join(app.rows())
    title = _TITLE.search(rows)
    live, before = stand.mirror.link.live, len(stand.actions.asked)
    await pilot.press(key)
    if deciding := [w for w in app.workers if w.group == "decisions"]:
        await app.workers.wait_for_complete(deciding)
    await pilot.pause()
    opened = app.screen
    if opened is not top and isinstance(opened, RevokeDialog | RestoreDialog):
        assert key in {"r", "u"}
        assert opened.agent.name == card
    asked = stand.actions.asked[before:]
    for decision, agent_id, *_ in asked:
        assert (key, live) == ("y", True)
        assert title is not None
        assert decision == title[1].lower()
        assert stand.state.agents[agent_id]["name"] == title[2]
    assert len(asked) <= 1
    if not isinstance(app.screen, Watch | RevokeDialog | RestoreDialog):
        await app.pop_screen()
        await pilot.pause()
    return len(asked)


@pytest.mark.slow
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(PLAYS)
def test_a_cut_never_lands_on_another_agent(steps: Steps) -> None:
    """Arrivals, requests, refusals and other operators move cards, not the cursor."""
    keys = sum(what == "key" for what, _ in steps)
    assert asyncio.run(play(steps)) <= keys


def test_the_fuzz_does_reach_a_cut() -> None:
    """On a plain path the same player revokes one that has moved meanwhile."""
    steps: Steps = [
        *([("key", "j")] * 3),
        *(("asks", number) for number in (4, 3)),
        ("draw", 0),
        ("key", "r"),
        ("arrives", 0),
        ("asks", 0),
        ("wait", 0.6),
        ("key", "y"),
    ]
    assert asyncio.run(play(steps)) == 1
