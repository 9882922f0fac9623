"""The queue and the help: a cursor that is a request, keys read from the bindings."""

from __future__ import annotations

import pytest
from support.dialog_stand import Stand, StandApp, scene, text_of

from agentvault_tui.console.dialogs.info import HelpDialog
from agentvault_tui.console.dialogs.lists import StepUpsDialog, open_stepups
from agentvault_tui.console.dialogs.stepup import StepUpDialog


def crowded() -> Stand:
    stand = scene()
    agent = next(iter(stand.mirror.agents))
    stand.ask(agent, "send:payment", id="sup_b", resource="b")
    stand.clock.advance(1)
    stand.ask(agent, "send:payment", id="sup_c", resource="c")
    return stand


async def test_what_waits_is_first_and_the_longest_wait_first() -> None:
    """Waiting requests in order of age, then the decided ones with who."""
    stand = crowded()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        shown = text_of(app)
        marks = [row.fingerprint for row in stand.mirror.open_stepups()]
        places = [shown.index(mark) for mark in marks]
        assert places == sorted(places)
        assert places[-1] < shown.index("Decided lately")
        assert "denied by bob" in shown
        assert "3 waiting" in shown


async def test_arrivals_and_departures_leave_the_cursor_on_its_request() -> None:
    """The cursor is an identity: what Enter opens is what was under it."""
    stand = crowded()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("j")
        assert app.dialog.cursor == "sup_b"
        agent = next(iter(stand.mirror.agents))
        stand.ask(
            agent, "send:payment", id="sup_0", requested_at="2026-11-24T14:00:00Z"
        )
        stand.deny("sup_7f3a", "carol")
        app.dialog.update_page()
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, StepUpDialog)
        assert app.screen.stepup_id == "sup_b"
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, StepUpsDialog)


async def test_after_a_denial_the_cursor_is_on_what_waits_next() -> None:
    """Not on the one just denied: the next Enter is for the next request."""
    stand = crowded()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        queue = app.dialog
        await pilot.press("j", "enter")
        await pilot.pause()
        assert app.screen.stepup_id == "sup_b"
        stand.clock.advance(1)
        await pilot.press("d")
        await app.workers.wait_for_complete()
        stand.clock.advance(1)
        await pilot.press("escape")
        await pilot.pause()
        assert queue.cursor == "sup_c"


async def test_how_much_is_never_cut_in_the_queue() -> None:
    """Where it goes gives way to the amount."""
    stand = scene()
    agent = next(iter(stand.mirror.agents))
    paid = {"amount": 1234567, "currency": "USD"}
    stand.ask(agent, "send:payment", resource="stripe:" + "x" * 60, parameters=paid)
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "12345.67 USD" in text_of(app)


async def test_the_action_of_a_decided_request_is_never_cut() -> None:
    """Who decided gives way to it, also in a narrow terminal."""
    stand = scene()
    stand.deny("sup_7f3a", "a-very-long-name-of-an-operator@acme.example")
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        decided = text_of(app).partition("Decided lately")[2]
        assert decided.count(" send:payment") == 4
        assert decided.count("send:payment 3900.00 USD") == 3
        assert "denied by" in decided


async def test_the_cursor_moves_by_every_key_and_stays_within() -> None:
    """j k and arrows move; the ends hold."""
    stand = crowded()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("k")
        assert app.dialog.cursor == "sup_7f3a"
        await pilot.press("down", "j", "up")
        assert app.dialog.cursor == "sup_b"
        await pilot.press("s")
        await pilot.pause()
        assert not isinstance(app.screen, StepUpsDialog)


async def test_the_cursor_stays_in_sight() -> None:
    """With more requests than rows, the one under the cursor is drawn."""
    stand = scene()
    agent = next(iter(stand.mirror.agents))
    for number in range(30):
        stand.clock.advance(1)
        stand.ask(agent, "send:payment", resource=f"res-{number:02}")
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for _ in range(29):
            app.dialog.action_move(1)
        await pilot.pause()
        assert "res-28" in text_of(app)
        assert "stripe:acct_42" not in text_of(app)


@pytest.mark.slow
async def test_one_request_opens_itself_and_none_says_so() -> None:
    """`s` opens the one that waits at once; with none the queue says that."""
    stand = scene()
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        open_stepups(app, stand.desk)
        await pilot.pause()
        assert isinstance(app.screen, StepUpDialog)
        await pilot.press("escape")
        stand.deny("sup_7f3a", "carol")
        open_stepups(app, stand.desk)
        await pilot.pause()
        assert "Nothing waits for a person." in text_of(app)


async def test_help_lists_the_keys_of_the_place_it_was_asked_from() -> None:
    """`?` shows the keys bound there in that stage, and no others."""
    stand = scene()
    app = StandApp(stand, lambda d: StepUpDialog(d, d.mirror.stepups["sup_7f3a"]))
    async with app.run_test(size=(80, 40)) as pilot:
        await pilot.pause()
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpDialog)
        shown = text_of(app)
        assert "approve, 2nd factor" in shown
        assert "Decide" in shown
        await pilot.press("question_mark")
        await pilot.pause()
        stand.authorize("sup_7f3a")
        app.dialog.update_page()
        await pilot.press("question_mark")
        await pilot.pause()
        assert "approve, 2nd factor" not in text_of(app).split("Keys that work here")[1]


async def test_help_is_in_letters_every_terminal_has() -> None:
    """Keys are named in ASCII, and a long list scrolls."""
    stand = scene(ascii_only=True)
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 12)) as pilot:
        await pilot.pause()
        await pilot.press("question_mark")
        await pilot.pause()
        assert text_of(app).isascii()
        await pilot.press("end")
        assert app.dialog.sheet.top > 0


async def test_help_explains_the_marks_beside_words() -> None:
    """In the terminal's alphabet, with the words for each."""
    for ascii_only, risks in ((False, "▲▲ ▲ ·"), (True, "!! ! .")):
        app = StandApp(scene(ascii_only=ascii_only), StepUpsDialog)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.press("question_mark")
            await pilot.pause()
            body = app.dialog.page(84, 100).body
            told = ["".join(text for text, _ in row) for row in body]
            assert f"  {risks}" in {line[:8].rstrip() for line in told}
            assert any("risk: high, medium, low" in line for line in told)


async def test_the_payee_stays_while_the_approver_is_verified() -> None:
    """The list has room for its beginning, and the amount is whole."""
    stand = scene()
    stand.authorize("sup_7f3a")
    app = StandApp(stand, StepUpsDialog)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        (row,) = [line for line in text_of(app).splitlines() if "verifying" in line]
        assert "pay 4200.00 USD to N" in row
