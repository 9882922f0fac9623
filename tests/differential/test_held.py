"""Calls that wait for a person: the call that is shown is the one that is sent."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from pathlib import Path
from typing import Any

from support.gateway_stand import Stand, standing
from support.patience import PATIENT

from agentvault_tui.home import Home
from differential.comparing import OURS, TRACE
from differential.corpus import corpus
from differential.driving import Answer, Tap, ask, put_service
from differential.reading import Call, Message, call_of, messages, plain, sha256
from differential.servers import PLAIN

CASES = 60
READ = "read:calendar"
POLICY_HOLDS = f"""@id("token")
@why("The agent's token.")
@obligation("allow")
permit (principal, action == Action::"{READ}", resource);

@id("held")
@why("The corpus is about what is shown.")
@obligation("step_up")
permit (principal, action, resource) unless {{ action == Action::"{READ}" }};
"""


async def test_a_person_approves_the_call_that_is_sent() -> None:
    """Method, URL, headers and body of a step-up equal the request on the wire."""
    with tempfile.TemporaryDirectory(prefix="d-") as folder:
        home = Home.locate(Path(folder) / "home")
        home.prepare()
        home.policy_file.write_text(POLICY_HOLDS)
        async with PLAIN.running() as running, Tap(running.port).listening() as tap:
            async with standing(Path(folder)) as stand:
                await put_service(stand, tap)
                shown = await _held(stand)
            await tap.settled()
    sent = [m for one in tap.connections for m in messages(bytes(one.written))]
    by_case = {message.field("x-case"): message for message in sent}
    assert len(by_case) == len(sent) == len(shown)
    assert len(shown) * 4 > CASES, "hardly any call was held"
    for number, (request, body) in shown.items():
        message = by_case[number]
        assert request["method"] == message.method
        assert request["url"].endswith(message.target)
        assert request["body_sha256"] == sha256(message.body)
        assert request["body_bytes"] == len(message.body)
        if request["body_kind"] != "opaque":  # whose bytes no person can read
            assert base64.b64decode(body) == message.body
        leaving = {n: v for n, v in message.fields if n not in OURS | TRACE}
        assert request["headers"] == leaving
        call = call_of(message)
        assert request["body_kind"] == call.kind
        assert request["body_type"] == message.field("content-type")
        if "body" in request:
            assert _without_order(request["body"]) == _faces(call, message)


async def _held(stand: Stand) -> dict[str, tuple[dict[str, Any], str]]:
    """Have each case held and approved; return what was shown, by the case's number."""
    agent = await stand.agent(READ, "write:calendar")
    token = await stand.token(agent, READ)
    shown = {}
    for number, case in enumerate(corpus(CASES, 11)):
        asking = asyncio.ensure_future(ask(stand, case, token, number))
        if (stepup := await _stepup(stand, asking)) is None:
            continue
        read = stand.bench.read
        told = (await read(f"/api/agents/stepup/{stepup}")).json()
        body = (await read(f"/api/agents/stepup/{stepup}/body")).json()
        shown[str(number)] = told["request"], body["base64"]
        await stand.approve(stepup)
        answer = await asking
        assert "agentvault-error" not in answer.fields, (case, answer)
        await stand.settled()
        stand.bench.clock.advance(60)
    return shown


async def _stepup(stand: Stand, asking: asyncio.Future[Answer]) -> str | None:
    """Return the step-up of a call that is held; None if it was refused."""
    async with asyncio.timeout(PATIENT):
        while not asking.done():
            if any(call.state == "held" for call in stand.gateway.calls):
                return stand.bench.broker.stepups.open()[0].id
            await asyncio.sleep(0.002)
    await asking
    return None


def _faces(call: Call, message: Message) -> dict[str, Any]:
    """Return the body as every face shows it."""
    content: Any = call.content
    match call.kind:
        case "json":
            return {"kind": "json", "value": plain(content)}
        case "form":
            return {"kind": "form", "pairs": [list(pair) for pair in content]}
        case "multipart":
            parts = [
                {"name": part.name, "value": part.value}
                if part.filename is None
                else {
                    "name": part.name,
                    "filename": part.filename,
                    "type": part.media,
                    "bytes": len(part.content),
                    "sha256": sha256(part.content),
                }
                for part in content
            ]
            return {"kind": "multipart", "parts": parts}
        case "opaque":
            return {
                "kind": "opaque",
                "type": message.field("content-type"),
                "bytes": len(content),
                "sha256": sha256(content),
            }
    return {"kind": "none"}


def _without_order(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "value": plain(body["value"])} if "value" in body else body
