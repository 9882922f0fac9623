"""What plain mode reads of the ledger: events, exports, the past; and what it shows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.console_scenes import HOSTILE, busy, flying, hostile
from support.dialog_stand import scene
from support.fake_operator import FakeOperator
from support.fake_past import incident, remember
from support.plain_session import Session, StandSession, following
from support.wire_shapes import tell

from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.errors import RefusedError


@pytest.fixture
async def session(fake: FakeOperator, tmp_path: Path) -> AsyncIterator[Session]:
    busy(fake)
    async with following(fake, tmp_path) as session:
        yield session


async def test_commands_wait_for_the_first_snapshot(tmp_path: Path) -> None:
    """Before the broker was read there are not 0 agents: nothing is known."""
    session = StandSession(scene())
    mirror = session.stand.mirror
    mirror.loaded = False
    mirror.set_link(LinkState.LOST, "no broker")
    for command in ("list", "status", "show x", "revoke calendar-agent"):
        shown = await session.type(command)
        assert "0 agents" not in shown
        assert "no broker" in shown


async def test_an_agent_is_told_with_what_it_did(session: Session) -> None:
    """Its scopes' uses, what it asked for and may not, and refusals by reason."""
    shown = " ".join((await session.type("show records-agent")).split())
    assert "May . read:records LOW" in shown
    assert "Asked for !! delete:records not granted - denied 4" in shown
    assert "Denied 4 not granted" in shown
    assert "Revoking ends 1 token, 0 step-ups, at once" in shown


async def test_calls_are_told_what_is_held_first(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Each with its agent, request, state, age and bytes; without any it says so."""
    flying(fake)
    async with following(fake, tmp_path) as session:
        held, *others, count = (await session.type("calls")).splitlines()
        assert "of payments-agent: stripe POST /v1/transfers/acct_42, held for" in held
        assert any("41 MB in" in line for line in others)
        assert count == "3 calls in flight or held."
        fake.calls.clear()
        session.plain.desk.mirror.load_calls(())
        assert "0 calls in flight or held." in await session.type("calls")


async def test_nothing_is_told_twice_in_a_row(session: Session) -> None:
    """A decision right after its request was shown repeats a line of it, no more."""
    (row, _) = session.plain.desk.mirror.open_stepups()
    shown = await session.type(f"show {row.id}")
    assert "  Digest " in shown
    asked = await session.type(f"deny {row.id} no", "not that")
    assert "All of it stands above." in asked
    assert "  Digest " not in asked
    await session.type("who")
    asked = await session.type(f"deny {row.id} no")
    assert "  Digest " in asked


async def test_the_audit_is_told_backwards_in_pieces(session: Session) -> None:
    """The last twenty, oldest first with their numbers; older ones by one word."""
    last = session.plain.desk.mirror.last_seq
    told = (await session.type("audit")).splitlines()
    numbers = [int(line[1:].split()[0]) for line in told[:-1]]
    assert numbers == list(range(last - 19, last + 1))
    assert told[-1] == f"older goes on before event {last - 19}."
    older = (await session.type("older")).splitlines()
    assert older[-1].startswith(f"#{last - 20} ")
    assert "There are no older ones" in await session.type("older")


async def test_the_audit_takes_the_filter_language(session: Session) -> None:
    """Only what matches; nothing is said to be nothing."""
    told = await session.type("audit outcome:denied agent:records")
    assert told.count("records-agent denied delete:records on crm:88") == 4
    assert len(told.splitlines()) == 4
    assert await session.type("audit agent:nobody") == "No event matches.\n"


async def test_an_event_is_told_in_full(session: Session) -> None:
    """Its members and its link, computed here; the body only when asked for."""
    shown = await session.type("show #3")
    assert shown.startswith("Event 3\n")
    assert "verified here: computed again from the recorded body" in shown
    assert "show #3 raw shows it" in shown
    assert '"seq":3' not in shown
    raw = "".join((await session.type("show #3 raw")).split())
    assert '"seq":3' in raw
    assert "There is no event 9,999" in await session.type("show #9,999")


async def test_what_matches_is_exported(session: Session, tmp_path: Path) -> None:
    """Private, never over another file, and by the filter that was typed."""
    file = tmp_path / "evidence.jsonl"
    said = await session.type(f"export {file} outcome:denied")
    assert f"4 events written to {file}, mode 0600" in said
    header, *rows = map(json.loads, file.read_text().splitlines())
    assert (header["count"], header["selection"]["filter"]) == (4, "outcome:denied")
    assert [row["outcome"] for row in rows] == ["denied"] * 4
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Not written: that file is there" in await session.type(f"export {file}")
    assert "Nothing was written." in await session.type("export outcom:x")


async def test_the_past_is_told_and_marked(fake: FakeOperator, tmp_path: Path) -> None:
    """What there was at a moment: marked as past, and not what there is now."""
    incident(fake)
    async with following(fake, tmp_path) as session:
        told = await session.type("past #6")
        assert told.startswith("THE PAST, 13:48:11Z, 14 min ago:\n")
        assert "payments-agent wants send:payment" in told
        assert "  1 step-up waited.\n" in told
        assert "  2 agents.\n" in told
        assert "PANIC: everything was stopped" in await session.type("past 13:57")
        assert "That is no time." in await session.type("past midnight")
        assert "0 step-ups waiting." in await session.type("list")


async def test_status_tells_how_things_stand(session: Session) -> None:
    """Link, tenant, ledger, agents, panic: a line each."""
    told = await session.type("status")
    assert "The link is live." in told
    assert "acme.eu.auth0.com answers." in told
    assert "6 agents, 1 revoked; 2 step-ups waiting" in told
    assert "The panic switch is off." in told


async def test_events_held_are_counted() -> None:
    """What is held back is not told later, but numbered; step-ups are told."""
    session = StandSession(scene())
    session.news()
    await session.type("hold")
    agent = next(iter(session.stand.state.agents.values()))
    event = session.stand.state.decide(agent, "x:y", "denied")
    tell(session.stand.mirror, "audit", event)
    session.stand.ask(agent["id"], "send:payment", fingerprint="BEEF")
    told = session.news()
    assert "STEP-UP BEEF waiting" in told
    assert "denied" not in told
    assert "1 event meanwhile" in await session.type("follow")


async def test_a_change_is_approved_once_its_lines_are_read() -> None:
    """They come before the question; without them nothing is asked."""
    stand = scene()
    texts = {"texts": [["policy.cedar", None, "a" * 64]]}
    row = stand.propose("replace policy.cedar", "policy", details=texts)
    stand.texts = [{"name": "policy.cedar", "diff": "-recipients 20\n+recipients 9000"}]
    session = StandSession(stand)
    stand.actions.error = RefusedError("the store does not answer")
    shown = await session.type(f"approve {row.fingerprint}", row.fingerprint)
    assert "not read yet: the store does not answer" in " ".join(shown.split())
    assert "once the lines that change are read" in shown
    assert session.asked == []
    stand.actions.error = None
    shown = await session.type(f"approve {row.fingerprint}")
    assert "-recipients 20" in shown
    assert "+recipients 9000" in shown
    await session.type(row.fingerprint)
    assert session.asked == [("approve", row.id, row.digest)]


async def test_a_restore_is_undone_by_a_word() -> None:
    """Within ten seconds, for the agent that was restored; then no more."""
    session = StandSession(scene())
    agent = session.stand.agent("agt_0000000000000002", status="revoked")
    assert "Nothing to undo" in await session.type("undo")
    await session.type("restore calendar-agent", "calendar-agent")
    assert "Closed here after 1.2 ms: calendar-agent" in await session.type("undo")
    assert session.asked[-1][:2] == ("revoke", agent.id)
    await session.type("restore calendar-agent", "calendar-agent")
    session.clock.advance(10)
    assert "Nothing to undo" in await session.type("undo")


async def test_a_changed_ledger_is_accepted_by_its_word() -> None:
    """The warning stays until someone takes the ledger as it is for the true one."""
    session = StandSession(scene())
    assert "seen here before" in await session.type("accept")
    session.stand.mirror.warn("ledger", "LEDGER CHANGED: it ends at 3")
    await session.type("accept", "no")
    assert "LEDGER CHANGED" in await session.type("status")
    await session.type("accept", "accept")
    assert "LEDGER CHANGED" not in await session.type("status")


async def test_names_may_have_spaces_and_be_mistyped() -> None:
    """The longest name that fits is meant; a near one is offered, never taken."""
    session = StandSession(scene())
    session.stand.agent("agt_0000000000000002", name="night run")
    shown = await session.type("revoke night run books at 3 a.m.", "night run")
    assert session.asked == [("revoke", "agt_0000000000000002", "books at 3 a.m.")]
    assert "Type night run to revoke it" in shown
    assert "Did you mean payments-agent?" in await session.type("show payments")
    assert "Did you mean revoke?" in await session.type("revok night run")


async def test_what_cannot_be_read_is_said() -> None:
    """With no broker behind it every reading command answers with a sentence."""
    session = StandSession(scene())
    session.stand.mirror.set_link(LinkState.LOST, "gone")
    session.stand.mirror.last_seq = 9
    for line in ("audit", "show #3", "past #3", "export x.jsonl"):
        assert "Not " in await session.type(line)
    assert "What it did is not known" in await session.type("show payments-agent")
    assert "The link is lost: gone." in await session.type("status")


async def test_no_control_reaches_the_line(fake: FakeOperator, tmp_path: Path) -> None:
    """Whatever an agent chose is inert in every command that reads."""
    hostile(fake)
    remember(fake)
    async with following(fake, tmp_path) as session:
        for line in ("list", "audit", "status", "past #9", "show #9", "show #9 raw"):
            await session.type(line)
        for agent in list(session.plain.desk.mirror.agents):
            await session.type(f"show {agent}")
        for row in session.plain.desk.mirror.open_stepups():
            await session.type(f"show {row.id}")
        said = session.out.getvalue()
    assert len(said) > 1000 * len(HOSTILE)
    assert all(line.isprintable() for line in said.splitlines())


def happen(session: StandSession, agent: str, outcome: str) -> None:
    state = session.stand.state
    found = next(a for a in state.agents.values() if a["name"] == agent)
    event = state.decide(found, "read:calendar", outcome)
    tell(session.stand.mirror, "audit", event)


@pytest.mark.parametrize("text", ["status:waiting", "@needs a person", "-agent:cal"])
async def test_agents_are_listed_by_a_filter(text: str) -> None:
    """Only those that match, how many are hidden, and what waits in any case."""
    session = StandSession(scene())
    shown = await session.type(f"list {text}")
    total = len(session.stand.mirror.agents)
    listed = [a.name for a in session.stand.mirror.agents.values() if a.name in shown]
    assert "payments-agent" in listed
    assert "calendar-agent" not in shown.replace("calendar-agent asks", "")
    assert f" of {total} agents, " in shown
    assert "hidden." in shown
    assert "step-up" in shown


async def test_a_problem_is_told_with_its_place() -> None:
    """The same words as in the filter bar."""
    shown = await StandSession(scene()).type("list pay outcom:x")
    assert "In the filter, at 5: no key outcom:, did you mean outcome:." in shown


async def test_events_are_told_by_a_filter() -> None:
    """Those that match and no others, until it is taken off."""
    session = StandSession(scene())
    session.news()
    assert "Only what matches" in await session.type("events outcome:denied agent:cal")
    happen(session, "calendar-agent", "denied")
    happen(session, "payments-agent", "denied")
    happen(session, "calendar-agent", "allowed")
    told = session.news()
    assert told.count("\n") == 1
    assert "calendar-agent" in told
    await session.type("events few")
    happen(session, "payments-agent", "denied")
    assert "payments-agent" in session.news()
