"""The common parts of confirmations: the plan, a focused Cancel, the outcome."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar, Generic

from rich.segment import Segment
from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.console.dialogs.base import Answer, Dialog, SheetPage
from agentvault_tui.console.term.keyed import Keyed
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.presenters import theme
from agentvault_tui.presenters.lines import EMPTY, LABEL, Pen, Row
from agentvault_tui.presenters.revocations import caution


class CancelButton(Keyed, Widget, can_focus=True):
    """A button in brackets; in reverse while it has the focus."""

    DEFAULT_CSS = """
    CancelButton { height: 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "take", "cancel")]

    class Taken(Message):
        """It was chosen."""

    def __init__(self, name: str, word: str) -> None:
        super().__init__(id=name)
        self.text = f"[ {word} ]"
        self.styles.width = len(self.text)

    def render_line(self, y: int) -> Strip:
        if y:
            return Strip.blank(self.size.width, self.rich_style)
        style = theme.palette(self.app.theme).text
        if self.has_focus:
            style += theme.FOCUS
        return Strip([Segment(self.text, self.rich_style + style)])

    def action_take(self) -> None:
        self.post_message(self.Taken())

    def on_click(self) -> None:
        self.action_take()


_CANCEL_CELLS = 14


class Confirm(Dialog[None], Generic[Answer]):
    """Show a plan, act on `y` alone, then show the outcome.

    Enter and space never do it: with the focus on Cancel, Enter cancels, and in the
    reason every key is text, `y` too (`e` or Tab goes there, Enter or Esc comes back).
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "do it"),
        Binding("e", "reason", "give a reason"),
        Binding("escape", "leave", "back"),
        Binding("enter", "close", "close", show=False),
    ]
    DANGER: ClassVar[bool] = False
    NEED: ClassVar[str] = "revoke"
    """The kind of decision, as in `Desk.refusal`."""
    REASON: ClassVar[bool] = False
    """Whether it takes a reason."""
    UNDER_WAY: ClassVar[str] = "under way"
    FIRST: ClassVar[str] = "cancel"
    """The input that has the focus at first."""

    finished = False
    """Whether it has happened."""
    answer: Answer | None = None
    """The broker's answer."""

    # What subclasses say

    def heading(self, pen: Pen) -> Row:
        """Return the title."""
        raise NotImplementedError

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the plan, within *height* rows."""
        raise NotImplementedError

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Word the result."""
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """Say why there is nothing to do, if so."""
        return None

    def act(self) -> Awaitable[Answer]:
        """Do it."""
        raise NotImplementedError

    # Drawing

    def inputs(self) -> list[Widget]:
        line: list[Widget] = (
            [LineInput("reason", 50, empty="none given")] if self.REASON else []
        )
        return [CancelButton("cancel", "Cancel"), *line]

    def on_mount(self) -> None:
        super().on_mount()
        # Not query_one: of a console that is left meanwhile it is never there.
        self.sheet.query(f"#{self.FIRST}").focus()

    def state(self) -> object:
        return self.finished

    def page(self, width: int, height: int) -> SheetPage:
        """Draw the plan over the reason and the answers, then the outcome."""
        pen = self.pen
        if self.finished:
            rows = self.outcome(pen, width)
            footer = [EMPTY, pen.keys([("Esc", "close")], armed=self.armed)]
            return SheetPage(self.heading(pen), (), tuple(rows), tuple(footer))
        footer = self._footer(pen, width)
        body = self.plan(pen, width, height - len(footer))
        places = {"cancel": (0, len(body) + len(footer) - 1)}
        if self.REASON:
            places["reason"] = (LABEL, len(body) + 1)
        title = self.heading(pen)
        return SheetPage(
            title, (), tuple(body), tuple(footer), places, danger=self.DANGER
        )

    def _footer(self, pen: Pen, width: int) -> list[Row]:
        rows: list[Row] = []
        if self.REASON:
            rows += [EMPTY, pen.fact("Reason")]
        if self.busy:
            rows += [EMPTY, pen.stage("current", self.UNDER_WAY, "")]
        elif refusal := self.desk.refusal(self.NEED):
            # Before any older note: a link that drops is told while it is dropped.
            rows += [EMPTY, *pen.paragraph(refusal, width, pen.palette.waiting)]
        elif words := self.note or self.obstacle():
            rows += [EMPTY, *pen.paragraph(words, width, pen.palette.waiting)]
        return [*rows, EMPTY, self.answers(pen)]

    def answers(self, pen: Pen) -> Row:
        """Return the last row: room for Cancel, then the keys."""
        blank = (" " * _CANCEL_CELLS, pen.palette.text)
        typing = isinstance(self.focused, LineInput)
        if typing:
            keys = [("Enter", "keeps the text"), ("Esc", "leaves it")]
            return (blank, *pen.keys(keys))
        sure = self.armed and not self.busy and self.desk.refusal(self.NEED) is None
        return (blank, *pen.keys(self.hints("confirm", "reason"), armed=sure))

    # Keys

    def check_action(
        self,
        action: str,
        parameters: tuple[object, ...],
    ) -> bool | None:
        """Offer the actions of the stage: a decision before, closing after."""
        match action:
            case "confirm":
                return not self.finished and self.obstacle() is None
            case "reason":
                return self.REASON and not self.finished
            case "close":
                return self.finished
        return super().check_action(action, parameters)

    def action_confirm(self) -> None:
        if not self.may_decide(self.NEED):
            return
        if obstacle := self.obstacle():
            self.say(obstacle)
            return
        self.ask(self.act, self.done)

    def reason(self) -> str:
        return self.sheet.query_one("#reason", LineInput).value if self.REASON else ""

    def action_reason(self) -> None:
        self.sheet.query_one("#reason", LineInput).focus()
        self.update_page()

    def action_close(self) -> None:
        self.action_leave()

    def action_leave(self) -> None:
        """Take one step out; not by a key that was meant for the plan."""
        if not self.finished or self.armed:
            self.dismiss()

    @on(CancelButton.Taken)
    def _cancelled(self) -> None:
        self.dismiss()

    @on(Input.Submitted)
    @on(LineInput.Left)
    def _typed(self, event: Input.Submitted | LineInput.Left) -> None:
        event.stop()
        self.sheet.query_one(CancelButton).focus()
        self.update_page()

    def done(self, answer: Answer) -> None:
        """Store the broker's answer, and show the result."""
        self.finished, self.answer = True, answer
        self.note = ""
        if self.is_attached:
            self.set_focus(None)
            self.refresh_bindings()
        elif words := caution(answer):
            self.app.notify(*words, severity="warning", markup=False, timeout=15)


def cautioned(pen: Pen, answer: object, width: int) -> list[Row]:
    """Warn that the result could still be lost, if it could."""
    return [
        row
        for text in caution(answer)
        for row in (EMPTY, *pen.paragraph(text, width, pen.palette.waiting))
    ]
