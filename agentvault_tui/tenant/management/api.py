"""The face of every management call: rate, token, scope, envelope, and its log row."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.tenant.access import Access
from agentvault_tui.tenant.clients import log_name
from agentvault_tui.tenant.journal import Peer
from agentvault_tui.tenant.management.bodies import read_json, redacted
from agentvault_tui.tenant.management.problems import ApiError
from agentvault_tui.tenant.oauth.wire import peer_of
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.replies import json_reply
from agentvault_tui.text import visible
from agentvault_tui.web import read_body

_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request, believed and read."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = field(repr=False)
    caller: Access
    url: str
    """The request's own, without its query."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON; None for no body at all."""

    status: int
    body: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Answer | Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call of the API, and what it takes to make it."""

    method: str
    path: str
    scopes: tuple[str, ...]
    """Any of these is enough."""
    title: str
    """What the log calls it: Auth0's own operation titles."""
    act: Handler
    needs_all: bool = False
    """All of the scopes instead."""
    deletes_named: bool = False
    """A DELETE whose body names what goes; of others nobody reads one."""


class Surface(Protocol):
    """The calls about one kind of thing."""

    def endpoints(self) -> list[Endpoint]:
        """Return them."""
        ...


class ManagementApi:
    """``/api/v2/``, over the endpoints that each surface brings."""

    def __init__(self, endpoints: list[Endpoint], parts: Parts) -> None:
        """Serve *endpoints* over a tenant's *parts*."""
        self._endpoints = endpoints
        self._access = parts.access
        self._clients = parts.clients
        self._journal = parts.journal
        self._limit = parts.limit
        self._audience = parts.apis.management

    def app(self) -> Starlette:
        """Return the routes as an app to be mounted."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in self._endpoints:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        made = Starlette(
            routes=[
                Route(path, self._handler(of_method), methods=list(of_method))
                for path, of_method in by_path.items()
            ],
            exception_handlers={HTTPException: self._no_route},
        )
        made.router.redirect_slashes = False
        return made

    def _handler(
        self, of_method: Mapping[str, Endpoint]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            # Starlette lets HEAD in wherever GET is.
            method = "GET" if request.method == "HEAD" else request.method
            return await self._answer(request, of_method[method])

        return handle

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        caller: Access | None = None
        body: Any = None
        try:
            caller = self._caller(request)
            self._limit.take()
            _check_scopes(caller, endpoint)
            raw = await read_body(request.receive)
            if endpoint.method in {"POST", "PUT", "PATCH"} or endpoint.deletes_named:
                body = read_json(request.headers.get("content-type", ""), raw)
            answer = await self._act(request, endpoint, caller, body)
        except ApiError as error:
            answer = Answer(error.status, error.envelope())
        self._note(request, endpoint, caller, body, answer)
        return _write(answer, self._limit.headers(answer.status))

    async def _act(
        self, request: Request, endpoint: Endpoint, caller: Access, body: Any
    ) -> Answer:
        call = Call(
            request.path_params,
            dict(request.query_params),
            body,
            caller,
            str(request.url.replace(query="")),
        )
        try:
            made = endpoint.act(call)
            return await made if inspect.isawaitable(made) else made
        except UsageError as error:
            raise ApiError(
                400, f"Payload validation error: {error.what}", "invalid_body"
            ) from None
        except ConflictError as error:
            raise ApiError(409, error.what, "conflict") from None

    def _caller(self, request: Request) -> Access:
        """Check the token (RFC 6750); one of a client that is gone opens nothing."""
        authorization = request.headers.get("authorization", "")
        if not authorization:
            raise ApiError(401, "Missing authentication", None)
        found = self._access.bearer(authorization, self._audience)
        if found is None or self._clients.find(found.client_id) is None:
            raise ApiError(401, "Invalid token", "invalid_token")
        return found

    def _note(
        self,
        request: Request,
        endpoint: Endpoint,
        caller: Access | None,
        body: Any,
        answer: Answer,
    ) -> None:
        if endpoint.method not in _WRITES or caller is None:
            return
        client = self._clients.find(caller.client_id)
        peer: Peer = peer_of(request)
        self._journal.write(
            "sapi" if answer.status < 400 else "fapi",
            description=endpoint.title,
            client=log_name(client),
            peer=peer,
            details={
                "request": {
                    "method": endpoint.method.lower(),
                    "path": visible(self._clients.masked(request.url.path), 500),
                    "query": {},
                    "body": redacted(body),
                    "channel": "api",
                    "ip": peer.ip,
                    "auth": {
                        "strategy": "jwt",
                        "user": {},
                        "credentials": {"scopes": list(endpoint.scopes)},
                    },
                    "userAgent": peer.user_agent[:200],
                },
                "response": {"statusCode": answer.status, "body": {}},
            },
        )

    async def _no_route(self, _: Request, error: Exception) -> Response:
        """Say 404 for a path or method there is not; Auth0 has no 405."""
        if not isinstance(error, HTTPException):
            raise error
        return _write(
            Answer(404, ApiError(404, "Not Found", None).envelope()),
            self._limit.headers(404),
        )


def _check_scopes(caller: Access, endpoint: Endpoint) -> None:
    held = [scope in caller.scopes for scope in endpoint.scopes]
    if all(held) if endpoint.needs_all else any(held):
        return
    how = "all" if endpoint.needs_all else "any"
    raise ApiError(
        403,
        f"Insufficient scope, expected {how} of: {','.join(endpoint.scopes)}",
        "insufficient_scope",
    )


def _write(answer: Answer, headers: Mapping[str, str]) -> Response:
    return json_reply(answer.status, answer.body, {**headers, **answer.headers})
