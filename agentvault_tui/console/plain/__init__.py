"""Plain mode: the console line by line, for screen readers and serial lines.

Events are printed as sentences; typed lines are commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agentvault_tui.clock import SystemClock
from agentvault_tui.console.desk import LABEL, Desk, name_ways
from agentvault_tui.console.link.link import BrokerLink
from agentvault_tui.console.link.memory import HeadStore
from agentvault_tui.console.plain.session import PlainSession
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console_settings import ConsoleSettings
from agentvault_tui.presenters import glyphs

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress


def run(
    broker: BrokerAddress,
    *,
    read_only: bool,
    settings: ConsoleSettings,
    broker_note: str = "",
    config_folder: Path | None = None,
    known_to: int = 0,
) -> int:
    """Run a session with *broker* until the operator leaves.

    Loosenings up to the event *known_to* are not announced.
    """
    alphabet = glyphs.choose(settings.ascii, os.environ)
    mirror = Mirror(SystemClock(), ascii_only=alphabet.ascii_only)
    mirror.loosenings.known_to = known_to
    link = BrokerLink(mirror, broker, HeadStore(broker), read_only=read_only)
    link.face = "plain"
    saved = SavedFilters(config_folder)
    desk = Desk(link, alphabet, saved=saved)
    name_ways(desk, broker, os.environ)
    plain = PlainSession(desk, sys.stdout)
    if desk.elsewhere:
        plain.say(f"Connected to {desk.elsewhere}.")
    if label := mirror.intake.shown(settings.label, LABEL):
        plain.say(f"This vault is {label}.")
    if broker_note:
        plain.say(broker_note)
    try:
        asyncio.run(
            follow(plain, link, sys.stdin.fileno(), stay=not sys.stdin.isatty())
        )
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads any more; nor may the interpreter try to flush at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def follow(
    plain: PlainSession, link: BrokerLink, descriptor: int, *, stay: bool
) -> None:
    following = asyncio.create_task(link.run())
    try:
        await plain.run(descriptor, stay=stay)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
