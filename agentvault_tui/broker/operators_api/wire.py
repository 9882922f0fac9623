"""Bodies in, answers and problem documents out (RFC 9457)."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui import strict_json
from agentvault_tui.broker.authority import Authority, is_remote
from agentvault_tui.broker.operators_api.long_work import AnswerTurns
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    FactorRefusedError,
    ForbiddenError,
    LedgerBusyError,
    LedgerUnwritableError,
    NotFoundError,
    OvertakenError,
    PolicyError,
    RefusedError,
    SealedError,
    TenantError,
    UsageError,
)
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.operator_api.calls import ACCESS, AnswerT, ApiCall
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.shapes import ProblemInfo, WireShape
from agentvault_tui.strict_json import MOST_MEMBERS, TooLargeError
from agentvault_tui.trusted_files import user_name
from agentvault_tui.web.exchange import RESERVED, ClientGoneError
from agentvault_tui.web.forms import BodyError, parse_object
from agentvault_tui.web.guard import read_body
from agentvault_tui.web.reply import App, Message, Receive, Scope, Send
from agentvault_tui.web.server import peer

RequestT = TypeVar("RequestT", bound=WireShape)

log = logging.getLogger("agentvault.operators")

_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_MISSING: Final = re.compile("Object missing required field `(.*)`")
_OBJECTS: Final = frozenset({"application/json", "application/problem+json"})
_STALE: Final = b'"stale":true'
"""A member; in a text of JSON its quotes would be escaped."""
_PART: Final = 32_768
"""Characters of a list that are written in one turn of the event loop."""
_LONG: Final = 16
"""Items of a list that is written in parts."""
_TURN: Final = "turn"
"""Names the function, in a request's state, that waits for the next turn of the loop
in which a part of its operator's answers may be made."""
_STATUS: Final[tuple[tuple[type[AgentVaultError], int], ...]] = (
    (NotFoundError, 404),
    (UsageError, 400),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (PolicyError, 409),
    (RefusedError, 403),
    (LedgerUnwritableError, 503),
    (LedgerBusyError, 503),
    (OvertakenError, 409),
    (TenantError, 502),
    (SealedError, 503),
    (AgentVaultError, 500),
)


Handler = Callable[[Request], Awaitable[AnswerT | Response]]
Turn = Callable[[], Awaitable[None]]


def guarded(route: Route, authority: Authority, turns: AnswerTurns) -> Route:
    """Return *route* so that it admits an operator elsewhere by its place in `ACCESS`.

    Readings are admitted one in a turn of the event loop, as the parts of answers are.

    Raises:
        KeyError: it has none, and must not be served.
    """
    (method,) = (route.methods or {"GET"}) - {"HEAD"}
    access, serve = ACCESS[method, route.path], route.endpoint

    async def endpoint(request: Request) -> Response:
        # Set where a session was checked: of nobody at the socket.
        elsewhere: Actor | None = request.scope.get("state", {}).get("operator")
        if elsewhere is not None:
            await authority.admit(elsewhere, access, request.url.path)
        turn = partial(turns.next, operator_of(request).id)
        request.scope["state"][_TURN] = turn
        if method == "GET":
            await turn()
        served: Response = await serve(request)
        return served

    return Route(route.path, endpoint, methods=[method])


def turn_of(request: Request) -> Turn:
    """Return a function that waits for a turn to make the next part of an answer."""
    turn: Turn = request.scope["state"][_TURN]
    return turn


def route(call: ApiCall[AnswerT], handler: Handler[AnswerT]) -> Route:
    """Return the route of *call*, answered by the result of *handler*."""

    async def endpoint(request: Request) -> Response:
        response = await handler(request)
        return (
            response
            if isinstance(response, Response)
            else await answer_in_parts(request, response, call.status)
        )

    return Route(call.path, endpoint, methods=[call.method])


def answer(shape: WireShape, status: int = 200) -> Response:
    """Return *shape* as JSON."""
    return Response(encode(shape), status, media_type="application/json")


async def listing(
    request: Request,
    name: str,
    shapes: Iterable[WireShape],
    more: Mapping[str, object] | None = None,
) -> Response:
    """Return *shapes* as the list *name* of a JSON object, with *more* next to it."""
    listed = await _joined(map(encode, shapes), b"[]", turn_of(request))
    body = encode({name: listed, **(more or {})})
    return Response(body, media_type="application/json")


async def answer_in_parts(
    request: Request, shape: WireShape, status: int = 200
) -> Response:
    """Return *shape* as JSON, whose long lists and tables are encoded in parts."""
    turn, long = turn_of(request), dict[str, msgspec.Raw]()
    for name in shape.__struct_fields__:
        value = getattr(shape, name)
        if isinstance(value, dict) and len(value) > _LONG:
            pairs = (encode(key) + b":" + encode(one) for key, one in value.items())
            long[name] = await _joined(pairs, b"{}", turn)
        elif isinstance(value, list | tuple) and len(value) > _LONG:
            long[name] = await _joined(map(encode, value), b"[]", turn)
    return answer(msgspec.structs.replace(shape, **long), status)


async def _joined(texts: Iterable[bytes], ends: bytes, turn: Turn) -> msgspec.Raw:
    """Join encoded items to a JSON list or table, a turn of the loop for each part.

    A part is bounded by its length: a step-up takes up to 128 KiB.
    """
    joined, part = bytearray(ends[:1]), 0
    for number, text in enumerate(texts):
        joined += b"," * (number > 0) + text
        if len(joined) - part >= _PART:
            part = len(joined)
            await turn()
    return msgspec.Raw(joined + ends[1:])


def problem(
    status: int,
    detail: str,
    *,
    error: str | UnsetType = UNSET,
    needed_role: str | UnsetType = UNSET,
    factor: str | UnsetType = UNSET,
    remedy: str = "",
) -> Response:
    """Return a problem document (RFC 9457), whose title is that of the status."""
    document = ProblemInfo(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        error=error,
        needed_role=needed_role,
        factor=factor,
        remedy=remedy or UNSET,
    )
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Response(
        encode(document), status, headers, media_type="application/problem+json"
    )


async def error_problem(_: Request, error: Exception) -> Response:
    """Turn an error of ours into its problem document."""
    assert isinstance(error, AgentVaultError)  # noqa: S101 - how it is registered
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    return problem(
        status,
        error.what,
        error=error.code if isinstance(error, SealedError) else type(error).__name__,
        needed_role=error.role if isinstance(error, ForbiddenError) else UNSET,
        factor=error.factor if isinstance(error, FactorRefusedError) else UNSET,
        remedy=error.remedy,
    )


SHARE: Final = "share"
"""Names the function, in a request's state, that counts it in its operator's share."""


def refuse_grant(request: Request) -> Response | None:
    """Refuse a request that grants, where only the end of rights has a place.

    By its path alone such a request may end rights, so that it was let through on a
    reserved connection, and counted in no share. Call this once its body is parsed.

    Returns:
        the refusal; None if the request may go on, and is counted now.
    """
    if request.scope["state"].get(RESERVED):
        text = "too many connections: this one is for revoking and denying"
        return problem(503, text)
    count = request.scope["state"].get(SHARE)
    return count() if count is not None else None


class FaultHandler:
    """ASGI middleware: a fault of ours is logged once, and answered without details.

    *begins* is called with each request that may change something.
    """

    def __init__(self, app: App, begins: Callable[[], None]) -> None:
        self._app = app
        self._begins = begins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer for it if nothing did."""
        if scope["method"] != "GET":
            self._begins()
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except ClientGoneError:
            raise
        except Exception:
            if started:
                raise  # too late for another answer; the server logs it
            log.exception("a request of an operator failed")
            response = problem(500, "the broker failed: see its log")
            await response(scope, receive, noticed)


class StaleMarker:
    """ASGI middleware: marks answers that are read while the team's store is away.

    Each JSON object that a GET answers then has the member ``stale``.
    """

    def __init__(self, app: App, is_stale: Callable[[], bool]) -> None:
        self._app = app
        self._is_stale = is_stale

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and mark its answer."""
        if scope["method"] == "GET":
            send = self._marking(send)
        await self._app(scope, receive, send)

    def _marking(self, send: Send) -> Send:
        started: Message | None = None

        async def mark(message: Message) -> None:
            """Hold the first part back until the marked body has a length."""
            nonlocal started
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if kind.partition(";")[0] in _OBJECTS and self._is_stale():
                    started = message  # with the first part its length is known
                    return
            elif started is not None:
                first, body = started, message.get("body", b"")
                started = None
                if body.startswith(b"{") and _STALE not in body:
                    rest = body[1:].lstrip()
                    comma = b"" if rest.startswith(b"}") else b","
                    marked = b"{" + _STALE + comma + rest
                    message = {**message, "body": marked}
                    headers = MutableHeaders(raw=list(first["headers"]))
                    if (length := headers.get("content-length")) is not None:
                        longer = int(length) + len(marked) - len(body)
                        headers["content-length"] = str(longer)
                    first = {**first, "headers": headers.raw}
                await send(first)
            await send(message)

        return mark


async def http_refusal(_: Request, error: Exception) -> Response:
    """Turn the router's own refusals into problem documents."""
    assert isinstance(error, HTTPException)  # noqa: S101 - how it is registered
    detail = error.detail or HTTPStatus(error.status_code).phrase
    response = problem(error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


async def body_of(
    request: Request,
    kind: type[RequestT],
    *,
    deep: bool = False,
    members: int = MOST_MEMBERS,
) -> RequestT:
    """Read the body, a JSON object, as *kind*; a member that is null counts as absent.

    A *deep* one may nest, and texts in it be as long, as the body's cap allows. It may
    have so many *members*: commas and colons, those in texts too.

    Raises:
        UsageError: it is not JSON, not an object, or not of that kind.
    """
    raw = await read_body(request.receive)
    try:
        body = _object_of(raw, members) if deep else parse_object(raw or b"{}")
    except BodyError as error:
        raise UsageError(error.text, "send one JSON object") from error
    return _read(body, kind, "member")


def query_of(request: Request, kind: type[RequestT]) -> RequestT:
    """Read the query's parameters as *kind*; numbers and truth values are its words."""
    given = request.query_params
    if len(given) != len(given.multi_items()):
        raise UsageError("a parameter is given twice")
    query = _read(dict(given), kind, "parameter", strict=False)
    for field in msgspec.structs.fields(kind):
        value = getattr(query, field.name)
        # msgspec also takes 1e3 and 1.0 for numbers.
        if type(value) is int and not _DIGITS.fullmatch(given.get(field.name, "0")):
            raise UsageError(f"'{field.name}' is wrong: write a number in digits")
    return query


def _object_of(raw: bytes, members: int) -> dict[str, object]:
    try:
        decoded = strict_json.loads(raw, members=members)
    except TooLargeError:
        raise BodyError(400, f"it has more than {members:,} members") from None
    except ValueError:
        raise BodyError(400, "the JSON is malformed") from None
    if not isinstance(decoded, dict):
        raise BodyError(400, "the JSON body must be an object")
    return decoded


def _read(
    given: dict[str, object], kind: type[RequestT], noun: str, *, strict: bool = True
) -> RequestT:
    if kind.__struct_config__.forbid_unknown_fields:
        names = kind.__struct_encode_fields__
        if unknown := sorted(set(given) - set(names)):
            raise UsageError(
                f"unknown {noun} {unknown[0]!r:.60}", f"known: {', '.join(names)}"
            )
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise UsageError(_fault_text(error)) from error


def _fault_text(error: msgspec.ValidationError) -> str:
    if missing := _MISSING.fullmatch(str(error)):
        return f"'{missing[1]}' is missing"
    what, _, where = str(error).replace("`", "").partition(" - at $.")
    return f"'{where}' is wrong: {what[:1].lower()}{what[1:]}" if where else what


def integer_of(text: str, otherwise: str) -> int:
    """Read a number that SQLite can hold; UsageError, with *otherwise*: it is none."""
    if not _DIGITS.fullmatch(text):
        raise UsageError(otherwise)
    return int(text)


def moment_of(value: str | None, name: str) -> datetime | None:
    """Read the member or parameter *name* as a moment (RFC 3339)."""
    if value is None:
        return None
    try:
        return parse_iso(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"'{name}' is not a time", "write it like 2026-11-24T10:00:00Z"
        ) from error


WordT = TypeVar("WordT", bound=StrEnum)


def word_of(kind: type[WordT], value: str | None, name: str) -> WordT | None:
    """Read the query parameter *name* as one of the words of *kind*."""
    try:
        return None if value is None else kind(value)
    except ValueError as error:
        words = ", ".join(member.value for member in kind)
        raise UsageError(f"unknown {name}", f"one of {words}") from error


def local_operator_of(request: Request) -> Actor:
    """Return the operator at the socket.

    Raises:
        ConflictError: it is one elsewhere.
    """
    operator = operator_of(request)
    if is_remote(operator.id):
        raise ConflictError(
            "that is done on the broker's machine alone",
            "run the command there, as the user who runs the broker",
        )
    return operator


def operator_of(request: Request) -> Actor:
    """Return who asks: at the socket the peer's uid is the check.

    Elsewhere `operators_api.remote` has checked session and key, and says who it is.
    """
    operator: Actor | None = request.scope["state"].get("operator")
    if operator is not None:
        return operator
    uid = peer(request.scope).uid
    return Actor(ActorKind.OPERATOR, f"uid:{uid}", user_name(uid))
