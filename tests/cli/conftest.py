"""One real broker for the room, and `agentvault` called in and out of process."""

from __future__ import annotations

import json
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
)
from support.https_site import (
    SECRET,
    Site,
    add_node_package,
    add_python_package,
    add_repository,
    https_site,
)
from support.patience import PATIENT

from agentvault_tui.cli.app import run as run_line

Run = Callable[..., Answer]
_RUNNERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts processes of its own."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent != here:
            continue
        if {"behind", "process"} & {*getattr(item, "fixturenames", ())}:
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
def start(broker: Broker) -> Iterator[Callable[..., forked.Forked]]:
    """Start a command line as a process that ends with the test."""
    with ExitStack() as stack:

        def call(*argv: str) -> forked.Forked:
            process = stack.enter_context(forked.Forked(argv, broker.env))
            stack.callback(process.kill)
            return process

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a file, a repository and packages."""
    folder = tmp_path_factory.mktemp("s")
    with https_site(folder) as opened:
        opened.files["/data.json"] = b'{"answer": 42}'
        add_repository(opened, folder)
        add_python_package(opened)
        add_node_package(opened)
        yield opened


@pytest.fixture(scope="module")
def service(broker: Broker, site: Site) -> str:
    """The site as a service whose reads the scope read:calendar allows."""
    folder = broker.home / "services"
    folder.mkdir(exist_ok=True)
    (folder / "my-site.toml").write_text(
        f'origin = "{site.url}"\nallow_private = true\nca_file = "{site.ca}"\n'
        '[credential]\nkind = "bearer"\nsecret = "site"\n'
        '[[routes]]\nmethod = "GET"\npath = "/{rest*}"\nscope = "read:calendar"\n'
    )
    line = ("secrets", "set", "site")
    forked.run(*line, env=broker.env, given=SECRET.encode()).check_returncode()
    return "my-site"


@pytest.fixture
def coder(av: Run, service: str) -> str:
    """The name of an agent that may read the site."""
    assert service
    name = f"runner-{next(_RUNNERS)}"
    added = av("agents", "add", name, "--owner", "o", "--scope", "read:calendar")
    assert added.code == 0
    return name


@pytest.fixture
def behind(broker: Broker, coder: str, tmp_path: Path) -> Run:
    """Run a command behind the gateway, in a folder and a HOME of its own."""
    home = tmp_path / "me"
    home.mkdir()
    (tmp_path / "work").mkdir()

    def call(*words: str, options: tuple[str, ...] = (), **more: str) -> Answer:
        line = ("run", "--agent", coder, *options, "--", *words)
        env = broker.env | {"HOME": str(home)} | more
        done = forked.run(*line, env=env, folder=tmp_path / "work")
        return Answer(done.returncode, done.stdout, done.stderr)

    return call
