"""Who an agent is: name and state, owner and times, what it is for."""

from __future__ import annotations

from collections.abc import Sequence

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.agentwords import ends
from agentvault_tui.console.draw.lines import Piece, Row, cells, plural
from agentvault_tui.console.state.records import AgentRow
from agentvault_tui.console.widgets.details import ago
from agentvault_tui.console.widgets.pane import Painted, Pane


class WhoPane(Pane):
    """The head of an agent's screen."""

    def __init__(self, desk: Desk, agent_id: str) -> None:
        super().__init__(desk, id="who")
        self._agent_id = agent_id

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw as many of the three rows as there is room for."""
        agent = self.mirror.agents.get(self._agent_id)
        if agent is None:
            gone = f" {self._agent_id}: the broker knows no such agent"
            return [(((self.pen.clip(gone, width), self.pen.palette.danger),), None)]
        rows = [self._headline(agent, width), self._facts(agent, width)]
        if agent.purpose:
            purpose = f" {self.pen.clip(agent.purpose, width - 2)}"
            rows.append(((purpose, self.pen.palette.muted),))
        return [(row, None) for row in rows[:height]]

    def _headline(self, agent: AgentRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        state = self._state(agent)
        right: Row = ((f"{agent.id} ", p.muted),)
        room = width - cells(state) - cells(right) - 5
        if room < 12:
            right, room = (), width - cells(state) - 4
        name = pen.clip(agent.name, max(room, 4))
        return pen.spread(((f" {name}  ", p.title), *state), right, width)

    def _state(self, agent: AgentRow) -> tuple[Piece, ...]:
        p, waiting = self.pen.palette, self.mirror.open_stepups(agent.id)
        if agent.revoked:
            since = f" {agent.revoked_at:%Y-%m-%d %H:%M}Z" if agent.revoked_at else ""
            return ("REVOKED", p.danger), (since, p.muted)
        if waiting:
            return ("WAITING", p.waiting), (
                f" {plural(len(waiting), 'step-up')}",
                p.text,
            )
        return (("ACTIVE", p.accent),)

    def _facts(self, agent: AgentRow, width: int) -> Row:
        """Write owner, the cut a revoke would be, and counts, the last first to go."""
        pen, p = self.pen, self.pen.palette
        now, last = self.mirror.clock.now(), self.mirror.last_seen(agent.id)
        counts = self.mirror.counts(agent.id)
        seen = f"seen {ago(now, last)}" if last else "never seen"
        words = [
            "resource server" if agent.resource_server else seen,
            *([] if agent.revoked else [f"revoking cuts {ends(self.mirror, agent)}"]),
            f"{counts.allowed:,} allowed",
            f"{counts.denied:,} denied",
            f"{counts.escalated:,} escalated",
            f"registered {agent.created_at:%Y-%m-%d}",
        ]
        dot = f" {pen.glyphs.separator} "
        row: Row = (
            (" Owner ", p.muted),
            (pen.clip(agent.owner, max(width // 3, 8)), p.text),
        )
        for word in words:
            if cells(row) + len(dot) + len(word) >= width:
                break
            row = (*row, (f"{dot}{word}", p.muted))
        return row
