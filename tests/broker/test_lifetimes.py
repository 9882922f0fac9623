"""Agents that end by themselves: at a time, or with their template."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support.agents_http import Live, live_broker
from support.bench import OPERATOR, Bench
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.stepups import latched

from agentvault_tui.broker.serve import upkeep
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import (
    restore_agent,
    revoke_agent,
    revoke_ended,
)
from agentvault_tui.broker.usecases.scopes import change_scopes, renew_secret
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.model import Action, Agent, AgentStatus
from agentvault_tui.operator_api.requests import AgentRequest

READING = Action(("read:calendar",), "read:calendar")


@pytest.fixture
async def live(bench: Bench) -> AsyncIterator[Live]:
    async with live_broker(bench) as live:
        yield live


EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


async def pass_on(bench: Bench, one: Agent, to: Agent) -> None:
    """Let *one* pass on all that it has."""
    scopes = frozenset(one.scopes)
    await change_delegates(bench.broker, one.id, to.id, scopes, OPERATOR)


def until(bench: Bench, seconds: float) -> dict[str, Any]:
    return {"until": iso(bench.clock.now() + timedelta(seconds=seconds))}


async def revoked(bench: Bench) -> list[tuple[str, str | None, str]]:
    """Return who was revoked so far, why, and by what kind of actor."""
    events = await bench.events("agent.revoked")
    return [(e.detail["agent"], e.reason, e.actor.kind.value) for e in events]


# A time


async def test_tokens_never_outlive_their_agent(live: Live) -> None:
    """Of an hour, of an approval, and those of others that came of them: each ends
    with the agent, and says so to its holder and to resource servers."""
    bench = live.bench
    caller = await live.caller("brief", **until(bench, 120))
    got = (await caller.token("read:calendar")).json()
    assert got["expires_in"] == 120
    end = bench.clock.now().timestamp() + 120
    assert (await caller.introspect(got["access_token"]))["exp"] == int(end)
    other = await live.caller("other")
    await pass_on(bench, caller.agent, other.agent)
    passed = await caller.token(
        "read:calendar",
        **EXCHANGE,
        subject_token=got["access_token"],
        audience=other.agent.client_id,
    )
    assert passed.json()["expires_in"] == 120
    held = (await caller.payment()).json()["auth_req_id"]
    bench.clock.advance(90)
    await live.approve(held)
    elevated = (await caller.poll(held)).json()
    assert elevated["expires_in"] == 30
    bench.clock.advance(30)
    for token in (got, passed.json(), elevated):
        assert await other.introspect(token["access_token"]) == {"active": False}


async def test_a_token_passed_on_to_an_agent_ends_with_that(live: Live) -> None:
    """Whoever's time is over first counts."""
    one = await live.caller("one")
    brief = await live.caller("brief", **until(live.bench, 50))
    await pass_on(live.bench, one.agent, brief.agent)
    got = (await one.token("read:calendar")).json()
    assert got["expires_in"] == 3600
    passed = await one.token(
        "read:calendar",
        **EXCHANGE,
        subject_token=got["access_token"],
        audience=brief.agent.client_id,
    )
    assert passed.json()["expires_in"] == 50


async def test_at_its_time_an_agent_is_revoked(live: Live) -> None:
    """Refused from that moment on, before anything is recorded; then revoked by the
    broker itself, reason ``ended``, its step-ups cancelled, and once."""
    bench = live.bench
    caller = await live.caller("brief", **until(bench, 100))
    (registered,) = await bench.events("agent.registered")
    assert registered.detail["until"] == "2026-11-24T10:01:40.000000Z"
    held = (await caller.payment()).json()["auth_req_id"]
    bench.clock.advance(99.9)
    assert (await caller.token()).status_code == 200
    await revoke_ended(bench.broker)
    assert await revoked(bench) == []
    bench.clock.advance(0.1)
    refused = await caller.token()
    assert (refused.status_code, refused.json()["reason"]) == (403, "agent_revoked")
    assert "time is over" in refused.json()["error_description"]
    await revoke_ended(bench.broker)
    await revoke_ended(bench.broker)
    assert await revoked(bench) == [("brief", "ended", "system")]
    assert bench.broker.stepups.get(held).status == "cancelled"
    (event,) = await bench.events("agent.revoked")
    assert event.detail["stepups_cancelled"] == 1


async def test_the_upkeep_revokes_without_being_asked(bench: Bench) -> None:
    """All that end at one moment, whatever else there is to look after."""
    for number in range(150):
        await bench.agent(f"agent-{number}", **until(bench, 5))
    task = asyncio.create_task(upkeep(bench.broker))
    try:
        before = bench.ledger.head.seq
        bench.clock.advance(5)
        await bench.until(lambda: bench.ledger.head.seq >= before + 150)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {reason for _, reason, _ in await revoked(bench)} == {"ended"}
    assert len(await revoked(bench)) == 150


async def test_a_broker_that_was_down_at_that_moment(bench: Bench) -> None:
    """It revokes at its start, before it serves."""
    agent = await bench.agent("brief", **until(bench, 60))
    await request_token(bench.broker, agent, READING, resource=None, details=None)
    bench.clock.advance(61)
    async with bench.restarted() as again:
        assert again.broker.registry.agent(agent.id).status is AgentStatus.REVOKED
        assert await revoked(again) == [("brief", "ended", "system")]


@pytest.mark.parametrize("reboot", [False, True])
async def test_a_clock_that_is_set_back_gives_no_time(
    bench: Bench, clock: ManualClock, *, reboot: bool
) -> None:
    """While it runs, over a restart, and over a reboot: what was left is left."""
    agent = await bench.agent("brief", **until(bench, 600))
    clock.advance(500)
    await bench.agent("later")  # so that the ledger knows how late it was
    clock.jump_wall(-7200)
    lifetimes = bench.broker.registry.lifetimes
    assert lifetimes.is_active(agent.id)
    if reboot:
        clock.reboot("b1")
    async with bench.restarted() as again:
        lifetimes = again.broker.registry.lifetimes
        assert lifetimes.is_active(agent.id)
        clock.advance(99)
        assert lifetimes.is_active(agent.id)
        clock.advance(2)
        assert not lifetimes.is_active(agent.id)
        await revoke_ended(again.broker)
        assert await revoked(again) == [("brief", "ended", "system")]
    clock.jump_wall(-7200)
    async with bench.restarted() as last:
        assert last.broker.registry.agent(agent.id).status is AgentStatus.REVOKED


async def test_the_boot_clock_bounds_an_end_over_a_restart(
    bench: Bench, clock: ManualClock
) -> None:
    """Also where no event says how late it was before the wall clock was set back."""
    agent = await bench.agent("brief", **until(bench, 600))
    clock.advance(500)
    clock.jump_wall(-7200)
    async with bench.restarted() as again:
        clock.advance(101)
        assert not again.broker.registry.lifetimes.is_active(agent.id)


async def test_a_jump_of_the_clock_is_remembered_for_the_next_boot(
    bench: Bench, clock: ManualClock
) -> None:
    """The broker moves the end with the clock, so that a reboot afterwards knows it."""
    agent = await bench.agent("brief", **until(bench, 600))
    looked = asyncio.Event()

    async def look() -> None:
        looked.set()

    bench.broker.extensions.chores.append(look)
    task = asyncio.create_task(upkeep(bench.broker))
    await looked.wait()
    clock.advance(500)
    before = bench.broker.registry.agent(agent.id).until
    clock.jump_wall(-7200)
    found = bench.broker.registry.agent
    await bench.until(lambda: found(agent.id).until != before)
    async with asyncio.timeout(PATIENT):
        while not await bench.events("clock.jump"):  # noqa: ASYNC110 - as `until`
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    clock.reboot("b1")
    clock.advance(101)
    async with bench.restarted() as again:
        assert await revoked(again) == [("brief", "ended", "system")]
        assert again.broker.health.state_problem is None


async def test_restoring_needs_a_new_end(bench: Bench) -> None:
    """Once its time is over; before, the end it had still stands."""
    broker = bench.broker
    agent = await bench.agent("brief", **until(bench, 60))
    await revoke_agent(broker, agent.id, "test", OPERATOR)
    restored = await restore_agent(broker, agent.id, OPERATOR)
    assert restored.until == agent.until
    bench.clock.advance(61)
    await revoke_ended(broker)
    for moment in (None, bench.clock.now(), bench.clock.now() - timedelta(hours=1)):
        with pytest.raises(UsageError, match="is over"):
            await restore_agent(broker, agent.id, OPERATOR, moment)
    later = bench.clock.now() + timedelta(seconds=60)
    restored = await restore_agent(broker, agent.id, OPERATOR, later)
    assert restored.until is not None
    assert restored.until.wall == later
    assert (await bench.events("agent.restored"))[-1].detail["until"]
    with pytest.raises(UsageError, match="not revoked"):
        await restore_agent(broker, agent.id, OPERATOR, later)
    bench.clock.advance(60)
    await revoke_ended(broker)
    assert [why for _, why, _ in await revoked(bench)] == ["test", "ended", "ended"]


async def test_an_end_that_is_over_already_is_refused(bench: Bench) -> None:
    """Nobody registers what is revoked at once."""
    for seconds in (0, -1):
        with pytest.raises(UsageError, match="is over"):
            await bench.agent("brief", **until(bench, seconds))


async def test_changing_an_agent_keeps_its_end(bench: Bench) -> None:
    """Scopes given and taken change neither end nor template."""
    agent = await bench.agent("brief", **until(bench, 60))
    grant, none = frozenset({"read:email"}), frozenset[str]()
    await change_scopes(bench.broker, agent.id, grant, none, OPERATOR)
    await change_scopes(bench.broker, agent.id, none, grant, OPERATOR)
    assert bench.broker.registry.agent(agent.id).until == agent.until


# Templates


async def made(bench: Bench, template: Agent, name: str, **more: Any) -> Agent:
    wanted = AgentRequest(name=name, from_template=template.id, **more)
    return (await register(bench.broker, wanted, OPERATOR)).agent


async def test_a_template_is_never_active(live: Live) -> None:
    """It has no secret, gets none later, and is served nothing, whoever asks."""
    broker = live.bench.broker
    template = await live.caller("template", template=True)
    assert template.secret == ""
    assert template.agent.status is AgentStatus.TEMPLATE
    assert (await template.token()).status_code == 401
    asked = await request_token(
        broker, template.agent, READING, resource=None, details=None
    )
    assert getattr(asked, "reason", None) == "agent_revoked"
    other = await live.caller("other")
    await pass_on(live.bench, other.agent, template.agent)
    got = (await other.token("read:calendar")).json()["access_token"]
    passed = await other.token(
        "read:calendar",
        **EXCHANGE,
        subject_token=got,
        audience=template.agent.client_id,
    )
    assert passed.json()["error"] == "invalid_target"
    with pytest.raises(ConflictError):
        await renew_secret(broker, template.agent.id, OPERATOR)
    assert broker.registry.agent(template.agent.id).credential.kind == "none"
    await revoke_agent(broker, template.agent.id, "", OPERATOR)
    again = await restore_agent(broker, template.agent.id, OPERATOR)
    assert again.status is AgentStatus.TEMPLATE


async def test_an_agent_made_from_a_template_has_what_that_has(live: Live) -> None:
    """Scopes, owner and delegates, with a credential and a purpose of its own."""
    bench = live.bench
    other = await live.caller("other")
    template = await bench.agent("template", "read:calendar", template=True)
    await pass_on(bench, template, other.agent)
    wanted = AgentRequest(name="one", purpose="of its own", from_template=template.id)
    one = await register(bench.broker, wanted, OPERATOR)
    known = bench.broker.registry.agent(template.id)
    assert one.client_secret
    assert (one.agent.scopes, one.agent.owner) == (known.scopes, known.owner)
    assert one.agent.delegates == known.delegates != ()
    assert one.agent.purpose == "of its own"
    (event,) = [
        e for e in await bench.events("agent.registered") if e.agent_id == one.agent.id
    ]
    assert event.detail["from_template"] == template.id
    assert event.detail["delegates"] == {other.agent.id: ["read:calendar"]}
    shown = (await bench.read(f"/api/agents/{template.id}")).json()
    assert shown["status"] == "template"
    assert shown["derived"] == [{"id": one.agent.id, "name": "one"}]
    shown = (await bench.read(f"/api/agents/{one.agent.id}")).json()
    assert (shown["status"], shown["from"]) == ("active", template.id)


async def test_revoking_a_template_revokes_what_was_made_from_it(live: Live) -> None:
    """At once, with tokens and all, each with an event of its own; the others stay,
    and none comes back before the template."""
    bench, broker = live.bench, live.bench.broker
    template = await bench.agent("template", "read:calendar", template=True)
    wanted = AgentRequest(name="one", from_template=template.id)
    one = await register(broker, wanted, OPERATOR)
    two = await made(bench, template, "two")
    await revoke_agent(broker, two.id, "before", OPERATOR)
    three = await made(bench, template, "three")
    other = await live.caller("other")
    basic = (one.agent.client_id, one.client_secret or "")
    form = {"grant_type": "client_credentials", "scope": "read:calendar"}
    got = await live.http.post("/oauth/token", data=form, auth=basic)
    token = {"token": got.json()["access_token"]}
    cut = await revoke_agent(broker, template.id, "enough", OPERATOR)
    assert cut.derived == 2
    told = await live.http.post("/oauth/introspect", data=token, auth=basic)
    assert told.json() == {"active": False}
    assert (await other.token()).status_code == 200
    assert await revoked(bench) == [
        ("two", "before", "operator"),
        ("template", "enough", "operator"),
        ("one", "template_revoked", "operator"),
        ("three", "template_revoked", "operator"),
    ]
    with pytest.raises(ConflictError, match="template template is revoked"):
        await restore_agent(broker, three.id, OPERATOR)
    with pytest.raises(ConflictError, match="is revoked"):
        await made(bench, template, "four")
    await restore_agent(broker, template.id, OPERATOR)
    assert broker.registry.agent(three.id).status is AgentStatus.REVOKED
    await restore_agent(broker, three.id, OPERATOR)
    assert broker.registry.lifetimes.is_active(three.id)


async def test_a_process_that_dies_between_the_two_records(bench: Bench) -> None:
    """The template's revocation is on disk and those below are not: never served, and
    revoked at the next start; also one that was being made meanwhile."""
    broker = bench.broker
    template = await bench.agent("template", "read:calendar", template=True)
    one = await made(bench, template, "one")
    # What the ledger has when the process dies there: the template's record alone.
    gone = broker.registry.agent(template.id).revoked(bench.clock.now())
    await broker.record(changes=[gone])
    async with bench.restarted() as again:
        assert not again.broker.registry.lifetimes.is_active(one.id)
        assert ("one", "template_revoked", "system") in await revoked(again)
        assert again.broker.registry.agent(one.id).status is AgentStatus.REVOKED


async def test_a_template_revoked_while_the_ledger_cannot_write(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut journal keeps it over a restart, with all that was made from it."""
    template = await bench.agent("template", "read:calendar", template=True)
    one = await made(bench, template, "one")
    with monkeypatch.context() as patch:
        patch.setattr(bench.ledger, "commit", latched)
        cut = await revoke_agent(bench.broker, template.id, "gone", OPERATOR)
        assert not cut.recorded
    async with bench.restarted() as again:
        for agent in (template, one):
            known = again.broker.registry.agent(agent.id)
            assert known.status is AgentStatus.REVOKED
        assert ("template", "gone", "operator") in await revoked(again)


async def test_a_template_revoked_while_an_agent_is_made_from_it(bench: Bench) -> None:
    """The revocation wins: the agent is never served, and revoked as well."""
    broker = bench.broker
    template = await bench.agent("template", "read:calendar", template=True)
    making = asyncio.create_task(made(bench, template, "one"))
    await asyncio.sleep(0)
    await revoke_agent(broker, template.id, "", OPERATOR)
    with pytest.raises(ConflictError, match="is revoked"):
        await making
    (one,) = broker.registry.agents_named("one")
    assert not broker.registry.lifetimes.is_active(one.id)
    await revoke_ended(broker)
    assert broker.registry.agent(one.id).status is AgentStatus.REVOKED


async def test_templates_end_in_time_with_all_that_was_made_from_them(
    bench: Bench,
) -> None:
    """Nobody made from a template lives longer than that, whatever is asked for."""
    template = await bench.agent(
        "t", "read:calendar", template=True, **until(bench, 60)
    )
    one = await made(bench, template, "one", **until(bench, 600))
    two = await made(bench, template, "two", **until(bench, 30))
    for agent, seconds in ((one, 60), (two, 30)):
        assert agent.until is not None
        assert agent.until.wall == bench.clock.now() + timedelta(seconds=seconds)
    bench.clock.advance(60)
    await revoke_ended(bench.broker)
    assert sorted(await revoked(bench)) == [
        ("one", "ended", "system"),
        ("t", "ended", "system"),
        ("two", "ended", "system"),
    ]


async def test_what_a_template_cannot_be(bench: Bench) -> None:
    """Nothing that authenticates or serves; and what is made from one, or from an
    agent that is none, has nothing else."""
    template = await bench.agent("template", "read:calendar", template=True)
    plain = await bench.agent("plain")
    for more in ({"resource_server": True}, {"public_key": "{}"}, {"subject": "a:b"}):
        with pytest.raises(UsageError, match="neither authenticates nor serves"):
            await bench.agent("x", template=True, **more)
    for wanted in (
        AgentRequest(name="x", owner="olga", from_template=template.id),
        AgentRequest(name="x", scopes=("read:email",), from_template=template.id),
        AgentRequest(name="x", from_template=template.id, template=True),
        AgentRequest(name="x", from_template=template.id, serves=("read:email",)),
    ):
        with pytest.raises(UsageError, match="has its scopes and its owner"):
            await register(bench.broker, wanted, OPERATOR)
    with pytest.raises(ConflictError, match="is no template"):
        await made(bench, plain, "x")


async def test_a_changed_row_gives_neither_time_nor_life(bench: Bench) -> None:
    """The chain says end and template: who edits the row finds the agent revoked, and
    restoring it later brings them back."""
    template = await bench.agent("template", "read:calendar", template=True)
    brief = await bench.agent("brief", **until(bench, 60))
    path = bench.home.database
    await bench.close()
    with closing(sqlite3.connect(path)) as db, db:
        for agent in (template, brief):
            (doc,) = db.execute(
                "SELECT doc FROM agents WHERE id = ?", (agent.id,)
            ).fetchone()
            changed = doc.replace('"template":true', '"template":false')
            changed = changed.replace('"status":"template"', '"status":"active"')
            changed = changed.replace('"until":[', '"unti":[')
            assert changed != doc
            db.execute("UPDATE agents SET doc = ? WHERE id = ?", (changed, agent.id))
    db.close()
    again = await Bench.open(bench.home, bench.clock)
    try:
        assert again.broker.health.state_problem
        for agent in (template, brief):
            known = again.broker.registry.agent(agent.id)
            assert known.status is AgentStatus.REVOKED
            assert known.template is agent.template
        bench.clock.advance(61)
        with pytest.raises(UsageError, match="is over"):
            await restore_agent(again.broker, brief.id, OPERATOR)
    finally:
        await again.close()


async def test_the_past_shows_them_as_they_stood(bench: Bench) -> None:
    """The time machine says which was a template, and when an agent was to end."""
    await bench.agent("template", "read:calendar", template=True)
    await bench.agent("brief", **until(bench, 60))
    seq = bench.ledger.head.seq
    bench.clock.advance(61)
    await revoke_ended(bench.broker)
    then = (await bench.read(f"/api/past?seq={seq}")).json()["agents"]
    assert [one["status"] for one in then] == ["template", "active"]
    assert then[1]["until"] == "2026-11-24T10:01:00.000000Z"
