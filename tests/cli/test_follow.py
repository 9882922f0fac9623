"""`audit tail --follow` over what a broker in good health never does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer
from support.wire_shapes import agent_info, as_json, filled

from agentvault_tui.operator_api.shapes import StatusInfo

Run = Callable[..., Answer]


def event(seq: int) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": "2026-11-24T10:00:00.000000Z",
        "type": "token.decision",
        "actor": {"kind": "agent", "id": "agt_1", "name": "a"},
        "agent_id": "agt_1",
        "action": "read:email",
        "resource": None,
        "outcome": "allowed",
        "reason": None,
        "rule": None,
        "decision_id": None,
        "detail": {},
        "hash": "sha256:0",
    }


def audit(seq: int) -> str:
    return f"id: {seq}\nevent: audit\ndata: {json.dumps(event(seq))}\n\n"


@contextmanager
def broker(home: Path, streams: list[str]) -> Iterator[list[str]]:
    """Answer status with head 5, and each stream asked for with the next text."""
    resumed: list[str] = []
    (home / "run").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(home / "run" / "agentvault.sock"))
        listener.listen()

        def serve() -> None:
            while streams:
                connection, _ = listener.accept()
                with connection:
                    asked = connection.recv(65_536).decode()
                    connection.sendall(answer(asked).encode())

        def answer(asked: str) -> str:
            if asked.startswith("GET /api/events"):
                (last,) = (
                    line.partition(": ")[2]
                    for line in asked.splitlines()
                    if line.lower().startswith("last-event-id")
                )
                resumed.append(last)
                return f"HTTP/1.1 200 OK\r\n\r\n{streams.pop(0)}"
            found = filled(StatusInfo, {"ledger": {"head": 5}})
            body = json.dumps({**as_json(found), "events": [], "next": None})
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"

        thread = threading.Thread(target=serve)
        thread.start()
        yield resumed
        thread.join()


@pytest.mark.slow
def test_follow_resumes_without_repeat_and_refuses_another_ledger(
    cli: Run, tmp_path: Path
) -> None:
    """A cut stream resumes behind the last event; a reset is said loudly, exit 1."""
    agent = json.dumps(as_json(agent_info("agt_1", "a")))
    other = f"event: agent\ndata: {agent}\n\n"
    reset = 'event: reset\ndata: {"head":3}\n\n'
    # The second stream repeats 7, as one cut in the middle of a commit may.
    streams = [other + audit(6) + audit(7), audit(7) + audit(8), reset]
    with broker(tmp_path, streams) as resumed:
        answer = cli("--home", str(tmp_path), "audit", "tail", "-f", "--json")
    assert [item["seq"] for item in answer.lines] == [6, 7, 8]
    assert resumed == ["5", "7", "8"]
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "not the ledger that was followed" in answer.err
    assert "event 8" in answer.err
