"""What files say of agents is put in force in one commit, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from support.bench import OPERATOR, PAYMENT, Bench
from support.stepups import Gate, hold

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.issuers import Issuers
from agentvault_tui.broker.recovery import record_missed
from agentvault_tui.broker.registry import Registry
from agentvault_tui.broker.usecases.apply import (
    FilesApplied,
    FilesPlan,
    apply_files,
    plan_files,
)
from agentvault_tui.broker.usecases.apply_entries import files_of
from agentvault_tui.broker.usecases.delegate import change_delegates
from agentvault_tui.broker.usecases.policy_apply import TextEdits, edits_of
from agentvault_tui.broker.usecases.redeem import introspect
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import restore_agent, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.clock import Deadline
from agentvault_tui.errors import ConflictError, LedgerUnwritableError, UsageError
from agentvault_tui.ledger.query import read_applied
from agentvault_tui.model import (
    Action,
    Actor,
    Agent,
    AgentId,
    AgentStatus,
    Credential,
    Delegate,
    EventType,
    StepUpStatus,
    new_id,
)
from agentvault_tui.operator_api.files import AgentEntry, FilesInfo, FilesRequest
from agentvault_tui.operator_api.requests import AgentRequest
from agentvault_tui.policy import PolicyTexts
from agentvault_tui.settings import IssuerSettings

KEY = '{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
CALENDAR = Action(scopes=("read:calendar",), action="read:calendar")
BOTH = ("read:calendar", "write:calendar")
NONE: frozenset[str] = frozenset()
T = TypeVar("T")
NO_TEXTS = TextEdits({}, None, PolicyTexts(), None)
START = datetime(2026, 11, 24, tzinfo=UTC)


def files(prune: int | None = None, /, **agents: dict[str, Any]) -> FilesRequest:
    """Return what files say of agents, each with an owner."""
    said = {
        name.replace("_", "-"): AgentEntry(**({"owner": "olga"} | entry))
        for name, entry in agents.items()
    }
    if prune is None:
        return FilesRequest(agents=said)
    return FilesRequest(agents=said, prune=prune)


async def operator(_: bool) -> Actor:
    return OPERATOR


async def apply(bench: Bench, wanted: FilesRequest) -> FilesApplied:
    return await apply_files(bench.broker, wanted, operator)


async def plan(bench: Bench, wanted: FilesRequest | FilesInfo) -> FilesPlan:
    if isinstance(wanted, FilesInfo):
        limits = UNSET if wanted.limits is None else wanted.limits
        wanted = FilesRequest(agents=wanted.agents, limits=limits)
    edits = await edits_of(bench.broker, wanted)
    came = await bench.ledger.read(read_applied)
    return await plan_files(bench.broker, wanted, came, edits)


def named(bench: Bench, name: str) -> Agent:
    (agent,) = bench.broker.registry.agents_named(name)
    return agent


async def token(bench: Bench, agent: Agent) -> str:
    granted = await request_token(
        bench.broker, agent, CALENDAR, resource=None, details=None
    )
    assert isinstance(granted, Granted)
    return granted.access_token


async def kinds(bench: Bench, after: int) -> list[str]:
    return [e.type.value for e in await bench.events() if e.seq > after]


TEAM = files(
    planner={
        "scopes": BOTH,
        "public_key": KEY,
        "delegates": {"searcher": ("read:calendar",)},
    },
    searcher={"scopes": ("read:contacts",), "purpose": "finds"},
    api={"serves": ("read:calendar",), "resources": ("calendar:primary",)},
)


async def test_new_agents_stand_as_their_files_say_after_one_commit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All agents come with one commit, which names the digest, and stay."""
    commits: list[int] = []
    commit = bench.ledger.commit

    def counted(*drafts: Any, **more: Any) -> Any:
        commits.append(len(drafts))
        return commit(*drafts, **more)

    monkeypatch.setattr(bench.ledger, "commit", counted)
    done = await apply(bench, TEAM)
    assert len(commits) == 1
    planner, searcher, api = (named(bench, n) for n in ("planner", "searcher", "api"))
    assert planner.scopes == BOTH
    assert planner.credential.public_key == KEY
    assert planner.may_pass_on(searcher.id) == {"read:calendar"}
    assert searcher.purpose == "finds"
    assert searcher.credential == Credential()
    assert api.resource_server
    assert (api.serves, api.resources) == (("read:calendar",), ("calendar:primary",))
    (applied,) = await bench.events("config.applied")
    assert applied.actor == OPERATOR
    assert applied.detail == {
        "digest": done.plan.digest,
        "added": 3,
        "changed": 0,
        "revoked": 0,
        "services": [],
        "limits": False,
    }
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        for agent in (planner, searcher, api):
            assert again.broker.registry.agent(agent.id) == agent


async def test_applied_twice_nothing_is_recorded_the_second_time(bench: Bench) -> None:
    """The same files again are no difference, and no event."""
    first = await apply(bench, TEAM)
    head = bench.ledger.head
    second = await apply(bench, TEAM)
    assert not second.plan
    assert second.plan.digest == first.plan.digest
    assert bench.ledger.head == head


async def test_what_is_taken_away_ends_at_once(bench: Bench) -> None:
    """Tokens and step-ups of a scope that is gone from the file end with the reply."""
    server = await bench.agent("api", resource_server=True)
    agent, stepup = await hold(bench)
    await change_scopes(bench.broker, agent.id, frozenset(BOTH), NONE, OPERATOR)
    secret = await token(bench, named(bench, "payer"))
    head = bench.ledger.head.seq
    scopes = ("read:contacts", "write:calendar")
    await apply(bench, files(payer={"scopes": scopes, "purpose": "tests"}))
    assert (await introspect(bench.broker, server, secret)).token is None
    found = bench.broker.stepups.get(stepup.id)
    assert found.status is StepUpStatus.CANCELLED
    assert named(bench, "payer").scopes == ("read:contacts", "write:calendar")
    assert await kinds(bench, head) == [
        "config.applied",
        "agent.scopes_changed",
        "stepup.cancelled",
        "agent.scopes_changed",
    ]
    async with bench.restarted() as again:
        assert again.broker.registry.tokens_of(agent.id) == []
        assert named(again, "payer").scopes == ("read:contacts", "write:calendar")


async def test_each_field_follows_its_file(bench: Bench) -> None:
    """Owner, purpose, key, kind, what it serves and passes on are as the file says."""
    await apply(bench, TEAM)
    await apply(
        bench,
        files(
            planner={"owner": "pia", "scopes": BOTH, "purpose": "plans"},
            searcher={
                "scopes": ("read:contacts",),
                "public_key": KEY,
                "delegates": {"planner": ("read:contacts",)},
            },
            api={"serves": ("read:contacts",)},
        ),
    )
    planner, searcher, api = (named(bench, n) for n in ("planner", "searcher", "api"))
    assert (planner.owner, planner.purpose) == ("pia", "plans")
    assert planner.credential == Credential()
    assert planner.delegates == ()
    assert searcher.credential.public_key == KEY
    assert searcher.may_pass_on(planner.id) == {"read:contacts"}
    assert (api.serves, api.resources) == (("read:contacts",), ())
    changed = await bench.events("agent.changed")
    assert [e.detail["changed"] for e in changed] == [
        ["owner", "purpose", "credential"],
        ["purpose", "credential"],
    ]
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        assert named(again, "planner") == planner
        assert named(again, "searcher") == searcher


async def test_a_secret_stays_though_no_file_has_it(bench: Bench) -> None:
    """An agent with a secret keeps it; a key in its file takes the secret's place."""
    agent = await bench.agent("secretive", "read:calendar")
    same = {"scopes": ("read:calendar",), "purpose": "tests"}
    assert not await plan(bench, files(secretive=same))
    await apply(bench, files(secretive=same | {"public_key": KEY}))
    credential = bench.broker.registry.agent(agent.id).credential
    assert credential == Credential(public_key=KEY)


async def test_prune_revokes_exactly_so_many(bench: Bench) -> None:
    """Only agents that came by files are gone, and only their number revokes them."""
    await bench.agent("by-hand", "read:calendar")
    await apply(bench, TEAM)
    secret = await token(bench, named(bench, "planner"))
    api = files(api={"serves": ("read:calendar",), "resources": ("calendar:primary",)})
    left = await apply(bench, api)
    assert [one.name for one in left.plan.gone] == ["planner", "searcher"]
    assert not left.plan
    for number in (0, 1, 3):
        with pytest.raises(ConflictError, match="are 2: planner, searcher"):
            await apply(bench, files(number, api={"serves": ("read:calendar",)}))
    assert named(bench, "api").resources == ("calendar:primary",)
    await apply(bench, FilesRequest(agents=api.agents, prune=2))
    for name in ("planner", "searcher"):
        assert named(bench, name).status is AgentStatus.REVOKED
    assert named(bench, "by-hand").status is AgentStatus.ACTIVE
    assert (await introspect(bench.broker, named(bench, "api"), secret)).token is None
    again = await apply(bench, FilesRequest(agents=api.agents, prune=0))
    assert not again.plan


async def test_files_that_name_nobody_revoke_nobody_by_themselves(bench: Bench) -> None:
    """Empty files leave every agent alone until the number is said."""
    await apply(bench, TEAM)
    assert not (await apply(bench, files())).plan
    with pytest.raises(ConflictError, match="are 3"):
        await apply(bench, files(1))
    assert (await apply(bench, files(3))).plan
    agents = bench.broker.registry.agents()
    assert {agent.status for agent in agents} == {AgentStatus.REVOKED}


async def test_a_revoked_agent_is_not_restored(bench: Bench) -> None:
    """Files change what a revoked agent may, say that it is revoked, and no more."""
    await apply(bench, TEAM)
    agent = named(bench, "searcher")
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    done = await apply(bench, TEAM)
    assert not done.plan
    assert "searcher is revoked, and stays so" in done.plan.notes
    wider = dict(TEAM.agents)
    wider["searcher"] = AgentEntry(owner="olga", scopes=BOTH)
    await apply(bench, FilesRequest(agents=wider))
    assert named(bench, "searcher").status is AgentStatus.REVOKED
    assert named(bench, "searcher").scopes == BOTH


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (files(a={"scopes": ("read:nothing",)}), "the agent a: unknown scope"),
        (files(a={"delegates": {"b": BOTH}}), "a delegates to b, which no file names"),
        (files(a={"delegates": {"a": BOTH}}), "passes nothing on to itself"),
        (
            files(a={"delegates": {"b": ("read:nothing",)}}, b={}),
            "a delegates to b: unknown scope",
        ),
        (files(a={"public_key": "-----BEGIN PRIVATE KEY-----"}), "a private key"),
        (files(a={"resources": ("nowhere",)}), "cannot be a resource"),
        (files(known={}, KNOWN={}), "the name KNOWN looks like"),
        (files(one={}, One={}), "the name One looks like one"),
        (files(a={}, b={"serves": ("read:nothing",)}), "the agent b: unknown scope"),
    ],
)
async def test_files_that_cannot_be_are_refused_whole(
    bench: Bench, wanted: FilesRequest, told: str
) -> None:
    """Nothing of files with one fault is put in force, and the fault is named."""
    await bench.agent("known", "read:calendar")
    head = bench.ledger.head
    with pytest.raises(UsageError, match=told):
        await plan(bench, wanted)
    with pytest.raises(UsageError, match=told):
        await apply(bench, wanted)
    assert bench.ledger.head == head
    assert [agent.name for agent in bench.broker.registry.agents()] == ["known"]


async def test_a_circle_of_delegates_is_told(bench: Bench) -> None:
    """A circle may be, as by single commands, and the plan names it."""
    wanted = files(
        a={"delegates": {"b": ("read:calendar",)}},
        b={"delegates": {"c": ("read:calendar",)}},
        c={"delegates": {"a": ("read:calendar",)}},
    )
    (note,) = [
        one for one in (await apply(bench, wanted)).plan.notes if "circle" in one
    ]
    assert {"a", "b", "c"} <= set(note.split())
    assert not await plan(bench, wanted)


async def test_a_scope_the_catalogue_lost_is_no_fault_of_the_file(bench: Bench) -> None:
    """What an agent has already may stand in its file; a new agent may not get it."""
    agent = await bench.agent("old", "read:calendar")
    orphan = bench.broker.registry.agent(agent.id)
    bench.broker.registry.put_agent(
        Agent(**{f: getattr(orphan, f) for f in Agent.__slots__} | {"scopes": ("x:y",)})
    )
    assert not await plan(bench, await files_of(bench.broker))


async def test_a_ledger_that_cannot_write_gives_nothing_and_takes_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken in the commit: no agent comes, no scope is given, what is taken is."""
    agent = await bench.agent("changing", *BOTH)
    secret = await token(bench, agent)
    commit = bench.ledger.commit

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    wanted = files(
        changing={"scopes": ("write:calendar", "read:contacts"), "purpose": "tests"},
        fresh={"scopes": BOTH},
    )
    with pytest.raises(LedgerUnwritableError):
        await apply(bench, wanted)
    assert named(bench, "changing").scopes == ("write:calendar",)
    assert not bench.broker.registry.agents_named("fresh")
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        assert named(again, "changing").scopes == ("write:calendar",)
        assert again.broker.registry.tokens_of(agent.id) == []
        assert not again.broker.registry.agents_named("fresh")
        server = await again.agent("api", resource_server=True)
        assert (await introspect(again.broker, server, secret)).token is None
        assert (await apply(again, wanted)).plan


async def test_a_commit_whose_answer_is_lost_gives_nothing_after_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk though it was said to have failed: what was there is as it was."""
    agent = await bench.agent("changing", *BOTH)
    commit = bench.ledger.commit

    async def lost(written: Any) -> None:
        await written
        raise LedgerUnwritableError("the answer is lost")

    def written(*drafts: Any, **more: Any) -> Any:
        done = commit(*drafts, **more)
        applied = drafts[0].type is EventType.CONFIG_APPLIED
        return asyncio.ensure_future(lost(done)) if applied else done

    monkeypatch.setattr(bench.ledger, "commit", written)
    wider = {"scopes": (*BOTH, "read:contacts"), "purpose": "tests"}
    with pytest.raises(LedgerUnwritableError):
        await apply(bench, files(changing=wider))
    assert named(bench, "changing").scopes == BOTH
    async with bench.restarted() as again:
        assert again.broker.registry.agent(agent.id).scopes == BOTH


async def test_only_taking_away_needs_no_ledger(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruned and narrowed while nothing can be written, and recorded afterwards."""
    await apply(bench, TEAM)
    commit = bench.ledger.commit

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    narrower = files(2, planner={"scopes": ("read:calendar",), "public_key": KEY})
    done = await apply(bench, narrower)
    assert not done.recorded
    assert named(bench, "planner").scopes == ("read:calendar",)
    assert named(bench, "planner").delegates == ()
    assert named(bench, "searcher").status is AgentStatus.REVOKED
    monkeypatch.setattr(bench.ledger, "commit", commit)
    await record_missed(bench.broker)
    async with bench.restarted() as again:
        assert named(again, "planner").scopes == ("read:calendar",)
        assert named(again, "planner").delegates == ()
        assert named(again, "searcher").status is AgentStatus.REVOKED


async def test_a_ledger_that_is_not_writable_refuses_before_anything_ends(
    bench: Bench,
) -> None:
    """Known to be unwritable, files that give are refused whole: nothing is taken."""
    await apply(bench, TEAM)
    bench.ledger.distrust("does not hold")
    with pytest.raises(LedgerUnwritableError):
        await apply(bench, files(planner={"scopes": ("read:contacts",)}))
    assert named(bench, "planner").scopes == BOTH


async def test_an_agent_revoked_while_files_are_recorded_stays_revoked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation holds in memory and on disk; the rest of the files is applied."""
    await apply(bench, TEAM)
    gate = Gate(bench, monkeypatch, EventType.CONFIG_APPLIED)
    wider = dict(TEAM.agents)
    wider["planner"] = AgentEntry(owner="olga", scopes=(*BOTH, "read:contacts"))
    wider["fresh"] = AgentEntry(owner="olga", scopes=BOTH)
    applying = asyncio.create_task(apply(bench, FilesRequest(agents=wider)))
    await gate.reached.wait()
    planner = named(bench, "planner")
    await revoke_agent(bench.broker, planner.id, "rogue", OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError, match="planner was not applied"):
        await applying
    assert named(bench, "planner").status is AgentStatus.REVOKED
    assert named(bench, "planner").scopes == planner.scopes
    assert named(bench, "fresh").scopes == BOTH
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        assert named(again, "planner").status is AgentStatus.REVOKED
        assert named(again, "planner").scopes == planner.scopes
        assert named(again, "fresh").scopes == BOTH


async def test_a_scope_taken_while_files_are_recorded_stays_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and disk agree on the narrower agent."""
    await apply(bench, TEAM)
    gate = Gate(bench, monkeypatch, EventType.CONFIG_APPLIED)
    wider = dict(TEAM.agents)
    wider["searcher"] = AgentEntry(owner="olga", scopes=(*BOTH, "read:contacts"))
    applying = asyncio.create_task(apply(bench, FilesRequest(agents=wider)))
    await gate.reached.wait()
    gone = frozenset({"read:contacts"})
    await change_scopes(bench.broker, named(bench, "searcher").id, NONE, gone, OPERATOR)
    gate.open.set()
    with pytest.raises(ConflictError, match="searcher was not applied"):
        await applying
    assert named(bench, "searcher").scopes == ()
    async with bench.restarted() as again:
        assert named(again, "searcher").scopes == ()


async def test_files_applied_at_once_are_applied_one_after_the_other(
    bench: Bench,
) -> None:
    """Of eight equal ones one changes something; a restore and a grant beside wait."""
    agent = await bench.agent("payer")
    await revoke_agent(bench.broker, agent.id, "", OPERATOR)
    more = dict(TEAM.agents) | {"payer": AgentEntry(owner="olga", scopes=BOTH)}
    wanted = FilesRequest(agents=more)
    done = await asyncio.gather(
        *(apply(bench, wanted) for _ in range(8)),
        restore_agent(bench.broker, agent.id, OPERATOR),
    )
    plans = [bool(one.plan) for one in done if isinstance(one, FilesApplied)]
    assert sorted(plans) == [False] * 7 + [True]
    assert named(bench, "payer").status is AgentStatus.ACTIVE
    assert named(bench, "payer").scopes == BOTH
    assert not await plan(bench, wanted)
    assert len(await bench.events("config.applied")) == 1


async def test_two_new_agents_never_share_a_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is just being recorded is taken."""
    gate = Gate(bench, monkeypatch, EventType.CONFIG_APPLIED)
    applying = asyncio.create_task(apply(bench, files(fresh={})))
    await gate.reached.wait()
    with pytest.raises(ConflictError, match="looks alike"):
        await bench.agent("Fresh", "read:calendar")
    gate.open.set()
    await applying


async def test_past_agents_are_as_files_made_them(bench: Bench) -> None:
    """The time machine shows owner and scopes of before and after."""
    await apply(bench, TEAM)
    before = bench.ledger.head.seq
    await apply(bench, files(searcher={"owner": "pia", "scopes": BOTH}))
    for seq, owner, scopes in (
        (before, "olga", ["read:contacts"]),
        (bench.ledger.head.seq, "pia", list(BOTH)),
    ):
        past = (await bench.read(f"/api/past?seq={seq}")).json()
        found = {agent["name"]: agent for agent in past["agents"]}["searcher"]
        assert (found["owner"], found["scopes"]) == (owner, scopes)


async def test_delegates_to_agents_outside_the_files_stand_by_name(
    bench: Bench,
) -> None:
    """A registered agent may be delegated to without a file of its own."""
    other = await bench.agent("other", "read:calendar")
    await apply(bench, files(a={"delegates": {"other": BOTH}}))
    assert named(bench, "a").may_pass_on(other.id) == set(BOTH)
    await change_delegates(bench.broker, named(bench, "a").id, other.id, NONE, OPERATOR)
    assert await plan(bench, files(a={"delegates": {"other": BOTH}}))


async def test_an_agent_revoked_between_two_cuts_is_not_restored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revoked while tokens of another end in turns, it stays revoked for good."""
    monkeypatch.setattr("agentvault_tui.broker.registry._SLICE", 1)
    first, second = await bench.agent("first", *BOTH), await bench.agent("second")
    for _ in range(3):
        await token(bench, first)
    end_below = bench.broker.end_below
    revoking: list[asyncio.Task[Any]] = []

    def ending(tokens: Any) -> Any:
        if not revoking:
            rogue = revoke_agent(bench.broker, second.id, "rogue", OPERATOR)
            revoking.append(asyncio.create_task(rogue))
        return end_below(tokens)

    monkeypatch.setattr(bench.broker, "end_below", ending)
    wanted = files(
        first={"scopes": ("write:calendar", "read:contacts")},
        second={"scopes": ("read:contacts", "write:calendar")},
        fresh={},
    )
    with pytest.raises(ConflictError, match="meanwhile"):
        await apply(bench, wanted)
    await revoking[0]
    async with bench.restarted() as again:
        for one in (bench, again):
            assert named(one, "second").status is AgentStatus.REVOKED
            assert named(one, "second").scopes == second.scopes
            assert named(one, "first").scopes == ("write:calendar",)
            assert not one.broker.registry.agents_named("fresh")


LIMITS = """
[[limits]]
id = "mails-a-day"
scopes = ["read:email"]
within = "24h"
count = 20
"""


async def test_limits_come_with_the_same_commit(bench: Bench) -> None:
    """They are in force, in the home's file and on record; agents beside them too."""
    wanted = files(a={"scopes": BOTH})
    wanted.limits = LIMITS
    done = await apply(bench, wanted)
    assert "mails-a-day" in bench.broker.deciding.policy.limits.by_id
    assert bench.home.limits_file.read_text() == LIMITS
    applied, changed, registered = [
        e for e in await bench.events() if e.seq > bench.ledger.head.seq - 3
    ]
    assert applied.detail["limits"] is True
    assert (changed.type, changed.actor) == (EventType.POLICY_CHANGED, OPERATOR)
    assert changed.detail["applied"] == done.plan.digest
    assert registered.type is EventType.AGENT_REGISTERED
    assert not await plan(bench, wanted)
    assert not await plan(bench, await files_of(bench.broker))
    assert not await plan(bench, files(a={"scopes": BOTH}))  # absent: they stay
    async with bench.restarted() as again:
        assert again.broker.deciding.state.problem is None
        assert "mails-a-day" in again.broker.deciding.policy.limits.by_id


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LIMITS.replace("count = 20", ""), "counts nothing"),
        (LIMITS.replace("read:email", "read:nothing"), "unknown scope"),
        (LIMITS + LIMITS, "there twice"),
        pytest.param("#" * 300_000, "larger than 256 KiB", id="huge"),
        ("[", "not TOML"),
    ],
)
async def test_broken_limits_refuse_all_of_the_files(
    bench: Bench, text: str, told: str
) -> None:
    """No agent comes with limits that cannot be put in force."""
    wanted = files(a={"scopes": BOTH})
    wanted.limits = text
    with pytest.raises(UsageError, match=told):
        await apply(bench, wanted)
    assert not bench.broker.registry.agents()
    assert not bench.home.limits_file.exists()


async def test_limits_are_not_in_force_where_the_commit_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file nor what is in force changed."""

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerUnwritableError("no space left")

    monkeypatch.setattr(bench.ledger, "commit", broken)
    wanted = files(a={"scopes": BOTH})
    wanted.limits = LIMITS
    with pytest.raises(LedgerUnwritableError):
        await apply(bench, wanted)
    assert not bench.broker.deciding.policy.limits.by_id
    assert not bench.home.limits_file.exists()


async def test_a_linked_limits_file_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    """What a symbolic link points to is not written over."""
    target = tmp_path / "elsewhere.toml"
    target.write_text("")
    bench.home.limits_file.symlink_to(target)
    wanted = files(a={"scopes": BOTH})
    wanted.limits = LIMITS
    with pytest.raises(ConflictError, match="symbolic link"):
        await apply(bench, wanted)
    assert target.read_text() == ""
    assert not bench.broker.registry.agents()


async def test_an_end_comes_from_its_file(bench: Bench) -> None:
    """An agent ends when its file says; without a word in it an end stays."""
    soon, later = "2026-11-25T10:00:00Z", "2026-11-26T12:00:00+02:00"
    await apply(bench, files(a={"until": soon}, b={}))
    assert named(bench, "a").until is not None
    assert not await plan(bench, await files_of(bench.broker))
    assert not await plan(bench, files(a={}, b={}))
    assert not await plan(bench, files(a={"until": "2026-11-25T11:00:00+01:00"}, b={}))
    await apply(bench, files(a={"until": later}, b={"until": soon}))
    ends = {one: named(bench, one).until for one in "ab"}
    assert [end and end.wall.isoformat() for end in ends.values()] == [
        "2026-11-26T10:00:00+00:00",
        "2026-11-25T10:00:00+00:00",
    ]
    changed = await bench.events("agent.changed")
    assert [e.detail["changed"] for e in changed] == [["until"], ["until"]]
    for until, told in (
        ("tomorrow", "is no time"),
        ("2026-11-23T10:00:00Z", "is over"),
    ):
        for name in ("a", "fresh"):
            with pytest.raises(UsageError, match=told):
                await apply(bench, files(**{name: {"until": until}}))
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        bench.clock.advance(86_460)
        assert not again.broker.registry.lifetimes.is_active(named(again, "b").id)
        assert again.broker.registry.lifetimes.is_active(named(again, "a").id)
        ended = files(a={"until": later}, b={"until": soon})
        assert not await plan(again, ended)


def trust_issuer(bench: Bench) -> None:
    """Trust the tokens of an issuer that subjects call ``ci``."""
    issuers = {
        "ci": IssuerSettings(
            issuer="https://ci.example", jwks_file="keys.json", audience="av"
        )
    }
    bench.broker.settings = replace(bench.broker.settings, issuers=issuers)
    bench.broker.admitting.issuers = Issuers(issuers, bench.home, bench.clock)


async def test_subjects_follow_the_files(bench: Bench) -> None:
    """A token of the platform picks the agent of its file, and no two share one."""
    trust_issuer(bench)
    registry = bench.broker.registry

    def holder(subject: str) -> list[str]:
        return [one.name for one in registry.agents_of_subject(f"ci:{subject}")]

    await apply(bench, files(build={"subject": "ci:repo:acme/app:ref:*"}))
    assert holder("repo:acme/app:ref:main") == ["build"]
    for other in ("ci:repo:acme/app:ref:main", "ci:repo:acme/*:ref:main"):
        with pytest.raises(UsageError, match="could be another agent's too"):
            await plan(bench, files(other={"subject": other}))
    both = {"subject": "ci:repo:acme/lib:*"}
    with pytest.raises(UsageError, match="could be another agent's too"):
        await apply(bench, files(one=both, two=both))
    with pytest.raises(UsageError, match="the agent x: "):
        await apply(bench, files(x={"subject": "nowhere:repo:acme/x"}))
    await apply(bench, files(build={"subject": "ci:repo:acme/lib:ref:main"}))
    assert holder("repo:acme/app:ref:main") == []
    assert holder("repo:acme/lib:ref:main") == ["build"]
    await apply(bench, files(build={}))
    assert holder("repo:acme/lib:ref:main") == []
    assert named(bench, "build").credential == Credential()


@pytest.mark.parametrize("kind", [EventType.CONFIG_APPLIED, EventType.AGENT_RESTORED])
async def test_no_subject_is_given_while_one_that_overlaps_is_being_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: EventType
) -> None:
    """A subject that files or a restore give counts for who registers meanwhile."""
    trust_issuer(bench)
    wild = {"subject": "ci:repo:acme/*:ref:main"}
    giving: Coroutine[Any, Any, object]
    if kind is EventType.CONFIG_APPLIED:
        await apply(bench, files(build={}))
        giving = apply(bench, files(build=wild))
    else:
        await apply(bench, files(build=wild))
        await revoke_agent(bench.broker, named(bench, "build").id, "", OPERATOR)
        giving = restore_agent(bench.broker, named(bench, "build").id, OPERATOR)
    other = AgentRequest(
        name="other",
        owner="olga",
        purpose="",
        scopes=BOTH,
        subject="ci:repo:acme/app:ref:*",
    )
    gate = Gate(bench, monkeypatch, kind)
    given = asyncio.create_task(giving)
    await gate.reached.wait()
    registering = asyncio.create_task(register(bench.broker, other, OPERATOR))
    gate.open.set()
    await given
    with pytest.raises(ConflictError, match="could be another agent's too"):
        await registering
    found = bench.broker.registry.agents_of_subject("ci:repo:acme/app:ref:main")
    assert [one.name for one in found] == ["build"]


async def test_payments_still_ask_a_person(bench: Bench) -> None:
    """What files grant is decided by policy like any grant."""
    await apply(bench, files(payer={"scopes": ("send:payment",)}))
    answer = await request_token(
        bench.broker, named(bench, "payer"), PAYMENT, resource=None, details=None
    )
    assert not isinstance(answer, Granted)


_SCOPES = st.sets(st.sampled_from([*BOTH, "send:payment", "read:contacts", "x:gone"]))
_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_NAMES = ("a", "planner-agent", "Ärger", "日本", "b c", '"quoted"', "a.b", "#x")


@st.composite
def _states(draw: st.DrawFn) -> list[Agent]:
    """Draw agents as registering, files and revocations leave them."""
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True))
    ids = [AgentId(new_id("agt")) for _ in names]
    agents = []
    for number, (agent_id, name) in enumerate(zip(ids, names, strict=True)):
        others = [one for one in ids if one != agent_id]
        to = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
        given = [(one, draw(_SCOPES)) for one in to]
        resources = draw(st.sets(st.sampled_from(["a:b", "https://api.example/"])))
        serves = draw(_SCOPES)
        credential = draw(
            st.sampled_from(
                [
                    Credential(),
                    Credential(secret_sha256="0" * 64),
                    Credential(public_key=KEY),
                    Credential(subject=f"gone:repo:acme/{number}"),
                ]
            )
        )
        agents.append(
            Agent(
                id=agent_id,
                client_id=agent_id,
                name=name,
                owner=draw(_TEXT),
                purpose=draw(st.just("") | _TEXT),
                scopes=tuple(sorted(draw(_SCOPES))),
                created_at=START + timedelta(seconds=number),
                status=draw(st.sampled_from((AgentStatus.ACTIVE, AgentStatus.REVOKED))),
                resource_server=bool(serves or resources or draw(st.booleans())),
                serves=tuple(sorted(serves)),
                resources=tuple(sorted(resources)),
                credential=credential,
                until=draw(st.none() | st.just(Deadline(START, 0.5, "boot"))),
                delegates=tuple(
                    sorted(Delegate(i, tuple(sorted(s))) for i, s in given if s)
                ),
            )
        )
    return agents


def at_once(asked: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine does that awaits nothing."""
    with pytest.raises(StopIteration) as done:
        asked.send(None)
    found: T = done.value.value
    return found


@pytest.mark.slow
async def test_what_is_in_force_is_no_difference_from_itself(bench: Bench) -> None:
    """Exported and planned, any state gives an empty plan."""

    @given(_states())
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def check(agents: list[Agent]) -> None:
        registry = bench.broker.registry = Registry(bench.clock)
        for agent in agents:
            registry.put_agent(agent)
        said = at_once(files_of(bench.broker))
        came = frozenset(agent.id for agent in agents)
        wanted = FilesRequest(agents=said.agents)
        found = at_once(plan_files(bench.broker, wanted, came, NO_TEXTS))
        assert not found
        served = [one for one in agents if one.status is AgentStatus.ACTIVE]
        assert sorted(said.agents) == sorted(one.name for one in served)
        assert len(said.left_out) == len(agents) - len(served)
        assert not found.gone

    check()
