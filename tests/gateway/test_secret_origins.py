"""A secret leaves for the origins it was set for, whatever files say later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.bench import OPERATOR
from support.gateway_stand import (
    SECRET,
    Received,
    Stand,
    Upstream,
    operators_http,
    standing,
)
from support.patience import PATIENT
from support.postgres import Database

from agentvault_tui.errors import LedgerUnwritableError, ServiceError
from agentvault_tui.gateway.secret_origins import TAKEN, SecretOrigins
from agentvault_tui.gateway.secret_rows import LISTED
from agentvault_tui.gateway.secret_staging import SecretsSeal
from agentvault_tui.home import put_private
from agentvault_tui.ledger.store_schema import FINISH
from agentvault_tui.model import Agent
from agentvault_tui.settings import ConnectionSettings

ROUTE = """
[[routes]]
method = "*"
path = "/{rest*}"
scope = "read:calendar"
"""
REFUSED = (503, "secret_not_for_origin")


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    return await stand.agent("read:calendar")


@pytest.fixture
async def evil() -> AsyncIterator[Upstream]:
    """The server of the person who edits service files at night."""
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


def file(origin: str, **members: str) -> str:
    lines = [f'{name} = "{value}"' for name, value in members.items()]
    head = f'origin = "{origin}"\nallow_http = true\nallow_private = true\n'
    return "\n".join([head, "[credential]", *lines, ROUTE])


async def put(stand: Stand, text: str, path: str = "services/api.toml") -> None:
    target = stand.bench.home.config / path
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    await stand.gateway.look()


async def call(stand: Stand, agent: Agent) -> tuple[int, str | None]:
    token = await stand.token(agent, "read:calendar")
    headers = {"Authorization": f"Bearer {token}"}
    reply = await stand.client.get("/gw/api/x", headers=headers)
    assert SECRET not in reply.text
    return reply.status_code, reply.headers.get("agentvault-error")


def at(server: Upstream, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.port}"


async def token_endpoint(request: Received, writer: asyncio.StreamWriter) -> None:
    said = {"access_token": "at_0123456789", "expires_in": 3600}
    body = json.dumps(said if request.method == "POST" else {}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


SEALED: list[dict[str, str]] = [
    {"kind": "bearer"},
    {"kind": "basic", "username": "bot"},
    {"kind": "header", "name": "X-Key"},
    {"kind": "query", "name": "key"},
]
FETCHED: list[dict[str, str]] = [
    {"kind": "client_credentials", "client_id": "me"},
    {"kind": "refresh_token", "client_id": "me", "client_secret": "key"},
]


@pytest.mark.parametrize(
    ("credential", "moved"),
    [(one, "origin") for one in SEALED + FETCHED]
    + [(one, "token_endpoint") for one in FETCHED],
    ids=str,
)
async def test_a_service_that_is_pointed_elsewhere_gets_no_secret(
    stand: Stand, agent: Agent, evil: Upstream, credential: dict[str, str], moved: str
) -> None:
    """Neither the other server nor ours hears a call, though all worked before."""
    own, other = at(stand.upstream), at(evil)
    fetched = credential in FETCHED
    stand.upstream.answer = evil.answer = token_endpoint
    members = {**credential, "secret": "key"}
    if fetched:
        members["token_endpoint"] = f"{own}/token"
    await put(stand, file(own, **members))
    assert await call(stand, agent) == (200, None)
    before = len(stand.upstream.received)
    if moved == "origin":
        await put(stand, file(other, **members))
    else:
        await put(stand, file(own, **{**members, moved: f"{other}/token"}))
    assert await call(stand, agent) == REFUSED
    assert (evil.received, evil.connections) == ([], 0)
    assert len(stand.upstream.received) == before
    (warning,) = stand.gateway.warnings
    assert "api" in warning
    assert f"--for {other}" in warning


@pytest.mark.parametrize("spelling", ["localhost", "[::ffff:7f00:1]"])
async def test_another_spelling_of_the_host_is_another_host(
    stand: Stand, agent: Agent, spelling: str
) -> None:
    """Where a name leads is the resolver's to say: the name that was listed counts."""
    await put(stand, file(at(stand.upstream, spelling), kind="bearer", secret="key"))
    status, _ = await call(stand, agent)
    assert status in {404, 503}
    assert stand.upstream.received == []


async def test_an_mcp_server_that_is_pointed_elsewhere_gets_no_secret(
    stand: Stand, agent: Agent, evil: Upstream
) -> None:
    """MCP servers by URL have credentials as services do."""
    head = f'url = "{at(evil)}/mcp"\nallow_http = true\nallow_private = true\n'
    credential = '[credential]\nkind = "bearer"\nsecret = "key"\n'
    tools = '[tools."*"]\nscope = "read:calendar"\n'
    await put(stand, head + credential + tools, "mcp/tools.toml")
    token = await stand.token(agent, "read:calendar")
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
    }
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    asked = {"name": "x", "arguments": {}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
    headers |= {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call"}
    headers |= {"Mcp-Name": "x"}
    reply = await stand.client.post("/mcp/tools", json=body, headers=headers)
    assert "secret_not_for_origin" in reply.text
    assert (evil.received, evil.connections) == ([], 0)
    assert "The MCP server tools gets no secret" in stand.gateway.warnings[0]


async def test_a_bound_document_is_not_fetched_elsewhere(
    stand: Stand, evil: Upstream
) -> None:
    """The document that a held call names is asked for with the same credential."""
    await stand.secret()
    agent = await stand.agent("send:payment", "read:calendar")
    binds = '[[routes]]\nmethod = "POST"\npath = "/i/{id}/confirm"\n'
    binds += 'scope = "send:payment"\nbinds = [{ get = "/i/{id}" }]\n'
    head = file(at(evil), kind="bearer", secret="key").replace(ROUTE, binds)
    await put(stand, head)
    token = await stand.token(agent, "read:calendar")
    reply = await stand.client.post(
        "/gw/api/i/1/confirm", headers={"Authorization": f"Bearer {token}"}
    )
    assert reply.json()["reason"] == "referent_unreadable"
    assert (evil.received, evil.connections) == ([], 0)


@pytest.mark.parametrize("listed", [(), ("none",), ("https://api.test",)])
async def test_a_connections_token_goes_where_its_list_says(
    stand: Stand, agent: Agent, listed: tuple[str, ...]
) -> None:
    """A connection has a list of its own; without one it is not used later on."""
    broker = stand.bench.broker
    known = {"google": ConnectionSettings(("read:calendar",), for_=listed)}
    broker.settings = replace(broker.settings, connections=known)
    await put(stand, file(at(stand.upstream), kind="connection", connection="google"))
    assert await call(stand, agent) == REFUSED
    assert stand.upstream.received == []
    known["google"] = ConnectionSettings(("read:calendar",), for_=(at(stand.upstream),))
    assert (await call(stand, agent))[0] == 502  # no account was connected


async def test_a_fetched_token_ends_with_its_secret(stand: Stand, agent: Agent) -> None:
    """Once the secret is removed or listed elsewhere, what it fetched is not sent."""
    stand.upstream.answer = token_endpoint
    named = {"token_endpoint": f"{at(stand.upstream)}/token", "client_id": "me"}
    told = {"kind": "client_credentials", "secret": "key", **named}
    await put(stand, file(at(stand.upstream), **told))
    assert (await call(stand, agent))[0] == 200
    await stand.secret("key", SECRET, "https://other.test")
    assert await call(stand, agent) == REFUSED
    secrets = stand.gateway.secrets
    await secrets.change(
        lambda: secrets.remove("key", OPERATOR), stand.bench.broker.record
    )
    assert (await call(stand, agent))[0] == 502


async def test_a_rotated_refresh_token_never_comes_under_another_list(
    stand: Stand, agent: Agent
) -> None:
    """A successor that arrives after an operator set the secret again is not kept."""

    async def overtaken(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.method == "POST":
            await stand.secret("key", "rt_of_the_operator", "https://other.test")
        said = {"access_token": "at_0123456789", "refresh_token": "rt_second"}
        body = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)

    stand.upstream.answer = overtaken
    named = {"token_endpoint": f"{at(stand.upstream)}/token", "client_id": "me"}
    told = {"kind": "refresh_token", "secret": "key", **named}
    await put(stand, file(at(stand.upstream), **told))
    await call(stand, agent)
    secrets = stand.gateway.secrets
    assert secrets.origins("key") == ("https://other.test",)
    changed = await stand.bench.events("secret.changed")
    assert [event.reason for event in changed].count("replaced") == 1


# What existed before


def of_before(stand: Stand, **values: str) -> None:
    """Seal secrets as earlier versions did, without origins."""
    secrets = stand.gateway.secrets
    secrets.seals_origins = False
    for name, value in values.items():
        secrets.set(name, value, OPERATOR).write()
    secrets.seals_origins = True


def restarted(stand: Stand) -> SecretOrigins:
    """Look with the objects of a new start on the same ledger and files."""
    gateway, broker = stand.gateway, stand.bench.broker
    parts = gateway.secrets, gateway.services, gateway.mcp_servers
    return SecretOrigins(broker, *parts)


def never_started(stand: Stand) -> None:
    """Have the ledger be one that no version with this rule has opened."""
    stand.bench.broker.recording.meta.pop(TAKEN)


async def test_secrets_that_exist_get_the_origins_of_their_users_once(
    stand: Stand, agent: Agent, evil: Upstream
) -> None:
    """At the first start alone; what nothing uses is for none; then they are sealed."""
    of_before(stand, old=SECRET, idle="unused")
    await put(stand, file(at(stand.upstream), kind="bearer", secret="old"))
    assert await call(stand, agent) == REFUSED
    never_started(stand)
    await restarted(stand).look()
    secrets = stand.gateway.secrets
    assert secrets.origins("old") == (at(stand.upstream),)
    assert secrets.origins("idle") == ()
    assert secrets.rows()["old"].bound == (at(stand.upstream),)
    assert await call(stand, agent) == (200, None)
    told = {
        event.resource: event.detail["for"]
        for event in await stand.bench.events("secret.changed")
        if event.reason == "origins taken"
    }
    assert told == {"old": [at(stand.upstream)], "idle": ["none"]}
    await put(stand, file(at(evil), kind="bearer", secret="old"))
    await restarted(stand).look()
    assert await call(stand, agent) == REFUSED
    assert evil.received == []


async def test_a_row_of_before_that_is_put_back_later_is_sent_nowhere(
    stand: Stand, agent: Agent
) -> None:
    """An old copy of the file brings no secret back that has no list."""
    of_before(stand, old=SECRET)
    copied = stand.bench.home.secrets_file.read_bytes()
    await put(stand, file(at(stand.upstream), kind="bearer", secret="old"))
    never_started(stand)
    await restarted(stand).look()
    assert (await call(stand, agent))[0] == 200
    stand.bench.home.secrets_file.write_bytes(copied)
    await restarted(stand).look()
    assert await call(stand, agent) == REFUSED


@pytest.mark.parametrize("stops", ["before the file", "before the last record"])
async def test_a_start_that_stops_in_between_is_finished_by_the_next(
    stand: Stand, agent: Agent, monkeypatch: pytest.MonkeyPatch, stops: str
) -> None:
    """Nobody has to type a value again because a start was killed; nor are files read
    anew by then.
    """
    of_before(stand, old=SECRET)
    await put(stand, file(at(stand.upstream), kind="bearer", secret="old"))
    never_started(stand)
    broker, secrets = stand.bench.broker, stand.gateway.secrets
    record = broker.record
    with monkeypatch.context() as patch:
        if stops == "before the file":

            def full(_: object) -> None:
                raise ServiceError("no room", "make room")

            patch.setattr(secrets, "_write", full)
        else:

            def away(*drafts: Any, **more: Any) -> Any:
                if not drafts:
                    raise LedgerUnwritableError("the disk is full", "")
                return record(*drafts, **more)

            patch.setattr(broker, "record", away)
        await restarted(stand).look()
    (stand.bench.home.config / "services" / "api.toml").unlink()
    await stand.gateway.look()
    await restarted(stand).look()
    assert secrets.rows()["old"].bound == (at(stand.upstream),)
    assert not [key for key in broker.recording.meta if key.startswith(LISTED)]


async def test_a_connection_that_is_used_at_the_first_start_keeps_its_origins(
    stand: Stand, agent: Agent, evil: Upstream
) -> None:
    """They are those of then; a service that uses it later adds none."""
    broker = stand.bench.broker
    known = {"google": ConnectionSettings(("read:calendar",))}
    broker.settings = replace(broker.settings, connections=known)
    await put(stand, file(at(stand.upstream), kind="connection", connection="google"))
    never_started(stand)
    await restarted(stand).look()
    assert (await call(stand, agent))[0] == 502
    await put(stand, file(at(evil), kind="connection", connection="google"))
    await restarted(stand).look()
    assert await call(stand, agent) == REFUSED


# The operators' HTTP


async def test_where_a_secret_goes_is_listed_with_who_uses_it(
    stand: Stand, agent: Agent, evil: Upstream
) -> None:
    """The list names origins and users, and of each user whether it is refused."""
    await put(stand, file(at(stand.upstream), kind="bearer", secret="key"))
    await put(stand, file(at(evil), kind="bearer", secret="key"), "services/evil.toml")
    more = file(at(evil), kind="bearer", secret="absent")
    await put(stand, more, "services/more.toml")
    async with operators_http(stand.bench) as http:
        found = (await http.get("/api/secrets")).json()
        info = (await http.get("/api/services/evil")).json()
    (secret,) = found["secrets"]
    assert (secret["for"], secret["used_by"]) == ([at(stand.upstream)], ["api", "evil"])
    users = {one["name"]: one for one in secret["users"]}
    assert (users["api"]["refused"], users["evil"]["refused"]) == (False, True)
    assert users["evil"]["origins"] == [at(evil)]
    assert [one["name"] for one in found["missing"]] == ["absent"]
    assert info["health"] == "broken"
    assert "is not for" in info["problem"]


@pytest.mark.parametrize(
    ("given", "status", "listed"),
    [
        ({"for": ["https://a.test", "HTTPS://A.test:443"]}, 200, ["https://a.test"]),
        ({"for": ["https://b.test", "smtp://m.test:587"]}, 200, None),
        ({"for": ["none"]}, 200, ["none"]),
        ({"for": []}, 200, ["none"]),
        ({"for": ["none", "https://a.test"]}, 400, None),
        ({"for": ["https://a.test/path"]}, 400, None),
        ({"for": ["a.test"]}, 400, None),
        ({"for": "https://a.test"}, 400, None),
        ({"for": [1]}, 400, None),
        ({}, 400, None),
        ({"for": None}, 400, None),
    ],
)
async def test_a_secret_is_set_for_what_is_listed(
    stand: Stand, given: dict[str, Any], status: int, listed: list[str] | None
) -> None:
    """One that nothing uses needs a list; a bad list sets nothing."""
    body = {"name": "fresh", "value": "a secret value", **given}
    async with operators_http(stand.bench) as http:
        answer = await http.post("/api/secrets", json=body)
    assert answer.status_code == status
    assert "a secret value" not in answer.text
    found = stand.gateway.secrets.origins("fresh")
    if status == 200:
        assert answer.json()["secrets"][0]["for"] == (listed or given["for"])
        assert found == tuple(one for one in listed or given["for"] if one != "none")
    else:
        assert found is None


async def test_a_file_whose_list_was_edited_opens_nothing(
    stand: Stand, agent: Agent, evil: Upstream
) -> None:
    """The origins are sealed with the value: who adds one has to know the value."""
    await put(stand, file(at(evil), kind="bearer", secret="key"))
    path = stand.bench.home.secrets_file
    whole = json.loads(path.read_text())

    def left_out(row: dict[str, Any]) -> None:
        del row["for"]

    for change in (
        lambda row: row["for"].append(at(evil)),
        lambda row: row.update({"for": [at(evil)]}),
        lambda row: row.update({"for": []}),
        left_out,
    ):
        content = json.loads(json.dumps(whole))
        change(content["secrets"]["key"])
        path.write_text(json.dumps(content))
        status, _ = await call(stand, agent)
        assert status in {502, 503}
    assert evil.received == []


async def test_a_broker_is_restarted_with_its_lists(short: Path) -> None:
    """A second start reads them from the file, and takes no others."""
    async with standing(short) as stand:
        await stand.secret()
        origin = at(stand.upstream)
    async with standing(short) as stand:
        assert stand.gateway.secrets.origins("key") == (origin,)
        assert await stand.bench.events("secret.changed")
        assert TAKEN in stand.bench.broker.recording.meta


# A team


async def test_a_teams_lists_are_checked_and_sealed_once_prepare_has_finished(
    short: Path, store: Database, evil: Upstream
) -> None:
    """Brokers of the version before open what is set until then, and not afterwards."""
    store.run("ALTER TABLE agentvault.head DROP COLUMN finished")
    async with standing(short, store) as stand:
        put_private(stand.bench.home.team_key, bytes(range(32)), replace=False)
        secrets, broker = stand.gateway.secrets, stand.bench.broker
        for name in ("key", "gone"):
            set_ = partial(secrets.set, name, SECRET, OPERATOR, [at(stand.upstream)])
            await secrets.change(set_, broker.record)
        row = secrets.rows()["key"]
        seal = SecretsSeal.of(stand.bench.home, shared=True)
        sealed = "secret", "key", row.version, row.key, row.box
        assert seal.unwrap(*sealed) == SECRET.encode()
        agent = await stand.agent("read:calendar")
        await put(stand, file(at(stand.upstream), kind="bearer", secret="key"))
        assert await call(stand, agent) == (200, None)
        await put(stand, file(at(evil), kind="bearer", secret="key"))
        assert await call(stand, agent) == REFUSED
        await secrets.change(partial(secrets.remove, "gone", OPERATOR), broker.record)
        assert f"{LISTED}gone" not in broker.recording.meta
        for statement in FINISH:
            store.run(statement)
        async with asyncio.timeout(PATIENT):
            while secrets.rows()["key"].bound is None:
                await stand.gateway.look()
        assert secrets.rows()["key"].bound == (at(stand.upstream),)
        assert await call(stand, agent) == REFUSED
        await put(stand, file(at(stand.upstream), kind="bearer", secret="key"))
        assert await call(stand, agent) == (200, None)
        await stand.gateway.look()
        assert not [key for key in broker.recording.meta if key.startswith(LISTED)]
