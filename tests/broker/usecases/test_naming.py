"""Agents are renamed, and revoked ones removed; history and ids stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.bench import OPERATOR, Bench
from support.gateway_stand import operators_http
from support.loosenings import opened, signed_in, waits

from agentvault_tui.approval_rules import StepUpRule
from agentvault_tui.broker.usecases.apply import apply_files
from agentvault_tui.broker.usecases.naming import remove_agent, rename_agent
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.errors import ConflictError, NotFoundError, UsageError
from agentvault_tui.model import Actor
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest
from agentvault_tui.vault import Secret
from agentvault_tui.watch import LedgerWatch

SINK = '[sinks.log]\nkind = "file"\npath = "alerts.jsonl"\n'


async def who(_: object) -> Actor:
    return OPERATOR


async def apply(bench: Bench, file: str, *names: str) -> None:
    """Apply a file that has agents of these names."""
    agents = {name: AgentEntry(owner="o@acme.test") for name in names}
    wanted = FilesRequest(agents=agents, places={file: names})
    await apply_files(bench.broker, wanted, who)


async def test_a_renamed_agent_is_found_by_its_new_name_alone(bench: Bench) -> None:
    """Its id stays, another agent may have the old name, and a restart knows both."""
    agent = await bench.agent("mail")
    await rename_agent(bench.broker, agent.id, "post", OPERATOR)
    (event,) = await bench.events("agent.changed")
    assert event.actor == OPERATOR
    detail = event.detail
    assert (detail["changed"], detail["name_before"]) == (["name"], "mail")
    assert detail["agent"] == "post"
    other = await bench.agent("mail")
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        registry = again.broker.registry
        assert [one.id for one in registry.agents_named("post")] == [agent.id]
        assert [one.id for one in registry.agents_named("mail")] == [other.id]
        assert len(registry.agents()) == 2


@pytest.mark.parametrize("name", ["other", "OTHER", "", "a\nb", "ma\u200bil"])
async def test_a_name_that_is_taken_or_reads_as_another_is_refused(
    bench: Bench, name: str
) -> None:
    """As at registration; nothing is recorded."""
    agent, _ = await bench.agent("mail"), await bench.agent("other")
    with pytest.raises((ConflictError, UsageError)):
        await rename_agent(bench.broker, agent.id, name, OPERATOR)
    assert await bench.events("agent.changed") == []
    await rename_agent(bench.broker, agent.id, "Mail", OPERATOR)
    assert bench.broker.registry.agents_named("Mail") != []


async def test_an_agent_of_a_file_is_not_renamed(bench: Bench) -> None:
    """The refusal names the file; once the agent is out of it, it is renamed."""
    await apply(bench, "/etc/av/agents.toml", "mail", "post")
    await apply(bench, "/etc/av/others.toml", "third")
    (agent,) = bench.broker.registry.agents_named("mail")
    with pytest.raises(ConflictError, match=r"is in the file /etc/av/agents\.toml"):
        await rename_agent(bench.broker, agent.id, "letters", OPERATOR)
    async with bench.restarted() as again:
        with pytest.raises(ConflictError, match=r"agents\.toml"):
            await rename_agent(again.broker, agent.id, "letters", OPERATOR)
        await apply(again, "/etc/av/agents.toml", "post")
        await rename_agent(again.broker, agent.id, "letters", OPERATOR)


@pytest.mark.parametrize(
    "place", ["stepup.rules", "limits.toml", "policy.cedar", "alerts.toml"]
)
async def test_an_agent_that_a_rule_names_is_not_renamed(
    bench: Bench, place: str
) -> None:
    """The rule would not be about it any more, and who approves sees two names."""
    agent, broker = await bench.agent("mail"), bench.broker
    for text in ("mail", agent.id):
        if place == "stepup.rules":
            required = StepUpRule(approvals=2, agents=(text,))
            stepup = replace(broker.settings.stepup, rules=(required,))
            broker.settings = replace(broker.settings, stepup=stepup)
        elif place == "limits.toml":
            limit = (
                f'[[limits]]\nid = "l"\nscopes = ["reads"]\nagents = ["{text}"]\n'
                'within = "1h"\ncount = 1\nover = "deny"\n'
            )
            await apply_policy(broker, {"limits": limit}, OPERATOR, None, "")
        elif place == "policy.cedar":
            rule = (
                '@id("r") @why("w")\nforbid(principal, action, resource)\n'
                f'when {{ principal.name == "{text}" }};'
            )
            await apply_policy(broker, {"policy": rule}, OPERATOR, None, "")
        else:
            routes = f'[[routes]]\nsinks = ["log"]\nagents = ["{text}"]\n'
            bench.home.alerts_file.write_text(f"{SINK}{routes}")
            if broker.extensions.watch is None:
                broker.extensions.watch = LedgerWatch(
                    broker, lambda *_: Secret("hidden")
                )
                await broker.extensions.watch.start()
            else:
                await broker.extensions.watch.look()
        if text == "mail":
            with pytest.raises(ConflictError, match=place):
                await rename_agent(broker, agent.id, "post", OPERATOR)
    assert (await rename_agent(broker, agent.id, "post", OPERATOR)).name == "post"
    if broker.extensions.watch is not None:
        await broker.extensions.watch.aclose()


async def test_an_operator_neither_frees_nor_blocks_a_name(bench: Bench) -> None:
    """An operator who may not grant changes no list of names; a change waits."""
    await apply(bench, "/f", "mail")
    await bench.agent("other")
    names = bench.broker.recording.meta["applied_files"]
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        active = (await oscar.get("/api/files")).json()["agents"]
        other = {"other": active["other"]}
        for agents, places in (({}, {"/f": []}), (other, {"/g": ["other"]})):
            body = {"agents": agents, "places": places}
            answer = await oscar.post("/api/files", **body)
            assert (answer.status_code, answer.json()["applied"]) == (200, False)
            assert bench.broker.recording.meta["applied_files"] == names
        alice = await signed_in(stand, "approver", "alice")
        await waits(await alice.post("/api/files", places={"/f": []}))
        assert bench.broker.recording.meta["applied_files"] == names


async def test_who_only_takes_away_by_files_changes_no_list_of_names(
    bench: Bench,
) -> None:
    """The scope ends at once; whoever may grant applies the names later."""
    agent = await bench.agent("other", "read:email")
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        active = (await oscar.get("/api/files")).json()["agents"]["other"]
        agents = {"other": {**active, "scopes": []}}
        body = {"agents": agents, "places": {"/g": ["other"]}}
        answer = await oscar.post("/api/files", **body)
        assert (answer.status_code, answer.json()["applied"]) == (200, True)
        assert bench.broker.registry.agent(agent.id).scopes == ()
        assert "applied_files" not in bench.broker.recording.meta


async def test_the_names_of_files_are_recorded_with_an_event(bench: Bench) -> None:
    """Also if nothing else changes; the same names in other files are no change."""
    await apply(bench, "/f", "mail")
    await apply(bench, "/moved", "mail")
    assert len(await bench.events("config.applied")) == 1
    wanted = FilesRequest(places={"/moved": (), "/f": ()})
    await apply_files(bench.broker, wanted, who)
    assert len(await bench.events("config.applied")) == 2


@pytest.mark.parametrize("places", [{"/f": ("x",)}, {"/f": ("a",), "/g": ("a",)}])
async def test_files_have_agents_of_the_request_once(
    bench: Bench, places: dict[str, tuple[str, ...]]
) -> None:
    """A name of no agent, or in two files, is refused: the list stays bounded."""
    agents = {"a": AgentEntry(owner="o@acme.test")}
    wanted = FilesRequest(agents=agents, places=places)
    with pytest.raises(UsageError, match="places"):
        await apply_files(bench.broker, wanted, who)


async def test_a_removed_agent_is_in_no_list_and_is_never_restored(
    bench: Bench,
) -> None:
    """Its events stay, its name is free, and the state verifies after a restart."""
    agent = await bench.agent("mail")
    with pytest.raises(ConflictError, match="mail is not revoked"):
        await remove_agent(bench.broker, agent.id, OPERATOR)
    await revoke_agent(bench.broker, agent.id, "over", OPERATOR)
    removed = await remove_agent(bench.broker, agent.id, OPERATOR)
    assert removed.credential.kind == "none"
    again = await bench.agent("mail")
    async with bench.restarted() as later:
        broker = later.broker
        assert broker.health.state_problem is None
        assert [one.id for one in broker.registry.agents()] == [again.id]
        assert broker.registry.agent_count == 1
        assert [one.id for one in broker.registry.agents_after(None, 9)] == [again.id]
        with pytest.raises(ConflictError, match="was removed"):
            await restore_agent(broker, agent.id, OPERATOR)
        with pytest.raises(ConflictError, match="was removed"):
            await rename_agent(broker, agent.id, "other", OPERATOR)
        await revoke_agent(broker, agent.id, "once more", OPERATOR)
        assert not broker.registry.serves(agent.id)
        assert [one.id for one in broker.registry.agents()] == [again.id]
        assert await later.events("agent.registered") != []


async def test_the_past_has_old_names_and_removed_agents(bench: Bench) -> None:
    """What a console shows of a moment is what there was then."""
    agent = await bench.agent("mail")
    before = bench.broker.ledger.head.seq
    await rename_agent(bench.broker, agent.id, "post", OPERATOR)
    await revoke_agent(bench.broker, agent.id, "over", OPERATOR)
    await remove_agent(bench.broker, agent.id, OPERATOR)
    past = await bench.broker.ledger.past.at(seq=before)
    assert [one.name for one in past.agents] == ["mail"]
    later = await bench.broker.ledger.past.at()
    assert later.agents == ()


async def test_operators_rename_and_remove_over_http(bench: Bench) -> None:
    """The answers have the agent; the lists have it no more, its own address does."""
    agent = await bench.agent("mail")
    async with operators_http(bench) as http:
        asked = {"agent_id": agent.id, "name": "post"}
        answer = await http.post("/api/agents/rename", json=asked)
        assert (answer.status_code, answer.json()["name"]) == (200, "post")
        refused = await http.post("/api/agents/remove", json={"agent_id": agent.id})
        assert refused.status_code == 409
        await revoke_agent(bench.broker, agent.id, "over", OPERATOR)
        answer = await http.post("/api/agents/remove", json={"agent_id": agent.id})
        assert answer.json()["removed_at"]
        assert (await http.get("/api/agents")).json()["agents"] == []
        alone = (await http.get(f"/api/agents/{agent.id}")).json()
        assert (alone["status"], alone["name"]) == ("revoked", "post")
        nobody = {"agent_id": "agt_0000000000000000", "name": "x"}
        assert (await http.post("/api/agents/rename", json=nobody)).status_code == 404
    with pytest.raises(NotFoundError):
        await remove_agent(bench.broker, "agt_0000000000000000", OPERATOR)
