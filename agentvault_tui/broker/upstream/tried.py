"""How one try of a step went."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from agentvault_tui.errors import AgentVaultError, TenantBusyError
from agentvault_tui.ledger import Change


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try of a step went."""

    problem: str | None
    """Why it is not done; nothing when it is."""
    wait: float = 0.0
    """Seconds before which no other try is worth it."""
    over: Literal["confirmed", "failed", "left"] | None = None
    """How it ended, when another try would change nothing; else time decides."""
    changes: tuple[Change, ...] = ()
    """What else came of it."""

    @classmethod
    def of(cls, error: AgentVaultError) -> Tried:
        """Return what *error* means for a step: it is worth another try."""
        wait = error.retry_after if isinstance(error, TenantBusyError) else None
        return cls(error.diagnosis(), wait or 0.0)


DONE: Final = Tried(None)
NOT_YET: Final = Tried("accepted, and not true yet")


def together(parts: Iterable[Tried]) -> Tried:
    """Return how a step went whose *parts* went so: the least done counts."""
    open_ones = [part for part in parts if part.problem is not None]
    if not open_ones:
        return DONE
    for over in (None, "failed", "left"):
        found = [part for part in open_ones if part.over == over]
        if found:
            break
    problems = dict.fromkeys(part.problem or "" for part in open_ones)
    return Tried("; ".join(problems), max(one.wait for one in found), found[0].over)
