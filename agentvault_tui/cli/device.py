"""Prints a device code with its link and QR code (RFC 8628 section 3.3)."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.operator_api.calls import STATUS, AnswerT
from agentvault_tui.operator_api.stepups import DeviceInfo
from agentvault_tui.qr import draw, on_loopback, tunnel

if TYPE_CHECKING:
    from agentvault_tui.vault.device import DeviceFlow

POLL: Final = 0.5


def print_device(session: CliSession, device: DeviceInfo | DeviceFlow) -> None:
    """Print the link and code for the person's other device (RFC 8628 section 3.3)."""
    out, link, code = session.out, device.verification_uri, device.user_code
    local = on_loopback(link)
    out.line()
    if local and (command := tunnel(link, os.environ.get("SSH_CONNECTION", ""))):
        out.line("Where your browser is   ", out.cell(command, limit=500))
    where = "On this machine open    " if local else "On another device open  "
    out.line(where, out.cell(link, limit=500))
    out.line("and enter               ", out.cell(code, "strong"))
    if local:
        # Another terminal may not have this one's environment.
        chosen = session.home_option or os.environ.get("AGENTVAULT_HOME")
        home = f"--home {shlex.quote(str(session.home.data))} " if chosen else ""
        command = f"agentvault {home}tenant activate {code} --user NAME"
        if (script := session.home.demo_approve).exists():
            command = f"{shlex.quote(str(script))} {code}"
        out.line("or in another terminal  ", out.cell(command, limit=500))
    out.line()
    if not local:  # no other device can open it
        print_qr(out, device.verification_uri_complete or link)
    out.line(
        f"The code lives {int(device.expires_in)} s. "
        "If the page shows anything else than this, cancel there."
    )


def followed(
    session: CliSession, fetch: Callable[[], AnswerT], waits: Callable[[AnswerT], bool]
) -> AnswerT:
    """Return the result of *fetch* once it no longer *waits*.

    Warns a person whose code does not work now: the tenant is away.
    """
    opened = False
    while waits(answer := fetch()):
        away = session.client.call(STATUS).tenant.reachable is False
        if away and not opened:
            session.out.note("the tenant does not answer: waiting while the code lives")
        elif opened and not away:
            session.out.note("the tenant answers again")
        opened = away
        time.sleep(POLL)
    return answer


def print_qr(out: Output, text: str) -> None:
    """Draw *text* as a QR code, if it fits on the terminal."""
    if not out.terminal:
        return
    width = out.width if out.width is not None else sys.maxsize
    if code := draw(text, width, None, ascii_only=out.ascii_only):
        for row in code.lines():
            out.raw(row)
        out.line()
