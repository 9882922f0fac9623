"""A free tenant answers two requests a second: each is asked for by its urgency."""

from __future__ import annotations

import pytest
from support.upstream import Site, follower

from agentvault_tui.vault import Budget, Priority


@pytest.mark.slow
async def test_the_log_waits_for_steps_and_those_for_an_operator(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All share one budget, in which whoever looks at a screen goes first."""
    taken: list[tuple[Budget, Priority]] = []
    take = Budget.take

    async def noting(budget: Budget, priority: Priority) -> None:
        taken.append((budget, priority))
        await take(budget, priority)

    monkeypatch.setattr(Budget, "take", noting)
    agent, _, _ = await site.agent()
    access = site.bench.broker.reaching.access
    await follower(site).read()
    assert {priority for _, priority in taken} == {Priority.BACKGROUND}
    shared = {id(budget) for budget, _ in taken}
    taken.clear()
    await site.revoke(agent)
    await site.work()
    assert {priority for _, priority in taken} == {Priority.REVOCATION}
    taken.clear()
    assert access.management is not None
    await access.management.scopes()
    await access.management.request("GET", "clients")
    assert {priority for _, priority in taken} == {Priority.OPERATOR}
    assert {id(budget) for budget, _ in taken} == shared
