"""The console line by line: the same watching, deciding and safety, no screen."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.dialog_stand import scene
from support.fake_operator import FakeOperator
from support.fake_state import START
from support.line_person import at_lines
from support.plain_session import StandSession
from support.wire_shapes import filled, tell

from agentvault_tui.clock import iso
from agentvault_tui.console.plain import sentences
from agentvault_tui.console.plain.session import typed_lines
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.operator_api.answers import ChangeWaitsError
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.shapes import AgentRef
from agentvault_tui.operator_api.stepups import RepeatInfo
from agentvault_tui.presenters.records import TreeRow
from agentvault_tui.presenters.stepup_rows import PastDecisions, StepUpFacts
from agentvault_tui.text import Shown

CALENDAR = "agt_0000000000000002"
DIGEST = "sha256:7f3a" + "09c4" * 15
AFTER = START + timedelta(hours=24)
WAITING = {"id": "chg_1", "fingerprint": "0005", "summary": "restore calendar-agent"}


async def test_approving_shows_the_facts_then_takes_the_fingerprint() -> None:
    """Facts first, the agent's words last and masked, then code and link."""
    session = StandSession(scene())
    shown = await session.type("approve 7f3a")
    told = " ".join(shown.split())
    assert told.index("With to is Northwind GmbH") < told.index("(unverified)")
    assert "ABCD" not in told
    assert "1 code and 1 link masked" in told
    assert "Before last 3 like it: 2 approved, 1 denied" in told
    assert "14:04:11Z denied by bob amount 3900.00 USD (390000 minor un~" in told
    assert told.index("denied by bob") < told.index("(unverified)")
    assert session.asked == []
    shown = await session.type("7F3A")
    assert session.asked == [("approve", "sup_7f3a", DIGEST)]
    assert "On this machine open http://127.0.0.1:49152/activate" in shown
    assert "agentvault tenant activate KDRT-WZNB --user NAME" in shown
    assert "and enter KDRT-WZNB" in shown


async def test_more_like_it_are_approved_with_words_that_say_so() -> None:
    """How many, how long and up to what stands before the word that confirms it."""
    session = StandSession(scene())
    shown = await session.type("approve 7F3A 5 600 amount=9000000")
    assert "NOT ONCE: this also approves the next 5 like it within 600 s" in shown
    assert "amount up to 9,000,000" in shown
    assert session.asked == []
    await session.type("7F3A")
    repeat = '{"count":5,"within":600,"bounds":{"amount":{"max":9000000}}}'
    assert session.asked == [("approve", "sup_7f3a", DIGEST, repeat)]


@pytest.mark.parametrize(
    "typed", ["5", "x 600", "21 600", "5 3601", "5 600 to=a", "-1 9"]
)
async def test_a_repeat_that_is_none_approves_nothing(typed: str) -> None:
    """Not the request alone either: nothing was asked that could be confirmed."""
    session = StandSession(scene())
    await session.type(f"approve 7F3A {typed}", "7F3A")
    assert session.asked == []


async def test_what_is_left_of_repeats_is_told_and_ended() -> None:
    """An approval that stands in for a person says so; deny ends that."""
    session = StandSession(scene())
    mirror, now = session.stand.mirror, session.clock.now()
    repeat = RepeatInfo(
        count=5, within=600, bounds={}, left=3, expires_at=now + timedelta(seconds=90)
    )
    approved = replace(mirror.stepups["sup_7f3a"], status="approved", repeat=repeat)
    mirror.stepups["sup_7f3a"] = approved
    told = sentences.of_stepup(approved, now)
    assert "For 1:30 up to 3 more like it need no person; deny 7F3A ends that." in told
    shown = await session.type("deny 7F3A")
    assert "Type 7F3A to end what is left of its repeats" in shown
    await session.type("7F3A")
    assert session.asked == [("deny", "sup_7f3a", "")]


async def test_tree_tells_who_holds_tokens_of_whom() -> None:
    """Each below the one it came from, with what ends with it; of one agent too."""
    session = StandSession(scene())
    ends, actions = session.clock.now() + timedelta(seconds=60), session.stand.actions

    def row(agent_id: str, name: str, depth: int, below: int, tokens: int) -> TreeRow:
        return TreeRow(
            id=Shown(f"tok_{depth}"),
            parent_id=Shown(""),
            agent=AgentRef(id=Shown(agent_id), name=Shown(name)),
            depth=depth,
            scope=Shown("read:web"),
            resource=Shown(""),
            below=below,
            expires_at=ends,
            tokens=tokens,
        )

    rows = (row(CALENDAR, "planner", 0, 2, 1), row("agt_search", "search", 1, 0, 2))
    actions.trees[""] = actions.trees[CALENDAR] = rows
    told = (
        "planner holds 1 token for read:web, 2 tokens below, ends in",
        "delegated, level 1: search holds 2 tokens for read:web, ends in",
        "2 delegated tokens.",
    )
    for line in ("tree", "tree calendar-agent"):
        shown = await session.type(line)
        assert all(words in shown for words in told)
    assert "No single agent is called nobody" in await session.type("tree nobody")


PEOPLE = {
    "you": "con_1",
    "operators": [
        {"id": "con_1", "name": "alice", "face": "plain"},
        {"id": "con_2", "name": "bob", "face": "console", "terminal": "pts/4"},
    ],
}


async def test_other_operators_are_announced() -> None:
    """Who is here at first, then who looks at what and who leaves, each once."""
    session = StandSession(scene())
    mirror = session.stand.mirror
    tell(mirror, "presence", PEOPLE)
    assert "bob on pts/4 is here, at a console." in session.news()
    bob = {**PEOPLE["operators"][1], "looking_at": "sup_7f3a"}  # type: ignore[dict-item]
    tell(mirror, "presence", {"operators": [bob]})
    assert "bob on pts/4 looks at step-up 7F3A." in session.news()
    assert session.news() == ""
    assert "bob on pts/4 looks at step-up 7F3A." in await session.type("who")
    tell(mirror, "presence", {"operators": []})
    assert session.news() == "bob on pts/4 has left.\n"
    assert "Nobody else is connected." in await session.type("who")


async def test_nobody_is_said_to_leave_when_the_link_does() -> None:
    """A lost link is told as one; who is there afterwards is told anew."""
    session = StandSession(scene())
    mirror = session.stand.mirror
    tell(mirror, "presence", PEOPLE)
    session.news()
    mirror.set_link(LinkState.LOST, "gone")
    assert "has left" not in session.news()
    assert "Nobody knows." in await session.type("who")
    mirror.set_link(LinkState.LIVE)
    tell(mirror, "presence", PEOPLE)
    assert "bob on pts/4 is here" in session.news()


async def test_what_is_shown_is_what_the_others_see_open() -> None:
    """Showing a request says so; the next command takes that back."""
    session = StandSession(scene())
    await session.type("show 7F3A")
    assert session.stand.actions.looked[-1] == "sup_7f3a"
    await session.type("list")
    assert session.stand.actions.looked[-1] is None


async def test_any_other_word_cancels_the_decision() -> None:
    """A wrong word, an empty line or `y` confirms nothing."""
    session = StandSession(scene())
    for word in ("", "y", "yes", "7F3", "approve"):
        shown = await session.type("approve 7F3A", word)
        assert "Left as it is." in shown
    assert session.asked == []


async def test_a_line_within_600_ms_confirms_nothing() -> None:
    """The right word within 600 ms was not read by anyone."""
    session = StandSession(scene())
    assert "Too soon" in await session.type("approve 7F3A", "7F3A", wait=0.1)
    assert session.asked == []


async def test_a_confirmation_is_for_what_was_shown() -> None:
    """Arrivals with the same fingerprint between question and word change no id."""
    session = StandSession(scene())
    await session.type("deny 7F3A not ours")
    agent = next(iter(session.stand.mirror.agents))
    session.stand.ask(agent, "send:payment", id="sup_new", fingerprint="7F3A")
    await session.type("7F3A")
    assert session.asked == [("deny", "sup_7f3a", "not ours")]


async def test_a_denial_that_other_brokers_do_not_know_says_so() -> None:
    """With the team's store away the request can still be approved there."""
    session = StandSession(scene())
    session.stand.actions.unnotified = ("brk_b", "brk_c")
    session.stand.actions.kept = "journal"
    shown = await session.type("deny 7F3A", "7F3A")
    assert "NOT notified: brk_b, brk_c" in shown
    assert "NOT in the ledger yet" in shown


async def test_a_question_is_not_buried_and_grows_old() -> None:
    """News waits for the answer, for a minute; then the word is worth nothing."""
    stand = scene()
    session = StandSession(stand)
    session.news()
    await session.type("deny 7F3A")
    event = stand.state.decide(stand.state.agents[CALENDAR], "x:y", "denied")
    tell(stand.mirror, "audit", event)
    assert session.news() == ""
    stand.clock.advance(60)
    assert "denied x:y" in session.news()
    assert "too long ago" in await session.type("7F3A")
    assert session.asked == []


async def test_an_ambiguous_fingerprint_names_nothing() -> None:
    """Two open requests of one fingerprint have to be told by their ids."""
    session = StandSession(scene())
    agent = next(iter(session.stand.mirror.agents))
    session.stand.ask(agent, "send:payment", id="sup_new", fingerprint="7F3A")
    assert "No single step-up is called 7F3A" in await session.type("approve 7F3A")
    await session.type("deny sup_new", "7F3A")
    assert session.asked == [("deny", "sup_new", "")]


async def test_revoking_says_what_is_cut_and_takes_the_name() -> None:
    """Counts, what is not undone, the measured time; `y` and Enter do nothing."""
    session = StandSession(scene())
    shown = await session.type("revoke calendar-agent runaway bookings")
    assert "Revoking ends 2 tokens, 0 step-ups, at once;" in shown
    assert "events already booked stay" in shown
    await session.type("y")
    assert session.asked == []
    shown = await session.type("revoke calendar-agent runaway bookings", CALENDAR)
    assert session.asked == [("revoke", CALENDAR, "runaway bookings")]
    assert (
        "Closed here after 1.2 ms: calendar-agent. Ended: 2 tokens, 0 step-ups."
        in shown
    )
    assert "At the tenant: vault grant confirmed 212 ms." in shown
    assert "revoked already" in await session.type("revoke calendar-agent")


@pytest.mark.parametrize(
    ("line", "confirmed"), [("revoke calendar-agent", CALENDAR), ("panic", "panic")]
)
async def test_what_could_still_be_lost_is_told(line: str, confirmed: str) -> None:
    """In force but not in the ledger: a restart would serve again."""
    session = StandSession(scene())
    session.stand.actions.kept = "memory"
    shown = await session.type(line, confirmed)
    assert "In effect, but NOT in the ledger yet" in shown


async def test_restore_panic_and_lift_take_their_words() -> None:
    """Each is confirmed by typing what it is about."""
    session = StandSession(scene())
    session.stand.agent(CALENDAR, status="revoked")
    await session.type("restore calendar-agent", "calendar-agent")
    await session.type("panic fire", "panic")
    assert "already" in await session.type("panic")
    await session.type("lift", "lift")
    assert session.asked == [("restore", CALENDAR), ("panic", "fire"), ("lift",)]


async def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    """Pointless and unknown commands get a sentence and the next step."""
    session = StandSession(scene())
    assert "nothing to lift" in await session.type("lift")
    assert "nothing to restore" in await session.type("restore calendar-agent")
    assert "There is no command frobnicate" in await session.type("frobnicate it")
    assert "No single agent is called ghost" in await session.type("revoke ghost")
    assert "No single agent or step-up" in await session.type("show")
    assert await session.type("") == ""


@pytest.mark.parametrize(
    "line", ["approve 7F3A", "deny 7F3A", "revoke calendar-agent", "panic"]
)
async def test_read_only_and_a_stale_link_refuse(line: str) -> None:
    """Nothing is asked, let alone done, on old news or by an onlooker."""
    session = StandSession(scene())
    session.stand.mirror.set_link(LinkState.LOST, "gone")
    assert "The link is lost" in await session.type(line)
    session.stand.mirror.set_link(LinkState.LIVE)
    session.stand.desk.link.read_only = True
    assert "read-only" in await session.type(line)
    assert session.asked == []


async def test_a_link_lost_between_question_and_word_refuses() -> None:
    """The word is worth nothing once what it was about is unconfirmed."""
    session = StandSession(scene())
    await session.type("deny 7F3A")
    session.stand.mirror.set_link(LinkState.LOST, "gone")
    assert "The link is lost" in await session.type("7F3A")
    assert session.asked == []


async def test_errors_are_printed_as_sentences() -> None:
    """What the broker refuses is said with what to do."""
    session = StandSession(scene())
    session.stand.actions.error = TenantUnreachableError("the tenant is down", "wait")
    shown = await session.type("approve 7F3A", "7F3A")
    assert "Not done: the tenant is down: wait" in shown


async def test_news_is_told_once_and_in_sentences() -> None:
    """What waits at the start, then each change; allowed requests only when asked."""
    stand = scene()
    session = StandSession(stand)
    first = session.news()
    assert "The link to the broker is live." in first
    assert "STEP-UP 7F3A waiting: payments-agent wants send:payment" in first
    assert " 4200.00 USD on stripe:acct_42, risk high" in first
    assert "denied by bob" not in first
    assert session.news() == ""
    agent = stand.state.agents[CALENDAR]
    for outcome in ("allowed", "denied"):
        event = stand.state.decide(agent, "write:calendar", outcome)
        tell(stand.mirror, "audit", event)
    told = session.news()
    assert "calendar-agent denied write:calendar" in told
    assert "allowed" not in told
    await session.type("events all")
    event = stand.state.decide(agent, "write:calendar", "allowed")
    tell(stand.mirror, "audit", event)
    assert "calendar-agent allowed write:calendar" in session.news()
    stand.approve("sup_7f3a", "carol")
    assert "approved by carol (otp, mfa) at" in session.news()
    stand.panic("fire")
    assert "PANIC: everything is stopped, by alice: fire" in session.news()


async def test_alerts_that_did_not_arrive_are_told_once() -> None:
    """How many, and the command that lists them."""
    stand = scene()
    session = StandSession(stand)
    stand.state.dead.append({})
    for _ in range(2):
        tell(stand.mirror, "status", stand.state.status_shape())
    told = session.news()
    assert told.count("1 alert did not arrive: agentvault alerts dead") == 1


async def test_a_flood_is_counted() -> None:
    """A thousand denials at once are twenty sentences and a number."""
    stand = scene()
    session = StandSession(stand)
    session.news()
    agent = stand.state.agents[CALENDAR]
    for _ in range(1000):
        tell(stand.mirror, "audit", stand.state.decide(agent, "x:y", "denied"))
    told = session.news().splitlines()
    assert len(told) == 21
    assert told[-1] == "and 980 events more."


async def test_list_show_help_and_quit() -> None:
    """Everything can be read by command, and left by one."""
    session = StandSession(scene())
    listed = await session.type("list")
    assert "1 step-up waiting." in listed
    assert "calendar-agent, active, " in listed
    assert "2 live tokens" in listed
    shown = await session.type("show calendar-agent")
    assert "!  write:calendar" in shown
    assert "approve ID" in await session.type("help")
    await session.type("quit")
    assert session.plain.over


async def test_hostile_text_is_told_inert() -> None:
    """No control character of an agent's reaches the line, nor a line of its own."""
    stand = scene()
    text = "x\x1b[2J\x9b\u202e\nSTEP-UP FFFF waits"
    stand.agent(CALENDAR, name=text, owner=text, purpose=text)
    stand.change("sup_7f3a", agent_name=text, reason=text, parameters={text: text})
    session = StandSession(stand)
    session.news()
    await session.type("list", f"show {CALENDAR}", "show 7F3A", "\x1b[2J", "show \x9b")
    for line in session.out.getvalue().splitlines():
        assert line.isprintable()
        assert not line.startswith("STEP-UP FFFF")


async def test_typed_lines_are_whole_bounded_and_end() -> None:
    """Lines come as typed, without more than a person types, until the input ends."""
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n" + b"x" * 9000 + b"\n\xff\nlast")
    os.close(writing)
    lines = [line async for line in typed_lines(reading)]
    os.close(reading)
    assert [lines[0], lines[1], lines[3], lines[4]] == ["one", "two", "\ufffd", "last"]
    assert len(lines[2]) == 4096


SCRIPT = """
import sys
from pathlib import Path
from agentvault_tui.console import plain
from agentvault_tui.console_settings import ConsoleSettings
sys.exit(plain.run(Path(sys.argv[1]), read_only=False, settings=ConsoleSettings()))
"""


@pytest.mark.slow
def test_it_works_over_pipes_with_a_broker(fake: FakeOperator, tmp_path: Path) -> None:
    """Both ends pipes: it follows the broker, denies by command, and leaves by quit."""
    fake.add_stepup(fake.add_agent("payments-agent", "send:payment"))
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    line = [sys.executable, "-c", SCRIPT, str(fake.socket)]
    with at_lines(line, environ) as person:
        person.hears("STEP-UP 7F3A waiting")
        person.decides("deny 7F3A not ours", "7F3A")
        person.hears("denied by alice")
        assert person.leaves() == 0
    assert fake.requests[-1][2] == {
        "id": fake.requests[-1][2]["id"],
        "decision": "deny",
        "reason": "not ours",
    }
    assert "\x1b" not in "".join(person.said)


@pytest.mark.slow
async def test_the_end_of_input_ends_a_session_or_leaves_it_telling() -> None:
    """At a terminal ctrl+d leaves; with input from nowhere it goes on telling."""
    for stay in (False, True):
        session = StandSession(scene())
        reading, writing = os.pipe()
        os.close(writing)
        task = asyncio.create_task(session.plain.run(reading, stay=stay))
        done, _ = await asyncio.wait({task}, timeout=0.5 if stay else 30)
        assert bool(done) is not stay
        if stay:
            assert "goes on telling" in session.out.getvalue()
            task.cancel()
            await asyncio.wait({task})
        os.close(reading)


def test_a_providers_token_is_told_for_what_it_is() -> None:
    """In plain mode too: what is granted, and that nothing takes it back."""
    stand = scene()
    row = stand.change("sup_7f3a", connection="google-oauth2")
    now = stand.clock.now()
    rows = sentences.facts(StepUpFacts(row, Shown(""), PastDecisions(()), now))
    told = " ".join(" ".join(rows).split())
    assert (
        "You grant in your name: a token of the account at google-oauth2, once" in told
    )
    assert "works there until the provider ends it" in told
    approved = sentences.of_stepup(stand.approve(row.id, "alice"), now)
    assert "only the provider can end that token" in approved
    redeemed = sentences.of_stepup(stand.redeem(row.id), now)
    assert "works until the provider ends it" in redeemed


async def test_a_change_and_a_loosening_are_told_in_words_of_their_own() -> None:
    """A restore that became a change says so, and a loosening is told once."""
    stand = scene()
    session = StandSession(stand)
    session.news()
    row = stand.propose("restore calendar-agent", expires_at=iso(AFTER))
    assert (
        f"CHANGE {row.fingerprint} waiting: alice asks for a change: restore"
        " calendar-agent, risk high."
    ) in session.news()
    stand.agent(CALENDAR, status="revoked")
    stand.actions.error = ChangeWaitsError(filled(ChangeInfo, WAITING))
    shown = await session.type("restore calendar-agent", "calendar-agent")
    assert f"Not done yet: it is change {row.fingerprint}, which waits" in shown
    assert "is served again" not in shown
    stand.actions.error = None
    shown = await session.type(f"approve {row.fingerprint}", row.fingerprint)
    assert session.asked[-1] == ("approve", row.id, row.digest)
    loosened = {"summary": row.why, "by": [{"sub": "1", "name": "carol"}]}
    detail = {"stepup_id": row.id, "loosened": loosened}
    event = stand.state.add_event("change.applied", detail=detail)
    await session.type("hold")
    tell(stand.mirror, "audit", event)
    told = session.news()
    assert told.count("LOOSENED by carol at") == 1
    assert f"Change {row.fingerprint}: applied" in told
    assert "LOOSENED" not in session.news()
