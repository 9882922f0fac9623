"""Signing keys change while tokens are out, and every honest token still verifies."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_der_x509_certificate
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from support.tenant_thread import DETAILS, TenantThread

from agentvault_tui.clock import ManualClock
from agentvault_tui.home import Home
from agentvault_tui.tenant.keys import KEPT, SigningKeys, rotate_keys
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.vault import TenantClient


def published(tenant: TenantThread) -> KeySet:
    answer = tenant.http.get(tenant.issuer + ".well-known/jwks.json").json()
    assert all("d" not in key for key in answer["keys"])
    return KeySet.import_key_set(answer)


def kids(tenant: TenantThread) -> list[str | None]:
    return [key.kid for key in published(tenant).keys]


def id_token(tenant: TenantThread, user: NewUser) -> str:
    flow = tenant.flow()
    tenant.approve(flow, user)
    tenant.clock.advance(30)  # a one-time code is good once
    return str(tenant.poll(flow).json()["id_token"])


def test_a_rotation_brings_the_next_key_into_use(
    tenant: TenantThread, alice: NewUser
) -> None:
    """The running tenant signs with it at once; old and new tokens verify."""
    current, following = kids(tenant)
    old = id_token(tenant, alice)
    known = published(tenant)
    done = rotate_keys(tenant.home, tenant.clock)
    assert (done.retired, done.current) == (current, following)
    assert kids(tenant) == [following, done.next, current]
    new = id_token(tenant, alice)
    for raw, kid in ((old, current), (new, following)):
        assert jwt.decode(raw, published(tenant), ["RS256"]).header["kid"] == kid
    # Whoever cached the set before the rotation knows the key already.
    jwt.decode(new, known, ["RS256"])


def test_each_key_has_its_certificate(tenant: TenantThread) -> None:
    """Self-signed, of the same key, by its SHA-1, and the same after a restart."""
    url = tenant.issuer + ".well-known/jwks.json"
    before = tenant.http.get(url).json()["keys"]
    for jwk in before:
        assert set(jwk) == {"kty", "use", "alg", "kid", "n", "e", "x5c", "x5t"}
        der = base64.b64decode(jwk["x5c"][0])
        found = load_der_x509_certificate(der)
        found.verify_directly_issued_by(found)
        assert found.subject.rfc4514_string() == "CN=127.0.0.1"
        key = found.public_key()
        assert isinstance(key, RSAPublicKey)
        assert RSAKey.import_key(key).as_dict()["n"] == jwk["n"]
        thumbprint = hashlib.sha1(der, usedforsecurity=False).digest()
        assert base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode() == jwk["x5t"]
    tenant.restart()
    assert tenant.http.get(url).json()["keys"] == before


def test_a_retired_key_goes_when_its_tokens_have_lapsed(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Published as long as a token lives, over further rotations, and no longer."""
    old = id_token(tenant, alice)
    first = rotate_keys(tenant.home, tenant.clock)
    tenant.clock.advance(60)
    second = rotate_keys(tenant.home, tenant.clock)
    assert kids(tenant) == [
        second.current,
        second.next,
        first.retired,
        second.retired,
    ]
    tenant.clock.advance(KEPT.total_seconds() - 60)
    assert kids(tenant) == [second.current, second.next, second.retired]
    with pytest.raises((JoseError, ValueError)):
        jwt.decode(old, published(tenant), ["RS256"])
    tenant.clock.advance(60)
    assert kids(tenant) == [second.current, second.next]


def test_a_rotation_survives_a_restart(tenant: TenantThread, alice: NewUser) -> None:
    """After it the same keys are published and sign."""
    done = rotate_keys(tenant.home, tenant.clock)
    before = kids(tenant)
    tenant.restart()
    assert kids(tenant) == before
    raw = id_token(tenant, alice)
    assert jwt.decode(raw, published(tenant), ["RS256"]).header["kid"] == done.current


async def test_the_broker_follows_rotations(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Its client verifies tokens before and after two rotations, from one cache."""
    client = TenantClient(tenant.issuer, tenant.client_id, tenant.clock)
    for _ in range(3):
        flow = await client.start_device_flow(authorization_details=[DETAILS], ttl=120)
        tenant.approve({"user_code": flow.user_code}, alice)
        answer = await client.poll_once(flow)
        identity = await client.verify_id_token(
            answer.id_token,  # type: ignore[union-attr]
            not_before=flow.started_at,
        )
        assert identity.sub == alice.user.sub
        rotate_keys(tenant.home, tenant.clock)
        tenant.clock.advance(61)
    await client.aclose()


def test_what_was_retired_cannot_sign_any_more(home: Home, clock: ManualClock) -> None:
    """Its private part is in no row, and the store forgets it securely."""
    store = Store(home, checkpoints=True)
    keys = SigningKeys(store, Seal.of(home), clock)
    kid = keys.public()["keys"][0]["kid"]
    sealed = store.one("SELECT sealed FROM signing_keys WHERE kid = ?", kid)
    keys.rotate()
    assert sealed is not None
    assert store.one("SELECT 1 FROM signing_keys WHERE kid = ?", kid) is None
    assert len(store.all("SELECT use FROM signing_keys")) == 2
    store.close()
    assert bytes(sealed["sealed"]) not in (home.tenant / "tenant.db").read_bytes()
