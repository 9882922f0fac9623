"""``agentvault`` and ``agentvault console``: the screen, and if need be a broker."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from agentvault_tui.cli.framework import command, link_option, pass_session
from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.cli.terminal import require_screen
from agentvault_tui.errors import UnreachableError

_STARTED: Final = (
    "A broker was started for this console and stops when you quit; "
    "`agentvault serve` keeps one running."
)


@command("console", example="agentvault console --read-only")
@click.option("--read-only", is_flag=True, help="Look on; take no decision.")
@click.option(
    "--plain", is_flag=True, help="Line by line, for screen readers and logs."
)
@link_option
@pass_session
def console(session: CliSession, read_only: bool, plain: bool) -> int:
    """Open the console on a running broker."""
    if not plain:
        require_screen()
    client = session.client
    if not client.reachable():
        raise UnreachableError(
            f"no broker answers at {client.path}",
            "`agentvault` starts one with its console, `agentvault serve` one to keep",
        )
    return open_console(session, client.path, read_only=read_only, plain=plain)


def open_or_start(session: CliSession) -> int:
    """Open the console; with no broker running, run one for as long as it is open."""
    require_screen()
    client = session.client
    if client.reachable():
        return open_console(session, client.path)
    session.out.note("no broker runs: starting one for as long as the console is open")
    with lazy_room("cli.own_broker").own_broker(session.home) as socket:
        return open_console(session, socket, note=_STARTED)


def open_console(
    session: CliSession,
    socket: Path,
    *,
    read_only: bool = False,
    plain: bool = False,
    note: str = "",
) -> int:
    """Hand over to the console, which speaks only HTTP over *socket*."""
    settings = session.settings
    run = lazy_room("console.plain").run if plain else lazy_room("console").run
    return int(
        run(
            socket,
            read_only=read_only,
            settings=settings,
            broker_note=note,
            config_folder=session.home.config,
        )
    )
