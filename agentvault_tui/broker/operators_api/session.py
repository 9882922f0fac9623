"""``/api/auth``: an operator says who they are, by device flow."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.operators_api.wire import answer, operator_of
from agentvault_tui.broker.sessions import Session, Sessions
from agentvault_tui.clock import iso


def routes(sessions: Sessions) -> list[Route]:
    """Return the routes about the operator's own session."""

    async def login(request: Request) -> Response:
        operator = operator_of(request)
        device = await sessions.login(operator)
        return answer({"device": device, **_me(operator.id, sessions)}, 202)

    async def logout(request: Request) -> Response:
        operator = operator_of(request)
        await sessions.logout(operator)
        return answer(_me(operator.id, sessions))

    async def me(request: Request) -> Response:
        operator = operator_of(request)
        return answer({"local": operator.name, **_me(operator.id, sessions)})

    return [
        Route("/api/auth/login", login, methods=["POST"]),
        Route("/api/auth/logout", logout, methods=["POST"]),
        Route("/api/auth/me", me, methods=["GET"]),
    ]


def _me(uid: str, sessions: Sessions) -> dict[str, Any]:
    session = sessions.of(uid)
    return {
        "uid": uid,
        "user": _user(session) if session else None,
        "pending": sessions.pending(uid),
        "problem": sessions.problem(uid),
    }


def _user(session: Session) -> dict[str, Any]:
    return {
        "sub": session.identity.sub,
        "name": session.identity.name,
        "email": session.identity.email,
        "roles": list(session.identity.roles),
        "amr": list(session.identity.amr),
        "since": iso(session.since),
        "expires_at": iso(session.ends.wall),
    }
