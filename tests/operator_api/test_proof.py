"""A link of the chain is computed again from the written format; any lie is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_shapes import filled

from agentvault_tui.operator_api.history import LinkInfo
from agentvault_tui.operator_api.proof import Proof, genesis, link

DOC = Path(__file__).parents[2] / "docs" / "ledger-format.md"


def vectors() -> list[Proof]:
    """The proofs of the document's own export, each after the one before."""
    block = DOC.read_text("utf-8").partition("## Test vectors")[2]
    lines = block.split("```json\n")[1].split("\n```")[0].split("\n")
    header = json.loads(lines[0])
    before, proofs = header["from"]["hash"], []
    for number, line in enumerate(lines[1:], 1):
        digest, body = line[9:80], "{" + line[82:]
        proofs.append(Proof(number, body, digest, before, header["ledger"]))
        before = digest
    return proofs


def test_the_test_vectors_of_the_format_hold() -> None:
    """Every link of the document is found right, and tells its event."""
    before = genesis("000102030405060708090a0b0c0d0e0f")
    for proof in vectors():
        assert proof.problem(before) == ""
        event = proof.event()
        assert event is not None
        assert (event.seq, event.hash) == (proof.seq, proof.hash)
        before = proof.hash


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"body": '{"seq":2}'}, "not that of the recorded body"),
        ({"hash": "sha256:" + "0" * 64}, "not that of the recorded body"),
        ({"previous": "sha256:" + "0" * 64}, "not that of the recorded body"),
        ({"hash": "sha256:xyz"}, "not written as one"),
        ({"previous": ""}, "not written as one"),
    ],
)
def test_a_lie_is_found(change: dict[str, str], said: str) -> None:
    """Whatever of a link is changed, it does not hold, and it is said why."""
    assert said in replace(vectors()[1], **change).problem()  # type: ignore[arg-type]


def test_a_link_that_does_not_follow_the_one_before_is_named() -> None:
    """A link that is right in itself but hangs elsewhere is told apart."""
    third = vectors()[2]
    assert "does not follow" in third.problem(before=vectors()[0].hash)
    assert (
        "does not begin this ledger"
        in replace(vectors()[0], ledger="another").problem()
    )


@given(st.binary(min_size=1, max_size=4), st.integers(0, 10_000))
def test_no_changed_byte_goes_unnoticed(junk: bytes, at: int) -> None:
    """Any change of the recorded body is found."""
    proof = vectors()[1]
    at %= len(proof.body)
    body = proof.body[:at] + junk.decode("latin-1") + proof.body[at + len(junk) :]
    assert (body == proof.body) == (replace(proof, body=body).problem() == "")


@pytest.mark.parametrize(
    "raw", [{}, {"seq": -1}, {"seq": 1, "body": "{"}, {"seq": 2**80}]
)
def test_a_malformed_proof_is_no_link(raw: dict[str, object]) -> None:
    """What is no link at all is told as one that does not hold, never as a fault."""
    assert Proof.read(filled(LinkInfo, raw), "").problem() != ""


def test_a_body_that_is_no_event_is_told() -> None:
    """A hash over something else than an event holds nothing."""
    before = vectors()[0].hash
    for body in ("[]", "nonsense", '{"seq":3}'):
        proof = Proof(2, body, link(before, 2, body), before, "x")
        assert "another event" in proof.problem()
