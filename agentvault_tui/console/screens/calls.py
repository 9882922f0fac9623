"""Calls in flight and services: the agents' present use of the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.confirm import Confirm
from agentvault_tui.console.dialogs.stepup import StepUpDialog
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.screens.base import Hint, PolledScreen
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane
from agentvault_tui.operator_api.gateway import ServiceInfo, broker_names
from agentvault_tui.presenters.lines import Pen, Row, cells
from agentvault_tui.presenters.moments import ago, countdown, size
from agentvault_tui.presenters.records import AgentRow, CallRow, ServiceRows
from agentvault_tui.text import Shown, cell_width

_STATE = 10
_NAME, _SERVICE = 20, 12
_NARROW = 100
"""Below this width names and services have narrower columns."""
_END = 20
"""Cells of age and bytes."""
_BROKER = 16, 10
"""Cells of the end of the broker's name, where hosts differ, above that width and
below; none of one alone."""


class CallsPane(ListPane[CallRow]):
    """One row a call: held ones first, then the longest in flight."""

    NONE = "No call is in flight or held."

    @property
    def under_cursor(self) -> CallRow | None:
        return self.mirror.calls.get(self.cursor)

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        calls = self.mirror.calls.values()
        rows = sorted(calls, key=lambda call: (not call.held, call.started_at))
        self.rows = {row.id: row for row in rows}
        return super().draw(width, height)

    def title(self) -> Row:
        p, held = self.pen.palette, sum(row.held for row in self.rows.values())
        counts = f"  {len(self.rows) - held:,} in flight"
        title = (*self.heading("Calls"), (counts, p.muted))
        return (*title, (f", {held:,} held", p.waiting)) if held else title

    def heads(self, width: int) -> Row:
        pen, muted = self.pen, self.pen.palette.muted
        name, service, broker, room = self._widths(width)
        words = zip(
            ("state", "agent", "service", "broker" if broker else "", "request"),
            (_STATE, name, service, broker, room),
            strict=True,
        )
        line = tuple((pen.column(Shown(word), wide), muted) for word, wide in words)
        return pen.spread(line, (("  for  moved".ljust(_END), muted),), width - 3)

    def _widths(self, width: int) -> tuple[int, int, int, int]:
        """Return the cells of the agent, the service, the broker and the request."""
        name, service = (_NAME, _SERVICE) if width >= _NARROW else (16, 10)
        broker = (
            _BROKER[width < _NARROW] if broker_names(self.mirror.status.brokers) else 0
        )
        room = width - 4 - _STATE - name - service - broker - _END
        return name, service, broker, max(room, 8)

    def row(self, row: CallRow, width: int) -> Row:
        """Draw one call: its state, its agent, its request, its progress."""
        pen, p = self.pen, self.pen.palette
        name, service, broker, room = self._widths(width)
        age = (self.mirror.clock.now() - row.started_at).total_seconds()
        if row.held:
            moved = ("waits for you", p.waiting)
        elif row.bytes_in or not row.bytes_out:
            moved = (f"{size(row.bytes_in)} {pen.glyphs.down}", p.text)
        else:
            moved = (f"{size(row.bytes_out)} {pen.glyphs.up}", p.text)
        end: Row = ((f"{countdown(max(age, 0)):>5}  ", p.muted), moved)
        state = "HELD" if row.held else row.state
        if row.status is not None and row.status >= 400:
            state = f"{state} {row.status}"
        names = broker_names(self.mirror.status.brokers)
        named = names.get(row.broker, row.broker)[1 - broker :] if row.broker else ""
        whose = pen.column(named, broker) if names else ""
        room = max(room + _END - max(cells(end), _END), 8)
        line: Row = (
            (state.ljust(_STATE), p.waiting if row.held else p.text),
            (pen.column(row.agent_name, name), p.strong),
            (pen.column(row.service, service), p.text),
            (whose, p.muted),
            (pen.clip(row.request, room), p.text),
        )
        blank = " " * max(_END - cells(end), 0)
        return pen.spread(line, (*end, (blank, p.text)), width - 3)


class ServicesPane(Pane):
    """A line for each service: the results of its last calls, faults first."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, id="services")
        self.rows: list[tuple[Shown, Shown, Shown, ServiceInfo[Shown, datetime] | None]]
        self.rows = []
        """Of services and of files without one: problem, name and health."""
        self.problem = ""
        """Why the rows are not the latest; in words that can be shown."""

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        p, hidden = self.pen.palette, len(self.rows) - (height - 1)
        title: Row = (("Services", p.title), (f"  {self.problem}", p.waiting))
        shown = self.rows[: height - 1 - (hidden > 0)]
        rows = [(self._row(*row, width), None) for row in shown]
        if hidden > 0:
            more = f"  {len(self.rows) - len(shown):,} more: agentvault services list"
            rows.append((((more, p.muted),), None))
        return [(((" ", p.text), *title), None), *rows]

    def take(self, answer: ServiceRows) -> None:
        """List the services, and files that hold none; faults come first."""
        nothing, broken = Shown(""), Shown("broken")
        rows = [(x.problem or nothing, x.name, x.health, x) for x in answer.services]
        files = {f"{one.name}.toml" for one in answer.services}
        others = [
            (problem, file, broken, None)
            for file, problem in answer.problems.items()
            if file not in files
        ]
        self.rows = sorted((*rows, *others), key=lambda row: (not row[0], row[1]))
        self.problem = ""

    def _row(
        self,
        problem: Shown,
        name: Shown,
        health: Shown,
        service: ServiceInfo[Shown, datetime] | None,
        width: int,
    ) -> Row:
        pen, p = self.pen, self.pen.palette
        style = p.danger if health == "broken" else p.waiting
        start: Row = (
            (f"  {health.ljust(_STATE)}", style if problem else p.accent),
            (pen.column(name, _NAME), p.strong),
        )
        room = max(width - cells(start) - 1, 8)
        if problem or service is None:  # the problem needs the room of the origin
            return (*start, ("", p.muted), (pen.clip(problem, room), style))
        origin = pen.clip(service.origin, max(room // 2, 8)) + "  "
        now, used = self.mirror.clock.now(), service.last_used_at
        when = f"used {ago(used, now)}" if used else "not used since the start"
        note = f"{when}, {service.credential.kind}"
        text = pen.clip(note, max(room - cell_width(origin), 8))
        return (*start, (origin, p.muted), (text, p.text))


class CutDialog(Confirm[None]):
    """Cancel the call that was under the cursor, whatever comes and goes meanwhile."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "cancel it")]
    DANGER: ClassVar[bool] = True
    UNDER_WAY: ClassVar[str] = "cancelling"

    def __init__(self, desk: Desk, call: CallRow) -> None:
        self.call = call
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        word = "Cancelled  " if self.finished else "Cancel a call  "
        return ((word, pen.palette.title), (self.call.agent_name, pen.palette.strong))

    def obstacle(self) -> str | None:
        exists = self.call.id in self.desk.mirror.calls
        return None if exists else "It has ended: there is nothing to cancel."

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the call that ends, and the effect that cancelling cannot undo."""
        call = self.desk.mirror.calls.get(self.call.id, self.call)
        what, _ = pen.facts("Cancels now", call.request, width, max(height - 4, 1))
        at = pen.facts("At", call.service, width, 1)[0]
        if call.held:
            left = "its step-up still waits: a retry of the agent may be approved"
        elif call.state == "sending":
            left = "the part that the service has already received"
        else:
            left = "data that the agent has received, and the service's work for it"
        stays = pen.facts("Not undone", left, width, 2)[0]
        revoke = self.desk.key("revoke", "r")
        again = f"may call again; {revoke} in the list revokes it"
        again_rows = pen.facts("The agent", again, width, 1)[0]
        return [*what, *at, *stays, *again_rows]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        del width
        return [pen.stage("done", "cut", self.call.request)]

    def act(self) -> Awaitable[None]:
        return self.desk.link.cut(self.call.id)


class CallsScreen(PolledScreen):
    """Show calls in flight; keys act on the one under the cursor, and its agent."""

    EVERY: ClassVar[float] = 5.0

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "look", "look: its step-up, or its agent"),
        Binding("x", "cut", "cancel the call"),
    ]
    PANES = (CallsPane,)
    SHOWS = "calls"
    COPIES = "call id"

    def __init__(self, desk: Desk) -> None:
        self.calls = CallsPane(desk, id="calls")
        self.services = ServicesPane(desk)
        super().__init__(desk, self.calls, self.services)
        self._seen = -1

    def take(self) -> None:
        super().take()
        version = self.desk.mirror.versions.calls
        changed, self._seen = version != self._seen, version
        if changed and not self.covered:
            self.calls.paint()
            self.show_keys()

    async def read(self) -> None:
        self.services.take(await self.link.services())

    def read_failed(self, why: str) -> None:
        self.services.problem = why

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give the calls the room that the services leave, two thirds at least."""
        boxes, head, room = self.header(width, height)
        low = min(len(self.services.rows) + 1, room // 3)
        if (self.services.rows or self.services.problem) and low > 1:
            boxes["services"] = Box(0, height - 1 - low, width, low)
            room -= low + 1
        return boxes | {"calls": Box(0, head, width, room)}

    def row_keys(self) -> list[Hint]:
        if self.calls.under_cursor is None:
            return []
        keys = [("x", "cancel"), ("r", "revoke its agent")] if self.decides else []
        return [("Enter", "look"), *keys]

    @property
    def chosen(self) -> AgentRow | None:
        call = self.calls.under_cursor
        return self.desk.mirror.agents.get(call.agent_id) if call else None

    def action_look(self) -> None:
        """Open the step-up that a held call waits for, or its agent."""
        if (call := self.calls.under_cursor) is None:
            return
        stepup = self.desk.mirror.stepups.get(call.stepup_id or "")
        if call.held and stepup is not None:
            self.app.push_screen(StepUpDialog(self.desk, stepup))
        else:
            self.show_agent(call.agent_id)

    def action_cut(self) -> None:
        if (call := self.calls.under_cursor) is not None:
            self.app.push_screen(CutDialog(self.desk, call))
