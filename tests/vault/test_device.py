"""The device flow: what is asked, what may be shown, what each answer means."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.auth0_answers import CANCELLED, GOOD, PENDING, SLOW_DOWN, oauth_error
from support.exchanges import NOON, answer
from support.manual_clock import ManualClock
from support.polls import polled
from support.rogue_tenant import (
    DEVICE,
    DISCOVERY,
    EXTENSIONS,
    TOKEN,
    Answer,
    Request,
    RogueTenant,
)

from agentvault_tui.errors import (
    TenantError,
    TenantRefusedError,
    TenantUnreachableError,
)
from agentvault_tui.vault import (
    DeviceFlow,
    FlowDenied,
    FlowExpired,
    FlowFailed,
    FlowTokens,
    TenantClient,
)
from agentvault_tui.vault.device import (
    FlowPending,
    FlowSlowDown,
    FlowUnavailable,
    read_poll,
)
from agentvault_tui.vault.reply import TenantReply

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


TYPES = {"authorization_details_types_supported": ["agentvault:stepup"]}


def shows(tenant: RogueTenant, types: Any) -> Answer:
    """Return the embedded tenant's own document, with these *types*."""
    said = {"authorization_details_types_supported": types}
    return Answer({"issuer": tenant.issuer, "kind": "embedded", **said})


async def is_shown(tenant: RogueTenant, client: TenantClient) -> bool:
    """Start a flow for an action; tell whether the tenant was told of it."""
    details = {"type": "agentvault:stepup", "action": "send:payment"}
    await client.start_device_flow("openid", [details], ttl=120)
    return "authorization_details" in tenant.sent(DEVICE)[-1].form


def wait(error: str, seconds: int) -> Answer:
    """Return a 429 that names how long to wait."""
    return Answer({"error": error}, 429, {"Retry-After": str(seconds)})


async def start(client: TenantClient, ttl: int = 120) -> DeviceFlow:
    """Start a flow."""
    return await client.start_device_flow(ttl=ttl)


async def test_authorization_details_are_sent_to_the_device_endpoint(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """The tenant gets the client, the scope and the exact action (RFC 9396)."""
    tenant.script(EXTENSIONS, shows(tenant, ["agentvault:stepup"]))
    details = {"type": "agentvault:stepup", "action": "send:payment", "why": "ü"}
    flow = await client.start_device_flow("openid profile email", [details], ttl=120)
    (sent,) = [one for one in tenant.requests if one.path == DEVICE]
    assert sent.method == "POST"
    assert json.loads(sent.form.pop("authorization_details")) == [details]
    assert sent.form == {"client_id": "avConsole01", "scope": "openid profile email"}
    assert flow.user_code == "KDRT-WZNB"
    assert flow.verification_uri_complete.endswith("/activate?user_code=KDRT-WZNB")


@pytest.mark.parametrize("types", [None, [], ["payment"], "agentvault:stepup", 5])
async def test_authorization_details_are_sent_where_their_type_is_shown(
    tenant: RogueTenant, client: TenantClient, types: Any
) -> None:
    """What the tenant does not say it shows (RFC 9396 section 10), we alone show."""
    tenant.script(EXTENSIONS, shows(tenant, types))
    assert await is_shown(tenant, client) is False


@pytest.mark.parametrize(
    "other",
    [
        Answer({"error": "not_found"}, 404),
        Answer(b"<html>Forbidden</html>", 403),
        Answer(b"a page"),
        Answer(["agentvault:stepup"]),
        Answer({"issuer": "https://evil.test/", **TYPES}),
        Answer(TYPES),
    ],
)
async def test_a_tenant_without_extensions_gets_no_details(
    tenant: RogueTenant, client: TenantClient, other: Answer
) -> None:
    """It is sent no details, and asked for that document once an hour at most."""
    tenant.script(EXTENSIONS, other)
    # A tenant's discovery document may have them for other flows, as Auth0's could.
    tenant.script(DISCOVERY, Answer(tenant.discovery(**TYPES)))
    assert await is_shown(tenant, client) is False
    assert await is_shown(tenant, client) is False
    assert tenant.asked(EXTENSIONS) == 1


async def test_an_outage_does_not_drop_the_details_types(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """No answer starts no flow; only a tenant that says so shows no action."""
    for status in (503, 429):
        tenant.script(EXTENSIONS, Answer(status=status))
        with pytest.raises(TenantUnreachableError):
            await is_shown(tenant, client)
    assert not tenant.sent(DEVICE)
    tenant.script(EXTENSIONS, shows(tenant, ["agentvault:stepup"]))
    assert await is_shown(tenant, client) is True


async def test_a_flow_without_details_fetches_no_extensions(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Only details take it: whatever else is done at an Auth0 tenant never asks."""
    await start(client)
    assert tenant.asked(EXTENSIONS) == 0


async def test_a_device_codes_lifetime_is_capped(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """Auth0's 900 seconds become ours; a shorter life of the tenant's stays."""
    flow = await start(client, ttl=120)
    assert (flow.expires_in, flow.interval) == (120, 5)
    assert flow.started_at == clock.now()
    assert flow.expires.remaining(clock) == 120
    tenant.script(DEVICE, Answer(tenant.device(expires_in=30, interval=None)))
    flow = await start(client)
    assert (flow.expires_in, flow.interval) == (30, 5)
    tenant.script(DEVICE, Answer(tenant.device(verification_uri_complete=None)))
    flow = await start(client)
    assert flow.verification_uri_complete == flow.verification_uri


@pytest.mark.parametrize("code", ["KDRT-WZNB", "KDRTWZNB", "123-456-789", "AB CD EF"])
async def test_user_codes_as_auth0_masks_them_are_shown(
    tenant: RogueTenant, client: TenantClient, code: str
) -> None:
    """Letters or digits with hyphens or spaces between them are a user code."""
    tenant.script(DEVICE, Answer(tenant.device(user_code=code)))
    assert (await start(client)).user_code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"device_code": None},
        {"device_code": 7},
        {"device_code": "x"},
        {"device_code": "with space in it"},
        {"device_code": "x" * 3000},
        {"user_code": None},
        {"user_code": ["KDRT-WZNB"]},
        {"user_code": ""},
        {"user_code": "AB"},
        {"user_code": "K" * 21},
        {"user_code": "kdrt-wznb"},
        {"user_code": "KDRT-WZNB\n"},
        {"user_code": "KDRT\x1b[31m"},
        {"user_code": "\u202eKDRTWZNB"},
        {"user_code": "KDRT\u2010WZNB"},
        {"user_code": "\ua4e1DRT-WZNB"},
        {"user_code": "\uff2bDRT-WZNB"},
        {"user_code": "-KDRTWZNB"},
        {"verification_uri": None},
        {"verification_uri": "https://evil.test/activate"},
        {"verification_uri": "http://127.0.0.1:1/activate"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "/activate"},
        *({"verification_uri": f"{{}}{odd}"} for odd in ("\u202e", "\x1b[0m", " x")),
        *({"verification_uri": f"{{}}{odd}"} for odd in ('"', "\\x", "\b@evil")),
        {"verification_uri_complete": "https://evil.test/?user_code=KDRT-WZNB"},
        {"verification_uri_complete": 3},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": -5},
        {"expires_in": True},
        {"expires_in": "900"},
        {"expires_in": 1e3},
        {"expires_in": 10**30},
        {"interval": 0},
        {"interval": -1},
        {"interval": 61},
        {"interval": "5"},
        {"interval": False},
    ],
)
async def test_unsafe_codes_and_pages_end_the_flow(
    tenant: RogueTenant, client: TenantClient, changes: dict[str, Any]
) -> None:
    """Codes with hidden characters, foreign pages and odd numbers go no further.

    A page's address is plain ASCII on the tenant's own origin, which `{}` stands for.
    """
    if str(page := changes.get("verification_uri", "")).startswith("{}"):
        base = tenant.issuer[: -1 if "\b" in page else None]
        changes = {"verification_uri": base + page[2:].removeprefix("\b")}
    tenant.script(DEVICE, Answer(tenant.device(**changes)))
    with pytest.raises(TenantError, match="that cannot be shown"):
        await start(client)


async def test_a_refused_device_flow_says_what_to_enable(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Auth0's own body for a client without the grant leads to the remedy."""
    body = {
        "error": "unauthorized_client",
        "error_description": (
            f"Grant type '{DEVICE_GRANT}' not allowed for the client."
        ),
        "error_uri": "https://auth0.com/docs/clients/client-grant-types",
    }
    tenant.script(DEVICE, Answer(body, 403))
    with pytest.raises(TenantRefusedError) as caught:
        await start(client)
    assert caught.value.error == "unauthorized_client"
    assert "enable the Device Code grant" in caught.value.diagnosis()


async def test_without_a_client_id_no_device_flow_starts(
    tenant: RogueTenant, clock: ManualClock
) -> None:
    """Without an application the remedy is one command, and nothing is sent."""
    nobody = TenantClient(tenant.issuer, "", clock)
    with pytest.raises(TenantError) as caught:
        await start(nobody)
    assert "agentvault auth0 apply" in caught.value.remedy
    assert tenant.requests == []
    await nobody.aclose()


async def test_tenant_text_is_inert_in_errors(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """A refusal full of escapes is told without any."""
    text = "\x1b]0;owned\x07\u202e[red]\r\n" + "x" * 5000
    tenant.script(DEVICE, oauth_error(403, text, text))
    with pytest.raises(TenantRefusedError) as caught:
        await start(client)
    assert caught.value.diagnosis().isprintable()
    assert len(caught.value.diagnosis()) < 600


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer("authentication", "pending"), FlowPending()),
        (oauth_error(400, "authorization_pending"), FlowPending()),
        (answer("authentication", "slow_down"), FlowSlowDown()),
        (oauth_error(400, "slow_down"), FlowSlowDown()),
        (answer("authentication", "expired"), FlowExpired()),
        (oauth_error(400, "expired_token"), FlowExpired()),
        (
            answer("authentication", "cancelled"),
            FlowDenied("User cancelled the confirmation prompt."),
        ),
        (oauth_error(400, "access_denied"), FlowDenied("cancelled at the tenant")),
        (
            oauth_error(403, "invalid_grant", "Invalid or expired device code."),
            FlowFailed("invalid_grant", "Invalid or expired device code."),
        ),
        (
            oauth_error(403, "unauthorized_client", "Not allowed."),
            FlowFailed("unauthorized_client", "Not allowed."),
        ),
        (
            oauth_error(401, "invalid_client"),
            FlowFailed("invalid_client", "no reason given"),
        ),
        (
            Answer(
                {"error": "too_many_requests", "error_description": "Rate limit"},
                429,
                {"Retry-After": "17"},
            ),
            FlowUnavailable("the tenant answered too_many_requests", 17.0),
        ),
        (
            Answer(b"Too many requests. Check the X-RateLimit-Limit header", 429),
            FlowUnavailable("the tenant answered 429"),
        ),
        (oauth_error(503, "access_denied"), FlowUnavailable("the tenant answered 503")),
        (Answer(b"<html>", 502), FlowUnavailable("the tenant answered 502")),
        (Answer(b"<html>", 200), FlowUnavailable("the tenant answered 200")),
        (
            Answer({"error": ["access_denied"]}, 403),
            FlowUnavailable("the tenant answered 403"),
        ),
        (
            Answer(b'{"error":"access_denied","error":"slow_down"}', 403),
            FlowUnavailable("the tenant answered 403"),
        ),
        (GOOD, FlowTokens("eyJ.c.d")),
        (
            Answer({"access_token": "x"}),
            FlowFailed("no_id_token", "the tenant sent no ID token; it needs openid"),
        ),
    ],
)
async def test_each_poll_answer_of_auth0_and_rfc_8628_is_read(
    tenant: RogueTenant, client: TenantClient, reply: Answer, expected: Any
) -> None:
    """`error` decides before the status: 403 and 429 here, 400 in RFC 8628.

    The first ones are recorded; a limit's headers beside slow_down change nothing.
    """
    flow = await start(client)
    tenant.script(TOKEN, reply)
    assert await client.poll_once(flow) == expected
    sent = tenant.requests[-1]
    assert sent.form == {
        "grant_type": DEVICE_GRANT,
        "device_code": flow.device_code,
        "client_id": "avConsole01",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@pytest.mark.slow
@given(
    st.integers(200, 599),
    st.none()
    | st.dictionaries(
        st.sampled_from(["error", "error_description", "id_token"]) | st.text(),
        json_values,
    ),
)
def test_only_a_200_with_an_id_token_is_success(
    status: int, body: dict[str, Any] | None
) -> None:
    """No other answer, however made up, reads as an approval."""
    result = read_poll(TenantReply(status, body), ManualClock(NOON))
    success = status == 200 and body is not None and type(body.get("id_token")) is str
    assert isinstance(result, FlowTokens) is success
    if isinstance(result, FlowDenied | FlowFailed):
        assert result.message.isprintable()


async def test_polls_are_one_interval_apart(
    tenant: RogueTenant, client: TenantClient, naps: list[float]
) -> None:
    """The first poll comes one interval after the code, and each after its answer.

    A tenant that counts between the requests it receives would find them too close
    if one travels a little faster than the one before: each waits a little longer.
    """
    flow = await start(client)
    tenant.script(TOKEN, PENDING, PENDING, GOOD)
    seen = polled(client)
    assert await client.wait(flow) == FlowTokens("eyJ.c.d")
    assert naps == [5.25, 5.25, 5.25]
    assert [type(one) for one in seen] == [FlowPending, FlowPending, FlowTokens]


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        ((SLOW_DOWN, PENDING, SLOW_DOWN, PENDING), [5.25, 10.25, 10.25, 15.25, 15.25]),
        ((wait("slow_down", 30), PENDING), [5.25, 30, 10.25]),
        (
            (Answer({}, 500), Answer(raw=b"x"), wait("too_many_requests", 25), PENDING),
            [5.25, 10.5, 21, 30, 5.25],
        ),
    ],
    ids=["slow_down", "a longer wait", "an outage"],
)
async def test_the_tenant_sets_the_pace_of_polling(
    tenant: RogueTenant,
    client: TenantClient,
    naps: list[float],
    answers: tuple[Answer, ...],
    pauses: list[float],
) -> None:
    """Each slow_down adds five seconds to every later pause (RFC 8628 section 3.5).

    `Retry-After` beside it is honoured once. Errors, rubbish and rate limits end
    nothing, and afterwards the pace is as before.
    """
    flow = await start(client)
    tenant.script(TOKEN, *answers, GOOD)
    assert isinstance(await client.wait(flow), FlowTokens)
    assert naps == pauses


async def test_the_interval_counts_from_the_receipt_of_the_last_answer(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """An answer that takes three seconds puts the next request off by three."""
    asked: list[float] = []

    def slowly(_: Request) -> Answer:
        asked.append(clock.boot())
        clock.advance(3)
        return PENDING

    flow = await start(client, ttl=30)
    tenant.script(TOKEN, slowly)
    assert await client.wait(flow) == FlowExpired()
    gaps = {later - earlier for earlier, later in pairwise(asked)}
    assert gaps == {8.25}


async def test_a_lost_expired_token_answer_still_ends_the_wait(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Auth0 says expired_token once; who missed it hears invalid_grant."""
    flow = await start(client)
    tenant.script(TOKEN, Answer(raw=b""), oauth_error(403, "invalid_grant"))
    end = await client.wait(flow)
    assert end == FlowFailed("invalid_grant", "the code is used or expired")


async def test_polling_ends_when_the_code_expires(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, naps: list[float]
) -> None:
    """A tenant that stays down costs no more than the code's time, to the second."""
    flow = await start(client, ttl=60)
    await tenant.stop()
    assert await client.wait(flow) == FlowExpired()
    assert sum(naps) == 60
    assert flow.expires.passed(clock)


async def test_tokens_that_come_after_the_code_expired_are_not_taken(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """The tenant's code may live longer than ours; after ours, nobody asks."""
    flow = await start(client, ttl=4)
    tenant.script(TOKEN, GOOD)
    assert await client.wait(flow) == FlowExpired()
    assert tenant.asked(TOKEN) == 0


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (CANCELLED, FlowDenied),
        (oauth_error(403, "expired_token"), FlowExpired),
        (oauth_error(403, "invalid_grant"), FlowFailed),
    ],
)
async def test_a_final_answer_ends_polling(
    tenant: RogueTenant, client: TenantClient, answer: Answer, end: type
) -> None:
    """After a final answer the code is not asked about again."""
    flow = await start(client)
    tenant.script(TOKEN, PENDING, answer)
    assert isinstance(await client.wait(flow), end)
    assert tenant.asked(TOKEN) == 2


async def test_a_cancelled_wait_asks_no_more(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Revoking an agent need not wait for a tenant that does not answer."""
    flow = await start(client)
    tenant.script(TOKEN, Answer(hang=True))
    tenant.arrived.clear()
    task = asyncio.create_task(client.wait(flow))
    await tenant.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tenant.asked(TOKEN) == 1
