"""The event of a change to the embedded tenant's people, whoever records it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentvault_tui.model.event import Actor, Draft, EventType

CHANGES: Final = ("added", "role", "password", "factor", "passkey", "removed")


def user_changed(
    actor: Actor, change: str, user: str, sub: str, roles: Iterable[str]
) -> Draft:
    """Return the event that *change* was made to *user*.

    Args:
        actor: who makes it.
        change: one of `CHANGES`.
        user: the name the person signs in with; checked by nobody.
        sub: their subject; empty for one who is added.
        roles: all they have from now on, where the change is ``added`` or ``role``.
    """
    detail: dict[str, object] = {"change": change, "user": user, "sub": sub}
    if change in {"added", "role"}:
        detail["roles"] = list(roles)
    return Draft(
        EventType.TENANT_USER_CHANGED,
        actor,
        action=change,
        resource=f"user:{user}",
        detail=detail,
    )
