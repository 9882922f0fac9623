"""One real broker for the room, and `agentvault` called in and out of process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from support import forked
from support.command_line import (
    Agent,
    Answer,
    Broker,
    plain_environment,
    running,
)
from support.patience import PATIENT

from agentvault_tui.cli.app import run as run_line


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts processes of its own."""
    for item in items:
        names = {*getattr(item, "fixturenames", ())}
        if item.path.parent == Path(__file__).parent and names & {"behind", "process"}:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """`agentvault serve` as a process of its own, on a free port."""
    home = tmp_path_factory.mktemp("h")
    line = ("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    # Others make approvers and run commands here: their changes are not to wait.
    env = plain_environment(AGENTVAULT_CHANGES_SOCKET="uid")
    with forked.Forked(line, env) as process:
        said = json.loads(process.stdout.readline())
        yield Broker(home, said["agents_url"], said["pid"])
        process.terminate()
        assert process.wait(PATIENT) == 0


@pytest.fixture
def start(broker: Broker) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command line as a process that ends with the test."""
    with ExitStack() as stack:

        def call(*argv: str) -> subprocess.Popen[str]:
            return stack.enter_context(running(argv, broker.env))

        yield call


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run one command line in this process."""

    def call(*argv: str) -> Answer:
        capsys.readouterr()
        code = run_line(argv)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture
def av(cli: Callable[..., Answer], broker: Broker) -> Callable[..., Answer]:
    """Run one command line on the broker's home."""

    def call(*argv: str) -> Answer:
        return cli("--home", str(broker.home), *argv)

    return call


@pytest.fixture
def process() -> Callable[..., Answer]:
    """Run one command line as a process, without a terminal."""

    def call(*argv: str, **env: str) -> Answer:
        done = forked.run(*argv, env=plain_environment(**env))
        return Answer(done.returncode, done.stdout, done.stderr)

    return call


_NUMBERS = count(1)


@pytest.fixture
def agent(av: Callable[..., Answer], broker: Broker) -> Agent:
    """A new agent that may pay and read the calendar."""
    name = f"agent-{next(_NUMBERS)}"
    scopes = ("--scope", "send:payment", "--scope", "read:calendar")
    added = av(
        "agents", "add", name, "--owner", "bob@acme.test", *scopes, "--json"
    ).json
    return Agent(broker, name, added["id"], added["client_secret"])


@pytest.fixture
def place(short: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own folder, with a project in it where the command is typed."""
    (short / "project").mkdir()
    monkeypatch.setenv("HOME", str(short))
    monkeypatch.chdir(short / "project")
    return short


@pytest.fixture
def run(cli: Callable[..., Answer], place: Path) -> Callable[..., Answer]:
    """Run a command on a home of its own, with an MCP server and no broker."""
    home = place / "vault"
    (home / "mcp").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    (home / "mcp" / "files.toml").write_text('command = ["x"]')
    return partial(cli, "--home", str(home))
