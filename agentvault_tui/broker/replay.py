"""Remember which assertions were used: each counts once (RFC 7523 section 3, jti)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.ledger import UsedAssertion

_SPAN: Final = 30
"""Seconds of expiry that share a bucket; a bucket is dropped whole."""
_UNSAVED_CAP: Final = 10_000
_LONGEST: Final = 300.0
"""Seconds an assertion may be valid, so long a start keeps each by the boot clock."""


class FullError(Exception):
    """A client has used as many assertions as are remembered for one."""


class ReplayStore:
    """Keeps each ``jti`` until its assertion has expired, bounded for each client.

    At a client's bound nothing is forgotten early: it waits, and no other does.
    """

    def __init__(self, per_client: int = 65_536) -> None:
        """Remember at most *per_client* live assertions of one client."""
        self._per_client = per_client
        self._buckets: dict[int, dict[str, set[str]]] = {}
        self._ends: dict[int, float] = {}
        """When a bucket's assertions are over by the boot clock, which nobody sets."""
        self._unsaved: list[UsedAssertion] = []

    def take_over(self, used: Iterable[UsedAssertion], clock: Clock) -> None:
        """Know what the last process knew, whatever the wall clock says just now."""
        now, boot = clock.now().timestamp(), clock.boot()
        for one in used:
            self._note(one, boot + max(one.expires.timestamp() - now, _LONGEST))

    def use(
        self, client_id: str, jti: str, expires: float, now: float, boot: float
    ) -> UsedAssertion | None:
        """Note that *jti* was used; return what to record, or None: not the first time.

        The client is known to us, so that strangers fill nothing. It *expires*, in
        epoch seconds like *now*, when it is refused for its age anyway; by *boot*,
        seconds of the boot clock, a wall clock that was ahead forgets none.

        Raises:
            FullError: too many live ones of that client.
        """
        for index in [i for i in self._buckets if (i + 1) * _SPAN < now]:
            if self._ends[index] < boot:
                del self._buckets[index], self._ends[index]
        digest = hashlib.sha256(jti.encode()).hexdigest()[:32]
        used = 0
        for bucket in self._buckets.values():
            seen = bucket.get(client_id)
            if seen is not None:
                if digest in seen:
                    return None
                used += len(seen)
        if used >= self._per_client:
            raise FullError
        one = UsedAssertion(client_id, digest, datetime.fromtimestamp(expires, UTC))
        self._note(one, boot + expires - now)
        return one

    def save_later(self, used: UsedAssertion, now: datetime) -> bool:
        """Keep what the ledger could not take; False when there is no room for it."""
        if len(self._unsaved) >= _UNSAVED_CAP:
            self._unsaved = [one for one in self._unsaved if one.expires > now]
        if len(self._unsaved) >= _UNSAVED_CAP:
            return False
        self._unsaved.append(used)
        return True

    @property
    def unsaved(self) -> tuple[UsedAssertion, ...]:
        """What the ledger has not got yet."""
        return tuple(self._unsaved)

    def saved(self, used: Iterable[UsedAssertion]) -> None:
        """Let go of what the ledger has now."""
        done = set(used)
        self._unsaved = [one for one in self._unsaved if one not in done]

    def _note(self, used: UsedAssertion, ends: float) -> None:
        index = int(used.expires.timestamp() // _SPAN)
        bucket = self._buckets.setdefault(index, {})
        bucket.setdefault(used.client_id, set()).add(used.digest)
        self._ends[index] = max(ends, self._ends.get(index, 0.0))
