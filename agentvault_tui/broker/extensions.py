"""The rooms that `serve` composes with the broker, and the functions they add."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from starlette.routing import Route

from agentvault_tui.broker.secret_uses import SecretUses
from agentvault_tui.ledger import Change
from agentvault_tui.model import Actor, AgentId, Draft, Event, TokenId
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.requests import PeopleRequest
from agentvault_tui.web.guard import StreamingApp
from agentvault_tui.web.server import Listener, Server

Carrier = Callable[[Mapping[str, Any], Actor], Awaitable[bytes]]
"""Carries out the request of a change, as the person who approved it; returns the
answer, JSON."""


class ChangePerson(Protocol):
    """Makes a recorded change of a person, and returns what is shown once."""

    def __call__(
        self, wanted: PeopleRequest, *, check: bool = False
    ) -> dict[str, object]:
        """Make it, or only *check* that it can be made.

        Raises:
            AgentVaultError: it cannot be made.
        """


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


class OnTrial(Protocol):
    """The permissions that were removed on trial."""

    def covers(self, agent: AgentId, scopes: Sequence[str], rule: str | None) -> bool:
        """Check whether a permission was removed on trial: its scopes, or by a rule."""

    def of(self, agent: AgentId) -> Sequence[AdviceInfo]:
        """Return those of an agent."""


class WatchRoom(Extension, Protocol):
    """The room of alerts and exports, as the broker sees it."""

    @property
    def trials(self) -> OnTrial:
        """The permissions that are removed on trial."""

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
        """End a call: another broker took this one for dead and recorded its result."""

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


@dataclass(slots=True)
class Extensions:
    """The composed rooms, and the functions that they add to the broker's own."""

    gateway: DataPlane | None = None
    """Where agents act through the broker; None where it only issues tokens."""
    watch: WatchRoom | None = None
    """Reads the ledger for others: alerts, exports, metrics."""
    chores: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called at each look of the upkeep."""
    change_person: ChangePerson | None = None
    """Makes a recorded change in the embedded tenant's store, and returns what is shown
    once; called in a thread. None: there is no such tenant."""
    states: dict[str, Callable[[str], str]] = field(default_factory=dict)
    """The state that a change would replace, by the kind of thing; see
    `usecases.changes`. A room that has such things adds its own."""
    carriers: dict[str, Carrier] = field(default_factory=dict)
    """The functions that carry out approved changes, by method and path."""
    secret_uses: list[SecretUses] = field(default_factory=list)
    """Each returns which services or destinations of a room name a sealed secret."""
    name_uses: list[Callable[[str], Iterable[str]]] = field(default_factory=list)
    """Each returns the places outside the broker that name an agent."""

    @property
    def rooms(self) -> tuple[Extension, ...]:
        """Return the rooms that were composed with the broker."""
        return tuple(one for one in (self.gateway, self.watch) if one is not None)

    def committed(self, events: Sequence[Event]) -> None:
        """Show the watch events that have just become durable."""
        if self.watch is not None:
            self.watch.committed(events)

    def cut_calls(
        self,
        agent_id: AgentId | None,
        scopes: frozenset[str] | None = None,
        by: Actor | None = None,
    ) -> CallsCut:
        """Cancel calls through the gateway; see `DataPlane.cut`."""
        return self.gateway.cut(agent_id, scopes, by) if self.gateway else CallsCut()

    def is_on_trial(
        self, agent_id: AgentId, scopes: Sequence[str], rule: str | None
    ) -> bool:
        """Check whether a requested permission was removed on trial; see `OnTrial`."""
        return bool(self.watch and self.watch.trials.covers(agent_id, scopes, rule))

    def trials_of(self, agent_id: AgentId) -> Sequence[AdviceInfo]:
        """Return the permissions of an agent that are removed on trial now."""
        return self.watch.trials.of(agent_id) if self.watch else ()
