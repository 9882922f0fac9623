"""auth0-server-python, unmodified, connects an account at the embedded tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from auth0_double.running import TenantThread
from support.peers import MANAGEMENT, Peer, peer, with_python
from support.tenant_admin import CALLBACK, Admin, Agent, query_of
from support.tls_front import tls_front, trusted

from agentvault_tui.home import Home

pytestmark = with_python("auth0_server_python", MANAGEMENT)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A confidential client whose vault user has connected nothing yet."""
    home = Home.locate(tmp_path_factory.mktemp("owner") / "home")
    running = TenantThread(home, now=datetime.now(UTC))
    yield Agent(Admin(running), "calendar-bot")
    running.close()


async def visited(agent: Agent, page: str) -> str:
    """Let the vault user say yes at a page; return where the browser ended."""
    path = urlsplit(page).path.lstrip("/")
    found = await asyncio.to_thread(agent.person.allow, path, **query_of(page))
    return f"{CALLBACK}?{urlencode(found)}"


async def said(owner: Peer, line: str) -> Any:
    """Tell it a line that is to go well."""
    answer = await owner.told(line)
    assert "said" in answer, answer
    return answer["said"]


async def test_signed_in_connected_exchanged_and_disconnected(agent: Agent) -> None:
    """Its models take every answer: no account, one, its provider's token, none."""
    _, _, env = trusted(agent.tenant.home)
    async with tls_front(agent.tenant.home, agent.tenant.issuer) as domain:
        given = {"domain": domain, "redirect_uri": CALLBACK, **agent.auth}
        async with peer("account_owner.py", given, python=MANAGEMENT, **env) as owner:
            back = await visited(agent, await said(owner, "login"))
            await said(owner, f"logged in: {back}")
            refused = await owner.told("token")
            assert refused["raised"] == "AccessTokenForConnectionError"
            offered = await said(owner, "connections")
            assert [one["name"] for one in offered["connections"]] == ["workspace"]
            assert (await said(owner, "accounts"))["accounts"] == []
            back = await visited(agent, await said(owner, "connect"))
            account = await said(owner, f"connected: {back}")
            assert (account["typed"], account["unknown"]) == (
                "CompleteConnectAccountResponse",
                [],
            )
            assert account["scopes"] == ["calendar.read", "calendar.write"]
            (listed,) = (await said(owner, "accounts"))["accounts"]
            assert listed["id"] == account["id"]
            assert await said(owner, "token")
            await said(owner, f"disconnect: {account['id']}")
            assert (await said(owner, "accounts"))["accounts"] == []
