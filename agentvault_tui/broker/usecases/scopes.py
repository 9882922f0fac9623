"""Change an agent: its scopes, the scopes it serves, and its client secret."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.pending_cuts import Decided
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.usecases.change_basis import changes_about
from agentvault_tui.broker.usecases.ending import Cancelling, InForce, unused
from agentvault_tui.broker.usecases.register import (
    Registered,
    check_resources,
    check_scopes,
    ending_detail,
)
from agentvault_tui.broker.usecases.revoke import (
    FAILED,
    agent_draft,
    record_change,
)
from agentvault_tui.errors import ConflictError, LedgerUnwritableError
from agentvault_tui.ledger import DropScopeTokens, Meta
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    Credential,
    Draft,
    EventType,
    StepUp,
    Token,
    new_secret,
    sha256_hex,
)
from agentvault_tui.text import visible


class ChangedRights(NamedTuple):
    """An agent with changed rights, and the tokens that ended with removed rights."""

    agent: Agent
    calls: CallsCut
    delegated: int
    """Tokens that ended because they were exchanged for its own."""
    durability: Kept
    """The place where the removal is durable."""


class Timing(NamedTuple):
    """When granted scopes end, as a part of the record of the grant."""

    rows: Sequence[Meta]
    """Small values that the grant changes."""
    detail: Mapping[str, object]
    """Members of the event's detail."""
    reason: str | None


def _untimed(_: Agent) -> Timing | None:
    return None


async def change_scopes(
    broker: Broker,
    agent_id: str,
    grant: frozenset[str],
    ungrant: frozenset[str],
    operator: Actor,
    *,
    timing: Callable[[Agent], Timing | None] = _untimed,
    check: Callable[[], Awaitable[None]] | None = None,
) -> ChangedRights:
    """Give and take scopes; taking one away ends live tokens and calls under it.

    Removed rights have a separate record: a grant next to it may fail, and then the
    revocation is stored for later all the same.

    Args:
        broker: the broker.
        agent_id: the agent.
        grant: scopes to give.
        ungrant: scopes to take away.
        operator: who decided.
        timing: returns the change of the ends of scopes to give, if there is one.
        check: raises if they may not be given, by decisions recorded until then.

    Returns:
        the agent as it is now, and the ended rights.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it was revoked while the grant was being recorded.
        LedgerUnwritableError: a grant could not be recorded; removed rights ended all
            the same.
    """
    agent = await broker.look_up(lambda: broker.registry.agent(agent_id))
    durability, below = Kept.LEDGER, 0
    async with ungranting(broker, agent, ungrant, operator) as (calls, in_force):
        if in_force is not None:
            below = len(in_force.below)
            durability = await in_force.record(broker, operator)
    narrowed = broker.registry.agent(agent_id)
    if not grant - set(narrowed.scopes) and timing(narrowed) is None:
        return ChangedRights(narrowed, calls, below, durability)
    if durability is not Kept.LEDGER:
        # A grant written before it would be undone by the cut's own record.
        raise LedgerUnwritableError(
            "what was taken away is not on disk yet, so nothing was granted",
            "grant again when the ledger can write",
        )
    change = broker, narrowed, grant, operator, timing
    given = await decide_anew(lambda: _grant(*change, check=check))
    return ChangedRights(given, calls, below, durability)


@asynccontextmanager
async def ungranting(
    broker: Broker, agent: Agent, ungrant: frozenset[str], operator: Actor
) -> AsyncIterator[tuple[CallsCut, InForce | None]]:
    """Take scopes away in memory; in the block no token with one of them lives.

    Yields:
        the cancelled calls, and the function that finds the record; None if nothing
        ended.
    """
    if not ungrant:
        yield CallsCut(), None
        return
    registry = broker.registry
    end = ScopesEnd(broker, agent.id, ungrant, operator)
    end.narrow()
    with registry.ending_scopes(agent.id, ungrant) as slices:
        for number, tokens in enumerate(slices):
            end.ended(tokens)
            if number:
                await asyncio.sleep(0)
        yield end.calls, end.in_force()


class ScopesEnd:
    """The end of an agent's scopes, and of all that carries one of them."""

    def __init__(
        self, broker: Broker, agent_id: AgentId, taken: frozenset[str], operator: Actor
    ) -> None:
        """Take nothing yet; see `narrow`."""
        self.calls = CallsCut()
        """Calls that were cut."""
        self._broker, self._agent_id = broker, agent_id
        self._taken, self._operator = taken, operator
        self._gone = frozenset[str]()
        self._narrowed: Agent | None = None
        rider = riding()
        rows = rider.changes if rider else ()
        own = next((one.id for one in rows if isinstance(one, StepUp)), None)
        self._tokens = 0
        self._below: list[Token] = []
        self._stepups = Cancelling(
            broker,
            "scope_not_granted",
            lambda: [
                *self._with_one(
                    [*broker.stepups.open(agent_id), *unused(broker, agent_id)]
                ),
                *(one for one in changes_about(broker, agent_id) if one.id != own),
            ],
            lambda: self._with_one(broker.stepups.repeating(agent_id)),
        )

    def narrow(self) -> None:
        """Take the scopes in memory, and end decisions and step-ups under them."""
        broker, registry = self._broker, self._broker.registry
        cancelled = broker.extensions.cut_calls(
            self._agent_id, self._taken, self._operator
        )
        self.calls = self.calls.plus(cancelled)
        agent = registry.agent(self._agent_id)
        if agent is not self._narrowed:
            gone = self._taken.intersection(agent.scopes)
            if self._gone and not gone:  # another took them, and ended these
                self._tokens = 0
            self._gone = gone
            self._narrowed = _with_scopes(agent, frozenset(agent.scopes) - gone)
            registry.put_agent(self._narrowed)
        self._stepups.end()
        registry.void_decisions(self._agent_id, self._taken)

    def ended(self, tokens: Sequence[Token]) -> None:
        """Count tokens that ended; end the tokens that were exchanged for them."""
        self._tokens += len(tokens)
        self._below += self._broker.end_below(tokens)

    def in_force(self) -> InForce | None:
        """Return the changes to record; None if nothing ended at any broker."""
        nothing = Decided((), ())
        shared = self._broker.ledger.shared is not None
        if (decided := self._record()) is None and not shared:
            return None
        reason = "scope_not_granted"
        return InForce(self._decide, decided or nothing, self._below, reason)

    def _decide(self) -> Decided | None:
        self.narrow()
        with self._broker.registry.ending_scopes(self._agent_id, self._taken) as slices:
            for tokens in slices:
                self.ended(tokens)
        return self._record()

    def _record(self) -> Decided | None:
        ended = self._gone or self._tokens or len(self._stepups)
        # A person's decision is on record also if the agent has none of the scopes:
        # `Trials.check_removed_by_trial` reads it.
        if not ended and self._operator is SYSTEM:
            return None
        # As it is now: it may have been revoked between two slices.
        agent = self._broker.registry.agent(self._agent_id)
        gone = sorted(self._taken)
        draft = scopes_draft(self._operator, agent, ungranted=gone, tokens=self._tokens)
        drops = [DropScopeTokens(agent.id, one) for one in gone]
        drafts = draft, *self._stepups.drafts(self._operator)
        return Decided(drafts, (agent, *drops, *self._stepups.changes))

    def _with_one(self, stepups: Iterable[StepUp]) -> list[StepUp]:
        """Return those of *stepups* that are for one of the scopes."""
        return [one for one in stepups if self._taken & set(one.scope.split())]


async def _grant(
    broker: Broker,
    agent: Agent,
    scopes: frozenset[str],
    operator: Actor,
    timing: Callable[[Agent], Timing | None],
    *,
    check: Callable[[], Awaitable[None]] | None,
) -> Agent:
    """Give scopes, once that is on disk; a cut meanwhile wins."""
    if broker.registry.is_ending_scopes(agent.id):
        raise ConflictError(
            "scopes of this agent are being taken away right now",
            "grant again in a moment",
        )
    broker.ledger.check_writable()  # urgent for its place in the line alone
    # A cut recorded after it would end what is issued under it.
    await broker.recording.cuts.record_missed()
    async with broker.registry.changing[agent.id]:
        grant = broker.registry.unless_revoked(agent.id)
        if check is not None:
            await check()
        agent = broker.registry.agent(agent.id)
        given = scopes - set(agent.scopes)
        after = _with_scopes(agent, given.union(agent.scopes))
        timed = timing(agent) or Timing((), {}, None)
        draft = scopes_draft(
            operator, after, granted=sorted(given), reason=timed.reason
        )
        draft.detail.update(timed.detail)
        stays = partial(scopes_draft, operator, ungranted=sorted(given), reason=FAILED)
        change = broker, agent, after, draft, stays
        await record_change(*change, rows=timed.rows, urgent=True, grant=grant)
        current = broker.registry.agent(agent.id)
        wider = _with_scopes(current, scopes.union(current.scopes))
        broker.registry.put_agent(wider)
        return wider


async def change_served(
    broker: Broker,
    agent_id: str,
    serves: Iterable[str] | None,
    resources: Iterable[str] | None,
    operator: Actor,
) -> Agent:
    """Change the scopes and resources of a resource server.

    Args:
        broker: the broker.
        agent_id: the resource server.
        serves: scopes in place of those it served; empty for all, None for the same.
        resources: likewise.
        operator: who decided.

    Returns:
        the changed agent.

    Raises:
        NotFoundError: no such agent.
        UsageError: a scope is unknown, or a resource is no URI.
        ConflictError: it is no resource server, or was cut off meanwhile.
        LedgerUnwritableError: it could not be recorded, and stays as it was.
    """
    scopes = None if serves is None else tuple(sorted(set(serves)))
    uris = None if resources is None else check_resources(resources)
    check_scopes(broker, scopes or ())

    def served(agent: Agent) -> Agent:
        return replace(
            agent,
            serves=agent.serves if scopes is None else scopes,
            resources=agent.resources if uris is None else uris,
        )

    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.recording.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if not agent.resource_server:
            raise ConflictError(
                f"{visible(agent.name, 60)} is no resource server",
                "register one: agentvault agents add NAME --resource-server",
            )
        after = served(agent)
        draft = scopes_draft(operator, after, served=True)
        stays = partial(scopes_draft, operator, served=True, reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        after = served(broker.registry.agent(agent_id))
        broker.registry.put_agent(after)
        return after


async def renew_secret(broker: Broker, agent_id: str, operator: Actor) -> Registered:
    """Make a client secret for an agent that has one, or no credential at all.

    The one before authenticates until the new one is on disk. Tokens live on: only a
    revocation ends those.

    Args:
        broker: the broker.
        agent_id: the agent.
        operator: who decided.

    Returns:
        the agent, and its secret, which is stored as a hash alone.

    Raises:
        NotFoundError: no such agent.
        ConflictError: it authenticates in another way, or was cut off meanwhile.
        LedgerUnwritableError: it could not be recorded, and nothing changed.
    """
    async with broker.registry.changing[broker.registry.agent(agent_id).id]:
        await broker.recording.cuts.record_missed()
        agent = broker.registry.agent(agent_id)
        if agent.template or agent.credential.kind not in {"secret", "none"}:
            raise ConflictError(
                f"{visible(agent.name, 60)} authenticates without a secret",
                "register another agent for a client that has one",
            )
        secret = new_secret("av_s")
        credential = Credential(secret_sha256=sha256_hex(secret))
        after = replace(agent, credential=credential)
        draft = changed_draft(operator, after, ["credential"])
        stays = partial(changed_draft, operator, changed=[], reason=FAILED)
        await record_change(broker, agent, after, draft, stays)
        current = replace(broker.registry.agent(agent.id), credential=credential)
        broker.registry.put_agent(current)
        return Registered(current, secret)


def scopes_draft(
    operator: Actor,
    agent: Agent,
    *,
    granted: Sequence[str] = (),
    ungranted: Sequence[str] = (),
    tokens: int = 0,
    served: bool = False,
    reason: str | None = None,
) -> Draft:
    """Return the event of a change of *agent*'s permissions, as they are then."""
    draft = agent_draft(EventType.AGENT_SCOPES_CHANGED, operator, agent, reason)
    draft.detail.update(
        granted=list(granted), ungranted=list(ungranted), tokens_revoked=tokens
    )
    if served:
        draft.detail.update(serves=list(agent.serves), resources=list(agent.resources))
    return draft


def _with_scopes(agent: Agent, scopes: frozenset[str]) -> Agent:
    return replace(agent, scopes=tuple(sorted(scopes)))


def changed_draft(
    operator: Actor, agent: Agent, changed: list[str], reason: str | None = None
) -> Draft:
    """Return the event that fields of *agent* changed, as it is then."""
    draft = agent_draft(EventType.AGENT_CHANGED, operator, agent, reason)
    draft.detail.update(
        purpose=agent.purpose,
        resource_server=agent.resource_server,
        credential=agent.credential.kind,
        changed=changed,
        **ending_detail(agent),
    )
    return draft
