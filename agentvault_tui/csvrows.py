"""Writes an event as a CSV row in which no spreadsheet finds a formula."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from agentvault_tui.text import visible

COLUMNS: Final = (
    *("seq", "time", "type", "actor_kind", "actor_id", "actor_name", "agent_id"),
    *("action", "resource", "outcome", "reason", "rule", "decision_id", "detail"),
    "hash",
)
_FORMULA: Final = frozenset("=+-@＝＋－＠")


def cells(event: Mapping[str, Any]) -> list[str]:
    """Return the cells of *event*, which is as the API writes it."""
    actor = event["actor"]
    value = {
        **event,
        "actor_kind": actor["kind"],
        "actor_id": actor["id"],
        "actor_name": actor["name"],
        "detail": json.dumps(event["detail"], ensure_ascii=False, sort_keys=True),
    }
    values = (value[name] for name in COLUMNS)
    return ["" if cell is None else safe_cell(str(cell)) for cell in values]


def safe_cell(value: str) -> str:
    """Return *value* so that no spreadsheet runs it and no terminal obeys it."""
    if not value.isprintable():
        value = visible(value, limit=len(value) * 10)
    # OWASP: a leading apostrophe makes it text. Blanks before the sign count for
    # nothing; tabs and line ends are spelled out by now.
    return f"'{value}" if value.lstrip()[:1] in _FORMULA else value
