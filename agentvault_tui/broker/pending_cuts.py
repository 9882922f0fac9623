"""Revocations that are not recorded yet, and their entries in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from agentvault_tui.clock import iso
from agentvault_tui.ledger import (
    CAPACITY,
    Change,
    Cooldown,
    DropAccount,
    DropToken,
    KeptCut,
    Panic,
    encode_cuts,
)
from agentvault_tui.ledger.docs import write_cooldown
from agentvault_tui.model import (
    Account,
    Actor,
    ActorKind,
    Agent,
    AgentId,
    AgentStatus,
    Draft,
    EventType,
    StepUp,
    StepUpStatus,
    TokenId,
)
from agentvault_tui.model.ids import holder_of

_WORDS: Final = 200
_NOBODY: Final = Actor(ActorKind.SYSTEM, "broker", "broker")
OVERFLOW: Final = "more was cut than the journal keeps singly"


class Decided(NamedTuple):
    """The ends to record."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]


Decide = Callable[[], Decided | None]
"""Ends rights in memory, and returns all that is to be recorded of it, or None.

It is called again after each time that other brokers' writes were followed before its
own record was placed: it then ends the rights that they added, and counts nothing
twice. It raises ConflictError where another decision was first.
"""


@dataclass(eq=False, slots=True)
class Pending:
    """A cut in effect, on its way to the ledger."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]
    agent_id: AgentId | None
    since: int
    """The ledger's head when it took effect."""
    at: datetime
    decide: Decide | None = None
    """Finds its ends again; None if these are fixed."""
    sent: list[Draft] = field(default_factory=list)
    """All events that may have been sent for it."""

    def decide_again(self) -> bool:
        """Find its ends now; return whether there are any.

        Raises:
            ConflictError: another decision was first.
        """
        if self.decide is not None:
            self.drafts, self.changes = self.decide() or ((), ())
            self.sent += self.drafts
        return bool(self.drafts or self.changes)


def deduplicated(cuts: Iterable[KeptCut]) -> list[KeptCut]:
    """Return *cuts* without repetitions, so that the journal holds them.

    Where they are too many, an agent's become its revocation, and where even those
    are, a panic goes first.
    """
    latest: dict[object, KeptCut] = {}
    for entry in cuts:
        latest.setdefault(entry.key, entry)
    listed = list(latest.values())
    if len(encode_cuts(listed)) <= CAPACITY:
        return listed
    if panics := [entry for entry in listed if entry.kind == "panic"]:
        listed = [entry for entry in listed if entry.kind not in {"token", "stepup"}]
        if len(encode_cuts(listed)) <= CAPACITY:
            return listed
    short = {
        entry.agent: KeptCut(
            "revoke", entry.at, entry.by, entry.since, entry.agent, why=OVERFLOW
        )
        for entry in listed
        if entry.agent
    }
    fewer = [*panics, *short.values()]
    if len(encode_cuts(fewer)) <= CAPACITY:
        return fewer
    first = listed[0]
    why = (
        "more agents were cut off than the journal holds: look at each before restoring"
    )
    stop = panics[:1] or [KeptCut("panic", first.at, first.by, first.since)]
    room = CAPACITY // len(encode_cuts(fewer[-1:])) * 3 // 4
    return [replace(stop[0], why=why), *list(short.values())[:room]]


def kept_cuts(pending: Pending) -> Iterator[KeptCut]:
    """Yield the parts of *pending* that make an answer stricter.

    A panic or a revocation ends tokens and step-ups, so those are left out next to one.
    """
    entries = [
        entry for one in pending.changes if (entry := _entry(pending, one)) is not None
    ]
    wide = {
        entry.agent for entry in entries if entry.kind in {"revoke", "ungrant", "panic"}
    }
    for entry in entries:
        if entry.kind not in {"token", "stepup"} or not wide & {entry.agent, ""}:
            yield entry


def _entry(pending: Pending, change: Change) -> KeptCut | None:
    match change:
        case Panic(on=True):
            by = Actor(_actor(pending).kind, _actor(pending).id, change.by)
            return _make_entry(pending, "panic", by=by, why=change.reason)
        case Agent(status=AgentStatus.REVOKED):
            drafts = (d for d in pending.drafts if d.type is EventType.AGENT_REVOKED)
            why = next((draft.reason or "" for draft in drafts), "")
            return _make_entry(pending, "revoke", change.id, why=why)
        case Agent():
            return _narrowed(pending, change)
        case DropToken():
            agent = _holder(pending, change.token_id)
            return _make_entry(pending, "token", agent, ident=change.token_id)
        case StepUp() if not change.status.open and (
            change.status in _ENDED or change.repeat is not None
        ):
            why = change.denial or change.problem or ""
            return _make_entry(
                pending,
                "stepup",
                change.agent_id,
                ident=change.id,
                status=change.status.value,
                why=why,
            )
        case Account(removing=True):
            ident = f"{change.id} {change.connection}"
            return _make_entry(pending, "account", change.agent_id, ident=ident)
        case DropAccount():
            ident = f" {change.connection}"
            return _make_entry(pending, "account", change.agent_id, ident=ident)
        case Cooldown() if (doc := write_cooldown(change)) is not None:
            holder = holder_of(change.requester)
            ident = change.requester
            return _make_entry(pending, "cooldown", holder, ident=ident, status=doc)
        case _:
            return None


def _narrowed(pending: Pending, agent: Agent) -> KeptCut | None:
    if scopes := _taken(pending, agent):
        return _make_entry(pending, "ungrant", agent.id, scopes=scopes)
    details = (draft.detail for draft in pending.drafts)
    if (ended := next((one for one in details if "undelegated" in one), None)) is None:
        return None
    to, taken = ended["delegate_to"], tuple(ended["undelegated"])
    return _make_entry(pending, "undelegate", agent.id, ident=to, scopes=taken)


def _holder(pending: Pending, token_id: TokenId) -> AgentId:
    """Return the token's agent: with one, others of other agents may have ended."""
    named = (d.agent_id for d in pending.drafts if d.detail.get("token_id") == token_id)
    return next(named, None) or pending.agent_id or AgentId("")


_ENDED: Final = frozenset(
    (StepUpStatus.DENIED, StepUpStatus.CANCELLED, StepUpStatus.REDEEMED)
)
"""An expired step-up expires again after a start."""


def _make_entry(
    pending: Pending,
    kind: str,
    agent: AgentId | str = "",
    *,
    ident: str = "",
    scopes: tuple[str, ...] = (),
    status: str = "",
    why: str = "",
    by: Actor | None = None,
) -> KeptCut:
    actor = by or _actor(pending)
    return KeptCut(
        kind,
        iso(pending.at),
        (actor.kind.value, actor.id[:_WORDS], actor.name[:_WORDS]),
        pending.since,
        agent,
        ident,
        scopes,
        status,
        why[:_WORDS],
    )


def _actor(pending: Pending) -> Actor:
    return pending.drafts[0].actor if pending.drafts else _NOBODY


def _taken(pending: Pending, agent: Agent) -> tuple[str, ...]:
    return tuple(
        scope
        for draft in pending.drafts
        if draft.type is EventType.AGENT_SCOPES_CHANGED and draft.agent_id == agent.id
        for scope in draft.detail.get("ungranted", ())
    )
