"""The end of a trial, or a quick undo, restores nothing that others removed since."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Stand
from support.loosenings import approve, opened, signed_in, waits
from support.manual_clock import ManualClock

from agentvault_tui.broker.usecases.apply import GONE, apply_files
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import Actor, Agent
from agentvault_tui.operator_api.advice import AdviceEvidence, AdviceInfo, AdvisedChange
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest
from agentvault_tui.vault import Secret
from agentvault_tui.watch.watch import LedgerWatch

SCOPE = "send:payment"
GIVE_BACK = "/api/advice/adv_1/give-back"


@pytest.fixture
async def watch(bench: Bench) -> AsyncIterator[LedgerWatch]:
    """The broker's advice."""
    made = LedgerWatch(bench.broker, lambda *_: Secret("hidden"))
    bench.broker.extensions.watch = made
    yield made
    await made.aclose()


@pytest.fixture
async def stand(bench: Bench, watch: LedgerWatch) -> AsyncIterator[Stand]:
    """A broker on which people elsewhere are signed in."""
    async with opened(bench) as made:
        yield made


CHANGES = {
    "revoke": AdvisedChange(revoke=True),
    "ungrant": AdvisedChange(ungrant=[SCOPE]),
}


async def on_trial(bench: Bench, watch: LedgerWatch, kind: str) -> Agent:
    """Return an agent that advice revoked, or took a scope from, on trial."""
    agent = await bench.agent("payer", SCOPE, "read:email")
    info = AdviceInfo(
        id="adv_1",
        kind=kind,
        agent_id=agent.id,
        scope="",
        evidence=AdviceEvidence(since="", until=""),
        change=CHANGES[kind],
    )
    await watch.trials.apply(info, OPERATOR, 3600)
    return agent


async def remove(stand: Stand, agent: Agent, kind: str) -> None:
    """Remove the same as the trial did, by another person's decision."""
    other = await signed_in(stand, "operator", "oscar")
    if kind == "revoke":
        done = await other.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    else:
        gone = [SCOPE]
        done = await other.post("/api/agents/scopes", agent_id=agent.id, ungrant=gone)
    assert done.status_code == 200, done.text


@pytest.mark.parametrize("kind", [*CHANGES])
async def test_a_trial_gives_nothing_back_that_another_person_removed_since(
    stand: Stand, watch: LedgerWatch, kind: str
) -> None:
    """Elsewhere and at the socket the end of the trial is refused, and says why."""
    agent = await on_trial(stand.bench, watch, kind)
    await remove(stand, agent, kind)
    approver = await signed_in(stand, "approver")
    refused = await approver.post(GIVE_BACK)
    assert (refused.status_code, "removed the same" in refused.text) == (409, True)
    with pytest.raises(ConflictError, match="removed the same"):
        await watch.trials.give_back("adv_1", OPERATOR)
    now = stand.bench.broker.registry.agent(agent.id)
    assert now.revoked_at is not None or SCOPE not in now.scopes


@pytest.mark.parametrize("kind", [*CHANGES])
async def test_a_removal_cancels_the_waiting_end_of_its_trial(
    stand: Stand, watch: LedgerWatch, kind: str
) -> None:
    """Also if the agent has no such right any more; until then its name is shown."""
    agent = await on_trial(stand.bench, watch, kind)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post(GIVE_BACK))
    assert change["summary"].endswith("from payer")
    await remove(stand, agent, kind)
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert now["status"] == "cancelled"


@pytest.mark.parametrize("kind", [*CHANGES])
async def test_a_trial_gives_back_what_it_alone_removed(
    stand: Stand, watch: LedgerWatch, kind: str
) -> None:
    """An approver's factor ends it, as it did."""
    agent = await on_trial(stand.bench, watch, kind)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post(GIVE_BACK))
    done = await approve(stand, approver, change)
    assert done["status"] == "applied", done
    now = stand.bench.broker.registry.agent(agent.id)
    assert (now.revoked_at, now.scopes) == (None, ("read:email", SCOPE))


async def test_a_removed_scope_cancels_a_grant_of_it_that_waits(stand: Stand) -> None:
    """Nobody finds it granted by an approval after that."""
    agent = await stand.bench.agent("payer", "read:email")
    approver = await signed_in(stand, "approver")
    wanted = {"agent_id": agent.id, "grant": [SCOPE]}
    change = await waits(await approver.post("/api/agents/scopes", **wanted))
    await remove(stand, agent, "ungrant")
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert now["status"] == "cancelled"


@pytest.mark.parametrize("others", [0, 1])
async def test_an_operator_restores_no_agent_that_files_have_pruned_since(
    stand: Stand, others: int
) -> None:
    """It is recorded once; the number counts the agents that are served alone."""
    entry = {"owner": "olga", "scopes": ["read:email"]}
    approver = await signed_in(stand, "approver")
    agents = {"payer": entry, **({"triage": entry} if others else {})}
    places = {"/team.toml": list(agents)}
    change = await waits(
        await approver.post("/api/files", agents=agents, places=places)
    )
    assert (await approve(stand, approver, change))["status"] == "applied"
    broker = stand.bench.broker
    (agent,) = broker.registry.agents_named("payer")
    operator = await signed_in(stand, "operator", "oscar")
    await operator.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    none = {"agents": {}, "places": {"/team.toml": []}, "prune": others}
    done = await approver.post("/api/files", **none)
    assert done.status_code == 200, done.text
    back = await operator.post("/api/agents/restore", agent_id=agent.id)
    assert (back.status_code, back.json().get("needed_role")) == (403, "approver")
    again = await approver.post("/api/files", **{**none, "prune": 0})
    assert again.json().get("changes", []) == []


async def test_a_prune_cancels_a_restore_that_waits(
    stand: Stand, clock: ManualClock
) -> None:
    """However long ago the agent was revoked: its approver did not see the files."""
    approver = await signed_in(stand, "approver")
    entry = {"owner": "olga", "scopes": ["read:email"]}
    team = {"agents": {"payer": entry}, "places": {"/team.toml": ["payer"]}}
    change = await waits(await approver.post("/api/files", **team))
    assert (await approve(stand, approver, change))["status"] == "applied"
    (agent,) = stand.bench.broker.registry.agents_named("payer")
    await approver.post("/api/agents/revoke", agent_id=agent.id, reason="r")
    clock.advance(3600)
    approver = await signed_in(stand, "approver")
    change = await waits(await approver.post("/api/agents/restore", agent_id=agent.id))
    none = {"agents": {}, "places": {"/team.toml": []}, "prune": 0}
    assert (await approver.post("/api/files", **none)).status_code == 200
    now = (await approver.get(f"/api/changes/{change['id']}")).json()
    assert now["status"] == "cancelled"
    reasons = [one.reason for one in await stand.bench.events("agent.revoked")]
    assert reasons == ["r", GONE]


async def test_a_prune_is_recorded_by_a_broker_that_has_started_since(
    bench: Bench,
) -> None:
    """The one where the agent was revoked lets that person restore it still."""
    entry = AgentEntry(owner="olga", scopes=("read:email",))

    async def apply(on: Bench, files: FilesRequest) -> None:
        async def who(_: object) -> Actor:
            return OPERATOR

        await apply_files(on.broker, files, who)

    await apply(bench, FilesRequest(agents={"payer": entry}))
    (agent,) = bench.broker.registry.agents_named("payer")
    await revoke_agent(bench.broker, agent.id, "r", OPERATOR)
    async with bench.restarted() as later:
        await apply(later, FilesRequest(agents={}, prune=0))
        events = await later.events("agent.revoked")
        assert [one.reason for one in events] == ["r", GONE]
