"""Bodies in, answers and problem documents out (RFC 9457)."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    ForbiddenError,
    LedgerBusyError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    TenantError,
    UsageError,
)
from agentvault_tui.local_user import user_name
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.web.forms import BodyError, parse_object
from agentvault_tui.web.guard import ClientGoneError
from agentvault_tui.web.reply import App, Message, Receive, Scope, Send
from agentvault_tui.web.server import peer

log = logging.getLogger("agentvault.operators")

_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_PART: Final = 32_768
"""Characters of a list that are written in one turn of the event loop."""
_STATUS: Final[tuple[tuple[type[AgentVaultError], int], ...]] = (
    (NotFoundError, 404),
    (UsageError, 400),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (RefusedError, 403),
    (LedgerUnwritableError, 503),
    (LedgerBusyError, 503),
    (TenantError, 502),
    (AgentVaultError, 500),
)


def answer(body: Any, status: int = 200) -> Response:
    """Return *body* as JSON; only ASCII leaves, so no log or pipe can be hurt."""
    return Response(json.dumps(body), status, media_type="application/json")


async def listing(name: str, shapes: Iterable[dict[str, Any]], **more: Any) -> Response:
    """Return *shapes* as the list *name* of a JSON object, with *more* beside it."""
    text = [part async for part in parts(name, shapes, more)]
    return Response("".join(text), media_type="application/json")


async def parts(
    name: str, shapes: Iterable[dict[str, Any]], more: dict[str, Any]
) -> AsyncIterator[str]:
    """Yield the text of such an object, a turn of the event loop for each part.

    Shapes are made as they are written, and a part is bounded by its length: agents
    choose how long theirs are, up to 128 KiB a step-up.
    """
    text = f'{{"{name}": ['
    for number, shape in enumerate(shapes):
        text += (", " if number else "") + json.dumps(shape)
        if len(text) >= _PART:
            yield text
            text = ""
            await asyncio.sleep(0)
    beside = f", {json.dumps(more)[1:-1]}" if more else ""
    yield f"{text}]{beside}}}"


def problem(status: int, detail: str, **more: str) -> Response:
    """Return a problem document; with no type of its own the title is the status's.

    RFC 9457 section 4.2.1. *more* are extension members: ``remedy`` says what helps.
    """
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status}
    document |= {"detail": detail, **more}
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Response(
        json.dumps(document), status, headers, media_type="application/problem+json"
    )


async def foreseen(_: Request, error: Exception) -> Response:
    """Turn an error of ours into its problem document."""
    assert isinstance(error, AgentVaultError)  # noqa: S101 - how it is registered
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    more = {"error": type(error).__name__}
    if isinstance(error, ForbiddenError):
        more["needed_role"] = error.role
    if error.remedy:
        more["remedy"] = error.remedy
    return problem(status, error.what, **more)


class Unforeseen:
    """ASGI middleware: a fault of ours is logged once, and told without details."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer for it if nothing did."""
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
            told = problem(500, "this is our fault: see the log")
            await told(scope, receive, noticed)


async def http_refusal(_: Request, error: Exception) -> Response:
    """Turn the router's own refusals into problem documents."""
    assert isinstance(error, HTTPException)  # noqa: S101 - how it is registered
    detail = error.detail or HTTPStatus(error.status_code).phrase
    response = problem(error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


async def body_of(request: Request, known: Iterable[str]) -> dict[str, Any]:
    """Read a JSON object whose members are all *known*.

    Raises:
        UsageError: it is not JSON, not an object, or has an unknown member.
    """
    raw = await request.body()
    try:
        body = parse_object(raw or b"{}")
    except BodyError as error:
        raise UsageError(error.text, "send one JSON object") from error
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise UsageError(
            f"unknown member {unknown[0]!r:.60}", f"known: {', '.join(known)}"
        )
    return body


def text_of(
    body: dict[str, Any], name: str, *, required: bool = True, cap: int = 4000
) -> str:
    """Return the string member *name*.

    Raises:
        UsageError: it is missing, no string, or too long.
    """
    value = body.get(name, "")
    if not isinstance(value, str) or len(value) > cap or (required and not value):
        raise UsageError(f"'{name}' must be a string of 1 to {cap} characters")
    return value


def strings_of(body: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the list-of-strings member *name*, empty when absent.

    Raises:
        UsageError: it is something else.
    """
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise UsageError(f"'{name}' must be a list of strings")
    return tuple(value)


def integer_of(request: Request, name: str) -> int | None:
    """Return the query parameter *name* as a number.

    Raises:
        UsageError: it is not one.
    """
    value = request.query_params.get(name)
    return None if value is None else whole(value, f"'{name}' must be a whole number")


def whole(text: str, otherwise: str) -> int:
    """Read a number that SQLite can hold, in plain digits.

    Raises:
        UsageError: it is not one; says *otherwise*.
    """
    if not _DIGITS.fullmatch(text):
        raise UsageError(otherwise)
    return int(text)


def limit_of(request: Request, usual: int, most: int) -> int:
    """Return how many are asked for, as many as is *usual* when nothing is said.

    Raises:
        UsageError: it is not a number from 1 to *most*.
    """
    limit = integer_of(request, "limit")
    if limit is None:
        return usual
    if not 1 <= limit <= most:
        raise UsageError(f"'limit' may be 1 to {most}")
    return limit


def moment_of(request: Request, name: str) -> datetime | None:
    """Return the query parameter *name* as a moment.

    Raises:
        UsageError: it is not RFC 3339.
    """
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        return parse_iso(value)
    except ValueError as error:
        raise UsageError(
            f"'{name}' is not a time", "write it like 2026-11-24T10:00:00Z"
        ) from error


def operator_of(request: Request) -> Actor:
    """Return who is on the other end of the socket: the peer's uid is the check."""
    uid = peer(request.scope).uid
    return Actor(ActorKind.OPERATOR, f"uid:{uid}", user_name(uid))
