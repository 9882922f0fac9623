"""The operators' API, over the broker's Unix socket or from another machine.

`OperatorClient` is the standard library's client: it loads in a quarter of httpx's
time, and here there is no proxy, redirect or pool to want more for.
`AsyncOperatorClient` loads httpx on its first call, so that a console's first frame
need not wait for it.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    FactorRefusedError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.home import Home, check_socket_path, private_file
from agentvault_tui.operator_api.calls import (
    EVENT_KINDS,
    EVENTS_PATH,
    STATUS,
    AnswerT,
    ApiCall,
)
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.codec import decode, encode
from agentvault_tui.operator_api.ending import DecisionAnswer
from agentvault_tui.operator_api.shapes import ProblemInfo, WireShape
from agentvault_tui.operator_api.sse import Decoder, Frame, OverlongError
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from agentvault_tui.operator_api.remote import BrokerAddress

T = TypeVar("T", bound=WireShape)

_TIMEOUT: Final = 40.0
"""Longer than the broker gives its tenant, so that its own answer arrives."""
_CONSOLE_TIMEOUT: Final = 5.0
"""A console decides nothing while its broker does not answer, and says so by then."""
_CHUNK: Final = 65_536
_AT_ONCE: Final = 0.001
"""Seconds within which a chunk comes that was here already."""
_SILENCE: Final = 30.0
"""Seconds without a byte after which a stream from elsewhere is taken for dead: a
broker says every five that it is there, and a network does not say that it is not."""
_MUCH: Final = 32_768
"""Bytes in one read that say there is a backlog."""
_REMEDY: Final = "start one with `agentvault serve`, or with its console: `agentvault`"
_SERVE: Final = "start one with: agentvault serve"
_NETWORK: Final = "does it run, and does the network between let you through?"
_KINDS: Final[Mapping[int, type[AgentVaultError]]] = {
    400: UsageError,
    404: NotFoundError,
    409: ConflictError,
    413: UsageError,
    415: UsageError,
    422: UsageError,
    503: LedgerUnwritableError,
}


class ChangeWaitsError(ConflictError):
    """The call became a change that waits for an approver's factor."""

    def __init__(self, change: ChangeInfo) -> None:
        super().__init__(
            f"{visible(change.summary, 200)}: it waits for an approver's factor"
            f" (fingerprint {change.fingerprint})",
            f"agentvault changes approve {change.id}",
        )
        self.change = change


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit)
        self.sock.connect(str(self._path))


class OperatorClient:
    """Asks one broker; each call opens a connection of its own."""

    def __init__(self, broker: BrokerAddress) -> None:
        """Speak to *broker*.

        Raises:
            SettingsError: no socket can have so long a path.
        """
        self.broker = broker
        self._remote = None if isinstance(broker, Path) else broker
        self.on_change: Callable[[ChangeInfo], object] = _waits
        """Called with a change that a call became; returns the call's answer."""
        if isinstance(broker, Path):
            check_socket_path(broker)

    def call(
        self,
        call: ApiCall[AnswerT],
        given: WireShape | None = None,
        **parameters: str | int,
    ) -> AnswerT:
        """Make *call*.

        Args:
            call: one of `operator_api.calls`.
            given: its query or its body.
            **parameters: those of its path.

        Returns:
            The broker's answer.

        Raises:
            AgentVaultError: the broker refused, or none answers.
        """
        path, body = _prepared(call, given, parameters)
        patience = call.seconds or _TIMEOUT
        connection = self._connection(patience)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._send(connection, call.method, path, body, headers)
            content = response.read()
        except TimeoutError as error:
            raise UnreachableError(
                f"the broker at {self.broker} did not answer within {patience:.0f} s",
                "look at its log",
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise UnreachableError(
                f"the broker at {self.broker} broke off ({type(error).__name__})",
                "ask again; if it stays so, look at its log",
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, content)
        if response.status == 202 and _is_change(call):
            content = encode(self.on_change(_read(content, ChangeInfo)))
        return _read(content, call.answer)

    def reachable(self) -> bool:
        """Check whether a broker answers; one elsewhere has to.

        Raises:
            UnreachableError: one elsewhere does not.
        """
        try:
            self.call(STATUS)
        except UnreachableError:
            if self._remote is not None:
                raise
            return False
        return True

    def events(self, after: int) -> Iterator[WireShape]:
        """Follow the events after *after*; ends when the broker does.

        Raises:
            UnreachableError: no broker answers.
        """
        # A stream may be silent for as long as nothing happens.
        connection, decoder = self._connection(None), Decoder()
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            response = self._send(connection, "GET", EVENTS_PATH, None, headers)
            if response.status != 200:
                raise _refusal(response.status, response.read())
            while chunk := response.read1(_CHUNK):
                yield from read_events(decoder.feed(chunk))
        except (http.client.HTTPException, OSError):
            return
        except OverlongError:
            return
        finally:
            connection.close()

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        if isinstance(self.broker, Path):
            return _UnixConnection(self.broker, timeout)
        return self.broker.connection(timeout or _SILENCE)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except PermissionError as error:
            raise UnreachableError(
                f"the socket {self.broker} belongs to someone else",
                "run this as the user who runs the broker",
            ) from error
        except OSError as error:
            raise _not_connected(self.broker, error) from error
        tries = 2 if self._remote else 1
        for left in reversed(range(tries)):
            proof = self._remote.headers(method, path) if self._remote else {}
            connection.request(method, path, body, {**headers, **proof})
            response = connection.getresponse()
            reply = (response.status, response.headers)
            if self._remote and self._remote.renews(*reply) and left:
                response.read()
            else:
                break
        return response


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
        """Make *call*; see `OperatorClient.call`."""
        import httpx  # noqa: PLC0415 - see the module's docstring

        path, body = _prepared(call, given, parameters)
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
            raise _refusal(response.status_code, response.content)
        if response.status_code == 202 and _is_change(call):
            _waits(_read(response.content, ChangeInfo))
        return _read(response.content, call.answer)

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
                    raise _refusal(response.status_code, await response.aread())
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
                auth=auth,
                timeout=_CONSOLE_TIMEOUT,
                trust_env=False,
            )
        return self._client


def read_events(frames: list[Frame]) -> list[WireShape]:
    """Read the content of the stream's frames; of an unknown kind, nothing.

    Raises:
        AgentVaultError: a frame is malformed.
    """
    return [
        _read(frame.data, kind)
        for frame in frames
        if (kind := EVENT_KINDS.get(frame.kind)) is not None
    ]


def remember_socket(home: Home, path: Path | None) -> None:
    """Store the broker's address of this home for other commands, if it is unusual."""
    pointer = home.socket_pointer
    if path is None:
        pointer.unlink(missing_ok=True)
    else:
        private_file(pointer)
        pointer.write_text(f"{path}\n", "utf-8")


def _is_change(call: ApiCall[Any]) -> bool:
    """Check whether a 202 of *call* is a change that waits for a person."""
    return call.status != 202 and call.answer not in {ChangeInfo, DecisionAnswer}


def _waits(change: ChangeInfo) -> NoReturn:
    """Raise that a change waits for a person.

    Raises:
        ChangeWaitsError: always.
    """
    raise ChangeWaitsError(change)


def _prepared(
    call: ApiCall[AnswerT], given: WireShape | None, parameters: Mapping[str, str | int]
) -> tuple[str, bytes | None]:
    path = call.at(**parameters)
    if call.method == "POST":
        return path, b"{}" if given is None else encode(given)
    members = {} if given is None else msgspec.to_builtins(given)
    query = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in members.items()
        if value is not None
    }
    return f"{path}?{urlencode(query)}" if query else path, None


def _read(content: bytes | str, kind: type[T]) -> T:
    try:
        return decode(content, kind)
    except msgspec.ValidationError as error:
        raise AgentVaultError(
            f"the broker's answer is not one of this version ({visible(error, 120)})",
            "are both of the same version?",
        ) from error
    except ValueError as error:
        raise AgentVaultError(
            "the broker's answer is not JSON", "are both of the same version?"
        ) from error


def _refusal(status: int, content: bytes) -> AgentVaultError:
    """Read an RFC 9457 problem document into an error of ours."""
    try:
        problem = decode(content, ProblemInfo)
    except ValueError:
        problem = ProblemInfo()
    what = problem.detail or f"the broker answered with HTTP status {status}"
    remedy = problem.remedy if problem.remedy is not msgspec.UNSET else ""
    if isinstance(problem.factor, str):
        factor = visible(problem.factor, 40)
        return FactorRefusedError(factor, visible(what, 1000), visible(remedy, 1000))
    kind = _KINDS.get(status, RefusedError)
    return kind(visible(what, 1000), visible(remedy, 1000))


def _not_connected(broker: BrokerAddress, error: Exception) -> UnreachableError:
    """Say that no connection could be made, and why where it is the certificate."""
    if isinstance(broker, Path):
        return UnreachableError(f"no broker answers at {broker}", _REMEDY)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return UnreachableError(f"no broker answers at {broker}", _NETWORK)
    return UnreachableError(
        f"the certificate of {broker} is not trusted"
        f" ({visible(cause.verify_message, 100)})",
        "--ca-file FILE names the authority that made it",
    )


def _unreachable(error: Exception, broker: BrokerAddress) -> UnreachableError:
    import httpx  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(
            f"the broker did not answer within {_CONSOLE_TIMEOUT:.0f} s"
        )
    if isinstance(error, httpx.ConnectError):
        if isinstance(broker, Path):
            return UnreachableError("no broker answers at its socket", _SERVE)
        return _not_connected(broker, error)
    remedy = _SERVE if isinstance(broker, Path) else _NETWORK
    return UnreachableError("the connection to the broker broke", remedy)
