"""Compare state rows with the chain: at a start the served ones, else all.

Rows are outside the chain, so a writer of the file can change them. Events hold the
hash of every row (see `bindings`). The parts that no event holds are in
docs/threat-model.md.
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import Clock, Deadline, SystemClock, iso, parse_iso
from agentvault_tui.errors import LedgerError
from agentvault_tui.ledger import docs, state
from agentvault_tui.ledger.bindings import (
    ALL_TOKENS,
    CREDENTIAL,
    LASTING_TYPES,
    PASSING_TYPES,
    STEP,
    UNBOUND,
    Bound,
    Row,
    bindings,
    credential_digest,
    digest,
    is_deciding,
    is_maybe_bound,
    read_bound,
)
from agentvault_tui.ledger.past_agents import Roster, Rosters, clock_moved
from agentvault_tui.ledger.places import first_at, head_seq
from agentvault_tui.ledger.records import Cooldown, Loaded, OutboxStep, Panic
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.texts import NAMING, texts_named
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    Credential,
    EventType,
    Lease,
    StepUp,
    StepUpStatus,
    Token,
    sha256_hex,
)

_WINDOW: Final = 16_384
"""Events of the first window of the scan back; each next one is twice as long."""
_OVERTAKEN: Final = 16_384
"""Events by which a revocation may precede the issue of a token it voids."""
_COOLING: Final = timedelta(seconds=1_000)
"""The longest cool-down (see `broker.stepups`)."""
_WAITING: Final = 65_536
"""More row numbers than can wait before the writer."""
_UNTOLD: Final = "there though no event tells of it"
_KNOWN_META: Final = ("ledger", "panic", "cooldown:", "account:", "lease:", *UNBOUND)


@dataclass(frozen=True, slots=True)
class StateDivergence:
    """State rows that contradict the chain, and the right ones."""

    agents: tuple[Agent, ...] = ()
    """As events say, revoked; without a credential that was changed."""
    panic: Panic | None = None
    """The panic state by events."""
    tokens: tuple[Token, ...] = ()
    """Tokens that no event issued like this, or that were ended."""
    expired: tuple[Token, ...] = ()
    """Tokens that had expired before the clock was set back: no fault."""
    stepups: tuple[StepUp, ...] = ()
    """Open or approved ones; not to be decided or redeemed."""
    decided: tuple[StepUp, ...] = ()
    """Decided ones, not to be shown."""
    accounts: tuple[Account, ...] = ()
    leases: tuple[Lease, ...] = ()
    cooldowns: tuple[Cooldown, ...] = ()
    """As the denial's event tells them."""
    steps: tuple[OutboxStep, ...] = ()
    """Steps at the tenant or a provider whose rows were changed."""
    lost_steps: tuple[AgentId, ...] = ()
    """Agents with a step whose row was removed."""
    limits: bool = False
    """The windows of limits, which were derived again."""

    def __bool__(self) -> bool:
        """Check whether there is anything."""
        return any(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Return how many of each kind there are, those there are."""
        kinds = {
            "agents": len(self.agents),
            "panic": int(self.panic is not None),
            "tokens": len(self.tokens),
            "step-ups": len(self.stepups) + len(self.decided),
            "accounts": len(self.accounts),
            "leases": len(self.leases),
            "cool-downs": len(self.cooldowns),
            "tenant steps": len(self.steps) + len(self.lost_steps),
            "set of limits' uses": int(self.limits),
        }
        return {kind: count for kind, count in kinds.items() if count}


def diverged(db: sqlite3.Connection, loaded: Loaded, clock: Clock) -> StateDivergence:
    """Compare the loaded rows with the events, before anything is served.

    Rows that end by themselves are found by a scan back to the oldest of them; those
    of any age are bound by few types of events, which are all read.
    """
    roster = Rosters().at(db, head_seq(db))
    lasting = Bound()
    read_bound(db, LASTING_TYPES, lasting)
    passing = _Passing(db, loaded, clock, lasting)
    steps = {one.id: one for one in loaded.outbox}
    forged = {
        row[0]
        for row in db.execute("SELECT * FROM outbox")
        if not lasting.holds("outbox", row)
    }
    meta = {key: (key, value, n) for key, value, n in db.execute("SELECT * FROM meta")}
    panic = meta.get("panic")
    right = panic is not None and lasting.holds("meta", panic)
    return StateDivergence(
        agents=tuple(_wrong_agents(db, roster, lasting)),
        panic=roster.panic if roster.panic and not right else None,
        tokens=passing.tokens(),
        expired=passing.expired(roster),
        stepups=passing.stepups(wanted=True),
        decided=passing.stepups(wanted=False),
        accounts=tuple(
            one
            for one in loaded.accounts
            if not lasting.holds("meta", meta[state.account_key(one)])
        ),
        leases=tuple(
            one
            for one in loaded.leases
            if not passing.bound.holds("meta", meta[state.lease_key(one)])
        ),
        cooldowns=tuple(_wrong_cooldowns(db, passing.bound, meta, clock)),
        steps=tuple(one for key, one in steps.items() if key in forged),
        lost_steps=_lost_steps(db, lasting),
    )


class _Passing:
    """Live tokens, step-ups, leases and cool-downs, and their bindings in events."""

    def __init__(
        self, db: sqlite3.Connection, loaded: Loaded, clock: Clock, lasting: Bound
    ) -> None:
        self._db = db
        self._clock = clock
        self.bound = lasting
        self._loaded = loaded
        self._stepups = list(zip(loaded.stepups, state.stepup_rows(db), strict=True))
        elevated = {one.stepup_id for one in loaded.tokens}
        self._wanted = {
            one.id
            for one in loaded.stepups
            if one.status.open
            or (one.status is StepUpStatus.APPROVED and one.id in elevated)
            or one.repeats(clock)
        }
        """Step-ups that give a right: the others are only shown."""
        self._scan()

    def expired(self, roster: Roster) -> tuple[Token, ...]:
        """Return the tokens that a clock has passed, whatever it says now."""
        return tuple(
            token
            for token, issued in zip(
                self._loaded.tokens, self._loaded.issued, strict=True
            )
            if issued and _over(roster, token.expires, issued, self._clock)
        )

    def tokens(self) -> tuple[Token, ...]:
        """Return the tokens that are not as issued, or that were ended."""
        loaded, voided = self._loaded, cache(self.bound.voided)
        return tuple(
            token
            for token, n, issued in zip(
                loaded.tokens, loaded.numbers, loaded.issued, strict=True
            )
            if not issued
            or n <= voided(token.agent_id, token.scope)
            or n < self.bound.get(token.id, (0, ""))[0]  # replaced, or dropped
        )

    def stepups(self, *, wanted: bool) -> tuple[StepUp, ...]:
        """Return those that give a right (*wanted*), or not, and are not as bound."""
        return tuple(
            stepup
            for stepup, row in self._stepups
            if (stepup.id in self._wanted) is wanted
            and (wanted or stepup.id in self.bound)
            and not self.bound.holds("stepups", row)
        )

    def _scan(self) -> None:
        """Read back to the oldest event that can say something of these rows."""
        low = min(filter(None, self._loaded.issued), default=head_seq(self._db))
        needed = {row[0]: row[-1] for _, row in self._stepups if row[0] in self._wanted}
        meta = dict(self._db.execute("SELECT key, n FROM meta"))
        for lease in self._loaded.leases:
            needed[state.lease_key(lease)] = meta[state.lease_key(lease)]
        now, head = self._clock.now(), head_seq(self._db)
        (era,) = self._db.execute("SELECT max(first_seq) FROM eras").fetchone()
        cooling = first_at(self._db, now - _COOLING, era or 1, head + 1)
        low, high, size = min(low - _OVERTAKEN, cooling), head, _WINDOW
        while high > 0 and (high > low or needed):
            start = max(high - size + 1, 1)
            read_bound(self._db, PASSING_TYPES, self.bound, start, high)
            needed = {k: n for k, n in needed.items() if not self.bound.settled(k, n)}
            high, size = start - 1, size * 2


def _over(roster: Roster, ends: Deadline, issued: int, clock: Clock) -> bool:
    """Check whether a clock passed a deadline since it was set by event *issued*."""
    peaks = roster.peaks  # nearly always none
    if peaks and any(at > issued and peak >= ends.wall for at, peak in peaks.items()):
        return True
    return (
        ends.boot_id != clock.boot_id
        and ends.wall + roster.set_back_since(issued) <= clock.now()
    )


def _wrong_agents(
    db: sqlite3.Connection, roster: Roster, bound: Bound
) -> Iterator[Agent]:
    for row in db.execute("SELECT id, doc, n FROM agents ORDER BY id"):
        if bound.holds("agents", row):
            continue
        try:
            agent = docs.read_agent(row[1])
            same = bound.get(f"{CREDENTIAL}{row[0]}", (0, ""))[1]
            same_credential = same == credential_digest(row[1])
        except (ValueError, TypeError, LookupError):
            agent, same_credential = None, False
        recorded = roster.agents.get(AgentId(row[0])) or agent
        if recorded is None:
            continue
        yield replace(
            recorded.revoked(recorded.created_at),
            id=AgentId(row[0]),
            client_id=row[0],
            credential=agent.credential if agent and same_credential else Credential(),
        )


def _wrong_cooldowns(
    db: sqlite3.Connection, bound: Bound, meta: dict[str, Row], clock: Clock
) -> Iterator[Cooldown]:
    """Yield waits after a denial whose rows were changed or removed."""
    for key, (_, bound_digest) in bound.items():
        if not key.startswith("cooldown:") or not bound_digest:
            continue
        if key in meta and bound.holds("meta", meta[key]):
            continue
        row = db.execute(
            "SELECT json_extract(body, '$.detail.denials'),"
            " json_extract(body, '$.detail.cooling_until') FROM events WHERE seq = ?",
            (bound.at[key],),
        ).fetchone()
        try:
            until = Deadline(parse_iso(row[1]), 0.0, "")
            requester = key.removeprefix("cooldown:")
            cooldown = Cooldown(requester, int(row[0]), until)
        except (ValueError, TypeError):
            continue
        if not until.passed(clock):
            yield cooldown


def _lost_steps(db: sqlite3.Connection, bound: Bound) -> tuple[AgentId, ...]:
    there = {row[0] for row in db.execute("SELECT id FROM outbox")}
    return tuple(
        sorted(
            {
                AgentId(key.removeprefix(STEP).partition("/")[0])
                for key, (_, digest) in bound.items()
                if key.startswith(STEP)
                and digest
                and key.removeprefix(STEP) not in there
            }
        )
    )


class _Issued(NamedTuple):
    digest: str
    seq: int
    agent_id: str
    ends: str


class FullStateCheck:
    """Compare every row of the state with every binding of every event."""

    _TABLES: Final = (
        ("agents", "agent"),
        ("stepups", "step-up"),
        ("outbox", "tenant step"),
        ("meta", "value"),
    )

    def __init__(self, path: Path, now: datetime | None = None) -> None:
        """Start with nothing learned; tokens have expired by *now*, or the clock's."""
        self._path = path
        self._given = now
        self._started = self._latest = iso(now or SystemClock().now())
        self._bound = Bound()
        """Bindings of all but tokens."""
        self._tokens: dict[str, dict[int, _Issued]] = {}
        """Bindings of each token whose row must or may be there."""
        self._drops: dict[str, set[int]] = {}
        self._voids: dict[str, set[int]] = {}
        self._oldest = 0
        self._texts: set[str] = set()
        """Digests of the texts that events name."""

    def begin(self, db: sqlite3.Connection) -> None:
        """Find the rows that need not be there; see `_oldest_kept`."""
        with storage_errors(self._path):
            self._oldest = _oldest_kept(db)

    def learn(self, seq: int, body: dict[str, Any]) -> None:
        """Take an event's bindings; its link and columns were found right."""
        detail = body["detail"]
        time = body["time"]
        if body["type"] == EventType.CLOCK_JUMP:
            # Set back, it had reached a later time.
            time = iso(parse_iso(time) - min(clock_moved(detail), timedelta()))
        self._latest = max(self._latest, time)
        if body["type"] in NAMING:
            self._texts.update(texts_named(body)[1].values())
        for key, value in body.get("state", {}).items():
            number, _, digest = value.partition(":")
            n = int(number)
            if key.startswith(ALL_TOKENS):
                self._voids.setdefault(key.removeprefix(ALL_TOKENS), set()).add(n)
            elif key.startswith("tok_"):
                self._learn_token(seq, body["agent_id"], detail, (key, n, digest))
                continue
            self._bound.put(seq, key, n, digest)

    def _learn_token(
        self,
        seq: int,
        agent_id: str,
        detail: dict[str, object],
        bound: tuple[str, int, str],
    ) -> None:
        key, n, digest = bound
        ends = detail.get("expires_at") or detail.get("token_fetch_before")
        ends = ends if isinstance(ends, str) else ""
        if not digest:
            if n >= self._oldest:
                self._drops.setdefault(key, set()).add(n)
        elif n >= self._oldest or ends > self._started:
            issued = _Issued(digest, seq, agent_id, ends)
            self._tokens.setdefault(key, {})[n] = issued

    def problems(self, db: sqlite3.Connection) -> list[str]:
        """Return the first thing of each kind that is not as the events say."""
        # Not before the snapshot was taken: what a broker has pruned had expired.
        now = iso(self._given or SystemClock().now())
        # A clock that was ahead has ended what it passed, and rows were pruned by it.
        now = max(now, self._latest)
        firsts: dict[str, str] = {}
        try:
            with storage_errors(self._path):
                for kind, problem in self._differences(db, now):
                    firsts.setdefault(kind, problem)
        except LedgerError as error:
            firsts.setdefault("", f"its state cannot be read ({error.what})")
        return list(firsts.values())

    def gone(self, db: sqlite3.Connection, clock: Clock) -> list[str]:
        """Return the keys of rows that were removed and that no start writes again."""
        meta = {row[0]: row for row in db.execute("SELECT * FROM meta")}
        waits = _wrong_cooldowns(db, self._bound, meta, clock)
        current = {*meta, *(f"cooldown:{one.requester}" for one in waits)}
        if Rosters().at(db, head_seq(db)).panic is not None:
            current.add("panic")
        for table in ("agents", "stepups"):
            current.update(row[0] for row in db.execute(f"SELECT id FROM {table}"))
        return sorted(
            key
            for key, (_, digest) in self._bound.items()
            if digest and table_of(key) not in {"", "outbox"} and key not in current
        )

    @property
    def last_n(self) -> int:
        """The largest number of a row that any event binds."""
        return max((n for n, _ in self._bound.values()), default=0)

    def ends(self) -> list[tuple[str, Row]]:
        """Return the rows that end tokens, by the events."""
        return [
            *(("dropped", (key, max(n))) for key, n in self._drops.items()),
            *(("voided", (key, max(n))) for key, n in self._voids.items()),
        ]

    def _differences(
        self, db: sqlite3.Connection, now: str
    ) -> Iterator[tuple[str, str]]:
        (first,) = db.execute("SELECT min(n) FROM tokens").fetchone()
        # Older tokens were pruned, and their drops with them.
        first = 2**62 if first is None else int(first)
        for table, name in self._TABLES:
            yield from self._rows(db, table, name)
        yield from self._token_rows(db, now)
        yield from self._ends(db, first)
        yield from self._text_rows(db)

    def _rows(
        self, db: sqlite3.Connection, table: str, name: str
    ) -> Iterator[tuple[str, str]]:
        there = set()
        for row in db.execute(f"SELECT * FROM {table}"):
            there.add(f"{STEP}{row[0]}" if table == "outbox" else row[0])
            if table == "meta" and not str(row[0]).startswith(_KNOWN_META):
                yield table, f"{name} {row[0]} is {_UNTOLD}"
            elif table == "meta" and self._unbound(str(row[0])):
                continue
            elif not self._bound.holds(table, row):
                bound = any(key in self._bound for key, _ in bindings(table, row))
                problem = "not as its event says" if bound else _UNTOLD
                yield table, f"{name} {row[0]} is {problem}"
        for key, (_, bound_digest) in self._bound.items():
            if bound_digest and table_of(key) == table and key not in there:
                yield table, f"{name} {key} is gone though its event is there"

    def _unbound(self, key: str) -> bool:
        """Check whether no event has to bind the small record under *key*."""
        if is_deciding(key):
            return is_maybe_bound(key) and key not in self._bound
        return key.startswith(("ledger", *UNBOUND))

    def _token_rows(
        self, db: sqlite3.Connection, now: str
    ) -> Iterator[tuple[str, str]]:
        there: dict[str, set[int]] = {}
        for row in db.execute("SELECT * FROM tokens"):
            n, name = row[0], str(row[1])
            there.setdefault(name, set()).add(n)
            if name in self._drops:
                continue  # it is served no more, whatever its row says
            states = self._tokens.get(name, {}).get(n)
            if states is None:
                yield "tokens", f"token {name} is there though no event issued it"
            elif (states.digest, states.seq) != (digest("tokens", row[1:5]), row[5]):
                yield "tokens", f"token {name} is not as its event says"
        for name, rows in self._tokens.items():
            if name in self._drops:
                continue
            for n, issued in rows.items():
                live = issued.ends > now and n > self._bound.voided(issued.agent_id)
                if live and n not in there.get(name, ()):
                    yield "tokens", f"token {name} is gone though it did not end"

    def _text_rows(self, db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
        """Yield the policy texts that differ from their names in events."""
        there = set()
        for key, text in db.execute("SELECT sha256, text FROM texts"):
            there.add(key)
            if key not in self._texts or sha256_hex(text) != key:
                yield "texts", f"policy text {key:.12} is not one that an event names"
        for key in sorted(self._texts - there):
            yield "texts", f"policy text {key:.12} is gone though its event is there"

    def _ends(self, db: sqlite3.Connection, first: int) -> Iterator[tuple[str, str]]:
        """Yield the ends of tokens that differ from the events."""
        for table, ends, name in (
            ("dropped", self._drops, "token"),
            ("voided", self._voids, "agent"),
        ):
            rows = {str(key): n for key, n in db.execute(f"SELECT * FROM {table}")}
            for key, n in rows.items():
                if n not in ends.get(key, ()):
                    yield table, f"the end of {name} {key} is in no event"
            for key, numbers in ends.items():
                if max(numbers) >= first and key not in rows:
                    yield table, f"{name} {key} ended, and its row is gone"
                elif table == "voided" and key in rows and rows[key] < max(numbers):
                    yield table, f"{name} {key} ended later than its row says"


def _oldest_kept(db: sqlite3.Connection) -> int:
    """Return a number below those of all token rows there will be.

    A commit is numbered when it is asked for, and some may wait to be written.
    """
    oldest = [
        db.execute(f"SELECT min(n) FROM {table}").fetchone()[0]
        for table in ("tokens", "dropped", "voided")
    ]
    return (
        int(min([state.last_n(db), *(n for n in oldest if n is not None)])) - _WAITING
    )


def table_of(key: str) -> str:
    """Return the table of the row that is bound under *key*."""
    if key.startswith(STEP):
        return "outbox"
    if key.startswith("agt_"):
        return "agents"
    if key.startswith(("sup_", "chg_")):
        return "stepups"
    named = key == "panic" or is_deciding(key)
    if named or key.startswith(("cooldown:", "account:", "lease:")):
        return "meta"
    return ""
