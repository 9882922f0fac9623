"""What an ID token proves: its signature, claims and second factor; who may approve."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import RSAKey
from support.manual_clock import ManualClock
from support.rogue_tenant import (
    CLIENT_ID,
    JWKS,
    Answer,
    RogueTenant,
    encode_segment,
    rsa_key,
    sign_raw,
)

from agentvault_tui.clock import Deadline
from agentvault_tui.errors import IdentityError
from agentvault_tui.model.claims import MFA_AT, ROLES, STEPUP
from agentvault_tui.vault import Identity, TenantClient, is_approver
from agentvault_tui.vault.identity import key_id, verify

GONE, HALF = object(), object()


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
        ("exp", HALF),
        ("iat", HALF),
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
    """Every claim is there, of its type, and ours; a token of another kind is not.

    Times that are compared with ours are whole numbers.
    """
    if value == HALF:
        value = claims[name] + 0.5
    assert await refused(tenant.sign(changed(claims, **{name: value}))) == "claims"


async def test_several_audiences_need_our_azp(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """Several audiences are fine when the token says that it was made for us."""
    for aud in (["avConsole01"], ["avConsole01", "other"]):
        raw = tenant.sign(changed(claims, aud=aud, azp="avConsole01"))
        known = await client.verify_id_token(raw, not_before=clock.now())
        assert known.sub == claims["sub"]


@pytest.mark.parametrize(
    "amr", [GONE, None, [], ["pwd"], "mfa", ["MFA"], ["mfa "], [["mfa"]], {"mfa": True}]
)
async def test_an_id_token_without_a_second_factor_is_refused(
    tenant: RogueTenant, refused: Any, claims: Any, amr: Any
) -> None:
    """`amr` is a list that holds the word mfa, or the sign-in does not count."""
    assert await refused(tenant.sign(changed(claims, amr=amr))) == "no_mfa"


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


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "nOnE"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": ["RS256"]},
        {"alg": None},
        {"typ": "at+jwt"},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 5},
        {"kid": None},
        {"kid": ["kid-1"]},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"crit": ["exp"]},
        {"crit": []},
    ],
)
async def test_headers_other_than_rs256_are_refused(
    tenant: RogueTenant, refused: Any, claims: Any, header: dict[str, Any]
) -> None:
    """RS256, an ID token and a key the tenant lists: nothing else is looked at."""
    head = {"alg": "RS256", "typ": "JWT", "kid": "kid-1", **header}
    head = {name: value for name, value in head.items() if value is not None}
    signed = sign_raw(head, claims, tenant.keys["kid-1"])
    unsigned = signed.rpartition(".")[0]
    for raw in (signed, unsigned, unsigned + ".", unsigned + ".AA"):
        assert await refused(raw) == "signature"


@pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
async def test_hs256_under_the_public_key_is_refused(
    tenant: RogueTenant, refused: Any, claims: Any, form: str
) -> None:
    """The public key is no secret to sign with, in whatever bytes it is written."""
    key = tenant.keys["kid-1"]
    secret = {
        "pem": key.as_pem(private=False),
        "der": key.as_der(private=False),
        "jwk": json.dumps(key.as_dict(private=False)).encode(),
        "n": str(key.as_dict(private=False)["n"]).encode(),
    }[form]
    for alg in ("HS256", "RS256"):
        head = encode_segment({"alg": alg, "typ": "JWT", "kid": "kid-1"})
        signed = f"{head}.{encode_segment(claims)}"
        mac = hmac.digest(secret, signed.encode(), "sha256")
        assert await refused(f"{signed}.{encode_segment(mac)}") == "signature"


async def test_another_key_with_the_same_kid_is_refused(
    tenant: RogueTenant, refused: Any, client: TenantClient, claims: Any
) -> None:
    """A signature by anyone else, or over other bytes, proves nothing."""
    good = tenant.sign(claims)
    await tenant_knows(client, good)
    tenant.keys["kid-1"] = rsa_key(5)
    assert await refused(tenant.sign(claims)) == "signature"
    head, payload, signature = good.split(".")
    forged = encode_segment({**claims, "sub": "auth0|mallory"})
    assert await refused(f"{head}.{forged}.{signature}") == "signature"
    assert await refused(f"{head}.{payload}.{signature[:-8]}AAAAAAAA") == "signature"


async def tenant_knows(client: TenantClient, good: str) -> None:
    """Have the client fetch the keys there are now."""
    with pytest.raises(IdentityError):
        await client.verify_id_token(good + "AAAA", not_before=client.clock.now())


async def test_keys_in_the_header_are_never_followed(
    tenant: RogueTenant, refused: Any, claims: Any
) -> None:
    """A token that brings its own key, or says where to get it, fetches nothing."""
    rogue = rsa_key(6)
    for extra in (
        {"jwk": rogue.as_dict(private=False)},
        {"jku": f"{tenant.issuer}rogue-jku"},
        {"x5u": f"{tenant.issuer}rogue-x5u"},
        {"x5c": ["MIIC"]},
    ):
        head = {"alg": "RS256", "typ": "JWT", "kid": "kid-1", **extra}
        assert await refused(sign_raw(head, claims, rogue)) == "signature"
    assert not any("rogue" in request.path for request in tenant.requests)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "eyJ.\n.x",
        "\u0435yJ.a.b",
        "a" * 9000,
        "eyJhbGciOiJub25lIn0..",
        "e30.e30.e30",
        '{"payload":"x"}',
        encode_segment(b"[" * 5000) + ".a.b",
    ],
)
async def test_a_malformed_token_is_refused_unread(
    tenant: RogueTenant, refused: Any, raw: str
) -> None:
    """Forms, sizes and encodings are checked before any key is touched."""
    assert await refused(raw) == "signature"
    assert tenant.requests == []


async def test_a_key_with_a_long_name_is_unknown(refused: Any) -> None:
    """The keys that the tenant has are fetched, and none is called so."""
    head = encode_segment({"alg": "RS256", "kid": "x" * 5000})
    assert await refused(f"{head}.a.b") == "signature"


@pytest.mark.parametrize(
    "header", [{"typ": "at+jwt"}, {"alg": "none"}, {"alg": "HS256"}, {"crit": ["b64"]}]
)
async def test_a_malformed_token_fetches_no_keys(
    tenant: RogueTenant, refused: Any, claims: Any, header: dict[str, Any]
) -> None:
    """The key set is not even fetched for a token of the wrong kind."""
    await refused(tenant.sign(claims, **header))
    assert tenant.asked(JWKS) == 0


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
async def test_verification_pins_rs256_itself(
    tenant: RogueTenant, clock: ManualClock, claims: Any, alg: str
) -> None:
    """Where it is verified RS256 is pinned once more: by the tenant's own key."""
    key, now = tenant.keys["kid-1"], clock.now()
    raw = jws.serialize_compact(
        {"alg": alg, "kid": "kid-1"}, json.dumps(claims), key, algorithms=[alg]
    )
    with pytest.raises(IdentityError) as caught:
        verify(raw, key, issuer=tenant.issuer, client_id=CLIENT_ID, now=now)
    assert caught.value.reason == "signature"


PUBLIC = RSAKey.import_key(rsa_key(1).as_dict(private=False))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text() | st.binary().map(encode_segment))
def test_any_input_raises_identity_error_alone(clock: ManualClock, text: str) -> None:
    """Whatever is put in a token's place is refused in one way only."""
    now = clock.now()
    segment = encode_segment({"alg": "RS256", "kid": "k"})

    def check(raw: str) -> None:
        key_id(raw)
        verify(raw, PUBLIC, issuer="i", client_id="c", now=now)

    for raw in (text, f"{text}.{text}.{text}", f"{segment}.{text}.AA"):
        with pytest.raises(IdentityError):
            check(raw)


@pytest.mark.parametrize(
    ("changes", "approvers", "allowed"),
    [
        ({}, (), True),
        ({"roles": ()}, (), False),
        ({"roles": ("Approver", "approvers")}, (), False),
        ({}, ("auth0|u1",), True),
        ({}, ("auth0|u2",), False),
        ({}, ("AUTH0|U1",), False),
        ({}, ("alice@acme.test",), True),
        ({}, ("Alice@ACME.test",), True),
        ({"email": "wei\u00df@acme.test"}, ("weiss@acme.test",), False),
        ({"email": "weiss@acme.test"}, ("wei\u00df@acme.test",), False),
        ({"email": "\u212aim@acme.test"}, ("kim@acme.test",), False),
        ({"email": "wei\u00df@acme.test"}, ("wei\u00df@acme.test",), True),
        ({"email_verified": False}, ("alice@acme.test",), False),
        ({"email": ""}, ("",), False),
        ({"email": "\u0430lice@acme.test"}, ("alice@acme.test",), False),
        ({"name": "alice@acme.test", "email": ""}, ("alice@acme.test",), False),
    ],
)
def test_approvers_are_named_by_subject_or_verified_email_or_role(
    clock: ManualClock, changes: Any, approvers: tuple[str, ...], allowed: bool
) -> None:
    """A list replaces the role; an address nobody verified opens nothing."""
    person = {
        "sub": "auth0|u1",
        "name": "Alice",
        "email": "alice@acme.test",
        "email_verified": True,
        "roles": ("approver",),
        "amr": ("mfa",),
        "authenticated_at": clock.now(),
        "claims": {},
        **changes,
    }
    assert is_approver(Identity(**person), approvers) is allowed


async def test_an_answer_of_the_page_names_its_digest_and_needs_no_factor(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, claims: Any
) -> None:
    """A yes, an answer about something else, or a foreign token is none."""
    until = Deadline.after(clock, 5)
    denied = {"digest": "sha256:7f", "decision": "deny"}
    bare = changed(claims, amr=GONE, acr=GONE, auth_time=GONE, **{MFA_AT: GONE})
    raw = tenant.sign({**bare, STEPUP: denied})
    found = await client.verify_page_answer(raw, digest="sha256:7f", until=until)
    alice = ("auth0|u1", "Alice", ("approver",))
    assert found == (*alice, True, None, "", False)
    stop = {**denied, "reason": "no\x1b[2J invoice", "stop": True}
    raw = tenant.sign({**bare, STEPUP: stop})
    found = await client.verify_page_answer(raw, digest="sha256:7f", until=until)
    assert found == (*alice, True, None, "no⟦U+001B⟧[2J invoice", True)
    more = {**denied, "decision": "repeat", "repeat": {"count": 2}}
    raw = tenant.sign({**bare, STEPUP: more})
    found = await client.verify_page_answer(raw, digest="sha256:7f", until=until)
    assert found == (*alice, False, {"count": 2}, "", False)
    for wrong in (
        {**bare, STEPUP: {**denied, "decision": "approve"}},
        {**bare, STEPUP: {**denied, "digest": "sha256:80"}},
        {**bare, STEPUP: {**more, "digest": "sha256:80"}},
        {**bare, STEPUP: {**denied, "repeat": {"count": 2}}},
        {**bare, STEPUP: {**more, "stop": True}},
        {**bare, STEPUP: {**denied, "decision": "approve", "stop": True}},
        {**bare, STEPUP: "deny"},
        {**bare, STEPUP: denied, "aud": "another"},
        bare,
    ):
        with pytest.raises(IdentityError):
            await client.verify_page_answer(
                tenant.sign(wrong), digest="sha256:7f", until=until
            )
