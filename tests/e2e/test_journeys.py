"""The three journeys, over real processes: a token, a step-up, a revocation."""

from __future__ import annotations

import json
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from support.patience import PATIENT
from support.vault import CIBA, PAYMENT, Vault, serving
from support.vault_stepups import hold, start, stepup_until

from agentvault_tui.tenant.device_page_client import Activation


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """One for all: each test has agents and people of its own."""
    with tempfile.TemporaryDirectory(prefix="h-") as home, serving(Path(home)) as vault:
        yield vault


def test_an_approved_payment_from_the_request_to_its_one_redemption(
    vault: Vault,
) -> None:
    """Held, shown, approved with a second factor, polled, redeemed once."""
    agent = vault.register("payer", "send:payment")
    server = vault.register("payments-api", resource_server=True)
    user = vault.approver("alice")
    request_id = hold(agent)
    assert agent.poll(request_id).json()["error"] == "authorization_pending"
    stepup = start(vault, request_id)
    with Activation() as page:
        details = page.open(vault.ready["tenant"], stepup["device"]["user_code"])
    assert details.fingerprint == stepup["fingerprint"]
    assert details.action == "send:payment"
    vault.activate(stepup["device"], user)
    decided = stepup_until(vault, request_id, "approved")
    assert decided["decided_by"]["name"] == "alice"
    assert "mfa" in decided["decided_by"]["amr"]
    granted = agent.poll(request_id)
    assert granted.status_code == 200
    token = granted.json()
    assert token["expires_in"] == 300
    assert token["authorization_details"] == [PAYMENT]
    assert "refresh_token" not in token
    assert agent.poll(request_id).json()["error"] == "invalid_grant"
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(server.introspect, [token["access_token"]] * 64))
    (active,) = [answer for answer in answers if answer["active"]]
    assert active["elevated"] is True
    assert active["client_id"] == agent.id
    assert (
        vault.operator.get(f"/api/agents/stepup/{request_id}").json()["status"]
        == "redeemed"
    )


def test_cancelled_at_the_tenant_it_waits_again_and_says_why(vault: Vault) -> None:
    """The person's no on the page leaves the request pending, with the problem."""
    agent = vault.register("cancelled", "send:payment")
    user = vault.approver("bob")
    request_id = hold(agent)
    device = start(vault, request_id)["device"]
    with Activation() as page:
        page.open(vault.ready["tenant"], device["user_code"])
        page.sign_in(user["user"], user["password"])
        page.cancel()
    assert stepup_until(vault, request_id, "pending")["problem"]


def test_denied_with_a_reason_that_reaches_the_agent(vault: Vault) -> None:
    """The agent's poll carries the operator's words and a stable code."""
    agent = vault.register("denied", "send:payment")
    request_id = hold(agent)
    body = {"id": request_id, "decision": "deny", "reason": "not this month"}
    assert vault.operator.post("/api/agents/stepup", json=body).status_code == 200
    assert vault.operator.post("/api/agents/stepup", json=body).status_code == 409
    answer = agent.poll(request_id)
    assert answer.status_code == 400
    assert answer.json()["error"] == "access_denied"
    assert answer.json()["reason"] == "stepup_denied"
    assert "not this month" in answer.json()["error_description"]


def test_a_revocation_is_felt_by_the_very_next_call(vault: Vault) -> None:
    """After the reply tokens are inactive and requests refused; so in a panic."""
    agent = vault.register("runaway", "write:calendar")
    other = vault.register("beside", "write:calendar")
    server = vault.register("calendar-api", resource_server=True)
    token = agent.token("write:calendar").json()["access_token"]
    assert server.introspect(token)["active"]
    body = {"agent_id": agent.id, "reason": "runaway"}
    cut = vault.operator.post("/api/agents/revoke", json=body).json()
    assert cut["tokens_revoked"] == 1
    assert server.introspect(token) == {"active": False}
    assert agent.token("write:calendar").json()["reason"] == "agent_revoked"
    assert other.token("write:calendar").status_code == 200
    body = {"all": True, "reason": "drill"}
    vault.operator.post("/api/agents/revoke", json=body)
    assert other.token("write:calendar").json()["reason"] == "panic"
    assert vault.operator.get("/api/status").json()["panic"]["on"] is True
    vault.operator.post("/api/agents/restore", json={"all": True})
    assert other.token("write:calendar").status_code == 200
    assert agent.token("write:calendar").json()["reason"] == "agent_revoked"


def read(vault: Vault, last: int | None, count: int) -> list[ServerSentEvent]:
    headers = {"Last-Event-ID": str(last)} if last is not None else {}
    found = []
    with connect_sse(vault.operator, "GET", "/api/events", headers=headers) as source:
        for event in source.iter_sse():
            if event.event in {"audit", "reset"}:
                found.append(event)
                if len(found) == count:
                    break
    return found


def test_the_stream_resumes_without_gap_or_repeat(vault: Vault) -> None:
    """Cut anywhere and resumed by id, the events read are the ledger's, in order."""
    agent = vault.register("followed", "write:calendar")
    asking = threading.Thread(
        target=lambda: [agent.token("write:calendar") for _ in range(80)]
    )
    asking.start()
    seen: list[int] = []
    last = 0
    while len(seen) < 60:
        for event in read(vault, last, 7):
            body = json.loads(event.data)
            assert int(event.id) == body["seq"]
            seen.append(body["seq"])
        last = seen[-1]
    asking.join()
    assert seen == list(range(1, len(seen) + 1))


def test_counts_come_with_the_head_they_are_true_for(vault: Vault) -> None:
    """Counts of a listing are the ledger's decisions up to the head it names."""
    agent = vault.register("counted", "write:calendar")
    for _ in range(5):
        agent.token("write:calendar")
    listed = vault.operator.get("/api/agents").json()
    query = {"agent": agent.id, "outcome": "allowed", "before": listed["head"] + 1}
    events = vault.operator.get("/api/audit", params=query).json()["events"]
    (shown,) = (row for row in listed["agents"] if row["id"] == agent.id)
    assert shown["counts"]["allowed"] == len(events) == 5


def test_an_id_above_the_head_is_told_loudly(vault: Vault) -> None:
    """A console that saw more than this ledger holds gets a reset."""
    (event,) = read(vault, 10_000, 1)
    assert event.event == "reset"


def test_a_restart_keeps_agents_tokens_and_waiting_requests(home: Path) -> None:
    """After SIGTERM and a new start everything is as it was, and exit codes are 0."""
    with serving(home) as first:
        agent = first.register("cal", "write:calendar", "send:payment")
        server = first.register("api", resource_server=True)
        token = agent.token("write:calendar").json()["access_token"]
        request_id = hold(agent)
        first.process.terminate()
        assert first.process.wait(PATIENT) == 0
    with serving(home) as second:
        agent, server = second.again(agent), second.again(server)
        assert server.introspect(token)["active"]
        assert agent.poll(request_id).json()["error"] == "authorization_pending"
        assert second.ready["tenant"] == first.ready["tenant"]


def test_a_second_broker_on_the_home_says_which_process_has_it(vault: Vault) -> None:
    """It stops with exit 1 and one line that names the pid."""
    done = vault.cli("serve", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert str(vault.ready["pid"]) in done.stderr
    assert done.stderr.count("\n") == 1


def test_everything_on_disk_is_private_and_holds_no_secret(vault: Vault) -> None:
    """Files and socket are 0600, folders 0700; no token or secret stands there."""
    agent = vault.register("private", "write:calendar")
    token = agent.token("write:calendar").json()["access_token"]
    user = vault.approver("carol")
    auth = agent.http.auth
    assert isinstance(auth, httpx.BasicAuth)
    secrets = (token, user["password"], user["otp_secret"])
    looked_at = [
        path for path in [vault.home, *vault.home.rglob("*")] if private(path, secrets)
    ]
    assert {vault.home, vault.home / "agentvault.db"} <= set(looked_at)


def private(path: Path, secrets: tuple[str, ...]) -> bool:
    """Look at one path; False if it has gone, as what is to replace a file does."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return False
    assert mode == (0o700 if path.is_dir() else 0o600), path
    for secret in secrets:
        assert secret.encode() not in content, path
    return True


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_web_page_gets_nothing(
    vault: Vault, headers: dict[str, str], status: int
) -> None:
    """Rebinding and cross-site requests are refused by both TCP services."""
    agents, tenant = vault.ready["agents_url"], vault.ready["tenant"]
    for base in (agents, tenant.rstrip("/")):
        answer = httpx.post(
            base + "/oauth/token", data={"grant_type": CIBA}, headers=headers
        )
        assert answer.status_code == status


def test_uses_counted_since_the_last_record_are_written_at_the_stop(
    tmp_path: Path,
) -> None:
    """SIGTERM right after the answers: the ledger on disk has every one of them."""
    with serving(tmp_path, tenant=False) as own:
        agent = own.register("reader", "read:calendar")
        server = own.register("api", resource_server=True, serves=["read:calendar"])
        token = agent.token("read:calendar").json()["access_token"]
        assert all(server.introspect(token)["active"] for _ in range(7))
    with closing(sqlite3.connect(tmp_path / "agentvault.db")) as db:
        (count,) = db.execute(
            "SELECT sum(json_extract(body, '$.detail.count')) FROM events"
            " WHERE type = 'token.used'"
        ).fetchone()
    assert count == 7
