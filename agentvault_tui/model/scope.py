"""A scope as the catalogue describes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Risk(StrEnum):
    """How much damage one use can do."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """Order risks: 0 is the lowest."""
        return ("low", "medium", "high").index(self.value)


@dataclass(frozen=True, slots=True)
class Scope:
    """One action-level permission, such as ``send:payment``."""

    name: str
    """``verb:noun``, as on the wire."""
    description: str
    """What it lets an agent do, in plain words."""
    risk: Risk
    revoking: str
    """What taking it away means, and what it does not undo."""
