"""An agent as a card: who, may, holds; in three rows, or in two where it is tight."""

from __future__ import annotations

from typing import Final

from rich.style import Style

from agentvault_tui.console.draw import tenantwords
from agentvault_tui.console.draw.lines import Pen, Piece, Row, cells, countdown, plural
from agentvault_tui.console.state.attention import SOON, Attention
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.records import AgentRow, Counts
from agentvault_tui.text import cell_width

BAR: Final = 10
_BARS: Final = (BAR, 0)
"""Cells of a bar: all, for lengths to be compared, or none where words need them."""
_BAR_SPAN: Final = 3600.0
"""A full bar is an hour, as long as a standard token lives unless set otherwise."""
_NAME: Final = 22
_OWNER: Final = 8
_GAP: Final = "  "
_KEPT: Final = 200
"""Cards kept as they were drawn; more are never on one screen."""
_MAY: Final = {2: 36, 3: 2}
"""Cells that scopes leave free, by the rows of a card."""

Size = tuple[int, int]
"""Cells and rows."""


class Cards:
    """Draws cards, or gives them as they were drawn when nothing on them changed."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._drawn: dict[str, tuple[AgentRow, tuple[object, ...], list[Row]]] = {}
        self._scopes: dict[str, tuple[AgentRow, tuple[object, ...], Row]] = {}

    def draw(
        self, pen: Pen, theme: str, agent: AgentRow, look: Attention, size: Size
    ) -> list[Row]:
        """Draw an agent in *size* (cells, rows)."""
        mirror = self._mirror
        token = mirror.soonest(agent.id)
        left = int(token.remaining(mirror.clock.now())) if token else -1
        counts, cut = mirror.counts(agent.id), mirror.cuts.get(agent.id)
        out = int(tenantwords.outside(agent, mirror.clock.now()))
        state = (left, counts, look, cut, out, mirror.link.live, size, theme)
        known = self._drawn.get(agent.id)
        # Two revisions of an agent are two objects; all else compares by value.
        if known is not None and known[0] is agent and known[1] == state:
            return known[2]
        if len(self._drawn) >= _KEPT:
            self._drawn.clear()
            self._scopes.clear()
        may = self._may(pen, theme, agent, size)
        rows = _card(pen, mirror, agent, look, may=may, size=size)
        self._drawn[agent.id] = (agent, state, rows)
        return rows

    def _may(self, pen: Pen, theme: str, agent: AgentRow, size: Size) -> Row:
        state = (theme, size)
        known = self._scopes.get(agent.id)
        if known is not None and known[0] is agent and known[1] == state:
            return known[2]
        width, rows = size
        row = ((_GAP, pen.palette.muted), *_may(pen, agent, width - _MAY[rows]))
        self._scopes[agent.id] = (agent, state, row)
        return row


def _card(
    pen: Pen, mirror: Mirror, agent: AgentRow, look: Attention, *, may: Row, size: Size
) -> list[Row]:
    width, rows = size
    p = pen.palette
    holds = _holds(pen, mirror, agent)
    state = _state(pen, agent, look)
    if rows == 2:
        # As wide as a column, and wider for a name that would be cut.
        free = width - cells(state) - cells(holds) - 2
        wide = max(min(_NAME, width - 30), min(cell_width(agent.name), free), 8)
        who = pen.clip(agent.name, wide)
        left: Row = (
            (who + " " * (wide + 1 - cell_width(who)), _name_style(pen, look)),
            *state,
        )
        open_still = _elsewhere(pen, mirror, agent) if agent.revoked else []
        if open_still and cells(left) + cells(holds) >= width:
            holds = _joined(pen, open_still)
        return [
            pen.spread(left, holds, width),
            pen.spread(may, _counts(pen, mirror, agent, width // 2 + 2), width),
        ]
    name = pen.clip(agent.name, max(width - cells(state) - 2, 8))
    top: Row = ((name, _name_style(pen, look)), (_GAP, p.text), *state)
    room = width - cells(top) - 2
    owner = pen.clip(agent.owner, room) if room >= _OWNER else ""
    return [
        pen.spread(top, ((owner, p.muted),), width),
        may,
        _last(pen, mirror, agent, width),
    ]


def _last(pen: Pen, mirror: Mirror, agent: AgentRow, width: int) -> Row:
    """Write what it holds, and how its requests were answered.

    Of a revoked agent, what is still open elsewhere goes before both what was closed
    here, which its state says too, and what it asked for.
    """
    gap: Row = ((_GAP, pen.palette.muted),)
    told = cells(_tally(pen, agent, mirror.counts(agent.id)))
    for bar in _BARS:
        holds = _holds(pen, mirror, agent, bar)
        if cells(holds) + told + 4 <= width:
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


def _state(pen: Pen, agent: AgentRow, look: Attention) -> Row:
    """Say how the agent stands, in a word, and why it stands so high."""
    p, g = pen.palette, pen.glyphs
    if look.revoked:
        return (("REVOKED", p.danger),)
    if agent.resource_server:
        return (("RESOURCE SERVER", p.muted),)
    word: Piece = ("WAITING", p.waiting) if look.waiting else ("ACTIVE ", p.muted)
    reason = ""
    if look.burst:
        reason = f"{g.pointer} burst, {look.burst} in 60 s"
    elif look.waiting:
        reason = plural(look.waiting, "step-up")
    elif look.denials:
        reason = f"{g.pointer} {look.denials} denied in 60 s"
    return (word, (f" {reason}", p.waiting)) if reason else (word,)


def _may(pen: Pen, agent: AgentRow, width: int) -> Row:
    """List scopes with their risk, the riskiest first, as many as fit."""
    p, g = pen.palette, pen.glyphs
    if not agent.scopes:
        words = "checks agents' tokens" if agent.resource_server else "may do nothing"
        served = f"serves {', '.join(agent.serves)}" if agent.serves else words
        return ((pen.clip(served, width), p.muted),)
    row: list[Piece] = []
    used = 0
    for number, scope in enumerate(agent.scopes):
        rest = len(agent.scopes) - number
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
    """Draw the soonest expiry, or what is in its place."""
    p, g = pen.palette, pen.glyphs
    if agent.revoked:
        return _cut(pen, mirror, agent)
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


def _cut(pen: Pen, mirror: Mirror, agent: AgentRow) -> Row:
    """Say what is known of a revocation, and nothing that is not."""
    p = pen.palette
    since = f" {agent.revoked_at:%H:%M}" if agent.revoked_at else ""
    ms = mirror.cuts.get(agent.id)
    text = f"closed here{since}" if ms is None else f"closed here {ms:.1f} ms"
    return _joined(pen, [(text, p.muted), *_elsewhere(pen, mirror, agent)])


def _elsewhere(pen: Pen, mirror: Mirror, agent: AgentRow) -> list[Piece]:
    """Say how far tenant and providers are, and how long what is outside works."""
    p = pen.palette
    told: list[Piece] = []
    if text := tenantwords.headline(agent):
        told.append((text, p.muted))
    if left := tenantwords.outside(agent, mirror.clock.now()):
        told.append((f"outside {countdown(left)}", p.waiting))
    return told


def _joined(pen: Pen, told: list[Piece]) -> Row:
    between: Piece = (f" {pen.glyphs.separator} ", pen.palette.muted)
    row: list[Piece] = []
    for piece in told:
        row += [between, piece] if row else [piece]
    return tuple(row)


def _counts(pen: Pen, mirror: Mirror, agent: AgentRow, room: int) -> Row:
    """Write how the agent's requests were answered; where it is tight, refusals."""
    if agent.resource_server:
        return ()
    counts = mirror.counts(agent.id)
    told = _tally(pen, agent, counts)
    if cells(told) <= room:
        return told
    refused = _tally(pen, agent, counts._replace(allowed=0))
    return refused if cells(refused) <= room else ()


def _tally(pen: Pen, agent: AgentRow, counts: Counts) -> Row:
    p = pen.palette
    row: list[Piece] = []
    for number, name, style in (
        (counts.allowed, "allowed", p.text),
        (counts.denied, "denied", p.denied),
        (counts.escalated, "escalated", p.escalated),
    ):
        if number:
            row += [
                (_GAP if row else "", p.muted),
                (f"{number:,}", p.muted if agent.revoked else style),
                (f" {name}", p.muted),
            ]
    return tuple(row)
