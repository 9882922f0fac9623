"""Model objects as shapes of the operators' API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from msgspec import UNSET, convert
from msgspec.structs import asdict

from agentvault_tui.broker.accounts import SHARERS_SHOWN
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.registry import Foreseen, Registry
from agentvault_tui.broker.team import OneBroker, Team
from agentvault_tui.broker.upstream.steps import rank, reason
from agentvault_tui.clock import Deadline, iso
from agentvault_tui.ledger import OutboxStep, Panic
from agentvault_tui.model import (
    Account,
    Agent,
    AgentCounts,
    AgentId,
    DeviceCode,
    Event,
    Evidence,
    Repeat,
    StepUp,
    StepUpStatus,
    Token,
    TokenKind,
    fingerprint,
)
from agentvault_tui.operator_api import access, history, shapes
from agentvault_tui.operator_api.changes import ChangeInfo, PersonInfo, TextInfo
from agentvault_tui.operator_api.stepups import (
    ApprovalsInfo,
    DeciderInfo,
    DeviceInfo,
    HeldRequestInfo,
    RepeatInfo,
    StepUpInfo,
)

TOKENS_SHOWN: Final = 100
"""Tokens of an agent that are listed, the soonest to expire."""

_NONE: Final[Counter[AgentId]] = Counter()
TREE_SHOWN: Final = 1000
"""Tokens of delegation trees that are listed."""

T = TypeVar("T", bound=shapes.WireShape)

Ends = Callable[[Deadline], datetime]
"""Tells when a deadline passes; see `clock.as_set_now`."""


def _as_recorded(deadline: Deadline) -> datetime:
    return deadline.wall


def agent_info(
    agent: Agent,
    registry: Registry,
    *,
    counts: AgentCounts | None = None,
    tokens: bool = True,
    ends: Ends | None = None,
    foreseen: Foreseen | None = None,
    client_secret: str | None = None,
) -> shapes.NewAgentInfo:
    """Return *agent* with its tokens, and the effect of a revocation.

    Args:
        agent: the agent.
        registry: the agent's state.
        counts: how its requests were answered, if not as of now.
        tokens: whether its live tokens are listed; if not, only the next to end is.
        ends: tells when deadlines pass, if that was asked a moment ago.
        foreseen: returns a revocation's steps at the tenant; likewise.
        client_secret: of an agent that was just registered.
    """
    held, ends = registry.held(agent.id), ends or registry.ends()
    soonest = list(islice(held, TOKENS_SHOWN if tokens else 1))
    accounts = registry.accounts.of(agent.id)
    steps = sorted(registry.steps_of(agent.id), key=rank)
    counts = counts or registry.counts(agent.id)
    past_info = past_agent_info(
        agent, counts, registry.last_seen(agent.id), soonest, len(held), ends=ends
    )
    members = asdict(past_info)
    if not tokens:
        members |= {"tokens": UNSET, "next_token": None}
        if past_info.listed_tokens:
            members["next_token"] = past_info.listed_tokens[0]
    return shapes.NewAgentInfo(
        **members,
        subject=agent.credential.subject,
        removed_at=_moment(agent.removed_at),
        decisions_a_second=agent.decisions_a_second,
        tokens_elevated=held.elevated,
        at_tenant=(foreseen or registry.foresee())(agent.id),
        upstream=tuple(map(step_info, steps)) if steps else (),
        connections=tuple(account_info(account, registry) for account in accounts),
        outside_until=_moment(registry.leases.outside_until(agent.id)),
        shared_with=_refs(registry.shared_with(agent.id) if accounts else (), registry),
        **_delegations(agent, registry),
        **_derived(agent, registry),
        client_secret=UNSET if client_secret is None else client_secret,
    )


def _delegations(agent: Agent, registry: Registry) -> dict[str, Any]:
    """Return whom *agent* may pass tokens on to, and who passed it some."""
    delegations = registry.delegations
    to, by = (
        delegations.given.get(agent.id, _NONE),
        delegations.got.get(agent.id, _NONE),
    )
    allowed = {one.agent_id: one.scopes for one in agent.delegates}
    if not (to or by or allowed):
        return {}

    def info(other: AgentId, live: int) -> shapes.DelegateInfo:
        name, scopes = registry.agent(other).name, allowed.get(other, ())
        return shapes.DelegateInfo(id=other, name=name, scopes=scopes, live=live)

    return {
        "delegates": tuple(info(one, to[one]) for one in sorted({*allowed, *to})),
        "delegated_by": tuple(
            shapes.DelegateInfo(id=one, name=registry.agent(one).name, live=by[one])
            for one in sorted(by)
        ),
        "delegated_below": delegations.under[agent.id],
    }


def _derived(agent: Agent, registry: Registry) -> dict[str, Any]:
    """Return which agents were made from *agent*, where it is a template."""
    if not agent.template:
        return {}
    derived = [one.id for one in registry.lifetimes.derived(agent.id)]
    return {
        "derived": _refs(derived[:SHARERS_SHOWN], registry),
        "derived_total": len(derived),
    }


def delegation_tree(registry: Registry, agent_id: str | None) -> access.DelegationTree:
    """Return the trees of tokens that were passed on, each parent first.

    Those that hold a token of the agent; all, where none is named.
    """
    delegations, ends = registry.delegations, registry.ends()
    rows: list[access.TreeToken] = []
    total = 0
    for root in delegations.roots():
        tree = [root, *delegations.below([root])]
        if agent_id is not None and all(one.agent_id != agent_id for one in tree):
            continue
        total += len(tree)
        waiting = [root]
        while waiting and len(rows) < TREE_SHOWN:
            token = waiting.pop()
            waiting += reversed(delegations.children(token))
            holder = registry.agent(token.agent_id)
            rows.append(
                access.TreeToken(
                    id=token.id,
                    parent_id=token.parent_id,
                    depth=len(token.chain),
                    agent=shapes.AgentRef(id=holder.id, name=holder.name),
                    scope=token.scope,
                    resource=token.resource,
                    expires_at=iso(ends(token.expires)),
                    below=len(delegations.below([token])),
                )
            )
    return access.DelegationTree(tokens=tuple(rows), total=total)


def past_agent_info(
    agent: Agent,
    counts: AgentCounts,
    seen: datetime | None,
    soonest: Iterable[Token],
    live: int,
    *,
    ends: Ends = _as_recorded,
) -> shapes.PastAgentInfo:
    """Return *agent* with its tokens: *live* tokens, the *soonest* to end listed."""
    return shape_from(
        shapes.PastAgentInfo,
        agent,
        status=agent.status.value,
        created_at=iso(agent.created_at),
        revoked_at=_moment(agent.revoked_at),
        until=_moment(ends(agent.until) if agent.until else None),
        last_seen_at=_moment(seen),
        tokens=tuple(token_info(token, ends) for token in soonest),
        tokens_live=live,
        counts=shape_from(shapes.CountsInfo, counts),
    )


def account_info(account: Account, registry: Registry) -> shapes.AccountInfo:
    """Return a connected account; its other users are not known here."""
    lease = registry.leases.of(account.agent_id, account.connection)
    ahead = registry.outlook(account)
    return shape_from(
        shapes.AccountInfo,
        account,
        account=account.id,
        provider_scopes=account.scopes,
        since=iso(account.since),
        outside_until=_moment(lease.until if lease else None),
        shared_with=_refs(
            islice(registry.accounts.in_use(account), SHARERS_SHOWN), registry
        ),
        provider_user=account.provider_user or None,
        at_provider=shapes.ProviderOutlook(
            known=ahead.revocable,
            kept_for=_refs(ahead.kept_for, registry),
            may_cut=_refs(ahead.may_cut, registry),
        ),
    )


def _refs(agents: Iterable[AgentId], registry: Registry) -> tuple[shapes.AgentRef, ...]:
    return tuple(
        shapes.AgentRef(id=one, name=registry.agent(one).name) for one in agents
    )


def step_info(step: OutboxStep) -> shapes.StepInfo:
    """Return a step at the tenant, or at a provider, as it is."""
    return shape_from(
        shapes.StepInfo,
        step,
        connection=step.connection or None,
        reason=reason(step),
        begun_at=iso(step.begun_at),
        next_at=_moment(step.next_at),
    )


def panic_info(panic: Panic | None) -> shapes.PanicInfo:
    """Return the state of the panic switch."""
    if panic is None:
        return shapes.PanicInfo(on=False)
    return shape_from(shapes.PanicInfo, panic, since=iso(panic.since))


def token_info(token: Token, ends: Ends = _as_recorded) -> shapes.TokenInfo:
    """Return *token* without anything that could use it."""
    return shapes.TokenInfo(
        id=token.id,
        agent_id=token.agent_id,
        scope=token.scope,
        kind=token.kind.value,
        single_use=token.single_use or token.kind is TokenKind.ELEVATED,
        issued_at=iso(token.issued_at),
        expires_at=iso(ends(token.expires)),
    )


def stepup_info(
    stepup: StepUp, ends: Ends = _as_recorded, device: DeviceCode | None = None
) -> StepUpInfo:
    """Return *stepup* as consoles render and approvers decide it.

    *device* is the caller's own: another person's code is never shown.
    """
    return shape_from(
        StepUpInfo,
        stepup,
        authorization_details=stepup.details,
        request=convert(stepup.request, HeldRequestInfo | None),
        repeat=_repeat_info(stepup.repeat, ends) if stepup.repeat else None,
        risk=stepup.risk.value,
        fingerprint=fingerprint(stepup.digest),
        requested_at=iso(stepup.requested_at),
        expires_at=iso(ends(stepup.expires)),
        status=stepup.status.value,
        decided_by=_deciders(stepup),
        approvals=_approvals(stepup),
        decided_at=_moment(stepup.decided_at),
        fetched_at=_moment(stepup.fetched_at),
        begun_at=_moment(stepup.begun_at),
        redeemed_at=_moment(stepup.redeemed_at),
        device=device_info(device) if device else None,
    )


def change_info(
    stepup: StepUp, device: DeviceCode | None = None, *, whole: bool = True
) -> ChangeInfo:
    """Return a change that waits, or was decided, as every face shows it.

    Args:
        stepup: the change.
        device: the caller's own, as for `stepup_info`.
        whole: whether the differing lines of texts are included.

    Returns:
        the change.
    """
    change = stepup.change
    assert change is not None  # noqa: S101 - callers look
    details = stepup.parameters
    for shown in ("summary", "changes", "texts"):
        details.pop(shown, None)
    return ChangeInfo(
        id=stepup.id,
        digest=stepup.digest,
        fingerprint=fingerprint(stepup.digest),
        kind=change.kinds[0],
        kinds=change.kinds,
        summary=change.summary,
        call=change.call,
        resource=stepup.resource,
        details=details,
        texts=tuple(
            TextInfo(
                name=one.name,
                before=one.before,
                after=one.after,
                diff=one.diff if whole else UNSET,
            )
            for one in change.texts
        ),
        reason=stepup.reason,
        requested_by=PersonInfo(sub=change.sub, name=change.name),
        requested_at=iso(stepup.requested_at),
        expires_at=iso(stepup.expires.wall),
        status=stepup.status.value,
        have=len(stepup.confirmed) or int(stepup.status is StepUpStatus.APPLIED),
        need=stepup.need,
        approvals=_approvals(stepup),
        problem=stepup.problem,
        decided_by=_deciders(stepup),
        decided_at=_moment(stepup.decided_at),
        denial=stepup.denial,
        device=device_info(device) if device else None,
    )


def _repeat_info(repeat: Repeat, ends: Ends) -> RepeatInfo:
    expires_at = _moment(ends(repeat.expires) if repeat.expires else None)
    series = repeat.request
    return RepeatInfo(**series, left=repeat.left, expires_at=expires_at)


def event_info(event: Event) -> history.EventInfo:
    """Return *event* as the audit pane, the CLI and exports show it."""
    actor = event.actor
    return history.EventInfo(
        seq=event.seq,
        time=iso(event.time),
        type=event.type.value,
        actor=history.ActorInfo(kind=actor.kind.value, id=actor.id, name=actor.name),
        agent_id=event.agent_id,
        action=event.action,
        resource=event.resource,
        outcome=event.outcome.value if event.outcome else None,
        reason=event.reason,
        rule=event.rule,
        decision_id=event.decision_id,
        detail=event.detail,
        hash=event.hash,
    )


def device_info(device: DeviceCode) -> DeviceInfo:
    """Return the approver's way to the tenant."""
    return shape_from(DeviceInfo, device, expires_at=iso(device.expires_at))


def _deciders(
    stepup: StepUp,
) -> DeciderInfo | tuple[DeciderInfo, ...] | None:
    granted = {StepUpStatus.APPROVED, StepUpStatus.REDEEMED, StepUpStatus.APPLIED}
    if stepup.status in granted and stepup.confirmed:
        return tuple(filter(None, map(_decider, stepup.confirmed)))
    return _decider(stepup.decided_by)


def _approvals(stepup: StepUp) -> ApprovalsInfo | None:
    if stepup.need == 1 and not stepup.owners and not stepup.approvers:
        return None
    named = " and ".join(" or ".join(one) for one in stepup.approvers)
    who = f"approvers who are {named}" if named else "any approver"
    others = [one.name for one in stepup.confirmed]
    noun = "" if stepup.change else "the owner "
    own = [stepup.change.name] if stepup.change and stepup.owners else stepup.owners
    but = " and ".join([*others, *(f"{noun}{one}" for one in own)])
    return ApprovalsInfo(
        have=len(stepup.confirmed),
        need=stepup.need,
        by=tuple(filter(None, map(_decider, stepup.confirmed))),
        may=f"{who} but {but}" if but else who,
    )


def _decider(evidence: Evidence | None) -> DeciderInfo | None:
    if evidence is None:
        return None
    return shape_from(DeciderInfo, evidence, auth_time=_moment(evidence.auth_time))


def _moment(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None


def recorded_at(durability: Kept, team: Team | OneBroker) -> dict[str, Any]:
    """Return the members of `ending.RecordedAnswer`: where a revocation is durable.

    Args:
        durability: where it is.
        team: the brokers that follow the ledger.
    """
    recorded = durability is Kept.LEDGER
    members: dict[str, Any] = {"recorded": recorded, "kept": durability.value}
    brokers = UNSET if recorded else team.unnotified()
    others = UNSET if brokers is UNSET else "not_told"
    return members | {"others": others, "brokers": brokers}


def shape_from(kind: type[T], source: object, **others: object) -> T:
    """Return a shape whose members are the *source*'s attributes, but for *others*."""
    names = (name for name in kind.__struct_fields__ if name not in others)
    return kind(**{name: getattr(source, name) for name in names}, **others)
