"""Order writes below a document with approved calls that name the document.

From the second fetch of the document until the call's result, no other write below its
URL is sent. Writes that were sent before finish first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agentvault_tui.gateway.refusals import referent_busy
from agentvault_tui.gateway.target import Target
from agentvault_tui.gateway.templates import core_length, fold
from agentvault_tui.origins import ServerOrigin

PATIENCE_S: Final = 10.0
"""Seconds that a write waits for another one."""
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_Path = tuple[str, ...]


def folded(target: Target) -> _Path:
    """Return a path as the most lenient service reads it."""
    segments = target.segments
    return tuple(map(fold, segments[: core_length(segments)]))


@dataclass(eq=False, slots=True)
class _Turn:
    origin: ServerOrigin
    written: _Path | None
    guarded: tuple[_Path, ...]
    over: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def conflicts(self, other: _Turn) -> bool:
        """Check whether two calls must not be under way at once."""
        if self.origin != other.origin:
            return False
        pairs = (
            *((g, other.written) for g in self.guarded),
            *((g, self.written) for g in other.guarded),
            *((g, one) for g in self.guarded for one in other.guarded),
            *((g, one) for g in other.guarded for one in self.guarded),
        )
        return any(p is not None and p[: len(g)] == g for g, p in pairs)


class WriteTurns:
    """Writes to services that are under way, in the order in which they came."""

    def __init__(self) -> None:
        """Start with none."""
        self._turns: dict[str, _Turn] = {}
        self._guarding = 0

    async def enter(
        self,
        key: str,
        origin: ServerOrigin,
        written: Target | None,
        guarded: Sequence[Target] = (),
        ended: asyncio.Future[None] | None = None,
    ) -> None:
        """Wait until no earlier call is under way that this one conflicts with.

        The same key again changes nothing. `leave` ends the turn.

        Args:
            key: of the call.
            origin: of the service.
            written: where the call writes; None for a read.
            guarded: the documents below which no other call writes meanwhile.
            ended: done when the call must not wait any more.

        Raises:
            CallRefusedError: 503; another one did not end in time.
        """
        if key in self._turns:
            return
        path = None if written is None else folded(written)
        turn = _Turn(origin, path, tuple(map(folded, guarded)))
        self._turns[key] = turn
        self._guarding += bool(turn.guarded)
        if not self._guarding:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (before := self._before(turn)) and not (ended and ended.done()):
                    waits = {before.over, *([] if ended is None else [ended])}
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self.leave(key)
            raise referent_busy() from None
        except BaseException:
            self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """End a turn; a key that has none is passed over."""
        turn = self._turns.pop(key, None)
        if turn is not None:
            self._guarding -= bool(turn.guarded)
            if not turn.over.done():
                turn.over.set_result(None)

    def _before(self, turn: _Turn) -> _Turn | None:
        """Return the first earlier turn that conflicts with *turn*."""
        for other in self._turns.values():
            if other is turn:
                return None
            if turn.conflicts(other):
                return other
        return None
