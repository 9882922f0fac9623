"""The common parts of all dialogs: when keys count, the focus, the drawing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, TypeVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget

from agentvault_tui.console.desk import (
    ARM_SECONDS,
    Desk,
    copy,
    offered_undo,
    undo_restore,
    undone,
)
from agentvault_tui.console.messages import ShowKeys, ShowStepUp
from agentvault_tui.console.term.keyed import Keyed, key_label, moves
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.answers import ChangeWaitsError
from agentvault_tui.presenters import theme
from agentvault_tui.presenters.lines import EMPTY, Pen, Piece, Row, cells
from agentvault_tui.text import cell_width


@dataclass(frozen=True, slots=True)
class SheetPage:
    """The content of a dialog; an equal page is not drawn again."""

    title: Row
    remark: Row = ()
    """At the right end of the title's line: countdowns."""
    body: tuple[Row, ...] = ()
    footer: tuple[Row, ...] = ()
    """Stays at the bottom, below a body that may scroll."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By a child widget's id: its column and its row in the body."""
    foot: str = ""
    """In the lower edge of the frame: other operators' decisions; it moves no row."""
    danger: bool = False
    """Draws the frame in the colour of destructive actions."""


FRAME: Final = 2
"""Cells between the sheet's edge and its rows: the line and a blank."""


class Sheet(Widget):
    """Draws a `SheetPage` line by line; children lie on top at the page's places."""

    DEFAULT_CSS = """
    Sheet {
        background: $surface;
        color: $foreground;
        layers: sheet;
    }
    Sheet > * { position: absolute; }
    """

    def __init__(self, pen: Pen, *children: Widget) -> None:
        super().__init__(*children)
        self.pen = pen
        self.page = SheetPage(())
        self.top = 0
        """The first row of the body that is drawn."""

    @property
    def room(self) -> int:
        """Return how many rows of the body are drawn at once."""
        return max(self.size.height - 2 - len(self.page.footer), 0)

    def show(self, page: SheetPage, pen: Pen, width: int, height: int) -> None:
        """Draw *page* at that size; nothing happens if it is drawn already."""
        if page == self.page and pen == self.pen and (width, height) == self.size:
            return
        self.page, self.pen = page, pen
        self.styles.width, self.styles.height = width, height
        for child in self.children:
            place = page.places.get(child.id or "")
            child.display = place is not None
            if place is not None:
                child.styles.offset = (place[0] + FRAME, place[1] + 1)
        self.refresh()

    def scroll_body(self, rows: int) -> None:
        """Move the body by *rows*, within its length."""
        last = max(len(self.page.body) - self.room, 0)
        top = min(max(self.top + rows, 0), last)
        if top != self.top:
            self.top = top
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        base = self.rich_style
        row = self._line(y, width, height)
        segments = [Segment(text, base + style) for text, style in row]
        return Strip(segments).adjust_cell_length(width, base)

    def _line(self, y: int, width: int, height: int) -> Row:
        box = self.pen.glyphs.box
        line = self.pen.palette.danger if self.page.danger else self.pen.palette.line
        if y == 0:
            return self._head(width)
        if y == height - 1:
            return self._bottom(width)
        inner = width - 2 * FRAME
        row = self.pen.cut(self._row(y - 1, height - 2), inner)
        blank = " " * (inner - cells(row))
        return (
            (f"{box.vertical} ", line),
            *row,
            (blank, self.pen.palette.text),
            (f" {box.vertical}", line),
        )

    def _bottom(self, width: int) -> Row:
        pen, box = self.pen, self.pen.glyphs.box
        line = pen.palette.danger if self.page.danger else pen.palette.line
        if not self.page.foot:
            whole = box.bottom_left + pen.glyphs.rule(width - 2) + box.bottom_right
            return ((whole, line),)
        words = f" {pen.clip(self.page.foot, width - 8)} "
        rest = pen.glyphs.rule(max(width - 3 - cell_width(words), 0))
        return (
            (box.bottom_left + box.horizontal, line),
            (words, pen.palette.waiting),
            (rest + box.bottom_right, line),
        )

    def _row(self, y: int, height: int) -> Row:
        footer = self.page.footer
        if y >= height - len(footer):
            return footer[y - (height - len(footer))]
        number = self.top + y
        return self.page.body[number] if number < len(self.page.body) else ()

    def _head(self, width: int) -> Row:
        pen, page = self.pen, self.page
        box = pen.glyphs.box
        line = pen.palette.danger if page.danger else pen.palette.line
        remark = page.remark
        room = width - 6 - cells(remark)
        title = pen.cut(page.title, max(room, 8))
        gap = width - 4 - cells(title) - (cells(remark) + 2 if remark else 0)
        if gap < 2 and remark:
            remark, gap = (), width - 4 - cells(title)
        blank = (" ", pen.palette.text)
        middle = (box.horizontal * max(gap - (1 if remark else 0), 0), line)
        tail: Row = (blank, *remark, blank, (box.horizontal, line)) if remark else ()
        return (
            (box.top_left, line),
            blank,
            *title,
            blank,
            middle,
            *tail,
            (box.top_right, line),
        )


_TICK: Final = 0.25
_MARGIN: Final = 4
"""Cells and rows of the screen a dialog leaves free, where there are enough."""
_TOO_SOON: Final = "Too soon: this has just changed. Look, then press again."
_EARLY: Final = 2.0
"""Seconds of the note after the key it is about."""
DECIDES: Final = frozenset({"approve", "deny", "reason", "confirm", "undo"})
"""Names of the bindings that decide something."""
REQUEST_KEYS: Final = (
    Binding("d", "deny", "deny"),
    Binding("n", "reason", "deny, say why"),
    Binding("v", "view", "view all"),
    Binding("i", "agent", "its agent"),
)
"""Keys about one request that waits."""
_TIGHT: Final = 20
"""Below this many rows a dialog takes the whole height."""

Result = TypeVar("Result")
Answer = TypeVar("Answer")


def key_name(binding: Binding) -> str:
    """Return the label of the key, in letters every terminal has."""
    return binding.key_display or key_label(binding.key)


class Dialog(Keyed, ModalScreen[Result]):
    """A sheet over the screen; subclasses give its content and its keys.

    A decision acts on the values captured when the dialog opened. It counts only when
    the dialog has stood unchanged for 600 ms, and each key that comes too early makes
    it wait again, so a key held down or a paste decides nothing.
    """

    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        background: $background 60%;
        &:ansi { background: transparent; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "back"),
        Binding("y", "copy", "copy", show=False),
        Binding("z", "undo", "undo the last restore", show=False),
        Binding("question_mark", "help", "keys", show=False),
    ]
    AUTO_FOCUS: ClassVar[str | None] = ""
    """Nothing has the focus until a dialog gives it: a hidden input would eat keys."""
    WIDTH: ClassVar[int] = 76
    """The widest the sheet gets."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.clock = desk.mirror.clock
        self.note = ""
        """The last thing to say about a key, shown above the keys."""
        self.busy = False
        """Whether the broker is being asked."""
        self.sheet = Sheet(self.pen, *self.inputs())
        self._armed_at = self._early_until = 0.0
        self._state: object = None

    # What subclasses say

    def inputs(self) -> list[Widget]:
        """Return the widgets that lie on the sheet."""
        return []

    def page(self, width: int, height: int) -> SheetPage:
        """Return the rows within *width* x *height* cells inside the frame."""
        raise NotImplementedError

    def state(self) -> object:
        """Return a value; when it changes, keys wait again.

        An agent must not be able to change it at will: it could prevent an operator
        from deciding.
        """
        return None

    # Drawing

    @property
    def pen(self) -> Pen:
        """Return the pen for rows, under the present theme."""
        name = self.app.theme if self.is_attached else ""
        return Pen(theme.palette(name), self.desk.glyphs)

    def compose(self) -> ComposeResult:
        yield self.sheet

    def on_mount(self) -> None:
        self._state = self.state()
        self.arm()
        self.update_page()
        self.set_interval(_TICK, self.update_page)

    def on_resize(self) -> None:
        self.update_page()

    def update_page(self) -> None:
        """Draw the changes; a change of state makes the keys wait again."""
        if not self.is_attached:
            return
        state = self.state()
        if state != self._state:
            self._state = state
            self.arm()
            early = self.note == _TOO_SOON
            self.changed()
            if early:  # the key still did nothing: the new state must not hide that
                self.note = _TOO_SOON
        if self.note == _TOO_SOON and self.clock.boot() >= self._early_until:
            self.note = ""
        width, height = self.room()
        page = replace(self.page(width - 4, height - 2), foot=self.foot())
        marks: list[Piece] = []
        if self.desk.label:
            marks.append((f"{self.desk.label} ", self.pen.palette.danger))
            marks.append((f"{self.pen.glyphs.separator} ", self.pen.palette.muted))
        if self.desk.past:
            marks.append(("PAST  ", self.pen.palette.waiting))
        if marks:
            page = replace(page, title=(*marks, *page.title))
        rows = len(page.body) + len(page.footer) + 2
        self.sheet.show(page, self.pen, width, min(rows, height))

    def foot(self) -> str:
        """Return other operators' news: a decision just taken elsewhere."""
        return self.desk.mirror.presence.latest

    def changed(self) -> None:
        """React to a new state, before it is drawn."""

    def room(self) -> tuple[int, int]:
        """Return the largest size the sheet may have."""
        width, height = self.app.size
        return (
            min(self.WIDTH, max(width - _MARGIN, 20)),
            height if height < _TIGHT else height - _MARGIN,
        )

    def hints(self, *actions: str) -> list[tuple[str, str]]:
        """Return key and words for those of *actions* that can be taken now."""
        hints: dict[str, tuple[str, str]] = {}
        for active in self.active_bindings.values():
            binding = active.binding
            if active.node is self and binding.action not in hints:
                hints[binding.action] = (key_name(binding), binding.description)
        return [hints[action] for action in actions if action in hints]

    def notes(self, pen: Pen, width: int) -> list[Row]:
        if not self.note:
            return []
        return [EMPTY, *pen.paragraph(self.note, width, pen.palette.waiting)]

    # Deciding

    @property
    def armed(self) -> bool:
        return self.clock.boot() >= self._armed_at

    def arm(self) -> None:
        self._armed_at = self.clock.boot() + ARM_SECONDS

    def may_decide(self, need: str) -> bool:
        """Check whether a decision key counts, and say why not if it does not.

        *need* is the kind of decision, as in `Desk.refusal`.
        """
        if self.busy:
            return self.say("The broker is being asked. One decision at a time.")
        if not self.armed:
            self.arm()
            self._early_until = self.clock.boot() + _EARLY
            return self.say(_TOO_SOON)
        if refusal := self.desk.refusal(need):
            return self.say(refusal)
        self.say("")
        return True

    def say(self, note: str) -> bool:
        """Show *note*; returns False, so that a refusal can end in it."""
        self.note = note
        self.update_page()
        return False

    def caution(self, texts: Iterable[str]) -> None:
        """Show warnings that stay when this dialog is left."""
        for text in texts:
            self.app.notify(text, severity="warning", markup=False, timeout=15)

    def ask(
        self,
        request: Callable[[], Awaitable[Answer]],
        then: Callable[[Answer], None],
    ) -> None:
        """Put *request* to the broker; it goes on if the dialog is left meanwhile."""
        self.busy = True
        self.update_page()

        async def work() -> None:
            """Await the answer, and show it, the wait or the error."""
            try:
                answer = await request()
            except ChangeWaitsError as waits:
                self.busy = False
                await self._waits(waits)
            except AgentVaultError as error:
                self.busy = False
                self._failed(error)
            else:
                self.busy = False
                then(answer)
                self.update_page()

        # On the app: a dialog's own workers are cancelled when it closes, and a
        # decision on its way must not be.
        self.app.run_worker(work(), group="decisions")

    async def _waits(self, waits: ChangeWaitsError) -> None:
        """Show the change that the decision became: an approver has to confirm it."""
        try:
            row = await self.desk.link.waiting(waits.change.id)
        except AgentVaultError:
            self._failed(waits)
            return
        if self.is_current:
            self.dismiss()
            self.app.post_message(ShowStepUp(row.id))
        else:
            text = f"Change {row.fingerprint} waits for an approver: {row.why}"
            self.app.notify(text, severity="warning", markup=False, timeout=15)

    def _failed(self, error: AgentVaultError) -> None:
        shown = self.desk.mirror.intake.shown(error.diagnosis(), 300)
        if self.is_attached:
            self.arm()
            self.say(f"{undone(error)}: {shown}")
        else:
            text = f"{undone(error)}: {shown}"
            self.app.notify(text, severity="warning", markup=False)

    # The mouse: it moves, and decides nothing

    def wheel(self, rows: int) -> None:
        """Move by the wheel, where there is something to move."""

    def on_mouse_scroll_down(self) -> None:
        self.wheel(1)

    def on_mouse_scroll_up(self) -> None:
        self.wheel(-1)

    # Copying

    def copies(self) -> tuple[str, str] | None:
        """Return the text that `y` copies, and its name; never a secret or code."""
        return None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        if action == "undo":
            return not self.desk.past and offered_undo(self.desk) is not None
        return action != "copy" or self.copies() is not None

    def action_copy(self) -> None:
        if text := self.copies():
            kind, what = text
            copy(self.app, kind, what)

    def action_undo(self) -> None:
        """Take the last restore back: the line below the dialog offers it."""
        undo_restore(self.app, self.desk)

    # Leaving

    def action_leave(self) -> None:
        self.dismiss()

    def action_help(self) -> None:
        here, refused = self.active_bindings.items(), self.desk.refusal() is not None
        works = {k: v for k, v in here if not (refused and v.binding.id in DECIDES)}
        self.app.post_message(ShowKeys(self.desk, works))


class Scrolled(Dialog[None]):
    """Moves its body by the usual keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *moves("scroll", pages="pagedown,space,ctrl+d"),
        Binding("escape,enter", "leave", "close"),
    ]

    def wheel(self, rows: int) -> None:
        self.action_scroll(3 * rows)

    def action_scroll(self, rows: int) -> None:
        self.sheet.scroll_body(rows)
