"""The broker: the rooms it joins, and the one way to record anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from agentvault_tui.broker.admitting import Admitting
from agentvault_tui.broker.callouts import CallOuts, hook_uses
from agentvault_tui.broker.cuts import Cuts, Kept
from agentvault_tui.broker.extensions import CallsCut, Extensions
from agentvault_tui.broker.health import Health
from agentvault_tui.broker.issuers import Issuers
from agentvault_tui.broker.limit_uses import LimitUses
from agentvault_tui.broker.pending_cuts import Decide
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.stepups import StepUps
from agentvault_tui.broker.surroundings import Surroundings
from agentvault_tui.broker.team import OneBroker, Team
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.broker.team_key import TeamKey
from agentvault_tui.broker.upstream import Reaching
from agentvault_tui.broker.uses import TokenUses, revoked_draft
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import LedgerBusyError, NotFoundError, OvertakenError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change, DropToken, Ledger
from agentvault_tui.model import Actor, ActorKind, Agent, AgentId, Draft, Event, Token
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api.planning import ShadowInfo
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.resources import SameAs
from agentvault_tui.settings import Settings
from agentvault_tui.vault import TenantClient

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


class Deciding:
    """The active policy, and the facts and counts that it is given."""

    def __init__(
        self,
        policy: Policy,
        problem: str | None,
        *,
        home: Home,
        settings: Settings,
        clock: Clock,
        ledger: Ledger,
    ) -> None:
        """Decide by *policy*; no use of a limit is counted yet."""
        self.policy, self.state = policy, PolicyState(problem)
        self.limits = LimitUses(clock, ledger)
        self.callouts = CallOuts(clock)
        self.surroundings = Surroundings(clock, home, settings)
        self.same_as = SameAs()
        """Suffixes that services ignore; the gateway fills it from its files."""


class Recording:
    """The state in memory that the ledger has, or is to have, besides the registry."""

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        """Begin with nothing to record; *notify* is called when the cuts change."""
        self.cuts = Cuts(ledger, registry, clock, notify)
        self.uses = TokenUses(clock, ledger)
        self.meta: dict[str, str] = {}
        """Small values of the ledger, by name."""
        self.grant_ends: dict[str, tuple[str, Deadline]] = {}
        """When scopes end, by the row in `meta`, which is first; see
        `usecases.timed_grants`."""


class Teamwork:
    """The brokers that share the ledger, and the key and files that they share."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        meta: Mapping[str, str],
        notify: Callable[[], None],
    ) -> None:
        """Begin as the only broker; `follow.join_team` has it join others."""
        self.brokers: Team | OneBroker = OneBroker()
        self.key: TeamKey | None = None
        """Follows the key that encrypts the shared data; None without a team."""
        self.files: TeamFiles | None = None
        """The files that the homes have in common; None without a team."""
        if ledger.shared is not None:
            self.files = TeamFiles(home, ledger, meta, SYSTEM, notify)
            publish = partial(self.files.publish, lambda: None)
            self.key = TeamKey(home, ledger, SYSTEM, publish, notify)

    async def look_at_files(self) -> None:
        """Compare the shared files with this home's copies; see `TeamFiles.look`."""
        if self.files is not None:
            await self.files.look()

    def put_policy(self, texts: PolicyTexts) -> None:
        """Have the homes share the recorded policy; see `TeamFiles.put_policy`."""
        if self.files is not None:
            self.files.put_policy(texts)


class Broker:
    """The state of the use-cases; they are functions over this."""

    def __init__(
        self,
        *,
        home: Home,
        settings: Settings,
        clock: Clock,
        ledger: Ledger,
        policy: Policy,
        tenant: TenantClient,
        registry: Registry,
        tenant_kind: str = "auth0",
        problem: str | None = None,
    ) -> None:
        """Join the objects that work on others; nothing is loaded yet."""
        self.home, self.settings, self.clock = home, settings, clock
        self.ledger, self.registry = ledger, registry
        self.health, self.extensions = Health(), Extensions()
        notify = self.health.changed
        self.recording = Recording(ledger, registry, clock, notify)
        self.team = Teamwork(home, ledger, self.recording.meta, notify)
        self.deciding = Deciding(
            *(policy, problem),
            home=home,
            settings=settings,
            clock=clock,
            ledger=ledger,
        )
        self.extensions.chores.append(self.deciding.surroundings.look)
        issuers = Issuers(settings.issuers, home, clock)
        self.admitting = Admitting(clock, issuers, ledger.decisions.wait)
        self.extensions.secret_uses.append(
            lambda: hook_uses(self.deciding.policy.limits.hooks)
        )
        self.reaching = Reaching(
            *(tenant, tenant_kind),
            home=home,
            settings=lambda: self.settings,
            clock=clock,
            registry=registry,
            record=self.record_cut,
            notify=notify,
            shared=ledger.shared is not None,
        )
        key, files = self.team.key, self.team.files
        if key is not None and files is not None:
            vault = self.reaching.vault
            users, clients = vault.users, vault.clients
            key.seals_anew += users.seal_anew, clients.seal_anew
            files.copies.track(users.path.name, users.path, users.check)
            name = f"{clients.path.parent.name}/{clients.path.name}"
            files.copies.track(name, clients.path, clients.check)

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
                self.deciding.limits.release(draft.decision_id)
            raise
        counted = [draft for draft in drafts if "counted" in draft.detail]
        for draft in counted:
            self.deciding.limits.submitted(draft, done)
        if rider is not None and any(LOOSENED in one.detail for one in drafts):
            rider.done = asyncio.ensure_future(done)
        # A caller that is cancelled does not undo the commit, nor hide its outcome.
        return asyncio.shield(done) if counted else done

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
        gateway = self.extensions.gateway
        if ended and gateway:
            return ended, gateway.cut_tokens({token.id for token in ended})
        return ended, CallsCut()

    async def record_cut(
        self,
        *drafts: Draft,
        changes: Sequence[Change] = (),
        agent_id: AgentId | None = None,
    ) -> Kept:
        """Persist a cut that is already in effect; see `Cuts.record`."""
        return await self.recording.cuts.record(drafts, changes, agent_id)

    async def record_decided(self, decide: Decide) -> Kept:
        """End rights, exactly in a team too; see `Cuts.record_decided`."""
        return await self.recording.cuts.record_decided(decide)

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
                drafts += self.recording.uses.ended(token)
                drafts.append(revoked_draft(token, actor, reason))
            changes = [DropToken(one.id) for one in part]
            place = await self.record_cut(*drafts, changes=changes)
            durability = durability if place is Kept.LEDGER else place
        return durability

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
