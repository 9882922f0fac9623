"""Access tokens of the tenant's own: which are taken, where, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.tenant_store import open_store, seal_of

from agentvault_tui.home import Home
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.tokens import AccessTokens, bearer_token

ISSUER = "http://127.0.0.1:1/"
API = f"{ISSUER}api/v2/"
GONE = "(left out)"


@pytest.fixture
def keys(home: Home, clock: ManualClock) -> Iterator[SigningKeys]:
    store = open_store(home)
    yield SigningKeys(store, seal_of(home), clock)
    store.close()


def claims(clock: ManualClock, **changes: Any) -> dict[str, Any]:
    base = {
        "iss": ISSUER,
        "sub": "app_1@clients",
        "aud": API,
        "azp": "app_1",
        "scope": "read:users",
        "exp": int(clock.now().timestamp()) + 60,
        **changes,
    }
    return {name: value for name, value in base.items() if value != GONE}


def test_an_access_token_is_read_for_one_of_its_audiences(
    keys: SigningKeys, clock: ManualClock
) -> None:
    """For one audience alone, or for one of several."""
    tokens = AccessTokens(keys, clock, ISSUER)
    for raw in (keys.sign(claims(clock)), keys.sign(claims(clock, aud=["x", API]))):
        found = tokens.read(raw, API)
        assert found is not None
        assert (found.sub, found.client_id) == ("app_1@clients", "app_1")
        assert found.scopes == {"read:users"}
        assert tokens.bearer(f"bearer {raw}", API) == found
        clock.advance(59)
        assert tokens.read(raw, API) is not None
        clock.advance(-59)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "http://127.0.0.1:2/"},
        {"iss": GONE},
        {"aud": f"{ISSUER}me/"},
        {"aud": []},
        {"aud": GONE},
        {"azp": GONE},
        {"azp": 7},
        {"sub": GONE},
        {"scope": GONE},
        {"exp": 1},
        {"exp": float(2**60)},
    ],
    ids=str,
)
def test_an_access_token_with_a_wrong_claim_is_refused(
    keys: SigningKeys, clock: ManualClock, changes: dict[str, Any]
) -> None:
    """Another issuer's, for another API, over, or an ID token (RFC 9068 section 4)."""
    raw = keys.sign(claims(clock, **changes))
    assert AccessTokens(keys, clock, ISSUER).read(raw, API) is None


def test_a_token_of_another_type_is_refused(
    keys: SigningKeys, clock: ManualClock
) -> None:
    """Whatever its claims are: its type says that it is for something else."""
    tokens = AccessTokens(keys, clock, ISSUER)
    for typ in ("logout+jwt", "token-vault-req+jwt", "at+jwt", "jwt", ""):
        assert tokens.read(keys.sign(claims(clock), typ), API) is None


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dTpw", "bearer\tx", "x"]
)
def test_a_bearer_token_is_read_from_its_header_alone(header: str) -> None:
    """RFC 6750 section 2.1, whatever the case of its scheme."""
    assert bearer_token(header) is None
    assert bearer_token("BEARER abc") == "abc"
