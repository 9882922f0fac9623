"""A new client secret takes the place of the one before, on the record."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.scopes import renew_secret
from agentvault_tui.errors import ConflictError, NotFoundError
from agentvault_tui.model import AgentStatus, sha256_hex

KEY = '{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'


async def test_a_new_secret_replaces_the_old_one_for_good(bench: Bench) -> None:
    """Only the new secret is known, also after a restart, and no event holds it."""
    agent = await bench.agent()
    made = await renew_secret(bench.broker, agent.id, OPERATOR)
    assert made.client_secret is not None
    known = sha256_hex(made.client_secret)
    assert made.agent.credential.secret_sha256 == known
    assert known != agent.credential.secret_sha256
    (event,) = await bench.events("agent.changed")
    assert event.actor == OPERATOR
    assert event.detail["changed"] == ["credential"]
    assert event.detail["credential"] == "secret"
    assert made.client_secret not in str(event)
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        kept = again.broker.registry.agent(agent.id)
        assert kept.credential.secret_sha256 == known


async def test_an_agent_with_a_key_gets_no_secret(bench: Bench) -> None:
    """A key is not weakened to a secret; an unknown agent is not found."""
    agent = await bench.agent("keyed", public_key=KEY)
    with pytest.raises(ConflictError, match="without a secret"):
        await renew_secret(bench.broker, agent.id, OPERATOR)
    with pytest.raises(NotFoundError):
        await renew_secret(bench.broker, "agt_none", OPERATOR)
    assert not await bench.events("agent.changed")


async def test_a_new_secret_restores_nobody(bench: Bench) -> None:
    """A revoked agent stays revoked with its new secret."""
    agent = await bench.agent()
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    made = await renew_secret(bench.broker, agent.id, OPERATOR)
    assert made.agent.status is AgentStatus.REVOKED
