"""``agentvault serve``: the broker in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.session import CliSession

if TYPE_CHECKING:
    from agentvault_tui.broker.core import Broker
    from agentvault_tui.broker.serve import Tell
    from agentvault_tui.gateway import Gateway


@command(
    "serve",
    on_home=True,
    example="agentvault serve --listen 127.0.0.1:7717",
    prints_data=False,
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="The address for agents; loopback only, port 0 picks a free one.",
)
@click.option(
    "--socket", type=FILE, help="The operators' socket, instead of one in run/."
)
@click.option(
    "--tls-cert",
    type=FILE,
    help="Use https with this certificate (PEM), instead of the one of `tls init`.",
)
@click.option("--tls-key", type=FILE, help="The certificate's key (PEM, mode 0600).")
@click.option(
    "--tls/--no-tls",
    default=None,
    help="Require https, or plain http; default: https if there is a certificate.",
)
@click.option(
    "--forget-passkeys",
    is_flag=True,
    help="Delete passkeys of other hosts than that of [tenant] url.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Start from this store although it was copied: the two will diverge.",
)
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@pass_session
def serve(
    session: CliSession,
    *,
    listen: str | None,
    socket: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls: bool | None,
    forget_passkeys: bool,
    again: bool,
    until_stdin_closes: bool,
) -> int:
    """Run the broker until SIGTERM or Ctrl-C.

    When it is ready, it prints one line of JSON on stdout. Logs go to stderr, and so do
    hints for a person if stdout is a terminal.
    """
    from agentvault_tui.settings import Settings

    flags = {
        "broker.listen": listen,
        "broker.tls": tls,
        "broker.tls_cert": _absolute(tls_cert),
        "broker.tls_key": _absolute(tls_key),
    }
    with contextlib.ExitStack() as ending:
        # Until the broker listens: what is made before then lives as long as it does.
        ending.callback(gc.enable)
        gc.disable()
        settings = Settings.load(session.home, flags=flags)
        from agentvault_tui.cli.people import check_passkeys, make_change
        from agentvault_tui.process import log_level, start_tenant

        check_passkeys(session, settings, forget=forget_passkeys)
        notices = session.home.check_files(private=True)  # the tenant closes the home
        log_level("warning")  # an unknown one is told before anything starts
        tenant = None
        if not settings.tenant.issuer:
            tenant = ending.enter_context(start_tenant(session.home))
        from agentvault_tui.broker.serve import run
        from agentvault_tui.watch import LedgerWatch

        if until_stdin_closes:
            threading.Thread(target=_follow_stdin, daemon=True).start()
        where = None if socket is None else socket.expanduser().absolute()
        if not session.client.reachable():
            session.home.prepare()
            from agentvault_tui.operator_api.client import remember_socket

            remember_socket(session.home, where)
        return run(
            *(session.home, settings),
            socket=where,
            tenant=tenant,
            again=again,
            notices=notices,
            gateway=_data_plane,
            # The gateway, made before, opens secrets for both.
            watch=lambda one: LedgerWatch(one, one.deciding.callouts.open_secret),
            change_person=partial(make_change, session.home, settings),
        )


def _data_plane(broker: Broker, tell: Tell) -> Gateway:
    """Make the gateway; of a team's values the tenant's is encrypted again here."""
    from agentvault_tui.gateway import Gateway
    from agentvault_tui.tenant.copying import seal_anew

    if broker.team.key is not None and broker.reaching.kind == "embedded":
        work = partial(asyncio.to_thread, seal_anew, broker.home, broker.settings)
        broker.team.key.seals_anew.append(work)
    return Gateway(broker, tell)


def _absolute(path: Path | None) -> str | None:
    """Resolve a path against the working folder."""
    return str(path.expanduser().absolute()) if path else None


def _follow_stdin() -> None:
    """Stop gracefully when stdin closes: the parent has ended."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
