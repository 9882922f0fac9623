"""All that an approved change carries out is in the one record that has its proof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Stand
from support.loosenings import STRICT, approve, loosenings, opened, signed_in, waits

from agentvault_tui.broker.cuts import Cuts
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.broker.usecases.timed_grants import ends_of, grant
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.gateway import Gateway
from agentvault_tui.ledger import Meta, docs, verify_ledger
from agentvault_tui.model import Draft, EventType, StepUp

NONE = frozenset[str]()
MAIL = frozenset({"send:email"})
CALLS = (
    *("policy", "limits", "register", "from", "server", "restore", "lift", "grant"),
    *("delegate", "secret", "client secret", "token", "service", "files"),
    *("for a time", "lasting", "lasting and more"),
    *("reset", "rename", "rate"),
)
"""Each that loosens; a connection is recorded once its person has signed in."""
WRITTEN = "gateway_", "policy_applying", "services_applying"
Commit = tuple[tuple[Draft, ...], list[Any]]


@pytest.fixture
async def stand(bench: Bench) -> AsyncIterator[Stand]:
    """A broker on which people elsewhere are signed in."""
    async with opened(bench) as made:
        yield made


@pytest.fixture
def commits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Commit]:
    """Every commit: a process that is killed has those up to one of them."""
    made, commit = list[Commit](), bench.ledger.commit

    def noted(*drafts: Draft, changes: Any = (), **more: Any) -> Any:
        made.append((drafts, [*changes]))
        return commit(*drafts, changes=changes, **more)

    monkeypatch.setattr(bench.ledger, "commit", noted)
    return made


async def request_of(stand: Stand, name: str) -> tuple[str, dict[str, Any]]:
    """Return the request of a change, of an agent that holds a scope for a time."""
    bench = stand.bench
    if name in {"for a time", "lasting", "lasting and more"}:
        agent = await bench.agent("clerk", "read:calendar")
        await grant(bench.broker, agent.id, MAIL, NONE, OPERATOR, seconds=60)
        more = ["read:files"] if name == "lasting and more" else []
        body = {"agent_id": agent.id, "grant": [*MAIL, *more]}
        if name == "for a time":
            body["seconds"] = 600
        return "/api/agents/scopes", body
    if name == "reset":
        await apply_policy(bench.broker, {"policy": STRICT}, OPERATOR, None, "")
        bench.home.policy_file.unlink()
        return "/api/policy/reset", {}
    if name in {"rename", "rate"}:
        agent = await bench.agent("clerk", "read:calendar")
        more = {"name": "porter"} if name == "rename" else {"decisions_a_second": 0}
        return f"/api/agents/{name}", {"agent_id": agent.id, **more}
    asked = (await loosenings(stand))[name]
    if name == "lift":
        await panic(bench.broker, "drill", OPERATOR)
    return asked


@pytest.mark.parametrize("name", CALLS)
async def test_a_change_and_its_proof_are_one_record(
    stand: Stand, commits: list[Commit], name: str
) -> None:
    """Before it and behind it is nothing but the rows of the change itself."""
    path, body = await request_of(stand, name)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post(path, **body))
    assert isinstance(stand.bench.broker.extensions.gateway, Gateway)
    await (
        stand.bench.broker.extensions.gateway.look()
    )  # which has nothing of its own to record
    commits.clear()
    done = await approve(stand, approver, change)
    assert done["status"] == "applied", done
    (proven,) = (
        number
        for number, (drafts, _) in enumerate(commits)
        if any(one.type is EventType.CHANGE_APPLIED for one in drafts)
    )
    drafts, rows = commits.pop(proven)
    assert len(drafts) > 1, "its effect is in another record"
    assert rows
    for drafts, rows in commits:
        assert {one.type for one in drafts} <= {EventType.STEPUP_AUTHORIZING}
        for row in rows:
            if isinstance(row, Meta):  # copies of texts, and that files were written
                assert row.key.startswith(WRITTEN), row
            else:
                assert isinstance(row, StepUp), row
    found = verify_ledger(stand.bench.home)
    assert found.ok, found.problem


@pytest.mark.parametrize("name", CALLS)
async def test_nothing_is_loosened_where_the_record_fails(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Policy, agents, tokens, panic, secrets and services are as they were."""
    bench = stand.bench
    path, body = await request_of(stand, name)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post(path, **body))
    before, commit = state_of(stand), bench.ledger.commit

    def failing(*drafts: Draft, changes: Any = (), **more: Any) -> Any:
        if any(one.type is EventType.CHANGE_APPLIED for one in drafts):
            raise LedgerUnwritableError("the disk is full", "make room")
        return commit(*drafts, changes=changes, **more)

    monkeypatch.setattr(bench.ledger, "commit", failing)
    done = await approve(stand, approver, change)
    assert done["status"] == "pending", done
    assert state_of(stand) == before


def state_of(stand: Stand) -> tuple[object, ...]:
    """Return all that a loosening may change, as the broker decides by it."""
    broker, gateway = stand.bench.broker, stand.bench.broker.extensions.gateway
    assert isinstance(gateway, Gateway)
    registry = broker.registry
    return (
        broker.deciding.policy.version,
        {docs.write_agent(one) for one in registry.agents()},
        {one.id for agent in registry.agents() for one in registry.tokens_of(agent.id)},
        registry.revocations.panic and registry.revocations.panic.on,
        gateway.origins.listing(),
        [one.name for one in gateway.services],
    )


async def test_a_refused_change_leaves_the_end_of_a_scope(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a panic comes as it is carried out, the scope still ends as it did."""
    bench = stand.bench
    path, body = await request_of(stand, "lasting and more")
    agent = bench.broker.registry.agents_named("clerk")[0]
    before = ends_of(bench.broker, agent)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post(path, **body))
    missed = Cuts.record_missed

    async def stopped(cuts: Cuts) -> None:
        await panic(bench.broker, "drill", OPERATOR)
        await missed(cuts)

    monkeypatch.setattr(Cuts, "record_missed", stopped)
    done = await approve(stand, approver, change)
    assert done["status"] == "cancelled", done
    agent = bench.broker.registry.agent(agent.id)
    assert "read:files" not in agent.scopes
    assert ends_of(bench.broker, agent) == before != {}
