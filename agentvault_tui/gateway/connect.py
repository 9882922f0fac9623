"""Read a client's request to the forward proxy, and word its refusal."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

import httptools

from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.web.reply import Header

_USER: Final = "agent"
_CHALLENGE: Final = (b"proxy-authenticate", b'Basic realm="agentvault"')


class _ConnectHead:
    """Collects the parts of a ``CONNECT`` that httptools reads."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[Header] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def parse_connect(head: bytes) -> tuple[str, list[Header]]:
    """Return target and headers of a ``CONNECT`` (RFC 9110 section 9.3.6).

    Raises:
        CallRefusedError: 400.
    """
    read = _ConnectHead()
    parser = httptools.HttpRequestParser(read)
    whole = False
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        whole = parser.get_method() == b"CONNECT" and read.target.isascii()
    except httptools.HttpParserError:
        pass
    if not whole:
        raise malformed("this is not well-formed HTTP")
    names = [name for name, _ in read.headers]
    if {b"content-length", b"transfer-encoding"} & set(names):
        raise malformed("CONNECT has no body")
    if any(names.count(one) > 1 for one in (b"host", b"proxy-authorization")):
        raise malformed("a header stands there twice")
    return read.target.decode("ascii"), read.headers


def parse_authority(text: str, default: int | None = None) -> tuple[str, int]:
    """Split ``HOST:PORT``; an IPv6 address loses its brackets.

    Raises:
        CallRefusedError: 403; it is none.
    """
    host, colon, port = text.lower().rpartition(":")
    if default is not None and (not colon or port.endswith("]")):
        host, port = text.lower(), str(default)
    if not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65_536:
        raise no_way("bad_host", "this names no host and port")
    if ":" in host or "[" in host:
        if not (host.startswith("[") and host.endswith("]") and ":" in host):
            raise no_way("bad_host", "this names no host and port")
        host = host[1:-1]
    return host, int(port)


def proxy_password(headers: list[Header]) -> str | None:
    """Return the password of ``Proxy-Authorization: Basic`` for the user ``agent``."""
    values = [value for name, value in headers if name == b"proxy-authorization"]
    scheme, _, encoded = (
        values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
    )
    if scheme.lower() != b"basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    user, _, password = decoded.partition(":")
    return password if user == _USER and password else None


def asked_detail(target: str, method: str = "CONNECT") -> dict[str, Any]:
    """Return the detail of the events of a proxy request."""
    return {
        "service": None,
        "method": method,
        "path": target[:300],
        "query": None,
        "body_sha256": None,
        "body_bytes": None,
    }


def unauthenticated(
    reason: str, text: str, decision_id: str | None = None
) -> CallRefusedError:
    """Return the refusal of who does not say who it is (RFC 9110 section 15.5.8)."""
    return CallRefusedError(
        407, "invalid_token", reason, text, _CHALLENGE, decision_id=decision_id
    )


def no_way(reason: str, text: str) -> CallRefusedError:
    """Return the refusal of a place that may not be reached."""
    return CallRefusedError(403, "access_denied", reason, text)


def misdirected_request(text: str) -> CallRefusedError:
    """Return the refusal of a request for another server than its connection's."""
    code = "misdirected_request"
    return CallRefusedError(421, code, code, text)


def malformed(text: str) -> CallRefusedError:
    """Return the refusal of malformed HTTP, or of HTTP with two readings."""
    return CallRefusedError(400, "invalid_request", "invalid_request", text)
