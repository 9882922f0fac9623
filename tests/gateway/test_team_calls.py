"""Calls of all brokers of a team, as each of them lists, tells, cuts and reads them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from support.bench import OPERATOR
from support.gateway_stand import (
    SECRET,
    Received,
    Stand,
    endless,
    operators_http,
    standing,
)
from support.patience import PATIENT, until
from support.postgres import Database

from agentvault_tui.broker.usecases.ending import revoke_token
from agentvault_tui.errors import StoreAwayError
from agentvault_tui.gateway import team_calls
from agentvault_tui.home import put_private
from agentvault_tui.ledger.store_calls import SharedCall
from agentvault_tui.model import Agent

pytestmark = pytest.mark.slow

ROUTES = """
[[routes]]
method = "GET"
path = "/events/{id}"
scope = "read:calendar"
[[routes]]
method = "POST"
path = "/transfers/{to}"
scope = "send:payment"
[routes.parameters]
amount = "body:/amount"
currency = "body:/currency"
"""
PAY = {"amount": 4200, "currency": "USD"}


SEALED = """
[credential]
kind = "bearer"
secret = "key"
"""


@pytest.fixture
async def stands(short: Path, store: Database) -> AsyncIterator[list[Stand]]:
    """Three brokers; agents reach the first one's service."""
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(standing(short / name, store))
            for name in ("a", "b", "c")
        ]
        for one in made:
            key = one.bench.home.team_key
            with contextlib.suppress(FileExistsError):
                put_private(key, b"k" * 32, replace=False)
        await made[0].service(ROUTES)
        await until(lambda: all(len(team(one).others()) == 2 for one in made))
        yield made


def team(stand: Stand) -> Any:
    return stand.bench.broker.team.brokers


async def listed(stand: Stand) -> list[dict[str, Any]]:
    async with operators_http(stand.bench) as http:
        found: list[dict[str, Any]] = (await http.get("/api/calls")).json()["calls"]
    return found


async def lists(stand: Stand, count: int) -> list[dict[str, Any]]:
    """Wait until a broker lists so many calls, and return them."""
    async with asyncio.timeout(PATIENT):
        while len(found := await listed(stand)) != count:  # noqa: ASYNC110 - same
            await asyncio.sleep(0.01)
    return found


async def agent_of(stand: Stand) -> tuple[Agent, dict[str, str]]:
    agent = await stand.agent("read:calendar", "send:payment")
    token = await stand.token(agent, "read:calendar")
    return agent, {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def streaming(
    stand: Stand, headers: dict[str, str], name: str = "e1"
) -> AsyncIterator[Any]:
    """Have a call in flight whose answer never ends by itself."""

    async def slow(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        await endless(writer, b"x" * 1000)

    stand.upstream.answer = slow
    path = f"/gw/api/events/{name}"
    async with stand.client.stream("GET", path, headers=headers) as reply:
        stream = reply.aiter_raw()
        await anext(stream)
        yield stream


@asynccontextmanager
async def hearing(stand: Stand) -> AsyncIterator[list[dict[str, Any]]]:
    """Follow the events of a broker; yield the calls that it tells of."""
    heard: list[dict[str, Any]] = []

    async def follow() -> None:
        async for text in stand.bench.feed.stream(None):
            heard.extend(
                json.loads(event.partition("\ndata: ")[2])
                for event in text.split("\n\n")
                if event.startswith("event: call\n")  # an id would come first
            )

    following = asyncio.create_task(follow())
    try:
        yield heard
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_each_broker_lists_the_calls_of_all_with_the_broker_of_each(
    stands: list[Stand], store: Database
) -> None:
    """One that has ended is listed nowhere, and deleted after a while."""
    a, b, c = stands
    agent, headers = await agent_of(a)
    async with streaming(a, headers):
        for one in (a, b, c):
            (call,) = await lists(one, 1)
            assert (call["broker"], call["agent_id"]) == (team(a).id, agent.id)
            assert (call["service"], call["path"]) == ("api", "/events/e1")
    for one in (a, b, c):
        await lists(one, 0)
    assert a.gateway.team_calls is not None
    store.run("UPDATE agentvault.calls SET ended = ended - interval '3 seconds'")
    a.gateway.team_calls._delete_at = float("-inf")
    await until(lambda: store.run("SELECT count(*) FROM agentvault.calls") == [(0,)])


async def test_consoles_at_any_broker_are_told_of_calls_of_all_until_they_end(
    stands: list[Stand],
) -> None:
    """Call events carry no id: they are in no ledger."""
    a, b, _ = stands
    _, headers = await agent_of(a)
    async with hearing(b) as heard:
        async with streaming(a, headers):
            await until(lambda: bool(heard) and heard[-1]["state"] == "streaming")
        await until(lambda: heard[-1]["state"] == "ended")
        # Reading all of them again tells of no end once more.
        follower, again = b.gateway.team_calls, list[str]()
        assert follower is not None
        follower._tell = lambda kind, _: again.append(kind)
        follower._whole_at = float("-inf")
        await follower._follow()
        assert again == []
    assert {one["broker"] for one in heard} == {team(a).id}
    assert heard[-1]["status"] == 200
    assert heard[-1]["ended"] in {"done", "failed"}


async def test_a_call_is_cut_from_any_broker_and_its_end_is_recorded_once(
    stands: list[Stand],
) -> None:
    """The result says who cut it; the reply comes once its own broker has."""
    a, b, _ = stands
    _, headers = await agent_of(a)
    async with streaming(a, headers) as stream:
        (call,) = await lists(b, 1)
        async with operators_http(b.bench) as http:
            answer = await http.post(f"/api/calls/{call['id']}/cut")
            assert answer.status_code == 200, answer.text
            assert answer.json()["broker"] == team(a).id
            assert [one.cut is not None for one in a.gateway.calls] in ([], [True])
            with pytest.raises(httpx.TransportError):
                async for _ in stream:
                    pass
            again = await http.post(f"/api/calls/{call['id']}/cut")
            assert again.status_code == 404
    result = await a.result()
    assert result.detail["ended"] == "cut"
    assert result.detail["cut_by"]["name"] == "uid 1000"
    assert result.reason == "call_cut"


async def test_a_token_revoked_at_one_broker_ends_its_calls_at_the_others(
    stands: list[Stand],
) -> None:
    """Only calls that were made with it; the agent's other ones go on."""
    a, b, _ = stands
    agent, headers = await agent_of(a)
    (first,) = a.bench.broker.registry.tokens_of(agent.id)
    other = await a.token(agent, "read:calendar")
    async with (
        streaming(a, {"Authorization": f"Bearer {other}"}) as goes_on,
        streaming(a, headers) as stream,
    ):
        await lists(b, 2)
        await revoke_token(b.bench.broker, first.id, "leaked", OPERATOR)
        with pytest.raises(httpx.TransportError):
            async for _ in stream:
                pass
        assert await anext(goes_on)
    results = [one for one in await a.settled() if one.type == "gateway.result"]
    assert sorted(str(one.reason) for one in results) == ["None", "invalid_token"]


async def test_a_call_that_no_broker_has_cannot_be_cut(stands: list[Stand]) -> None:
    """All are asked, and each says that it has none of that id."""
    async with operators_http(stands[1].bench) as http:
        answer = await http.post("/api/calls/call_nobody/cut")
    assert answer.status_code == 404
    assert "no call in flight" in answer.json()["detail"]


async def test_calls_that_are_in_the_store_no_more_are_told_of_as_ended(
    stands: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their broker died, so nobody knows how they ended."""
    a, b, _ = stands
    _, headers = await agent_of(a)

    async def none(*_: object) -> list[SharedCall]:
        return []

    async with hearing(b) as heard, streaming(a, headers):
        await until(lambda: bool(heard) and heard[-1]["state"] == "streaming")
        assert b.gateway.team_calls is not None
        monkeypatch.setattr(b.gateway.team_calls._store, "read", none)
        await until(lambda: heard[-1]["state"] == "ended")
    assert (heard[-1]["broker"], heard[-1]["ended"]) == (team(a).id, "unknown")


async def test_a_broker_that_does_not_answer_is_named(
    stands: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the call: that nobody has it is not said."""
    a, b, _ = stands

    async def none() -> list[tuple[str, bytes]]:
        return []

    assert a.gateway.team_calls is not None
    monkeypatch.setattr(a.gateway.team_calls._store, "requested", none)
    async with operators_http(b.bench) as http:
        answer = await http.post("/api/calls/call_nobody/cut")
    assert answer.status_code == 503
    assert f"the broker {team(a).id} does not answer" in answer.text


async def test_a_held_call_is_read_and_approved_at_another_broker_and_sent_once(
    stands: list[Stand], store: Database
) -> None:
    """Its body crosses the store sealed, only when somebody reads it."""
    a, b, c = stands
    _, headers = await agent_of(a)
    asking = asyncio.create_task(
        a.client.post("/gw/api/transfers/x", headers=headers, json=PAY)
    )
    stepup = await a.pending()
    await until(lambda: b.bench.broker.stepups.find(stepup.id) is not None)
    async with operators_http(b.bench) as http:
        path = f"/api/agents/stepup/{stepup.id}/body"
        body = (await http.get(path)).json()
        assert json.loads(base64.b64decode(body["base64"])) == PAY
        assert stepup.request is not None
        assert body["sha256"] == stepup.request["body_sha256"]
        assert store.run(
            "SELECT count(*) FROM agentvault.asks WHERE answer IS NOT NULL"
        ) == [(0,)]
        c.bench.home.team_key.unlink()
    async with operators_http(c.bench) as http:
        answer = await http.get(path)
        assert answer.status_code == 503
        assert "team key" in answer.text
        a.bench.home.team_key.unlink()
    async with operators_http(b.bench) as http:
        answer = await http.get(path)
        assert answer.status_code == 503
        assert "has no key of the team" in answer.text
    await b.approve(stepup.id)
    reply = await asking
    assert reply.status_code == 200
    (sent,) = a.upstream.received
    assert json.loads(sent.body) == PAY
    await b.bench.ledger.confirm()
    assert b.bench.broker.stepups.get(stepup.id).status == "redeemed"


async def test_while_the_store_is_away_a_broker_lists_its_own_calls(
    stands: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marked as stale, since the others' are not known."""
    a = stands[0]
    assert a.gateway.team_calls is not None

    async def away(*_: object) -> None:
        raise StoreAwayError("the store does not answer")

    _, headers = await agent_of(a)
    async with streaming(a, headers), operators_http(a.bench) as http:
        monkeypatch.setattr(a.gateway.team_calls._store, "read", away)
        told = (await http.get("/api/calls")).json()
    assert told["stale"] is True
    assert [one["broker"] for one in told["calls"]] == [team(a).id]


async def test_any_broker_s_events_tell_of_all_in_one_order(
    stands: list[Stand],
) -> None:
    """Each number once, whichever broker recorded it."""
    a, b, c = stands
    heard: list[int] = []
    first = b.bench.ledger.head.seq + 1

    async def follow() -> None:
        async for text in b.bench.feed.stream(first - 1):
            heard.extend(map(int, re.findall(r"^id: (\d+)$", text, re.MULTILINE)))

    following = asyncio.create_task(follow())
    try:
        await asyncio.gather(
            *(
                one.agent("read:calendar", name=f"{n}{one.url}")
                for n in range(5)
                for one in (a, c)
            )
        )
        for one in (a, c):
            await one.bench.ledger.confirm()
        head = a.bench.ledger.head.seq
        await until(lambda: bool(heard) and heard[-1] >= head)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert heard == list(range(first, first + len(heard)))


async def test_after_the_store_has_forgotten_calls_each_broker_tells_them_anew(
    stands: list[Stand], store: Database
) -> None:
    """A failover or crash of PostgreSQL empties tables that are not logged."""
    a, b, _ = stands
    _, headers = await agent_of(a)
    asking = asyncio.create_task(
        a.client.post("/gw/api/transfers/x", headers=headers, json=PAY)
    )
    stepup = await a.pending()
    # A held call changes no more, so nothing else has it told of again.
    (before,) = await lists(b, 1)
    store.run("TRUNCATE agentvault.calls")
    (anew,) = await lists(b, 1)
    assert anew["id"] == before["id"]
    await a.approve(stepup.id)
    assert (await asking).status_code == 200


async def test_a_broker_that_does_not_live_has_no_calls(
    stands: list[Stand], store: Database
) -> None:
    """Nor has one that started anew: rows of its process before do not count."""
    a, b, _ = stands
    name = team(a).id
    store.run(
        "INSERT INTO agentvault.calls SELECT unnest(ARRAY['brk_dead', %s]),"
        " 'call_1', 'run_before', 1, NULL, '{}'",
        name,
    )
    assert await listed(b) == []
    # What is no call of this version is passed over as well.
    store.run(
        "UPDATE agentvault.calls SET run = %s WHERE broker = %s", team(a).run_id, name
    )
    assert await listed(b) == []


async def later() -> None:
    """Tell nothing, as between two tellings."""


async def test_calls_are_told_in_parts_those_first_that_wait_longest(
    stands: list[Stand], store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many one broker has, others' calls are told as soon."""
    a, _, _ = stands
    _, headers = await agent_of(a)
    telling = a.gateway.team_calls
    assert telling is not None
    put = telling._publish
    monkeypatch.setattr(telling, "_publish", later)
    monkeypatch.setattr(team_calls, "_AT_ONCE", 2)
    asking = [
        asyncio.create_task(
            a.client.post(f"/gw/api/transfers/{number}", headers=headers, json=PAY)
        )
        for number in range(3)
    ]
    await until(lambda: len(telling._changed) == 3)
    first = list(telling._changed)[:2]
    await put()
    assert {row[0] for row in store.run("SELECT id FROM agentvault.calls")} == {*first}
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_of_a_flooding_agent_little_is_told(
    stands: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long path is cut for others; calls that nobody saw begin are told to nobody."""
    a, b, _ = stands
    _, headers = await agent_of(a)

    telling = a.gateway.team_calls
    assert telling is not None
    with monkeypatch.context() as patch:
        patch.setattr(telling, "_publish", later)
        for number in range(20):
            reply = await a.client.get(f"/gw/api/events/{number}", headers=headers)
            assert reply.status_code == 200
        await a.settled()
        assert telling._changed == {}
    async with streaming(a, headers, "e" * 3000), asyncio.timeout(PATIENT):
        while [len(one["path"]) for one in await listed(b)] != [1000]:  # noqa: ASYNC110 - same
            await asyncio.sleep(0.01)


async def test_no_refresh_token_is_shown_twice_by_brokers_of_a_team(
    stands: list[Stand], store: Database
) -> None:
    """One broker at a time shows it; the next shows what took its place."""
    a, b, c = stands
    shown: list[str] = []

    async def rotating(request: Received, writer: asyncio.StreamWriter) -> None:
        said: dict[str, str] = {}
        if request.target == "/token":
            shown.append(parse_qs(request.body.decode())["refresh_token"][0])
            await asyncio.sleep(0.05)  # in which others would show it as well
            said = {
                "access_token": "at_0123456789",
                "refresh_token": f"rt_{len(shown)}",
            }
        body = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)

    credential = f"""
[credential]
kind = "refresh_token"
secret = "key"
client_id = "me"
token_endpoint = "http://127.0.0.1:{a.upstream.port}/token"
"""
    a.upstream.answer = rotating
    secrets = a.gateway.secrets
    to = [f"http://127.0.0.1:{a.upstream.port}"]
    await secrets.change(
        lambda: secrets.set("key", SECRET, OPERATOR, to), a.bench.broker.record
    )
    await a.service(credential + ROUTES, name="rotating")
    _, headers = await agent_of(a)
    for one in (b, c):
        await one.bench.ledger.confirm()
        await one.gateway.look()
    replies = await asyncio.gather(
        *(one.client.get("/gw/rotating/events/1", headers=headers) for one in stands)
    )
    assert [one.status_code for one in replies] == [200, 200, 200]
    assert shown == [SECRET, "rt_1", "rt_2"]
    sql = "SELECT count(*) FROM agentvault.brokers WHERE id = 'credential:key'"
    assert store.run(sql) == [(0,)]


async def test_a_call_carries_the_secret_that_was_set_last_at_any_broker(
    stands: list[Stand],
) -> None:
    """From the next call on; once it is removed, calls at all brokers have none."""
    a, b, _ = stands
    await a.service(f"{SEALED}{ROUTES}")
    _, headers = await agent_of(b)

    async def change(prepare: Callable[[], Any]) -> None:
        await a.gateway.secrets.change(prepare, a.bench.broker.record)

    secrets, to = a.gateway.secrets, [f"http://127.0.0.1:{a.upstream.port}"]
    for value in ("first", "second"):
        await change(lambda: secrets.set("key", value, OPERATOR, to))  # noqa: B023
        reply = await b.client.get("/gw/api/events/1", headers=headers)
        assert reply.status_code == 200, reply.text
        carried = a.upstream.received[-1].header("authorization")
        assert carried == f"Bearer {value}"
    await change(lambda: a.gateway.secrets.remove("key", OPERATOR))
    reply = await b.client.get("/gw/api/events/1", headers=headers)
    assert reply.json()["error"] == "upstream_unreachable"
    assert len(a.upstream.received) == 2
