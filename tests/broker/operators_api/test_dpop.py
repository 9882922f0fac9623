"""DPoP proofs by themselves: whatever is sent, and however the clocks move."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from joserfc import jwt
from joserfc.jwk import ECKey
from support.elsewhere import encoded
from support.manual_clock import ManualClock

from agentvault_tui.broker.operators_api.dpop import ProofError, Proofs

URL = "https://ops.example:7719"
KEY = ECKey.generate_key("P-256")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 24, 10, 0, tzinfo=UTC))


def scope(*headers: bytes, path: bytes = b"/api/agents") -> dict[str, Any]:
    pairs = [(b"dpop", header) for header in headers]
    return {"method": "GET", "raw_path": path, "headers": pairs}


def proof(at: ManualClock, nonce: str, **changes: object) -> bytes:
    claims = {
        "htm": "GET",
        "htu": f"{URL}/api/agents",
        "iat": int(at.now().timestamp()),
        "jti": secrets.token_urlsafe(8),
        "nonce": nonce,
        **changes,
    }
    jwk = KEY.as_dict(private=False)
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}
    return jwt.encode(header, claims, KEY).encode()


def segment(value: object) -> str:
    return encoded(json.dumps(value).encode())


@given(st.binary(max_size=300))
def test_a_header_of_any_bytes_is_refused(raw: bytes) -> None:
    """Nothing but a proof error comes of it."""
    with pytest.raises(ProofError):
        Proofs(clock(), URL).read(scope(raw), None)


@given(JSON, JSON, JSON, st.sampled_from(["htm", "htu", "iat", "jti", "nonce", "jwk"]))
def test_a_header_and_claims_of_any_kind_are_refused(
    header: object, claims: object, odd: object, name: str
) -> None:
    """Also where a single member of a good one is of another kind."""
    at = clock()
    proofs = Proofs(at, URL)
    text = f"{segment(header)}.{segment(claims)}.{segment('x')}"
    with pytest.raises(ProofError):
        proofs.read(scope(text.encode()), None)
    head, body, signature = proof(at, proofs.nonce).decode().split(".")
    good = jwt.decode(f"{head}.{body}.{signature}", KEY)
    member = good.header if name == "jwk" else good.claims
    if odd == member[name] or (name == "jti" and isinstance(odd, str)):
        return
    if name == "iat" and isinstance(odd, int | float):
        return
    member[name] = odd
    text = f"{segment(good.header)}.{segment(good.claims)}.{signature}"
    with pytest.raises(ProofError):
        proofs.take(proofs.read(scope(text.encode()), None), "")


def test_a_proof_of_another_key_has_another_thumbprint() -> None:
    """It is that of RFC 7638, so the session's key is told from every other."""
    at = clock()
    proofs = Proofs(at, URL)
    found = proofs.read(scope(proof(at, proofs.nonce)), None)
    assert found.thumbprint == KEY.thumbprint()


def test_a_seat_has_room_for_so_many_proofs_a_minute() -> None:
    """Then it waits, while others go on; nothing is forgotten early."""
    at = clock()
    proofs = Proofs(at, URL)
    found = proofs.read(scope(proof(at, proofs.nonce)), None)
    proofs._used[found.nonce]["key:a"] = {secrets.token_bytes() for _ in range(4096)}
    with pytest.raises(ProofError) as full:
        proofs.take(found, "key:a")
    assert (full.value.code, full.value.status) == ("slow_down", 429)
    proofs.take(found, "key:b")


@pytest.mark.parametrize("more", ["", "?agent=x", "#top", "?agent=x#top", "#a?b"])
def test_query_and_fragment_are_no_part_of_the_url(more: str) -> None:
    """RFC 9449 section 4.3, number 9."""
    at = clock()
    proofs = Proofs(at, URL)
    sent = proof(at, proofs.nonce, htu=f"{URL}/api/agents{more}")
    assert proofs.read(scope(sent), None).nonce == proofs.nonce


def test_a_nonce_that_nobody_asked_about_ends_all_the_same() -> None:
    """After two minutes without any request the nonce of before them counts no more."""
    at = clock()
    proofs = Proofs(at, URL)
    first = proofs.nonce
    at.advance(59)
    assert proofs.nonce == first
    at.advance(1)
    second = proofs.nonce
    assert second != first
    proofs.read(scope(proof(at, first)), None)
    at.advance(120)
    for nonce in (first, second):
        with pytest.raises(ProofError) as caught:
            proofs.read(scope(proof(at, nonce)), None)
        assert caught.value.code == "use_dpop_nonce"


class ProofsModel(RuleBasedStateMachine):
    """No proof is taken twice, however time passes on either clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = clock()
        self.proofs = Proofs(self.clock, URL)
        self.taken: list[bytes] = []

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 61, 119, 120, 180, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3600, -120, -61, -1, 1, 61, 3600]))
    def the_clock_is_set(self, seconds: int) -> None:
        self.clock.jump_wall(seconds)

    @rule()
    def a_new_proof_is_taken(self) -> None:
        raw = proof(self.clock, self.proofs.nonce)
        self.proofs.take(self.proofs.read(scope(raw), None), "key:a")
        self.taken.append(raw)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def an_old_proof_is_refused(self, data: st.DataObject) -> None:
        raw = data.draw(st.sampled_from(self.taken))
        with pytest.raises(ProofError):
            self.proofs.take(self.proofs.read(scope(raw), None), "key:a")


ProofsModel.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
test_no_proof_is_taken_twice = ProofsModel.TestCase
