"""A whole step-up with npm's oidc-provider as the broker's tenant, all of it real."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.oidc_peer import FACTORS, URSULA, Person, oidc_provider, with_provider
from support.vault import PAYMENT, Vault, serving
from support.vault_stepups import hold, start, stepup_until

pytestmark = with_provider

MALLORY = "auth0|mallory"


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    """One broker for all tests here; only Ursula may approve."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Path(folder)
        with oidc_provider(interval=1) as provider:
            issuer = provider.issuer
            (home / "config.toml").write_text(
                f"[tenant]\nissuer = {json.dumps(issuer)}\nclient_id = 'console'\n"
                f"[stepup]\napprovers = {json.dumps([URSULA])}\n"
            )
            with serving(home) as vault:
                assert vault.ready["tenant"] == issuer
                yield vault


def begun(vault: Vault, request_id: str) -> tuple[dict[str, Any], SimpleNamespace]:
    """Begin the approval; return the step-up, and what its dialog shows."""
    stepup = start(vault, request_id)
    return stepup, SimpleNamespace(**stepup["device"])


def decision(vault: Vault, request_id: str) -> dict[str, Any]:
    """Return the event of the approval."""
    query = {"type": "stepup.approved", "limit": "50"}
    events = vault.operator.get("/api/audit", params=query).json()["events"]
    (event,) = [e for e in events if e["detail"]["stepup_id"] == request_id]
    return dict(event)


async def test_from_the_request_to_the_one_use_of_its_token(vault: Vault) -> None:
    """A person the provider vouches for approves; the token is good for that, once."""
    agent = vault.register("payer", "send:payment")
    server = vault.register("payments-api", resource_server=True)
    request_id = hold(agent)
    stepup, shown = begun(vault, request_id)
    assert shown.interval == 1
    assert shown.verification_uri.startswith(vault.ready["tenant"])
    assert agent.poll(request_id).json()["error"] == "authorization_pending"
    async with Person(vault.ready["tenant"]) as person:
        await person.approve(shown)
    decided = stepup_until(vault, request_id, "approved")["decided_by"]
    assert (decided["sub"], decided["name"]) == (URSULA, "ursula")
    assert tuple(decided["amr"]) == FACTORS
    assert decided["auth_time"] >= stepup["requested_at"][:19]
    assert decision(vault, request_id)["detail"]["digest"] == stepup["digest"]
    token = agent.poll(request_id).json()
    assert token["expires_in"] == 300
    assert token["authorization_details"] == [PAYMENT]
    used = server.introspect(token["access_token"])
    assert (used["active"], used["elevated"]) == (True, True)
    assert used["client_id"] == agent.id
    assert server.introspect(token["access_token"]) == {"active": False}


@pytest.mark.parametrize(
    ("amr", "account", "problem"),
    [
        (("pwd",), URSULA, "the sign-in used no second factor"),
        (FACTORS, MALLORY, "auth0|mallory is not an allowed approver"),
        ((), "", "refused at the tenant: End-User aborted interaction"),
    ],
    ids=["one factor", "another person", "cancelled"],
)
async def test_it_waits_again_and_says_why(
    vault: Vault,
    request: pytest.FixtureRequest,
    amr: tuple[str, ...],
    account: str,
    problem: str,
) -> None:
    """No token comes of it, and the approval can be begun again."""
    agent = vault.register(request.node.callspec.id.replace(" ", "-"), "send:payment")
    request_id = hold(agent)
    _, shown = begun(vault, request_id)
    async with Person(vault.ready["tenant"]) as person:
        if account:
            await person.approve(shown, *amr, account=account)
        else:
            await person.answer(shown, abort="yes")
    assert stepup_until(vault, request_id, "pending")["problem"] == problem
    assert agent.poll(request_id).json()["error"] == "authorization_pending"
    _, again = begun(vault, request_id)
    assert again.user_code != shown.user_code
