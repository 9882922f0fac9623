"""A screen whose panes are narrowed: by a filter, and to the important rows.

The field of the filter is imported when one is typed: the first frame does without it.
"""

# ruff: noqa: PLC0415 - see the module's docstring

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.console.screens.base import PaneScreen
from agentvault_tui.console.state.completion import before_colons
from agentvault_tui.presenters.filters import Filter

if TYPE_CHECKING:
    from agentvault_tui.console.state.feed import EventWindow
    from agentvault_tui.console.widgets.filterbar import FilterBar


class FilteredScreen(PaneScreen):
    """A screen with panes narrowed by one line of the filter language."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before anything else, so that the very next byte is already text.
        Binding("slash", "filter", "filter", priority=True, show=False),
        Binding("0", "matters", "only what matters, or everything"),
    ]
    bar: FilterBar | None = None
    feed: EventWindow

    # What a screen says

    def narrow(self, wanted: Filter) -> None:
        """Filter the panes by the typed text."""
        raise NotImplementedError

    def back(self) -> None:
        """Give the focus back to the pane that had it."""
        raise NotImplementedError

    # The bar

    def lines(self) -> Sequence[Widget]:
        return [self.bar] if self.bar else []

    @property
    def typing(self) -> bool:
        return self.bar is not None and self.bar.typing

    @property
    def filtering(self) -> bool:
        return self.bar is not None and (self.typing or bool(self.bar.text.strip()))

    async def complete(self) -> None:
        """Load the part that the first frame did without: the field for a filter."""
        from agentvault_tui.console.widgets.filterbar import FilterBar

        # Whoever leaves at once leaves before there is anything to put it on.
        if self.bar is None and self.is_attached:
            self.bar = FilterBar(self.desk)
            self.bar.display = False
            await self.mount(self.bar)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "filter":
            return not self.typing
        return super().check_action(action, parameters)

    async def action_filter(self) -> None:
        await self.complete()
        if self.bar is not None:
            self.bar.display = True
            self.set_focus(self.bar.field)
            self.place()

    async def use_filter(self, text: str) -> None:
        await self.complete()
        if self.bar is not None:
            self.bar.show(text)
            self.place()

    async def name_filter(self) -> None:
        await self.action_filter()
        if self.bar is not None:
            self.bar.ask_name()

    def action_matters(self) -> None:
        """Leave routine out of the rows, or show everything again."""
        self.feed.show_notable(not self.feed.notable)
        self.place()
        self.paint_all()

    def leave_filter(self) -> bool:
        """Take one step out of the filter; return whether there was one."""
        if self.bar is None or not self.filtering:
            return False
        self.bar.clear()
        self.back()
        return True

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        wanted = Filter.parse(message.text, before_colons(self.desk.mirror))
        if self.bar is not None:
            self.bar.complain(wanted.problem)
        self.narrow(wanted)

    def on_filter_bar_applied(self) -> None:
        self.back()

    def on_filter_bar_listed(self) -> None:
        self.action_saved_filters()

    def action_saved_filters(self) -> None:
        from agentvault_tui.console.dialogs.lists import SavedDialog

        self.app.push_screen(SavedDialog(self.desk), self._chosen_filter)

    async def _chosen_filter(self, text: str | None) -> None:
        if text is not None:
            await self.use_filter(text)
