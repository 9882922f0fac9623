"""What the audit says of a connected account."""

from __future__ import annotations

from agentvault_tui.model import Account, Actor, Draft, EventType


def account_draft(
    kind: EventType, account: Account, actor: Actor, **detail: str
) -> Draft:
    """Return the event about a connected account."""
    return Draft(
        kind,
        actor,
        agent_id=account.agent_id,
        action=None,
        resource=f"connection:{account.connection}",
        detail={
            "connection": account.connection,
            "account": account.id,
            "user": account.user,
            "provider_scopes": list(account.scopes),
            "provider_user": account.provider_user or None,
            **detail,
        },
    )
