"""The people whose accounts the agents use: they connect them, as in a browser.

Alice's two agents use one account of hers; Bob's uses his own. Each signs in at the
tenant and allows the account at the provider that is built into it; the broker has
Token Vault keep what comes of it, and the agents never see any of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentvault_tui.demo.agents import ExampleAgent
from agentvault_tui.demo.browser import Browser
from agentvault_tui.demo.cast import ROLES, WORKSPACE
from agentvault_tui.demo.operator import Operator
from agentvault_tui.demo.processes import ask, write_private
from agentvault_tui.demo.workspace import CONTACTS
from agentvault_tui.errors import AgentVaultError

_SETTINGS: Final = f"""\
# What an account that agents use there stands for; the demo wrote this.
[connections.{WORKSPACE}]
scopes = ["read:contacts"]
"""


def prepare(home: Path) -> None:
    """Say in a new home's settings what the connection stands for.

    A home that has a ledger or settings is as its owner wants it: where those say
    nothing of the connection, the broker refuses to make one, and names what helps.
    """
    file = home / "config.toml"
    if not file.exists() and not (home / "agentvault.db").exists():
        write_private(file, _SETTINGS)


async def connect(
    home: Path, operator: Operator, agents: Iterable[tuple[str, ExampleAgent]]
) -> list[str]:
    """Have the owners of the six roles connect their accounts; say what went wrong.

    What an earlier run connected is kept. An agent whose account cannot be connected,
    because it was cut off meanwhile, say, goes without.
    """
    problems = []
    connected = await operator.connected()
    named = {role.name for role in ROLES}
    for agent_id, agent in agents:
        role = agent.role
        if agent.stopping or not role.connection or agent.name not in named:
            continue
        try:
            if agent_id not in connected:
                password = await _password(home, role.person)
                async with Browser(role.person, password) as browser:
                    await operator.connect(
                        agent_id, role.connection, CONTACTS, browser.allow
                    )
        except AgentVaultError as error:
            problems.append(f"{agent.name} has no account: {error.diagnosis()}")
        else:
            agent.account.set()
    return problems


async def _password(home: Path, person: str) -> str:
    """Return the person's, who becomes a user of the tenant's if they are not yet."""
    file = home / "demo" / "people.json"
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    if person not in known:
        user = await ask(home, "tenant", "user", "add", person)
        known[person] = user["password"]
        write_private(file, json.dumps(known))
    return known[person]
