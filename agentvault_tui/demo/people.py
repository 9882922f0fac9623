"""The owners of the accounts agents use: they connect them as a browser would.

Alice's two agents use one account of hers; Bob's uses his own. Each signs in at the
tenant and allows the account at the provider that is built into it; the broker lets
Token Vault store the tokens, and the agents never see any of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx

from agentvault_tui.demo.agents import ExampleAgent
from agentvault_tui.demo.operator import Operator
from agentvault_tui.demo.processes import ask, write_private
from agentvault_tui.demo.roles import ROLES, WORKSPACE
from agentvault_tui.demo.workspace import CONTACTS
from agentvault_tui.errors import AgentVaultError, RefusedError, UnreachableError

_PAGES: Final = 4
"""Pages at most until a browser is sent elsewhere: a sign-in, a consent, and spare."""


class Browser:
    """One person's; it keeps the session that they signed in to."""

    def __init__(self, user: str, password: str) -> None:
        self._credentials = {"user": user, "password": password}
        self._http = httpx.AsyncClient(trust_env=False, timeout=10.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def allow(self, page: str) -> str:
        """Sign in at *page* if it asks, say yes, and return where one is sent then."""
        parts = urlsplit(page)
        # RFC 6454: what a browser says about where a form came from.
        origin = f"{parts.scheme}://{parts.netloc}"
        try:
            reply = await self._http.get(page)
            for _ in range(_PAGES):
                if reply.has_redirect_location:
                    return reply.headers["location"]
                action, fields = self._fill(reply.text)
                reply = await self._http.post(
                    origin + action, data=fields, headers={"Origin": origin}
                )
        except httpx.TransportError as error:
            raise UnreachableError(
                f"the tenant's page cannot be reached ({type(error).__name__})"
            ) from None
        raise RefusedError("the tenant's pages lead nowhere")

    def _fill(self, html: str) -> tuple[str, dict[str, str]]:
        """Return the target and fields of the form that consents."""
        forms = _Forms()
        forms.feed(html)
        for name, given in (("login", self._credentials), ("consent", {})):
            if value := forms.decisions.get(name):
                action, fields = value
                return action, {**fields, **given}
        raise RefusedError("the tenant's page asks for neither a sign-in nor a consent")


class _Forms(HTMLParser):
    """Each form by its id: its target, and the present values of its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: dict[str, tuple[str, dict[str, str]]] = {}
        self._fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a form, or a field of the last one."""
        held = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = {}
            self.decisions[held.get("id", "")] = held.get("action", ""), self._fields
        elif tag == "input" and held.get("name"):
            self._fields[held["name"]] = held.get("value", "")


_SETTINGS: Final = f"""\
# What an account that agents use there stands for; the demo wrote this.
[connections.{WORKSPACE}]
scopes = ["read:contacts"]
for = ["ORIGIN"]

[policy]
# The demo is minutes old; by itself advice is about 30 days.
advice_window = 60
"""


_WRITTEN: Final = re.compile(re.escape(_SETTINGS).replace("ORIGIN", '[^"]*'))


def prepare(home: Path, origin: str) -> Path:
    """Write the settings of a new home directory: the connection, and its origin.

    A home directory that has a ledger or settings is as its owner wants it, unless the
    demo wrote its settings: the workspace has another port each time.

    Args:
        home: the home directory.
        origin: the workspace's, to which accounts' tokens may be sent.

    Returns:
        the home directory.
    """
    file = home / "config.toml"
    is_new = not file.exists() and not (home / "agentvault.db").exists()
    if is_new or (file.exists() and _WRITTEN.fullmatch(file.read_text("utf-8"))):
        write_private(file, _SETTINGS.replace("ORIGIN", origin))
    return home


async def connect(
    home: Path, operator: Operator, agents: Iterable[tuple[str, ExampleAgent]]
) -> list[str]:
    """Connect the accounts of the six roles' owners; return the problem.

    An earlier run's accounts stay. An agent whose account cannot be connected, for
    example because it was revoked meanwhile, goes without.
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
    """Return a person's password; create the user if needed."""
    file = home / "demo" / "people.json"
    passwords: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    if person not in passwords:
        user = await ask(home, "tenant", "user", "add", person)
        passwords[person] = user["password"]
        write_private(file, json.dumps(passwords))
    return passwords[person]
