"""Make an agent's own client on the embedded tenant, as `auth0 apply` does on Auth0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from agentvault_tui.errors import NotFoundError
from agentvault_tui.model import Agent
from agentvault_tui.text import visible
from agentvault_tui.vault import Budget, Management, RegisteredClient, Tenant
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import AgentNeed, Needs, Provisioner
from agentvault_tui.vault.provision.desired import DesiredKind, DesiredObject
from agentvault_tui.vault.provision.plan import PlanStep, make_plan
from agentvault_tui.vault.provision.rules import AllButOurs, Ref

_RATE: Final = 500.0
"""Requests a second: it is a process on this machine."""
_KINDS: Final = frozenset(
    {DesiredKind.CLIENT, DesiredKind.GRANT, DesiredKind.CONNECTION}
)
"""All that an agent needs on an embedded tenant."""


async def make_own_client(
    tenant: Tenant,
    credential: RegisteredClient,
    secrets: ClientSecretsFile,
    agent: Agent,
    connection: str,
) -> None:
    """Make or mend the agent's client, and let it use *connection*; idempotent."""
    budget = Budget(tenant.clock, rate=_RATE, burst=int(_RATE), sleep=tenant.sleep)
    provisioner = Provisioner(Management(tenant, credential, budget=budget), secrets)
    needs = Needs(
        agents=(AgentNeed(agent.id, agent.name),),
        connections=(connection,),
    )
    wanted, existing = await provisioner.survey(needs, _KINDS)
    plan = make_plan(tuple(_of_one(wanted, agent, connection)), existing)
    address = f"{DesiredKind.CONNECTION}.{connection}"
    for item in plan.items:
        if item.address == address and item.step is PlanStep.BY_HAND:
            raise NotFoundError(
                f"the tenant has no connection {visible(connection, 60)}",
                "the embedded tenant's own is called workspace",
            )
    async for _ in provisioner.apply(plan, existing):
        pass


def _of_one(
    wanted: tuple[DesiredObject, ...], agent: Agent, connection: str
) -> Iterator[DesiredObject]:
    """Pick the needs of one agent."""
    key = f"agents/{agent.id}"
    for one in wanted:
        if one.kind in {DesiredKind.CLIENT, DesiredKind.GRANT} and one.key.startswith(
            key
        ):
            yield one
        elif one.kind is DesiredKind.CONNECTION and one.key == connection:
            # It keeps those that it was given before.
            added = AllButOurs((), (Ref(f"{DesiredKind.CLIENT}.{key}"),))
            yield replace(one, fields={**one.fields, "clients": added})
