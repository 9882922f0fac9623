"""The key ``same_as`` of a service file: suffixes that name no other resource."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agentvault_tui.errors import ServiceError
from agentvault_tui.text import visible

SAME_AS: Final = (".json", ".xml", ".html")
"""Formats that a framework, such as Rails, takes from the end of a path."""
_MOST: Final = 16
_SUFFIX: Final = re.compile(r"\.[a-z0-9][a-z0-9._+-]{0,15}")


def parse_same_as(suffixes: Iterable[str]) -> tuple[str, ...]:
    """Check the suffixes of a service file.

    Raises:
        ServiceError: there are too many, or one is malformed.
    """
    endings = tuple(dict.fromkeys(suffixes))
    if len(endings) > _MOST:
        raise ServiceError(f"same_as has more than {_MOST} suffixes")
    for one in endings:
        if not _SUFFIX.fullmatch(one) or one.endswith("."):
            raise ServiceError(
                f"same_as has the suffix '{visible(one, 40)}'",
                'a dot, then lower-case letters, digits, . _ + or -, such as ".json"',
            )
    return endings


def beginnings_of(name: str, resources: Iterable[str | None]) -> frozenset[str]:
    """Return the literal prefixes of a service's resources.

    Args:
        name: of the service; a resource that no route names begins with it.
        resources: of its routes, with their placeholders.
    """
    written = {one.partition("{")[0] for one in resources if one is not None}
    return frozenset({f"{name}:", *written})
