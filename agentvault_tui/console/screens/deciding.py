"""The keys that decide, on any screen that has an agent under its cursor.

Dialogs are imported when one is opened: the first frame does without them.
"""

# ruff: noqa: PLC0415 - see the module's docstring

from __future__ import annotations

from typing import ClassVar, Literal

from textual.binding import Binding, BindingType
from textual.screen import Screen

from agentvault_tui.console.actions import caution
from agentvault_tui.console.clipboard import copy
from agentvault_tui.console.dialogs.desk import Desk, undone
from agentvault_tui.console.keyed import Keyed
from agentvault_tui.console.lines import plural
from agentvault_tui.console.records import AgentRow
from agentvault_tui.console.undo import Undo, offered, take_back
from agentvault_tui.errors import AgentVaultError


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

        if agent := self.chosen:
            self.app.push_screen(RevokeDialog(self.desk, agent))

    def action_restore(self) -> None:
        """Ask before serving the agent under the cursor again."""
        from agentvault_tui.console.dialogs.restore import RestoreDialog

        if agent := self.chosen:
            self.app.push_screen(RestoreDialog(self.desk, agent))

    def action_undo(self) -> None:
        """Revoke again the agent that was restored a moment ago; that one, no other."""
        undo = offered(self.desk)
        if undo is None:
            self._tell("Nothing to undo: a restore can be taken back for 10 s.")
        elif refusal := self.desk.refusal("revoke"):
            self._tell(refusal, wrong=True)
        else:
            self.app.run_worker(self._take_back(undo), group="decisions")

    async def _take_back(self, undo: Undo) -> None:
        try:
            cut = await take_back(self.desk, undo)
        except AgentVaultError as error:
            shown = self.desk.mirror.intake.shown(error.diagnosis(), 300)
            self._tell(f"{undone(error)}: {shown}", wrong=True)
        else:
            ended = f"{plural(cut.tokens, 'token')}, {plural(cut.stepups, 'step-up')}"
            said = f"{undo.name} revoked again, closed here {cut.effective_ms:.1f} ms"
            said = ". ".join((f"{said}: cut {ended}", *caution(cut)))
            self._tell(said, wrong=bool(caution(cut)))

    def _tell(self, text: str, *, wrong: bool = False) -> None:
        severity: Literal["warning", "information"] = (
            "warning" if wrong else "information"
        )
        self.app.notify(text, severity=severity, markup=False)

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

        self.app.push_screen(HelpDialog(self.desk, self.active_bindings))

    def copy(self, kind: str, what: str) -> None:
        """Copy by OSC 52, and say what: an id or a digest, never a secret."""
        copy(self.app, kind, what)
