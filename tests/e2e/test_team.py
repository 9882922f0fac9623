"""Three brokers as processes on one PostgreSQL act as one, whatever becomes of one."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.http_server import http_server
from support.patience import PATIENT
from support.phone import Phone, public_settings
from support.postgres import TEAM, Database
from support.vault import Client, Vault, fresh_code, serving
from support.vault_stepups import hold, start, stepup_until

from agentvault_tui.home import Home
from agentvault_tui.policy import shipped_policy
from agentvault_tui.sealing import KEY_BYTES
from agentvault_tui.settings import Settings

IN_FLIGHT = "agentvault_calls_in_flight"
SERVICE = """
allow_http = true
allow_private = true
[[routes]]
method = "GET"
path = "/{rest*}"
scope = "read:calendar"
"""


@cache
def no_tenant() -> str:
    """Return the issuer of a tenant that does not answer, the same for all brokers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/"


def configured(folder: Path, store: Database) -> None:
    """Make a home of the team; its tenant does not answer, and is not asked."""
    folder.mkdir(mode=0o700)
    tenant = f"[tenant]\nissuer = {json.dumps(no_tenant())}\nclient_id = 'console'\n"
    folder.joinpath("config.toml").write_text(of_team(store) + tenant)


def of_team(store: Database) -> str:
    """Return the settings that all brokers of the team have."""
    return (
        f"[store]\nurl = {json.dumps(store.url)}\n[team]\nname = {json.dumps(TEAM)}\n"
    )


@pytest.fixture
def brokers(short: Path, store: Database, upstream: str) -> Iterator[list[Vault]]:
    with ExitStack() as stack:
        made = []
        for name in ("a", "b", "c"):
            configured(short / name, store)
            service = short / name / "services" / "api.toml"
            service.parent.mkdir(mode=0o700)
            service.write_text(f'origin = "{upstream}"{SERVICE}')
            made.append(stack.enter_context(serving(short / name)))
        yield made


class Trickle(BaseHTTPRequestHandler):
    """An upstream whose answers never end by themselves."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"4\r\nmore\r\n")
                time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[str]:
    with http_server(Trickle) as url:
        yield url


@contextmanager
def calling(broker: Vault, token: str) -> Iterator[Iterator[bytes]]:
    """Make a call through the broker's gateway; yield what arrives of its answer."""
    url, headers = broker.ready["agents_url"], {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENT) as client:
        while True:
            with client.stream("GET", "/gw/api/all", headers=headers) as answer:
                if answer.status_code != 503:  # a slow machine's lease was over
                    assert answer.status_code == 200
                    pieces = answer.iter_raw()
                    next(pieces)
                    yield pieces
                    return
            time.sleep(0.1)


def at(broker: Vault, client: Client) -> Client:
    """Return *client*, speaking to that broker."""
    auth = client.http.auth
    assert auth is not None
    made = Client(broker.ready["agents_url"], client.id, client.secret)
    broker._clients.append(made)
    return made


def until(done: Callable[[], bool]) -> None:
    """Wait for what another process does in its own time."""
    ends = time.monotonic() + PATIENT
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.02)


def members(broker: Vault) -> dict[str, dict[str, Any]]:
    team = broker.operator.get("/api/status").json()["team"]
    return {one["id"]: one for one in team["brokers"]}


def own_id(broker: Vault) -> str:
    return Home(broker.home, broker.home).broker_id_file.read_text().strip()


def revoked(broker: Vault, client: Client) -> dict[str, bool]:
    """Revoke an agent, again until that is recorded; return which brokers confirmed."""
    while not (told := revoking(broker, client))["recorded"]:
        time.sleep(0.1)
    return {one["id"]: one["confirmed"] for one in told["brokers"]}


def revoking(broker: Vault, client: Client) -> dict[str, Any]:
    body = {"agent_id": client.id, "reason": "drill"}
    answer = broker.operator.post("/api/agents/revoke", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_what_one_broker_revoked_no_other_honours_from_the_reply_on(
    brokers: list[Vault],
) -> None:
    """The reply lists who confirmed; status lists who lives, and all are in step."""
    a, b, c = brokers
    until(lambda: all(len(members(one)) == 3 for one in brokers))
    agent = a.register("worker", "read:calendar")
    server = b.register("api", resource_server=True)
    token = at(c, agent).token("read:calendar").json()["access_token"]
    assert server.introspect(token)["active"]
    revoked(a, agent)
    assert not server.introspect(token)["active"]
    assert at(c, agent).token("read:calendar").json()["reason"] == "agent_revoked"
    until(lambda: revoked(a, agent) == {own_id(b): True, own_id(c): True})
    until(lambda: all(one["in_step"] for one in members(a).values()))
    until(lambda: counted(a) == counted(b) == counted(c))


def counted(broker: Vault) -> list[str]:
    """Return the metrics that are the ledger's: how long things took is a broker's."""
    told = broker.operator.get("/metrics").text.splitlines()
    return [one for one in told if "_seconds" not in one and IN_FLIGHT not in one]


def test_a_stopped_broker_confirms_nothing_and_is_waited_for_no_longer_than_its_lease(
    brokers: list[Vault],
) -> None:
    """Once it goes on, it has to know of the revocation before it answers."""
    a, b, _ = brokers
    until(lambda: len(members(a)) == 3)
    agent = a.register("worker", "read:calendar")
    server = a.register("api", resource_server=True)
    token = agent.token("read:calendar").json()["access_token"]
    there = at(b, server)
    assert there.introspect(token)["active"]
    b.process.send_signal(signal.SIGSTOP)
    try:
        assert not revoked(a, agent).get(own_id(b))
        until(lambda: not members(a)[own_id(b)]["alive"])
        assert at(a, agent).token("read:calendar").status_code == 403
    finally:
        b.process.send_signal(signal.SIGCONT)
    assert not there.introspect(token)["active"]
    until(lambda: members(a)[own_id(b)]["in_step"])


def test_the_store_away_nothing_is_granted_and_revoking_works(
    short: Path, own_store: Database
) -> None:
    """A cut holds at once, is told as not recorded, and is recorded when it is back."""
    server_of = own_store.cluster
    with ExitStack() as stack:
        for name in ("a", "b"):
            configured(short / name, own_store)
        a, b = (stack.enter_context(serving(short / name)) for name in ("a", "b"))
        agent = a.register("worker", "read:calendar")
        server = b.register("api", resource_server=True)
        token = agent.token("read:calendar").json()["access_token"]
        assert server.introspect(token)["active"]
        other = a.register("other", "read:calendar", "read:email")
        assert other.token("read:email").status_code == 200
        known = a.operator.get(f"/api/agents/{other.agent_id}").json()
        held = known["tokens"][0]["id"]
        until(lambda: own_id(b) in members(a))
        server_of.stop()
        until(lambda: agent.token("read:calendar").status_code == 503)
        answer = server.http.post("/oauth/introspect", data={"token": token})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        told = revoking(a, agent)
        assert told["recorded"] is False
        assert told["others"] == "not_told"
        for argv in (
            ("agents", "ungrant", other.agent_id, "read:calendar"),
            ("tokens", "revoke", held),
        ):
            done = a.cli(*argv)
            assert f"NOT notified: {own_id(b)}" in done.stdout + done.stderr, argv
            assert "NOT in the ledger yet" in done.stdout + done.stderr, argv
        assert a.operator.get("/api/status").json()["stale"] is True
        said = a.cli("status").stdout
        assert "who is alive is not known, in postgresql, which is away" in said
        assert "in step" not in said
        server_of.start()
        until(
            lambda: (
                server.http.post("/oauth/introspect", data={"token": token}).json()
                == {"active": False}
            )
        )
        until(
            lambda: (
                at(b, agent).token("read:calendar").json().get("reason")
                == "agent_revoked"
            )
        )
        (event,) = b.operator.get(
            "/api/audit", params={"type": "agent.revoked"}
        ).json()["events"]
        assert event["detail"]["took_effect_at"]


def test_a_call_in_flight_elsewhere_has_ended_when_a_revocation_is_answered(
    brokers: list[Vault],
) -> None:
    """Each broker cuts its own calls before it confirms."""
    a, b, _ = brokers
    until(lambda: len(members(a)) == 3)
    agent = a.register("worker", "read:calendar")
    token = agent.token("read:calendar").json()["access_token"]
    with calling(b, token) as pieces:
        assert in_flight(b) == 1
        revoked(a, agent)
        assert in_flight(b) == 0
        with suppress(httpx.TransportError):
            for _ in pieces:
                pass
    until(lambda: results(a) == ["cut"])


def test_a_call_is_cut_by_a_command_at_another_broker(brokers: list[Vault]) -> None:
    """A broker that is stopped is waited for until its lease ends, and no longer."""
    a, b, c = brokers
    until(lambda: len(members(a)) == 3)
    agent = a.register("worker", "read:calendar")
    token = agent.token("read:calendar").json()["access_token"]
    with calling(b, token) as pieces:
        until(lambda: through(a) == [own_id(b)])
        (call,) = json.loads(a.cli("calls", "--json").stdout)["calls"]
        head, row = a.cli("calls").stdout.splitlines()
        assert head.split()[-1] == "BROKER"
        assert row.split()[-1] == own_id(b)
        c.process.send_signal(signal.SIGSTOP)
        try:
            cut = a.cli("calls", "--cut", call["id"], "--json")
            assert cut.returncode == 0, cut.stderr
            with suppress(httpx.TransportError):
                for _ in pieces:
                    pass
            again = a.cli("calls", "--cut", call["id"])
            assert again.returncode == 4, again.stderr
        finally:
            c.process.send_signal(signal.SIGCONT)
    until(lambda: results(a) == ["cut"])
    until(lambda: all(one["in_step"] for one in members(a).values()))
    told = a.cli("status").stdout
    assert all(own_id(one) in told for one in brokers)
    assert f"{own_id(a)} (asked)" in told
    assert told.count("(asked)") == 1
    assert told.count("in step") == 3
    told = a.cli("agents", "revoke", agent.id, "--reason", "drill").stdout
    assert "confirmed by 2 of 2 other brokers within" in told
    tail = b.cli("audit", "tail", "-n", "9").stdout.splitlines()
    assert any(own_id(a) in line and "drill" in line for line in tail), tail


def in_flight(broker: Vault) -> int:
    """Return how many calls run through that broker's gateway now."""
    told = broker.operator.get("/metrics").text
    (line,) = [one for one in told.splitlines() if one.startswith(IN_FLIGHT)]
    return int(float(line.split()[-1]))


def through(broker: Vault) -> list[str]:
    """Return through which broker each call goes that is in flight anywhere."""
    return [one["broker"] for one in broker.operator.get("/api/calls").json()["calls"]]


def results(broker: Vault) -> list[str]:
    """Return how calls ended, as that broker's ledger has it."""
    found = broker.operator.get("/api/audit", params={"type": "gateway.result"})
    return [one["detail"]["ended"] for one in found.json()["events"]]


def test_a_dead_broker_s_calls_get_their_result_once_from_another(
    brokers: list[Vault],
) -> None:
    """Nobody knows how they ended; nor does it say so itself, if it was not dead."""
    a, b, c = brokers
    until(lambda: len(members(b)) == 3)
    agent = b.register("worker", "read:calendar")
    token = agent.token("read:calendar").json()["access_token"]
    with calling(a, token), calling(c, token):
        a.process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: results(b) == ["unknown"])
            assert through(b) == [own_id(c)]
        finally:
            a.process.send_signal(signal.SIGCONT)
        until(lambda: through(a) == [own_id(c)])
        until(lambda: members(b)[own_id(a)]["in_step"])
        assert results(a) == results(c) == ["unknown"]


def test_a_killed_broker_loses_nothing_that_it_answered(brokers: list[Vault]) -> None:
    """Another goes on with its agents and tokens, and chains behind it."""
    a, b, c = brokers
    agent = a.register("worker", "read:calendar")
    tokens = [agent.token("read:calendar").json()["access_token"] for _ in range(20)]
    a.kill()
    server = b.register("api", resource_server=True)
    assert all(at(c, server).introspect(one)["active"] for one in tokens)
    until(lambda: not members(b)[own_id(a)]["alive"])
    for one in (b, c):
        assert one.cli("audit", "verify").returncode == 0


def origin(broker: Vault) -> str:
    """Return where the service that all homes describe is reached from that broker."""
    return str(broker.operator.get("/api/services/api").json()["origin"])


def test_an_edit_in_one_home_holds_everywhere_also_where_a_broker_was_killed(
    brokers: list[Vault],
) -> None:
    """It is recorded once, and each home's copy says the same in the end; so is an edit
    of the policy that was made while a broker was down."""
    a, b, c = brokers
    c.process.send_signal(signal.SIGSTOP)
    before = origin(a)
    files = [one.home / "services" / "api.toml" for one in brokers]
    edited = files[0].read_text().replace(before, "https://edited.test")
    files[0].write_text(edited)
    until(lambda: origin(b) == "https://edited.test")
    until(lambda: files[1].read_text() == edited)
    c.kill()
    assert files[2].read_text() != edited
    policies = [one.home / "policy.cedar" for one in brokers]
    policies[2].write_text(f"{shipped_policy()}// at night\n")
    with serving(c.home) as again:
        until(policies[0].exists)
        assert policies[0].read_text() == policies[2].read_text()
        told = again.operator.get("/api/policy").json()
        assert told["version"] == a.operator.get("/api/policy").json()["version"]
        assert not list(c.home.glob("*.local"))
        assert origin(again) == "https://edited.test"
        assert files[2].read_text() == edited
        asked = {"type": "service.changed"}
        found = again.operator.get("/api/audit", params=asked).json()["events"]
        assert [one["reason"] for one in found] == ["changed", "added"]


def test_a_copied_home_does_not_serve_beside_the_one_it_was_copied_from(
    brokers: list[Vault], short: Path, store: Database
) -> None:
    """Two processes with one broker's id: the second exits 1."""
    configured(short / "copy", store)
    copy = Home(short / "copy", short / "copy")
    copy.prepare()
    copy.broker_id_file.write_text(own_id(brokers[0]) + "\n")
    until(lambda: len(members(brokers[0])) == 3)
    with pytest.raises(json.JSONDecodeError), serving(short / "copy"):
        pass
    assert len(members(brokers[0])) == 3
    assert brokers[0].process.poll() is None


def test_a_broker_whose_id_another_process_has_stops_and_exits_1(
    brokers: list[Vault], short: Path, store: Database
) -> None:
    """It was stopped for longer than its lease, and finds itself replaced."""
    configured(short / "copy", store)
    copy, first = Home(short / "copy", short / "copy"), brokers[0]
    copy.prepare()
    copy.broker_id_file.write_text(own_id(first) + "\n")
    first.process.send_signal(signal.SIGSTOP)
    try:
        with serving(short / "copy") as other:
            first.process.send_signal(signal.SIGCONT)
            assert first.process.wait(PATIENT) == 1
            until(lambda: members(other)[own_id(first)]["alive"])
    finally:
        first.process.send_signal(signal.SIGCONT)


@pytest.fixture
def two_of_a_tenant(short: Path, store: Database) -> list[Home]:
    """Two homes of the team whose brokers serve one tenant, under one URL."""
    homes = [Home(short / name, short / name) for name in "ab"]
    homes[0].prepare()
    made = public_settings(homes[0])
    homes[0].team_key.write_bytes(secrets.token_bytes(KEY_BYTES))
    shutil.copytree(homes[0].data, homes[1].data)
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = (made.listen, f"127.0.0.1:{free.getsockname()[1]}")
    for home, where in zip(homes, listen, strict=True):
        home.config_file.write_text(
            f"{of_team(store)}[tenant]\nlisten = '{where}'\nurl = '{made.url}'\n"
            f"tls_cert = '{made.tls_cert}'\ntls_key = '{made.tls_key}'\n"
            "[broker]\ntls = 'false'\n"
        )
    return homes


@contextmanager
def phone_of(home: Home) -> Iterator[Phone]:
    """Open the tenant's pages, those that the broker of *home* serves."""
    settings = Settings.load(home, {}).tenant
    phone = Phone(home, settings.url)
    phone.port = int(settings.listen.rpartition(":")[2])
    yield phone
    phone.http.close()


def test_wrong_passwords_and_keys_of_one_tenant(two_of_a_tenant: list[Home]) -> None:
    """Wrong passwords at two brokers lock at both, and so do a browser's wrong codes.

    Counts are shared once a second, so the fifth at one broker locks at the latest. A
    key that one rotates the other publishes.
    """
    first, second = two_of_a_tenant
    with (
        serving(first.data) as a,
        serving(second.data) as b,
        phone_of(first) as phone,
        phone_of(second) as other,
    ):
        user = a.approver("alice")
        done = json.loads(b.cli("tenant", "rotate-keys", "--json").stdout)
        tries = []
        for one in (phone, other) * 6:
            keys = one.get(".well-known/jwks.json").json()["keys"]
            kids = {key["kid"] for key in keys}
            assert kids == {done["current"], done["next"], done["retired"]}
            one.open("approve/sup_12345678")
            one.send("sign-in", user=user["user"], password="wrong")
            tries.append('data-error="locked"' in one.answer.text)
        assert tries[:5] == [False] * 5
        assert tries[-2:] == [True, True]
        tries = []
        for one in (phone, other) * 6:
            one.cookies = phone.cookies
            one.open("activate")
            one.send("code", user_code="BBBB-BBBB")
            tries.append(one.answer.status_code)
        assert tries[:5] == [400] * 5
        assert tries[-2:] == [429, 429]


def test_two_brokers_serve_one_tenant(
    short: Path, store: Database, two_of_a_tenant: list[Home]
) -> None:
    """A person signs in at one broker's page and approves at the other's; a device code
    of one is confirmed at the other, and its token is good once at both; a third broker
    without the URL exits 1."""
    first, second = two_of_a_tenant
    third = Home(short / "c", short / "c")
    third.prepare()
    shutil.copy(first.team_key, third.team_key)
    third.config_file.write_text(of_team(store))
    with (
        serving(first.data) as a,
        serving(second.data) as b,
        phone_of(first) as phone,
        phone_of(second) as other,
    ):
        with pytest.raises(json.JSONDecodeError), serving(third.data):
            pass
        user = b.approver("alice")
        assert "alice" in a.cli("tenant", "user", "list").stdout
        agent = b.register("payer", "send:payment")
        request_id = hold(agent)
        other.until(f"approve/{request_id}", "sign-in")
        other.send("sign-in", user=user["user"], password=user["password"])
        phone.cookies = other.cookies
        page = f"approve/{request_id}"
        phone.open(page)
        while 'data-step="approve-result"' not in phone.answer.text:
            # Again where the work went to another broker, whose code it has then.
            phone.until(page, 'data-step="approve"')
            phone.send("factors", password=user["password"], otp=fresh_code(user))
        stepup_until(a, request_id, "approved")
        token = at(a, agent).poll(request_id).json()["access_token"]
        server = a.register("api", resource_server=True)
        active = [one.introspect(token)["active"] for one in (at(b, server), server)]
        assert active == [True, False]
        request_id = hold(agent)
        until(lambda: a.operator.get(f"/api/agents/stepup/{request_id}").is_success)
        device = start(b, request_id)["device"]
        phone.open("activate")
        phone.send("code", user_code=device["user_code"])
        phone.send("continue")
        other.cookies = phone.cookies
        other.answer = phone.answer
        other.send("sign-in", user=user["user"], password=user["password"])
        phone.answer = other.answer
        phone.send("one-time-code", otp=fresh_code(user))
        phone.send("confirm")
        stepup_until(b, request_id, "approved")
        assert "access_token" in at(a, agent).poll(request_id).json()
        request_id = hold(agent)
        device = start(b, request_id)["device"]
        stepup_until(a, request_id, "authorizing")
        bob, password = a.approver("bob"), short / "password"
        password.write_text(bob["password"])
        password.chmod(0o600)
        said = a.cli(
            *("tenant", "activate", device["user_code"], "--user", bob["user"]),
            *("--password-file", str(password), "--otp", fresh_code(bob), "--yes"),
        )
        assert "the broker accepted it" in said.stderr, said
