"""The command line itself: help, versions, wrong usage, no broker, quiet ends."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from support.command_line import (
    HOSTILE,
    PROGRAM,
    Answer,
    Broker,
    plain_environment,
)
from support.forked import Forked
from support.patience import PATIENT

from agentvault_tui import __version__
from agentvault_tui import cli as cli_package
from agentvault_tui.cli.app import root
from agentvault_tui.cli.framework import CliCommand

Run = Callable[..., Answer]
Start = Callable[..., Forked]

CONTRACT = {
    *("console", "demo", "serve", "agents list", "agents show", "agents add"),
    *("agents revoke", "agents restore", "agents grant", "agents ungrant"),
    *("stepup list", "stepup show", "stepup approve", "stepup deny", "audit tail"),
    *("audit search", "audit export", "audit verify", "policy check", "policy explain"),
    *("login", "logout", "whoami", "tenant user add", "tenant user list"),
    *("tenant user otp", "tenant activate", "tenant rotate-keys", "doctor"),
    *("tls init", "tls show", "connect", "hook", "token", "revoke", "restore-agent"),
    *("approve", "deny", "panic", "lift-panic", "scopes list", "tokens list"),
    *("changes list", "changes show", "changes approve", "changes deny"),
    *("tokens revoke", "agents set-serves", "agents set-delegates", "completion"),
}
ANSWERS_NOTHING = {
    *("mcp stdio", "completion", "console", "demo", "hook", "man", "run", "serve")
}


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, CliCommand]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            assert isinstance(command, CliCommand)
            yield f"{path}{name}", command


ALL = dict(commands(root))


def test_every_command_of_the_contract_is_there() -> None:
    """The table of commands in the contract is what can be typed."""
    assert set(ALL) >= CONTRACT


@pytest.mark.parametrize("path", sorted(ALL))
def test_help_has_an_example_and_the_shared_options(path: str, cli: Run) -> None:
    """Each command explains itself with an example that is really a command of it."""
    answer = cli(*path.split(), "--help")
    assert answer.code == 0
    assert answer.out.isascii()
    assert f"agentvault {path}" in answer.out.partition("Example:")[2]
    assert "--home DIR" in answer.out
    assert ("--json" in answer.out) == (path not in ANSWERS_NOTHING)


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        *(("stepups list", "stepup list"), ("agent list", "agents list")),
        *(("service list", "services list"), ("secret list", "secrets list")),
        *(("agents serves", "agents set-serves"), ("alert list", "alerts list")),
        ("agents delegates", "agents set-delegates"),
    ],
)
def test_singular_plural_and_former_names_go_on_working(
    typed: str, same: str, cli: Run
) -> None:
    """The help of both is that of one command."""
    one, other = cli(*typed.split(), "--help"), cli(*same.split(), "--help")
    assert (one.code, other.code) == (0, 0)
    assert one.out.partition("Options:")[2] == other.out.partition("Options:")[2]


@pytest.mark.parametrize("word", ["unrevoke", "unpanic", "disapprove", "lift_panic"])
def test_a_suggestion_never_has_the_opposite_effect(word: str, cli: Run) -> None:
    """Who wants to end a panic is not led to start one."""
    answer = cli(word)
    assert answer.code == 2
    opposite = {"unrevoke": "revoke", "unpanic": "panic", "disapprove": "approve"}
    assert f"did you mean {opposite.get(word, 'panic')}" not in answer.err


def test_restore_refuses_the_name_of_an_agent(cli: Run, tmp_path: Path) -> None:
    """It is about backups, and names the command for agents."""
    answer = cli("--home", str(tmp_path / "h"), "restore", "payments-agent")
    assert answer.code == 4
    assert "agentvault restore-agent payments-agent" in answer.err


def test_root_help_names_every_command(cli: Run) -> None:
    """`agentvault --help` shows what there is, with an example."""
    out = cli("--help").out
    for name in {path.split()[0] for path in CONTRACT}:
        assert f"\n  {name} " in out
    assert "Example:" in out


def test_version(cli: Run) -> None:
    """`--version` prints the version."""
    assert cli("--version").out == f"agentvault {__version__}\n"


def test_help_imports_none_of_the_heavy_rooms() -> None:
    """`--help` and a command's own help touch neither the rooms nor httpx."""
    script = (
        "import sys; from agentvault_tui.cli.app import run;"
        "run(['--help']); run(['agents', 'list', '--help']); run(['doctor', '--help']);"
        "print([n for n in ('httpx','textual','rich','aiosqlite','cedarpy','authlib',"
        "'segno','argon2','agentvault_tui.ledger','agentvault_tui.broker') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [PROGRAM[0], "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["agnts"], "did you mean agents"),
        (["agents", "lst"], "did you mean list"),
        (["agents", "add", "x"], "--owner"),
        (["agents", "list", "--nope"], "--nope"),
        (["agents", "revoke"], "--all"),
        (["agents", "revoke", "x", "--all"], "--all"),
        (["agents", "revoke", "--all"], "--reason"),
        (["serve", "--listen", "0.0.0.0:7717"], "loopback"),
        (["serve", "--listen", "nonsense"], "HOST:PORT"),
        (["audit", "search", "--since", "yesterday"], "10m, 2h, 1d ago"),
        (["audit", "search", "--since", "999999999w"], "not a time"),
        (
            ["policy", "explain", "--agent", "a", "--action", "b", "--parameters", "{"],
            "not JSON",
        ),
        (
            [
                "policy",
                "explain",
                "--agent",
                "a",
                "--action",
                "b",
                "--parameters",
                "[]",
            ],
            "no object",
        ),
        (["demo", "--headless", "--agents", "0"], "--agents"),
        (["demo", "--headless", "--agents", "many"], "--agents"),
        (["stepup", "approve"], "ID"),
    ],
)
def test_wrong_usage_is_one_line_and_two(
    line: list[str], hint: str, cli: Run, tmp_path: Path
) -> None:
    """Wrong usage exits 2 with one line that says what to do, and nothing else."""
    answer = cli("--home", str(tmp_path), *line)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("agentvault: ")
    assert hint in answer.err


@pytest.mark.parametrize("name", ["changes", "mcp", "tenant user"])
def test_a_group_alone_prints_its_help_line_by_line(name: str, cli: Run) -> None:
    """A group without a command exits 2 and prints its help as `--help` does."""
    answer = cli(*name.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == cli(*name.split(), "--help").out


ONLINE = [
    ["agents", "list"],
    ["agents", "show", "a"],
    ["agents", "add", "a", "--owner", "o", "--scope", "read:email"],
    ["agents", "revoke", "a"],
    ["agents", "revoke", "--all", "--reason", "r"],
    ["agents", "restore", "--all"],
    ["agents", "grant", "a", "s"],
    ["agents", "ungrant", "a", "s"],
    ["stepup", "list"],
    ["stepup", "show", "sup_1"],
    ["stepup", "approve", "sup_1"],
    ["stepup", "deny", "sup_1"],
    ["audit", "tail"],
    ["audit", "tail", "--follow"],
    ["audit", "search"],
    ["policy", "explain", "--agent", "a", "--action", "read:email"],
    ["login"],
    ["logout"],
    ["whoami"],
    ["tenant", "activate", "KDRT-WZNB", "--user", "a", "--yes"],
    ["console", "--plain"],
]


@pytest.mark.parametrize("line", ONLINE, ids=" ".join)
def test_no_broker_exits_three(line: list[str], cli: Run, tmp_path: Path) -> None:
    """With no broker the line says how to start one."""
    answer = cli("--home", str(tmp_path), *line)
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.count("\n") == 1
    assert "`agentvault serve`" in answer.err
    assert "`agentvault`" in answer.err


def test_a_socket_nobody_listens_on_exits_three(cli: Run, tmp_path: Path) -> None:
    """A socket left behind by a killed broker is the same as none."""
    run = tmp_path / "run"
    run.mkdir()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(run / "agentvault.sock"))
    assert (run / "agentvault.sock").is_socket()
    assert cli("--home", str(tmp_path), "agents", "list").code == 3


def test_a_home_with_too_long_a_path_is_refused(cli: Run, tmp_path: Path) -> None:
    """The system would cut the socket's path; the line says what to do instead."""
    answer = cli("--home", str(tmp_path / ("x" * 120)), "agents", "list")
    assert answer.code == 2
    assert "use a shorter --home" in answer.err


def test_home_stands_before_or_after_the_command(cli: Run, broker: Broker) -> None:
    """`--home` means the same wherever it stands, and beats the environment."""
    home = str(broker.home)
    before = cli("--home", home, "agents", "list", "--json")
    between = cli("agents", "--home", home, "list", "--json")
    after = cli("agents", "list", "--json", "--home", home)
    assert before.code == between.code == after.code == 0
    for answer in (before, between, after):
        assert answer.json.keys() == {"agents", "head"}


@pytest.mark.slow
def test_home_comes_from_the_environment(process: Run, broker: Broker) -> None:
    """AGENTVAULT_HOME names the home when no option does."""
    answer = process("agents", "list", "--json", AGENTVAULT_HOME=str(broker.home))
    assert answer.code == 0
    gone = process(
        "--home", "/nowhere/at/all", "agents", "list", AGENTVAULT_HOME=str(broker.home)
    )
    assert gone.code == 3


def test_errors_print_quoted_text_displayable(av: Run) -> None:
    """A word with escape sequences comes back inert, on one line."""
    answer = av("agents", "show", HOSTILE)
    assert answer.code == 4
    assert answer.err.count("\n") == 1
    assert answer.err.rstrip("\n").isprintable()


def test_an_unexpected_error_is_one_line_and_no_traceback(
    cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What nobody foresaw ends in one line; AGENTVAULT_DEBUG=1 shows the rest."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("agentvault_tui.policy.Policy.of", broken)
    answer = cli("--home", str(tmp_path), "policy", "check")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "AGENTVAULT_DEBUG=1" in answer.err
    monkeypatch.setenv("AGENTVAULT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli("--home", str(tmp_path), "policy", "check")


@pytest.mark.slow
def test_ctrl_c_ends_a_command_silently(start: Start) -> None:
    """SIGINT ends a following tail with 130 and no word."""
    process = start("audit", "tail", "-f", "--json")
    assert json.loads(process.stdout.readline())["seq"] >= 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENT)
    assert (process.returncode, err) == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["audit tail --json", "doctor", "agents list", "policy check", "whoami"]
)
def test_a_closed_pipe_ends_a_command_silently(broker: Broker, line: str) -> None:
    """`agentvault … | head` ends without a traceback or a message."""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [*PROGRAM, *line.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=broker.env,
        check=False,
        timeout=30,
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (141, b"")


def test_every_stream_that_is_printed_is_closed_when_its_reader_goes() -> None:
    """An async generator left half-way is closed late, and complains on stderr."""
    kinds = (ast.AsyncFor, ast.comprehension)
    for path in Path(cli_package.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        closed = {
            item.optional_vars.id
            for node in ast.walk(tree)
            if isinstance(node, ast.AsyncWith)
            for item in node.items
            if isinstance(item.context_expr, ast.Call)
            and ast.unparse(item.context_expr.func) == "aclosing"
            and isinstance(item.optional_vars, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, kinds) and getattr(node, "is_async", True):
                assert ast.unparse(node.iter) in closed, f"{path}: {ast.unparse(node)}"


@pytest.mark.slow
def test_a_socket_elsewhere_is_found_again(cli: Run, tmp_path: Path) -> None:
    """After `serve --socket PATH` every other command finds the broker."""
    home, path = str(tmp_path / "h"), tmp_path / "elsewhere.sock"
    line = ("--home", home, "serve", "--listen", "127.0.0.1:0", "--socket", str(path))
    with Forked(line, plain_environment()) as process:
        assert json.loads(process.stdout.readline())["operator_socket"] == str(path)
        assert cli("--home", home, "agents", "list").code == 0
        process.terminate()
        process.wait(PATIENT)
    gone = cli("--home", home, "agents", "list")
    assert gone.code == 3
    assert str(path) in gone.err


def test_output_that_is_not_utf8_still_prints(process: Run, broker: Broker) -> None:
    """A locale and an encoding without UTF-8 break no command."""
    line = ("--home", str(broker.home), "agents", "list")
    assert process(*line, PYTHONIOENCODING="ascii", LANG="C").code == 0


def test_a_file_that_may_not_be_read_is_one_line(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's refusal names the file and what to look at."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("agentvault_tui.policy.Policy.of", refused)
    answer = cli("--home", str(tmp_path), "policy", "check")
    assert answer.code == 1
    assert answer.err.startswith("agentvault: /some/file: Permission denied: ")


def test_a_folder_in_place_of_a_file_is_wrong_usage(cli: Run, tmp_path: Path) -> None:
    """The remedy is another name, and no owner or mode."""
    answer = cli("--home", str(tmp_path / "h"), "restore", str(tmp_path))
    assert answer.code == 2
    assert answer.err == f"agentvault: {tmp_path}: Is a directory: name a file\n"


def test_settings_that_are_wrong_are_named(cli: Run, tmp_path: Path) -> None:
    """A misspelt key in config.toml is answered with the nearest, and exit 2."""
    (tmp_path / "config.toml").write_text("[broker]\nlisen = '127.0.0.1:1'\n")
    answer = cli("--home", str(tmp_path), "serve")
    assert answer.code == 2
    assert "did you mean listen" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [("serve", "--listen", "127.0.0.1:0"), ("demo", "--headless", "--for", "1")]
)
def test_an_unknown_log_level_is_one_line(
    line: tuple[str, ...], process: Run, tmp_path: Path
) -> None:
    """Told to log at no level there is, a broker names those there are; exit 2."""
    home = tmp_path / "h"
    answer = process("--home", str(home), *line, AGENTVAULT_LOG_LEVEL="LOUD\x1b[31m")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "AGENTVAULT_LOG_LEVEL is 'LOUD" in answer.err
    assert "debug, info, warning, error or critical" in answer.err
    assert "\x1b" not in answer.err


@pytest.mark.parametrize(
    "line",
    [
        ("serve",),
        ("agents", "list"),
        ("audit", "verify"),
        ("console", "--plain"),
        ("demo", "--headless", "--for", "1"),
        ("tenant", "user", "list"),
    ],
)
def test_a_home_others_can_write_in_is_one_line(
    line: tuple[str, ...], cli: Run, tmp_path: Path
) -> None:
    """No command uses a home that is not its user's alone; exit 2, nothing made."""
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    answer = cli("--home", str(home), *line)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"agentvault: others can write in the home {home}")
    assert answer.err.count("\n") == 1
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_a_second_broker_says_who_has_the_home(process: Run, broker: Broker) -> None:
    """Serving a home that is served exits 1 and names the process."""
    answer = process("--home", str(broker.home), "serve", "--listen", "127.0.0.1:0")
    assert (answer.code, answer.out) == (1, "")
    assert str(broker.pid) in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_opened(tmp_path: Path, closed: str) -> None:
    """Another file would take the number, and a command that we start inherits it."""
    code = (
        "import sys; sys.argv[1:] = ['--version']; from agentvault_tui import cli\n"
        "try: cli.main()\n"
        "finally:\n"
        " import os; names = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        f" open('{tmp_path}/names', 'w').write(' '.join(names))\n"
    )
    line = f'exec "$0" -c "$1" {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    names = (tmp_path / "names").read_text().split()
    for number, mark in enumerate(("<&-", ">&-", "2>&-")):
        if f" {mark}" in f" {closed}":
            assert names[number] == "/dev/null"
