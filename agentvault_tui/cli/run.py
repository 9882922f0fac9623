"""``agentvault run``: a command behind the gateway, and the environment it gets."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from agentvault_tui.cli.framework import FILE, CliCommand, pass_session
from agentvault_tui.cli.lookup import agent_option, find_agent, service_names
from agentvault_tui.cli.run_command import (
    PlainCommand,
    Startable,
    environment,
    say,
)
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, NotConfinedError, NotFoundError
from agentvault_tui.home import private_folder, put_private
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import RunInfo, RunNewsInfo, RunRequest
from agentvault_tui.operator_api.client import OperatorClient

GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""
_PATIENCE: Final = 10.0
"""Seconds for which a broker may be away before the command is stopped."""
_NOT_FOUND: Final = 127
_NOT_RUNNABLE: Final = 126


class _RunCommand(CliCommand):
    """Takes ``--confine`` without a value, and ``--confine=best``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the first form as the second; the command's own words stay."""
        end = args.index("--") if "--" in args else len(args)
        ours = ["--confine=all" if one == "--confine" else one for one in args[:end]]
        return super().parse_args(ctx, [*ours, *args[end:]])


@click.command(
    "run",
    cls=_RunCommand,
    on_home=True,
    example="agentvault run --agent coder -- curl https://api.github.com/user\n"
    "agentvault run --agent coder --confine -- claude",
    prints_data=False,
    context_settings={"allow_interspersed_args": False},
)
@agent_option
@click.option(
    "--service",
    "services",
    metavar="NAME",
    multiple=True,
    help="A service that the command may reach; repeat it. Default: all of them.",
    shell_complete=service_names,
)
@click.option(
    "--pass-through",
    metavar="HOST",
    multiple=True,
    help="A further host, as an opaque tunnel, such as *.example.com; repeat it.",
)
@click.option(
    "--confine",
    type=click.Choice(["all", "best"]),
    help="Let it reach AgentVault and nothing else. best: as far as this machine can.",
)
@click.option(
    "--write",
    metavar="DIR",
    type=FILE,
    multiple=True,
    help="Confined: a further folder that it may change; repeat it.",
)
@click.option(
    "--read",
    metavar="DIR",
    type=FILE,
    multiple=True,
    help="Confined: a folder it may read; repeat it.",
)
@click.option(
    "--user-home",
    metavar="DIR",
    type=FILE,
    help="Confined: its home directory. Default: one of the agent's own.",
)
@click.option(
    "--env",
    metavar="NAME",
    multiple=True,
    help="Confined: a further variable that it gets; repeat it.",
)
@click.option(
    "--local-sockets",
    is_flag=True,
    help="Confined: let Unix sockets work within its folders.",
)
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True)
@pass_session
def run(
    session: CliSession,
    ref: str,
    services: tuple[str, ...],
    pass_through: tuple[str, ...],
    words: tuple[str, ...],
    *,
    confine: str | None,
    write: tuple[Path, ...],
    read: tuple[Path, ...],
    user_home: Path | None,
    env: tuple[str, ...],
    local_sockets: bool,
) -> int:
    """Run a command as an agent: its requests to services are decided and recorded.

    The command gets the proxy and its certificate authority in environment variables,
    and no credential of a service. If the agent is revoked, the command is stopped.
    """
    if not confine and any((write, read, user_home, env, local_sockets)):
        raise click.UsageError("--write, --read and the like need --confine")
    client = session.client
    agent = find_agent(client, ref)
    prepared = None
    if confine:
        from agentvault_tui.cli.run_confined import prepare
        from agentvault_tui.confine import ViewOptions

        options = ViewOptions(Path.cwd(), read, write, user_home, env, local_sockets)
        try:
            best = confine == "best"
            prepared = prepare(session.home, agent, words, options, best=best)
        except NotConfinedError as error:
            say(f"not confined: {error.diagnosis()}")
            return error.exit_code
        except OSError as error:
            return _not_started(words[0], error)
    body = RunRequest(agent_id=agent.id, services=services, pass_through=pass_through)
    info = client.call(calls.RUN, body)
    outside = ""
    try:
        with _files(session.home.run, session.home.keys, info) as folder:
            # At a terminal it stays in our group; confined it gets the terminal.
            grouped = not sys.stdin.isatty() or bool(prepared and prepared.has_pids)
            command = _Command(client, info, folder, agent.name, grouped=grouped)
            if prepared is None:
                given = environment(os.environ, info, folder)
                code = command.run(PlainCommand(words, given, grouped))
            else:
                with prepared.started(client, info, folder, grouped) as started:
                    code = command.run(started)
                outside = f", {prepared.outside} outside"
            command.finish()
    except NotConfinedError as error:
        say(f"not confined: {error.diagnosis()}")
        return error.exit_code
    finally:
        last = _ended(client, info)
    if last is not None:
        say(summary(last) + outside)
    return code


def summary(news: RunNewsInfo) -> str:
    """Summarize a command's calls in one line."""
    sent = f"{news.calls} call{'s' * (news.calls != 1)}"
    tunnels = f", {news.tunnels} tunnel{'s' * (news.tunnels != 1)}"
    text = f"{sent}{tunnels if news.tunnels else ''}"
    return f"{text}, {news.held} held, {news.refused} refused"


class _Command:
    """The command while it runs, and who watches whether it may go on."""

    def __init__(
        self,
        client: OperatorClient,
        info: RunInfo,
        folder: Path,
        agent: str,
        *,
        grouped: bool,
    ) -> None:
        self._client = client
        self._info = info
        self._folder = folder
        self._agent = agent
        self._running: Startable | None = None
        self._grouped = grouped
        self._stopped = threading.Event()
        self._printed = threading.Event()

    def finish(self) -> None:
        """Wait until the reason for which it was stopped is printed."""
        if self._stopped.is_set():
            self._printed.wait(GRACE)

    def run(self, command: Startable) -> int:
        """Run it; return its exit code."""
        self._running = command
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            process = command.begin()
        except OSError as error:
            return _not_started(error.filename or "command", error)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        code = command.wait()
        if self._stopped.is_set():
            self._sweep()
        return 128 - code if code < 0 else code

    def _on_signal(self, number: int, _: object) -> None:
        """Pass a signal on; a terminal's own reached the command already."""
        if self._grouped or number != signal.SIGINT:
            self._send(number)

    def _send(self, number: int) -> bool:
        return self._running is not None and self._running.send(number)

    def _sweep(self) -> None:
        """End the rest of a stopped command's process group."""
        ends = time.monotonic() + GRACE
        while self._grouped and self._send(0) and time.monotonic() < ends:
            time.sleep(0.05)
        if self._grouped:
            self._send(signal.SIGKILL)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Renew the token, until the run or the command ends."""
        away_since: float | None = None
        while process.poll() is None:
            try:
                news = self._client.call(calls.RUN_NEWS, id=self._info.id)
            except NotFoundError:
                return self._stop(process, "its broker knows nothing of it any more")
            except AgentVaultError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _PATIENCE:
                    return self._stop(process, error.what)
                time.sleep(0.5)
                continue
            away_since = None
            if news.access_token is not None:
                write_token(self._folder, news.access_token)
            if news.ended == "done":
                break
            if news.ended is not None:
                return self._stop(process, news.why)
        return None

    def _stop(self, process: subprocess.Popen[bytes], why: str) -> None:
        """Stop the command: SIGTERM, and 5 s later SIGKILL."""
        if process.poll() is not None:
            return
        self._stopped.set()
        self._send(signal.SIGTERM)
        # The command may have stopped the terminal's output: nothing waits for that.
        threading.Thread(target=self._print_reason, args=(why,), daemon=True).start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return
        self._send(signal.SIGKILL)

    def _print_reason(self, why: str) -> None:
        say(f"{self._agent} is stopped: {why}")
        self._printed.set()


@contextmanager
def _files(run: Path, keys: Path, info: RunInfo) -> Iterator[Path]:
    """Write the files that a command reads, 0600 in a folder; remove it at the end."""
    private_folder(run)
    with tempfile.TemporaryDirectory(prefix="run-", dir=run) as name:
        folder = Path(name)
        ours = [info.ca.encode()]
        local = keys / "tls-ca.pem"
        if info.agents_url.startswith("https:") and local.exists():
            ours.append(local.read_bytes())
        put_private(folder / "ca.pem", b"".join(ours), replace=True)
        whole = b"\n".join([*ours, *_system_roots()])
        put_private(folder / "ca-bundle.pem", whole, replace=True)
        write_token(folder, info.access_token)
        yield folder


def write_token(folder: Path, token: str) -> None:
    """Put the token in the place of the one before, whole or not at all."""
    put_private(folder / "token", token.encode(), replace=True)


def _system_roots() -> Iterable[bytes]:
    """Yield the system's authorities as PEM, wherever the environment has others."""
    paths = ssl.get_default_verify_paths()
    file, folder = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if file.is_file():
        yield file.read_bytes()
        return
    files = sorted(folder.glob("*.[0-9]")) if folder.is_dir() else []
    if not files:
        import certifi

        files = [Path(certifi.where())]
    for one in files:
        with suppress(OSError):
            yield one.read_bytes()


def _not_started(name: str, error: OSError) -> int:
    """Say why a command did not start; return the exit code that a shell has for it."""
    if isinstance(error, FileNotFoundError):
        say(f"{name}: no such command")
        return _NOT_FOUND
    say(f"{name}: {error.strerror}")
    return _NOT_RUNNABLE


def _ended(client: OperatorClient, info: RunInfo) -> RunNewsInfo | None:
    """Report the command's end to the broker; return its calls."""
    with suppress(AgentVaultError):
        return client.call(calls.END_RUN, id=info.id)
    return None
