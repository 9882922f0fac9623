"""Every command that the README and the docs show is typed here, in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support import forked
from support.command_line import plain_environment
from support.needs import program
from support.pages import DOCS, ROOT, all_blocks, blocks
from support.patience import PATIENT
from support.terminal import Terminal
from support.vault import PAYMENT, Client, consent, fresh_code, serving

from agentvault_tui.cli.output import _ARM_SECONDS
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings

PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
CODE = re.compile(r"\b[A-Z]{4}-[A-Z]{4}\b")
MAKE = re.compile(r"make (\w[\w-]*)")
HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
PROGRAMS = {
    *(
        "agentvault",
        "cat",
        "chmod",
        "curl",
        "export",
        "make",
        "openssl",
        "printf",
        "tar",
    )
}
"""What pages use. Where one is missing, the page is skipped; an unknown one fails."""
NOT_TYPED = {
    "auth0.md": "tests/e2e/test_auth0_from_empty.py types them at a tenant",
    "team.md": "tests/cli/test_store.py types those of the store",
}
SHELL = frozenset("|<>$;&*?~`\\\n")
"""What a shell does something about."""
NUMBERS = count(1)
ALONE = ("agents.md", "policy.md", "quickstart.md", "token-vault.md")
HIDDEN_KEY = DOCS / "hide-an-api-key.md"
"""Pages that register who is there, or change what the broker starts with."""
ELSEWHERE = (
    # What needs the network, a browser's window or a service manager, by its start.
    *(
        "git pull",
        "pipx ",
        "uvx ",
        "python3 -m venv",
        "ssh ",
        "rm -rf ",
        "systemctl ",
        "podman ",
        "docker ",
        "agentvault-0.9.0/bin/pip",
        "systemd-sysusers ",
    ),
    "agentvault demo",  # tests/e2e types it
    "agentvault uninstall",  # tests/cli/test_uninstall.py does, for an invented user
    "agentvault --connect",  # tests/e2e/test_remote.py does
    "agentvault policy test",  # test_policy_examples.py does, with the page's rules
)


def commands(page: Path) -> Iterator[str]:
    """Yield what a reader types.

    A command goes on over lines until its quotations and here-document have ended.
    """
    for block in blocks(page, "sh"):
        whole, here = "", ""
        for line in block.splitlines():
            whole += line + "\n"
            if here:  # its lines are no commands
                if line.strip() == here:
                    yield whole.strip()
                    whole, here = "", ""
                continue
            if line.endswith("\\"):
                continue
            if begun := HERE_DOCUMENT.search(line):
                here = begun[2]
                continue
            try:
                words = shlex.split(whole, comments=True)
            except ValueError:  # a quotation goes on
                continue
            if words:
                yield whole.strip()
            whole = ""
        assert not whole, whole


def typed(command: str) -> list[Any]:
    """Return what runs `agentvault` with the words of *command*."""
    return [forked.agentvault, *shlex.split(command, comments=True)[1:]]


class Reader:
    """Somebody at two terminals, who does what a page says."""

    def __init__(self, home: Path, ending: ExitStack, *, alone: bool) -> None:
        self.home, self._ending, self.alone = home, ending, alone
        self.folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        self.variables: dict[str, str] = {}
        self.printed = ""
        self._serving: ExitStack | None = None
        self._approving: subprocess.Popen[str] | None = None
        self._agent: Client | None = None

    # What stands behind the page.

    def serve(self) -> None:
        """Run the broker of this home, anew if it runs."""
        self.stop()
        self._serving = self._ending.enter_context(ExitStack())
        self.vault = self._serving.enter_context(serving(self.home))

    def stop(self) -> None:
        """Stop the broker if it runs."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    def populate(self) -> None:
        """Have what pages speak of: a broker, two agents, and somebody who approves."""
        self.serve()
        self.alice = self.vault.approver("alice")
        agent = self.vault.register("calendar-agent", "read:calendar", "write:calendar")
        self.variables = {
            "AGENTVAULT_URL": self.vault.ready["agents_url"].rstrip("/"),
            "CLIENT_ID": agent.id,
            "CLIENT_SECRET": agent.secret,
        }
        self._agent = self.vault.register("payments-agent", "send:payment")

    def stepup(self) -> str:
        """Return the step-up that waits; if none does, the agent asks for one."""
        found = self.vault.operator.get("/api/agents/stepup").json()["stepups"]
        if found and (found[0]["status"] == "pending" or self._agent is None):
            return str(found[0]["id"])
        assert self._agent is not None
        answer = self._agent.token("send:payment", PAYMENT).json()
        if answer.get("reason") == "cooling_down":  # a page denied a moment ago
            agents = len(self.vault.operator.get("/api/agents").json()["agents"])
            self._agent = self.vault.register(f"payer-{agents}", "send:payment")
            answer = self._agent.token("send:payment", PAYMENT).json()
        return str(answer["auth_req_id"])

    # What a reader types.

    def type(self, command: str) -> None:
        """Do one command, and see that it does not fail."""
        if not command.startswith("agentvault tenant activate"):
            self.finish()
        for pattern, way in (
            (r"make ", self._make),
            (r"export ", self._export),
            (r"agentvault serve", lambda _: self.alone and self.serve()),
            (r"agentvault( --link \w+| console)?( +#.*)?$", self._look),
            (r"agentvault (stepup approve|login)", self._begin),
            (r"agentvault tenant activate", self._activate),
            (r"agentvault connections add", self._connect),
            (r"agentvault secrets set", self._seal),
            (r".* --follow", lambda line: self._start(line).kill()),
        ):
            if re.match(pattern, command):
                way(command)
                return
        self._run(command)

    def _make(self, command: str) -> None:
        """See that the target is there; what it does takes a network."""
        (target,) = MAKE.findall(command)
        self._run(f"make --directory {ROOT} --dry-run {target}")

    def _filled(self, command: str) -> str:
        """Put what this broker printed in the places that a page leaves open."""
        if "sup_…" in command:
            command = command.replace("sup_…", self.stepup())
        if self._serving is not None:
            address = self.vault.ready["agents_url"].rstrip("/")
            command = command.replace("http://127.0.0.1:7717", address)
            if "agt_…" in command:
                agents = self.vault.operator.get("/api/agents").json()["agents"]
                command = command.replace("agt_…", agents[0]["id"])
        return command

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return plain_environment(
            AGENTVAULT_HOME=str(self.home),
            HOME=str(self.folder),
            **{"PATH": path, **self.variables},
        )

    def _run(self, command: str) -> None:
        command = self._filled(command)
        if command.startswith("agentvault ") and SHELL.isdisjoint(command):
            words = shlex.split(command, comments=True)[1:]
            done = forked.run(*words, env=self._environment, folder=self.folder)
        else:
            done = subprocess.run(
                ["/bin/sh", "-euc", command],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENT,
                check=False,
            )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        self.printed = done.stdout
        if command.startswith("agentvault tenant user add alice"):
            (password,) = re.findall(r"^password +(\S+)", self.printed, re.MULTILINE)
            (seed,) = re.findall(
                r"^one-time code seed +(\S+)", self.printed, re.MULTILINE
            )
            self.alice = {"user": "alice", "password": password, "otp_secret": seed}

    def _export(self, command: str) -> None:
        """Set variables; a value that ends in … is one that was printed before."""
        for word in shlex.split(command, comments=True)[1:]:
            name, _, value = word.partition("=")
            if value.endswith("…"):
                value = re.search(rf"{value[:-1]}[\w-]+", self.printed)[0]
            value = value.replace("$PWD", str(ROOT))
            self.variables[name] = value.replace("$PATH", os.environ["PATH"])

    def _start(self, command: str) -> subprocess.Popen[str]:
        """Run what does not end by itself, until its first line."""
        line = shlex.split(self._filled(command), comments=True)
        process = self._ending.enter_context(
            subprocess.Popen(
                line,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self._ending.callback(process.kill)
        return process

    def _look(self, command: str) -> None:
        """Open the console, see an agent, and leave."""
        line = typed(command)
        with Terminal(line, self._environment, columns=120, rows=40) as terminal:
            terminal.see("agent")
            terminal.write("\x11")
            assert terminal.finish() == 0

    def _begin(self, command: str) -> None:
        """Ask for a device code, which is to be entered next."""
        self._approving = self._start(command)
        assert self._approving.stdout is not None
        for line in self._approving.stdout:
            if found := CODE.search(line):
                self.code = found[0]
                return
        raise AssertionError(f"{command}: no code")

    def finish(self) -> None:
        """Enter the code that was asked for, if nobody did, and see it accepted."""
        if self._approving is None:
            return
        if self._approving.poll() is None:
            # A one-time code counts once: each code is entered by somebody else.
            person = self.vault.approver(f"person-{next(NUMBERS)}")
            self.vault.activate({"user_code": self.code}, person)
        self._accepted()

    def _accepted(self) -> None:
        assert self._approving is not None
        assert self._approving.wait(PATIENT) == 0
        self._approving = None

    def _activate(self, command: str) -> None:
        """Sign in at the other terminal, read what it shows, and say yes."""
        line = typed(command.replace("CODE", self.code))
        with Terminal(line, self._environment) as terminal:
            terminal.see("Password")
            terminal.write(self.alice["password"] + "\n")
            terminal.see("One-time code")
            terminal.write(fresh_code(self.alice) + "\n")
            terminal.see("Approve exactly this?")
            time.sleep(_ARM_SECONDS)  # what comes sooner was not read, and is no answer
            terminal.write("y\n")
            assert terminal.finish() == 0, terminal.display
        self._accepted()

    def _seal(self, command: str) -> None:
        """Type a value where it is asked for, twice, unseen."""
        with Terminal(typed(command), self._environment) as terminal:
            for asked in ("Value", "Once more"):
                terminal.see(asked)
                terminal.write("sk_live_example\n")
            assert terminal.finish() == 0, terminal.display
            assert "sk_live_example" not in "\n".join(terminal.display)

    def _connect(self, command: str) -> None:
        """Sign in and allow the account, and paste the address of each page's end."""
        process = self._start(f"{command} --port 0")
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            if line.startswith("http"):
                process.stdin.write(consent(line.strip(), self.alice) + "\n")
                process.stdin.flush()
        assert process.wait(PATIENT) == 0


@contextmanager
def reading(page: Path | None) -> Iterator[Reader]:
    """Have a reader with a home of their own, as *page* wants it."""
    with tempfile.TemporaryDirectory(prefix="h-") as home, ExitStack() as ending:
        if page and page.name == "token-vault.md":
            (Path(home) / "config.toml").write_text(blocks(page, "toml")[0])
        reader = Reader(Path(home), ending, alone=page is not None)
        if page is None or page.name != "quickstart.md":
            reader.populate()
        yield reader


@pytest.fixture(scope="module")
def shared() -> Iterator[Reader]:
    """One broker for all pages that leave it as others expect it."""
    with reading(None) as reader:
        yield reader


@pytest.fixture
def reader(request: pytest.FixtureRequest, page: Path) -> Iterator[Reader]:
    if page.name not in ALONE:
        yield request.getfixturevalue("shared")
        return
    with reading(page) as reader:
        yield reader


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in NOT_TYPED and blocks(page, "sh")],
    ids=lambda page: page.name,
)
def test_every_command_of_the_page_works(page: Path, reader: Reader) -> None:
    """Typed in order, at a broker that runs, none of them fails."""
    typed = [one for one in commands(page) if not one.startswith(ELSEWHERE)]
    assert typed
    programs = {one.split()[0] for one in typed}
    assert programs <= PROGRAMS
    programs -= {"agentvault", "export"}
    for one in programs:
        program(one)
    for block in blocks(page, "toml"):
        if block.startswith("[issuers."):
            (reader.home / "config.toml").write_text(block)
            reader.serve()
            address = reader.vault.ready["agents_url"].rstrip("/")
            reader.variables["AGENTVAULT_URL"] = address
    if page.name in {HIDDEN_KEY.name, "gateway.md"}:
        (orders,) = blocks(HIDDEN_KEY, "toml")
        (reader.home / "services" / "orders.toml").write_text(orders)
    if page.name == "gateway.md":  # which goes on from there
        reader.type("agentvault secrets set orders")
    for command in typed:
        reader.type(command)
    reader.finish()


def test_a_here_document_is_part_of_its_command(tmp_path: Path) -> None:
    """Its lines are typed with the command that reads them, and are no commands."""
    page = tmp_path / "page.md"
    text = "cat > a.toml <<'EOF'\norigin = \"x\"\nit's text\nEOF\n"
    page.write_text(f"```sh\n{text}agentvault doctor\n```\n")
    assert [*commands(page)] == [text.strip(), "agentvault doctor"]


def test_every_settings_example_is_one(tmp_path: Path) -> None:
    """Each TOML block with a section of config.toml is accepted as such a file."""
    shown: dict[str, set[str]] = {}
    for page in PAGES:
        for block in blocks(page, "toml"):
            if sections := {*tomllib.loads(block)} & {*Settings.__slots__}:
                (tmp_path / "config.toml").write_text(block)
                Settings.load(Home(tmp_path, tmp_path), environ={})
                shown.setdefault(page.name, set()).update(sections)
    assert shown["configuration.md"] >= {"broker", "operators", "stepup", "tokens"}
    assert shown["auth0.md"] == {"tenant"}
    assert shown["token-vault.md"] >= {"tenant", "connections"}
    assert "gateway" in shown["run.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_escapes_the_test(page: Path) -> None:
    """A block that shows `agentvault` as typed is marked `sh`, and so it is typed."""
    for kind, text in all_blocks(page):
        if kind not in {"sh", "text"} and page.name not in NOT_TYPED:
            assert not re.search(r"^(\$ )?agentvault ", text, re.MULTILINE), text
