"""The part of the step-up dialog that approves by a security key at this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agentvault_tui.console.desk import Desk
from agentvault_tui.console.dialogs.base import Dialog
from agentvault_tui.console.widgets.line_input import LineInput
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.operator_api.requests import Factor, RepeatRequest
from agentvault_tui.operator_api.security_key import PIN_LENGTH
from agentvault_tui.presenters.lines import EMPTY, Pen, Row

Subject = tuple[str, str, RepeatRequest | None]
"""A step-up's id and digest, and the repeat that is approved with it."""

_LABEL: Final = "PIN of your security key       "
_ASKING: Final = "Asking the tenant for a challenge."
_LOOKING: Final = "Looking at the security key."
_TOUCH: Final = "Touch the security key: it approves exactly this."


class KeyPrompt:
    """Approve here by a person's security key.

    The PIN is only in the input, is sent only to the key, and is cleared then.
    """

    def __init__(self, dialog: Dialog[None], desk: Desk) -> None:
        self._dialog, self._desk = dialog, desk
        self.attached = False
        """Whether a key was attached at the last look."""
        self.stage = ""
        """The next step, in words; empty while no key is in use."""
        self.pin = LineInput("pin", 40, longest=PIN_LENGTH)
        self.pin.password = True
        self._typed: asyncio.Future[str] | None = None

    @property
    def open(self) -> bool:
        """Whether a key is in use."""
        return bool(self.stage)

    async def look(self) -> None:
        """Check whether a key is attached."""
        with suppress(AgentVaultError):
            self.attached = await self._desk.keys.attached()

    def begin(self, subject: Subject, then: Callable[[Factor], None]) -> None:
        """Have the key sign the tenant's challenge for a request.

        Args:
            subject: the request to approve.
            then: called with the assertion, which approves this request and no other.
        """
        # A worker of the dialog's: it ends with it, and the key is given up.
        self._show(_LOOKING)
        self._dialog.run_worker(self._run(subject, then), group="key", exclusive=True)

    def leave(self) -> None:
        """Stop using the key."""
        if self.open:
            self._dialog.workers.cancel_group(self._dialog, "key")
            self._show("")

    async def _run(self, subject: Subject, then: Callable[[Factor], None]) -> None:
        try:
            factor = await self._sign(subject)
        except AgentVaultError as error:
            self._show("")
            self._dialog.arm()
            shown = self._desk.mirror.intake.shown(error.diagnosis(), 300)
            self._dialog.say(f"Not done: {shown}")
        else:
            self._show("")
            then(factor)

    async def _sign(self, subject: Subject) -> Factor:
        keys = self._desk.keys
        pin = await self._ask_pin() if await keys.needs_pin() else ""
        self._show(_ASKING)
        wanted = await self._desk.link.key_challenge(*subject)
        self._show(_LOOKING)
        return Factor(passkey=await keys.sign(wanted, pin, self._touch))

    def _touch(self) -> None:
        if self.open:  # not of a key that was given up meanwhile
            self._show(_TOUCH)

    def _show(self, stage: str) -> None:
        self.stage = stage
        self._dialog.refresh_bindings()
        self._dialog.update_page()

    async def _ask_pin(self) -> str:
        self._typed = asyncio.get_running_loop().create_future()
        try:
            self._show(_LABEL)
            self.pin.focus()
            return await self._typed
        finally:
            self._typed, self.pin.value = None, ""
            self._dialog.set_focus(None)

    def take(self) -> None:
        """Take the typed PIN."""
        if self._typed is not None and not self._typed.done() and self.pin.value:
            self._typed.set_result(self.pin.value)

    def rows(
        self, pen: Pen, width: int, keys: list[Row]
    ) -> tuple[list[Row], dict[str, tuple[int, int]]]:
        """Write the key's next step, and return the input's place."""
        if self._typed is None:
            stage = pen.paragraph(self.stage, width, pen.palette.waiting)
            return [EMPTY, *stage, *keys], {}
        label: Row = ((_LABEL, pen.palette.text),)
        return [EMPTY, label, *keys], {"pin": (len(_LABEL), 1)}
