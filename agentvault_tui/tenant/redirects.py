"""Where a browser may be sent back to, and how."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_URI_CAP: Final = 2000


def allowed(uri: str, registered: Iterable[str]) -> bool:
    """Tell whether *uri* is one of the *registered* (RFC 9700 section 2.1).

    Compared as strings, but for the port of a loopback address, which a program picks
    when it starts (RFC 8252 section 7.3).
    """
    if len(uri) > _URI_CAP or not uri.isascii() or not uri.isprintable():
        return False
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    if parts.fragment or parts.username is not None or parts.password is not None:
        return False
    loopback = parts.scheme == "http" and _loopback(parts.hostname)
    if parts.scheme != "https" and not loopback:
        # Neither a script nor another program's scheme is a place to send codes to.
        return False
    for known in registered:
        if hmac.compare_digest(known.encode(), uri.encode()):
            return True
        if loopback and port is not None and _without_port(known) == _without_port(uri):
            return True
    return False


def with_query(uri: str, **members: str | None) -> str:
    """Add *members* to the query of *uri*."""
    parts = urlsplit(uri)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    pairs += [(name, value) for name, value in members.items() if value is not None]
    return urlunsplit(parts._replace(query=urlencode(pairs)))


def origin_of(uri: str) -> str:
    """Return the origin of a redirect URI that was allowed."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _without_port(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None  # Whatever an administrator registered, it is no address.
    if parts.scheme != "http" or not _loopback(parts.hostname):
        return None
    return urlunsplit(parts._replace(netloc=parts.hostname or ""))
