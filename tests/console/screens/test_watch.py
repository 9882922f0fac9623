"""The home screen at the keyboard, connected to a scripted broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.console_scenes import SCENES, busy, console, running, settle
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock
from textual.pilot import Pilot

from agentvault_tui.clock import iso
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.panic import LiftDialog, PanicDialog
from agentvault_tui.console.dialogs.revoke import RevokeDialog
from agentvault_tui.console.screens.agent import AgentScreen
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.widgets.pane import Pane
from agentvault_tui.presenters.filters import Filter


class Stage:
    """A console in front of a scripted broker."""

    def __init__(self, fake: FakeOperator, folder: Path) -> None:
        self.fake = fake
        self.app: ConsoleApp = console(fake.socket, folder)
        self.pilot: Pilot[Any]

    @contextlib.asynccontextmanager
    async def on(self, *size: int) -> AsyncIterator[Pilot[Any]]:
        width, height = size or (120, 40)
        async with running(self.app, (width, height)) as pilot:
            self.pilot = pilot
            await pilot.pause()
            yield pilot

    @property
    def watch(self) -> Any:
        return self.app.watch_screen

    def text(self, name: str) -> str:
        """What a pane shows."""
        pane = self.watch.query_one(f"#{name}", Pane)
        rows = (pane.render_line(y).text.rstrip() for y in range(pane.size.height))
        return "\n".join(rows)

    def chosen(self) -> str:
        agent = self.watch.chosen
        return agent.name if agent else ""

    async def see(self, name: str, text: str) -> None:
        await settle(self.pilot, lambda: self._shows(name, text))

    def _shows(self, name: str, text: str) -> bool:
        self.watch.pulse()
        return text in self.text(name)

    @property
    def clock(self) -> ManualClock:
        clock = self.app.desk.mirror.clock
        assert isinstance(clock, ManualClock)
        return clock


@pytest.fixture
def stage(fake: FakeOperator, tmp_path: Path) -> Stage:
    return Stage(fake, tmp_path)


async def test_the_home_screen_says_all_in_words(stage: Stage) -> None:
    """Cards: name, status, scopes with risk, countdown, counts. The head: tenant, link,
    ledger, pace, time. The audit: the reason of a denial and what was granted instead.
    """
    busy(stage.fake)
    async with stage.on():
        cards, head = stage.text("agents"), stage.text("masthead")
        audit = stage.text("audit")
    assert "acme.eu.auth0.com   ● live   ledger ✓ 23 events   6 agents   22 dec" in head
    assert head.endswith("14:02:11Z")
    assert "records-agent  delete:records crm:88" in audit
    assert "not granted; granted: read:records" in audit
    for words in (
        "payments-agent  WAITING 1 step-up",
        "▲▲ send:payment",
        "no live token",
        "calendar-agent  ACTIVE  ◀ burst, 15 in 60 s",
        "41:07",
        "313 allowed",
        "0:41 SOON",
        "◀ 4 denied in 60 s",
        "research-agent  REVOKED",
        "closed here 13:58",
    ):
        assert words in cards


async def test_states_of_cards_stand_below_each_other(stage: Stage) -> None:
    """At 120 columns, whatever the length of the names up to 14 cells."""
    busy(stage.fake)
    async with stage.on():
        rows = [one for one in stage.text("agents").splitlines() if "agent  " in one]
    words = ("WAITING", "ACTIVE", "REVOKED", "EXPIRED")
    states = {one.index(w) for one in rows for w in words if w in one}
    assert len(rows) > 3
    assert len(states) == 1


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_cards_use_the_words_of_the_audit(
    stage: Stage, size: tuple[int, int]
) -> None:
    """Allowed and denied: by these they are filtered too, at every size."""
    busy(stage.fake)
    async with stage.on(*size):
        cards = stage.text("agents")
    assert " allowed" in cards
    assert "WAITING 1 step-up" in cards
    assert not [word for word in ("escalated", " ok", " 0 ", "asked") if word in cards]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_long_name_is_whole_on_the_home_screen(
    stage: Stage, size: tuple[int, int]
) -> None:
    """While columns are free beside it."""
    name = "nightly-reconciliation-agent"
    stage.fake.add_agent(name, "read:email")
    async with stage.on(*size):
        assert name in stage.text("agents")


async def test_a_resource_server_is_told_from_an_agent(stage: Stage) -> None:
    """It is counted apart, stands last, holds nothing and was answered nothing."""
    stage.fake.add_agent("a-server", resource_server=True)
    stage.fake.add_agent("b-agent", "read:email")
    async with stage.on():
        cards = stage.text("agents")
        assert "1 and 1 resource server" in cards
        assert cards.index("b-agent") < cards.index("a-server        RESOURCE SERVER")
        assert cards.count("no live token") == 1
        assert "1 agent " in stage.text("masthead")


@pytest.mark.slow
async def test_the_footer_names_only_keys_that_work(stage: Stage) -> None:
    """Panic and help always, and behind a dialog none of the screen's keys."""
    busy(stage.fake)
    async with stage.on(80, 24):
        for words in ("r revoke", "! panic", "0 matters", "? keys"):
            assert words in stage.text("keys")
        await stage.pilot.press("r")
        await stage.pilot.pause()
        assert stage.text("keys").split() == ["Esc", "back", "^q", "quit"]
        await stage.pilot.press("escape")
        await stage.pilot.pause()
        assert "r revoke" in stage.text("keys")


async def test_nothing_is_opened_for_what_cannot_be_done(stage: Stage) -> None:
    """`u` on a served and `r` on a revoked agent say so; `?` lists neither."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("u")
        assert stage.app.screen is stage.watch
        await stage.pilot.press("question_mark")
        await stage.pilot.pause()
        dialog: Any = stage.app.screen
        listed = {active.binding.id for active in dialog.bindings_there.values()}
        assert {"restore", "undo"}.isdisjoint(listed)
        assert "revoke" in listed
        await stage.pilot.press("escape", "g", *"jjjj")
        assert stage.watch.chosen.revoked
        await stage.pilot.press("r")
        assert stage.app.screen is stage.watch
    told = [each.message for each in stage.app._notifications]
    assert any("is served: there is nothing to restore" in text for text in told)
    assert any("is revoked already; u restores it" in text for text in told)


async def test_a_filter_without_matches_says_how_to_clear_it(stage: Stage) -> None:
    """In the list of agents and in the audit."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("slash", *"zeppelin", "enter")
        stage.watch.pulse()
        for pane in ("agents", "audit"):
            assert "Nothing matches. Esc clears the filter." in stage.text(pane)


async def test_nothing_is_told_before_it_was_read(stage: Stage) -> None:
    """While it connects there are not 0 agents: nobody knows yet."""
    stage.app.desk.link.run = asyncio.Event().wait  # type: ignore[method-assign]
    async with stage.app.run_test(size=(120, 40)) as stage.pilot:
        await stage.pilot.pause()
        shown = stage.text("masthead") + stage.text("agents") + stage.text("audit")
        assert "connecting" in shown
        assert "Not read yet." in shown
        assert "0 " not in shown.partition("connecting")[2].replace(":0", "")


async def test_the_head_says_how_many_brokers_share_the_ledger(stage: Stage) -> None:
    """Those that live; which one lags is a warning of the broker's."""
    busy(stage.fake)
    names = ("id", "host", "version", "since", "last_seen_at")
    known = dict.fromkeys(names, "2026-11-24T10:00:00Z")
    lives = [True, True, True, False]
    brokers = [{**known, "alive": one, "in_step": one, "reason": None} for one in lives]
    stage.fake.team = {"name": "payments", "store": "postgresql", "brokers": brokers}
    async with stage.on():
        assert "ledger ✓ 23 events of 3 brokers" in stage.text("masthead")


async def test_where_it_goes_gives_way_to_how_much(stage: Stage) -> None:
    """An amount is never cut short, also while somebody proves it on a small screen."""
    busy(stage.fake)
    first = min(stage.fake.stepups.values(), key=lambda one: one["requested_at"])
    stage.fake.stepups[first["id"]] = {**first, "status": "authorizing"}
    async with stage.on(80, 24):
        bar = stage.text("waiting")
    assert "42.00 USD" in bar
    assert "stripe:acct_42" not in bar
    assert "verifying · ends 4:12" in bar


@pytest.mark.slow
async def test_what_waits_cannot_be_missed(stage: Stage) -> None:
    """The bar is there while something waits, with count, age and the first of them."""
    busy(stage.fake)
    async with stage.on():
        bar = stage.text("waiting")
        assert "STEP-UP  2 waiting · oldest 0:48" in bar
        assert "payments-agent  send:payment  42.00 USD  stripe:acct_42" in bar
        assert "ends 4:12" in bar
        for stepup in list(stage.fake.stepups.values()):
            decided = {**stepup, "status": "denied"}
            await asyncio.to_thread(stage.fake.push, "stepup", decided)
        mirror = stage.app.desk.mirror
        await settle(stage.pilot, lambda: not mirror.open_stepups())
        # The rows below stay where they are while the operator may be pressing a key.
        assert "none waiting" in stage.text("waiting")
        stage.clock.advance(6)
        stage.watch.pulse()
        assert not stage.watch.waiting.display


async def test_details_follow_the_cursor(stage: Stage) -> None:
    """Every scope in words, every token, and what revoking does and does not."""
    busy(stage.fake)
    async with stage.on(200, 60):
        await stage.pilot.press("j", "j", "j")
        details = " ".join(stage.text("details").split())
    for words in (
        "calendar-agent",
        "create and change events in",
        "2 tokens",
        "58:40",
        "ends 2 tokens, 0 step-ups, at once",
        "events already booked stay",
        "14:02:09 allowed",
    ):
        assert words in details


@pytest.mark.parametrize("keys", [("j", "j", "k"), ("down", "down", "up")])
async def test_keys_move_the_cursor(stage: Stage, keys: tuple[str, ...]) -> None:
    """Letters and arrows do the same."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press(*keys)
        assert stage.chosen() == "email-agent"
        await stage.pilot.press("end")
        assert stage.chosen() == "finance-agent"
        await stage.pilot.press("home")
        assert stage.chosen() == "payments-agent"


async def test_countdowns_run_and_end(stage: Stage) -> None:
    """Every second, SOON under a minute, and gone at zero."""
    agent = stage.fake.add_agent("mailer", "read:email")
    stage.fake.add_token(agent, "read:email", 61)
    async with stage.on():
        assert "1:01" in stage.text("agents")
        stage.clock.advance(1.5)
        await stage.see("agents", "0:59 SOON")
        stage.clock.advance(60)
        await stage.see("agents", "no live token")


async def test_keys_open_dialogs(stage: Stage) -> None:
    """Each opens its dialog, and nothing is decided by that."""
    dialogs = {"s": StepUpsDialog, "r": RevokeDialog}
    dialogs |= {"exclamation_mark": PanicDialog, "question_mark": HelpDialog}
    busy(stage.fake)
    async with stage.on():
        for key, dialog in dialogs.items():
            await stage.pilot.press(key)
            await stage.pilot.pause()
            assert isinstance(stage.app.screen, dialog), key
            await stage.pilot.press("escape")
            await stage.pilot.pause()
            assert stage.app.screen is stage.watch
    assert stage.fake.requests == []


async def test_revoke_is_for_the_agent_under_the_cursor(stage: Stage) -> None:
    """The dialog names it, `y` sends it, and the card shows how fast it was."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("j", "r")
        await stage.pilot.pause()
        dialog = stage.app.screen
        assert isinstance(dialog, RevokeDialog)
        assert dialog.agent.name == "email-agent"
        stage.clock.advance(1)
        await stage.pilot.press("y")
        await settle(stage.pilot, lambda: bool(stage.fake.requests))
        await stage.pilot.press("escape")
        await stage.see("agents", "closed here 1.2 ms")
    ((_, path, body),) = stage.fake.requests
    assert path == "/api/agents/revoke"
    assert body["agent_id"] == dialog.agent.id


async def test_panic_is_on_every_screen(stage: Stage) -> None:
    """The banner stands under the head, and the same key lifts it."""
    SCENES["panic"](stage.fake)
    async with stage.on():
        assert "PANIC: everything is stopped" in stage.text("masthead")
        await stage.pilot.press("exclamation_mark")
        await stage.pilot.pause()
        assert isinstance(stage.app.screen, LiftDialog)


@pytest.mark.slow
async def test_a_ledger_or_tenant_that_does_not_work_is_told(stage: Stage) -> None:
    """In words, with what still works, beside the broken policy's warning."""
    SCENES["ledger_down"](stage.fake)
    async with stage.on():
        head = stage.text("masthead")
        assert "ledger ✗ CANNOT WRITE" in head
        assert "nothing is issued; revoking still works" in head
        assert "policy.cedar is broken at line 12" in head
        stage.fake.fault = "does not hold (event 7: it is missing)"
        await asyncio.to_thread(stage.fake.push_status)
        await stage.see("masthead", "LEDGER DOES NOT HOLD: nothing is issued")
        stage.fake.writable, stage.fake.fault = True, None
        stage.fake.warnings.clear()
        stage.fake.reachable = False
        await asyncio.to_thread(stage.fake.push_status)
        await stage.see("masthead", "ledger ✓")
        await stage.see("masthead", "tenant cannot be reached")


@pytest.mark.slow
async def test_a_lost_link_is_told_and_comes_back(stage: Stage) -> None:
    """What is shown is marked as old; after a restart it says so and goes on."""
    busy(stage.fake)
    async with stage.on(80, 24):
        await asyncio.to_thread(stage.fake.stop)
        await stage.see("masthead", "LINK LOST since 14:02:11Z")
        head = " ".join(stage.text("masthead").split())
        assert "Agents may still be served. From a shell: agentvault panic" in head
        assert "no news since 14:02:11Z" in stage.text("audit")
        lines = stage.text("masthead").splitlines()
        assert any("agentvault serve" in one for one in lines)
        assert any("agentvault panic" in one for one in lines)
        assert "ACTIVE?" in stage.text("agents")
        assert "unconfirmed" in stage.text("agents")
        stage.fake.add_event("broker.started")
        await asyncio.to_thread(stage.fake.start)
        await stage.see("masthead", "The broker restarted at 14:02:11Z")
        assert "● live" in stage.text("masthead")


@pytest.mark.slow
async def test_after_a_slash_the_very_next_byte_is_text(stage: Stage) -> None:
    """Typed in one go, no letter of a filter is ever taken for a command."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("slash", *"rus!", "slash", *"ry")
        await stage.pilot.pause()
        assert stage.app.screen is stage.watch
        assert stage.watch.bar.field.value == "rus!/ry"
    assert stage.fake.requests == []


async def test_filters_narrow_as_they_are_typed(stage: Stage) -> None:
    """Both panes, with what is hidden; Enter keeps, Esc takes one step out."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("slash", *"email")
        await stage.pilot.pause()
        assert "2 of 6, 4 hidden" in stage.text("agents")
        assert "2 of 23, 21 hidden" in stage.text("audit")
        await stage.pilot.press("enter")
        assert stage.watch.focused is stage.watch.agents
        assert "2 of 6" in stage.text("agents")
        await stage.pilot.press("escape")
        await stage.pilot.pause()
        assert "hidden" not in stage.text("agents")


async def test_following_and_holding(stage: Stage) -> None:
    """`f` holds, what arrives is counted, End follows again."""
    agents = busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("f")
        assert "HELD" in stage.text("audit")
        decide = stage.fake.decide
        await asyncio.to_thread(
            decide, agents["email-agent"], "send:email", "allowed", resource="new"
        )
        await stage.see("audit", "+1 new")
        assert "new " not in stage.text("audit").splitlines()[-1]
        await stage.pilot.press("tab", "tab", "end")
        assert "following" in stage.text("audit")


@pytest.mark.slow
async def test_older_events_are_read_when_someone_scrolls(stage: Stage) -> None:
    """Beyond what the console holds it asks the broker, page by page."""
    several = [stage.fake.add_agent(f"mailer-{n}", "read:email") for n in range(45)]
    for number in range(450):
        agent, resource = several[number % 45], f"mail:{number}"
        stage.fake.decide(agent, "read:email", "allowed", resource=resource)
    async with stage.on():
        await stage.pilot.press("tab", "tab")
        for _ in range(8):
            await stage.pilot.press("home")
            await stage.pilot.pause(0.05)
        await stage.see("audit", "mail:0 ")
        rows = stage.watch.feed.rows
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        assert stage.watch.feed.exhausted


@pytest.mark.slow
async def test_an_event_leads_to_its_agent(stage: Stage) -> None:
    """o in the audit puts the agent pane's cursor on the event's agent."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("tab", "tab", "up", "up", "up")
        event = stage.watch.feed.under_cursor
        await stage.pilot.press("o")
        await stage.pilot.pause()
        assert stage.watch.chosen.id == event.agent_id
        assert stage.watch.focused is stage.watch.agents


@pytest.mark.slow
@pytest.mark.parametrize("way", [["s", "i"], ["s", "enter", "i"]], ids=["queue", "one"])
async def test_a_request_leads_to_its_agent(stage: Stage, way: list[str]) -> None:
    """i in the queue or in a request leaves for the agent's screen; Esc goes home."""
    busy(stage.fake)
    async with stage.on():
        for key in way:
            await stage.pilot.press(key)
            await stage.pilot.pause()
        screen = stage.app.screen
        assert isinstance(screen, AgentScreen)
        assert screen.chosen is not None
        assert screen.chosen.name == "payments-agent"
        await stage.pilot.press("escape")
        await stage.pilot.pause()
        assert stage.app.screen is stage.watch


async def test_escape_is_one_step_out(stage: Stage) -> None:
    """From a filter, then from held, then from the details, and never out of it all."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("tab")
        assert stage.watch.focused is stage.watch.details
        await stage.pilot.press("f", "escape")
        assert stage.watch.focused is stage.watch.agents
        await stage.pilot.press("escape")
        assert stage.watch.feed.follow
        await stage.pilot.press("escape", "escape")
        assert stage.app.is_running


async def test_copying_says_what(stage: Stage) -> None:
    """An id goes to the clipboard, by the key alone."""
    agents = busy(stage.fake)
    async with stage.on():
        assert stage.app.clipboard == ""
        await stage.pilot.press("y")
        assert stage.app.clipboard == agents["payments-agent"]["id"]
        await stage.pilot.press("tab", "tab", "y")
        assert stage.app.clipboard == stage.fake.events[-1]["decision_id"]


@pytest.mark.slow
async def test_the_palette_knows_commands_and_agents(stage: Stage) -> None:
    """Everything by name: here the cursor goes to an agent."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("colon")
        await stage.pilot.pause(0.2)
        await stage.pilot.press(*"finance")
        await stage.pilot.pause(0.5)
        await stage.pilot.press("enter")
        await stage.pilot.pause(0.2)
        assert stage.chosen() == "finance-agent"


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 40)])
async def test_an_empty_vault_says_how_to_begin(
    stage: Stage, size: tuple[int, int]
) -> None:
    """The first agent is one command away, and the command is there."""
    SCENES["empty"](stage.fake)
    async with stage.on(*size):
        assert "agentvault agents add" in stage.text("agents")


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (119, 40)])
async def test_below_120_columns_the_screen_stacks(
    stage: Stage, size: tuple[int, int]
) -> None:
    """Agents have one line each, eight at most; the feed has the full width."""
    busy(stage.fake)
    for number in range(9):
        stage.fake.add_agent(f"agent-{number}", "read:email")
    async with stage.on(*size):
        agents, audit = stage.watch.agents, stage.watch.audit
        assert audit.size.width == size[0]
        assert 4 <= agents.size.height <= 9
        lines = stage.text("agents").splitlines()
        assert all("agent" in line for line in lines[1:])
        assert lines[1].startswith("▌payments-agent")
        assert not stage.watch.details.display
        await stage.pilot.press("tab")
        assert stage.watch.focused is audit


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["busy", "hostile"])
async def test_any_size_is_survived(stage: Stage, scene: str) -> None:
    """Resized far down or up and back, with every pane in turn, nothing breaks."""
    SCENES[scene](stage.fake)
    async with stage.on() as pilot:
        for size in ((40, 10), (20, 5), (300, 100), (100, 12), (1, 1), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.press("tab", "j", "k", "slash", "a", "escape")
        assert "Agents" in stage.text("agents")


async def test_the_footer_fits_the_focus(stage: Stage) -> None:
    """Only keys that do something here are named."""
    busy(stage.fake)
    async with stage.on():
        await stage.pilot.press("j", "j")
        assert "0 matters  i seen" in stage.text("keys")
        await stage.pilot.press("j", "j")
        assert "u restore" in stage.text("keys")
        await stage.pilot.press("tab", "tab")
        await stage.pilot.pause()
        assert "Enter event" in stage.text("keys")
        await stage.pilot.press("slash")
        await stage.pilot.pause()
        assert "Esc clear" in stage.text("keys")


@pytest.mark.slow
async def test_no_text_an_agent_chose_is_markup(stage: Stage) -> None:
    """Names that would break a markup parser are drawn as they are."""
    SCENES["hostile"](stage.fake)
    async with stage.on():
        assert "[bold red]pay[/] [/b] bad [" in stage.text("agents")
        await stage.pilot.press("y")
        await stage.pilot.press("colon")
        await stage.pilot.pause(0.2)
        await stage.pilot.press(*"pay")
        await stage.pilot.pause(0.4)
        assert stage.app.is_running


async def test_the_restart_notice_goes_away(stage: Stage) -> None:
    """News is news for a minute."""
    busy(stage.fake)
    async with stage.on():
        stage.fake.now += timedelta(seconds=1)
        await asyncio.to_thread(stage.fake.add_event, "broker.started")
        await stage.see("masthead", "The broker restarted")
        stage.clock.advance(2)
        stage.clock.jump_wall(70)
        stage.watch.pulse()
        assert "restarted" not in stage.text("masthead")
        assert iso(stage.clock.now()).startswith("2026-11-24T14:03")


@pytest.mark.slow
async def test_ten_thousand_agents_are_filtered_at_once(stage: Stage) -> None:
    """A filter over very many agents paints within a tenth of a second."""
    for number in range(10_000):
        stage.fake.add_agent(f"agent-{number:05d}", "read:email")
    async with stage.on():
        before = asyncio.get_running_loop().time()
        stage.watch.narrow(Filter.parse("agent-0999"))
        took = asyncio.get_running_loop().time() - before
        assert "10 of 10,000, 9,990 hidden" in stage.text("agents")
    assert stage.app.desk.mirror.link.state is LinkState.LIVE
    assert took < 1.0
