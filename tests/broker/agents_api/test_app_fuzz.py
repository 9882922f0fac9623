"""Any bytes at any endpoint: an answer in JSON, never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock

from agentvault_tui.broker.agents_api import AgentsApi
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.home import Home
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.web import App, RequestGuard

PATHS = [
    "/oauth/token",
    "/bc-authorize",
    "/oauth/introspect",
    "/oauth/revoke",
    "/access/v1/evaluation",
    "/access/v1/evaluations",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/healthz",
    "/readyz",
    "/.well-known/authzen-configuration",
]
NAMES = [
    "grant_type",
    "scope",
    "resource",
    "authorization_details",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "token",
    "auth_req_id",
    "binding_message",
    "login_hint",
    "subject",
    "action",
    "context",
    "options",
    "evaluations",
]
WORDS = [
    "client_credentials",
    "urn:openid:params:grant-type:ciba",
    "write:calendar",
    "openid write:calendar send:payment",
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    '[{"type":"agentvault:action","parameters":{"amount":-1}}]',
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.",
]
text = st.sampled_from(WORDS) | st.text(max_size=30)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
    ),
    max_leaves=6,
)
evaluation = st.fixed_dictionaries(
    {},
    optional={
        "subject": st.fixed_dictionaries({"type": text, "id": text}) | value,
        "action": st.fixed_dictionaries({"name": text}, optional={"properties": value}),
        "resource": st.fixed_dictionaries({"type": text, "id": text}) | value,
        "context": st.fixed_dictionaries({"reason": text}) | value,
    },
)
evaluations = st.builds(
    lambda beside, many: beside | {"evaluations": many},
    evaluation,
    st.lists(evaluation | value, max_size=4),
)
forms = st.dictionaries(st.sampled_from(NAMES) | text, text, max_size=6)
tables = (
    st.dictionaries(st.sampled_from(NAMES) | text, value, max_size=6)
    | evaluation
    | evaluations
)
bodies = (
    st.binary(max_size=200)
    | forms.map(lambda form: urlencode(form, errors="replace").encode())
    | tables.map(lambda table: json.dumps(table).encode())
)


class World:
    """One broker for all examples: what they leave behind is part of the fuzz."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bench: Bench) -> None:
        self.loop, self.bench = loop, bench
        self.app: App = RequestGuard(
            AgentsApi(bench.broker, "http://127.0.0.1:7717"),
            hosts=frozenset({b"127.0.0.1:7717"}),
        )
        registration = AgentRequest(
            name="fuzz",
            owner="olga",
            scopes=("write:calendar", "send:payment"),
            resource_server=True,
        )
        registered = loop.run_until_complete(
            register(bench.broker, registration, OPERATOR)
        )
        self.client_id = registered.agent.client_id
        self.secret = registered.client_secret or ""

    def ask(
        self, path: str, method: str, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []
        host = (b"host", b"127.0.0.1:7717")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [host, *headers],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        self.loop.run_until_complete(self.app(scope, receive, send))
        start, end = sent
        return start["status"], dict(start["headers"]), end["body"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = Home.locate(tmp_path_factory.mktemp("fuzz") / "home")
    clock = ManualClock(datetime(2026, 11, 24, 10, 0, tzinfo=UTC))
    with asyncio.Runner() as runner:
        bench = runner.run(Bench.open(home, clock))
        yield World(runner.get_loop(), bench)
        runner.run(bench.close())


def checked(status: int, headers: dict[bytes, bytes], body: bytes) -> dict[str, Any]:
    """Hold what every answer owes."""
    assert status in {200, 400, 401, 403, 404, 405, 413, 415}, (status, body)
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(body)
    assert body.isascii()
    told: dict[str, Any] = json.loads(body)
    if status != 200:
        said = told["error_description"]
        assert all(" " <= c <= "~" and c not in '"\\' for c in said)
        assert len(said) <= 500
    return told


@pytest.mark.slow
@given(
    path=st.sampled_from(PATHS) | st.text(max_size=20),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "X"]),
    kind=st.sampled_from(
        [b"application/x-www-form-urlencoded", b"application/json", b"text/plain"]
    )
    | st.binary(max_size=30),
    body=bodies,
    authorization=st.none() | st.binary(max_size=60),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_strangers_get_an_answer_whatever_they_send(  # noqa: PLR0917 - all of HTTP
    world: World,
    path: str,
    method: str,
    kind: bytes,
    body: bytes,
    authorization: bytes | None,
) -> None:
    """No bytes make a 5xx, an exception, or an answer that is not JSON."""
    headers = [(b"content-type", kind)]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    assert checked(*world.ask(path, method, body, headers))


@pytest.mark.slow
@given(path=st.sampled_from(PATHS[:6]), table=tables, as_json=st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_a_rogue_agent_gets_an_answer_whatever_it_sends(
    world: World, path: str, table: dict[str, Any], as_json: bool
) -> None:
    """The same for one that authenticates, all the way through policy and ledger."""
    known = {"client_id": world.client_id, "client_secret": world.secret}
    table.pop("client_assertion", None)
    table |= known
    if as_json:
        kind, body = b"application/json", json.dumps(table).encode()
    else:
        kind = b"application/x-www-form-urlencoded"
        body = urlencode(table, errors="replace").encode()
    status, headers, answer = world.ask(path, "POST", body, [(b"content-type", kind)])
    told = checked(status, headers, answer)
    assert told.get("error") != "invalid_client"
    world.bench.clock.advance(1)
