"""Reads where a request goes: the domains of mail addresses, the hosts of URLs.

A text that cannot be read wholly as one address or one URL, by every reader alike, has
no destination here: a rule that reads destinations then has a person decide.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

_LABEL: Final = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A name that some readers take for an IPv4 address (WHATWG URL, section 3.5)."""
_MAILBOX: Final = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9_+=&'~-]+(?:\.[A-Za-z0-9_+=&'~-]+)*@([A-Za-z0-9_.-]+)"
)
"""An address of RFC 5322 section 3.4.1 without quotes, comments and routes: ``%`` and
``!`` in the local part name another host to some servers."""
_NAMED: Final = re.compile(r"[\w .'-]{0,200}<([^<>]*)>")
_URL: Final = re.compile(
    r"(?:https?|wss?|ftp|sftp)://([A-Za-z0-9_.-]+)(?::[0-9]{1,5})?(?:/[!-\[\]-~]*)?",
    re.IGNORECASE,
)
"""No account, no ``\\``, no query without a path, nothing outside visible ASCII:
readers differ in these."""
MOST: Final = 1_000
"""Addresses or URLs of one request that are read: each takes some 15 µs of the event
loop, where others wait."""


def is_destination(text: str) -> bool:
    """Check whether *text* is a host or mail domain in its one spelling."""
    if _NUMERIC.fullmatch(text):
        try:
            return str(ipaddress.IPv4Address(text)) == text
        except ValueError:
            return False
    return _HOST.fullmatch(text) is not None


def read_domains(values: Iterable[Any]) -> tuple[str, ...] | None:
    """Return the domains of mail addresses, sorted.

    Args:
        values: texts with one address each, and lists of them.

    Returns:
        the domains in lower case; None if there are none, more than `MOST`, or if
        anything else is among the values.
    """
    return _read(values, _domain)


def read_hosts(values: Iterable[Any]) -> tuple[str, ...] | None:
    """Return the hosts of URLs, as `read_domains` does."""
    return _read(values, _host)


def _read(
    values: Iterable[Any], read: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    destinations: set[str] = set()
    left = MOST
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            left -= 1
            name = read(one) if isinstance(one, str) and left >= 0 else None
            if name is None or not is_destination(name):
                return None
            destinations.add(name)
    return tuple(sorted(destinations)) or None


def _domain(text: str) -> str | None:
    named = _NAMED.fullmatch(text) if text.endswith(">") else None
    match = _MAILBOX.fullmatch(named[1] if named else text)
    return match[1].lower() if match else None


def _host(text: str) -> str | None:
    match = _URL.fullmatch(text)
    return match[1].lower() if match else None
