"""The part of a change that an approval page shows: bounded, with the size of the rest.

The command line reads the rest of `GET /api/changes/{id}`, which has all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET

from agentvault_tui.encoder import to_json
from agentvault_tui.model import ChangedText

_TEXTS: Final = 40
"""Texts that a page names."""
_LINES: Final = 200
"""Lines of all of them together."""
_CHARACTERS: Final = 16_000
"""Characters of these lines."""
_LINE: Final = 500
"""Characters of one of them, and of one value of a request."""
_SETS: Final = frozenset({"scopes", "grant", "ungrant"})
"""Members of a request whose order means nothing."""
_ITEMS: Final = 100
"""Items of a list or table in a request."""


def shown_texts(texts: Sequence[ChangedText]) -> dict[str, Any]:
    """Return the lines of texts that differ, as an approval page shows them.

    Args:
        texts: that a change replaces.

    Returns:
        `tenant.details.PageTexts`.
    """
    lines, characters, chosen = _LINES, _CHARACTERS, []
    for text in texts[:_TEXTS]:
        differing = text.diff.split("\n") if text.diff else []
        shown: list[str] = []
        for line in differing[:lines]:
            clipped = _clip(line)
            if (characters := characters - len(clipped)) < 0:
                break
            shown.append(clipped)
        lines -= len(shown)
        left = len(differing) - len(shown)
        chosen.append({"name": _clip(text.name), "lines": shown, "left": left})
    return {"texts": chosen, "more": max(len(texts) - _TEXTS, 0)}


def shown_request(
    body: msgspec.Struct, apart: Collection[str], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of a decision: *details*, and the request's other values.

    A value without a special form is shown as it was sent.

    Args:
        body: the request that waits.
        apart: its members that are shown as texts, or are secret.
        details: the change's own description.

    Returns:
        names and values, bounded.
    """
    shown = dict(details)
    for field in msgspec.structs.fields(body):
        name, value = field.encode_name, getattr(body, field.name)
        usual = field.default_factory() if callable(field.default_factory) else None
        if field.default_factory is msgspec.NODEFAULT:
            usual = field.default
        if field.name in apart or value is UNSET or value == usual:
            continue
        value = _bounded(msgspec.to_builtins(value))
        if name in _SETS and sorted(shown.get(name) or ()) == sorted(value or ()):
            continue
        if shown.get(name) != value:
            shown[f"request: {name}" if name in shown else name] = value
    return shown


def _bounded(value: Any) -> Any:
    """Truncate long texts, lists and tables, and say how much is left out."""
    if isinstance(value, str):
        return _clip(value)
    if isinstance(value, dict):
        value = [f"{name}: {to_json(one)}" for name, one in value.items()]
    if not isinstance(value, list | tuple):
        return value
    left = len(value) - _ITEMS
    more = [f"{left:,} more: agentvault changes show"] if left > 0 else []
    return [_bounded(one) for one in value[:_ITEMS]] + more


def _clip(text: str) -> str:
    """Return *text*, or its beginning and how many characters are left."""
    if len(text) <= _LINE:
        return text
    return f"{text[:_LINE]}… {len(text) - _LINE:,} characters more"
