"""Operators whose tenant is oidc-provider: roles, the command line, and the dialog."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.manual_clock import ManualClock
from support.oidc_peer import URSULA, Person, Provider, oidc_provider, with_provider
from support.spoken import spoken
from support.vault import PAYMENT, Client, Vault, serving
from support.vault_stepups import hold, start, stepup_until

from agentvault_tui.console.app import ConsoleApp, build
from agentvault_tui.console_settings import ConsoleSettings

VICTOR = "auth0|victor"
Agents = dict[str, Client]

pytestmark = with_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """One provider for all tests here."""
    with oidc_provider(interval=1) as running:
        yield running


@pytest.fixture(scope="module")
def vault(provider: Provider) -> Iterator[Vault]:
    """One broker for all tests here: whoever has the role may, and nobody else."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        home = Path(folder)
        (home / "config.toml").write_text(
            f"[tenant]\nissuer = {json.dumps(provider.issuer)}\n"
            "client_id = 'console'\n[operators]\nroles = 'claim'\n"
        )
        with serving(home) as vault:
            yield vault


async def approved(vault: Vault, device: dict[str, Any], who: str, *roles: str) -> None:
    """Be *who* at the provider's page, where they have these roles."""
    async with Person(vault.ready["tenant"]) as person:
        await person.approve(SimpleNamespace(**device), account=who, roles=roles)


async def signed_in(vault: Vault, *roles: str) -> dict[str, Any]:
    """Sign Ursula in with `agentvault login`; return who the broker says it is."""
    async with spoken(vault, "login") as login:
        await approved(vault, (await login.says())["device"], URSULA, *roles)
        me = await login.says()
        assert await login.ends() == 0
    assert me["user"]["sub"] == URSULA
    return me


def decide(vault: Vault, what: str, agent: Client, asked: str) -> int:
    """Try one decision at the operators' socket; return how it is answered."""
    path, body = {
        "approve": ("agents/stepup", {"id": asked, "decision": "approve"}),
        "deny": ("agents/stepup", {"id": asked, "decision": "deny", "reason": ""}),
        "revoke": ("agents/revoke", {"agent_id": agent.agent_id, "reason": ""}),
        "restore": ("agents/restore", {"agent_id": agent.agent_id}),
    }[what]
    if what == "approve":
        stepup = vault.operator.get(f"/api/agents/stepup/{asked}").json()
        body["digest"] = stepup["digest"]
    answer = vault.operator.post(f"/api/{path}", json=body)
    if answer.status_code == 403:
        assert answer.json()["needed_role"]
    return answer.status_code


@pytest.fixture(scope="module")
def agents(vault: Vault) -> Agents:
    """One for each test, registered by someone who has the role for it."""
    asyncio.run(signed_in(vault, "approver"))
    return {
        name: vault.register(name, "send:payment")
        for name in ("roles", "whose", "two-at-once", "by-hand", "by-keys")
    }


@pytest.fixture(autouse=True)
def nothing_waits(vault: Vault) -> Iterator[None]:
    """Leave no request behind: the next test's is the only one."""
    yield
    for stepup in vault.operator.get("/api/agents/stepup").json()["stepups"]:
        if stepup["status"] in {"pending", "authorizing"}:
            body = {"id": stepup["id"], "decision": "deny", "reason": ""}
            assert vault.operator.post("/api/agents/stepup", json=body).is_success


async def test_what_counts_is_the_role_of_whoever_enters_the_code(
    vault: Vault, agents: Agents
) -> None:
    """An approver begins and a viewer enters the code: nothing comes of it."""
    agent = agents["whose"]
    asked = hold(agent)
    for role in ("viewer", "chief"):
        await approved(vault, start(vault, asked)["device"], VICTOR, role)
        problem = stepup_until(vault, asked, "pending")["problem"]
        assert problem == "auth0|victor is not an allowed approver"
    assert agent.poll(asked).json()["error"] == "authorization_pending"
    await approved(vault, start(vault, asked)["device"], VICTOR, "approver")
    decided = stepup_until(vault, asked, "approved")
    assert decided["decided_by"]["sub"] == VICTOR


async def test_one_code_approves_one_request(vault: Vault, agents: Agents) -> None:
    """Two approvals under way, one code entered: the other one waits on."""
    agent = agents["two-at-once"]
    first = hold(agent)
    other = agent.token("send:payment", {**PAYMENT, "resource": "stripe:acct_43"})
    second = other.json()["auth_req_id"]
    start(vault, first)
    await approved(vault, start(vault, second)["device"], URSULA, "approver")
    assert stepup_until(vault, second, "approved")["decided_by"]["sub"] == URSULA
    path = f"/api/agents/stepup/{first}"
    assert vault.operator.get(path).json()["status"] == "authorizing"
    assert agent.poll(first).json()["error"] == "authorization_pending"


async def test_the_command_line_waits_for_the_person(
    vault: Vault, agents: Agents
) -> None:
    """`stepup approve` prints the code, then who said yes; exit 1 for a no."""
    agent = agents["by-hand"]
    asked = hold(agent)
    async with spoken(vault, "stepup", "approve", asked) as command:
        begun = await command.says()
        async with Person(vault.ready["tenant"]) as person:
            await person.answer(SimpleNamespace(**begun["device"]), abort="yes")
        assert "refused at the tenant" in (await command.says())["problem"]
        assert await command.ends() == 1
    async with spoken(vault, "stepup", "approve", asked) as command:
        begun = await command.says()
        await approved(vault, begun["device"], URSULA, "approver")
        ended = await command.says()
        assert (ended["status"], ended["digest"]) == ("approved", begun["digest"])
        assert await command.ends() == 0
    assert agent.poll(asked).json()["authorization_details"] == [PAYMENT]


async def test_the_dialog_shows_the_code_and_then_who_said_yes(
    vault: Vault, agents: Agents, tmp_path: Path
) -> None:
    """A whole step-up by keys: open, approve, the provider's page, approved."""
    agent = agents["by-keys"]
    asked = hold(agent)
    clock = ManualClock(datetime.now(UTC))
    app = build(
        Path(vault.ready["operator_socket"]),
        read_only=False,
        settings=ConsoleSettings(theme="agentvault", ascii="no"),
        clock=clock,
        memory_folder=tmp_path,
        environ={},
    )
    async with app.run_test(size=(120, 40)) as pilot:
        await shown(app, "by-keys")
        fingerprint = app.desk.mirror.stepups[asked].fingerprint
        await pilot.press("s")
        await shown(app, f"Step-up {fingerprint}")
        clock.advance(1)
        await pilot.press("a")
        await shown(app, "verify it is you")
        device = vault.operator.get(f"/api/agents/stepup/{asked}").json()["device"]
        await shown(app, " ".join(device["user_code"]))
        await shown(app, device["verification_uri"])
        await approved(vault, device, URSULA, "approver")
        await shown(app, "approved by ursula")
    assert agent.poll(asked).json()["authorization_details"] == [PAYMENT]


async def test_each_role_may_what_it_may(vault: Vault, agents: Agents) -> None:
    """Viewer: look; operator: cut, and give back; approver: begin to approve too.

    A word that is no role of ours gives nothing back: by claim, that needs a role.
    """
    agent = agents["roles"]
    asked = hold(agent)
    deeds = ("approve", "restore", "revoke", "deny")
    for role, answers in {
        "viewer": [403, 403, 403, 403],
        "chief": [202, 403],
        "operator": [403, 200, 200, 409],
    }.items():
        me = await signed_in(vault, role)
        assert me["role"] == (None if role == "chief" else role)
        tried = deeds[: len(answers)]
        assert [decide(vault, what, agent, asked) for what in tried] == answers, role
    assert (await signed_in(vault, "approver"))["role"] == "approver"
    assert decide(vault, "restore", agent, asked) == 200
    assert decide(vault, "approve", agent, hold(agent)) == 202


async def shown(app: ConsoleApp, words: str) -> None:
    """Wait until *words* are on the screen, however they are broken into lines."""
    deadline = time.monotonic() + 60
    while words not in (drawn := text_of(app)):
        assert time.monotonic() < deadline, drawn
        await asyncio.sleep(0.02)


def text_of(app: ConsoleApp) -> str:
    """Return what is drawn, its blanks made one."""
    strips = app.screen._compositor.render_strips()
    return " ".join(" ".join(strip.text for strip in strips).split())
