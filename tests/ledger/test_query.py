"""Reading: every filter gives what a plain walk over the events gives, in pages."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.ledger_kit import START, SYSTEM, decision, manual_clock, note
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.home import Home
from agentvault_tui.ledger import EventQuery, Ledger, Page, search
from agentvault_tui.ledger.chain import search_text
from agentvault_tui.ledger.headfile import read_witness
from agentvault_tui.ledger.query import read_page
from agentvault_tui.ledger.search import open_searcher
from agentvault_tui.model import AgentId, Draft, Event, EventType, Outcome

_WORDS = ("Zürich", "straße", "İstanbul", 'say "hi"', "100%", "a_b", "pay", "ab")


class HurriedClock(ManualClock):
    """Each look at it costs a second: the time for a page is up at once."""

    def boot(self) -> float:
        """Return a second more than the last time."""
        self.advance(1)
        return super().boot()


class Stored:
    """A closed ledger, and what is in it; no dataclass, whose repr would be endless."""

    def __init__(self, home: Home, events: tuple[Event, ...]) -> None:
        self.home = home
        self.events = events


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """300 mixed events over three eras of the clock, most of them indexed."""
    path = tmp_path_factory.mktemp("stored")
    home = Home(path, path)
    return Stored(home, asyncio.run(fill(home)))


async def fill(home: Home) -> tuple[Event, ...]:
    clock = manual_clock()
    ledger = await Ledger.open(home, clock=clock)
    events: list[Event] = []
    for number in range(300):
        clock.advance(1)
        if number in {100, 200}:
            clock.jump_wall(-50)
        events += await ledger.commit(_draft(number))
        if number == 249:
            await indexed(ledger)
    await ledger.close()
    return tuple(events)


async def indexed(ledger: Ledger) -> None:
    """Wait until the index has caught up; fails by the test's own time limit."""
    await until(lambda: not ledger.index_lag)


def _draft(number: int) -> Draft:
    agent = f"agt_{number % 3}"
    if number % 7 == 0:
        return note(EventType.AGENT_REVOKED, agent)
    if number % 11 == 0:
        return Draft(EventType.BROKER_STARTED, SYSTEM, detail={"n": number})
    outcome = list(Outcome)[number % 3 if number % 5 else 0]
    word = _WORDS[number % len(_WORDS)]
    return decision(agent, outcome, resource=f"x:{word}", to=f"{word}-{number}")


def expected(events: tuple[Event, ...], query: EventQuery) -> list[int]:
    """Say what a plain walk finds."""
    before = 10**9 if query.before is None else query.before
    found = [
        event.seq
        for event in events
        if (query.agent in {None, event.agent_id})
        and (query.type in {None, event.type})
        and (query.outcome in {None, event.outcome})
        and (query.since is None or event.time >= query.since)
        and (query.until is None or event.time < query.until)
        and (query.q is None or query.q.casefold() in _text(event))
        and (query.after is None or event.seq > query.after)
        and (query.after is not None or event.seq < before)
    ]
    return found if query.after is not None else found[::-1]


def _text(event: Event) -> str:
    words = [str(part) for pair in sorted(event.detail.items()) for part in pair]
    return search_text(event, words)


_moments = st.none() | st.integers(-60, 320).map(
    lambda seconds: START + timedelta(seconds=seconds)
)
_queries = st.builds(
    EventQuery,
    after=st.none() | st.integers(-5, 310),
    before=st.none() | st.integers(-5, 310),
    since=_moments,
    until=_moments,
    agent=st.none() | st.sampled_from(["agt_0", "agt_2", "agt_9"]).map(AgentId),
    outcome=st.none() | st.sampled_from(Outcome),
    type=st.none()
    | st.sampled_from(
        [EventType.TOKEN_DECISION, EventType.AGENT_REVOKED, EventType.PANIC_ON]
    ),
    q=st.none()
    | st.sampled_from(
        [*_WORDS, "STRASSE", "zürich-1", "A", "ri", '"hi"', "%", "nothing", "\x00x"]
    ),
    limit=st.integers(1, 400),
)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_queries)
def test_any_query_gives_what_a_plain_walk_gives(
    stored: Stored, query: EventQuery
) -> None:
    """Any mix of filters, direction and limit: the first page is exactly right."""
    home, events = stored.home, stored.events
    wanted = expected(events, query)
    page = _page(home, query, manual_clock())
    assert [event.seq for event in page.events] == wanted[: query.limit]
    assert page.next == (wanted[query.limit - 1] if len(wanted) > query.limit else None)
    assert list(page.events) == [events[event.seq - 1] for event in page.events]


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_queries, st.booleans())
def test_pages_join_without_gap_or_repeat(
    stored: Stored, query: EventQuery, hurried: bool
) -> None:
    """Following `next` gives everything once, also when no page has time to finish."""
    home, events = stored.home, stored.events
    query = replace(query, limit=max(query.limit // 8, 1))
    wanted = expected(events, query)
    clock = HurriedClock(START) if hurried else manual_clock()
    found: list[int] = []
    for _ in itertools.repeat(None, 500):
        page = _page(home, query, clock)
        found += [event.seq for event in page.events]
        if page.next is None:
            break
        if query.after is not None:
            query = replace(query, after=page.next)
        else:
            query = replace(query, before=page.next)
    assert found == wanted


def test_a_search_out_of_time_says_where_it_got_to(tmp_path: Path) -> None:
    """A page that finds nothing in time is empty and has a `next` all the same."""
    home = Home(tmp_path, tmp_path)

    async def fill_many() -> None:
        ledger = await Ledger.open(home, clock=manual_clock())
        await asyncio.gather(*(ledger.commit(decision(n=n)) for n in range(4000)))
        await ledger.close()

    asyncio.run(fill_many())
    page = _page(home, EventQuery(q="zz"), HurriedClock(START))
    assert page.events == ()
    assert page.next is not None
    assert 1 < page.next < 4000


async def test_the_limit_is_bounded(ledger: Ledger) -> None:
    """A page has 1 to 1000 events; another limit is refused."""
    for limit in (0, -1, 1001):
        with pytest.raises(ValueError, match="limit"):
            await ledger.events(EventQuery(limit=limit))


async def deny(ledger: Ledger, count: int) -> None:
    """Commit denials: on a team's store grants may wait for a second at most."""
    denied = (decision(outcome=Outcome.DENIED, n=n) for n in range(count))
    await asyncio.gather(*map(ledger.commit, denied))


@pytest.mark.slow
async def test_the_index_catches_up_and_survives_a_restart(
    home: Home, clock: ManualClock
) -> None:
    """Events are indexed soon after they were committed, and not again later."""
    ledger = await Ledger.open(home, clock=clock)
    await deny(ledger, 1000)
    await indexed(ledger)
    await ledger.close()
    again = await Ledger.open(home, clock=clock)
    assert again.index_lag == 0
    page = await again.events(EventQuery(q="CALENDAR:PRIM", limit=3))
    await again.close()
    assert [event.seq for event in page.events] == [1000, 999, 998]


@pytest.mark.one_file
async def test_small_steps_back_of_the_clock_are_held(
    ledger: Ledger, clock: ManualClock
) -> None:
    """Within two seconds time stands still instead of going back; beyond it is told."""
    (first,) = await ledger.commit(decision())
    clock.jump_wall(-1.5)
    (held,) = await ledger.commit(decision())
    clock.jump_wall(-3600)
    (back,) = await ledger.commit(decision())
    assert held.time == first.time
    assert back.time == clock.now()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM words_data WHERE id > 10",
        "DELETE FROM words_data WHERE id = (SELECT max(id) FROM words_data)",
        "DELETE FROM words_idx",
        """INSERT INTO words (words, rowid, text)
        VALUES ('delete', 7, (SELECT text FROM ledger.events WHERE seq = 7))""",
        "UPDATE progress SET upto = 500",
    ],
    ids=["hollowed", "a block gone", "no terms", "one row gone", "ahead"],
)
async def test_an_index_that_was_changed_hides_nothing(
    home: Home, clock: ManualClock, change: str
) -> None:
    """Whatever of it was deleted while no broker ran, each event is found again."""
    ledger = await Ledger.open(home, clock=clock)
    await deny(ledger, 500)
    await indexed(ledger)
    await ledger.commit(decision(n=500))
    await ledger.close()
    with closing(sqlite3.connect(home.database.with_name("index.db"))) as db:
        db.execute("ATTACH ? AS ledger", (str(home.database),))
        db.execute(change)
        db.commit()
        db.execute("DETACH ledger")
    again = await Ledger.open(home, clock=clock)
    for _ in range(2):
        page = await again.events(EventQuery(q="calendar:prim", limit=1000))
        assert len(page.events) == 501
        await indexed(again)
    await again.close()


@pytest.mark.slow
async def test_an_older_copy_of_the_index_is_not_used(
    home: Home, clock: ManualClock
) -> None:
    """Put back after more was indexed, it is built anew."""
    index = home.database.with_name("index.db")
    for count in (300, 700):
        ledger = await Ledger.open(home, clock=clock)
        await asyncio.gather(*(ledger.commit(decision(n=n)) for n in range(count)))
        await indexed(ledger)
        await ledger.close()
        if count == 300:
            older = index.read_bytes()
    index.write_bytes(older)
    again = await Ledger.open(home, clock=clock)
    assert again.index_lag == 1000
    await indexed(again)
    page = await again.events(EventQuery(q="calendar:prim", limit=1000))
    await again.close()
    assert len(page.events) == 1000


def _page(home: Home, query: EventQuery, clock: ManualClock) -> Page:
    db = open_searcher(home)
    try:
        return read_page(db, query, clock)
    finally:
        db.close()


def hollow(index: Path) -> None:
    with closing(sqlite3.connect(index)) as db, db:
        db.execute("DELETE FROM words_data WHERE id > 10")


def overwrite(index: Path) -> None:
    with index.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(64))


def replace_it(index: Path) -> None:
    other = index.with_suffix(".other")
    shutil.copy(index, other)
    other.replace(index)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("change", [hollow, overwrite, replace_it])
async def test_an_index_that_was_changed_meanwhile_hides_nothing(
    home: Home, clock: ManualClock, change: Callable[[Path], None], *, stopped: bool
) -> None:
    """Neither to a search while the broker runs, nor to the next start."""
    ledger = await Ledger.open(home, clock=clock)
    await deny(ledger, 500)
    await indexed(ledger)
    change(home.database.with_name("index.db"))
    if stopped:
        await ledger.close()
        told = read_witness(home.head_file)
        assert told is not None
        assert told.index is None
        ledger = await Ledger.open(home, clock=clock)
    for _ in range(2):
        page = await ledger.events(EventQuery(q="calendar:prim", limit=1000))
        assert len(page.events) == 500
        await indexed(ledger)
    await ledger.close()
    told = read_witness(home.head_file)
    assert told is not None
    assert told.index is not None


@pytest.mark.slow
async def test_an_index_that_was_changed_is_built_again_without_a_search(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indexer looks by itself: here at once, else every 20 s."""
    monkeypatch.setattr(search, "_EXAMINED_EVERY", 0.0)
    monkeypatch.setattr(search, "_LOOK", 0.001)
    ledger = await Ledger.open(home, clock=clock)
    await deny(ledger, 50)
    await indexed(ledger)
    index = home.database.with_name("index.db")
    before = index.stat().st_ino
    hollow(index)
    await until(lambda: not (not index.exists() or index.stat().st_ino == before))
    await indexed(ledger)
    page = await ledger.events(EventQuery(q="calendar:prim", limit=1000))
    assert len(page.events) == 50
    await ledger.close()
