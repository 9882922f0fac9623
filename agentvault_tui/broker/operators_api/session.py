"""``/api/auth``: an operator says who they are, by device flow."""

from __future__ import annotations

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Session, Sessions, Standing
from agentvault_tui.broker.operators_api.presence import StandingInfo
from agentvault_tui.broker.operators_api.wire import operator_of, route
from agentvault_tui.broker.shapes import device_info
from agentvault_tui.clock import iso
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.shapes import DeviceInfo, MeInfo, UserSessionInfo


def routes(sessions: Sessions, authority: Authority) -> list[Route]:
    """Return the routes about the operator's own session."""

    def about(
        uid: str,
        local: str | UnsetType = UNSET,
        device: DeviceInfo | UnsetType = UNSET,
    ) -> MeInfo:
        standing = authority.standing(uid)
        role, refused = standing_info(standing)
        return MeInfo(
            local=local,
            device=device,
            uid=uid,
            user=_user(standing.session) if standing.session else None,
            role=role,
            refused=refused,
            pending=sessions.pending(uid),
            problem=sessions.problem(uid),
        )

    async def login(request: Request) -> MeInfo:
        operator = operator_of(request)
        device = device_info(await sessions.login(operator))
        return about(operator.id, device=device)

    async def logout(request: Request) -> MeInfo:
        operator = operator_of(request)
        await sessions.logout(operator)
        return about(operator.id)

    async def me(request: Request) -> MeInfo:
        operator = operator_of(request)
        return about(operator.id, local=operator.name)

    return [
        route(calls.LOGIN, login),
        route(calls.LOGOUT, logout),
        route(calls.ME, me),
    ]


def standing_info(standing: Standing) -> StandingInfo:
    """Return the role, and what is refused with the reason."""
    return standing.role, {need.value: why for need, why in standing.refused.items()}


def _user(session: Session) -> UserSessionInfo:
    return UserSessionInfo(
        sub=session.identity.sub,
        name=session.identity.name,
        email=session.identity.email,
        roles=tuple(session.identity.roles),
        amr=tuple(session.identity.amr),
        since=iso(session.since),
        expires_at=iso(session.ends.wall),
        idle_at=iso(session.idle.wall),
    )
