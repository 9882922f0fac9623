"""The prompt of the step-up dialog: a one-time code, and the password if it is due."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from textual import events
from textual.widget import Widget

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.errors import AgentVaultError, FactorRefusedError
from agentvault_tui.operator_api.requests import Factor
from agentvault_tui.operator_api.sessions import DeskInfo
from agentvault_tui.presenters.lines import EMPTY, Pen, Row
from agentvault_tui.presenters.moments import clock_time
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.qr import on_loopback
from agentvault_tui.text import Shown, visible

_CODE: Final = re.compile(r"[0-9]{6}")
_STEP_S: Final = 30
"""Of one-time codes (RFC 6238 section 5.2)."""
_ENDS: Final = frozenset({"sign_in_needed", "passkey_needed"})
"""Refusals after which no code typed here helps."""
_LABEL: Final = "Code from your authenticator   "
_ALSO_LABEL: Final = "Password                       "
_RULED_OUT: Final = "High risk needs a passkey here ([stepup] passkey_only)."


def ways(desk: Desk, pages: str) -> tuple[str, str]:
    """Return the ways in place of a code, the one that is at hand first.

    Over SSH a browser of this machine is far away. A phone is at hand, if it reaches
    the tenant's *pages*.
    """
    phone = desk.ssh and pages and not on_loopback(pages)
    return ("device", "page") if phone else ("page", "device")


class CodeInput(LineInput):
    """Takes the digits of a one-time code, and leaves every other key to the dialog."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 8, longest=6)
        self.restrict = "[0-9]*"

    async def _on_key(self, event: events.Key) -> None:
        if event.is_printable and not (event.character or "").isdigit():
            event.prevent_default()  # the input's own handler, which would take it

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Check whether a key is for this input: a digit."""
        del key
        return character is not None and character.isdigit()


class DeskPrompt:
    """The typed factor of an approval here, and its person.

    The values are in the inputs alone, and are cleared once they were sent.
    """

    def __init__(self) -> None:
        self.info: DeskInfo | None = None
        """The person who signed in at this console; None without one, or at Auth0."""
        self.open = False
        self.sent = False
        """Whether the tenant has accepted the code, and the broker verifies it."""
        self.note = Shown("")
        self._wait_until: datetime | None = None
        self._password_due = False
        self.code = CodeInput("code")
        self.password = LineInput("password", 40, longest=256)
        self.password.password = True

    @property
    def inputs(self) -> list[Widget]:
        """The inputs that lie on the sheet."""
        return [self.password, self.code]

    def usable(self, row: StepUpRow) -> bool:
        """Check whether a one-time code can approve *row* here."""
        info = self.info
        return info is not None and not self.ruled_out(row)

    def ruled_out(self, row: StepUpRow) -> str:
        """Return why no one-time code approves *row*; empty if one does."""
        only = self.info is not None and self.info.passkey_only and row.risk == "high"
        return _RULED_OUT if only else ""

    def begin(self, now: datetime) -> LineInput:
        """Open the prompt; return the input to focus first."""
        info = self.info
        self.open, self.sent, self.note, self._wait_until = True, False, Shown(""), None
        due = info is None or now >= datetime.fromisoformat(info.fresh_until)
        self._password_due = self._password_due or due
        return self.first

    @property
    def first(self) -> LineInput:
        """The first input that is empty."""
        asks = self._password_due and not self.password.value
        return self.password if asks else self.code

    def take(self) -> Factor | LineInput:
        """Return the typed factor and forget it, or the incomplete input."""
        if self._password_due and not self.password.value:
            return self.password
        if not _CODE.fullmatch(self.code.value):
            self.note = Shown("Six digits.")
            return self.code
        password = self.password.value if self._password_due else ""
        factor = Factor(otp=self.code.value, password=password)
        self.code.value = ""
        return factor

    def stays(self, error: AgentVaultError, now: datetime) -> bool:
        """Note the factor that the tenant refused; return whether to ask again."""
        self._wait_until = None
        if not isinstance(error, FactorRefusedError) or error.factor in _ENDS:
            self.info = None
            return False
        if error.factor == "password_needed":
            self._password_due = True
        elif error.factor == "used_otp":
            left = _STEP_S - now.timestamp() % _STEP_S
            self._wait_until = now + timedelta(seconds=left)
        elif error.factor == "wrong_sign_in":
            self.password.value = ""
        self.note = visible(error.what, 200)
        return True

    def close(self) -> None:
        """Close the prompt, and forget the typed factor."""
        self.open = False
        self.note, self._wait_until = Shown(""), None
        self.code.value = self.password.value = ""

    # Drawing

    def rows(
        self, row: StepUpRow, pen: Pen, width: int, now: datetime, keys: list[Row]
    ) -> tuple[list[Row], dict[str, tuple[int, int]]]:
        """Write the prompt, and say at which of its rows each input is."""
        palette, info = pen.palette, self.info
        dot = f" {pen.glyphs.separator} "
        since = clock_time(datetime.fromisoformat(info.since)) if info else ""
        who = visible(info.name, 40) if info else "nobody"
        rows: list[Row] = [EMPTY]
        if note := self._note_now(now):
            rows += pen.paragraph(note, width, palette.waiting)
        you = f"{who}{dot}signed in {since}{dot}fingerprint {row.fingerprint}"
        rows.append(pen.fact("You are", (pen.clip(you, width - 12), palette.text)))
        places: dict[str, tuple[int, int]] = {}
        if self._password_due:
            places["password"] = (len(_ALSO_LABEL), len(rows))
            rows.append(((_ALSO_LABEL, palette.text),))
        places["code"] = (len(_LABEL), len(rows))
        grants = " " * 10 + "Enter approves exactly this"
        room = len(_LABEL) + len(grants) <= width
        rows.append(((_LABEL + (grants if room else ""), palette.text),))
        return [*rows, *keys], places

    def _note_now(self, now: datetime) -> str:
        if self._wait_until is None:
            return self.note
        left = (self._wait_until - now).total_seconds()
        if left <= 0:
            self._wait_until, self.note = None, Shown("")
            return ""
        return f"That code was used: wait for the next code (0:{int(left):02})."
