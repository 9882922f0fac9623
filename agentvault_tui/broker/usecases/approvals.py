"""How many people must approve a step-up, which may not, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.stepups import as_pending, digest_of, stepup_draft
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    IdentityError,
    LedgerError,
    RefusedError,
    SettingsError,
)
from agentvault_tui.ledger import Change, DropToken, EventQuery
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    Draft,
    EventType,
    Evidence,
    Risk,
    StepUp,
    StepUpStatus,
)
from agentvault_tui.model.claims import GROUPS
from agentvault_tui.model.event import PERSON_CHANGES
from agentvault_tui.text import visible
from agentvault_tui.vault import Identity
from agentvault_tui.vault.identity import is_listed, verified_email
from agentvault_tui.web.public import LocalSite

CUTTING: Final = frozenset(PERSON_CHANGES) - {"added"}
"""Changes of a person that void the person's approvals."""


_GROUP: Final = "group:"
"""Begins the name of a group in a rule's ``approvers``."""


class Needed(NamedTuple):
    """The requirements of all rules together: the strictest of each."""

    approvals: int = 1
    no_self: bool = False
    approvers: tuple[tuple[str, ...], ...] = ()
    """Of each rule that names some."""


def check_rules(broker: Broker) -> None:
    """Refuse rules with unknown scopes: they would apply to no request.

    Raises:
        SettingsError: a scope is neither one of the catalogue nor a group of it.
    """
    catalogue = broker.deciding.policy.catalogue
    for rule in broker.settings.stepup.rules:
        for word in rule.scopes:
            if word not in catalogue and not catalogue.is_group(word):
                raise SettingsError(
                    f"stepup.rules names the unknown scope {visible(word, 60)}",
                    "a scope of the catalogue, or a group such as payments",
                )


def needed(broker: Broker, stepup: StepUp) -> Needed:
    """Return the requirements of the rules that match such a step-up or change."""
    if stepup.change is None:
        agents = (stepup.agent_id, *stepup.chain)
        return _needed(broker, stepup.scope, stepup.risk.value, agents)
    kinds = set(stepup.change.kinds)
    rules = broker.settings.changes.rules
    meant = [rule for rule in rules if not rule.kinds or kinds & set(rule.kinds)]
    most = max((rule.approvals for rule in meant), default=1)
    return Needed(most, any(rule.no_self for rule in meant))


def _needed(broker: Broker, scope: str, risk: str, agents: Iterable[AgentId]) -> Needed:
    agents_left = filter(None, map(broker.registry.find_agent, agents))
    called = {name for one in agents_left for name in (one.id, one.name)}
    meant = [
        rule
        for rule in broker.settings.stepup.rules
        if (not rule.agents or called & {*rule.agents})
        and _means(broker, rule, scope.split(), risk)
    ]
    most = max((rule.approvals for rule in meant), default=1)
    only = tuple(rule.approvers for rule in meant if rule.approvers)
    return Needed(most, any(rule.no_self for rule in meant), only)


def _means(broker: Broker, rule: StepUpRule, scopes: list[str], risk: str) -> bool:
    """Check whether a rule is about one of *scopes*, and a risk of theirs."""
    catalogue = broker.deciding.policy.catalogue
    risks = (rule.risk,) if isinstance(rule.risk, str) else rule.risk
    # That of several is the highest; a rule of a milder one's is meant as well.
    entries = filter(None, map(catalogue.get, scopes if len(scopes) > 1 else ()))
    if risks and {risk, *(one.risk.value for one in entries)}.isdisjoint(risks):
        return False
    in_group = catalogue.in_group
    return not rule.scopes or any(
        in_group(scope, word) for scope in scopes for word in rule.scopes
    )


def pages_at(broker: Broker, *, here: bool = True) -> str:
    """Return the root of the embedded tenant's approval pages; empty at Auth0.

    Without an address for phones they are for browsers of this machine.

    Args:
        broker: the broker.
        here: whether the caller is on this machine.

    Returns:
        the URL, which ends in a slash.
    """
    if url := broker.settings.tenant.url:  # checked at the start
        return f"{url.rstrip('/')}/"
    port = urlsplit(broker.reaching.tenant.issuer).port
    if broker.reaching.kind != "embedded" or port is None or not here:
        return ""
    return LocalSite(port).url


def owners(broker: Broker, agents: Iterable[AgentId]) -> tuple[str, ...]:
    """Return the owners of *agents*, case-folded, each once."""
    owners_of = map(broker.registry.agent, agents)
    return tuple(dict.fromkeys(one.owner.casefold() for one in owners_of))


def asked_of(
    broker: Broker, scope: str, risk: Risk, agents: Iterable[AgentId]
) -> dict[str, Any]:
    """Return how many people a new step-up asks, and who may not be one of them.

    Args:
        broker: the broker.
        scope: of all its actions, separated by spaces.
        risk: the highest of them.
        agents: the requester and the agents that delegated to it.

    Returns:
        `need`, `owners` and `approvers` of the step-up.
    """
    agents = tuple(agents)
    rules = _needed(broker, scope, risk.value, agents)
    not_by = owners(broker, agents) if rules.no_self else ()
    return {"need": rules.approvals, "owners": not_by, "approvers": rules.approvers}


def with_approval(broker: Broker, stepup: StepUp, evidence: Evidence) -> StepUp:
    """Return *stepup* with one more approval, where several people have to.

    As many as it was asked with, or as the rules say by now.
    """
    rules = needed(broker, stepup)
    need = max(stepup.need, rules.approvals)
    if need == 1:
        return stepup
    return replace(stepup, need=need, confirmed=(*stepup.confirmed, evidence))


def check_person(broker: Broker, stepup: StepUp, identity: Identity) -> None:
    """Refuse who has approved this before, or owns an agent of its chain.

    Raises:
        IdentityError: with the stable reason.
    """
    called = (identity.sub, identity.name, identity.email)
    if is_own(broker, stepup, called):
        owns = "asked for it" if stepup.change else "owns the agent"
        raise IdentityError(
            "own_request",
            f"{visible(identity.name, 60)} {owns} (no_self)",
            "another person has to approve",
        )
    for names in {*stepup.approvers, *needed(broker, stepup).approvers}:
        if not _is_named(identity, names):
            raise IdentityError(
                "not_for_this",
                f"{visible(identity.name, 60)} may not approve this",
                f"only {', '.join(names)} may",
            )
    if identity.sub in {one.sub for one in stepup.confirmed}:
        raise IdentityError(
            "already_approved",
            f"{visible(identity.name, 60)} has approved this already",
            "another person has to as well",
        )


def _is_named(identity: Identity, names: tuple[str, ...]) -> bool:
    """Check whether a rule's approvers name a person, or a group of theirs."""
    groups = set[str]()
    for claim in GROUPS:
        claimed = identity.claims.get(claim)
        listed = claimed if isinstance(claimed, list) else [claimed]
        groups |= {f"{_GROUP}{one}" for one in listed if isinstance(one, str)}
    people = tuple(one for one in names if not one.startswith(_GROUP))
    if groups & {*names}:
        return True
    return bool(people) and is_listed(people, identity.sub, verified_email(identity))


def is_own(broker: Broker, stepup: StepUp, called: Iterable[str | None]) -> bool:
    """Check whether somebody *called* so may not approve: it is their own (no_self)."""
    excluded = set(stepup.owners)
    if needed(broker, stepup).no_self:
        change = stepup.change
        excluded |= (
            {change.sub.casefold(), change.name.casefold()}
            if change
            else set(owners(broker, [stepup.agent_id]))
        )
    return bool(excluded & {one.casefold() for one in called if one})


def check_not_own(broker: Broker, stepup: StepUp, operator: Actor) -> None:
    """Refuse at once the person who asked for a change, where the rules say so.

    Of an agent's step-up the factor shows who approves; see `check_person`.

    Raises:
        RefusedError: it is their own.
    """
    called = (operator.id, operator.name)
    if stepup.change is not None and is_own(broker, stepup, called):
        raise RefusedError(
            "you asked for this change yourself (no_self)",
            "another person has to approve it",
        )


def is_overtaken(broker: Broker, stepup: StepUp, started: StepUp) -> bool:
    """Check whether *stepup* has changed since its device flow began."""
    return (
        not stepup.status.open
        or stepup.digest != started.digest
        or digest_of(stepup) != started.digest
        or stepup.id in broker.stepups.deciding
        or stepup.expires.passed(broker.clock)
    )


async def confirm(broker: Broker, stepup: StepUp, detail: dict[str, Any]) -> bool:
    """Record the last of `confirmed`, one of several; the step-up waits for the rest.

    Returns:
        whether it counts; False when a revocation overtook it.
    """
    last = stepup.confirmed[-1]
    waiting = replace(stepup, status=StepUpStatus.PENDING, device=None, problem=None)
    if broker.stepups.others_approve(stepup.id):  # with codes of their own
        waiting = replace(stepup, problem=None)
    draft = stepup_draft(
        EventType.STEPUP_CONFIRMED,
        Actor(ActorKind.OPERATOR, last.sub, last.name),
        waiting,
        have=len(stepup.confirmed),
        need=stepup.need,
        by=[told_of(one) for one in stepup.confirmed],
        **detail,
    )
    broker.stepups.deciding.add(stepup.id)
    try:
        await broker.record(draft, changes=[waiting])
        now = broker.stepups.get(stepup.id)
        if not now.status.open:
            # The revocation's own row was written before this one.
            over = stepup_draft(EventType.STEPUP_CANCELLED, SYSTEM, now)
            await broker.record_cut(over, changes=[now])
            return False
        broker.stepups.put(replace(waiting, count=now.count))
    finally:
        broker.stepups.deciding.discard(stepup.id)
    if not broker.stepups.others_approve(stepup.id):
        broker.stepups.end_flow(stepup.id)
    return True


def told_of(evidence: Evidence) -> dict[str, object]:
    """Return who approved, as events say it."""
    return {
        "sub": evidence.sub,
        "name": evidence.name,
        "amr": list(evidence.amr),
        "auth_time": iso(evidence.auth_time) if evidence.auth_time else None,
    }


async def end_repeats(
    broker: Broker,
    stepups: list[StepUp],
    actor: Actor,
    reason: str,
    *,
    elsewhere: bool = False,
) -> Kept:
    """End the remaining repeats of *stepups*, in effect before its record.

    Returns:
        where it is durable.
    """
    if ended := broker.stepups.end_repeats(stepups):
        kind = EventType.STEPUP_REPEAT_ENDED
        drafts = [stepup_draft(kind, actor, one, reason=reason) for one in ended]
        return await _record(broker, drafts, ended, elsewhere=elsewhere)
    return Kept.LEDGER


async def _record(
    broker: Broker, drafts: list[Draft], changes: Sequence[Change], *, elsewhere: bool
) -> Kept:
    """Record the ended ones; *elsewhere* all brokers of a team do, and one is first."""
    if not elsewhere:
        return await broker.record_cut(*drafts, changes=changes)
    with suppress(LedgerError):
        await broker.record(*drafts, changes=changes)
    return Kept.LEDGER  # by the broker where it was decided


async def end_gathered(broker: Broker, sub: str, *, elsewhere: bool = False) -> None:
    """End collected approvals of a person who lost the right to approve.

    With it the remaining repeats that the person approved, which would otherwise
    replace a person without rights.

    Args:
        broker: the broker.
        sub: the person.
        elsewhere: whether another broker recorded that.
    """
    theirs = [one for one in broker.stepups.repeating(None) if sub in approved_by(one)]
    await end_repeats(broker, theirs, SYSTEM, "approver_changed", elsewhere=elsewhere)
    await _end_unused(broker, sub, elsewhere=elsewhere)
    for one in broker.stepups.open():
        if one.id in broker.stepups.deciding:
            continue  # `mint_verified` looks once that is recorded
        # Anew: it may have been decided while another was recorded.
        stepup = broker.stepups.get(one.id)
        if not stepup.status.open or sub not in approved_by(stepup):
            continue
        reason = "a person who had approved was changed: all have to approve anew"
        anew = replace(as_pending(stepup, reason), confirmed=())
        broker.stepups.end_flow(stepup.id)
        broker.stepups.put(anew)
        draft = stepup_draft(
            *(EventType.STEPUP_NOT_APPROVED, SYSTEM, anew), reason=reason, have=0
        )
        await _record(broker, [draft], [anew], elsewhere=elsewhere)


async def _end_unused(broker: Broker, sub: str, *, elsewhere: bool) -> None:
    """Cancel approved requests that no agent has used, with their tokens."""
    drafts, changes = list[Draft](), list[Change]()
    for stepup in list(broker.stepups.approved(None)):
        token = broker.registry.elevated(stepup.id)
        if token is None or sub not in approved_by(stepup):
            continue
        if not broker.registry.drop_token(token):
            continue  # it is being redeemed
        ended = replace(
            stepup.repeated_no_more(),
            status=StepUpStatus.CANCELLED,
            decided_at=broker.clock.now(),
            problem="approver_changed",
        )
        broker.stepups.put(ended)
        kind, why = EventType.STEPUP_CANCELLED, ended.problem
        drafts.append(stepup_draft(kind, SYSTEM, ended, reason=why))
        changes += [DropToken(token.id), ended]
    if drafts:
        await _record(broker, drafts, changes, elsewhere=elsewhere)


def approved_by(stepup: StepUp) -> set[str]:
    """Return who has approved it, alone or with others."""
    people = (stepup.decided_by, *stepup.confirmed)
    return {one.sub for one in people if one is not None}


def _still_listed(broker: Broker, person: Evidence) -> bool:
    listed = broker.settings.stepup.approvers
    if not listed:
        return person.by_role
    return is_listed(listed, person.sub, person.email)


async def end_gathered_before(broker: Broker) -> None:
    """End at a start the approvals of people who lost the right while nothing ran.

    Or whom the list of approvers, edited meanwhile, does not name any more.
    """
    waiting = [one for one in broker.stepups.open() if one.confirmed]
    waiting += broker.stepups.repeating(None)
    people = {one for each in waiting for one in (each.decided_by, *each.confirmed)}
    for sub in {one.sub for one in people if one and not _still_listed(broker, one)}:
        await end_gathered(broker, sub)
    first = min((one.requested_at for one in waiting), default=None)
    before: int | None = None
    while first is not None:
        query = EventQuery(
            type=EventType.TENANT_USER_CHANGED, since=first, before=before, limit=100
        )
        page = await broker.ledger.events(query)
        for event in page.events:
            if event.action in CUTTING:
                await end_gathered(broker, str(event.detail.get("sub")))
        before = page.next
        if before is None:
            return
