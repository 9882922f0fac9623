"""An agent's screen: opened for one id, exact, calm, by the broker's counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse
from support.console_scenes import (
    HOSTILE,
    SCENES,
    START,
    advice,
    busy,
    console,
    running,
    settle,
    working_day,
)
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.advice import AdviceDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.screens.audit import AuditScreen
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.presenters.glyphs import (
    ASCII,
    FOLDS,
    UNICODE,
    bars,
    fold_for,
    folded,
)
from agentvault_tui.presenters.records import QUARTERS


class Room:
    """A console with the screen of one agent open."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[Any], fake: FakeOperator) -> None:
        self.app, self.pilot, self.fake = app, pilot, fake

    @property
    def screen(self) -> AgentScreen:
        assert isinstance(self.app.screen, AgentScreen)
        return self.app.screen

    @property
    def clock(self) -> ManualClock:
        clock = self.app.desk.mirror.clock
        assert isinstance(clock, ManualClock)
        return clock

    def text(self, name: str) -> str:
        """What stands in one pane, row by row."""
        pane = self.screen.query_one(f"#{name}")
        rows = range(pane.size.height)
        return "\n".join(pane.render_line(y).text.rstrip() for y in rows)

    async def see(self, name: str, text: str) -> None:
        """Let the app run until *text* stands in a pane."""

        def shows() -> bool:
            self.screen.pulse()
            return text in self.text(name)

        await settle(self.pilot, shows)


@asynccontextmanager
async def room(
    fake: FakeOperator, folder: Path, name: str, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Room]:
    app = console(fake.socket, folder)
    async with running(app, size) as pilot:
        agents = app.desk.mirror.agents.values()
        app.watch_screen.visit(next(a.id for a in agents if a.name == name))
        await pilot.press("enter")
        await pilot.pause()
        opened = Room(app, pilot, fake)
        await settle(pilot, lambda: opened.screen.facts.activity is not None)
        opened.screen.pulse()
        yield opened


async def test_enter_opens_and_escape_goes_back(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Over the home screen, which stays where it was."""
    busy(fake)
    async with room(fake, tmp_path, "email-agent") as here:
        assert "email-agent" in here.text("who")
        await here.pilot.press("escape")
        await here.pilot.pause()
        assert here.app.screen is here.app.watch_screen
        chosen = here.app.watch_screen.chosen
        assert chosen is not None
        assert chosen.name == "email-agent"


async def test_the_screen_below_is_drawn_when_it_is_seen_again(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Nothing is drawn where nobody looks; what came meanwhile is there on return."""
    agents = busy(fake)
    async with room(fake, tmp_path, "email-agent") as here:
        home = here.app.watch_screen
        email = agents["email-agent"]
        fake.decide(email, "read:email", "allowed", resource="mailbox:late")
        await here.see("events", "mailbox:late")
        drawn = []
        for pane in home.panes:
            pane.paint = lambda pane=pane: drawn.append(pane.id)  # type: ignore[method-assign, misc]
        home.pulse()
        assert drawn == []
        for pane in home.panes:
            del pane.paint
        await here.pilot.press("escape")
        await here.pilot.pause()
        rows = range(home.audit.size.height)
        assert any("mailbox:late" in home.audit.render_line(y).text for y in rows)


async def test_it_says_who_may_holds_was_refused(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Identity, scopes with risk and use, tokens, refusals, and what a revoke cuts."""
    agents = busy(fake)
    fake.decide(agents["calendar-agent"], "delete:records", "denied", reason="panic")
    async with room(fake, tmp_path, "calendar-agent") as here:
        who, facts = here.text("who"), here.text("facts")
        for words in ("calendar-agent  ACTIVE", agents["calendar-agent"]["id"]):
            assert words in who
        assert "alice@acme.test" in who
        assert "revoking ends 2 tokens, 0 step-ups" in who
        assert "Books meetings for the sales team" in who
        for words in (
            "create and change events in calendars",
            "MEDIUM",
            "used 15 times, last",
            "never used",
            "Asked for   ▲▲ delete:records  not granted · denied 1",
            "2 tokens · none elevated",
            "41:07",
            "1  everything is stopped  last",
            "ends 2 tokens, 0 step-ups, at once",
        ):
            assert words in facts
        assert "events already booked stay" in " ".join(facts.replace("│", "").split())
        assert "15 allowed  1 denied  0 waiting" in here.text("day")


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_limits_and_trials_stand_on_it_and_a_key_gives_back(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int]
) -> None:
    """What is left and when some frees; `b` and `y` end the trial that ends first."""
    email = busy(fake)["email-agent"]["id"]
    limit = {"id": "mails", "scopes": ["send:email"], "agents": [], "per": "agent"}
    more = {"within": "1h", "most": 5, "currency": None, "over": "deny"}
    fake.limits = [limit | more]
    use = {"limit": "mails", "agent_id": email, "agent_name": "email-agent"}
    frees = iso(START + timedelta(minutes=5))
    fake.uses = [use | {"resource": None, "used": 5, "left": 0, "frees_at": frees}]
    trial = advice(email, "unused_scope", "read:email", status="on_trial")
    fake.advice = [trial | {"trial_ends_at": iso(START + timedelta(days=7))}]
    async with room(fake, tmp_path, "email-agent", size) as here:
        shown = here.text("facts") + here.text("who")
        assert "Limits      0 of 5 in 1h left, some frees in 5:00" in shown
        assert "Trial       read:email  unused scope, until 20" in shown
        assert "b restore" in here.text("keys")
        await here.pilot.press("b")
        await settle(here.pilot, lambda: isinstance(here.app.screen, AdviceDialog))
        assert fake.requests == []
        here.clock.advance(0.6)
        dialog: Any = here.app.screen
        await here.pilot.press("y")
        await settle(here.pilot, lambda: bool(dialog.finished))
        assert str(fake.requests[-1][1]).endswith("/give-back")
        here.clock.advance(0.6)
        await here.pilot.press("escape")
        await settle(here.pilot, lambda: isinstance(here.app.screen, AgentScreen))

        def given_back() -> bool:
            here.screen.pulse()
            return here.screen.on_trial is None

        await settle(here.pilot, given_back)
        assert "Trial" not in here.text("facts")
        assert "b restore" not in here.text("keys")


async def test_what_would_be_cancelled_is_named(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """The waiting request stands in what a revoke cuts, before it is pressed."""
    busy(fake)
    async with room(fake, tmp_path, "payments-agent") as here:
        assert "WAITING 1 step-up" in here.text("who")
        facts = here.text("facts")
        assert "ends 0 tokens, 1 step-up" in facts
        assert "4:12 left  send:payment  42.00 USD" in facts


async def test_the_cursor_tells_the_numbers_of_its_quarter(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Keys walk the quarters; without the focus the whole day is told."""
    agents = busy(fake)
    past = [[0] * 96 for _ in range(3)]
    past[0][90], past[1][90], past[2][90] = 31, 2, 1
    fake.past[agents["finance-agent"]["id"]] = past
    async with room(fake, tmp_path, "finance-agent") as here:
        assert "Last 24 hours  31 allowed  2 denied  1 waiting" in here.text("day")
        await here.pilot.press("shift+tab")
        assert "14:00-14:15Z  0 allowed" in here.text("day")
        await here.pilot.press(*["left"] * 5)
        assert "12:45-13:00Z  31 allowed  2 denied  1 waiting" in here.text("day")
        await here.pilot.press("home")
        assert "14:15-14:30Z  0 allowed" in here.text("day")
        await here.pilot.press("end")
        assert "14:00-14:15Z" in here.text("day")


async def test_the_cursor_stays_on_its_quarter_when_time_passes(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """The day moves on under it; at now it stays at now."""
    working_day(fake)
    async with room(fake, tmp_path, "calendar-agent") as here:
        await here.pilot.press("shift+tab", "h", "h")
        assert "13:30-13:45Z" in here.text("day")
        before = here.fake.activity_reads
        here.clock.advance(30 * 60)
        fake.act(lambda: setattr(fake, "now", fake.now + timedelta(minutes=30)))
        here.screen.pulse()
        await settle(here.pilot, lambda: fake.activity_reads > before)
        await here.see("day", "13:30-13:45Z")
        await here.pilot.press("end")
        assert "14:30-14:45Z" in here.text("day")


@pytest.mark.slow
async def test_counts_are_read_calmly(fake: FakeOperator, tmp_path: Path) -> None:
    """However much the agent does, the broker is asked once in two seconds."""
    agents = busy(fake)
    async with room(fake, tmp_path, "calendar-agent") as here:
        reads = fake.activity_reads
        for _ in range(20):
            fake.decide(agents["calendar-agent"], "write:calendar", "allowed")
        counts = here.app.desk.mirror.counts
        agent_id = agents["calendar-agent"]["id"]
        await settle(here.pilot, lambda: counts(agent_id).allowed == 333)
        here.screen.pulse()
        assert fake.activity_reads == reads
        here.clock.advance(2)
        await here.see("facts", "used 35 times")
        assert fake.activity_reads == reads + 1


@pytest.mark.slow
async def test_an_agent_that_does_nothing_costs_nothing(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Other agents' events are no reason to read this one's counts."""
    agents = busy(fake)
    async with room(fake, tmp_path, "finance-agent") as here:
        reads = fake.activity_reads
        fake.decide(agents["email-agent"], "read:email", "allowed")
        here.clock.advance(30)
        for _ in range(5):
            here.screen.pulse()
            await here.pilot.pause(0.02)
        assert fake.activity_reads == reads


async def test_tokens_run_out_in_words(fake: FakeOperator, tmp_path: Path) -> None:
    """A countdown, SOON under a minute, EXPIRED for a while, then away."""
    agent = fake.add_agent("mailer", "read:email")
    fake.add_token(agent, "read:email", 61)
    async with room(fake, tmp_path, "mailer") as here:
        assert "1:01" in here.text("facts")
        here.clock.advance(2)
        await here.see("facts", "0:59 SOON")
        here.clock.advance(60)
        await here.see("facts", "EXPIRED  read:email")
        assert "SOON" not in here.text("facts")
        here.clock.advance(60)
        await settle(here.pilot, lambda: _gone(here))


def _gone(here: Room) -> bool:
    here.screen.pulse()
    return "EXPIRED" not in here.text("facts")


@pytest.mark.slow
async def test_events_are_this_agents_and_page_back(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Thousands back, by pages of the broker, and none of another agent."""
    mailer, other = (fake.add_agent(name, "read:email") for name in ("mailer", "loud"))
    for number in range(300):
        fake.decide(mailer, "read:email", "allowed", resource=f"mail:{number}.")
        fake.decide(other, "read:email", "allowed", resource="noise")
    async with room(fake, tmp_path, "mailer") as here:
        await here.see("events", "mail:299.")
        await here.pilot.press("tab")
        for _ in range(4):
            await here.pilot.press("home")
            await here.pilot.pause(0.05)
        await here.see("events", "mail:0.")
        assert "HELD" in here.text("events")
        assert all(row.agent_id == mailer["id"] for row in here.screen.events.feed.rows)
        await here.pilot.press("escape")
        assert "following" in here.text("events")
        await here.pilot.press("escape")
        await here.pilot.pause()
        assert here.app.screen is here.app.watch_screen


async def test_enter_shows_an_event_in_full(fake: FakeOperator, tmp_path: Path) -> None:
    """On the audit screen, among this agent's events; Esc comes back here."""
    busy(fake)
    async with room(fake, tmp_path, "calendar-agent") as here:
        await here.pilot.press("tab", "k", "k")
        event = here.screen.events.feed.under_cursor
        assert event is not None
        await here.pilot.press("enter")  # shows each of several that are alike
        assert here.screen.events.feed.under_cursor == event
        await here.pilot.press("enter")
        await settle(here.pilot, lambda: isinstance(here.app.screen, AuditScreen))
        audit: Any = here.app.screen
        await settle(here.pilot, lambda: audit.feed.cursor == event.seq)
        assert audit.open
        assert {row.agent_id for row in audit.feed.rows} == {event.agent_id}


async def test_another_agents_name_cannot_slip_in(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """An agent that calls itself by this one's id puts nothing on this screen."""
    agents = busy(fake)
    mine = agents["finance-agent"]["id"]
    liar = fake.add_agent(mine, "read:email")
    fake.decide(liar, "read:email", "denied", resource="planted")
    async with room(fake, tmp_path, "finance-agent") as here:
        assert "planted" not in here.text("events")
        assert "1 denied" not in here.text("day")


@pytest.mark.slow
async def test_keys_act_on_the_agent_it_was_opened_for(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Whatever moves on the home screen meanwhile; also from the palette."""
    agents = busy(fake)
    async with room(fake, tmp_path, "finance-agent") as here:
        here.app.watch_screen.view.put(0)
        for opening in (["r"], ["colon", *"revoke", "enter"]):
            for key in opening:
                await here.pilot.press(key)
                await here.pilot.pause(0.2 if len(opening) > 1 else 0)
            await settle(here.pilot, lambda: isinstance(here.app.screen, RevokeDialog))
            dialog: Any = here.app.screen
            assert dialog.agent.id == agents["finance-agent"]["id"]
            await here.pilot.press("escape")
            await here.pilot.pause()
        await here.pilot.press("y")
        assert here.app.clipboard == agents["finance-agent"]["id"]
        await here.pilot.press("tab", "y")
        assert here.app.clipboard == agents["finance-agent"]["id"] or "dec_" in (
            here.app.clipboard
        )


@pytest.mark.slow
async def test_without_a_link_it_says_what_is_old(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Countdowns are unconfirmed, and the broker is not asked into the void."""
    busy(fake)
    async with room(fake, tmp_path, "calendar-agent") as here:
        await asyncio.to_thread(fake.stop)
        mirror = here.app.desk.mirror
        await settle(here.pilot, lambda: mirror.link.state is LinkState.LOST)
        here.screen.pulse()
        await settle(here.pilot, lambda: "LINK LOST" in here.text("masthead"))
        assert "2 tokens · none elevated unconfirmed" in here.text("facts")
        assert "used 15 times" in here.text("facts")
        await asyncio.to_thread(fake.start)


async def test_counts_that_cannot_be_read_are_told(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """What stood there stays, marked as old, until they can be read again."""
    agents = busy(fake)
    agent_id = agents["calendar-agent"]["id"]
    async with room(fake, tmp_path, "calendar-agent") as here:
        path = f"/api/agents/{agent_id}/activity"
        # Not of any agent: one that is gone leaves the screen once all is read anew.
        fake.answers[path] = lambda: JSONResponse({"detail": "no record"}, 404)

        def told() -> str:
            here.clock.advance(5)  # a reading that fails is tried again after a while
            here.screen.pulse()
            return here.text("facts")

        await settle(here.pilot, lambda: "counts are old: no record" in told())
        assert "used 15 times" in here.text("facts")
        del fake.answers[path]
        await settle(here.pilot, lambda: "counts are old" not in told())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 40), (200, 60), (20, 5)])
async def test_every_pane_can_be_reached_at_every_size(
    fake: FakeOperator, tmp_path: Path, size: tuple[int, int]
) -> None:
    """Tab walks through facts, events and day; each is on the screen when it is on."""
    working_day(fake)
    async with room(fake, tmp_path, "calendar-agent", size) as here:
        for name in ("events", "day", "facts"):
            await here.pilot.press("tab")
            await here.pilot.pause()
            pane = here.screen.query_one(f"#{name}")
            assert here.screen.focused is pane
            assert pane.display
            assert pane.size.height > 0


@pytest.mark.slow
async def test_hostile_words_stay_in_their_place(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """No control character of an agent's reaches any pane of its screen."""
    SCENES["hostile"](fake)
    app = console(fake.socket, tmp_path)
    async with running(app) as pilot:
        for agent in list(app.desk.mirror.agents.values()):
            app.watch_screen.visit(agent.id)
            await pilot.press("enter")
            await pilot.pause()
            here = Room(app, pilot, fake)
            await here.see("facts", "Revoking")
            for pane in ("who", "day", "facts", "events"):
                text = here.text(pane)
                assert all(part.isprintable() for part in text.split("\n"))
                assert not any(raw in text for raw in HOSTILE[:4])
            await pilot.press("escape")
            await pilot.pause()


@pytest.mark.slow
@given(st.lists(st.integers(0, 10**6), min_size=QUARTERS, max_size=QUARTERS))
def test_folding_loses_nothing(numbers: list[int]) -> None:
    """However narrow, the sum stays, and what is not nothing is seen."""
    for fold in FOLDS:
        cells = folded(numbers, fold)
        assert len(cells) == QUARTERS // fold
        assert sum(cells) == sum(numbers)
        for levels in (UNICODE.levels, ASCII.levels):
            drawn = bars(cells, levels)
            assert len(drawn) == len(cells)
            for mark, number in zip(drawn, cells, strict=True):
                assert (mark == levels[0]) is (number == 0)


@given(st.integers(0, 300))
def test_a_day_fits_its_room(cells: int) -> None:
    """As fine as there is room for; never wider than the room, down to eight cells."""
    fold = fold_for(cells)
    assert QUARTERS // fold <= max(cells, 8)
    finer = [each for each in FOLDS if each < fold]
    assert all(QUARTERS // each > cells for each in finer)


async def test_an_empty_day_takes_no_rows(fake: FakeOperator, tmp_path: Path) -> None:
    """Nor is it a pane that Tab stops at; with the first request it is there."""
    busy(fake)
    async with room(fake, tmp_path, "finance-agent") as here:
        assert "day" not in here.screen._boxes
        facts = here.screen._boxes["facts"].height
        assert len(here.screen.stops()) == 2
    working_day(fake)
    async with room(fake, tmp_path, "calendar-agent") as here:
        assert here.screen._boxes["facts"].height < facts
        assert len(here.screen.stops()) == 3


async def test_at_80_columns_the_last_events_are_on_the_first_screen(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """The day is one line there, until it has the focus; facts and events share."""
    working_day(fake)
    async with room(fake, tmp_path, "calendar-agent", (80, 24)) as here:
        await here.see("events", "write:calendar")
        boxes = here.screen._boxes
        assert (boxes["day"].height, boxes["events"].height) == (1, 6)
        assert "24 h" in here.text("day")
        assert "allowed" in here.text("day")
        assert "May" in here.text("facts")
        await here.pilot.press("tab", "tab")
        await here.pilot.pause()
        assert here.screen.focused is here.screen.day
        assert here.screen._boxes["day"].height > 1
