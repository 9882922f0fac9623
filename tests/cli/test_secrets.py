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
    assert run("secrets", "set", name, "--json").json == {"secret": name, "set": True}
    listed = run("secrets", "list", "--json")
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
    answer = av("secrets", "set", "never")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "never" not in names(av("secrets", "list", "--json"))


def test_the_value_is_no_argument(av: Run) -> None:
    """A value on the command line is refused: everyone on the machine reads those."""
    assert av("secrets", "set", "never", CANARY).code == 2


def test_a_claimed_role_is_needed_where_nobody_can_show_one(
    cli: Run, type_in: Callable[[bytes], None], tmp_path: Path
) -> None:
    """With roles from the tenant, setting takes a broker; removing never does."""
    (tmp_path / "config.toml").write_text('[operators]\nroles = "claim"\n')
    type_in(b"x")
    assert cli("--home", str(tmp_path), "secrets", "set", "a").code == 3
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

        def run(*argv: str) -> bytes:
            done = subprocess.run(
                [*PROGRAM, "--home", str(home), *argv],
                capture_output=True,
                env=plain_environment(),
                timeout=PATIENT,
                check=True,
            )
            seen.append(done.stdout + done.stderr)
            return done.stdout

        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, "--home", str(home), "secrets", "set", "stripe-live"],
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
    assert av("secrets", "set", "beside").code == 0
    socket = broker.home / "run" / "agentvault.sock"
    moved = socket.rename(socket.with_suffix(".away"))
    try:
        type_in(b"other")
        answer = av("secrets", "set", "beside")
        assert answer.code == 1
        assert "broker" in answer.err
    finally:
        moved.rename(socket)
    assert "beside" in names(av("secrets", "list", "--json"))
