"""The amount of a held call: in its unit on each face, and under the digest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway.test_calls_held_faces import page_text, transfer
from msgspec import to_builtins
from support.call_kit import BEARER, ROUTES, again, held
from support.gateway_stand import Stand
from support.stepups import start

from agentvault_tui import ocsf
from agentvault_tui.broker.shapes import event_info
from agentvault_tui.broker.stepups import digest_of
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.stepup import print_stepup
from agentvault_tui.ledger.docs import read_stepup, write_stepup
from agentvault_tui.ledger.past_stepups import _begun
from agentvault_tui.model import EventType, Money
from agentvault_tui.operator_api.codec import decode
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.intake import Intake
from agentvault_tui.watch.messages import compose

MONEY = '[money]\nunit = "minor"\n'
SHOWN = "42.00 USD (4200 minor units)"
UNKNOWN = "4200 USD, unit unknown"


@pytest.mark.parametrize(("money", "shown"), [(MONEY, SHOWN), ("", UNKNOWN)])
async def test_each_face_shows_the_amount_with_its_unit(
    stand: Stand,
    short: Path,
    capsys: pytest.CaptureFixture[str],
    money: str,
    shown: str,
) -> None:
    """Console, command line, phone page, alert and OCSF; or that it is unknown."""
    stepup = await transfer(stand, money)
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    assert answer.json()["parameters"] == {"amount": 4200, "currency": "USD"}
    item = decode(answer.content, StepUpInfo)
    row = Intake().stepup(item)
    assert dict(row.members)["amount"] == shown
    assert row.gist == shown.partition(" (")[0]
    print_stepup(Output(), item, (), "olga", None)
    assert shown in capsys.readouterr().out
    await start(stand.bench, stepup)
    details = stand.bench.tenant.shown[-1][0]
    assert f">{shown}</bdi>" in await page_text(short, details)
    (event,) = await stand.bench.events(EventType.STEPUP_REQUESTED)
    assert Intake().event(event_info(event)).note == shown.partition(" (")[0]
    broker = stand.bench.broker
    tenant = replace(broker.settings.tenant, url="")  # an alert links to no page here
    broker.settings = replace(broker.settings, tenant=tenant)
    message = compose(broker, "hook", "needs_person", event, details=True)
    assert ("Parameter", f"amount = {shown}") in message.facts
    assert message.data["amount"] == shown
    short_one = compose(broker, "hook", "needs_person", event, details=False)
    assert "4200" not in json.dumps(short_one.data)
    written = to_builtins(event_info(event))
    assert _unmapped(written, details=True)["amount"] == shown
    assert "amount" not in _unmapped(written, details=False)


def _unmapped(event: dict[str, Any], *, details: bool) -> Any:
    return ocsf.record(event, details=details)["unmapped"]


async def test_the_unit_is_under_the_digest(stand: Stand) -> None:
    """A person approves 42.00 USD, and not 4200 of anything."""
    stepup = await transfer(stand, MONEY)
    assert stepup.money == Money("minor", 2)
    assert digest_of(stepup) == stepup.digest
    for money in (None, Money("major", 2), Money("minor", 0)):
        assert digest_of(replace(stepup, money=money)) != stepup.digest


async def test_the_unit_survives_a_restart_and_a_look_into_the_past(
    stand: Stand,
) -> None:
    """State and event both have it."""
    stepup = await transfer(stand, MONEY)
    assert read_stepup(write_stepup(stepup)).money == stepup.money
    assert "money" not in write_stepup(replace(stepup, money=None))
    (event,) = await stand.bench.events(EventType.STEPUP_REQUESTED)
    assert event.detail["money"] == {"unit": "minor", "exponent": 2}
    assert _begun(event, stepup.id).money == stepup.money


async def test_another_unit_in_the_file_is_another_request(stand: Stand) -> None:
    """An approval of 42.00 USD does not open a call that the file now makes 4200.00."""
    stepup = await transfer(stand, MONEY)
    await stand.service(BEARER + MONEY.replace("minor", "major") + ROUTES)
    agent = stand.bench.broker.registry.agent(stepup.agent_id)
    token = await stand.token(agent, "read:calendar")
    await start(stand.bench, stepup)
    reply = await again(stand, token, stepup.id)
    assert (reply.status_code, reply.json()["error"]) == (403, "digest_mismatch")


async def test_no_words_of_an_agent_are_taken_for_a_unit(stand: Stand) -> None:
    """The agent's own parameters name no unit, and its texts are shown as texts."""
    await stand.secret()
    rules = 'unit = "body:/unit"\nmoney = "body:/money"\n'
    await stand.service(BEARER + ROUTES + rules)
    agent = await stand.agent("read:calendar", "send:payment")
    token = await stand.token(agent, "read:calendar")
    body: dict[str, Any] = {"amount": SHOWN, "currency": "USD", "unit": "minor"}
    body["money"] = {"unit": "minor", "exponent": 2}
    asked = (await held(stand, token, json=body))["auth_req_id"]
    stepup = stand.bench.broker.stepups.get(asked)
    assert stepup.money is None
    answer = await stand.bench.read(f"/api/agents/stepup/{stepup.id}")
    row = Intake().stepup(decode(answer.content, StepUpInfo))
    assert row.gist == "amount unclear"
    assert dict(row.members)["amount"].startswith(f'"{SHOWN}" (no number')
