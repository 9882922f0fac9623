"""Signing keys change while tokens are out, and every honest token still verifies."""

from __future__ import annotations

import secrets
from contextlib import closing
from datetime import timedelta

import pytest
from auth0_double.running import DETAILS, START, TenantThread
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from support.manual_clock import ManualClock
from support.tenant_admin import Admin
from support.tenant_store import open_store, seal_of, settings_of

from agentvault_tui.errors import ConflictError, SealedError
from agentvault_tui.home import Home
from agentvault_tui.tenant import file_store
from agentvault_tui.tenant.keys import MARGIN, MOST_RETIRED, SigningKeys, rotate_keys
from agentvault_tui.tenant.users import NewUser
from agentvault_tui.vault import TenantClient
from agentvault_tui.vault.tenant import MAX_KEYS


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
    done = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    assert (done.retired, done.current) == (current, following)
    assert kids(tenant) == [following, done.next, current]
    new = id_token(tenant, alice)
    for raw, kid in ((old, current), (new, following)):
        assert jwt.decode(raw, published(tenant), ["RS256"]).header["kid"] == kid
    # Whoever cached the set before the rotation knows the key already.
    jwt.decode(new, known, ["RS256"])


def test_a_retired_key_goes_when_its_tokens_have_lapsed(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Published until its last token's `exp`, over further rotations, and no longer."""
    old = id_token(tenant, alice)
    expires = jwt.decode(old, published(tenant), ["RS256"]).claims["exp"]
    first = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    assert first.retired_until.timestamp() == expires + MARGIN.total_seconds()
    tenant.clock.advance(30)
    second = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    # What signed nothing is published for the minute by which clocks may differ.
    assert second.retired_until == tenant.clock.now() + MARGIN
    assert kids(tenant) == [second.current, second.next, first.retired, second.retired]
    left = first.retired_until - tenant.clock.now()
    tenant.clock.advance(left.total_seconds() - 1)
    jwt.decode(old, published(tenant), ["RS256"])
    assert kids(tenant) == [second.current, second.next, first.retired]
    tenant.clock.advance(1)
    assert kids(tenant) == [second.current, second.next]
    with pytest.raises((JoseError, ValueError)):
        jwt.decode(old, published(tenant), ["RS256"])


def test_a_rotation_ends_no_token_of_an_api(tenant: TenantThread) -> None:
    """One for a day is taken all day, in its API and by whoever reads the key set."""
    admin = Admin(tenant)
    raw, day = admin.token, 86_400
    done = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    tenant.clock.advance(day - 1)
    jwt.decode(raw, published(tenant), ["RS256"])
    assert admin.call("GET", "users").status_code == 200
    tenant.clock.advance(1)
    assert admin.call("GET", "users").status_code == 401
    tenant.clock.advance(MARGIN.total_seconds())
    assert kids(tenant) == [done.current, done.next]


def test_a_retired_key_is_published_for_its_longest_token(
    home: Home, clock: ManualClock
) -> None:
    """Whatever was signed after it, and also if it was signed in another process."""
    store = open_store(home)
    keys, other = (SigningKeys(store, seal_of(home), clock) for _ in range(2))
    now = int(clock.now().timestamp())
    other.sign({"exp": now + 2_592_000})
    keys.sign({"exp": now + 300})
    done = keys.rotate()
    assert done.retired_until.timestamp() == now + 2_592_000 + 60
    # The new one's time is its own, and a key that another rotated signs no more.
    raw = other.sign({"exp": now + 600})
    found = keys.verified(raw)
    assert found is not None
    assert found[0]["kid"] == done.current
    assert keys.rotate().retired_until.timestamp() == now + 600 + 60
    store.close()


def test_a_key_rotated_during_signing_signs_nothing(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time of leaving is fixed already, and the token would outlive that."""
    store = open_store(home)
    keys, other = (SigningKeys(store, seal_of(home), clock) for _ in range(2))
    read, done = keys._read, []

    def overtaken() -> None:
        read()
        if not done:
            done.append(other.rotate())

    monkeypatch.setattr(keys, "_read", overtaken)
    found = keys.verified(keys.sign({"exp": 2**32}))
    assert found is not None
    assert found[0]["kid"] == done[0].current
    store.close()


@pytest.mark.slow
def test_a_revoked_key_verifies_nothing_at_once(
    tenant: TenantThread, alice: NewUser
) -> None:
    """Current, next and retired are gone together: whoever read one read all."""
    admin = Admin(tenant)
    old = id_token(tenant, alice)
    rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    newer = id_token(tenant, alice)
    before = kids(tenant)
    assert len(before) == 3
    done = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock, revoke=True)
    assert kids(tenant) == [done.current, done.next]
    assert not {done.current, done.next} & set(before)
    assert (done.retired, done.retired_until) == (before[0], tenant.clock.now())
    for raw in (old, newer, admin.token):
        with pytest.raises((JoseError, ValueError)):
            jwt.decode(raw, published(tenant), ["RS256"])
    assert admin.call("GET", "users").status_code == 401
    raw = id_token(tenant, alice)
    assert jwt.decode(raw, published(tenant), ["RS256"]).header["kid"] == done.current


@pytest.mark.slow
def test_rotations_keep_the_key_set_readable(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients read 20 keys: one more rotation is refused, and a revocation never."""
    assert MOST_RETIRED + 2 <= MAX_KEYS
    monkeypatch.setattr("agentvault_tui.tenant.keys.MOST_RETIRED", most := 2)
    store = open_store(home)
    keys = SigningKeys(store, seal_of(home), clock)
    now = int(clock.now().timestamp())
    for day in range(most):
        keys.sign({"exp": now + (day + 1) * 86_400})
        keys.rotate()
    assert len(keys.public()["keys"]) == most + 2
    before = keys.public()
    with pytest.raises(ConflictError, match="2 retired keys") as caught:
        keys.rotate()
    assert caught.value.remedy.startswith("wait until 2026-11-25T10:01:00Z")
    assert keys.public() == before
    clock.advance(86_400 + 60)
    keys.rotate()
    keys.revoke()
    assert len(keys.public()["keys"]) == 2
    store.close()


@pytest.mark.one_file
def test_a_migrated_key_is_published_for_thirty_days(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it signed before that was noted may live for 30 days from the upgrade."""
    store = open_store(home)
    keys = [dict(row) for row in store.all("SELECT * FROM signing_keys")]
    store.close()
    for file in home.tenant.glob("tenant.db*"):
        file.unlink()
    with monkeypatch.context() as earlier:
        earlier.setattr(file_store, "MIGRATIONS", file_store.MIGRATIONS[:3])
        store = open_store(home)
        for key in keys:
            del key["signed_until"]
            store.insert("signing_keys", **key)
        store.close()
    until = rotate_keys(home, settings_of(home), clock).retired_until
    assert until > START + timedelta(days=30)


def test_a_rotation_survives_a_restart(tenant: TenantThread, alice: NewUser) -> None:
    """After it the same keys are published and sign."""
    done = rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
    before = kids(tenant)
    tenant.restart()
    assert kids(tenant) == before
    raw = id_token(tenant, alice)
    assert jwt.decode(raw, published(tenant), ["RS256"]).header["kid"] == done.current


@pytest.mark.slow
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
        rotate_keys(tenant.home, settings_of(tenant.home), tenant.clock)
        tenant.clock.advance(61)
    await client.aclose()


@pytest.mark.one_file
def test_a_retired_private_key_is_erased(home: Home, clock: ManualClock) -> None:
    """Its private part is in no row, and the store forgets it securely."""
    store = open_store(home)
    keys = SigningKeys(store, seal_of(home), clock)
    kid = keys.public()["keys"][0]["kid"]
    sealed = store.one("SELECT sealed FROM signing_keys WHERE kid = ?", kid)
    keys.rotate()
    assert sealed is not None
    assert store.one("SELECT 1 FROM signing_keys WHERE kid = ?", kid) is None
    assert len(store.all("SELECT use FROM signing_keys")) == 2
    store.close()
    assert bytes(sealed["sealed"]) not in (home.tenant / "tenant.db").read_bytes()


def test_keys_that_nobody_can_open_are_revoked(home: Home, clock: ManualClock) -> None:
    """With the key lost that sealed them, others take their place."""
    settings = settings_of(home)
    name = "team.key" if settings.store.url else "tenant.key"
    (home.keys / name).write_bytes(secrets.token_bytes(32))
    with pytest.raises(SealedError):
        rotate_keys(home, settings, clock)
    done = rotate_keys(home, settings, clock, revoke=True)
    with closing(open_store(home)) as store:
        public = SigningKeys(store, seal_of(home), clock).public()["keys"]
    assert [key["kid"] for key in public] == [done.current, done.next]
