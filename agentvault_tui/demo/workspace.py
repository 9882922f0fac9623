"""The workspace API the example agents use: calendar, mail, money, records, files."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


class OwnersGuard:
    """Asks the provider for the account of a token, and its owner's consent."""

    def __init__(self, provider: Callable[[], str], http: httpx.AsyncClient) -> None:
        """Ask at the provider's base URL, known by then, through *http*."""
        self._provider = provider
        self._http = http

    async def owner(self, request: Request, scope: str) -> str | Response:
        """Return the account's owner, or why the request is refused."""
        token = _bearer(request)
        if not token:
            return _challenge(401, None, "a bearer token is needed")
        try:
            reply = await self._http.get(
                f"{self._provider()}/tokeninfo",
                headers={"Authorization": f"Bearer {token}"},
            )
            claims = reply.json()
        except (httpx.TransportError, ValueError):
            return _unknown()
        if not isinstance(claims, dict) or reply.is_server_error:
            return _unknown()
        if claims.get("active") is not True:
            return _challenge(401, "invalid_token", "expired or revoked")
        if scope not in str(claims.get("scope", "")).split():
            return _challenge(403, "insufficient_scope", f"needs {scope}")
        return str(claims.get("sub", ""))


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


def _unknown() -> Response:
    """Answer 503 when the token cannot be checked (RFC 7662 section 4)."""
    return JSONResponse({"error": "temporarily_unavailable"}, 503, {"Retry-After": "1"})


def _challenge(status: int, error: str | None, description: str) -> Response:
    """Refuse with a challenge (RFC 6750 section 3)."""
    challenge = 'Bearer realm="workspace"'
    if error:
        challenge += f', error="{error}", error_description="{description}"'
    return JSONResponse(
        {"error": error or "unauthorized", "error_description": description},
        status,
        {"WWW-Authenticate": challenge},
    )


PEOPLE: Final = ("ada", "ben", "chris", "dana", "elif", "femi", "grace", "hugo")
"""Whom the company deals with."""
_STORED_ENTRIES: Final = 2_000
"""Entries of a kind that stay; a demo may run for days."""


class WorkspaceStore:
    """A small company's workspace."""

    def __init__(self) -> None:
        self.bookings: deque[dict[str, Any]] = deque(maxlen=_STORED_ENTRIES)
        self.mails: deque[dict[str, Any]] = deque(maxlen=_STORED_ENTRIES)
        self.payments: deque[dict[str, Any]] = deque(maxlen=_STORED_ENTRIES)
        self.files: dict[str, str] = {
            "forecast.csv": "month,amount\n2026-12,81200\n",
            "minutes.md": "# Minutes\n",
            "market.md": "# Market notes\n",
        }
        self.records: dict[str, dict[str, Any]] = {
            str(number): {"id": str(number), "customer": f"Customer {number}"}
            for number in range(1, 201)
        }
        self.lists: Mapping[str, int] = {"customers": 500, "newsletter": 1_840}
        """Mailing lists and how many people each one reaches."""
        self.contacts = [
            {"name": name.title(), "address": f"{name}@acme.test"} for name in PEOPLE
        ]
        self._numbers = itertools.count(1)

    def book(self, calendar: str, body: Mapping[str, object]) -> dict[str, object]:
        """Put a meeting into *calendar*."""
        return self._add(self.bookings, {"calendar": calendar, **body})

    def send(self, body: Mapping[str, object]) -> dict[str, object]:
        """Send a mail, to addresses or to a mailing list."""
        return self._add(self.mails, dict(body))

    def pay(self, account: str, body: Mapping[str, object]) -> dict[str, object]:
        """Send money from *account*."""
        return self._add(self.payments, {"account": account, **body})

    def _add(
        self, where: deque[dict[str, object]], what: dict[str, object]
    ) -> dict[str, object]:
        entry = {"number": next(self._numbers), **what}
        where.append(entry)
        return entry


_BODY_CAP: Final = 65_536

Perform = Callable[[WorkspaceStore, Mapping[str, str], Mapping[str, object]], object]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the workspace can do."""

    method: str
    path: str
    perform: Perform
    needs: Mapping[str, type] = field(default_factory=dict)
    """Members the body must have."""


def _lists(kind: str) -> Perform:
    """Return the handler that lists the last entries of a kind."""
    return lambda store, _where, _body: list(deque(getattr(store, kind), maxlen=10))


def _delete_record(
    store: WorkspaceStore, where: Mapping[str, str], _body: Mapping[str, object]
) -> object:
    return {"deleted": store.records.pop(where["record"])}


def _write_file(
    store: WorkspaceStore, where: Mapping[str, str], body: Mapping[str, Any]
) -> Any:
    store.files[where["file"]] = body["text"]
    return {"file": where["file"], "characters": len(body["text"])}


def _send(
    store: WorkspaceStore, _where: Mapping[str, str], body: Mapping[str, Any]
) -> Any:
    recipients = body["recipients"]
    if isinstance(recipients, int) and store.lists.get(body.get("list", "")) != (
        recipients
    ):
        # The number a person approved must be the number that is reached.
        raise ValueError("a count of recipients needs a list of that size")
    return store.send(body)


OPERATIONS: Final = (
    Operation("GET", "/calendar/{calendar}", _lists("bookings")),
    Operation(
        "POST",
        "/calendar/{calendar}",
        lambda store, where, body: store.book(where["calendar"], body),
        {"title": str, "start": str, "minutes": int},
    ),
    Operation("GET", "/mail/{box}", _lists("mails")),
    Operation(
        "POST",
        "/mail/{box}",
        _send,
        {"recipients": object, "subject": str},
    ),
    Operation("GET", "/accounts/{account}", _lists("payments")),
    Operation(
        "POST",
        "/accounts/{account}",
        lambda store, where, body: store.pay(where["account"], body),
        {"amount": int, "currency": str, "payee": str},
    ),
    Operation(
        "GET",
        "/finance/{quarter}",
        lambda store, where, _body: {
            "quarter": where["quarter"],
            "paid": sum(entry["amount"] for entry in store.payments),
        },
    ),
    Operation(
        "GET",
        "/records/{record}",
        lambda store, where, _body: store.records[where["record"]],
    ),
    Operation("DELETE", "/records/{record}", _delete_record),
    Operation(
        "GET",
        "/files/{file}",
        lambda store, where, _body: {"text": store.files[where["file"]]},
    ),
    Operation(
        "PUT",
        "/files/{file}",
        _write_file,
        {"text": str},
    ),
)


CONTACTS: Final = "contacts.read"
"""The permissions of an owner at the provider, in the provider's words."""


EXPORT: Final = "/files/export.zip"
_PIECE: Final = bytes(128 * 1024)
_PIECES: Final = 2_400
_PAUSE: Final = 0.1


async def _export() -> AsyncIterator[bytes]:
    """Yield 300 MB over four minutes."""
    for _ in range(_PIECES):
        yield _PIECE
        await asyncio.sleep(_PAUSE)


def application(key: str, owners: OwnersGuard, store: WorkspaceStore) -> Starlette:
    """Return the API over *store*, for callers with *key*, or an owner's token."""

    async def export(request: Request) -> Response:
        if refusal := _refusal(request, key):
            return refusal
        return StreamingResponse(_export(), media_type="application/zip")

    async def contacts(request: Request) -> Response:
        owner = await owners.owner(request, CONTACTS)
        if isinstance(owner, Response):
            return owner
        return JSONResponse({"owner": owner, "contacts": store.contacts})

    return Starlette(
        routes=[
            Route("/contacts", contacts, methods=["GET"]),
            Route(EXPORT, export, methods=["GET"]),
            *(
                Route(
                    operation.path,
                    _endpoint(operation, key, store),
                    methods=[operation.method],
                )
                for operation in OPERATIONS
            ),
        ]
    )


def _endpoint(
    operation: Operation, key: str, store: WorkspaceStore
) -> Callable[..., object]:
    async def answer(request: Request) -> Response:
        """Perform the operation, and answer with its result as JSON."""
        if refusal := _refusal(request, key):
            return refusal
        try:
            body = await _body(request, operation)
            where = {name: str(value) for name, value in request.path_params.items()}
            done = operation.perform(store, where, body)
        except LookupError:
            return _problem(404, "there is no such thing here")
        except ValueError as error:
            return _problem(400, str(error))
        return JSONResponse(done, 201 if operation.method == "POST" else 200)

    return answer


def _refusal(request: Request, key: str) -> Response | None:
    if secrets.compare_digest(_bearer(request).encode(), key.encode()):
        return None
    return _challenge(401, "invalid_token", "the workspace's key is needed")


async def _body(request: Request, operation: Operation) -> dict[str, object]:
    """Read the body, and check that it has the operation's members."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _BODY_CAP:
            raise ValueError("the body is too large")
    body = json.loads(raw) if raw else {}
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - one kind: bad input
    for name, kind in operation.needs.items():
        if not isinstance(body.get(name), kind) or body[name] is None:
            raise ValueError(f"the body needs {name}")
    if not operation.needs and body:
        raise ValueError("no body is expected here")
    return body


def _problem(status: int, detail: str) -> Response:
    return JSONResponse(
        {"status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )


@contextlib.asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve *app* on a loopback port the system picks; yield its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off")
        server = _EmbeddedServer(config)
        # The socket listens already: what connects before the server runs waits.
        running = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await running


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield
