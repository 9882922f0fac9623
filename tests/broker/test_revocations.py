"""A decision is void once its agent, its scopes or all agents were revoked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agentvault_tui.broker.revocations import Revocations
from agentvault_tui.ledger import Panic
from agentvault_tui.model import AgentId

PAYER, HELPER = AgentId("agt_payer"), AgentId("agt_helper")
SCOPE = "send:payment read:files"


@pytest.fixture
def revocations() -> Revocations:
    return Revocations()


def test_a_decision_stays_valid_if_others_are_revoked(revocations: Revocations) -> None:
    """Another agent's revocation, or one before the decision, does not void it."""
    revocations.void(PAYER, None)
    revocations.void_all()
    grant = revocations.unless_revoked(PAYER, scope=SCOPE)
    revocations.void(HELPER, None)
    assert not grant.revoked


@pytest.mark.parametrize("scope", [SCOPE, "", None])
def test_a_revocation_of_the_agent_or_of_all_voids_each_decision(
    revocations: Revocations, scope: str | None
) -> None:
    """Whatever the decision is about, and for good."""
    grant = revocations.unless_revoked(PAYER, scope=scope)
    revocations.void(PAYER, None)
    assert grant.revoked
    again = revocations.unless_revoked(PAYER, scope=scope)
    revocations.void_all()
    assert again.revoked
    assert grant.revoked


def test_a_removed_scope_voids_only_decisions_about_it(
    revocations: Revocations,
) -> None:
    """A decision without a scope is about all of them."""
    about = revocations.unless_revoked(PAYER, scope=SCOPE)
    other = revocations.unless_revoked(PAYER, scope="read:calendar")
    every = revocations.unless_revoked(PAYER)
    revocations.void(PAYER, ["read:files", "write:files"])
    assert about.revoked
    assert every.revoked
    assert not other.revoked


def test_a_revocation_of_any_agent_of_a_chain_voids_the_decision(
    revocations: Revocations,
) -> None:
    """A token that was exchanged depends on the agents that delegated to it."""
    grant = revocations.unless_revoked(HELPER, PAYER, scope=SCOPE)
    revocations.void(PAYER, ["send:payment"])
    assert grant.revoked


def test_a_panic_that_another_broker_renews_voids_a_decision(
    revocations: Revocations,
) -> None:
    """The row of the panic alone is followed then, without an end of tokens."""
    grant = revocations.unless_revoked(PAYER, scope=SCOPE)
    now = datetime(2026, 11, 24, 10, tzinfo=UTC)
    revocations.panic = Panic(True, now, "olga", "drill")
    assert grant.revoked
