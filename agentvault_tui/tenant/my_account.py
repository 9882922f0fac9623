"""The My Account API: a user connects accounts at providers, lists and deletes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.tenant.accounts import VaultAccount, shape
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.journal import LogCode
from agentvault_tui.tenant.login import redirect_allowed
from agentvault_tui.tenant.management import wire
from agentvault_tui.tenant.management.wire import (
    ApiError,
    Maybe,
    Scope,
    Scopes,
    Uri,
    Word,
    checked,
    read_json,
)
from agentvault_tui.tenant.oauth.wire import AWAY, json_reply
from agentvault_tui.tenant.parts import Parts
from agentvault_tui.tenant.users import User
from agentvault_tui.web import read_body

_MOST, _USUAL = 20, 10
_BASE: Final = "/connected-accounts"
_FAILED: Final[dict[str, LogCode]] = {
    "complete": "connected_accounts_connection_failed",
    "accounts/{id}": "connected_accounts_delete_failed",
}
"""The log's code for a call that failed, by its path."""
_Challenge = Annotated[str, Meta(min_length=43, max_length=128)]


class ConnectBody(Struct):
    """The body of ``POST connect``; its `authorization_params` are passed over."""

    connection: Word | Maybe = UNSET
    redirect_uri: Uri | Maybe = UNSET
    state: Scope | Maybe = UNSET
    scopes: Scopes | Maybe = UNSET
    code_challenge: _Challenge | Maybe = UNSET
    code_challenge_method: Literal["S256"] | Maybe = UNSET


class CompleteBody(Struct):
    """The body of ``POST complete``."""

    auth_session: Word | Maybe = UNSET
    connect_code: Word | Maybe = UNSET
    redirect_uri: Uri | Maybe = UNSET
    code_verifier: _Challenge | Maybe = UNSET


@dataclass(frozen=True, slots=True)
class _Call:
    """A request of a user, through a client of theirs."""

    request: Request
    user: User
    client: Client
    body: object = field(repr=False)


_Act = Callable[[_Call], tuple[int, object]]


class MyAccount:
    """``/me/v1/``: for holders of a user's token, never for machines."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def app(self) -> Starlette:
        """Return the API below ``/me/v1``; each call takes a scope of its own."""
        calls: tuple[tuple[str, str, str, _Act], ...] = (
            ("POST", "connect", "create", self._connect),
            ("POST", "complete", "create", self._complete),
            ("GET", "accounts", "read", self._list),
            ("DELETE", "accounts/{id}", "delete", self._delete),
        )
        made = Starlette(
            routes=[
                Route(
                    f"{_BASE}/{path}",
                    partial(self._answer, f"{verb}:me:connected_accounts", path, act),
                    methods=[method],
                )
                for method, path, verb, act in calls
            ],
            exception_handlers={HTTPException: self._no_route, **AWAY},
        )
        made.router.redirect_slashes = False
        return made

    async def _answer(
        self, scope: str, path: str, act: _Act, request: Request
    ) -> Response:
        """Check who asks, act, and answer as Auth0 does."""
        call: _Call | None = None
        try:
            user, client = self._caller(request, scope)
            raw = await read_body(request.receive)
            kind = request.headers.get("content-type", "")
            body = read_json(kind, raw) if request.method == "POST" else None
            call = _Call(request, user, client, body)
            status, answer = act(call)
        except ApiError as error:
            if call is not None and path in _FAILED:
                self._note(call, _FAILED[path], description=error.message)
            return _problem(error)
        return json_reply(status, answer)

    def _caller(self, request: Request, scope: str) -> tuple[User, Client]:
        parts, header = self._parts, request.headers.get("authorization", "")
        bearer = parts.access.bearer(header, parts.apis.me)
        user = None if bearer is None else parts.people.find(bearer.sub)
        client = None if bearer is None else parts.clients.find(bearer.client_id)
        if bearer is None or user is None or client is None or user.blocked:
            raise ApiError(401, "Invalid or expired token.", None)
        if scope not in bearer.scopes:
            raise ApiError(403, f"Insufficient scope, expected: {scope}", None)
        return user, client

    def _connect(self, call: _Call) -> tuple[int, object]:
        body = checked(call.body, ConnectBody, "connection", "redirect_uri")
        connection = self._parts.connections.for_vault(body["connection"], call.client)
        if connection is None:
            raise ApiError(404, "The connection is not offered to this client.", None)
        if not redirect_allowed(body["redirect_uri"], call.client.callbacks):
            raise ApiError(400, "The redirect_uri is not registered.", None)
        challenged = body.get("code_challenge") is not None
        if challenged != (body.get("code_challenge_method") is not None):
            raise ApiError(400, "Send code_challenge and its method together.", None)
        if any(" " in scope for scope in body.get("scopes") or ()):
            raise ApiError(400, "A scope has no spaces.", None)
        started = self._parts.connecting.start(call.user, call.client, body)
        return 201, started

    def _complete(self, call: _Call) -> tuple[int, object]:
        names = ("auth_session", "connect_code", "redirect_uri")
        body = checked(call.body, CompleteBody, *names)
        name, whose, scope = self._parts.connecting.complete(
            call.user, call.client, body
        )
        connection = self._parts.connections.for_vault(name, call.client)
        if connection is None:
            raise ApiError(409, "The connection is not offered any more.", None)
        account = self._parts.accounts.connect(call.user.sub, connection, whose, scope)
        self._note(call, "connected_accounts_connection_succeeded", account)
        return 201, shape(account)

    def _list(self, call: _Call) -> tuple[int, object]:
        query = dict(call.request.query_params)
        accounts = self._parts.accounts.list(call.user.sub, query.get("connection"))
        shapes = [shape(account) for account in accounts]
        return 200, wire.by_checkpoint(
            query, "accounts", shapes, most=_MOST, usual=_USUAL
        )

    def _delete(self, call: _Call) -> tuple[int, object]:
        account = self._parts.accounts.get(call.request.path_params["id"])
        # Another user's account is as unknown as an invented one.
        if account is None or account.user_id != call.user.sub:
            raise ApiError(404, "The connected account does not exist.", None)
        self._parts.accounts.delete(account.id)
        self._note(call, "connected_accounts_delete_succeeded", account)
        return 204, None

    def _note(
        self,
        call: _Call,
        kind: LogCode,
        account: VaultAccount | None = None,
        description: str = "",
    ) -> None:
        details = {}
        if account is not None:
            one = {"id": account.id, "idp_user_id": account.account}
            details = {"connected_account": one}
        self._parts.journal.write(
            kind,
            call.request,
            description=description,
            client=call.client,
            user=call.user,
            connection="" if account is None else account.connection,
            details=details,
        )

    async def _no_route(self, _: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return _problem(ApiError(404, "Not Found", None))


def _problem(error: ApiError) -> Response:
    """Write a refusal in the My Account API's envelope, close to RFC 9457."""
    problem: dict[str, object] = {
        "type": f"https://auth0.com/api-errors/{error.status}",
        "status": error.status,
        "title": HTTPStatus(error.status).phrase,
        "detail": error.message,
    }
    if error.code == "invalid_body":
        problem["validation_errors"] = [{"detail": error.message}]
    return json_reply(error.status, problem)
