"""What a tenant may say of an approval and must not count, at a whole broker.

The tenant answers as a test says, over HTTP; the client is the broker's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from email.utils import format_datetime
from typing import Any

import pytest
from support.bench import Bench
from support.manual_clock import ManualClock
from support.rogue_tenant import (
    CLIENT_ID,
    JWKS,
    TOKEN,
    Answer,
    RogueTenant,
    rogue_tenant,
    rsa_key,
)
from support.stepups import ask, hold, start

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.model import Action, StepUp, StepUpStatus
from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.vault import TenantClient

Claims = dict[str, Any]
MEETING = Action(("write:calendar",), "write:calendar", "calendar:primary", {}, "")


@pytest.fixture
async def tenant(bench: Bench, clock: ManualClock) -> AsyncIterator[RogueTenant]:
    """The broker's tenant, and a broker for which waiting is moving its clock."""

    async def nap(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    async with rogue_tenant() as running:
        client = TenantClient(
            running.issuer,
            CLIENT_ID,
            clock,
            mfa_at_required=True,
            amr_required=False,
            sleep=nap,
        )
        bench.broker.reaching.tenant = client
        yield running
        await client.aclose()


def signed_in(tenant: RogueTenant, clock: ManualClock) -> Claims:
    """Return the claims of an approver who proved a factor this very second."""
    now = int(clock.now().timestamp())
    return {
        "iss": tenant.issuer,
        "sub": "auth0|u1",
        "aud": CLIENT_ID,
        "iat": now,
        "exp": now + 300,
        "amr": ["mfa"],
        ROLES: ["approver"],
        MFA_AT: now,
    }


def answers(
    tenant: RogueTenant, clock: ManualClock, kid: str = "kid-1", **changes: Any
) -> Callable[[Any], Answer]:
    """Return what gives an ID token with *changes*; a callable takes the time."""

    def give(_: Any) -> Answer:
        claims = signed_in(tenant, clock)
        for name, value in changes.items():
            claims[name] = value(claims["iat"]) if callable(value) else value
        return Answer({**tenant.access(), "id_token": tenant.sign(claims, kid)})

    return give


async def tried(bench: Bench, stepup: StepUp) -> StepUp:
    """Begin the approval, and return the step-up once the tenant has answered."""
    await start(bench, stepup)
    (flow,) = bench.broker.stepups.flows[stepup.id].values()
    await flow.task
    return bench.broker.stepups.get(stepup.id)


WRONG: dict[str, tuple[Claims, str]] = {
    "for another client": ({"aud": "another"}, "claims are not accepted"),
    "of another tenant": ({"iss": "https://evil.test/"}, "claims are not accepted"),
    "with a factor of an hour ago": (
        {MFA_AT: lambda now: now - 3600},
        "proved before the request",
    ),
    "with the factor shown for another approval": (
        {MFA_AT: lambda now: now - 20},
        "proved before the request",
    ),
    "made for another approval": (
        {"iat": lambda now: now - 20, MFA_AT: lambda now: now - 20},
        "older than the request",
    ),
    "without the Action's time": (
        {MFA_AT: None, "auth_time": lambda now: now},
        "our Action proved no second factor",
    ),
    "of a viewer": ({ROLES: ["viewer"]}, "auth0|u1 is not an allowed approver"),
    "of nobody we know": ({ROLES: []}, "auth0|u1 is not an allowed approver"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_id_token_that_is_not_this_approval_grants_nothing(
    bench: Bench, tenant: RogueTenant, clock: ManualClock, name: str
) -> None:
    """It waits for a person again, the record says why, and no token was made."""
    changes, words = WRONG[name]
    agent, stepup = await hold(bench)
    # Half a minute between request and approval: a factor of in between was shown for
    # something else.
    clock.advance(30)
    tenant.script(TOKEN, answers(tenant, clock, **changes))
    after = await tried(bench, stepup)
    assert after.status is StepUpStatus.PENDING
    assert words in (after.problem or "")
    assert bench.broker.registry.tokens_of(agent.id) == []
    (event,) = await bench.events("stepup.not_approved")
    assert words in (event.reason or "")
    assert await bench.events("stepup.approved") == []


async def test_the_same_person_then_proves_it_and_is_let_through(
    bench: Bench, tenant: RogueTenant, clock: ManualClock
) -> None:
    """A wrong answer ends nothing: the right one approves, under a key made since."""
    _, stepup = await hold(bench)
    tenant.script(TOKEN, answers(tenant, clock, **{MFA_AT: None}))
    assert (await tried(bench, stepup)).status is StepUpStatus.PENDING
    tenant.keys["kid-2"] = rsa_key(2)
    tenant.script(TOKEN, answers(tenant, clock, kid="kid-2"))
    assert (await tried(bench, stepup)).status is StepUpStatus.APPROVED
    assert tenant.asked(JWKS) == 2


def listing(tenant: RogueTenant, *kids: str) -> Answer:
    """Return a key set with the tenant's keys of these names."""
    keys = [one for one in tenant.jwks()["keys"] if one["kid"] in kids]
    return Answer({"keys": keys})


@pytest.mark.parametrize("fault", ["500", "not listed yet", "rubbish", "redirect"])
@pytest.mark.parametrize("known", [True, False])
async def test_a_key_that_cannot_be_had_at_once_burns_no_approval(
    bench: Bench, tenant: RogueTenant, clock: ManualClock, fault: str, known: bool
) -> None:
    """The device code is spent by then: the key is asked for again, in its life."""
    tenant.keys["kid-2"] = rsa_key(2)
    faults = {
        "500": Answer({}, 500),
        "not listed yet": listing(tenant, "kid-1"),
        "rubbish": Answer(b"<html>"),
        "redirect": Answer(status=302, headers={"Location": "/elsewhere"}),
    }
    if known:
        # A first approval fetched the keys seconds before they were rotated.
        tenant.script(JWKS, listing(tenant, "kid-1"))
        tenant.script(TOKEN, answers(tenant, clock))
        _, first = await hold(bench, "first")
        assert (await tried(bench, first)).status is StepUpStatus.APPROVED
    tenant.script(JWKS, faults[fault], faults[fault], listing(tenant, "kid-2"))
    tenant.script(TOKEN, answers(tenant, clock, kid="kid-2"))
    _, stepup = await hold(bench)
    assert (await tried(bench, stepup)).status is StepUpStatus.APPROVED


async def test_a_key_that_never_comes_ends_with_the_life_of_the_code(
    bench: Bench, tenant: RogueTenant, clock: ManualClock
) -> None:
    """Then the step-up waits for a person again, and the requests were few."""
    tenant.script(TOKEN, answers(tenant, clock))
    _, first = await hold(bench, "first")
    assert (await tried(bench, first)).status is StepUpStatus.APPROVED
    asked = tenant.asked(JWKS)
    tenant.keys["kid-2"] = rsa_key(2)
    tenant.script(JWKS, listing(tenant, "kid-1"))
    tenant.script(TOKEN, answers(tenant, clock, kid="kid-2"))
    _, stepup = await hold(bench)
    began = clock.now()
    after = await tried(bench, stepup)
    assert after.status is StepUpStatus.PENDING
    assert "a key the tenant does not list" in (after.problem or "")
    life = bench.broker.settings.stepup.device_code_ttl
    assert (clock.now() - began).total_seconds() <= life + 1
    assert tenant.asked(JWKS) - asked <= 4


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_clocks_ten_minutes_apart_grant_nothing_and_are_named(
    bench: Bench, tenant: RogueTenant, clock: ManualClock, minutes: int
) -> None:
    """Whoever approves reads of the clocks, and not only that a claim is wrong."""
    _, stepup = await hold(bench)
    moved = {
        name: lambda now, more=more: now + 60 * minutes + more
        for name, more in (("iat", 0), ("exp", 300), (MFA_AT, 0))
    }
    good = answers(tenant, clock, **moved)

    def dated(request: Any) -> Answer:
        answer = good(request)
        theirs = clock.now().timestamp() + 60 * minutes
        moment = clock.now().fromtimestamp(theirs, clock.now().tzinfo)
        answer.headers = {"Date": format_datetime(moment, usegmt=True)}
        return answer

    tenant.script(TOKEN, dated)
    after = await tried(bench, stepup)
    assert after.status is StepUpStatus.PENDING
    assert "clock and ours are" in (after.problem or "")


async def test_a_tenant_that_goes_away_amid_an_approval_comes_back_to_it(
    bench: Bench, tenant: RogueTenant, clock: ManualClock
) -> None:
    """Errors, rubbish and silence are waited out; agents are answered meanwhile."""
    agent, stepup = await hold(bench)
    meanwhile: list[Any] = []
    good = answers(tenant, clock)

    def later(request: Any) -> Answer:
        meanwhile.append(asyncio.ensure_future(ask(bench, agent, MEETING)))
        return Answer({}, 503) if len(meanwhile) == 1 else Answer(raw=b"rubbish")

    tenant.script(TOKEN, later, later, good)
    assert (await tried(bench, stepup)).status is StepUpStatus.APPROVED
    answered = await asyncio.gather(*meanwhile)
    assert [type(one) for one in answered] == [Granted, Granted]


async def test_with_the_tenant_down_agents_are_answered_and_nobody_approves(
    bench: Bench, tenant: RogueTenant
) -> None:
    """From the broker's own state: what policy allows, allowed; the rest held."""
    await tenant.stop()
    agent, stepup = await hold(bench)
    assert isinstance(await ask(bench, agent, MEETING), Granted)
    with pytest.raises(TenantUnreachableError):
        await start(bench, stepup)
    again = await ask(bench, agent)
    assert isinstance(again, Escalated)
    assert again.stepup.status is StepUpStatus.PENDING
    decided = [one.outcome for one in await bench.events("token.decision")]
    assert sorted(map(str, decided)) == ["allowed", "escalated", "escalated"]
    assert bench.broker.reaching.tenant.reachable is False
