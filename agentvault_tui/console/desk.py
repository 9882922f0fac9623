"""What every dialog works with: the mirror it reads, the actions it may take."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from textual.app import App

from agentvault_tui.console.draw.glyphs import Glyphs
from agentvault_tui.console.draw.lines import plural
from agentvault_tui.console.state.actions import Actions, caution
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console.state.undo import Undo, offered, take_back
from agentvault_tui.console.term.keyed import key_label
from agentvault_tui.errors import AgentVaultError, UnreachableError
from agentvault_tui.home import Home

ARM_SECONDS: Final = 0.6
"""How long something stands before what is typed may decide about it."""


@dataclass(slots=True)
class Desk:
    """One operator's place of work, shared by all dialogs of a console."""

    mirror: Mirror
    actions: Actions
    glyphs: Glyphs
    read_only: bool = False
    past: bool = False
    """Whether the mirror is one of the past."""
    ssh: str = ""
    """``SSH_CONNECTION``, when the terminal is elsewhere (sshd(8))."""
    activate: str = "agentvault tenant activate"
    """The command that takes a code of the embedded tenant of this home."""
    keymap: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The user's own keys, by the name of what they do."""
    key_problems: list[str] = field(default_factory=list)
    """What of the user's keymap was not taken, and why."""
    saved: SavedFilters = field(default_factory=SavedFilters)
    undo: Undo | None = None
    """The last restore, while it can be taken back; see `undo.offered`."""
    begun: dict[str, datetime] = field(default_factory=dict)
    """When this console started the second factor, by step-up: the approver compares
    it with the tenant's page (RFC 8628 section 5.4)."""

    def key(self, name: str, shipped: str) -> str:
        """Return the key that does what *name* is called in a keymap, as it is now.

        A sentence that names a key names the user's own, if they have one.
        """
        keys = self.keymap.get(name)
        return key_label(keys[0]) if keys else shipped

    @property
    def restores(self) -> str:
        """What is said of a revoked agent besides, where it can be restored."""
        if self.past or self.read_only:
            return ""
        return f"; {self.key('restore', 'u')} restores"

    def refusal(self, need: str = "") -> str | None:
        """Say why nothing may be decided now, and what to do; None if it may.

        *need* is the kind of decision, one of `presence.NEEDS`, or none yet.
        """
        if self.past:
            return (
                "This is the past: it is only looked at. "
                f"{self.key('time', 't')} goes back to now, where you can decide."
            )
        if self.read_only:
            return (
                "This console is read-only: it takes no decision. "
                "Start one without --read-only to decide."
            )
        link = self.mirror.link
        if not link.live:
            return (
                f"The link is {link.state}: nothing is decided on what the broker has "
                "not confirmed. It resumes by itself; agentvault doctor says more."
            )
        me = self.mirror.presence.me
        # Told here so that nobody has to try; it is the broker that refuses.
        why = dict(me.refused).get(need) if me else None
        return f"Not for you: {why}. agentvault login, as who may." if why else None


def name_ways(desk: Desk, socket: Path, environ: Mapping[str, str]) -> None:
    """Name what leads to the tenant's page from this terminal, for the vault's home.

    Another terminal need not have this one's ``AGENTVAULT_HOME``.
    """
    desk.ssh = environ.get("SSH_CONNECTION", "")
    if environ.get("AGENTVAULT_HOME") or socket != Home.locate().socket:
        home = shlex.quote(str(socket.parent.parent))
        desk.activate = f"agentvault --home {home} tenant activate"


def undone(error: AgentVaultError) -> str:
    """Say how sure it is that nothing was decided.

    A connection that broke may have carried the decision: then nobody here can know.
    """
    if isinstance(error, UnreachableError):
        return "Not confirmed, so look before trying again"
    return "Not done"


def undo_restore(app: App[Any], desk: Desk) -> None:
    """Revoke again the agent that was restored a moment ago; that one, no other."""
    undo = offered(desk)
    if undo is None:
        app.notify("Nothing to undo: a restore can be taken back for 10 s.")
    elif refusal := desk.refusal("revoke"):
        app.notify(refusal, severity="warning", markup=False)
    else:
        app.run_worker(_take_back(app, desk, undo), group="decisions")


async def _take_back(app: App[Any], desk: Desk, undo: Undo) -> None:
    try:
        cut = await take_back(desk, undo)
    except AgentVaultError as error:
        shown = desk.mirror.intake.shown(error.diagnosis(), 300)
        said, done = f"{undone(error)}: {shown}", False
    else:
        ended = f"{plural(cut.tokens, 'token')}, {plural(cut.stepups, 'step-up')}"
        said = f"{undo.name} revoked again, closed here {cut.effective_ms:.1f} ms"
        said = ". ".join((f"{said}: cut {ended}", *caution(cut)))
        done = not caution(cut)
    severity: Literal["information", "warning"] = "information" if done else "warning"
    app.notify(said, severity=severity, markup=False)
