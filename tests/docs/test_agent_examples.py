"""The curl command and the Python program of docs/agents.md work as shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from support.needs import needs
from support.pages import DOCS, example
from support.vault import Vault

PAGE = DOCS / "agents.md"
NUMBERS = count(1)


@dataclass(frozen=True)
class Reader:
    """Who types an example: an agent of its own."""

    agent: str
    environment: dict[str, str]


@pytest.fixture
def reader(vault: Vault) -> Reader:
    name = f"page-agent-{next(NUMBERS)}"
    agent = vault.register(name, "write:calendar", "send:payment")
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return Reader(
        agent.id,
        {
            **kept,
            "AGENTVAULT_URL": vault.ready["agents_url"].rstrip("/"),
            "CLIENT_ID": agent.id,
            "CLIENT_SECRET": agent.secret,
        },
    )


@needs(shutil.which("curl"), "curl", "apt-get install curl")
def test_the_curl_example_gets_a_token(reader: Reader) -> None:
    """The curl command prints a token for the scope it asks for."""
    done = subprocess.run(
        ["/bin/sh", "-euc", example(PAGE, "curl")],
        env=reader.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["access_token"].startswith("av_t_")
    assert answer["scope"] == "write:calendar"


@pytest.fixture
def python_example(reader: Reader) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", example(PAGE, "python")],
        env=reader.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def waiting(
    vault: Vault, reader: Reader, process: subprocess.Popen[str]
) -> dict[str, Any]:
    """Wait until the example's request waits for a person."""
    while process.poll() is None:
        query = {"agent": reader.agent}
        reply = vault.operator.get("/api/agents/stepup", params=query).json()
        if reply["stepups"]:
            return dict(reply["stepups"][0])
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def test_the_python_example_waits_and_gets_its_token(
    vault: Vault, reader: Reader, python_example: subprocess.Popen[str]
) -> None:
    """The program polls until a person approves, then holds a token of one use."""
    user = vault.approver("alice")
    stepup = waiting(vault, reader, python_example)
    assert stepup["action"] == "send:payment"
    reply = vault.operator.post(
        "/api/agents/stepup",
        json={"id": stepup["id"], "decision": "approve", "digest": stepup["digest"]},
    )
    vault.activate(reply.json()["device"], user)
    out, err = python_example.communicate()
    assert out.startswith("av_e_"), (out, err)
    assert err == ""
    assert python_example.returncode == 0


def test_the_python_example_reads_a_refusal(
    vault: Vault, reader: Reader, python_example: subprocess.Popen[str]
) -> None:
    """A denial ends the program's wait, with the reason the person gave."""
    stepup = waiting(vault, reader, python_example)
    vault.operator.post(
        "/api/agents/stepup",
        json={"id": stepup["id"], "decision": "deny", "reason": "ask me in January"},
    )
    out, err = python_example.communicate()
    assert "ask me in January" in out, (out, err)
