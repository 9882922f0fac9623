"""The working set: agents, live tokens, step-ups, panic.

Loaded from the ledger at a start and changed only together with it. Everything here is
synchronous: between a check and the change that depends on it no other task can run,
which makes one redemption exactly one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import chain, islice
from typing import Final

from agentvault_tui.broker.accounts import (
    SHARERS_SHOWN,
    Accounts,
    Leases,
    ProviderForecast,
    ProviderTokens,
)
from agentvault_tui.broker.delegations import Delegations
from agentvault_tui.broker.held_tokens import EndedTokens, HeldTokens
from agentvault_tui.broker.lifetimes import Lifetimes
from agentvault_tui.broker.revocations import Grant, Revocations
from agentvault_tui.broker.stepups import StepUps
from agentvault_tui.broker.subjects import Subjects
from agentvault_tui.clock import Clock, Deadline, as_set_now
from agentvault_tui.errors import NotFoundError
from agentvault_tui.ledger import Loaded, OutboxStep
from agentvault_tui.lookalikes import fold_text
from agentvault_tui.model import (
    Account,
    Agent,
    AgentCounts,
    AgentId,
    AgentStatus,
    Event,
    Outcome,
    StepUpId,
    Token,
    TokenId,
)
from agentvault_tui.text import visible

HELD_CAP: Final = 128 * 1024 * 1024
"""Bytes the live tokens of one agent may take in memory, about 180,000 plain ones."""
ALL_CAP: Final = 1024 * 1024 * 1024
"""Bytes those of all agents may take before each is held to an equal share of them."""
_WEIGHED_FOR: Final = 1.0
"""Seconds for which the sum of all is not taken again."""
_NAMED: Final = 5
_NO_COUNTS: Final = AgentCounts()
_SLICE: Final = 1000
"""Tokens or agents per turn of the event loop in deferrable work."""
Foreseen = Callable[[AgentId], tuple[str, ...]]


class Registry:
    """Agents, tokens and step-ups by the keys they are asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agents: dict[AgentId, Agent] = {}
        self.lifetimes = Lifetimes(clock, self._agents)
        self.revocations = Revocations()
        self.unless_revoked = self.revocations.unless_revoked
        self.stepups = StepUps(clock)
        self.accounts = Accounts(self.lifetimes.is_active)
        self.delegations = Delegations()
        self.leases = Leases(clock)
        self.provider_tokens = ProviderTokens(clock)
        self._ended = EndedTokens()
        """Tokens that were cut, until they are out of `_tokens`."""
        self._order: list[tuple[datetime, AgentId]] = []
        """Agents by registration: the key of pages, for it never changes."""
        self.registering: set[str] = set()
        """Folded names whose registration is being recorded."""
        self.subjects = Subjects()
        self._names: dict[str, tuple[AgentId, ...]] = {}
        """Agents by their folded names, so that registering compares one name."""
        self._tokens: dict[str, Token] = {}
        """By hash; with those that were cut and that `sweep` has not removed yet."""
        self._by_id: dict[TokenId, Token] = {}
        self._used: dict[TokenId, tuple[Grant, Token | None]] = {}
        """Tokens whose use is being recorded, as long as not revoked; the parent."""
        self._elevated: dict[StepUpId, Token] = {}
        self._held: dict[AgentId, HeldTokens] = {}
        self._weight = 0
        """Bytes of all live tokens when last summed."""
        self._weighed_at = -_WEIGHED_FOR
        self._counts: dict[AgentId, AgentCounts] = {}
        self._last_seen: dict[AgentId, datetime] = {}
        self.admits: Callable[[Token], bool] = lambda _: True
        """Whether the policy in effect admits a live token."""
        self.foresee: Callable[[], Foreseen] = lambda: lambda _: ()
        """Returns the steps that a revocation would take at the tenant."""
        self.outlook: Callable[[Account], ProviderForecast] = lambda _: (
            ProviderForecast()
        )
        """Returns the effect of a revocation on an account at its provider."""
        self.changing: dict[AgentId, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Held while a widening change of an agent is being recorded: each writes the
        whole row. A revocation does not wait: it voids the change."""
        self.giving_subject = asyncio.Lock()
        """Held from the check that a subject is free until it is given and recorded;
        taken after those of `changing`."""
        self._steps: dict[AgentId, dict[str, OutboxStep]] = defaultdict(dict)
        self._ending: dict[AgentId, list[frozenset[str]]] = {}
        """Scopes that are being taken away: no token with one of them is live."""

    # Agents

    def agent(self, agent_id: str) -> Agent:
        """Return the agent with that id, or raise NotFoundError."""
        if (agent := self.find_agent(agent_id)) is None:
            raise NotFoundError("no agent has that id", "agentvault agents list")
        return agent

    def now(self, agent: Agent) -> Agent:
        """Return *agent* as it is now; how it authenticated stays."""
        current = self.agent(agent.id)
        if agent.authenticated_as is None:
            return current
        return replace(current, authenticated_as=agent.authenticated_as)

    def find_agent(self, agent_id: str) -> Agent | None:
        """Return the agent with that id, which is also its ``client_id``."""
        return self._agents.get(AgentId(agent_id))

    def agents(self) -> list[Agent]:
        """Return every agent but removed ones, oldest first."""
        return [self._agents[agent_id] for _, agent_id in self._order]

    def agents_after(self, agent_id: str | None, limit: int) -> list[Agent]:
        """Return a page of agents, oldest first: those registered after *agent_id*.

        Agents stay in their place, so pages read one after another hold every agent
        that is there at the first and the last one exactly once.
        """
        start = 0
        if agent_id is not None:
            agent = self.agent(agent_id)
            start = bisect_right(self._order, (agent.created_at, agent.id))
        page = self._order[start : start + limit]
        return [self._agents[each] for _, each in page]

    def agents_named(self, name: str) -> list[Agent]:
        """Return the agents with exactly that name: more than one in old vaults."""
        alike = (self._agents[each] for each in self._names.get(fold_text(name), ()))
        return [agent for agent in alike if agent.name == name]

    def agents_of_subject(self, text: str) -> list[Agent]:
        """Return the agents that a token of a platform matches; see `Subjects`."""
        return [self._agents[each] for each in self.subjects.matching(text)]

    def is_subject_taken(self, text: str, but: AgentId | None = None) -> bool:
        """Check whether a subject with ``*`` overlaps with another served agent's."""
        agents = map(self._agents.__getitem__, self.subjects.overlapping(text))
        revoked = AgentStatus.REVOKED
        return any(one.id != but and one.status is not revoked for one in agents)

    @property
    def agent_count(self) -> int:
        """How many agents are registered, without removed ones."""
        return len(self._order)

    def put_agent(self, agent: Agent) -> None:
        """Remember *agent*, replacing its earlier version."""
        previous, self._agents[agent.id] = self._agents.get(agent.id), agent
        self._list(agent, previous)
        before, subject = previous and previous.subject, agent.subject
        if before and before != subject:
            self.subjects.discard(before, agent.id)
        if subject and before != subject:
            self.subjects.add(subject, agent.id)
        self.lifetimes.put(agent, previous)
        for account in self.accounts.of(agent.id):
            self.accounts.put(account)  # in use, or no longer

    def _list(self, agent: Agent, before: Agent | None) -> None:
        """Have *agent* in the lists of agents under its name; remove a removed one."""
        removed, place = agent.removed_at is not None, (agent.created_at, agent.id)
        listed = before is not None and before.removed_at is None
        if before and before.name == agent.name and listed is not removed:
            return
        if before and listed:
            folded = fold_text(before.name)
            others = tuple(one for one in self._names[folded] if one != agent.id)
            if others:
                self._names[folded] = others
            else:
                del self._names[folded]
            if removed:
                self._order.remove(place)
        if not removed:
            folded = fold_text(agent.name)
            self._names[folded] = (*self._names.get(folded, ()), agent.id)
            if before is None or before.removed_at is not None:
                insort(self._order, place)

    def is_name_taken(self, folded: str) -> bool:
        """Check whether `fold_text` makes *folded* of an agent's name, or will."""
        return folded in self._names or folded in self.registering

    def has_name(self, folded: str) -> bool:
        """Check whether `fold_name` makes *folded* of a registered agent's name."""
        return folded in self._names

    def serves(self, agent_id: AgentId) -> bool:
        """Check whether anything may be issued to or redeemed for the agent now."""
        return self.revocations.panic is None and self.lifetimes.is_active(agent_id)

    def void_decisions(
        self, agent_id: AgentId, scopes: Iterable[str] | None = None
    ) -> None:
        """Void the agent's decisions under way about any of *scopes*; None: all."""
        self.revocations.void(agent_id, scopes)
        self.provider_tokens.drop(agent_id)

    def seen(self, agent_id: AgentId, at: datetime | None = None) -> None:
        """Note that the agent has just spoken, or that it did elsewhere."""
        last = self._last_seen.get(agent_id)
        if at is None or last is None or last < at:
            self._last_seen[agent_id] = at or self._clock.now()

    def last_seen(self, agent_id: AgentId) -> datetime | None:
        """Return when the agent last spoke, if ever."""
        return self._last_seen.get(agent_id)

    def counts(self, agent_id: AgentId) -> AgentCounts:
        """Return how the agent's requests were answered so far."""
        return self._counts.get(agent_id, _NO_COUNTS)

    def all_counts(self) -> Mapping[AgentId, AgentCounts]:
        """Return how often each agent that ever asked was answered, and how."""
        return self._counts

    def count(self, event: Event) -> None:
        """Add a recorded decision to its agent's counts."""
        if event.outcome is None or event.agent_id is None:
            return
        counts, outcome = self.counts(event.agent_id), event.outcome
        self._counts[event.agent_id] = AgentCounts(
            counts.allowed + (outcome is Outcome.ALLOWED),
            counts.denied + (outcome is Outcome.DENIED),
            counts.escalated + (outcome is Outcome.ESCALATED),
        )

    def take_over(self, loaded: Loaded) -> None:
        """Take over the state of the last process."""
        self.revocations.panic = loaded.panic
        for account in loaded.accounts:
            self.accounts.put(account)
        self.leases.take_over(loaded.leases)
        self._counts.update(loaded.counts)
        self._last_seen.update(loaded.last_seen)
        for agent in loaded.agents:
            self.put_agent(agent)
        for step in loaded.outbox:
            self.put_step(step)
        wanted = {one.parent_id for one in loaded.tokens if one.parent_id}
        parents = {one.id: one for one in loaded.tokens if one.id in wanted}
        for token in loaded.tokens:
            parent = parents.get(token.parent_id) if token.parent_id else None
            self.put_token(token, parent)
        self.stepups.take_over(loaded.stepups, loaded.cooldowns)

    def shared_with(self, agent_id: AgentId) -> tuple[AgentId, ...]:
        """Return other served agents that use one of its accounts; at most some."""
        agents: dict[AgentId, None] = {}
        mine = self.accounts.of(agent_id)
        for other in chain.from_iterable(map(self.accounts.in_use, mine)):
            agents[other] = None
            if len(agents) == SHARERS_SHOWN:
                break
        return tuple(agents)

    def named(self, agents: Sequence[AgentId]) -> str:
        """Return the names of *agents* for a sentence, displayable; of many, some."""
        names = [visible(self.agent(one).name, 40) for one in agents[:_NAMED]]
        more = len(agents) - _NAMED
        return ", ".join([*names, f"{more} more"] if more > 0 else names)

    # Steps at the tenant

    def put_step(self, step: OutboxStep) -> None:
        """Remember *step*, in the very place of an earlier one of the same name."""
        self._steps[step.agent_id][step.id] = step

    def step(self, agent_id: AgentId, step_id: str) -> OutboxStep | None:
        """Return the step with that id, as it is."""
        return self._steps[agent_id].get(step_id)

    def steps_of(self, agent_id: AgentId) -> list[OutboxStep]:
        """Return the agent's steps at the tenant: done, open and failed."""
        return list(self._steps.get(agent_id, {}).values())

    def steps(self) -> Iterator[OutboxStep]:
        """Yield every agent's steps."""
        for steps in self._steps.values():
            yield from steps.values()

    # Tokens

    def put_token(self, token: Token, parent: Token | None = None) -> None:
        """Make *token* usable, for as long as the *parent* it was exchanged for."""
        if parent is not None:
            self.delegations.add(token, parent)
        self._tokens[token.sha256] = self._by_id[token.id] = token
        if (held := self._held.get(token.agent_id)) is None:
            held = self._held[token.agent_id] = HeldTokens()
        held.add(token)
        if token.stepup_id is not None:
            self._elevated[token.stepup_id] = token

    def token(self, sha256: str) -> Token | None:
        """Return the live token with that hash: not expired, its agent served."""
        token = self._tokens.get(sha256)
        while token is not None and self.lives(token):
            if not (self.serves(token.agent_id) and self.admits(token)):
                return None
            if token.parent_id is None:
                return self._tokens.get(sha256)
            token = self.delegations.parent(token)
        return None

    def begin_use(self, tokens: Iterable[Token]) -> None:
        """Remember *tokens*, which are about to be used up, until that is recorded."""
        for token in tokens:
            parent = self.delegations.parent(token)
            grant = self.unless_revoked(token.agent_id, scope=token.scope)
            self._used[token.id] = grant, parent

    def put_back(self, tokens: Iterable[Token]) -> None:
        """Make tokens usable again whose use was not written, unless they ended."""
        for token in tokens:
            grant, parent = self._used.pop(token.id, (None, None))
            if grant is not None and not grant.revoked:
                self.put_token(token, parent)

    def used_up(self, token_id: TokenId) -> None:
        """Forget a token for good, also if its use turns out not to be written."""
        self._used.pop(token_id, None)

    def token_with_id(self, token_id: TokenId) -> Token | None:
        """Return the token with that id, live or just cut, if it is known."""
        return self._by_id.get(token_id)

    def owner_of_ended(self, sha256: str) -> AgentId | None:
        """Return the agent of a token that ended lately, other than by its time."""
        token = self._tokens.get(sha256)
        return token.agent_id if token else self._ended.agents.get(sha256)

    def token_hashes(self) -> list[str]:
        """Return the hashes of all tokens there are."""
        return list(self._tokens)

    def end_tokens(self, tokens: Iterable[Token]) -> list[Token]:
        """Forget *tokens*; return those that were there."""
        return [token for token in tokens if self.drop_token(token)]

    def orphans(self) -> list[Token]:
        """Return held tokens that were exchanged for one that does not live."""
        return [
            token
            for held in self._held.values()
            for token in held.unordered()
            if token.parent_id is not None and not self.lives(token)
        ]

    def drop_token(self, token: Token) -> bool:
        """Forget *token*; return whether it existed. One caller gets True."""
        held = self._held.get(token.agent_id)
        dropped = held.drop(token) if held else None
        if dropped is None:
            return False
        self._forget(dropped)
        return True

    def elevated(self, stepup_id: StepUpId) -> Token | None:
        """Return the live token that came from an approval."""
        token = self._elevated.get(stepup_id)
        return token if token and self.lives(token) and self.admits(token) else None

    def may_hold_more(self, agent_id: AgentId, most: int) -> bool:
        """Check whether the agent's live tokens are below the maximum of one agent.

        Args:
            agent_id: the agent.
            most: how many it may hold.

        Returns:
            whether it holds fewer, and has room in memory.
        """
        held = self._held.get(agent_id)
        if held is None:
            return True
        if len(held) >= most and len(self.held(agent_id)) >= most:
            return False
        now = self._clock.boot()
        if now - self._weighed_at >= _WEIGHED_FOR:
            self._weight = sum(one.weight for one in self._held.values())
            self._weighed_at = now
        share = ALL_CAP // len(self._held) if self._weight >= ALL_CAP else HELD_CAP
        return held.weight < min(share, HELD_CAP)

    def ends(self) -> Callable[[Deadline], datetime]:
        """Return the function of deadlines' ends, by the clock as it is set now."""
        return as_set_now(self._clock)

    def held(self, agent_id: AgentId) -> HeldTokens:
        """Return the agent's live tokens, to be counted or read, not changed."""
        held = self._held.get(agent_id)
        if held is None:
            return HeldTokens()
        self._prune(held)
        return held

    def tokens_of(self, agent_id: AgentId) -> list[Token]:
        """Return the agent's live tokens, the next to end first."""
        return list(self.held(agent_id))

    def cut_tokens(self, agent_id: AgentId) -> HeldTokens:
        """Make every token of the agent unusable; return those that lived.

        Voids decisions under way, and takes the same time for any number of tokens.
        """
        self.void_decisions(agent_id)
        dropped = self._held.pop(agent_id, None)
        if dropped is None:
            return HeldTokens()
        self._prune(dropped)
        self._ended.add(dropped)
        return dropped

    def ended_before(self, token: Token) -> None:
        """Note that another broker ended *token*, before a cut here was recorded."""
        for ended in self._ended.drop(token):
            self._forget(ended)

    @contextmanager
    def ending_scopes(
        self, agent_id: AgentId, scopes: frozenset[str]
    ) -> Iterator[Iterator[list[Token]]]:
        """End the agent's tokens that carry one of *scopes*; in a block, none lives.

        Yields slices of ended agents, so that others have their turn between; those
        that were not reached when the block is left are ended then.
        """
        tokens = iter(self.held(agent_id).unordered())

        def end(part: Iterable[Token]) -> list[Token]:
            return [
                token
                for token in part
                if not scopes.isdisjoint(token.scope.split()) and self.drop_token(token)
            ]

        ending = self._ending.setdefault(agent_id, [])
        ending.append(scopes)
        try:
            yield map(end, iter(lambda: list(islice(tokens, _SLICE)), []))
        finally:
            end(tokens)
            ending.remove(scopes)
            if not ending:
                del self._ending[agent_id]

    def is_ending_scopes(self, agent_id: AgentId) -> bool:
        """Check whether scopes are just being taken from the agent."""
        return agent_id in self._ending

    def cut_all_tokens(self) -> Callable[[], int]:
        """Make every token unusable; return the function that counts the live ones."""
        self.revocations.void_all()
        self.provider_tokens.drop_all()
        dropped, self._held = list(self._held.values()), {}
        for held in dropped:
            self._ended.add(held)

        def count() -> int:
            for held in dropped:
                self._prune(held)
            return sum(map(len, dropped))

        return count

    def end_expired(self) -> None:
        """Forget every token that has expired: a clock set back must not revive one."""
        for held in self._held.values():
            self._prune(held)
        self.provider_tokens.sweep()

    def sweep(self) -> Iterator[None]:
        """Forget expired tokens, leases that are over, the oldest decided step-ups.

        Yields so often that others have their turn.
        """
        yield from self.forget_cut()
        work = 0
        for agent_id in list(self._held):
            if (held := self._held.get(agent_id)) is None:
                continue
            work += 1 + self._prune(held)
            if not held:
                del self._held[agent_id]
            if work >= _SLICE:
                work = 0
                yield
        self.provider_tokens.sweep()
        # An approved one is kept while its agent may still come for the token.
        self.stepups.sweep(self.elevated)

    def forget_cut(self) -> Iterator[None]:
        """Take tokens that were cut out of memory, yielding after each slice."""
        for part in self._ended.slices(_SLICE):
            for token in part:
                self._forget(token)
            yield

    def lives(self, token: Token) -> bool:
        """Check whether *token* and all that it was exchanged for still live.

        Forget it once it is seen to have expired.
        """
        held = self._held.get(token.agent_id)
        if held is None or token not in held:
            return False
        if token.parent_id is not None:
            parent = self.delegations.parent(token)
            if parent is None or not self.lives(parent):
                return False
        if self._ending and any(
            not scopes.isdisjoint(token.scope.split())
            for scopes in self._ending.get(token.agent_id, ())
        ):
            return False
        if not token.expires.passed(self._clock):
            return True
        held.drop(token)  # for good: a clock that is set back must not revive it
        self._forget(token)
        return False

    def _prune(self, held: HeldTokens) -> int:
        """Forget those of *held* that have ended; return how many had."""
        ended = held.prune(self._clock)
        for token in ended:
            self._forget(token)
        return len(ended)

    def _forget(self, token: Token) -> None:
        """Remove *token* from the indexes, unless another has its place by now."""
        if self._tokens.get(token.sha256) is token:
            del self._tokens[token.sha256]
        if self._by_id.get(token.id) is token:
            del self._by_id[token.id]
        if token.parent_id is not None:
            self.delegations.remove(token)
        if token.stepup_id and self._elevated.get(token.stepup_id) is token:
            del self._elevated[token.stepup_id]
