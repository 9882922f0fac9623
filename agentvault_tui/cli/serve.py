"""``agentvault serve``: the broker in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.session import Session, lazily, lazy_room


@command("serve", example="agentvault serve --listen 127.0.0.1:7717")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where agents ask; loopback only, port 0 picks one.",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Where operators ask, instead of the home's run folder.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@pass_session
def serve(
    session: Session,
    listen: str | None,
    socket: Path | None,
    until_stdin_closes: bool,
) -> int:
    """Run the broker until SIGTERM or Ctrl-C.

    The first line on stdout is JSON, printed when it is ready. Logs go to stderr.
    """
    load = lazily("agentvault_tui.settings", "Settings").load
    settings = load(session.home, flags={"broker.listen": listen})
    run = lazy_room("broker.serve").run
    if until_stdin_closes:
        threading.Thread(target=_follow_stdin, daemon=True).start()
    chosen = socket.expanduser().absolute() if socket else None
    if not session.client.reachable():
        session.home.prepare()
        lazy_room("cli.operator_client").remember_socket(session.home, chosen)
    return int(run(session.home, settings, socket=chosen))


def _follow_stdin() -> None:
    """Stop this process, in good order, when whoever started it is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
