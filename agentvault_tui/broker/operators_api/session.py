"""``/api/auth``: an operator says who they are, by device flow."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Standing
from agentvault_tui.broker.operators_api.wire import answer, operator_of
from agentvault_tui.broker.sessions import Session, Sessions
from agentvault_tui.broker.shapes import device_shape
from agentvault_tui.clock import iso


def routes(sessions: Sessions, authority: Authority) -> list[Route]:
    """Return the routes about the operator's own session."""

    def about(uid: str) -> dict[str, Any]:
        return {
            "uid": uid,
            **_me(authority.standing(uid)),
            "pending": sessions.pending(uid),
            "problem": sessions.problem(uid),
        }

    async def login(request: Request) -> Response:
        operator = operator_of(request)
        device = device_shape(await sessions.login(operator))
        return answer({"device": device, **about(operator.id)}, 202)

    async def logout(request: Request) -> Response:
        operator = operator_of(request)
        await sessions.logout(operator)
        return answer(about(operator.id))

    async def me(request: Request) -> Response:
        operator = operator_of(request)
        return answer({"local": operator.name, **about(operator.id)})

    return [
        Route("/api/auth/login", login, methods=["POST"]),
        Route("/api/auth/logout", logout, methods=["POST"]),
        Route("/api/auth/me", me, methods=["GET"]),
    ]


def standing_shape(standing: Standing) -> dict[str, Any]:
    """Return the role, and what is refused with the reason, as a console reads it."""
    return {
        "role": standing.role,
        "refused": {need.value: why for need, why in standing.refused.items()},
    }


def _me(standing: Standing) -> dict[str, Any]:
    session = standing.session
    return {"user": _user(session) if session else None, **standing_shape(standing)}


def _user(session: Session) -> dict[str, Any]:
    return {
        "sub": session.identity.sub,
        "name": session.identity.name,
        "email": session.identity.email,
        "roles": list(session.identity.roles),
        "amr": list(session.identity.amr),
        "since": iso(session.since),
        "expires_at": iso(session.ends.wall),
        "idle_at": iso(session.idle.wall),
    }
