"""A command as the help names it and as it is carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be typed."""

    usage: str
    """The word, and what may follow it."""
    does: str
    act: Callable[[str], Awaitable[None]]
    """Takes what follows the word."""

    @property
    def word(self) -> str:
        """What it is called by."""
        return self.usage.partition(" ")[0]
