"""The gateway's own answers in MCP: refusals, held calls, reduced lists."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from agentvault_tui.gateway.config_folder import DENY
from agentvault_tui.gateway.mcp.errors import DENIED, INTERNAL_ERROR, McpError
from agentvault_tui.gateway.mcp.members import TASKS
from agentvault_tui.gateway.mcp.messages import (
    CALL,
    LEGACY,
    MODERN,
    STATE,
    Envelope,
    Message,
    ResultMarks,
    answer,
    failed,
    member_of,
    read_answer,
)
from agentvault_tui.gateway.mcp.servers import McpServer
from agentvault_tui.gateway.mcp.tool_names import ToolNames
from agentvault_tui.gateway.mcp.tool_schemas import MOST_TOOLS
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.model import Agent, StepUp, StepUpStatus
from agentvault_tui.web.service_connection import UpstreamError

CHECK: Final = "agentvault_check"
"""The tool that returns the state of a held call."""
_META: Final = "agentvault.dev/refusal"
_MOST_NAMED: Final = 30
_CHECK_TOOL: Final = {
    "name": CHECK,
    "title": "Check a held call",
    "description": (
        "Tells how a call that AgentVault holds for a person stands. Give the "
        "auth_req_id of its result. Once it is approved, make exactly the same call "
        "again: it goes through once."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {"auth_req_id": {"type": "string"}},
        "required": ["auth_req_id"],
    },
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}
_STANDS: Final = {
    StepUpStatus.PENDING: "A person has not decided yet. Check again in a while.",
    StepUpStatus.AUTHORIZING: "A person is deciding just now. Check again soon.",
    StepUpStatus.APPROVED: (
        "A person approved it: make exactly the same call again, and it goes through, "
        "once."
    ),
    StepUpStatus.REDEEMED: "It was approved, and has been sent. Ask again for another.",
    StepUpStatus.DENIED: "A person denied it. Do not repeat it.",
    StepUpStatus.EXPIRED: "Nobody decided in time, or it was not sent in time.",
    StepUpStatus.CANCELLED: "It was cancelled.",
}


def encoded(value: object) -> Raw:
    """Return *value* as JSON that is sent as it is."""
    return Raw(msgspec.json.encode(value))


def failure(text: str, members: dict[str, object]) -> Raw:
    """Return a result that the model reads as an error: a sentence, and its members."""
    facts = {name: value for name, value in members.items() if value is not None}
    shown = [text, msgspec.json.encode(facts).decode()]
    return encoded(
        {
            "content": [{"type": "text", "text": one} for one in shown],
            "isError": True,
            "_meta": {_META: facts},
        }
    )


def refusal(
    server: McpServer, agent: Agent, refused: CallRefusedError, message: Message
) -> Envelope:
    """Return the answer to a refused call: the reason, and the allowed tools."""
    members = {
        "error": refused.error,
        "reason": refused.reason,
        "decision_id": refused.decision_id,
        **refused.more,
    }
    held = refused.more.get("auth_req_id")
    if held:
        text = (
            f"AgentVault holds this call for a person. Its auth_req_id is {held}: ask "
            f"the tool {CHECK} how it stands. Once it is approved, make exactly the "
            "same call again: it goes through once."
        )
    else:
        why = refused.text.rstrip(".")
        text = f"AgentVault refused this call: {why}."
        if refused.status != 503:
            text += f" {_allowed(server, agent)}"
    if message.method != CALL:
        return failed(McpError(DENIED, text, members), message.id)
    return answer(message.id, result=failure(text, members))


def input_required(stepup_id: str, message: Message) -> Envelope:
    """Return the answer by which a held call's client asks its user to wait for it.

    The state needs no seal: like `AgentVault-Request` it names a step-up, which counts
    for its own agent and bytes alone, once.
    """
    text = (
        f"AgentVault holds this call until a person approves {stepup_id}: in "
        "`agentvault console`, or by `agentvault stepup approve`. Accept to wait."
    )
    schema = {"type": "object", "properties": {}}
    params = {"mode": "form", "message": text, "requestedSchema": schema}
    result = {
        "resultType": "input_required",
        "inputRequests": {STATE: {"method": "elicitation/create", "params": params}},
        "requestState": f"{STATE}{stepup_id}",
    }
    return answer(message.id, result=encoded(result))


def _allowed(server: McpServer, agent: Agent) -> str:
    names = [r.pattern for r in server.tools.rules if r.scope in agent.scopes]
    if server.tools.unmatched in agent.scopes:
        names.append("others")
    if not names:
        return "This agent may call no tool of this server."
    more = ", …" if len(names) > _MOST_NAMED else ""
    return f"This agent may call: {', '.join(names[:_MOST_NAMED])}{more}."


def upstream_failure(error: UpstreamError, message: Message) -> Envelope:
    """Return the answer to a call that went out, and to which no answer came."""
    members: dict[str, object] = {"error": error.code}
    text = f"The call was sent or tried, and no result came back: {error.text}."
    if message.method != CALL:
        return failed(McpError(INTERNAL_ERROR, text, members), message.id)
    return answer(message.id, result=failure(text, members))


def standing(stepup: StepUp, status: StepUpStatus) -> Raw:
    """Return the state of a held call."""
    members: dict[str, Any] = {
        "auth_req_id": stepup.id,
        "status": status.value,
        "action": stepup.action,
        "resource": stepup.resource,
    }
    text = _STANDS[status]
    if status is StepUpStatus.DENIED and stepup.denial:
        text = f"{text} They say: {stepup.denial}"
    shown = [text, msgspec.json.encode(members).decode()]
    return encoded({"content": [{"type": "text", "text": one} for one in shown]})


def complete(result: Raw, *, modern: bool) -> Raw:
    """Return a result with the members its era requires; the server's own stay."""
    if not modern:
        return result
    with suppress(ValueError):
        if ResultMarks.of(result).resultType is None:
            members = bytes(result).strip()[1:-1].strip()
            kind = b'{"resultType":"complete"'
            return Raw(b"%b,%b}" % (kind, members) if members else kind + b"}")
    return result


def progress(params: Raw) -> Envelope:
    """Return a notification of progress."""
    return {
        "jsonrpc": Raw(b'"2.0"'),
        "method": Raw(b'"notifications/progress"'),
        "params": params,
    }


def held_note(token: str | int, number: int, stepup_id: str) -> Envelope:
    """Return the note for a client while its call is held."""
    message = f"Waiting for a person to decide about {stepup_id}"
    return progress(
        encoded({"progressToken": token, "progress": number, "message": message})
    )


def is_error(envelope: Envelope) -> bool:
    """Check whether a server answered with an error, of JSON-RPC or of its tool."""
    if "error" in envelope:
        return True
    with suppress(ValueError):
        return ResultMarks.of(envelope["result"]).isError == Raw(b"true")
    return False


def listed(
    result: bytes, names: ToolNames, allowed: frozenset[int], *, modern: bool
) -> bytes:
    """Return a list of tools without those that are denied, and with ours.

    It may take long: call it by `read_apart`.

    Args:
        result: the server's; each tool stays as it wrote it.
        names: finds the rule of a tool.
        allowed: the places of the rules that the agent may use.
        modern: whether results state how long, and for whom, they may be cached.
    """
    try:
        members = read_answer(result)
        tools = msgspec.json.decode(members.get("tools", b"[]"), type=list[Envelope])
    except (ValueError, msgspec.DecodeError):
        return b'{"tools":[]}'
    served: list[object] = [
        tool
        for tool in tools[:MOST_TOOLS]
        if (name := member_of(tool, "name", str))
        and name != CHECK
        and names.find(name) in allowed
    ]
    if members.get("nextCursor", Raw(b"null")) == Raw(b"null"):
        served.append(_CHECK_TOOL)
    members["tools"] = encoded(served)
    if modern:
        members["cacheScope"] = encoded("private")
        members.setdefault("ttlMs", encoded(0))
        members.setdefault("resultType", encoded("complete"))
    return msgspec.json.encode(members)


_UNSERVED: Final = frozenset({"logging", "tasks"})


def serves(server: McpServer, family: str) -> bool:
    """Check whether any request of a *family* such as ``resources`` is allowed."""
    return server.tools.unmatched != DENY or any(
        rule.pattern.startswith(f"{family}/") for rule in server.tools.rules
    )


class Greeting(NamedTuple):
    """A server's description of itself, as its clients get it."""

    result: bytes
    version: str | None
    """The version that it agrees to, in an era with a handshake."""
    versions: list[str] | None
    """The versions that it has, in the era without; of those that are served."""


def read_greeting(result: bytes, served: frozenset[str]) -> Greeting:
    """Read a server's greeting, without the capabilities that end at the gateway.

    Nothing is sent unasked, so no list announces its changes. It may take long: call
    it by `read_apart`.

    Args:
        result: the server's.
        served: the families of requests that are allowed.
    """
    members = read_answer(result)
    try:
        offered = read_answer(bytes(members.get("capabilities", b"{}")))
    except ValueError:
        offered = {}
    capabilities: dict[str, object] = {"tools": {}}
    for name, value in offered.items():
        if name in {"tools", "resources", "prompts"}:
            if name == "tools" or name in served:
                capabilities[name] = _unannounced(value)
        elif name == "completions":
            if "completion" in served:
                capabilities[name] = value
        elif name == "extensions":
            with suppress(ValueError):
                inner = read_answer(bytes(value))
                inner.pop(TASKS, None)
                capabilities[name] = inner
        elif name not in _UNSERVED:
            capabilities[name] = value
    versions = None
    with suppress(KeyError, msgspec.DecodeError):
        every = msgspec.json.decode(members["supportedVersions"], type=list[str])
        versions = [one for one in every if one in {MODERN, *LEGACY}]
    if versions is not None:
        members["supportedVersions"] = encoded(versions)
    members["capabilities"] = encoded(capabilities)
    version = member_of(members, "protocolVersion", str)
    return Greeting(msgspec.json.encode(members), version, versions)


def _unannounced(value: Raw) -> Envelope:
    with suppress(ValueError):
        members = read_answer(bytes(value))
        for name in ("listChanged", "subscribe"):
            members.pop(name, None)
        return members
    return {}
