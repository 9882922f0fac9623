"""The audit window: follows, holds, counts what arrived, and pages back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from support.fake_state import START, FakeState
from support.manual_clock import ManualClock
from support.wire_shapes import filled, tell

from agentvault_tui.console.state.feed import MARGIN, MOST_ROWS, PAGE, EventWindow
from agentvault_tui.console.state.folds import fold
from agentvault_tui.console.state.mirror import RING, Mirror
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.requests import AuditQuery
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.records import EventPage


class Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self) -> None:
        super().__init__(START)
        self.mirror = Mirror(ManualClock(START))
        self.feed = EventWindow(self.mirror)
        self.agent = self.add_agent("mailer", "read:email")

    def send(self, kind: str, data: dict[str, Any]) -> None:
        tell(self.mirror, kind, data)

    def happen(self, count: int, outcome: str = "allowed") -> None:
        for _ in range(count):
            self.decide(self.agent, "read:email", outcome)

    def seqs(self) -> list[int]:
        return [row.seq for row in self.feed.rows]

    def page(self, query: AuditQuery) -> EventPage:
        """What the broker answers, in the order it was asked for."""
        if query.before is not UNSET:
            found = [e for e in reversed(self.events) if e["seq"] < query.before]
        else:
            assert query.after is not UNSET
            found = [e for e in self.events if e["seq"] > query.after]
        if query.outcome:
            found = [e for e in found if e["outcome"] == query.outcome]
        page = found[: query.limit]
        rows = tuple(self.mirror.intake.event(filled(EventInfo, e)) for e in page)
        return EventPage(rows, page[-1]["seq"] if len(found) > len(page) else None)

    def read(self, height: int) -> int:
        """Read every page the screen needs; tell how many there were."""
        count = 0
        while (want := self.feed.wants(height)) is not None:
            assert self.feed.take(self.page(want.query), want)
            count += 1
        return count


@pytest.fixture
def told() -> Told:
    return Told()


def test_it_follows_the_newest(told: Told) -> None:
    """What arrives is there at the next look, in order."""
    told.happen(3)
    assert told.feed.update()
    told.happen(2)
    told.feed.update()
    assert told.seqs() == [1, 2, 3, 4, 5]
    assert not told.feed.update()


def test_moving_up_holds_and_counts(told: Told) -> None:
    """While held nothing moves, and what has come is a number."""
    told.happen(5)
    told.feed.update()
    told.feed.move(-2)
    told.happen(4)
    told.feed.update()
    assert (told.feed.follow, told.feed.cursor, told.feed.arrived) == (False, 3, 4)
    assert told.seqs() == [1, 2, 3, 4, 5]


def test_end_follows_again_without_a_gap(told: Told) -> None:
    """Everything that arrived while held is there."""
    told.happen(5)
    told.feed.update()
    told.feed.move(-1)
    told.happen(4)
    told.feed.update()
    told.feed.resume()
    assert told.seqs() == list(range(1, 10))
    assert told.feed.arrived == 0


def test_moving_past_the_end_takes_what_arrived(told: Told) -> None:
    """Walking down from a held place meets each later event once."""
    told.happen(3)
    told.feed.update()
    told.feed.hold()
    told.happen(3)
    told.feed.update()
    for _ in range(5):
        told.feed.move(1)
    assert told.seqs() == [1, 2, 3, 4, 5, 6]
    assert told.feed.cursor == 6


def test_filters_count_what_they_hide(told: Told) -> None:
    """Only what is asked for is listed, also of what comes later."""
    told.happen(3)
    told.happen(2, "denied")
    told.feed.update()
    told.feed.narrow(Filter.parse("outcome:denied"))
    assert (told.seqs(), told.feed.hidden) == ([4, 5], 3)
    told.happen(1)
    told.happen(1, "denied")
    told.feed.update()
    assert told.seqs() == [4, 5, 7]
    assert (told.feed.looked_at, told.feed.hidden) == (7, 4)


def test_what_is_hidden_is_counted_also_while_held(told: Told) -> None:
    """Of all that was looked at, by the broker too; what arrives is not yet in it."""
    total = RING + 300
    told.happen(total - 1)
    told.happen(1, "denied")
    told.feed.update()
    told.feed.narrow(Filter.parse("outcome:denied"))
    assert (told.feed.looked_at, told.feed.hidden) == (RING, RING - 1)
    told.feed.move(-1)
    told.happen(2)
    told.feed.update()
    told.read(30)
    assert (told.feed.looked_at, told.feed.hidden) == (total, total - 1)


def test_scrolling_back_reads_older_pages(told: Told) -> None:
    """Beyond the recent events the broker is asked, page by page, to the first."""
    total = RING + 500
    told.happen(total)
    told.feed.update()
    assert told.seqs()[0] == total - RING + 1
    told.feed.move(-RING)
    told.read(30)
    while told.seqs()[0] > 1:
        told.feed.move(-PAGE)
        told.read(30)
    assert told.seqs()[:3] == [1, 2, 3]
    assert len(told.seqs()) <= MOST_ROWS
    assert told.seqs() == list(range(1, len(told.seqs()) + 1))


def test_a_rare_outcome_is_looked_for_in_the_ledger(told: Told) -> None:
    """A filter with too few recent matches asks the broker for older ones."""
    told.happen(3, "denied")
    told.happen(RING)
    told.feed.update()
    told.feed.narrow(Filter.parse("outcome:denied"))
    assert told.seqs() == []
    told.read(20)
    assert told.seqs() == [1, 2, 3]
    assert told.feed.exhausted


def test_a_page_that_comes_too_late_is_dropped(told: Told) -> None:
    """The answer to a question nobody asks any more changes nothing."""
    told.happen(RING + 50)
    told.feed.update()
    told.feed.move(-RING)
    want = told.feed.wants(20)
    assert want is not None
    page = told.page(want.query)
    assert told.feed.take(page, want)
    assert not told.feed.take(page, want)
    told.feed.narrow(Filter.parse("outcome:allowed"))
    told.feed.move(-RING)
    assert told.feed.floor == want.query.before
    assert not told.feed.take(page, want)


@pytest.mark.slow
def test_jumping_reads_both_ways_from_there(told: Told) -> None:
    """Around any number one page each way is read, and no more than a margin held."""
    total = 4 * RING
    told.happen(total)
    told.feed.update()
    told.feed.jump(1_000)
    assert told.read(30) == 2
    assert told.feed.cursor == 1_000
    assert told.seqs() == list(range(1_000 - PAGE + 1, 1_000 + PAGE + 1))
    for _ in range(12):
        told.feed.move(PAGE)
        told.read(30)
        assert len(told.seqs()) <= 2 * MARGIN + PAGE
        assert told.seqs() == list(range(told.seqs()[0], told.seqs()[-1] + 1))
    assert told.feed.cursor == 1_000 + 12 * PAGE
    told.feed.jump(total - 3)
    assert told.read(30) == 0
    told.feed.move(50)
    assert told.feed.cursor == total


def test_jumping_beyond_either_end_stays_inside(told: Told) -> None:
    """No number is too small or too large; the nearest event is under the cursor."""
    told.happen(RING + 100)
    told.feed.update()
    for wanted, found in ((0, 1), (1, 1), (10**9, RING + 100)):
        told.feed.jump(wanted)
        told.read(20)
        assert told.feed.under_cursor is not None
        assert told.feed.under_cursor.seq == found


@pytest.mark.slow
def test_while_held_far_back_the_end_stands_still(told: Told) -> None:
    """What arrives is counted, and let in when the cursor walks past the end."""
    told.happen(RING + 500)
    told.feed.update()
    told.feed.jump(100)
    told.read(20)
    told.happen(RING + 10)
    told.feed.update()
    assert (told.feed.arrived, told.feed.uncounted) == (0, True)
    told.feed.jump(RING + 499)
    told.read(20)
    assert told.feed.uncounted is False
    told.happen(3)
    told.feed.update()
    assert told.feed.arrived == 3
    for _ in range(40):
        told.feed.move(PAGE)
        told.read(20)
    assert told.feed.cursor == told.head
    assert told.feed.arrived == 0


def test_a_filter_may_stay_at_its_place(told: Told) -> None:
    """Narrowed in place, the cursor is on the next match of where it was."""
    told.happen(50)
    told.happen(1, "denied")
    told.happen(RING + 50)
    told.feed.update()
    told.feed.jump(20)
    told.read(20)
    told.feed.narrow(Filter.parse("outcome:denied"), stay=True)
    told.read(20)
    assert not told.feed.follow
    assert told.feed.under_cursor is not None
    assert told.feed.under_cursor.seq == 51
    told.feed.narrow(Filter(), stay=True)
    told.read(20)
    assert told.feed.under_cursor.seq == 20


def test_rows_of_a_replaced_ledger_are_not_mixed_with_the_new(told: Told) -> None:
    """Held rows stay as they were, nothing is read to them; following starts anew."""
    told.happen(RING + 100)
    told.feed.update()
    told.feed.jump(50)
    told.read(20)
    before = told.seqs()
    told.mirror.versions.ledger += 1
    told.events.clear()
    told.mirror.load_events([], after=0)
    told.happen(5)
    told.feed.update()
    assert told.feed.foreign
    told.feed.move(-PAGE)
    assert told.feed.wants(20) is None
    assert told.seqs() == before
    told.feed.resume()
    assert (told.feed.foreign, told.seqs()) == (False, [1, 2, 3, 4, 5])


def test_a_page_that_ends_early_is_gone_on_from(told: Told) -> None:
    """A search that ran out of time says where it got to; nothing is passed over."""
    told.happen(RING + 50)
    told.feed.update()
    told.feed.narrow(Filter.parse("zeppelin"))
    want = told.feed.wants(20)
    assert want is not None
    assert want.query.q == "zeppelin"
    assert told.feed.take(EventPage((), 20), want)
    assert (told.feed.exhausted, told.feed.floor) == (False, 20)
    want = told.feed.wants(20)
    assert want is not None
    assert want.query.before == 20
    assert told.feed.take(EventPage((), None), want)
    assert told.feed.exhausted


@pytest.mark.slow
@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("happen"), st.integers(1, 60)),
            st.tuples(st.just("move"), st.integers(-80, 80)),
            st.tuples(st.just("resume"), st.just(0)),
            st.tuples(st.just("older"), st.just(0)),
            st.tuples(st.just("jump"), st.integers(0, 400)),
        ),
        max_size=25,
    )
)
def test_the_event_window_never_loses_or_repeats_an_event(
    steps: list[tuple[str, int]],
) -> None:
    """Whatever arrives while someone scrolls, the rows are one unbroken stretch."""
    told = Told()
    told.happen(10)
    for what, number in steps:
        match what:
            case "happen":
                told.happen(number)
            case "move":
                told.feed.move(number)
            case "resume":
                told.feed.resume()
            case "jump":
                told.feed.jump(number)
                told.read(20)
            case "older":
                told.read(20)
        told.feed.update()
        seqs = told.seqs()
        assert seqs == list(range(seqs[0], seqs[-1] + 1)) if seqs else True
        if not told.feed.follow:
            assert told.feed.cursor in seqs
            if told.feed.wants(20) is None and seqs[-1] - told.feed.cursor < 20:
                assert seqs[-1] + told.feed.arrived == told.head
        else:
            assert not seqs or seqs[-1] == told.head


def _row(told: Told, type_: str, decision: str, **more: Any) -> None:
    told.add_event(type_, told.agent, decision_id=decision, **more)


@pytest.mark.parametrize(
    ("later", "state"),
    [
        (["token.used"], "done"),
        (["token.used", "token.revoked"], "done"),
        (["token.revoked", "token.used"], "done"),
        (["stepup.requested"], "waiting"),
        (["stepup.requested", "stepup.authorizing"], "waiting"),
        (["stepup.requested", "stepup.not_approved"], "waiting"),
        (["stepup.requested", "stepup.approved", "token.delivered"], "done"),
        (["stepup.requested", "stepup.denied"], "denied"),
        (["stepup.requested", "stepup.expired"], "denied"),
        (["token.delivered", "token.redeemed", "token.used"], "done"),
    ],
)
def test_a_decision_and_what_came_of_it_are_one_row(
    told: Told, later: list[str], state: str
) -> None:
    """It stands where it got its outcome, and says it, whatever comes late."""
    _row(told, "token.decision", "dec_1", outcome="allowed")
    _row(told, "token.decision", "dec_2", outcome="denied")
    for type_ in later:
        _row(told, type_, "dec_1", reason="handed back")
    told.feed.update()
    both = (line.last for line in told.feed.lines[-2:])
    first, second = sorted(both, key=lambda one: one.head.seq)
    assert [event.type for event in first.events] == ["token.decision", *later]
    assert first.state.word == state
    assert (second.state.word, second.later) == ("denied", [])


def test_the_cursor_moves_by_rows_and_stays_on_the_event_it_was_sent_to(
    told: Told,
) -> None:
    """An event of a row's later course can be gone to; one up is the row before."""
    _row(told, "token.decision", "dec_1", outcome="allowed")
    _row(told, "token.decision", "dec_2", outcome="allowed")
    _row(told, "token.redeemed", "dec_2")
    told.feed.update()
    *_, first, second, last = [event["seq"] for event in told.events]
    told.feed.jump(last)
    assert told.feed.under_cursor
    assert told.feed.under_cursor.seq == last
    assert told.feed.lines[told.feed.index].head.seq == second
    told.feed.move(-1)
    assert told.feed.cursor == first
    told.feed.move(1)
    assert told.feed.cursor == last


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["", "dec_1", "dec_2"]))))
def test_folding_loses_no_event_and_no_gap(steps: list[tuple[int, str]]) -> None:
    """Each event is in one row, rows are in the order of their first events."""
    told, seq, rows, missing = Told(), 0, [], 0
    for step, decision in steps:
        missing += step - 1 if rows else 0
        seq += step
        event = {"seq": seq, "type": "token.decision", "decision_id": decision or None}
        rows.append(told.mirror.intake.event(filled(EventInfo, event)))
    folds = fold(rows, whole=True)
    heads = [one.head.seq for one in folds]
    assert heads == sorted(heads)
    events = [event for one in folds for event in one.events]
    assert sorted(events, key=lambda event: event.seq) == rows
    for one in folds:
        assert len({event.decision_id for event in one.events}) == 1
    gaps = [one.missing for one in folds if one.missing]
    assert sum(end - start + 1 for start, end in gaps) == missing


@pytest.fixture
def collapsed(told: Told) -> Told:
    """The feed of the home screen, where repeats are one row."""
    told.feed = EventWindow(told.mirror, collapse=True)
    return told


def test_rows_outlive_their_events_also_while_held(collapsed: Told) -> None:
    """A denial is still there after a flood, and counts stay when the feed is held."""
    told = collapsed
    told.happen(1, "denied")
    told.feed.update()
    for _ in range(6):
        told.happen(1_000)
        told.feed.update()
    lines = [(line.word, line.count) for line in told.feed.lines]
    assert lines == [("denied", 1), ("allowed", 6_000)]
    told.feed.move(-1)
    assert [(line.word, line.count) for line in told.feed.lines] == lines
    assert told.feed.under_cursor
    assert told.feed.under_cursor.outcome == "denied"


def test_enter_unfolds_and_one_step_out_folds_again(collapsed: Told) -> None:
    """Unfolded, the cursor walks through each of the repeats."""
    told = collapsed
    told.happen(1, "denied")
    told.happen(5)
    told.feed.update()
    assert told.feed.unfold()
    assert [line.count for line in told.feed.lines] == [1] * 6
    told.feed.move(-2)
    assert told.feed.cursor == 4
    assert not told.feed.unfold()
    assert told.feed.fold()
    assert [line.count for line in told.feed.lines] == [1, 5]
    assert not told.feed.fold()


@pytest.mark.slow
def test_history_that_is_all_alike_is_read_to_its_start(collapsed: Told) -> None:
    """What is read back collapses for itself, so that going up goes on."""
    told = collapsed
    told.happen(1, "denied")
    told.happen(4 * RING)
    told.feed.update()
    for _ in range(20):
        told.feed.move(-1)
        told.read(30)
    assert told.feed.exhausted
    assert told.feed.under_cursor
    assert told.feed.under_cursor.seq == 1
    assert sum(line.count for line in told.feed.lines) >= 4 * RING


def test_only_what_matters_counts_what_it_leaves_out(collapsed: Told) -> None:
    """The cursor stays, and everything comes back."""
    told = collapsed
    told.happen(4)
    told.happen(1, "denied")
    told.happen(3)
    told.feed.update()
    told.feed.show_notable(True)
    assert [line.word for line in told.feed.lines] == ["denied"]
    assert told.feed.routine == 7
    told.feed.show_notable(False)
    assert (len(told.feed.lines), told.feed.routine) == (2, 0)


def test_around_a_place_that_was_gone_to_each_event_has_its_row(
    collapsed: Told,
) -> None:
    """A number leads to that event among its neighbours, until the feed follows."""
    told = collapsed
    told.happen(50)
    told.feed.update()
    told.feed.jump(20)
    assert [line.anchor for line in told.feed.lines] == list(range(1, 51))
    assert told.feed.index == 19
    told.feed.resume()
    assert [line.count for line in told.feed.lines] == [50]


def test_news_begins_after_what_the_operator_knows() -> None:
    """A set-up begins no feed; whoever scrolls up to it finds it."""
    told = Told()
    told.mirror.loosenings.known_to = 30
    told.feed = EventWindow(told.mirror, collapse=True, news=True)
    told.happen(40)
    told.feed.resume()
    assert told.seqs() == list(range(31, 41))
    assert not told.feed.exhausted
    told.happen(5)
    told.feed.update()
    assert told.seqs() == list(range(31, 46))
    told.feed.move(-1)
    told.read(30)
    assert told.seqs()[0] == 1
    assert told.feed.exhausted


def test_a_filter_looks_at_what_the_operator_knows_too() -> None:
    """Who asks for something is not told that it is not there."""
    told = Told()
    told.mirror.loosenings.known_to = 30
    told.feed = EventWindow(told.mirror, news=True)
    told.happen(40)
    told.feed.narrow(Filter.parse("agent:mailer"))
    assert told.seqs() == list(range(1, 41))


@pytest.mark.parametrize("collapse", [True, False])
def test_only_what_matters_is_shown_of_a_log_too(collapse: bool) -> None:
    """Collapsed or not: a denial stays, a served request is counted."""
    told = Told()
    feed = EventWindow(told.mirror, collapse=collapse)
    _row(told, "token.decision", "dec_1", outcome="allowed")
    _row(told, "token.decision", "dec_2", outcome="denied")
    feed.update()
    feed.show_notable(True)
    words = {line.word for line in feed.lines}
    assert "denied" in words
    assert not words & {"allowed", "done"}
    assert feed.routine == 1
