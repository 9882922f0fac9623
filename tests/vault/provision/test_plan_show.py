"""A plan as it is read: by people, by programs, and by nobody's terminal escapes."""

from __future__ import annotations

import json

from support.command_line import HOSTILE
from support.provisioning import Vault

from agentvault_tui.vault.provision import AgentNeed, ProvisioningPlan


def text_of(plan: ProvisioningPlan) -> str:
    shown = [
        f"{' ' * line.indent}{line.mark} {line.text}".rstrip() for line in plan.lines()
    ]
    return "\n".join(shown)


async def test_a_change_is_shown_field_by_field(vault: Vault) -> None:
    """What is and what will be, by the tenant's own names; what is well is counted."""
    await vault.apply()
    vault.tenant.factors["otp"] = False
    console = vault.tenant.named("clients", "AgentVault console")
    console["grant_types"].append("implicit")
    plan = await vault.plan()
    assert text_of(plan) == (
        "  ~ factor.otp  second factor\n"
        "       enabled  false -> true\n"
        "  ~ client.console  AgentVault console\n"
        "       grant_types  - [implicit]"
    )
    assert plan.summary() == "Plan: 2 to change, 16 as they should be."


async def test_a_future_id_is_shown_by_its_address(vault: Vault) -> None:
    """An id that nobody knows yet is no blank, and long code is a digest."""
    told = text_of(await vault.plan())
    assert "client_id     (id of client.management)" in told
    assert "secret                      kept in this home" in told
    assert "lines, sha256 " in told
    assert "onExecutePostLogin" not in told


async def test_an_agents_name_is_displayable_in_a_plan(vault: Vault) -> None:
    """It is an agent's own words, on the screen and at the tenant."""
    named = (AgentNeed("agt_1", f"<b>{HOSTILE}"),)
    plan = await vault.plan(agents=named)
    assert all(line.text.isprintable() for line in plan.lines())
    await vault.apply(agents=named)
    (name,) = [
        row["name"]
        for row in vault.tenant.tables["clients"].values()
        if row["client_metadata"]["agentvault"] == "agent"
    ]
    assert name.isascii()
    assert name.isprintable()
    assert "<" not in name
    assert len(name) <= 100


async def test_a_plan_in_json_has_every_change(vault: Vault) -> None:
    """JSON holds each step with what is and what will be, and no secret."""
    shape = (await vault.plan()).shape()
    assert json.loads(json.dumps(shape)) == shape
    assert shape["counts"]["create"] == 10
    grant = next(
        item for item in shape["items"] if item["address"] == "grant.management.auth0"
    )
    assert grant["changes"][0] == {
        "field": "client_id",
        "before": None,
        "after": {"id_of": "client.management"},
    }
