"""The broker: the rooms it joins, and the one way to record anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from starlette.routing import Route

from agentvault_tui.broker.admitting import Admitting
from agentvault_tui.broker.callouts import CallOuts, hook_uses
from agentvault_tui.broker.cuts import Cuts, Kept
from agentvault_tui.broker.health import Health
from agentvault_tui.broker.issuers import Issuers
from agentvault_tui.broker.limit_uses import LimitUses
from agentvault_tui.broker.pending_cuts import Decide
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.secret_uses import SecretUses
from agentvault_tui.broker.stepups import StepUps
from agentvault_tui.broker.surroundings import Surroundings
from agentvault_tui.broker.team import Team
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.broker.team_key import TeamKey
from agentvault_tui.broker.upstream import (
    Outbox,
    ProviderAccounts,
    Providers,
    TenantAccess,
)
from agentvault_tui.broker.uses import TokenUses, revoked_draft
from agentvault_tui.broker.vault_access import Flows, VaultAccess
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import LedgerBusyError, NotFoundError, OvertakenError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change, DropToken, Ledger
from agentvault_tui.model import (
    Actor,
    ActorKind,
    Agent,
    AgentId,
    Draft,
    Event,
    Token,
    TokenId,
)
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.planning import ShadowInfo
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.resources import SameAs
from agentvault_tui.settings import Settings
from agentvault_tui.vault import TenantClient
from agentvault_tui.web.guard import StreamingApp
from agentvault_tui.web.server import Listener, Server

log = logging.getLogger("agentvault.broker")

_ENDED_A_RECORD: Final = 100
"""Ended tokens in one transaction: more would hold up the event loop."""
_TRIES: Final = 8
"""The number of tries of a decision before its caller must come back."""
_T = TypeVar("_T")

SYSTEM = Actor(ActorKind.SYSTEM, "broker", "broker")
"""The actor of expiry, start, stop and reload."""


async def _takes_edits(_: Policy, __: Policy) -> bool:
    return False


@dataclass(slots=True)
class PolicyState:
    """The state of the active policy, and the live tokens it decided about."""

    problem: str | None = None
    """Why the policy on disk is not in effect, if so."""
    refused: PolicyTexts | None = None
    """The problem of a team's policy files at this home, if they cannot be put in
    effect."""
    recorded: str | None = None
    """The version that the ledger has in effect, if any."""
    checked: set[str] | None = None
    """Hashes of tokens that were looked at; None once all were."""
    unchecked: list[str] = field(default_factory=list)
    """Hashes of tokens to be looked at."""
    outdated: list[Token] = field(default_factory=list)
    """Tokens that the policy in effect would not issue, to be recorded as revoked."""
    due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while one of these lists is not empty."""
    shadow: ShadowInfo | None = None
    """The counts of the shadow policy."""
    applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a policy is applied."""
    hold: Callable[[Policy, Policy], Awaitable[bool]] = _takes_edits
    """Tells whether an edit has to wait, from the active policy and the edited one."""
    held: str | None = None
    """The change that such an edit waits as, if one does."""


Carrier = Callable[[Mapping[str, Any], Actor], Awaitable[bytes]]
"""Carries out the request of a change, as the person who approved it; returns the
answer, JSON."""


class CallsCut(NamedTuple):
    """How many calls in flight a cut ended."""

    cut: int = 0
    sent: int = 0
    """Of these, those that the upstream had received whole."""

    def plus(self, more: CallsCut) -> CallsCut:
        """Return both together."""
        return CallsCut(self.cut + more.cut, self.sent + more.sent)


class Extension(Protocol):
    """A room that `serve` composes with the broker, which imports nothing of it."""

    @property
    def warnings(self) -> list[str]:
        """Warnings for an operator; files that are not in effect are not ready."""

    async def start(self) -> None:
        """Read its services, before agents are listened to."""

    async def listen(self, server: Server, agents: Listener) -> Mapping[str, object]:
        """Open listeners next to *agents*; return their members of the first line."""

    async def look(self) -> None:
        """Read changed files again; called with each look of the upkeep."""

    def operator_routes(self, authority: Any) -> list[Route]:
        """Return its routes of the operators' HTTP; an `Authority` checks rights."""

    async def aclose(self) -> None:
        """End requests under way."""


class WatchRoom(Extension, Protocol):
    """The room of alerts and exports, as the broker sees it."""

    def committed(self, events: Sequence[Event]) -> None:
        """Take events that have just become durable, in the order of the chain."""


class DataPlane(Extension, Protocol):
    """The gateway, as the broker knows it."""

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""

    @property
    def notices(self) -> list[str]:
        """Notices for operators that are no problem of a configuration file."""

    def streaming_apps(self) -> Mapping[bytes, StreamingApp]:
        """Return its apps at the agents' listener, by the raw path's prefix."""

    def cut(
        self,
        agent_id: AgentId | None,
        scopes: frozenset[str] | None = None,
        by: Actor | None = None,
    ) -> CallsCut:
        """Cancel calls in flight, before this returns.

        Args:
            agent_id: the agent; None for every agent.
            scopes: under which; None for any.
            by: who decided that, for their records; None if it is not known here.

        Returns:
            how many were cut. No byte of them reaches an upstream or an agent any more.
        """

    def end_lease(self) -> None:
        """End all calls in flight: revocations of other brokers may be unknown here."""

    def over(self, call_id: str) -> None:
        """End a call whose result another broker recorded, taking this one for dead."""

    def cut_tokens(self, tokens: Collection[TokenId]) -> CallsCut:
        """Cut calls in flight that were made with one of *tokens*; as `cut` does."""

    async def held_body(self, stepup_id: str) -> bytes | None:
        """Return the body of a held call, while it is in a broker's memory.

        Raises:
            SealedError: it is in another's, and the team's key is missing.
            LedgerError: that one could not be asked.
        """

    def service_texts(self) -> dict[str, str]:
        """Return the texts of the service files in effect, by name.

        Raises:
            PolicyError: a file cannot be read.
        """

    async def changed_services(
        self, wanted: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Return the texts before of service files that would change, by name.

        Args:
            wanted: texts of service files, by name.

        Raises:
            ServiceError: one of them cannot be put in effect.
            ConflictError: a file in the home is a symbolic link.
        """

    def put_services(
        self, texts: Mapping[str, str], operator: Actor, digest: str
    ) -> AbstractAsyncContextManager[tuple[list[Draft], list[Change]]]:
        """Write service files when a block ends that records the yielded rows.

        Args:
            texts: of the files that change, by name.
            operator: who decided.
            digest: of all that is applied.

        Raises:
            ConflictError: a file cannot be written.
        """


@dataclass
class Broker:
    """The state of the use-cases; they are functions over this."""

    home: Home
    settings: Settings
    clock: Clock
    ledger: Ledger
    policy: Policy
    tenant: TenantClient
    registry: Registry
    tenant_kind: str = "auth0"
    policy_state: PolicyState = field(default_factory=PolicyState)
    health: Health = field(default_factory=Health)
    chores: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called at each look of the upkeep."""
    team: Team | None = None
    """The brokers that share the ledger; None where this is the only one."""
    lease_over: Callable[[], bool] = lambda: False
    """Whether no call may continue: revocations of others may be unknown."""
    works: Callable[[], bool] = lambda: True
    """Whether this broker does the work that one does for a whole team."""
    alone: Callable[[str], AbstractAsyncContextManager[float | None]] = lambda _: (
        nullcontext()
    )
    """Lets one broker of a team at a time into a block; see `Team.alone`."""
    changed: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """When a person's role, password, … were changed last, by subject and change."""
    end_sessions: Callable[[str], None] = lambda _: None
    """Ends the sessions of a person who was changed; see `Sessions.end_of`."""
    on_trial: Callable[[AgentId, Sequence[str], str | None], bool] = lambda *_: False
    """Whether the requested permission was removed on trial: its scopes, or by a
    rule."""
    trials: Callable[[AgentId], Sequence[AdviceInfo]] = lambda _: ()
    """Returns the permissions of an agent that are removed on trial now."""
    states: dict[str, Callable[[str], str]] = field(default_factory=dict)
    """The state that a change would replace, by the kind of thing; see
    `usecases.changes`. A room that has such things adds its own."""
    has_approver: bool = False
    """Whether somebody was found to have the role approver; see `socket_factor`."""
    carriers: dict[str, Carrier] = field(default_factory=dict)
    """The functions that carry out approved changes, by method and path."""
    issuer: str = ""
    """The URL that agents reach it at, once they can."""
    gateway: DataPlane | None = None
    """Where agents act through the broker; None where it only issues tokens."""
    watch: WatchRoom | None = None
    """Reads the ledger for others: alerts, exports, metrics."""
    meta: dict[str, str] = field(default_factory=dict)
    """Small values that the last process left, by name."""
    grant_ends: dict[str, tuple[str, Deadline]] = field(default_factory=dict)
    """When scopes end, by the row in `meta`, whose value is first; see
    `usecases.timed_grants`."""
    team_key: TeamKey | None = field(init=False, default=None)
    """Follows the key that encrypts the shared data of a team; None without a team."""
    files: TeamFiles | None = field(init=False, default=None)
    """Files that a team's homes have in common; None where this is the only broker."""
    surroundings: Surroundings = field(init=False)
    admitting: Admitting = field(init=False)
    limits: LimitUses = field(init=False)
    same_as: SameAs = field(default_factory=SameAs)
    """Suffixes that services ignore; the gateway fills it from its service files."""
    callouts: CallOuts = field(init=False)
    secret_uses: list[SecretUses] = field(init=False)
    """Each returns which services or destinations of a room name a sealed secret."""
    name_uses: list[Callable[[str], Iterable[str]]] = field(default_factory=list)
    """Each returns the places outside the broker that name an agent."""
    uses: TokenUses = field(init=False)
    cuts: Cuts = field(init=False)
    access: TenantAccess = field(init=False)
    vault: VaultAccess = field(init=False)
    flows_to_accounts: Flows = field(init=False)
    outlook: ProviderAccounts = field(init=False)
    providers: Providers = field(init=False)
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        """Join the rooms that work on others."""
        shared = self.ledger.shared is not None
        notify = self.health.changed
        if shared:
            self.files = TeamFiles(
                *(self.home, self.ledger, lambda: self.meta, SYSTEM), notify
            )
            publish = partial(self.files.publish, lambda: None)
            self.team_key = TeamKey(self.home, self.ledger, SYSTEM, publish, notify)
        self.surroundings = Surroundings(self.clock, self.home, self.settings)
        self.chores.append(self.surroundings.look)
        issuers = Issuers(self.settings.issuers, self.home, self.clock)
        self.admitting = Admitting(self.clock, issuers, self.ledger.decisions_wait)
        self.limits = LimitUses(self.clock, self.ledger)
        self.callouts = CallOuts(self.clock)
        self.secret_uses = [lambda: hook_uses(self.policy.limits.hooks)]
        self.uses = TokenUses(self.clock, self.ledger)
        self.cuts = Cuts(self.ledger, self.registry, self.clock, notify)
        rate = self.settings.tenant.rate
        self.vault = VaultAccess(
            *(self.home, self.tenant.issuer, self.clock),
            local=self.tenant.local,
            shared=shared,
        )
        reached = (self.tenant, rate, self.vault, self.registry)
        self.access = TenantAccess(*reached)
        if self.team_key is not None and self.files is not None:
            users, clients = self.vault.users, self.vault.clients
            self.team_key.seals_anew += users.seal_anew, clients.seal_anew
            self.files.copies.track(users.path.name, users.path, users.check)
            name = f"{clients.path.parent.name}/{clients.path.name}"
            self.files.copies.track(name, clients.path, clients.check)
        self.flows_to_accounts = Flows(self.clock)
        self.outlook = ProviderAccounts(
            self.registry, self.vault.issuer, lambda: self.settings.connections
        )
        self.providers = Providers(
            self.clock, self.registry, self.outlook, self.vault.exchange_apart
        )
        self.outbox = Outbox(
            *(self.clock, self.registry, self.access, self.providers),
            self.record_cut,
            notify=notify,
        )
        self.registry.foresee = self.outbox.foresee
        self.registry.outlook = self.outlook.of

    def record(
        self, *drafts: Draft, changes: Sequence[Change] = (), urgent: bool = False
    ) -> Awaitable[tuple[Event, ...]]:
        """Write *drafts* and *changes* in one transaction; await that it is durable.

        In a team nothing of this goes ahead of others: another broker may overtake it.
        """
        urgent = urgent and self.ledger.shared is None
        rider = riding()
        if rider is not None:
            joined, rows = rider.join(drafts)
            drafts, changes = (*joined,), [*changes, *rows]
        try:
            done = self.ledger.commit(*drafts, changes=changes, urgent=urgent)
        except BaseException:
            for draft in drafts:
                self.limits.release(draft.decision_id)
            raise
        counted = [draft for draft in drafts if "counted" in draft.detail]
        for draft in counted:
            self.limits.submitted(draft, done)
        if rider is not None and any(LOOSENED in one.detail for one in drafts):
            rider.done = asyncio.ensure_future(done)
        # A caller that is cancelled does not undo the commit, nor hide its outcome.
        return asyncio.shield(done) if counted else done

    def committed(self, events: Sequence[Event]) -> None:
        """Show the watch events that have just become durable."""
        if self.watch is not None:
            self.watch.committed(events)

    async def look_up(self, find: Callable[[], _T]) -> _T:
        """Find a change that another broker may have recorded a moment ago.

        Raises:
            NotFoundError: there is no such thing.
            LedgerUnwritableError: it is not known here, and the store did not answer.
        """
        try:
            return find()
        except NotFoundError:
            await self.ledger.confirm()
            return find()

    def cut_calls(
        self,
        agent_id: AgentId | None,
        scopes: frozenset[str] | None = None,
        by: Actor | None = None,
    ) -> CallsCut:
        """Cancel calls through the gateway; see `DataPlane.cut`."""
        return self.gateway.cut(agent_id, scopes, by) if self.gateway else CallsCut()

    def end_below(self, tokens: Iterable[Token]) -> list[Token]:
        """End the tokens that were exchanged for *tokens*; see `end_tokens`."""
        children = self.registry.delegations.children
        ended, _ = self.end_tokens([each for one in tokens for each in children(one)])
        return ended

    def end_tokens(self, tokens: Sequence[Token]) -> tuple[list[Token], CallsCut]:
        """End tokens that were passed on, in memory, with all below and their calls.

        Returns:
            the ended tokens, to be recorded by `record_ended`, and the calls that it
            cancelled.
        """
        below = self.registry.delegations.below(tokens)
        ended = self.registry.end_tokens([*tokens, *below])
        if ended and self.gateway:
            return ended, self.gateway.cut_tokens({token.id for token in ended})
        return ended, CallsCut()

    async def record_cut(
        self,
        *drafts: Draft,
        changes: Sequence[Change] = (),
        agent_id: AgentId | None = None,
    ) -> Kept:
        """Persist a cut that is already in effect; see `Cuts.record`."""
        return await self.cuts.record(drafts, changes, agent_id)

    async def record_decided(self, decide: Decide) -> Kept:
        """End rights, exactly in a team too; see `Cuts.record_decided`."""
        return await self.cuts.record_decided(decide)

    async def record_ended(
        self, tokens: Sequence[Token], actor: Actor, reason: str
    ) -> Kept:
        """Persist that tokens ended which are out of memory already.

        Returns:
            where it is durable: the ledger, or another place for one of them.
        """
        durability = Kept.LEDGER
        for start in range(0, len(tokens), _ENDED_A_RECORD):
            part = tokens[start : start + _ENDED_A_RECORD]
            drafts: list[Draft] = []
            for token in part:
                drafts += self.uses.ended(token)
                drafts.append(revoked_draft(token, actor, reason))
            changes = [DropToken(one.id) for one in part]
            place = await self.record_cut(*drafts, changes=changes)
            durability = durability if place is Kept.LEDGER else place
        return durability

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """Return the rooms that were composed with this broker."""
        return tuple(one for one in (self.gateway, self.watch) if one is not None)

    @property
    def stepups(self) -> StepUps:
        """Step-ups, and all that is under way about them."""
        return self.registry.stepups

    def actor(self, agent: Agent) -> Actor:
        """Return *agent* as the one who acts."""
        return Actor(ActorKind.AGENT, agent.id, agent.name)


async def decide_anew(decide: Callable[[], Awaitable[_T]]) -> _T:
    """Decide, and decide again while another broker changes the basis.

    Args:
        decide: decides from the state at its call, and records it; if it was overtaken,
            nothing of it was written.

    Returns:
        its decision.

    Raises:
        LedgerBusyError: it was overtaken each time.
    """
    for _ in range(_TRIES):
        with suppress(OvertakenError):
            return await decide()
    raise LedgerBusyError("other brokers change the same", "try again shortly")
