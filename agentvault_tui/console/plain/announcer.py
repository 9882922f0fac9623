"""Announces changes of the mirror as sentences, at a readable rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TextIO

from agentvault_tui.console.plain import sentences
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.presence import OperatorRow
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.moments import plural
from agentvault_tui.presenters.records import EventRow, undelivered
from agentvault_tui.text import Shown


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be typed."""

    usage: str
    """The word, and its arguments."""
    does: str
    act: Callable[[str], Awaitable[None]]
    """Takes the rest of the line."""

    @property
    def word(self) -> str:
        return self.usage.partition(" ")[0]


_TICK: Final = 0.25
_FLOOD: Final = 20
"""Lines printed at once; the rest is counted."""


class Announcer:
    """Print changes of the mirror that were not printed yet."""

    def __init__(self, mirror: Mirror, out: TextIO) -> None:
        self.mirror = mirror
        self.all = False
        """Whether routine events are printed too."""
        self.filter = Filter()
        """The filter of printed events; the empty one leaves it to `all`."""
        self.hold_until = 0.0
        """While a question waits for its word, by the boot clock, only the link is
        reported: nothing may bury the question."""
        self._held: int | None = None
        """How many events were held back; None while they are printed."""
        self._out = out
        self._told_seq: int | None = None
        self._announced: dict[Shown, tuple[Shown, Shown]] | None = None
        self._loosened_seq = 0
        self._link = ""
        self._warned: tuple[str, ...] = ()
        self._others: dict[Shown, OperatorRow] | None = None

    def say(self, *lines: str) -> None:
        self._out.write("".join(f"{line}\n" for line in lines))
        self._out.flush()

    async def run(self) -> None:
        while True:
            self.mirror.tick(self.mirror.clock.now())
            self.news()
            await asyncio.sleep(_TICK)

    def news(self) -> None:
        self._tell_link()
        self._tell_presence()
        if self.mirror.clock.boot() >= self.hold_until:
            self._tell_loosened()
            self._tell_stepups()
            self._tell_events()

    def hold(self) -> None:
        self._held = self._held or 0

    def follow(self) -> int:
        """Announce events again; return how many were held back."""
        missed, self._held = self._held or 0, None
        return missed

    def _tell_link(self) -> None:
        """Announce the link's state, panic and warnings."""
        link = self.mirror.link
        if link.state != self._link:
            self._link = link.state
            reason = f": {link.reason}" if link.reason else ""
            hint = "" if link.live else " Nothing is decided until it is live."
            self.say(f"The link to the broker is {link.state}{reason}.{hint}")
        panic = self.mirror.status.panic
        stopped = f"PANIC: everything is stopped,{panic.cause}"
        warnings = (*self.mirror.warnings.values(), *self.mirror.status.warnings)
        dead = undelivered(self.mirror.status)
        lost = [f"{dead}: agentvault alerts dead"] if dead else []
        messages = (*([stopped] if panic.on else []), *lost, *warnings)
        self.say(*(text for text in messages if text not in self._warned))
        self._warned = messages

    def _tell_presence(self) -> None:
        """Announce operators who come, go, or open a step-up."""
        presence = self.mirror.presence
        if not presence.you:
            self._others = None
            return
        before, now = self._others, {row.id: row for row in presence.others}
        self._others = now
        held = self.mirror.clock.boot() < self.hold_until
        if before == now or held:
            self._others = before if held else now
            return
        stepups = self.mirror.stepups
        if before is None:
            self.say(*(sentences.of_operator(row, stepups) for row in now.values()))
            return
        self.say(
            *(f"{row.title} has left." for row in before.values() if row.id not in now)
        )
        changed = [row for row in now.values() if before.get(row.id) != row]
        self.say(*(sentences.of_operator(row, stepups) for row in changed))

    def _tell_stepups(self) -> None:
        """Announce step-ups that wait or ended."""
        now = self.mirror.clock.now()
        rows = self.mirror.stepups
        states = {row.id: (row.status, row.problem) for row in rows.values()}
        if self._announced is None:
            if not self.mirror.link.live:
                return
            news = self.mirror.open_stepups()
        else:
            before = self._announced
            news = [
                row for row in rows.values() if before.get(row.id) != states[row.id]
            ]
        self._announced = states
        self.say(*(sentences.of_stepup(row, now) for row in news))

    def _tell_loosened(self) -> None:
        """Announce loosenings, each once, whatever is held back or filtered."""
        rows = self.mirror.loosenings.recent()
        new = [row for row in rows if row.seq > self._loosened_seq]
        self.say(*(f"LOOSENED {row.words}." for row in new))
        if new:
            self._loosened_seq = new[-1].seq

    def _tell_events(self) -> None:
        """Announce new events; of a flood the first ones and a count."""
        mirror = self.mirror
        if self._told_seq is None:
            if mirror.link.live:
                self._told_seq = mirror.last_seq
            return
        new = [event for event in mirror.events if event.seq > self._told_seq]
        self._told_seq = mirror.last_seq
        new = [event for event in new if self._asked_for(event)]
        # A step-up is told by its own sentence, which says more.
        new = [e for e in new if not e.type.startswith(("stepup.", "change."))]
        if self._held is not None:
            self._held += len(new)
            return
        self.say(*(sentences.of_event(mirror, event) for event in new[:_FLOOD]))
        if len(new) > _FLOOD:
            self.say(f"and {plural(len(new) - _FLOOD, 'event')} more.")

    def _asked_for(self, event: EventRow) -> bool:
        if not self.filter:
            return self.all or _notable(event)
        return self.filter.event(event, self.mirror)


def _notable(event: EventRow) -> bool:
    """Leave out routine: tokens issued, used and revoked by their holder."""
    return event.outcome == "denied" or not event.type.startswith("token.")
