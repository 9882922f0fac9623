"""Templates, and agents made from one, as files say them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET, convert
from support.bench import OPERATOR, Bench

from agentvault_tui.broker.answers import Granted
from agentvault_tui.broker.usecases.apply import (
    GONE,
    FilesApplied,
    FilesPlan,
    apply_files,
    plan_files,
)
from agentvault_tui.broker.usecases.apply_entries import files_of
from agentvault_tui.broker.usecases.policy_apply import edits_of
from agentvault_tui.broker.usecases.redeem import introspect
from agentvault_tui.broker.usecases.register import register
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.revoke import TEMPLATE_REVOKED, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.ledger import verify_ledger
from agentvault_tui.ledger.query import read_applied
from agentvault_tui.model import Action, Actor, Agent, AgentStatus
from agentvault_tui.operator_api.files import FilesRequest
from agentvault_tui.operator_api.requests import AgentRequest

KEY = '{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}'
READ, BOTH = ("read:calendar",), ("read:calendar", "write:calendar")
NONE = frozenset[str]()
DEPLOY = {
    "deploy": {"owner": "olga", "purpose": "ships", "scopes": READ, "template": True},
    "eu": {"from": "deploy", "public_key": KEY},
    "us": {"from": "deploy", "purpose": "ships to the US"},
}


def files(agents: dict[str, Any], prune: int | None = None) -> FilesRequest:
    more = {} if prune is None else {"prune": prune}
    return convert({"agents": agents, **more}, FilesRequest)


async def operator(_: bool) -> Actor:
    return OPERATOR


async def apply(
    bench: Bench, agents: dict[str, Any], prune: int | None = None
) -> FilesApplied:
    return await apply_files(bench.broker, files(agents, prune), operator)


async def plan(bench: Bench, wanted: FilesRequest) -> FilesPlan:
    edits, came = (
        await edits_of(bench.broker, wanted),
        await bench.ledger.read(read_applied),
    )
    return await plan_files(bench.broker, wanted, came, edits)


def named(bench: Bench, name: str) -> Agent:
    (agent,) = bench.broker.registry.agents_named(name)
    return agent


def changed(agents: dict[str, Any], name: str, **members: Any) -> dict[str, Any]:
    return {**agents, name: {**agents[name], **members}}


async def test_agents_are_made_from_a_template_of_the_same_files(bench: Bench) -> None:
    """Whatever the order, in one commit that verifies; applied again it is the same."""
    await apply(bench, dict(reversed(DEPLOY.items())))
    template, eu, us = (named(bench, name) for name in DEPLOY)
    assert template.status is AgentStatus.TEMPLATE
    for one in (eu, us):
        assert (one.owner, one.scopes, one.status) == ("olga", READ, AgentStatus.ACTIVE)
        assert one.from_template == template.id
    assert (eu.purpose, us.purpose) == ("ships", "ships to the US")
    assert not await plan(bench, files(DEPLOY))
    async with bench.restarted() as again:
        assert again.broker.health.state_problem is None
        assert not await plan(again, files(DEPLOY))
        await revoke_agent(again.broker, template.id, "", OPERATOR)
        assert named(again, "eu").status is AgentStatus.REVOKED
    assert verify_ledger(bench.home, now=bench.clock.now()).ok


async def test_what_is_exported_says_what_differs_from_the_template(
    bench: Bench,
) -> None:
    """Alone that, and applied it makes no difference, with no scope left either."""
    await apply(bench, DEPLOY)
    for name, grant, ungrant in (("eu", NONE, READ), ("us", BOTH, NONE)):
        agent = named(bench, name)
        await change_scopes(
            bench.broker, agent.id, frozenset(grant), frozenset(ungrant), OPERATOR
        )
    found = await files_of(bench.broker)
    assert found.left_out == ()
    eu, us = found.agents["eu"], found.agents["us"]
    assert (eu.from_template, eu.owner, eu.purpose) == ("deploy", UNSET, UNSET)
    assert (eu.scopes, us.scopes, us.purpose) == ((), BOTH, "ships to the US")
    assert found.agents["deploy"].template
    assert not await plan(bench, FilesRequest(agents=found.agents))


async def test_agents_follow_their_template_where_files_say_no_more(
    bench: Bench,
) -> None:
    """A scope that its file gives, or takes, is given and taken of all of them."""
    await apply(bench, changed(DEPLOY, "us", scopes=READ))
    token = await request_token(
        *(bench.broker, named(bench, "eu"), Action(READ, READ[0])),
        resource=None,
        details=None,
    )
    assert isinstance(token, Granted)
    wider = changed(changed(DEPLOY, "us", scopes=READ), "deploy", scopes=BOTH)
    found = await plan(bench, files(wider))
    assert found.widens
    assert [one.after.name for one in found.changes] == ["deploy", "eu"]
    await apply(bench, changed(DEPLOY, "deploy", scopes=("write:calendar",)))
    assert named(bench, "eu").scopes == ("write:calendar",)
    server = await bench.agent("server", resource_server=True)
    assert (await introspect(bench.broker, server, token.access_token)).token is None


async def test_delegates_are_the_templates_too(bench: Bench) -> None:
    """Whom it passes on to, all that are made from it pass on to."""
    agents = changed(DEPLOY, "deploy", delegates={"mail": READ})
    await apply(bench, {**agents, "mail": {"owner": "olga", "scopes": READ}})
    mail = named(bench, "mail").id
    assert [named(bench, one).may_pass_on(mail) for one in DEPLOY] == [{*READ}] * 3


async def test_an_agent_ends_no_later_than_its_template(bench: Bench) -> None:
    """Whatever its own entry says."""
    soon, late = "2026-11-25T10:00:00Z", "2026-11-26T10:00:00Z"
    agents = changed(DEPLOY, "deploy", until=soon)
    await apply(bench, changed(agents, "eu", until=late))
    ends = [named(bench, one).until for one in DEPLOY]
    assert len({end and end.wall for end in ends}) == 1


@pytest.mark.parametrize(
    ("agents", "told"),
    [
        ({"a": {"from": "none"}}, "no file names and which is not registered"),
        ({"a": {"from": "plain"}}, "a template is made from none"),
        ({"a": {"from": "mould", "template": True}}, "a template is made from none"),
        ({"a": {"from": "a"}}, "no file names and which is not registered"),
        ({"plain": {"owner": "o", "template": True}}, "never changes"),
        ({"mould": {"owner": "o"}}, "never changes"),
        ({"plain": {"from": "mould"}}, "never changes"),
        (
            {"mould": {"owner": "o", "template": True, "public_key": KEY}},
            "neither authenticates nor serves",
        ),
        (
            {"mould": {"owner": "o", "template": True, "serves": READ}},
            "neither authenticates nor serves",
        ),
        ({"a": {"from": "over"}}, "the template over is revoked"),
        ({"a": {"scopes": READ}}, "who answers for this agent"),
    ],
)
async def test_what_cannot_be_is_refused_whole(
    bench: Bench, agents: dict[str, Any], told: str
) -> None:
    """No agent of the files comes then."""
    await bench.agent("plain", *READ)
    await bench.agent("mould", *READ, template=True)
    over = await bench.agent("over", *READ, template=True)
    await revoke_agent(bench.broker, over.id, "", OPERATOR)
    count = len(bench.broker.registry.agents())
    with pytest.raises(UsageError) as refused:
        await apply(bench, {**DEPLOY, **agents})
    assert told in refused.value.diagnosis()
    assert len(bench.broker.registry.agents()) == count


async def test_a_template_that_is_gone_is_counted_with_what_is_made_from_it(
    bench: Bench,
) -> None:
    """Agents that no file ever named too: pruning it ends them, and their tokens."""
    await apply(bench, DEPLOY)
    template = named(bench, "deploy")
    made = AgentRequest(name="other", from_template=template.id)
    other = (await register(bench.broker, made, OPERATOR)).agent
    answer = await apply(bench, {})
    assert [one.name for one in answer.plan.gone] == ["deploy", "eu", "other", "us"]
    with pytest.raises(ConflictError, match="are 4: deploy, eu, other, us"):
        await apply(bench, {}, prune=3)
    left = {"eu": {"from": "deploy", "public_key": KEY}}
    with pytest.raises(ConflictError, match="ends with its template"):
        await apply(bench, left, prune=4)
    assert bench.broker.registry.lifetimes.is_active(other.id)
    await apply(bench, {}, prune=4)
    status = {bench.broker.registry.agent(one.id).status for one in answer.plan.gone}
    assert status == {AgentStatus.REVOKED}
    why = {one.agent_id: one.reason for one in await bench.events("agent.revoked")}
    assert why[other.id] == TEMPLATE_REVOKED
    assert why[template.id] == GONE
    assert verify_ledger(bench.home, now=bench.clock.now()).ok
