"""Calls of tools: read, decided, recorded, sent once, and reported while held."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any, Final

from agentvault_tui.broker.audience import PREFIX
from agentvault_tui.broker.core import Broker
from agentvault_tui.encoder import to_json
from agentvault_tui.gateway.admission import WAIT, Admission
from agentvault_tui.gateway.body import read_apart
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.forward import preference
from agentvault_tui.gateway.mcp import results
from agentvault_tui.gateway.mcp.errors import (
    INVALID_PARAMS,
    McpError,
    SessionGoneError,
    status_of,
)
from agentvault_tui.gateway.mcp.members import PROTOCOL
from agentvault_tui.gateway.mcp.messages import (
    CALL,
    LEGACY,
    Envelope,
    Message,
    ResultMarks,
    answer,
    member_of,
)
from agentvault_tui.gateway.mcp.relay import AskedMessage, McpRelay
from agentvault_tui.gateway.mcp.servers import (
    McpServer,
    McpServers,
    doubts,
    paths_of,
    unsaid,
)
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.tools import (
    ToolRule,
    UnmatchedToolError,
    counted_places,
)
from agentvault_tui.model import Action, Outcome, StepUpStatus
from agentvault_tui.web.service_connection import UpstreamError

_NOTHING: Final = Action((), "")


class McpCalls:
    """The calls of tools of MCP servers, each a call of the gateway's."""

    def __init__(
        self,
        broker: Broker,
        calls: Calls,
        admission: Admission,
        relay: McpRelay,
        servers: McpServers,
    ) -> None:
        """Take no call yet; see `McpApp` for the arguments."""
        self._broker = broker
        self._calls = calls
        self._admission = admission
        self._relay = relay
        self._servers = servers

    async def check(self, message: AskedMessage) -> Envelope:
        """Return the state of a held call."""
        id_ = message.message.arguments.get("auth_req_id")
        stepup = None
        if isinstance(id_, str):
            stepup = await self._admission.find(id_)
        if stepup is None or stepup.agent_id != message.agent.id:
            shown = results.failure(
                "There is no held call of yours with that auth_req_id.",
                {"error": "access_denied", "reason": "unknown_request"},
            )
        else:
            minted = self._broker.registry.elevated(stepup.id) is not None
            status = stepup.status
            lost = status is StepUpStatus.APPROVED and not minted
            shown = results.standing(stepup, StepUpStatus.EXPIRED if lost else status)
        result = results.complete(shown, modern=message.modern)
        return answer(message.message.id, result=result)

    async def call(self, incoming: AskedMessage) -> None:
        """Take one call through its life, and answer with its result."""
        server, message, writer = incoming.server, incoming.message, incoming.writer
        if not message.named and message.method == CALL:
            raise McpError(INVALID_PARAMS, "the call names no tool")
        waited = message.waited
        asks = message.takes_forms and (waited is None or waited[1])
        call, ended = None, "failed"
        try:
            try:
                call = await self._read_call(incoming)
                envelope = await incoming.attended(self._perform(incoming, call), call)
                ended = "done"
            except CallRefusedError as refusal:
                scoped = refusal.error == "insufficient_scope"
                if refusal.status in {401, 429}:
                    raise
                if scoped and incoming.version >= LEGACY[0]:
                    raise
                held = refusal.more.get("auth_req_id")
                if held and incoming.modern and asks:
                    envelope = results.input_required(f"{held}", message)
                else:
                    envelope = results.refusal(server, incoming.agent, refusal, message)
            except UpstreamError as error:
                envelope = results.upstream_failure(error, message)
            if "result" in envelope and message.method == CALL:
                envelope["result"] = results.complete(
                    envelope["result"], modern=incoming.modern
                )
            if call is not None and ended == "done":
                # In flight until its client has it: a cut ends that too.
                call.on_cut.append(writer.exchange.abort)
                call.check()
            await writer.finish(
                envelope, _error_status(envelope) if incoming.modern else 200
            )
        finally:
            if call is not None:
                # The server had all of it and may have run it; no result came.
                lost = call.sent and ended == "failed"
                self._calls.end(call, "unknown" if lost else ended)

    async def _read_call(self, incoming: AskedMessage) -> Call:
        """Return the call that a request is.

        Raises:
            CallRefusedError: it is no action; recorded.
        """
        server, message = incoming.server, incoming.message
        is_tool = message.method == CALL
        tool = (message.named or "") if is_tool else message.method
        held = message.held()
        detail = _recorded(server, message, tool, held)
        rule = server.rule_of(tool, message.method)
        action = await self._read_action(incoming, rule, tool, detail)
        if is_tool:
            await self._check_schema(incoming, rule)
        described = _described(message.method, tool, detail, server.sha256)
        wait, retry = _waiting(incoming)

        async def body() -> bytes:
            return held

        call = Call(
            caller=incoming.caller,
            service=detail["service"],
            route=rule.pattern if rule is not None else "",
            method=message.method,
            path=tool,
            action=action,
            detail=detail,
            read=body,
            describe=lambda _: described,
            gone=incoming.gone,
            in_force=lambda: self._servers.has(server),
            wait=wait,
            retry=retry,
            audience=incoming.audience,
            unsaid=_unsaid(message, rule),
            meant=rule,
        )
        verdict = incoming.caller.foresee(self._broker, action)
        if call.retry is None and verdict.outcome is not Outcome.DENIED:
            call.retry = self._approved(call, described)
        return call

    async def _read_action(
        self,
        incoming: AskedMessage,
        rule: ToolRule | None,
        tool: str,
        detail: dict[str, Any],
    ) -> Action:
        """Return the action that a request is by *rule*.

        Raises:
            CallRefusedError: it is none; recorded with *detail*.
        """
        message = incoming.message
        given = message.arguments if message.method == CALL else message.params
        paths = paths_of(rule)
        weight, places = message.size if paths else 0, counted_places(rule)
        answers = message.params.get("inputResponses")
        other, unclear, answered = await read_apart(
            incoming.agent.id, weight, doubts, paths, places, given, answers
        )
        try:
            return incoming.server.action_of(
                rule,
                tool,
                given,
                other=other,
                unclear=unclear,
                exact=message.exact,
                answered=answered,
            )
        except UnmatchedToolError as error:
            words = ("access_denied", error.reason, error.message)
            refusal = CallRefusedError(403, *words)
            about = Action((rule.scope,), rule.scope) if rule else _NOTHING
            await self._admission.refuse(incoming.caller, refusal, about, detail)

    async def _check_schema(self, message: AskedMessage, rule: ToolRule | None) -> None:
        """Check a call against the schema of its tool, if its server lists one.

        Args:
            message: of the call.
            rule: of the call, which may name the arguments of several tools.

        Raises:
            McpError: it has an argument that a closed schema does not declare, or from
                which it was decided and that its tool does not declare; or a header
                that differs from the argument that it repeats.
            CallRefusedError: see `McpRelay.read_schema`.
        """
        await message.attended(self._relay.read_schema(message))
        if (schema := message.schema) is not None:
            arguments, weight = message.message.arguments, message.message.size // 8
            await read_apart(
                message.agent.id, weight, schema.check, arguments, paths_of(rule)
            )
            if message.modern:
                schema.check_headers(message.headers, arguments)

    def _approved(self, call: Call, described: str) -> str | None:
        """Return the approval of the same call that was not used yet."""
        broker = self._broker
        for stepup in broker.stepups.approved(call.caller.agent.id):
            if (
                stepup.request_json == described
                and stepup.chain == call.caller.token.chain
                and stepup.action == call.action.action
                and broker.registry.elevated(stepup.id)
            ):
                return stepup.id
        return None

    async def _perform(self, message: AskedMessage, call: Call) -> Envelope:
        """Decide about a call, record it, send it once, and record its result."""
        await self._admission.admit(call)
        session = message.session
        running = asyncio.current_task()
        key = message.message.id
        if session is not None and running is not None:
            session.running[key] = running.cancel
        try:
            envelope = await self._relay.send(message, call)
            call.check()
            call.bytes_in = sum(len(bytes(one)) for one in envelope.values())
            if results.is_error(envelope):
                call.detail["tool_error"] = True
        except (UpstreamError, CallRefusedError) as error:
            call.problem = (
                error.code if isinstance(error, UpstreamError) else error.reason
            )
            call.check()
            raise
        except asyncio.CancelledError:
            call.problem = "cancelled"
            raise
        except (McpError, SessionGoneError):
            call.problem = "upstream_reset"
            raise
        finally:
            if session is not None:
                session.running.pop(key, None)
        return envelope


def _waiting(message: AskedMessage) -> tuple[float | None, str | None]:
    """Return for how long a call waits for a person, and which it tries again."""
    headers, waited = dict(message.headers), message.message.waited
    retry = headers.get(b"agentvault-request")
    wait = preference(headers.get(b"prefer"))
    if wait is None and waited is not None:
        wait = WAIT if waited[1] else 0.0
    return wait, retry.decode("latin-1") if retry else waited and waited[0]


def detail_of(server: str) -> dict[str, Any]:
    """Return the present detail of a call's events."""
    return {
        "service": f"mcp/{server}",
        "server": server,
        "tool": None,
        "arguments_sha256": None,
        "method": "POST",
        "path": PREFIX + server,
        "query": None,
        "body_sha256": None,
        "body_bytes": None,
    }


def _unsaid(message: Message, rule: ToolRule | None) -> tuple[str, ...]:
    """Return the first parts of a call that its action does not state.

    Members with which the protocol describes the client do not count.
    """
    meta = (f"_meta/{name}" for name in message.meta if name not in PROTOCOL)
    if message.method != CALL or rule is None:
        return (*(unsaid(rule, message.params) if rule else ()), *meta)
    more = (name for name in message.params if name not in {"name", "arguments"})
    return (*unsaid(rule, message.arguments), *more, *meta)


def _recorded(
    server: McpServer, message: Message, tool: str, held: bytes
) -> dict[str, Any]:
    """Return the detail of a call's events."""
    detail = detail_of(server.name) | {
        "tool": tool[:200],
        "arguments_sha256": message.sha256,
        "body_sha256": hashlib.sha256(held).hexdigest(),
        "body_bytes": len(held),
    }
    if message.trace:
        detail["trace"] = dict(message.trace)
    if message.dropped:
        detail["dropped"] = list(message.dropped)
    return detail


def _error_status(envelope: Envelope) -> int:
    if "error" not in envelope:
        return 200
    with suppress(ValueError):
        code = ResultMarks.of(envelope["error"]).code
        return status_of(member_of({"code": code}, "code", int) or 0)
    return 200


def _described(
    method: str, tool: str, detail: dict[str, Any], configuration: str
) -> str:
    """Return the content of a person's decision, as `StepUp.request_json` has it.

    With the SHA-256 of the server's file, which has its command or URL: an approved
    call is not sent to another program or place.
    """
    return to_json(
        {
            "method": method,
            "url": f"mcp://{detail['server']}/{tool}",
            "headers": {},
            "body_sha256": detail["body_sha256"],
            "body_bytes": detail["body_bytes"],
            "body_kind": "json",
            "body_type": "application/json",
            "configuration_sha256": configuration,
        }
    )
