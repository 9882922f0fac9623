"""The details of the agent under the cursor: may, holds, what revoking does, lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.message import Message

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw import tenantwords, words
from agentvault_tui.console.draw.lines import (
    LABEL,
    Pen,
    Row,
    cells,
    countdown,
    plural,
    wrap,
)
from agentvault_tui.console.state.attention import SOON
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import AgentRow, TokenRow
from agentvault_tui.console.widgets.agents import AgentPane
from agentvault_tui.console.widgets.pane import Painted, Pane

_LATELY: Final = 6
_TOKENS: Final = 8


class DetailsPane(Pane, can_focus=True):
    """Follows the cursor of the agent pane; scrolls when it has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "turn(1)", "down", show=False),
        Binding("up,k", "turn(-1)", "up", show=False),
        Binding("pagedown,ctrl+d", "turn(10)", "page down", show=False),
        Binding("pageup,ctrl+u", "turn(-10)", "page up", show=False),
        Binding("home,g", "turn(-1000000)", "first", show=False),
        Binding("end,G", "turn(1000000)", "last", show=False),
        Binding("enter", "open", "all about the agent", show=False),
    ]

    class Opened(Message):
        """The operator wants to know everything about the agent."""

    def __init__(self, desk: Desk, agents: AgentPane) -> None:
        super().__init__(desk, id="details")
        self._agents = agents
        self._top = 0
        self._shown = ""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw what fits, from the row scrolled to."""
        agent, pen = self._agents.agent, self.pen
        if agent is None:
            return []
        if agent.id != self._shown:
            self._shown, self._top = agent.id, 0
        rows = details(pen, self.mirror, agent, width - 2, self.desk.restores)
        room = height - 1
        self._top = min(self._top, max(len(rows) - room, 0))
        below = len(rows) - self._top - room
        seen = rows[self._top : self._top + room]
        title = self._title(agent, below, width)
        return [(title, None), *((((" ", pen.palette.text), *r), None) for r in seen)]

    def _title(self, agent: AgentRow, below: int, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        more = f"{below} more {pen.glyphs.down} " if below > 0 else f"{agent.id} "
        name = pen.clip(agent.name, max(width - len(more) - 6, 4))
        return pen.spread(self.heading(name), ((more, p.muted),), width)

    def action_open(self) -> None:
        """Ask for the agent's screen."""
        self.post_message(self.Opened())

    def wheel(self, rows: int) -> None:
        """Move by the wheel."""
        self.action_turn(rows)

    def action_turn(self, rows: int) -> None:
        """Move by *rows*."""
        self._top = max(self._top + rows, 0)
        self.paint()


def details(
    pen: Pen, mirror: Mirror, agent: AgentRow, width: int, restores: str
) -> list[Row]:
    """Write everything worth knowing about an agent.

    *restores* is what is said besides of one that is revoked.
    """
    now = mirror.clock.now()
    rows = [
        *_may(pen, agent, width),
        *_holds(pen, mirror, agent, width, now),
        *tenantwords.accounts(pen, agent, width),
    ]
    revoking = _revoking(pen, mirror, agent, width, restores)
    # Once it is revoked, how far that is comes first: nothing else is urgent.
    rows = [*revoking, *rows] if agent.revoked else [*rows, *revoking]
    return [
        *_identity(pen, mirror, agent, width),
        *rows,
        *_lately(pen, mirror, agent, width),
    ]


def _identity(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> list[Row]:
    p, last = pen.palette, mirror.last_seen(agent.id)
    seen = f"seen {ago(mirror.clock.now(), last)}" if last else "never seen"
    if agent.resource_server:  # it introspects, which is nobody's request
        seen = "resource server"
    owner = pen.clip(agent.owner, max(width - LABEL - len(seen) - 3, 6))
    rows = [
        pen.fact(
            "Owner",
            (owner, p.text),
            (f" {pen.glyphs.separator} {seen}", p.muted),
        )
    ]
    if agent.purpose:
        rows += pen.facts("Purpose", agent.purpose, width, 2, p.muted)[0]
    return rows


def _may(pen: Pen, agent: AgentRow, width: int) -> list[Row]:
    p, g = pen.palette, pen.glyphs
    if not agent.scopes:
        return [pen.fact("May", ("do nothing: no scope is granted", p.muted))]
    rows: list[Row] = []
    for scope in agent.scopes:
        text = f"{scope.description} ({scope.risk})"
        for number, line in enumerate(wrap(text, max(width - LABEL - 3, 8))):
            mark = f"{g.risk(scope.risk)} " if number == 0 else "   "
            label = "" if rows else "May"
            rows.append(
                pen.fact(label, (mark, p.risk(scope.risk)), (pen.own(line), p.text))
            )
    return rows


def _holds(
    pen: Pen, mirror: Mirror, agent: AgentRow, width: int, now: datetime
) -> list[Row]:
    p, g = pen.palette, pen.glyphs
    tokens = mirror.tokens(agent.id)
    live = mirror.live_tokens(agent.id)
    if not live:
        return [pen.fact("Holds", ("no live token", p.muted))]
    elevated = mirror.elevated(agent.id)
    extra = f"{elevated} elevated" if elevated else "none elevated"
    rows = [
        pen.fact(
            "Holds",
            (plural(live, "token"), p.text),
            (f" {g.separator} {extra}", p.escalated if elevated else p.muted),
        )
    ]
    rows += [_token(pen, token, now, width) for token in tokens[:_TOKENS]]
    if live > _TOKENS:
        rows.append(pen.fact("", (f"and {live - _TOKENS:,} more", p.muted)))
    return rows


def _token(pen: Pen, token: TokenRow, now: datetime, width: int) -> Row:
    p, g = pen.palette, pen.glyphs
    left = token.remaining(now)
    style = p.waiting if left < SOON else p.accent
    row = pen.fact(
        "",
        (g.bar(left / 3600, 8), style),
        (f" {countdown(left):>7}", p.text),
        (" SOON" if left < SOON else "", p.waiting),
        ("  elevated, once" if token.elevated else "", p.escalated),
    )
    room = max(width - cells(row) - 2, 4)
    return (*row, (f"  {pen.clip(token.scope, room)}", p.muted))


def _revoking(
    pen: Pen, mirror: Mirror, agent: AgentRow, width: int, restores: str
) -> list[Row]:
    p = pen.palette
    if agent.revoked:
        when = f" at {agent.revoked_at:%H:%M:%S}Z" if agent.revoked_at else ""
        row = pen.fact("Revoked", (f"closed here{when}{restores}", p.muted))
        return [row, *tenantwords.steps(pen, agent, mirror.clock.now(), width)]
    tokens = plural(mirror.live_tokens(agent.id), "token")
    waits = plural(len(mirror.open_stepups(agent.id)), "step-up")
    rows = pen.facts(
        "Revoking",
        f"cuts {tokens} and {waits} here at once, and refuses the next request.",
        width,
        4,
    )[0]
    for text in dict.fromkeys(s.revoking for s in agent.scopes if s.revoking):
        rows += pen.facts("", pen.own(text), width, 4, p.muted)[0]
    return rows


def _lately(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> list[Row]:
    p = pen.palette
    found = []
    for event in reversed(mirror.events):
        if event.agent_id == agent.id:
            found.append(event)
            if len(found) == _LATELY:
                break
    rows: list[Row] = []
    for event in found:
        style = words.style(p, event)
        what = f"{words.deed(event)} {words.place(event)}".strip()
        text = pen.figure(pen.own(what), event.note, max(width - LABEL - 20, 6))
        rows.append(
            pen.fact(
                "" if rows else "Lately",
                (f"{event.time:%H:%M:%S} ", p.muted),
                (f"{words.word(event):<10} ", style),
                (text, p.text),
            )
        )
    return rows


def ago(now: datetime, then: datetime) -> str:
    """Write how long ago something was, in one unit."""
    seconds = max(int((now - then).total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
