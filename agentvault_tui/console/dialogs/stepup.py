"""The step-up dialog: the request, the second factor, the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import ClassVar, Final, TypeAlias

from textual import on
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from agentvault_tui.console.desk import Desk, open_page, share_link
from agentvault_tui.console.dialogs.base import REQUEST_KEYS, Dialog, SheetPage
from agentvault_tui.console.dialogs.factor import factor, request_rows, under_wish
from agentvault_tui.console.dialogs.key_prompt import KeyPrompt
from agentvault_tui.console.dialogs.past_decisions import StepUpHistory
from agentvault_tui.console.dialogs.prompt import DeskPrompt, ways
from agentvault_tui.console.dialogs.stepup_reads import CallBody, ChangeLines
from agentvault_tui.console.draw.stepup_end import accepted, decided, typing
from agentvault_tui.console.messages import ShowAgent
from agentvault_tui.console.term.keyed import moves
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.errors import AgentVaultError, FactorRefusedError
from agentvault_tui.operator_api.requests import Factor, RepeatRequest
from agentvault_tui.presenters.lines import EMPTY, Pen, Row, cells
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.presenters.stepup_rows import (
    StepUpFacts,
    brief,
    head,
    head_end,
    in_full,
    whole,
)
from agentvault_tui.presenters.stepups import changes, read_repeat
from agentvault_tui.text import Shown

_Part: TypeAlias = StepUpHistory | ChangeLines | CallBody
_GONE: Final = "The broker lists this request no more: nothing can be decided here."
_REOPEN: Final = "Nothing is approved on it here: Esc, and open it as it is now."
_ASCII_CODE: Final = 112
"""The width of a QR code with modules of two cells."""


class StepUpDialog(Dialog[None]):
    """Decide one step-up, whatever other requests arrive meanwhile.

    Approving and denying act on the id and the digest captured here at the start
    (T-05, T-06); the broker refuses a digest that is not the stored one.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "approve", "approve, 2nd factor"),
        *REQUEST_KEYS,
        Binding("m", "repeat", "approve more like it"),
        Binding("p", "device", "on another device (QR)"),
        Binding("t", "key", "touch a security key"),
        Binding("o", "page", "open in the browser"),
        Binding("escape", "leave", "back"),
        *moves("scroll"),
    ]
    WIDTH: ClassVar[int] = 96

    def __init__(self, desk: Desk, stepup: StepUpRow, then: str = "") -> None:
        """Show *stepup*; *then* is the key that a list was left by, as its action."""
        self._then = then
        self.stepup_id = stepup.id
        self.digest = stepup.digest
        self.opened = self.row = stepup
        """As it was when this was opened, and the last that was heard of it."""
        self.history = StepUpHistory(desk, stepup)
        self.lines = ChangeLines(desk, stepup)
        self.body = CallBody(desk, stepup)
        self.viewing = False
        self.telling = False
        self.repeating = False
        """Whether it is being typed how often more it is approved."""
        self.prompt, self.key = DeskPrompt(), KeyPrompt(self, desk)
        self.pages = ""
        """Root of the tenant's pages, where a browser of ours can open them."""
        self._identity_due = False
        """Whether it is not known yet who is signed in at this console."""
        self._repeat: RepeatRequest | None = None
        """How often more the same is approved, as it was typed."""
        self._shown = {stepup.digest}
        """Digests of the request as shown here: alone, and with a repeat."""
        self._truncated = False
        self._viewed = False
        self._trusted = 0
        self._code_seen = desk.begun.get(stepup.id, desk.mirror.clock.now())
        self._asked_here = False
        super().__init__(desk)

    def inputs(self) -> list[Widget]:
        return [LineInput("reason", 56), *self.prompt.inputs, self.key.pin]

    @property
    def typing(self) -> bool:
        return self.telling or self.repeating

    def state(self) -> object:
        """Let keys wait after a change of stage or a new problem.

        The count is left out: otherwise an agent that repeats itself could prevent the
        keys from ever counting.
        """
        row, past = self._latest(), self.history.decisions.rows
        return (
            (row.status, row.problem, row.digest, changes(self.opened, row)),
            (
                self.viewing,
                (self.typing, self.prompt.open, self.prompt.sent, self.key.open),
                self.body.view and self.body.view.summary,
                self.lines.missing,
            ),
            past if past is None else tuple(each.id for each in past),
        )

    def changed(self) -> None:
        """Forget the note of the stage before; remember when things were first seen."""
        self.note = ""
        now = self.clock.now()
        if self.row.status == "authorizing" and not self.viewing:
            self._code_seen = self.desk.begun.get(self.stepup_id, now)
        if self.row.status != "pending" and self.repeating:
            self._stop_telling()
        if self.row.status == "pending":
            self.prompt.sent = False
        if not self.row.open:
            self.viewing = False
            self._stop_telling()
            self._close_prompt()
        self.refresh_bindings()

    def page(self, width: int, height: int) -> SheetPage:
        """Draw the stage the request is in, or all of it while it is viewed."""
        pen, row = self.pen, self.row
        facts = self._facts()
        footer, inputs = self._foot(facts, pen, width, height)
        room, about = height - len(footer), ""
        remark = head_end(row, pen, facts.now, sure=self.desk.mirror.link.live)
        if self.viewing:
            body, self._trusted = whole(facts, pen, width)
            about = in_full(self.sheet.top + 1, len(body), room)
        elif row.status == "authorizing" and not self._here:
            about = "verify it is you"
            shown = row.begun_at or self._code_seen
            times = (self.desk.begun.get(self.stepup_id), shown)
            # Without colour nobody can know what is dark on light: no code then.
            picture = not self.app.no_color
            size = (width, room)
            body = factor(facts, times, pen, size, self.desk, picture=picture)
            body = under_wish(body, facts, pen, width, room)
        elif row.open:
            body, about = request_rows(facts, pen, width, room, width - cells(remark))
        else:
            ours = self._asked_here or self.stepup_id in self.desk.begun
            elsewhere = self.opened.open and not ours
            body = decided(facts, pen, width, elsewhere=elsewhere)
        if not self.viewing:
            self.sheet.top = 0
        places = {"reason": (8, len(body) + len(footer) - 1)} if self.typing else {}
        places |= {one: (at, len(body) + line) for one, (at, line) in inputs.items()}
        title = head(row, pen, about, width - cells(remark))
        return SheetPage(title, remark, tuple(body), tuple(footer), places)

    def update_page(self) -> None:
        """Draw, and note when the last trusted fact has been on the screen."""
        parts: tuple[_Part, ...] = (self.history, self.body, self.lines)
        for part in parts:
            if self.is_attached and part.due():
                self._start(type(part).__name__, partial(self._read, part))
        super().update_page()
        end = self.sheet.top + self.sheet.room
        if self.viewing and not self.lines.missing and end >= self._trusted > 0:
            self._viewed = True

    def on_mount(self) -> None:
        if not self.desk.past:
            self.desk.link.look(self.stepup_id)
            if self.row.open and not self.desk.read_only:
                self._identity_due = True
                self._start("me", self._read_me)
            if self._then == "view":
                self.call_after_refresh(self.action_view)
            elif self._then == "reason":
                self.call_after_refresh(self._ask_line)

    def _start(self, group: str, work: Callable[[], Awaitable[None]]) -> None:
        # Not called here: what is cancelled before it starts was never made.
        self.run_worker(work, group=group, exclusive=True)

    def on_unmount(self) -> None:
        if not self.desk.past:
            self.desk.link.look(None)

    def foot(self) -> str:
        """Return who else has this open; a decision just taken comes first."""
        return super().foot() or self.desk.mirror.presence.openers(self.stepup_id)

    def room(self) -> tuple[int, int]:
        width, height = super().room()
        if self.desk.glyphs.ascii_only and self.row.status == "authorizing":
            width = min(_ASCII_CODE, max(self.app.size.width - 4, 20))
        return width, height

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the actions for the request's stage."""
        match action:
            case "agent":
                return not self.row.is_change
            case "approve":
                return self._may_ask()
            case "repeat":
                pending = self.row.status == "pending" and not self.row.is_change
                return pending and self._may_ask()
            case "key":
                ready = self.prompt.open or self._may_ask()
                return ready and self.key.attached and self.prompt.info is not None
            case "device":
                return self.prompt.open
            case "page":
                return bool(self.pages) and self.row.open and not self.typing
            case "deny" | "reason" | "view":
                return self.row.open and not self.typing
            case "scroll":
                return self.viewing
        return super().check_action(action, parameters)

    def copies(self) -> tuple[str, str]:
        """Copy the digest in view of all, else the link, else the id; no user code."""
        if self.viewing:
            return "digest", self.digest
        if self.row.device is not None:
            # Not the complete one: the code in it is for the approver's eyes.
            return "link", self.row.device.verification_uri
        return "change id" if self.row.is_change else "step-up id", self.stepup_id

    def _may_ask(self) -> bool:
        """Check whether the second factor can be asked for: no code of ours waits."""
        row, busy = self.row, self.typing or self._here
        waits = row.status == "pending" or (
            row.status == "authorizing"
            and (row.device is None or self.prompt.usable(row))
        )
        return waits and not self.body.lost and not busy

    def action_approve(self) -> None:
        """Ask for a one-time code here, where somebody signed in, or begin the flow.

        Until it is known whether somebody is, the key waits for the broker's answer.
        """
        if self._identity_due:
            if self.may_decide("approve") and self._may_begin():
                self._then = "approve"
                self.say("Asking the broker who is signed in here.")
        elif not self.prompt.usable(self.row):
            self._begin(None)
        elif self.may_decide("approve") and self._may_begin():
            self._open_prompt()

    @property
    def _here(self) -> bool:
        """Whether it is being approved at this terminal."""
        return self.prompt.open or self.prompt.sent or self.key.open

    def action_key(self) -> None:
        """Have the security key of this machine sign exactly the request shown."""
        if self.may_decide("approve") and self._may_begin():
            self._close_prompt()
            self.viewing = False
            subject = (self.stepup_id, self.digest, self._repeat)
            self.key.begin(subject, self._send)

    def action_device(self) -> None:
        """Begin the flow for another device, in place of the prompt."""
        if self.may_decide("approve"):
            self._close_prompt()
            self._begin(self._repeat)

    def _open_prompt(self) -> None:
        self.viewing = False
        first = self.prompt.begin(self.clock.now())
        self.refresh_bindings()
        self.update_page()
        first.focus()

    def _close_prompt(self) -> None:
        if self.prompt.open or self.key.open:
            self.prompt.close()
            self.key.leave()
            self.set_focus(None)
            self.refresh_bindings()

    def _send_code(self) -> None:
        """Approve by the typed code, exactly the request that is shown."""
        if not self.may_decide("approve") or self._says_altered():
            return
        factor = self.prompt.take()
        if isinstance(factor, LineInput):
            factor.focus()
            self.update_page()
            return
        self._send(factor)

    def _send(self, factor: Factor) -> None:
        """Approve by a factor that was given here, unless the request has changed."""
        if self._says_altered():
            return
        self.desk.begun.setdefault(self.stepup_id, self.clock.now())
        self._asked_here = True
        self.ask(lambda: self._approve(self._repeat, factor), self._accepted)

    def _accepted(self, answer: StepUpRow) -> None:
        self._close_prompt()
        self.prompt.sent = True
        self._heard(answer)

    def _failed(self, error: AgentVaultError) -> None:
        """Stay at the prompt where a factor was not accepted."""
        typed = isinstance(error, FactorRefusedError) and self.is_attached
        if typed and self.prompt.open and self.prompt.stays(error, self.clock.now()):
            self.update_page()
            self.prompt.first.focus()
            return
        self._close_prompt()
        super()._failed(error)

    def action_repeat(self) -> None:
        """Ask for the repeat to approve, and then for the second factor."""
        if self.may_decide("approve") and self._may_begin():
            self._ask_line(repeating=True)

    def _may_begin(self) -> bool:
        """Check that nothing changed and no truncated value is unread; else say so."""
        if self._says_altered():
            return False
        if self._truncated and not self._viewed:
            view = self.desk.key("view", "v")
            self.say(
                f"A value is cut here: press {view}, read to the end, then approve."
            )
            return False
        return True

    def _says_altered(self) -> bool:
        """Check whether this has changed since the dialog opened; say so."""
        if altered := self._altered():
            self.say("The request is not the one this was opened for. Go back.")
        return altered

    def _begin(self, repeat: RepeatRequest | None) -> None:
        if self.may_decide("approve") and self._may_begin():
            self.desk.begun[self.stepup_id] = self.clock.now()
            self.note = "Asking the tenant for a code."
            self._asked_here = True
            self._repeat = repeat
            self.ask(lambda: self._approve(repeat, None), self._begun)

    def _begun(self, answer: StepUpRow) -> None:
        """Ask for the code of a request with its repeat, once that is shown."""
        self._heard(answer)
        share_link(self.app, self.desk, answer.device)
        if self._repeat is not None and self.prompt.usable(self._latest()):
            self._open_prompt()

    def action_deny(self) -> None:
        if self.may_decide("revoke"):
            self.ask(lambda: self._deny(""), self._heard)

    def action_reason(self) -> None:
        if self.may_decide("revoke"):
            self._ask_line()

    def _ask_line(self, *, repeating: bool = False) -> None:
        self.telling, self.repeating = not repeating, repeating
        self.viewing = False
        self.update_page()
        self.sheet.query_one("#reason", LineInput).focus()

    def action_page(self) -> None:
        """Open the approval page in a browser here, or say how to reach it."""
        if self.may_decide("approve") and self._may_begin():
            self._close_prompt()
            self.desk.begun.setdefault(self.stepup_id, self.clock.now())
            if self.row.device is None:
                self.ask(lambda: self._approve(self._repeat, None), self._on_page)
            else:
                self._on_page(self.row)

    def _on_page(self, answer: StepUpRow) -> None:
        self._heard(answer)
        self.update_page()  # a new stage forgets the note of the one before
        link = f"{self.pages}approve/{self.stepup_id}"
        self.note = open_page(self.app, self.desk, link)
        self.update_page()

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        if event.input is self.prompt.password and not self.prompt.code.value:
            self.prompt.code.focus()
        elif self.key.open:
            self.key.take()
        elif self.prompt.open:
            self._send_code()
        elif self.repeating:
            wanted = read_repeat(event.value)
            if isinstance(wanted, str):
                self.say(wanted)
            elif self.may_decide("approve"):
                self._stop_telling()
                self._begin(wanted)
        elif self.may_decide("revoke"):
            reason = event.value
            self._stop_telling()
            self.ask(lambda: self._deny(reason), self._heard)

    @on(LineInput.Left)
    def _not_told(self, event: LineInput.Left) -> None:
        event.stop()
        self._stop_telling()
        self._close_prompt()
        self.update_page()

    def action_view(self) -> None:
        self.viewing = not self.viewing
        self.sheet.top = 0
        self.update_page()

    def action_agent(self) -> None:
        if self.row.open or self.armed:  # else the key was meant for something else
            self.app.post_message(ShowAgent(self.row.agent_id))

    def action_scroll(self, rows: int) -> None:
        self.sheet.scroll_body(rows)
        self.update_page()

    def wheel(self, rows: int) -> None:
        if self.viewing:
            self.action_scroll(3 * rows)

    def action_leave(self) -> None:
        """Take one step out; a flow under way goes on without the dialog."""
        if not self.row.open and not self.armed:
            return  # it ended by itself: the key was meant for something else
        if self.key.open:
            self._close_prompt()
        elif self.viewing:
            self.action_view()
        else:
            self.dismiss()

    # Inside

    async def _read_me(self) -> None:
        with suppress(AgentVaultError):  # then another device proves it
            me = await self.desk.link.me()
            self.prompt.info, self.pages = me.desk, me.page or ""
        self._identity_due = False
        if self._then == "approve" and self._may_ask() and self._may_begin():
            if self.prompt.usable(self.row):
                self._open_prompt()
            else:
                self._begin(None)
        self._then = ""
        if self.prompt.info is not None and not self.desk.ssh:
            await self.key.look()
        self.refresh_bindings()

    async def _approve(
        self, repeat: RepeatRequest | None, factor: Factor | None
    ) -> StepUpRow:
        answer = await self.desk.link.approve(
            self.stepup_id, self.digest, repeat, factor
        )
        if not changes(self.opened, answer):
            self._shown.add(answer.digest)  # with the repeat that was typed here
        return answer

    async def _read(self, part: _Part) -> None:
        await part.read()
        self._viewed = self._viewed and part is not self.lines
        self.refresh_bindings()
        self.update_page()

    async def _deny(self, reason: str) -> StepUpRow:
        self._asked_here = True
        row, cautions = await self.desk.link.deny(self.stepup_id, reason)
        self.caution(cautions)
        return row

    def _heard(self, answer: StepUpRow) -> None:
        """Take the broker's answer, unless the mirror has a later word already."""
        if answer.id == self.stepup_id and self._latest().open:
            self.row = answer
        self.note = ""

    def _latest(self) -> StepUpRow:
        """Return the request as last heard of; a snapshot may have left it out."""
        heard = self.desk.mirror.stepups.get(self.stepup_id)
        if heard is not None:
            self.row = heard
        return self.row

    def _facts(self) -> StepUpFacts:
        agent = self.desk.mirror.agents.get(self.row.agent_id)
        owner = agent.owner if agent else Shown("")
        earlier, now = self.history.decisions, self.clock.now()
        view, shown = self.body.view, self.lines.shown
        return StepUpFacts(self.row, owner, earlier, now, view, shown)

    def _altered(self) -> bool:
        """Check whether this has changed since the dialog opened."""
        row = self._latest()
        if self.body.foreign:
            return True
        return row.digest not in self._shown or bool(changes(self.opened, row))

    def _foot(
        self, facts: StepUpFacts, pen: Pen, width: int, height: int
    ) -> tuple[list[Row], dict[str, tuple[int, int]]]:
        """Write notes and keys; a truncated value is announced first."""
        if self.prompt.open or self.key.open:
            offered = (*ways(self.desk, self.pages), "key", "leave")
            keys = pen.key_rows(self.hints(*offered), width)
            if self.key.open:
                rows, inputs = self.key.rows(pen, width, keys)
            else:
                rows, inputs = self.prompt.rows(self.row, pen, width, facts.now, keys)
            notes = self._notes(pen, width)
            places = {name: (x, y + len(notes)) for name, (x, y) in inputs.items()}
            return [*notes, *rows], places
        return self._foot_of_keys(facts, pen, width, height), {}

    def _foot_of_keys(
        self, facts: StepUpFacts, pen: Pen, width: int, height: int
    ) -> list[Row]:
        keys = self._footer(pen, width)
        footer = [*self._notes(pen, width), *keys]
        if self.prompt.sent and self.row.open:
            return [*accepted(pen), *footer]
        if self.row.status != "pending" or self.viewing:
            return footer
        _, self._truncated = brief(facts, pen, width, height - len(footer))
        if len(footer) == len(keys) and self._truncated and not self._viewed:
            view, approve = self.desk.key("view", "v"), self.desk.key("approve", "a")
            note = (
                f"A value is cut here: {view} shows it whole, {approve} waits for it."
            )
            return [EMPTY, *pen.paragraph(note, width, pen.palette.waiting), *keys]
        return footer

    def _notes(self, pen: Pen, width: int) -> list[Row]:
        if self.note:
            return self.notes(pen, width)
        if not self.row.open:
            return []
        text = self.desk.refusal()
        if text is None and self.stepup_id not in self.desk.mirror.stepups:
            text = _GONE
        if text is None and self._altered():
            what = ", ".join(changes(self.opened, self.row))
            what = what or ("its body" if self.body.foreign else "digest")
            text = f"CHANGED since this was opened: {what}. {_REOPEN}"
        if text is None:
            return []
        return [EMPTY, *pen.paragraph(text, width, pen.palette.waiting)]

    def _footer(self, pen: Pen, width: int) -> list[Row]:
        if self.typing:
            return typing(self.row, pen, repeating=self.repeating)
        hints = self.hints("approve", "key", "deny", "reason", "view", "page", "leave")
        if self.viewing:
            keys = f"{self.desk.key('down', 'j')} {self.desk.key('up', 'k')}"
            hints = [*self.hints("approve", "deny", "leave"), (keys, "read on")]
        elif not self.row.open:
            hints = self.hints("agent", "leave")
        undecided = self.armed and not self.busy and self.desk.refusal() is None
        rows = pen.key_rows(hints, width, armed=undecided or not self.row.open)
        # On the second stage the QR code may need this row.
        return rows if self.row.status == "authorizing" else [EMPTY, *rows]

    def _stop_telling(self) -> None:
        if self.typing:
            self.telling = self.repeating = False
            self.sheet.query_one("#reason", LineInput).value = ""
            self.set_focus(None)
            self.refresh_bindings()
