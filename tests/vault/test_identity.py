"""What an ID token's claims must say, and what of them is kept."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.rogue_tenant import CLIENT_ID, JWKS, Answer, RogueTenant, sign_raw

from agentvault_tui.errors import IdentityError
from agentvault_tui.model.claims import MFA_AT, ROLES
from agentvault_tui.vault import TenantClient

GONE = object()


def changed(claims: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return *claims* with *changes*; `GONE` takes one away."""
    mixed = {**claims, **changes}
    return {name: value for name, value in mixed.items() if value is not GONE}


async def test_a_valid_id_token_gives_an_identity(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """All that the evidence of an approval needs is taken from the token."""
    found = await client.verify_id_token(tenant.sign(claims), not_before=clock.now())
    assert (found.sub, found.name, found.email) == (
        "auth0|u1",
        "Alice",
        "alice@acme.test",
    )
    assert found.email_verified
    assert (found.roles, found.amr) == (("approver",), ("mfa",))
    assert found.authenticated_at == clock.now().replace(microsecond=0)
    assert found.claims["sid"] == "k3"
    assert "name" not in found.claims
    assert "auth0" not in repr(found.claims).replace("auth0|u1", "")


async def test_auth_time_counts_without_our_claim(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """A plain OpenID provider that sends auth_time is enough."""
    raw = tenant.sign(changed(claims, **{MFA_AT: GONE, "auth_time": claims["iat"]}))
    found = await client.verify_id_token(raw, not_before=clock.now())
    assert found.authenticated_at == clock.now().replace(microsecond=0)


@pytest.fixture
async def stamped(
    tenant: RogueTenant, clock: ManualClock
) -> AsyncIterator[TenantClient]:
    """A client of a tenant whose Action stamps the second factor's time."""
    made = TenantClient(
        tenant.issuer, CLIENT_ID, clock, mfa_at_required=True, amr_required=False
    )
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({MFA_AT: GONE, "auth_time": 0}, "no_mfa"),
        ({MFA_AT: None, "auth_time": 0}, "no_mfa"),
        ({MFA_AT: -1, "auth_time": 0}, "stale"),
        ({MFA_AT: 0, "auth_time": -3600}, None),
        ({"amr": GONE}, None),
        ({"amr": None}, None),
        ({"amr": "rubbish"}, None),
        ({"amr": GONE, MFA_AT: GONE}, "no_mfa"),
        ({"amr": GONE, MFA_AT: -3600}, "stale"),
        ({"amr": GONE, MFA_AT: True}, "claims"),
    ],
)
async def test_a_required_mfa_at_claim_has_no_substitute(
    tenant: RogueTenant,
    stamped: TenantClient,
    claims: Any,
    changes: dict[str, Any],
    reason: str | None,
) -> None:
    """`auth_time` may be of the browser's session: the Action's claim is required."""
    now = claims["iat"]
    since = datetime.fromtimestamp(now, UTC)
    moved = {
        name: now + value if type(value) is int else value
        for name, value in changes.items()
    }
    raw = tenant.sign(changed(claims, **moved))
    if reason is None:
        found = await stamped.verify_id_token(raw, not_before=since)
        assert found.authenticated_at == since
        return
    with pytest.raises(IdentityError) as caught:
        await stamped.verify_id_token(raw, not_before=since)
    assert caught.value.reason == reason


async def test_mfa_at_without_amr_is_refused_with_its_remedy(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """Refused all the same; but the remedy is the tenant's, not the person's."""
    for changes, said in [({}, "but no amr"), ({MFA_AT: GONE}, "one-time code")]:
        raw = tenant.sign(changed(claims, amr=GONE, **changes))
        with pytest.raises(IdentityError, match="no second factor") as caught:
            await client.verify_id_token(raw, not_before=clock.now())
        assert said in caught.value.remedy


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_clock_skew_is_named_as_the_cause(
    tenant: RogueTenant,
    client: TenantClient,
    clock: ManualClock,
    claims: Any,
    minutes: int,
) -> None:
    """A good sign-in under a wrong clock is refused, and the remedy is the clock."""
    theirs = clock.now() + timedelta(minutes=minutes)
    headers = {"Date": format_datetime(theirs, usegmt=True)}
    tenant.script(JWKS, Answer(tenant.jwks(), headers=headers))
    moved = {name: claims[name] + 60 * minutes for name in ("iat", "exp", MFA_AT)}
    with pytest.raises(IdentityError) as caught:
        await client.verify_id_token(
            tenant.sign(changed(claims, **moved)), not_before=clock.now()
        )
    assert caught.value.reason in {"claims", "stale"}
    assert "clock and ours are" in caught.value.what
    assert "this machine's clock" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iss", GONE),
        ("iss", "https://evil.test/"),
        ("iss", ["x"]),
        ("sub", GONE),
        ("sub", ""),
        ("sub", 7),
        ("sub", ["auth0|u1"]),
        ("sub", "a\nb"),
        ("sub", "\u202eu1"),
        ("sub", "x" * 300),
        ("aud", GONE),
        ("aud", "other"),
        ("aud", []),
        ("aud", ["other"]),
        ("aud", ["avConsole01", "other"]),
        ("aud", {"avConsole01": 1}),
        ("aud", 5),
        ("azp", "other"),
        ("azp", None),
        ("exp", GONE),
        ("exp", True),
        ("exp", "9999999999"),
        ("exp", 1.5e300),
        ("exp", -1),
        ("exp", 0),
        ("exp", 10**30),
        ("exp", None),
        ("iat", GONE),
        ("iat", True),
        ("iat", "1"),
        ("iat", 10**30),
        ("scope", "openid"),
        ("gty", "password"),
        ("permissions", ["x"]),
        ("client_id", "avConsole01"),
        ("events", {"http://schemas.openid.net/event/backchannel-logout": {}}),
        (MFA_AT, True),
        (MFA_AT, "1795000000"),
        (MFA_AT, -1),
        (MFA_AT, 10**30),
        (MFA_AT, [1]),
    ],
)
async def test_missing_and_mistyped_claims_are_refused(
    tenant: RogueTenant, refused: Any, claims: Any, name: str, value: Any
) -> None:
    """Every claim is there, of its type, and ours; a token of another kind is not."""
    assert await refused(tenant.sign(changed(claims, **{name: value}))) == "claims"


@pytest.mark.parametrize("name", ["iat", "exp"])
async def test_fractions_of_a_second_are_refused(
    tenant: RogueTenant, refused: Any, claims: Any, name: str
) -> None:
    """Times that are compared with ours are whole numbers, as everyone writes them."""
    odd = changed(claims, **{name: claims[name] + 0.5})
    assert await refused(tenant.sign(odd)) == "claims"


async def test_several_audiences_need_our_azp(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """Several audiences are fine when the token says that it was made for us."""
    for aud in (["avConsole01"], ["avConsole01", "other"]):
        raw = tenant.sign(changed(claims, aud=aud, azp="avConsole01"))
        known = await client.verify_id_token(raw, not_before=clock.now())
        assert known.sub == claims["sub"]


@pytest.mark.parametrize(
    ("amr", "reason"),
    [
        (GONE, "no_mfa"),
        (None, "no_mfa"),
        ([], "no_mfa"),
        (["pwd"], "no_mfa"),
        ("mfa", "no_mfa"),
        (["MFA"], "no_mfa"),
        (["mfa "], "no_mfa"),
        ([["mfa"]], "no_mfa"),
        ({"mfa": True}, "no_mfa"),
    ],
)
async def test_an_id_token_without_a_second_factor_is_refused(
    tenant: RogueTenant, refused: Any, claims: Any, amr: Any, reason: str
) -> None:
    """`amr` is a list that holds the word mfa, or the sign-in does not count."""
    assert await refused(tenant.sign(changed(claims, amr=amr))) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({MFA_AT: -1}, "stale"),
        ({MFA_AT: -3600}, "stale"),
        ({MFA_AT: -3600, "auth_time": 0}, "stale"),
        ({MFA_AT: GONE}, "stale"),
        ({MFA_AT: None}, "stale"),
        ({MFA_AT: GONE, "auth_time": -1}, "stale"),
        ({"iat": -1}, "stale"),
        ({"iat": 31}, "claims"),
        ({MFA_AT: 31}, "claims"),
        ({"iat": -100, "exp": -31}, "claims"),
        ({"exp": -31, "iat": -60}, "claims"),
    ],
)
async def test_an_id_token_older_than_the_request_is_refused(
    tenant: RogueTenant, refused: Any, claims: Any, changes: Any, reason: str
) -> None:
    """A second factor of before the request, or a time half a minute off, is no use."""
    now = claims["iat"]
    moved = {
        name: now + value if isinstance(value, int) else value
        for name, value in changes.items()
    }
    assert await refused(tenant.sign(changed(claims, **moved))) == reason


async def test_clocks_may_differ_by_half_a_minute(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """29 seconds ahead, or expired 29 seconds ago, is still the same moment."""
    now = claims["iat"]
    ahead = changed(claims, **{"iat": now + 29, MFA_AT: now + 29})
    await client.verify_id_token(tenant.sign(ahead), not_before=clock.now())
    raw = tenant.sign(changed(claims, exp=now + 60))
    began = clock.now()
    clock.advance(89)
    await client.verify_id_token(raw, not_before=began)
    clock.advance(2)
    with pytest.raises(IdentityError):
        await client.verify_id_token(raw, not_before=began)


async def test_the_request_time_is_floored_to_a_second(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """The tenant writes whole seconds: 12:00:00 is not before 12:00:00.6."""
    assert clock.now().microsecond == 600_000
    raw = tenant.sign(claims)
    await client.verify_id_token(raw, not_before=clock.now())
    later = clock.now() + timedelta(seconds=0.5)
    with pytest.raises(IdentityError, match=r"older than the request"):
        await client.verify_id_token(raw, not_before=later)


PAYLOADS = [
    b"",
    b"x",
    b"[]",
    b'"x"',
    b"null",
    b"\xff\xfe",
    b'{"sub":"a","sub":"b"}',
    b'{"exp":NaN}',
    b"[" * 3000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_a_payload_that_is_no_object_is_refused(
    tenant: RogueTenant, refused: Any, payload: bytes
) -> None:
    """A signature over rubbish is still over rubbish."""
    assert await refused(tenant.sign(payload)) in {"claims", "signature"}


async def test_duplicate_keys_are_refused_even_when_signed(
    tenant: RogueTenant, refused: Any, claims: Any
) -> None:
    """Two readers must not see two subjects in one token, nor two algorithms."""
    text = json.dumps(claims)
    doubled = text.replace('"sub": ', '"sub": "auth0|mallory", "sub": ', 1)
    assert await refused(tenant.sign(doubled.encode())) == "claims"
    head = b'{"alg":"RS256","alg":"RS256","typ":"JWT","kid":"kid-1"}'
    raw = sign_raw(head, claims, tenant.keys["kid-1"])
    assert await refused(raw) == "signature"


async def test_claims_are_bounded_in_length(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """Names, roles and addresses of any size and kind stay small and typed."""
    odd = changed(
        claims,
        name="n" * 3000,
        email=["x"],
        email_verified="true",
        **{ROLES: ["approver", 5, None, "r" * 300] + ["x"] * 60},
    )
    found = await client.verify_id_token(tenant.sign(odd), not_before=clock.now())
    assert len(found.name) == 200
    assert found.email == ""
    assert found.email_verified is False
    assert len(found.roles) == 50
    assert max(map(len, found.roles)) == 100
