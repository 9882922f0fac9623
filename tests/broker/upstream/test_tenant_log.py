"""The tenant's own log in the audit: ours alone, each row once, whatever it says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, get_args
from urllib.parse import quote

import pytest
from support.tenant_admin import Agent as AtTenant
from support.upstream import Site, follower, told

from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.upstream.tenant_log import WORDS, drafts, meaning
from agentvault_tui.errors import TenantError
from agentvault_tui.model import new_id
from agentvault_tui.tenant.journal import LogCode
from agentvault_tui.vault.management import logs


@pytest.mark.slow
async def test_rows_about_our_agents_are_events_of_the_tenant(site: Site) -> None:
    """What happened before we looked, and to others' clients, is not told."""
    agent, there, token = await site.agent()
    log = follower(site)
    await log.read()
    assert await told(site) == []
    stranger = AtTenant(site.admin, new_id("stranger").replace("_", "-"))
    stranger.tokens()
    assert there.refresh(token).status_code == 200
    await log.read()
    rows = await told(site)
    assert (agent.id, "sertft") in rows
    assert {agent_id for agent_id, _ in rows} == {agent.id}
    event = (await site.bench.events("tenant.log"))[-1]
    assert event.actor.kind.value == "tenant"
    assert event.detail["client_id"] == there.client["client_id"]


@pytest.mark.slow
async def test_each_row_is_told_once_over_restarts(site: Site) -> None:
    """The place is written with the events, so that none repeats and none is lost."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    there.refresh(token)
    await log.read()
    first = await told(site)
    await log.read()
    assert await told(site) == first
    await site.restart()
    again = follower(site)
    await again.read()
    assert await told(site) == first
    there.refresh(token)
    await again.read()
    assert len(await told(site)) == len(first) + 1


async def test_signing_in_at_the_console_is_told(site: Site) -> None:
    """The client that operators sign in with is ours, though no agent's."""
    log = follower(site, console=lambda: site.tenant.client_id)
    await log.read()
    flow = site.tenant.flow()
    alice = site.tenant.users.add(f"{new_id('alice')}@acme.test", approver=True)
    site.tenant.approve(flow, alice)
    site.tenant.clock.advance(10)
    assert site.tenant.poll(flow).status_code == 200
    await log.read()
    assert (None, "sede") in await told(site)


async def test_what_a_row_says_is_inert(site: Site) -> None:
    """A name or description with escapes comes out visible and bounded."""
    agent, there, token = await site.agent()
    log = follower(site)
    await log.read()
    site.tenant.http.post(
        site.tenant.issuer + "oauth/token",
        json={
            "grant_type": "refresh_token",
            "refresh_token": token + "\x1b]52;c;aGk=\x07" + "x" * 3000,
            **there.auth,
        },
    )
    await log.read()
    events = [e for e in await site.bench.events("tenant.log") if e.action == "fertft"]
    assert len(events) == 1
    assert events[0].agent_id == agent.id
    assert "\x1b" not in str(events[0].detail) + str(events[0].reason)
    assert len(str(events[0].detail)) < 4000


async def test_a_log_that_cannot_be_read_changes_nothing(site: Site) -> None:
    """While the tenant fails nothing is told, and reading goes on where it was."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    there.refresh(token)
    site.fault(status=500, paths=("/api/v2/logs",))
    with pytest.raises(TenantError):
        await log.read()
    assert await told(site) == []
    site.fault()
    await log.read()
    assert len(await told(site)) == 1


async def test_a_row_is_its_clients_and_no_ones_who_signed_in_there(site: Site) -> None:
    """A vault user at a foreign application is no agent's doing; odd rows are none."""
    agent, there, _ = await site.agent()
    user = there.user["user_id"]
    holdings = site.bench.broker.reaching.access.holdings
    rows: list[dict[str, Any]] = [
        {"log_id": "1", "type": "s", "client_id": "foreign", "user_id": user},
        {"log_id": "2", "type": "s", "client_id": ["x"], "user_id": {}},
        {"log_id": "3", "type": "s", "user_id": user},
        {"log_id": "4", "type": "s", "client_id": there.client["client_id"]},
    ]
    found = drafts(rows, holdings)
    told = [(draft.detail["log_id"], draft.agent_id) for draft in found]
    assert told == [("3", agent.id), ("4", agent.id)]
    other, _, _ = await site.agent()
    (account,) = site.bench.broker.registry.accounts.of(agent.id)
    await site.connect(replace(account, agent_id=other.id))
    (draft,) = drafts(rows[2:3], holdings)
    assert draft.agent_id is None


async def test_who_changed_an_agents_client_is_told(site: Site) -> None:
    """Whoever did it by the Management API: what, on whose client, how it ended."""
    agent, there, _ = await site.agent()
    stranger = AtTenant(site.admin, new_id("stranger").replace("_", "-"))
    log = follower(site)
    await log.read()
    for client in (there.client, stranger.client):
        path = f"clients/{client['client_id']}"
        site.admin.call("PATCH", path, {"description": "changed"})
    await log.read()
    (event,) = await site.bench.events("tenant.log")
    assert (event.agent_id, event.action) == (agent.id, "sapi")
    assert event.reason == "Update a Client"
    asked = f"PATCH /api/v2/clients/{there.client['client_id']}"
    assert event.detail["details"] == {"request": asked, "status": "200"}


async def test_a_call_about_what_is_ours_is_told_whoever_made_it(site: Site) -> None:
    """By the path, by the body; a person's name beside; nonsense is nobody's."""
    agent, there, _ = await site.agent()
    client_id, user_id = there.client["client_id"], there.user["user_id"]
    by = {"user": {"email": "eve@evil.test\x1b[2J"}}

    def row(path: object, **more: Any) -> dict[str, Any]:
        request = {"method": "delete", "path": path, "auth": by, **more}
        details = {"request": request, "response": {"statusCode": 204}}
        return {"log_id": "1", "type": "sapi", "client_id": "far", "details": details}

    ours = [
        row(f"/api/v2/clients/{client_id}"),
        row(f"/api/v2/users/{quote(user_id)}/grants"),
        row("/api/v2/client-grants", body={"client_id": client_id}),
    ]
    theirs = [
        row("/api/v2/clients/other"),
        row(f"/elsewhere/v2/clients/{client_id}"),
        row(f"/api/v2/connections/{client_id}"),
        row("/api/v2/client-grants", body={"client_id": [client_id]}),
        *(row(odd) for odd in (None, 5, "", "/", "/api/v2", "/api/v2/clients")),
        {"log_id": "1", "type": "sapi", "details": {"request": []}},
    ]
    found = drafts([*ours, *theirs], site.bench.broker.reaching.access.holdings)
    assert [draft.agent_id for draft in found] == [agent.id] * 3
    told = found[0].detail["details"]
    assert told["request"] == f"DELETE /api/v2/clients/{client_id}"
    assert told["status"] == "204"
    assert told["by"].startswith("eve@evil.test")
    assert told["by"].isprintable()


def test_every_code_of_the_embedded_tenant_has_words() -> None:
    """Whoever adds a type of row there says what it means; mypy holds its list."""
    assert set(get_args(LogCode)) - set(WORDS) == set()
    assert all(0 < len(words) <= 40 for words in WORDS.values())


@pytest.mark.parametrize(
    ("code", "description", "means"),
    [
        ("sede", "", "device sign-in gave tokens"),
        ("sede", " SEDE ", "device sign-in gave tokens"),
        ("s", "Signed in", "signed in"),
        ("sapi", "Update a Client", "Update a Client"),
        ("xyz", "Something new", "Something new"),
        ("xyz", "xyz", None),
    ],
)
def test_a_code_is_said_in_words(
    code: str, description: str, means: str | None
) -> None:
    """Ours first, then what a description knows more; an unknown code stands."""
    assert meaning(code, description) == means


async def test_a_row_is_told_in_words(site: Site) -> None:
    """The audit says what happened, and keeps the code beside it."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    there.refresh(token)
    there.refresh(f"{token}x")
    await log.read()
    used, refused = await site.bench.events("tenant.log")
    assert (used.reason, used.detail["type"]) == ("refresh token used", "sertft")
    assert str(refused.reason).startswith("refresh token refused: ")


async def test_a_row_that_comes_late_is_told_when_it_comes(site: Site) -> None:
    """Auth0's log is not in real time: what is not there yet is not passed over."""
    _, there, token = await site.agent()
    log = follower(site)
    await log.read()
    site.fault(log_delay=30)
    there.refresh(token)
    await log.read()
    assert await told(site) == []
    site.tenant.clock.advance(31)
    await log.read()
    assert len(await told(site)) == 1


@pytest.mark.slow
async def test_a_fault_after_a_full_page_is_waited_out(site: Site) -> None:
    """Between two tries there is a pause, also when the page before was full."""
    _, there, token = await site.agent()
    waits: list[float] = []
    problems: list[str | None] = []
    tries = 0

    async def sleep(seconds: float) -> None:
        nonlocal tries
        waits.append(seconds)
        tries += 1
        if tries == 2:
            for _ in range(logs.MOST):
                there.refresh(token)
        if tries == 3:
            site.fault(status=500, paths=("/api/v2/logs",))
        if tries == 4:
            site.fault()
        if tries == 5:
            raise asyncio.CancelledError

    log = follower(site, sleep=sleep, on_problem=problems.append)
    with pytest.raises(asyncio.CancelledError):
        await log.run()
    assert waits[:3] == [0, 10, 0]
    assert waits[3] >= 10
    assert len(problems) == 2
    assert problems[0]
    assert problems[1] is None


async def test_a_log_that_cannot_be_read_is_in_every_status(site: Site) -> None:
    """Operators read why; of a tenant that is away altogether one line is enough."""
    broker = site.bench.broker
    broker.health.log_problem = "the credential may not: scope read:logs"
    assert any("scope read:logs" in text for text in warnings(broker))
    broker.reaching.tenant.reachable = False
    assert not any("scope read:logs" in text for text in warnings(broker))
