"""``/api/tenant/people``: who may change the embedded tenant's people, on record."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    answer,
    body_of,
    operator_of,
    strings_of,
    text_of,
)
from agentvault_tui.broker.sessions import Sessions
from agentvault_tui.errors import ConflictError, TenantError, UsageError
from agentvault_tui.model.people import CHANGES, user_changed
from agentvault_tui.model.role import Role
from agentvault_tui.vault.management.objects import roles

_MEMBERS: Final = ("change", "user", "sub", "roles")


def routes(broker: Broker, authority: Authority, sessions: Sessions) -> list[Route]:
    """Return the route that a change of people goes through before it is made."""

    async def change(request: Request) -> Response:
        """Record a change that the caller then makes in the tenant's store."""
        body = await body_of(request, _MEMBERS)
        if broker.tenant_kind != "embedded":
            raise ConflictError(
                f"people are kept by the tenant {broker.tenant.issuer}",
                "manage them there",
            )
        if body.get("change") not in CHANGES:
            raise UsageError(f"'change' must be one of {', '.join(CHANGES)}")
        user, sub = text_of(body, "user", cap=64), text_of(body, "sub", required=False)
        operator = operator_of(request)
        if await _is_bound(broker):
            about = f"{body['change']} {user}"
            actor = await authority.actor(operator, Need.PEOPLE, about)
        else:
            actor = authority.named(operator)
        await broker.record(
            user_changed(actor, body["change"], user, sub, strings_of(body, "roles"))
        )
        await sessions.end_of(sub)
        return answer({"by": {"id": actor.id, "name": actor.name}})

    return [Route("/api/tenant/people", change, methods=["POST"])]


async def _is_bound(broker: Broker) -> bool:
    """Tell whether changes of people need a role: not before anybody has it."""
    api = broker.access.management
    if not broker.settings.operators.by_claim or api is None:
        return True
    try:
        return await roles.held(api, Role.APPROVER.value)
    except TenantError:
        return True  # Unknown makes an answer stricter.
