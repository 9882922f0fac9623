"""Accounts are connected as their user: begun here, ended here, in time."""

import base64
import hashlib
from typing import Any

import pytest
from support.exchanges import answer, rows_of
from support.manual_clock import ManualClock
from support.rogue_tenant import TOKEN, Answer, RogueTenant

from agentvault_tui.errors import (
    TenantBusyError,
    TenantConflictError,
    TenantError,
    TenantRefusedError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.vault import (
    ClientSecret,
    MyAccountApi,
    RefreshedToken,
    Secret,
    Tenant,
)
from agentvault_tui.vault.my_account import SCOPES, account, audience
from agentvault_tui.vault.tenant import RetryLimits

BASE = "/me/v1/connected-accounts/"
BACK = "http://127.0.0.1:7717/connected"
GOOGLE = "google-oauth2"


@pytest.fixture
def mine(tenant: RogueTenant, wired: Tenant) -> MyAccountApi:
    """The accounts of a vault user, with a token of its refresh token."""
    tenant.script(TOKEN, Answer(tenant.access(scope=" ".join(SCOPES))))
    tokens = RefreshedToken(
        wired,
        ClientSecret("agent7", Secret("agent-secret")),
        Secret("v1.rt"),
        audience=audience(wired),
        scope=" ".join(SCOPES),
    )
    texts = iter(["the-verifier", "the-state"] * 9)
    return MyAccountApi(
        wired, tokens, patience=RetryLimits(attempts=1), unguessable=lambda: next(texts)
    )


def replay(tenant: RogueTenant, path: str, *names: str) -> None:
    """Answer *path* with recorded exchanges, in turn."""
    answers = (answer("my_account", name, tenant.issuer) for name in names)
    tenant.script(BASE + path, *answers)


async def test_an_account_is_connected_in_two_calls_with_a_browser_between(
    tenant: RogueTenant, mine: MyAccountApi
) -> None:
    """PKCE and state out, a page of the tenant's with a ticket back, a code spent."""
    replay(tenant, "connect", "connect")
    replay(tenant, "complete", "complete")
    begun = await mine.connect(GOOGLE, BACK, ["openid"])
    assert (
        begun.page == f"{tenant.issuer}connected-accounts/connect?ticket=ticket-secret"
    )
    asked = tenant.requests[-1].json
    digest = hashlib.sha256(b"the-verifier").digest()
    assert asked == {
        "connection": GOOGLE,
        "redirect_uri": BACK,
        "state": "the-state",
        "scopes": ["openid"],
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    done = await mine.complete(begun, code="the-code", state="the-state")
    assert (done.id, done.connection) == ("cac_1", GOOGLE)
    assert tenant.requests[-1].json == {
        "auth_session": "session-secret",
        "connect_code": "the-code",
        "redirect_uri": BACK,
        "code_verifier": "the-verifier",
    }


async def test_the_token_is_for_this_api_and_its_scopes(
    tenant: RogueTenant, mine: MyAccountApi
) -> None:
    """One refresh token, this audience: `me/` with its slash."""
    replay(tenant, "accounts", "accounts_end")
    await rows_of(mine.accounts())
    form = tenant.sent(TOKEN)[0].form
    assert form["audience"] == f"{tenant.issuer}me/"
    assert form["scope"].split() == list(SCOPES)


@pytest.mark.parametrize(
    ("state", "seconds", "error"),
    [
        *((one, 0, "wrong_state") for one in ("", "another", "the-statE", "thé-state")),
        ("the-state", 300, "expired"),
    ],
)
async def test_a_connect_code_with_a_foreign_state_or_too_late_is_refused(
    tenant: RogueTenant,
    mine: MyAccountApi,
    clock: ManualClock,
    *,
    state: str,
    seconds: float,
    error: str,
) -> None:
    """Another's connection cannot be slipped in under ours: nothing is spent.

    After five minutes ours is over too.
    """
    replay(tenant, "connect", "connect")
    begun = await mine.connect(GOOGLE, BACK)
    clock.advance(seconds)
    with pytest.raises(TenantRefusedError) as caught:
        await mine.complete(begun, code="their-code", state=state)
    assert caught.value.error == error
    assert tenant.asked(BASE + "complete") == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"connect_uri": "https://evil.test/connect"},
        {"connect_uri": "javascript:alert(1)"},
        {"connect_uri": None},
        {"connect_uri": "{}connect?a=b"},
        {"connect_uri": "{}connect#a"},
        {"connect_uri": "{}connect\u202e"},
        {"connect_params": {}},
        {"connect_params": {"ticket": 5}},
        {"connect_params": "x"},
        {"auth_session": None},
        {"expires_in": 0},
        {"expires_in": "300"},
        {"expires_in": 10**9},
    ],
)
async def test_a_connect_page_on_another_origin_is_refused(
    tenant: RogueTenant, mine: MyAccountApi, changes: dict[str, Any]
) -> None:
    """Only a page on the tenant's own origin, with a ticket and a time, is opened."""
    body = {**answer("my_account", "connect", tenant.issuer).body, **changes}
    if isinstance(body["connect_uri"], str):
        body["connect_uri"] = body["connect_uri"].replace("{}", tenant.issuer)
    tenant.script(BASE + "connect", Answer(body, 201))
    with pytest.raises(TenantError) as caught:
        await mine.connect(GOOGLE, BACK)
    assert caught.value.diagnosis().isprintable()


async def test_accounts_are_listed_to_the_end(
    tenant: RogueTenant, mine: MyAccountApi
) -> None:
    """Twenty at a time, as many as the API gives."""
    replay(tenant, "accounts", "accounts", "accounts_end")
    found = await rows_of(mine.accounts(connection=GOOGLE))
    assert [one.id for one in found] == ["cac_1", "cac_2"]
    queries = [one.query for one in tenant.sent(BASE + "accounts")]
    assert queries == [
        {"connection": GOOGLE, "take": "20"},
        {"connection": GOOGLE, "take": "20", "from": "n1"},
    ]


async def test_an_account_is_disconnected_once(
    tenant: RogueTenant, mine: MyAccountApi
) -> None:
    """204, and 404 the second time, which is as good."""
    tenant.script(
        BASE + "accounts/cac_1", answer("my_account", "deleted"), Answer({}, 404)
    )
    assert await mine.disconnect("cac_1") is True
    assert await mine.disconnect("cac_1") is False


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("conflict", TenantConflictError, "connected already"),
        ("invalid", TenantRefusedError, "redirect_uri: is required"),
        ("insufficient_scope", TenantScopeError, "delete:me:connected_accounts"),
        ("too_many", TenantBusyError, "7 s"),
    ],
)
async def test_my_account_errors_are_read(
    tenant: RogueTenant, mine: MyAccountApi, name: str, kind: Any, said: str
) -> None:
    """RFC 9457 problems become the same errors as everyone's, with what was wrong."""
    replay(tenant, "connect", name)
    with pytest.raises(kind, match=said):
        await mine.connect(GOOGLE, BACK)


async def test_a_pending_connection_shows_no_secret(
    tenant: RogueTenant, mine: MyAccountApi
) -> None:
    """Ticket, session, state and verifier are in no repr."""
    replay(tenant, "connect", "connect")
    begun = repr(await mine.connect(GOOGLE, BACK))
    for secret in ("ticket-secret", "session-secret", "the-state", "the-verifier"):
        assert secret not in begun


@pytest.mark.parametrize("name", ["id", "connection"])
@pytest.mark.parametrize("odd", ["", "x" * 2049, None, 5, ["cac_1"]])
def test_an_account_with_an_unstorable_id_is_refused(name: str, odd: Any) -> None:
    """What goes into the ledger and into URLs is a string of a bounded length."""
    row = {"id": "cac_1", "connection": "google-oauth2", name: odd}
    with pytest.raises(TenantUnreachableError, match=f"without its {name}"):
        account(row)


def test_an_accounts_scopes_are_bounded() -> None:
    """However many and long the tenant says they are, a record holds some."""
    row = {"id": "cac_1", "connection": "c", "scopes": ["s" * 5000] * 5000 + [7]}
    scopes = account(row).scopes
    assert len(scopes) == 100
    assert {len(scope) for scope in scopes} == {500}
