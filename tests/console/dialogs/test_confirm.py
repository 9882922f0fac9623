"""Revoke, restore, panic, lift: one key does it, and nothing else ever does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace
from support.cut_off import half_done, uncredited
from support.dialog_stand import Stand, StandApp, said, scene, text_of
from textual.pilot import Pilot

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.dialogs.confirm import CancelButton
from agentvault_tui.console.dialogs.panic import LiftDialog, PanicDialog
from agentvault_tui.console.dialogs.revoke import RestoreDialog, RevokeDialog
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.errors import LedgerUnwritableError, UnreachableError
from agentvault_tui.presenters.records import UpstreamStep
from agentvault_tui.text import Shown

CALENDAR = "agt_0000000000000002"
PAYMENTS = "agt_0000000000000001"


def revoke(desk: Desk) -> Dialog[Any]:
    return RevokeDialog(desk, desk.mirror.agents[CALENDAR])


def restore(desk: Desk) -> Dialog[Any]:
    return RestoreDialog(desk, desk.mirror.agents[CALENDAR])


def revoked_scene() -> Stand:
    stand = scene()
    stand.agent(CALENDAR, status="revoked", revoked_at="2026-11-24T14:02:11Z")
    return stand


def stopped_scene() -> Stand:
    stand = scene()
    stand.panic("runaway")
    return stand


@asynccontextmanager
async def opened(
    stand: Stand, make: Callable[[Desk], Dialog[Any]]
) -> AsyncIterator[tuple[StandApp, Pilot[None]]]:
    app = StandApp(stand, make)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        yield app, pilot


async def finish(app: StandApp, pilot: Pilot[None]) -> str:
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.dialog.update_page()
    return " ".join(text_of(app).split())


async def test_how_soon_a_revocation_was_answered_is_never_cut() -> None:
    """Also where it cut calls, at 80 columns."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        stand.clock.advance(1)
        await pilot.press("y")
        await finish(app, pilot)
        assert isinstance(app.dialog, RevokeDialog)
        assert app.dialog.answer is not None
        told = structs.replace(app.dialog.answer.answer, calls_cut=12, calls_sent=12)
        app.dialog.answer = replace(app.dialog.answer, answer=told)
        shown = await finish(app, pilot)
        assert "12 calls (12 may have taken effect)" in shown
        assert "3.4 ms" in shown


@pytest.mark.slow
async def test_a_revocation_that_was_undone_elsewhere_claims_nothing() -> None:
    """Once somebody else restored the agent its next request is not refused."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        stand.clock.advance(1)
        await pilot.press("y")
        assert "Its next request is refused" in await finish(app, pilot)
        stand.agent(CALENDAR, status="active")
        shown = await finish(app, pilot)
        assert "Its next request is refused" not in shown
        assert "It was restored since, and is served" in shown


@pytest.mark.slow
async def test_no_key_is_offered_for_what_is_done_already() -> None:
    """Of an agent restored meanwhile the dialog offers no `y`, and it does nothing."""
    stand = scene()
    stand.agent(CALENDAR, status="revoked")
    async with opened(stand, restore) as (app, pilot):
        assert "y restore" in said(app)
        stand.agent(CALENDAR, status="active")
        app.dialog.update_page()
        assert "y restore" not in said(app)
        assert "It is served: there is nothing to restore." in said(app)
        stand.clock.advance(1)
        await pilot.press("y")
        assert stand.actions.asked == []


async def test_the_plan_says_exactly_what_is_cut_and_what_is_not_undone() -> None:
    """Counts of now, and the catalogue's words for every scope."""
    stand = scene()
    async with opened(stand, revoke) as (app, _):
        shown = " ".join(text_of(app).split())
        assert "Revoke calendar-agent" in shown
        assert "Ends 2 tokens, 0 step-ups, at once" in shown
        assert "events already booked stay" in shown
        assert CALENDAR in shown
        stand.agent(CALENDAR, tokens=[])
        app.dialog.update_page()
        assert "Ends 0 tokens" in " ".join(text_of(app).split())


async def test_the_plan_names_accounts_and_what_works_outside() -> None:
    """Whose accounts it uses, who shares them, and until when a token works."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        assert "nothing at the tenant" in " ".join(text_of(app).split())
        stand.agent(
            CALENDAR,
            connections=[{"connection": "google-oauth2"}, {"connection": "\x1b[1m"}],
            shared_with=[{"id": "agt_9", "name": "mail-agent"}],
            outside_until="2099-01-01T10:23:45Z",
        )
        app.dialog.update_page()
        await pilot.pause()  # the dialog grows
        app.dialog.update_page()
        shown = " ".join(text_of(app).split())
        assert "google-oauth2: its account" in shown
        assert "Stays what it shares with mail-agent" in shown
        assert "Works until 10:23:45Z" in shown
        assert "\x1b" not in shown


async def test_the_plan_says_what_becomes_of_tokens_at_each_provider() -> None:
    """Revoked, perhaps for others too, left for others, or beyond anybody's reach."""

    async def plan(*accounts: dict[str, Any]) -> str:
        stand = scene()
        stand.agent(CALENDAR, connections=list(accounts))
        async with opened(stand, revoke) as (app, _):
            return " ".join(text_of(app).replace("│", "").split())

    def account(name: str, **ahead: Any) -> dict[str, Any]:
        return {"connection": name, "at_provider": {"known": True, **ahead}}

    shown = await plan(
        account("google-oauth2", may_cut=[{"name": "mail-\x1b[1magent"}]),
        account("workspace", kept_for=[{"name": "records-agent"}]),
        account("github", known=False),
        account("intranet"),
    )
    assert "google-oauth2: its token at the provider, perhaps for mail-" in shown
    assert "intranet: its token at the provider Stays workspace" in shown
    assert "Stays workspace, which records-agent uses too" in shown
    assert "Works until its own end: a github token; no revoking there" in shown
    for name in ("google-oauth2", "workspace", "github", "intranet"):
        assert shown.count(name) == 1
    assert "\x1b" not in shown
    shown = await plan(account("intranet"))
    assert "intranet: its token at the provider Stays" in shown
    assert "Still works nothing: all its tokens end here" in shown


async def test_the_outcome_names_the_countdown_and_what_is_left_for_whom() -> None:
    """As it stands now, and counted down while the dialog stands."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        shown = await finish(app, pilot)
        assert "Still works nothing: all its tokens have ended" in shown
        assert "Stays" not in shown
        stand.agent(CALENDAR, **half_done(stand.clock.now()))
        await finish(app, pilot)  # the dialog grows
        shown = await finish(app, pilot)
        assert "Stays workspace, which mail-agent uses too" in shown
        assert "Z in 41:07, the last token's end" in shown
        assert "held refresh token confirmed 1.4 s" in shown
        stand.clock.advance(67)
        assert "Z in 40:00, the last token's end" in await finish(app, pilot)
        stand.clock.advance(2400)
        shown = await finish(app, pilot)
        assert "all its tokens have ended" in shown


async def test_the_outcome_says_once_what_keeps_steps_from_being_done() -> None:
    """That this home has no credential is no wait, and three steps are one reason."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        stand.agent(CALENDAR, **uncredited(stand.clock.now()))
        await finish(app, pilot)  # the dialog grows
        shown = await finish(app, pilot)
        assert shown.count("no Management API credential here") == 1
        assert "vault grant no credential" in shown
        assert "revoke at google-oauth2 by hand" in shown


async def test_the_focus_starts_on_cancel_and_enter_cancels() -> None:
    """A hand on Enter leaves everything as it was."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        assert isinstance(app.focused, CancelButton)
        app.settle()
        await pilot.press("enter")
        await pilot.pause()
        assert not isinstance(app.screen, Dialog)
        assert stand.actions.asked == []


async def test_only_y_revokes() -> None:
    """Neither space, letters, nor Enter on any focus revokes; then `y` does."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("space", "a", "d", "r", "x", "Y")
        await pilot.press("tab", "enter", "tab", "space", "shift+tab", "space")
        await app.workers.wait_for_complete()
        assert stand.actions.asked == []
        assert isinstance(app.screen, RevokeDialog)
        app.settle()
        await pilot.press("y")
        shown = await finish(app, pilot)
        assert stand.actions.asked == [("revoke", CALENDAR, " ")]
        assert "closed here 1.2 ms" in shown


async def test_typing_a_reason_with_a_y_revokes_nothing() -> None:
    """In the reason every key is text; Enter and Esc only come back to Cancel."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        for leave in ("enter", "escape"):
            app.settle()
            await pilot.press("e")
            assert isinstance(app.focused, LineInput)
            app.settle()
            await pilot.press("y", "y")
            app.settle()
            await pilot.press(leave)
            await pilot.pause()
            assert isinstance(app.focused, CancelButton)
            assert stand.actions.asked == []
        app.settle()
        await pilot.press("y")
        await finish(app, pilot)
        assert stand.actions.asked == [("revoke", CALENDAR, "yyyy")]


async def test_y_does_not_count_within_600_ms() -> None:
    """`r` and `y` struck together cut nobody off."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        await pilot.press("y")
        stand.clock.advance(0.599)
        await pilot.press("y")
        assert stand.actions.asked == []
        assert "Too soon" in await finish(app, pilot)


async def test_it_acts_on_the_agent_it_was_opened_for() -> None:
    """New agents and new names change nothing about whom `y` revokes."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        for number in range(5):
            stand.add_agent(f"a-{number}", "read:calendar")
        stand.agent(CALENDAR, name="renamed")
        app.settle()
        await pilot.press("y")
        await finish(app, pilot)
        assert stand.actions.asked == [("revoke", CALENDAR, "")]


@pytest.mark.slow
async def test_the_outcome_is_measured_and_follows_the_tenant() -> None:
    """Closed here, confirmed there: each is said when it is true and not before."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        shown = await finish(app, pilot)
        assert "closed here 1.2 ms" in shown
        assert "vault grant confirmed 212 ms" in shown
        assert "refresh token pending" in shown
        assert "answered in 3.4 ms" in shown
        done = UpstreamStep(
            step=Shown("refresh token"), status=Shown("confirmed"), ms=900.0
        )
        agents = stand.mirror.agents
        agents[CALENDAR] = replace(agents[CALENDAR], upstream=(done,))
        assert "refresh token confirmed 900 ms" in await finish(app, pilot)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("ledger", ""),
        ("journal", "the cut journal keeps it"),
        ("stop", "everything is stopped"),
        ("memory", "serves again"),
    ],
)
@pytest.mark.parametrize(
    ("make", "keys"), [(revoke, ["y"]), (PanicDialog, [*"panic", "enter"])]
)
async def test_what_is_not_in_the_ledger_yet_is_said(
    make: Callable[[Desk], Dialog[Any]], keys: list[str], kept: str, words: str
) -> None:
    """Where the cut is kept, and what a restart would do; recorded, not a word."""
    stand = scene()
    stand.actions.kept = kept
    async with opened(stand, make) as (app, pilot):
        app.settle()
        await pilot.press(*keys)
        shown = await finish(app, pilot)
        assert "closed here" in shown
        assert ("In effect, but NOT in the ledger yet" in shown) is (kept != "ledger")
        assert words in " ".join(shown.split())


@pytest.mark.parametrize(
    ("make", "keys"), [(revoke, ["y"]), (PanicDialog, [*"panic", "enter"])]
)
async def test_brokers_that_were_not_notified_are_named(
    make: Callable[[Desk], Dialog[Any]], keys: list[str]
) -> None:
    """With the team's store away the agent still works there: no word says nothing."""
    stand = scene()
    stand.actions.unnotified = ("brk_b", "brk_c")
    async with opened(stand, make) as (app, pilot):
        app.settle()
        await pilot.press(*keys)
        shown = " ".join((await finish(app, pilot)).split())
        assert "NOT notified: brk_b, brk_c" in shown
        assert "nothing: every token" not in shown
        assert "next request is refused" not in shown


async def test_a_broker_without_its_store_promises_nothing_before_a_revocation() -> (
    None
):
    """What still works afterwards is at the brokers that it cannot notify."""
    stand = scene()
    stand.mirror.status = replace(stand.mirror.status, stale=True)
    async with opened(stand, revoke) as (app, _):
        app.settle()
        shown = " ".join(text_of(app).split())
        assert "the team's other brokers are notified" in shown
        assert "all its tokens end" not in shown


async def test_the_outcome_swallows_keys_then_closes() -> None:
    """Keys in flight when it happens do not close what says so."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        await finish(app, pilot)
        await pilot.press("escape", "enter", "y")
        assert isinstance(app.screen, RevokeDialog)
        assert len(stand.actions.asked) == 1
        stand.clock.advance(0.6)
        await pilot.press("enter")
        await pilot.pause()
        assert not isinstance(app.screen, RevokeDialog)


async def test_a_failure_claims_nothing() -> None:
    """An error stays a sentence on the plan, which can be tried again."""
    stand = scene()
    stand.actions.error = LedgerUnwritableError("the disk is full", "free some space")
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        shown = await finish(app, pilot)
        assert "Not done: the disk is full: free some space" in shown
        assert "closed here" not in shown
        stand.actions.error = None
        app.settle()
        await pilot.press("y")
        assert "closed here" in await finish(app, pilot)


@pytest.mark.parametrize(
    ("make", "start"),
    [(revoke, scene), (restore, revoked_scene), (LiftDialog, stopped_scene)],
    ids=["revoke", "restore", "lift"],
)
async def test_stale_and_read_only_refuse_in_words(
    make: Callable[[Desk], Dialog[Any]], start: Callable[[], Stand]
) -> None:
    """Nothing is cut or given on old news, nor by an onlooker."""
    stand = start()
    async with opened(stand, make) as (app, pilot):
        stand.mirror.set_link(LinkState.LOST, "gone")
        app.settle()
        await pilot.press("y")
        assert "The link is lost" in await finish(app, pilot)
        stand.mirror.set_link(LinkState.LIVE)
        stand.desk.link.read_only = True
        app.settle()
        await pilot.press("y")
        assert "read-only" in await finish(app, pilot)
        assert stand.actions.asked == []


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (revoke, scene),
        (restore, revoked_scene),
        (PanicDialog, scene),
        (LiftDialog, stopped_scene),
    ],
    ids=["revoke", "restore", "panic", "lift"],
)
async def test_a_link_that_drops_is_told_while_the_dialog_stands(
    make: Callable[[Desk], Dialog[Any]], start: Callable[[], Stand]
) -> None:
    """Without a key, over an older note, and it goes when the link is back."""
    stand = start()
    async with opened(stand, make) as (app, pilot):
        app.dialog.say("an older note")
        stand.mirror.set_link(LinkState.LOST, "gone")
        assert "The link is lost" in await finish(app, pilot)
        stand.mirror.set_link(LinkState.LIVE)
        shown = await finish(app, pilot)
        assert "The link is lost" not in shown
        assert "an older note" in shown


async def test_a_link_that_breaks_under_way_is_not_called_a_failure() -> None:
    """It may have been cut: that is said, and nothing else is claimed."""
    stand = scene()
    stand.actions.error = UnreachableError("the connection to the broker broke")
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        shown = await finish(app, pilot)
        assert "Not confirmed, so look before trying again" in shown
        assert "Not done" not in shown
        assert "closed here" not in shown


async def test_requests_that_would_be_cancelled_are_named() -> None:
    """What waits for a person ends with the agent: action, resource, time left."""
    stand = scene()
    async with opened(
        stand, lambda desk: RevokeDialog(desk, desk.mirror.agents[PAYMENTS])
    ) as (app, _):
        shown = said(app)
        assert "Ends 0 tokens, 1 step-up, at once" in shown
        assert "4:12 left send:payment 4200.00 USD" in shown


async def test_what_is_revoked_already_is_said() -> None:
    """There is nothing to cut twice."""
    stand = revoked_scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("y")
        assert "revoked already" in await finish(app, pilot)
        assert stand.actions.asked == []


async def test_restore_says_what_comes_back_and_what_does_not() -> None:
    """`y` restores; tokens cut before stay cut."""
    stand = revoked_scene()
    async with opened(stand, restore) as (app, pilot):
        shown = " ".join(text_of(app).split())
        assert "May again write:calendar, read:contacts" in shown
        assert "Stays ended tokens and step-ups" in shown
        app.settle()
        await pilot.press("y")
        assert "served again" in await finish(app, pilot)
        assert stand.actions.asked == [("restore", CALENDAR)]


async def test_restoring_an_active_agent_is_pointless_and_said_so() -> None:
    """An agent that is served needs nothing."""
    stand = scene()
    async with opened(stand, restore) as (app, pilot):
        app.settle()
        await pilot.press("y")
        assert "nothing to restore" in await finish(app, pilot)
        assert stand.actions.asked == []


async def test_panic_needs_the_word_typed() -> None:
    """No key alone, no other word, and no word typed too soon stops everything."""
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        assert "NOT stopped yet" in said(app)
        app.settle()
        await pilot.press("y", "enter")
        assert "Nothing was done" in await finish(app, pilot)
        await pilot.press("backspace", *"panik")
        app.settle()
        await pilot.press("enter")
        assert "Nothing was done" in await finish(app, pilot)
        assert stand.actions.asked == []
        await pilot.press("backspace", "c")
        app.settle()
        await pilot.press("enter")
        shown = await finish(app, pilot)
        assert stand.actions.asked == [("panic", "")]
        assert "Everything is stopped" in shown
        assert "NOT stopped" not in shown
        assert "closed here 1.9 ms" in shown


async def test_enter_stops_everything_wherever_the_focus_is_but_on_cancel() -> None:
    """With a reason typed, the first Enter stops; on Cancel, Enter says it cancels."""
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        app.settle()
        await pilot.press(*"panic", "tab", *"fire", "enter")
        assert "Everything is stopped" in await finish(app, pilot)
        assert stand.actions.asked == [("panic", "fire")]
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        app.settle()
        await pilot.press("tab", *"fire", "enter")
        assert "Nothing was done" in await finish(app, pilot)
        await pilot.press(*"panic", "tab", "tab")
        assert "Enter cancels, and stops nothing" in await finish(app, pilot)
        await pilot.press("enter")
        assert stand.actions.asked == []


async def test_a_reason_can_be_added_once_everything_is_stopped() -> None:
    """It is sent as a second order, which records it."""
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        app.settle()
        await pilot.press(*"panic", "enter")
        await finish(app, pilot)
        app.settle()
        await pilot.press("r", *"leak", "enter")
        assert "The reason is recorded" in await finish(app, pilot)
        assert stand.actions.asked == [("panic", ""), ("panic", "leak")]


async def test_the_outcome_of_a_panic_counts_who_was_stopped_as_its_plan_does() -> None:
    """Agents and resource servers apart, before and after."""
    stand = scene()
    stand.add_agent("payments-api", resource_server=True)
    async with opened(stand, PanicDialog) as (app, pilot):
        assert "of 2 agents and 1 resource server" in said(app)
        app.settle()
        await pilot.press(*"panic", "enter")
        assert "Ended 5 tokens, 2 step-ups of 2 agents and 1 resource server" in (
            (await finish(app, pilot)).replace("│ ", "")
        )


async def test_the_word_may_be_typed_while_cancel_has_the_focus() -> None:
    """The first letter of the word leads to its line."""
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        app.settle()
        await pilot.press("tab", "tab", *"panic", "enter")
        assert "Everything is stopped" in await finish(app, pilot)


async def test_panic_by_paste_does_not_count_within_600_ms() -> None:
    """The word and Enter struck at once stop nothing."""
    stand = scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        await pilot.press(*"panic", "enter")
        assert "Too soon" in await finish(app, pilot)
        assert stand.actions.asked == []


async def test_panic_while_stopped_says_so() -> None:
    """A second panic is told that everything stands already."""
    stand = stopped_scene()
    async with opened(stand, PanicDialog) as (app, pilot):
        app.settle()
        await pilot.press(*"panic", "enter")
        assert "stopped already" in await finish(app, pilot)
        assert stand.actions.asked == []


async def test_lift_says_who_is_served_again() -> None:
    """Since when, by whom, why; then `y` lifts, and singly revoked agents stay so."""
    stand = stopped_scene()
    stand.agent(CALENDAR, status="revoked")
    async with opened(stand, LiftDialog) as (app, pilot):
        shown = said(app)
        assert "By alice" in shown
        assert "Reason runaway" in shown
        assert "Serves 1 agent again" in shown
        assert "1 agent revoked singly" in shown
        app.settle()
        await pilot.press("y")
        assert "Panic lifted" in (shown := await finish(app, pilot))
        assert "lifted 3.1 ms" in shown
        assert stand.actions.asked == [("lift",)]
        stand.clock.advance(9)
        stand.panic("again")
        app.screen.update_page()  # type: ignore[attr-defined]
        await pilot.pause()
        assert "Panic is on again" in (shown := said(app))
        assert "Stopped again, by alice." in shown


async def test_pasted_reasons_are_spelled_out() -> None:
    """What the clipboard hides is shown, and goes to the broker as it was shown."""
    stand = scene()
    async with opened(stand, revoke) as (app, pilot):
        app.settle()
        await pilot.press("e")
        line = app.screen.query_one("#reason", LineInput)
        line.insert_text_at_cursor("a\x1b[2Jb\u202ec")
        await pilot.press("enter")
        app.settle()
        await pilot.press("y")
        await finish(app, pilot)
        assert stand.actions.asked == [("revoke", CALENDAR, "a⟦U+001B⟧[2Jb⟦U+202E⟧c")]


@pytest.mark.parametrize("make", [revoke, PanicDialog])
async def test_a_dialog_opens_without_its_widgets_where_the_console_is_left(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[Desk], Dialog[Any]]
) -> None:
    """ctrl+q right after the key that opens it ends the console with code 0."""
    for kind in (RevokeDialog, PanicDialog):
        monkeypatch.setattr(kind, "inputs", lambda _: [])
    async with opened(scene(), make) as (app, _):
        assert isinstance(app.screen, Dialog)
