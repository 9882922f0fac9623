"""Decide the recorded history again: by another policy, or by the texts in effect."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter, OrderedDict
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET

from agentvault_tui.broker.usecases.request import NO_SCOPE
from agentvault_tui.clock import parse_iso
from agentvault_tui.ledger.docs import read_agent
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.model import Action, EventType, Money, Outcome, Verdict
from agentvault_tui.operator_api.planning import (
    MismatchInfo,
    PlanInfo,
    PlannedChangeInfo,
    PromptsInfo,
    ReplayInfo,
)
from agentvault_tui.policy import Policy
from agentvault_tui.policy.facts import PARAMETERS, derive
from agentvault_tui.watch.amount_spans import widen
from agentvault_tui.watch.history import (
    INSUFFICIENT,
    Decider,
    KeptPolicies,
    LimitedDecider,
    RecordedDecision,
    bodies,
    records,
)

EXAMPLES: Final = 5
"""Records that are named for each change."""
_WAITS: Final = frozenset({"cooling_down", "too_many_pending"})
"""Refusals of requests that would need a person: another answer of policy ends them."""
NOT_ASKED: Final = "policy was not asked"
"""The agent or everything was stopped, or the like."""
NO_FACTS: Final = "recorded before facts were kept"
_NEWER: Final = frozenset({"amount_major", "destinations"})
"""Facts that records of earlier versions do not have."""
_TRUNCATED: Final = b'"$cut"'
_SHORTENED: Final = "…["
"""In texts and objects that the ledger has shortened; see `ledger.canonical`."""


class Changes:
    """Decisions that would have been otherwise, by agent, scope and outcomes."""

    def __init__(self, changes: list[PlannedChangeInfo]) -> None:
        self._by_change = {
            (c.agent, c.scope, c.was, c.to, c.reason): c for c in changes
        }

    def add(self, record: RecordedDecision, verdict: Verdict) -> str:
        """Count *record* if *verdict* changes its outcome; return the outcome then."""
        to = outcome_by(record, verdict)
        if to != record.outcome:
            why = verdict.reason if verdict.reason == INSUFFICIENT else UNSET
            key = (record.agent_id, record.scope, record.outcome or "", to, why)
            one = self._by_change.get(key)
            if one is None:
                agent, scope, was, *_ = key
                one = PlannedChangeInfo(
                    agent=agent, scope=scope, was=was, to=to, reason=why
                )
                self._by_change[key] = one
            one.count += 1
            if record.has_facts:
                widen(one.amounts, msgspec.json.decode(record.detail.facts))
            if len(one.examples) < EXAMPLES:
                one.examples.append(record.seq)
        return to

    def listed(self) -> list[PlannedChangeInfo]:
        """Return first the requests no longer allowed, and of each the most first."""

        def rank(one: PlannedChangeInfo) -> tuple[bool, int, str, str]:
            return one.was != Outcome.ALLOWED, -one.count, one.agent, one.scope

        return sorted(self._by_change.values(), key=rank)


def outcome_by(record: RecordedDecision, verdict: Verdict) -> str:
    """Return the outcome of *record*, had policy answered *verdict*.

    The broker's own refusals stay refused; an approved request stays allowed where it
    would be allowed or escalated.
    """
    recorded = record.detail.verdict
    if (
        recorded is None
        or recorded.outcome == Outcome.DENIED
        or record.reason == INSUFFICIENT
    ):
        return verdict.outcome
    if record.outcome == Outcome.ALLOWED:
        forbidden = verdict.outcome is Outcome.DENIED
        return Outcome.DENIED if forbidden else Outcome.ALLOWED
    if record.outcome == Outcome.ESCALATED:  # by a call-out, which is not asked again
        forbidden = verdict.outcome is Outcome.DENIED
        return Outcome.DENIED if forbidden else Outcome.ESCALATED
    waits = record.reason in _WAITS or record.actor.kind == "operator"
    allowed = waits and verdict.outcome is Outcome.ALLOWED
    return Outcome.ALLOWED if allowed else Outcome.DENIED


class Prompts:
    """Count the prompts: repeats of a waiting request count once."""

    def __init__(self, lasts: timedelta) -> None:
        """Take it that each step-up waits as long as *lasts*."""
        self.prompts = 0
        self._lasts = lasts
        self._waiting: OrderedDict[bytes, datetime] = OrderedDict()

    def add(self, record: RecordedDecision, to: str) -> bool:
        """Count *record* if *to*, its outcome, needs a person and the same waits not.

        Return whether a person was asked about it.
        """
        escalated = record.outcome == Outcome.ESCALATED
        was_asked = escalated and record.detail.count is None
        if to == Outcome.ESCALATED:
            self.prompts += was_asked if escalated else self._is_new(record)
        return was_asked

    def _is_new(self, record: RecordedDecision) -> bool:
        now = parse_iso(record.time)
        while self._waiting and next(iter(self._waiting.values())) <= now:
            self._waiting.popitem(last=False)
        key = [record.agent_id, record.scope, record.action, record.resource]
        same = hashlib.sha256(json.dumps(key).encode())
        same.update(bytes(record.detail.parameters))
        if same.digest() in self._waiting:
            return False
        self._waiting[same.digest()] = now + self._lasts
        return True


def plan(
    db: sqlite3.Connection,
    candidate: Policy,
    in_force: str,
    *,
    lasts: timedelta,
    since: datetime | None = None,
) -> PlanInfo:
    """Decide the recorded history by *candidate*, in the place of *in_force*.

    Return the different answers, and the number of prompts, if each step-up *lasts* so
    long.
    """
    versions, changes = KeptPolicies(db), Changes([])
    limited = LimitedDecider(candidate) if candidate.limits.limits else None
    decider = limited or Decider(candidate)
    then, prompted, apart = Prompts(lasts), 0, Counter[str]()
    decisions = mismatches = 0
    first = last = ""
    for record in records(db, since, delivered=limited is not None):
        first, last = first or record.time, record.time
        if limited and record.outcome is None:
            limited.delivered(record)
            continue
        again = decided_again(record, versions)
        if again in (NOT_ASKED, NO_FACTS):
            apart[str(again)] += 1
            continue
        decisions += 1
        if isinstance(again, str):
            # The facts are there: what the texts said then is not needed for a plan.
            apart[f"not compared with their own {again}"] += 1
        elif mismatch(record, again):
            mismatches += 1
        to = changes.add(record, decider.answer(record))
        if limited:
            limited.settle(record, to)
        prompted += then.add(record, to)
    days = _days(first, last)
    return PlanInfo(
        digest=candidate.texts.plan_digest(in_force),
        decisions=decisions,
        mismatches=mismatches,
        changes=changes.listed(),
        prompts_per_day=PromptsInfo(now=prompted / days, then=then.prompts / days),
        days=days,
        made=decider.made,
        apart=dict(apart),
    )


def stricter(changes: list[PlannedChangeInfo]) -> bool:
    """Check whether something that was allowed would not be."""
    return any(one.was == Outcome.ALLOWED for one in changes)


def _days(first: str, last: str) -> float:
    if not first:
        return 1.0
    return max((parse_iso(last) - parse_iso(first)) / timedelta(days=1), 1.0)


def replay(db: sqlite3.Connection) -> ReplayInfo:
    """Decide every recorded decision again, under the version that its record names.

    Return how many there were, and the first that does not follow from its facts, whose
    facts are not those of its action, or that cannot be decided again and should.
    """
    result, versions, chain = ReplayInfo(), KeptPolicies(db), _Chain(db)
    for record in records(db):
        again = decided_again(record, versions)
        wrong = chain.wrong(record, again)
        if isinstance(again, Verdict):
            result.decisions += 1
            wrong = wrong or mismatch(record, again)
        elif wrong is None:
            result.apart[again] = result.apart.get(again, 0) + 1
        if wrong is not None:
            result.mismatches += 1
            result.first = result.first or wrong
    result.made = versions.made
    return result


class _Chain:
    """The facts of a decision in the events before it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._has_facts = False
        """Whether decisions are recorded with their facts by now."""
        rows = db.execute("SELECT doc FROM agents")
        self._names: dict[str, str] = {
            one.id: one.name for one in (read_agent(doc) for (doc,) in rows)
        }
        kinds = EventType.BROKER_STARTED, EventType.POLICY_CHANGED
        self._versions = {
            version
            for _, body in bodies(db, kinds, 0, head_seq(db))
            for version in _NAMED.decode(body).detail.versions
        }

    def wrong(
        self, record: RecordedDecision, again: Verdict | str
    ) -> MismatchInfo | None:
        """Return the parts of *record* that contradict the events."""
        if not record.detail.facts:
            # Policy is not asked about who is revoked, nor about a document that the
            # gateway itself fetches for the person who decides.
            refused = record.outcome == Outcome.DENIED
            fetched = record.type == EventType.GATEWAY_ATTEMPT and record.detail.for_
            was_decided = record.rule is not None or not (refused or fetched)
            if not (was_decided and self._has_facts):
                return None
            return _wrong(record, "facts", None, "facts that it was made from")
        self._has_facts = True
        version = record.detail.policy_version
        if self._versions and version not in self._versions:
            return _wrong(record, "policy_version", version, "one that was active")
        if isinstance(again, str):
            return None  # of texts that were not kept, or of another engine
        facts = msgspec.json.decode(record.detail.facts)
        name, name_then = facts["principal"]["name"], self._names.get(record.agent_id)
        if name != name_then:
            return _wrong(record, "agent", name_then, str(name))
        return _not_stated(record, facts)


class _NamedVersions(msgspec.Struct):
    policy_version: str | None = None
    before: str | None = None
    after: str | None = None

    @property
    def versions(self) -> list[str]:
        versions = self.policy_version, self.before, self.after
        return [one for one in versions if one is not None]


class _Naming(msgspec.Struct):
    detail: _NamedVersions = msgspec.field(default_factory=_NamedVersions)


_NAMED: Final = msgspec.json.Decoder(_Naming)


def _not_stated(record: RecordedDecision, facts: dict[str, Any]) -> MismatchInfo | None:
    """Return which fact is not read from action, resource and parameters of a record.

    Unclear values are left out: the record has numbers in one form alone, and long
    values are shortened there.
    """
    scopes = [str(one) for one in facts["scopes"]]
    if scopes[0] != (record.action or ""):
        return _wrong(record, "action", record.action, scopes[0])
    if not {*record.scope.split()} <= {*scopes}:
        return _wrong(record, "scope", record.scope, " ".join(scopes))
    raw = bytes(record.detail.parameters) or b"{}"
    given = msgspec.json.decode(raw)
    if _TRUNCATED in raw or not isinstance(given, dict):
        return None
    money = Money.read(record.detail.money)
    action = Action((), "", record.resource, given, money=money)
    stated = derive(action).context()
    resources = [stated.get("resource")]
    if record.resource == record.detail.resource_indicator:
        resources.append(None)
    for name in sorted(PARAMETERS):
        if name in facts["unclear"] or (name in _NEWER and name not in facts):
            continue
        decided, read = facts.get(name), stated.get(name)
        if name == "resource" and _SHORTENED in (record.resource or ""):
            continue
        if decided not in (resources if name == "resource" else [read]):
            return _wrong(record, name, _text(read), str(_text(decided)))
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def decided_again(record: RecordedDecision, versions: KeptPolicies) -> Verdict | str:
    """Return the verdict of the version that *record* names, or why there is none."""
    if not record.has_facts:
        return NOT_ASKED if record.rule is None else NO_FACTS
    version = record.detail.policy_version or ""
    decider = versions.decider(version)
    if isinstance(decider, str):
        return f"policy {version}: {decider}"
    return decider.decide(record)


def mismatch(record: RecordedDecision, verdict: Verdict) -> MismatchInfo | None:
    """Return the part of *record* that does not follow from *verdict*, if there is one.

    Next to policy the broker may refuse, and a person may allow an escalated request;
    policy's own answer is in the record then, too.
    """
    original = record.detail.verdict or record
    for fact, recorded, decided in (
        ("rule", original.rule or record.rule, verdict.rule),
        ("outcome", original.outcome, verdict.outcome.value),
        ("reason", original.reason, verdict.reason),
    ):
        if recorded != decided:
            return _wrong(record, fact, recorded, decided)
    refused = record.outcome == Outcome.DENIED
    may = verdict.outcome is Outcome.ESCALATED and (
        # A token without a scope says who asks, and a person decides each of its calls.
        record.detail.stepup_id is not None or record.reason == NO_SCOPE
    )
    if record.outcome == verdict.outcome or refused or may:
        return None
    return _wrong(record, "outcome", record.outcome, verdict.outcome.value)


def _wrong(
    record: RecordedDecision, fact: str, recorded: str | None, decided: str
) -> MismatchInfo:
    """Return that *fact* of a record is not as it was decided."""
    return MismatchInfo(seq=record.seq, fact=fact, recorded=recorded, decided=decided)
