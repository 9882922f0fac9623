"""A tenant whose objects have members of any shape: an error of ours, or a plan."""

from __future__ import annotations

import asyncio
import json
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from support.provisioning import Vault

from agentvault_tui.errors import TenantError
from agentvault_tui.vault import Management
from agentvault_tui.vault.provision import AgentNeed, Pin, Provisioner, checks
from agentvault_tui.vault.reply import TenantReply

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, "", ".", "..", "x" * 300, "\x1b[31m", "\u202e"),
    *([], {}, [None], [[]], [{}], ["x"], [1, "a", None], {"a": 1}),
)
NEEDS: dict[str, Any] = {
    "agents": (
        AgentNeed("agt_1", "calendar-agent", (Pin("google-oauth2", ("calendar",)),)),
    ),
    "connections": ("google-oauth2",),
    "worker_ips": ("203.0.113.7",),
}
ROUNDS = 150


class Odd:
    """A tenant that says again what it said once, with a member or two changed."""

    def __init__(self, management: Management, random: Random) -> None:
        self.management, self.random = management, random
        self.said: dict[tuple[str, str], TenantReply] = {}
        self.odd = 0.0
        self._send = management.tenant.send
        management.tenant.send = self.send  # type: ignore[method-assign]

    async def send(self, method: str, url: str, **more: Any) -> TenantReply:
        if (method, url) not in self.said:
            self.said[method, url] = await self._send(method, url, **more)
        reply = self.said[method, url]
        value = deepcopy(reply.value)
        if "/api/v2/" in url and self.random.random() < self.odd:
            value = self.changed(value)
        return replace(reply, value=value)

    def changed(self, value: Any) -> Any:
        """Put something odd anywhere in *value*, or take a member out."""
        places = list(members(value))
        if not places:
            return self.random.choice(ODD)
        parent, name = self.random.choice(places)
        if isinstance(parent, dict) and self.random.random() < 0.15:
            del parent[name]
        else:
            parent[name] = deepcopy(self.random.choice(ODD))
        return value


def members(value: Any) -> Any:
    """Every place in *value*: what holds it, and its name there."""
    names = (
        list(value)
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for name in names:
        yield value, name
        yield from members(value[name])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_any_answer_gives_a_plan_or_a_tenant_error(
    vault: Vault, seed: int
) -> None:
    """Whatever stands in an object, plan and doctor say something a person can read."""
    await vault.apply(**NEEDS)
    odd = Odd(vault.management(), Random(seed))  # noqa: S311 - the same each time
    kept, wanted = vault.kept(), vault.needs(**NEEDS)
    provisioner = Provisioner(odd.management, kept)
    planned = 0
    try:
        await provisioner.plan(wanted)
        odd.odd = 0.05
        for _ in range(ROUNDS):
            try:
                plan, found = await provisioner.plan(wanted)
            except TenantError:
                continue
            planned += 1
            for line in plan.lines():
                assert line.text.isprintable()
            assert all(one.what for _, one in checks.examine(plan, found, wanted))
            assert json.dumps(plan.shape())
            await asyncio.sleep(0)
    finally:
        await odd.management.tenant.aclose()
    assert 0 < planned < ROUNDS
