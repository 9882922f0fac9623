"""`agentvault` and `agentvault console`: when they open, and what they leave behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import PROGRAM, Answer, Broker, plain_environment
from support.forked import agentvault
from support.terminal import Terminal

from agentvault_tui.cli import console as own_broker
from agentvault_tui.cli.app import run
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UnreachableError
from agentvault_tui.home import Home

Run = Callable[..., Answer]
CTRL_Q = "\x11"
LEFT_ALTERNATE_SCREEN = "\x1b[?1049l"


def environment(home: Path, **extra: str) -> dict[str, str]:
    return plain_environment(
        AGENTVAULT_HOME=str(home),
        AGENTVAULT_BROKER_LISTEN="127.0.0.1:0",
        XDG_STATE_HOME=str(home / "state"),
        **extra,
    )


def broker_pid(home: Path) -> int:
    return int(json.loads((home / "run" / "broker.lock").read_text())["pid"])


def is_live(text: str) -> bool:
    return "live" in text


def ended(pid: int, seconds: float) -> bool:
    """Wait for a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("line", [[], ["console"], ["demo"]], ids=str)
def test_no_terminal_is_wrong_usage(
    line: list[str], process: Run, tmp_path: Path
) -> None:
    """Without a terminal each says what can be done instead, and starts nothing."""
    answer = process("--home", str(tmp_path), *line)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "terminal" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", [[], ["console"]], ids=str)
def test_a_dumb_terminal_is_wrong_usage(line: list[str], tmp_path: Path) -> None:
    """TERM=dumb cannot draw the console; the line names --plain."""
    env = environment(tmp_path, TERM="dumb")
    with Terminal([agentvault, *line], env) as terminal:
        assert terminal.finish() == 2
    assert terminal.text.count("\n") == 1
    assert "--plain" in terminal.text


@pytest.mark.parametrize(
    ("line", "link"),
    [
        ([], "fast"),
        (["--link", "slow"], "slow"),
        (["console", "--link", "slow"], "slow"),
        (["--link", "slow", "console", "--link", "fast"], "fast"),
        (["demo", "--link", "slow"], "slow"),
    ],
)
def test_the_link_flag_counts_more_than_the_setting(
    line: list[str], link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opens the console takes --link, before or after the command."""
    seen: list[str] = []

    def opened(session: CliSession, *_: object, **__: object) -> int:
        seen.append(session.console_settings.link)
        return 0

    def demo(*, link: str, **_: object) -> int:
        seen.append(link)
        return 0

    monkeypatch.setattr("agentvault_tui.cli.console.require_screen", lambda: None)
    monkeypatch.setattr("agentvault_tui.cli.console.open_console", opened)
    monkeypatch.setattr("agentvault_tui.demo.run", demo)
    monkeypatch.setattr("agentvault_tui.cli.console.find_broker", lambda _: tmp_path)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text('[console]\nlink = "fast"\n')
    assert run(["--home", str(home), *line]) == 0
    assert seen == [link]


def test_a_broker_that_does_not_answer_is_there(short: Path) -> None:
    """If a process listens and is silent, the console opens, and shows that."""
    home = Home.locate(short)
    home.run.mkdir()
    session = CliSession(str(short))
    assert own_broker.find_broker(session) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(home.operator_socket))
        silent.listen(1)
        assert own_broker.find_broker(session) == home.operator_socket
    assert own_broker.find_broker(session) is None


def test_stderr_must_be_the_terminal_too(broker: Broker, tmp_path: Path) -> None:
    """Textual paints on stderr: sent elsewhere, the line says so there."""
    said = tmp_path / "err"
    line = ["sh", "-c", f'exec "$@" 2>{said}', "sh", *PROGRAM, "console"]
    with Terminal(line, broker.env) as terminal:
        assert terminal.finish() == 2
    assert terminal.text == ""
    assert "standard error" in said.read_text()


def test_console_without_a_broker_exits_three(tmp_path: Path) -> None:
    """The line names both ways to get one."""
    with Terminal([agentvault, "console"], environment(tmp_path)) as terminal:
        assert terminal.finish() == 3
    assert "`agentvault`" in terminal.text
    assert "`agentvault serve`" in terminal.text


@pytest.mark.slow
def test_plain_console_works_in_a_pipe(broker: Broker, tmp_path: Path) -> None:
    """`--plain` needs no terminal and draws no escape sequence."""
    done = subprocess.run(
        [*PROGRAM, "console", "--plain", "--read-only"],
        input="list\nquit\n",
        capture_output=True,
        text=True,
        env={**broker.env, "XDG_STATE_HOME": str(tmp_path)},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_the_console_of_a_running_broker_leaves_it_running(
    broker: Broker, av: Run, tmp_path: Path
) -> None:
    """With a broker running, `agentvault` alone opens on it and ends without it."""
    env = {**broker.env, "XDG_STATE_HOME": str(tmp_path)}
    with Terminal([agentvault], env, columns=120, rows=40) as terminal:
        terminal.read_until(is_live)
        terminal.write(CTRL_Q)
        assert terminal.finish() == 0
    assert "no broker runs" not in terminal.text
    assert LEFT_ALTERNATE_SCREEN in terminal.text
    assert av("whoami").code == 0


@pytest.mark.slow
def test_a_broker_for_as_long_as_the_console_is_open(cli: Run, tmp_path: Path) -> None:
    """With none running, `agentvault` starts one, says so, and stops it at the end."""
    with Terminal(
        [agentvault], environment(tmp_path), columns=120, rows=40
    ) as terminal:
        text = terminal.read_until(is_live)
        assert "no broker runs: starting one" in text
        pid = broker_pid(tmp_path)
        assert pid != terminal.process.pid
        assert cli("--home", str(tmp_path), "agents", "list").code == 0
        terminal.signal(signal.SIGTERM)
        terminal.finish()
    assert LEFT_ALTERNATE_SCREEN in terminal.text
    assert ended(pid, 0)
    assert cli("--home", str(tmp_path), "agents", "list").code == 3
    assert cli("--home", str(tmp_path), "audit", "verify").code == 0


@pytest.mark.slow
def test_a_killed_console_takes_its_broker_along(cli: Run, tmp_path: Path) -> None:
    """Even a console that is killed leaves no broker; it ends in good order."""
    with Terminal(
        [agentvault], environment(tmp_path), columns=120, rows=40
    ) as terminal:
        terminal.read_until(is_live)
        pid = broker_pid(tmp_path)
        terminal.signal(signal.SIGKILL)
        terminal.finish()
    assert ended(pid, 20)
    exported = tmp_path / "events.jsonl"
    assert cli("--home", str(tmp_path), "audit", "export", str(exported)).code == 0
    last = json.loads(exported.read_text().splitlines()[-1])
    assert last["type"] == "broker.stopped"


@pytest.mark.slow
def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The broker's own line reaches the person, with its exit code."""
    (tmp_path / "policy.cedar").write_text("nonsense")
    with Terminal([agentvault], environment(tmp_path)) as terminal:
        assert terminal.finish() == 1
    assert "the broker did not start" in terminal.text
    assert "policy.cedar" in terminal.text
    assert "Traceback" not in terminal.text


def test_a_broker_that_hangs_at_start_is_killed_and_reported(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive, on a machine too busy for it, or hung: an error, and no process left."""
    program = short / "stuck"
    program.write_text(
        f"#!/bin/sh\necho $$ >{short}/pid\necho '{{}}'\nexec sleep 600\n"
    )
    program.chmod(0o700)
    monkeypatch.setattr(own_broker.sys, "executable", str(program))
    monkeypatch.setattr(own_broker, "_STOP_SECONDS", 0.1)
    home = Home.locate(short / "home")
    with (
        pytest.raises(UnreachableError, match="the broker did not start"),
        own_broker.own_broker(home),
    ):
        pytest.fail("it is not there")
    pid = int((short / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
