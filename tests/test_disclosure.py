"""Without details nothing leaves that an agent may have worded, whatever holds it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.alert_stand import AlertStand
from support.bench import OPERATOR, PAYMENT
from support.call_kit import BEARER, PAY, ROUTES, bearer, held
from support.gateway_stand import Stand, Upstream, standing

from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup import begin_approval, deny
from agentvault_tui.disclosure import public_detail, public_reason
from agentvault_tui.model import EventType, ParameterBound, Repeat
from agentvault_tui.watch.config import SIGNALS

WORDS = "zqxjk"
"""Stands wherever an agent chooses words."""
_EVERY = json.dumps([*SIGNALS, *(kind.value for kind in EventType)])
SCOPES = ("read:calendar", "write:calendar", "send:payment")


@pytest.fixture
async def stand(short: Path) -> AsyncIterator[Stand]:
    async with standing(short) as stand:
        await stand.secret()
        await stand.service(BEARER + ROUTES)
        yield stand


@pytest.fixture
async def server() -> AsyncIterator[Upstream]:
    server = Upstream()
    await server.start()
    yield server
    await server.stop()


async def alerts(stand: Stand, server: Upstream, path: Path, more: str) -> AlertStand:
    """Send every event to a webhook and into a file."""
    found = AlertStand(stand.bench, server)
    every = f'sinks = ["hook", "all"]\nevents = {_EVERY}\n{more}'
    await found.start(every, sinks=f'[sinks.all]\nkind = "file"\npath = "{path}"\n')
    return found


async def say_words(stand: Stand) -> None:
    """Have an agent say its words wherever it can."""
    bench, broker = stand.bench, stand.bench.broker
    agent = await stand.agent(*SCOPES)
    action = replace(
        PAYMENT,
        parameters={**PAYMENT.parameters, f"{WORDS}_name": WORDS},
        reason=f"{WORDS} said",
    )
    other: Any = ({"type": "agentvault:action"}, {"type": WORDS, WORDS: WORDS})
    answer: Any = await request_token(
        broker, agent, action, resource=None, details=other
    )
    stepup = answer.stepup
    bound = Repeat(3, 600, (ParameterBound("amount", 5000),))
    await begin_approval(broker, stepup.id, stepup.digest, OPERATOR, bound)
    bench.tenant.approve()
    await bench.until(lambda: not broker.stepups.get(stepup.id).status.open)
    # An approval stands in: its event repeats the agent's reason.
    await request_token(broker, agent, action, resource=None, details=other)
    refused = replace(action, scopes=("read:contacts",), action="read:contacts")
    await request_token(broker, agent, refused, resource=None, details=other)
    await evaluate(broker, agent, replace(action, resource="evaluated"))
    token = await stand.token(agent, "read:calendar")
    shown = {**bearer(token), "Accept": WORDS, f"X-{WORDS}": WORDS}
    url = f"/gw/api/events/a?{WORDS}={WORDS}"
    assert (await stand.client.get(url, headers=shown)).status_code == 200
    await stand.client.get(f"/gw/api/{WORDS}?{WORDS}={WORDS}", headers=shown)
    await stand.client.request(WORDS.upper(), url, headers=shown)
    upload = shown | {"Content-Type": f"text/{WORDS}"}
    await stand.client.put("/gw/api/upload/a", headers=upload, content=b"x")
    await held(stand, token, json={**PAY, WORDS: WORDS}, params={WORDS: WORDS})
    again = replace(action, resource="another")
    answer = await request_token(broker, agent, again, resource=None, details=other)
    await deny(broker, answer.stepup.id, "not today", OPERATOR)


@pytest.mark.parametrize("details", [False, True])
async def test_no_word_of_an_agent_leaves_without_details(
    stand: Stand, server: Upstream, tmp_path: Path, *, details: bool
) -> None:
    """In no event, alert or digest; with details they do."""
    path = tmp_path / "events.jsonl"
    more = "details = true" if details else ""
    watching = await alerts(stand, server, path, more)
    try:
        await say_words(stand)
        await watching.settle()
    finally:
        await watching.watch.aclose()
    exported = path.read_text().splitlines()
    kinds = {json.loads(line)["message"] for line in exported}
    assert {
        *("stepup.requested", "stepup.approved", "stepup.denied", "token.decision"),
        *("access.decision", "gateway.attempt", "gateway.held", "gateway.refused"),
    } <= kinds
    sent = [one.body.decode() for one in server.received]
    assert len(sent) > 10
    for texts in (exported, sent):
        found = [text for text in texts if WORDS in text]
        assert bool(found) is details, found[:1]
    assert any("not today" in text for text in sent)  # a person's words do


@given(st.text(min_size=1), st.sampled_from(["token", "gateway", "stepup", "unknown"]))
def test_a_member_that_is_not_listed_stays(name: str, family: str) -> None:
    """Of events that agents cause, or of a new family, it takes a line here."""
    shown = public_detail(f"{family}.new", {name: "a word", "scope": "read:files"})
    assert shown == {"scope": "read:files"} or name == "scope" or name in shown
    assert "agent_says" not in public_detail(f"{family}.new", {"agent_says": "a"})


def test_a_reason_of_an_unknown_type_stays() -> None:
    """A new type of event shows no reason until it is listed."""
    event = {"type": "new.thing", "actor": {"kind": "operator"}, "reason": "words"}
    assert public_reason(event) is None
