"""``ANY /gw/{service}/{path}`` on the agents' listener, and how any face relays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from agentvault_tui.gateway.forward import Forwarder, Incoming, Relayed
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.web.exchange import ClientGoneError, Exchange
from agentvault_tui.web.reply import Receive, Reply, Scope, Send
from agentvault_tui.web.service_connection import UpstreamError

PREFIX: Final = b"/gw/"


class GatewayApp:
    """``ANY /gw/{service}/{path}`` on the agents' listener."""

    def __init__(
        self,
        forwarder: Forwarder,
        source_of: Callable[[Scope], str | None],
        hosts: Callable[[], frozenset[bytes]],
    ) -> None:
        """Answer agents' requests.

        Args:
            forwarder: performs them.
            source_of: returns the agent's address, if that is known.
            hosts: returns the values of ``Host`` by which the broker is reached.
        """
        self._forwarder = forwarder
        self._source_of = source_of
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path, mark, query = scope["raw_target"].partition(b"?")
        name, _, rest = path[len(PREFIX) :].partition(b"/")
        await answer(
            self._forwarder,
            scope,
            receive,
            send,
            service=name.decode("latin-1"),
            raw_target=b"/" + rest + mark + query,
            source=self._source_of(scope),
            own=self._hosts(),
        )


async def answer(
    forwarder: Forwarder,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    service: str,
    raw_target: bytes,
    source: str | None,
    token_sha256: str | None = None,
    own: frozenset[bytes] | None = None,
    leads_away: Callable[[str, int], bool] = lambda *_: False,
) -> None:
    """Answer one request for *service*, whichever face it came by.

    Args:
        forwarder: performs it.
        scope: of ASGI; its ``exchange`` is taken out.
        receive: of ASGI.
        send: of ASGI.
        service: the service's name.
        raw_target: path and query at the service, as received.
        source: the agent's address, if that is known.
        token_sha256: see `Incoming.token_sha256`.
        own: see `Incoming.own`.
        leads_away: see `Incoming.leads_away`.
    """
    exchange: Exchange = scope.pop("exchange")
    gone = asyncio.get_running_loop().create_future()

    def left() -> None:
        if not gone.done():
            gone.set_result(None)

    exchange.on_gone = left
    incoming = Incoming(
        service=service,
        method=scope["method"],
        raw_target=raw_target,
        headers=scope["headers"],
        receive=body_receiver(receive),
        gone=gone,
        token_sha256=token_sha256,
        source=source,
        own=own,
        leads_away=leads_away,
    )
    try:
        outcome = await forwarder.perform(incoming)
    except CallRefusedError as refusal:
        await refusal.reply().send(send)
        return
    await relay(outcome, exchange, send)


def body_receiver(receive: Receive) -> Callable[[], Awaitable[bytes]]:
    """Return a function for the next piece of a request's body; empty at its end."""
    ended = False

    async def next_piece() -> bytes:
        """Wait for a piece that is not empty, or for the end."""
        nonlocal ended
        while not ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                # RFC 9112 section 8: a body that broke off is not a short one.
                raise ClientGoneError
            ended = not message.get("more_body")
            if piece := message["body"]:
                return bytes(piece)
        return b""

    return next_piece


async def relay(outcome: Relayed, exchange: Exchange, send: Send) -> None:
    """Pass an answer on to the agent; hang up at once where it must not go on.

    Raises:
        ClientGoneError: the agent left, or was cut off.
    """
    outcome.call.on_cut.append(exchange.abort)
    try:
        head = {"status": outcome.status, "headers": outcome.headers}
        await send({"type": "http.response.start", **head})
        while piece := await outcome.read():
            body = {"body": piece, "more_body": True}
            await send({"type": "http.response.body", **body})
            if exchange.disconnected:
                raise ClientGoneError
        await send({"type": "http.response.body"})
    except (UpstreamError, CallRefusedError):
        exchange.abort()
        raise ClientGoneError from None
    finally:
        outcome.close()


def misdirected(status: int, text: str) -> Reply:
    """Shape a refusal that comes before a call is looked at."""
    code = "misdirected_request" if status == 421 else "access_denied"
    return CallRefusedError(status, code, code, text).reply()
