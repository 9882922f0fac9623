"""The demo's approver: a user of the embedded tenant, with a phone or without one.

Approving takes a second factor, in the demo as anywhere. Two ways, both real:

* With a phone: before the console opens, a QR code puts the approver's seed into any
  authenticator app. In the console `s`, Enter, `a`; open the link the console shows,
  and sign in with the password and the phone's code.
* Without one: in a second terminal, ``HOME/demo/approve``. It finds the code that the
  console is showing, works out the current one-time code from the seed in a 0600 file,
  and runs ``agentvault tenant activate``, which shows the approval's content and asks.

The second way shows the flow, not the protection: a reader of this home has both
factors. Outside a demo nothing writes a seed or a password to disk in clear.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pyotp

from agentvault_tui.clock import Clock
from agentvault_tui.demo.processes import AGENTVAULT, ask, write_private
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    UnreachableError,
    UsageError,
)

NAME: Final = "demo-approver"
_STEP: Final = 30
"""Seconds one code counts for (RFC 6238 section 5.2)."""


@dataclass(frozen=True, slots=True)
class Approver:
    """The user who approves in the demo, and where their factors lie."""

    folder: Path
    otp_secret: str = field(repr=False)
    otpauth_uri: str = field(repr=False)

    @property
    def password_file(self) -> Path:
        """The password's file, 0600."""
        return self.folder / "password"

    @property
    def script(self) -> Path:
        """The script that approves."""
        return self.folder / "approve"


async def prepare(home: Path) -> Approver:
    """Create or load the approver of *home*."""
    folder = home / "demo"
    if not (folder / "approver.json").exists():
        user = await ask(home, "tenant", "user", "add", NAME, "--approver")
        write_private(folder / "password", f"{user['password']}\n")
        credentials = {key: user[key] for key in ("otp_secret", "otpauth_uri")}
        write_private(folder / "approver.json", json.dumps(credentials))
    approver = load(home)
    line = shlex.join(
        [sys.executable, "-E", "-P", "-m", "agentvault_tui.demo", "--home", str(home)]
    )
    write_private(approver.script, f'#!/bin/sh\nexec {line} "$@"\n', 0o700)
    return approver


def load(home: Path) -> Approver:
    """Return the approver that was prepared in *home*."""
    folder = home / "demo"
    try:
        stored = json.loads((folder / "approver.json").read_text())
    except OSError as error:
        raise NotFoundError(
            f"there is no demo in {home}", "start one with `agentvault demo`"
        ) from error
    return Approver(folder, stored["otp_secret"], stored["otpauth_uri"])


async def approve(
    home: Path, clock: Clock, user_code: str | None = None, *, yes: bool = False
) -> int:
    """Sign in as the approver and confirm *user_code*, by default the waiting one."""
    approver = load(home)
    if not (yes or sys.stdin.isatty()):  # before a one-time code counts as used
        raise UsageError("there is no terminal to ask yes or no at", "give --yes")
    code = user_code or await _waiting_code(home / "run" / "agentvault.sock")
    otp = await _unused_otp(approver, clock)
    process = await asyncio.create_subprocess_exec(
        *AGENTVAULT,
        *("--home", str(home), "tenant", "activate", code, "--user", NAME),
        *("--password-file", str(approver.password_file), "--otp", otp),
        *(["--yes"] if yes else []),
    )
    return await process.wait()


async def _waiting_code(socket: Path) -> str:
    """Return the user code that the console shows."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        try:
            reply = await http.get("http://agentvault/api/agents/stepup")
        except httpx.TransportError as error:
            raise UnreachableError("the demo is not running") from error
    for stepup in reply.json()["stepups"]:
        if stepup["status"] == "authorizing" and stepup["device"]:
            return str(stepup["device"]["user_code"])
    raise AgentVaultError(
        "nothing waits for a second factor",
        "first, in the console: s, Enter if several wait, a",
    )


async def _unused_otp(approver: Approver, clock: Clock) -> str:
    """Return an unused one-time code; wait for the next if needed."""
    used = approver.folder / "otp-used"
    last = int(used.read_text()) if used.exists() else 0
    now = clock.now().timestamp()
    step = int(now) // _STEP
    if step <= last:
        wait = (last + 1) * _STEP - now
        print(  # noqa: T201 - this is a program's own face
            f"the current one-time code is used up, the next comes in {wait:.0f} s",
            file=sys.stderr,
        )
        await asyncio.sleep(wait)
        step = last + 1
    write_private(used, str(step))
    return pyotp.TOTP(approver.otp_secret).at(step * _STEP)
