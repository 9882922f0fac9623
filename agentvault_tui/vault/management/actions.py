"""Actions: made, built, deployed, and bound in order (``/actions``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError, TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.api import Api
from agentvault_tui.vault.issuer import path
from agentvault_tui.vault.management.rows import delete as delete_at
from agentvault_tui.vault.management.rows import text
from agentvault_tui.vault.management.settling import settled
from agentvault_tui.vault.reply import Json

POST_LOGIN: Final = "post-login"
_BUILD: Final = 120.0
"""Seconds. Auth0's builds were seen to take 45, and its deploy CLI waits as long."""


async def every(api: Api) -> AsyncIterator[Json]:
    """Yield all Actions. Scope ``read:actions``."""
    rows = api.by_page(
        "actions/actions",
        "actions",
        totals=False,
        what="list its Actions",
        scope="read:actions",
    )
    async for row in rows:
        yield row


async def get(api: Api, action_id: str) -> Json:
    """Return an Action. Scope ``read:actions``."""
    reply = await api.request(
        "GET",
        path("actions", "actions", action_id),
        what="show the Action",
        scope="read:actions",
    )
    return reply.json()


async def create(api: Api, action: Mapping[str, Any]) -> Json:
    """Make an Action (201), to be built next. Scope ``create:actions``."""
    reply = await api.request(
        "POST",
        "actions/actions",
        body=dict(action),
        expect=(200, 201),
        what="make an Action",
        scope="create:actions",
    )
    made = reply.json()
    text(made, "id")
    return made


async def patch(api: Api, action_id: str, changes: Mapping[str, Any]) -> Json:
    """Change an Action (200), to be built again. Scope ``update:actions``."""
    reply = await api.request(
        "PATCH",
        path("actions", "actions", action_id),
        body=dict(changes),
        what="change the Action",
        scope="update:actions",
    )
    return reply.json()


async def until_built(api: Api, action_id: str, seconds: float = _BUILD) -> Json:
    """Wait until an Action is built, and return it. Scope ``read:actions``.

    Raises:
        TenantRefusedError: ``build_failed``, with what the build said.
        TenantUnreachableError: it still is not after *seconds*.
    """
    action: Json = {}

    async def is_built() -> bool:
        nonlocal action
        action = await get(api, action_id)
        if action.get("status") == "failed":
            said = action.get("errors") or "it gives no reason"
            raise TenantRefusedError(
                "build_failed", f"the Action does not build: {visible(said, 300)}"
            )
        return action.get("status") == "built"

    if not await settled(api.tenant, is_built, seconds):
        raise TenantUnreachableError(
            f"the Action is not built after {seconds:g} s", "try again in a minute"
        )
    return action


async def deploy(api: Api, action_id: str) -> Json:
    """Put a built Action in force (200 or 202). Scope ``create:actions``."""
    reply = await api.request(
        "POST",
        path("actions", "actions", action_id, "deploy"),
        expect=(200, 202),
        what="deploy the Action",
        scope="create:actions",
        repeatable=True,
    )
    return reply.json()


async def delete(api: Api, action_id: str, *, force: bool = False) -> bool:
    """Delete an Action (204); with *force* a bound one too. ``delete:actions``."""
    return await delete_at(
        api,
        path("actions", "actions", action_id),
        query={"force": force or None},
        what="delete the Action",
        scope="delete:actions",
    )


async def bindings(api: Api, trigger: str = POST_LOGIN) -> list[Json]:
    """Return what runs at a trigger, in order. Scope ``read:actions``."""
    rows = api.by_page(
        path("actions", "triggers", trigger, "bindings"),
        "bindings",
        per_page=50,
        totals=False,
        what="list the trigger's bindings",
        scope="read:actions",
    )
    return [row async for row in rows]


async def bind(
    api: Api, bound: Sequence[tuple[str, str]], trigger: str = POST_LOGIN
) -> list[Json]:
    """Replace the *whole* ordered list of a trigger (200). Scope ``update:actions``.

    Args:
        api: the client.
        bound: each Action's id and display name, also those that others bound.
        trigger: whose list it is.
    """
    reply = await api.request(
        "PATCH",
        path("actions", "triggers", trigger, "bindings"),
        body={
            "bindings": [
                {"ref": {"type": "action_id", "value": action}, "display_name": name}
                for action, name in bound
            ]
        },
        what="bind the Actions",
        scope="update:actions",
    )
    return reply.rows("bindings")
