"""Limits of a real broker: exact at once, and after a kill."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from support.command_line import plain_environment
from support.forked import run
from support.patience import PATIENT
from support.vault import Vault, serving

LIMITS = """
[[limits]]
id = "calendar"
scopes = ["write:calendar"]
within = "24h"
count = 20
over = "deny"
"""


def standing(vault: Vault) -> tuple[int, int]:
    """Return what `agentvault limits` says is used and left."""
    (use,) = json.loads(vault.cli("limits", "--json").stdout)["uses"]
    return use["used"], use["left"]


def test_sixty_four_at_once_and_a_kill_pass_a_limit_by_none(home: Path) -> None:
    """Exactly its count is issued; what was issued before a kill -9 stays counted."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "limits.toml").write_text(LIMITS)
    with serving(home, tenant=False) as vault:
        client = vault.register("agent", "write:calendar")
        with ThreadPoolExecutor(16) as pool:
            few = list(pool.map(lambda _: client.token("write:calendar"), range(12)))
        vault.kill()
    assert [one.status_code for one in few] == [200] * 12
    with serving(home, tenant=False) as vault:
        assert standing(vault) == (12, 8)
        client = vault.again(client)
        with ThreadPoolExecutor(16) as pool:
            many = list(pool.map(lambda _: client.token("write:calendar"), range(64)))
        assert sum(one.status_code == 200 for one in many) == 8
        refused = next(one for one in many if one.status_code == 403).json()
        assert refused["reason"] == "limit_reached"
        assert 86_000 < refused["retry_after"] <= 86_400
        asked = ("policy", "explain", "--agent", "agent", "--action", "write:calendar")
        assert "20 in 24h: 20 used, 0 left" in vault.cli(*asked).stdout
        assert "0" in vault.cli("limits").stdout


def test_a_kill_while_a_call_out_is_asked_uses_nothing(home: Path) -> None:
    """What was reserved is free again, and nothing was issued or recorded."""
    home.mkdir(parents=True, exist_ok=True)
    asked, answer = threading.Event(), threading.Event()

    class CallOut(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.set()
            answer.wait(PATIENT)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"decision": true}')

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), CallOut)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = (
        f'[[hooks]]\nid = "slow"\nurl = "http://127.0.0.1:{server.server_port}/"\n'
        'scopes = ["write:calendar"]\nbudget_ms = 10000\n'
    )
    one = LIMITS.replace("count = 20", "count = 1")
    (home / "limits.toml").write_text(one + hook)
    with serving(home, tenant=False) as vault, ThreadPoolExecutor(1) as pool:
        client = vault.register("agent", "write:calendar")
        waiting = pool.submit(client.token, "write:calendar")
        assert asked.wait(PATIENT)
        vault.kill()
        with pytest.raises(httpx.TransportError):
            waiting.result(PATIENT)
    answer.set()
    with serving(home, tenant=False) as vault:
        assert json.loads(vault.cli("limits", "--json").stdout)["uses"] == []
        found = vault.operator.get("/api/audit?type=token.decision").json()
        assert found["events"] == []
        client = vault.again(client)
        assert client.token("write:calendar").status_code == 200
        refused = client.token("write:calendar")
        assert refused.json()["reason"] == "limit_reached"
        assert json.loads(vault.cli("audit", "verify", "--json").stdout)["ok"] is True
    server.shutdown()
    server.server_close()


def test_a_broken_file_stops_a_first_start_in_one_line(home: Path) -> None:
    """Exit 1, with the file and what is wrong; `policy check` says the same."""
    home.mkdir(parents=True, exist_ok=True)
    broken = home / "limits.toml"
    broken.write_text(LIMITS.replace("count = 20", "cuont = 20"))
    broken.chmod(0o600)  # a start warns of any other mode
    for words in (("serve", "--listen", "127.0.0.1:0"), ("policy", "check")):
        ended = run("--home", str(home), *words, env=plain_environment())
        assert ended.returncode == 1
        (told,) = [one for one in ended.stderr.splitlines() if "limits.toml" in one]
        assert "did you mean count" in told
        assert ended.stdout == ""
