"""The rule of a tool by its name, compiled once for each server's file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentvault_tui.gateway.names import fold_name
from agentvault_tui.gateway.tools import ToolMap

_TOOL: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class ToolNames:
    """Finds the rules of tools; a worker process gets this without the rules."""

    exact: Mapping[str, int]
    """By name: the place of its rule in the file."""
    folds: frozenset[str]
    """Of all names and patterns."""
    patterns: tuple[tuple[int, re.Pattern[str], re.Pattern[str]], ...]
    """Those with ``*``: the place, the pattern, and the same for any case."""
    unmatched: int | None
    """The place after the last rule, unless other tools are denied."""

    @classmethod
    def of(cls, tools: ToolMap) -> ToolNames:
        """Compile the names of a map."""
        named = [rule.pattern for rule in tools.rules]
        return cls(
            {name: at for at, name in enumerate(named) if "*" not in name},
            frozenset(map(fold_name, named)),
            tuple(
                (at, one.matches, re.compile(one.matches.pattern, re.IGNORECASE))
                for at, one in enumerate(tools.rules)
                if "*" in one.pattern
            ),
            None if tools.unmatched_rule is None else len(named),
        )

    def find(self, name: str) -> int | None:
        """Return the place of the rule for a tool; None if the tool is denied.

        A name with characters outside visible ASCII has the rule of exactly that name,
        or none.
        """
        if (exact := self.exact.get(name)) is not None:
            return exact
        if not _TOOL.fullmatch(name) or fold_name(name) in self.folds:
            return None  # a lenient server may call the tool of the similar name
        for at, pattern, any_case in self.patterns:
            if pattern.fullmatch(name):
                return at
            if any_case.fullmatch(name):
                return None
        return self.unmatched
