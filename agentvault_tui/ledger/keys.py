"""The keys that a commit depends on and changes, as compared with other brokers'.

Several brokers decide at once, each from its own memory. A commit is placed only if
nothing placed since it was made wrote one of its keys (optimistic concurrency control).
The keys follow from the drafts and changes alone, so no use-case can forget one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from agentvault_tui.ledger.records import Change
from agentvault_tui.ledger.state import Row
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import (
    Agent,
    AgentId,
    AgentStatus,
    Draft,
    Event,
    EventType,
    Outcome,
    StepUp,
    Token,
)

_GRANTING: Final = frozenset(
    {
        EventType.TOKEN_DELEGATED,
        EventType.TOKEN_DELIVERED,
        EventType.TOKEN_EXCHANGED,
        EventType.TOKEN_REDEEMED,
        EventType.STEPUP_REQUESTED,
        EventType.STEPUP_CONFIRMED,
        EventType.STEPUP_APPROVED,
        EventType.CHANGE_APPLIED,
        EventType.CONNECTION_ADDED,
    }
)
"""Events without an outcome that give an agent something, or are about to."""
_DECIDED: Final = (Outcome.ALLOWED, Outcome.ESCALATED)
_EVERYWHERE: Final = ("meta:panic", "policy", "voided:")
"""The keys that every grant depends on."""


def written_keys(
    records: Iterable[Draft | Event],
    changes: Iterable[Change],
    rows: Iterable[tuple[str, Row]],
) -> set[str]:
    """Return the keys that a commit changes.

    Those of each of its *rows* (see `state.row_of`), and of counts over several. The
    *records* are its drafts, or the events they became.
    """
    # A text is kept under its own digest: whoever writes it writes the same.
    rows, records = list(rows), list(records)
    keys = {_of_row(*pair) for pair in rows if pair[0] != "texts"}
    if any(table == "dropped" for table, _ in rows):
        # Who ends all that an agent holds counts none that ended before.
        keys.update(f"held:{one.agent_id}" for one in records if one.agent_id)
    for change in changes:
        if isinstance(change, Token):
            keys.update(f"held:{one}" for one in (change.agent_id, *change.chain))
            if change.parent_id is not None:
                keys.add(f"children:{change.parent_id}")
        elif isinstance(change, StepUp):
            keys.add(f"pending:{change.agent_id}")
        elif isinstance(change, Agent):
            keys.add(f"name:{fold_text(change.name)}")
            if change.credential.subject and change.status is not AgentStatus.REVOKED:
                keys.add("subjects")  # no two may overlap
    for record in records:
        keys.update(_of_record(record))
    return keys


def keys_of(
    records: Iterable[Draft],
    changes: Iterable[Change],
    rows: Iterable[tuple[str, Row]],
) -> set[str]:
    """Return all keys that a commit depends on, the changed ones included.

    A commit that only reports, such as the end of a call, has none of an agent.
    """
    written = written_keys(records, changes, rows)
    # Two grants to one agent do not meet: these are for whoever ends them.
    keys = {key for key in written if not key.startswith("held:")}
    agents = (one for one in changes if isinstance(one, Agent))
    keys.update(f"agents:{one.from_template}" for one in agents if one.from_template)
    for record in records:
        keys.update(_needed(record))
    for change in changes:
        if isinstance(change, Token):
            for one in (change.agent_id, *change.chain):
                keys.update(_of_agent(one))
            if change.parent_id is not None:
                keys.add(f"tokens:{change.parent_id}")
            if change.stepup_id is not None:
                keys.add(f"stepups:{change.stepup_id}")
        elif isinstance(change, StepUp):
            keys.add(f"meta:cooldown:{change.requester}")
            people = (change.decided_by, *change.confirmed)
            keys.update(f"person:{one.sub}" for one in people if one is not None)
    return keys


def ending_keys(changes: Iterable[Change]) -> Iterator[str]:
    """Yield the keys that an exact end of rights depends on besides (`Ledger.commit`).

    It names the tokens and step-ups of each agent that it takes something from, so none
    may be added before it that it does not name.
    """
    for change in changes:
        if isinstance(change, Agent):
            yield f"held:{change.id}"
            yield f"pending:{change.id}"


def _of_agent(agent_id: AgentId | None) -> Iterator[str]:
    """Yield the keys that whatever is granted to an agent depends on."""
    yield from _EVERYWHERE
    if agent_id is not None:
        yield f"agents:{agent_id}"
        yield f"voided:{agent_id}"


def _needed(record: Draft) -> Iterator[str]:
    """Yield the keys that an event's decision follows from.

    Of a denial not the policy's: it need not wait for another broker's change.
    """
    agent_id = record.agent_id
    if record.outcome in _DECIDED or record.type in _GRANTING:
        yield from _of_agent(agent_id)
        if stepup_id := (record.detail or {}).get("stepup_id"):
            yield f"stepups:{stepup_id}"  # also where it only counts one that waits
    elif record.outcome is Outcome.DENIED:
        yield "meta:panic"
        for kind in ("agents:", "pending:", "meta:cooldown:") if agent_id else ():
            yield f"{kind}{agent_id}"
    if record.type is EventType.GATEWAY_ATTEMPT:
        yield "services"


def _of_record(record: Draft | Event) -> Iterator[str]:
    """Yield the keys of an event's content that no row has."""
    detail = record.detail or {}
    if isinstance(counted := detail.get("counted"), dict):
        yield from (f"limit:{one}" for one in counted.get("limits", ()))
    if record.type is EventType.POLICY_CHANGED:
        yield "policy"
    elif record.type is EventType.SERVICE_CHANGED:
        yield "services"
    elif record.type is EventType.GATEWAY_RESULT:
        yield f"call:{detail.get('call_id')}"
    elif record.type is EventType.TENANT_USER_CHANGED:
        yield f"person:{detail.get('sub')}"


def _of_row(table: str, row: Row) -> str:
    match table:
        case "tokens":
            return f"tokens:{row[1]}"
        case "dropped":
            return f"tokens:{row[0]}"
        case "voided":
            return f"voided:{row[0].partition(' ')[0]}"
        case _:
            return f"{table}:{row[0]}"
