"""One HTTP answer as data, and the two shapes an error can have."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from agentvault_tui.encoder import to_json

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
NO_STORE: Final = (b"cache-control", b"no-store")

_CODES: Final = {
    400: "invalid_request",
    403: "access_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
    431: "header_fields_too_large",
    500: "server_error",
    503: "temporarily_unavailable",
}


class Reply(NamedTuple):
    """Status, headers and body, ready to send."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    async def send(self, send: Send) -> None:
        """Send it all through an ASGI channel."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": self.headers,
            }
        )
        await send({"type": "http.response.body", "body": self.body})


Shape = Callable[[int, str], Reply]
"""Makes the error answer of a status and a sentence."""


def json_reply(
    status: int,
    value: object,
    *headers: Header,
    kind: Header = _JSON,
    texts: Mapping[str, str] | None = None,
) -> Reply:
    """Write *value* as JSON, never to be cached.

    It is an object with members, if there are *texts*: more members of it, whose values
    are JSON already.
    """
    body = to_json(value).encode()
    for name, text in (texts or {}).items():
        body = b'%s,"%s":%s}' % (body[:-1], name.encode(), text.encode())
    length = (b"content-length", b"%d" % len(body))
    return Reply(status, (kind, length, NO_STORE, *headers), body)


def oauth_error(status: int, text: str) -> Reply:
    """Shape an error as RFC 6749 section 5.2 does."""
    code = _CODES.get(status, "invalid_request")
    return json_reply(status, {"error": code, "error_description": text})


def problem(status: int, text: str) -> Reply:
    """Shape an error as RFC 9457 does; its title is the status's (section 4.2.1)."""
    title = HTTPStatus(status).phrase
    value = {"type": "about:blank", "title": title, "status": status, "detail": text}
    return json_reply(status, value, kind=_PROBLEM)


_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


def decode_header(value: bytes) -> str | None:
    """Return a header's text, also in ``=?base64?…?=``; nothing if unclear."""
    text = value.decode("latin-1").strip()
    if not (text.startswith("=?base64?") and text.endswith("?=") and len(text) > 10):
        return text if text.isascii() else None
    payload = text.removeprefix("=?base64?").removesuffix("?=")
    try:
        decoded = base64.b64decode(payload, validate=True)
        if base64.b64encode(decoded).decode() != payload:
            return None
        return decoded.decode()
    except (binascii.Error, ValueError):
        return None


def encode_header(text: str) -> str:
    """Return *text* as a header says it, so that `decode_header` returns it."""
    if _PLAIN.fullmatch(text) and not text.startswith("=?base64?"):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
