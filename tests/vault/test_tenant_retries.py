"""Which answers are tried again, after how long, and how often."""

from typing import Any

import pytest
from support.exchanges import answer
from support.manual_clock import ManualClock
from support.rogue_tenant import Answer, Request, RogueTenant

from agentvault_tui.errors import TenantBusyError, TenantUnreachableError
from agentvault_tui.vault import ClientSecret, Management, Secret, Tenant
from agentvault_tui.vault.api import Purpose
from agentvault_tui.vault.tenant import RetryLimits

CLIENTS = "/api/v2/clients"
DOWN = Answer({"statusCode": 503}, 503)


async def test_a_minute_of_429_is_waited_out(
    tenant: RogueTenant, api: Management, clock: ManualClock
) -> None:
    """An answer that says no for a minute, without saying how long, ends in a yes."""
    began = clock.boot()

    def limited(_: Request) -> Answer:
        if clock.boot() - began < 60:
            return Answer({"statusCode": 429, "error": "Too Many Requests"}, 429)
        return Answer([{"client_id": "agent7"}])

    tenant.script(CLIENTS, limited)
    reply = await api.request("GET", "clients")
    assert reply.rows() == [{"client_id": "agent7"}]
    assert 60 <= clock.boot() - began < 90
    assert tenant.asked(CLIENTS) < 12


async def test_a_lasting_429_is_raised_with_its_wait(
    tenant: RogueTenant, api: Management, clock: ManualClock
) -> None:
    """Tries and waiting are bounded: then the error says when to come back."""
    began = clock.boot()
    tenant.script(CLIENTS, answer("authentication", "custom_rate_limit"))
    with pytest.raises(TenantBusyError, match="spent for 17 s") as caught:
        await api.request("GET", "clients", purpose=Purpose("list its clients"))
    assert caught.value.retry_after == 17
    assert clock.boot() - began < 90
    assert 1 < tenant.asked(CLIENTS) <= 10


async def test_a_429_is_retried_ten_times(tenant: RogueTenant, api: Management) -> None:
    """However short the waits it names, tries are counted too."""
    tenant.script(CLIENTS, Answer({"statusCode": 429}, 429, {"Retry-After": "0"}))
    with pytest.raises(TenantBusyError):
        await api.request("GET", "clients")
    assert tenant.asked(CLIENTS) == 10


async def test_a_retry_waits_what_the_tenant_says(
    tenant: RogueTenant, api: Management, naps: list[float]
) -> None:
    """A reset in an epoch's seconds is waited for, with jitter on top of it."""
    tenant.script(
        CLIENTS, answer("authentication", "prose_rate_limit"), Answer({"clients": []})
    )
    await api.request("GET", "clients")
    assert [nap for nap in naps if nap >= 60] == [60.5]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_idempotent_requests_are_repeated_after_an_outage(
    tenant: RogueTenant, api: Management, method: str
) -> None:
    """A 5xx may have been carried out: twice is as good as once, so it is."""
    tenant.script(CLIENTS, DOWN, Answer({"statusCode": 408}, 408), Answer({"a": 1}))
    assert (await api.request(method, "clients")).body == {"a": 1}
    assert tenant.asked(CLIENTS) == 3


@pytest.mark.parametrize(
    "fault", [DOWN, Answer({}, 408), Answer(raw=b"rubbish\r\n\r\n"), Answer(raw=b"")]
)
async def test_a_post_is_not_repeated_after_an_outage(
    tenant: RogueTenant, api: Management, fault: Answer
) -> None:
    """A POST without a clear answer is not sent again by itself."""
    tenant.script(CLIENTS, fault, Answer({"client_id": "x"}, 201))
    with pytest.raises(TenantUnreachableError):
        await api.request("POST", "clients", body={"name": "x"}, expect=(201,))
    assert tenant.asked(CLIENTS) == 1


async def test_a_post_is_repeated_after_a_429(
    tenant: RogueTenant, api: Management
) -> None:
    """A 429 was not carried out, so a POST too is tried again, and made once."""
    tenant.script(
        CLIENTS,
        answer("management", "too_many_requests"),
        Answer({"client_id": "x"}, 201),
    )
    await api.request("POST", "clients", body={"name": "x"}, expect=(201,))
    assert [one.json for one in tenant.sent(CLIENTS)] == [{"name": "x"}] * 2


async def test_a_repeatable_post_is_repeated(
    tenant: RogueTenant, api: Management
) -> None:
    """A rotation whose answer was lost is asked for again."""
    tenant.script(CLIENTS, Answer(raw=b""), Answer({"client_secret": "new"}))
    reply = await api.request("POST", "clients", repeatable=True)
    assert reply.body == {"client_secret": "new"}


@pytest.mark.parametrize(
    "fault",
    [
        DOWN,
        Answer(raw=b"garbage"),
        Answer(b"", 302, {"Location": "https://evil.test/"}),
        Answer(b"x" * 5_000_000),
    ],
)
async def test_a_lasting_outage_is_raised_after_three_tries(
    tenant: RogueTenant, api: Management, fault: Answer
) -> None:
    """Down, rubbish, a redirect or a flood: three times, then one sentence."""
    tenant.script(CLIENTS, fault)
    with pytest.raises(TenantUnreachableError) as caught:
        await api.request("GET", "clients")
    assert tenant.asked(CLIENTS) == 3
    assert caught.value.diagnosis().isprintable()


async def test_a_slow_answer_is_cut_off(
    tenant: RogueTenant, clock: ManualClock, sleep: Any
) -> None:
    """A management call, too, ends at its deadline."""
    tenant.script(CLIENTS, Answer({}, drip=0.05))
    wired = Tenant(tenant.issuer, clock, timeout=0.2, sleep=sleep)
    api = Management(
        wired, ClientSecret("m", Secret("s")), patience=RetryLimits(attempts=1)
    )
    with pytest.raises(TenantUnreachableError, match=r"within 0\.2 s"):
        await api.request("GET", "clients")
    await wired.aclose()


async def test_jitter_keeps_clients_apart(
    tenant: RogueTenant, clock: ManualClock, sleep: Any, naps: list[float]
) -> None:
    """With chance at its least and most the pauses differ, and neither is none."""
    pauses = []
    for chance in (0.0, 1.0):
        naps.clear()
        tenant.script(CLIENTS, DOWN, Answer({}))
        wired = Tenant(tenant.issuer, clock, sleep=sleep)
        patience = RetryLimits(jitter=lambda chance=chance: chance)
        api = Management(wired, ClientSecret("m", Secret("s")), patience=patience)
        await api.request("GET", "clients")
        pauses += naps[:1]
        await wired.aclose()
    assert pauses == [0.25, 0.5]
