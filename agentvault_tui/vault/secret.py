"""A secret that no repr, log or error shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class Secret:
    """A secret, or a function that reads one; no repr, log, error or pickle has it."""

    __slots__ = ("_source",)

    def __init__(self, source: str | Callable[[], str]) -> None:
        """Keep the value itself, or a function that reads it where it is kept."""
        self._source = source

    def reveal(self) -> str:
        """Return the value: call this where it is sent, and nowhere else."""
        return self._source if isinstance(self._source, str) else self._source()

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")
