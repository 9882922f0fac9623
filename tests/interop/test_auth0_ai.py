"""Auth0's own SDKs for agents, unmodified, with the broker in the tenant's place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from joserfc.jwk import RSAKey
from support.agents_http import public
from support.bench import OPERATOR, Bench
from support.rogue_tenant import Answer, rogue_tenant
from support.sdk_agents import SDKS, in_python, sdk_agent
from support.tls_front import trusted
from support.token_vault import Vaulted, recorded, vaulted

from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.broker.usecases.stepup_end import deny


@asynccontextmanager
async def served(sdk: str, bench: Bench) -> AsyncIterator[Vaulted]:
    """Serve as the SDK insists: the one in JavaScript speaks https alone."""
    tls, trust = None, None
    if sdk == "node":
        tls, trust, _ = trusted(bench.home)
    async with rogue_tenant() as tenant, vaulted(bench, tenant, tls, trust) as vault:
        vault.answers(recorded("ok"))
        yield vault


@pytest.mark.parametrize("sdk", SDKS)
async def test_token_vault_through_policy_person_and_audit(
    bench: Bench, sdk: str
) -> None:
    """A tool gets its provider's token, a person's yes when it needs one, or a no."""
    async with served(sdk, bench) as vault:
        caller = await vault.connected()
        async with sdk_agent(sdk, vault, caller) as agent:
            given = {"result": "ya29.provider-token"}
            assert await agent.told("calendar") == given
            assert await agent.told("calendar") == given  # from the SDK's own memory
            assert len(await bench.events("token.exchanged")) == 1
            held = await agent.told("bank")
            assert held["code"] == "TOKEN_VAULT_ERROR"
            (stepup,) = vault.broker.stepups.open(caller.agent.id)
            await vault.approve(stepup.id)
            assert await agent.told("bank") == given
            assert len(await bench.events("token.exchanged")) == 2


@pytest.mark.parametrize("sdk", SDKS)
async def test_refusals_are_interrupts(bench: Bench, sdk: str) -> None:
    """Denied or not connected, an agent interrupts; an outage is no such thing."""
    async with served(sdk, bench) as vault:
        caller = await vault.connected(connections=())
        async with sdk_agent(sdk, vault, caller) as agent:
            refused = await agent.told("calendar")
            assert refused["code"] == "TOKEN_VAULT_ERROR"
            await revoke_agent(vault.broker, caller.agent.id, "", OPERATOR)
            refused = await agent.told("calendar")
            assert refused["code"] == "TOKEN_VAULT_ERROR"
            if sdk == "python":
                # The other says the same whatever it was told.
                assert "revoked by an operator" in refused["message"]


@in_python
async def test_a_scope_the_provider_did_not_give_is_named(bench: Bench) -> None:
    """The SDK checks the answer's scope against what its tool needs."""
    async with served("python", bench) as vault:
        caller = await vault.connected()
        async with sdk_agent("python", vault, caller) as agent:
            missing = await agent.told("contacts")
    assert missing["interrupt"] == "TokenVaultInterrupt"
    assert "contacts" in missing["message"]


@in_python
async def test_an_outage_asks_nobody_to_reconnect(bench: Bench) -> None:
    """The tenant away is an error of the SDK's, not an interrupt that asks people."""
    async with served("python", bench) as vault:
        caller = await vault.connected()
        vault.answers(Answer({"error": "x"}, 400, raw=b"nonsense\r\n\r\n"))
        async with sdk_agent("python", vault, caller) as agent:
            away = await agent.told("calendar")
    assert away["error"] == "temporarily_unavailable"


@in_python
async def test_a_key_in_place_of_a_secret(bench: Bench) -> None:
    """The SDK's own assertions are taken, which call a plain listener https too."""
    key = RSAKey.generate_key(2048)
    async with served("python", bench) as vault:
        caller = await vault.connected(public_key=public(key))
        signs = key.as_pem(private=True).decode()
        async with sdk_agent("python", vault, caller, KEY=signs) as agent:
            given = await agent.told("calendar")
            assert given == {"result": "ya29.provider-token"}
            waiting = await agent.told("pay")
            assert waiting["interrupt"] == "AuthorizationPendingInterrupt"


@pytest.mark.parametrize("sdk", SDKS)
async def test_asynchronous_authorization(bench: Bench, sdk: str) -> None:
    """Pending until a person says yes, then the token; the next one's no is told."""
    async with served(sdk, bench) as vault:
        caller = await vault.connected()
        async with sdk_agent(sdk, vault, caller) as agent:
            waiting = await agent.told("pay")
            assert waiting["interrupt"] == "AuthorizationPendingInterrupt"
            (stepup,) = vault.broker.stepups.open(caller.agent.id)
            assert (stepup.action, stepup.reason) == ("send:payment", "Pay #1")
            waiting = await agent.told("pay")
            assert waiting["interrupt"] == "AuthorizationPollingInterrupt"
            await vault.approve(stepup.id)
            given = await agent.told("pay")
            assert given["result"].startswith("av_e_")
            waiting = await agent.told("pay-again")
            assert waiting["interrupt"] == "AuthorizationPendingInterrupt"
            (stepup,) = vault.broker.stepups.open(caller.agent.id)
            await deny(vault.broker, stepup.id, "no invoice", OPERATOR)
            denied = await agent.told("pay-again")
            assert denied["interrupt"] == "AccessDeniedInterrupt"
            assert "no invoice" in denied["message"]
