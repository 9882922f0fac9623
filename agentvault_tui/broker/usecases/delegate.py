"""Token exchange: an agent delegates a subset of a token to another (RFC 8693)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.delegations import MOST_PASSED_ON
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.usecases.decide import Request, decide
from agentvault_tui.broker.usecases.ending import InForce
from agentvault_tui.broker.usecases.policy_change import action_of
from agentvault_tui.broker.usecases.request import deny, issue, refused
from agentvault_tui.broker.usecases.revoke import record_change
from agentvault_tui.broker.usecases.scopes import (
    ChangedRights,
    scopes_draft,
)
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.model import (
    Action,
    Actor,
    Agent,
    AgentId,
    DecisionId,
    Delegate,
    Draft,
    Outcome,
    Token,
    new_id,
    other_details,
)
from agentvault_tui.policy.subset import same_details, wider
from agentvault_tui.text import visible

NOT_DELEGABLE: Final = "not_delegable"
_NAMED: Final = ("scope", "action", "resource")
_PERSON: Final = (
    "Policy wants a person for this, and no token that a person approved is passed on: "
    "the other agent asks for it itself."
)


async def cut_off(broker: Broker, agent: Agent) -> Denied | None:
    """Deny an exchange of an agent that is not served, whatever it shows.

    Args:
        broker: the broker.
        agent: who asks.

    Returns:
        the denial; None for an agent that is served.
    """
    if (refusal := refused(broker, agent)) is None:
        return None
    decision_id = DecisionId(new_id("dec"))
    request = Request(agent, Action((), ""), None, None, decision_id)
    return await deny(broker, request, *refusal)


async def pass_on(
    broker: Broker,
    agent: Agent,
    parent: Token,
    other: Agent,
    action: Action,
    *,
    resource: str | None,
    details: tuple[dict[str, object], ...] | None,
    source: str | None = None,
) -> Granted | Denied:
    """Exchange a live token of *agent* for one of *other* that is good for no more.

    Args:
        broker: the broker.
        agent: who asks, and holds *parent*.
        parent: the subject token (RFC 8693 section 2.1).
        other: who will hold the token.
        action: the action; policy decides about it with *other* as principal.
        resource: the resource indicator (RFC 8707).
        details: ``authorization_details`` (RFC 9396).
        source: the address the request came from, if it is known.

    Returns:
        the token, or a denial.

    Raises:
        LedgerUnwritableError: the decision could not be recorded.
        LedgerBusyError: too many decisions wait to be recorded.
    """
    request = Request(
        agent,
        action,
        resource,
        details,
        DecisionId(new_id("dec")),
        about={"parent_token_id": parent.id, "pass_on_to": other.id},
        source=source,
        chain=(*parent.chain, agent.id),
    )
    broker.registry.seen(agent.id)
    if refusal := refused(broker, agent) or _refusal(broker, parent, request, other):
        return await deny(broker, request, *refusal)
    # Its own grants play no part: it may do what it is passed, and no more.
    principal = replace(
        other,
        scopes=tuple(sorted(action.scopes)),
        authenticated_as=agent.authenticated_as,
    )
    passed = request._replace(agent=principal, asked_by=broker.actor(agent))
    verdict = await decide(broker, passed)
    # Anew: others may have been passed on while that was asked.
    if refusal := _refusal(broker, parent, request, other):
        return await deny(broker, request, *refusal)
    if verdict.outcome is Outcome.ALLOWED:
        return await issue(broker, passed, verdict, parent)
    denied = verdict.outcome is Outcome.DENIED
    message = verdict.message if denied else _PERSON
    return await deny(broker, passed, verdict.reason, message, verdict)


def _refusal(
    broker: Broker, parent: Token, request: Request, other: Agent
) -> tuple[str, str] | None:
    """Return reason and message where *parent* is not passed on so, if that is so."""
    registry, limits = broker.registry, broker.settings.delegation
    agent, action = registry.agent(request.agent.id), request.action
    if other.id in (*parent.chain, agent.id):
        return "loop", "The other agent is you, or one that this token came from."
    if missing := set(action.scopes) - agent.may_pass_on(other.id):
        return NOT_DELEGABLE, (
            f"An operator has not let you pass {' and '.join(sorted(missing))} on to "
            "that agent: agentvault agents set-delegates."
        )
    if beyond := _wider(broker, parent, request):
        return "wider_than_parent", f"The {beyond} is not within your own token's."
    if len(parent.chain) >= limits.max_depth:
        return "too_deep", (
            f"This token was passed on {len(parent.chain)} times, and the most is "
            f"{limits.max_depth}. The agent it came from can ask for less of it."
        )
    if len(registry.delegations.children(parent)) >= limits.max_children:
        return "too_many", (
            f"{limits.max_children} live tokens were exchanged for this one, which is "
            "the most. Wait until one of them ends, or revoke it."
        )
    if len(registry.delegations.passed_on_by(agent.id)) >= MOST_PASSED_ON:
        return "too_many", "You have passed on too many live tokens. Revoke some."
    return None


def _wider(broker: Broker, parent: Token, request: Request) -> str | None:
    """Name a part of *request* that is not within *parent*, if there is one."""
    if beyond := wider(action_of(broker, parent), request.action):
        return beyond if beyond in _NAMED else f"parameter {visible(beyond, 60)}"
    if parent.resource is not None and request.resource != parent.resource:
        return "resource"
    before: list[dict[str, object]] = json.loads(parent.authorization_details or "[]")
    if same_details(other_details(before), other_details(request.details)):
        return None
    return "authorization_details of another type"


async def change_delegates(
    broker: Broker,
    agent_id: str,
    to: str,
    scopes: frozenset[str],
    operator: Actor,
    *,
    gives: bool = True,
) -> ChangedRights:
    """Set which scopes an agent may delegate to another; end tokens beyond them.

    Args:
        broker: the broker.
        agent_id: who passes tokens on.
        to: the agent that will hold them.
        scopes: in place of those it could pass on before; none for nothing.
        operator: who decided.
        gives: whether it may also give; others may have taken something meanwhile.

    Returns:
        the agent as it is now, and the ended tokens.

    Raises:
        NotFoundError: one of the agents does not exist.
        UsageError: they are the same.
        ConflictError: it was cut off while the grant was being recorded, or it would be
            a grant and may not be.
        LedgerUnwritableError: a grant could not be recorded; the removed rights ended.
    """
    find = broker.registry.agent
    agent = await broker.look_up(lambda: find(agent_id))
    other = await broker.look_up(lambda: find(to))
    if agent.id == other.id:
        raise UsageError("an agent passes nothing on to itself")
    calls, in_force = undelegate(broker, agent, other, scopes, operator)
    durability, ended = Kept.LEDGER, 0
    if in_force is not None:
        durability = await in_force.record(broker, operator)
        ended = len(in_force.below)
    if scopes - broker.registry.agent(agent.id).may_pass_on(other.id):
        if not gives:
            raise ConflictError(
                "others took some of these scopes away meanwhile",
                "look, and set them again",
            )
        if durability is not Kept.LEDGER:
            raise LedgerUnwritableError(
                "what was taken away is not on disk yet, so nothing was granted",
                "grant again when the ledger can write",
            )
        await decide_anew(lambda: _delegate(broker, agent, other, scopes, operator))
    return ChangedRights(broker.registry.agent(agent.id), calls, ended, durability)


def undelegate(
    broker: Broker,
    agent: Agent,
    other: Agent,
    left: frozenset[str],
    operator: Actor,
) -> tuple[CallsCut, InForce | None]:
    """End in memory the rights of a delegation beyond the scopes that are *left*.

    Returns:
        the cancelled calls, and the function that finds the record; None if nothing
        ended at any broker.
    """
    registry, ended, gone = broker.registry, list[Token](), set[str]()
    cancelled = CallsCut()

    def decide() -> Decided | None:
        """End the rights, also those granted by other brokers meanwhile."""
        nonlocal cancelled
        current = registry.agent(agent.id)
        before = current.may_pass_on(other.id)
        if taken := before - left:
            gone.update(taken)
            registry.put_agent(with_delegate(current, other.id, before - taken))
            registry.void_decisions(agent.id, taken)
        passed_on = [
            token
            for token in registry.delegations.passed_on_by(agent.id)
            if token.agent_id == other.id and set(token.scope.split()) - left
        ]
        more, calls = broker.end_tokens(passed_on)
        ended.extend(more)
        cancelled = cancelled.plus(calls)
        if not gone and not ended:
            return None
        narrowed = registry.agent(agent.id)
        draft = delegates_draft(operator, narrowed, other)
        draft.detail.update(undelegated=sorted(gone), delegated_revoked=len(ended))
        return Decided((draft,), (narrowed,))

    decided = decide()
    if decided is None and broker.ledger.shared is None:
        return cancelled, None
    decided = decided or Decided((), ())
    return cancelled, InForce(decide, decided, ended, NOT_DELEGABLE)


async def _delegate(
    broker: Broker, agent: Agent, other: Agent, scopes: frozenset[str], operator: Actor
) -> None:
    """Let an agent pass scopes on, once that is on disk; a cut meanwhile wins."""
    broker.ledger.check_writable()
    await broker.recording.cuts.record_missed()
    async with broker.registry.changing[agent.id]:
        agent = broker.registry.agent(agent.id)
        after = with_delegate(agent, other.id, scopes)
        draft = delegates_draft(operator, after, other)
        stays = partial(delegates_draft, operator, other=other)
        await record_change(broker, agent, after, draft, stays, urgent=True)
        current = broker.registry.agent(agent.id)
        broker.registry.put_agent(with_delegate(current, other.id, scopes))


def with_delegate(agent: Agent, to: AgentId, scopes: Iterable[str]) -> Agent:
    """Return *agent* passing just *scopes* on to another."""
    others = [one for one in agent.delegates if one.agent_id != to]
    named = [Delegate(to, tuple(sorted(scopes)))] if scopes else []
    return replace(agent, delegates=tuple(sorted([*others, *named])))


def delegates_draft(operator: Actor, agent: Agent, other: Agent) -> Draft:
    """Return the event of *agent*'s delegation to *other*, as it is then."""
    draft = scopes_draft(operator, agent)
    draft.detail.update(
        delegate_to=other.id,
        delegate_name=other.name,
        delegate_scopes=sorted(agent.may_pass_on(other.id)),
    )
    return draft
