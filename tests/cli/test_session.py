"""The socket client: what a broker that is not well makes of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command_line import HOSTILE, Answer

Run = Callable[..., Answer]


@contextmanager
def answering(home: Path, answer: bytes) -> Iterator[None]:
    """Give every connection to the home's socket the same bytes."""
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(home / "run" / "agentvault.sock"))
        listener.listen()
        ended = threading.Event()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if ended.is_set():
                        return
                    connection.recv(65_536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(listener.getsockname())
            thread.join()


def http(status: str, body: str) -> bytes:
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (b"", 3, "broke off"),
        (b"rubbish\r\n\r\n", 3, "broke off"),
        (http("200 OK", "{"), 1, "not JSON"),
        (http("500 No", "<html>"), 1, "HTTP status 500"),
        (http("404 No", '{"detail":"no such agent"}'), 4, "no such agent"),
        (http("409 No", '{"detail":"decided","remedy":"look"}'), 1, "decided: look"),
        (http("503 No", '{"detail":"cannot write"}'), 1, "cannot write"),
        (http("400 No", '{"detail":"unknown scope"}'), 2, "unknown scope"),
        (http("200 OK", "[1, 2]"), 1, "not one of this version"),
    ],
)
def test_malformed_answers_of_the_broker_exit_one(
    answer: bytes, code: int, word: str, cli: Run, tmp_path: Path
) -> None:
    """Each is one line with its exit code, never a traceback."""
    with answering(tmp_path, answer):
        found = cli("--home", str(tmp_path), "agents", "list")
    assert (found.code, found.out) == (code, "")
    assert found.err.count("\n") == 1
    assert word in found.err


def test_a_hostile_problem_is_inert(cli: Run, tmp_path: Path) -> None:
    """Even the broker's own words go through the one door."""
    with answering(tmp_path, http("409 No", json.dumps({"detail": HOSTILE}))):
        found = cli("--home", str(tmp_path), "agents", "list")
    assert found.err.count("\n") == 1
    assert found.err.rstrip("\n").isprintable()


def test_settings_that_cannot_be_read_keep_nobody_from_the_socket(
    cli: Run, short: Path
) -> None:
    """Cutting off here needs no mended file; without a socket it is named."""
    (short / "config.toml").write_text('[operators]\nconnect = "https://ops.example\n')
    line = ("--home", str(short), "agents", "list", "--json")
    refused = cli(*line)
    assert (refused.code, "config.toml" in refused.err) == (2, True)
    page = {"agents": [], "total": 0}
    with answering(short, http("200 OK", json.dumps(page))):
        assert cli(*line).code == 0


def test_authorities_in_the_settings_are_relative_to_them(
    cli: Run, tmp_path: Path
) -> None:
    """Those of the command line are relative to where that is typed."""
    settings = '[operators]\nconnect = "https://ops.example"\nca_file = "none.pem"\n'
    (tmp_path / "config.toml").write_text(settings)
    line = ("--home", str(tmp_path), "agents", "list")
    named = tmp_path / "none.pem"
    assert f"agentvault: {named} cannot be read" in cli(*line).err
    named.write_text("")
    assert f"agentvault: {named} holds no" in cli(*line).err
    named.chmod(0o666)
    assert f"agentvault: others can write to {named}" in cli(*line).err
    assert "agentvault: my.pem holds no" in cli(*line, "--ca-file", "my.pem").err


@pytest.mark.parametrize("line", [("list",), ("remove", "stripe-live")])
def test_secrets_of_a_broker_elsewhere_are_not_those_of_this_home(
    cli: Run, tmp_path: Path, line: tuple[str, ...]
) -> None:
    """Where it does not answer nothing is read or changed here in its place."""
    at = ("--home", str(tmp_path / "h"), "--connect", "https://127.0.0.1:1")
    assert cli("secrets", *line, *at).code == 3
    assert not (tmp_path / "h").exists()
