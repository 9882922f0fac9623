"""Persist revocations that are already in effect, in the ledger or a journal.

A cut is recorded in the ledger if that takes at most 250 ms; if not, it is written to
the cut journal before its reply, and recorded once the ledger can write again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

from agentvault_tui.broker.pending_cuts import (
    Decide,
    Pending,
    deduplicated,
    kept_cuts,
)
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.stepups import as_cancelled
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import ConflictError, LedgerError, OvertakenError
from agentvault_tui.ledger import (
    Attempt,
    Change,
    Cooldown,
    CutJournal,
    DropAccount,
    KeptCut,
    Ledger,
    OutboxStep,
    Panic,
)
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    Draft,
    Event,
    Lease,
    StepUp,
    Token,
)

log = logging.getLogger("agentvault.cuts")

_LEDGER_WAIT: Final = 0.25
"""Seconds a cut waits for its record before it goes to the journal."""
_STORE_WAIT: Final = 1.0
"""The same where the record is elsewhere, and the reply tells who has followed it."""
_JOURNAL_WAIT: Final = 2.0
"""Seconds its reply waits for the journal: a disk may hang for good."""
_TRIES: Final = 8
"""The number of times that a revocation is decided again because of other brokers'
writes."""
_OWN: Final = 100
"""Own tokens that an agent may revoke while the ledger is not writable."""


class Kept(StrEnum):
    """Where a cut is when its reply leaves."""

    LEDGER = "ledger"
    JOURNAL = "journal"
    STOP = "stop"
    """Neither could be written: the next start stops everything."""
    MEMORY = "memory"
    """The disk does not answer, or nothing on it can be changed."""


@dataclass(slots=True)
class Cuts:
    """Revocations that are not recorded yet, in memory and in the journal."""

    ledger: Ledger
    registry: Registry
    clock: Clock
    notify: Callable[[], None] = lambda: None
    """Called when the unrecorded entries, or their place, changed."""
    unrecorded: list[Pending] = field(default_factory=list)
    """Revocations whose record failed; it is tried again when the ledger can write."""
    late: list[Pending] = field(default_factory=list)
    """Cuts that the ledger has taken and not finished."""
    under_way: list[Pending] = field(default_factory=list)
    """Cuts that are on their way to the ledger."""
    replaying: tuple[KeptCut, ...] = ()
    """The entries of the last process, until all of them are in effect."""
    journal: CutJournal | None = None
    _tasks: set[asyncio.Task[object]] = field(default_factory=set)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _recording: asyncio.Lock = field(default_factory=asyncio.Lock)
    _requested: int = 0
    _served: int = 0
    """The number of calls of `keep` that the last write served."""
    _outcome: Kept = Kept.LEDGER
    """The place of the last write."""
    _written: list[KeptCut] | None = None
    """The content of the journal, if this process has written it."""
    _ended: Counter[AgentId] = field(default_factory=Counter)
    """Tokens that agents revoked themselves since the ledger was writable last."""
    _since: datetime | None = None
    """The time when replayed entries took effect."""

    @property
    def unfinished(self) -> bool:
        """Check whether `record_missed` has something to do."""
        broken = self.journal is not None and self.journal.problem is not None
        anew = broken and not self.late and self.ledger.writable
        return bool(self.unrecorded) or anew

    @property
    def durability(self) -> Kept:
        """Return where those that are not recorded are, as far as is certain."""
        return self._outcome if self._served == self._requested else Kept.MEMORY

    @property
    def waiting(self) -> int:
        """Return how many changes are in effect and not recorded."""
        return len(self.unrecorded) + len(self.late)

    async def record(
        self,
        drafts: Sequence[Draft],
        changes: Sequence[Change],
        agent_id: AgentId | None,
    ) -> Kept:
        """Persist a cut that is already in effect.

        Args:
            drafts: its events.
            changes: its changes; those that make an answer stricter are journaled.
            agent_id: the agent, if there is one; by default the first event's.

        Returns:
            where it is now; after about two seconds at most.
        """
        return await self._record(self._pending(drafts, changes, agent_id))

    async def record_decided(self, decide: Decide) -> Kept:
        """End rights in memory, and persist that as it is right when it is placed.

        In a team that is in the store's transaction, on the store's state: if another
        broker wrote meanwhile to rows that *decide* reads, they are followed and it is
        called again.

        Args:
            decide: finds the changes.

        Returns:
            where it is now; after about two seconds at most.

        Raises:
            ConflictError: another decision was first.
        """
        if (decided := decide()) is None:
            with contextlib.suppress(LedgerError):  # it may be known elsewhere
                await self.ledger.confirm()
            if (decided := decide()) is None:
                return Kept.LEDGER
        pending = self._pending(*decided, None)
        pending.decide, pending.sent = decide, [*decided.drafts]
        return await self._record(pending)

    async def _record(self, pending: Pending) -> Kept:
        self.under_way.append(pending)
        # Begun at once: no other task has its turn before.
        commit = asyncio.ensure_future(self._place(pending, self._begin(pending)))
        self._track(commit)
        commit.add_done_callback(partial(self._settled, pending))
        wait = _LEDGER_WAIT if self.ledger.shared is None else _STORE_WAIT
        done, _ = await asyncio.wait({commit}, timeout=wait)
        if not done:
            self.late.append(pending)
        elif not isinstance(commit.exception(), LedgerError):
            commit.result()
            return Kept.LEDGER
        return await self.keep()

    async def keep(self) -> Kept:
        """Write all that is not recorded to the journal; wait at most two seconds.

        One write serves all who asked before it began.
        """
        self._requested += 1
        task = asyncio.create_task(self._keep(self._requested))
        self._track(task)
        done, _ = await asyncio.wait({task}, timeout=_JOURNAL_WAIT)
        if done and (error := task.exception()) is not None:
            log.error("cuts are in memory alone", exc_info=error)
            return Kept.MEMORY
        return task.result() if done else Kept.MEMORY

    def missed(
        self, changes: Sequence[Change], agent_id: AgentId | None = None
    ) -> None:
        """Note changes that are in effect and whose record failed, without an event."""
        self.unrecorded.append(self._pending((), changes, agent_id))

    def may_end(self, agent_id: AgentId) -> bool:
        """Check whether an agent may end another of its own tokens, and count it.

        While the ledger is not writable each takes a slot reserved for operators.
        """
        waiting = (*self.unrecorded, *self.late)
        if self.ledger.writable:
            self._ended.clear()
            return sum(one.agent_id == agent_id for one in waiting) < _OWN
        self._ended[agent_id] += 1
        return self._ended[agent_id] <= _OWN

    async def settle(self, attempts: Sequence[Attempt]) -> None:
        """Know that commits reached the ledger which were said to have failed.

        Cuts among them are recorded. Their other changes are written again as they are.
        """
        async with self._recording:
            recorded = {id(draft) for one in attempts for draft in one.drafts}
            self.unrecorded = [
                pending
                for pending in self.unrecorded
                if recorded.isdisjoint(id(draft) for draft in pending.sent)
            ]
            self.missed([change for one in attempts for change in one.changes])

    async def stop_next_start(self, problem: str) -> None:
        """Have the next start stop everything, whatever the ledger says by then."""
        if self.journal is not None and self.journal.problem is None:
            self.journal.problem = problem
        self._written = None
        await self.keep()

    async def record_missed(self) -> None:
        """Record missed entries, by the present state.

        Raises:
            LedgerError: it latched again; the rest stays for the next time.
        """
        async with self._recording:
            recorded = self.unfinished
            try:
                while self.unrecorded:
                    first = self.unrecorded[0]
                    with contextlib.suppress(ConflictError):  # another was first
                        if first.decide is None or first.decide_again():
                            await self._place(first, self._begin(first))
                    self.unrecorded.remove(first)
            finally:
                if recorded:
                    await self.keep()

    @contextlib.contextmanager
    def took_effect(self, at: datetime) -> Iterator[None]:
        """Say in the events of a block that they took effect earlier than recorded."""
        self._since = at
        try:
            yield
        finally:
            self._since = None

    def _pending(
        self,
        drafts: Sequence[Draft],
        changes: Sequence[Change],
        agent_id: AgentId | None,
    ) -> Pending:
        if self._since is not None:
            for draft in drafts:
                draft.detail["took_effect_at"] = iso(self._since)
        if agent_id is None and drafts:
            agent_id = drafts[0].agent_id
        at = self._since or self.clock.now()
        head = self.ledger.head.seq
        pending_drafts = tuple(drafts)
        return Pending(
            pending_drafts, tuple(changes), agent_id, head, at, sent=[*pending_drafts]
        )

    def _begin(
        self, pending: Pending, *, exact: bool = True
    ) -> asyncio.Future[tuple[Event, ...]]:
        """Commit at once: no other task has its turn before."""
        begun: asyncio.Future[tuple[Event, ...]]
        changes: Sequence[Change] = pending.changes
        if pending in self.unrecorded:
            current = map(self._as_known, changes) if not pending.decide else changes
            changes = [one for one in current if one is not None]
            for draft in pending.drafts:
                draft.detail.setdefault("took_effect_at", iso(pending.at))
        try:
            begun = asyncio.ensure_future(
                self.ledger.commit(
                    *pending.drafts,
                    changes=changes,
                    urgent=True,
                    exact=exact and pending.decide is not None,
                )
            )
        except LedgerError as error:
            begun = asyncio.get_running_loop().create_future()
            begun.set_exception(error)
        return begun

    async def _place(
        self, pending: Pending, commit: asyncio.Future[tuple[Event, ...]]
    ) -> tuple[Event, ...]:
        """Decide and commit again while others change the basis of *pending*.

        After so many times it is placed as it is: a revocation waits for no one.
        """
        for left in reversed(range(_TRIES)):
            try:
                return await commit
            except OvertakenError:
                if not pending.decide_again():
                    return ()
                commit = self._begin(pending, exact=left > 0)
        return await commit

    def _settled(
        self, pending: Pending, commit: asyncio.Future[tuple[Event, ...]]
    ) -> None:
        """Note how a commit ended, whether anybody waits for it still or not."""
        self.under_way.remove(pending)
        late = pending in self.late
        if late:
            self.late.remove(pending)
        if commit.cancelled():
            return
        error = commit.exception()
        if isinstance(error, LedgerError):
            log.warning("a cut is in force and not recorded: %s", error.what)
            self.unrecorded.append(pending)
        elif late:
            self._track(asyncio.create_task(self.keep()))

    async def _keep(self, sequence: int) -> Kept:
        async with self._writing:
            if sequence <= self._served:
                return self._outcome
            served = self._requested
            waiting = (*self.unrecorded, *self.late)
            cuts = [
                *self.replaying,
                *(one for each in waiting for one in kept_cuts(each)),
            ]
            try:
                self._outcome = await self._write(deduplicated(cuts))
            except OSError:
                if cuts:
                    log.exception("%d cuts are in memory alone", len(cuts))
                self._outcome = Kept.MEMORY
            self._served = served
            self.notify()
            return self._outcome

    async def _write(self, cuts: list[KeptCut]) -> Kept:
        journal = self.journal
        if journal is None:
            return Kept.MEMORY if cuts else Kept.LEDGER
        if journal.problem is not None and not cuts and self.ledger.fault is None:
            # All of it is in the ledger now, which can begin a new one.
            await asyncio.to_thread(journal.create)
        elif cuts != self._written or journal.problem is not None:
            self._written = None
            if not await asyncio.to_thread(journal.write, cuts):
                log.error("%s: the next start stops everything", journal.problem)
                return Kept.STOP
        self._written = cuts
        return Kept.JOURNAL if cuts else Kept.LEDGER

    def _track(self, task: asyncio.Task[object] | asyncio.Task[bool]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _as_known(self, change: Change) -> Change | None:
        """Return the registry's version of the thing that *change* changed."""
        registry = self.registry
        match change:
            case Agent():
                if registry.find_agent(change.id) is None:
                    registry.put_agent(change.revoked(self.clock.now()))
                return registry.agent(change.id)
            case StepUp():
                return registry.stepups.find(change.id) or as_cancelled(
                    change, "never_answered", self.clock.now()
                )
            case Panic():
                return registry.revocations.panic or replace(change, on=False)
            case Cooldown():
                return registry.stepups.cooldowns.of(change.requester)
            case OutboxStep():
                return registry.step(change.agent_id, change.id)
            case Account() | DropAccount() | Lease():
                return self._at_connection(change)
            case Token():
                return None  # the ledger voided the batch's tokens itself
            case _:
                return change

    def _at_connection(
        self, change: Account | DropAccount | Lease
    ) -> Account | DropAccount | Lease:
        where = change.agent_id, change.connection
        if isinstance(change, Lease):
            return self.registry.leases.of(*where) or change
        return self.registry.accounts.get(*where) or DropAccount(*where)
