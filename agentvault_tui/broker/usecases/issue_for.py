"""Issue a token to an agent's host, or one that says who asks at the gateway alone."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.audience import audiences_of
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.surroundings import LOCAL
from agentvault_tui.broker.usecases.decide import (
    Request,
    check_rate,
    decide,
    foresee,
)
from agentvault_tui.broker.usecases.policy_change import not_denied
from agentvault_tui.broker.usecases.request import deny, issue, refused
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
        agent: the agent.
        scopes: the scopes; none for all reusable ones that policy allows, or if a
            person decides each, for a token without a scope.
        resource: RFC 8707 resource indicator; the action is on it.
        operator: who asks; the event's actor.

    Returns:
        the token.

    Raises:
        RefusedError: policy allows nothing of it without a person, or at all.
        LedgerError: the decision could not be recorded.
    """
    catalogue = broker.deciding.policy.catalogue
    resource = canonical_resource(resource)
    acted_on = None if audiences_of(resource, broker.admitting.url) else resource

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
        answer = await issue_unscoped(broker, agent, resource, LOCAL, operator)
    else:
        verdict = await decide(broker, request)
        if verdict.outcome is Outcome.ALLOWED:
            answer = await issue(broker, request, verdict)
        else:
            answer = await deny(
                broker, request, verdict.reason, verdict.message, verdict
            )
    if isinstance(answer, Denied):
        raise RefusedError(f"{answer.message} ({answer.reason})")
    return answer


async def issue_unscoped(
    broker: Broker,
    agent: Agent,
    resource: str | None,
    source: str | None,
    operator: Actor | None = None,
) -> Granted | Denied:
    """Issue a token without a scope: it says who asks where each call is decided.

    At the gateway it is valid for routes that always ask a person, whose scope no
    standard token has; to resource servers it is inactive.

    Args:
        broker: the broker.
        agent: the agent.
        resource: the service or MCP server it is for (RFC 8707); None for all.
        source: the address the request came from, if it is known.
        operator: who asks, where it is not the agent.

    Returns:
        the token; a denial where policy denies all that the agent was granted.

    Raises:
        LedgerError: the decision could not be recorded.
    """
    decision_id = DecisionId(new_id("dec"))
    nothing = Action((), "")
    request = Request(
        agent, nothing, resource, None, decision_id, asked_by=operator, source=source
    )
    broker.registry.seen(agent.id)
    if refusal := refused(broker, agent):
        return await deny(broker, request, *refusal)
    if verdict := not_denied(broker, agent, source):
        check_rate(broker, request)
        return await issue(broker, request, verdict)
    text = "Policy denies this agent everything, or it was granted nothing."
    return await deny(broker, request, "scope_not_granted", text)
