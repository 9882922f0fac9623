"""Which agents are listed, in what order, and which one the cursor is on.

The cursor is an identity.
Whatever arrives, expires or changes, it stays on its agent, and that agent stays
listed until the operator moves; only the operator's own filter can take it away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentvault_tui.console.state.attention import Attention, survey
from agentvault_tui.console.state.filters import AgentFacts, Filter
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import AgentRow

STILL: Final = 5.0
"""Seconds after the operator's last move in which the order stays as it is."""
_QUIET: Final = Attention()


class AgentView:
    """The list behind the agent pane."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.filter = Filter()
        self.order: list[str] = []
        self.cursor: str | None = None
        self.held = 0
        """New agents that wait until the order may change."""
        self.attention: dict[str, Attention] = {}
        self._moved_at = float("-inf")
        self._names: list[str] = []
        self._roster = -1
        self._partial = False
        """Whether agents were still being read at the last look."""

    @property
    def hidden(self) -> int:
        """How many agents the filter hides."""
        return len(self._mirror.agents) - len(self.order) - self.held

    @property
    def index(self) -> int:
        """Where the cursor stands; 0 in an empty list."""
        return self.order.index(self.cursor) if self.cursor in self.order else 0

    @property
    def still(self) -> bool:
        """Tell whether the operator moves, so that rows must not."""
        return self._mirror.clock.boot() - self._moved_at < STILL

    def look(self, agent_id: str) -> Attention:
        """Return why an agent stands where it does."""
        return self.attention.get(agent_id, _QUIET)

    def update(self) -> None:
        """Follow the mirror; what the operator is moving among stays in place."""
        self.attention = survey(self._mirror, self.attention)
        self._arrange(keep=self.cursor)

    def narrow(self, wanted: Filter) -> None:
        """Apply the operator's filter; the cursor stays if its agent does."""
        self.filter = wanted
        self._moved_at = float("-inf")
        self._arrange(keep=None)

    def move(self, rows: int) -> None:
        """Move the cursor by *rows*, within the list."""
        self.put(self.index + rows)

    def put(self, index: int) -> None:
        """Move the cursor to the row *index*, or the nearest there is."""
        self._moved_at = self._mirror.clock.boot()
        if self.order:
            self.cursor = self.order[min(max(index, 0), len(self.order) - 1)]

    def go(self, agent_id: str) -> None:
        """Move the cursor to an agent, listed or not."""
        if agent_id not in self._mirror.agents:
            return
        self._moved_at = self._mirror.clock.boot()
        self.cursor = agent_id
        if agent_id not in self.order:
            self.order.append(agent_id)

    def status(self, agent_id: str) -> str:
        """Return the word for how an agent stands."""
        look = self.look(agent_id)
        if look.revoked:
            return "revoked"
        return "waiting" if look.waiting else "active"

    def _arrange(self, keep: str | None) -> None:
        wanted = self._sorted(keep)
        if self.still:
            listed = set(self.order)
            allowed = set(wanted)
            new = len(allowed - listed)
            self.order = [each for each in self.order if each in allowed]
            self.held = new
        else:
            self.order, self.held = wanted, 0
        # Among the first agents that were read it is on the first one there is, not yet
        # on an identity, which the others would come before.
        unplaced = self._partial and self._moved_at == float("-inf")
        self._partial = self._mirror.partial
        if self.cursor not in self.order or unplaced:
            self.cursor = self.order[0] if self.order else None

    def _sorted(self, keep: str | None) -> list[str]:
        """List who needs a person, then the quiet by name, then the revoked."""
        agents, attention = self._mirror.agents, self.attention
        listed = self._by_name()
        if self.filter:
            listed = [
                agent_id
                for agent_id in listed
                if agent_id == keep or self.filter.agent(agents[agent_id], self._facts)
            ]
        marked = [agent_id for agent_id in listed if agent_id in attention]
        if not marked:
            return list(listed)
        marked.sort(key=lambda agent_id: attention[agent_id].order)  # names stay so
        first = sum(attention[agent_id].rank < _QUIET.rank for agent_id in marked)
        quiet = [agent_id for agent_id in listed if agent_id not in attention]
        return marked[:first] + quiet + marked[first:]

    def _by_name(self) -> list[str]:
        """List agents, then resource servers, by name; sorted when one has changed."""
        if self._roster != self._mirror.versions.roster:
            self._roster = self._mirror.versions.roster
            rows: Iterable[AgentRow] = self._mirror.agents.values()
            rows = sorted(rows, key=lambda r: (r.resource_server, r.name, r.id))
            self._names = [row.id for row in rows]
        return self._names

    def _facts(self, row: AgentRow) -> AgentFacts:
        return AgentFacts(self._mirror.counts(row.id), self.status(row.id))
