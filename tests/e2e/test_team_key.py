"""Brokers as processes with the team's key, without it, and with it again."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from e2e.test_team import (
    at,
    configured,
    members,
    own_id,
    phone_of,
    revoked,
    two_of_a_tenant,
    until,
)
from support.http_server import http_server
from support.patience import PATIENT
from support.postgres import Database
from support.vault import Client, Vault, fresh_code, serving
from support.vault_stepups import hold, stepup_until

from agentvault_tui.broker.tenant_process import team_client_id
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings

__all__ = ["two_of_a_tenant"]  # a fixture
VALUE = "sk_live_canary_77"
SERVICE = """
allow_http = true
allow_private = true
[credential]
kind = "bearer"
secret = "api"
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "read:calendar"
"""


class Upstream(BaseHTTPRequestHandler):
    """An API that takes one credential alone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        right = self.headers["authorization"] == f"Bearer {VALUE}"
        self.send_response(200 if right else 403)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    with http_server(Upstream) as url:
        yield url


def done(answer: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert answer.returncode == 0, answer.stderr
    return answer


def call(broker: Vault, agent: Client) -> httpx.Response:
    """Call the service through *broker*'s gateway, with a token it issues."""
    token = at(broker, agent).token("read:calendar").json()["access_token"]
    return httpx.get(
        f"{broker.ready['agents_url']}/gw/api/all",
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=PATIENT,
    )


def keep_secret(broker: Vault) -> httpx.Response:
    body = {"name": "api", "value": VALUE}
    return broker.operator.post("/api/secrets", json=body)


def test_without_the_key_what_is_sealed_waits_and_the_rest_goes_on(
    short: Path, store: Database, upstream: str
) -> None:
    """Agents authenticate, the ledger verifies, revoking works; a call is 503 sealed,
    until the key is imported, which takes no restart."""
    for name in ("a", "b"):
        configured(short / name, store)
        service = short / name / "services" / "api.toml"
        service.parent.mkdir(mode=0o700)
        service.write_text(f'origin = "{upstream}"{SERVICE}')
    key, home = short / "key", Home(short / "b", short / "b")
    with serving(short / "a") as a:
        refused = keep_secret(a)
        assert refused.status_code == 503
        assert "agentvault team key import" in refused.json()["remedy"]
        made = json.loads(done(a.cli("team", "key", "new", "--json")).stdout)
        done(a.cli("team", "key", "export", str(key), "--plain"))
        agent, other = (a.register(one, "read:calendar") for one in ("one", "two"))
        with serving(short / "b") as b:
            until(lambda: "team key import" in reason(a, b))
            done(b.cli("team", "key", "import", str(key)))
            until(lambda: all(one["in_step"] for one in members(a).values()))
            assert keep_secret(a).status_code == 200
            until(lambda: call(a, agent).status_code == 200)
            until(lambda: call(b, agent).status_code == 200)
        home.team_key.unlink()
        with serving(short / "b") as b:
            answer = call(b, agent)
            assert (answer.status_code, answer.json()["error"]) == (503, "sealed")
            assert "agentvault team key import" in answer.json()["error_description"]
            assert VALUE not in answer.text
            assert call(a, agent).status_code == 200
            refused = keep_secret(b)
            assert (refused.status_code, refused.json()["error"]) == (503, "sealed")
            told = b.operator.get("/api/status").json()["warnings"]
            assert any("team key import" in one for one in told)
            findings = json.loads(b.cli("doctor", "--json").stdout)["findings"]
            assert any(
                one["level"] == "fault" and "team's key" in one["what"]
                for one in findings
            )
            assert b.cli("audit", "verify").returncode == 0
            assert own_id(a) in revoked(b, other)
            assert at(a, other).token("read:calendar").status_code == 403
            done(b.cli("team", "key", "import", str(key)))
            until(lambda: call(b, agent).status_code == 200)

            second = json.loads(done(b.cli("team", "key", "new", "--json")).stdout)
            assert second["before"] == made["key"]
            key.unlink()
            done(b.cli("team", "key", "export", str(key), "--plain"))
            assert call(a, agent).status_code == 200
            done(a.cli("team", "key", "import", str(key)))
            for one in (Home(short / "a", short / "a"), home):
                until(lambda one=one: one.team_key.stat().st_size == 32)  # type: ignore[misc]
            until(lambda: call(a, agent).status_code == call(b, agent).status_code)
            assert call(a, agent).status_code == 200
            until(lambda: warnings(a) == warnings(b) == [])
    assert not list(short.rglob("*.local"))


def reason(broker: Vault, other: Vault) -> str:
    """Return why *other* is not in step, as *broker* tells it."""
    return members(broker).get(own_id(other), {}).get("reason") or ""


def warnings(broker: Vault) -> list[str]:
    """Return what status warns of, but for the tenant that never answers."""
    told = broker.operator.get("/api/status").json()["warnings"]
    return [one for one in told if not one.startswith("The tenant")]


def approve(broker: Vault, home: Home, agent: Client, user: dict[str, str]) -> None:
    """Have a person approve at the tenant's page that *broker* serves."""
    request_id = hold(agent)
    with phone_of(home) as phone:
        phone.until(f"approve/{request_id}", "sign-in")
        phone.send("sign-in", user=user["user"], password=user["password"])
        phone.until(f"approve/{request_id}", 'data-step="approve"')
        phone.send("factors", password=user["password"], otp=fresh_code(user))
    stepup_until(broker, request_id, "approved")


def knows_console(home: Home) -> bool:
    """Tell whether the tenant of *home* knows the client id of the team's key."""
    with phone_of(home) as phone:
        asked = {"client_id": team_client_id(home), "scope": "openid"}
        phone._ask("POST", "oauth/device/code", data=asked)
        return phone.answer.status_code == 200


@contextmanager
def refusals(homes: list[Home]) -> Iterator[list[OSError]]:
    """Connect to people's pages all the time; yield why that failed."""
    failed, stopped = list[OSError](), threading.Event()

    def connect() -> None:
        while not stopped.wait(0.01):
            for home in homes:
                listen = Settings.load(home, {}).tenant.listen
                try:
                    socket.create_connection(
                        ("127.0.0.1", int(listen.rpartition(":")[2])), PATIENT
                    ).close()
                except OSError as error:
                    failed.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield failed
    finally:
        stopped.set()
        thread.join()


def test_people_approve_with_each_key_while_it_is_changed(
    short: Path, two_of_a_tenant: list[Home]
) -> None:
    """Their factors and the signing keys open with the old one until all have the
    new one, and then with that alone. Their pages are there all the time."""
    first, second = two_of_a_tenant
    key = short / "key"
    with serving(first.data) as a, serving(second.data) as b:
        ann, bob, carl, agent = (
            *(b.approver(one) for one in ("ann", "bob", "carl")),
            b.register("payer", "send:payment"),
        )
        done(a.cli("team", "key", "new", "--json"))
        done(a.cli("team", "key", "export", str(key), "--plain"))
        approve(a, first, at(a, agent), ann)
        approve(b, second, agent, bob)
        with refusals(two_of_a_tenant) as refused:
            done(b.cli("team", "key", "import", str(key)))
            for home in two_of_a_tenant:
                until(lambda home=home: home.team_key.stat().st_size == 32)  # type: ignore[misc]
                until(lambda home=home: knows_console(home))  # type: ignore[misc]
            approve(b, second, agent, carl)
        assert refused == []
        assert first.team_key.read_bytes() == second.team_key.read_bytes()
