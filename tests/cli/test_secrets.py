"""`agentvault secrets`: the same with a broker and without, and no value anywhere."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import forked
from support.command_line import PROGRAM, Answer, Broker, plain_environment, running
from support.patience import PATIENT

Run = Callable[..., Answer]
CANARY = "sk_live_canary_8861f0"


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Gives standard input to the next command line."""

    def give(content: bytes) -> None:
        stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)

    return give


def names(answer: Answer) -> list[str]:
    return [one["name"] for one in answer.json["secrets"]]


@pytest.mark.slow
@pytest.mark.parametrize("broker_runs", [True, False])
def test_secrets_are_kept_with_a_broker_and_without(
    *,
    av: Run,
    cli: Run,
    type_in: Callable[[bytes], None],
    tmp_path: Path,
    broker_runs: bool,
) -> None:
    """Set, listed, rotated, removed; each change is one event without the value."""
    run = av if broker_runs else lambda *a: cli("--home", str(tmp_path), *a)
    name = f"cli-{broker_runs}".lower()
    type_in(f"{CANARY}\n".encode())
    to = ("--for", "HTTPS://api.test:443", "--for", "smtp://m.test")
    told = {"secret": name, "set": True}
    told |= {"for": ["https://api.test", "smtp://m.test:587"]}
    assert run("secrets", "set", name, *to, "--json").json == told
    listed = run("secrets", "list", "--json")
    (row,) = [one for one in listed.json["secrets"] if one["name"] == name]
    assert (row["for"], row["used_by"]) == (told["for"], [])
    assert name in names(listed)
    assert listed.json["key"] == "home"
    assert CANARY not in listed.out + run("secrets", "list").out
    assert run("secrets", "rotate-key", "--json").json == {"key_rotated": True}
    assert run("secrets", "remove", name).code == 0
    assert run("secrets", "remove", name).code == 4
    assert name not in names(run("secrets", "list", "--json"))
    export = tmp_path / "export.jsonl"
    assert run("audit", "export", str(export)).code == 0
    events = [json.loads(row) for row in export.read_text().splitlines()]
    mine = [
        event["reason"]
        for event in events
        if event.get("type") == "secret.changed" and event["resource"] in {name, None}
    ]
    assert mine == ["set", "key rotated", "removed"]
    assert CANARY not in export.read_text()


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff\xfe", b"x" * 5000])
def test_values_that_cannot_be_sent_are_refused(
    av: Run, type_in: Callable[[bytes], None], content: bytes
) -> None:
    """Nothing, several lines, other encodings and too much exit 2, and set nothing."""
    type_in(content)
    answer = av("secrets", "set", "never", "--for", "none")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "never" not in names(av("secrets", "list", "--json"))


@pytest.mark.parametrize(
    "listed",
    [
        ("https://api.test/v1",),
        ("api.test",),
        ("none", "https://api.test"),
        ("https://api.test@evil.test",),
        ("",),
    ],
)
def test_a_list_that_is_none_is_refused_before_the_value_is_read(
    av: Run, listed: tuple[str, ...]
) -> None:
    """It exits 2 and sets nothing; nobody types a value in vain."""
    options = [word for one in listed for word in ("--for", one)]
    assert av("secrets", "set", "never", *options).code == 2
    assert "never" not in names(av("secrets", "list", "--json"))


def test_a_secret_that_nothing_names_needs_a_list(
    av: Run, cli: Run, tmp_path: Path
) -> None:
    """With a broker and without one it exits 2, and says how to list origins."""
    for answer in (
        av("secrets", "set", "never"),
        cli("--home", str(tmp_path), "secrets", "set", "never"),
    ):
        assert answer.code == 2
        assert "--for" in answer.err


SERVICE = """origin = "https://api.stripe.test"
[credential]
kind = "client_credentials"
secret = "shared"
client_id = "me"
token_endpoint = "https://login.stripe.test:8443/token"
"""
ALERTS = """[sinks.ops]
kind = "webhook"
url = "https://hooks.acme.test/in"
secret = "shared"
[sinks.mail]
kind = "email"
host = "Mail.acme.test"
from = "a@acme.test"
to = "b@acme.test"
username = "a"
password = "shared"
[sinks.chat]
kind = "slack"
url_secret = "chat"
"""
LIMITS = """[[hooks]]
id = "risk"
url = "https://risk.acme.test/ask"
scopes = ["payments"]
secret = "shared"
"""
MCP = """url = "https://mcp.acme.test/mcp"
[credential]
kind = "bearer"
secret = "shared"
"""


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A home whose files name secrets in each way there is; no broker runs."""
    for name, text in (
        ("services/stripe.toml", SERVICE),
        ("mcp/tools.toml", MCP),
        ("alerts.toml", ALERTS),
        ("limits.toml", LIMITS),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    return tmp_path


def test_without_a_list_the_origins_of_all_that_name_it_are_shown_and_taken(
    cli: Run, type_in: Callable[[bytes], None], configured: Path
) -> None:
    """Services with their token endpoint, MCP servers, sinks and webhooks; Slack's URL
    is for its own origin.
    """
    home = ("--home", str(configured))
    origins = [
        "https://api.stripe.test",
        "https://hooks.acme.test",
        "https://login.stripe.test:8443",
        "https://mcp.acme.test",
        "https://risk.acme.test",
        "smtp://mail.acme.test:587",
    ]
    type_in(b"value")
    answer = cli(*home, "secrets", "set", "shared", "--json")
    assert answer.json["for"] == origins
    assert all(origin in answer.err for origin in origins)
    type_in(b"https://Hooks.slack.test/services/T0/B0/key")
    answer = cli(*home, "secrets", "set", "chat", "--json")
    assert answer.json["for"] == ["https://hooks.slack.test"]
    type_in(b"no url")
    assert cli(*home, "secrets", "set", "chat").code == 2
    listed = {
        one["name"]: one
        for one in cli(*home, "secrets", "list", "--json").json["secrets"]
    }
    assert listed["shared"]["for"] == origins
    assert listed["shared"]["used_by"] == ["stripe", "risk", "tools", "mail", "ops"]
    assert listed["chat"]["used_by"] == ["chat"]
    assert not any(user["refused"] for one in listed.values() for user in one["users"])
    shown = cli(*home, "secrets", "list").out
    assert "sink ops" in shown
    assert "https://hooks.slack.test" in shown


def test_doctor_names_who_gets_no_secret(
    cli: Run, type_in: Callable[[bytes], None], configured: Path
) -> None:
    """Before a broker starts, doctor says which file sends a secret elsewhere."""
    home = ("--home", str(configured))
    type_in(b"value")
    assert cli(*home, "secrets", "set", "shared", "--for", "https://a.test").code == 0
    found = cli(*home, "doctor", "--json").json["findings"]
    told = [one["what"] for one in found if one["level"] == "warning"]
    for user in ("stripe", "tools", "sink ops", "sink mail", "hook risk"):
        assert any(user in what and "is not for" in what for what in told), user


def test_the_value_is_no_argument(av: Run) -> None:
    """A value on the command line is refused: everyone on the machine reads those."""
    assert av("secrets", "set", "never", CANARY).code == 2


def test_a_claimed_role_is_needed_where_nobody_can_show_one(
    cli: Run, type_in: Callable[[bytes], None], tmp_path: Path
) -> None:
    """With roles from the tenant, setting takes a broker; removing never does."""
    (tmp_path / "config.toml").write_text('[operators]\nroles = "claim"\n')
    type_in(b"x")
    line = ("--home", str(tmp_path), "secrets", "set", "a", "--for", "none")
    assert cli(*line).code == 3
    assert cli("--home", str(tmp_path), "secrets", "remove", "a").code == 4


def everything(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_secret_is_nowhere_in_the_clear(tmp_path: Path) -> None:
    """Not in database, WAL, backup, export, log, environment, argv or any file.

    It is typed at a terminal, and a service that uses it is listed and tried.
    """
    home = tmp_path / "h"
    line = ("--home", str(home), "serve", "--listen", "127.0.0.1:0")
    seen = [b""]
    log = (tmp_path / "log").open("w+b")
    with running(line, plain_environment(), stderr=log.fileno()) as process:
        assert process.stdout is not None
        seen.append(process.stdout.readline().encode())

        def run(*argv: str) -> str:
            done = forked.run("--home", str(home), *argv, env=plain_environment())
            assert done.returncode == 0
            seen.append((done.stdout + done.stderr).encode())
            return done.stdout

        to = ("--for", "https://api.stripe.com")
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, "--home", str(home), "secrets", "set", "stripe-live", *to],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=plain_environment(),
            start_new_session=True,  # it asks at the terminal of its session
        ) as typing:
            said = b""
            for _ in range(2):
                while not said.rstrip(b"\r\n").endswith((b"Value: ", b"Once more: ")):
                    said += os.read(ours, 1024)
                proc = Path(f"/proc/{typing.pid}")
                seen += [(proc / n).read_bytes() for n in ("cmdline", "environ")]
                os.write(ours, f"{CANARY}\n".encode())
                seen.append(said)
                said = b""
            assert typing.wait(PATIENT) == 0
        os.close(ours)
        os.close(theirs)
        run("services", "import", "stripe")
        assert json.loads(run("secrets", "list", "--json"))["secrets"]
        run("services", "list", "--json")
        run("audit", "export", str(tmp_path / "export.jsonl"))
        run("secrets", "rotate-key")
        proc = Path(f"/proc/{process.pid}")
        seen += [(proc / n).read_bytes() for n in ("cmdline", "environ")]
        seen.append(everything(home))
        process.terminate()
        assert process.wait(PATIENT) == 0
    log.close()
    # The log and the export lie beside the home.
    seen.append(everything(tmp_path))
    value = CANARY.encode()
    forms = [value, value.hex().encode(), value[::-1]]
    forms += [base64.b64encode(b"\0" * n + value)[4:-4] for n in range(3)]
    for place in seen:
        assert not any(form in place for form in forms)
    assert b"secret.changed" in b"".join(seen)


def test_the_broker_reads_what_was_set_while_it_did_not_run(
    cli: Run, av: Run, broker: Broker, type_in: Callable[[bytes], None]
) -> None:
    """A home that a broker has is never changed from beside it."""
    type_in(CANARY.encode())
    line = ("secrets", "set", "beside", "--for", "none")
    assert av(*line).code == 0
    socket = broker.home / "run" / "agentvault.sock"
    moved = socket.rename(socket.with_suffix(".away"))
    try:
        type_in(b"other")
        answer = av(*line)
        # 1: the home is in use. 3: an approver of the home would have to agree.
        assert answer.code in {1, 3}
        assert "broker" in answer.err
    finally:
        moved.rename(socket)
    assert "beside" in names(av("secrets", "list", "--json"))
