"""The time machine: the home screen as it was at any moment the ledger remembers.

It lies over the home screen, which goes on following events, so that going back to now
needs only its removal.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar, Final

from textual.binding import Binding, BindingType

from agentvault_tui.console.link.past import PastReader, look
from agentvault_tui.console.screens.watch import Watch
from agentvault_tui.console.state.past import PastMirror, when
from agentvault_tui.console.widgets.pastmast import PastMasthead
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters.moments import LedgerMoment

_SCRUBS: Final = frozenset({"move", "event", "turn", "start", "ask", "moment"})
_KEYS: Final = (
    ("t", "now"),
    ("h l", "minute"),
    ("PgUp PgDn", "hour"),
    ("[ ]", "event"),
    ("{ }", "turn"),
    ("@", "go to"),
    ("Enter", "open"),
    ("L", "audit"),
    ("/", "filter"),
    ("Tab", "pane"),
    ("y", "copy id"),
    ("^q", "quit"),
    ("?", "keys"),
)


class PastScreen(Watch):
    """The home screen at a moment of the past; decisions are refused."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "now", "back to now", id="time"),
        # Before the panes' own keys: here the ends and pages are those of time.
        Binding("end", "now", "back to now", priority=True),
        Binding("left,h", "move(-60)", "a minute back", priority=True),
        Binding("right,l", "move(60)", "a minute on", priority=True),
        Binding("pageup,ctrl+u", "move(-3600)", "an hour back", priority=True),
        Binding("pagedown,ctrl+d", "move(3600)", "an hour on", priority=True),
        Binding("left_square_bracket", "event(-1)", "the event before", priority=True),
        Binding("right_square_bracket", "event(1)", "the event after", priority=True),
        Binding(
            "shift+left,left_curly_bracket",
            "turn(0)",
            "the turn before",
            priority=True,
            tooltip="what a person or a policy did, not an agent's routine",
        ),
        Binding(
            "shift+right,right_curly_bracket",
            "turn(1)",
            "the turn after",
            priority=True,
            tooltip="what a person or a policy did, not an agent's routine",
        ),
        Binding("home", "start", "the first event", priority=True),
        Binding("at", "ask", "go to a time", priority=True),
        Binding("m", "moment", "go to the moment of the event", priority=True),
    ]

    masthead: PastMasthead

    def __init__(self, live: Watch, past: PastMirror, aim: LedgerMoment) -> None:
        self.past = past
        past.left_at = past.live.last_seq
        reader = PastReader(live.link, past)
        super().__init__(replace(live.desk, link=reader, past=past, begun={}))
        self.live = live
        self.view.cursor = live.view.cursor
        self.aim = self.shown = aim
        self._reading: asyncio.Task[None] | None = None

    def on_mount(self) -> None:
        self._turned()
        if self.live.bar is not None and (text := self.live.bar.text):
            self.run_worker(self.use_filter(text))

    def on_unmount(self) -> None:
        self.app.clear_notifications()  # what it said of the past is not of now
        if self._reading is not None:
            self._reading.cancel()

    # Time

    def go(self, aim: LedgerMoment) -> None:
        """Show another moment; of those asked for meanwhile only the last counts."""
        self.aim = aim
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while self.shown is not self.aim:
            aim, now = self.aim, self.live.desk.mirror.clock.now()
            self.masthead.aimed = when(aim.at, now) if aim.at else f"event {aim.seq:,}"
            self.masthead.problem = ""
            try:
                answer, events = await look(self.live.link, aim)
            except AgentVaultError as error:
                shown = self.past.intake.shown(error.diagnosis(), 300)
                self.masthead.problem = f"Not read: {shown}"
                if aim is self.aim:
                    self.aim = self.shown
            else:
                self.past.fill(answer, events)
                self.shown = aim
                self._turned()
        self.masthead.aimed = ""
        self.pulse()

    def _turned(self) -> None:
        """Draw the new moment: nothing of the one before stays.

        Now and a moment ago look alike, also for what the operator noticed before.
        """
        seen = self.live.view if self.past.at_last else None
        self.view.attention = dict(seen.attention) if seen else {}
        self.view.acknowledged = dict(seen.acknowledged) if seen else {}
        self.feed.resume()
        self.view.update()
        self.view.narrow(self.view.filter)
        self.place()
        self.paint_all()

    def action_move(self, seconds: int) -> None:
        first, last = self.past.first, self.masthead.last
        at = (self.aim.at or self.past.clock.now()) + timedelta(seconds=seconds)
        if at >= last.time:
            self._edge(last.seq, self._last_words())
        elif at <= first.time:
            self._edge(first.seq, "That is the first event.")
        else:
            self.go(LedgerMoment(at=at))

    def action_event(self, step: int) -> None:
        seq = (self.aim.seq or self.past.place.seq) + step
        if seq > self.masthead.last.seq:
            self._edge(seq - 1, self._last_words())
        elif seq < self.past.first.seq:
            self._edge(seq + 1, "That is the first event.")
        else:
            self.go(LedgerMoment(seq=seq))

    def action_turn(self, after: int) -> None:
        place = self.past.turns[after]
        if place is None:
            where = "after" if after else "before"
            self.tell(f"No person and no policy did anything {where} this.", timeout=4)
        elif self._reading is None or self._reading.done():
            self.go(LedgerMoment(seq=place.seq))

    def action_start(self) -> None:
        self.go(LedgerMoment(seq=self.past.first.seq))

    def action_ask(self) -> None:
        from agentvault_tui.console.dialogs.ask import (  # noqa: PLC0415 - see base
            MomentDialog,
        )

        dialog = MomentDialog(self.desk, self.past, self.masthead.last)
        self.app.push_screen(dialog, self._go_to)

    def _go_to(self, aim: LedgerMoment | None) -> None:
        if aim is not None:
            self.go(aim)

    def action_out(self) -> None:
        """Take one step out: of the filter, then of the past."""
        if not self.leave_filter():
            self.action_now()

    def _last_words(self) -> str:
        return f"That is the last event; {self.desk.key('time', 't')} goes back to now."

    def _edge(self, seq: int, words: str) -> None:
        if self.past.place.seq == seq and self.past.clock.now() == self.past.place.time:
            self.tell(words, timeout=4)
        else:
            self.go(LedgerMoment(seq=seq))

    # What does not happen here

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in _SCRUBS and self.typing:
            return False
        return super().check_action(action, parameters)

    # What lies over it

    def action_moment(self) -> None:
        if event := self.feed.under_cursor:
            self.go(LedgerMoment(seq=event.seq))

    def show_keys(self) -> None:
        if self.typing:
            super().show_keys()
        else:
            self.keybar.show(_KEYS)


async def look_back(watch: Watch) -> None:
    """Open the past where *watch* holds an event, or else at the last one there is.

    The first moment is read before anything is drawn: no frame of it is empty.
    """
    mirror = watch.desk.mirror
    event = None if watch.feed.follow else watch.feed.under_cursor
    seq = event.seq if event else mirror.last_seq
    if not seq:
        watch.app.notify("Nothing is recorded yet.", markup=False, timeout=4)
        return
    past, aim = PastMirror(mirror), LedgerMoment(seq=seq)
    try:
        past.fill(*await look(watch.link, aim))
    except AgentVaultError as error:
        shown = mirror.intake.shown(f"The past was not read: {error.diagnosis()}", 300)
        watch.app.notify(shown, markup=False, severity="warning", timeout=6)
        return
    if watch.is_current:
        watch.app.push_screen(PastScreen(watch, past, aim))
