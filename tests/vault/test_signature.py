"""Which signatures count: the tenant's, by RS256, on the right kind of token."""

import hmac
import json
import time
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
    RogueTenant,
    encode_segment,
    rsa_key,
    sign_raw,
)

from agentvault_tui.errors import IdentityError
from agentvault_tui.vault import TenantClient
from agentvault_tui.vault.identity import key_id, verify


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
        await client.verify_id_token(good + "AAAA", not_before=client._clock.now())


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
        encode_segment({"alg": "RS256", "kid": "x" * 5000}) + ".a.b",
    ],
)
async def test_a_malformed_token_is_refused_quickly(
    tenant: RogueTenant, refused: Any, raw: str
) -> None:
    """Forms, sizes and encodings are checked before any key is touched."""
    before = time.perf_counter()
    assert await refused(raw) == "signature"
    assert time.perf_counter() - before < 0.5


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
        verify(
            raw,
            key,
            issuer=tenant.issuer,
            client_id=CLIENT_ID,
            now=now,
            not_before=now,
        )
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
        verify(raw, PUBLIC, issuer="i", client_id="c", now=now, not_before=now)

    for raw in (text, f"{text}.{text}.{text}", f"{segment}.{text}.AA"):
        with pytest.raises(IdentityError):
            check(raw)
