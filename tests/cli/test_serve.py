"""`agentvault serve` as the system sees it."""

from __future__ import annotations

import errno
import gc
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.command_line import Answer, Broker, plain_environment
from support.forked import agentvault
from support.ports import bind_error
from support.terminal import Terminal

from agentvault_tui.home import Home
from agentvault_tui.process import Child, start_tenant

Run = Callable[..., Answer]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_broker_leaves_no_core_and_no_open_file(broker: Broker) -> None:
    """It is hardened before it opens anything: core dumps off, umask 077."""
    proc = Path(f"/proc/{broker.pid}")
    limits = proc.joinpath("limits").read_text().splitlines()
    (core,) = (line.split()[4:6] for line in limits if "core file" in line)
    assert core == ["0", "0"]
    assert "Umask:\t0077" in proc.joinpath("status").read_text()


def test_agents_have_their_port_on_both_loopbacks(broker: Broker) -> None:
    """Whatever `localhost` is to a client, no other user's program can be there."""
    port = urlsplit(broker.url).port or 0
    assert bind_error("127.0.0.1", port) == errno.EADDRINUSE
    assert bind_error("::1", port) == errno.EADDRINUSE


@pytest.mark.parametrize("flags", [("--tls",), ("--listen", "127.0.0.1:0")])
def test_a_start_that_fails_leaves_no_child_process(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    """The tenant's process was started before the fault is found; it ends with it."""
    started: list[Child] = []

    def start(home: Home) -> Child:
        started.append(start_tenant(home))
        return started[-1]

    monkeypatch.setattr("agentvault_tui.process.start_tenant", start)
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / "run").write_text("a file where the folder of sockets should be")
    assert cli("--home", str(home), "serve", *flags).code
    (child,) = started
    assert child.process.returncode is not None
    assert child.process.stdout is not None
    assert (child.process.stdout.closed, child.pair.fileno()) == (True, -1)
    assert gc.isenabled()


@pytest.mark.slow
def test_a_person_at_a_terminal_is_shown_where_and_what_next(short: Path) -> None:
    """Next to the line for programs: whom it serves where, and the next command."""
    home = short / "h"
    home.mkdir(mode=0o700)
    line = [agentvault, "--home", str(home), "serve", "--listen", "127.0.0.1:0"]
    with Terminal(line, plain_environment(), columns=300) as terminal:
        terminal.read_until(lambda painted: "Next," in painted)
        terminal.signal(signal.SIGINT)
        assert terminal.finish() == 0
        rows = [one.strip() for one in terminal.text.splitlines() if one.strip()]
    (first,) = [one for one in rows if "agents_url" in one]
    said, following = [one for one in rows if one[0] != "{"]  # no line of the log
    url = json.loads(first)["agents_url"]
    socket = home / "run" / "agentvault.sock"
    assert said == f"AgentVault serves agents at {url}, operators at {socket}."
    assert f"agentvault --home {home} tenant user add NAME --approver" in following


@pytest.mark.slow
def test_a_broken_alerts_file_stops_a_first_start(cli: Run, short: Path) -> None:
    """One line says what is wrong with it, with exit code 1, as of limits.toml."""
    home = short / "h"
    home.mkdir(mode=0o700)
    file = home / "alerts.toml"
    file.write_text("[sinks.x]\nkind = 'fax'\n")
    file.chmod(0o600)  # else a warning about its mode is another line
    ended = cli("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "alerts.toml" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.toml", "policy.cedar", "services/x.toml"])
def test_a_file_that_others_wrote_stops_each_start(
    cli: Run, short: Path, name: str
) -> None:
    """The start names it and the remedy, and closes nothing before it was looked at."""
    home, path = short / "h", short / "h" / name
    path.parent.mkdir(mode=0o755, parents=True)
    home.chmod(0o755)
    (home / "config.toml").touch(0o600)
    path.write_text("")
    path.chmod(0o666)
    for _ in range(2):
        ended = cli("--home", str(home), "serve", "--listen", "127.0.0.1:0")
        assert ended.code == 2
        assert len(ended.err.splitlines()) == 1
        assert f"others can write to {path}" in ended.err
        assert f"chmod 600 {path}" in ended.err
