"""Put another policy in effect: record it, store it, and check live tokens again.

The ledger stores the active policy, so that a missing or broken file at a start does
not bring a milder policy back; the chain has its digest. A token that the policy in
effect would not issue ends. Until one has been looked at it is looked at when it is
asked for; `recheck` goes through the others in small steps.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from agentvault_tui.broker.audience import audiences_of
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.policy_files import (
    changed,
    kept_policy,
    load_policy,
    read_texts,
    write_texts,
)
from agentvault_tui.broker.riders import by_file, policy_changes, policy_kinds
from agentvault_tui.broker.stepups import stepup_draft
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.broker.uses import revoked_draft
from agentvault_tui.errors import LedgerError, PolicyError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change, DropToken, EventQuery, KeptText, Ledger, Meta
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import (
    DETAIL_TYPE,
    Action,
    Actor,
    Agent,
    Draft,
    EventType,
    Outcome,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    Verdict,
)
from agentvault_tui.policy import Policy, PolicyTexts, only_tightens

POLICY_CHANGED: Final = "policy_changed"
"""The reason of a token that a changed policy would not issue."""
POLICY: Final = "policy"
"""The name in the ledger of version and texts of the active policy, for a start."""
_CHECKED: Final = "policy_checked"
APPLYING: Final = "policy_applying"
"""Set from the record of an applied policy until its files are written: the digest of
the files before."""
_A_TURN: Final = 8
"""Tokens decided in one turn of the event loop: at most 3 ms."""
_A_RECORD: Final = 64
"""Ended tokens recorded in one transaction."""
_RETRY: Final = 0.5

log = logging.getLogger("agentvault.policy")


async def policy_at_start(home: Home, ledger: Ledger) -> tuple[Policy, str | None]:
    """Return the policy to start with, and the problem of the files, if there is one.

    Raises:
        PolicyError: the files cannot be put in effect, and there was no earlier policy;
            or it is gone, and its copy is not the one in the chain.
    """
    stored = await _stored_texts(home, ledger)
    if stored is not None and ledger.shared is not None:
        # An edit of this home's files counts once it is compared; see `TeamFiles`.
        return kept_policy(home, stored), None
    if stored is not None and (unwritten := await _finish_apply(home, ledger, stored)):
        return kept_policy(home, stored), unwritten
    try:
        return load_policy(home, stored or PolicyTexts()), None
    except PolicyError as error:
        if stored is None:
            raise
        try:
            last = kept_policy(home, stored)
        except PolicyError:
            raise error from None
        log.warning("the policy before stays in force: %s", error.diagnosis())
        return last, error.diagnosis()


async def _stored_texts(home: Home, ledger: Ledger) -> PolicyTexts | None:
    """Return the texts of the last active policy, if they are the chain's."""
    named = await _named(ledger)
    if not named:
        return None
    _, texts = read_kept(await ledger.read(read_meta, POLICY))
    if texts.digest() == named:
        return texts
    now = read_texts(home)
    if now.digest() != named and None in now[: 3 if texts.limits is not None else 2]:
        raise PolicyError(
            "the policy that was in force is gone, and its copy in the ledger is not"
            " the one that was recorded",
            "put its files back, or write the shipped ones: agentvault policy init",
        )
    return None


def last_texts(home: Home) -> PolicyTexts:
    """Return the texts of the policy that was active last, as far as *home* knows."""
    with suppress(LedgerError):
        if home.database.exists():
            with read_home(home) as db:
                return read_kept(read_meta(db, POLICY))[1]
    return PolicyTexts()


async def _finish_apply(home: Home, ledger: Ledger, texts: PolicyTexts) -> str | None:
    """Write the files that `apply_policy` recorded, if the process ended before.

    Files that were changed since are left as they are.

    Returns:
        why they cannot be written, if that is so.
    """
    before = await ledger.read(read_meta, APPLYING)
    if before is None:
        return None
    if before == read_texts(home).digest() and (problem := write_texts(home, texts)):
        return problem
    await ledger.commit(changes=[Meta(APPLYING, None)])
    return None


async def _named(ledger: Ledger, *, started: bool = True) -> str:
    """Return the digest of the policy that events name last, or nothing.

    Args:
        ledger: of which broker.
        started: whether one that started after the last change is asked as well, and
            not only where nothing was changed yet.
    """
    named: tuple[int, str] = (0, "")
    for kind in (EventType.POLICY_CHANGED, EventType.BROKER_STARTED):
        if named[1] and not started:
            break
        page = await ledger.events(EventQuery(type=kind, limit=1))
        for event in page.events:
            if digest := event.detail.get("policy_sha256"):
                named = max(named, (event.seq, str(digest)))
    return named[1]


def read_kept(value: str | None) -> tuple[str | None, PolicyTexts]:
    """Return version and texts of the copy in the ledger, nothing of a broken one."""
    try:
        stored = json.loads(value or "{}")
        version = stored.pop("version")
        # Rows of earlier versions have no limits or own scopes.
        return version, PolicyTexts(
            stored.pop("policy"), stored.pop("scopes"), **stored
        )
    except (ValueError, TypeError, LookupError):
        return None, PolicyTexts()


async def take_over_policy(broker: Broker) -> None:
    """Look again at tokens that the last process issued under another policy.

    The copy is outside the chain: one that is not as named counts as unknown.
    """
    deciding = broker.deciding
    broker.registry.admits = partial(admits, broker)
    named = await _named(broker.ledger)
    version, texts = read_kept(broker.recording.meta.get(POLICY))
    same = not named or texts.digest() == named
    if broker.team.files is not None:
        broker.team.files.on_policy = partial(_edited, broker)
        if named and same:
            broker.team.put_policy(texts)
    deciding.state.recorded = version if same else "unknown"
    if named and same and texts != deciding.policy.texts:
        # Edited while nothing ran: the last policy is active while the edit is judged.
        last, edited = kept_policy(broker.home, texts), deciding.policy
        deciding.policy = last
        if await deciding.state.hold(last, edited):
            last.seen = edited.seen
        else:
            deciding.policy = edited
    deciding.limits.define(deciding.policy.limits)
    if not same or broker.recording.meta.get(_CHECKED) != deciding.policy.version:
        _begin_recheck(broker)


async def reload_policy(broker: Broker) -> None:
    """Put changed files in effect, unless `TeamFiles` compares them.

    If they cannot be used, the active policy stays.

    Args:
        broker: the broker; its files are read.
    """
    if broker.team.files is None and changed(broker.deciding.policy, broker.home):
        await _reload(broker)


async def _edited(broker: Broker, texts: PolicyTexts, problem: str | None) -> None:
    """Put this home's files in effect, unless one of them has a problem."""
    deciding = broker.deciding
    state, now = deciding.state, deciding.policy
    if problem is not None or texts == now.texts:
        await _undo(broker)
    if problem is not None:
        if problem != state.problem:
            state.problem, state.refused = problem, None
            broker.health.changed()
    elif texts not in {
        state.refused,
        None if state.problem else deciding.policy.texts,
    }:
        await _reload(broker, texts)


async def _undo(broker: Broker) -> None:
    """Cancel the change of an edit that the files do not have any more."""
    deciding = broker.deciding
    if deciding.state.held:
        deciding.state.refused = None
        await deciding.state.hold(deciding.policy, deciding.policy)


async def _reload(broker: Broker, texts: PolicyTexts | None = None) -> None:
    deciding = broker.deciding
    last = deciding.policy
    try:
        # In a thread: it takes about as long as fifty decisions.
        policy = await asyncio.to_thread(load_policy, broker.home, last.texts, texts)
    except PolicyError as error:
        await _undo(broker)
        deciding.state.problem = error.diagnosis()
        deciding.state.refused = texts
        log.warning("policy not reloaded: %s", deciding.state.problem)
        broker.health.changed()
        return
    if await deciding.state.hold(last, policy):
        # Read again once the files are changed, or if no change waits for a person.
        waits = deciding.state.held is not None
        last.seen = policy.seen if waits else ()
        deciding.state.problem = None
        deciding.state.refused = texts if waits else None
    elif deciding.policy is last:
        await _put_in_force(broker, policy, SYSTEM)
    else:  # another policy came meanwhile: the edit was not compared with it
        deciding.policy.seen = ()


def switch_policy(broker: Broker, policy: Policy) -> None:
    """Decide by *policy* from now on, and look at live tokens again."""
    deciding = broker.deciding
    changed = policy.version != deciding.policy.version
    if deciding.state.recorded is None:
        deciding.state.recorded = deciding.policy.version
    deciding.policy = policy
    deciding.state.problem = deciding.state.refused = None
    deciding.limits.define(policy.limits)
    if changed:
        _begin_recheck(broker)


async def follow_policy(broker: Broker, value: str) -> None:
    """Put in effect here the policy that another broker recorded.

    The record of it and the policy itself change in one turn of the event loop.

    Args:
        broker: the broker.
        value: version and texts, as `copy_of` writes them.
    """
    version, texts = read_kept(value)
    policy: Policy | None = None
    if texts != broker.deciding.policy.texts:
        if texts.digest() != await _named(broker.ledger, started=False):
            broker.ledger.distrust("has a policy in force that no event names")
            return
        try:
            # In a thread: it takes about as long as fifty decisions.
            policy = await asyncio.to_thread(kept_policy, broker.home, texts)
        except PolicyError as error:
            why = error.diagnosis()
            broker.ledger.distrust(f"names a policy that is none here: {why}")
            return
    broker.deciding.state.recorded = version
    broker.recording.meta[POLICY] = value
    broker.team.put_policy(texts)
    if policy is not None:
        switch_policy(broker, policy)
        broker.health.changed()


async def _put_in_force(broker: Broker, policy: Policy, actor: Actor) -> None:
    # In force before its record: a tightened policy must not wait for the disk.
    switch_policy(broker, policy)
    try:
        await keep_policy(broker, actor=actor)
    except LedgerError as error:
        log.warning("the change of policy is recorded later: %s", error.what)
    broker.health.changed()


async def keep_policy(broker: Broker, *, actor: Actor = SYSTEM) -> None:
    """Record which policy is in effect, and that all tokens were looked at."""
    drafts, changes = policy_record(broker, actor)
    if drafts or changes:
        await broker.record(*drafts, changes=changes, urgent=True)
        policy_is_recorded(broker, changes)


def policy_record(
    broker: Broker, actor: Actor = SYSTEM
) -> tuple[list[Draft], list[Change]]:
    """Return the record of the active policy that the ledger lacks."""
    deciding = broker.deciding
    policy, drafts = deciding.policy, list[Draft]()
    before, after = deciding.state.recorded, policy.version
    copy = copy_of(policy)
    metas = [copy]
    if deciding.state.checked is None:
        metas.append(Meta(_CHECKED, after))
    changes: list[Change] = [
        one for one in metas if broker.recording.meta.get(one.key) != one.value
    ]
    # Also where the rules are the same: the chain names what the files said.
    record = broker.recording.meta.get(POLICY)
    moved = record is not None and before == after and record != copy.value
    if moved or (before is not None and before != after):
        more = _by_file(broker) if actor is SYSTEM else {}
        draft, texts = changed_draft(broker, policy, actor, more)
        drafts.append(draft)
        changes += texts
    return drafts, changes


def _by_file(broker: Broker) -> dict[str, Any]:
    """Return the detail of an edit's event, against the last record."""
    _, before = read_kept(broker.recording.meta.get(POLICY))
    changed = policy_changes(before, broker.deciding.policy.texts)
    if not changed:
        return {}  # such as a version of ours that reads the same text otherwise
    try:
        tightens = only_tightens(
            kept_policy(broker.home, before), broker.deciding.policy
        )
    except PolicyError:
        tightens = False  # Unknown makes an answer stricter.
    return by_file(() if tightens else policy_kinds(changed), *changed)


def changed_draft(
    broker: Broker, policy: Policy, actor: Actor, more: Mapping[str, object]
) -> tuple[Draft, list[KeptText]]:
    """Return the event that *policy* is in effect, and the texts that it names.

    *more* has further members of the event.
    """
    before = broker.deciding.state.recorded
    texts, named = kept_texts(policy)
    granted = {scope for agent in broker.registry.agents() for scope in agent.scopes}
    missing = [name for name in granted if name not in policy.catalogue]
    detail = {
        "before": before,
        "after": policy.version,
        "source": policy.source,
        **named,
        # Scopes that agents were granted and the catalogue lacks.
        "orphaned": sorted(missing)[:100],
        **more,
    }
    reason = f"{before} to {policy.version}"
    draft = Draft(EventType.POLICY_CHANGED, actor, reason=reason, detail=detail)
    return draft, texts


def copy_of(policy: Policy) -> Meta:
    """Return version and texts of *policy* as the ledger keeps them for a start."""
    record = {"version": policy.version, **policy.texts._asdict()}
    return Meta(POLICY, json.dumps(record, ensure_ascii=False))


def kept_texts(policy: Policy) -> tuple[list[KeptText], dict[str, object]]:
    """Return the texts of *policy* to store, and the event's names of them."""
    texts = {name: KeptText(one) for name, one in policy.texts.effective().items()}
    digests = {name: one.sha256 for name, one in texts.items()}
    named = policy.texts.digest()
    return list(texts.values()), {"policy_sha256": named, "texts": digests}


def policy_is_recorded(broker: Broker, changes: Sequence[Change]) -> None:
    """Note that the ledger has, or is about to have, the rows of `policy_record`."""
    broker.deciding.state.recorded = broker.deciding.policy.version
    metas = [one for one in changes if isinstance(one, Meta)]
    values = {one.key: one.value for one in metas if one.value is not None}
    broker.recording.meta.update(values)
    if POLICY in values:
        broker.team.put_policy(read_kept(values[POLICY])[1])


def _begin_recheck(broker: Broker) -> None:
    state = broker.deciding.state
    state.unchecked = broker.registry.token_hashes()
    state.checked = set() if state.unchecked else None
    if state.unchecked:
        state.due.set()


def admits(broker: Broker, token: Token) -> bool:
    """Check whether the policy in effect lets a live token be; end it if not."""
    checked = broker.deciding.state.checked
    if checked is None or token.sha256 in checked:
        return True
    checked.add(token.sha256)
    return still_issued(broker, token)


def still_issued(broker: Broker, token: Token) -> bool:
    """Check whether the policy in effect would issue *token*; end it if not."""
    if _would_issue(broker, token):
        return True
    if broker.registry.drop_token(token):
        broker.deciding.state.outdated += [token, *broker.end_below([token])]
        broker.deciding.state.due.set()
    return False


def _would_issue(broker: Broker, token: Token) -> bool:
    """Decide the token's action again; an approved one can only be forbidden."""
    agent = broker.registry.agent(token.agent_id)
    if not token.scope:
        return not_denied(broker, agent, token.source) is not None
    if token.stepup_id is None:
        principal, action = token.principal(agent), action_of(broker, token)
        chain = token.chain
        verdict = foresee(
            broker, principal, action, token.source, chain=chain, exempt=True
        )
        return verdict.outcome is Outcome.ALLOWED
    stepup = broker.stepups.find(token.stepup_id)
    if stepup is None:
        return False
    # What is out was counted: a limit that is reached since ends no token.
    verdict = foresee(broker, agent, stepup.requested, stepup.source, exempt=True)
    return verdict.outcome is not Outcome.DENIED


def not_denied(broker: Broker, agent: Agent, source: str | None) -> Verdict | None:
    """Return policy's answer about a scope of *agent* that it does not deny."""
    for scope in agent.scopes:
        if scope in broker.deciding.policy.catalogue:
            action = Action((scope,), scope)
            verdict = foresee(broker, agent, action, source, exempt=True)
            if verdict.outcome is not Outcome.DENIED:
                return verdict
    return None


def action_of(broker: Broker, token: Token) -> Action:
    """Return the action of a token, from the resource servers' view of it.

    Args:
        broker: the broker.
        token: the token.

    Returns:
        the action as policy decides about it.
    """
    details: list[dict[str, Any]] = json.loads(token.authorization_details or "[]")
    ours = next((one for one in details if one.get("type") == DETAIL_TYPE), {})
    scopes = tuple(token.scope.split())
    audience = audiences_of(token.resource, broker.admitting.url)
    return Action(
        scopes,
        ours.get("action", scopes[0] if scopes else ""),
        ours.get("resource", None if audience else token.resource),
        ours.get("parameters") or {},
        named="action" in ours or len(scopes) == 1,
    )


async def recheck(broker: Broker) -> None:
    """Look at all live tokens again whenever the policy changed; until cancelled."""
    while True:
        await broker.deciding.state.due.wait()
        broker.deciding.state.due.clear()
        await recheck_tokens(broker)


async def recheck_tokens(broker: Broker) -> None:
    """Look at the live tokens that were issued under another policy, a few a turn."""
    state = broker.deciding.state
    while state.unchecked or state.outdated:
        for _ in range(min(_A_TURN, len(state.unchecked))):
            broker.registry.token(state.unchecked.pop())  # asks `admits`
        full = len(state.outdated) >= _A_RECORD
        if state.outdated and (full or not state.unchecked):
            await _record_outdated(broker)
        await asyncio.sleep(0)
    state.checked = None
    try:
        await keep_policy(broker)
    except LedgerError as error:
        log.warning("that tokens were rechecked is recorded later: %s", error.what)


def _ended_approval(broker: Broker, stepup_id: StepUpId) -> tuple[Draft, StepUp] | None:
    stepup = broker.stepups.find(stepup_id)
    if stepup is None or stepup.status is not StepUpStatus.APPROVED:
        return None
    ended = replace(stepup, status=StepUpStatus.CANCELLED, problem=POLICY_CHANGED)
    kind = EventType.STEPUP_CANCELLED
    return stepup_draft(kind, SYSTEM, ended, reason=POLICY_CHANGED), ended


async def _record_outdated(broker: Broker) -> None:
    """Record the next tokens that ended, and the approvals they came from."""
    batch = broker.deciding.state.outdated[:_A_RECORD]
    drafts: list[Draft] = []
    changes: list[Change] = []
    for token in batch:
        if token.stepup_id and (ended := _ended_approval(broker, token.stepup_id)):
            drafts.append(ended[0])
            changes.append(ended[1])
        changes.append(DropToken(token.id))
        drafts.append(revoked_draft(token, SYSTEM, POLICY_CHANGED))
    try:
        await broker.record(*drafts, changes=changes)
    except LedgerError as error:
        log.warning("tokens ended by a policy are recorded later: %s", error.what)
        await asyncio.sleep(_RETRY)
    else:
        del broker.deciding.state.outdated[: len(batch)]
        for change in changes:
            if isinstance(change, StepUp):
                broker.stepups.put(change)
