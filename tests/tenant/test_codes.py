"""Device codes as the store holds them: decided once, spent once, and over in time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from auth0_double.running import DETAILS
from hypothesis import given
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.tenant_store import open_store, seal_of

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant import details
from agentvault_tui.tenant.codes import (
    USER_CODE_LETTERS,
    DeviceCodes,
    StoredDeviceCode,
    TooManyCodesError,
    new_user_code,
    normal_user_code,
)
from agentvault_tui.tenant.details import StepUpDetails


@pytest.fixture
def codes(home: Home, clock: ManualClock) -> Iterator[DeviceCodes]:
    store = open_store(home)
    yield DeviceCodes(store, seal_of(home), clock)
    store.close()


def issued(codes: DeviceCodes) -> StoredDeviceCode:
    pair = codes.issue("client", "openid", None, 120)
    found = codes.by_key(sha256_hex(pair.device_code))
    assert found is not None
    assert codes.by_user_code(pair.user_code) == found
    return found


def test_the_first_decision_on_a_device_code_counts(codes: DeviceCodes) -> None:
    """Two pages may show one code: a no is no yes a moment later, nor the reverse."""
    denied, approved = issued(codes), issued(codes)
    assert codes.deny(denied)
    assert not codes.approve(denied, "mallory", "s", 1)
    assert codes.approve(approved, "ann", "s", 1)
    assert not codes.approve(approved, "mallory", "s", 2)
    assert not codes.deny(approved)
    now = codes.by_key(denied.key), codes.by_key(approved.key)
    assert [code and (code.state, code.sub) for code in now] == [
        ("denied", None),
        ("approved", "ann"),
    ]


def test_an_expired_device_code_takes_no_decision(
    codes: DeviceCodes, clock: ManualClock
) -> None:
    """Neither a yes nor a no, and nobody finds it by what they type."""
    pair = codes.issue("client", "openid", None, 120)
    code = codes.by_key(sha256_hex(pair.device_code))
    assert code is not None
    clock.advance(120)
    assert not codes.open(code)
    assert codes.by_user_code(pair.user_code) is None
    assert not codes.approve(code, "ann", "s", 1)
    assert not codes.deny(code)


def test_a_device_code_is_spent_once(codes: DeviceCodes) -> None:
    """Of several polls one hears how it ended (RFC 8628 section 3.5)."""
    code = issued(codes)
    assert codes.approve(code, "ann", "s", 1)
    now = codes.by_key(code.key)
    assert now is not None
    assert [codes.spend(now), codes.spend(now)] == [True, False]
    # As it stood before the yes, it is another's already.
    assert not codes.spend(code)


def test_the_fifth_failed_sign_in_ends_a_device_code(codes: DeviceCodes) -> None:
    """However they came, and it is told apart from a person's no."""
    code = issued(codes)
    for _ in range(4):
        codes.failed(code)
    now = codes.by_key(code.key)
    assert now is not None
    assert codes.open(now)
    codes.failed(code)
    now = codes.by_key(code.key)
    assert now is not None
    assert (now.state, now.exhausted) == ("denied", True)
    assert not codes.approve(code, "ann", "s", 1)


@pytest.mark.slow
@given(st.text(max_size=30) | st.text("bC-D\u2011\n\u200b ", min_size=8, max_size=20))
def test_typed_text_is_a_user_code_or_none(typed: str) -> None:
    """Only letters of the alphabet make one; punctuation and the like is left out."""
    found = normal_user_code(typed)
    bare = "".join(filter(str.isalnum, typed))
    valid = (
        bare.isascii()
        and len(bare) == 8
        and set(bare.upper()) <= set(USER_CODE_LETTERS)
    )
    assert (found is not None) is valid
    if found is not None:
        assert found.replace("-", "") == bare.upper()


@pytest.mark.parametrize("typed", ["BCDF-GHJſ", "ВCDF-GHJS", "ꓐCDF-GHJS", "BCDF-GHJA"])
def test_look_alike_letters_are_no_user_code(typed: str) -> None:
    """No letter stands for another: neither a long s nor Cyrillic or Lisu ones."""
    assert normal_user_code("bcdf ghjs") == "BCDF-GHJS"
    assert normal_user_code(typed) is None


@pytest.mark.parametrize(
    "typed",
    [
        "ＢＣＤＦ－ＧＨＪＳ",
        "ｂｃｄｆ　ｇｈｊｓ",
        "BCDF\u2011GHJS",
        "BCDF-GHJS\r\n",
        "(bcdf.ghjs)",
        "BCDF\u200b-GHJS",
    ],
)
def test_width_and_punctuation_of_a_user_code_are_ignored(typed: str) -> None:
    """RFC 8628 section 6.1: width, hyphens, spaces and line ends are forgiven."""
    assert normal_user_code(typed) == "BCDF-GHJS"
    code = new_user_code()
    assert normal_user_code(code.lower().replace("-", "")) == code


def test_a_page_alone_takes_nobodys_code(
    codes: DeviceCodes, clock: ManualClock
) -> None:
    """A code for the page alone ends none that a person was given for the same."""

    def shown(digest: str, **page: object) -> details.StepUpDetails:
        page = {"id": "sup_12345678", "digest": f"sha256:{digest * 64}", **page}
        return details.read(json.dumps([{**DETAILS, "page": page}]))

    offered = codes.issue("c", "openid", shown("a", expires_in=600), 600)
    given = codes.issue("c", "openid", shown("a"), 120)
    before = codes.by_key(sha256_hex(offered.device_code))
    assert before is not None
    assert before.state == "denied"
    with pytest.raises(TenantRefusedError, match="has a code"):
        codes.issue("c", "openid", shown("a", expires_in=600), 600)
    found = codes.by_stepup("sup_12345678")
    assert found is not None
    assert found.key == sha256_hex(given.device_code)
    assert codes.open(found)
    codes.issue("c", "openid", shown("b", expires_in=600), 600)
    given = codes.issue("c", "openid", shown("b"), 120)
    clock.advance(121)
    codes.issue("c", "openid", shown("b", expires_in=600), 600)


def stepup(number: int, agent: str = "agt_1", *, page: bool = True) -> StepUpDetails:
    """Return the details of a step-up, of its page alone or of a code."""
    shown = {
        "id": f"sup_{number:016x}",
        "digest": f"sha256:{number:064x}",
        "expires_in": 300 if page else None,
    }
    told = {**DETAILS, "agent_id": agent, "page": shown}
    return details.read(json.dumps([told]))


def test_codes_are_counted_apart_by_what_they_are_for(codes: DeviceCodes) -> None:
    """Full of one kind there is room for the others; the refusal names the cap."""
    kinds = {
        "approval pages": (256, lambda n: stepup(n, f"agt_{n}")),
        "agents' requests": (256, lambda n: stepup(n + 999, f"agt_{n}", page=False)),
        "sign-ins": (64, lambda _: None),
    }
    for kind, (cap, what) in kinds.items():
        for number in range(cap):
            codes.issue("client", "openid", what(number), 120)
        with pytest.raises(TooManyCodesError, match=f"{cap} device codes of {kind}"):
            codes.issue("client", "openid", what(cap), 120)


def test_the_step_ups_of_one_agent_hold_16_codes(
    codes: DeviceCodes, clock: ManualClock
) -> None:
    """Pages and codes together; another agent has its own, and what is over is none."""
    for number in range(16):
        codes.issue("client", "openid", stepup(number, page=number % 2 == 0), 120)
    for page in (True, False):
        with pytest.raises(TooManyCodesError, match="16 device codes of this agent"):
            codes.issue("client", "openid", stepup(99, page=page), 120)
    codes.issue("client", "openid", stepup(99, "agt_12"), 120)
    clock.advance(120)
    codes.issue("client", "openid", stepup(99), 120)


def test_a_code_that_is_replaced_ends_first(codes: DeviceCodes) -> None:
    """So an agent with all of its codes may have each of its step-ups begun."""
    for number in range(16):
        codes.issue("client", "openid", stepup(number), 120)
    for number in range(16):
        codes.issue("client", "openid", stepup(number, page=False), 120)
    waiting = [codes.by_stepup(f"sup_{number:016x}") for number in range(16)]
    assert [code and code.page and code.page.expires_in for code in waiting] == (
        [None] * 16
    )


def test_the_kind_of_a_code_is_no_place_that_it_comes_from(codes: DeviceCodes) -> None:
    """Only of a sign-in it is shown where it was begun."""
    pair = codes.issue("client", "openid", stepup(1), 120, origin="192.0.2.1")
    code = codes.by_key(sha256_hex(pair.device_code))
    assert code is not None
    assert code.origin is None
