"""Checks of a body's members, as Auth0 documents them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentvault_tui.tenant.management.wire import ApiError, bad_body

Check = Callable[[Any], str | None]
"""Returns what is wrong with a value, or None."""


def checked(body: Any, members: Mapping[str, Check], *needed: str) -> dict[str, Any]:
    """Return the *members* of *body* that are known; others are passed over.

    Raises:
        ApiError: it is no object, a *needed* member is missing, or one is wrong.
    """
    if not isinstance(body, dict):
        raise ApiError(
            400, "Payload validation error: 'Expected object'", "invalid_body"
        )
    for name in needed:
        if body.get(name) is None:
            raise ApiError(
                400, f"Payload validation error: 'Missing required property: {name}'.",
                "invalid_body",
            )  # fmt: skip
    kept = {}
    for name, check in members.items():
        if name not in body:
            continue
        value = body[name]
        if value is not None and (why := check(value)) is not None:
            raise bad_body(name, why)
        kept[name] = value
    return kept


def text(most: int = 256, least: int = 1) -> Check:
    """Return the check of a string."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "Expected type string"
        if not least <= len(value) <= most or "\0" in value:
            return f"String must have {least} to {most} characters"
        return None

    return check


def flag(value: Any) -> str | None:
    """Check a boolean."""
    return None if isinstance(value, bool) else "Expected type boolean"


def integer(least: int = 0, most: int = 2_592_000) -> Check:
    """Return the check of an integer."""

    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "Expected type integer"
        return None if least <= value <= most else f"Must be {least} to {most}"

    return check


def one_of(*words: str) -> Check:
    """Return the check of one of some words."""

    def check(value: Any) -> str | None:
        return None if value in words else f"Must be one of {', '.join(words)}"

    return check


def texts(most: int = 100, each: int = 1000) -> Check:
    """Return the check of a list of strings, none of them twice."""
    of_each = text(each)

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > most:
            return f"Expected an array of at most {most} strings"
        for item in value:
            if (why := of_each(item)) is not None:
                return why
        return None if len(set(value)) == len(value) else "Array items must be unique"

    return check


def table(members: Mapping[str, Check], *needed: str) -> Check:
    """Return the check of an object with these members; others are let be."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "Expected type object"
        for name in needed:
            if value.get(name) is None:
                return f"Missing required property: {name}"
        for name, of_member in members.items():
            if value.get(name) is not None and (why := of_member(value[name])):
                return f"{name}: {why}"
        return None

    return check


def tables(of_each: Check, most: int = 100) -> Check:
    """Return the check of a list of objects."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > most:
            return f"Expected an array of at most {most} objects"
        return next((why for item in value if (why := of_each(item))), None)

    return check
