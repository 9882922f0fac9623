"""Ten thousand agents: lists come in pages, and nothing does all of it in one turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench

from agentvault_tui.broker import feed, shapes
from agentvault_tui.broker.operators_api import agents as agents_api
from agentvault_tui.broker.operators_api import records as records_api
from agentvault_tui.broker.operators_api import stepups as stepups_api
from agentvault_tui.broker.recovery import take_over
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.usecases import revoke
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.stepup_end import expire_due
from agentvault_tui.errors import ConflictError
from agentvault_tui.ledger import DropAgentTokens, verify_ledger
from agentvault_tui.model import Action, Agent, StepUpStatus, TokenId

NONE: frozenset[str] = frozenset()
CALENDAR = Action(("write:calendar",), "write:calendar")


async def populate(bench: Bench, count: int) -> list[Agent]:
    """Register agents, each a while after the one before it."""
    known = []
    for number in range(count):
        known.append(await bench.agent(f"agent-{number:03d}"))
        bench.clock.advance(0.001)
    return known


async def issue(bench: Bench, agent: Agent) -> Any:
    return await request_token(
        bench.broker, agent, CALENDAR, resource=None, details=None
    )


async def pages(bench: Bench, limit: int, between: Any = None) -> list[dict[str, Any]]:
    """Read every page, and do something between two of them."""
    found, path = [], f"/api/agents?limit={limit}"
    while True:
        page = (await bench.read(path)).json()
        found += page["agents"]
        if page["next"] is None:
            return found
        path = f"/api/agents?limit={limit}&after={page['next']}"
        if between is not None:
            await between(len(found))


async def test_pages_hold_every_agent_once_oldest_first(bench: Bench) -> None:
    """Whatever is registered, revoked or narrowed between two pages."""
    known = await populate(bench, 7)

    async def change(read: int) -> None:
        await bench.agent(f"late-{read}")
        await revoke.revoke_agent(bench.broker, known[read % 7].id, "", OPERATOR)
        await revoke.revoke_agent(bench.broker, known[0].id, "", OPERATOR)

    found = await pages(bench, 2, change)
    assert [row["name"] for row in found][:7] == [agent.name for agent in known]
    names = [row["name"] for row in found]
    assert len(names) == len(set(names))
    assert {"late-2", "late-4", "late-6"} <= set(names)


async def test_the_order_of_pages_outlives_a_restart(bench: Bench) -> None:
    """A page that is read after it goes on where the one before it ended."""
    known = await populate(bench, 5)
    first = (await bench.read("/api/agents?limit=2")).json()
    broker = bench.broker
    broker.registry = Registry(bench.clock)
    await take_over(broker)
    rest = (await bench.read(f"/api/agents?after={first['next']}")).json()
    names = [row["name"] for row in first["agents"] + rest["agents"]]
    assert names == [agent.name for agent in known]


async def test_an_agent_registered_with_the_clock_set_back_is_in_one_page(
    bench: Bench,
) -> None:
    """It stands where its time puts it, and moves none of the others."""
    await populate(bench, 3)
    bench.clock.jump_wall(-3600)
    await bench.agent("early")
    names = [row["name"] for row in await pages(bench, 1)]
    assert names == ["early", "agent-000", "agent-001", "agent-002"]


async def test_a_page_tells_how_many_tokens_and_lists_them_when_asked(
    bench: Bench,
) -> None:
    """Without them it says how many there are and which ends next."""
    agent = await bench.agent()
    tokens = []
    for _ in range(3):
        tokens.append((await issue(bench, agent)).token)
        bench.clock.advance(1)
    (row,) = (await bench.read("/api/agents?limit=1")).json()["agents"]
    assert "tokens" not in row
    assert row["tokens_live"] == 3
    assert row["tokens_elevated"] == 0
    assert row["next_token"]["id"] == tokens[0].id
    (row,) = (await bench.read("/api/agents?limit=1&tokens=true")).json()["agents"]
    assert [token["id"] for token in row["tokens"]] == [t.id for t in tokens]
    plain = (await bench.read("/api/agents")).json()
    assert plain == (await bench.read("/api/agents?limit=500&tokens=false")).json()
    assert "tokens" not in plain["agents"][0]


async def test_agents_are_read_by_ids_and_by_name(bench: Bench) -> None:
    """Those there are not are left out; a name is matched exactly."""
    one, two, _ = await populate(bench, 3)
    path = f"/api/agents?ids={two.id},agt_none,{one.id},{one.id}"
    found = (await bench.read(path)).json()["agents"]
    assert [row["id"] for row in found] == [two.id, one.id]
    found = (await bench.read("/api/agents?name=agent-001")).json()["agents"]
    assert [row["id"] for row in found] == [two.id]
    assert (await bench.read("/api/agents?name=Agent-001")).json()["agents"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(("limit=0", 400), ("limit=501", 400), ("limit=x", 400), ("limit=-1", 400)),
        *(("tokens=yes", 400), ("offset=3", 400), ("after=agt_none", 404)),
        ("ids=" + ",".join(f"agt_{n}" for n in range(501)), 400),
    ],
)
async def test_what_is_asked_wrongly_is_refused(
    bench: Bench, query: str, status: int
) -> None:
    """No bad parameter is read as another question."""
    answer = await bench.read(f"/api/agents?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@contextmanager
def counting(
    monkeypatch: pytest.MonkeyPatch, module: Any, shape: str = "agent_info"
) -> Iterator[list[int]]:
    """Count the agents, or others, that are written in each turn of the event loop."""
    turns: list[int] = [0]
    original = getattr(shapes, shape)

    def counted(*args: Any, **more: Any) -> Any:
        turns[-1] += 1
        return original(*args, **more)

    async def others() -> None:
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(module, shape, counted)
    turning = asyncio.create_task(others())
    yield turns
    turning.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "?limit=500", "?limit=500&tokens=true"])
async def test_no_turn_of_the_loop_writes_all_agents(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """A revocation that arrives meanwhile waits for a few agents, not for all."""
    await populate(bench, 240)
    with counting(monkeypatch, agents_api) as turns:
        answer = await bench.read(f"/api/agents{query}")
    assert len(answer.json()["agents"]) == 240
    assert sum(turns) == 240
    assert max(turns) <= 100


async def test_no_turn_of_the_loop_writes_many_large_step_ups(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent chooses how much it asks a person about, up to 128 KiB each."""
    words = {f"note{number}": "x" * 3_900 for number in range(15)}
    for agent in await populate(bench, 4):
        for amount in range(3):
            asked = {**words, "amount": amount, "currency": "USD"}
            wanted = replace(PAYMENT, parameters=asked)
            await request_token(
                bench.broker, agent, wanted, resource=None, details=None
            )
    with counting(monkeypatch, stepups_api, "stepup_info") as turns:
        answer = await bench.read("/api/agents/stepup")
    assert len(answer.json()["stepups"]) == sum(turns) == 12
    assert max(turns) <= 2


@pytest.mark.slow
async def test_no_turn_of_the_loop_writes_a_long_page_of_the_audit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events may be as long as the ledger takes them."""
    await populate(bench, 300)
    with counting(monkeypatch, records_api, "event_info") as turns:
        page = (await bench.read("/api/audit?limit=1000")).json()
    assert page["next"] is None
    assert len(page["events"]) == sum(turns) >= 300
    assert max(turns) <= 200


async def test_no_turn_of_the_loop_replays_all_that_a_console_missed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when it resumes after events about every agent."""
    await populate(bench, 60)
    stream = bench.feed.stream(0)
    await anext(stream)
    with counting(monkeypatch, feed) as turns:
        told = await anext(stream)
    await stream.aclose()
    assert told.count("event: agent\n") == told.count("event: audit\n") == 60
    assert max(turns) <= 6


async def test_scopes_are_taken_from_an_agent_with_very_many_tokens_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is of use from the first turn on, and the record is one row a scope."""
    agent = await bench.agent("hoarder", "write:calendar", "read:email")
    first = (await issue(bench, agent)).token
    registry, commit = bench.broker.registry, bench.ledger.commit
    for number in range(5_000):
        sha256, token_id = f"{number:064}", TokenId(f"tok_{number}")
        registry.put_token(first._replace(id=token_id, sha256=sha256))
    other = first._replace(id=TokenId("tok_o"), sha256="o" * 64, scope="read:email")
    registry.put_token(other)
    scopes, turns, changes = frozenset(CALENDAR.scopes), [0], []
    forget = registry._forget

    def counted(token: Any) -> None:
        turns[-1] += 1
        forget(token)

    async def others() -> None:
        while True:
            turns.append(0)
            assert registry.token(f"{4_999:064}") is None
            with pytest.raises(ConflictError):
                await change_scopes(bench.broker, agent.id, scopes, NONE, OPERATOR)
            await asyncio.sleep(0)

    async def noticed(*drafts: Any, **more: Any) -> Any:
        turning.cancel()
        changes.extend(more["changes"])
        return await commit(*drafts, **more)

    monkeypatch.setattr(registry, "_forget", counted)
    monkeypatch.setattr(bench.ledger, "commit", noticed)
    cutting = asyncio.create_task(
        change_scopes(bench.broker, agent.id, NONE, scopes, OPERATOR)
    )
    turning = asyncio.create_task(others())
    after, *_ = await cutting
    assert after.scopes == ("read:email",)
    with pytest.raises(asyncio.CancelledError):
        await turning
    assert sum(turns) == 5_001
    assert max(turns) <= 2_000
    assert len(turns) > 3
    assert len(changes) == 2
    assert registry.tokens_of(agent.id) == [other]


@pytest.mark.slow
async def test_tokens_of_a_scope_that_was_taken_away_stay_ended(bench: Bench) -> None:
    """Over a restart, though the scope is given back; others live, and later ones."""
    agent = await bench.agent("narrowed", "write:calendar", "read:calendar")
    both = Action(("write:calendar", "read:calendar"), "write:calendar")
    for action in (CALENDAR, both):
        await request_token(bench.broker, agent, action, resource=None, details=None)
    reads = Action(("read:calendar",), "read:calendar")
    kept = await request_token(bench.broker, agent, reads, resource=None, details=None)
    scopes = frozenset(CALENDAR.scopes)
    await change_scopes(bench.broker, agent.id, NONE, scopes, OPERATOR)
    agent, *_ = await change_scopes(bench.broker, agent.id, scopes, NONE, OPERATOR)
    late = (await issue(bench, agent)).token
    live = {kept.token.id, late.id}  # type: ignore[union-attr]
    assert {token.id for token in bench.broker.registry.tokens_of(agent.id)} == live
    loaded = await bench.ledger.load()
    assert {token.id for token in loaded.tokens} == live
    assert verify_ledger(bench.home, now=bench.clock.now()).ok


async def test_panic_is_one_change_however_many_agents(bench: Bench) -> None:
    """All tokens end by one row, also after a restart, and consoles get no flood."""
    agents = await populate(bench, 5)
    for agent in agents:
        await issue(bench, agent)
    changes: list[Any] = []
    bench.ledger.listeners.written.append(lambda _, changed: changes.extend(changed))
    frames = bench.feed.stream(None)
    await anext(frames)
    cut = await revoke.panic(bench.broker, "drill", OPERATOR)
    assert cut.tokens == 5
    assert not any(isinstance(change, DropAgentTokens) for change in changes)
    told = await anext(frames)
    assert "event: agent\n" not in told
    await frames.aclose()
    await revoke.lift_panic(bench.broker, OPERATOR)
    late = (await issue(bench, agents[0])).token
    loaded = await bench.ledger.load()
    assert [token.id for token in loaded.tokens] == [late.id]


@pytest.mark.slow
async def test_panic_cancels_very_many_step_ups_in_parts(bench: Bench) -> None:
    """Each is cancelled and recorded, and the first record is the panic's own."""
    waiting = []
    for agent in await populate(bench, 40):
        for amount in range(3):
            wanted = replace(PAYMENT, parameters={"amount": amount, "currency": "USD"})
            asked = await request_token(
                bench.broker, agent, wanted, resource=None, details=None
            )
            waiting.append(asked.stepup)  # type: ignore[union-attr]
    before = len(await bench.events())
    cut = await revoke.panic(bench.broker, "drill", OPERATOR)
    assert cut.recorded
    assert cut.stepups == 120
    assert bench.broker.stepups.open() == []
    assert bench.broker.stepups.open_count == 0
    new = (await bench.events())[before:]
    assert [event.type.value for event in new] == ["panic.on"] + 120 * [
        "stepup.cancelled"
    ]
    loaded = await bench.ledger.load()
    assert {s.status for s in loaded.stepups} == {StepUpStatus.CANCELLED}


@pytest.mark.slow
async def test_very_many_step_ups_expire_in_parts(bench: Bench) -> None:
    """Each has its event, whatever ends in the same moment."""
    for agent in await populate(bench, 40):
        for amount in range(3):
            wanted = replace(PAYMENT, parameters={"amount": amount, "currency": "USD"})
            await request_token(
                bench.broker, agent, wanted, resource=None, details=None
            )
    sizes: list[int] = []
    listen = bench.ledger.listeners.written.append
    listen(lambda events, _: sizes.append(len(events)))
    bench.clock.advance(301)
    await expire_due(bench.broker)
    assert bench.broker.stepups.open_count == 0
    assert sum(sizes) == 120
    assert max(sizes) <= 100


async def test_what_was_cut_is_taken_out_of_memory_in_slices(bench: Bench) -> None:
    """No token of it works meanwhile, nor once its agent is served again."""
    agent = await bench.agent()
    token = (await issue(bench, agent)).token
    registry = bench.broker.registry
    await revoke.revoke_agent(bench.broker, agent.id, "", OPERATOR)
    await revoke.restore_agent(bench.broker, agent.id, OPERATOR)
    assert registry.token(token.sha256) is None
    fresh = (await issue(bench, agent)).token
    for _ in registry.forget_cut():
        pass
    assert registry.token(token.sha256) is None
    assert registry.token(fresh.sha256) is fresh
