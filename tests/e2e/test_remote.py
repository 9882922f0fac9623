"""An operator on another machine: the command line and the console over TLS."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import forked
from support.command_line import PROGRAM, Answer, plain_environment
from support.patience import PATIENT
from support.phone import Phone, public_settings
from support.terminal import Terminal
from support.vault import Vault, fresh_code, serving
from support.vault_stepups import hold, stepup_until

from agentvault_tui.home import Home
from agentvault_tui.web.local_ca import CaFiles

pytestmark = pytest.mark.slow
NO_KEYRING = "keyring.backends.fail.Keyring"


@dataclass
class Laptop:
    """Another machine: its own home, and a session that a process holds."""

    vault: Vault
    folder: Path
    url: str
    ca: Path
    user: dict[str, str]
    tenant: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.environment = plain_environment(
            AGENTVAULT_HOME=str(self.folder / "home"),
            XDG_RUNTIME_DIR=str(self.runtime),
            PYTHON_KEYRING_BACKEND=NO_KEYRING,
            XDG_STATE_HOME=str(self.folder / "state"),
        )

    @property
    def there(self) -> tuple[str, ...]:
        return ("--connect", self.url, "--ca-file", str(self.ca))

    def run(self, *argv: str, **env: str) -> Answer:
        done = forked.run(*argv, env={**self.environment, **env})
        return Answer(done.returncode, done.stdout, done.stderr)

    def do(self, *argv: str) -> Any:
        """Run a command on the broker; return the JSON it prints."""
        answer = self.run(*self.there, *argv, "--json")
        assert answer.code == 0, answer.err
        return answer.json

    def prove(self, stepup_id: str, user: dict[str, str]) -> None:
        """Approve on a phone what a code was asked for."""
        phone = Phone(Home.locate(self.vault.home), self.tenant)
        phone.open(f"approve/{stepup_id}")
        factors = {"password": user["password"]}
        phone.send("sign-in", user=user["user"], **factors)
        assert phone.send("factors", otp=fresh_code(user), **factors).error == ""
        phone.http.close()

    def login(self) -> dict[str, Any]:
        """Sign in, with the second factor given at the broker's machine."""
        line = [*PROGRAM, *self.there, "login", "--json"]
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, text=True, env=self.environment
        ) as process:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            code = started["device"]["user_code"]
            password = self.folder / "password"
            password.touch(mode=0o600)
            password.write_text(self.user["password"])
            given = ("--password-file", str(password), "--otp", fresh_code(self.user))
            user = ("--user", self.user["user"], "--yes")
            said = self.vault.cli("tenant", "activate", code, *user, *given)
            assert said.returncode == 0, said.stderr
            # Both name the address and the key, so that a stranger's code shows.
            assert re.fullmatch(r"127\.0\.0\.1, key [0-9A-F]{4}", started["origin"])
            assert started["origin"] in said.stdout
            me: dict[str, Any] = json.loads(process.stdout.readline())
            assert process.wait(PATIENT) == 0
        return me


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("r")
    home = Home.locate(folder / "h")
    home.prepare()
    made = public_settings(home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pair = f'tls_cert = "{made.tls_cert}"\ntls_key = "{made.tls_key}"\n'
    url = f"https://localhost:{port}"
    home.config_file.write_text(
        '[broker]\ntls = "false"\n'
        f'[tenant]\nlisten = "{made.listen}"\nurl = "{made.url}"\n{pair}'
        f'[operators]\nlisten = "127.0.0.1:{port}"\nurl = "{url}"\n{pair}'
    )
    with serving(home.data) as vault:
        assert vault.ready["operators_url"] == f"{url}/"
        ca = CaFiles.of(home).ca
        laptop = Laptop(vault, folder, url, ca, vault.approver("alice"), made.url)
        yield laptop
        laptop.run(*laptop.there, "logout")  # ends the process that holds the session


def test_everything_the_socket_does_from_elsewhere(laptop: Laptop) -> None:
    """From the first refusal over the sign-in to a revocation, and out again."""
    vault = laptop.vault
    vault.register("payer", "send:payment")
    refused = laptop.run(*laptop.there, "agents", "list")
    assert refused.code == 1
    assert f"agentvault --connect {laptop.url} login" in refused.err
    assert laptop.login()["role"] == "approver"
    (agent,) = laptop.do("agents", "list")["agents"]
    assert agent["name"] == "payer"
    assert laptop.do("whoami")["user"]["name"] == "alice"
    assert laptop.do("agents", "revoke", "payer")["agent"]["status"] == "revoked"
    assert laptop.do("agents", "restore", "payer")["agent"]["status"] == "active"
    tail = laptop.run(*laptop.there, "audit", "tail", "-n", "50", "--json")
    (cut,) = [one for one in tail.lines if one["type"] == "agent.revoked"]
    assert cut["actor"]["name"] == "alice"
    file = laptop.folder / "events.jsonl"
    exported = laptop.do("audit", "export", str(file))
    assert exported["events"] == exported["head"] > 0
    assert laptop.run("audit", "verify", str(file)).code == 0
    checked = laptop.do("audit", "verify")
    assert checked["ok"]
    assert checked["events"] >= exported["events"]

    # The session is in one process's memory, and that says nothing to others.
    (held,) = (laptop.runtime / "agentvault").iterdir()
    assert stat.S_IMODE(held.stat().st_mode) == 0o600
    files = [path for path in laptop.folder.glob("**/*") if path.is_file()]
    assert not [path for path in files if b"av_s_" in path.read_bytes()]
    (pid,) = holders(held)
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^VmLck:\s+[1-9]", status, re.MULTILINE)  # it is never swapped
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"av_s_" not in command

    env = {**laptop.environment, "AGENTVAULT_OPERATORS_CONNECT": laptop.url}
    env["AGENTVAULT_OPERATORS_CA_FILE"] = str(laptop.ca)
    with Terminal([forked.agentvault, "console"], env, columns=120, rows=40) as screen:
        screen.see(f"live   at {laptop.url.removeprefix('https://')}")
        screen.see("payer")
        screen.write("\x11")
    assert laptop.run(*laptop.there, "logout").code == 0
    assert not held.exists()
    assert laptop.run(*laptop.there, "agents", "list").code == 1


def test_a_step_up_is_approved_and_denied_from_elsewhere(laptop: Laptop) -> None:
    """By command and in the console; the factor is proved at the tenant's page."""
    vault = laptop.vault
    agent = vault.register("buyer", "send:payment")
    laptop.login()
    first, denied = hold(agent), hold(agent, amount=1)
    assert laptop.do("stepup", "deny", denied, "--reason", "no")["status"] == "denied"
    line = [*PROGRAM, *laptop.there, "stepup", "approve", first, "--json"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env=laptop.environment
    ) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        where = started["device"]["verification_uri_complete"]
        assert where == f"{laptop.tenant}approve/{first}"
        laptop.prove(first, vault.approver("bob"))
        ended = json.loads(process.stdout.readline())
        assert process.wait(PATIENT) == 0
    assert (ended["status"], ended["decided_by"]["name"]) == ("approved", "bob")
    assert agent.poll(first).status_code == 200

    env = {**laptop.environment, "AGENTVAULT_OPERATORS_CONNECT": laptop.url}
    env["AGENTVAULT_OPERATORS_CA_FILE"] = str(laptop.ca)
    second = hold(agent)
    with Terminal([forked.agentvault, "console"], env, columns=120, rows=40) as screen:
        screen.see("1 waiting")
        screen.write("s")
        screen.see("a approve")
        for _ in range(int(PATIENT)):  # a key counts once the dialog has stood a while
            screen.write("a")  # asks for a code here, once it is read who signed in
            screen.write("p")  # another device proves it
            with suppress(AssertionError):
                screen.see("waiting for sign-in", seconds=2)
                break
        laptop.prove(second, vault.approver("carol"))
        screen.see("approved by carol")
        screen.write("\x11")
    assert stepup_until(vault, second, "approved")["decided_by"]["name"] == "carol"
    assert agent.poll(second).status_code == 200


def test_a_loosening_from_elsewhere_waits_for_a_factor(laptop: Laptop) -> None:
    """The command waits while a phone approves the change, and exits 1 for a no."""
    vault = laptop.vault
    vault.register("cook", "read:calendar")
    laptop.login()
    line = [*PROGRAM, *laptop.there, "agents", "grant", "cook", "send:payment"]
    for decision, code in (("approve", 0), ("deny", 1)):
        with subprocess.Popen(
            [*line, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=laptop.environment,
        ) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            told = process.stderr.readline()
            (change,) = re.findall(r"chg_\w{16}", told)
            assert "this needs an approver's factor" in told
            assert "and enter" in process.stderr.readline()
            if decision == "approve":
                laptop.prove(change, vault.approver("dora"))
            else:
                denied = laptop.do("stepup", "deny", change, "--reason", "no")
                assert denied["status"] == "denied"
            answer = process.stdout.read()
            assert process.wait(PATIENT) == code, process.stderr.read()
        if decision == "approve":
            assert json.loads(answer)["scopes"] == ["read:calendar", "send:payment"]
            (tail,) = laptop.run(
                *(*laptop.there, "audit", "search", "--type", "change.applied"),
                "--json",
            ).lines
            assert tail["actor"]["name"] == "dora"
            laptop.do("agents", "ungrant", "cook", "send:payment")


def holders(held: Path) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(held).encode() in each.read_bytes():
                found.append(each.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "argv",
    [
        ("serve",),
        ("doctor",),
        ("store", "info"),
        ("backup", "b"),
        ("tenant", "user", "list"),
        ("policy", "replay"),
        ("policy", "init"),
    ],
    ids=" ".join,
)
def test_what_works_on_a_home_says_so(laptop: Laptop, argv: tuple[str, ...]) -> None:
    """With the option or with the setting: exit 2, one line, and nothing is done."""
    by_setting = {"AGENTVAULT_OPERATORS_CONNECT": laptop.url}
    for answer in (
        laptop.run("--connect", laptop.url, *argv),
        laptop.run(*argv, **by_setting),
    ):
        assert answer.code == 2, answer
        assert "works on a home" in answer.err
        assert len(answer.err.splitlines()) == 1
    assert not (laptop.folder / "home").exists()


def test_a_hook_says_no_where_a_broker_elsewhere_is_meant(laptop: Laptop) -> None:
    """Some hosts let a call through whose hook only failed: it has its answer."""
    hook = ("hook", "claude-code", "--agent", "payer")
    answer = laptop.run(*hook, AGENTVAULT_OPERATORS_CONNECT=laptop.url)
    assert "AgentVault did not decide" in answer.out + answer.err
    assert "works on a home" not in answer.err


def test_no_authority_is_trusted_at_first_use(laptop: Laptop) -> None:
    """The system's authorities did not make this certificate."""
    answer = laptop.run("--connect", laptop.url, "agents", "list")
    assert answer.code == 3
    assert "is not trusted" in answer.err
    assert "--ca-file" in answer.err


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "ops.example", "https://a@b", "https://a/b", ""]
)
def test_a_url_that_is_none_is_refused(laptop: Laptop, url: str) -> None:
    """Only https, and nothing but host and port; least of all a variable not set."""
    answer = laptop.run("--connect", url, "agents", "list")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
