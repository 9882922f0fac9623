"""The operators' API, over the broker's Unix socket or from another machine.

`OperatorClient` is the standard library's client: it loads in a quarter of httpx's
time, and here there is no proxy, redirect or pool to want more for.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentvault_tui.errors import UnreachableError
from agentvault_tui.home import Home, check_socket_path, private_file
from agentvault_tui.model.ids import new_secret
from agentvault_tui.operator_api.answers import (
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
    STATUS,
    AnswerT,
    ApiCall,
)
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.shapes import WireShape
from agentvault_tui.operator_api.sse import Decoder, OverlongError

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress

_TIMEOUT: Final = 40.0
"""Longer than the broker gives its tenant, so that its own answer arrives."""
_CHUNK: Final = 65_536
_SILENCE: Final = 30.0
"""Seconds without a byte after which a stream from elsewhere is taken for dead: a
broker says every five that it is there, and a network does not say that it is not."""


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
        self.on_change: Callable[[ChangeInfo], object] = raise_waiting
        """Called with a change that a call became; returns the call's answer."""
        self._claim = new_secret("claim")
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
        path, body = prepare_request(call, given, parameters)
        patience = call.seconds or _TIMEOUT
        connection = self._connection(patience)
        headers = {"Accept": "application/json", CLAIM_HEADER: self._claim}
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
            raise read_refusal(response.status, content)
        if response.status == 202 and becomes_change(call):
            content = encode(self.on_change(read_answer(content, ChangeInfo)))
        return read_answer(content, call.answer)

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
                raise read_refusal(response.status, response.read())
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
            raise not_connected(self.broker, error) from error
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


def remember_socket(home: Home, path: Path | None) -> None:
    """Store the broker's address of this home for other commands, if it is unusual."""
    pointer = home.socket_pointer
    if path is None:
        pointer.unlink(missing_ok=True)
    else:
        private_file(pointer)
        pointer.write_text(f"{path}\n", "utf-8")
