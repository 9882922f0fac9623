"""What every screen of panes shares: rectangles, one clock, and the way of Tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.deciding import Deciding
from agentvault_tui.console.screens.footer import Focus, Place
from agentvault_tui.console.state.records import EventRow
from agentvault_tui.console.term.pace import beats
from agentvault_tui.console.widgets.masthead import Masthead
from agentvault_tui.console.widgets.pane import Pane


class Placed(Deciding):
    """A screen whose panes stand where a plan says, repainted where they differ."""

    DEFAULT_CSS = """
    Placed > * { position: absolute; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "out", "one step out", show=False),
        Binding("tab", "next", "next pane", show=False),
        Binding("shift+tab", "previous", "pane before", show=False),
        Binding("f", "follow", "follow or hold"),
        Binding("y", "copy", "copy id"),
    ]

    masthead: Masthead

    def __init__(self, desk: Desk, *, pulse: float) -> None:
        super().__init__(desk)
        self.panes: tuple[Pane, ...] = ()
        """All there is to paint."""
        self.big: Pane | None = None
        """The pane that has, or last had, the focus: it gets the room."""
        self._pulse = pulse
        self._boxes: Mapping[str, Box] = {}
        self._painted: tuple[object, ...] = ()

    # What a screen says

    def head(self) -> Masthead:
        """Return what stands at the top."""
        return Masthead(self.desk, id="masthead")

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Return a box for everything that is shown, by its id."""
        raise NotImplementedError

    def stops(self) -> Sequence[Pane]:
        """Return the panes that Tab goes through, in order."""
        raise NotImplementedError

    def pulse(self) -> None:
        """Take what has changed since the last pulse, and repaint that."""
        raise NotImplementedError

    def show_keys(self) -> None:
        """Name the keys that fit the focus."""
        raise NotImplementedError

    def lines(self) -> Sequence[Widget]:
        """Return what is typed in, and placed like a pane."""
        return ()

    # Time

    def compose(self) -> ComposeResult:
        """Lay out everything, in its place from the first frame on."""
        self.place()
        yield from self.panes

    def begin(self) -> None:
        """Start the one clock of this screen."""
        self.pulse()
        self.run_worker(self._beat(), name="pulse")

    async def _beat(self) -> None:
        async for _ in beats(self.desk.mirror, self._pulse):
            self.pulse()

    def on_screen_resume(self) -> None:
        """Draw what was not drawn while another screen lay over this one."""
        if self.is_mounted:
            self._painted = ()
            self.pulse()

    def on_screen_suspend(self) -> None:
        """Name no keys that do not work behind a dialog."""
        self.show_keys()

    @property
    def covered(self) -> bool:
        """Whether another screen, not a dialog, lies over this one: nobody sees it."""
        stack = self.app.screen_stack
        above = stack[stack.index(self) + 1 :] if self in stack else []
        return any(not screen.is_modal for screen in above)

    @property
    def second(self) -> int:
        """The second that is shown."""
        return int(self.desk.mirror.clock.now().timestamp())

    def repaint(self) -> bool:
        """Place and paint everything if anything but the stream differs; tell so."""
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
        """Repaint what differs."""
        for pane in self.panes:
            pane.paint()
        self.show_keys()

    # Place

    def place(self) -> None:
        """Put everything in its place for this size."""
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
        """Put everything in its place for the new size."""
        self.place()

    def on_descendant_focus(self) -> None:
        """Let the pane with the focus be the large one."""
        for pane in self.stops():
            if pane is self.focused:
                self.big = pane
        self.place()
        self.show_keys()

    def focus_on(self, pane: Pane) -> None:
        """Give a pane the focus, and the room."""
        self.big = pane
        self.place()
        self.set_focus(pane)

    def action_next(self) -> None:
        """Go to the next pane."""
        self._step(1)

    def action_previous(self) -> None:
        """Go to the pane before."""
        self._step(-1)

    def _step(self, step: int) -> None:
        stops = self.stops()
        here = stops.index(self.big) if self.big in stops else 0
        self.focus_on(stops[(here + step) % len(stops)])

    # What keys act on

    def standing(self, place: Place, *, follows: bool) -> Focus:
        """Return what the bottom line depends on."""
        mirror, agent = self.desk.mirror, self.chosen
        return Focus(
            place,
            "none" if not agent else "revoked" if agent.revoked else "active",
            bool(mirror.open_stepups()),
            follows,
            mirror.status.panic.on,
            not (self.desk.read_only or self.desk.past),
            past=self.desk.past,
        )

    def copy_event(self, event: EventRow) -> None:
        """Copy what an event is known by."""
        kind = "decision" if event.decision_id else "event number"
        self.copy(kind, event.decision_id or f"{event.seq}")

    def copy_agent(self) -> None:
        """Copy the id of the agent that keys act on."""
        if agent := self.chosen:
            self.copy(f"agent id of {agent.name}", agent.id)
