"""JSON-RPC messages of MCP: parsed once and strictly, and built again to be sent.

A client's message becomes one typed object. Policy's facts, the person's view, the
digest and the server's message are computed from it; nothing is relayed as received.
Messages of servers to clients stay as they were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeGuard, TypeVar

import msgspec
import rfc8785
from msgspec import Raw

from agentvault_tui import __version__
from agentvault_tui.gateway.headers import names_for_record
from agentvault_tui.gateway.mcp.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    McpError,
)
from agentvault_tui.gateway.mcp.members import (
    CAPABILITIES,
    CLIENT_INFO,
    TOP,
    VERSION_KEY,
    RequestMeta,
    build_meta,
    build_params,
    check_names,
)
from agentvault_tui.json_document import (
    encode_document,
    plain_numbers,
    read_document,
)
from agentvault_tui.web.reply import Header, decode_header

CALL: Final = "tools/call"
MODERN: Final = "2026-07-28"
"""The revision whose requests are independent."""
LEGACY: Final = ("2025-11-25", "2025-06-18")
"""Revisions with a handshake and sessions, the newest first."""
STATE: Final = "agentvault:"
"""How the state of our own ``input_required`` begins, and the name of its request."""
_NAMED_BY: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
}
"""The parameter that ``Mcp-Name`` repeats."""
PARAMETER: Final = b"mcp-param-"
"""How headers begin that repeat an argument."""
_COMPACT: Final[dict[str, Any]] = {"sort_keys": True, "separators": (",", ":")}
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")
_SEPARATORS: Final = (
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
    ("\x85".encode(), b"\\u0085"),
)

CLIENT: Final = {"name": "agentvault", "version": __version__}
"""The gateway, as a client of servers."""
_MOST_OTHER: Final = 16_384
"""Bytes of a server's message outside of JSON-RPC's own members: the event loop makes
an object of each other member."""
LONGEST_NOTE: Final = 16_384
"""Bytes of the parameters of a notice of progress; longer ones are dropped."""
Envelope = dict[str, Raw]
"""A message's members, each as its sender wrote it."""
RequestId = str | int
_T = TypeVar("_T")


def answer(id_: RequestId | None, **member: Raw) -> Envelope:
    """Return the answer to the request *id_*: its ``result`` or its ``error``."""
    return {"jsonrpc": Raw(b'"2.0"'), "id": Raw(msgspec.json.encode(id_)), **member}


def answer_to(id_: RequestId | None, envelope: Envelope) -> Envelope:
    """Return a server's answer under the *id_* of the client's request."""
    return {**envelope, "id": Raw(msgspec.json.encode(id_))}


def failed(error: McpError, id_: RequestId | None) -> Envelope:
    """Return the answer to the request *id_* that is an *error*."""
    members = {"code": error.code, "message": error.text}
    if error.data is not None:
        members["data"] = error.data
    return answer(id_, error=Raw(encode_document(members)))


def reply_to_server(request: Envelope, method: str) -> bytes | None:
    """Return the reply to a server's request: to a ping, or else an error.

    No client is asked: it could answer outside of any call, where nothing is decided.

    Args:
        request: the server's.
        method: of it.

    Returns:
        a message; None if the request's id is so long that it is not repeated.
    """
    if method == "ping":
        reply = answer(None, result=Raw(b"{}"))
    else:
        reply = failed(McpError(METHOD_NOT_FOUND, "no client is asked this"), None)
    reply["id"] = request["id"]
    text = msgspec.json.encode(reply)
    return text if len(text) <= LONGEST_NOTE else None


@dataclass(frozen=True, slots=True)
class Message:
    """One JSON-RPC message of a client, with only the members that are sent."""

    id: RequestId | None
    """None for a notification, or an answer to a request of a server."""
    method: str
    """Empty for an answer."""
    params: dict[str, Any]
    """Without ``_meta``, as policy reads them; see `plain_numbers`."""
    content: bytes
    """The parameters as they are sent and shown: JSON with the digits of numbers."""
    meta: dict[str, Any]
    """The members of ``_meta`` that are part of the call."""
    meta_content: bytes
    """`meta` as JSON."""
    trace: Mapping[str, str]
    """Trace context of ``_meta``, which is not part of the call."""
    progress_token: str | int | None
    """The token under which its sender wants progress."""
    dropped: tuple[str, ...]
    """Names of dropped members, as the ledger row has them."""
    sha256: str
    """Of the canonical form of the arguments, or of the parameters of other calls."""
    size: int
    """Bytes of the body that it was parsed from."""
    waited: tuple[str, bool] | None = None
    """If it answers an ``input_required`` of ours (basic/patterns/mrtr): the step-up of
    the call that is retried, and whether its user waits on."""

    @property
    def takes_forms(self) -> bool:
        """Check whether its client shows its user a form (client/elicitation)."""
        elicitation = self.meta.get(CAPABILITIES, {}).get("elicitation")
        return isinstance(elicitation, dict) and (
            not elicitation or isinstance(elicitation.get("form"), dict)
        )

    @property
    def named(self) -> str | None:
        """Return the tool, prompt or resource that it names."""
        value = self.params.get(_NAMED_BY.get(self.method, ""))
        return value if isinstance(value, str) else None

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a call of a tool."""
        arguments: dict[str, Any] = self.params.get("arguments", {})
        return arguments

    @property
    def exact(self) -> bytes:
        """Return `arguments`, or `params` of other calls, as JSON that is sent."""
        if self.method != CALL:
            return self.content
        return bytes(read_answer(self.content).get("arguments", b"{}"))

    def held(self) -> bytes:
        """Return the parameters that a person decides about, as they are sent.

        The progress token and the trace context are left out, because they differ
        between two tries of a client.
        """
        return self._with_meta(self.meta_content)

    def encoded(self, id_: int | None, token: int | None = None) -> bytes:
        """Return it as it is sent: one line of JSON, with these members only.

        Args:
            id_: in the place of the client's, which other clients use as well; None
                for a notification.
            token: in the place of its progress token, for the same reason.
        """
        more: dict[str, Any] = dict(self.trace)
        if token is not None:
            more["progressToken"] = token
        params = self._with_meta(_merged(self.meta_content, encode_document(more)))
        built: dict[str, Any] = {"jsonrpc": "2.0"}
        if id_ is not None:
            built["id"] = id_
        built["method"] = self.method
        line = encode_document(built)
        return _merged(line, b'{"params":%b}' % params) if params != b"{}" else line

    def _with_meta(self, meta: bytes) -> bytes:
        if meta == b"{}":
            return self.content
        return _merged(self.content, b'{"_meta":%b}' % meta)


def _merged(*objects: bytes) -> bytes:
    """Return an encoded object with the members of encoded *objects*, in order."""
    return b"{%b}" % b",".join(one[1:-1] for one in objects if one != b"{}")


def build_message(
    method: str,
    params: dict[str, Any],
    meta: RequestMeta,
    *,
    id_: RequestId | None = None,
    dropped: Iterable[str] = (),
    size: int = 0,
) -> Message:
    """Build a message with these members only.

    Args:
        method: of the message.
        params: the parameters that are sent, without ``_meta``.
        meta: the ``_meta`` that is sent.
        id_: the client's id, for a request.
        dropped: the names of members that are not sent.
        size: bytes of the body that it was parsed from.
    """
    waited = None
    if str(params.get("requestState", "")).startswith(STATE):
        params = dict(params)
        stepup_id = params.pop("requestState").removeprefix(STATE)
        given = params.pop("inputResponses", {}).get(STATE)
        waits = isinstance(given, dict) and given.get("action") == "accept"
        waited = stepup_id, waits
    digested = params.get("arguments", {}) if method == CALL else params
    return Message(
        id=id_,
        method=method,
        params=plain_numbers(params),
        content=one_line(encode_document(params)),
        meta=meta.members,
        meta_content=one_line(encode_document(meta.members)),
        trace=meta.trace,
        progress_token=meta.token,
        dropped=tuple(names_for_record(dropped)),
        sha256=digest_of(digested),
        size=size,
        waited=waited,
    )


def own_message(method: str, *, modern: bool, **params: Any) -> Message:
    """Return a message of the gateway's own."""
    meta = {VERSION_KEY: MODERN, CLIENT_INFO: CLIENT, CAPABILITIES: {}}
    return build_message(method, params, RequestMeta(meta if modern else {}))


def without_capabilities(message: Message) -> Message:
    """Return an ``initialize`` without the client's capabilities."""
    params = {**message.params, "capabilities": {}}
    meta = RequestMeta(message.meta, message.trace, message.progress_token)
    return build_message(message.method, params, meta, id_=message.id)


def canonical(value: object) -> bytes:
    """Return JSON in one spelling: keys sorted, no space, ASCII."""
    return json.dumps(value, **_COMPACT).encode()


def digest_of(value: object) -> str:
    """Return the SHA-256 of JSON in its one spelling (RFC 8785), in hexadecimal.

    An integer that no double holds, as an id may be, is written with all its digits.
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
    """Parse a message of a client.

    Raises:
        McpError: it is no message of JSON-RPC 2.0, or it is ambiguous.
    """
    try:
        value = read_document(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(body, error) from None
    if not isinstance(value, dict):
        raise McpError(INVALID_REQUEST, "the body is not one message of JSON-RPC 2.0")
    check_names(value, TOP)
    id_ = value.get("id")
    method, params = value.get("method", ""), value.get("params", {})
    if (
        value.get("jsonrpc") != "2.0"
        or not isinstance(method, str)
        or not isinstance(params, dict)
        or not (is_id(id_) or (id_ is None and not (method and "id" in value)))
        or ("method" in value) == bool(value.keys() & {"result", "error"})
        or ("method" in value) != bool(method)
        or not isinstance(params.get("_meta", {}), dict)
    ):
        raise McpError(INVALID_REQUEST, "the body is not a message as MCP has them")
    try:
        return _built(value, id_ if method else None, method, params, len(body))
    except McpError as error:
        error.id = id_ if method else None
        raise


def _built(
    value: dict[str, Any],
    id_: RequestId | None,
    method: str,
    params: dict[str, Any],
    size: int,
) -> Message:
    meta = build_meta(params.get("_meta", {}))
    given = {name: one for name, one in params.items() if name != "_meta"}
    sent, dropped = build_params(method, given, modern=VERSION_KEY in meta.members)
    names = chain(
        (name for name in value if name not in TOP),
        (f"params.{name}" for name in dropped),
        (f"_meta.{name}" for name in meta.dropped),
    )
    return build_message(method, sent, meta, id_=id_, dropped=names, size=size)


def is_id(value: object) -> TypeGuard[RequestId]:
    """Check whether a value is the id of a request: a text or an integer."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _unreadable(body: bytes, error: Exception) -> McpError:
    """Return the error of a body that is no JSON document, or an ambiguous one.

    If a member is there twice in the arguments, these are invalid (-32602). Anywhere
    else, even the id is uncertain.
    """

    def marked(items: list[tuple[str, object]]) -> dict[str | None, object]:
        members: dict[str | None, object] = dict(items)
        return members if len(members) == len(items) else {**members, None: None}

    unreadable = McpError(PARSE_ERROR, f"the body is not JSON: {error}")
    try:
        value = json.loads(body.decode(), object_pairs_hook=marked)
        arguments = value["params"].pop("arguments")
        id_ = read_document(encode_document(value["id"]))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return unreadable
    if not _is_marked(arguments) or _is_marked(value) or not is_id(id_):
        return unreadable
    twice = McpError(INVALID_PARAMS, "a member of the arguments is there twice")
    twice.id = id_
    return twice


def _is_marked(value: object) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if None in one:
                return True
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return False


def check_modern(message: Message, headers: Sequence[Header]) -> None:
    """Check a message of the modern era against its headers.

    A server may go by either, so both must say the same.

    Raises:
        McpError: they do not, or its version is none that is served here.
    """
    stated = message.meta.get(VERSION_KEY)
    version = _header(headers, b"mcp-protocol-version")
    if message.id is None:
        return
    if stated != version:
        raise mismatch("MCP-Protocol-Version", version, stated)
    if stated != MODERN:
        raise unsupported(stated, (MODERN, *LEGACY))
    if (method := _header(headers, b"mcp-method")) != message.method:
        raise mismatch("Mcp-Method", method, message.method)
    name = _header(headers, b"mcp-name")
    if name != message.named and not message.method.startswith("tasks/"):
        raise mismatch("Mcp-Name", name, message.named)
    if message.method != CALL and any(n.startswith(PARAMETER) for n, _ in headers):
        raise mismatch("Mcp-Param", "of a tool's argument", "no call of a tool")


def unsupported(requested: object, supported: Sequence[str]) -> McpError:
    """Return the error of a version that is not served, and those that are."""
    data = {"supported": list(supported), "requested": requested}
    return McpError(UNSUPPORTED_VERSION, "unsupported protocol version", data)


def mismatch(name: str, header: object, body: object) -> McpError:
    """Return the error of a header that differs from the body."""
    text = f"the header {name} and the body differ"
    return McpError(HEADER_MISMATCH, text, {"header": header, "body": body})


def _header(headers: Sequence[Header], name: bytes) -> str | None:
    """Return a header's decoded value; None if the header is there twice."""
    values = [value for header, value in headers if header == name]
    return decode_header(values[0]) if len(values) == 1 else None


class _Members(msgspec.Struct):
    """The members of JSON-RPC 2.0; the last one where a member is there twice."""

    jsonrpc: Raw = Raw(b"")
    id: Raw = Raw(b"")
    method: Raw = Raw(b"")
    params: Raw = Raw(b"")
    result: Raw = Raw(b"")
    error: Raw = Raw(b"")


class ResultMarks(msgspec.Struct):
    """The members of a result or an error that are read here."""

    isError: Raw = Raw(b"false")  # noqa: N815 - MCP's name
    resultType: Raw | None = None  # noqa: N815 - MCP's name
    code: Raw = Raw(b"0")

    @classmethod
    def of(cls, value: Raw) -> ResultMarks:
        """Read them, however many others there are.

        Raises:
            ValueError: it is no JSON object.
        """
        return _decode(value, cls, "result")


def _decode(text: bytes | Raw, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is no {name}") from error


def read_answer(text: bytes) -> Envelope:
    """Read a server's message.

    Raises:
        ValueError: it is no JSON object.
    """
    return _decode(text, Envelope, "message")


def read_envelope(text: bytes) -> Envelope:
    """Read a message of a server, whose members are each there once.

    Raises:
        ValueError: it is no JSON object, has a member twice, or more members than
            are read quickly.
    """
    if len(text) > _MOST_OTHER:
        own = msgspec.structs.astuple(_decode(text, _Members, "message"))
        if len(text) - sum(len(bytes(one)) for one in own) > _MOST_OTHER:
            raise ValueError("it has too many members")
    envelope = read_answer(text)
    # The bytes that are no white space: only a member that was lost adds some.
    names = sum(len(msgspec.json.encode(name)) for name in envelope)
    members = names + sum(_solid(bytes(value)) for value in envelope.values())
    if _solid(text) != members + (2 * len(envelope) + 1 if envelope else 2):
        raise ValueError("it has a member twice")
    return envelope


def _solid(text: bytes) -> int:
    """Count the bytes of JSON that are no white space."""
    return len(text.translate(None, b" \t\r\n"))


def member_of(envelope: Mapping[str, Raw], member: str, kind: type[_T]) -> _T | None:
    """Return a member of a server's message; None if it is missing or no *kind*."""
    try:
        return msgspec.json.decode(envelope[member], type=kind)
    except (KeyError, msgspec.DecodeError):
        return None


def with_members(value: Raw, **members: object) -> Raw:
    """Return an object of a server's with other members of these names.

    Raises:
        ValueError: it is none.
    """
    outer = read_answer(bytes(value))
    for name, one in members.items():
        outer[name] = Raw(msgspec.json.encode(one))
    return Raw(msgspec.json.encode(outer))
