"""The shared objects of screens and dialogs: the link, its mirror, the last restore.

A restore can be taken back for ten seconds by one key, for the agent that was restored:
revoking is free, so nothing more is asked, and the target is captured when the agent
was restored, wherever the cursor is by then.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from textual.app import App

from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.state.absence import Absence
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console.term.keyed import key_label
from agentvault_tui.errors import AgentVaultError, UnreachableError
from agentvault_tui.home import Home
from agentvault_tui.operator_api.security_key import SecurityKeys
from agentvault_tui.presenters.glyphs import Glyphs
from agentvault_tui.presenters.lines import Pen, Row
from agentvault_tui.presenters.records import AgentRow, DeviceRow
from agentvault_tui.presenters.revocations import Revoked, caution
from agentvault_tui.qr import on_loopback, tunnel
from agentvault_tui.text import Shown, visible

if TYPE_CHECKING:
    from agentvault_tui.console.state.past import PastMirror
    from agentvault_tui.operator_api.remote import BrokerAddress

ARM_SECONDS: Final = 0.6
"""The time for which content must be on screen before keys may decide about it."""

UNDO_SECONDS: Final = 10.0
UNDO_KEY: Final = "z"
LABEL: Final = 16
"""Cells of the label of a vault, at most."""
_UNDO_REASON: Final = "the restore was undone"
_UNDO_BAR: Final = 10
_COPIED: Final = 60
"""Cells of copied text in the message about it."""


@dataclass(frozen=True, slots=True)
class Undo:
    """A restore that can still be taken back."""

    agent_id: str
    name: Shown
    until: float
    """In boot seconds: a clock that is set changes nothing."""
    since: int
    """The last event seen before the restore was asked for."""
    revoked_at: datetime | None
    """When the agent was revoked that was restored."""


@dataclass(slots=True)
class Desk:
    """The state that all screens and dialogs of one console share."""

    link: BrokerLink
    glyphs: Glyphs
    pulse: float = 0.25
    """Seconds between two looks of a screen for something to paint."""
    past: PastMirror | None = None
    """The mirror, where it is one of the past."""
    ssh: str = ""
    """``SSH_CONNECTION``, when the terminal is elsewhere (sshd(8))."""
    activate: str = "agentvault tenant activate"
    """The command that takes a code of the embedded tenant of this home."""
    ledger: str = "HOME"
    """The home directory to compare an export with, as a word of a command."""
    ledger_is_temporary: bool = False
    """Whether that is the demo's, which is removed when the console closes."""
    elsewhere: str = ""
    """Host and port of the broker, where it is on another machine."""
    user: str = " --user NAME"
    """The follower of the code; nothing if the demo's script takes it."""
    keymap: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The user's own keys, by the name of the action."""
    key_problems: list[str] = field(default_factory=list)
    """The invalid parts of the user's keymap, and the reasons."""
    saved: SavedFilters = field(default_factory=SavedFilters)
    undo: Undo | None = None
    """The last restore, while it can be taken back; see `offered_undo`."""
    label: str = ""
    """The operator's name for this vault, such as ``PROD``."""
    begun: dict[str, datetime] = field(default_factory=dict)
    """When this console started the second factor, by step-up: the approver compares
    it with the tenant's page (RFC 8628 section 5.4)."""

    keys: SecurityKeys = field(default_factory=SecurityKeys)
    """The security keys of this terminal's machine."""

    absence: Absence = field(init=False)
    """The events since the operator's last key."""

    def __post_init__(self) -> None:
        """Count from now on."""
        self.absence = Absence(self.link.mirror.clock)

    @property
    def mirror(self) -> Mirror:
        return self.link.mirror

    @property
    def read_only(self) -> bool:
        return self.link.read_only

    def key(self, name: str, shipped: str) -> str:
        """Return the present key of the action *name* of a keymap.

        A sentence that names a key names the user's own, if they have one.
        """
        keys = self.keymap.get(name)
        return key_label(keys[0]) if keys else shipped

    @property
    def restores(self) -> str:
        """The note about a revoked agent that can be restored."""
        if self.past or self.read_only:
            return ""
        return f"; {self.key('restore', 'u')} restores"

    def refusal(self, need: str = "") -> str | None:
        """Return why nothing may be decided now, and the remedy; None if it may.

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
        why = me.refused.get(need) if me else None
        return f"Not for you: {why}. agentvault login, as who may." if why else None


def name_ways(desk: Desk, broker: BrokerAddress, environ: Mapping[str, str]) -> None:
    """Name the ways to the tenant's page from this terminal, for the vault's home.

    Another terminal need not have this one's ``AGENTVAULT_HOME``.
    """
    desk.ssh = environ.get("SSH_CONNECTION", "")
    if not isinstance(broker, Path):
        desk.elsewhere = broker.url.removeprefix("https://")
        return
    socket = broker
    desk.ledger = shlex.quote(str(Home.locate().data))
    if environ.get("AGENTVAULT_HOME") or socket != Home.locate().socket:
        desk.ledger = shlex.quote(str(socket.parent.parent))
        desk.activate = f"agentvault --home {desk.ledger} tenant activate"
    home, state = socket.parent.parent, environ.get("XDG_STATE_HOME") or "/"
    # The demo has the console store its state in a home that it removes.
    desk.ledger_is_temporary = Path(state).is_relative_to(home)
    script = Home(home, home).demo_approve
    if script.exists():
        desk.activate, desk.user = shlex.quote(str(script)), ""


def undone(error: AgentVaultError) -> str:
    """Say how sure it is that nothing was decided.

    A connection that broke may have carried the decision: then its outcome is unknown
    here.
    """
    if isinstance(error, UnreachableError):
        return "Not confirmed, so look before trying again"
    return "Not done"


def offer_undo(desk: Desk, agent: AgentRow, since: int) -> None:
    """Let the restore of *agent*, made just now, be taken back for a while.

    *since* is the last event that had been seen when it was asked for.
    """
    until = desk.mirror.clock.boot() + UNDO_SECONDS
    desk.undo = Undo(agent.id, agent.name, until, since, agent.revoked_at)


def offered_undo(desk: Desk) -> Undo | None:
    """Return the restore that can be taken back now.

    Nothing any more once the agent was revoked anyway: who serves it again after
    that has decided again, and it is not ours to take back. Nothing yet while the
    agent's state is the one before the restore: the reply may come before the stream
    tells of it.
    """
    undo, mirror = desk.undo, desk.mirror
    if undo is None:
        return None
    agent = mirror.agents.get(undo.agent_id)
    if (
        mirror.clock.boot() >= undo.until
        or agent is None
        or (agent.revoked and agent.revoked_at != undo.revoked_at)
        or mirror.revoked_by.get(undo.agent_id, 0) > undo.since
        or mirror.read_from > undo.since  # what happened between was not seen
    ):
        desk.undo = None
        return None
    return None if agent.revoked else undo


async def take_back(desk: Desk, undo: Undo) -> Revoked:
    """Revoke the agent that was restored.

    Offered again if that was refused, unless a newer restore is offered by then.
    """
    desk.undo = None
    try:
        return await desk.link.revoke(undo.agent_id, _UNDO_REASON)
    except BaseException:
        if offered_undo(desk) is None:
            desk.undo = undo
        raise


def undo_bar(pen: Pen, undo: Undo, now: float, key: str) -> Row:
    """Draw the time left, the key, and whom it cuts off."""
    p, left = pen.palette, max(undo.until - now, 0.0)
    return (
        (f"{pen.glyphs.bar(left / UNDO_SECONDS, _UNDO_BAR)} ", p.waiting),
        (f"undo {math.ceil(left)} s  ", p.waiting),
        (key, p.key),
        (f" revokes {pen.clip(undo.name, 40)} again", p.text),
    )


def undo_restore(app: App[object], desk: Desk) -> None:
    """Revoke again the agent that was restored a moment ago; that one, no other."""
    undo = offered_undo(desk)
    if undo is None:
        app.notify("Nothing to undo: a restore can be taken back for 10 s.")
    elif refusal := desk.refusal("revoke"):
        app.notify(refusal, severity="warning", markup=False)
    else:
        app.run_worker(_take_back(app, desk, undo), group="decisions")


async def _take_back(app: App[object], desk: Desk, undo: Undo) -> None:
    try:
        ended = await take_back(desk, undo)
    except AgentVaultError as error:
        shown = desk.mirror.intake.shown(error.diagnosis(), 300)
        text, done = f"{undone(error)}: {shown}", False
    else:
        text = f"{undo.name} revoked again, closed here {ended.here}"
        text = f"{text}: cut {ended.ended}"
        text = ". ".join((text, *caution(ended)))
        done = not caution(ended)
    severity: Literal["information", "warning"] = "information" if done else "warning"
    app.notify(text, severity=severity, markup=False)


_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")


def open_page(app: App[object], desk: Desk, link: str) -> str:
    """Copy *link*, and open it where this terminal's machine has a browser's screen.

    Returns:
        the message: the page's address, and over SSH the tunnel to it.
    """
    # The first frame does without a browser.
    import webbrowser  # noqa: PLC0415

    App.copy_to_clipboard(app, link)
    if on_loopback(link) and (line := tunnel(link, desk.ssh)):
        return f"Copied. Where your browser is, run {line} and open {link}"
    shown = sys.platform == "darwin" or any(map(os.environ.get, _DISPLAYS))
    if not desk.ssh and shown and webbrowser.open(link):
        return f"Copied and opened: {link}"
    return f"Copied. Open {link}"


def share_link(app: App[object], desk: Desk, device: DeviceRow | None) -> None:
    """Over SSH, copy the link that another device opens to the person's clipboard.

    The code is not in it: that is for the approver's eyes.
    """
    if desk.ssh and device is not None and not on_loopback(device.verification_uri):
        copy(app, "link", device.verification_uri)


def copy(app: App[object], kind: str, what: str) -> None:
    """Copy an id, a link or a digest, and say which; never a secret or a user code."""
    # The base class's own: the console's app keeps every other copy to itself.
    App.copy_to_clipboard(app, what)
    app.notify(f"Copied {kind}: {visible(what, _COPIED)}", markup=False, timeout=3)
