"""The composed rooms: a broker without a gateway and a watch works as with them."""

from __future__ import annotations

from support.bench import Bench

from agentvault_tui.broker.extensions import CallsCut


async def test_a_broker_without_other_rooms_cancels_no_call(bench: Bench) -> None:
    """It has no calls to cancel, and no permission that was removed on trial."""
    agent, extensions = await bench.agent(), bench.broker.extensions
    assert extensions.rooms == ()
    assert extensions.cut_calls(None) == CallsCut(0, 0)
    assert not extensions.is_on_trial(agent.id, agent.scopes, None)
    assert extensions.trials_of(agent.id) == ()
