"""The common parts of screens with panes: places, one clock, Tab, and keys.

Dialogs are imported when one is opened: the first frame does without them.
"""

# ruff: noqa: PLC0415 - see the module's docstring

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.console.desk import Desk, copy, offered_undo, undo_restore
from agentvault_tui.console.draw.layout import Box, frame
from agentvault_tui.console.messages import (
    ShowAgent,
    ShowAudit,
    ShowKeys,
    ShowList,
)
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.term.keyed import Keyed
from agentvault_tui.console.widgets.bars import KeyBar, Masthead, StepUpBar
from agentvault_tui.console.widgets.pane import ListPane, Pane
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters.records import AgentRow, EventRow

Hint = tuple[str, str]
"""A key, and its action."""

_LAST: Final = (
    *(("j k", "move"), ("g G", "first and last")),
    *(("^q", "quit"), ("?", "keys")),
)
TYPING_KEYS: Final = (("Enter", "keep"), ("Esc", "clear"))
_KEYS: Final = {
    "step-ups": "s",
    "calls": "c",
    "revoke": "r",
    "restore": "u",
    "acknowledge": "i",
    "panic": "!",
}
"""Keys that are named only while there is something they would do."""


def follow_key(follows: bool) -> Hint:
    return "f", "hold" if follows else "follow"


PULSES: Final = {"fast": 0.25, "slow": 0.5}
"""Seconds that at least pass between two looks, by the kind of link."""
_AFTER: Final = 0.01
"""Seconds after a new second, because an earlier look shows it a second late."""


async def beats(mirror: Mirror, pulse: float) -> AsyncIterator[None]:
    """Yield at each second and sooner when *mirror* has news, *pulse* apart.

    While the console opens each news is shown at once: there are a handful. So is what
    is more than a routine event: a step-up, a revocation, a panic, a lost link.
    """
    news, urgent, shown = asyncio.Event(), asyncio.Event(), _urgent(mirror)

    def heard() -> None:
        news.set()
        if _urgent(mirror) != shown:
            urgent.set()

    mirror.listeners.add(heard)
    try:
        while True:
            news.clear()
            urgent.clear()
            shown = _urgent(mirror)
            second = mirror.clock.now().timestamp() // 1 + 1 + _AFTER
            yield
            opening = mirror.link.state is LinkState.CONNECTING
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if opening else pulse):
                    await urgent.wait()
            # News just before a second is no reason to miss it, nor is a clock set back
            # one to wait for the second that was.
            left = second - mirror.clock.now().timestamp()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(left, 0), 1 + _AFTER)):
                    await news.wait()
    finally:
        mirror.listeners.discard(heard)


def _urgent(mirror: Mirror) -> tuple[int, int, int]:
    """Return a value that changes with news that waits for no pulse."""
    versions = mirror.versions
    return versions.status, versions.stepups, versions.roster


_CHANGES: Final = frozenset({"revoke", "restore", "undo", "panic"})
_TARGETED: Final = frozenset({"revoke", "restore", "acknowledge", "agent"})
_LISTS: Final = (
    ("c", "calls", "calls in flight"),
    ("N", "alerts", "alerts: destinations, and what did not arrive"),
    ("Q", "limits", "limits: what is used, and what is left"),
    ("T", "delegations", "delegations: tokens that agents delegated"),
    ("A", "advice", "advice: what agents do not need"),
    ("P", "policy", "policy: plan a change, see the shadow"),
)
"""Keys of every screen that open lists: their names, and their kinds."""
_OF_NOW: Final = {"calls": "Calls in flight", "delegations": "Delegations"}


class PaneScreen(Keyed, Screen[None]):
    """A screen whose panes are placed by a plan, repainted if they differ.

    With a desk of the past it shows a moment: the same panes, and no decision.
    """

    DEFAULT_CSS = """
    PaneScreen > * { position: absolute; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stepups", "step-ups", id="step-ups"),
        Binding("r", "revoke", "revoke the agent"),
        Binding("u", "restore", "restore the agent"),
        Binding("z", "undo", "undo a restore, within 10 s"),
        Binding("exclamation_mark", "panic", "panic: stop everything, or lift that"),
        Binding("question_mark", "help", "keys that work here"),
        Binding("escape", "out", "one step out", show=False),
        Binding("tab", "next", "next pane", show=False),
        Binding("shift+tab", "previous", "pane before", show=False),
        Binding("f", "follow", "follow or hold"),
        *(Binding(k, f"show('{name}')", words, id=name) for k, name, words in _LISTS),
        Binding("y", "copy", "copy id"),
    ]

    PANES: ClassVar[tuple[type[Pane], ...]] = ()
    """The widgets that may have the focus on it."""
    SHOWS: ClassVar[str] = ""
    """The name of the lists it shows, by which a key of every screen opens it."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.link = desk.link
        self.masthead = self._masthead()
        self.waiting = StepUpBar(desk, id="waiting")
        self.keybar = KeyBar(desk, id="keys")
        self.panes: tuple[Pane, ...] = ()
        """All there is to paint."""
        self.big: Pane | None = None
        """The pane that has, or last had, the focus: it gets the room."""
        self._boxes: Mapping[str, Box] = {}
        self._painted: tuple[object, ...] = ()

    def _masthead(self) -> Masthead:
        if self.desk.past is None:
            return Masthead(self.desk, id="masthead")
        from agentvault_tui.console.widgets.pastmast import PastMasthead

        return PastMasthead(self.desk, self.desk.past)

    # What a screen says

    @property
    def chosen(self) -> AgentRow | None:
        """The agent that keys act on."""
        raise NotImplementedError

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Return a box for everything that is shown, by its id."""
        raise NotImplementedError

    def stops(self) -> Sequence[Pane]:
        """Return the panes that Tab goes through, in order."""
        raise NotImplementedError

    def take(self) -> None:
        """Take the changes since the last look, and repaint those."""
        raise NotImplementedError

    def show_keys(self) -> None:
        """Name the keys that fit the focus."""
        raise NotImplementedError

    def lines(self) -> Sequence[Widget]:
        """Return the inputs, which are placed like panes."""
        return ()

    def action_out(self) -> None:
        """Take one step out."""
        raise NotImplementedError

    # Time

    def compose(self) -> ComposeResult:
        self.place()
        yield from self.panes

    def begin(self) -> None:
        self.pulse()
        self.run_worker(self._beat(), name="pulse")

    async def _beat(self) -> None:
        async for _ in beats(self.desk.mirror, self.desk.pulse):
            self.pulse()

    def pulse(self) -> None:
        """Look for changes; in the past also for events next to the moment."""
        self.take()
        if self.desk.past:
            self.place()
            self.masthead.paint()

    def on_screen_resume(self) -> None:
        if self.is_mounted:
            self._painted = ()
            self.pulse()

    def on_screen_suspend(self) -> None:
        self.show_keys()  # none of them works behind a dialog

    @property
    def covered(self) -> bool:
        """Whether another screen, not a dialog, covers this one."""
        stack = self.app.screen_stack
        above = stack[stack.index(self) + 1 :] if self in stack else []
        return any(not screen.is_modal for screen in above)

    @property
    def second(self) -> int:
        return int(self.desk.mirror.clock.now().timestamp())

    def repaint(self) -> bool:
        """Place and paint everything if anything but the stream differs; return so."""
        versions = self.desk.mirror.versions
        standing = (versions.status, versions.stepups, versions.roster, versions.held)
        stamp = (self.second, *standing)
        if stamp == self._painted:
            return False
        self._painted = stamp
        self.place()
        self.paint_all()
        return True

    def paint_all(self) -> None:
        for pane in self.panes:
            pane.paint()
        self.show_keys()

    # Place

    def place(self) -> None:
        boxes = self.plan(*self.app.size)
        if boxes == self._boxes:
            return
        self._boxes = boxes
        for widget in (*self.panes, *self.lines()):
            box = boxes.get(widget.id or "")
            widget.display = box is not None
            if box is not None:
                widget.styles.offset = (box.x, box.y)
                widget.styles.width, widget.styles.height = box.width, box.height

    def on_resize(self) -> None:
        self.place()

    def on_descendant_focus(self) -> None:
        for pane in self.stops():
            if pane is self.focused:
                self.big = pane
        self.place()
        self.show_keys()

    def focus_on(self, pane: Pane) -> None:
        self.big = pane
        self.place()
        self.set_focus(pane)

    def action_next(self) -> None:
        self._step(1)

    def action_previous(self) -> None:
        self._step(-1)

    def _step(self, step: int) -> None:
        stops = self.stops()
        here = stops.index(self.big) if self.big in stops else 0
        self.focus_on(stops[(here + step) % len(stops)])

    # What keys act on

    @property
    def decides(self) -> bool:
        """Whether decisions are taken here."""
        return not (self.desk.read_only or self.desk.past)

    def named(self, *names: str) -> list[Hint]:
        """Return those of the keys with these *names* that do something now."""
        mirror = self.desk.mirror
        idle = {"step-ups": not mirror.open_stepups(), "calls": not mirror.calls}
        words = {"acknowledge": "seen"}
        if mirror.status.panic.on:
            words["panic"] = "lift panic"
        works = (one for one in names if self.applies(one) and not idle.get(one))
        return [(_KEYS[one], words.get(one, one)) for one in works]

    def hint(self, *keys: Hint) -> None:
        """Name *keys*, panic if it works here, and those of all screens."""
        panic = [one for one in self.named("panic") if one not in keys]
        self.keybar.show((*keys, *panic, *_LAST))

    def copy_event(self, event: EventRow) -> None:
        kind = "decision" if event.decision_id else "event number"
        copy(self.app, kind, event.decision_id or f"{event.seq}")

    def copy_agent(self) -> None:
        """Copy the id of the agent that keys act on."""
        if agent := self.chosen:
            copy(self.app, f"agent id of {agent.name}", agent.id)

    def action_stepups(self) -> None:
        from agentvault_tui.console.dialogs.lists import open_stepups

        open_stepups(self.app, self.desk)

    def action_show(self, name: str) -> None:
        """Show lists of now over this screen; on that one the same key goes back."""
        if name == self.SHOWS:
            self.action_out()
        elif not self.desk.past:
            self.app.post_message(ShowList(name))
        elif what := _OF_NOW.get(name):
            back = self.desk.key("time", "t")
            self.tell(f"{what} are those of now: {back} goes back there.")
        else:
            self.refuses_past()

    def action_revoke(self) -> None:
        from agentvault_tui.console.dialogs.revoke import RevokeDialog

        agent = self.chosen
        if self.refuses_past() or agent is None:
            return
        if agent.revoked:
            key = self.desk.key("restore", "u")
            self.tell(f"{agent.name} is revoked already; {key} restores it.")
        else:
            self.app.push_screen(RevokeDialog(self.desk, agent))

    def action_restore(self) -> None:
        from agentvault_tui.console.dialogs.revoke import RestoreDialog

        agent = self.chosen
        if self.refuses_past() or agent is None:
            return
        if agent.revoked:
            self.app.push_screen(RestoreDialog(self.desk, agent))
        else:
            self.tell(f"{agent.name} is served: there is nothing to restore.")

    def action_undo(self) -> None:
        """Revoke again the agent that was restored a moment ago; that one, no other."""
        if not self.refuses_past():
            undo_restore(self.app, self.desk)

    def action_panic(self) -> None:
        from agentvault_tui.console.dialogs.panic import LiftDialog, PanicDialog

        if not self.refuses_past():
            on_now = self.desk.mirror.status.panic.on
            dialog = LiftDialog(self.desk) if on_now else PanicDialog(self.desk)
            self.app.push_screen(dialog)

    def refuses_past(self) -> bool:
        """Say why nothing is decided in the past, if this is."""
        if self.desk.past:
            self.tell(self.desk.refusal() or "", timeout=4)
        return self.desk.past is not None

    def action_help(self) -> None:
        here = self.active_bindings.items()
        works = {key: one for key, one in here if self.applies(one.binding.id)}
        self.app.post_message(ShowKeys(self.desk, works))

    def applies(self, name: str | None) -> bool:
        """Check whether the action of a binding is possible now."""
        agent = self.chosen
        if name in _CHANGES and not self.decides:
            return False
        if name in {"revoke", "restore"}:
            return agent is not None and agent.revoked == (name == "restore")
        return name != "undo" or offered_undo(self.desk) is not None

    def target(self, name: str) -> str:
        """Return the name of the agent that an action would be about, if any."""
        agent = self.chosen
        return agent.name if agent is not None and name in _TARGETED else ""

    def tell(self, text: str, **more: Any) -> None:
        self.app.notify(text, markup=False, **more)

    def show_agent(self, agent_id: str = "") -> None:
        """Show an agent over this screen; without an id the one that keys act on."""
        if not agent_id and (agent := self.chosen):
            agent_id = agent.id
        if agent_id:
            self.app.post_message(ShowAgent(agent_id))

    # The past

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "now":
            return bool(self.desk.past) and not isinstance(self.focused, Input)
        return super().check_action(action, parameters)

    def action_now(self) -> None:
        """Go back to now, which has never stopped, out of all that lies over it."""
        while isinstance(here := self.app.screen, PaneScreen) and here.desk.past:
            self.app.pop_screen()


CALM: Final = 10
"""How many times longer than it takes a reading lies behind the one before."""


class PolledScreen(PaneScreen):
    """A screen of lists that are read again at intervals; one step out closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("L", "audit", "the audit at full size")
    ]
    EVERY: ClassVar[float] = 2.0
    """Seconds between two readings, and at least ten times the length of one."""
    COPIES: ClassVar[str] = "id"
    """The name of a row's id, where it is copied."""

    def __init__(self, desk: Desk, *panes: Pane) -> None:
        super().__init__(desk)
        self.lists = [pane for pane in panes if isinstance(pane, ListPane)]
        self.big = self.lists[0]
        self.panes = (self.masthead, self.waiting, *panes, self.keybar)
        self._read_next = float("-inf")

    async def read(self) -> None:
        """Read the rows.

        Raises:
            AgentVaultError: they cannot be read.
        """
        raise NotImplementedError

    def read_failed(self, why: str) -> None:
        """Show why the rows are not the latest."""
        self.lists[0].status_text = why

    def row_keys(self) -> list[Hint]:
        """Return the keys that do something to the row under the cursor."""
        return []

    @property
    def chosen(self) -> AgentRow | None:
        return None

    def stops(self) -> Sequence[Pane]:
        return self.lists

    def show_keys(self) -> None:
        keys = [*self.row_keys(), ("Esc", "back"), *self.named("step-ups")]
        self.hint(*keys, *self.named("panic"), (":", "command"), ("y", "copy id"))

    def action_audit(self) -> None:
        self.app.post_message(ShowAudit("", None))

    def on_mount(self) -> None:
        self.stops()[0].focus()
        self.begin()

    def take(self) -> None:
        mirror = self.desk.mirror
        if mirror.link.live and mirror.clock.boot() >= self._read_next:
            self.read_anew()
        if not self.covered:
            self.repaint()

    def read_anew(self) -> None:
        """Read the rows now, in the place of a reading under way."""
        self._read_next = float("inf")
        work: Callable[[], Awaitable[None]] = self.read_and_paint
        self.run_worker(work, group="read", exclusive=True)

    async def read_and_paint(self) -> None:
        """Read once and show it, or why not; say when to read next."""
        clock = self.desk.mirror.clock
        began = clock.boot()
        try:
            await self.read()
        except AgentVaultError as error:
            why = self.desk.mirror.intake.shown(error.what, 80)
            self.read_failed(f"not read: {why}")
        now = clock.boot()
        self._read_next = now + max(self.EVERY, CALM * (now - began))
        self.place()
        self.paint_all()

    def header(self, width: int, height: int) -> tuple[dict[str, Box], int, int]:
        """Return the boxes of all but the lists, and the lists' first row and rows."""
        waiting = bool(self.desk.mirror.open_stepups())
        boxes, head = frame(width, height, self.masthead.wanted(width), waiting)
        head += height > 16
        return boxes, head, max(height - 1 - head, 1)

    def on_list_pane_moved(self) -> None:
        self.show_keys()

    def action_copy(self) -> None:
        if self.lists[0].under_cursor is not None:
            copy(self.app, self.COPIES, self.lists[0].cursor)

    def action_out(self) -> None:
        self.dismiss()

    def action_follow(self) -> None:
        """Nothing is held here."""
