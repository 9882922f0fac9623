"""Who else is connected to this broker, since when, and what they look at."""

from __future__ import annotations

from agentvault_tui.console.dialogs.page import Page
from agentvault_tui.console.dialogs.scrolled import Scrolled
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row, clock_time, plural
from agentvault_tui.console.state.presence import OperatorRow
from agentvault_tui.text import cell_width

_FACES = {"console": "console", "plain": "plain console"}


class OperatorsDialog(Scrolled):
    """A list to read; it follows who comes and goes."""

    def page(self, width: int, height: int) -> Page:
        """Write the others, then what is known of those not listed."""
        del height
        pen, presence = self.pen, self.desk.mirror.presence
        others = presence.others
        body: list[Row] = []
        if not self.desk.mirror.link.live:
            body += pen.paragraph("Nobody knows while the link is not live.", width)
        elif not others:
            body += pen.paragraph("Nobody else is connected.", width)
        column = max((cell_width(row.title) for row in others), default=0)
        for row in others:
            body += self._rows(pen, row, min(column, width // 2), width)
        if presence.unlisted:
            more = f"{plural(presence.unlisted, 'more stream')}, not listed"
            body.append(((more, pen.palette.muted),))
        if presence.you:
            body += [EMPTY, *self._own(pen, width)]
        title = (("Operators", pen.palette.title),)
        count = ((plural(len(others), "other"), pen.palette.muted),)
        footer = (EMPTY, pen.keys(self.hints("leave")))
        return Page(title, count, tuple(body), footer)

    def _own(self, pen: Pen, width: int) -> list[Row]:
        """Say who one is here, and what one may not do."""
        me = self.desk.mirror.presence.me
        known = f", as {me.known_as}" if me and me.signed_in else ""
        rows: list[Row] = [((f"You are here too{known}.", pen.palette.muted),)]
        for _, why in me.refused if me else ():
            rows += pen.paragraph(f"Not for you: {why}.", width, pen.palette.waiting)
        return rows

    def _rows(self, pen: Pen, row: OperatorRow, column: int, width: int) -> list[Row]:
        palette = pen.palette
        name = pen.clip(row.title, column)
        blank = " " * (column - cell_width(name) + 2)
        since = f"since {clock_time(row.since)}" if row.since else ""
        face = _FACES.get(row.face, "listens to the events")
        stepup = self.desk.mirror.stepups.get(row.looking_at)
        found: list[Row] = [
            (
                (name + blank, palette.strong),
                (f"{face}  ", palette.text),
                (since, palette.muted),
            )
        ]
        if row.looking_at:
            what = f"{stepup.fingerprint} of {stepup.agent_name}" if stepup else "one"
            words = pen.clip(f"looks at step-up {what}", max(width - 2, 8))
            found.append((("  " + words, palette.waiting),))
        return found
