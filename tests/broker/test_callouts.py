"""Call-outs may only make a decision stricter; what is no clear answer denies."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.bench import PAYMENT, Bench
from support.stepups import approve

from agentvault_tui.broker.answers import Denied, Escalated, Granted, Permitted, Spent
from agentvault_tui.broker.operators_api.records import explained
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.policy_change import reload_policy
from agentvault_tui.broker.usecases.redeem import deliver
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.errors import NotForOriginError
from agentvault_tui.model import Action, Actor, ActorKind, Agent
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.vault import Secret

CALENDAR = Action(("write:calendar",), "write:calendar", "calendar:primary")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OPERATOR = Actor(ActorKind.OPERATOR, "uid:1", "olga")


def answers(
    body: bytes | str, status: str = "200 OK", asked: list[Any] | None = None
) -> Respond:
    """Return what answers each request of a connection with *body*."""
    content = body if isinstance(body, bytes) else body.encode()

    async def respond(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
            sent = await reader.readexactly(int(headers["content-length"]))
            if asked is not None:
                asked.append((lines[0], headers, sent))
            length = f"Content-Length: {len(content)}"
            writer.write(f"HTTP/1.1 {status}\r\n{length}\r\n\r\n".encode() + content)

    return respond


@asynccontextmanager
async def listening(respond: Respond, path: Path | None = None) -> AsyncIterator[str]:
    async def accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await respond(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if path is not None:
        server: asyncio.Server = await asyncio.start_unix_server(accept, path)
        url = f"unix:{path}"
    else:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ask?x=1"
    try:
        yield url
    finally:
        server.close()  # and not wait: the broker keeps its connections


async def hooked(bench: Bench, *urls: str, budget: int = 5000, more: str = "") -> None:
    """Put call-outs at *urls* in force for writes and payments."""
    text = more
    for number, url in enumerate(urls):
        text += f'[[hooks]]\nid = "hook-{number}"\nurl = "{url}"\n'
        text += f'scopes = ["writes", "payments"]\nbudget_ms = {budget}\n'
        text += 'secret = "signing"\n' if number else ""
    bench.home.limits_file.write_text(text)
    await reload_policy(bench.broker)
    assert bench.broker.deciding.state.problem is None


async def ask(bench: Bench, agent: Agent, action: Action = CALENDAR) -> Any:
    return await request_token(
        bench.broker, agent, action, resource=None, details=None, source="192.0.2.1"
    )


async def test_a_call_out_is_asked_an_evaluation_with_the_decision_so_far(
    bench: Bench,
) -> None:
    """Signed where it has a secret; its name, verdict and time are in the event."""
    asked: list[Any] = []
    key = b"0123456789abcdef0123456789abcdef"
    secret = "whsec_" + base64.b64encode(key).decode()
    bench.broker.deciding.callouts.open_secret = lambda *_: Secret(secret)
    agent = await bench.agent()
    async with listening(answers('{"decision": true}', asked=asked)) as url:
        await hooked(bench, url, url)
        assert isinstance(await ask(bench, agent), Granted)
        assert isinstance(await ask(bench, agent), Granted)
    assert len(asked) == 4
    line, headers, body = next(one for one in asked if "webhook-id" in one[1])
    assert line == "POST /ask?x=1 HTTP/1.1"
    told = json.loads(body)
    assert told["subject"]["id"] == agent.id
    assert told["action"] == {"name": "write:calendar", "properties": {}}
    assert told["resource"] == {"type": "calendar", "id": "primary"}
    so_far = told["context"]["agentvault"]
    assert (so_far["outcome"], so_far["source"]) == ("allowed", "192.0.2.1")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{made}".lower()
    event = (await bench.events("token.decision"))[-1]
    assert [(one["id"], one["verdict"]) for one in event.detail["hooks"]] == [
        ("hook-0", "allowed"),
        ("hook-1", "allowed"),
    ]
    assert all(isinstance(one["ms"], int) for one in event.detail["hooks"])


async def test_a_call_out_denies_or_asks_a_person_and_never_allows(
    bench: Bench, short: Path
) -> None:
    """Over a Unix socket; a payment that policy escalates stays so."""
    agent = await bench.agent()
    said = '{"decision": false, "context": {"reason": "not on Fridays"}}'
    async with listening(answers(said), short / "hook.sock") as url:
        await hooked(bench, url)
        denied = await ask(bench, agent)
    assert isinstance(denied, Denied)
    assert denied.reason == "hook_denied"
    assert "not on Fridays" in denied.message
    event = (await bench.events("token.decision"))[-1]
    assert event.rule == "hook:hook-0"
    assert event.detail["verdict"]["outcome"] == "allowed"
    for said in (
        '{"decision": true, "context": {"step_up": true, "reason": "ask"}}',
        '{"context": {"step_up": true}}',
    ):
        async with listening(answers(said)) as url:
            await hooked(bench, url)
            held = await ask(bench, agent)
            assert isinstance(held, Escalated)
            assert held.stepup.rule == "hook:hook-0"
    async with listening(answers('{"decision": true}')) as url:
        await hooked(bench, url)
        held = await ask(bench, agent, PAYMENT)
        assert held.stepup.rule == "payments-need-step-up"


async def test_an_evaluation_that_a_call_out_escalates_is_spent_once_approved(
    bench: Bench,
) -> None:
    """The call-out is asked again, and may still deny."""
    agent = await bench.agent()
    async with listening(answers('{"context": {"step_up": true}}')) as url:
        await hooked(bench, url)
        held = await evaluate(bench.broker, agent, CALENDAR)
        assert isinstance(held, Escalated)
        await approve(bench, held.stepup)
        assert isinstance(await evaluate(bench.broker, agent, CALENDAR), Permitted)


async def test_an_approved_token_is_given_out_only_if_the_call_out_still_agrees(
    bench: Bench,
) -> None:
    """A freeze that begins while a person decides stops it; it ends, and it goes on."""
    agent = await bench.agent()
    said = [b'{"context": {"step_up": true}}']

    async def respond(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await answers(said[-1])(reader, writer)

    async with listening(respond) as url:
        await hooked(bench, url)
        held = await ask(bench, agent)
        assert isinstance(held, Escalated)
        await approve(bench, held.stepup)
        stepup = bench.broker.stepups.get(held.stepup.id)
        bench.broker.deciding.callouts.aclose()
        said.append(b'{"decision": false}')
        denied = await deliver(bench.broker, agent, stepup)
        assert isinstance(denied, Denied)
        assert denied.reason == "hook_denied"
        bench.broker.deciding.callouts.aclose()
        said.append(b'{"decision": true}')
        both = (deliver(bench.broker, agent, stepup) for _ in range(2))
        kinds = {type(one) for one in await asyncio.gather(*both)}
    assert kinds == {Granted, Spent}


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        pass


async def closes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a gigabyte, as fast as it is taken."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
    for _ in range(16_384):
        writer.write(b" " * 65_536)
        await writer.drain()


async def trickles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, and never end it."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"decision"')
    await reader.read()


TRUE = '{"decision": true}'


@pytest.mark.parametrize(
    "respond",
    [
        silent,
        closes,
        endless,
        trickles,
        *map(
            answers,
            [
                "",
                "true",
                "[]",
                "{}",
                "{" * 5000,
                '{"decision": "true"}',
                '{"decision": 1}',
                '{"decision": null}',
                '{"decision": false, "decision": true}',
                '{"decision": true, "context": []}',
                '{"decision": true, "context": {"step_up": "no"}}',
                b'{"decision": true, "context": {"reason": "\xff"}}',
                TRUE + " " * 65_536,
            ],
        ),
        answers(TRUE, "201 Created"),
        answers(TRUE, "302 Found\r\nLocation: http://127.0.0.1/"),
        answers(TRUE, "500 Internal Server Error"),
        answers(TRUE, "503 Service Unavailable"),
    ],
)
async def test_what_is_no_clear_answer_denies(bench: Bench, respond: Respond) -> None:
    """Silence, rubbish, a redirect, a fault, too much or too late: `hook_failed`."""
    agent = await bench.agent()
    limit = '[[limits]]\nid = "a"\nscopes = ["writes"]\nwithin = "1h"\ncount = 5\n'
    async with listening(respond) as url:
        await hooked(bench, url, budget=300, more=limit)
        denied = await ask(bench, agent)
    assert isinstance(denied, Denied)
    assert denied.reason == "hook_failed"
    assert not await bench.broker.deciding.limits.all()
    event = (await bench.events("token.decision"))[-1]
    assert event.detail["hooks"][0]["verdict"] == "failed"


async def test_operators_see_whether_each_call_out_answered_last(bench: Bench) -> None:
    """None before it was asked; then the last, until the call-out is changed."""

    async def health() -> list[tuple[object, ...]]:
        told = (await bench.read("/api/limits")).json()["hooks"]
        return [(h["answers"], h["asked_at"] is not None, h["problem"]) for h in told]

    agent = await bench.agent()
    allows = answers('{"decision": true}')
    async with listening(allows) as one, listening(answers("{")) as two:
        await hooked(bench, one, two)
        assert await health() == [(None, False, None)] * 2
        await ask(bench, agent)
        first, second = await health()
        assert first == (True, True, None)
        assert second[:2] == (False, True)
        assert "The call-out hook-1 failed" in str(second[2])
        await hooked(bench, one, one)
        assert await health() == [first, (None, False, None)]


async def test_nobody_is_reached_where_none_may_be(bench: Bench) -> None:
    """A port that is closed, a name of this machine by https, a secret that is gone."""
    agent = await bench.agent()
    for url in ("http://127.0.0.1:9/", "https://localhost:9/", "unix:/nowhere"):
        await hooked(bench, url)
        assert (await ask(bench, agent)).reason == "hook_failed"
    async with listening(answers(TRUE)) as url:
        await hooked(bench, url, url)
        assert (await ask(bench, agent)).reason == "hook_failed"


async def test_a_hook_that_is_pointed_elsewhere_is_not_signed_and_denies(
    bench: Bench,
) -> None:
    """Its secret is opened for the URL's origin alone, also over an open connection."""
    asked: list[Any] = []
    wanted: list[str] = []

    def only(_: str, to: Sequence[ServerOrigin] | None) -> Secret:
        wanted.extend(map(str, to or ()))
        if wanted[-1] != wanted[0]:
            raise NotForOriginError("the secret is not for it")
        return Secret("whsec_AAAA")

    bench.broker.deciding.callouts.open_secret = only
    agent = await bench.agent()
    async with (
        listening(answers(TRUE)) as first,
        listening(answers(TRUE, asked=asked)) as other,
    ):
        await hooked(bench, first, first)
        assert isinstance(await ask(bench, agent), Granted)
        await hooked(bench, first, other)
        assert (await ask(bench, agent)).reason == "hook_failed"
    assert asked == []
    assert wanted == [url.removesuffix("/ask?x=1") for url in (first, other)]


async def test_call_outs_are_asked_at_once_each_in_its_own_budget(bench: Bench) -> None:
    """None waits for another: each answers only once all were asked."""
    agent = await bench.agent()
    there = asyncio.Barrier(3)

    async def together(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await there.wait()
        await answers(TRUE)(reader, writer)

    bench.broker.deciding.callouts.open_secret = lambda *_: Secret("whsec_AAAA")
    async with listening(together) as url:
        await hooked(bench, url, url, url)
        assert isinstance(await ask(bench, agent), Granted)


async def test_nothing_is_issued_for_an_agent_that_was_revoked_meanwhile(
    bench: Bench,
) -> None:
    """The answer of a call-out comes too late for it."""
    agent = await bench.agent()

    async def revokes(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await revoke_agent(bench.broker, agent.id, "test", OPERATOR)
        await answers(TRUE)(reader, writer)

    async with listening(revokes) as url:
        await hooked(bench, url)
        denied = await ask(bench, agent)
    assert isinstance(denied, Denied)
    assert denied.reason == "agent_revoked"


async def test_what_a_limit_or_policy_denies_is_told_to_no_call_out(
    bench: Bench,
) -> None:
    """Nor is what it is not for."""
    asked: list[Any] = []
    agent = await bench.agent("agent", "write:calendar", "read:calendar")
    async with listening(answers(TRUE, asked=asked)) as url:
        await hooked(bench, url)
        denied = await ask(bench, agent, PAYMENT)
        assert denied.reason == "scope_not_granted"
        reading = Action(("read:calendar",), "read:calendar")
        assert isinstance(await ask(bench, agent, reading), Granted)
    assert asked == []


@pytest.mark.parametrize("place", [0, 1, 20])
async def test_each_action_of_a_request_is_an_evaluation_of_its_own(
    bench: Bench, place: int
) -> None:
    """An agent chooses their order; the strictest answer counts."""
    asked: list[str] = []

    async def rules(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            sent = json.loads(await reader.readexactly(size))
            asked.append(sent["resource"]["id"])
            good = json.dumps({"decision": asked[-1] != "secret"}).encode()
            line = f"HTTP/1.1 200 OK\r\nContent-Length: {len(good)}\r\n\r\n"
            writer.write(line.encode() + good)

    def writing(name: str) -> Action:
        return Action(("write:calendar",), "write:calendar", f"calendar:{name}")

    agent = await bench.agent("agent", "write:calendar", "read:calendar")
    named = [f"a{number}" for number in range(20)]
    actions = [writing(one) for one in named]
    read = Action(("read:calendar",), "read:calendar", "calendar:secret")
    async with listening(rules) as url:
        await hooked(bench, url)
        first, *others = [*actions, read]
        allowed = await evaluate(bench.broker, agent, first, others=tuple(others))
        assert isinstance(allowed, Permitted)
        assert sorted(asked) == sorted(named)
        actions.insert(place, writing("secret"))
        first, *others = actions
        denied = await evaluate(bench.broker, agent, first, others=tuple(others))
        assert isinstance(denied, Denied)
        assert (denied.reason, "secret" in asked) == ("hook_denied", True)
        asked.clear()
        many = tuple(writing(f"b{number}") for number in range(64))
        late = await evaluate(bench.broker, agent, first, others=many)
    assert isinstance(late, Denied)
    assert (late.reason, asked) == ("hook_failed", [])


async def test_explaining_names_the_call_outs_and_asks_none(bench: Bench) -> None:
    """So that "allowed" is not read as the last word."""
    asked: list[Any] = []
    agent = await bench.agent("agent", "write:calendar", "read:calendar")
    async with listening(answers(TRUE, asked=asked)) as url:
        await hooked(bench, url)
        told = explained(bench.broker, agent, CALENDAR).would_change
        assert "was not asked" in told[-1]
        reading = Action(("read:calendar",), "read:calendar")
        told = explained(bench.broker, agent, reading).would_change
        assert "was not asked" not in "".join(told)
    assert asked == []
