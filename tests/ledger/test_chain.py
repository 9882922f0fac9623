"""The written format: its vectors hold for our code and for the second verifier."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from support import independent_verifier
from support.ledger_kit import START

from agentvault_tui.clock import iso
from agentvault_tui.ledger import verify_export
from agentvault_tui.ledger.chain import genesis, link, prepare
from agentvault_tui.model import (
    Actor,
    ActorKind,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
)

DOC = Path(__file__).parents[2] / "docs" / "ledger-format.md"
LEDGER = "000102030405060708090a0b0c0d0e0f"
_AGENT = Actor(ActorKind.AGENT, "agt_9f3", "Kalender-Bot 𝕏")

DRAFTS = (
    Draft(
        EventType.BROKER_STARTED,
        Actor(ActorKind.SYSTEM, "broker", "broker"),
        detail={"version": "0.1.0"},
    ),
    Draft(
        EventType.TOKEN_DECISION,
        _AGENT,
        AgentId("agt_9f3"),
        "send:payment",
        "stripe:acct_42",
        Outcome.ESCALATED,
        "stepup_required",
        "payments-need-step-up",
        DecisionId("dec_1"),
        {
            "parameters": {"amount": 4200.5, "note": 'a\tb\x1f"é', "ratio": 1e-7},
            "zürich": 1,
            "\ufb01": 2,
            "😀": 3,
        },
    ),
    Draft(
        EventType.TOKEN_DECISION,
        _AGENT,
        AgentId("agt_9f3"),
        "read:mail",
        "mail:\ud800",
        Outcome.DENIED,
        "policy_forbids",
        "default-deny",
        DecisionId("dec_2"),
        {"big": 2**53, "far": 1e300, "nan": float("nan"), "zero": -0.0},
    ),
)


def lines() -> list[str]:
    """Return the vectors as an export's lines, as our code makes them."""
    digest = genesis(LEDGER)
    first = {"seq": 0, "hash": f"sha256:{digest.hex()}"}
    made = []
    for seq, draft in enumerate(DRAFTS, 1):
        body = prepare(draft).body(seq, iso(START + timedelta(seconds=seq)))
        digest = link(digest, seq, body.encode())
        made.append(f'{{"hash":"sha256:{digest.hex()}",{body[1:]}')
    header = {
        "format": "agentvault-ledger/1",
        "ledger": LEDGER,
        "from": first,
        "to": {"seq": len(made), "hash": f"sha256:{digest.hex()}"},
        "count": len(made),
        "exported_at": iso(START),
    }
    return [json.dumps(header, separators=(",", ":")), *made]


def test_the_documented_vectors_are_what_the_code_writes() -> None:
    """The example export in the document is ours, byte for byte."""
    assert "\n".join(lines()) in DOC.read_text(encoding="utf-8")


def test_both_verifiers_accept_the_documented_vectors(tmp_path: Path) -> None:
    """The example, saved to a file, verifies by our code and by the second verifier."""
    text = DOC.read_text(encoding="utf-8")
    block = text.split("```json\n{", 1)[1].split("```", 1)[0]
    path = tmp_path / "vectors.jsonl"
    path.write_text("{" + block, encoding="utf-8")
    report = verify_export(path)
    assert report.ok, report
    assert (report.head.seq, report.head.hash) == independent_verifier.verify(path)
