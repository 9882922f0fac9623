"""What README.md shows under "Connect an agent" works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
AGENTVAULT = (sys.executable, "-P", "-m", "agentvault_tui.cli")


def example(name: str) -> str:
    """Return the code block behind the README's mark ``<!-- tested: name -->``."""
    found = re.search(
        rf"<!-- tested: {name} -->\n```\w+\n(.*?)^```$",
        README.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"README.md has no example marked 'tested: {name}'"
    return found[1]


@dataclass(frozen=True)
class Running:
    """A real broker with one agent."""

    home: Path
    environment: dict[str, str]
    operators: httpx.Client

    def agentvault(self, *arguments: str, ending: int = 0) -> str:
        """Run a command of the command line; it must end with *ending*."""
        done = subprocess.run(
            [*AGENTVAULT, "--home", str(self.home), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == ending, done.stderr
        return done.stdout


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    process = subprocess.Popen(
        [*AGENTVAULT, "--home", str(tmp_path), "serve", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    operators = httpx.Client(
        transport=httpx.HTTPTransport(uds=said["operator_socket"]),
        base_url="http://agentvault",
        trust_env=False,
    )
    agent = operators.post(
        "/api/agents",
        json={
            "name": "readme-agent",
            "owner": "alice@acme.test",
            "scopes": ["write:calendar", "send:payment"],
        },
    ).json()
    environment = {
        **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
        "AGENTVAULT_URL": said["agents_url"].rstrip("/"),
        "CLIENT_ID": agent["client_id"],
        "CLIENT_SECRET": agent["client_secret"],
    }
    yield Running(tmp_path, environment, operators)
    operators.close()
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_example_gets_a_token(running: Running) -> None:
    """The curl command prints a token for the scope it asks for."""
    done = subprocess.run(
        ["/bin/sh", "-euc", example("curl")],
        env=running.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["access_token"].startswith("av_t_")
    assert answer["scope"] == "write:calendar"


@pytest.fixture
def python_example(running: Running) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", example("python")],
        env=running.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def waiting(running: Running, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until the example's request waits for a person."""
    while process.poll() is None:
        reply = running.operators.get("/api/agents/stepup").json()
        if reply["stepups"]:
            return dict(reply["stepups"][0])
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_the_python_example_waits_and_gets_its_token(
    running: Running, python_example: subprocess.Popen[str]
) -> None:
    """The program polls until a person approves, then holds a token of one use."""
    user = json.loads(
        running.agentvault("tenant", "user", "add", "alice", "--approver", "--json")
    )
    stepup = waiting(running, python_example)
    assert stepup["action"] == "send:payment"
    reply = running.operators.post(
        "/api/agents/stepup",
        json={"id": stepup["id"], "decision": "approve", "digest": stepup["digest"]},
    )
    password = running.home / "password"
    password.write_text(user["password"])
    password.chmod(0o600)
    running.agentvault(
        *("tenant", "activate", reply.json()["device"]["user_code"]),
        *("--user", "alice", "--password-file", str(password)),
        *("--otp", pyotp.TOTP(user["otp_secret"]).now(), "--yes"),
    )
    out, err = python_example.communicate()
    assert out.startswith("av_e_"), (out, err)
    assert python_example.returncode == 0


def test_the_python_example_reads_a_refusal(
    running: Running, python_example: subprocess.Popen[str]
) -> None:
    """A denial ends the program's wait, with the reason the person gave."""
    stepup = waiting(running, python_example)
    running.operators.post(
        "/api/agents/stepup",
        json={"id": stepup["id"], "decision": "deny", "reason": "ask me in January"},
    )
    out, err = python_example.communicate()
    assert "ask me in January" in out, (out, err)
