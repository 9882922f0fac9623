"""Decide tool calls that hooks of agent hosts ask about, over the operators' socket.

A hook runs as the local user, so the socket is its credential: it needs no token. It
spends approvals of its agent and grants nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.answers import Denied, Escalated, Permitted
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.broker.usecases.evaluate import evaluate
from agentvault_tui.errors import NotFoundError, ServiceError
from agentvault_tui.gateway.tools import ToolCall, ToolMaps, UnmatchedToolError
from agentvault_tui.model import Action, Agent
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import HookInfo, HookRequest
from agentvault_tui.operator_api.shapes import Json
from agentvault_tui.text import visible

_LIMITED = "The agent was refused too often: nothing is decided until it pauses."


def routes(broker: Broker, maps: ToolMaps) -> list[Route]:
    """Return the route that hooks ask at."""

    async def hook(request: Request) -> HookInfo:
        asked = await body_of(request, HookRequest, deep=True)
        host = request.path_params["host"]
        agent = _agent(broker, asked.agent)
        await broker.line.enter()
        if broker.floods.limited(agent.id):
            return HookInfo(outcome="denied", reason="slow_down", message=_LIMITED)
        digest = asked.arguments_sha256 or _digest(asked.arguments)
        action, refusal = _action(maps, host, asked, digest)
        about = {
            "host": host,
            "tool": asked.tool,
            "arguments_sha256": digest,
            "asked_by": operator_of(request).name,
        }
        wait = broker.settings.gateway.hook_wait if asked.wait else 0
        gone = asyncio.ensure_future(request.receive())
        try:
            answer = await evaluate(
                broker,
                agent,
                action,
                about=about,
                refusal=refusal,
                wait=wait,
                gone=gone,
            )
        finally:
            gone.cancel()
        if not isinstance(answer, Permitted):
            broker.floods.refused(agent.id)
        return _info(answer)

    return [route(calls.HOOK, hook)]


def _agent(broker: Broker, word: str) -> Agent:
    """Return the agent whose id, or else whose name, is *word*.

    Raises:
        NotFoundError: there is none, or the name is not unique.
    """
    if found := broker.registry.agent_by_client_id(word):
        return found
    named = broker.registry.agents_named(word)
    if len(named) != 1:
        raise NotFoundError(
            f"there is no agent '{visible(word, 60)}', or more than one",
            "`agentvault agents list` names them",
        )
    return named[0]


def _action(
    maps: ToolMaps, host: str, asked: HookRequest, digest: str
) -> tuple[Action, tuple[str, str] | None]:
    """Return the action of a call, and why it is refused without asking policy."""
    call = ToolCall(asked.tool, asked.arguments, frozenset(asked.omitted))
    try:
        action = maps.of(host).action_of(call)
    except UnmatchedToolError as error:
        return Action((), ""), (error.reason, error.message)
    except ServiceError as error:
        return Action((), ""), ("host_not_mapped", error.diagnosis())
    # All of the call is under the digest of what a person approves, and where it runs.
    action.parameters["arguments_sha256"] = digest
    if asked.cwd:
        action.parameters["cwd"] = asked.cwd
    return action, None


def _digest(arguments: Json) -> str:
    text = json.dumps(arguments, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
