"""The suffixes of a service file, ``same_as``, and the resources they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from agentvault_tui.errors import ServiceError
from agentvault_tui.text import visible

SAME_AS: Final = (".json", ".xml", ".html")
"""A format that a framework takes from the end of a path, as Rails does."""
_MOST: Final = 16
_SUFFIX: Final = re.compile(r"\.[a-z0-9][a-z0-9._+-]{0,15}")


def parse_same_as(suffixes: Iterable[str]) -> tuple[str, ...]:
    """Check the suffixes of a service file.

    Raises:
        ServiceError: there are too many, or one is not written as it has to be.
    """
    found = tuple(dict.fromkeys(suffixes))
    if len(found) > _MOST:
        raise ServiceError(f"same_as has more than {_MOST} suffixes")
    for one in found:
        if not _SUFFIX.fullmatch(one) or one.endswith("."):
            raise ServiceError(
                f"same_as has the suffix '{visible(one, 40)}'",
                'a dot, then lower-case letters, digits, . _ + or -, such as ".json"',
            )
    return found


def beginnings_of(name: str, resources: Iterable[str | None]) -> frozenset[str]:
    """Return how the resources of a service begin.

    Args:
        name: of the service; a resource that no route names begins with it.
        resources: of its routes, with their placeholders.
    """
    written = {one.partition("{")[0] for one in resources if one is not None}
    return frozenset({f"{name}:", *written})
