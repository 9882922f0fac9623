"""A tenant's document and keys: whose they are, and how long they count."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.rogue_tenant import (
    DISCOVERY,
    JWKS,
    Answer,
    RogueTenant,
    encode_segment,
    public_jwk,
    rsa_key,
)

from agentvault_tui.errors import IdentityError, TenantError, TenantUnreachableError
from agentvault_tui.vault import TenantClient


def token(tenant: RogueTenant, clock: ManualClock, kid: str = "kid-1") -> str:
    """Return a good ID token of this moment, signed by the key *kid*."""
    now = int(clock.now().timestamp())
    claims = {
        "iss": tenant.issuer,
        "sub": "auth0|u1",
        "aud": "avConsole01",
        "iat": now,
        "exp": now + 36_000,
        "amr": ["mfa"],
        "https://agentvault.dev/mfa_at": now,
    }
    return tenant.sign(claims, kid)


async def verify(client: TenantClient, clock: ManualClock, raw: str) -> str:
    """Return the subject of *raw*."""
    return (await client.verify_id_token(raw, not_before=clock.now())).sub


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.test/"},
        {"issuer": None},
        {"issuer": ["x"]},
        {"token_endpoint": "https://evil.test/oauth/token"},
        {"token_endpoint": "http://127.0.0.1:1/oauth/token"},
        {"jwks_uri": "http://localhost/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"device_authorization_endpoint": None},
        {"userinfo_endpoint": "https://evil.test/"},
        {"revocation_endpoint": 7},
        {"id_token_signing_alg_values_supported": None},
        {"id_token_signing_alg_values_supported": "RS256"},
        {"id_token_signing_alg_values_supported": ["HS256", {}]},
    ],
)
async def test_metadata_that_names_another_origin_is_refused(
    tenant: RogueTenant, client: TenantClient, changes: dict[str, Any]
) -> None:
    """Another issuer or origin, no endpoint or no RS256 ends it at discovery."""
    tenant.script(DISCOVERY, Answer(tenant.discovery(**changes)))
    with pytest.raises(TenantError) as caught:
        await client.start_device_flow(ttl=120)
    assert caught.value.remedy
    assert len(tenant.requests) == 1


async def test_the_issuer_must_have_its_trailing_slash(
    tenant: RogueTenant, client: TenantClient
) -> None:
    """Equal but for the slash is not equal (OpenID Connect Discovery 4.3)."""
    tenant.script(DISCOVERY, Answer(tenant.discovery(issuer=tenant.issuer[:-1])))
    with pytest.raises(TenantError, match="calls itself"):
        await client.start_device_flow(ttl=120)


async def test_discovery_and_keys_are_fetched_once_for_all_who_wait(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """Fifty verifications at once cost one discovery and one key set."""
    raw = token(tenant, clock)
    subjects = await asyncio.gather(*(verify(client, clock, raw) for _ in range(50)))
    assert set(subjects) == {"auth0|u1"}
    assert (tenant.asked(DISCOVERY), tenant.asked(JWKS)) == (1, 1)


async def test_a_rotated_key_is_found_at_once(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """The first token under a new key makes the client look, and then it is known."""
    await verify(client, clock, token(tenant, clock))
    tenant.keys = {"kid-2": rsa_key(2)}
    assert await verify(client, clock, token(tenant, clock, "kid-2")) == "auth0|u1"
    assert tenant.asked(JWKS) == 2
    with pytest.raises(IdentityError):
        await verify(client, clock, token(tenant, clock, "kid-1"))


async def test_a_rotation_fails_no_concurrent_verification(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """Tokens of the old key and of the new, all at once, cost one more fetch."""
    old = [token(tenant, clock) for _ in range(10)]
    await verify(client, clock, old[0])
    tenant.keys = {"kid-2": rsa_key(2), "kid-1": tenant.keys["kid-1"]}
    new = [token(tenant, clock, "kid-2") for _ in range(10)]
    done = await asyncio.gather(*(verify(client, clock, raw) for raw in old + new))
    assert set(done) == {"auth0|u1"}
    assert tenant.asked(JWKS) == 2


async def test_a_cancelled_fetch_does_not_delay_the_next(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """A fetch that was cancelled is not counted as the one of this minute."""
    await verify(client, clock, token(tenant, clock))
    tenant.keys["kid-2"] = rsa_key(2)
    raw = token(tenant, clock, "kid-2")
    tenant.script(JWKS, Answer(hang=True), Answer(tenant.jwks()))
    tenant.arrived.clear()
    given_up = asyncio.create_task(verify(client, clock, raw))
    await tenant.arrived.wait()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert await verify(client, clock, raw) == "auth0|u1"


async def test_a_removed_key_is_not_used_after_a_fetch(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """A revoked signing key counts until the set is an hour old, and no longer."""
    raw = token(tenant, clock)
    await verify(client, clock, raw)
    tenant.keys = {"kid-2": rsa_key(2)}
    clock.advance(3601)
    with pytest.raises(IdentityError) as caught:
        await verify(client, clock, raw)
    assert caught.value.reason == "signature"


async def test_unknown_keys_cost_three_fetches_in_three_minutes(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """A storm of made-up key names, at once and in a row, cannot storm the tenant."""
    await verify(client, clock, token(tenant, clock))
    for round_ in range(3):
        for _ in range(5):
            storm = [
                verify(client, clock, tenant.sign(b"{}", kid=f"made-up-{n}"))
                for n in range(30)
            ]
            results = await asyncio.gather(*storm, return_exceptions=True)
            assert all(isinstance(one, IdentityError) for one in results)
            assert {one.reason for one in results} == {"signature"}
        clock.advance(179)
        with pytest.raises(IdentityError):
            await verify(client, clock, tenant.sign(b"{}", kid="another"))
        assert tenant.asked(JWKS) == 1 + 3 * (round_ + 1)
        clock.advance(2)


async def test_a_key_rotated_seconds_after_the_last_fetch_is_found(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """One token under a key nobody lists does not keep out the next rotation."""
    await verify(client, clock, token(tenant, clock))
    with pytest.raises(IdentityError):
        await verify(client, clock, tenant.sign(b"{}", kid="made-up"))
    tenant.keys["kid-2"] = rsa_key(2)
    assert await verify(client, clock, token(tenant, clock, "kid-2")) == "auth0|u1"


async def test_cached_keys_are_used_for_a_day_of_outage(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """With the tenant down its last keys count for 24 hours, then nothing does."""
    await verify(client, clock, token(tenant, clock))
    await tenant.stop()
    clock.advance(24 * 3600 - 5)
    assert await verify(client, clock, token(tenant, clock)) == "auth0|u1"
    clock.advance(10)
    with pytest.raises(TenantUnreachableError):
        await verify(client, clock, token(tenant, clock))


async def test_setting_the_wall_clock_does_not_keep_keys_alive(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """The age of the keys is counted since boot, not by a clock that can be set."""
    await verify(client, clock, token(tenant, clock))
    await tenant.stop()
    clock.advance(25 * 3600)
    clock.jump_wall(-25 * 3600)
    with pytest.raises(TenantUnreachableError):
        await verify(client, clock, token(tenant, clock))


def bad_key_sets() -> list[Any]:
    """Return key sets nobody should believe."""
    good = public_jwk("kid-9", rsa_key(9))
    weak = {**good, "n": encode_segment((2**1023 + 1).to_bytes(128))}
    padded = {**good, "n": encode_segment((2**1023 + 1).to_bytes(256))}
    return [
        {},
        {"keys": []},
        {"keys": "x"},
        {"keys": [1]},
        {"keys": [{}]},
        {"keys": [good, {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}]},
        {"keys": [good, {"kty": "RSA", **rsa_key(9).as_dict(private=True)}]},
        {"keys": [{**good, "kid": f"k{n}"} for n in range(21)]},
        {"keys": [good, good]},
        {"keys": [{**good, "kid": None}]},
        {"keys": [{**good, "kid": ["kid-9"]}]},
        {"keys": [{**good, "kid": "x" * 300}]},
        {"keys": [{**good, "n": "!!"}]},
        {"keys": [{**good, "n": 5}]},
        {"keys": [{**good, "e": "AQ"}]},
        {"keys": [{name: good[name] for name in good if name != "n"}]},
        {"keys": [weak]},
        {"keys": [padded]},
        {"keys": [{**good, "use": "enc"}]},
        {"keys": [{**good, "alg": "RS512"}]},
        {"keys": [{"kty": "EC", "kid": "e", "crv": "P-256", "x": "x", "y": "y"}]},
    ]


@pytest.mark.parametrize("number", range(len(bad_key_sets())))
async def test_an_unsafe_key_set_is_refused_and_the_old_one_kept(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock, number: int
) -> None:
    """Secret, weak, nameless, doubled or too many keys change nothing we trust."""
    await verify(client, clock, token(tenant, clock))
    tenant.keys["kid-9"] = rsa_key(9)
    raw = token(tenant, clock, "kid-9")
    tenant.script(JWKS, Answer(bad_key_sets()[number]))
    with pytest.raises(IdentityError) as caught:
        await verify(client, clock, raw)
    assert caught.value.reason == "signature"
    assert tenant.asked(JWKS) == 2
    assert await verify(client, clock, token(tenant, clock)) == "auth0|u1"


async def test_keys_of_other_types_are_ignored(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """An elliptic curve key in the set is no reason to refuse the RSA one."""
    other = {"kty": "EC", "kid": "e", "crv": "P-256", "x": "x", "y": "y"}
    tenant.script(JWKS, Answer({"keys": [other, *tenant.jwks()["keys"]]}))
    assert await verify(client, clock, token(tenant, clock)) == "auth0|u1"


async def test_a_failed_first_fetch_is_repeated(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """With nothing to fall back on, the next verification asks anew."""
    tenant.script(JWKS, Answer({}, 503), Answer(tenant.jwks()))
    with pytest.raises(TenantUnreachableError):
        await verify(client, clock, token(tenant, clock))
    assert await verify(client, clock, token(tenant, clock)) == "auth0|u1"


async def test_time_passed_since_the_flow_began_is_counted(
    tenant: RogueTenant, client: TenantClient, clock: ManualClock
) -> None:
    """A token of a moment ago is too old for a request made since."""
    raw = token(tenant, clock)
    clock.advance(5)
    with pytest.raises(IdentityError):
        await verify(client, clock, raw)
    before = clock.now() - timedelta(seconds=5)
    assert (await client.verify_id_token(raw, not_before=before)).sub == "auth0|u1"
