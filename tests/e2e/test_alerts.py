"""Alerts of a real broker that is killed: each event arrives, in order, once told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

from support.http_server import http_server
from support.patience import PATIENT
from support.vault import PAYMENT, serving

TOML = """
[sinks.ops]
kind = "slack"
url_secret = "slack"
allow_private = true
[sinks.all]
kind = "file"
path = "events.jsonl"
[[routes]]
sinks = ["ops"]
events = ["needs_person"]
"""


@contextmanager
def slack() -> Iterator[tuple[str, list[dict[str, Any]], Event]]:
    """Take messages, as Slack does; yield its URL, what came, and that it did."""
    received: list[dict[str, Any]] = []
    arrived = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            arrived.set()

        def log_message(self, *_: object) -> None:
            pass

    with http_server(Handler) as url:
        yield f"{url}/hook", received, arrived


def test_an_alert_survives_kill_9_between_decision_and_alert(home: Path) -> None:
    """Nobody listens when the step-up is asked for: the next process tells of it."""
    with slack() as (url, received, arrived):
        with serving(home) as vault:
            secret = {"name": "slack", "value": "http://127.0.0.1:1/nobody"}
            secret |= {"for": ["http://127.0.0.1:1"]}  # type: ignore[dict-item]
            assert vault.operator.post("/api/secrets", json=secret).is_success
            (home / "alerts.toml").write_text(TOML)
            agent = vault.register("payments-agent", "send:payment")
            until_sinks(vault.operator, 2)
            asked = agent.token("send:payment", PAYMENT).json()
            vault.kill()
        with serving(home) as vault:
            changed = {"name": "slack", "value": url}
            assert vault.operator.post("/api/secrets", json=changed).is_success
            assert arrived.wait(PATIENT)
            told = json.dumps(received[0])
            assert asked["auth_req_id"] in told
            assert "4200" not in told
            head = vault.operator.get("/api/status").json()["ledger"]["head"]
            path = home / "events.jsonl"
            seqs = until_exported(path, head)
            assert sorted(set(seqs)) == list(range(1, max(seqs) + 1))
            page = vault.operator.get("/metrics").text
            assert 'agentvault_decisions_total{outcome="escalated"} 1' in page
            assert "agentvault_alerts_dead 0" in page
            listed = json.loads(vault.cli("alerts", "list", "--json").stdout)
            assert [one["name"] for one in listed["sinks"]] == ["all", "ops"]
            assert vault.cli("alerts", "test", "all").returncode == 0
            assert vault.cli("alerts", "test", "none").returncode == 4
            assert vault.cli("alerts", "retry", "msg_none").returncode == 4


def until_sinks(operator: Any, count: int) -> None:
    pause = Event()
    while len(operator.get("/api/alerts").json()["sinks"]) < count:
        pause.wait(0.05)


def until_exported(path: Path, head: int) -> list[int]:
    """Wait until the file has event *head*; return the numbers of all records."""
    pause = Event()
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        seqs = [json.loads(line)["metadata"]["sequence"] for line in lines]
        if seqs and max(seqs) >= head:
            return seqs
        pause.wait(0.05)
