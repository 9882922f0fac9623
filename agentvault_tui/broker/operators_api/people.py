"""``/api/tenant/people``: who may change the embedded tenant's people, on record."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need, Sessions
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.errors import ConflictError, TenantError, UsageError
from agentvault_tui.model.people import CHANGES, user_changed
from agentvault_tui.model.role import Role
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import PeopleRequest
from agentvault_tui.operator_api.shapes import AgentRef, ByInfo
from agentvault_tui.vault.management.objects import roles


def routes(broker: Broker, authority: Authority, sessions: Sessions) -> list[Route]:
    """Return the route that a change of people goes through before it is made."""

    async def change(request: Request) -> ByInfo:
        """Record a change that the caller then makes in the tenant's store."""
        body = await body_of(request, PeopleRequest)
        if broker.tenant_kind != "embedded":
            raise ConflictError(
                f"people are kept by the tenant {broker.tenant.issuer}",
                "manage them there",
            )
        if body.change not in CHANGES:
            raise UsageError(f"'change' must be one of {', '.join(CHANGES)}")
        operator = operator_of(request)
        if await _is_bound(broker):
            about = f"{body.change} {body.user}"
            actor = await authority.actor(operator, Need.PEOPLE, about)
        else:
            actor = authority.named(operator)
        await broker.record(
            user_changed(actor, body.change, body.user, body.sub, body.roles)
        )
        await sessions.end_of(body.sub)
        return ByInfo(by=AgentRef(id=actor.id, name=actor.name))

    return [route(calls.PEOPLE, change)]


async def _is_bound(broker: Broker) -> bool:
    """Tell whether changes of people need a role: not before anybody has it."""
    api = broker.access.management
    if not broker.settings.operators.by_claim or api is None:
        return True
    try:
        return await roles.held(api, Role.APPROVER.value)
    except TenantError:
        return True  # Unknown makes an answer stricter.
