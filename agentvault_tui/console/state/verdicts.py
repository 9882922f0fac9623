"""Which events match their links of the chain, computed at this console."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.operator_api.proof import Proof
from agentvault_tui.presenters.records import EventRow

MOST: Final = 100
"""Links asked for at once."""
_REMEMBERED: Final = 5_000
MISSING: Final = "the broker has no such event any more"
DIFFERENT: Final = "what is shown is not what was recorded"


class LinkVerdicts:
    """Verify chain links here, by event number, whatever the broker claims."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._ledger = mirror.versions.ledger
        self._problems: dict[int, str] = {}
        self.version = 0
        """Grows with every verdict."""

    def problem(self, seq: int) -> str | None:
        """Return the fault of an event: empty, or None when not checked yet."""
        return self._problems.get(seq)

    def count(self, rows: Iterable[EventRow]) -> tuple[int, int, int]:
        """Return how many hold, how many do not, and how many are not checked."""
        verdicts = [self._problems.get(row.seq) for row in rows]
        unknown, right = verdicts.count(None), verdicts.count("")
        return right, len(verdicts) - right - unknown, unknown

    def unknown(self, rows: Iterable[EventRow]) -> list[EventRow]:
        if self._ledger != self._mirror.versions.ledger:
            self._ledger = self._mirror.versions.ledger
            self._problems.clear()
            self.version += 1
        return [row for row in rows if row.seq not in self._problems][:MOST]

    def take(self, rows: Sequence[EventRow], proofs: Iterable[Proof]) -> None:
        """Compute the links of the requested events, and compare them with the rows."""
        given = {proof.seq: proof for proof in proofs}
        hashes = {row.seq: str(row.hash) for row in rows}
        if len(self._problems) > _REMEMBERED:
            self._problems.clear()
        for row in rows:
            proof = given.get(row.seq)
            self._problems[row.seq] = (
                self._judge(row, proof, hashes.get(row.seq - 1)) if proof else MISSING
            )
        self.version += 1

    def _judge(self, row: EventRow, proof: Proof, before: str | None) -> str:
        if problem := proof.problem(before):
            return problem
        event = proof.event()
        same = event is not None and self._mirror.intake.event(event) == row
        return "" if same else DIFFERENT
