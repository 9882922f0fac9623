"""A request is approved again if its broker failed before it recorded the approval."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from tenant.test_approve import Stand, stand, stands
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

__all__ = ["stand", "stands"]
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of the curve (FIPS 186-4 section D.1.2.3)."""


def with_other_signature(answer: str) -> str:
    """Return an assertion with the other ECDSA signature that verifies."""
    changed = json.loads(answer)
    r, s = decode_dss_signature(base64url_to_bytes(changed["response"]["signature"]))
    other = encode_dss_signature(r, P256 - s)
    changed["response"]["signature"] = bytes_to_base64url(other)
    return json.dumps(changed)


def test_an_assertion_counts_once(stand: Stand) -> None:
    """The same answer approves no second time, nor does one that is made from it."""
    key = stand.passkey(stand.alice, synced=True)
    key.counter = -1  # such a passkey counts nothing
    flow = stand.ask()
    stand.sign_in(stand.alice)
    answer = key.get(stand.phone.options("passkey"))
    stand.phone.send("passkey", credential=answer)
    stand.claims(flow)
    again = stand.ask()
    for copy in (answer, with_other_signature(answer)):
        stand.sign_in(stand.alice)
        assert stand.phone.send("passkey", credential=copy).error == "bad_passkey"
        assert stand.waits(again)


@pytest.mark.parametrize("synced", [False, True])
def test_another_assertion_approves_the_same_digest(
    stand: Stand, *, synced: bool
) -> None:
    """The person touches the passkey for another device code of the same request."""
    key = stand.passkey(stand.alice, synced=synced)
    for _ in range(2):
        key.counter = -1 if synced else key.counter
        flow = stand.ask()
        stand.sign_in(stand.alice)
        shown = stand.phone.answer
        assert stand.approve(key).step == "approve-result"
    stand.phone.answer, key.counter = shown, -1 if synced else key.counter
    assert stand.approve(key).step == "approve-result"  # this code is decided
    assert stand.claims(flow)["sub"].endswith(stand.alice.user.sub)
