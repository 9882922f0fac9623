"""The workspace API the example agents use: calendar, mail, money, records, files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentvault_tui.demo.guard import Demand, OwnersGuard, TokenGuard
from agentvault_tui.demo.store import WorkspaceStore, latest

_BODY_CAP: Final = 65_536

Perform = Callable[[WorkspaceStore, Mapping[str, str], Mapping[str, Any]], Any]


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
    says: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that the request implies without a body."""


def _delete_record(
    store: WorkspaceStore, where: Mapping[str, str], _body: Mapping[str, Any]
) -> Any:
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
    """Return the API over *store*: behind *guard*, address books behind *owners*."""

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
) -> Callable[..., Any]:
    async def answer(request: Request) -> Response:
        """Read what is asked, let the guard judge the token, then do it."""
        try:
            body = await _body(request, operation)
        except ValueError as error:
            return _problem(400, str(error))
        where = {name: str(value) for name, value in request.path_params.items()}
        demand = Demand(
            operation.scope,
            operation.resource.format(**where),
            {**operation.says, **body},
        )
        # Whatever can be refused without the token was refused above: asking about
        # an elevated token spends it.
        refusal = await guard.refusal(request, demand)
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


async def _body(request: Request, operation: Operation) -> dict[str, Any]:
    """Read the body, and check that it says what the operation needs.

    Raises:
        ValueError: it does not.
    """
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
        """Handle none."""
        yield
