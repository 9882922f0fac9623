"""Alerts: those that did not arrive, and where alerts and events go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk, copy
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.draw.lines import Row, cells
from agentvault_tui.console.screens.base import PolledScreen
from agentvault_tui.console.state.moments import ago
from agentvault_tui.console.state.records import AgentRow, DeadAlertRow, SinkRow
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.text import cell_width

_SINK, _KIND, _WHEN = 16, 9, 10


class DeadPane(ListPane):
    """One row for each alert that its sink did not take for a day."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "retry", "send it again, now"),
    ]

    def __init__(self, desk: Desk, retry: Callable[[DeadAlertRow], None]) -> None:
        super().__init__(desk, id="dead")
        self.rows: dict[str, DeadAlertRow] = {}
        self._retry = retry

    @property
    def alert(self) -> DeadAlertRow | None:
        """The alert under the cursor: what keys act on."""
        return self.rows.get(self.cursor)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """List them, the one that was given up first on top."""
        self.keep_cursor(list(self.rows))
        p, room = self.pen.palette, max(height - 1, 1)
        title = self.heading("Alerts that did not arrive")
        if not self.rows:
            words = "Every alert was taken, or is still being tried."
            return [(title, None), ((), None), (((f"  {words}", p.muted),), None)]
        title = (*title, (f"  {len(self.rows):,}", p.danger))
        seen = list(self.rows.values())[self.in_view(room)]
        return [(title, None), *((self._row(row, width), None) for row in seen)]

    def _row(self, row: DeadAlertRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        when = ago(row.at, self.mirror.clock.now()) if row.at else ""
        room = max(width - 4 - _SINK - _WHEN, 8)
        title = pen.clip(row.title, max(room // 2, 8))
        line: Row = (
            (pen.column(when, _WHEN), p.muted),
            (pen.column(row.sink, _SINK), p.strong),
            (f"{title}  ", p.text),
            (pen.clip(row.problem, max(room - cell_width(title) - 2, 8)), p.danger),
        )
        return pen.listed(line, here=row.id == self.cursor)

    def action_retry(self) -> None:
        if (alert := self.alert) is not None:
            self._retry(alert)


class SinksPane(Pane):
    """A line for each sink: what goes there, how far it is, and what is wrong."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="sinks")
        self.rows: list[SinkRow] = []
        self.problem = ""
        """Why the rows are not the latest; in words that can be shown."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        p = self.pen.palette
        title: Row = (("Where alerts and events go", p.title),)
        title = ((" ", p.text), *title, (f"  {self.problem}", p.waiting))
        if not self.rows:
            words = "Nowhere: write alerts.toml, then agentvault alerts test SINK"
            return [(title, None), (((f"  {words}", p.muted),), None)]
        shown = self.rows[: height - 1]
        return [(title, None), *((self._row(row, width), None) for row in shown)]

    def _row(self, row: SinkRow, width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        start: Row = (
            (f"  {pen.column(row.name, _SINK - 2)}", p.strong),
            (row.kind.ljust(_KIND), p.text),
        )
        counts = [(row.behind, "behind"), (row.held, "held"), (row.dead, "dead")]
        end = ", ".join(f"{n:,} {word}" for n, word in counts if n)
        said = row.problem or (
            f"last taken {ago(row.sent_at, self.mirror.clock.now())}"
            if row.sent_at
            else "nothing to take since the start"
        )
        room = max(width - cells(start) - 1, 8)
        text = f"{end}{': ' if end and row.problem else ''}" if end else ""
        text += said if row.problem else ("  " if end else "") + said
        return (*start, (pen.clip(text, room), p.waiting if row.problem else p.text))


class AlertsScreen(PolledScreen):
    """Show where alerts go; a key sends again what did not arrive."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.dead = DeadPane(desk, self._send_again)
        self.sinks = SinksPane(desk)
        self.panes = (
            *(self.masthead, self.waiting),
            *(self.dead, self.sinks, self.keybar),
        )
        self.big = self.dead

    async def read(self) -> None:
        self.sinks.rows, dead = await self.link.alerts()
        self.dead.rows, self.sinks.problem = {one.id: one for one in dead}, ""

    def read_failed(self, why: str) -> None:
        self.sinks.problem = why

    def _send_again(self, alert: DeadAlertRow) -> None:
        """Send it; what became of it is told in a line."""
        if not self.decides:
            self.tell("Read-only: nothing is sent from here.")
            return

        async def send() -> None:
            try:
                self.tell(await self.link.retry_alert(alert.id))
            except AgentVaultError as error:
                self.tell(self.desk.mirror.intake.shown(error.diagnosis(), 200))
            await self.read_and_paint()

        work: Callable[[], Awaitable[None]] = send
        self.run_worker(work, group="retry")

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give the sinks a line each, and the rest to the alerts."""
        boxes, head, room = self.header(width, height)
        low = min(max(len(self.sinks.rows), 1) + 1, max(room // 2, 1))
        boxes["sinks"] = Box(0, height - 1 - low, width, low)
        return boxes | {"dead": Box(0, head, width, max(room - low - 1, 1))}

    def stops(self) -> Sequence[Pane]:
        return [self.dead]

    def show_keys(self) -> None:
        found = [("Esc", "back")]
        if self.dead.alert is not None and self.decides:
            found = [("Enter", "send again"), *found]
        found += [*self.named("step-ups"), (":", "command"), ("y", "copy id")]
        self.keybar.show((*found, ("j k", "move"), ("?", "keys"), ("^q", "quit")))

    @property
    def chosen(self) -> AgentRow | None:
        return None

    def action_alerts(self) -> None:
        """They are shown already: the same key goes back."""
        self.action_out()

    def action_copy(self) -> None:
        if alert := self.dead.alert:
            copy(self.app, "alert id", alert.id)
