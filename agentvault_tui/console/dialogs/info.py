"""Dialogs that are read: the keys that work here, and who else is connected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from textual.app import App
from textual.binding import ActiveBinding, Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Scrolled, SheetPage, key_name
from agentvault_tui.console.draw.glyphs import Glyphs
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row
from agentvault_tui.console.state.filters import KEYS
from agentvault_tui.console.state.moments import FORMS, clock_time, plural
from agentvault_tui.console.state.presence import OperatorRow
from agentvault_tui.text import cell_width

_KEYS: Final = 22
"""Cells of the column of keys."""
_NAMED: Final = 60
"""From this width on each row ends in the name that a keymap knows it by."""
_WORDS: Final = {
    "app.focus_next": "next field or pane",
    "app.focus_previous": "the one before",
}
"""Ours for the framework's own bindings."""
_DECIDE: Final = "Decide"
_LOOK: Final = "Look"
_MOVE: Final = "Move"
_ANYWHERE: Final = "Everywhere"
_DECIDES: Final = frozenset(
    {"step-ups", "revoke", "restore", "undo", "panic"}
    | {"approve", "deny", "reason", "confirm", "repeat"}
    | {"cut", "take-away", "give-back", "dismiss-advice"}
)
_MOVES: Final = frozenset(
    {"down", "up", "page-down", "page-up", "first", "last", "next", "previous", "out"}
    | {"leave", "open", "close", "take", ""}
)
_LANGUAGE: Final = (
    ("key:value", f"keys: {', '.join(KEYS)}"),
    ('word "two words"', "looked for everywhere; all of them must hold"),
    ("-key:value -word", "what must not hold"),
    ("since: until:", FORMS),
    ("@name", "a saved filter; {save} saves one, {saved} lists them"),
)


@dataclass(slots=True)
class _Line:
    """One action, and all keys bound to it."""

    words: str
    name: str
    keys: list[str] = field(default_factory=list)


class HelpDialog(Scrolled):
    """List the bindings that were active where the operator asked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "leave", "close", show=False)
    ]
    WIDTH: ClassVar[int] = 88

    def __init__(self, desk: Desk, bindings: Mapping[str, ActiveBinding]) -> None:
        self.bindings_there = dict(bindings)
        super().__init__(desk)

    def page(self, width: int, height: int) -> SheetPage:
        """List keys by purpose, then the filter language and the marks."""
        pen = self.pen
        body: list[Row] = []
        for heading, lines in self._groups().items():
            title: Row = ((heading, pen.palette.title),)
            if body:
                body.append(EMPTY)
            elif width >= _NAMED:
                named = (("name in keymap.toml", pen.palette.muted),)
                title = pen.spread(title, named, width)
            body.append(title)
            body += [self._row(pen, line, width) for line in lines]
        if self._filters:
            body += [EMPTY, (("Filter", pen.palette.title),)]
            for sign, words in _LANGUAGE:
                body += _explained(pen, sign, self._with_keys(words), width)
        body += [EMPTY, (("Marks", pen.palette.title),)]
        for sign, words in _marks(pen.glyphs):
            body += _explained(pen, sign, words, width)
        body += [EMPTY, *self._keymap(pen, width)]
        more = len(body) + 2 > height
        hints = [("Esc", "close")]
        hints += [(f"{pen.glyphs.up} {pen.glyphs.down}", "more")] * more
        footer = [EMPTY, pen.keys(hints)]
        title = (("Keys that work here", pen.palette.title),)
        return SheetPage(title, (), tuple(body), tuple(footer))

    def _with_keys(self, words: str) -> str:
        key = self.desk.key
        return words.format(save=key("save", "ctrl+s"), saved=key("saved", "ctrl+o"))

    @property
    def _filters(self) -> bool:
        names = {active.binding.id for active in self.bindings_there.values()}
        return "filter" in names

    def _groups(self) -> dict[str, list[_Line]]:
        """Group the bindings by what they are for, keys of one action together."""
        groups: dict[str, dict[str, _Line]] = {
            name: {} for name in (_DECIDE, _LOOK, _MOVE, _ANYWHERE)
        }
        for active in self._active():
            binding = active.binding
            words = _WORDS.get(binding.action, binding.description)
            lines = groups[_purpose(active)]
            line = lines.setdefault(words, _Line(words, binding.id or ""))
            key = key_name(binding)
            if key not in line.keys:
                line.keys.append(key)
        return {name: list(lines.values()) for name, lines in groups.items() if lines}

    def _active(self) -> Iterator[ActiveBinding]:
        for active in self.bindings_there.values():
            if (
                active.binding.description
                and active.enabled
                and not _spare(active.binding)
            ):
                yield active

    def _row(self, pen: Pen, line: _Line, width: int) -> Row:
        keys = " ".join(line.keys)
        blank = " " * max(_KEYS - cell_width(keys), 1)
        row: Row = (
            (f"  {keys}{blank}", pen.palette.key),
            (line.words, pen.palette.text),
        )
        if width < _NAMED or not line.name:
            return pen.cut(row, width)
        own = "yours: " if line.name in self.desk.keymap else ""
        style = pen.palette.waiting if own else pen.palette.muted
        return pen.spread(row, ((f"{own}{line.name}", style),), width)

    def _keymap(self, pen: Pen, width: int) -> list[Row]:
        """Say where keys are changed, and what of the user's file was not taken."""
        p = pen.palette
        rows: list[Row] = []
        if self.desk.key_problems:
            rows.append((("Not taken from keymap.toml", p.waiting),))
            for problem in self.desk.key_problems:
                rows += pen.paragraph(problem, width)
            rows.append(EMPTY)
        how = 'keymap.toml beside config.toml changes keys by name: revoke = "R"'
        return [*rows, *pen.paragraph(how, width, p.muted)]


def _marks(g: Glyphs) -> Iterator[tuple[str, str]]:
    """Explain the marks that stand beside words, in the terminal's alphabet."""
    risks = (g.risk_high, g.risk_medium, g.risk_low)
    yield " ".join(mark.strip() for mark in risks), "a scope's risk: high, medium, low"
    yield g.bar(0.6, 5), "time until the agent's next token expires; full is an hour"
    yield g.pointer, "why an agent stands so high in the list"
    yield g.cursor, "the pane that keys go to, and the row under its cursor"
    yield g.arrow, "what was answered, and what came of it"
    yield f"{g.up} {g.down}", "more above, more below"
    yield f"{g.live} {g.lost}", "the link to the broker is live, or is not"
    yield f"{g.done} {g.failed}", "done or verified; failed or does not match"
    yield f"{g.current} {g.ahead}", "under way; not begun"
    yield g.levels, "how many there were; the highest bar is the most"
    yield g.mask * 4, "a code, a link or a number in an agent's words, masked"


def _spare(binding: Binding) -> bool:
    if binding.action == "screen.copy_text":
        return True  # of what the mouse has selected, for our own inputs
    return binding.system or binding.key.startswith("super+")


def _purpose(active: ActiveBinding) -> str:
    name = active.binding.id or ""
    if name in _DECIDES:
        return _DECIDE
    if isinstance(active.node, App):
        return _ANYWHERE
    return _MOVE if name in _MOVES else _LOOK


def _explained(pen: Pen, sign: str, words: str, width: int) -> list[Row]:
    """Write a piece of the language and what it asks for."""
    rows: list[Row] = []
    lines = pen.paragraph(words, max(width - _KEYS - 2, 20))
    for line in lines:
        left = f"  {sign if not rows else ''}".ljust(_KEYS + 2)
        rows.append(pen.cut(((left, pen.palette.key), *line), width))
    return rows


_FACES = {"console": "console", "plain": "plain console"}


class OperatorsDialog(Scrolled):
    """List the connected operators, as they come and go."""

    def page(self, width: int, height: int) -> SheetPage:
        """List the others, and who one is oneself."""
        del height
        pen, presence = self.pen, self.desk.mirror.presence
        others = presence.others
        body: list[Row] = []
        if not self.desk.mirror.link.live:
            body += pen.paragraph("Nobody knows while the link is not live.", width)
        elif not others:
            body += pen.paragraph("Nobody else is connected.", width)
        column = max((cell_width(row.title) for row in others), default=0)
        for row in others:
            body += self._rows(pen, row, min(column, width // 2), width)
        if presence.unlisted:
            more = f"{plural(presence.unlisted, 'more stream')}, not listed"
            body.append(((more, pen.palette.muted),))
        if presence.you:
            body += [EMPTY, *self._own(pen, width)]
        title = (("Operators", pen.palette.title),)
        count = ((plural(len(others), "other"), pen.palette.muted),)
        footer = (EMPTY, pen.keys(self.hints("leave")))
        return SheetPage(title, count, tuple(body), footer)

    def _own(self, pen: Pen, width: int) -> list[Row]:
        """Say who one is here, and what one may not do."""
        me = self.desk.mirror.presence.me
        known = f", as {me.known_as}" if me and me.signed_in else ""
        rows: list[Row] = [((f"You are here too{known}.", pen.palette.muted),)]
        for _, why in me.refused if me else ():
            rows += pen.paragraph(f"Not for you: {why}.", width, pen.palette.waiting)
        return rows

    def _rows(self, pen: Pen, row: OperatorRow, column: int, width: int) -> list[Row]:
        palette = pen.palette
        name = pen.clip(row.title, column)
        blank = " " * (column - cell_width(name) + 2)
        since = f"since {clock_time(row.since)}" if row.since else ""
        face = _FACES.get(row.face, "listens to the events")
        stepup = self.desk.mirror.stepups.get(row.looking_at)
        found: list[Row] = [
            (
                (name + blank, palette.strong),
                (f"{face}  ", palette.text),
                (since, palette.muted),
            )
        ]
        if row.looking_at:
            what = f"{stepup.fingerprint} of {stepup.agent_name}" if stepup else "one"
            words = pen.clip(f"looks at step-up {what}", max(width - 2, 8))
            found.append((("  " + words, palette.waiting),))
        return found
