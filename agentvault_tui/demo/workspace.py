"""The workspace API the example agents use: calendar, mail, money, records, files."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class TokenGuard:
    """Asks the broker about tokens, with the workspace's own client credentials."""

    def __init__(
        self, broker: str, client_id: str, client_secret: str, http: httpx.AsyncClient
    ) -> None:
        """Introspect at the broker's base URL *broker* through *http*."""
        self._url = f"{broker}/oauth/introspect"
        self._auth = httpx.BasicAuth(client_id, client_secret)
        self._http = http

    async def refusal(
        self, request: Request, scope: str, resource: str, parameters: dict[str, object]
    ) -> Response | None:
        """Return why the request is refused, or None."""
        token = _bearer(request)
        if not token:
            return _challenge(401, None, "a bearer token is needed")
        try:
            reply = await self._http.post(
                self._url, data={"token": token}, auth=self._auth
            )
            claims = reply.json() if reply.status_code == 200 else None
        except (httpx.TransportError, ValueError):
            claims = None
        if not isinstance(claims, dict):
            return _unknown()
        if claims.get("active") is not True:
            return _challenge(401, "invalid_token", "expired, revoked or spent")
        if scope not in str(claims.get("scope", "")).split():
            return _challenge(403, "insufficient_scope", f"needs {scope}")
        if not permits(claims, scope, resource, parameters):
            what = "the token was given for another action"
            return _challenge(403, "insufficient_scope", what)
        return None


class OwnersGuard:
    """Asks the provider whose account a token is of, and what its owner allowed."""

    def __init__(self, provider: str, http: httpx.AsyncClient) -> None:
        """Ask at the provider's base URL through *http*."""
        self._url = f"{provider}/tokeninfo"
        self._http = http

    async def owner(self, request: Request, scope: str) -> str | Response:
        """Return the account's owner, or why the request is refused."""
        token = _bearer(request)
        if not token:
            return _challenge(401, None, "a bearer token is needed")
        try:
            reply = await self._http.get(
                self._url, headers={"Authorization": f"Bearer {token}"}
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


def permits(
    claims: dict[str, Any], scope: str, resource: str, parameters: dict[str, Any]
) -> bool:
    """Compare what a token is good for with what is about to be done.

    RFC 9396 section 9.2: the resource server enforces what was consented to. A person
    approved one exact action; one cent more is another action. The lines are those of
    docs/protect-your-api.md.
    """
    if claims.get("active") is not True or scope not in claims["scope"].split():
        return False
    details = claims.get("authorization_details") or []
    if not details:  # it names no action: good enough to read, and for nothing else
        return scope.startswith("read:") and claims.get("aud", resource) == resource
    named = [
        [one["type"], one.get("action"), one.get("resource"), one.get("parameters", {})]
        for one in details
    ]
    wanted = [["agentvault:action", scope, resource, parameters]]
    return json.dumps(named, sort_keys=True) == json.dumps(wanted, sort_keys=True)


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
_KEPT: Final = 2_000
"""Entries of a kind that stay; a demo may run for days."""


class WorkspaceStore:
    """A small company's workspace."""

    def __init__(self) -> None:
        self.bookings: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.mails: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.payments: deque[dict[str, Any]] = deque(maxlen=_KEPT)
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


def latest(
    entries: Iterable[dict[str, object]], count: int = 10
) -> list[dict[str, object]]:
    """Return the last *count* of *entries*."""
    return list(deque(entries, maxlen=count))


_BODY_CAP: Final = 65_536

Perform = Callable[[WorkspaceStore, Mapping[str, str], Mapping[str, object]], object]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the workspace can do, and the scope it takes."""

    method: str
    path: str
    scope: str
    resource: str
    """As in ``authorization_details``; path parameters in braces."""
    perform: Perform
    needs: Mapping[str, type] = field(default_factory=dict)
    """Members the body must have."""
    says: Mapping[str, object] = field(default_factory=dict)
    """Parameters that the request implies without a body."""


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
    Operation(
        "GET",
        "/calendar/{calendar}",
        "read:calendar",
        "calendar:{calendar}",
        lambda store, _where, _body: latest(store.bookings),
    ),
    Operation(
        "POST",
        "/calendar/{calendar}",
        "write:calendar",
        "calendar:{calendar}",
        lambda store, where, body: store.book(where["calendar"], body),
        {"title": str, "start": str, "minutes": int},
    ),
    Operation(
        "GET",
        "/mail/{box}",
        "read:email",
        "mail:{box}",
        lambda store, _where, _body: latest(store.mails),
    ),
    Operation(
        "POST",
        "/mail/{box}",
        "send:email",
        "mail:{box}",
        _send,
        {"recipients": object, "subject": str},
    ),
    Operation(
        "GET",
        "/accounts/{account}",
        "read:payments",
        "stripe:{account}",
        lambda store, _where, _body: latest(store.payments),
    ),
    Operation(
        "POST",
        "/accounts/{account}",
        "send:payment",
        "stripe:{account}",
        lambda store, where, body: store.pay(where["account"], body),
        {"amount": int, "currency": str, "payee": str},
    ),
    Operation(
        "GET",
        "/finance/{quarter}",
        "read:finance",
        "finance:{quarter}",
        lambda store, where, _body: {
            "quarter": where["quarter"],
            "paid": sum(entry["amount"] for entry in store.payments),
        },
    ),
    Operation(
        "GET",
        "/records/{record}",
        "read:records",
        "crm:{record}",
        lambda store, where, _body: store.records[where["record"]],
    ),
    Operation(
        "DELETE",
        "/records/{record}",
        "delete:records",
        "crm:{record}",
        _delete_record,
        says={"count": 1},
    ),
    Operation(
        "GET",
        "/files/{file}",
        "read:files",
        "files:{file}",
        lambda store, where, _body: {"text": store.files[where["file"]]},
    ),
    Operation(
        "PUT",
        "/files/{file}",
        "write:files",
        "files:{file}",
        _write_file,
        {"text": str},
    ),
)


CONTACTS: Final = "contacts.read"
"""What an owner allows at the provider, in the provider's words."""


def application(
    guard: TokenGuard, owners: OwnersGuard, store: WorkspaceStore
) -> Starlette:
    """Return the API over *store*."""

    async def contacts(request: Request) -> Response:
        owner = await owners.owner(request, CONTACTS)
        if isinstance(owner, Response):
            return owner
        return JSONResponse({"owner": owner, "contacts": store.contacts})

    return Starlette(
        routes=[
            Route("/contacts", contacts, methods=["GET"]),
            *(
                Route(
                    operation.path,
                    _endpoint(operation, guard, store),
                    methods=[operation.method],
                )
                for operation in OPERATIONS
            ),
        ]
    )


def _endpoint(
    operation: Operation, guard: TokenGuard, store: WorkspaceStore
) -> Callable[..., object]:
    async def answer(request: Request) -> Response:
        try:
            body = await _body(request, operation)
        except ValueError as error:
            return _problem(400, str(error))
        where = {name: str(value) for name, value in request.path_params.items()}
        resource = operation.resource.format(**where)
        parameters = {**operation.says, **body}
        # Whatever can be refused without the token was refused above: asking about
        # an elevated token spends it.
        scope = operation.scope
        refusal = await guard.refusal(request, scope, resource, parameters)
        if refusal is not None:
            return refusal
        try:
            done = operation.perform(store, where, body)
        except LookupError:
            return _problem(404, "there is no such thing here")
        except ValueError as error:
            return _problem(422, str(error))
        return JSONResponse(done, 201 if operation.method == "POST" else 200)

    return answer


async def _body(request: Request, operation: Operation) -> dict[str, object]:
    """Read the body, and check that it says what the operation needs."""
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
