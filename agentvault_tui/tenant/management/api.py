"""The face of every Management API call: token, scope, envelope, and its log row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.tenant.management.wire import ApiError, read_json, redacted
from agentvault_tui.tenant.oauth.wire import AWAY, json_reply
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.tokens import VerifiedAccess
from agentvault_tui.text import visible
from agentvault_tui.web import read_body


@dataclass(frozen=True, slots=True)
class ManagementRequest:
    """One authenticated request, its body read."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: object = field(repr=False)
    caller: VerifiedAccess
    url: str
    """The request's own, without its query."""


@dataclass(frozen=True, slots=True)
class ManagementAnswer:
    """Status and JSON; None for no body at all."""

    status: int
    body: object = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Any, ManagementRequest], object]
"""Given the tenant's `Parts`, returns a `ManagementAnswer`, or the body of a 200."""


@dataclass(frozen=True, slots=True)
class ManagementCall:
    """One call of the API, and its requirements."""

    method: str
    path: str
    scopes: tuple[str, ...]
    """Any of these is enough."""
    title: str
    """Its name in the log: Auth0's own operation titles."""
    act: Handler


class ManagementApi:
    """``/api/v2/``, over a table of calls."""

    def __init__(self, parts: Parts, calls: Iterable[ManagementCall]) -> None:
        """Serve *calls*; of two for one method and path, the later one counts."""
        self._parts = parts
        self._calls = tuple(calls)

    def app(self) -> Starlette:
        made = Starlette(
            routes=[
                Route(call.path, partial(self._answer, call), methods=[call.method])
                for call in reversed(self._calls)
            ],
            exception_handlers={HTTPException: self._no_route, **AWAY},
        )
        made.router.redirect_slashes = False
        return made

    async def _answer(self, call: ManagementCall, request: Request) -> Response:
        """Check token and scope, act, and note a write in the log."""
        caller: VerifiedAccess | None = None
        body: object = None
        try:
            caller = self._caller(request)
            _check_scopes(caller, call)
            raw = await read_body(request.receive)
            if call.method != "GET":
                body = read_json(request.headers.get("content-type", ""), raw)
            management_request = ManagementRequest(
                request.path_params,
                dict(request.query_params),
                body,
                caller,
                str(request.url.replace(query="")),
            )
            made = call.act(self._parts, management_request)
            made = await made if inspect.isawaitable(made) else made
            answer = ManagementAnswer(200, made)
            if isinstance(made, ManagementAnswer):
                answer = made
        except UsageError as error:
            what = f"Payload validation error: {error.what}"
            answer = _refused(ApiError(400, what, "invalid_body"))
        except ConflictError as error:
            answer = _refused(ApiError(409, error.what, "conflict"))
        except ApiError as error:
            answer = _refused(error)
        if caller is not None and call.method != "GET":
            self._note(request, call, caller, body, answer)
        return json_reply(answer.status, answer.body, answer.headers)

    def _caller(self, request: Request) -> VerifiedAccess:
        """Check the token (RFC 6750); one of a client that is gone opens nothing."""
        authorization = request.headers.get("authorization", "")
        if not authorization:
            raise ApiError(401, "Missing authentication", None)
        parts = self._parts
        bearer = parts.access.bearer(authorization, parts.apis.management)
        if bearer is None or parts.clients.find(bearer.client_id) is None:
            raise ApiError(401, "Invalid token", "invalid_token")
        return bearer

    def _note(
        self,
        request: Request,
        call: ManagementCall,
        caller: VerifiedAccess,
        body: object,
        answer: ManagementAnswer,
    ) -> None:
        clients = self._parts.clients
        self._parts.journal.write(
            "sapi" if answer.status < 400 else "fapi",
            request,
            description=call.title,
            client=clients.find(caller.client_id),
            details={
                "request": {
                    "method": call.method.lower(),
                    "path": visible(clients.masked(request.url.path), 500),
                    "query": {},
                    "body": redacted(body),
                    "channel": "api",
                    "ip": "" if request.client is None else request.client.host,
                    "auth": {
                        "strategy": "jwt",
                        "user": {},
                        "credentials": {"scopes": list(call.scopes)},
                    },
                    "userAgent": request.headers.get("user-agent", "")[:200],
                },
                "response": {"statusCode": answer.status, "body": {}},
            },
        )

    async def _no_route(self, _: Request, error: Exception) -> Response:
        """Answer 404 for a path or method there is not; Auth0 has no 405."""
        if not isinstance(error, HTTPException):
            raise error
        return json_reply(404, ApiError(404, "Not Found", None).envelope())


def _refused(error: ApiError) -> ManagementAnswer:
    return ManagementAnswer(error.status, error.envelope())


def _check_scopes(caller: VerifiedAccess, call: ManagementCall) -> None:
    if not caller.scopes.intersection(call.scopes):
        message = f"Insufficient scope, expected any of: {','.join(call.scopes)}"
        raise ApiError(403, message, "insufficient_scope")
