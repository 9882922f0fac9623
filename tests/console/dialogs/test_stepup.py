"""The step-up dialog: every key, every refusal, every way it can end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.dialog_stand import DIGEST, ID, Stand, decide, opened, said, scene, text_of

from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.errors import TenantUnreachableError


async def test_approve_sends_the_captured_id_and_digest_then_shows_the_code() -> None:
    """`a` starts the device flow for exactly this request; code and link come first."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", ID, DIGEST)]
        rows = text_of(app).splitlines()
        link = next(n for n, row in enumerate(rows) if "49152/activate" in row)
        code = next(n for n, row in enumerate(rows) if "K D R T - W Z N B" in row)
        assert link < code < 10
        assert "You started this here at 15:04:59Z" in " ".join(text_of(app).split())
        assert "waiting for sign-in" in text_of(app)
        assert "code ends 2:00" in text_of(app)
        assert "request ends 4:11" in text_of(app)


async def test_deny_is_one_key_and_says_who() -> None:
    """`d` denies with no reason, and the dialog says by whom."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "d")
        assert stand.actions.asked == [("deny", ID, "")]
        assert "denied by alice" in text_of(app)


@pytest.mark.slow
async def test_deny_with_a_reason_reaches_the_agent_and_says_so() -> None:
    """`n` asks for the words; in them every key is text, and Enter denies."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("n")
        await pilot.pause()
        assert "The agent will read this" in text_of(app)
        await pilot.press(*"add y", "?")
        assert stand.actions.asked == []
        await decide(app, pilot, "enter")
        assert stand.actions.asked == [("deny", ID, "add y?")]
        assert "Agent reads: add y?" in " ".join(text_of(app).split())


async def test_escape_leaves_the_reason_then_the_dialog() -> None:
    """Esc goes one step out each time, and decides nothing."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("n")
        await pilot.press("x", "escape")
        app.settle()
        assert "The agent will read this" not in text_of(app)
        await pilot.press("v")
        app.settle()
        assert "in full" in text_of(app)
        await pilot.press("escape")
        app.settle()
        assert "in full" not in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, StepUpDialog)
        assert stand.actions.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("key", ["a", "d", "n"])
async def test_no_decision_key_counts_within_600_ms(key: str) -> None:
    """A key 599 ms after opening does nothing but say so; at 600 ms it counts."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        stand.clock.advance(0.599)
        await pilot.press(key)
        await app.workers.wait_for_complete()
        app.dialog.update_page()
        assert stand.actions.asked == []
        assert not app.dialog.telling
        assert "Too soon" in text_of(app)
        stand.clock.advance(0.599)
        await pilot.press(key)
        assert stand.actions.asked == []
        stand.clock.advance(0.6)
        await pilot.press(key)
        await app.workers.wait_for_complete()
        assert stand.actions.asked or app.dialog.telling


async def test_a_key_held_down_never_counts() -> None:
    """Repeats every 50 ms for over a second keep the dialog waiting."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        for _ in range(24):
            stand.clock.advance(0.05)
            await pilot.press("d")
        await app.workers.wait_for_complete()
        assert stand.actions.asked == []


async def test_a_change_makes_keys_wait_again() -> None:
    """A new problem restarts the 600 ms; an agent that repeats itself does not."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        stand.change(ID, count=9)
        app.dialog.update_page()
        assert app.dialog.armed
        stand.change(ID, problem="the code ran out before it was used")
        app.dialog.update_page()
        assert not app.dialog.armed
        await pilot.press("d")
        assert stand.actions.asked == []


async def test_enter_space_and_y_decide_nothing() -> None:
    """None of the keys a hand falls on approves or denies; `y` never approves."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("y", "space", "tab", "enter")
        await app.workers.wait_for_complete()
        assert stand.actions.asked == []
        # The list opens by Enter: pressed once more it must not close what it opened.
        assert isinstance(app.screen, StepUpDialog)


async def test_escape_leaves_and_the_flow_goes_on() -> None:
    """Leaving while the tenant is asked cancels nothing; coming back shows it all."""
    stand = scene()
    stand.actions.hold = asyncio.Event()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("a")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, StepUpDialog)
        stand.actions.hold.set()
        await app.workers.wait_for_complete()
        assert stand.mirror.stepups[ID].status == "authorizing"
        app.push_screen(StepUpDialog(stand.desk, stand.mirror.stepups[ID]))
        await pilot.pause()
        assert "You started this here at 15:04:59Z" in " ".join(text_of(app).split())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_over_a_code_stands_who_wants_what(size: tuple[int, int]) -> None:
    """The agent, the amount and the payee, and where there is room the facts."""
    stand = scene()
    async with opened(stand, size=size) as (app, pilot):
        app.settle()
        before = " ".join(text_of(app).split())
        await pilot.press("a")
        await app.workers.wait_for_complete()
        await pilot.pause()
        code = " ".join(text_of(app).split())
        headline = stand.mirror.stepups[ID].headline
        assert headline in before
        assert headline in code
        assert code.index(headline) < code.index("and enter")
        assert ("You grant" in code) is (size[0] > 80)
        assert "unverified" in before
        assert "unverified" not in code


async def test_a_second_decision_waits_for_the_first() -> None:
    """While the broker is asked, no other key reaches it."""
    stand = scene()
    stand.actions.hold = asyncio.Event()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("a")
        await pilot.press("d", "a")
        stand.actions.hold.set()
        await app.workers.wait_for_complete()
        assert [asked[0] for asked in stand.actions.asked] == ["approve"]


async def test_another_console_started_the_flow() -> None:
    """A flow begun elsewhere is shown, and said to be another's."""
    stand = scene()
    stand.authorize(ID)
    async with opened(stand) as (app, _):
        assert "Another console started this" in " ".join(text_of(app).split())


async def test_deny_works_while_authorizing() -> None:
    """A code that is out can still be turned down."""
    stand = scene()
    stand.authorize(ID)
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        await decide(app, pilot, "d")
        assert stand.actions.asked == [("deny", ID, "")]


async def test_a_problem_is_told_with_the_way_to_try_again() -> None:
    """What went wrong at the tenant stands on the first stage, with what to do."""
    stand = scene()
    stand.authorize(ID)
    async with opened(stand) as (app, pilot):
        stand.change(
            ID, status="pending", device=None, problem="no second factor was used"
        )
        app.settle()
        shown = " ".join(text_of(app).split())
        assert "Last try no second factor was used. Approve again" in shown
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", ID, DIGEST)]


async def test_who_finds_a_step_up_begun_by_others_gets_a_code_of_their_own() -> None:
    """Nobody waits for another person's code: `a` asks for one."""
    stand = scene()
    stand.change(ID, status="authorizing", device=None)
    async with opened(stand) as (app, pilot):
        app.settle()
        shown = " ".join(text_of(app).split())
        assert "Somebody else approves this, with a code of their own." in shown
        assert "asking the tenant" not in shown
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", ID, stand.mirror.stepups[ID].digest)]


async def test_an_error_is_said_and_nothing_is_claimed() -> None:
    """A refused or failed decision leaves the request as it was, in words."""
    stand = scene()
    stand.actions.error = TenantUnreachableError("the tenant is down", "try later")
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "a")
        assert "Not done: the tenant is down: try later" in text_of(app)
        assert "K D R T" not in text_of(app)


@pytest.mark.parametrize("state", [LinkState.STALE, LinkState.LOST])
async def test_a_stale_link_refuses_decisions_in_words(state: LinkState) -> None:
    """What the broker has not confirmed is not decided on, and its ends are unsure."""
    stand = scene()
    stand.mirror.set_link(state, "it went away")
    async with opened(stand) as (app, pilot):
        for key in ("a", "d", "n"):
            await decide(app, pilot, key)
            assert stand.actions.asked == []
            assert f"The link is {state}" in text_of(app)
            assert "unconfirmed" in text_of(app)


async def test_read_only_refuses_decisions_in_words() -> None:
    """`--read-only` takes no decision, and says how to get a console that does."""
    stand = scene(read_only=True)
    async with opened(stand) as (app, pilot):
        assert "read-only" in text_of(app)
        for key in ("a", "d", "n"):
            await decide(app, pilot, key)
        assert stand.actions.asked == []
        assert "--read-only" in text_of(app)


ENDINGS = [
    ("denied by carol", lambda s: s.deny(ID, "carol", "not ours")),
    ("approved by carol", lambda s: s.approve(ID, "carol")),
    ("expired", lambda s: s.change(ID, status="expired")),
    (
        "the agent was revoked",
        lambda s: s.change(ID, status="cancelled", problem="agent_revoked"),
    ),
    (
        "the panic switch was pressed",
        lambda s: s.change(ID, status="cancelled", problem="panic"),
    ),
]


@pytest.mark.parametrize(("words", "end"), ENDINGS, ids=[w for w, _ in ENDINGS])
async def test_an_ending_from_elsewhere_is_told_and_swallows_keys(
    words: str, end: Callable[[Stand], object]
) -> None:
    """Who or what ended it stands there, and keys of that moment go nowhere."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        end(stand)
        app.dialog.update_page()
        await pilot.press("a", "d", "n", "enter", "escape")
        await app.workers.wait_for_complete()
        assert stand.actions.asked == []
        assert isinstance(app.screen, StepUpDialog)
        assert "decided elsewhere while it was open here" in said(app)
        assert words in " ".join(text_of(app).split())
        stand.clock.advance(0.6)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, StepUpDialog)


async def test_the_reason_being_typed_goes_nowhere_when_someone_else_decides() -> None:
    """Enter at that moment does not deny what is decided already."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        await pilot.press("n")
        await pilot.press(*"no")
        stand.approve(ID, "carol")
        app.dialog.update_page()
        await pilot.press("enter")
        await app.workers.wait_for_complete()
        assert stand.actions.asked == []
        assert "approved by carol" in text_of(app)


async def test_after_approval_the_stages_tick_by_with_their_times() -> None:
    """Who, with what factor, when; then whether the token was used, and when."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "a")
        stand.clock.advance(31)
        stand.approve(ID, "alice")
        stand.clock.advance(2)
        app.settle()
        shown = text_of(app)
        assert "approved by alice" in shown
        assert "factor verified (otp, mfa)" in shown
        assert "not redeemed yet" in shown
        assert "4:57 left" in shown
        stand.redeem(ID)
        app.settle()
        stages = {
            words: row.partition(words)[2].split()[0]
            for row in text_of(app).splitlines()
            for words in ("approved by alice", "code shown", "minted", "redeemed")
            if words in row
        }
        assert stages == {
            "approved by alice": "15:05:30Z",
            "code shown": "15:04:59Z",
            "minted": "15:05:30Z",
            "redeemed": "15:05:33Z",
        }
        assert "The token is spent." in text_of(app)


async def test_no_stage_is_ahead_of_the_brokers_word() -> None:
    """Until the broker says approved, verified and minted stand as not yet."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "a")
        stand.clock.advance(90)
        app.settle()
        for words in ("factor verified", "token minted"):
            assert f"○ {words}" in said(app)
        assert "redeemed" not in said(app)


async def test_an_approval_nobody_used_says_when_it_is_over() -> None:
    """After its five minutes an unused token is said to be expired."""
    stand = scene()
    stand.approve(ID, "alice")
    async with opened(stand) as (app, _):
        stand.clock.advance(301)
        app.settle()
        assert "token expired" in text_of(app)


async def test_a_request_of_another_digest_is_not_approved() -> None:
    """Should the stored digest differ from the one on the screen, `a` refuses."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        stand.change(ID, digest="sha256:ffff" + "09c4" * 15)
        app.settle()
        assert "CHANGED since this was opened: the fingerprint" in said(app)
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        assert "not the one this was opened for" in text_of(app)
        await decide(app, pilot, "d")
        assert stand.actions.asked == [("deny", ID, "")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": {"amount": 1}}, "a parameter"),
        ({"resource": "stripe:acct_9"}, "the resource"),
        ({"agent_name": "payments-agent2"}, "its name"),
        ({"ttl": 86_400}, "how long it lasts"),
        ({"rule": "other", "why": "because", "risk": "low"}, "the rule, why it is"),
    ],
)
async def test_any_fact_that_changes_is_named_and_not_approved(
    change: dict[str, object], words: str
) -> None:
    """Even under the same digest: what was read is what is approved, or nothing."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        app.settle()
        stand.change(ID, **change)
        app.dialog.update_page()
        assert not app.dialog.armed
        assert f"CHANGED since this was opened: {words}" in said(app)
        await decide(app, pilot, "a")
        assert stand.actions.asked == []


async def test_a_request_the_broker_lists_no_more_is_told() -> None:
    """After a resync without it the dialog says so, and counts no time on."""
    stand = scene()
    async with opened(stand) as (app, _):
        del stand.mirror.stepups[ID]
        app.settle()
        assert "The broker lists this request no more" in said(app)


@pytest.mark.slow
async def test_what_came_too_soon_is_told_for_two_seconds() -> None:
    """A change of the request meanwhile does not hide that the key did nothing."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await pilot.press("d")
        assert "Too soon" in said(app)
        stand.change(ID, problem="the code ran out before it was used")
        stand.clock.advance(1)
        app.dialog.update_page()
        assert "Too soon" in said(app)
        stand.clock.advance(1)
        app.dialog.update_page()
        assert "Too soon" not in said(app)
        assert stand.actions.asked == []


async def test_it_survives_a_tiny_screen_and_back() -> None:
    """At 40x10 it stays up without a crash; back at 80x24 all is there again."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await pilot.resize_terminal(40, 10)
        await pilot.pause()
        assert "7F3A" in text_of(app)
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        app.settle()
        assert "You grant" in text_of(app)


async def test_a_denial_that_other_brokers_do_not_know_says_so() -> None:
    """With the team's store away the request can still be approved there."""
    stand = scene()
    stand.actions.unnotified, stand.actions.kept = ("brk_b",), "journal"
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "d")
        shown = [one.message for one in app._notifications]
        assert any("NOT notified: brk_b" in text for text in shown)
        assert any("NOT in the ledger yet" in text for text in shown)
