"""A team's log in PostgreSQL: the source of this broker's copy and all others'.

One connection appends and follows, one appends urgent jobs, one polls, one listens,
one notifies, and a few look at the head.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import psycopg

from agentvault_tui.clock import Clock, SharedClock, parse_iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import LedgerDamagedError, LedgerUnwritableError
from agentvault_tui.ledger.batch import NUMBER, Job, Tip, placed_rows
from agentvault_tui.ledger.chain import link
from agentvault_tui.ledger.notifier import NotificationListener, Notifier
from agentvault_tui.ledger.state import Row
from agentvault_tui.ledger.store_schema import (
    FINISHED,
    FINISHED_NOW,
    FOLLOW,
    FROM_HERE_ON,
    PRUNE,
    REQUESTED,
)
from agentvault_tui.store_connection import (
    CALL_SECONDS,
    LOCAL_ONLY,
    RESTORE,
    Connection,
    Connector,
    ask,
    close,
)

_POLL_SECONDS: Final = 0.2
"""How often the head is looked at while no notification arrives."""
_FLOODED_POLL_SECONDS: Final = 0.05
"""The same after a flood of notifications, when none is read."""
FOLLOWED_AT_ONCE: Final = 2048
"""Events that one `SharedLog.follow` reads."""
_MISSED_AT_ONCE: Final = 256
"""Events that an answer to `SharedLog.append` has: it is read under the head's lock."""
_TIME: Final = "greatest(clock_timestamp(), time::timestamptz)"
"""The team's time: held at the last event's if the primary's clock stepped back;
otherwise ended things would live again."""
_APPEND: Final = """
SELECT * FROM agentvault.append(
  %s, %s, %s, %s, %s, %s, %s, %s, %s, %b::bytea[], %s::bigint[],
  %s::text[], %s::text[], %s::bigint[], %s::text[], %b::bytea[], %s::bigint[])
"""
_SEQ, _AT, _WHOLE = 0, -1, -2
"""The continuation of a part of a body; see `store_schema`."""
_Sent = tuple[str, str, int, str | None, bytes, int | None]
"""A row without its numbers: table, key, number, expiry, columns, binding event."""
log = logging.getLogger("agentvault.store")


@dataclass(frozen=True, slots=True)
class StoreHead:
    """Where the team's log ends: its chain, and the transaction that moved it last."""

    tip: Tip
    revision: int
    """How many transactions wrote: rows that changed since one carry a larger one."""
    batch: str
    """The last transaction's own random name: no other log has it at this revision."""
    n: int = 0
    """The largest number of a row."""
    fault: str | None = None
    """Why grants are stopped, if a broker found that acknowledged events are gone."""


class Transaction(NamedTuple):
    """Jobs on their way to the store."""

    head: StoreHead
    """The head when it was sent."""
    jobs: Sequence[Job]
    batch: str
    """Its name: a random UUID."""


@dataclass(frozen=True, slots=True)
class Followed:
    """The writes of others after a head."""

    head: StoreHead
    """Where it ends; while `complete` is false with the last of the events."""
    events: Sequence[tuple[int, bytes, bytes]]
    """Number, body and hash; each was checked to follow from the one before."""
    rows: Sequence[tuple[str, Row]]
    """The rows that changed, as they are now, by table."""
    complete: bool
    """Whether nothing follows; until then no rows are read."""
    later: bool = False
    """Whether more was written after the end that was asked for: a row that changed
    before and after it is left out."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of a transaction: its place, or the reason why it has none."""

    outcome: str
    """``placed``, ``behind`` (another was first), ``wait`` (it is another's turn, for a
    moment) or ``fault``."""
    seq: int
    hash: bytes
    time: datetime | None
    revision: int
    n: int
    """The largest number of a row before it."""
    missed: Sequence[tuple[Any, ...]] = ()
    """The writes of others between the known head and it: for `followed`."""


class SharedLog:
    """The team's log, as one broker reaches it."""

    def __init__(
        self, connector: Connector, broker_id: str, pool: int, clock: Clock
    ) -> None:
        """Use the store of *connector*, as the broker named *broker_id*.

        Args:
            connector: connects to it.
            broker_id: this home's own random name.
            pool: how many connections look at the head at once.
            clock: the broker's; one that a team shares is set to the store's time.
        """
        self._clock = clock
        self._connector = connector
        self.broker_id = broker_id
        self.taking = asyncio.Lock()
        """Held while others' writes are taken over, and while memory is loaded."""
        self._writers: dict[bool, Connection] = {}
        """The appending connections: for urgent jobs, and for all others."""
        self._local_only: set[bool] = set()
        """The broker whose last commit may not have reached its replicas."""
        self._idle: list[Connection] = []
        self._closed = False
        self.notifier = Notifier(connector)
        """Notifies the other brokers while `listen` runs."""
        self.listener = NotificationListener(connector)
        """Listens meanwhile for notifications of the others."""
        self._looks = asyncio.Semaphore(pool)
        self._next_look: asyncio.Task[int] | None = None
        self.on_asked: Callable[[], None] = lambda: None
        """Called when another broker asks this one something; see `StoreCalls`."""

    @property
    def systems(self) -> list[tuple[str, int]]:
        """Return which servers were used; see `Connector`."""
        return self._connector.systems

    # Writing and following, by the writer alone

    async def append(
        self,
        head: StoreHead,
        jobs: Sequence[Job],
        batch: str,
        *,
        urgent: bool,
        instead: str | None = None,
    ) -> Appended:
        """Place *jobs* at the end, all or none, in one statement.

        That is behind whatever others wrote since the head that is *known*, unless one
        of the keys of *jobs* was written. Asking again with the same *batch* places
        nothing twice: it returns the outcome of the first time. While the answer to
        that was lost, ask until there is one.

        Args:
            head: the head that *jobs* were checked against.
            jobs: the jobs; their rows' numbers are larger than the head's, and in the
                store larger by the others' count.
            batch: a random UUID, the transaction's own.
            urgent: whether it is taken although grants are stopped.
            instead: of another transaction, which is never placed after this one.

        Returns:
            its outcome.

        Raises:
            StoreAwayError: nothing was placed.
            LedgerUnwritableError: no answer came: the outcome is unknown.
        """
        parts, rows = _unplaced(head, jobs)
        db = await self._connected(urgent=urgent)
        self._local_only.discard(urgent)
        # A request may arrive late and twice: what was placed, or given up, is a key.
        own = {f"append:{batch}"}
        depends = own.union(*(job.depends for job in jobs))
        writes = own.union({f"append:{instead}"}, *(job.writes for job in jobs))
        values = (
            *(head.batch, head.tip.seq, head.revision, _MISSED_AT_ONCE),
            # Of each connection the last transaction is known.
            *(f"{self.broker_id} urgent" if urgent else self.broker_id, batch, urgent),
            *(_ascii(depends), _ascii(writes)),
            *(columns(parts) or [[]] * 2),
            *(columns(rows) or [[]] * 6),
        )
        *missed, answer = await ask(db, _APPEND, values)
        if urgent in self._local_only:
            await close(db)
            raise LedgerUnwritableError("a commit has not reached its replicas")
        _, seq, revision, n, outcome, time, digest, *_ = answer
        if outcome == "placed":
            self.notifier.announce()
        at = None if time is None else parse_iso(time)
        return Appended(outcome, seq, digest, at, revision, n, missed)

    async def follow(
        self, head: StoreHead, seconds: float, end: StoreHead | None = None
    ) -> Followed:
        """Read the writes after *head*, for so many seconds.

        Args:
            head: where to begin.
            seconds: how long it may take.
            end: the place before a transaction of this broker, to read no further.

        Raises:
            LedgerDamagedError: the log does not contain that head, or is no chain.
            LedgerUnwritableError: it did not answer.
        """
        db = await self._connected()
        values = _after(head)
        if end is not None:
            values |= {"end_seq": end.tip.seq + 1, "end_revision": end.revision + 1}
        if seconds > CALL_SECONDS:
            await ask(db, f"SET statement_timeout = {seconds * 1000:.0f}")
        rows = await ask(db, FOLLOW, values, seconds)
        if seconds > CALL_SECONDS:
            await ask(db, RESTORE)
        return followed(rows, head, end)

    async def follow_beside(self, head: StoreHead, batch: str) -> Followed | None:
        """Read the writes after *head*, next to an append.

        Returns:
            the writes; None if *batch*, which is on its way, is placed already.

        Raises:
            LedgerDamagedError: the log does not contain that head, or is no chain.
            LedgerUnwritableError: it did not answer.
        """
        rows = await self.on_idle(FOLLOW, {**_after(head), "own": batch})
        return None if rows[0][8] else followed(rows, head)

    async def outcome(self, batch: str) -> Appended | None:
        """Return where a transaction was placed, if it was; ask for the last one only.

        It is final once another was placed behind the head that was read after this.
        """
        db = await self._connected()
        sql = (
            "SELECT 'placed', seq, hash, time, revision, n FROM agentvault.appends"
            " WHERE broker = %s AND batch = %s"
        )
        rows = await ask(db, sql, (self.broker_id, batch))
        if not rows:
            return None
        outcome, seq, digest, time, revision, n = rows[0]
        at = None if time is None else parse_iso(time)
        return Appended(outcome, seq, digest, at, revision, n)

    async def prune(self) -> None:
        """Delete rows that have expired, for the whole team; events never."""
        db = await self._connected()
        for sql in PRUNE:
            await ask(db, sql)

    async def set_fault(self, fault: str | None) -> None:
        """Stop grants at all brokers, or, with None, allow them."""
        db = await self._connected()
        sql = (
            "UPDATE agentvault.head SET fault = %s, revision = revision + 1,"
            " batch = gen_random_uuid() WHERE fault IS DISTINCT FROM %s"
        )
        await ask(db, sql, (fault, fault))

    async def ledger_id(self) -> tuple[str, str | None]:
        """Return the ledger's own random name, and where it was copied to, if so."""
        db = await self._connected()
        started = self._clock.boot()
        sql = f"SELECT {_TIME}, ledger, copied FROM agentvault.head"  # noqa: S608 - a constant
        ((now, ledger, copied),) = await ask(db, sql)
        self._agree(now, started)
        return ledger, copied

    def _agree(self, now: datetime, started: float) -> None:
        if isinstance(self._clock, SharedClock):
            self._clock.agree(now.astimezone(UTC), started, self._clock.boot())

    async def mark_copied(self, to: str | None) -> None:
        """Note where the store was copied to, or that it is used again all the same."""
        db = await self._connected()
        await ask(db, "UPDATE agentvault.head SET copied = %s", (to,))

    async def end(self) -> StoreHead:
        """Return the head, whatever comes before it."""
        db = await self._connected()
        sql = "SELECT seq, hash, time, revision, batch::text, n FROM agentvault.head"
        ((seq, digest, time, revision, batch, n),) = await ask(db, sql)
        tip = Tip(seq, digest, None if time is None else parse_iso(time))
        return StoreHead(tip, revision, batch, n)

    async def finished(self) -> bool:
        """Check whether no broker of an earlier version has to read the writes.

        `store prepare --finish` states that.
        """
        ((version,),) = await self.on_idle(FINISHED_NOW)
        return int(version or 0) >= FINISHED

    async def contains(self, seq: int, digest: bytes) -> bool:
        """Check whether the chain has the event of that number and hash."""
        db = await self._connected()
        sql = "SELECT 1 FROM agentvault.events WHERE seq = %s AND hash = %s"
        return bool(await ask(db, sql, (seq, digest)))

    # Looking, by many

    async def revision(self) -> int:
        """Return the newest revision at some moment after this was called.

        All who ask in one turn of the loop share one look.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        if self._next_look is None:
            self._next_look = asyncio.ensure_future(self._look())
            # Whoever asked may have given up waiting by the time it fails.
            self._next_look.add_done_callback(
                lambda look: look.cancelled() or look.exception()
            )
        return await asyncio.shield(self._next_look)

    async def _look(self) -> int:
        async with self._looks:
            self._next_look = None  # who asks from now on needs a later one
            sql = "SELECT revision FROM agentvault.head"
            ((revision,),) = await self.on_idle(sql)
            return int(revision)

    async def hold(self, name: str, run: str, doc: bytes, seconds: float) -> bool:
        """Hold a lease under *name* for so many seconds from now, by the store's clock.

        Args:
            name: a broker's id, or the work that one broker does for all.
            run: random, of the process that asks.
            doc: its heartbeat, JSON.
            seconds: how long the lease of another process lasts.

        Returns:
            whether it is held; not while another process does.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        sql = (
            "INSERT INTO agentvault.brokers VALUES (%s, clock_timestamp(), %b, %s)"
            " ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, doc = excluded.doc,"
            " run = excluded.run WHERE brokers.run = excluded.run"
            " OR brokers.seen < clock_timestamp() - make_interval(secs => %s)"
            " RETURNING 1"
        )
        return bool(await self.on_idle(sql, (name, doc, run, seconds)))

    async def release(self, names: Sequence[str], run: str) -> None:
        """End the leases that a process holds."""
        sql = "DELETE FROM agentvault.brokers WHERE id = ANY(%s) AND run = %s"
        await self.on_idle(sql, (list(names), run))

    async def holders(self) -> tuple[datetime, list[tuple[str, bytes, float]]]:
        """Read the holders, also those of the last 24 hours.

        Returns:
            the store's time, and each name, its document, and its age in seconds.
        """
        sql = (
            "SELECT id, doc, extract(epoch FROM t - seen)::float8, t"
            " FROM agentvault.brokers RIGHT JOIN clock_timestamp() AS t"
            " ON seen > t - interval '24 hours' ORDER BY id"
        )
        rows = await self.on_idle(sql)
        return rows[0][3], [(i, d, age) for i, d, age, _ in rows if i is not None]

    async def on_idle(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement that may be run twice, on an idle connection or a new one.

        Raises:
            LedgerUnwritableError: the store did not answer.
        """
        if self._idle:
            # One that was idle may have been lost meanwhile: then ask another.
            try:
                return await self._lent(self._idle.pop(), sql, values)
            except LedgerUnwritableError:
                while self._idle:
                    await close(self._idle.pop())
        return await self._lent(await self._connector.connect(), sql, values)

    async def _lent(
        self, db: Connection, sql: str, values: Sequence[object] | Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        rows = await ask(db, sql, values)
        if self._closed:  # a look goes on when whoever asked has given up
            await close(db)
        else:
            self._idle.append(db)
        return rows

    async def listen(self, on_revision: Callable[[int], None]) -> None:
        """Call back with the head's revision when it moved, at least every 200 ms.

        And call `on_asked` while a question waits for this broker. Notifications only
        make it sooner: where none arrives the head is polled.

        Raises:
            LedgerUnwritableError: the store does not answer any more.
        """
        db = await self._connector.connect()
        sql = f"SELECT {_TIME}, revision, EXISTS ({REQUESTED}) FROM agentvault.head"  # noqa: S608 - same
        tasks = [
            asyncio.create_task(one.run()) for one in (self.notifier, self.listener)
        ]
        try:
            while True:
                started = self._clock.boot()
                ((now, revision, waits),) = await ask(db, sql, (self.broker_id,))
                self._agree(now, started)
                on_revision(int(revision))
                if waits:
                    self.on_asked()
                flooded = self.listener.flooded
                seconds = _FLOODED_POLL_SECONDS if flooded else _POLL_SECONDS
                await self.listener.wait(seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await close(db)

    async def connect_urgent(self) -> None:
        """Connect for urgent jobs, before there is any.

        Raises:
            LedgerUnwritableError: the store did not answer.
            RefusedError: it may not be used.
        """
        await self._connected(urgent=True)

    async def _connected(self, *, urgent: bool = False) -> Connection:
        db = self._writers.get(urgent)
        if db is None or db.closed:
            db = self._writers[urgent] = await self._connector.connect()

            def noticed(notice: psycopg.errors.Diagnostic) -> None:
                if notice.sqlstate == LOCAL_ONLY:
                    self._local_only.add(urgent)

            db.add_notice_handler(noticed)
        return db

    async def close(self) -> None:
        """Close all connections but the listening one, which ends with its task."""
        self._closed = True
        for db in self._writers.values():
            await close(db)
        while self._idle:
            await close(self._idle.pop())


def followed(
    fetched: Sequence[tuple[Any, ...]], after: StoreHead, end: StoreHead | None = None
) -> Followed:
    """Check that the rows of `FOLLOW` continue the chain from *head*.

    Args:
        fetched: its rows.
        after: where they begin.
        end: where they end, unless it is the store's head; its hash and time are not
            known.

    Raises:
        LedgerDamagedError: the log does not contain that head, or is no chain.
    """
    tip = after.tip
    _, seq, revision, n, batch, fault, there, *_ = fetched[0]
    if (
        tip.seq > seq
        or (tip.seq and there != tip.hash)
        or revision < after.revision
        or (revision == after.revision and after.batch not in {"", batch})
    ):
        raise LedgerDamagedError(
            f"the store's chain does not contain event {tip.seq} as this broker"
            " acknowledged it",
            "find out what was lost; accept it on the record:"
            " agentvault audit accept --reason WHY",
        )
    events = sorted((row[1], row[6], row[7]) for row in fetched if row[0] == 1)
    previous, at = tip.hash, tip.seq
    for number, body, digested in events:
        at += 1
        if number != at or link(previous, number, body) != digested:
            raise LedgerDamagedError(
                f"event {number} of the store does not follow from what is before",
                "stop the brokers and keep the store as evidence",
            )
        previous = digested
    later = end is not None and revision > end.revision + 1
    if end is not None:
        seq, revision, n, batch = end.tip.seq, end.revision, end.n, ""
    complete = at == seq
    rows = [
        (row[4], tuple(msgspec.json.decode(row[6])))
        for row in sorted(fetched[1:], key=lambda row: (row[0], row[2] or 0))
        if row[0] == 2
    ]
    if events:
        time = parse_iso(msgspec.json.decode(events[-1][1])["time"])
        tip = Tip(at, previous, time)
    if not complete:
        return Followed(StoreHead(tip, after.revision, "", n), events, (), False)
    head = StoreHead(tip, revision, batch, n, fault)
    return Followed(head, events, rows, True, later)


def _after(head: StoreHead) -> dict[str, Any]:
    """Return the values of `FOLLOW` from a head on."""
    place = {"seq": head.tip.seq, "revision": head.revision}
    return {**place, "limit": FOLLOWED_AT_ONCE, **FROM_HERE_ON}


def _unplaced(
    head: StoreHead, jobs: Sequence[Job]
) -> tuple[list[tuple[bytes, int]], Iterable[_Sent]]:
    """Return bodies and rows without the parts that the store adds by their place."""
    parts, rows = list[tuple[bytes, int]](), dict[tuple[str, str], _Sent]()
    seq, n = 0, head.n
    for job in jobs:
        for prepared in job.prepared:
            seq += 1
            parts.append((prepared.before.encode(), _SEQ))
            # What is between the numbers of rows, and those.
            between = NUMBER.split(prepared.state)
            numbers = (int(digits) - n for digits in NUMBER.findall(prepared.state))
            parts += zip((one.encode() for one in between), numbers, strict=False)
            parts.append((f'{between[-1]},"time":"'.encode(), _AT))
            parts.append((f'"{prepared.after}'.encode(), _WHOLE))
        for table, row in placed_rows(job, seq):
            key, number, ends = keyed(table, row)
            binding = row[-1] if table == "tokens" else None
            doc = to_json(row[1:-1] if table == "tokens" else row[:-1])[1:-1]
            if (table, key) not in rows or rows[table, key][2] < number - n:
                sent = (table, key, number - n, ends, doc.encode(), binding)
                rows[table, key] = sent
    return parts, rows.values()


def _ascii(keys: Iterable[str]) -> list[str]:
    """Return keys as PostgreSQL takes them in any encoding: an agent's name is one."""
    return sorted(key.encode("unicode_escape").decode() for key in keys)


def columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Return rows as columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def keyed(table: str, row: Row) -> tuple[str, int, str | None]:
    """Return a row's key in the store, its number, and when it may be pruned."""
    if table == "tokens":
        return f"{row[0]}", row[0], row[3]
    return row[0], row[-1], None
