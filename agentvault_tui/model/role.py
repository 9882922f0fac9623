"""What a person may do here, as the tenant's claim says."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """Each includes those before it.

    Whoever may grant the riskiest action must be able to take it back that instant,
    so an approver is an operator too; nobody decides on what they may not see.
    """

    VIEWER = "viewer"
    """Sees everything, decides nothing."""
    OPERATOR = "operator"
    """Cuts off and lets back in, denies, registers, gives and takes scopes."""
    APPROVER = "approver"
    """Approves step-ups, each with a second factor."""

    def includes(self, other: Role) -> bool:
        """Tell whether this role may do what *other* may."""
        return self.rank >= other.rank

    @property
    def rank(self) -> int:
        """Order roles: 0 may least."""
        return ("viewer", "operator", "approver").index(self.value)


def role_of(words: Iterable[str]) -> Role | None:
    """Return the highest role that *words* name exactly; None when they name none."""
    named = set(words)
    found = (role for role in Role if role in named)
    return max(found, key=lambda role: role.rank, default=None)
