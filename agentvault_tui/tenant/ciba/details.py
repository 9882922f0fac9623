"""Reads ``authorization_details`` (RFC 9396) as Auth0 bounds them without its app."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.oauth.wire import refused
from agentvault_tui.web import BodyError, parse_json

Detail = dict[str, Any]

_BYTES: Final = 5 * 1024
_OBJECTS: Final = 5
_PROPERTIES: Final = 10
_LEVELS: Final = 6
"""Five of objects, and the array around them."""
_VALUE: Final = 255
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")


def read(text: str, types: Iterable[str]) -> list[Detail]:
    """Return the objects in *text*, each of one of the *types* that may be asked for.

    RFC 9396 section 5: what is unknown or malformed is refused and not dropped, since
    a person decides by it. Of an object the type alone is checked besides its size:
    what it means is the resource server's to know.

    Raises:
        TenantRefusedError: ``invalid_authorization_details``.
    """
    if len(text.encode()) > _BYTES:
        raise _refuse(f"it may have {_BYTES} bytes")
    try:
        found = parse_json(text, _LEVELS)
    except BodyError as error:
        raise _refuse(error.text) from None
    if not isinstance(found, list) or not 0 < len(found) <= _OBJECTS:
        raise _refuse(f"it must be an array of 1 to {_OBJECTS} objects")
    known = frozenset(types)
    for item in found:
        if not isinstance(item, dict):
            raise _refuse("each member must be an object")
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in known:
            raise _refuse("each type must be one that the API registered")
        _bounded(item)
    return found


def _bounded(value: Any) -> None:
    """Hold Auth0's limits on one object, and on whatever is inside it."""
    if isinstance(value, str) and len(value) > _VALUE:
        raise _refuse(f"a value may have {_VALUE} characters")
    if isinstance(value, dict):
        if len(value) > _PROPERTIES:
            raise _refuse(f"an object may have {_PROPERTIES} properties")
        if any(_NAME.fullmatch(name) is None for name in value):
            raise _refuse("names are letters, digits and _ . -, 255 at most")
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        _bounded(item)


def _refuse(why: str) -> TenantRefusedError:
    return refused("invalid_authorization_details", f"authorization_details: {why}")
