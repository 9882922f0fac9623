"""Access tokens are asked for once, kept almost to their end, and hidden."""

import asyncio
import logging
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jwt
from support.exchanges import answer
from support.manual_clock import ManualClock
from support.rogue_tenant import TOKEN, Answer, Request, RogueTenant, rsa_key

from agentvault_tui.clock import Deadline
from agentvault_tui.errors import (
    SettingsError,
    TenantCredentialError,
    TenantError,
    TenantRefusedError,
    TenantUnreachableError,
)
from agentvault_tui.vault import (
    AccessToken,
    ClientSecret,
    FixedToken,
    Management,
    PrivateKey,
    RefreshedToken,
    RegisteredClient,
    Secret,
    SigningKey,
    Tenant,
)
from agentvault_tui.vault.tokens import (
    ClientCredentials,
    probe_refresh_token,
    revoke_token,
)

SECRET = ClientSecret("avMgmt01", Secret("the-management-secret"))
REVOKE = "/oauth/revoke"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def pem() -> str:
    """Return a private key as its owner keeps it."""
    return (
        rsa_key(1)
        .private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@pytest.fixture
def source(wired: Tenant) -> ClientCredentials:
    """Tokens for the Management API."""
    return ClientCredentials(wired, SECRET, f"{wired.issuer}api/v2/")


async def test_client_credentials_are_sent_as_auth0_documents(
    tenant: RogueTenant, source: ClientCredentials
) -> None:
    """Grant, client and audience with its slash, as a form."""
    access = await source.access()
    assert access.token.reveal() == "at-1"
    assert access.scopes == {"read:clients", "update:clients"}
    assert tenant.sent(TOKEN)[0].form == {
        "grant_type": "client_credentials",
        "client_id": "avMgmt01",
        "client_secret": "the-management-secret",
        "audience": f"{tenant.issuer}api/v2/",
    }


async def test_a_token_is_cached_until_shortly_before_expiry(
    tenant: RogueTenant, source: ClientCredentials, clock: ManualClock
) -> None:
    """A day's token is asked for once a day, a minute early; a short one, a tenth."""
    await source.access()
    clock.advance(86_400 - 61)
    assert (await source.access()).token.reveal() == "at-1"
    tenant.script(TOKEN, Answer(tenant.access(access_token="b", expires_in=100)))
    clock.advance(1)
    assert (await source.access()).token.reveal() == "b"
    clock.advance(89)
    await source.access()
    assert tenant.asked(TOKEN) == 2
    clock.advance(1)
    await source.access()
    assert tenant.asked(TOKEN) == 3


async def test_setting_the_wall_clock_back_extends_no_token(
    tenant: RogueTenant, source: ClientCredentials, clock: ManualClock
) -> None:
    """The life of a token is counted by the boot clock too."""
    await source.access()
    clock.advance(86_400)
    clock.jump_wall(-86_400)
    await source.access()
    assert tenant.asked(TOKEN) == 2


async def test_concurrent_callers_share_one_token(
    tenant: RogueTenant, source: ClientCredentials
) -> None:
    """Fifty requests at the start cost one token."""
    found = await asyncio.gather(*(source.access() for _ in range(50)))
    assert {access.token.reveal() for access in found} == {"at-1"}
    assert tenant.asked(TOKEN) == 1


async def test_dropping_an_old_token_keeps_the_new_one(
    tenant: RogueTenant, source: ClientCredentials
) -> None:
    """Two requests refused with one token fetch one other, not two."""
    old = await source.access()
    source.drop(old)
    new = await source.access()
    source.drop(old)
    assert await source.access() is new
    assert tenant.asked(TOKEN) == 2


@pytest.mark.parametrize(
    ("name", "kind", "remedy"),
    [
        ("wrong_secret", TenantCredentialError, "check the client id"),
        ("no_client_grant", TenantRefusedError, "with a client grant"),
    ],
)
async def test_a_refused_credential_is_an_error_with_a_remedy(
    tenant: RogueTenant, api: Management, name: str, kind: Any, remedy: str
) -> None:
    """Wrong, expired or not authorized: what it is, and what to do."""
    tenant.script(TOKEN, answer("authentication", name))
    with pytest.raises(kind) as caught:
        await api.request("GET", "clients")
    assert remedy in caught.value.diagnosis()
    assert "the-management-secret" not in caught.value.diagnosis()


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 5},
        {"token_type": "DPoP"},
        {"token_type": 5},
    ],
)
async def test_a_token_of_another_type_is_not_used(
    tenant: RogueTenant, source: ClientCredentials, changes: dict[str, Any]
) -> None:
    """RFC 6749 section 7.1: a type one does not know must not be used."""
    tenant.script(TOKEN, Answer(tenant.access(**changes)))
    with pytest.raises(TenantUnreachableError, match="without a bearer token"):
        await source.access()


@pytest.mark.parametrize("life", [None, "86400", -5, 0, True, 1.5])
async def test_a_token_without_expires_in_is_not_cached(
    tenant: RogueTenant, source: ClientCredentials, life: Any
) -> None:
    """An odd `expires_in` keeps nothing."""
    tenant.script(TOKEN, Answer(tenant.access(expires_in=life)))
    await source.access()
    await source.access()
    assert tenant.asked(TOKEN) == 2


@pytest.mark.parametrize("token", ["a b", "a\r\nX-Evil: 1", "tökén", "a\x00"])
async def test_a_token_with_odd_characters_reaches_no_header_and_no_error(
    tenant: RogueTenant, api: Management, token: str
) -> None:
    """A header is not split, and an exception does not quote the token."""
    tenant.script(TOKEN, Answer(tenant.access(access_token=token)))
    with pytest.raises(TenantCredentialError) as caught:
        await api.request("GET", "clients")
    assert token not in str(caught.value) + repr(caught.value.__cause__)
    assert tenant.asked("/api/v2/clients") == 0


@pytest.mark.parametrize("alg", ["RS256", "RS384", "PS256"])
async def test_a_key_signs_a_fresh_assertion_for_each_request(
    tenant: RogueTenant, wired: Tenant, clock: ManualClock, alg: str
) -> None:
    """RFC 7523: issuer and subject the client, the tenant its audience, used once."""
    key = SigningKey(Secret(pem), kid="k1", alg=alg)
    source = ClientCredentials(wired, PrivateKey("avMgmt01", key), "aud")
    tenant.script(TOKEN, Answer({}, 503), Answer(tenant.access()))
    await source.access()
    sent = [one.form["client_assertion"] for one in tenant.sent(TOKEN)]
    decoded = [jwt.decode(raw, rsa_key(1), algorithms=[alg]) for raw in sent]
    assert decoded[0].header == {"alg": alg, "typ": "JWT", "kid": "k1"}
    now = int(clock.now().timestamp())
    assert {name: decoded[1].claims[name] for name in ("iss", "sub", "aud")} == {
        "iss": "avMgmt01",
        "sub": "avMgmt01",
        "aud": tenant.issuer,
    }
    assert decoded[1].claims["exp"] - now == 60
    assert len({one.claims["jti"] for one in decoded}) == 2
    assert "client_secret" not in tenant.sent(TOKEN)[0].form


def test_an_unusable_private_key_is_not_quoted() -> None:
    """What a library says of a damaged key does not reach anyone."""
    key = SigningKey(Secret("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"))
    with pytest.raises(SettingsError, match="cannot be used") as caught:
        key.sign("avMgmt01", "https://t/", NOON, "jti-1")
    assert caught.value.__cause__ is None
    assert "c2VjcmV0" not in str(caught.value)
    with pytest.raises(SettingsError, match="HS256 signs no client assertion"):
        SigningKey(Secret("x"), alg="HS256")


async def test_a_refresh_token_gets_tokens_for_another_audience(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """One refresh token, several APIs: audience and scope are sent with it."""
    tenant.script(TOKEN, Answer(tenant.access()))
    source = RefreshedToken(
        wired, SECRET, Secret("v1.rt"), audience="https://t/me/", scope="a b"
    )
    assert (await source.access()).refresh_token is None
    form = tenant.sent(TOKEN)[0].form
    assert form["grant_type"] == "refresh_token"
    assert (form["refresh_token"], form["audience"]) == ("v1.rt", "https://t/me/")
    assert form["scope"] == "a b"


async def test_a_rotated_refresh_token_replaces_the_old_one(
    tenant: RogueTenant, wired: Tenant, clock: ManualClock
) -> None:
    """Where tokens rotate, whoever keeps them is told, and the new one is used."""
    told: list[Secret] = []
    tenant.script(TOKEN, Answer(tenant.access(refresh_token="v1.next", expires_in=10)))
    source = RefreshedToken(
        wired, RegisteredClient("avConsole01"), Secret("v1.first"), rotated=told.append
    )
    await source.access()
    clock.advance(10)
    await source.access()
    used = [one.form["refresh_token"] for one in tenant.sent(TOKEN)]
    assert used == ["v1.first", "v1.next"]
    assert [one.reveal() for one in told] == ["v1.next", "v1.next"]


async def test_an_unanswered_refresh_is_not_repeated(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """A second use of a rotated token would revoke its whole family."""
    tenant.script(TOKEN, Answer(raw=b""), Answer(tenant.access()))
    source = RefreshedToken(wired, SECRET, Secret("v1.rt"))
    with pytest.raises(TenantUnreachableError):
        await source.access()
    assert tenant.asked(TOKEN) == 1


async def test_a_fixed_token_is_used_as_it_is(
    tenant: RogueTenant, wired: Tenant, clock: ManualClock
) -> None:
    """A management token of a device login needs no client credentials."""
    access = AccessToken(Secret("from-login"), frozenset(), Deadline.after(clock, 60))
    api = Management(wired, FixedToken(access))
    tenant.script("/api/v2/clients", Answer({}))
    await api.request("GET", "clients")
    sent = tenant.sent("/api/v2/clients")[0]
    assert sent.headers["authorization"] == "Bearer from-login"
    assert tenant.asked(TOKEN) == 0


async def test_a_refresh_token_is_revoked(tenant: RogueTenant, wired: Tenant) -> None:
    """RFC 7009: 200 and nothing in it; a lost answer is asked for again."""
    tenant.script(REVOKE, Answer(raw=b""), answer("authentication", "revoked"))
    await revoke_token(wired, SECRET, Secret("v1.rt"))
    form = tenant.sent(REVOKE)[1].form
    assert (form["token"], form["client_id"]) == ("v1.rt", "avMgmt01")
    tenant.script(REVOKE, answer("authentication", "wrong_secret"))
    with pytest.raises(TenantCredentialError):
        await revoke_token(wired, SECRET, Secret("v1.rt"))


async def test_a_refresh_token_is_probed_by_using_it(
    tenant: RogueTenant, wired: Tenant
) -> None:
    """Dead by `invalid_grant` alone; what came of one that lives is worth nothing."""
    held = Secret("v1.rt")
    dead = {"error": "invalid_grant", "error_description": "Unknown or invalid"}
    tenant.script(TOKEN, Answer(dead, status=403))
    assert await probe_refresh_token(wired, SECRET, held) is None
    form = tenant.sent(TOKEN)[0].form
    assert (form["refresh_token"], form["scope"]) == ("v1.rt", "openid")
    tenant.script(TOKEN, Answer(tenant.access()))
    assert await probe_refresh_token(wired, SECRET, held) is held
    tenant.script(TOKEN, Answer(tenant.access(refresh_token="v1.next")))
    rotated = await probe_refresh_token(wired, SECRET, held)
    assert rotated is not None
    assert rotated.reveal() == "v1.next"


@pytest.mark.parametrize(
    "reply",
    [
        Answer({"error": "invalid_client"}, status=401),
        Answer({"error": "unauthorized_client"}, status=403),
        Answer({"error": "invalid_grant"}, status=502),
        Answer(b"<html>proxy</html>"),
        Answer(b"", status=403),
    ],
)
async def test_only_invalid_grant_says_a_refresh_token_is_dead(
    tenant: RogueTenant, wired: Tenant, reply: Answer
) -> None:
    """Who cannot be told that it is dead has to take it for one that lives."""
    tenant.script(TOKEN, reply)
    with pytest.raises(TenantError):
        await probe_refresh_token(wired, SECRET, Secret("v1.rt"))


async def test_secrets_are_in_no_repr_no_log_and_no_pickle(
    tenant: RogueTenant, wired: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is printed of a client, its secret is not in it."""
    caplog.set_level(logging.DEBUG)
    tenant.script(TOKEN, Answer(tenant.access(refresh_token="v1.secret-next")))
    source = RefreshedToken(wired, SECRET, Secret(lambda: "v1.secret-first"))
    access = await source.access()
    written = f"{SECRET!r} {SECRET.secret!s} {access!r} {source!r} {vars(source)}"
    for secret in ("the-management-secret", "v1.secret", "at-1"):
        assert secret not in written + caplog.text
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(SECRET)


async def test_the_tenants_clock_is_known_from_its_answers(
    tenant: RogueTenant, wired: Tenant, clock: ManualClock
) -> None:
    """A clock that is ten minutes off can be told before anything fails of it."""

    def dated(_: Request) -> Answer:
        headers = {"Date": "Tue, 24 Nov 2026 12:10:00 GMT"}
        return Answer(tenant.discovery(), headers=headers)

    assert wired.skew is None
    tenant.script("/.well-known/openid-configuration", dated)
    await wired.probe()
    assert wired.skew == pytest.approx(599.4)
