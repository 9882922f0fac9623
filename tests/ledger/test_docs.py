"""Rows of the state as text: what a home holds is read, and written the same again."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agentvault_tui.clock import Deadline
from agentvault_tui.ledger import Cooldown, OutboxStep, Panic, docs
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    Credential,
    DecisionId,
    Evidence,
    IssuedProviderToken,
    Lease,
    Risk,
    StepUp,
    StepUpId,
    Token,
    TokenId,
    TokenKind,
)

NOW = datetime(2026, 11, 24, 10, 0, 0, 5, tzinfo=UTC)
WHEN = '"2026-11-24T10:00:00.000005Z"'
ENDS = Deadline(NOW, 7.5, "boot")
AGENT = AgentId("agt_1")
AGENT_DOC = (
    '{"id":"agt_1","client_id":"agt_1","name":"caf\\u00e9","owner":"o","purpose":"",'
    f'"scopes":["a:b"],"created_at":{WHEN},"status":"active","resource_server":false,'
    '"serves":[],"resources":[],"secret_sha256":"ff","public_key":null,'
    '"revoked_at":null,"delegates":[],"subject":null,"until":null,"template":false,'
    '"from_template":null,"decisions_a_second":null,"removed_at":null}'
)
STEPUP_DOC = (
    '{"id":"sup_1","agent_id":"agt_1","agent_name":"n","scope":"a:b","action":"a:b",'
    '"resource":null,"reason":"half \\ud800","rule":"r","why":"w","risk":"high",'
    '"policy_version":"v","nonce":"x","digest":"sha256:0","decision_id":"dec_1",'
    '"ttl":300,"count":1,"status":"pending","problem":null,"denial":null,'
    f'"resource_indicator":null,"connection":null,"requested_at":{WHEN},'
    f'"expires":[{WHEN},7.5,"boot"],"decided_at":null,"begun_at":null,"begun_by":"",'
    '"redeemed_at":null,"fetched_at":null,"evaluation":false,"source":null,'
    '"need":1,"owners":[],"confirmed":[],"repeat":null,"repeat_of":null,'
    f'"decided_by":["s","n",["mfa"],{WHEN},true,"s@t.test"],'
    '"parameters":{"amount":1.50},"authorization_details":[{"type":"t"}]}'
)


def same(one: str | None, other: str) -> bool:
    return json.loads(one or "null") == json.loads(other)


def test_an_agents_document_is_read_and_written_again() -> None:
    """Its credential stands among its other members."""
    agent = Agent(
        AGENT, "agt_1", "café", "o", "", ("a:b",), NOW, credential=Credential("ff")
    )
    assert docs.read_agent(AGENT_DOC) == agent
    assert same(docs.write_agent(agent), AGENT_DOC)


@pytest.mark.parametrize("single_use", [False, True])
def test_a_tokens_document_is_read_and_written_again(single_use: bool) -> None:
    """The decision, and whether it is good for one action, are the last elements."""
    token = Token(
        TokenId("tok_1"),
        "ff",
        AGENT,
        "a:b",
        TokenKind.STANDARD,
        NOW,
        ENDS,
        '[{"type":"t","n":1.5}]',
        single_use=single_use,
        decision_id=DecisionId("dec_1"),
        source="10.0.0.7",
    )
    doc = (
        f'["ff","a:b","standard",{WHEN},{WHEN},7.5,"boot",[{{"type":"t","n":1.5}}],'
        f'null,null,"dec_1",{json.dumps(single_use)},"10.0.0.7"]'
    )
    assert docs.write_token(token) == doc
    assert docs.read_token("tok_1", "agt_1", doc) == token


def test_a_step_ups_document_is_read_and_written_again() -> None:
    """Its parameters and details are members; half a surrogate pair stays one."""
    stepup = docs.read_stepup(STEPUP_DOC)
    assert stepup == StepUp(
        *(StepUpId("sup_1"), AGENT, "n", "a:b", "a:b", None, '{"amount":1.5}'),
        *("half \ud800", "r", "w", Risk.HIGH, "v", "x", "sha256:0"),
        *(DecisionId("dec_1"), 300, NOW, ENDS),
        decided_by=Evidence("s", "n", ("mfa",), NOW, by_role=True, email="s@t.test"),
        authorization_details='[{"type":"t"}]',
    )
    assert same(docs.write_stepup(stepup), STEPUP_DOC)


def test_small_documents_are_read_and_written_again() -> None:
    """The panic, an account, a lease, a cool-down and a step at the tenant."""
    panic, doc = Panic(True, NOW, "olga", "drill"), f'[true,{WHEN},"olga","drill"]'
    assert docs.PANIC.read(doc) == panic
    assert docs.PANIC.write(panic) == doc
    account = Account(AGENT, "google", "cac_1", "i", "u", "name", ("s",), NOW)
    doc = f'["cac_1","i","u","name",["s"],{WHEN},false,""]'
    assert docs.ACCOUNT.write(account) == doc
    assert docs.ACCOUNT.read(doc, agent_id=AGENT, connection="google") == account
    lease = Lease(AGENT, "google", (IssuedProviderToken("cac_1", "ab", NOW),))
    doc = f'[["cac_1","ab",{WHEN}]]'
    assert docs.write_lease(lease) == doc
    assert docs.read_lease(AGENT, "google", doc) == lease
    cooldown, doc = Cooldown(AGENT, 3, ENDS), f'[3,{WHEN},7.5,"boot"]'
    assert docs.write_cooldown(cooldown) == doc
    assert docs.read_cooldown(AGENT, doc) == cooldown
    step = OutboxStep("agt_1/s", AGENT, "s", NOW, ms=1.5, users=("u",))
    doc = f'["agt_1","s",{WHEN},0,null,1.5,null,["u"],""]'
    assert docs.OUTBOX.write(step) == doc
    assert docs.OUTBOX.read(doc, id="agt_1/s", status="pending") == step


@pytest.mark.parametrize(
    ("doc", "kind"),
    [("{}", "agent"), ("[1]", "token"), ("x", "token"), ('{"id":1}', "agent")],
)
def test_a_document_that_was_changed_is_no_traceback(doc: str, kind: str) -> None:
    """Whatever stands there raises what a start answers with a remedy."""
    with pytest.raises((ValueError, LookupError)):
        docs.read_agent(doc) if kind == "agent" else docs.read_token("t", "a", doc)
