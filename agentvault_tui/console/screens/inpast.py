"""What every screen of the past shares: its mark, one key back to now, no decision."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input

from agentvault_tui.console.screens.placed import Placed
from agentvault_tui.console.state.past import Stay
from agentvault_tui.console.widgets.pastmast import PastMast


class InPast(Placed):
    """Comes before the screen it makes one of the past; needs `stay` set first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "now", "back to now", priority=True, id="time"),
        Binding("r,u,z,exclamation_mark", "refuse", "decide nothing: it is past"),
    ]
    stay: Stay

    def head(self) -> PastMast:
        """Return what says in every row of it that this is the past."""
        return PastMast(self.stay, id="masthead")

    def pulse(self) -> None:
        """Follow what goes on beside the moment: the link, and what has come since."""
        super().pulse()
        self.place()
        self.masthead.paint()

    def action_now(self) -> None:
        """Go back to now, which has never stopped, out of all that lies over it."""
        while isinstance(self.app.screen, InPast):
            self.app.pop_screen()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the key alone where it is text."""
        if action == "now" and isinstance(self.focused, Input):
            return False
        return super().check_action(action, parameters)

    def action_revoke(self) -> None:
        """Refuse."""
        self.action_refuse()

    def action_restore(self) -> None:
        """Refuse."""
        self.action_refuse()

    def action_undo(self) -> None:
        """Refuse."""
        self.action_refuse()

    def action_panic(self) -> None:
        """Refuse."""
        self.action_refuse()

    def action_refuse(self) -> None:
        """Say why nothing is decided here."""
        self.tell(self.desk.refusal() or "")

    def tell(self, words: str) -> None:
        """Say something in passing."""
        self.app.notify(words, markup=False, timeout=4)
