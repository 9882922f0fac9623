"""`agentvault systemd install`: a unit that systemd itself finds right and tight."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer, plain_environment
from support.forked import Forked
from support.needs import program
from support.patience import PATIENT

from agentvault_tui.cli import systemd
from agentvault_tui.cli.systemd import unit_file
from agentvault_tui.errors import UsageError

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]
MOST = 2.0
"""Exposure, of 10, by `systemd-analyze security`."""


def analyze(*argv: str, folder: Path) -> str:
    """Run systemd-analyze, and return what it says."""
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), "--no-pager", *argv],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_the_unit_right_and_tight(cli: Run, tmp_path: Path) -> None:
    """It verifies without a word, and exposes less than 2.0 of 10."""
    answer = cli("systemd", "install", "--print")
    assert answer.code == 0
    path = tmp_path / "agentvault.service"
    path.write_text(answer.out)
    assert not analyze("verify", str(path), folder=tmp_path)
    told = analyze("security", "--offline=true", str(path), folder=tmp_path)
    (exposure,) = re.findall(r"Overall exposure level .*: ([\d.]+)", told)
    assert float(exposure) < MOST


@pytest.mark.parametrize("home", [None, Path("/srv/vault")])
@pytest.mark.parametrize("user", [True, False])
def test_every_kind_of_unit_verifies(
    tmp_path: Path, home: Path | None, *, user: bool
) -> None:
    """A user's own, and one whose home is elsewhere."""
    path = tmp_path / "agentvault.service"
    there = home if user else home or systemd._STATE
    path.write_text(unit_file(systemd._program(), there, user=user))
    which = ("--user",) if user else ()
    assert not analyze("verify", *which, str(path), folder=tmp_path)


def test_a_unit_is_written_for_the_user_and_again_after_an_upgrade(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may read it; another program's unit of that name is left alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("AGENTVAULT_HOME", str(tmp_path / "home"))
    for _ in range(2):
        answer = cli("systemd", "install", "--user", "--json")
    path = tmp_path / "systemd" / "user" / "agentvault.service"
    assert answer.json["file"] == str(path)
    assert "systemctl --user enable --now agentvault" in answer.json["next"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert f"AGENTVAULT_HOME={tmp_path / 'home'}\n" in path.read_text()
    assert "User=" not in path.read_text()
    path.write_text("[Service]\n")
    assert cli("systemd", "install", "--user").code == 2
    assert path.read_text() == "[Service]\n"
    path.unlink()
    printed = cli("systemd", "install", "--user", "--print")
    assert printed.code == 0
    assert "# Change it with: systemctl --user edit agentvault\n" in printed.out
    assert "with: systemctl edit" in cli("systemd", "install", "--print").out
    assert list(path.parent.iterdir()) == []


def test_a_home_that_the_sandbox_hides_is_refused(cli: Run) -> None:
    """Printed it is with a word about that."""
    line = ("--home", "/home/olga/vault", "systemd", "install")
    printed = cli(*line, "--print")
    assert (printed.code, "/home/olga/vault" in printed.err) == (0, True)
    answer = cli(*line)
    assert (answer.code, "/home/olga/vault" in answer.err) == (2, True)


def test_a_path_that_systemd_reads_as_something_else_is_refused() -> None:
    """A specifier, a space or a quotation mark in it."""
    for home in ("/srv/50%h", "/srv/a b", '/srv/"'):
        with pytest.raises(UsageError, match="cannot stand"):
            unit_file(systemd._program(), Path(home), user=True)


def test_a_program_that_is_not_there_is_told() -> None:
    """A unit that systemd could not start is not written."""
    with pytest.raises(UsageError, match="no program"):
        unit_file(Path("/opt/none/agentvault"), None, user=True)


def test_the_broker_tells_systemd_that_it_is_ready_alive_and_stopping(
    short: Path,
) -> None:
    """READY=1 comes with the first line, then WATCHDOG=1, and STOPPING=1 at last."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short / "notify"))
        manager.settimeout(PATIENT)
        env = plain_environment(
            NOTIFY_SOCKET=str(short / "notify"), WATCHDOG_USEC="200000"
        )
        line = ("--home", str(short / "h"), "serve", "--listen", "127.0.0.1:0")
        with Forked(line, env) as process:
            told = [manager.recv(100).decode() for _ in range(4)]
            assert told == ["READY=1", *["WATCHDOG=1"] * 3]
            assert process.stdout.readline()
            process.terminate()
            while (last := manager.recv(100).decode()) == "WATCHDOG=1":
                pass
            assert last == "STOPPING=1"
            assert process.wait(PATIENT) == 0
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                manager.recv(100)
