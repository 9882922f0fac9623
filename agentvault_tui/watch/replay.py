"""Decide the recorded history under the texts that were in force."""

from __future__ import annotations

import sqlite3
from typing import Final

from agentvault_tui.broker.usecases.request import NO_SCOPE
from agentvault_tui.model import Outcome, Verdict
from agentvault_tui.operator_api.planning import MismatchInfo, ReplayInfo
from agentvault_tui.watch.history import KeptPolicies, RecordedDecision, records

NOT_ASKED: Final = "policy was not asked"
"""The agent or everything was stopped, or the like."""
NO_FACTS: Final = "recorded before facts were kept"


def replay(db: sqlite3.Connection) -> ReplayInfo:
    """Decide every recorded decision again, under the version that its record names.

    Return how many there were, and the first that does not follow from its facts.
    """
    found, versions = ReplayInfo(), KeptPolicies(db)
    for record in records(db):
        again = decided_again(record, versions)
        if isinstance(again, str):
            found.apart[again] = found.apart.get(again, 0) + 1
            continue
        found.decisions += 1
        if wrong := mismatch(record, again):
            found.mismatches += 1
            found.first = found.first or wrong
    found.made = versions.made
    return found


def decided_again(record: RecordedDecision, versions: KeptPolicies) -> Verdict | str:
    """Return the verdict of the version that *record* names, or why there is none."""
    if not has_facts(record):
        return NOT_ASKED if record.rule is None else NO_FACTS
    version = record.detail.policy_version or ""
    decider = versions.decider(version)
    if isinstance(decider, str):
        return f"policy {version}: {decider}"
    return decider.decide(record)


def has_facts(record: RecordedDecision) -> bool:
    """Tell whether policy answered *record*, and its facts were kept."""
    return record.rule is not None and bool(record.detail.facts)


def mismatch(record: RecordedDecision, verdict: Verdict) -> MismatchInfo | None:
    """Return what of *record* does not follow from *verdict*, if anything.

    Beside policy the broker may refuse, and a person may allow what policy escalates;
    policy's own answer is in the record then, too.
    """
    said = record.detail.verdict or record
    for fact, recorded, decided in (
        ("rule", said.rule or record.rule, verdict.rule),
        ("outcome", said.outcome, verdict.outcome.value),
        ("reason", said.reason, verdict.reason),
    ):
        if recorded != decided:
            return _wrong(record, fact, recorded, decided)
    refused = record.outcome == Outcome.DENIED
    may = verdict.outcome is Outcome.ESCALATED and (
        # A token without a scope says who asks, and a person decides each of its calls.
        approved(record) or record.reason == NO_SCOPE
    )
    if record.outcome == verdict.outcome or refused or may:
        return None
    return _wrong(record, "outcome", record.outcome, verdict.outcome.value)


def approved(record: RecordedDecision) -> bool:
    """Tell whether *record* names the step-up under which it was allowed."""
    return record.detail.stepup_id is not None


def _wrong(
    record: RecordedDecision, fact: str, recorded: str | None, decided: str
) -> MismatchInfo:
    return MismatchInfo(seq=record.seq, fact=fact, recorded=recorded, decided=decided)
