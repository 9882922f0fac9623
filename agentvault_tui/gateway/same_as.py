"""The suffixes of a service file, ``same_as``, and the resources they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from agentvault_tui.errors import ServiceError
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from agentvault_tui.gateway.services import Service

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


def suffixes_of(
    services: Iterable[Service],
) -> Iterator[tuple[frozenset[str], tuple[str, ...]]]:
    """Yield the beginnings of each service's resources, and its suffixes.

    A resource begins with the service's name, or as a route's ``resource`` begins
    before its first placeholder.
    """
    for service in services:
        written = (one.resource for one in service.routes if one.resource is not None)
        beginnings = {one.partition("{")[0] for one in written}
        yield frozenset({f"{service.name}:", *beginnings}), service.same_as
