"""Dialogs that are read: the keys that work here, and who else is connected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from textual.app import App
from textual.binding import ActiveBinding, Binding, BindingType
from textual.events import Key

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import DECIDES, Scrolled, SheetPage, key_name
from agentvault_tui.console.state.presence import OperatorRow
from agentvault_tui.presenters.filters import KEYS
from agentvault_tui.presenters.glyphs import Glyphs
from agentvault_tui.presenters.lines import EMPTY, Pen, Row
from agentvault_tui.presenters.moments import FORMS, clock_time, plural
from agentvault_tui.text import cell_width

_KEYS: Final = 22
"""Cells of the column of keys."""
_QUERY: Final = 40
"""Characters that are searched for, at most."""
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
    active: ActiveBinding
    keys: list[str] = field(default_factory=list)

    def matches(self, words: list[str]) -> bool:
        """Check whether all *words* are in its description, its name or its keys."""
        text = " ".join((self.words, self.name, *self.keys)).lower()
        return all(word in text for word in words)


class HelpDialog(Scrolled):
    """List the bindings that were active where the operator asked.

    A slash searches them, and Enter runs the one under the cursor; a key that decides
    is named, and does so by itself alone.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "leave", "close", show=False)
    ]
    WIDTH: ClassVar[int] = 88

    def __init__(self, desk: Desk, bindings: Mapping[str, ActiveBinding]) -> None:
        self.bindings_there = dict(bindings)
        self.sought: str | None = None
        """The search text; None while nothing is typed."""
        self.cursor: int | None = None
        """The line that Enter runs, among those found; none until one is chosen."""
        super().__init__(desk)

    def page(self, width: int, height: int) -> SheetPage:
        """List keys by purpose, then the filter language and the marks."""
        pen = self.pen
        body = self._keys(pen, width)
        if self.sought is None:
            body += self._rest(pen, width)
        arrows = f"{pen.glyphs.up} {pen.glyphs.down}"
        if self.sought is None:
            hints = [("Esc", "close"), ("/", "search")]
            hints += [(arrows, "more")] * (len(body) + 2 > height)
        else:
            hints = [("Enter", "run it"), (arrows, "choose"), ("Esc", "all keys")]
        footer = [*self.notes(pen, width), EMPTY, pen.keys(hints)]
        title: Row = (("Keys that work here", pen.palette.title),)
        remark: Row = ()
        if self.sought is not None:
            remark = (("/", pen.palette.key), (f"{self.sought}_", pen.palette.strong))
        return SheetPage(title, remark, tuple(body), tuple(footer))

    def _keys(self, pen: Pen, width: int) -> list[Row]:
        """List the keys that are found, the one that Enter runs on its ground."""
        body: list[Row] = []
        number = 0
        for heading, lines in self._matching().items():
            title: Row = ((heading, pen.palette.title),)
            if body:
                body.append(EMPTY)
            elif width >= _NAMED:
                named = (("name in keymap.toml", pen.palette.muted),)
                title = pen.spread(title, named, width)
            body.append(title)
            for line in lines:
                row = self._row(pen, line, width)
                if number == self.cursor:
                    row = tuple((t, pen.palette.under_cursor(s)) for t, s in row)
                body.append(row)
                number += 1
        return body or [((f"No key does that: {self.sought}", pen.palette.text),)]

    def _rest(self, pen: Pen, width: int) -> list[Row]:
        """Explain the filter language, the marks and the keymap."""
        body: list[Row] = []
        if self._filters:
            body += [EMPTY, (("Filter", pen.palette.title),)]
            for sign, words in _LANGUAGE:
                body += _explained(pen, sign, self._with_keys(words), width)
        body += [EMPTY, (("Marks", pen.palette.title),)]
        for sign, words in _marks(pen.glyphs):
            body += _explained(pen, sign, words, width)
        return [*body, EMPTY, *self._keymap(pen, width)]

    # Searching

    def on_key(self, event: Key) -> None:
        """Search for the typed text; choose a key by the arrows."""
        typed = event.character if event.is_printable else None
        query = self.sought
        if query is None:
            if typed != "/":
                return
            self.search("")
        elif event.key == "escape":
            self.search(None)
        elif event.key == "backspace":
            self.search(query[:-1] if query else None)
        elif event.key in {"up", "down"}:
            self._choose(1 if event.key == "down" else -1)
        elif event.key == "enter":
            self._run()
        elif typed and len(query) < _QUERY:
            self.search(f"{query}{typed}".lstrip())
        else:
            return
        event.stop()
        event.prevent_default()

    def search(self, query: str | None) -> None:
        """Show the keys that *query* finds, all of them for None."""
        self.sought, self.note = query, ""
        self.cursor = 0 if query is not None and self._lines() else None
        self.sheet.scroll_body(-len(self.sheet.page.body))
        self.update_page()

    def _choose(self, step: int) -> None:
        last = len(self._lines()) - 1
        here = -1 if self.cursor is None else self.cursor
        self.cursor = min(max(here + step, 0), last) if last >= 0 else None
        self.update_page()
        # Headings and blanks are rows too: twice as many are room enough.
        row = 2 * (self.cursor or 0)
        if not self.sheet.top <= row < self.sheet.top + self.sheet.room:
            self.sheet.scroll_body(step)

    def _run(self) -> None:
        """Close, and run the action under the cursor."""
        if self.cursor is None:
            return
        line = self._lines()[self.cursor]
        if line.name in DECIDES:
            self.note = f"{' or '.join(line.keys)} decides; Enter never does."
            self.update_page()
            return
        action, node = line.active.binding.action, line.active.node
        self.dismiss()
        self.app.call_later(self.app.run_action, action, node)

    def _lines(self) -> list[_Line]:
        return [line for lines in self._matching().values() for line in lines]

    def _matching(self) -> dict[str, list[_Line]]:
        words = (self.sought or "").lower().split()
        matching = {
            name: [line for line in lines if line.matches(words)]
            for name, lines in self._groups().items()
        }
        return {name: lines for name, lines in matching.items() if lines}

    def _with_keys(self, words: str) -> str:
        key = self.desk.key
        return words.format(save=key("save", "ctrl+s"), saved=key("saved", "ctrl+o"))

    @property
    def _filters(self) -> bool:
        names = {active.binding.id for active in self.bindings_there.values()}
        return "filter" in names

    def _groups(self) -> dict[str, list[_Line]]:
        """Group the bindings by purpose, keys of one action together."""
        groups: dict[str, dict[str, _Line]] = {
            name: {} for name in (_DECIDE, _LOOK, _MOVE, _ANYWHERE)
        }
        for active in self._active():
            binding = active.binding
            words = _WORDS.get(binding.action, binding.description)
            lines = groups[_purpose(active)]
            line = lines.setdefault(words, _Line(words, binding.id or "", active))
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
        """Name the file of the keys, and the invalid parts of the user's."""
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
    """Explain the marks that stand next to words, in the terminal's alphabet."""
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
    """Write a piece of the language and its meaning."""
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
        """Word the operator's own identity here, and the missing rights."""
        me = self.desk.mirror.presence.me
        identity = f", as {me.display_name}" if me and me.signed_in else ""
        rows: list[Row] = [((f"You are here too{identity}.", pen.palette.muted),)]
        for why in me.refused.values() if me else ():
            rows += pen.paragraph(f"Not for you: {why}.", width, pen.palette.waiting)
        return rows

    def _rows(self, pen: Pen, row: OperatorRow, column: int, width: int) -> list[Row]:
        palette = pen.palette
        name = pen.clip(row.title, column)
        blank = " " * (column - cell_width(name) + 2)
        since = f"since {clock_time(row.since)}"
        face = _FACES.get(row.face, "listens to the events")
        stepup = self.desk.mirror.stepups.get(row.looking_at or "")
        rows: list[Row] = [
            (
                (name + blank, palette.strong),
                (f"{face}  ", palette.text),
                (since, palette.muted),
            )
        ]
        if row.looking_at:
            what = f"{stepup.fingerprint} of {stepup.agent_name}" if stepup else "one"
            words = pen.clip(f"looks at step-up {what}", max(width - 2, 8))
            rows.append((("  " + words, palette.waiting),))
        return rows
