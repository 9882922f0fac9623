"""The filter language, on agents and on events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fake_state import START
from support.manual_clock import ManualClock
from support.wire_shapes import filled

from agentvault_tui.clock import iso
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.operator_api.shapes import AgentInfo, CountsInfo
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.filters import KEYS, TYPES, Filter
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.presenters.moments import read_moment
from agentvault_tui.presenters.outcomes import OUTCOME_WORDS, event_phrase

_AGENT = Intake().agent(
    filled(
        AgentInfo,
        {
            "id": "agt_1",
            "name": "Payments Agent",
            "owner": "bob@acme.test",
            "scopes": ["send:payment"],
        },
    )
)
_EVENT = Intake().event(
    filled(
        EventInfo,
        {
            "seq": 7,
            "time": iso(START - timedelta(minutes=5)),
            "type": "token.decision",
            "agent_id": "agt_1",
            "action": "send:payment",
            "resource": "stripe:acct_42",
            "outcome": "denied",
            "reason": "policy_forbids",
        },
    )
)


_DIRECTORY = Directory(ManualClock(START))
_DIRECTORY.agents["agt_1"] = _AGENT
_COUNTS = CountsInfo(allowed=3)
_WAITING = {"agt_1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("payments", True),
        ("PAYMENTS bob", True),
        ("payments carol", False),
        ('"payments agent"', True),
        ('"agent payments"', False),
        ("scope:payment", True),
        ("scope:email", False),
        ("owner:bob status:wait", True),
        ("status:revoked", False),
        ("risk:high", True),
        ("outcome:allowed", True),
        ("outcome:denied", False),
        ("since:1s", True),
        ("agent:pay", True),
        ("send:payment", True),
        ("-payments", False),
        ("-carol", True),
        ("-scope:email -owner:carol", True),
        ("-status:wait", False),
        ("-outcome:denied", True),
        ("outcome:", True),
        ("-", True),
    ],
)
def test_a_filter_matches_agents_by_each_key(text: str, expected: bool) -> None:
    """Each word must hold; a key that says nothing of agents hides none."""
    assert Filter.parse(text).agent(_AGENT, _DIRECTORY, _WAITING, _COUNTS) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("acct_42", True),
        ("outcome:denied", True),
        ("outcome:allowed", False),
        ("since:10m", True),
        ("since:1m", False),
        ("type:token", True),
        ("type:stepup", False),
        ("agent:pay resource:stripe", True),
        ("status:active", True),
        ("forbids", True),
        ("-outcome:denied", False),
        ("-outcome:allowed -type:stepup", True),
        ("until:1m", True),
        ("until:10m", False),
        ("since:6m until:4m", True),
        ("-since:6m", False),
        ("since:14:00", False),
        ("since:13:50 until:13:58", True),
        ("until:2026-11-24T13:58", True),
        ("until:2026-11-24", False),
        ("owner:bob", True),
        ("owner:carol", False),
        ("-owner:carol risk:high", True),
        ("risk:low", False),
        ("since:soon", True),
        ("-since:soon", True),
    ],
)
def test_a_filter_matches_events_by_each_key(text: str, expected: bool) -> None:
    """The same words find events."""
    wanted = Filter.parse(text)
    assert wanted.event(_EVENT, _DIRECTORY, START) is expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("outcom:denied", "at 1: no key outcom:, did you mean outcome:"),
        ("pay staus:x", "at 5: no key staus:, did you mean status:"),
        ("pay -since:soon", "at 5: since takes 10m, 2h, 1d ago, 14:02, or"),
        ("since:99:00", "at 1: since takes"),
        ("x foo:bar", "at 3: no key foo:, so it is looked for as text"),
        (
            "outcome:nope",
            (
                "at 1: outcome is allowed, denied, escalated, waiting, done, failed,"
                " unknown, cut or changed, never nope"
            ),
        ),
        ("status: denied", "at 1: status: has no value; write it right after"),
        ("risk:x outcome:y", "at 1: risk is low, medium or high"),
    ],
)
def test_what_was_not_understood_is_told(text: str, problem: str) -> None:
    """In words, with the column, and what to do; the first of several."""
    assert Filter.parse(text).problem.startswith(problem)


@pytest.mark.parametrize(
    "text",
    ["", "outcome:", "out", 'agent:"pay', "send:payment", '"event:x"', "-", "a:"],
)
def test_an_unfinished_term_is_no_problem(text: str) -> None:
    """Nobody is corrected while typing, nor for a scope's own colon."""
    assert Filter.parse(text, {"send"}).problem == ""


def test_the_broker_is_asked_for_what_it_knows() -> None:
    """Outcome, type, one agent and times go into the query, the narrowest of each."""
    wanted = Filter.parse(
        "outcome:den agent:pay since:1d since:1h until:5m type:token.decision"
        " -agent:x -outcome:allowed acct"
    )
    assert wanted.query({"agt_1": _AGENT}, START) == AuditQuery(
        outcome="denied",
        agent="agt_1",
        type="token.decision",
        since=iso(START - timedelta(hours=1)),
        until=iso(START - timedelta(minutes=5)),
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("acct_42", "acct_42"),
        ("acct_42 policy_forbids", "policy_forbids"),
        ("resource:stripe", "stripe"),
        ("dec_9f2c", "dec_9f2c"),
        ("-acct_42", None),
        ("payments", None),
        ("agt_1", None),
        ("token.dec", None),
        ("recipient", None),
        ("4,200", None),
        ("200e", None),
        ("é" * 5, None),
        ("202e", None),
    ],
)
def test_a_word_is_asked_for_only_where_the_ledger_has_it(
    text: str, asked: str | None
) -> None:
    """Names, types, sums and spelled-out characters stand on the screen alone."""
    query = Filter.parse(text).query({"agt_1": _AGENT}, START, text=True)
    assert query.q == asked
    assert Filter.parse(text).query({"agt_1": _AGENT}, START).q is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", START - timedelta(seconds=90)),
        ("2W", START - timedelta(weeks=2)),
        ("999999w", datetime.min.replace(tzinfo=UTC)),
        ("14:02", datetime(2026, 11, 24, 14, 2, tzinfo=UTC)),
        ("23:59:59z", datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24t10:00:30z", datetime(2026, 11, 24, 10, 0, 30, tzinfo=UTC)),
        ("2026-11-24T10:00+02:00", datetime(2026, 11, 24, 8, 0, tzinfo=UTC)),
        ("24:00", None),
        ("0001-01-01T00:00+23:00", None),
        ("tomorrow", None),
    ],
)
def test_moments_are_parsed_in_utc(text: str, expected: datetime | None) -> None:
    """How long ago, the last such time of day, or a date: in UTC."""
    assert read_moment(text, START) == expected


_PARTS = (*KEYS, "-", '"', ":", " ", "a", "ris\u212a:", "İ", "é", "10m", "\x1c")
_TYPED = st.lists(st.sampled_from(_PARTS) | st.text(max_size=4)).map("".join)


@pytest.mark.slow
@given(_TYPED)
def test_any_text_is_a_filter(text: str) -> None:
    """Nothing that can be typed or pasted breaks it."""
    wanted = Filter.parse(text)
    assert wanted.agent(_AGENT, _DIRECTORY, _WAITING, _COUNTS) in {True, False}
    assert wanted.event(_EVENT, _DIRECTORY) in {True, False}
    assert isinstance(wanted.query({"agt_1": _AGENT}, START, text=True), AuditQuery)


@pytest.mark.slow
@given(_TYPED)
def test_what_is_written_reads_back(text: str) -> None:
    """A filter written down is the same filter, and is written the same again."""
    wanted = Filter.parse(text)
    again = Filter.parse(str(wanted))
    assert again == wanted
    assert str(again) == str(wanted)


@pytest.mark.slow
@given(_TYPED, st.booleans())
@example("\x1c-action", False)  # white space to Python, and then a dash of its own
def test_a_dash_negates_a_term(text: str, quoted: bool) -> None:
    """What one term holds for, its negation does not; unless it asks for nothing."""
    word = text.replace('"', "")
    word = (word if quoted else "".join(word.split())).lstrip("-")
    word = f'"{word}"' if quoted else word
    plain, opposite = Filter.parse(word), Filter.parse(f"-{word}")
    if len(plain.terms) == len(opposite.terms) == 1 and not plain.terms[0].key:
        held = plain.agent(_AGENT, _DIRECTORY, _WAITING, _COUNTS)
        assert opposite.agent(_AGENT, _DIRECTORY, _WAITING, _COUNTS) is not held


@pytest.mark.parametrize("type_", TYPES)
def test_the_word_on_screen_finds_its_event(type_: str) -> None:
    """Typing what the feed calls an event finds it, and asks the broker for no text.

    The ledger's own text does not hold that word, so the broker could not find it.
    """
    told = filled(EventInfo, {"seq": 7, "time": iso(START), "type": type_})
    row = Intake().event(told)
    for said in (row.word, event_phrase(row.type)):
        wanted = Filter.parse(f'"{said.lower()}"')
        assert wanted.event(row, _DIRECTORY)
        assert wanted.query({}, START, text=True) == AuditQuery()


def test_each_outcome_word_filters_and_the_broker_leaves_none_out() -> None:
    """What the broker looks for itself is only what decisions recorded."""
    for word in OUTCOME_WORDS:
        wanted = Filter.parse(f"outcome:{word}")
        asked = wanted.query({}, START).outcome
        assert asked == (word if word in {"allowed", "denied"} else None)
        assert not wanted.problem
    told = {"seq": 1, "type": "gateway.result", "detail": {"status": 500}}
    failed = Intake().event(filled(EventInfo, told))
    assert Filter.parse("outcome:failed").event(failed, _DIRECTORY)
    assert not Filter.parse("outcome:done").event(failed, _DIRECTORY)
