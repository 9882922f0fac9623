"""Count the members of a value, where each member is one thing and not several."""

from __future__ import annotations

import re
from typing import Any, Final

from agentvault_tui.policy.facts import is_one_address

_SEVERAL: Final = re.compile("[,;|\r\n\uff0c\uff1b\u061b\u3001]")
"""Separators of the members of one text, in Latin, Arabic and wide punctuation."""


def how_many(name: str, value: Any) -> int | None:
    """Count the members of a list or object, or one text.

    A list inside a list is several members to APIs that flatten it, as Rails does, and
    so is a text such as ``1,2,3``. Recipients are addresses besides.

    Args:
        name: of the parameter.
        value: as JSON has it.

    Returns:
        the number; None where a member may stand for several, or *value* is a number.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        return len(value) if all(_is_one(name, one) for one in value) else None
    if not isinstance(value, dict):
        return None
    names, about = all(_is_one(name, one) for one in value), list(value.values())
    return len(value) if names and all(map(_is_about_one, about)) else None


def _is_one(name: str, member: object) -> bool:
    """Tell whether a member of a list, or a name in an object, is one thing."""
    if name == "recipients":
        if isinstance(member, str):
            return is_one_address(member)
        return isinstance(member, dict) and _is_about_one(member)
    if isinstance(member, str):
        return not _SEVERAL.search(member)
    return not isinstance(member, list)


def _is_about_one(value: object) -> bool:
    """Tell whether a member's own members are texts and numbers, and no lists.

    A text with an ``@`` is one address.
    """
    if isinstance(value, dict):
        plain = not any(isinstance(one, dict) for one in value.values())
        named = sum("@" in name for name in value)  # addresses as names of members
        return plain and named <= 1 and all(map(_is_about_one, value.values()))
    if isinstance(value, str) and "@" in value:
        return is_one_address(value)
    return not isinstance(value, list)
