"""Decide about a request: policy, then limits, then call-outs, whatever the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from agentvault_tui.broker.callouts import CallOutAnswer
from agentvault_tui.broker.core import Broker
from agentvault_tui.encoder import to_json
from agentvault_tui.model import (
    DETAIL_TYPE,
    Action,
    Actor,
    ActorKind,
    Agent,
    AgentId,
    DecisionId,
    EventType,
    Outcome,
    StepUp,
    Verdict,
)
from agentvault_tui.model.ids import requester_of
from agentvault_tui.policy import Environment, Inputs
from agentvault_tui.policy.limits import RULE, HookTable, Limit
from agentvault_tui.policy.ruling import overruled


def foresee(
    broker: Broker,
    agent: Agent,
    action: Action,
    source: str | None = None,
    *,
    details: tuple[Mapping[str, Any], ...] | None = None,
    chain: tuple[AgentId, ...] = (),
    **how: bool,
) -> Verdict:
    """Say how a request would be answered now, with all the facts it depends on.

    This uses nothing of limits, and calls no webhook.

    Args:
        broker: the broker.
        agent: who asks.
        action: the action.
        source: the address the request came from; None where it is not known, and a
            rule that reads it then permits nothing.
        details: ``authorization_details`` (RFC 9396), if any were sent.
        chain: agents that passed on its token (RFC 8693), in order.
        how: see `Inputs.of`.

    Returns:
        the verdict; its facts are `Inputs.record`.
    """
    environment = broker.deciding.surroundings.at(source)
    if chain:
        environment = environment._replace(delegated=True, depth=len(chain))
    above = tuple((one, broker.registry.agent(one).name) for one in chain)
    return foresee_at(broker, agent, action, environment, details, above=above, **how)


def foresee_at(
    broker: Broker,
    agent: Agent,
    action: Action,
    environment: Environment,
    details: tuple[Mapping[str, Any], ...] | None = None,
    *,
    above: tuple[tuple[str, str], ...] = (),
    **how: bool,
) -> Verdict:
    """Say how a request would be answered in an environment; see `foresee`.

    Args:
        broker: the broker.
        agent: who asks.
        action: the action.
        environment: when, and from where.
        details: ``authorization_details`` (RFC 9396), if any were sent.
        above: see `Inputs.above`.
        how: see `Inputs.of`.

    Returns:
        the verdict.
    """
    deciding = broker.deciding
    policy, uses = deciding.policy, deciding.limits
    same_as = deciding.same_as.of(action.resource) if action.resource else ()
    inputs = Inputs.of(
        agent, action, environment, details, same_as=same_as, above=above, **how
    )
    if limits := policy.limits_for(inputs):
        held = uses.standings(limits, inputs)
        inputs = inputs._replace(environment=environment._replace(limits=held))
    verdict = policy.answer(inputs)
    counted: Mapping[str, Any] = {}
    if (
        limits
        and not inputs.exempt
        and (counted_limits := policy.limits.counted(inputs))
    ):
        counted = uses.stamp(counted_limits)
    return verdict._replace(
        facts=inputs.record(),
        counted=counted,
        retry_after=uses.retry_after(inputs) if denied_by_limit(verdict) else None,
    )


_HOOK: Final = "hook:"
"""The beginning of the rule that is recorded if a webhook decides."""
BY_CALL: Final = "outside-project"
"""The rule that is recorded if a person decides although policy permits."""


def strictest(verdicts: Sequence[Verdict], limits: Mapping[str, Limit]) -> Verdict:
    """Return the strictest of the verdicts about the actions of one request.

    Uses of limits are combined: a limit by resource counts once for each resource, any
    other limit once.

    Args:
        verdicts: at least one.
        limits: by id.

    Returns:
        the riskiest of the strictest, with the highest risk of all; the others' uses
        are in ``counted["others"]``.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    verdict = max(verdicts, key=lambda one: (one.outcome.strictness, one.risk.rank))
    risk = max((one.risk for one in verdicts), key=lambda one: one.rank)
    verdict = verdict._replace(risk=risk)
    seen, parts = set[tuple[str, object]](), list[dict[str, Any]]()
    for counted in (one.counted for one in verdicts if one.counted):
        resource, used = counted.get("resource"), {}
        for name, units in counted["limits"].items():
            key = name, resource if limits[name].per == "resource" else None
            if key not in seen:
                seen.add(key)
                used[name] = units
        if used:
            parts.append({**counted, "limits": used})
    if len(parts) < 2:
        return verdict._replace(counted=parts[0]) if parts else verdict
    return verdict._replace(counted=parts[0] | {"others": parts[1:]})


_TOKEN_DECISIONS: Final = dict.fromkeys(Outcome, EventType.TOKEN_DECISION)
_NOTHING: Final[Mapping[str, object]] = {}


class Request(NamedTuple):
    """One request of an agent, and the id of its decision."""

    agent: Agent
    action: Action
    resource: str | None
    """RFC 8707 resource indicator."""
    details: tuple[dict[str, object], ...] | None
    """RFC 9396 ``authorization_details`` as sent."""
    decision_id: DecisionId
    connection: str | None = None
    """Of the provider whose token is requested, if it is one."""
    asked_scope: str = ""
    """All scopes that were asked for, where this is about one of them."""
    events: Mapping[Outcome, EventType] = _TOKEN_DECISIONS
    """How its decision is recorded."""
    about: Mapping[str, object] = _NOTHING
    """Further members of its events."""
    call: str | None = None
    """The HTTP request that a person decides about; see `StepUp.request_json`."""
    evaluation: bool = False
    """Whether no token is asked for; see `StepUp.evaluation`."""
    asked_by: Actor | None = None
    """Who asked, where it was not the agent itself."""
    source: str | None = None
    """The address it came from, if that is known."""
    backchannel: bool = False
    """Whether the agent itself asks for a person (CIBA Core 7)."""
    chain: tuple[AgentId, ...] = ()
    """Agents that passed on the token it acts on (RFC 8693), the first first."""
    exempt: bool = False
    """Whether no limit stops it: its token was counted when it was given out."""
    others: tuple[Action, ...] = ()
    """Its other actions, decided one by one: the strictest answer counts."""
    person: str = ""
    """Why a person has to decide even if policy permits; empty if none has to."""

    @classmethod
    def approved(cls, agent: Agent, stepup: StepUp) -> Request:
        """Return the request that *stepup* was about, under its own decision."""
        return cls(
            agent,
            stepup.requested,
            stepup.resource_indicator,
            stepup.details,
            stepup.decision_id,
            source=stepup.source,
            chain=stepup.chain,
        )

    def foresee(self, broker: Broker) -> Verdict:
        """Say how this would be answered now; see `decide.foresee`."""
        actions = (self.action, *self.others)
        verdicts = [self._foresee(broker, one) for one in actions]
        verdict = strictest(verdicts, broker.deciding.policy.limits.by_id)
        if self.person and verdict.outcome is Outcome.ALLOWED:
            return overruled(
                *(verdict, Outcome.ESCALATED, "stepup_required", self.person),
                rule=BY_CALL,
                by="the call itself",
                scopes=self.action.scopes,
            )._replace(before=(verdict.outcome, verdict.reason, verdict.rule))
        return verdict

    def _foresee(self, broker: Broker, action: Action) -> Verdict:
        return foresee(
            broker,
            self.agent,
            action,
            self.source,
            details=self.details,
            backchannel=self.backchannel,
            chain=self.chain,
            exempt=self.exempt,
        )

    @property
    def requester(self) -> str:
        """Return the requester for refusals and step-ups; see `requester_of`."""
        return requester_of(self.agent.id, self.chain)

    @property
    def scope(self) -> str:
        """Return the scopes of all its actions, each once, as the wire writes them."""
        scopes = (s for one in (self.action, *self.others) for s in one.scopes)
        return " ".join(dict.fromkeys(scopes))

    @property
    def served(self) -> tuple[dict[str, object], ...] | None:
        """Return ``authorization_details`` as a resource server will read them.

        The object of our type says the action and resource that were decided about,
        also where the request named them elsewhere (RFC 9396 section 7 lets a server
        enrich them).
        """
        if self.details is None:
            return None
        decided = {"action": self.action.action} if self.action.named else {}
        if self.action.resource is not None:
            decided["resource"] = self.action.resource
        return tuple(
            one | decided if one["type"] == DETAIL_TYPE else one for one in self.details
        )

    @property
    def served_text(self) -> str | None:
        """Return `served` as the JSON text that is stored and sent."""
        served = self.served
        return None if served is None else to_json(served)


async def decide(broker: Broker, request: Request) -> Verdict:
    """Decide about a request, and reserve its uses of limits if it is allowed.

    The record of the answer counts the reserved uses; any other answer releases them:
    see `LimitUses`.

    Args:
        broker: the broker.
        request: the request to decide about.

    Returns:
        the verdict.

    Raises:
        LedgerError: the windows of limits cannot be read.
        TooFastError: it would be permitted, beyond its agent's rate.
    """
    started, agent_id = broker.clock.boot(), request.agent.id
    grant = broker.registry.unless_revoked(agent_id, scope=request.scope)
    try:
        verdict = await _decide(broker, request)
        if not grant.revoked:
            return verdict
        broker.deciding.limits.release(request.decision_id)
        return _overtaken(broker, request, verdict)
    finally:
        broker.health.decision_seconds.observe(broker.clock.boot() - started)


def check_rate(broker: Broker, request: Request) -> None:
    """Count a decision that is permitted without a person.

    Args:
        broker: the broker.
        request: the permitted request; of a token that an operator asked for, nothing
            is counted.

    Raises:
        TooFastError: its agent has had as many as it may; nothing is recorded.
    """
    asker, requester = request.agent, request.requester
    if (by := request.asked_by) is not None:
        if by.kind is ActorKind.AGENT:
            # It passes a token on: it asks, and its own rate counts.
            asker, requester = broker.registry.agent(by.id), by.id
        elif not request.evaluation:
            return
    broker.admitting.rates.take(requester, rate_of(broker, asker.decisions_a_second))


def rate_of(broker: Broker, own: int | None) -> int:
    """Return how many permitted decisions a second that is; 0 for no bound.

    Args:
        broker: the broker.
        own: an agent's own number, if it has one.

    Returns:
        that, or the number of the settings.
    """
    return broker.settings.ledger.decisions_a_second if own is None else own


async def _decide(broker: Broker, request: Request) -> Verdict:
    limits = broker.deciding.limits
    verdict = request.foresee(broker)
    if verdict.outcome is Outcome.ALLOWED and not (
        request.backchannel or request.exempt
    ):
        check_rate(broker, request)
    if verdict.outcome is Outcome.ALLOWED and verdict.counted:
        limits.reserve(request.decision_id, request.agent.id, verdict.counted)
    try:
        verdict = await call_webhooks(broker, request, verdict)
    except BaseException:
        limits.release(request.decision_id)
        raise
    if verdict.outcome is not Outcome.ALLOWED:
        limits.release(request.decision_id)
    return verdict


async def call_webhooks(broker: Broker, request: Request, verdict: Verdict) -> Verdict:
    """Return a verdict as the decision webhooks would have it, stricter or the same.

    Args:
        broker: the broker.
        request: the request, which is decided, or carried out after its approval.
        verdict: the answer of policy and limits now.

    Returns:
        the verdict; a denial is returned without a call.
    """
    hooks = _hooks_of(broker, request)
    if not hooks or verdict.outcome is Outcome.DENIED:
        return verdict
    version = broker.deciding.policy.version
    answers = await broker.deciding.callouts.ask(
        [
            (hook, [_evaluation(request, one, verdict) for one in actions])
            for hook, actions in hooks
        ]
    )
    if broker.deciding.policy.version != version:
        verdict = _overtaken(broker, request, verdict)
    for answer in answers:
        if answer.outcome.strictness > verdict.outcome.strictness:
            verdict = _stricter(verdict, answer, request)
    return verdict._replace(hooks=tuple(one.recorded() for one in answers))


def _hooks_of(broker: Broker, request: Request) -> list[tuple[HookTable, list[Action]]]:
    """Return the call-outs for a request, each with the actions in its scopes."""
    hooks: dict[str, tuple[HookTable, list[Action]]] = {}
    for action in (request.action, *request.others):
        for hook in broker.deciding.policy.limits.hooks_of(action):
            hooks.setdefault(hook.id, (hook, []))[1].append(action)
    return list(hooks.values())


def _stricter(verdict: Verdict, answer: CallOutAnswer, request: Request) -> Verdict:
    """Return *verdict* as a call-out would have it."""
    hook, before = answer.hook, (verdict.outcome, verdict.reason, verdict.rule)
    stricter = overruled(
        *(verdict, answer.outcome, answer.reason, answer.why),
        rule=f"{_HOOK}{hook.id}",
        by=f"call-out {hook.id}",
        scopes=[
            scope
            for one in (request.action, *request.others)
            for scope in one.scopes
            if scope in hook.scopes
        ],
    )
    return stricter._replace(before=verdict.before or before)


def _overtaken(broker: Broker, request: Request, verdict: Verdict) -> Verdict:
    """Deny a request whose agent or policy changed since its decision."""
    reason = "policy_changed"
    if broker.registry.revocations.panic is not None:
        reason = "panic"
    elif not broker.registry.lifetimes.is_active(request.agent.id):
        reason = "agent_revoked"
    text = "The agent or the policy changed while this was decided. Ask again."
    before = verdict.outcome, verdict.reason, verdict.rule
    return verdict._replace(
        outcome=Outcome.DENIED, reason=reason, message=text, before=before
    )


def _evaluation(request: Request, action: Action, verdict: Verdict) -> dict[str, Any]:
    """Return a decision so far as AuthZEN words a request (section 6.1).

    Each action of a request is an evaluation of its own.
    """
    agent = request.agent
    kind, colon, name = (action.resource or "").partition(":")
    so_far = {
        "outcome": verdict.outcome,
        "rule": verdict.rule,
        "reason": verdict.reason,
        **{name: verdict.facts.get(name) for name in ("limits", "source", "now")},
    }
    about = {"name": agent.name, "owner": agent.owner}
    return {
        "subject": {"type": "agent", "id": agent.id, "properties": about},
        "action": {"name": action.action, "properties": action.parameters},
        "resource": {"type": kind, "id": name}
        if colon
        else {"type": "resource", "id": kind},
        "context": {"agentvault": so_far, "scopes": action.scopes},
    }


def reserve_approved(broker: Broker, request: Request) -> Verdict:
    """Reserve the uses of an approved request, in the turn in which it is delivered.

    Args:
        broker: the broker.
        request: the approved request; its decision's event will count it.

    Returns:
        the answer now. Where a limit denies it (see `denied_by_limit`), nothing is
        reserved, and it must not be given out.
    """
    verdict = request.foresee(broker)
    if verdict.counted and not denied_by_limit(verdict):
        broker.deciding.limits.reserve(
            request.decision_id, request.agent.id, verdict.counted
        )
    return verdict


def denied_by_webhook(verdict: Verdict) -> bool:
    """Check whether a decision webhook is why a request is denied.

    Args:
        verdict: the answer to it.

    Returns:
        whether it is.
    """
    return verdict.outcome is Outcome.DENIED and verdict.rule.startswith(_HOOK)


def denied_by_limit(verdict: Verdict) -> bool:
    """Check whether a limit is why a request is denied.

    Args:
        verdict: the answer to it.

    Returns:
        whether it is.
    """
    return verdict.outcome is Outcome.DENIED and verdict.rule.startswith(RULE)
