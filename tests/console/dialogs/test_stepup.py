"""The step-up dialog: every key, every refusal, every way it can end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.dialog_stand import CODE, Stand, StandApp, said, scene, text_of
from textual.pilot import Pilot

from agentvault_tui.console.desk import name_ways
from agentvault_tui.console.dialogs.lists import StepUpsDialog
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.draw.lines import Pen
from agentvault_tui.console.draw.stepup import PastDecisions, StepUpFacts, brief, whole
from agentvault_tui.console.draw.theme import palette
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.state.records import BodyView, LinkState, RepeatRow
from agentvault_tui.console.state.stepups import changes, differs, no_limits
from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.text import Shown

ID = "sup_7f3a"
DIGEST = "sha256:7f3a" + "09c4" * 15


@asynccontextmanager
async def opened(
    stand: Stand, stepup_id: str = ID, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[StandApp, Pilot[None]]]:
    app = StandApp(
        stand, lambda desk: StepUpDialog(desk, stand.mirror.stepups[stepup_id])
    )
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield app, pilot


async def decide(app: StandApp, pilot: Pilot[None], key: str) -> None:
    """Press a key that has had its 600 ms, and let the broker answer."""
    app.settle()
    await pilot.press(key)
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.dialog.update_page()


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
        assert "It was told: add y?" in " ".join(text_of(app).split())


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


LONG = {"to": "N" * 400, "amount": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": LONG},
        {"parameters": {f"p{n}": n for n in range(40)}},
        {"resource": "r" * 300},
        {"agent_name": "n" * 120},
        {"action": "send:" + "x" * 120, "scope": "send:" + "x" * 120},
        {"why": "because " * 40},
    ],
    ids=["value", "many", "resource", "name", "action", "why"],
)
async def test_a_cut_trusted_value_must_be_read_to_its_end_first(
    change: dict[str, object],
) -> None:
    """`a` refuses until `v` has shown the last trusted row; `d` is never held up."""
    stand = scene()
    stand.change(ID, **change)
    async with opened(stand) as (app, pilot):
        app.settle()
        assert "v shows it whole, a waits for it" in said(app)
        await decide(app, pilot, "a")
        assert stand.actions.asked == []
        assert "press v" in text_of(app)
        await decide(app, pilot, "v")
        await decide(app, pilot, "end")
        await decide(app, pilot, "v")
        await decide(app, pilot, "a")
        assert stand.actions.asked == [("approve", ID, DIGEST)]


@pytest.mark.parametrize("held", [False, True], ids=["asked", "held"])
@pytest.mark.parametrize("reason", [None, "Invoice 1881 is due today."])
def test_why_is_not_cut_beside_blank_rows(reason: str | None, held: bool) -> None:
    """What policy says of it is cut only where every row has something."""
    stand, why = scene(), "money leaves the company " * 5
    row = stand.change(ID, why=why, reason=reason)
    body = BodyView("JSON, 15 bytes", (("/amount", "4200"),)) if held else None
    if held:
        row = stand.hold(row.agent_id, b'{"amount":4200}', why=why, reason=reason)
    pen = Pen(palette("agentvault"), stand.desk.glyphs)
    asked = StepUpFacts(row, Shown("bob"), PastDecisions(), stand.clock.now(), body)
    cut_at = []
    for height in range(10, 30):
        rows, cut = brief(asked, pen, 72, height)
        text = " ".join("".join(piece for piece, _ in row) for row in rows)
        whole_why = text.count("company") == 5
        assert whole_why or () not in rows, height
        cut_at += [cut] * (not whole_why)
    assert cut_at
    assert all(cut_at)


async def test_opening_the_full_view_is_not_reading_it() -> None:
    """While trusted rows are still below the edge, `a` keeps refusing."""
    stand = scene()
    stand.change(ID, parameters={"to": "N" * 4000})
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "v")
        await decide(app, pilot, "v")
        await decide(app, pilot, "a")
        assert stand.actions.asked == []


async def test_the_full_view_scrolls_by_every_key() -> None:
    """j k, arrows, pages, Home and End move through it."""
    stand = scene()
    stand.change(ID, parameters={"to": "N" * 4000})
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "v")
        tops = []
        for key in ("j", "down", "pagedown", "k", "up", "pageup", "end", "home"):
            await pilot.press(key)
            tops.append(app.dialog.sheet.top)
        assert tops[:6] == [1, 2, 12, 11, 10, 0]
        assert tops[6] > 40
        assert tops[7] == 0


async def test_a_long_agent_name_leaves_its_id_whole() -> None:
    """However long a name is, the id stands beside it (T-03)."""
    stand = scene()
    stand.change(ID, agent_name="n" * 500)
    async with opened(stand, size=(60, 20)) as (app, _):
        assert stand.mirror.stepups[ID].agent_id in text_of(app)


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (120, 40)])
async def test_the_trusted_facts_stand_whatever_the_reason_is(
    size: tuple[int, int],
) -> None:
    """Neither 10 kB nor 500 newlines, marks or wide letters push a fact away (C15)."""
    hostile = "x" * 10_000 + "\n" * 500 + "e" + "\u0301" * 4000 + "漢" * 2000
    stand = scene()
    stand.change(ID, reason=hostile, resource="stripe:acct_42\n" + "z" * 90)
    async with opened(stand, size=size) as (app, _):
        shown = text_of(app)
        for fact in (
            "7F3A",
            "request ends",
            "send:payment",
            "stripe:acct_42",
            stand.mirror.stepups[ID].agent_id,
            "risk HIGH",
            "payments-need-step-up",
            "unverified",
            "a approve",
        ):
            assert fact in shown


async def test_lures_in_the_agents_words_are_masked_and_counted() -> None:
    """A code or a link in the reason cannot be read, in brief or in full (C27)."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        for _ in range(2):
            shown = text_of(app)
            assert "ABCD" not in shown
            assert "evil" not in shown
            assert "1 code and 1 link masked" in shown
            await decide(app, pilot, "v")
            await decide(app, pilot, "end")


async def test_a_denial_that_other_brokers_do_not_know_says_so() -> None:
    """With the team's store away the request can still be approved there."""
    stand = scene()
    stand.actions.unnotified, stand.actions.kept = ("brk_b",), "journal"
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "d")
        shown = [one.message for one in app._notifications]
        assert any("NOT notified: brk_b" in text for text in shown)
        assert any("NOT in the ledger yet" in text for text in shown)


async def test_history_tells_what_was_decided_before() -> None:
    """The last ones like it: how many ended how; with room, each with what differs."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        assert stand.actions.read == [ID]
        assert "last 3 like it: 2 approved, 1 denied" in text_of(app)
        await decide(app, pilot, "v")
        await decide(app, pilot, "end")
        assert "denied by bob amount 3900.00 USD (390000 mi" in said(app)
    stand = scene()
    async with opened(stand, size=(120, 40)) as (app, _):
        for row in (
            "denied by bob amount 3900.00 USD (390000 minor units)",
            "approved by carol amount 39",
        ):
            assert row in said(app)


async def test_history_is_read_again_when_one_like_it_is_decided() -> None:
    """A decision that falls meanwhile is in it at once, and keys wait anew."""
    stand = scene()
    pay = stand.mirror.stepups[ID].agent_id
    other = stand.ask(pay, "send:payment", parameters={"amount": 7})
    async with opened(stand) as (app, pilot):
        app.settle()
        stand.deny(other.id, "dave")
        app.dialog.update_page()
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert stand.actions.read == [ID, ID]
        assert "last 4 like it: 2 approved, 2 denied" in text_of(app)
        assert not app.dialog.armed


async def test_a_history_that_cannot_be_read_is_not_made_up() -> None:
    """The dialog says that it is not known, and why; deciding goes on."""
    stand = scene()
    stand.actions.error = TenantUnreachableError("the disk is slow", "try later")
    async with opened(stand) as (app, _):
        assert "Before      not known: the disk is slow" in text_of(app)


async def test_the_first_of_its_kind_says_so() -> None:
    """No history is a fact too."""
    stand = scene()
    calendar = list(stand.mirror.agents)[1]
    first = stand.ask(calendar, "write:calendar")
    async with opened(stand, first.id) as (app, _):
        assert "the first of its kind" in text_of(app)


async def test_repeats_are_told() -> None:
    """A request asked again and again says how often."""
    stand = scene()
    stand.change(ID, count=12)
    async with opened(stand) as (app, _):
        assert "asked 12 times" in text_of(app)


async def test_the_link_is_never_cut() -> None:
    """A long address is broken over rows, whole (half a link leads elsewhere)."""
    stand = scene()
    base = "https://" + "a" * 150 + ".example"
    stand.authorize(ID, base)
    async with opened(stand) as (app, _):
        assert f"{base}/activate" in "".join(
            row.strip("│ \n") for row in text_of(app).splitlines()
        )


@pytest.mark.slow
async def test_the_qr_code_stands_whole_beside_code_and_link() -> None:
    """At 80x24 all 17 rows of it are there; without colour there is none."""
    for no_color in (False, True):
        stand = scene()
        stand.authorize(ID, "https://t.example")
        async with opened(stand) as (app, pilot):
            app.no_color = no_color
            app.dialog.update_page()
            await pilot.pause()
            rows = [
                row for row in text_of(app).splitlines() if "▀" in row or "█" in row
            ]
            assert len(rows) == (0 if no_color else 15)
            assert "K D R T - W Z N B" in text_of(app)
            assert "token minted" in text_of(app)


@pytest.mark.parametrize(
    ("ssh", "line"),
    [
        ("", ""),
        ("10.0.0.9 50222 10.0.0.2 22", "ssh -L 49152:127.0.0.1:49152 10.0.0.2"),
        ("fe80::1 1 ::2 2222", "ssh -p 2222 -L 49152:127.0.0.1:49152 ::2"),
        ("nonsense", ""),
        ("a b $(reboot) 22", ""),
    ],
)
async def test_a_link_of_this_machine_is_no_qr(ssh: str, line: str) -> None:
    """No phone opens 127.0.0.1: the tunnel of this session and the command are told."""
    stand = scene()
    stand.desk.ssh = ssh
    stand.authorize(ID)
    async with opened(stand) as (app, _):
        shown = said(app)
        assert "▀" not in shown
        assert "another device" not in shown
        assert f"agentvault tenant activate {CODE} --user NAME" in shown
        assert (line in shown) if line else ("ssh" not in shown)
        assert "token minted" in shown


def test_the_command_for_another_terminal_names_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only this terminal's environment does, which that one may lack."""
    monkeypatch.setenv("AGENTVAULT_HOME", str(tmp_path))
    desk = scene().desk
    name_ways(desk, Home.locate().socket, {"AGENTVAULT_HOME": str(tmp_path)})
    assert desk.activate == f"agentvault --home {tmp_path} tenant activate"
    assert desk.user == " --user NAME"


def test_in_a_demo_its_own_script_is_named(tmp_path: Path) -> None:
    """There ``agentvault`` need not be on the path, and nobody knows the password."""
    script = tmp_path / "demo" / "approve"
    script.parent.mkdir()
    script.touch(0o700)
    desk = scene().desk
    name_ways(desk, tmp_path / "run" / "agentvault.sock", {})
    assert f"{desk.activate} KDRT-WZNB{desk.user}" == f"{script} KDRT-WZNB"


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


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_a_providers_token_is_told_for_what_it_is(size: tuple[int, int]) -> None:
    """More than this action, and not ours to end: before the yes and after it."""
    stand = scene()
    stand.change(ID, connection="google-oauth2")
    async with opened(stand, size=size) as (app, pilot):

        def told() -> str:
            app.dialog.update_page()
            return " ".join(text_of(app).replace("│", " ").split())

        assert "exactly this" not in told()
        assert "a token of the account at google-oauth2, once" in told()
        app.settle()
        await pilot.press("v")
        seen = ""
        for _ in range(30):
            seen += told().replace(" ", "")  # broken anywhere, even within a word
            await pilot.press("down")
        assert "itmaydoallitsownerallowed" in seen
        assert "worksthereuntiltheproviderendsit" in seen
        await pilot.press("escape")
        stand.approve(ID, "alice")
        assert "then only the provider can end that token" in told()
        assert "take it back." not in told()
        stand.redeem(ID)
        assert "works until the provider ends it" in told()
        assert "spent" not in told()


async def test_an_ordinary_request_cannot_pass_for_a_providers_token() -> None:
    """A resource that reads like a connection's changes nothing of what is told."""
    stand = scene()
    stand.change(ID, resource="connection:google-oauth2", parameters={"account": "c"})
    async with opened(stand) as (app, _):
        assert "exactly this, once" in text_of(app)
        assert "a token of the account" not in text_of(app)


async def test_what_nothing_limits_says_so_first_in_the_colour_of_danger() -> None:
    """Who, with which scope, for how long: in the dialog, in full, and in the list."""
    stand = scene()
    agent = next(iter(stand.mirror.agents))
    row = stand.ask(agent, "send:payment", resource=None)
    words = "NOTHING LIMITS THIS: payments-agent may use send:payment for anything"
    async with opened(stand, row.id) as (app, pilot):
        assert text_of(app).index(words) < text_of(app).index("Agent ")
        assert "once, within 5:00" in said(app)
        assert "exactly this" not in said(app)
        await pilot.press("v")
        assert text_of(app).index(words) < text_of(app).index("Agent ")
    pen = Pen(palette("agentvault"), stand.desk.glyphs)
    asked = StepUpFacts(row, Shown("bob"), PastDecisions(), stand.clock.now())
    for rows in (brief(asked, pen, 76, 20)[0], whole(asked, pen, 76)[0]):
        assert rows[0][0][1] == pen.palette.danger
    named = stand.change(row.id, resource="stripe:acct_42")
    assert not no_limits(named)
    row = stand.change(row.id, resource=None, authorization_details=[{"type": "x"}])
    assert no_limits(row)
    listed = StandApp(stand, StepUpsDialog)
    async with listed.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert text_of(listed).count("NO LIMITS") == 1


@pytest.mark.slow
async def test_every_member_a_resource_server_reads_is_shown() -> None:
    """Objects of other types stand under a label of their own, also in plain mode."""
    stand = scene()
    bank = {"type": "payment_initiation", "creditorAccount": {"iban": "DE02"}}
    row = stand.ask(
        next(iter(stand.mirror.agents)),
        "send:payment",
        parameters={"amount": 12},
        authorization_details=[
            bank,
            {"type": "x", "locations": ["https://bank.example"]},
        ],
        resource_indicator="https://api.example",
    )
    wanted = ["payment_initiation #1: creditorAccount", '{"iban": "DE02"}']
    wanted += ["x #2: locations", "https://bank.example", "resource indicator"]
    async with opened(stand, row.id, (110, 40)) as (app, pilot):
        brief_text = said(app)
        await pilot.press("v")
        rows = sentences.facts(
            StepUpFacts(row, Shown("bob"), PastDecisions(()), stand.clock.now())
        )
        plain = "\n".join(rows)
        for text in (said(app), plain):
            assert all(word in text for word in wanted), text
        assert "Also" in brief_text
        assert '{"iban": "DE02"}' in brief_text
    changed = replace(row, others=())
    assert changes(row, changed) == ("another detail",)
    assert "no x #2: locations" in differs(changed, row)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_who_has_approved_and_who_may_still_is_a_row(
    size: tuple[int, int],
) -> None:
    """Where several people have to, the dialog says so before anybody decides."""
    stand = scene()
    told = Shown("1 of 2 (alice); may still: any approver but alice")
    row = replace(stand.mirror.stepups[ID], approvals=told)
    stand.mirror.stepups[ID] = row
    async with opened(stand, size=size) as (app, _):
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert "Approvals 1 of 2 (alice); may still: any approver but alice" in flat


async def test_m_approves_more_like_it_within_what_is_typed() -> None:
    """How many, how long and the bounds go with the digest that was shown."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "m")
        assert "5 600 amount=5000" in text_of(app)
        await pilot.press(*"3 60 amount=9000")
        await decide(app, pilot, "enter")
        asked = '{"count":3,"within":60,"bounds":{"amount":{"max":9000}}}'
        assert stand.actions.asked == [("approve", ID, DIGEST, asked)]


async def test_a_held_call_is_not_said_to_repeat_within_bounds() -> None:
    """Its bytes are what is approved, and the broker refuses a bound beside them."""
    stand = scene()
    row = stand.hold(stand.mirror.stepups[ID].agent_id, b'{"amount":4200}')
    async with opened(stand, row.id) as (app, pilot):
        await decide(app, pilot, "m")
        assert "exactly these bytes, within SECONDS: 5 600" in text_of(app)
        assert "amount=5000" not in text_of(app)


@pytest.mark.parametrize(
    "typed",
    ["", "5", "0 60", "21 60", "5 3601", "5 60 price=1", "5 60 amount=x", "5 6 7"],
)
async def test_what_is_no_repeat_is_not_sent(typed: str) -> None:
    """It is said what was expected, and the text stays to be mended."""
    stand = scene()
    async with opened(stand) as (app, pilot):
        await decide(app, pilot, "m")
        await pilot.press(*typed, "enter")
        await pilot.pause()
        assert stand.actions.asked == []
        await pilot.press("escape")
        assert "5 600 amount=5000" not in said(app) or typed


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_a_repeat_is_told_first_at_each_stage(size: tuple[int, int]) -> None:
    """Before the factor and beside the code, what is approved besides stands there."""
    stand = scene()
    words = Shown("the next 3 like it within 60 s, amount up to 9,000")
    row = replace(stand.mirror.stepups[ID], repeat=RepeatRow(words, 0, None))
    stand.mirror.stepups[ID] = row
    async with opened(stand, size=size) as (app, pilot):
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert f"NOT ONCE: this also approves {words}." in flat
        await pilot.press("v")
        app.settle()
        assert "NOT ONCE" in text_of(app)
        await pilot.press("v")
        app.settle()
        stand.authorize(ID)
        stand.mirror.stepups[ID] = replace(stand.mirror.stepups[ID], repeat=row.repeat)
        app.dialog.update_page()
        await pilot.pause()
        flat = " ".join(text_of(app).replace("│", " ").split())
        assert f"With {words}." in flat or size == (60, 20)
