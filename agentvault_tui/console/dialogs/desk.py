"""What every dialog works with: the mirror it reads, the actions it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agentvault_tui.console.actions import Actions
from agentvault_tui.console.glyphs import Glyphs
from agentvault_tui.console.keyed import key_label
from agentvault_tui.console.mirror import Mirror
from agentvault_tui.console.saved import SavedFilters
from agentvault_tui.console.undo import Undo
from agentvault_tui.errors import AgentVaultError, UnreachableError

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


def undone(error: AgentVaultError) -> str:
    """Say how sure it is that nothing was decided.

    A connection that broke may have carried the decision: then nobody here can know.
    """
    if isinstance(error, UnreachableError):
        return "Not confirmed, so look before trying again"
    return "Not done"
