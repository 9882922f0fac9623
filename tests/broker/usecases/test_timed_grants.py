"""A scope that was granted for a time ends by itself, and all that carries it."""

from __future__ import annotations

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import operators_http

from agentvault_tui.broker.answers import Denied, Granted
from agentvault_tui.broker.serve import _clock
from agentvault_tui.broker.usecases.apply_entries import files_of
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.timed_grants import ENDS, end_due, grant
from agentvault_tui.errors import UsageError
from agentvault_tui.ledger import Meta, verify_ledger
from agentvault_tui.model import Action, Agent

SCOPE = "read:contacts"
NONE = frozenset[str]()
WEEK = 7 * 24 * 3600


async def ask(bench: Bench, agent: Agent) -> object:
    current = bench.broker.registry.agent(agent.id)
    action = Action((SCOPE,), SCOPE)
    return await request_token(
        bench.broker, current, action, resource=None, details=None
    )


def ends(bench: Bench) -> list[str]:
    return [key for key in bench.broker.recording.meta if key.startswith(ENDS)]


async def test_a_scope_ends_with_its_tokens_when_its_time_is_over(bench: Bench) -> None:
    """Not a second before; the end is recorded as the broker's own."""
    agent = await bench.agent("clerk", "read:calendar")
    one = frozenset({SCOPE})
    await grant(bench.broker, agent.id, one, NONE, OPERATOR, seconds=WEEK)
    bench.clock.advance(WEEK - 1)
    await end_due(bench.broker)
    granted = await ask(bench, agent)
    assert isinstance(granted, Granted)
    bench.clock.advance(1)
    await end_due(bench.broker)
    assert bench.broker.registry.agent(agent.id).scopes == ("read:calendar",)
    assert isinstance(await ask(bench, agent), Denied)
    assert ends(bench) == []
    told = await bench.events("agent.scopes_changed")
    assert told[0].detail["ends"] == [SCOPE]
    assert told[-1].detail["ungranted"] == [SCOPE]
    assert told[-1].detail["tokens_revoked"] == 1
    found = verify_ledger(bench.home)
    assert found.ok, found.problem
    assert told[-1].actor.kind == "system"


async def test_the_end_holds_over_a_restart(bench: Bench) -> None:
    """A broker that was down at that moment takes the scope before it serves."""
    agent = await bench.agent("clerk", "read:calendar")
    await grant(bench.broker, agent.id, frozenset({SCOPE}), NONE, OPERATOR, seconds=60)
    bench.clock.advance(61)
    async with bench.restarted() as again:
        assert again.broker.registry.agent(agent.id).scopes == ("read:calendar",)


@pytest.mark.parametrize("how", ["running", "restarted", "rebooted", "of 0.9.0"])
async def test_a_clock_set_back_extends_no_grant(bench: Bench, how: str) -> None:
    """The boot clock ends it too; after a reboot, the end as the clock was set then."""
    agent = await bench.agent("clerk", "read:calendar")
    await grant(bench.broker, agent.id, frozenset({SCOPE}), NONE, OPERATOR, seconds=60)
    if how == "of 0.9.0":  # which stored the wall clock alone; its brokers know more
        rows = [
            key for key in bench.broker.recording.meta if key.startswith("grant_boot:")
        ]
        await bench.broker.record(changes=[Meta(key, None) for key in rows])
        bench.broker.recording.meta = {
            key: value
            for key, value in bench.broker.recording.meta.items()
            if key not in rows
        }
    bench.clock.advance(30)
    bench.clock.jump_wall(-3600)
    drift = bench.clock.now().timestamp() - bench.clock.boot() + 3600
    await _clock(bench.broker, drift)

    async def check(now: Bench) -> None:
        assert SCOPE in now.broker.registry.agent(agent.id).scopes
        bench.clock.advance(29)
        await end_due(now.broker)
        assert SCOPE in now.broker.registry.agent(agent.id).scopes
        bench.clock.advance(2)
        await end_due(now.broker)
        assert SCOPE not in now.broker.registry.agent(agent.id).scopes
        found = verify_ledger(bench.home)
        assert found.ok, found.problem

    if how == "running":
        await check(bench)
        return
    if how == "rebooted":
        bench.clock.reboot("b1")
    async with bench.restarted() as again:
        await check(again)


async def test_a_clock_set_back_while_no_broker_ran_extends_no_grant(
    bench: Bench,
) -> None:
    """In one boot it ends on time; after a reboot the ledger's time bounds it."""
    agent = await bench.agent("clerk", "read:calendar")
    both = frozenset({SCOPE})
    await grant(bench.broker, agent.id, both, NONE, OPERATOR, seconds=60)
    bench.clock.advance(59)
    bench.clock.jump_wall(-50)
    async with bench.restarted() as again:
        assert SCOPE in again.broker.registry.agent(agent.id).scopes
        bench.clock.advance(1)
        await end_due(again.broker)
        assert SCOPE not in again.broker.registry.agent(agent.id).scopes
        await grant(again.broker, agent.id, both, NONE, OPERATOR, seconds=60)
        bench.clock.jump_wall(-3600)
        bench.clock.reboot("b1")
        async with again.restarted() as last:
            bench.clock.advance(60)
            await end_due(last.broker)
            assert SCOPE not in last.broker.registry.agent(agent.id).scopes


@pytest.mark.parametrize("then", ["for good", "taken and granted", "longer"])
async def test_the_last_grant_counts(bench: Bench, then: str) -> None:
    """One without a time lasts; another time takes the place of the one before."""
    agent, one = await bench.agent("clerk", "read:calendar"), frozenset({SCOPE})
    broker = bench.broker
    await grant(broker, agent.id, one, NONE, OPERATOR, seconds=60)
    if then == "taken and granted":
        await grant(broker, agent.id, NONE, one, OPERATOR, seconds=None)
    seconds = 120 if then == "longer" else None
    await grant(broker, agent.id, one, NONE, OPERATOR, seconds=seconds)
    bench.clock.advance(61)
    await end_due(broker)
    assert SCOPE in broker.registry.agent(agent.id).scopes
    bench.clock.advance(60)
    await end_due(broker)
    assert (SCOPE in broker.registry.agent(agent.id).scopes) is (then != "longer")


async def test_a_template_has_no_scopes_for_a_time(bench: Bench) -> None:
    """What is made from it takes its scopes for good."""
    kind = await bench.agent("kind", "read:calendar", template=True)
    with pytest.raises(UsageError):
        await grant(
            bench.broker, kind.id, frozenset({SCOPE}), NONE, OPERATOR, seconds=60
        )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"grant": [SCOPE], "seconds": 60}, 200),
        ({"grant": [SCOPE], "seconds": 0}, 400),
        ({"grant": [SCOPE], "seconds": 31_622_401}, 400),
        ({"grant": [SCOPE], "seconds": "7d"}, 400),
        ({"ungrant": ["read:calendar"], "seconds": 60}, 400),
        ({"seconds": 60}, 400),
    ],
)
async def test_a_time_is_of_what_is_granted(
    bench: Bench, body: dict[str, object], status: int
) -> None:
    """From a second to a year and a day; a bad one changes nothing."""
    agent = await bench.agent("clerk", "read:calendar")
    async with operators_http(bench) as http:
        asked = {"agent_id": agent.id, **body}
        assert (await http.post("/api/agents/scopes", json=asked)).status_code == status
    assert len(ends(bench)) == (status == 200)


async def test_an_export_leaves_it_out(bench: Bench) -> None:
    """A file would grant it for good; the export says when it ends."""
    agent = await bench.agent("clerk", "read:calendar")
    one = frozenset({SCOPE})
    await grant(bench.broker, agent.id, one, NONE, OPERATOR, seconds=WEEK)
    exported = await files_of(bench.broker)
    assert exported.agents["clerk"].scopes == ("read:calendar",)
    (line,) = exported.left_out
    assert line.startswith(f"{SCOPE} of clerk ({agent.id}) ends at 2026-")
    await grant(bench.broker, agent.id, one, NONE, OPERATOR, seconds=None)
    exported = await files_of(bench.broker)
    assert exported.agents["clerk"].scopes == ("read:calendar", SCOPE)
    assert exported.left_out == ()
