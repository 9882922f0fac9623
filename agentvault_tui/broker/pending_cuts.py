"""Cuts that are not recorded yet, and what of them the cut journal keeps."""

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
    """What ends, as it is to be recorded."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]


Decide = Callable[[], Decided | None]
"""Ends rights in memory, and returns all that is to be recorded of it, or None.

It is called again each time that others' writes were followed before its own record was
placed: it then ends what they added, and counts nothing twice. It raises ConflictError
where another decision was first.
"""


@dataclass(eq=False, slots=True)
class Pending:
    """A cut in force, on its way to the ledger."""

    drafts: tuple[Draft, ...]
    changes: tuple[Change, ...]
    agent_id: AgentId | None
    since: int
    """The ledger's head when it took effect."""
    at: datetime
    decide: Decide | None = None
    """Finds out again what it ends; None where that is fixed."""
    sent: list[Draft] = field(default_factory=list)
    """All events that may have been sent for it."""

    def decide_again(self) -> bool:
        """Find out what it ends now; tell whether there is anything.

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
    known: dict[object, KeptCut] = {}
    for cut in cuts:
        known.setdefault(cut.key, cut)
    listed = list(known.values())
    if len(encode_cuts(listed)) <= CAPACITY:
        return listed
    if panics := [cut for cut in listed if cut.kind == "panic"]:
        listed = [cut for cut in listed if cut.kind not in {"token", "stepup"}]
        if len(encode_cuts(listed)) <= CAPACITY:
            return listed
    short = {
        cut.agent: KeptCut("revoke", cut.at, cut.by, cut.since, cut.agent, why=OVERFLOW)
        for cut in listed
        if cut.agent
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
    """Yield what of *pending* makes an answer stricter.

    A panic or a revocation ends tokens and step-ups, so those are left out beside one.
    """
    found = [cut for one in pending.changes if (cut := _cut(pending, one)) is not None]
    wide = {cut.agent for cut in found if cut.kind in {"revoke", "ungrant", "panic"}}
    for cut in found:
        if cut.kind not in {"token", "stepup"} or not wide & {cut.agent, ""}:
            yield cut


def _cut(pending: Pending, change: Change) -> KeptCut | None:
    match change:
        case Panic(on=True):
            by = Actor(_actor(pending).kind, _actor(pending).id, change.by)
            return _kept(pending, "panic", by=by, why=change.reason)
        case Agent(status=AgentStatus.REVOKED):
            drafts = (d for d in pending.drafts if d.type is EventType.AGENT_REVOKED)
            why = next((draft.reason or "" for draft in drafts), "")
            return _kept(pending, "revoke", change.id, why=why)
        case Agent():
            return _narrowed(pending, change)
        case DropToken():
            agent = _holder(pending, change.token_id)
            return _kept(pending, "token", agent, ident=change.token_id)
        case StepUp() if not change.status.open and (
            change.status in _ENDED or change.repeat is not None
        ):
            why = change.denial or change.problem or ""
            return _kept(
                pending,
                "stepup",
                change.agent_id,
                ident=change.id,
                status=change.status.value,
                why=why,
            )
        case Account(removing=True):
            ident = f"{change.id} {change.connection}"
            return _kept(pending, "account", change.agent_id, ident=ident)
        case DropAccount():
            ident = f" {change.connection}"
            return _kept(pending, "account", change.agent_id, ident=ident)
        case Cooldown() if (doc := write_cooldown(change)) is not None:
            holder = holder_of(change.requester)
            ident = change.requester
            return _kept(pending, "cooldown", holder, ident=ident, status=doc)
        case _:
            return None


def _narrowed(pending: Pending, agent: Agent) -> KeptCut | None:
    if scopes := _taken(pending, agent):
        return _kept(pending, "ungrant", agent.id, scopes=scopes)
    told = (draft.detail for draft in pending.drafts)
    if (ended := next((one for one in told if "undelegated" in one), None)) is None:
        return None
    to, taken = ended["delegate_to"], tuple(ended["undelegated"])
    return _kept(pending, "undelegate", agent.id, ident=to, scopes=taken)


def _holder(pending: Pending, token_id: TokenId) -> AgentId:
    """Return whose token ended: with one, others of other agents may have."""
    named = (d.agent_id for d in pending.drafts if d.detail.get("token_id") == token_id)
    return next(named, None) or pending.agent_id or AgentId("")


_ENDED: Final = frozenset(
    (StepUpStatus.DENIED, StepUpStatus.CANCELLED, StepUpStatus.REDEEMED)
)
"""An expired step-up expires again after a start."""


def _kept(
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
