"""Give a registered agent a new client secret, in place of the one it had."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.register import Registered, ending_detail
from agentvault_tui.broker.usecases.revoke import FAILED, agent_draft
from agentvault_tui.broker.usecases.scopes import record_change
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import (
    Actor,
    Agent,
    Credential,
    Draft,
    EventType,
    new_secret,
    sha256_hex,
)
from agentvault_tui.text import visible


async def renew_secret(broker: Broker, agent_id: str, operator: Actor) -> Registered:
    """Make a client secret for an agent that has one, or no credential at all.

    The one before authenticates until the new one is on disk. Tokens live on: what
    ends those is a revocation.

    Args:
        broker: the broker.
        agent_id: whose.
        operator: who decided.

    Returns:
        the agent, and its secret, which is stored as a hash alone.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it authenticates in another way, or was cut off meanwhile.
        LedgerUnwritableError: it could not be recorded, and nothing changed.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if agent.template or agent.credential.kind not in {"secret", "none"}:
            raise ConflictError(
                f"{visible(agent.name, 60)} authenticates without a secret",
                "register another agent for a client that has one",
            )
        secret = new_secret("av_s")
        credential = Credential(secret_sha256=sha256_hex(secret))
        after = replace(agent, credential=credential)
        draft = changed_draft(operator, after, ["credential"])
        stays = partial(changed_draft, operator, changed=[], reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        current = replace(broker.registry.agent(agent.id), credential=credential)
        broker.registry.put_agent(current)
        return Registered(current, secret)


def changed_draft(
    operator: Actor, agent: Agent, changed: list[str], reason: str | None = None
) -> Draft:
    """Return the event that fields of *agent* changed, as it is then."""
    draft = agent_draft(EventType.AGENT_CHANGED, operator, agent, reason)
    draft.detail.update(
        purpose=agent.purpose,
        resource_server=agent.resource_server,
        credential=agent.credential.kind,
        changed=changed,
        **ending_detail(agent),
    )
    return draft
