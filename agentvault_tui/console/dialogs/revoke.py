"""Cutting an agent off: exactly what ends now, and what nothing undoes."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.confirm import Confirm, cautioned
from agentvault_tui.console.dialogs.stepup_factor import stage
from agentvault_tui.console.draw.agentwords import ends, waits
from agentvault_tui.console.draw.lines import EMPTY, Pen, Row, clock_time, plural
from agentvault_tui.console.draw.tenantwords import at_providers, counting, left, state
from agentvault_tui.console.state.actions import Revoked
from agentvault_tui.console.state.records import AgentRow, UpstreamStep

_WAITING = 3
"""Requests that would be cancelled, named one by one; an agent may have no more."""
_STATES = {"confirmed": "done", "failed": "failed", "left": "ahead"}
"""Marks of steps that are over."""


class RevokeDialog(Confirm):
    """`y` revokes the agent this was opened for; nothing else does."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "revoke")]
    DANGER: ClassVar[bool] = True
    REASON: ClassVar[bool] = True
    UNDER_WAY: ClassVar[str] = "revoking"

    def __init__(self, desk: Desk, agent: AgentRow) -> None:
        self.agent = agent
        self.cut: Revoked | None = None
        super().__init__(desk)

    def heading(self, pen: Pen) -> Row:
        """Name the agent."""
        word = "Revoked  " if self.finished else "Revoke  "
        if self.finished and not self._row.revoked:
            word = "Revoked, then restored  "
        return ((word, pen.palette.title), (self.agent.name, pen.palette.strong))

    @property
    def _row(self) -> AgentRow:
        """The agent as it stands now."""
        return self.desk.mirror.agents.get(self.agent.id, self.agent)

    def obstacle(self) -> str | None:
        """Tell that it is revoked already."""
        if self._row.revoked:
            key = self.desk.key("restore", "u")
            return f"It is revoked already: nothing is left to cut. {key} restores it."
        return None

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Say what is cut now, what happens at the tenant, and what is not undone."""
        mirror, palette = self.desk.mirror, pen.palette
        dot = f" {pen.glyphs.separator} "
        waiting = mirror.open_stepups(self.agent.id)
        who = (f"{self.agent.id}{dot}{self.agent.owner}", palette.text)
        rows: list[Row] = [
            pen.fact("Agent", who),
            pen.fact("Cuts now", (ends(mirror, self.agent), palette.strong)),
            *(waits(pen, row, self.clock.now(), width) for row in waiting[:_WAITING]),
            pen.fact("", ("and refuses whatever it asks from then on", palette.text)),
            *self._at_tenant(pen, width),
        ]
        return [*rows, *self._not_undone(pen, width, height - len(rows))]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Say what was cut, how fast, and how far the tenant is."""
        cut = self.cut
        if cut is None:
            return []
        cuts = f"{plural(cut.tokens, 'token')}, {plural(cut.stepups, 'step-up')}"
        here = f"{cut.effective_ms:.1f} ms"
        row = self._row
        known = [s for s in row.upstream or cut.upstream if s.status != "withdrawn"]
        steps = [_upstream(pen, step) for step in known]
        answered = f"{cuts}, answered after {cut.round_trip_ms:.1f} ms"
        return [
            stage(pen, "done", "closed here", here),
            *(steps or [stage(pen, "done", "tenant", "holds nothing of it")]),
            *cautioned(pen, cut, width),
            EMPTY,
            pen.fact("Cut", (answered, pen.palette.strong)),
            *_not_done(pen, known, width),
            *left(pen, row, width),
            *(counting(pen, row, self.clock.now(), width) or [_nothing_outside(pen)]),
            EMPTY,
            *pen.paragraph(self._now(row), width),
        ]

    def _now(self, row: AgentRow) -> str:
        """Say what becomes of its next request, also when it was restored since."""
        if not row.revoked:
            return (
                "It was restored since, and is served: what it asks for now is decided "
                "as before. What was cut stays cut."
            )
        key = self.desk.key("restore", "u")
        return (
            f"Its next request is refused. {key} serves it again; "
            "what was cut stays cut."
        )

    def act(self, reason: str) -> Awaitable[Revoked]:
        """Revoke the agent."""
        return self.desk.actions.revoke(self.agent.id, reason)

    def happened(self, answer: object) -> None:
        """Keep the measure."""
        if isinstance(answer, Revoked):
            self.cut = answer

    def _at_tenant(self, pen: Pen, width: int) -> list[Row]:
        """Say what it loses there, who shares it, and what nobody can end."""
        agent, palette = self._row, pen.palette
        if not agent.at_tenant and not agent.connections:
            held = ("nothing: it holds nothing there", palette.text)
            return [pen.fact("At tenant", held)]
        told = [f"ends {', '.join(agent.at_tenant)}"] if agent.at_tenant else []
        if not agent.connections:
            return pen.facts("At tenant", told[0], width, 2)[0]
        accounts = plural(len(agent.connections), "account")
        told.append(f"{accounts}: {', '.join(agent.connections)}")
        named = "; ".join(told)
        shared = (
            f"none: what it shares with {', '.join(agent.shared_with)} stays"
            if agent.shared_with
            else "none share its accounts"
        )
        rows = pen.facts("At tenant", named, width, 2)[0]
        if agent.shared_with or not any(one.may_cut for one in agent.at_providers):
            rows += pen.facts("Affects too", shared, width, 2)[0]
        rows += at_providers(pen, agent, width)
        ends = agent.outside_until
        if ends is not None and ends > self.clock.now():
            text = f"a provider's token works until {clock_time(ends)}"
            rows.append(pen.fact("Outside", (text, palette.danger)))
        return rows

    def _not_undone(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Write what the catalogue says of each scope, the riskiest first."""
        rows: list[Row] = []
        label = "Not undone"
        for number, scope in enumerate(self.agent.scopes):
            left = len(self.agent.scopes) - number
            text, _ = pen.facts(
                label,
                f"{scope.name}: {scope.revoking or 'the catalogue says nothing'}",
                width,
                3,
            )
            if len(rows) + len(text) + (left > 1) > height:
                more = f"and {plural(left, 'scope')} more"
                rows.append(pen.fact(label, (more, pen.palette.muted)))
                break
            rows += text
            label = ""
        return rows or [pen.fact(label, ("it has no scopes", pen.palette.muted))]


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


def _nothing_outside(pen: Pen) -> Row:
    return pen.fact("Outside", ("no token handed out works any more", pen.palette.text))


def _upstream(pen: Pen, step: UpstreamStep) -> Row:
    mark = _STATES.get(step.status, "current")
    return stage(pen, mark, pen.clip(step.ends, 30), state(step))
