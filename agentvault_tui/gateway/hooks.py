"""Decide tool calls that hooks of agent hosts ask about.

Over the operators' socket a hook runs as the local user, and needs no token; a confined
one shows its run's (`agents_hooks`). It spends approvals of its agent and grants
nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.answers import Denied, Escalated, Permitted
from agentvault_tui.broker.audience import mcp_server_of
from agentvault_tui.broker.authority import Authority
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import (
    body_of,
    local_operator_of,
    operator_of,
    route,
)
from agentvault_tui.broker.socket_factor import asks_factor, note_shared_user
from agentvault_tui.broker.surroundings import LOCAL
from agentvault_tui.broker.usecases.approvals import asked_of
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.broker.usecases.evaluate import Answer, evaluate
from agentvault_tui.broker.usecases.request import refused
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import (
    NotFoundError,
    ServiceError,
    ShareTakenError,
    TooFastError,
)
from agentvault_tui.gateway.body import read_apart
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.counting import stated_twice
from agentvault_tui.gateway.mcp.messages import canonical
from agentvault_tui.gateway.mcp.servers import (
    McpServer,
    McpServers,
    doubts,
    paths_of,
)
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.tools import (
    IN_VAULT,
    ToolActions,
    ToolCall,
    ToolMaps,
    UnmatchedToolError,
    counted_places,
)
from agentvault_tui.model import Action, Actor, Agent, AgentId, Outcome
from agentvault_tui.operator_api.access import ConnectedInfo, HookInfo, HookRequest
from agentvault_tui.operator_api.calls import CONNECTED, HOOK
from agentvault_tui.text import visible

_NOTHING: Final = ToolActions((Action((), ""),))
_BEHIND: Final = "gateway_decides"
_DECIDES: Final = "The gateway decides about this call when it is made."
_A_TURN: Final = 8
"""Actions of one call that are decided before others have their turn."""
_WAIT_S: Final = 20
"""Seconds at most: a hook answers 5 s before the shortest limit of a host, 30 s."""
_LIMITED: Final = "The agent was refused too often: nothing is decided until it pauses."


class HookCaller(NamedTuple):
    """Who asks about a tool call."""

    name: str
    person: Actor | None = None
    """The operator who asks from another machine."""
    session: str = ""
    """Theirs."""


class HookDecider(NamedTuple):
    """Decides tool calls, whichever way a hook asks."""

    broker: Broker
    maps: ToolMaps
    servers: McpServers
    calls: Calls

    async def decide(
        self,
        host: str,
        agent: Agent,
        request: HookRequest,
        by: HookCaller,
        gone: asyncio.Future[Any],
    ) -> HookInfo:
        """Decide one tool call, or leave it to the gateway where that decides it.

        Args:
            host: the agent host.
            agent: the caller.
            request: the call.
            by: who asks, for the record.
            gone: is done when the caller waits no more.
        """
        broker, maps, calls = self.broker, self.maps, self.calls
        await broker.admitting.requests.enter()
        if broker.admitting.floods.limited(agent.id):
            return _slow_down(_LIMITED)
        body = canonical(request.arguments)
        digest = request.arguments_sha256 or hashlib.sha256(body).hexdigest()
        server = _server(broker, maps, self.servers, host, request)
        apart = partial(read_apart, agent.id, len(body))
        does, refusal = await _actions(maps, host, request, server, apart)
        actions = does.actions
        if refusal is None and refused(broker, agent) is None:
            outcome, actions = await self._strictest_first(agent, actions)
            if server is not None and outcome is not Outcome.DENIED:
                # The gateway decides, holds and records the call itself.
                return HookInfo(outcome="allowed", reason=_BEHIND, message=_DECIDES)
            if outcome is Outcome.ESCALATED or does.person:
                refusal = _unshown(body, agent.id, calls)
        about = {"host": host, "tool": request.tool, "arguments_sha256": digest}
        about |= {"asked_by": by.name, **({"session": by.session} if by.person else {})}
        wait = min(broker.settings.gateway.hook_wait, _WAIT_S) if request.wait else 0
        decide = partial(
            evaluate,
            *(broker, agent, actions[0]),
            about=about,
            refusal=refusal,
            gone=gone,
            call=_described(host, request.tool, body),
            held=lambda stepup_id: calls.bodies.keep(agent.id, stepup_id, body),
            source=LOCAL,
            others=actions[1:],
            person=does.person,
            asked_by=by.person,
        )
        try:
            answer = await _answer(decide, wait)
        except TooFastError as error:
            return _slow_down(error.diagnosis())
        if not isinstance(answer, Permitted):
            broker.admitting.floods.refused(agent.id)
        return _info(answer)

    async def _strictest_first(
        self, agent: Agent, actions: Sequence[Action]
    ) -> tuple[Outcome, tuple[Action, ...]]:
        """Return how policy would answer a call now, and its actions in order.

        Record and approval page name the first: of those with the strictest answer the
        riskiest, of these the one that most people have to approve.
        """
        broker, ranks = self.broker, list[tuple[int, int, int]]()
        for number, one in enumerate(actions, 1):
            verdict = foresee(broker, agent, one, LOCAL)
            asks = asked_of(broker, " ".join(one.scopes), verdict.risk, [agent.id])
            rank = verdict.outcome.strictness, verdict.risk.rank, asks["need"]
            ranks.append(rank)
            if number % _A_TURN == 0:
                await broker.admitting.requests.enter()
        order = sorted(range(len(actions)), key=ranks.__getitem__, reverse=True)
        outcome = next(o for o in Outcome if o.strictness == ranks[order[0]][0])
        return outcome, tuple(actions[place] for place in order)


def routes(decider: HookDecider, authority: Authority) -> list[Route]:
    """Return the route that hooks ask at."""
    broker = decider.broker

    async def hook(request: Request) -> HookInfo:
        """Decide one tool call for the local user, or an operator elsewhere."""
        body = await body_of(request, HookRequest, deep=True)
        agent, seat = _agent(broker, body.agent), operator_of(request)
        await note_shared_user(broker, seat)
        by = HookCaller(seat.name)
        if authority.is_elsewhere(seat):
            person = authority.named(seat)
            by = HookCaller(person.name, person, seat.id)
        gone = asyncio.ensure_future(request.receive())
        try:
            host = request.path_params["host"]
            return await decider.decide(host, agent, body, by, gone)
        finally:
            gone.cancel()

    return [route(HOOK, hook), _connected_route(broker)]


def _connected_route(broker: Broker) -> Route:
    async def connected(request: Request) -> ConnectedInfo:
        """Note that an agent host was configured for the local user."""
        operator = local_operator_of(request)
        await note_shared_user(broker, operator)
        return ConnectedInfo(factor=await asks_factor(broker))

    return route(CONNECTED, connected)


def _slow_down(message: str) -> HookInfo:
    return HookInfo(outcome="denied", reason="slow_down", message=message)


async def _answer(decide: Callable[..., Awaitable[Answer]], wait: float) -> Answer:
    """Decide, and wait for a person if the agent has a place to wait in."""
    try:
        return await decide(wait=wait)
    except ShareTakenError:
        return await decide()  # it waits, and the host asks again


def _agent(broker: Broker, word: str) -> Agent:
    """Return the agent whose id, or else whose name, is *word*.

    Raises:
        NotFoundError: there is none, or the name is not unique.
    """
    if agent := broker.registry.find_agent(word):
        return agent
    named = broker.registry.agents_named(word)
    if len(named) != 1:
        raise NotFoundError(
            f"there is no agent '{visible(word, 60)}', or more than one",
            "`agentvault agents list` names them",
        )
    return named[0]


def _server(
    broker: Broker, maps: ToolMaps, servers: McpServers, host: str, body: HookRequest
) -> McpServer | None:
    """Return the gateway's MCP server whose tool is called, if it is one.

    None as well where the host's map names the tool: that rule goes first. The name is
    what the host calls the server, which another server may be called as well.
    """
    if "/" in body.mcp_server:
        server = servers.get(mcp_server_of(body.mcp_server, broker.admitting.url) or "")
    else:
        server = servers.get(body.mcp_server)
    if server is not None:
        with suppress(ServiceError, NotFoundError):
            rules = maps.of(host).rules
            return None if any(r.pattern == body.tool for r in rules) else server
    return None


async def _actions(
    maps: ToolMaps,
    host: str,
    body: HookRequest,
    server: McpServer | None,
    apart: Callable[..., Awaitable[Any]],
) -> tuple[ToolActions, tuple[str, str] | None]:
    """Return the actions of a call, and the reason if policy is not asked about it.

    Args:
        maps: of all hosts.
        host: the host of the call.
        body: the call.
        server: the gateway's MCP server of the tool, if it has one.
        apart: calls a function on the arguments; see `read_apart`.
    """
    call = ToolCall(
        body.tool,
        body.arguments,
        frozenset(body.omitted),
        body.places,
        body.commands,
    )
    if body.reaches_vault:
        return _NOTHING, ("agentvault_home", IN_VAULT)
    try:
        if server is not None:
            rule = server.rule_of(body.mcp_tool)
            given, paths = body.arguments, paths_of(rule)
            places = counted_places(rule)
            other, unclear, answered = await apart(doubts, paths, places, given)
            action = server.action_of(
                *(rule, body.mcp_tool, given),
                other=other,
                unclear=unclear,
                answered=answered,
            )
            return ToolActions((action,)), None
        tools = maps.of(host)
        if places := counted_places(tools.rule_of(body.tool)):
            unclear = await apart(stated_twice, places, body.arguments)
            call = replace(call, unclear=unclear)
        does = tools.actions_of(call)
    except UnmatchedToolError as error:
        return _NOTHING, (error.reason, error.message)
    except CallRefusedError as error:  # they take too long to read
        return _NOTHING, (error.reason, error.text)
    except ServiceError as error:
        return _NOTHING, ("host_not_mapped", error.diagnosis())
    # The digest of an approval covers where the call runs, and each argument that is
    # not shown whole.
    more: dict[str, Any] = {"cwd": body.cwd} if body.cwd else {}
    if body.omitted:
        more |= {"cut": list(body.omitted), "arguments_sha256": body.arguments_sha256}
    actions = (
        replace(one, parameters=one.parameters | more, reason=body.reason or None)
        for one in does.actions
    )
    return does._replace(actions=tuple(actions)), None


def _unshown(body: bytes, agent_id: AgentId, calls: Calls) -> tuple[str, str] | None:
    """Return why no person can be asked, who has to be shown every argument."""
    try:
        calls.bodies.check(agent_id, len(body))
    except CallRefusedError as error:
        return error.reason, error.text
    return None


def _described(host: str, tool: str, body: bytes) -> str:
    """Return the subject of a person's decision, as `StepUp.request_json` has it."""
    return to_json(
        {
            "method": "call",
            "url": f"hook://{host}/{tool}",
            "headers": {},
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "body_bytes": len(body),
            "body_kind": "json",
            "body_type": "application/json",
        }
    )


def _info(answer: Permitted | Denied | Escalated) -> HookInfo:
    match answer:
        case Permitted(reason, message, decision_id):
            outcome, stepup_id = "allowed", None
        case Denied(reason, message, decision_id):
            outcome, stepup_id = "denied", None
        case Escalated():
            outcome, reason = "escalated", "stepup_required"
            stepup_id, message = answer.stepup.id, answer.stepup.why
            decision_id = answer.decision_id
    return HookInfo(
        outcome=outcome,
        reason=reason,
        message=message,
        decision_id=decision_id,
        auth_req_id=stepup_id,
    )
