"""The audit window: follows, holds, counts what arrived, and pages back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_state import START, FakeState

from agentvault_tui.clock import ManualClock
from agentvault_tui.console.feed import KEPT, PAGE, Feed
from agentvault_tui.console.filters import Filter
from agentvault_tui.console.mirror import RING, Mirror


class Told(FakeState):
    """A scripted broker whose frames reach a mirror directly."""

    def __init__(self) -> None:
        super().__init__(START)
        self.mirror = Mirror(ManualClock(START))
        self.feed = Feed(self.mirror)
        self.agent = self.add_agent("mailer", "read:email")

    def send(self, kind: str, data: dict[str, Any]) -> None:
        self.mirror.apply(kind, data)

    def happen(self, count: int, outcome: str = "allowed") -> None:
        for _ in range(count):
            self.decide(self.agent, "read:email", outcome)

    def seqs(self) -> list[int]:
        return [row.seq for row in self.feed.rows]

    def page(self, query: dict[str, Any]) -> list[Any]:
        """What the broker answers, newest first."""
        found = [e for e in reversed(self.events) if e["seq"] < query["before"]]
        if outcome := query.get("outcome"):
            found = [e for e in found if e["outcome"] == outcome]
        return [self.mirror.intake.event(e) for e in found[: query["limit"]]]

    def read_back(self, height: int) -> None:
        while (query := self.feed.wants_older(height)) is not None:
            self.feed.prepend(self.page(query), query)


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
    told.read_back(30)
    assert (told.feed.looked_at, told.feed.hidden) == (total, total - 1)


def test_scrolling_back_reads_older_pages(told: Told) -> None:
    """Beyond the recent events the broker is asked, page by page, to the first."""
    total = RING + 500
    told.happen(total)
    told.feed.update()
    assert told.seqs()[0] == total - RING + 1
    told.feed.move(-RING)
    told.read_back(30)
    while told.seqs()[0] > 1:
        told.feed.move(-PAGE)
        told.read_back(30)
    assert told.seqs()[:3] == [1, 2, 3]
    assert len(told.seqs()) <= KEPT
    assert told.seqs() == list(range(1, len(told.seqs()) + 1))


def test_a_rare_outcome_is_looked_for_in_the_ledger(told: Told) -> None:
    """A filter with too few recent matches asks the broker for older ones."""
    told.happen(3, "denied")
    told.happen(RING)
    told.feed.update()
    told.feed.narrow(Filter.parse("outcome:denied"))
    assert told.seqs() == []
    told.read_back(20)
    assert told.seqs() == [1, 2, 3]
    assert told.feed.exhausted


def test_a_page_that_comes_too_late_is_dropped(told: Told) -> None:
    """The answer to a question nobody asks any more changes nothing."""
    told.happen(RING + 50)
    told.feed.update()
    told.feed.move(-RING)
    query = told.feed.wants_older(20)
    assert query is not None
    page = told.page(query)
    told.feed.prepend(page, query)
    before = told.seqs()
    told.feed.prepend(page, query)
    assert told.seqs() == before


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("happen"), st.integers(1, 60)),
            st.tuples(st.just("move"), st.integers(-80, 80)),
            st.tuples(st.just("resume"), st.just(0)),
            st.tuples(st.just("older"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_no_order_of_things_loses_or_repeats_an_event(
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
            case "older":
                told.read_back(20)
        told.feed.update()
        seqs = told.seqs()
        assert seqs == list(range(seqs[0], seqs[-1] + 1)) if seqs else True
        if not told.feed.follow:
            assert told.feed.cursor in seqs
            assert seqs[-1] + told.feed.arrived == told.head
        else:
            assert not seqs or seqs[-1] == told.head
