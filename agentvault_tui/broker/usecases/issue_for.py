"""Issue a token of an agent to the local user, for helpers of the agent's host."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.audience import mcp_server_of
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.surroundings import LOCAL
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.broker.usecases.request import Request, deny, issue, refused
from agentvault_tui.errors import RefusedError
from agentvault_tui.model import Action, Actor, Agent, DecisionId, Outcome, new_id
from agentvault_tui.policy.resources import canonical_resource


async def issue_for(
    broker: Broker,
    agent: Agent,
    scopes: Sequence[str],
    resource: str | None,
    operator: Actor,
) -> Granted:
    """Issue a token of *agent* to the local user, where policy allows it at once.

    Args:
        broker: the broker.
        agent: whose token it is.
        scopes: what for; none for all that policy allows and that may be used again.
        resource: RFC 8707 resource indicator; the action is on it.
        operator: who asks; the event's actor.

    Returns:
        the token.

    Raises:
        RefusedError: policy allows nothing of it without a person, or at all.
        LedgerError: the decision could not be recorded.
    """
    catalogue = broker.policy.catalogue
    resource = canonical_resource(resource)
    acted_on = None if mcp_server_of(resource, broker.issuer) else resource

    def at_once(scope: str) -> bool:
        if scope not in catalogue:
            return False
        action = Action((scope,), scope, acted_on)
        allowed = foresee(broker, agent, action, LOCAL).outcome is Outcome.ALLOWED
        return allowed and not catalogue.is_single_use((scope,))

    names = tuple(dict.fromkeys(scopes)) or tuple(filter(at_once, agent.scopes))
    action = Action(names, names[0] if names else "", acted_on, named=len(names) == 1)
    decision_id = DecisionId(new_id("dec"))
    request = Request(
        agent, action, resource, None, decision_id, asked_by=operator, source=LOCAL
    )
    answer: Granted | Denied
    if refusal := refused(broker, agent):
        answer = await deny(broker, request, *refusal)
    elif not names:
        text = "Policy allows this agent nothing at once: a person decides each action."
        answer = await deny(broker, request, "nothing_at_once", text)
    else:
        verdict = request.foresee(broker)
        if verdict.outcome is Outcome.ALLOWED:
            answer = await issue(broker, request, verdict)
        else:
            answer = await deny(
                broker, request, verdict.reason, verdict.message, verdict
            )
    if isinstance(answer, Denied):
        raise RefusedError(f"{answer.message} ({answer.reason})")
    return answer
