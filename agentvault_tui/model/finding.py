"""One line of a doctor's report, whichever doctor it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and something should be known or done."""
    FAULT = "fault"
    """It does not work, or is not safe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and its remedy."""

    level: Level
    what: str
    remedy: str = ""

    def shape(self) -> dict[str, str]:
        """Return it for ``--json``."""
        return {"level": self.level.value, "what": self.what, "remedy": self.remedy}


def ok(what: str) -> Finding:
    """Report that something is as it should be."""
    return Finding(Level.OK, what)


def warning(what: str, remedy: str = "") -> Finding:
    """Report something that should be known or done."""
    return Finding(Level.WARNING, what, remedy)


def fault(what: str, remedy: str = "") -> Finding:
    """Report something that does not work, or is not safe."""
    return Finding(Level.FAULT, what, remedy)
