"""The second factor in the step-up dialog: code, link, QR code and stages."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.style import Style

from agentvault_tui.console.desk import Desk
from agentvault_tui.presenters.lines import EMPTY, Pen, Row, cells, wrap
from agentvault_tui.presenters.moments import clock_time, countdown
from agentvault_tui.presenters.records import DeviceRow, StepUpRow
from agentvault_tui.presenters.stepup_rows import StepUpFacts, brief, headline
from agentvault_tui.presenters.stepups import stages_of
from agentvault_tui.qr import Ground, QrCode, draw, on_loopback, tunnel
from agentvault_tui.text import cell_width

_FACTOR_CELLS: Final = 36
"""Cells the text needs next to a QR code."""
_GAP: Final = 2
_LEAST_FACTS: Final = 6
"""Rows below which facts over a code say too little."""
_PLATE: Final = Style(bold=True, reverse=True)
"""The code is visible by its ground, under any theme and without colour."""
_GROUNDS: Final = {
    Ground.DARK_ON_LIGHT: Style(color="#000000", bgcolor="#ffffff"),
    Ground.DARK: Style(bgcolor="#000000"),
    Ground.LIGHT: Style(bgcolor="#ffffff"),
}
"""An inverted code does not scan: the theme's colours are not asked."""


def factor(
    facts: StepUpFacts,
    times: tuple[datetime | None, datetime],
    pen: Pen,
    size: tuple[int, int],
    desk: Desk,
    *,
    picture: bool,
) -> list[Row]:
    """Write code, link, QR if it fits whole, and the stages, within *size* cells.

    *times* are when this console started it, if it did, and when it saw the code. No QR
    of a link that no other device can open: the way there is named instead.
    """
    device = facts.row.device
    width, height = size
    if device is None and facts.row.status == "authorizing":
        return pen.paragraph(
            "Somebody else approves this, with a code of their own. You can approve it "
            f"as well: {desk.key('approve', 'a')} gives you yours.",
            width,
        )
    if device is None:
        return [
            pen.stage("current", "asking the tenant for a code", ""),
            *pen.paragraph("The code and the link stand here when it answers.", width),
            EMPTY,
        ]
    rows: list[Row] = []
    if picture and not on_loopback(device.verification_uri):
        link, room = device.verification_uri_complete, width - _FACTOR_CELLS - _GAP
        if code := draw(link, room, height, ascii_only=pen.glyphs.ascii_only):
            room = width - code.width - _GAP
            text = _factor_text(facts, times, pen, room, desk, scan=True)
            # The text comes first: a code beside a cut text is no help.
            if len(text) <= height:
                rows = _beside(text, code, pen, room)
    rows = rows or _factor_text(facts, times, pen, width, desk)
    if len(rows) > height:
        rows = [row for row in rows if row != EMPTY]
    return [*rows, EMPTY] if len(rows) < height else rows


def request_rows(
    facts: StepUpFacts, pen: Pen, width: int, room: int, title: int
) -> tuple[list[Row], str]:
    """Write the request in *room* rows, and return a headline for the title.

    A headline that *title* cells would cut is above the request instead, where it takes
    no fact's place.
    """
    row = facts.row
    body, _ = brief(facts, pen, width, room)
    if wish := headline(row, pen, width, title):
        less, is_clipped = brief(facts, pen, width, max(room - len(wish), 1))
        if not is_clipped:
            return [*wish, *less], ""
    return body, row.headline


def under_wish(
    body: list[Row], facts: StepUpFacts, pen: Pen, width: int, room: int
) -> list[Row]:
    """Write over a code who wants what, and the facts that there is room for.

    No word of the agent's stands near a code.
    """
    wish = pen.paragraph(facts.row.headline, width, pen.palette.strong)
    if len(wish) + len(body) > room:
        body = [row for row in body if row != EMPTY]
    spare = room - len(wish) - len(body) - 1
    if spare < _LEAST_FACTS:
        return [*wish, *body]
    shown, _ = brief(facts, pen, width, spare, words_too=False)
    return [*wish, *shown[:spare], EMPTY, *body]


def stages(row: StepUpRow, seen: datetime, now: datetime, pen: Pen) -> list[Row]:
    """Write the four stages of a flow under way, done ones with their times."""
    waited = countdown((now - seen).total_seconds())
    return [
        pen.stage("done", "code shown", clock_time(seen)),
        pen.stage("current", "waiting for sign-in", f"for {waited}"),
        pen.stage("ahead", "factor verified", ""),
        pen.stage("ahead", stages_of(row).ready, ""),
    ]


def _factor_text(
    facts: StepUpFacts,
    times: tuple[datetime | None, datetime],
    pen: Pen,
    width: int,
    desk: Desk,
    *,
    scan: bool = False,
) -> list[Row]:
    row, palette = facts.row, pen.palette
    if (device := row.device) is None:
        return []
    begun, seen = times
    who = (
        f"You started this here at {clock_time(begun)}"
        if begun
        else "Another console started this"
    )
    more: list[Row] = []
    if row.repeat:
        more = pen.paragraph(f"With {row.repeat.words}.", width, palette.danger)
    return [
        *_way(device.verification_uri, desk, pen, width, scan=scan),
        (("and enter", palette.muted),),
        *_plate(device.user_code, pen),
        *_here(device, desk, pen, width),
        EMPTY,
        *pen.paragraph(f"{who}. Its fingerprint is {row.fingerprint}.", width),
        *more,
        *pen.paragraph(
            "If the page shows anything else, cancel there.", width, palette.waiting
        ),
        EMPTY,
        *stages(row, seen, facts.now, pen),
    ]


def _way(link: str, desk: Desk, pen: Pen, width: int, *, scan: bool) -> list[Row]:
    """Say where to open the link: over SSH this machine's loopback needs a tunnel.

    With *scan*, a QR code is next to it: it opens a page that needs no code.
    """
    muted, local = pen.palette.muted, on_loopback(link)
    where = "On this machine open" if local else "On another device open"
    if scan:
        where = "Scan the QR code, or open"
    rows: list[Row] = []
    if local and (line := tunnel(link, desk.ssh)):
        rows = [
            (("Where your browser is, run", muted),),
            *_unclipped(line, pen, width),
        ]
        where = "and open there"
    return [*rows, ((where, muted),), *_unclipped(link, pen, width)]


def _here(device: DeviceRow, desk: Desk, pen: Pen, width: int) -> list[Row]:
    """Name the way without a browser, which the embedded tenant alone has."""
    if not on_loopback(device.verification_uri):
        return []
    line = f"{desk.activate} {device.user_code}{desk.user}"
    return [
        (("or in another terminal of this machine", pen.palette.muted),),
        *_unclipped(line, pen, width),
    ]


def _unclipped(text: str, pen: Pen, width: int) -> list[Row]:
    """Break a link or command at spaces, and truncate it nowhere."""
    return [((line, pen.palette.strong),) for line in wrap(text, width)]


def _plate(code: str, pen: Pen) -> list[Row]:
    """Set the code large: spaced, on a plate of its own."""
    spaced = f"   {' '.join(code)}   "
    blank = " " * cell_width(spaced)
    style = pen.palette.text + _PLATE
    return [((blank, style),), ((spaced, style),), ((blank, style),)]


def _beside(left: list[Row], code: QrCode, pen: Pen, room: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(max(len(left), code.height)):
        text = pen.cut(left[number], room) if number < len(left) else ()
        blank = (" " * (room + _GAP - cells(text)), pen.palette.text)
        drawn = code.rows[number] if number < code.height else ()
        picture = [(modules, _GROUNDS[ground]) for modules, ground in drawn]
        rows.append((*text, blank, *picture))
    return rows
