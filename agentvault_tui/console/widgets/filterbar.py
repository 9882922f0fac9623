"""The filter bar: one line, incremental, completed as it is typed; it can be saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.suggester import SuggestionReady
from textual.widgets import Input, Static

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.state.completion import Completion, Known, complete
from agentvault_tui.console.state.saved import LONGEST, LONGEST_NAME
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.presenters.filters import KEYS
from agentvault_tui.text import cell_width, clip, visible

_EMPTY = " ".join(f"{key}:" for key in KEYS) + ' -key: @saved or any text, "quoted"'
_HINT_SHARE = 2
"""Completions may take one part in this many of the line."""


class FilterField(LineInput):
    """The input; Enter and Esc mean the same as without completions."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "accept", "complete"),
        Binding("down", "choose(1)", "next completion", show=False),
        Binding("up", "choose(-1)", "completion before", show=False),
        Binding("ctrl+s", "save", "save the filter"),
        Binding("ctrl+o", "saved", "saved filters"),
    ]

    def __init__(self, bar: FilterBar) -> None:
        super().__init__("text", 20, longest=LONGEST, empty=_EMPTY)
        self.styles.width = "1fr"
        self._bar = bar

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        match action:
            case "accept" | "choose":
                return bool(self._bar.completions)
            case "out":
                return self._bar.naming
            case "save":
                return bool(self.value.strip()) and not self._bar.naming
            case "saved":
                return not self._bar.naming
        return True

    def action_accept(self) -> None:
        self._bar.accept()

    def action_choose(self, step: int) -> None:
        self._bar.choose(step)

    def action_save(self) -> None:
        self._bar.ask_name()

    def action_saved(self) -> None:
        self.post_message(FilterBar.Listed())

    def action_out(self) -> None:
        self._bar.end_naming()


class FilterBar(Horizontal):
    """An input without a frame, next to a slash; completions and complaints follow."""

    DEFAULT_CSS = """
    FilterBar {
        height: 1; background: $surface;
        & > Static { width: auto; background: $surface; }
        & > #slash { color: $accent; text-style: bold; }
        & > #hint { color: $muted; }
    }
    """

    @dataclass
    class Changed(Message):
        """Another filter is asked for."""

        text: str

    class Applied(Message):
        """The filter is as it should be."""

    class Listed(Message):
        """The operator wants to see the saved filters."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(id="filter")
        self.completions: list[Completion] = []
        self.naming = False
        """Whether a name is typed, and not a filter."""
        self._desk = desk
        self._completer = Known(desk.mirror, desk.saved)
        self._chosen = 0
        self._text = ""
        """The filter, while its name is typed."""
        self._problem = ""
        self._field = FilterField(self)

    def compose(self) -> ComposeResult:
        yield Static(" / ", id="slash", markup=False)
        yield self._field
        yield Static("", id="hint", markup=False)

    @property
    def field(self) -> Input:
        return self._field

    @property
    def text(self) -> str:
        return self._text if self.naming else self._field.value

    @property
    def typing(self) -> bool:
        return self.is_mounted and self._field.has_focus

    def clear(self) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Put a filter in, as if it had been typed."""
        self._set_naming(naming=False)
        self._field.value = text
        self._field.cursor_position = len(text)

    def complain(self, problem: str) -> None:
        self._problem = problem
        self._show_hint()

    # Completing

    def accept(self) -> None:
        self.show(self.completions[self._chosen].text)

    def choose(self, step: int) -> None:
        """Choose the completion *step* further on."""
        self._chosen = (self._chosen + step) % len(self.completions)
        self._show_ghost()
        self._show_hint()

    def _show_ghost(self) -> None:
        typed = self._field.value
        completion = self.completions[self._chosen] if self.completions else None
        ghost = completion.text if completion and completion.extends(typed) else ""
        self._field.post_message(SuggestionReady(typed, ghost))

    def _show_hint(self) -> None:
        if not self.is_mounted:
            return
        hint = self.query_one("#hint", Static)
        if self._problem and not self.naming:
            hint.update(Content.styled(f" {self._problem} ", "$waiting"))
        else:
            hint.update(self._listed(self.size.width // _HINT_SHARE))

    def _listed(self, room: int) -> Content:
        """List completions from the chosen one on, as many as there is room for."""
        count = len(self.completions)
        words: list[Content] = []
        tab = self._desk.key("accept", "Tab")
        used = 3 + cell_width(tab)
        for number in range(count):
            word = self.completions[(self._chosen + number) % count].word
            word = clip(
                word, max(room - used, 8), ascii_only=self._desk.glyphs.ascii_only
            )
            used += cell_width(word) + 2
            if words and used > room:
                break
            style = "$accent bold" if number == 0 else "$muted"
            words.append(Content.styled(word, style))
        if not words:
            return Content("")
        return Content.assemble((f" {tab} ", "$muted"), Content("  ").join(words), " ")

    # Saving

    def ask_name(self) -> None:
        self._text = self._field.value
        self._set_naming(naming=True)
        self._field.value = ""
        # The same filter again: so that the screen names the keys of a name.
        self.post_message(self.Changed(self._text))

    def end_naming(self) -> None:
        self.show(self._text)

    def _set_naming(self, *, naming: bool) -> None:
        self.naming = naming
        self._field.max_length = LONGEST_NAME if naming else LONGEST
        self._field.placeholder = "a name for this filter" if naming else _EMPTY
        if self.is_mounted:
            self.query_one("#slash", Static).update(" save as " if naming else " / ")

    def _save(self, name: str) -> None:
        shown = visible(name.strip(), LONGEST_NAME)
        problem = self._desk.saved.save(name, self._text)
        if problem:
            self.app.notify(problem, severity="warning", markup=False)
            return
        self.app.notify(f"Saved as {shown}; @{shown} brings it back", markup=False)
        self.end_naming()

    # What the field says

    @on(Input.Changed)
    def pass_on(self, event: Input.Changed) -> None:
        event.stop()
        if self.naming:
            self.completions = []
        else:
            self.completions = (
                complete(event.value, self._completer) if self.typing else []
            )
            self._chosen = 0
            self._show_ghost()
            self.post_message(self.Changed(event.value))
        self._show_hint()
        self._field.refresh_bindings()

    @on(Input.Submitted)
    def finish(self, event: Input.Submitted) -> None:
        """Save under the name, or report to the screen that the filter stays."""
        event.stop()
        if self.naming:
            self._save(event.value)
        else:
            self.completions = []
            self._show_hint()
            self.post_message(self.Applied())
