"""The console's client of the operators' API: one connection, and the event stream.

It loads httpx on its first call, so that a console's first frame need not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentvault_tui.errors import UnreachableError
from agentvault_tui.model.ids import new_secret
from agentvault_tui.operator_api.answers import (
    NETWORK,
    becomes_change,
    not_connected,
    prepare_request,
    raise_waiting,
    read_answer,
    read_events,
    read_refusal,
)
from agentvault_tui.operator_api.calls import (
    CLAIM_HEADER,
    EVENTS_PATH,
    AnswerT,
    ApiCall,
)
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.shapes import WireShape
from agentvault_tui.operator_api.sse import Decoder, OverlongError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from agentvault_tui.operator_api.remote import BrokerAddress

_CONSOLE_TIMEOUT: Final = 5.0
"""A console decides nothing while its broker does not answer, and says so by then."""
_AT_ONCE: Final = 0.001
"""Seconds within which a chunk comes that was here already."""
_MUCH: Final = 32_768
"""Bytes in one read that say there is a backlog."""
_SERVE: Final = "start one with: agentvault serve"


class AsyncOperatorClient:
    """Calls the broker on a persistent connection, opened with its first call."""

    def __init__(self, broker: BrokerAddress, pause: float = 0.0) -> None:
        """Speak to *broker*; read a busy stream every *pause* seconds."""
        self.broker = broker
        self._pause = pause
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def call(
        self,
        call: ApiCall[AnswerT],
        given: WireShape | None = None,
        **parameters: str | int,
    ) -> AnswerT:
        """Make *call*; see `client.OperatorClient.call`."""
        import httpx  # noqa: PLC0415 - see the module's docstring

        path, body = prepare_request(call, given, parameters)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            response = await self._open().request(
                call.method,
                path,
                content=body,
                headers=headers,
                timeout=call.seconds or _CONSOLE_TIMEOUT,
            )
        except httpx.HTTPError as error:
            raise _unreachable(error, self.broker) from error
        if response.status_code >= 400:
            raise read_refusal(response.status_code, response.content)
        if response.status_code == 202 and becomes_change(call):
            raise_waiting(read_answer(response.content, ChangeInfo))
        return read_answer(response.content, call.answer)

    async def events(self, after: int, face: str) -> AsyncIterator[list[WireShape]]:
        """Yield the events after that number, as they come, many at a time.

        *face* is this client's kind for the other operators. The first list is empty:
        the broker has accepted.

        Raises:
            AgentVaultError: the stream ended, or is none.
        """
        import httpx  # noqa: PLC0415 - see the module's docstring

        timeout = httpx.Timeout(_CONSOLE_TIMEOUT, read=None)
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        try:
            async with self._open().stream(
                "GET",
                EVENTS_PATH,
                params={"as": face},
                headers=headers,
                timeout=timeout,
            ) as response:
                if response.status_code >= 400:
                    raise read_refusal(response.status_code, await response.aread())
                yield []
                decoder, loop = Decoder(), asyncio.get_running_loop()
                started = loop.time()
                async for chunk in response.aiter_raw():
                    waited = loop.time() - started > _AT_ONCE
                    yield read_events(decoder.feed(chunk))
                    # What is here already is taken at once, however small its chunks:
                    # a pause after each would let a flood run ever further ahead.
                    if waited and len(chunk) < _MUCH:
                        await asyncio.sleep(self._pause)
                    started = loop.time()
        except httpx.HTTPError as error:
            raise _unreachable(error, self.broker) from error
        except OverlongError as error:
            raise UnreachableError("the broker's stream has no end of line") from error
        raise UnreachableError("the broker closed the connection", _SERVE)

    def _open(self) -> httpx.AsyncClient:
        import ssl  # noqa: PLC0415 - see the module's docstring

        import httpx  # noqa: PLC0415 - same

        if self._client is None:
            logging.getLogger("httpx").setLevel(logging.WARNING)
            if isinstance(self.broker, Path):
                url, auth = "http://agentvault", None
                # No TLS is spoken there: reading the system's authorities takes 15 ms.
                no_authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                transport = httpx.AsyncHTTPTransport(
                    uds=str(self.broker), verify=no_authorities
                )
            else:
                url, auth = self.broker.url, self.broker.auth()
                transport = httpx.AsyncHTTPTransport(verify=self.broker.tls)
            self._client = httpx.AsyncClient(
                transport=transport,
                base_url=url,
                headers={CLAIM_HEADER: new_secret("claim")},
                auth=auth,
                timeout=_CONSOLE_TIMEOUT,
                trust_env=False,
            )
        return self._client


def _unreachable(error: Exception, broker: BrokerAddress) -> UnreachableError:
    import httpx  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(
            f"the broker did not answer within {_CONSOLE_TIMEOUT:.0f} s"
        )
    if isinstance(error, httpx.ConnectError):
        if isinstance(broker, Path):
            return UnreachableError("no broker answers at its socket", _SERVE)
        return not_connected(broker, error)
    remedy = _SERVE if isinstance(broker, Path) else NETWORK
    return UnreachableError("the connection to the broker broke", remedy)
