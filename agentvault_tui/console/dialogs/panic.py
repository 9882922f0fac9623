"""The panic switch: stopping everything, and lifting that."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime
from typing import ClassVar, Final

from textual import on
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.console.dialogs.base import SheetPage
from agentvault_tui.console.dialogs.confirm import CancelButton, Confirm, cautioned
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.presenters.lines import EMPTY, LABEL, Pen, Row
from agentvault_tui.presenters.moments import clock_time, plural
from agentvault_tui.presenters.revocations import Revoked

WORD: Final = "panic"
_ASK: Final = f"type {WORD}: "


class PanicDialog(Confirm[Revoked]):
    """Stop everything after the typed word and Enter; no single key does it.

    Enter counts wherever the focus is, except on Cancel. A reason may be typed before,
    or added afterwards, as a second event.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "add_reason", "add a reason", show=False)
    ]
    DANGER: ClassVar[bool] = True
    REASON: ClassVar[bool] = True
    UNDER_WAY: ClassVar[str] = "stopping"
    FIRST: ClassVar[str] = "word"

    def inputs(self) -> list[Widget]:
        return [
            LineInput("word", 12, longest=10, empty="_" * len(WORD)),
            LineInput("reason", 50, empty="none given"),
            CancelButton("cancel", "Cancel"),
        ]

    def heading(self, pen: Pen) -> Row:
        if self.finished:
            return (("Everything is stopped", pen.palette.title),)
        return (
            ("Stop everything", pen.palette.title),
            (" · NOT stopped yet", pen.palette.waiting),
        )

    def obstacle(self) -> str | None:
        if self.desk.mirror.status.panic.on:
            key = self.desk.key("panic", "!")
            return f"Everything is stopped already. {key} lifts it."
        return None

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Count the things that end now, and the time without service."""
        mirror, palette = self.desk.mirror, pen.palette
        tokens = sum(mirror.live_tokens(agent_id) for agent_id in mirror.agents)
        waiting = len(mirror.open_stepups())
        agents = mirror.population()
        calls = sum(not call.held for call in mirror.calls.values())
        flying = f", {plural(calls, 'call')} in flight" if calls else ""
        ends = f"{plural(tokens, 'token')}, {plural(waiting, 'step-up')}{flying}"
        ends = f"{ends} of {agents}"
        until = "it is lifted, no token is issued, active or redeemed"
        rows: list[Row] = [
            pen.fact("Ends now", (ends, palette.strong)),
            *pen.facts("Until", until, width, 3)[0],
            pen.fact("Not undone", ("completed actions of agents", palette.text)),
        ]
        return rows[:height]

    def page(self, width: int, height: int) -> SheetPage:
        """Add the inputs for the word and the reason; the reason's alone afterwards."""
        page = super().page(width, height)
        if self.finished and isinstance(self.focused, LineInput):
            pen = self.pen
            keys = pen.keys([("Enter", "records the reason"), ("Esc", "leaves it")])
            places = {"reason": (LABEL, len(page.body) + 1)}
            footer = (EMPTY, pen.fact("Reason"), EMPTY, keys)
            return replace(page, footer=footer, places=places)
        if self.finished:
            return page
        word = len(page.body) + 1
        places = {**page.places, "reason": (LABEL, word + 1)}
        places["word"] = (LABEL + len(_ASK), word)
        return replace(page, places=places)

    def _footer(self, pen: Pen, width: int) -> list[Row]:
        blank, reason, *rest = super()._footer(pen, width)
        ask: Row = pen.fact("To stop", (_ASK, pen.palette.text))
        return [blank, ask, reason, *rest]

    def answers(self, pen: Pen) -> Row:
        blank = (" " * 14, pen.palette.text)
        on_cancel = self.focused is not None and self.focused.id == "cancel"
        enter = "cancels, and stops nothing" if on_cancel else "stops everything"
        return (blank, *pen.keys([("Enter", enter), ("Tab", "next")]))

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        """Word the result and its speed."""
        ended = self.answer
        if ended is None:
            return []
        agents = self.desk.mirror.population()
        return [
            pen.stage("done", "closed here", ended.here),
            *cautioned(pen, ended, width),
            EMPTY,
            *pen.facts(
                "Ended", f"{ended.ended} of {agents}", width, 2, pen.palette.strong
            )[0],
            pen.fact("Reason", (self.reason() or "none given", pen.palette.text)),
            *self.notes(pen, width),
            EMPTY,
            *pen.paragraph(
                "Nothing is served until someone presses "
                f"{self.desk.key('panic', '!')} and lifts it. r adds a reason.",
                width,
            ),
        ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "add_reason":
            return self.finished
        return action != "confirm" and super().check_action(action, parameters)

    def action_add_reason(self) -> None:
        """Show the line for a reason, now that everything is stopped."""
        reason = self.sheet.query_one("#reason", LineInput)
        reason.display = True  # what is not on the sheet takes no focus
        reason.focus()
        self.update_page()

    def on_key(self, event: Key) -> None:
        """Take the first letter of the word also while Cancel has the focus."""
        at = self.focused.id if self.focused else ""
        if at == "cancel" and event.character == WORD[0] and not self.finished:
            word = self.sheet.query_one("#word", LineInput)
            word.focus()
            word.insert_text_at_cursor(WORD[0])
            event.stop()
            event.prevent_default()
            self.update_page()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        event.prevent_default()
        word = self.sheet.query_one("#word", LineInput)
        if self.finished:
            self.set_focus(None)
            if self.reason():
                self.ask(self.act, self.reason_added)
        elif word.value.strip() != WORD:
            word.focus()
            self.say(f"Nothing was done: the word is {WORD}.")
        else:
            self.action_confirm()

    @on(LineInput.Left)
    def _left(self, event: LineInput.Left) -> None:
        event.stop()
        event.prevent_default()
        if self.finished:
            self.set_focus(None)
            self.update_page()
        else:
            self.dismiss()

    def reason_added(self, _: Revoked) -> None:
        """Say that the reason is on the record."""
        self.say("The reason is recorded.")

    def act(self) -> Awaitable[Revoked]:
        return self.desk.link.panic(self.reason())


class LiftDialog(Confirm[float]):
    """Lift the panic: show which agents are served again and which stay revoked."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "confirm", "lift")]
    NEED: ClassVar[str] = "restore"
    UNDER_WAY: ClassVar[str] = "lifting"
    _lifted_since: datetime | None = None
    """Since when the panic was on that this lifted."""

    def heading(self, pen: Pen) -> Row:
        if self.finished and self._is_on_again():
            return (("Panic is on again", pen.palette.panic),)
        word = "Panic lifted" if self.finished else "Lift the panic"
        return ((word, pen.palette.title),)

    def _is_on_again(self) -> bool:
        """Check whether somebody stopped everything after this lifted the panic."""
        panic = self.desk.mirror.status.panic
        return panic.on and panic.since != self._lifted_since

    def obstacle(self) -> str | None:
        if self.desk.mirror.status.panic.on:
            return None
        return "The panic switch is off: there is nothing to lift."

    def plan(self, pen: Pen, width: int, height: int) -> list[Row]:
        """Word the panic: since when, by whom, why, and the consequences."""
        panic, palette = self.desk.mirror.status.panic, pen.palette
        agents = self.desk.mirror.agents.values()
        revoked = sum(agent.revoked for agent in agents)
        rows: list[Row] = []
        if panic.since:
            since = f"{panic.since:%Y-%m-%d} {clock_time(panic.since)}"
            rows.append(pen.fact("Since", (since, palette.text)))
        rows.append(pen.fact("By", (panic.by or "unknown", palette.text)))
        why, _ = pen.facts("Reason", panic.reason or "none given", width, height - 6)
        stays = "tokens and step-ups"
        if revoked:
            stays += f", and {plural(revoked, 'agent')} revoked singly"
        served = plural(len(agents) - revoked, "agent")
        return [
            *rows,
            *why,
            pen.fact("Serves", (f"{served} again", palette.strong)),
            *pen.facts("Stays ended", stays, width, 2)[0],
        ]

    def outcome(self, pen: Pen, width: int) -> list[Row]:
        rows = [pen.stage("done", "lifted", f"{self.answer or 0.0:.1f} ms"), EMPTY]
        text = "Agents have to ask for new tokens."
        if self._is_on_again():
            text = f"Stopped again, by {self.desk.mirror.status.panic.by or 'unknown'}."
        return [*rows, *pen.paragraph(text, width)]

    def act(self) -> Awaitable[float]:
        self._lifted_since = self.desk.mirror.status.panic.since
        return self.desk.link.lift()
