"""ASGI middleware: whom a local HTTP service answers, and how much it takes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from agentvault_tui.web.exchange import ClientGoneError
from agentvault_tui.web.forms import BodyError
from agentvault_tui.web.reply import (
    NO_STORE,
    App,
    Header,
    Message,
    Receive,
    Reply,
    Scope,
    Send,
    Shape,
    oauth_error,
)

BODY_CAP: Final = 65_536
_SNIFF: Final = (b"x-content-type-options", b"nosniff")


def loopback_hosts(port: int, bound: str = "127.0.0.1") -> frozenset[bytes]:
    """Return the values, as HTTP has them, of ``Host`` on a loopback listener.

    With its port or without any: a page elsewhere can send neither. *bound* may be
    another address of 127.0.0.0/8.
    """
    shown = f"[{bound}]" if ":" in bound else bound
    names = {b"127.0.0.1", b"[::1]", b"localhost", shown.encode()}
    return frozenset(names | {b"%s:%d" % (name, port) for name in names})


class StreamingApp(NamedTuple):
    """An app that reads its own bodies, of any size, and sends its own answers."""

    app: App
    shape: Shape
    """How a refusal before it looks."""


class RequestGuard:
    """Refuses requests from other sites, and bodies that are too large.

    A web page in the operator's browser can reach loopback: by DNS rebinding, which
    ``Host`` shows, and by cross-site requests, which ``Origin`` and ``Sec-Fetch-Site``
    show. *hosts* is None for a Unix socket, which no page can reach. A *navigable* app
    lets a person follow a link here from another site, by GET alone. *streaming* apps
    have their raw path's prefix: whom they answer is judged alike, and their bodies and
    answers pass as they are.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: frozenset[bytes] | None,
        shape: Shape = oauth_error,
        body_cap: int = BODY_CAP,
        navigable: bool = False,
        streaming: Mapping[bytes, StreamingApp] | None = None,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._shape = shape
        self._body_cap = body_cap
        self._navigable = navigable
        self._streaming = streaming or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or pass the request on."""
        for prefix, (app, shape) in self._streaming.items():
            if scope["raw_path"].startswith(prefix):
                refusal = self._misdirected(scope, dict(scope["headers"]), shape)
                await (refusal.send(send) if refusal else app(scope, receive, send))
                return
        refusal, chunked = self._judge(scope)
        if refusal is None and chunked:
            try:
                receive = _replay(await read_body(receive, self._body_cap), receive)
            except BodyError as error:
                refusal = self._shape(error.status, error.text)
        if refusal is not None:
            await refusal.send(send)
            return

        async def stamped(message: Message) -> None:
            """Send the app's answer; without a word about caches it is not cached."""
            if message["type"] == "http.response.start":
                headers: list[Header] = [*message["headers"], _SNIFF]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(NO_STORE)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, stamped)

    def _judge(self, scope: Scope) -> tuple[Reply | None, bool]:
        """Return why the request is refused, if it is, and whether it is chunked."""
        headers = dict(scope["headers"])
        if refusal := self._misdirected(scope, headers, self._shape):
            return refusal, False
        if int(headers.get(b"content-length", 0)) > self._body_cap:
            message = f"a body may have {self._body_cap} bytes"
            return self._shape(413, message), False
        return None, b"transfer-encoding" in headers

    def _misdirected(
        self, scope: Scope, headers: dict[bytes, bytes], shape: Shape
    ) -> Reply | None:
        """Return why the request was not meant for us, if it was not."""
        host = headers.get(b"host", b"").lower()
        # RFC 9110 section 7.4: what is addressed to someone else is misdirected.
        if self._hosts is not None and host not in self._hosts:
            return shape(421, "the Host header does not name this server")
        if self._foreign(scope, host, headers):
            return shape(403, "requests from other sites are refused")
        return None

    def _foreign(self, scope: Scope, host: bytes, headers: dict[bytes, bytes]) -> bool:
        """Check whether a page of another origin sent this."""
        origin = headers.get(b"origin")
        if origin is not None:
            ours = b"%s://%s" % (scope["scheme"].encode(), host)
            if origin.lower() != ours:
                return True
        if headers.get(b"sec-fetch-site", b"").lower() != b"cross-site":
            return False
        return not (
            self._navigable
            and scope["method"] == "GET"
            and headers.get(b"sec-fetch-mode", b"").lower() == b"navigate"
        )


async def read_body(receive: Receive, cap: int = sys.maxsize) -> bytes:
    """Return the whole body.

    Args:
        receive: the request's ASGI channel.
        cap: how many bytes it may have, where no guard has bounded it.

    Returns:
        the body.

    Raises:
        ClientGoneError: the client left before it was whole (RFC 9112 section 8).
        BodyError: 413, as soon as it passes the *cap*.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        pieces.append(message["body"])
        size += len(pieces[-1])
        if size > cap:
            raise BodyError(413, f"a body may have {cap} bytes")
        if not message.get("more_body"):
            return b"".join(pieces)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives *body* in one message, then goes on."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
