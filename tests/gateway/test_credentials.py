"""Each kind of credential, as a service receives it, and what a revocation drops."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from support.bench import OPERATOR
from support.gateway_stand import SECRET, Received, Stand

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.clock import Deadline
from agentvault_tui.model import Account, Agent
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.vault import ProviderToken, Secret

ROUTE = '[[routes]]\nmethod = "GET"\npath = "/{rest*}"\nscope = "read:calendar"\n'


def credential(**members: str) -> str:
    lines = [f'{name} = "{value}"' for name, value in members.items()]
    return "\n".join(["[credential]", *lines, ROUTE])


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    await stand.secret()
    return await stand.agent("read:calendar")


async def call(stand: Stand, agent: Agent, path: str = "/gw/api/x?a=1") -> Any:
    token = await stand.token(agent, "read:calendar")
    return await stand.client.get(path, headers={"Authorization": f"Bearer {token}"})


BASIC = base64.b64encode(f"bot:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "case",
    [
        ({"kind": "none"}, "authorization", None, "/x?a=1"),
        ({"kind": "bearer", "secret": "key"}, "authorization", f"Bearer {SECRET}", ""),
        (
            {"kind": "basic", "secret": "key", "username": "bot"},
            "authorization",
            f"Basic {BASIC}",
            "",
        ),
        (
            {"kind": "header", "secret": "key", "name": "X-Key", "prefix": "Token "},
            "x-key",
            f"Token {SECRET}",
            "",
        ),
        (
            {"kind": "query", "secret": "key", "name": "key"},
            "authorization",
            None,
            f"/x?a=1&key={SECRET}",
        ),
    ],
    ids=lambda case: case[0]["kind"],
)
async def test_a_sealed_secret_is_attached_where_its_kind_says(
    stand: Stand, agent: Agent, case: tuple[dict[str, str], str, str | None, str]
) -> None:
    """It is in its place, once, and in no record."""
    members, header, value, target = case
    await stand.service(credential(**members))
    assert (await call(stand, agent)).status_code == 200
    (sent,) = stand.upstream.received
    assert sent.header(header) == value
    assert sent.target == (target or "/x?a=1")
    assert all(SECRET not in str(event) for event in await stand.settled())


async def test_a_secret_that_is_changed_counts_at_once(
    stand: Stand, agent: Agent
) -> None:
    """A replaced secret is attached to the next call; a removed one to none."""
    await stand.service(credential(kind="bearer", secret="key"))
    await call(stand, agent)
    await stand.secret(value="sk_live_another_one")
    await call(stand, agent)
    assert stand.upstream.received[1].header("authorization") == (
        "Bearer sk_live_another_one"
    )
    change = stand.gateway.secrets.remove("key", OPERATOR)
    await stand.bench.broker.record(change.draft)
    change.write()
    reply = await call(stand, agent)
    assert (reply.status_code, reply.json()["error"]) == (502, "upstream_unreachable")
    assert "key" not in reply.json()["error_description"].replace("key ", "")
    assert len(stand.upstream.received) == 2


class Endpoint:
    """The service's own token endpoint, and its API behind it."""

    def __init__(self) -> None:
        self.issued = 0
        self.forms: list[dict[str, list[str]]] = []
        self.clients: list[str | None] = []
        self.reply: dict[str, Any] = {}
        self.status = b"200 OK"

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        said: dict[str, Any] = {"ok": True}
        if request.target == "/token":
            self.issued += 1
            self.forms.append(parse_qs(request.body.decode()))
            self.clients.append(request.header("authorization"))
            said = {"access_token": f"at_{self.issued}_0123456789", "expires_in": 3600}
            said |= self.reply
        body = str(said.get("nested") or json.dumps(said)).encode()
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (self.status, len(body))
        writer.write(head + body)


async def test_a_fetched_token_is_one_agents_and_ends_with_it(
    stand: Stand, agent: Agent
) -> None:
    """Client credentials are fetched once an agent and again after a revocation."""
    endpoint = Endpoint()
    stand.upstream.answer = endpoint
    at = f"http://127.0.0.1:{stand.upstream.port}/token"
    named = {"token_endpoint": at, "client_id": "the id", "scope": "a b"}
    await stand.service(credential(kind="client_credentials", secret="key", **named))
    other = await stand.agent("read:calendar", name="other")
    for who in (agent, agent, other):
        assert (await call(stand, who)).status_code == 200
    calls = [
        r.header("authorization") for r in stand.upstream.received if r.method == "GET"
    ]
    assert calls == ["Bearer at_1_0123456789"] * 2 + ["Bearer at_2_0123456789"]
    assert endpoint.forms[0] == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    pair = base64.b64encode(f"the+id:{SECRET}".encode()).decode()
    assert endpoint.clients[0] == f"Basic {pair}"
    await revoke_agent(stand.bench.broker, agent.id, "gone", OPERATOR)
    await stand.restore(agent)
    assert (await call(stand, agent)).status_code == 200
    assert (await call(stand, other)).status_code == 200
    assert endpoint.issued == 3
    stand.bench.clock.advance(3600)
    assert (await call(stand, other)).status_code == 200
    assert endpoint.issued == 4


async def test_a_refresh_token_that_is_rotated_is_kept(
    stand: Stand, agent: Agent
) -> None:
    """The next fetch shows the refresh token that the last one gave."""
    endpoint = Endpoint()
    endpoint.reply = {"refresh_token": "rt_second", "expires_in": 60}
    stand.upstream.answer = endpoint
    at = f"http://127.0.0.1:{stand.upstream.port}/token"
    named = {"token_endpoint": at, "client_id": "me"}
    await stand.service(credential(kind="refresh_token", secret="key", **named))
    assert (await call(stand, agent)).status_code == 200
    assert endpoint.forms[0]["refresh_token"] == [SECRET]
    assert endpoint.forms[0]["client_id"] == ["me"]
    stand.bench.clock.advance(60)
    assert (await call(stand, agent)).status_code == 200
    assert endpoint.forms[1]["refresh_token"] == ["rt_second"]


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (b"400 Bad Request", {"error": "invalid_client"}),
        (b"200 OK", {"access_token": None}),
        (b"200 OK", {"access_token": "two\nlines"}),
        (b"200 OK", {"access_token": "x" * 70_000}),
        (b"200 OK", {"nested": "[" * 60_000}),
    ],
)
async def test_a_token_endpoint_that_gives_none_sends_no_call(
    stand: Stand, agent: Agent, status: bytes, reply: dict[str, Any]
) -> None:
    """Whatever it answers instead of a token, the call fails and its API hears none."""
    endpoint = Endpoint()
    endpoint.status, endpoint.reply = status, reply
    stand.upstream.answer = endpoint
    at = f"http://127.0.0.1:{stand.upstream.port}/token"
    named = {"token_endpoint": at, "client_id": "me"}
    await stand.service(credential(kind="client_credentials", secret="key", **named))
    answer = await call(stand, agent)
    assert (answer.status_code, answer.json()["error"]) == (502, "upstream_unreachable")
    assert [r.target for r in stand.upstream.received] == ["/token"]


@pytest.mark.parametrize(
    ("members", "echoed"),
    [
        ({"kind": "bearer", "secret": "key"}, SECRET),
        ({"kind": "basic", "secret": "key", "username": "bot"}, SECRET),
        ({"kind": "basic", "secret": "key", "username": "bot"}, BASIC),
        ({"kind": "basic", "secret": "pin", "username": "bot"}, "Ym90OjQ3"),
        ({"kind": "header", "secret": "key", "name": "X-Key"}, SECRET),
        ({"kind": "query", "secret": "key", "name": "key"}, SECRET),
    ],
)
async def test_an_echoed_secret_is_found_of_each_kind(
    stand: Stand, agent: Agent, members: dict[str, str], echoed: str
) -> None:
    """A service that answers with what it was shown is credential_echoed."""

    async def echo(_: Received, writer: asyncio.StreamWriter) -> None:
        body = f"you are {echoed}!".encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)

    stand.upstream.answer = echo
    await stand.secret("pin", "47")
    await stand.service(credential(**members))
    reply = await call(stand, agent)
    assert (reply.status_code, reply.json()["error"]) == (502, "credential_echoed")
    assert echoed not in reply.text


async def test_a_secret_is_encoded_for_where_it_stands(
    stand: Stand, agent: Agent
) -> None:
    """In a query (RFC 3986), and in Basic of a token endpoint (RFC 6749, 2.3.1)."""
    secret = "a b&c=d%e:f+g/h"
    await stand.secret(value=secret)
    await stand.service(credential(kind="query", secret="key", name="the key"))
    assert (await call(stand, agent)).status_code == 200
    sent = stand.upstream.received[-1].target
    assert sent == "/x?a=1&the+key=a%20b%26c%3Dd%25e%3Af%2Bg%2Fh"
    endpoint = Endpoint()
    stand.upstream.answer = endpoint
    named = {"token_endpoint": endpoint_of(stand), "client_id": "a:b"}
    await stand.service(credential(kind="client_credentials", secret="key", **named))
    assert (await call(stand, agent)).status_code == 200
    scheme, _, pair = str(endpoint.clients[0]).partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(pair) == b"a%3Ab:a+b%26c%3Dd%25e%3Af%2Bg%2Fh"


def listed(stand: Stand, *origins: str) -> None:
    """List where tokens of a connection may be sent."""
    broker = stand.bench.broker
    known = {"google-oauth2": ConnectionSettings(("read:calendar",), for_=origins)}
    broker.settings = replace(broker.settings, connections=known)


def endpoint_of(stand: Stand) -> str:
    return f"http://127.0.0.1:{stand.upstream.port}/token"


async def test_a_token_is_fetched_once_and_again_near_its_end_or_for_another_file(
    stand: Stand, agent: Agent
) -> None:
    """Calls at once share it; one that ends within 30 s is none to be kept."""
    endpoint = Endpoint()
    stand.upstream.answer = endpoint
    named = {"token_endpoint": endpoint_of(stand), "client_id": "me"}
    told = {"kind": "client_credentials", "secret": "key", **named}
    await stand.service(credential(**told))
    replies = await asyncio.gather(*(call(stand, agent) for _ in range(4)))
    assert {reply.status_code for reply in replies} == {200}
    assert endpoint.issued == 1
    await stand.service(credential(**told, scope="more"))
    endpoint.reply = {"expires_in": 30}
    for issued in (2, 3):
        assert (await call(stand, agent)).status_code == 200
        assert endpoint.issued == issued


async def test_a_token_that_a_revocation_overtook_is_not_kept(
    stand: Stand, agent: Agent
) -> None:
    """It was fetched for the agent as it was before."""
    endpoint, broker = Endpoint(), stand.bench.broker

    async def revoked(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == "/token":
            await revoke_agent(broker, agent.id, "", OPERATOR)
        await endpoint(request, writer)

    stand.upstream.answer = revoked
    named = {"token_endpoint": endpoint_of(stand), "client_id": "me"}
    await stand.service(credential(kind="client_credentials", secret="key", **named))
    assert (await call(stand, agent)).status_code == 401
    stand.upstream.answer = endpoint
    await stand.restore(agent)
    assert (await call(stand, agent)).status_code == 200
    assert endpoint.issued == 2


async def test_a_connected_account_gives_its_own_agents_calls_a_token(
    stand: Stand, agent: Agent
) -> None:
    """The provider's token of the agent's account is attached, until it is cut off."""
    listed(stand, f"http://127.0.0.1:{stand.upstream.port}")
    await stand.service(credential(kind="connection", connection="google-oauth2"))
    reply = await call(stand, agent)
    assert (reply.status_code, reply.json()["error"]) == (502, "upstream_unreachable")
    assert stand.upstream.received == []
    broker = stand.bench.broker
    clock = broker.clock
    account = Account(
        agent.id,
        "google-oauth2",
        "cac_1",
        broker.reaching.vault.issuer,
        "auth0|alice",
        "alice",
        ("calendar",),
        clock.now(),
    )
    broker.registry.accounts.put(account)
    held = HeldProviderToken(
        account,
        Secret("ya29.provider-token"),
        "calendar",
        "thumbprint",
        clock.now() + timedelta(hours=1),
        Deadline.after(clock, 600),
    )
    broker.registry.provider_tokens.put(held)
    for _ in range(2):
        assert (await call(stand, agent)).status_code == 200
    sent = [r.header("authorization") for r in stand.upstream.received]
    assert sent == ["Bearer ya29.provider-token"] * 2
    token = Secret("ya29.renewed-token")
    held = replace(held, token=token, thumbprint="another")
    broker.registry.provider_tokens.put(held)
    assert (await call(stand, agent)).status_code == 200
    sent = [r.header("authorization") for r in stand.upstream.received]
    assert sent[2] == "Bearer ya29.renewed-token"
    other = await stand.agent("read:calendar", name="other")
    assert (await call(stand, other)).status_code == 502
    first = stand.upstream.connections
    await revoke_agent(broker, agent.id, "gone", OPERATOR)
    await stand.restore(agent)
    assert broker.registry.provider_tokens.get(account) is None
    broker.registry.provider_tokens.put(held)
    assert (await call(stand, agent)).status_code == 200
    assert stand.upstream.connections == first + 1


async def test_a_provider_token_that_a_revocation_overtook_is_revoked_there(
    stand: Stand, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has it: it is not kept, and serves to end what others have."""
    broker, kept = stand.bench.broker, list[HeldProviderToken]()
    account = Account(
        *(
            agent.id,
            "google-oauth2",
            "cac_1",
            broker.reaching.vault.issuer,
            "auth0|alice",
        ),
        *("alice", ("calendar",), broker.clock.now()),
    )
    broker.registry.accounts.put(account)

    async def exchange(_: Account) -> ProviderToken:
        await revoke_agent(broker, agent.id, "", OPERATOR)
        return ProviderToken(Secret("ya29.late"), ("calendar",), 3600)

    monkeypatch.setattr(broker.reaching.vault, "exchange", exchange)
    monkeypatch.setattr(broker.reaching.outbox, "keep_undelivered", kept.append)
    listed(stand, f"http://127.0.0.1:{stand.upstream.port}")
    await stand.service(credential(kind="connection", connection="google-oauth2"))
    assert (await call(stand, agent)).status_code == 401
    assert [one.token.reveal() for one in kept] == ["ya29.late"]
    assert broker.registry.provider_tokens.get(account) is None
    assert stand.upstream.received == []
