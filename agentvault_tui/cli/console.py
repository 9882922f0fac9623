"""``agentvault``, ``agentvault console`` and ``agentvault demo``: open the console."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from errno import EAGAIN
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentvault_tui.cli.framework import TimeSpan, command, link_option, pass_session
from agentvault_tui.cli.output import require_screen
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, UnreachableError, UsageError
from agentvault_tui.home import Home, check_socket_path, private_file
from agentvault_tui.process import home_arguments

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress


_PROBE_SECONDS: Final = 1.0
_STARTED: Final = (
    "A broker was started for this console and stops when you quit; "
    "`agentvault serve` keeps one running."
)


@command("console", example="agentvault console --read-only", prints_data=False)
@click.option("--read-only", is_flag=True, help="Watch without deciding.")
@click.option(
    "--plain", is_flag=True, help="Print line by line, for screen readers and logs."
)
@click.option("--known-to", type=click.IntRange(0), default=0, hidden=True)
@link_option
@pass_session
def console(session: CliSession, read_only: bool, plain: bool, known_to: int) -> int:
    """Open the console on a running broker.

    With --known-to N the header announces no loosening up to event N, and the feed
    begins after it.
    """
    if not plain:
        require_screen()
    broker = find_broker(session)
    if broker is None:
        raise UnreachableError(
            f"no broker answers at {session.home.operator_socket}",
            "`agentvault` starts one with its console, `agentvault serve` one to keep",
        )
    return open_console(
        session, broker, read_only=read_only, plain=plain, known_to=known_to
    )


def find_broker(session: CliSession) -> BrokerAddress | None:
    """Find the broker to open the console on.

    A process that listens at this home's socket is enough: if it does not answer, the
    console shows that. A broker elsewhere has to answer.

    Returns:
        its address; None if no process listens.

    Raises:
        UnreachableError: a broker elsewhere does not answer.
    """
    if session.remote is not None:
        session.client.reachable()
        return session.remote
    path = session.home.operator_socket
    check_socket_path(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        # A broker that is too busy to accept is there.
        return path if probe.connect_ex(str(path)) in {0, EAGAIN} else None


def open_or_start(session: CliSession) -> int:
    """Open the console; run a broker for as long as it is open if none runs."""
    require_screen()
    if broker := find_broker(session):
        return open_console(session, broker)
    session.out.note("no broker runs: starting one for as long as the console is open")
    with own_broker(session.home) as path:
        return open_console(session, path, note=_STARTED)


def open_console(
    session: CliSession,
    broker: BrokerAddress,
    *,
    read_only: bool = False,
    plain: bool = False,
    note: str = "",
    known_to: int = 0,
) -> int:
    """Run the console over *broker*."""
    if plain:
        from agentvault_tui.console.plain import run
    else:
        from agentvault_tui.console import run
    return run(
        broker,
        read_only=read_only,
        settings=session.console_settings,
        broker_note=note,
        known_to=known_to,
        config_folder=session.home.config,
    )


_STOP_SECONDS: Final = 10.0
_LAST_WORDS: Final = 4096
_FAILURES: Final = {1: AgentVaultError, 2: UsageError}
"""The meaning of its exit code."""


@contextlib.contextmanager
def own_broker(home: Home) -> Iterator[Path]:
    """Run a broker on *home*, yield its socket, and stop it afterwards.

    Its stdin is ours: should this process be killed, the broker reads the end of it
    and stops by itself.
    """
    home.prepare()
    log = home.run / "broker.log"
    private_file(log)
    # -P: a json.py in the folder we were started from must not be imported.
    line = [
        sys.executable,
        "-E",
        "-P",
        "-m",
        "agentvault_tui.cli",
        *home_arguments(home),
    ]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*line, "serve", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C and a closing terminal are the console's; it then stops the broker.
            start_new_session=True,
        )
    with process:
        try:
            yield _ready(process, log)
        finally:
            process.terminate()
            _end(process)


def _ready(process: subprocess.Popen[bytes], log: Path) -> Path:
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    line = process.stdout.readline()
    try:
        return Path(json.loads(line)["operator_socket"])
    except (ValueError, KeyError, TypeError) as error:
        _end(process)
        last_words = log.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").strip()
        last = last_words.splitlines()[-1] if last_words else f"see {log}"
        failure = _FAILURES.get(process.returncode, UnreachableError)
        raise failure(
            "the broker did not start", last.removeprefix("agentvault: ")
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process to end; kill it if it does not."""
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@command(
    "demo",
    on_home=True,
    example="agentvault demo --headless --for 20",
    prints_data=False,
)
@click.option("--agents", default=6, show_default=True, help="Number of agents.")
@click.option(
    "--rate", default=5.0, show_default=True, help="Decisions a second, of all agents."
)
@click.option(
    "--headless", is_flag=True, help="No console; print the counts at the end."
)
@click.option(
    "--for",
    "seconds",
    type=TimeSpan(),
    help="How long to run: 20 (s), 5m; else until ctrl+c, or the console closes.",
)
@link_option
@pass_session
def demo(
    session: CliSession, agents: int, rate: float, headless: bool, seconds: int | None
) -> int:
    """Run tenant, broker, workspace API and agents, and open the console.

    The home is a temporary one, removed at the end, unless --home names one.
    """
    if not headless:
        require_screen()
    from agentvault_tui.demo import run

    return run(
        home=str(session.home.data) if session.home_option else None,
        agents=agents,
        rate=rate,
        headless=headless,
        seconds=seconds,
        link=session.link,
    )
