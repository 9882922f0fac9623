"""The lines of each screen: its state, faults, waiting requests, and keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from agentvault_tui.clock import span
from agentvault_tui.console.desk import UNDO_KEY, offered_undo, undo_bar
from agentvault_tui.console.state.link_state import LinkState, LinkView
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.presence import listed
from agentvault_tui.console.widgets.pane import Painted, Pane
from agentvault_tui.presenters.lines import Piece, Row, cells, wrap
from agentvault_tui.presenters.moments import clock_time, countdown, plural
from agentvault_tui.presenters.records import StepUpRow, undelivered
from agentvault_tui.text import cell_width

_NOTICE: Final = timedelta(seconds=60)
_MOST: Final = 5
_LINES: Final = 2
_SPAN_S: Final = 10.0
_BEHIND_S: Final = 2.0
"""From so many seconds on the header says that the feed is behind."""


class Masthead(Pane):
    """One line of state, and below it a line for each thing that is wrong."""

    _most_lines = _LINES

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        banners = self.banners(width)
        if len(banners) >= height:  # each on one line, so that the worst all show
            banners = self.banners(width, lines=1)
        return [(self._state(width), None), *banners][:height]

    def wanted(self, width: int) -> int:
        return 1 + len(self.banners(width))

    def _state(self, width: int) -> Row:
        """Name the most important parts last to go when it gets narrow."""
        pen, p = self.pen, self.pen.palette
        mirror, status = self.mirror, self.mirror.status
        now = mirror.clock.now()
        agents = len(mirror.agents) - len(mirror.servers)
        tenant = "" if status.tenant.is_reachable else " unreachable"
        facts: list[tuple[int, Row]] = [
            (6, ((" AgentVault", p.accent + p.title),)),
            (
                3,
                (
                    (pen.clip(status.tenant.host or " ", 40), p.text),
                    (tenant, p.danger),
                ),
            ),
            (0, ((self.desk.label, p.panic),)),
            (0, self._link_state(mirror.link)),
            (1, (("read-only", p.waiting),) if self.desk.read_only else ()),
            (1, self._elsewhere()),
            (3, self._me()),
            (2, self._ledger()),
            (1, self._hidden()),
            (4, ((plural(agents, "agent"), p.text),) if mirror.loaded else ()),
            (5, self._pace() if mirror.loaded else ()),
            (4, self._others()),
        ]
        right: Row = ((clock_time(now) + " ", p.text),)
        facts = [(rank, row) for rank, row in facts if cells(row)]
        gap = "   " if width >= 100 else "  "

        def total() -> int:
            return sum(cells(row) + len(gap) for _, row in facts) + cells(right)

        while total() > width:
            least = max(facts, key=lambda fact: fact[0])
            if not least[0]:
                break
            facts.remove(least)
        left: list[Piece] = [] if facts[0][0] == 6 else [(" ", p.text)]
        for number, (_, row) in enumerate(facts):
            left += [(gap if number else "", p.text), *row]
        return pen.spread(tuple(left), right, width)

    def _pace(self) -> Row:
        p, pace = self.pen.palette, self.mirror.decisions()
        decisions = f" decision{'' if pace == 1 else 's'}/min"
        return (f"{pace:,}", p.text), (decisions, p.muted)

    def _link_state(self, link: LinkView) -> Row:
        g, p = self.pen.glyphs, self.pen.palette
        mark = g.live if link.live else g.lost
        styles = {LinkState.LIVE: p.accent, LinkState.LOST: p.danger}
        state: Row = (
            (f"{mark} {link.state.value}", styles.get(link.state, p.waiting)),
        )
        behind = self.mirror.behind_s()
        if behind < _BEHIND_S:
            return state
        long = span(behind) if behind >= _SPAN_S else f"{int(behind)} s"
        if link.state is LinkState.LOST:
            return (*state, (f" {long}", p.danger))
        return (*state, (f" feed {long} behind", p.waiting))

    def _hidden(self) -> Row:
        """Say how many rows of the feed are left out, and by which key they come."""
        feed = getattr(self.screen, "feed", None)
        if feed is None or not feed.notable:
            return ()
        p, key = self.pen.palette, self.desk.key("matters", "0")
        return (
            (f"{feed.routine:,} routine hidden ", p.waiting),
            (f"({key})", p.key),
        )

    def _elsewhere(self) -> Row:
        if not self.desk.elsewhere:
            return ()
        p, host = self.pen.palette, self.pen.clip(self.desk.elsewhere, 40)
        return (("at ", p.muted), (host, p.strong))

    def _me(self) -> Row:
        me, p = self.mirror.presence.me, self.pen.palette
        if me is None or not me.signed_in:
            return ()
        decides = p.waiting if me.refused else p.text
        return ((self.pen.clip(me.display_name, 30), decides),)

    def _others(self) -> Row:
        others = self.mirror.presence.colleagues
        if not others:
            return ()
        alone = len(others) == 1
        who = self.pen.clip(others[0].title, 24) if alone else f"{len(others)} others"
        return (("with ", self.pen.palette.muted), (who, self.pen.palette.text))

    def _ledger(self) -> Row:
        g, p, status = self.pen.glyphs, self.pen.palette, self.mirror.status
        if not self.mirror.loaded:
            return ()
        if status.ledger.fault:
            return (("ledger ", p.muted), (f"{g.failed} DOES NOT HOLD", p.danger))
        if not status.ledger.is_writable:
            return (("ledger ", p.muted), (f"{g.failed} CANNOT WRITE", p.danger))
        head = max(status.ledger.head, self.mirror.last_seq)
        broken = "ledger" in self.mirror.warnings
        mark = (g.failed, p.danger) if broken else (g.done, p.accent)
        brokers = sum(one.alive for one in status.brokers)
        of = f" of {brokers} brokers" if brokers else ""
        count = ((f" {head:,}", p.text), (f" event{'s' * (head != 1)}{of}", p.muted))
        return (("ledger ", p.muted), mark, *count)

    def banners(self, width: int, *, lines: int = _LINES) -> list[Painted]:
        """Return the faults, the worst first, each on at most so many *lines*."""
        mirror, self._most_lines = self.mirror, lines
        rows: list[Painted] = []
        if mirror.status.panic.on:
            rows += self._banner(self._panic(), width)
        if not mirror.status.ledger.is_writable:
            what = "DOES NOT HOLD" if mirror.status.ledger.fault else "CANNOT WRITE"
            text = (
                f"LEDGER {what}: nothing is issued; revoking still works."
                " What to do: agentvault doctor"
            )
            rows += self._banner(text, width)
        for notice in loosened(mirror):
            rows += self._notice(notice, width)
        for warning in mirror.warnings.values():
            rows += self._banner(warning, width)
        for notice in self._notices():
            rows += self._notice(notice, width)
        return rows[:_MOST]

    def _panic(self) -> str:
        panic = self.mirror.status.panic
        since = f" since {clock_time(panic.since)}" if panic.since else ""
        lifts = (
            "" if self.desk.read_only else f". {self.desk.key('panic', '!')} lifts it"
        )
        return f"PANIC: everything is stopped{since}{panic.cause}{lifts}"

    def _notices(self) -> list[str]:
        mirror, link = self.mirror, self.mirror.link
        notices: list[str] = []
        if link.state is LinkState.LOST:
            since = f" since {clock_time(link.since)}" if link.since else ""
            # A notice each: neither hides the command of the other.
            notices.append(f"LINK LOST{since}: {link.reason}")
            notices.append("Agents may still be served. From a shell: agentvault panic")
        elif link.state is LinkState.STALE:
            notices.append(f"STALE: {link.reason}. Decisions wait until it is read.")
        if not mirror.status.tenant.is_reachable:
            notices.append("The tenant cannot be reached: approving waits for it.")
        if notice := undelivered(mirror.status):
            notices.append(f"{notice}: {self.desk.key('alerts', 'N')} shows which")
        notices += mirror.status.warnings
        started = mirror.restarted_at
        if started and mirror.clock.now() - started < _NOTICE:
            notices.append(
                f"The broker restarted at {clock_time(started)};"
                " this console went on from the last event."
            )
        return notices

    def _banner(self, text: str, width: int) -> list[Painted]:
        style = self.pen.palette.panic
        rows = self._wrapped(text, width - 2)
        blanks = [" " * (width - 1 - cell_width(row)) for row in rows]
        return [
            (((f" {row}{blank}", style),), None)
            for row, blank in zip(rows, blanks, strict=True)
        ]

    def _notice(self, text: str, width: int) -> list[Painted]:
        style = self.pen.palette.waiting
        return [(((f" {row}", style),), None) for row in self._wrapped(text, width - 2)]

    def _wrapped(self, text: str, room: int) -> list[str]:
        """Break *text* into two lines at most."""
        pen, room = self.pen, max(room, 8)
        rows = wrap(pen.own(text), room)
        most = self._most_lines
        if len(rows) <= most:
            return rows
        return [*rows[: most - 1], pen.clip(" ".join(rows[most - 1 :]), room)]


def loosened(mirror: Mirror) -> list[str]:
    """Word the loosenings of the last minute on one line: the last, and how many."""
    rows = mirror.loosenings.recent()
    if not rows:
        return []
    many = f" ({len(rows)} in 60 s, this is the last)" if len(rows) > 1 else ""
    return [f"LOOSENED{many} {rows[-1].words}"]


_GAPS: Final = (3, 2)
"""Cells between two keys: the second where not all would fit."""
_COVERED: Final = (("Esc", "back"), ("^q", "quit"))


class KeyBar(Pane):
    """Shows the keys it is given, as many as fit; or that a restore can be undone."""

    keys: tuple[tuple[str, str], ...] = ()
    _stay: frozenset[str] | set[str] = frozenset()

    def show(self, keys: tuple[tuple[str, str], ...]) -> None:
        """Show these keys, the user's own in their place.

        Behind a dialog none of them works, and those that do are named instead.
        """
        if self.is_attached and self.screen not in self.app.screen_stack[-1:]:
            keys = _COVERED
        keys = tuple((self.key(label), words) for label, words in keys)
        self._stay = {self.key("!"), self.key("?")}
        if keys != self.keys:
            self.keys = keys
            self.paint()

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Draw whole keys only, as many as fit."""
        del height
        pen, undo = self.pen, offered_undo(self.desk)
        if undo is not None:
            now = self.mirror.clock.boot()
            row = (
                (" ", pen.palette.text),
                *undo_bar(pen, undo, now, self.desk.key("undo", UNDO_KEY)),
            )
            return [(pen.cut(row, width), None)]
        gap = next((n for n in _GAPS if self._fits(self.keys, n, width)), _GAPS[-1])
        # Panic never goes, nor the key that leads to all the others.
        keys = [key for key in self.keys if key[0] in self._stay]
        for number, key in enumerate(self.keys):
            place = sum(one in self.keys[:number] for one in keys)
            more = [*keys[:place], key, *keys[place:]]
            if key not in keys and self._fits(more, gap, width):
                keys = more
        row = pen.keys(keys, gap=gap)
        return [(((" ", pen.palette.text), *row), None)]

    def _fits(self, keys: Sequence[tuple[str, str]], gap: int, width: int) -> bool:
        return cells(self.pen.keys(keys, gap=gap)) <= width - 1


class StepUpBar(Pane):
    """The number of waiting requests, the age of the oldest, and its wish."""

    DEFAULT_CSS = """
    StepUpBar { background: $surface; }
    """

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        waiting = self.mirror.open_stepups()
        if not waiting:
            p = self.pen.palette
            mark = (self.pen.glyphs.cursor, p.muted)
            return [((mark, (" STEP-UP  none waiting", p.muted)), None)]
        if height == 1:
            return [(self._line(waiting, width), None)]
        rows = [self._first(row, width) for row in waiting[: height - 1]]
        head = self._head(waiting, waiting[height - 1 :], width)
        return [(head, None), *((row, None) for row in rows)]

    def _line(self, waiting: list[StepUpRow], width: int) -> Row:
        """Write both rows on one line."""
        p = self.pen.palette
        mark, *first = self._first(waiting[0], width - 28)
        key = (self.desk.key("step-ups", "s"), p.key)
        head: Row = (mark, (f" STEP-UP  {len(waiting)} waiting ", p.waiting))
        return self.pen.spread((*head, *first), (key, (" open ", p.text)), width)

    def _head(self, waiting: list[StepUpRow], more: list[StepUpRow], width: int) -> Row:
        """Count those that wait, and name the next of those that have no row."""
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        now = self.mirror.clock.now()
        right: Row = ((self.desk.key("step-ups", "s"), p.key), (" open ", p.text))
        rest = f"oldest {countdown(waiting[0].age(now))}"
        if more:
            following = min(more, key=lambda row: row.expires_at)
            much = following.gist or following.action
            left = countdown(following.remaining(now))
            rest = f"+{len(more)}: {following.agent_name}  {much}  {left}"
        start: Row = (
            (g.cursor, p.waiting),
            (" STEP-UP", p.waiting),
            (f"  {len(waiting)} waiting", p.strong),
        )
        room = width - cells(start) - cells(right) - 4
        text = f" {g.separator} {pen.clip(rest, room)}"
        return pen.spread((*start, (text, p.text)), right, width)

    def _first(self, row: StepUpRow, width: int) -> Row:
        pen, p, g = self.pen, self.pen.palette, self.pen.glyphs
        left = row.remaining(self.mirror.clock.now())
        ends = f"ends {countdown(left)}" + (" SOON" if left < 60 else "")
        if row.status == "authorizing":
            ends = f"verifying {g.separator} {ends}"
        if eyes := self.mirror.presence.looking(row.id):
            ends = f"{pen.clip(listed(eyes, 1), 24)} looks {g.separator} {ends}"
        start: Row = (
            (g.cursor, p.waiting),
            (f" {g.risk(row.risk)} ", p.risk(row.risk)),
            ("NO LIMITS " if row.unlimited else "", p.danger),
            (pen.clip(row.agent_name, max(width - 52, 28)), p.strong),
            (f"  {pen.clip(row.action, 28)}", p.text),
        )
        end: Row = ((ends + " ", p.waiting if left < 60 else p.text),)
        # A figure cut short is another figure: how much stands before where.
        much = f"  {pen.clip(row.gist, 40)}" if row.gist else ""
        room = min(width - cells(start) - cells(end) - cell_width(much) - 3, 60)
        place = row.why if row.is_change else row.resource
        where = f"  {pen.clip(place, room)}" if place and room > 3 else ""
        return pen.spread((*start, (much, p.strong), (where, p.muted)), end, width)
