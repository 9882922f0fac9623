"""Cut one call in flight: `x`, then `y`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.confirm import Confirm
from agentvault_tui.console.draw.lines import Pen, Row
from agentvault_tui.console.state.records import CallRow


class CutDialog(Confirm):
    """Cut the call that was under the cursor, whatever comes and goes meanwhile."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "cut")]
    DANGER: ClassVar[bool] = True
    UNDER_WAY: ClassVar[str] = "cutting"

    def __init__(self, desk: Desk, call: CallRow) -> None:
        self.call = call
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        word = "Cut  " if self.finished else "Cut a call  "
        return ((word, pen.palette.title), (self.call.agent_name, pen.palette.strong))

    def obstacle(self) -> str | None:
        known = self.call.id in self.desk.mirror.calls
        return None if known else "It has ended: there is nothing to cut."

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Say which call ends, and what cutting it cannot undo."""
        call = self.desk.mirror.calls.get(self.call.id, self.call)
        what, _ = pen.facts("Cuts now", call.what, width, max(height - 4, 1))
        at = pen.facts("At", call.service, width, 1)[0]
        if call.held:
            left = "its step-up waits on: a retry of the agent may still be approved"
        elif call.state == "sending":
            left = "what the service has received already"
        else:
            left = "what the agent has received, and what the service did for it"
        stays = pen.facts("Not undone", left, width, 2)[0]
        revoke = self.desk.key("revoke", "r")
        again = f"may call again; {revoke} in the list revokes it"
        again_rows = pen.facts("The agent", again, width, 1)[0]
        return [*what, *at, *stays, *again_rows]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        del width
        return [pen.stage("done", "cut", self.call.what)]

    def act(self, reason: str) -> Awaitable[object]:
        del reason
        return self.desk.link.cut(self.call.id)

    def happened(self, answer: object) -> None:
        """Nothing of the answer is shown: the audit has what came of the call."""
