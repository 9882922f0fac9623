"""Files grant to an agent if a file, or who may grant, chose its credential."""

from __future__ import annotations

from typing import Any

import pytest
from support.bench import OPERATOR, Bench
from support.elsewhere import Elsewhere
from support.loosenings import opened, signed_in, waits

from agentvault_tui.broker.usecases.apply import apply_files
from agentvault_tui.broker.usecases.naming import remove_agent
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.revoke import revoke_agent
from agentvault_tui.errors import ConflictError
from agentvault_tui.model import Actor, Agent
from agentvault_tui.operator_api.files import AgentEntry, FilesRequest
from agentvault_tui.operator_api.requests import AgentRequest

KEY = '{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
PAYER = AgentEntry(owner="olga", scopes=("send:payment",))
BOT = AgentEntry(
    owner="olga", scopes=("send:payment",), delegates={"newbot": ("send:payment",)}
)


async def who(_: object) -> Actor:
    return OPERATOR


async def apply(bench: Bench, *accept: str, **agents: AgentEntry) -> None:
    await apply_files(bench.broker, FilesRequest(agents=agents, accept=accept), who)


def named(bench: Bench, name: str) -> Agent:
    (agent,) = bench.broker.registry.agents_named(name)
    return agent


async def registered(oscar: Elsewhere, name: str, **more: Any) -> str:
    """Have an operator register an agent without scopes; return its id."""
    answer = await oscar.post("/api/agents", name=name, owner="o", **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    "files",
    [{"newbot": PAYER}, {"payer": BOT}],
    ids=["its own scopes", "delegated to it"],
)
async def test_files_grant_nothing_to_an_agent_that_an_operator_registered(
    bench: Bench, files: dict[str, AgentEntry]
) -> None:
    """Accepted by name, it gets its scopes once, and later files widen them too."""
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        agent = await registered(oscar, "newbot")
        with pytest.raises(ConflictError, match=r"registered by .*, and authenticates"):
            await apply(bench, **files)
        assert named(bench, "newbot").scopes == ()
        await apply(bench, "newbot", **files)
        (event,) = await bench.events("config.applied")
        assert event.detail["accepted"] == [agent]
        wider = AgentEntry(owner="olga", scopes=("read:email", "send:payment"))
        await apply(bench, newbot=wider)
        assert named(bench, "newbot").scopes == wider.scopes


async def test_a_key_of_the_file_replaces_the_operators_secret(bench: Bench) -> None:
    """Then the agent is the file's, and is granted without being accepted."""
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        await registered(oscar, "newbot")
        entry = AgentEntry(owner="olga", scopes=("send:payment",), public_key=KEY)
        await apply(bench, newbot=entry)
        assert named(bench, "newbot").credential.kind == "public_key"


async def test_an_approver_sees_who_registered_an_agent(bench: Bench) -> None:
    """The change names the operator and the credential; a plan notes the same."""
    agents = {"newbot": {"owner": "olga", "scopes": ["send:payment"]}}
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        await registered(oscar, "newbot")
        alice = await signed_in(stand, "approver", "alice")
        refused = await alice.post("/api/files", agents=agents)
        assert refused.status_code == 409
        assert "--accept newbot" in refused.json()["remedy"]
        body = {"agents": agents, "accept": ["newbot"]}
        (note, *_) = (await alice.post("/api/files", **body, plan=True)).json()["notes"]
        assert "who may not grant, and authenticates by its secret" in note
        change = await waits(await alice.post("/api/files", **body))
        assert change["details"]["agents accepted"] == [note]


async def test_an_operator_takes_no_name_of_a_file_or_of_a_removed_agent(
    bench: Bench,
) -> None:
    """Neither the name, nor one that looks alike; an approver may give it again."""
    async with opened(bench) as stand:
        oscar = await signed_in(stand, "operator", "oscar")
        files = {"payer": PAYER, "bot": AgentEntry(owner="olga")}
        wanted = FilesRequest(agents=files, places={"/f": ("payer", "bot")})
        await apply_files(bench.broker, wanted, who)
        gone = await bench.agent("gone")
        await revoke_agent(bench.broker, gone.id, "r", OPERATOR)
        await remove_agent(bench.broker, gone.id, OPERATOR)
        for name in ("bot", "BOT", "gone", "Gone"):
            answer = await oscar.post("/api/agents", name=name, owner="o")
            assert answer.status_code == 409, name
        await bench.agent("gone")


@pytest.mark.parametrize(
    "entry",
    [
        {"thief": AgentEntry(owner="olga", public_key=KEY)},
        {"triage": AgentEntry(owner="olga")},
    ],
    ids=["key", "name"],
)
async def test_a_removed_agent_comes_back_only_if_it_is_accepted(
    bench: Bench, entry: dict[str, AgentEntry]
) -> None:
    """Its name and its key: a thief of that key would be let in again."""
    await apply(bench, triage=AgentEntry(owner="olga", public_key=KEY))
    triage = named(bench, "triage")
    await revoke_agent(bench.broker, triage.id, "stolen", OPERATOR)
    await remove_agent(bench.broker, triage.id, OPERATOR)
    async with bench.restarted() as again:
        with pytest.raises(ConflictError, match="that was revoked and removed"):
            await apply(again, **entry)
        assert again.broker.registry.agents() == []
        await apply(again, *entry, **entry)
        (back,) = again.broker.registry.agents()
        assert back.id != triage.id
        assert not again.broker.registry.serves(triage.id)


async def test_the_key_of_a_removed_agent_is_not_registered_again(bench: Bench) -> None:
    """A person who adds an agent gives it another key."""
    request = AgentRequest(name="triage", owner="o", public_key=KEY)
    made = await register(bench.broker, request, OPERATOR)
    await revoke_agent(bench.broker, made.agent.id, "stolen", OPERATOR)
    await remove_agent(bench.broker, made.agent.id, OPERATOR)
    with pytest.raises(ConflictError, match="revoked and removed"):
        await register(bench.broker, request, OPERATOR)


async def test_an_agent_of_a_file_is_not_removed(bench: Bench) -> None:
    """The next `apply` would register it as an active agent."""
    wanted = FilesRequest(agents={"payer": PAYER}, places={"/f": ("payer",)})
    await apply_files(bench.broker, wanted, who)
    payer = named(bench, "payer")
    await revoke_agent(bench.broker, payer.id, "r", OPERATOR)
    with pytest.raises(ConflictError, match="is in the file /f"):
        await remove_agent(bench.broker, payer.id, OPERATOR)
    left = FilesRequest(places={"/f": ()})
    await apply_files(bench.broker, left, who)
    await remove_agent(bench.broker, payer.id, OPERATOR)


async def test_a_change_ends_if_a_delegate_changes_meanwhile(bench: Bench) -> None:
    """The agents that delegates and templates name are subjects of the change."""
    to = await bench.agent("newbot")
    plan = await bench.agent("plan", template=True)
    agents = {
        "payer": {"owner": "o", "delegates": {"newbot": ["send:payment"]}},
        "child": {"from": "plan"},
    }
    async with opened(bench) as stand:
        alice = await signed_in(stand, "approver", "alice")
        for agent in (to, plan):
            change = await waits(await alice.post("/api/files", agents=agents))
            await revoke_agent(bench.broker, agent.id, "r", OPERATOR)
            approval = {"id": change["id"], "decision": "approve"}
            approval["digest"] = change["digest"]
            late = await alice.post("/api/changes", **approval)
            assert late.status_code == 409, late.text
            agents.pop("payer", None)
