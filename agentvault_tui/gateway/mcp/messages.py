"""JSON-RPC messages of MCP: read once and strictly, relayed as they were written.

What policy reads is parsed here; what is sent on is the sender's own JSON, of which
the envelope's id and the progress token alone are replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import rfc8785
from msgspec import Raw

from agentvault_tui import strict_json
from agentvault_tui.web.reply import Header, decode_header

CALL: Final = "tools/call"
MODERN: Final = "2026-07-28"
"""The revision whose requests stand alone."""
LEGACY: Final = ("2025-11-25", "2025-06-18")
"""Revisions with a handshake and sessions, the newest first."""
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
STATE: Final = "agentvault:"
"""How the state of our own ``input_required`` begins, and the name of its request."""
TASKS: Final = "io.modelcontextprotocol/tasks"
_OWN_META: Final = "io.modelcontextprotocol/"
_TRACING: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
DENIED: Final = 4030
CANCELLED: Final = 4990
"""Both are ours, outside of what JSON-RPC and MCP reserve."""
_STATUS: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    -32021: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
_NAMED_BY: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that ``Mcp-Name`` repeats."""
PARAMETER: Final = b"mcp-param-"
"""How headers begin that repeat an argument."""
_COMPACT: Final[dict[str, Any]] = {"sort_keys": True, "separators": (",", ":")}
_NULL: Final = Raw(b"null")
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")
_SEPARATORS: Final = (
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
    ("\x85".encode(), b"\\u0085"),
)

Envelope = dict[str, Raw]
"""A message's members, each as its sender wrote it."""


class McpError(Exception):
    """A message that is answered by a JSON-RPC error."""

    def __init__(
        self, code: int, text: str, data: object = None, *, status: int | None = None
    ) -> None:
        """Keep the error's *code*, message and *data*, and the *status* of HTTP."""
        super().__init__(text)
        self.code = code
        self.text = text
        self.data = data
        self.status = status or _STATUS.get(code, 200)

    def envelope(self, id_: Raw | None) -> Envelope:
        """Return it as the answer to the request *id_*."""
        error = {"code": self.code, "message": self.text}
        if self.data is not None:
            error["data"] = self.data
        return answer(id_, error=Raw(msgspec.json.encode(error)))


def status_of(code: int) -> int:
    """Return the status of HTTP that the modern era gives an error *code*."""
    return _STATUS.get(code, 200)


def answer(id_: Raw | None, **member: Raw) -> Envelope:
    """Return the answer to the request *id_*: its ``result`` or its ``error``."""
    return {"jsonrpc": Raw(b'"2.0"'), "id": id_ or _NULL, **member}


@dataclass(slots=True)
class Message:
    """One JSON-RPC message of a client."""

    envelope: Envelope
    id: Raw | None
    """None for a notification, or an answer to a request of a server."""
    method: str
    """Empty for an answer."""
    params: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        """Return its ``_meta``; empty where it has none."""
        meta = self.params.get("_meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def progress_token(self) -> str | int | None:
        """Return the token under which its sender wants to hear of progress."""
        token = self.meta.get("progressToken")
        usable = isinstance(token, str | int) and not isinstance(token, bool)
        return token if usable else None

    @property
    def takes_forms(self) -> bool:
        """Tell whether its client shows its user a form (client/elicitation)."""
        offered = self.meta.get(_CAPABILITIES)
        elicitation = offered.get("elicitation") if isinstance(offered, dict) else None
        return isinstance(elicitation, dict) and (
            not elicitation or isinstance(elicitation.get("form"), dict)
        )

    def take_state(self) -> tuple[str, bool] | None:
        """Take out what answers an ``input_required`` of ours (basic/patterns/mrtr).

        Returns:
            the step-up whose call is made again, and whether its user waits on; None
            where it answers none of ours, but perhaps one of its server's.
        """
        state = self.params.get("requestState")
        if not isinstance(state, str) or not state.startswith(STATE):
            return None
        answers = self.params.get("inputResponses")
        said = answers.get(STATE) if isinstance(answers, dict) else None
        waits = isinstance(said, dict) and said.get("action") == "accept"
        params = read_answer(bytes(self.envelope["params"]))
        for name in ("requestState", "inputResponses"):
            self.params.pop(name, None)
            params.pop(name, None)
        self.envelope["params"] = Raw(msgspec.json.encode(params))
        return state.removeprefix(STATE), waits

    @property
    def named(self) -> str | None:
        """Return what it names: a tool, a prompt, a resource or a task."""
        value = self.params.get(_NAMED_BY.get(self.method, ""))
        return value if isinstance(value, str) else None

    def held(self) -> bytes:
        """Return what a person decides about: its parameters in one spelling.

        Without what differs between two tries of a client: the progress token, what
        the protocol says about the client, and tracing.
        """
        said = dict(self.params)
        meta = {
            name: value
            for name, value in self.meta.items()
            if name not in _TRACING and not name.startswith(_OWN_META)
        }
        said.pop("_meta", None)
        if meta:
            said["_meta"] = meta
        return canonical(said)

    def as_line(self) -> bytes:
        """Return it as one line, as it was written."""
        return one_line(msgspec.json.encode(self.envelope))

    def relayed(self, id_: int, token: int | None = None) -> bytes:
        """Return it as one line for a server that others use too.

        Args:
            id_: in the place of the client's, which other clients use as well.
            token: in the place of its progress token, for the same reason.
        """
        envelope = {**self.envelope, "id": Raw(b"%d" % id_)}
        offered = self._without_tasks()
        if token is not None or offered is not None:
            params = msgspec.json.decode(self.envelope["params"], type=Envelope)
            meta = msgspec.json.decode(params["_meta"], type=Envelope)
            if token is not None:
                meta["progressToken"] = Raw(b"%d" % token)
            if offered is not None:
                meta[_CAPABILITIES] = Raw(msgspec.json.encode(offered))
            params["_meta"] = Raw(msgspec.json.encode(meta))
            envelope["params"] = Raw(msgspec.json.encode(params))
        return one_line(msgspec.json.encode(envelope))

    def _without_tasks(self) -> dict[str, Any] | None:
        """Return what the client can do, tasks left out; nothing where it has none.

        A task goes on after its call has ended, where no revocation cuts it.
        """
        offered = self.meta.get(_CAPABILITIES)
        if not isinstance(offered, dict):
            return None
        extensions = offered.get("extensions")
        if not isinstance(extensions, dict) or TASKS not in extensions:
            return None
        kept = {name: one for name, one in extensions.items() if name != TASKS}
        return {**offered, "extensions": kept}


def canonical(value: object) -> bytes:
    """Return JSON in one spelling: keys sorted, no space, ASCII."""
    return json.dumps(value, **_COMPACT).encode()


def digest_of(value: object) -> str:
    """Return the SHA-256 of JSON in its one spelling (RFC 8785), in hexadecimal.

    An integer that no double holds is written with all its digits.
    """
    try:
        text = rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.IntegerDomainError:
        text = json.dumps(value, ensure_ascii=False, **_COMPACT).encode()
    return hashlib.sha256(text).hexdigest()


def one_line(text: bytes) -> bytes:
    """Return JSON that no reader takes for two lines.

    Line ends stand between its tokens alone, and separators that some readers end a
    line at stand in strings alone: each has another spelling of the same meaning.
    """
    text = text.translate(_LINE_ENDS)
    if not text.isascii():
        for character, escape in _SEPARATORS:
            text = text.replace(character, escape)
    return text


def read_message(body: bytes) -> Message:
    """Read what a client sent.

    Raises:
        McpError: it is no message of JSON-RPC 2.0, or means two things.
    """
    try:
        value = strict_json.loads(body)
    except (ValueError, RecursionError) as error:
        raise McpError(PARSE_ERROR, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise McpError(INVALID_REQUEST, "the body is not one message of JSON-RPC 2.0")
    try:
        envelope = msgspec.json.decode(body, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise McpError(PARSE_ERROR, "the body is not JSON") from None
    method, params = value.get("method", ""), value.get("params", {})
    id_ = value.get("id")
    if (
        not isinstance(method, str)
        or not isinstance(params, dict)
        or isinstance(id_, bool)
        or not isinstance(id_, str | int | None)
        or ("method" in value) == bool(value.keys() & {"result", "error"})
        or not isinstance(params.get("_meta", {}), dict)
        or (method and "id" in value and id_ is None)
    ):
        raise McpError(INVALID_REQUEST, "the body is not a message as MCP has them")
    return Message(envelope, envelope.get("id") if method else None, method, params)


def check_modern(message: Message, headers: Sequence[Header]) -> None:
    """Check a message of the modern era against its headers.

    A server may go by either, so both must say the same.

    Raises:
        McpError: they do not, or its version is none that is served here.
    """
    said = message.meta.get(VERSION_KEY)
    version = _header(headers, b"mcp-protocol-version")
    if message.id is None:
        return
    if said != version:
        raise _mismatch("MCP-Protocol-Version", version, said)
    if said != MODERN:
        raise unsupported(said, (MODERN, *LEGACY))
    if (method := _header(headers, b"mcp-method")) != message.method:
        raise _mismatch("Mcp-Method", method, message.method)
    name = _header(headers, b"mcp-name")
    if name != message.named and (message.method in _NAMED_BY or name is not None):
        raise _mismatch("Mcp-Name", name, message.named)
    stated = set(_scalars(message.params.get("arguments")))
    for header, value in headers:
        if header.startswith(PARAMETER) and decode_header(value) not in stated:
            shown = header.decode("latin-1")
            raise _mismatch(shown, decode_header(value), "no argument of that value")


def unsupported(requested: object, supported: Sequence[str]) -> McpError:
    """Return the error of a version that is not served, and those that are."""
    data = {"supported": list(supported), "requested": requested}
    return McpError(UNSUPPORTED_VERSION, "unsupported protocol version", data)


def _mismatch(name: str, header: object, body: object) -> McpError:
    text = f"the header {name} and the body differ"
    return McpError(HEADER_MISMATCH, text, {"header": header, "body": body})


def _header(headers: Sequence[Header], name: bytes) -> str | None:
    """Return a header's value, decoded; none where it is said twice."""
    values = [value for header, value in headers if header == name]
    return decode_header(values[0]) if len(values) == 1 else None


def _scalars(value: object) -> Iterator[str]:
    """Yield each text, number and truth in *value*, as a header would say it."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as members:
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items)
            case bool() as truth:
                yield str(truth).lower()
            case str() | int() | float() as scalar:
                yield str(scalar)


def read_answer(text: bytes) -> Envelope:
    """Read what a server sent.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        return msgspec.json.decode(text, type=Envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("it is no message") from error


def text_of(envelope: Envelope, member: str) -> str | None:
    """Return a member of a server's message that is text."""
    try:
        return msgspec.json.decode(envelope[member], type=str)
    except (KeyError, msgspec.DecodeError):
        return None


def number_of(envelope: Mapping[str, Raw], member: str) -> int | None:
    """Return a member of a server's message that is a whole number."""
    try:
        return msgspec.json.decode(envelope[member], type=int)
    except (KeyError, msgspec.DecodeError):
        return None


def with_members(value: Raw, **members: object) -> Raw:
    """Return an object of a server's with other members of these names.

    Raises:
        ValueError: it is none.
    """
    known = read_answer(bytes(value))
    for name, one in members.items():
        known[name] = Raw(msgspec.json.encode(one))
    return Raw(msgspec.json.encode(known))
