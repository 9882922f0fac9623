"""Alerts: those that did not arrive, and where alerts and events go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.base import Hint, PolledScreen
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.alerts import DeadAlertInfo, SinkInfo
from agentvault_tui.presenters.lines import Row, cells
from agentvault_tui.presenters.moments import ago
from agentvault_tui.text import Shown, cell_width

_SINK, _KIND, _WHEN = 16, 9, 10


class DeadPane(ListPane[DeadAlertInfo[Shown, datetime]]):
    """Alerts that their destinations did not take for a day, the first on top."""

    NONE = "No alert has failed."

    def title(self) -> Row:
        title = self.heading("Alerts that did not arrive")
        count = (f"  {len(self.rows):,}", self.pen.palette.danger)
        return (*title, count) if self.rows else title

    def row(self, row: DeadAlertInfo[Shown, datetime], width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        when = ago(row.at, self.mirror.clock.now())
        room = max(width - 4 - _SINK - _WHEN, 8)
        title = pen.clip(row.title, max(room // 2, 8))
        return (
            (pen.column(when, _WHEN), p.muted),
            (pen.column(row.sink, _SINK), p.strong),
            (f"{title}  ", p.text),
            (pen.clip(row.problem, max(room - cell_width(title) - 2, 8)), p.danger),
        )


class SinksPane(Pane):
    """A line for each destination: its routes, its progress, and its fault."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="sinks")
        self.rows: tuple[SinkInfo[Shown, datetime], ...] = ()
        self.problem = ""
        """Why the rows are not the latest; in words that can be shown."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        p = self.pen.palette
        title: Row = (("Where alerts and events go", p.title),)
        title = ((" ", p.text), *title, (f"  {self.problem}", p.waiting))
        if not self.rows:
            words = "Nowhere: write alerts.toml, then agentvault alerts test NAME"
            return [(title, None), (((f"  {words}", p.muted),), None)]
        shown = self.rows[: height - 1]
        return [(title, None), *((self._row(row, width), None) for row in shown)]

    def _row(self, row: SinkInfo[Shown, datetime], width: int) -> Row:
        pen, p = self.pen, self.pen.palette
        start: Row = (
            (f"  {pen.column(row.name, _SINK - 2)}", p.strong),
            (row.kind.ljust(_KIND), p.text),
        )
        counts = [(row.behind, "behind"), (row.held, "held"), (row.dead, "dead")]
        end = ", ".join(f"{n:,} {word}" for n, word in counts if n)
        note = row.problem or (
            f"last taken {ago(row.sent_at, self.mirror.clock.now())}"
            if row.sent_at
            else "nothing to take since the start"
        )
        room = max(width - cells(start) - 1, 8)
        text = f"{end}{': ' if end and row.problem else ''}" if end else ""
        text += note if row.problem else ("  " if end else "") + note
        return (*start, (pen.clip(text, room), p.waiting if row.problem else p.text))


class AlertsScreen(PolledScreen):
    """Show the destinations of alerts; a key sends an undelivered one again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "retry", "send it again, now"),
    ]
    PANES = (DeadPane,)
    SHOWS = "alerts"
    COPIES = "alert id"

    def __init__(self, desk: Desk) -> None:
        self.dead = DeadPane(desk, id="dead")
        self.sinks = SinksPane(desk)
        super().__init__(desk, self.dead, self.sinks)

    async def read(self) -> None:
        alerts = await self.link.alerts()
        self.sinks.rows, self.sinks.problem = alerts.sinks, ""
        self.dead.rows = {one.id: one for one in alerts.dead}

    def read_failed(self, why: str) -> None:
        self.sinks.problem = why

    def action_retry(self) -> None:
        """Send the alert again; the result is shown in a line."""
        if (alert := self.dead.under_cursor) is None:
            return
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

    def row_keys(self) -> list[Hint]:
        sends = self.dead.under_cursor is not None and self.decides
        return [("Enter", "send again")] if sends else []
