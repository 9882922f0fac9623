"""``/api/auth`` and ``/api/tenant``: who an operator is, and who may be one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import (
    Authority,
    Need,
    Session,
    Sessions,
    is_remote,
)
from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.operators_api.changes import Loosening
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    local_operator_of,
    operator_of,
    route,
)
from agentvault_tui.broker.riders import Rider, record_by_uid, ride
from agentvault_tui.broker.shapes import device_info
from agentvault_tui.broker.usecases.approvals import CUTTING, end_gathered, pages_at
from agentvault_tui.broker.usecases.change_basis import OUTDATED
from agentvault_tui.broker.usecases.changes import Wanted
from agentvault_tui.broker.usecases.stepup import DeskSession
from agentvault_tui.broker.usecases.stepup_end import cancel
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, TenantError, UsageError
from agentvault_tui.model import Actor, AgentId
from agentvault_tui.model.claims import SIGN_IN_FRESH_S
from agentvault_tui.model.event import (
    PERSON_CHANGES,
    gives_rights,
    keys_changed,
    user_changed,
)
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.operator_api import calls, shapes
from agentvault_tui.operator_api import requests as asks
from agentvault_tui.operator_api.sessions import DeskInfo, MeInfo, UserSessionInfo
from agentvault_tui.operator_api.stepups import DeviceInfo
from agentvault_tui.text import visible
from agentvault_tui.vault.management.objects import roles


def routes(sessions: Sessions, authority: Authority) -> list[Route]:
    """Return the routes about the operator's own session."""
    broker = authority.broker

    def about(
        uid: str,
        local: str | UnsetType = UNSET,
        device: DeviceInfo | UnsetType = UNSET,
    ) -> MeInfo:
        """Return the operator's person and role, and the missing rights."""
        standing = authority.standing(uid)
        return MeInfo(
            local=local,
            device=device,
            uid=uid,
            user=_user(standing.session) if standing.session else None,
            role=standing.role,
            refused={k: v for k, v in standing.refused.items() if k != Need.OWN},
            pending=sessions.pending(uid),
            problem=sessions.problem(uid),
            desk=_desk(broker, sessions.desk(uid)),
            page=pages_at(broker, here=not is_remote(uid)) or None,
        )

    async def login(request: Request) -> MeInfo:
        """Begin to sign in, or return the sign-in under way."""
        operator = local_operator_of(request)
        device = device_info(await sessions.login(operator))
        return about(operator.id, device=device)

    async def logout(request: Request) -> MeInfo:
        """End the session."""
        operator = operator_of(request)
        await sessions.logout(operator)
        return about(operator.id)

    async def me(request: Request) -> MeInfo:
        """Return the signed-in person, and the missing rights."""
        operator = operator_of(request)
        return about(operator.id, local=operator.name)

    return [
        route(calls.LOGIN, login),
        route(calls.LOGOUT, logout),
        route(calls.ME, me),
    ]


def _desk(broker: Broker, signed_in: DeskSession | None) -> DeskInfo | None:
    if signed_in is None:
        return None
    return DeskInfo(
        name=signed_in.name,
        since=iso(signed_in.since),
        fresh_until=iso(signed_in.since + timedelta(seconds=SIGN_IN_FRESH_S)),
        passkey_only=broker.settings.stepup.passkey_only,
    )


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


def people_routes(
    broker: Broker, authority: Authority, sessions: Sessions
) -> list[Route]:
    """Return the route that changes people."""
    reaching = broker.reaching

    async def change(request: Request) -> shapes.ChangedPersonInfo | Response:
        """Record a change, and make it in the tenant's store; or hold it.

        Raises:
            ConflictError: the tenant keeps its people itself.
            UsageError: there is no such change.
        """
        operator = local_operator_of(request)
        body = await body_of(request, asks.PeopleRequest)
        _check_embedded(broker, "people")
        if body.change not in PERSON_CHANGES:
            raise UsageError(f"'change' must be one of {', '.join(PERSON_CHANGES)}")
        about = f"{body.change} {body.user}"
        if await _is_bound(broker):
            actor = await authority.actor(operator, Need.PEOPLE, about)
        else:
            actor = authority.named(operator)
        # Read first: the removal of the last approver does not end the need for one.
        by_factor = await authority.by_factor(operator)
        await _make(broker, body, check=True)
        if not await _gives(broker, body):
            return await record(body, actor, None)
        summary = f"change a person of the tenant: {visible(about, 120)}"
        if by_factor:
            details = {"change": body.change, "roles": list(body.roles)}
            wanted = Wanted(
                *(("people",), summary, visible(body.user, 60), ()), details=details
            )
            return await changing.hold(request, body, wanted, actor)
        loosened = record_by_uid(actor, ("people",), summary)
        with ride(Rider(actor, loosened)):
            return await record(body, actor, None)

    async def record(
        body: asks.PeopleRequest, actor: Actor, _: object
    ) -> shapes.ChangedPersonInfo:
        """Void the person's approvals and sessions, and record and make the change."""
        await _make(broker, body, check=True)
        # In force before its record: an approval that is recorded after it is refused.
        reaching.people.note(body.sub, body.change, broker.clock.now())
        if body.change in CUTTING:
            await end_gathered(broker, body.sub)
        draft = user_changed(actor, body.change, body.user, body.sub, body.roles)
        await decide_anew(lambda: broker.record(draft))
        sessions.end_of(body.sub)
        await sessions.end_due()
        await _end_outdated(broker, changing.name, body.user)
        made = await _make(broker, body)
        by = shapes.AgentRef(id=actor.id, name=actor.name)
        return shapes.ChangedPersonInfo(by=by, made=made)

    changing = Loosening(authority, calls.PEOPLE, asks.PeopleRequest, record)
    return [route(calls.PEOPLE, change)]


async def _make(
    broker: Broker, body: asks.PeopleRequest, *, check: bool = False
) -> shapes.Json:
    work = broker.extensions.change_person
    return await asyncio.to_thread(work, body, check=check) if work else {}


async def _end_outdated(broker: Broker, call: str, user: str) -> None:
    """Cancel the other changes of a person that wait."""
    for one in broker.stepups.open(AgentId("")):
        if one.change is not None and one.id not in broker.stepups.deciding:
            about = one.change.call, one.parameters.get("user")
            if about == (call, user):
                await cancel(broker, one.id, OUTDATED, SYSTEM)


def keys_route(authority: Authority) -> Route:
    """Return the route that records a change of the tenant's signing keys."""
    broker = authority.broker

    async def change_keys(request: Request) -> shapes.ByInfo:
        """Record that the caller then replaces the tenant's signing keys.

        It gives no right to anybody, so no factor is asked for.

        Raises:
            ConflictError: the tenant keeps its keys itself.
        """
        body = await body_of(request, asks.TenantKeysRequest)
        _check_embedded(broker, "signing keys")
        operator, about = local_operator_of(request), "the tenant's signing keys"
        actor = await authority.actor(operator, Need.REVOKE, about)
        await broker.record_cut(keys_changed(actor, revoked=body.revoke))
        return shapes.ByInfo(by=shapes.AgentRef(id=actor.id, name=actor.name))

    return route(calls.TENANT_KEYS, change_keys)


def _check_embedded(broker: Broker, subject: str) -> None:
    """Check that the tenant is the embedded one.

    Raises:
        ConflictError: it is another one, which has the *subject* itself.
    """
    if broker.reaching.kind != "embedded":
        kept_by = f"{subject} are kept by the tenant {broker.reaching.tenant.issuer}"
        raise ConflictError(kept_by, "manage them there")


async def _gives(broker: Broker, body: asks.PeopleRequest) -> bool:
    """Check whether a change of people may give rights: taking them needs no factor."""
    held, api = None, broker.reaching.access.management
    if body.change == "role" and body.sub and api is not None:
        with suppress(TenantError):  # Unknown makes an answer stricter.
            listed = [r for r in Role if await roles.held(api, r.value, body.sub)]
            held = role_of(listed)
    by_list = broker.settings.approves_by_list
    return gives_rights(body.change, body.roles, held, by_list=by_list)


async def _is_bound(broker: Broker) -> bool:
    """Check whether changes of people need a role: not before anybody has it."""
    api = broker.reaching.access.management
    if not broker.settings.operators.by_claim or api is None:
        return True
    try:
        return await roles.held(api, Role.APPROVER.value)
    except TenantError:
        return True  # Unknown makes an answer stricter.
