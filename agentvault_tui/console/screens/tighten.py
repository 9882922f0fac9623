"""Unneeded permissions (advice), and the answers of another policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.amounts import render_spans
from agentvault_tui.clock import span
from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.advice import AdviceDialog
from agentvault_tui.console.dialogs.base import Dialog, SheetPage
from agentvault_tui.console.draw.layout import Box
from agentvault_tui.console.messages import ShowAudit
from agentvault_tui.console.screens.base import CALM, PolledScreen
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.console.widgets.pane import ListPane, Painted, Pane, RowT
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import AdviceInfo
from agentvault_tui.operator_api.calls import ApiCall
from agentvault_tui.operator_api.planning import PlanInfo, PlannedChangeInfo
from agentvault_tui.presenters.advice import change_texts, evidence_facts
from agentvault_tui.presenters.lines import EMPTY, LABEL, Row
from agentvault_tui.presenters.moments import minute, plural
from agentvault_tui.presenters.outcomes import answer_word
from agentvault_tui.presenters.records import AgentRow

_READING: Final = "reading the history"
_DAY: Final = 86_400
_WINDOWS: Final = (_DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY)
_LARGEST: Final = 256 * 1024
_FIELD: Final = 48
_NAME: Final = 18
_KIND: Final = 20


def _window_text(seconds: int) -> str:
    """Write a window: in days or whole minutes, which most are, or as a span."""
    if seconds >= _DAY:
        return plural(seconds // _DAY, "day")
    return span(seconds) if seconds % 60 else plural(seconds // 60, "minute")


class ReadPane(ListPane[RowT]):
    """A list under a title with the work under way, or the reason for no row."""

    def __init__(self, desk: Desk, name: str, title: str) -> None:
        super().__init__(desk, id=name)
        self.title_text = title

    def title(self) -> Row:
        room = max(self.size.width - len(self.title_text) - 2, 1)
        title = self.pen.clip(f"  {self.status_text}", room)
        return (*self.heading(self.title_text), (title, self.pen.palette.muted))


class ReadScreen(PolledScreen):
    """A screen of rows about events and agents, read from the broker."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "look", "look: the event that shows it, or the agent"),
    ]

    def action_look(self) -> None:
        """Show the subject of the row under the cursor."""
        raise NotImplementedError

    def show_event(self, seq: int) -> None:
        self.app.post_message(ShowAudit("", seq, full=True))

    def on_list_pane_moved(self) -> None:
        self.paint_all()

    def action_copy(self) -> None:
        self.copy_agent()


def _about(mirror: Mirror, one: AdviceInfo) -> str:
    return mirror.agent_name(one.agent_id) if one.agent_id else "the policy"


class AdvicePane(ReadPane[AdviceInfo]):
    """One row for each piece of advice."""

    def row(self, row: AdviceInfo, width: int) -> Row:
        """Draw kind, agent and scope of advice, and its effect in the history."""
        pen, p, shown = self.pen, self.pen.palette, self.mirror.intake.shown
        trial = row.status == "on_trial"
        what = "TRIAL" if trial else shown(row.kind.replace("_", " "))
        line = (
            (pen.column(what, _KIND), p.waiting if trial else p.accent),
            (pen.column(_about(self.mirror, row), _NAME), p.strong),
            (shown(row.scope), p.text),
        )
        seen = row.evidence
        counts = f"{plural(seen.count, 'use')}, would refuse"
        counts = f"{counts} {seen.would_have_refused:,}"
        if seen.prompts_saved:
            counts = f"would have spared {plural(seen.prompts_saved, 'prompt')}"
        return pen.spread(line, ((counts, p.muted),), width - 3)


class AdviceEvidencePane(Pane):
    """The history's evidence for the advice under the cursor."""

    def __init__(self, desk: Desk, advice: AdvicePane) -> None:
        super().__init__(desk, id="evidence")
        self._advice = advice

    def draw(self, width: int, height: int) -> Sequence[Painted]:
        """Write evidence and change."""
        if (one := self._advice.under_cursor) is None:
            return []
        pen, p, shown = self.pen, self.pen.palette, self.mirror.intake.shown
        rows = [
            row
            for label, text in evidence_facts(one.evidence)
            for row in pen.facts(label, shown(text, 300), width - 2, 2)[0]
        ]
        for what, text in change_texts(one.change):
            for number, line in enumerate(text.splitlines()):
                room = max(width - LABEL - 2, 8)
                line_shown = pen.clip(shown(line, 300), room), p.text
                rows.append(pen.fact("" if number else what, line_shown))
        return [(((" ", p.text), *row), None) for row in rows[:height]]


class AdviceScreen(ReadScreen):
    """Authority that agents do not need; trials come first."""

    EVERY: ClassVar[float] = 30.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "window", "another window of the history"),
        Binding("t", "take_away", "take it away, for a trial"),
        Binding("b", "give_back", "restore it"),
        Binding("d", "dismiss_advice", "dismiss: leave it as it is"),
    ]
    PANES = (AdvicePane,)
    SHOWS = "advice"

    def __init__(self, desk: Desk) -> None:
        self.list = AdvicePane(desk, "advice", "Advice")
        self.evidence = AdviceEvidencePane(desk, self.list)
        super().__init__(desk, self.list, self.evidence)
        self.window = 0
        """Seconds of the history that count as now; 0 for the broker's setting."""
        self.told_window = 0
        """The one that the advice is of."""
        self.list.status_text = _READING

    async def read(self) -> None:
        """Read the advice of the chosen window, and its length."""
        answer = await self.link.advice(self.window)
        self.told_window, over = answer.window, _window_text(answer.window)
        self.list.rows = {one.id: one for one in answer.advice}
        rate = answer.hit_rate
        self.list.status_text = (
            f"over {over}; {rate.applied:,} applied, {rate.given_back:,} given back"
            if self.list.rows or rate.applied
            else f"nothing to advise; what was granted within {over} is too new"
        )

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Give the evidence a third of the room."""
        boxes, head, room = self.header(width, height)
        low = min(room // 3, 10)
        if low > 2:
            boxes["evidence"] = Box(0, height - 1 - low, width, low)
            room -= low + 1
        return boxes | {"advice": Box(0, head, width, room)}

    @property
    def chosen(self) -> AgentRow | None:
        one = self.list.under_cursor
        return self.desk.mirror.agents.get(one.agent_id) if one else None

    def action_look(self) -> None:
        if (one := self.list.under_cursor) is None:
            return
        if one.evidence.refused:
            self.show_event(one.evidence.refused[0])
        elif one.agent_id:
            self.show_agent(one.agent_id)

    def show_keys(self) -> None:
        """Name the keys that do something to the advice at the cursor."""
        shown_keys = [("w", "window"), ("Esc", "back")]
        if (one := self.list.under_cursor) is not None:
            keys = [("t", "take away"), ("d", "dismiss")]
            if one.status == "on_trial":
                keys = [("b", "restore")]
            shown_keys = [
                ("Enter", "look"),
                *(keys if self.decides else ()),
                *shown_keys,
            ]
        self.hint(*shown_keys, *self.named("step-ups"))

    def action_window(self) -> None:
        """Go on to the next window; after the longest comes the broker's own."""
        longer = (one for one in _WINDOWS if one > self.window)
        self.window = next((one for one in longer if one != self.told_window), 0)
        self.list.status_text = _READING
        self.list.paint()
        self.read_anew()

    def action_take_away(self) -> None:
        self._ask("take away, for a trial of 7 days", "waiting", calls.APPLY_ADVICE)

    def action_give_back(self) -> None:
        self._ask("restore", "on_trial", calls.GIVE_BACK)

    def action_dismiss_advice(self) -> None:
        self._ask("dismiss", "waiting", calls.DISMISS_ADVICE)

    def _ask(self, word: str, status: str, call: ApiCall[AdviceInfo]) -> None:
        one = self.list.under_cursor
        if one is None or (one.status == "on_trial") != (status == "on_trial"):
            return
        about = _about(self.desk.mirror, one)
        dialog = AdviceDialog(self.desk, one, about, word, call)
        self.app.push_screen(dialog, lambda _: self.read_anew())


class ChangePane(ReadPane[PlannedChangeInfo]):
    """One row for decisions that another policy answers otherwise."""

    def take(self, changes: Sequence[PlannedChangeInfo]) -> None:
        self.rows = {
            f"{one.agent} {one.scope} {one.was} {one.to} {one.reason or ''}": one
            for one in changes
        }

    def row(self, row: PlannedChangeInfo, width: int) -> Row:
        """Draw the agent and scope of changed decisions, their number and answers."""
        pen, p, shown = self.pen, self.pen.palette, self.mirror.intake.shown
        name = pen.column(self.mirror.agent_name(row.agent), _NAME)
        scope = pen.column(shown(row.scope), max(width - _NAME - 40, 8))
        why = ": no scope" if row.reason else ""  # its token lacks it
        line = (
            (f"{row.count:>7,}  ", p.text),
            (name, p.strong),
            (scope, p.text),
            (
                f"{answer_word(row.was)} {pen.own('→')} {answer_word(row.to)}{why}",
                p.outcome(row.to),
            ),
            (f"  {shown(render_spans(row.amounts))}" if row.amounts else "", p.muted),
        )
        return pen.cut(line, width - 3)


class PolicyScreen(ReadScreen):
    """A candidate's answers, and the shadow policy's."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "candidate", "plan a file of rules"),
    ]
    PANES = (ChangePane,)
    SHOWS = "policy"

    def __init__(self, desk: Desk) -> None:
        self.planned = ChangePane(desk, "planned", "Plan")
        self.shadow = ChangePane(desk, "shadow", "Shadow")
        super().__init__(desk, self.shadow, self.planned)
        self.planned.status_text = "n names a file of rules to try against the history"
        self._candidate = ""
        """The plan to repeat as the history goes on."""
        self._planned_upto, self._plan_next = 0, 0.0

    async def read(self) -> None:
        """Read the shadow policy's counts; plan again if the history went on."""
        mirror = self.desk.mirror
        later = mirror.clock.boot() >= self._plan_next
        if self._candidate and later and mirror.last_seq > self._planned_upto:
            self._plan_anew()
        shadow = (await self.link.policy()).shadow
        if shadow is None:
            self.shadow.rows = {}
            self.shadow.status_text = "none: agentvault policy shadow FILE sets one"
            return
        self.shadow.status_text = mirror.intake.shown(
            f"{shadow.version} since {minute(shadow.since)}: {shadow.differences:,} of"
            f" {shadow.decisions:,} decisions would differ"
        )
        self.shadow.take(shadow.by)

    def plan(self, width: int, height: int) -> Mapping[str, Box]:
        """Put the shadow right below the plan, which has two thirds at most."""
        boxes, head, room = self.header(width, height)
        room = max(room, 2)
        wanted = len(self.planned.rows) + 2  # a title, and a blank row
        high = min(wanted, room - max(room // 3, 1))
        boxes["planned"] = Box(0, head, width, high)
        boxes["shadow"] = Box(0, head + high, width, room - high)
        return boxes

    @property
    def _here(self) -> PlannedChangeInfo | None:
        pane = self.focused if isinstance(self.focused, ChangePane) else self.planned
        return pane.under_cursor

    @property
    def chosen(self) -> AgentRow | None:
        one = self._here
        return self.desk.mirror.agents.get(one.agent) if one else None

    def action_look(self) -> None:
        if (one := self._here) and one.examples:
            self.show_event(one.examples[0])

    def show_keys(self) -> None:
        keys = [("n", "plan a file"), ("Esc", "back")]
        if self._here is not None:
            keys = [("Enter", "an example"), *keys]
        self.hint(*keys, *self.named("step-ups"), ("Tab", "next"))

    def action_candidate(self) -> None:
        """Ask for a file, and plan it."""

        def chosen(text: str | None) -> None:
            if text is not None:
                self._candidate, self.planned.status_text = text, _READING
                self._plan_anew()
                self.focus_on(self.planned)

        self.app.push_screen(CandidateDialog(self.desk), chosen)

    def _plan_anew(self) -> None:
        self._plan_next = float("inf")
        work: Callable[[], Awaitable[None]] = self._plan
        self.run_worker(work, group="plan", exclusive=True)

    async def _plan(self) -> None:
        mirror = self.desk.mirror
        began, self._planned_upto = mirror.clock.boot(), mirror.last_seq
        try:
            self._show_plan(await self.link.plan(self._candidate))
        except AgentVaultError as error:
            self.planned.status_text = mirror.intake.shown(error.diagnosis(), 200)
        now = mirror.clock.boot()
        self._plan_next = now + max(AdviceScreen.EVERY, CALM * (now - began))
        self.place()
        self.paint_all()

    def _show_plan(self, plan: PlanInfo) -> None:
        prompts = plan.prompts_per_day
        self.planned.take(plan.changes)
        changed = "" if plan.changes else "nothing would be otherwise; "
        self.planned.status_text = (
            f"{changed}{plan.decisions:,} decisions over {plan.days:.1f} days;"
            f" prompts a day {prompts.now:.1f} now, {prompts.then:.1f} then"
        )


class CandidateDialog(Dialog[str | None]):
    """Ask for a file of rules; returns its text."""

    WIDTH: ClassVar[int] = 72
    AUTO_FOCUS: ClassVar[str | None] = "#file"

    def inputs(self) -> list[Widget]:
        return [LineInput("file", _FIELD, longest=1000, empty="new.cedar")]

    def page(self, width: int, height: int) -> SheetPage:
        """Ask for the file, and word its use."""
        del height
        pen = self.pen
        text = "decides the recorded history; nothing is put in effect"
        body: list[Row] = [
            pen.fact("File"),
            EMPTY,
            *pen.facts("It", text, width, 2)[0],
            *self.notes(pen, width),
        ]
        title = (("Plan a policy", pen.palette.title),)
        footer = (EMPTY, pen.keys([("Enter", "plan"), ("Esc", "back")]))
        return SheetPage(title, (), tuple(body), footer, places={"file": (LABEL, 0)})

    @on(Input.Submitted)
    async def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            text = await asyncio.to_thread(_read, event.value)
        except (OSError, RuntimeError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.say(
                f"that file cannot be read: {self.desk.mirror.intake.shown(why, 80)}"
            )
            return
        self.dismiss(text)

    @on(LineInput.Left)
    def _left(self) -> None:
        self.dismiss()


def _read(name: str) -> str:
    path = Path(name.strip()).expanduser()
    if not path.is_file():
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("it is larger than 256 KiB")
    return content.decode("utf-8-sig")
