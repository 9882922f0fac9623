"""The rights of a person, by the tenant's claim."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """Each includes those before it.

    An approver is an operator too, because a person who grants the riskiest action must
    be able to revoke it at once; a person who may not see may not decide.
    """

    VIEWER = "viewer"
    """Sees everything, decides nothing."""
    OPERATOR = "operator"
    """Cuts off and lets back in, denies, registers, gives and takes scopes."""
    APPROVER = "approver"
    """Approves step-ups, each with a second factor."""

    def includes(self, other: Role) -> bool:
        """Check whether this role has all rights of *other*."""
        return self.rank >= other.rank

    @property
    def rank(self) -> int:
        """Order roles: 0 may least."""
        return ("viewer", "operator", "approver").index(self.value)


def role_of(words: Iterable[str]) -> Role | None:
    """Return the highest role that *words* name exactly; None when they name none."""
    named = set(words)
    granted = (role for role in Role if role in named)
    return max(granted, key=lambda role: role.rank, default=None)
