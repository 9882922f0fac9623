"""Decide recorded requests by another policy too, next to the one in effect.

It answers nothing: it reads the ledger behind the broker, as a plan does, so the counts
are exact, also over a restart, and no request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing, suppress
from itertools import islice
from typing import Any, Final

import msgspec

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import kept_policy
from agentvault_tui.clock import iso
from agentvault_tui.errors import LedgerError, PolicyError
from agentvault_tui.ledger import Meta
from agentvault_tui.ledger.schema import open_reader
from agentvault_tui.operator_api.planning import ShadowInfo
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.watch.history import Decider, LimitedDecider, records
from agentvault_tui.watch.plan import Changes, outcome_by

_KEY: Final = "shadow"
_A_LOOK: Final = 2_000
"""Records decided in one look; a broker that is busier is caught up with later."""
_SAVED_EVERY: Final = 10.0

log = logging.getLogger("agentvault.shadow")


class Shadow:
    """At most one policy that decides next to the one in effect."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._decider: Decider | None = None
        self._changes = Changes([])
        self._seq = 0
        self._counted = 0
        """The last event in the counts of the last process: events before it only fill
        the windows of limits again."""
        self._began: int | None = None
        """Behind which event the windows of its own limits begin, if it has some."""
        self._unsaved_since: float | None = None

    def restore(self) -> None:
        """Go on where the last process saved its counts."""
        stored = self._broker.recording.meta.get(_KEY)
        if stored is None:
            return
        try:
            state: dict[str, Any] = msgspec.json.decode(stored)
            texts = PolicyTexts(**state["texts"])
            info = msgspec.convert(state["info"], ShadowInfo)
            policy = kept_policy(self._broker.home, texts)
            self._take(policy, info, state["seq"], state.get("began"))
        except (PolicyError, ValueError, TypeError, LookupError) as error:
            log.warning("the shadow policy is off: %s", error)

    async def set(self, text: str, limits: str | None = None) -> None:
        """Decide by the policy *text* from now on; none, if it is empty.

        *limits* is the text of ``limits.toml``. Their windows begin empty, and hold the
        uses that this policy allows. None for the limits in effect: rules read their
        use at the time of a decision.

        Raises:
            PolicyError: it is no policy.
            LedgerError: it could not be stored.
        """
        broker = self._broker
        if not text:
            self._decider = broker.deciding.state.shadow = self._unsaved_since = None
            await broker.record(changes=[Meta(_KEY, None)])
            broker.recording.meta.pop(_KEY, None)
            return
        texts, head = (
            broker.deciding.policy.texts._replace(policy=text),
            broker.ledger.head.seq,
        )
        if limits is not None:
            texts = texts._replace(limits=limits)
        # The version is known once it is read.
        info = ShadowInfo(version="", since=iso(broker.clock.now()))
        began = None if limits is None else head
        policy = await asyncio.to_thread(kept_policy, broker.home, texts)
        self._take(policy, info, head, began)
        await self.save()

    def _take(
        self, policy: Policy, info: ShadowInfo, seq: int, began: int | None
    ) -> None:
        info.version = policy.version
        limited = began is not None and policy.limits.limits
        self._decider = LimitedDecider(policy) if limited else Decider(policy)
        self._seq = began if began is not None and limited else seq
        self._counted, self._began = seq, began
        self._changes = Changes(info.by)
        self._broker.deciding.state.shadow = info

    async def look(self) -> None:
        """Decide the records since the last look."""
        decider, info = self._decider, self._broker.deciding.state.shadow
        head = self._broker.ledger.head.seq
        if decider is None or info is None or head <= self._seq:
            return
        await asyncio.to_thread(self._count, decider, info, head)
        now = self._broker.clock.boot()
        if self._unsaved_since is None:
            self._unsaved_since = now
        elif now - self._unsaved_since >= _SAVED_EVERY:
            await self.save()

    def _count(self, decider: Decider, info: ShadowInfo, head: int) -> None:
        limited = decider if isinstance(decider, LimitedDecider) else None
        with closing(open_reader(self._broker.home.database)) as db:
            last = head
            recorded = records(
                db, after=self._seq, upto=head, delivered=limited is not None
            )
            for number, record in enumerate(islice(recorded, _A_LOOK), start=1):
                if number == _A_LOOK:
                    last = record.seq
                if record.outcome is None and limited:
                    limited.delivered(record)
                if record.outcome is None or not record.has_facts:
                    continue
                to = outcome_by(record, verdict := decider.answer(record))
                if limited:
                    limited.settle(record, to)
                if record.seq > self._counted:
                    info.decisions += 1
                    info.differences += to != record.outcome
                    self._changes.add(record, verdict)
        info.by = self._changes.listed()
        self._seq = last

    async def save(self) -> None:
        """Store policy and counts for the next process."""
        info = self._broker.deciding.state.shadow
        if self._decider is None or info is None:
            return
        texts = self._decider.policy.texts._asdict()
        seq = max(self._seq, self._counted)
        state = {"texts": texts, "seq": seq, "began": self._began, "info": info}
        self._unsaved_since = None
        text = msgspec.json.encode(state).decode()
        await self._broker.record(changes=[Meta(_KEY, text)])

    async def aclose(self) -> None:
        """Store the counts."""
        with suppress(LedgerError):
            await self.save()
