"""A revocation reaches the provider: what an agent was given is worth nothing there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.agents_http import Caller, Live
from support.bench import OPERATOR
from support.connecting import CONNECTIONS, WORKSPACE, Office, caller
from support.rogue_tenant import Answer, RogueTenant, rogue_tenant
from support.token_vault import exchange
from support.wire_shapes import as_json

from agentvault_tui.broker.shapes import agent_info
from agentvault_tui.broker.status import warnings
from agentvault_tui.broker.upstream.providers import STEP
from agentvault_tui.broker.usecases.revoke import panic, restore_agent
from agentvault_tui.model import Account
from agentvault_tui.settings import ConnectionSettings
from agentvault_tui.vault import Cause, NoToken
from agentvault_tui.vault.provider import Endpoints

REVOKE = "/revoke"


@asynccontextmanager
async def provider_of(office: Office, *answers: Answer) -> AsyncIterator[RogueTenant]:
    """Put a provider of the test's own in the place of the embedded one."""
    async with rogue_tenant() as rogue:
        rogue.script(REVOKE, *answers)
        office.broker.reaching.outlook.give(
            WORKSPACE, Endpoints(f"{rogue.issuer}revoke")
        )
        yield rogue


async def later(office: Office, seconds: float) -> None:
    """Let time pass, here and at the tenant, which have one clock; do what is due."""
    office.tenant.clock.advance(seconds)
    list(office.broker.registry.sweep())
    await office.work()


async def using(
    office: Office, live: Live, name: str = "", scope: str = "calendar.read"
) -> tuple[Caller, str]:
    """Return an agent that has an account and a token of it."""
    agent = await caller(live)
    await office.connect(agent.agent, office.person(name), scope)
    return agent, (await exchange(agent, WORKSPACE)).json()["access_token"]


def told(office: Office, agent: Caller) -> dict[str, Any]:
    registry = office.broker.registry
    return as_json(agent_info(registry.agent(agent.agent.id), registry))


def ahead(office: Office, agent: Caller) -> Any:
    return told(office, agent)["connections"][0]["at_provider"]


async def revocations(office: Office) -> list[dict[str, Any]]:
    """Return the details of what was told of provider tokens."""
    events = await office.bench.events("upstream.revocation")
    details = [event.detail for event in events]
    return [detail for detail in details if detail["step"] == "provider token"]


@pytest.mark.slow
async def test_what_an_agent_holds_is_revoked_at_the_provider(
    office: Office, live: Live
) -> None:
    """It works, the agent is cut off, and the provider does not take it any more."""
    agent, token = await using(office, live, "ursula")
    (account,) = office.broker.registry.accounts.of(agent.agent.id)
    assert account.provider_user == "ursula"
    assert office.provider_says(token)["active"] is True
    await office.revoke(agent.agent)
    assert told(office, agent)["outside_until"] is not None
    await office.work()
    assert office.provider_says(token)["active"] is False
    assert office.step(agent.agent).status == "confirmed"
    assert told(office, agent)["outside_until"] is None
    (detail,) = await revocations(office)
    assert detail["connection"] == WORKSPACE
    assert detail["status"] == "confirmed"
    loaded = await office.bench.ledger.load()
    assert loaded.leases == ()


@pytest.mark.slow
async def test_a_token_is_asked_for_while_the_grant_stands(
    office: Office, live: Live
) -> None:
    """None is held any more: the vault is asked first, and only then the grant cut."""
    agent, token = await using(office, live)
    await later(office, 61)
    await office.cut(agent.agent)
    assert office.provider_says(token)["active"] is False
    assert office.step(agent.agent).status == "confirmed"
    assert office.step(agent.agent, "vault grant").status == "confirmed"


@pytest.mark.slow
async def test_a_token_on_its_way_is_revoked_instead_of_delivered(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange that the revocation overtakes gives what is shown the provider."""
    agent = await caller(live)
    await office.connect(agent.agent, office.person(), "calendar.read")
    given: list[str] = []
    real = office.broker.reaching.vault.exchange

    async def overtaken(account: Account) -> Any:
        """Revoke the agent while the tenant answers."""
        found = await real(account)
        given.append(found.access_token.reveal())  # type: ignore[union-attr]
        await office.revoke(agent.agent)
        return found

    async def gone(_: Account) -> NoToken:
        return NoToken(Cause.GRANT_DISABLED, "unauthorized_client", "", "")

    monkeypatch.setattr(office.broker.reaching.vault, "exchange", overtaken)
    monkeypatch.setattr(office.broker.reaching.providers, "_exchange", gone)
    assert (await exchange(agent, WORKSPACE)).status_code == 403
    await office.work()
    assert office.step(agent.agent).status == "confirmed"
    assert office.provider_says(given[0])["active"] is False


@pytest.mark.slow
async def test_no_token_is_written_or_told(office: Office, live: Live) -> None:
    """Neither in the home nor in shapes, steps, events or logs, however it ends."""
    agent, token = await using(office, live)
    async with provider_of(office, Answer({"error": "access_denied"}, status=403)):
        await office.cut(agent.agent)
    assert office.step(agent.agent).status == "failed"
    seen = f"{told(office, agent)} {await office.bench.events()} {office.broker!r}"
    assert token not in seen
    for path in office.bench.home.data.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.slow
async def test_an_account_another_agent_uses_is_left_and_said(
    office: Office, live: Live
) -> None:
    """One tokenset is one grant there: the other keeps it, until it is cut too."""
    first, second = await caller(live), await caller(live)
    await office.share(first.agent, second.agent)
    token = (await exchange(first, WORKSPACE)).json()["access_token"]
    kept = [{"id": second.agent.id, "name": second.agent.name}]
    assert ahead(office, first) == {"known": True, "kept_for": kept, "may_cut": []}
    await office.cut(first.agent)
    row = office.step(first.agent)
    assert row.status == "left"
    assert second.agent.name in (row.problem or "")
    assert office.provider_says(token)["active"] is True
    assert told(office, first)["outside_until"] is not None
    assert (await exchange(second, WORKSPACE)).status_code == 200
    assert not any("given up" in text for text in warnings(office.broker))
    await office.cut(second.agent)
    assert office.step(second.agent).status == "confirmed"
    assert office.provider_says(token)["active"] is False


@pytest.mark.slow
async def test_one_person_behind_two_vault_users_is_one_grant(
    office: Office, live: Live
) -> None:
    """The provider knows its own users: whoever it says is the same is not cut off."""
    first, token = await using(office, live)
    second, _ = await using(office, live)
    accounts = office.broker.registry.accounts
    (mine,), (theirs,) = (accounts.of(one.agent.id) for one in (first, second))
    assert mine.user != theirs.user
    assert ahead(office, first)["kept_for"] == []
    assert ahead(office, first)["may_cut"] == []  # it is known to be another's
    accounts.put(replace(theirs, provider_user=mine.provider_user))
    assert ahead(office, first)["kept_for"][0]["id"] == second.agent.id
    await office.cut(first.agent)
    assert office.step(first.agent).status == "left"
    assert office.provider_says(token)["active"] is True


@pytest.mark.slow
async def test_where_nobody_knows_whose_it_is_that_is_said_before(
    office: Office, live: Live
) -> None:
    """A revocation does not fail for it; whom it may cut too is told beforehand."""
    first, token = await using(office, live)
    second, _ = await using(office, live)
    accounts = office.broker.registry.accounts
    (theirs,) = accounts.of(second.agent.id)
    accounts.put(replace(theirs, provider_user=""))
    assert ahead(office, first)["may_cut"][0]["id"] == second.agent.id
    await office.cut(first.agent)
    assert office.provider_says(token)["active"] is False


@pytest.mark.slow
async def test_a_connection_of_which_nothing_is_known_has_no_step(
    office: Office, live: Live
) -> None:
    """Switched off, nobody is called, and that tokens work on is said."""
    scopes = CONNECTIONS[WORKSPACE].scopes
    off = {WORKSPACE: ConnectionSettings(scopes, revocation_endpoint="none")}
    office.broker.settings = replace(office.broker.settings, connections=off)
    agent, token = await using(office, live)
    assert ahead(office, agent)["known"] is False
    await office.cut(agent.agent)
    assert await revocations(office) == []
    assert told(office, agent)["outside_until"] is not None
    assert office.provider_says(token)["active"] is True


@pytest.mark.slow
async def test_a_provider_that_is_down_delays_nothing(
    office: Office, live: Live
) -> None:
    """While it hangs the tenant's steps are done; then it is asked again, and does."""
    agent, _ = await using(office, live)
    answers = Answer(hang=True), Answer(status=503, headers={"Retry-After": "90"})
    async with provider_of(office, *answers, Answer()) as rogue:
        running = asyncio.create_task(office.broker.reaching.outbox.run())
        await office.revoke(agent.agent)
        await rogue.arrived.wait()
        others = ("vault grant", "refresh tokens", "client secret")
        await office.bench.until(
            lambda: all(
                office.step(agent.agent, name).status == "confirmed" for name in others
            )
        )
        assert office.step(agent.agent).status == "pending"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await office.work()  # the one that hung was taken back: this is the 503
        assert (office.step(agent.agent).problem or "").endswith("answered 503")
        await later(office, 60)
        assert rogue.asked(REVOKE) == 2  # RFC 7009 section 2.2.1: not before
        await later(office, 31)
        assert office.step(agent.agent).status == "confirmed"


@pytest.mark.slow
async def test_who_waits_for_a_token_keeps_nobody_else_waiting(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one agent's token is asked for, another's steps go on; then its own do."""
    first, token = await using(office, live)
    await later(office, 61)
    second, _ = await using(office, live)
    go, real = asyncio.Event(), office.broker.reaching.providers._exchange

    async def slow(account: Account) -> Any:
        await go.wait()
        return await real(account)

    def status(agent: Caller, name: str) -> str:
        return office.step(agent.agent, name).status

    monkeypatch.setattr(office.broker.reaching.providers, "_exchange", slow)
    running = asyncio.create_task(office.broker.reaching.outbox.run())
    await office.revoke(first.agent)
    await office.revoke(second.agent)
    await office.bench.until(
        lambda: status(second, "client secret") == status(second, STEP) == "confirmed"
    )
    assert status(first, "vault grant") == status(first, "client secret") == "pending"
    go.set()
    await office.bench.until(
        lambda: status(first, "vault grant") == status(first, STEP) == "confirmed"
    )
    assert office.provider_says(token)["active"] is False
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.slow
async def test_a_vault_that_hangs_delays_the_grant_by_no_more_than_an_exchange(
    office: Office, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token comes: the grant is cut all the same, and a person is told to revoke."""
    agent, _ = await using(office, live)
    await later(office, 61)
    monkeypatch.setattr(office.broker.reaching.vault, "_deadline", 0.1)
    never = asyncio.Event()
    asked: list[str] = []

    async def hangs(account: Account, _: Any) -> Any:
        asked.append(account.id)
        await never.wait()

    monkeypatch.setattr(office.broker.reaching.vault, "_exchange", hangs)
    await office.cut(agent.agent)
    assert asked
    assert office.step(agent.agent, "vault grant").status == "confirmed"
    row = office.step(agent.agent)
    assert row.status == "failed"
    assert "by hand" in (row.problem or "")
    assert "longer than 0.1 s" in (row.problem or "")


@pytest.mark.slow
async def test_after_a_restart_a_person_is_told_what_to_do(
    office: Office, live: Live
) -> None:
    """The token went with the process: given up at once, and until when it works."""
    agent, _ = await using(office, live)
    async with provider_of(office, Answer(status=503)):
        await office.cut(agent.agent)
        assert office.step(agent.agent).status == "pending"
        await office.restart()
    await office.work()
    row = office.step(agent.agent)
    until = office.broker.registry.leases.outside_until(agent.agent.id)
    assert until is not None
    assert row.status == "failed"
    assert row.problem == (
        f"revoke at workspace by hand, or wait until {until:%H:%M} UTC: "
        "the broker was restarted, and keeps no token"
    )
    assert any("workspace by hand" in text for text in warnings(office.broker))


@pytest.mark.slow
async def test_after_a_restart_before_the_grant_was_cut_a_token_is_asked_anew(
    office: Office, live: Live
) -> None:
    """What could still be done is done: the rows say how far it was."""
    agent, token = await using(office, live)
    await office.revoke(agent.agent)
    await office.restart()
    await office.work()
    assert office.step(agent.agent).status == "confirmed"
    assert office.provider_says(token)["active"] is False


@pytest.mark.slow
async def test_a_provider_that_refuses_is_given_up_at_once(
    office: Office, live: Live
) -> None:
    """It wants credentials that are not here: told loudly, and not asked again."""
    agent, _ = await using(office, live)
    answer = Answer({"error": "invalid_client"}, status=401)
    async with provider_of(office, answer) as rogue:
        await office.cut(agent.agent)
        await later(office, 600)
        assert rogue.asked(REVOKE) == 1
    row = office.step(agent.agent)
    assert row.status == "failed"
    assert "invalid_client" in (row.problem or "")


@pytest.mark.slow
async def test_a_provider_that_stays_down_is_given_up_with_its_token(
    office: Office, live: Live
) -> None:
    """Once the token has ended by itself there is nothing left to show."""
    agent, _ = await using(office, live)
    async with provider_of(office, Answer(status=500)):
        await office.cut(agent.agent)
        assert office.step(agent.agent).status == "pending"
        await later(office, timedelta(minutes=11).total_seconds())
    row = office.step(agent.agent)
    assert row.status == "failed"
    assert "before its token ended" in (row.problem or "")


@pytest.mark.slow
async def test_a_restore_withdraws_it_and_forgets_the_token(
    office: Office, live: Live
) -> None:
    """Nothing is revoked of an agent that is served again."""
    agent, token = await using(office, live)
    async with provider_of(office, Answer(status=503)) as rogue:
        await office.cut(agent.agent)
        asked = rogue.asked(REVOKE)
        await restore_agent(office.broker, agent.agent.id, OPERATOR)
        await later(office, 400)
        assert rogue.asked(REVOKE) == asked
    assert office.step(agent.agent).status == "withdrawn"
    assert office.broker.reaching.providers._held == {}
    assert office.provider_says(token)["active"] is True


async def test_what_a_provider_did_while_an_agent_was_restored_is_told(
    office: Office, live: Live
) -> None:
    """The row is withdrawn and the event says that the token is dead."""
    agent, _ = await using(office, live)
    go = asyncio.Event()
    async with provider_of(office, Answer(after=go)) as rogue:
        await office.revoke(agent.agent)
        working = asyncio.create_task(office.work())
        await rogue.arrived.wait()
        await restore_agent(office.broker, agent.agent.id, OPERATOR)
        go.set()
        await working
    assert office.step(agent.agent).status == "withdrawn"
    assert [one["status"] for one in await revocations(office)] == ["confirmed"]
    assert told(office, agent)["outside_until"] is None


async def test_panic_calls_no_provider(office: Office, live: Live) -> None:
    """It stays with the broker, so that lifting it gives everything back."""
    _, token = await using(office, live)
    async with provider_of(office, Answer()) as rogue:
        await panic(office.broker, "stop", OPERATOR)
        await office.work()
        assert rogue.asked(REVOKE) == 0
    assert office.provider_says(token)["active"] is True


@pytest.mark.slow
async def test_revoked_twice_it_is_done_once(office: Office, live: Live) -> None:
    """A second revocation has nothing to show, and gives up nothing that was done."""
    agent, _ = await using(office, live)
    async with provider_of(office, Answer()) as rogue:
        office.fault(status=503, paths=("/me/v1",))  # the account stays known
        await office.cut(agent.agent)
        await office.cut(agent.agent)
        assert rogue.asked(REVOKE) == 1
    assert office.step(agent.agent).status == "confirmed"
