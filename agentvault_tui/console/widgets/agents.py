"""The agents: their cards by attention, and the details of the one under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final

from msgspec.structs import replace
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.agent import details
from agentvault_tui.console.draw.layout import TWO_COLUMNS
from agentvault_tui.console.state.agents import AgentView, Attention
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.term.keyed import moves
from agentvault_tui.console.widgets.pane import Painted, Pane, ScrollPane
from agentvault_tui.operator_api.shapes import CountsInfo
from agentvault_tui.presenters.agent import state_word
from agentvault_tui.presenters.lines import Pen, Piece, Row, cells
from agentvault_tui.presenters.moments import SOON, countdown, lasting, plural
from agentvault_tui.presenters.records import AgentRow
from agentvault_tui.presenters.revocations import headline, outside
from agentvault_tui.text import cell_width

BAR: Final = 10
_BARS: Final = (BAR, 0)
"""Cells of a bar: all, for lengths to be compared, or none where words need them."""
_BAR_SPAN: Final = 3600.0
"""A full bar is an hour, as long as a standard token lives unless set otherwise."""
_NAME: Final = 22
_OWNER: Final = 8
_LONGEST_OWNER: Final = 40
_CARD_NAME: Final = 14
"""Cells of a name in a card of three rows, after which the state begins."""
_GAP: Final = "  "
_CACHED_CARDS: Final = 200
"""Cached drawn cards; more are never on one screen."""
_MAY: Final = {1: 2, 2: 36, 3: 2}
"""Cells that scopes leave free, by the rows of a card."""

Size = tuple[int, int]
"""Cells and rows."""


class Cards:
    """Draw agents' cards, cached until something on them changes."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._drawn: dict[str, tuple[AgentRow, tuple[object, ...], list[Row]]] = {}
        self._scopes: dict[str, tuple[AgentRow, tuple[object, ...], Row]] = {}

    def draw(
        self, pen: Pen, theme: str, agent: AgentRow, look: Attention, size: Size
    ) -> list[Row]:
        """Return the rows of a card, as drawn before if nothing on it differs."""
        mirror = self._mirror
        token = mirror.soonest(agent.id)
        left = int(token.remaining(mirror.clock.now())) if token else -1
        counts, cuts = mirror.counts(agent.id), mirror.cuts.get(agent.id)
        out = int(outside(agent, mirror.clock.now()))
        broker = (mirror.link.live, mirror.status.panic.on)
        ends = _ends_in(agent, mirror.clock.now())
        state = (left, counts, look, cuts, out, broker, size, theme, ends)
        drawn = self._drawn.get(agent.id)
        # Two revisions of an agent are two objects; all else compares by value.
        if drawn is not None and drawn[0] is agent and drawn[1] == state:
            return drawn[2]
        if len(self._drawn) >= _CACHED_CARDS:
            self._drawn.clear()
            self._scopes.clear()
        may = self._may(pen, theme, agent, size)
        rows = _card(pen, mirror, agent, look, may=may, size=size)
        self._drawn[agent.id] = (agent, state, rows)
        return rows

    def _may(self, pen: Pen, theme: str, agent: AgentRow, size: Size) -> Row:
        state = (theme, size)
        scopes = self._scopes.get(agent.id)
        if scopes is not None and scopes[0] is agent and scopes[1] == state:
            return scopes[2]
        width, rows = size
        may = _may(pen, self._mirror, agent, width - _MAY[rows])
        row = ((_GAP, pen.palette.muted), *may)
        self._scopes[agent.id] = (agent, state, row)
        return row


def _ends_in(agent: AgentRow, now: datetime) -> str:
    """Return in how long an agent ends by itself; nothing where it does not."""
    return lasting((agent.until - now).total_seconds()) if agent.until else ""


def _card(
    pen: Pen, mirror: Mirror, agent: AgentRow, look: Attention, *, may: Row, size: Size
) -> list[Row]:
    width, rows = size
    p = pen.palette
    holds = _holds(pen, mirror, agent)
    now, stopped = mirror.clock.now(), mirror.status.panic.on
    live = mirror.link.live
    state = _state(pen, agent, look, now, stopped=stopped, live=live)
    if rows == 1:
        return [_line(pen, mirror, agent, look, width)]
    if rows == 2:
        left = (*_named(pen, agent, look, width, cells(state) + cells(holds)), *state)
        open_still = _elsewhere(pen, mirror, agent) if agent.revoked else []
        if open_still and cells(left) + cells(holds) >= width:
            holds = _joined(pen, open_still)
        return [
            pen.spread(left, holds, width),
            pen.spread(may, _counts(pen, mirror, agent, width // 2 + 2), width),
        ]
    if cell_width(agent.name) + cells(state) + 3 > width:
        state = state[:2] if look.waiting else state
    name = pen.middle(agent.name, max(width - cells(state) - 3, 8))
    blank = " " * max(min(_CARD_NAME, width - cells(state) - 2) - cell_width(name), 0)
    top: Row = ((name, _name_style(pen, look)), (blank + _GAP, p.text), *state)
    owner: Row = ((pen.clip(agent.owner, _LONGEST_OWNER), p.muted),)
    room = width - cells(top) - 2
    if cells(owner) > room and cells(may) + cells(owner) + 2 <= width:
        may = pen.spread(may, owner, width)
        owner = ()
    elif cells(owner) > room:
        owner = ((pen.clip(agent.owner, room), p.muted),) if room >= _OWNER else ()
    return [
        pen.spread(top, owner, width),
        may,
        _last(pen, mirror, agent, width),
    ]


def _named(pen: Pen, agent: AgentRow, look: Attention, width: int, used: int) -> Row:
    """Write a name as wide as a column, and wider if it would be cut."""
    free = width - used - 2
    wide = max(min(_NAME, width - 30), min(cell_width(agent.name), free), 8)
    who = pen.middle(agent.name, wide)
    return ((who + " " * (wide + 1 - cell_width(who)), _name_style(pen, look)),)


def _line(
    pen: Pen, mirror: Mirror, agent: AgentRow, look: Attention, width: int
) -> Row:
    """Write an agent in one line: served requests give way first, denials last."""
    stopped, now = mirror.status.panic.on, mirror.clock.now()
    live = mirror.link.live
    state = _state(pen, agent, look, now, stopped=stopped, live=live)
    counts = mirror.counts(agent.id)
    tally = _tally(pen, agent, counts)
    denied = _tally(pen, agent, replace(counts, allowed=0))
    holds, short = _holds(pen, mirror, agent), _holds(pen, mirror, agent, 0)
    if agent.revoked and (open_still := _elsewhere(pen, mirror, agent)):
        short = _joined(pen, open_still)
    choices = ((tally, holds), (denied, holds), (denied, short), (denied, ()))
    for some, rest in choices:
        right = (*some, *(((_GAP, pen.palette.text),) if some and rest else ()), *rest)
        if min(_NAME, width - 30) + 1 + cells(state) + 1 + cells(right) <= width:
            break
    left = _named(pen, agent, look, width, cells(state) + cells(right))
    return pen.spread((*left, *state), right, width)


def _last(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> Row:
    """Write its tokens, and the answers to its requests.

    For a revoked agent, open steps elsewhere go before both closed ones here, which its
    state shows too, and its requests.
    """
    gap: Row = ((_GAP, pen.palette.muted),)
    text = cells(_tally(pen, agent, mirror.counts(agent.id)))
    for bar in _BARS:
        holds = _holds(pen, mirror, agent, bar)
        if cells(holds) + text + 4 <= width:
            break
    counts = _counts(pen, mirror, agent, width - 4 - cells(holds))
    open_still = _elsewhere(pen, mirror, agent) if agent.revoked else []
    if not open_still or cells((*gap, *holds, *counts)) < width:
        return pen.spread((*gap, *holds), counts, width)
    if cells((*gap, *holds)) > width:
        holds = _joined(pen, open_still)
    return pen.cut((*gap, *holds), width)


def _name_style(pen: Pen, look: Attention) -> Style:
    return pen.palette.muted if look.revoked else pen.palette.strong


def _state(
    pen: Pen,
    agent: AgentRow,
    look: Attention,
    now: datetime,
    *,
    stopped: bool,
    live: bool,
) -> Row:
    """Word the agent's state, and the reason for its high place."""
    p, g = pen.palette, pen.glyphs
    word = state_word(agent, waiting=bool(look.waiting), stopped=stopped)
    style = {"revoked": p.danger, "stopped": p.danger, "waiting": p.waiting}
    text = word.upper()
    if word == "active":
        text += " " if live else "?"
    row: list[Piece] = [(text, style.get(word, p.muted))]
    if word in {"revoked", "resource server", "template"}:
        return tuple(row)
    if look.waiting:
        row.append((f" {plural(look.waiting, 'step-up')}", p.waiting))
    if mark := _mark(look):
        row.append((f" {g.pointer} {mark}", p.waiting))
    elif agent.until is not None and not look.waiting:
        soon = (agent.until - now).total_seconds() < SOON
        row.append((f" ends in {_ends_in(agent, now)}", p.waiting if soon else p.muted))
    return tuple(row)


def _mark(look: Attention) -> str:
    """Word how an agent misbehaves or did: its denials before its burst."""
    was = look.misbehaved
    if look.denials:
        return f"{look.denials} denied in 60 s"
    if was and was.what == "denied":
        return f"{was.most} denied at {was.last:%H:%M}"
    if look.burst:
        return f"burst, {look.burst} in 60 s"
    return f"burst, {was.most} at {was.last:%H:%M}" if was else ""


def _may(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> Row:
    """List scopes with their risk, the riskiest first, as many as fit."""
    p, g, grants = pen.palette, pen.glyphs, mirror.intake.grants(agent)
    if not grants:
        words = "checks agents' tokens" if agent.resource_server else "may do nothing"
        serves = ", ".join((*agent.serves, *agent.resources))
        served = f"serves {serves}" if serves else words
        return ((pen.clip(served, width), p.muted),)
    row: list[Piece] = []
    used = 0
    for number, scope in enumerate(grants):
        rest = len(grants) - number
        room = width - used - (len(f"{_GAP}+{rest}") if rest > 1 else 0)
        gap = _GAP if number else ""
        text = f"{g.risk(scope.risk).strip()} {scope.name}"
        if number and cell_width(gap + text) > room:
            row.append((f"{gap}+{rest}", p.muted))
            break
        text = pen.clip(text, max(room - len(gap), 6))
        row += [(gap, p.muted), (text, p.risk(scope.risk))]
        used += cell_width(gap + text)
    return tuple(row)


def _holds(pen: Pen, mirror: Mirror, agent: AgentRow, wide: int = BAR) -> Row:
    p, g = pen.palette, pen.glyphs
    if agent.revoked:
        return _revocation(pen, mirror, agent)
    if agent.resource_server:
        return ()
    token = mirror.soonest(agent.id)
    if token is None:
        live = mirror.live_tokens(agent.id)
        return ((plural(live, "live token") if live else "no live token", p.muted),)
    left = token.remaining(mirror.clock.now())
    bar = g.bar(left / _BAR_SPAN, wide)
    style = p.waiting if left < SOON else p.accent
    row: list[Piece] = [(bar, style), (f" {countdown(left):>5}", p.text)]
    if left <= 0:
        row[1] = (" EXPIRED", p.danger)
    elif left < SOON:
        row[1] = (f" {countdown(left):>5} SOON", p.waiting)
    if not mirror.link.live:
        return (*row[1:], (" unconfirmed", p.stale))
    return tuple(row)


def _revocation(pen: Pen, mirror: Mirror, agent: AgentRow) -> Row:
    """Word the known facts of a revocation, and no others."""
    p = pen.palette
    since = f" {agent.revoked_at:%H:%M}" if agent.revoked_at else ""
    ms = mirror.cuts.get(agent.id)
    text = f"closed here{since}" if ms is None else f"closed here {ms:.1f} ms"
    return _joined(pen, [(text, p.muted), *_elsewhere(pen, mirror, agent)])


def _elsewhere(pen: Pen, mirror: Mirror, agent: AgentRow) -> list[Piece]:
    """Word the progress of tenant and providers, and how long tokens outside work."""
    p = pen.palette
    pieces: list[Piece] = []
    if text := headline(agent):
        pieces.append((text, p.muted))
    if left := outside(agent, mirror.clock.now()):
        pieces.append((f"outside {countdown(left)}", p.waiting))
    return pieces


def _joined(pen: Pen, pieces: list[Piece]) -> Row:
    between: Piece = (f" {pen.glyphs.separator} ", pen.palette.muted)
    row: list[Piece] = []
    for piece in pieces:
        row += [between, piece] if row else [piece]
    return tuple(row)


def _counts(pen: Pen, mirror: Mirror, agent: AgentRow, room: int) -> Row:
    """Write how the agent's requests were answered; where it is tight, refusals."""
    if agent.resource_server:
        return ()
    counts = mirror.counts(agent.id)
    tally = _tally(pen, agent, counts)
    if cells(tally) <= room:
        return tally
    refused = _tally(pen, agent, replace(counts, allowed=0))
    return refused if cells(refused) <= room else ()


def _tally(pen: Pen, agent: AgentRow, counts: CountsInfo) -> Row:
    p = pen.palette
    row: list[Piece] = []
    for number, name, style in (
        (counts.allowed, "allowed", p.text),
        (counts.denied, "denied", p.denied),
    ):
        if number:
            row += [
                (_GAP if row else "", p.muted),
                (f"{number:,}", p.muted if agent.revoked else style),
                (f" {name}", p.muted),
            ]
    return tuple(row)


_WELCOME: Final = (
    "No agents yet.",
    "",
    "Add the first one from a shell:",
    "",
    "  agentvault agents add NAME \\",
    "      --owner YOU --scope read:calendar",
    "",
    "It prints a client id and a secret, once.",
)
_NONE_THEN: Final = ("No agent was registered yet.",)
_UNREAD: Final = ("Not read yet.",)


class AgentMoved(Message):
    """The cursor is on another agent."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, AgentMoved)


class AgentOpened(Message):
    """The operator wants to know everything about the agent under the cursor."""


class AgentPane(Pane, can_focus=True):
    """One card an agent; only those on screen are ever drawn."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False),
        Binding("home,g", "edge(0)", "first", show=False),
        Binding("end,G", "edge(-1)", "last", show=False),
        Binding("enter", "open", "all about the agent", show=False),
    ]

    def __init__(self, desk: Desk, view: AgentView) -> None:
        super().__init__(desk, id="agents")
        self.view = view
        self._top = 0
        self._first = 0
        """Rows at the top that do not scroll."""
        self._offset = 0
        """The cursor's row on screen, the same when the order changes."""
        self._cards = Cards(desk.mirror)

    @property
    def agent(self) -> AgentRow | None:
        """The agent under the cursor: the target of keys."""
        return self.mirror.agents.get(self.view.cursor or "")

    @property
    def rows_a_card(self) -> int:
        width, height = self.size
        if self.app.size.width < TWO_COLUMNS:
            return 1
        return 3 if width < 76 and height >= 14 else 2

    @property
    def _pitch(self) -> int:
        """Rows from one card to the next: they stand apart where all have room."""
        tall = self.rows_a_card
        room = self.size.height - 1
        return tall + (len(self.view.order) * (tall + 1) <= room + 1)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the cards in sight, the one under the cursor among them."""
        if not self.mirror.agents:
            return [(self._title(width, 0), None), *self._empty(width)]
        tall, pitch = self.rows_a_card, self._pitch
        room, order = height - 1, self.view.order
        visible = max(room // tall, 1)
        # Who needs a look stays in sight, in at most half of the rows.
        first = min(self.view.pinned, visible // 2)
        self._scroll(visible - first, first)
        seen = self._top + (room + pitch - tall) // pitch
        below = len(order) - seen
        rows: list[Painted] = [(self._title(width, below), None)]
        shown = [*order[:first], *order[first + self._top :]]
        for agent_id in shown[: room // tall + 1]:
            rows += self._card(agent_id, width, tall)
            rows += [((), None)] * (pitch - tall)
        if not self.view.order:
            text = (
                f"  Nothing matches. {self.desk.key('out', 'Esc')} clears the filter."
            )
            rows += [((), None), (((text, self.pen.palette.text),), None)]
        return rows[:height]

    def _card(self, agent_id: str, width: int, tall: int) -> list[Painted]:
        pen, look = self.pen, self.view.look(agent_id)
        agent = self.mirror.agents[agent_id]
        here = agent_id == self.view.cursor
        over = pen.palette.cursor if here and self.has_focus else None
        mark = pen.glyphs.cursor if here else " "
        style = pen.palette.accent if self.has_focus else pen.palette.muted
        rows = self._cards.draw(pen, self.app.theme, agent, look, (width - 2, tall))
        return [(((mark, style), *row), over) for row in rows]

    def _scroll(self, visible: int, first: int) -> None:
        """Scroll the cursor into sight, or to its old row when rows move.

        The *first* rows stay, so they are none of the *visible* ones that scroll.
        """
        self._first = first
        last = max(len(self.view.order) - first - visible, 0)
        index = self.view.index - first
        if index < 0:
            self._top = min(self._top, last)
            return
        top = index - self._offset
        # A list that was not scrolled stays at its top: who needs a person is there.
        unscrolled = self._top == 0 and index < visible
        if self.view.still or unscrolled or not 0 <= self._offset < visible:
            top = min(max(self._top, index - visible + 1), index)
        self._top = min(max(top, 0), last)
        self._offset = index - self._top

    def _title(self, width: int, below: int) -> Row:
        pen, view, p = self.pen, self.view, self.pen.palette
        mirror, all_ = self.mirror, len(self.mirror.agents)
        count = f"{all_ - len(mirror.servers):,}"
        if mirror.servers:
            count = f"{count} and {plural(len(mirror.servers), 'resource server')}"
        shown = f"{len(view.order):,} of {all_:,}" if view.filter else count
        row: Row = self.heading("Agents")
        if mirror.loaded:
            row = (*row, (f"  {shown}", p.text))
        elif mirror.partial:
            row = (*row, (f"  {shown} read so far", p.waiting))
        if view.filter:
            row = (*row, (f", {view.hidden:,} hidden", p.waiting))
        if view.held:
            row = (*row, (f"  {view.held} new", p.waiting))
        passed = view.order[self._first : self._first + self._top]
        waits = sum(bool(view.look(agent_id).waiting) for agent_id in passed)
        above = f"{waits} waiting" if waits else f"{self._top:,}"
        above = f"{above} {pen.glyphs.up} " if self._top else ""
        more = f"{below:,} more {pen.glyphs.down} " if below > 0 else ""
        order = "order held " if view.still else "by attention "
        right = ((f"{above}{more}" or order, p.muted),)
        return pen.spread(row, right, width)

    def _empty(self, width: int) -> list[Painted]:
        pen, p = self.pen, self.pen.palette
        text = _NONE_THEN if self.desk.past else _WELCOME
        if not self.mirror.loaded:
            text = _UNREAD
        lines = ("", *text) if self.mirror.link.live or text is _UNREAD else ()
        rows: list[Painted] = []
        for line in lines:
            style = p.key if line.startswith("  ") else p.text
            rows.append((((" " + pen.clip(line, width - 2), style),), None))
        return rows

    def action_move(self, rows: int) -> None:
        self.view.move(rows)
        self._after_move()

    def wheel(self, rows: int) -> None:
        self.action_move(1 if rows > 0 else -1)

    def on_click(self, event: Click) -> None:
        if event.y > 0 and self.view.order:
            row = (event.y - 1) // self._pitch
            self.view.put(row + self._top * (row >= self._first))
            self._after_move()

    def action_page(self, direction: int) -> None:
        self.view.move(direction * max((self.size.height - 1) // self.rows_a_card, 1))
        self._after_move()

    def action_edge(self, index: int) -> None:
        self.view.put(index if index >= 0 else len(self.view.order) - 1)
        self._after_move()

    def action_open(self) -> None:
        self.post_message(AgentOpened())

    def _after_move(self) -> None:
        self.paint()
        self.post_message(AgentMoved())


class DetailsPane(ScrollPane):
    """Follows the cursor of the agent pane; scrolls when it has the focus."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *moves("turn"),
        Binding("enter", "open", "all about the agent", show=False),
    ]

    def __init__(self, desk: Desk, agents: AgentPane) -> None:
        super().__init__(desk, id="details")
        self._agents = agents
        self._shown = ""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw the agent under the list's cursor; another one begins at its top."""
        agent, pen = self._agents.agent, self.pen
        if agent is None:
            return []
        if agent.id != self._shown:
            self._shown, self._top = agent.id, 0
        rows = details(
            pen, self.mirror, agent, (width - 2, height - 1), self.desk.restores
        )

        def title(rows: int) -> Row:
            more = self.below(rows, agent.id)
            name = pen.clip(agent.name, max(width - cells(more) - 6, 4))
            return pen.spread(self.heading(name), more, width)

        return self.scrolled(rows, height, title)

    def action_open(self) -> None:
        self.post_message(AgentOpened())
