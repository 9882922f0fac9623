"""Revoking an agent, restoring it, and taking a restore back."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import (
    UNDO_KEY,
    Desk,
    Undo,
    offer_undo,
    offered_undo,
    take_back,
    undo_bar,
)
from agentvault_tui.console.dialogs.confirm import Confirm, cautioned
from agentvault_tui.console.draw.agent import context
from agentvault_tui.console.draw.delegation import tree_rows
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.presenters.agent import ends, waits
from agentvault_tui.presenters.lines import EMPTY, Pen, Row
from agentvault_tui.presenters.moments import clock_time, plural
from agentvault_tui.presenters.records import AgentRow, TreeRow, UpstreamStep
from agentvault_tui.presenters.revocations import (
    NOTHING_WORKS,
    Revoked,
    caution,
    consequences,
    state,
)
from agentvault_tui.presenters.upstream import counting, left

_WAITING = 3
"""Requests that would be cancelled, named one by one; an agent may have no more."""
_STATES = {"confirmed": "done", "failed": "failed", "left": "ahead"}
"""Marks of steps that are over."""


class RevokeDialog(Confirm[Revoked]):
    """Revoke the agent this was opened for, on `y` alone."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "revoke")]
    DANGER: ClassVar[bool] = True
    REASON: ClassVar[bool] = True
    UNDER_WAY: ClassVar[str] = "revoking"

    def __init__(self, desk: Desk, agent: AgentRow) -> None:
        self.agent = agent
        self.below: tuple[TreeRow, ...] = ()
        """Its tokens that were delegated, and all below them."""
        super().__init__(desk)

    def on_mount(self) -> None:
        super().on_mount()
        if not self.desk.past:
            read: Callable[[], Awaitable[None]] = self._read_tree
            self.run_worker(read, group="tree", exclusive=True)

    async def _read_tree(self) -> None:
        with contextlib.suppress(AgentVaultError):  # the last known number is shown
            self.below = await self.desk.link.tree(self.agent.id)
            self.update_page()

    def heading(self, pen: Pen) -> Row:
        word = "Revoked  " if self.finished else "Revoke  "
        if self.finished and not self._row.revoked:
            word = "Revoked, then restored  "
        return ((word, pen.palette.title), (self.agent.name, pen.palette.strong))

    @property
    def _row(self) -> AgentRow:
        return self.desk.mirror.agents.get(self.agent.id, self.agent)

    def obstacle(self) -> str | None:
        if self._row.revoked:
            key = self.desk.key("restore", "u")
            return f"It is revoked already: nothing is left to cut. {key} restores it."
        return None

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the rights that end, that stay and that work for a time, each once."""
        mirror, now = self.desk.mirror, self.clock.now()
        dot = f" {pen.glyphs.separator} "
        who = (f"{self.agent.id}{dot}{self.agent.owner}", pen.palette.text)
        separated, cuts = mirror.status.stale is True, ends(context(mirror, self.agent))
        row, grants = self._row, self.desk.mirror.intake.grants(self._row)
        effects = consequences(row, grants, cuts, now, separated=separated)
        here, *elsewhere = _section(pen, "Ends", effects.ends, width, height)
        waiting = mirror.open_stepups(self.agent.id)[:_WAITING]
        named = [waits(pen, row, now, width) for row in waiting]
        rows: list[Row] = [pen.fact("Agent", who), here, *named]
        # The row counts what was delegated when it was read; the tree is of now.
        own = (one.below for one in self.below if one.agent.id == self.agent.id)
        if below := max(self._row.delegated_below, sum(own)):
            text = f"{plural(below, 'token')} of other agents, delegated from these"
            rows.append(pen.fact("", (text, pen.palette.waiting)))
            most = max(height // 3, 2)
            rows += tree_rows(pen, self.below, now, width, most)
        rows += elsewhere
        over = effects.works_until == [NOTHING_WORKS]
        label = "Still works" if over else "Works until"
        until = _section(pen, label, effects.works_until, width, height)
        room = height - len(rows) - len(until)
        return [*rows, *_section(pen, "Stays", effects.stays, width, room), *until]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Word the results here, at the tenant and at providers, and the failures."""
        ended = self.answer
        if ended is None:
            return []
        row = self._row
        pending_steps = [
            s for s in row.upstream or ended.upstream if s.status != "withdrawn"
        ]
        steps = [_upstream(pen, step) for step in pending_steps]
        answered = f"{ended.ended}, answered in {ended.round_trip_ms:.1f} ms"
        return [
            pen.stage("done", "closed here", ended.here),
            *(steps or [pen.stage("done", "tenant", "holds nothing of it")]),
            *cautioned(pen, ended, width),
            EMPTY,
            *pen.facts("Ended", answered, width, 2, pen.palette.strong)[0],
            *_not_done(pen, pending_steps, width),
            *left(pen, row, width),
            *(counting(pen, row, self.clock.now(), width) or _outside(pen, ended)),
            EMPTY,
            *pen.paragraph(self._now(row, ended), width),
        ]

    def _now(self, row: AgentRow, ended: Revoked) -> str:
        """Word the effect on its next request, also when it was restored since."""
        if not row.revoked:
            return (
                "It was restored since, and is served: what it asks for now is decided "
                "as before. Ended tokens and step-ups do not come back."
            )
        key = self.desk.key("restore", "u")
        where = "" if ended.everywhere else " at this broker"
        return (
            f"Its next request{where} is refused. {key} restores it; "
            "ended tokens do not come back."
        )

    def act(self) -> Awaitable[Revoked]:
        return self.desk.link.revoke(self.agent.id, self.reason())


def _section(
    pen: Pen, label: str, texts: list[str], width: int, most: int
) -> list[Row]:
    """Write texts under one label, over at most *most* rows, and count the rest."""
    rows: list[Row] = []
    for number, text in enumerate(texts):
        written, _ = pen.facts("" if rows else label, text, width, 3)
        left = len(texts) - number
        if len(rows) + len(written) + (left > 1) > most:
            more = (f"and {left} more", pen.palette.muted)
            return [*rows, pen.fact("" if rows else label, more)]
        rows += written
    return rows or [pen.fact(label, ("nothing", pen.palette.muted))]


def _not_done(pen: Pen, steps: Iterable[UpstreamStep], width: int) -> list[Row]:
    """Say once why steps were given up: of several, often for one reason."""
    problems = dict.fromkeys(
        step.problem
        for step in steps
        if step.problem and (step.status == "failed" or step.reason)
    )
    rows: list[Row] = []
    for problem in list(problems)[:_WAITING]:
        label = "" if rows else "Not done"
        rows += pen.facts(label, problem, width, 2, pen.palette.waiting)[0]
    return rows


def _outside(pen: Pen, ended: Revoked) -> list[Row]:
    if not ended.everywhere:
        text = ("at the brokers named above", pen.palette.waiting)
    else:
        text = ("nothing: all its tokens have ended", pen.palette.text)
    return [pen.fact("Still works", text)]


def _upstream(pen: Pen, step: UpstreamStep) -> Row:
    mark = _STATES.get(step.status, "current")
    return pen.stage(mark, pen.clip(step.ends, 30), state(step))


class RestoreDialog(Confirm[float]):
    """Restore an agent; tokens and step-ups that were revoked stay revoked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "restore"),
        Binding("z", "undo", "undo: revoke it again"),
    ]
    NEED: ClassVar[str] = "own"
    UNDER_WAY: ClassVar[str] = "restoring"

    def __init__(self, desk: Desk, agent: AgentRow) -> None:
        self.agent = agent
        self._since = 0
        self.cut: Revoked | None = None
        """Set once the restore was taken back."""
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        word = "Restored  " if self.finished else "Restore  "
        if self.cut is not None:
            word = "Revoked again  "
        return ((word, pen.palette.title), (self.agent.name, pen.palette.strong))

    def obstacle(self) -> str | None:
        agent = self.desk.mirror.agents.get(self.agent.id, self.agent)
        if not agent.revoked:
            return "It is served: there is nothing to restore."
        if agent.until is not None and agent.until <= self.clock.now():
            return (
                "Its time is over. To serve it again, give it a new one: "
                f"agentvault agents restore {agent.id} --until TIME"
            )
        origin = self.desk.mirror.agents.get(agent.from_template or "")
        if origin is not None and origin.revoked:
            return f"Its template {origin.name} is revoked: restore that first."
        return None

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the agent's permissions after it, and the tokens that stay revoked."""
        agent, palette = self.agent, pen.palette
        dot = f" {pen.glyphs.separator} "
        rows: list[Row] = [
            pen.fact("Agent", (f"{agent.id}{dot}{agent.owner}", palette.text))
        ]
        if agent.revoked_at:
            since = f"{agent.revoked_at:%Y-%m-%d} {clock_time(agent.revoked_at)}"
            rows.append(pen.fact("Revoked", (since, palette.text)))
        grants = self.desk.mirror.intake.grants(agent)
        scopes = ", ".join(scope.name for scope in grants) or "nothing"
        may, _ = pen.facts("May again", scopes, width, max(height - 4, 1))
        stays = ("tokens and step-ups", palette.text)
        return [*rows, *may, pen.fact("Stays ended", stays)]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Word the restore and offer the undo, or the result of that."""
        if (ended := self.cut) is not None:
            return [
                pen.stage("done", "closed here", ended.here),
                *cautioned(pen, ended, width),
                EMPTY,
                *pen.facts("Ended", ended.ended, width, 2, pen.palette.strong)[0],
            ]
        took = "" if self.answer is None else f"{self.answer:.1f} ms"
        rows = [pen.stage("done", "served again", took), EMPTY]
        rows += pen.paragraph("It has to ask for new tokens.", width)
        undo = self._undo
        if self.busy:
            rows += [EMPTY, pen.stage("current", "revoking again", "")]
        elif undo is not None:
            key = next((key for key, _ in self.hints("undo")), UNDO_KEY)
            rows += [EMPTY, pen.cut(undo_bar(pen, undo, self.clock.boot(), key), width)]
        if words := (undo and self.desk.refusal("revoke")) or self.note:
            rows += [EMPTY, *pen.paragraph(words, width, pen.palette.waiting)]
        return rows

    def act(self) -> Awaitable[float]:
        self._since = self.desk.mirror.last_seq
        return self.desk.link.restore(self.agent.id)

    def done(self, answer: float) -> None:
        offer_undo(self.desk, self.agent, self._since)
        super().done(answer)

    # Taking it back

    def state(self) -> object:
        """Let keys wait after it has happened, and after it was taken back."""
        return self.finished, self.cut is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "undo" and self._undo is not None:
            return True
        return super().check_action(action, parameters)

    @property
    def _undo(self) -> Undo | None:
        undo = offered_undo(self.desk) if self.answer is not None else None
        return undo if undo and undo.agent_id == self.agent.id else None

    def action_undo(self) -> None:
        undo = self._undo
        if undo is None:
            super().action_undo()
        elif self.may_decide("revoke"):
            self.ask(lambda: take_back(self.desk, undo), self._taken_back)

    def _taken_back(self, result: Revoked) -> None:
        self.cut = result
        if not self.is_attached:
            ended = f"{self.agent.name} revoked again"
            text = f"{ended}, closed here {result.here}"
            self.app.notify(". ".join((text, *caution(result))), markup=False)
