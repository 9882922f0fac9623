"""Dialogs that ask for one line: a moment of the past, a file to export to."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.clock import span
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog, SheetPage
from agentvault_tui.console.link.export import LONGEST, Export, read_path, suggestion
from agentvault_tui.console.state.past import (
    FORMS,
    LedgerPlace,
    PastMirror,
    parse_past_moment,
    when,
)
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.errors import AgentVaultError, UsageError
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.lines import EMPTY, LABEL, Row
from agentvault_tui.presenters.moments import LedgerMoment, plural


class MomentDialog(Dialog[LedgerMoment | None]):
    """Ask for a moment: a time, a span, or an event's number."""

    WIDTH: ClassVar[int] = 72
    AUTO_FOCUS: ClassVar[str | None] = "#moment"

    def __init__(self, desk: Desk, past: PastMirror, last: LedgerPlace) -> None:
        self._past = past
        self._last = last
        super().__init__(desk)

    def inputs(self) -> list[Widget]:
        return [LineInput("moment", 40, longest=40, empty="14:02")]

    def page(self, width: int, height: int) -> SheetPage:
        """Ask for the moment, and say which there are."""
        del height
        pen, now = self.pen, self._past.live.clock.now()
        first, last = self._past.first, self._last
        ends = f"{when(first.time, now)} to {when(last.time, now)}"
        body: list[Row] = [
            pen.fact("Time"),
            EMPTY,
            *pen.facts("Written", f"{FORMS}; all in UTC", width, 2)[0],
            pen.fact(
                "Between",
                (f"{ends}, events {first.seq:,} to ", pen.palette.text),
                (f"{last.seq:,}", pen.palette.text),
            ),
            *self.notes(pen, width),
        ]
        keys = [("Enter", "go there"), ("Esc", "stay")]
        title = (("Go to a time", pen.palette.title),)
        footer = (EMPTY, pen.keys(keys))
        return SheetPage(title, (), tuple(body), footer, places={"moment": (LABEL, 0)})

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        now = self._past.live.clock.now()
        aim = parse_past_moment(event.value, self._past, self._last, now)
        if isinstance(aim, str):
            self.say(aim)
        else:
            self.dismiss(aim)

    @on(LineInput.Left)
    def _left(self) -> None:
        self.dismiss()


_BAR: Final = 24
_FIELD: Final = 58
"""Cells of the line a path is typed in."""


class ExportDialog(Dialog[None]):
    """Ask for a path and write the events there; Esc stops it and leaves no file."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "close", "close")]

    def __init__(self, desk: Desk, wanted: Filter) -> None:
        self._export = Export(desk.link, wanted)
        self._filter = wanted
        self._path: Path | None = None
        self._writing: asyncio.Task[None] | None = None
        self._began = 0.0
        self.done = ""
        """The result, in words."""
        super().__init__(desk)

    def inputs(self) -> list[Widget]:
        return [LineInput("path", _FIELD, longest=LONGEST)]

    def on_mount(self) -> None:
        super().on_mount()
        for field in self.sheet.query(LineInput):  # none where the console is left
            field.value = suggestion(self.clock.now(), _FIELD - 1)
            field.cursor_position = len(field.value)
            self.set_focus(field)

    def page(self, width: int, height: int) -> SheetPage:
        """Ask for the file, then show how far the export is."""
        pen, p = self.pen, self.pen.palette
        what = str(self._filter) or "every event"
        upto = f"up to event {self._export.upto:,}"
        body: list[Row] = [*pen.facts("What", pen.clip(what, 400), width, 3)[0]]
        body.append(pen.fact("", (upto, p.muted)))
        places = {}
        if self._path is None:
            places["path"] = (LABEL, len(body))
            body.append(pen.fact("File"))
            text = ".jsonl or .csv; only you may read it; it must not exist yet"
            body += pen.facts("", text, width, 2, p.muted)[0]
            body += self.notes(pen, width)
            footer = [EMPTY, pen.keys([("Enter", "export"), ("Esc", "back")])]
        else:
            body += pen.facts("File", pen.clip(str(self._path), 800), width, 6)[0]
            body += [EMPTY, *self._progress(width)]
            keys = (
                [("Esc", "close")] if self.done else [("Esc", "stop; leaves no file")]
            )
            footer = [EMPTY, pen.keys(keys)]
        title = (("Export", p.title),)
        return SheetPage(title, (), tuple(body[: height - 2]), tuple(footer), places)

    def _progress(self, width: int) -> list[Row]:
        pen, p, export = self.pen, self.pen.palette, self._export
        if self.done:
            label = "Done" if self._ok else "Not done"
            rows = pen.facts(label, self.done, width, 4)[0]
            if self._ok and self._path is not None and self._path.suffix != ".csv":
                shown = self.desk.mirror.intake.shown(shlex.quote(str(self._path)), 800)
                line = f"agentvault audit verify {shown} --against {self.desk.ledger}"
                rows += pen.facts("Verify", line, width, 6)[0]
                if self.desk.ledger_is_temporary:
                    text = "before you leave: the demo's ledger goes with it"
                    rows += pen.facts("", text, width, 2, p.waiting)[0]
            return rows
        fraction = export.looked / max(export.upto, 1)
        return [
            pen.fact("Written", (plural(export.written, "event"), p.strong)),
            pen.fact(
                "Looked at",
                (pen.glyphs.bar(fraction, _BAR), p.accent),
                (f" {export.looked:,} of {export.upto:,}", p.text),
            ),
        ]

    _ok = False

    @on(Input.Submitted)
    def begin(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            self._path = read_path(event.value)
        except UsageError as error:
            shown = self.desk.mirror.intake.shown(error.diagnosis(), 300)
            self.say(f"Not there: {shown}")
            return
        self.set_focus(None)
        self._began = self.clock.boot()
        self._writing = asyncio.create_task(self._run(self._path))
        self.update_page()

    async def _run(self, path: Path) -> None:
        export = self._export
        try:
            await export.run(path)
        except AgentVaultError as error:
            shown = self.desk.mirror.intake.shown(error.diagnosis(), 300)
            self.done = f"{shown}. No file was left."
        else:
            took = span(self.clock.boot() - self._began)
            self._ok = True
            self.done = f"{plural(export.written, 'event')}, mode 0600, in {took}"
        self.update_page()

    @on(LineInput.Left)
    def _left(self, event: LineInput.Left) -> None:
        event.stop()
        self.dismiss()

    def action_close(self) -> None:
        """Close, once it is over: Enter held a moment too long stops nothing."""
        if self.done:
            self.dismiss()

    def action_leave(self) -> None:
        stopped = self._writing is not None and not self._writing.done()
        self.dismiss()
        if self._writing is not None and stopped:
            self._writing.cancel()
            self.app.notify("Stopped. No file was left.", markup=False, timeout=4)

    def on_unmount(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
