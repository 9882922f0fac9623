"""The operators' HTTP over the broker's Unix socket, as the command line asks it.

The standard library's client: it loads in a quarter of httpx's time, and here there is
no TLS, proxy, redirect or pool to want more for.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.home import Home, check_socket_path, private_file

_TIMEOUT: Final = 40.0
"""Longer than the broker gives its tenant, so that its own answer arrives."""
_REMEDY: Final = "start one with `agentvault serve`, or with its console: `agentvault`"
_KINDS: Final[Mapping[int, type[AgentVaultError]]] = {
    400: UsageError,
    404: NotFoundError,
    409: ConflictError,
    413: UsageError,
    415: UsageError,
    422: UsageError,
    503: LedgerUnwritableError,
}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One server-sent event."""

    id: int
    """The ledger's sequence number it stands at; 0 when it has none."""
    kind: str
    data: Any


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection whose other end is a Unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit)
        self.sock.connect(str(self._path))


class OperatorClient:
    """Asks the broker of one home; each call opens a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Speak to the socket at *path*.

        Raises:
            SettingsError: no socket can have so long a path.
        """
        check_socket_path(path)
        self.path = path

    @classmethod
    def for_home(cls, home: Home) -> Self:
        """Speak to the broker of *home*, wherever its ``--socket`` is."""
        return cls(socket_of(home))

    def get(self, path: str, **query: object) -> Any:
        """Ask; *query* members that are ``None`` are left out.

        Raises:
            AgentVaultError: the broker refused, or none answers.
        """
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, **body: object) -> Any:
        """Tell; *body* members that are ``None`` are left out.

        Raises:
            AgentVaultError: the broker refused, or none answers.
        """
        given = {name: value for name, value in body.items() if value is not None}
        return self._ask("POST", path, json.dumps(given).encode())

    def reachable(self) -> bool:
        """Tell whether a broker answers."""
        try:
            self.get("/api/status")
        except UnreachableError:
            return False
        return True

    def events(self, after: int) -> Iterator[ServerEvent]:
        """Follow what happens from behind *after*; ends when the broker does.

        Raises:
            UnreachableError: no broker answers.
        """
        # A stream may be silent for as long as nothing happens.
        connection = _UnixConnection(self.path, None)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        try:
            response = self._send(connection, "GET", "/api/events", None, headers)
            if response.status != 200:
                raise _refusal(response.status, response.read())
            yield from parse_events(response)
        except (http.client.HTTPException, ConnectionError):
            return
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = _UnixConnection(self.path, _TIMEOUT)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._send(connection, method, path, body, headers)
            content = response.read()
        except TimeoutError as error:
            raise UnreachableError(
                f"the broker at {self.path} did not answer within {_TIMEOUT:.0f} s",
                "look at its log",
            ) from error
        except (http.client.HTTPException, OSError) as error:
            raise UnreachableError(
                f"the broker at {self.path} broke off ({type(error).__name__})",
                "ask again; if it stays so, look at its log",
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _refusal(response.status, content)
        answer = _decode(content)
        if not isinstance(answer, dict):
            raise AgentVaultError(
                "this is not an answer of a broker", f"what listens at {self.path}?"
            )
        return answer

    def _send(
        self,
        connection: _UnixConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except PermissionError as error:
            raise UnreachableError(
                f"the socket {self.path} belongs to someone else",
                "run this as the user who runs the broker",
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"no broker answers at {self.path}", _REMEDY
            ) from error
        connection.request(method, path, body, dict(headers))
        return connection.getresponse()


def socket_of(home: Home) -> Path:
    """Return where the broker of *home* listens: its usual place, or ``--socket``."""
    try:
        named = _pointer(home).read_text("utf-8").strip()
    except (OSError, ValueError):
        return home.socket
    return Path(named) if named and not home.socket.exists() else home.socket


def remember_socket(home: Home, path: Path | None) -> None:
    """Keep for other commands where this home's broker listens, if it is unusual."""
    pointer = _pointer(home)
    if path is None:
        pointer.unlink(missing_ok=True)
    else:
        private_file(pointer)
        pointer.write_text(f"{path}\n", "utf-8")


def _pointer(home: Home) -> Path:
    return home.run / "operator-socket"


def segment(text: str) -> str:
    """Quote *text* as one segment of a path."""
    return quote(text, safe="")


def parse_events(response: http.client.HTTPResponse) -> Iterator[ServerEvent]:
    """Read the event stream format (WHATWG HTML, section 9.2.6)."""
    kind, number, data = "message", 0, list[str]()
    while raw := response.readline():
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerEvent(number, kind, _decode("\n".join(data).encode()))
            kind, number, data = "message", 0, []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id" and value.isascii() and value.isdigit():
            number = int(value)


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError as error:
        raise AgentVaultError(
            "the broker's answer is not JSON", "are both of the same version?"
        ) from error


def _refusal(status: int, content: bytes) -> AgentVaultError:
    """Read an RFC 9457 problem document into an error of ours."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    what = problem.get("detail") or f"the broker answered with HTTP status {status}"
    kind = _KINDS.get(status, RefusedError)
    return kind(str(what), str(problem.get("remedy") or ""))
