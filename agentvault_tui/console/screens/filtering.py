"""What every screen with a filter shares: the bar, how it opens, one step out of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.link.link import Link
from agentvault_tui.console.screens.placed import Placed

if TYPE_CHECKING:
    from agentvault_tui.console.widgets.filterbar import FilterBar


class Filtering(Placed):
    """A screen whose panes are narrowed by one line of the filter language."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before anything else, so that the very next byte is already text.
        Binding("slash", "filter", "filter", priority=True, show=False),
    ]

    def __init__(self, desk: Desk, link: Link, *, pulse: float) -> None:
        super().__init__(desk, pulse=pulse)
        self.link = link
        self.bar: FilterBar | None = None

    # What a screen says

    def narrow(self, text: str) -> None:
        """Filter the panes by what is typed, and show what was not understood."""
        raise NotImplementedError

    def back(self) -> None:
        """Give the focus back to the pane that had it."""
        raise NotImplementedError

    # The bar

    def lines(self) -> Sequence[Widget]:
        """Return the bar, once there is one."""
        return [self.bar] if self.bar else []

    @property
    def typing(self) -> bool:
        """Tell whether keys are text now."""
        return self.bar is not None and self.bar.typing

    @property
    def filtering(self) -> bool:
        """Tell whether the bar has its row."""
        return self.bar is not None and (self.typing or bool(self.bar.text.strip()))

    async def complete(self) -> None:
        """Load what the first frame did without: the field a filter is typed in."""
        from agentvault_tui.console.widgets.filterbar import (  # noqa: PLC0415
            FilterBar,
        )

        # Whoever leaves at once leaves before there is anything to put it on.
        if self.bar is None and self.is_attached:
            self.bar = FilterBar(self.desk, id="filter")
            self.bar.display = False
            await self.mount(self.bar)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave a slash alone where it is text."""
        del parameters
        return not (action == "filter" and self.typing)

    async def action_filter(self) -> None:
        """Start typing a filter."""
        await self.complete()
        if self.bar is not None:
            self.bar.display = True
            self.set_focus(self.bar.field)
            self.place()

    async def use_filter(self, text: str) -> None:
        """Put a filter on without typing it."""
        await self.complete()
        if self.bar is not None:
            self.bar.show(text)
            self.place()

    async def name_filter(self) -> None:
        """Ask for a name to save the filter under."""
        await self.action_filter()
        if self.bar is not None:
            self.bar.ask_name()

    def leave_filter(self) -> bool:
        """Take one step out of the filter; tell whether there was one."""
        if self.bar is None or not self.filtering:
            return False
        self.bar.clear()
        self.back()
        return True

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        """Filter as it is typed."""
        self.narrow(message.text)

    def on_filter_bar_kept(self) -> None:
        """Go back to the pane, with the filter on."""
        self.back()

    def on_filter_bar_listed(self) -> None:
        """Show the saved filters."""
        self.action_saved_filters()

    def action_saved_filters(self) -> None:
        """Choose among the saved filters, or delete some."""
        from agentvault_tui.console.dialogs.saved import (  # noqa: PLC0415
            SavedDialog,
        )

        self.app.push_screen(SavedDialog(self.desk), self._chosen_filter)

    async def _chosen_filter(self, text: str | None) -> None:
        if text is not None:
            await self.use_filter(text)

    # The agent

    def show_agent(self) -> None:
        """Show everything about the agent that keys act on, over this screen."""
        if agent := self.chosen:
            self.show_agent_of(agent.id)

    def show_agent_of(self, agent_id: str) -> None:
        """Show everything about an agent, over whatever is open."""
        from agentvault_tui.console.screens.agent import (  # noqa: PLC0415
            AgentScreen,
        )

        self.app.push_screen(
            AgentScreen(self.desk, self.link, agent_id, pulse=self._pulse)
        )
