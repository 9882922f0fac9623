"""The keys that decide, on any screen that has an agent under its cursor.

Dialogs are imported when one is opened: the first frame does without them.
"""

# ruff: noqa: PLC0415 - see the module's docstring

from __future__ import annotations

from typing import ClassVar, Final

from textual.binding import Binding, BindingType
from textual.screen import Screen

from agentvault_tui.console.desk import Desk, undo_restore
from agentvault_tui.console.state.records import AgentRow
from agentvault_tui.console.state.undo import offered
from agentvault_tui.console.term.clipboard import copy
from agentvault_tui.console.term.keyed import Keyed

_CHANGES: Final = frozenset({"revoke", "restore", "undo", "panic"})


class Deciding(Keyed, Screen[None]):
    """Opens dialogs on what is under the cursor when the key is pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stepups", "step-ups", id="step-ups"),
        Binding("r", "revoke", "revoke the agent"),
        Binding("u", "restore", "restore the agent"),
        Binding("z", "undo", "undo a restore, within 10 s"),
        Binding("exclamation_mark", "panic", "panic: stop everything, or lift that"),
        Binding("question_mark", "help", "keys that work here"),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    @property
    def chosen(self) -> AgentRow | None:
        """The agent under the cursor."""
        raise NotImplementedError

    def action_stepups(self) -> None:
        """Open the one request that waits, or the queue of them."""
        from agentvault_tui.console.dialogs.stepups import open_stepups

        open_stepups(self.app, self.desk)

    def action_revoke(self) -> None:
        """Ask before cutting off the agent under the cursor."""
        from agentvault_tui.console.dialogs.revoke import RevokeDialog

        agent = self.chosen
        if agent is not None and agent.revoked:
            key = self.desk.key("restore", "u")
            self._tell(f"{agent.name} is revoked already; {key} restores it.")
        elif agent is not None:
            self.app.push_screen(RevokeDialog(self.desk, agent))

    def action_restore(self) -> None:
        """Ask before serving the agent under the cursor again."""
        from agentvault_tui.console.dialogs.restore import RestoreDialog

        agent = self.chosen
        if agent is not None and not agent.revoked:
            self._tell(f"{agent.name} is served: there is nothing to restore.")
        elif agent is not None:
            self.app.push_screen(RestoreDialog(self.desk, agent))

    def action_undo(self) -> None:
        """Revoke again the agent that was restored a moment ago; that one, no other."""
        undo_restore(self.app, self.desk)

    def action_panic(self) -> None:
        """Ask before stopping everything, or before lifting that."""
        from agentvault_tui.console.dialogs.lift import LiftDialog
        from agentvault_tui.console.dialogs.panic import PanicDialog

        on_now = self.desk.mirror.status.panic.on
        dialog = LiftDialog(self.desk) if on_now else PanicDialog(self.desk)
        self.app.push_screen(dialog)

    def action_help(self) -> None:
        """Show the keys that work here."""
        from agentvault_tui.console.dialogs.help import HelpDialog

        here = self.active_bindings.items()
        works = {key: one for key, one in here if self.applies(one.binding.id)}
        self.app.push_screen(HelpDialog(self.desk, works))

    def applies(self, name: str | None) -> bool:
        """Tell whether what a binding is named after can be done now."""
        agent = self.chosen
        if name in _CHANGES and (self.desk.read_only or self.desk.past):
            return False
        if name in {"revoke", "restore"}:
            return agent is not None and agent.revoked == (name == "restore")
        return name != "undo" or offered(self.desk) is not None

    def _tell(self, text: str) -> None:
        self.app.notify(text, markup=False)

    def copy(self, kind: str, what: str) -> None:
        """Copy by OSC 52, and say what: an id or a digest, never a secret."""
        copy(self.app, kind, what)
