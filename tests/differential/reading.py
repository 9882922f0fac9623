"""Read requests by the encoding rules of the gateway, without any of its code.

A strict second parser: bytes that the rules do not produce are an `UnruledError`, so a
request that the gateway forwarded as it was received is found here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

_LINE = re.compile(rb"([A-Z]+(?:-[A-Z]+)*) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\x20-\x7e]*)")
_SEGMENT = "-._~!$&'()*+,=:@"
"""Unreserved characters, sub-delims without ``;``, ``:`` and ``@`` (RFC 3986, 3.3)."""
_BOUNDARY = re.compile(r"multipart/form-data; ?boundary=\"?([0-9A-Za-z'+_.-]{1,70})\"?")
_DISPOSITION = re.compile(
    r'form-data; name="((?:[^"\r\n\\]|\\.)*)"(?:; filename="((?:[^"\r\n\\]|\\.)*)")?'
)

Pairs = tuple[tuple[str, str], ...]


class UnruledError(Exception):
    """Bytes that the gateway's encoding rules do not produce."""


@dataclass(frozen=True)
class Message:
    """One request as it stood on a connection."""

    method: str
    target: str
    fields: Pairs
    """Header names in lower case, with their values."""
    body: bytes
    is_whole: bool = True
    """Whether all of its body came."""

    def field(self, name: str) -> str | None:
        """Return the value of the header *name*."""
        return dict(self.fields).get(name)


@dataclass(frozen=True)
class Part:
    """One part of a form with files: text, or an opaque file."""

    name: str
    value: str | None = None
    filename: str | None = None
    media: str = ""
    content: bytes = b""


@dataclass(frozen=True)
class Call:
    """One request, decoded."""

    method: str
    segments: tuple[str, ...]
    pairs: Pairs
    kind: str
    """``none``, ``json``, ``form``, ``multipart`` or ``opaque``."""
    content: Any
    """The document (see `document`), pairs, parts, or the bytes of an opaque body."""

    @property
    def path(self) -> str:
        return "/" + "/".join(self.segments)


def messages(stream: bytes, *, may_end: bool = False) -> Iterator[Message]:
    """Yield the requests of one connection, framed as RFC 9112 section 6 says.

    Args:
        stream: what was sent on it.
        may_end: whether it may end within the body of the last one.

    Raises:
        UnruledError: they are framed in another way.
    """
    while stream:
        is_whole = True
        head, mark, stream = stream.partition(b"\r\n\r\n")
        if not mark:
            raise UnruledError(f"bytes that are no request: {head[:200]!r}")
        first, *lines = head.split(b"\r\n")
        fields = tuple(_field(line) for line in lines)
        named = dict(fields)
        once = {"host", "content-length", "transfer-encoding", "content-type"}
        if any(sum(n == name for n, _ in fields) > 1 for name in once):
            raise UnruledError(f"a header that frames stands twice: {fields}")
        if {"content-length", "transfer-encoding"} <= set(named):
            raise UnruledError("both Content-Length and Transfer-Encoding")
        if named.get("transfer-encoding") == "chunked":
            body, stream = _chunks(stream)
        elif "transfer-encoding" in named:
            raise UnruledError(f"Transfer-Encoding {named['transfer-encoding']}")
        else:
            size = _size(named.get("content-length", "0"), "[0-9]{1,10}", 10)
            is_whole = len(stream) >= size
            if not (is_whole or may_end):
                raise UnruledError("a body that ends early")
            body, stream = stream[:size], stream[size:]
        if (line := _LINE.fullmatch(first)) is None:
            raise UnruledError(f"the request line {first!r}")
        yield Message(line[1].decode(), line[2].decode(), fields, body, is_whole)


def _field(line: bytes) -> tuple[str, str]:
    if (found := _FIELD.fullmatch(line)) is None:
        raise UnruledError(f"the header line {line!r}")
    return found[1].decode().lower(), found[2].decode()


def _chunks(stream: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, _, stream = stream.partition(b"\r\n")
        if not (size := _size(line.decode("latin-1"), "[0-9a-fA-F]{1,8}", 16)):
            break
        body += stream[:size]
        if stream[size : size + 2] != b"\r\n":
            raise UnruledError("a chunk that does not end")
        stream = stream[size + 2 :]
    if stream[:2] != b"\r\n":
        raise UnruledError("trailers")
    return body, stream[2:]


def _size(text: str, digits: str, base: int) -> int:
    if not re.fullmatch(digits, text):
        raise UnruledError(f"the length {text!r}")
    return int(text, base)


def call_of(message: Message, *, strict: bool = True) -> Call:
    """Decode a message.

    Args:
        message: the request.
        strict: whether its bytes have to be those that the encoding rules produce. An
            agent's request is decoded without.

    Raises:
        UnruledError: the message does not follow the rules.
    """
    path, mark, query = message.target.partition("?")
    segments = tuple(_text(one) for one in path[1:].split("/"))
    pairs = fields_of(query)
    kind, content = content_of(message, strict=strict)
    if strict:
        encoded = "/" + "/".join(quote(one, safe=_SEGMENT) for one in segments)
        asked = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in pairs)
        if (path, bool(mark), query) != (encoded, bool(asked), asked):
            raise UnruledError(f"{message.target!r} is not {encoded!r} and {asked!r}")
    return Call(message.method, segments, pairs, kind, content)


def content_of(message: Message, *, strict: bool) -> tuple[str, Any]:
    """Return a message's kind of body, and the body decoded."""
    written = message.field("content-type")
    if not message.body:
        if strict and written is not None:
            raise UnruledError("a Content-Type without a body")
        return "none", None
    media = (written or "").partition(";")[0].strip().lower()
    if strict and media.startswith("application/") and media != written:
        media = ""
    if media.startswith("application/") and media.endswith(("/json", "+json")):
        return "json", document(message.body)
    if media == "application/x-www-form-urlencoded":
        pairs = _form(message.body, strict=strict)
        # A form without a pair is no body, and leaves as none.
        return ("form", pairs) if pairs or strict else ("none", None)
    if media == "multipart/form-data":
        return "multipart", parts_of(written or "", message.body, strict=strict)
    if strict and not media.startswith("image/"):
        raise UnruledError(f"a body of the type {written!r}")
    return "opaque", message.body


def document(body: bytes) -> Any:
    """Return JSON with the order of its members and the digits of its numbers."""
    try:
        return json.loads(
            body.decode(),
            parse_int=_digits,
            parse_float=_digits,
            parse_constant=_no_constant,
            object_pairs_hook=lambda members: ("object", tuple(members)),
        )
    except (ValueError, RecursionError) as error:
        raise UnruledError(f"JSON that cannot be read: {error}") from None


def _digits(text: str) -> tuple[str, str]:
    return "number", text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def plain(value: Any) -> Any:
    """Return a `document` as programs hold it: objects by name, numbers as doubles."""
    match value:
        case ("number", text):
            return float(text)
        case ("object", members):
            return {name: plain(one) for name, one in members}
        case list():
            return [plain(one) for one in value]
    return value


def fields_of(text: str) -> Pairs:
    """Return names and values of a query or form, in their order."""
    found = []
    for piece in filter(None, text.split("&")):
        name, _, value = piece.replace("+", " ").partition("=")
        found.append((_text(name), _text(value)))
    return tuple(found)


def _text(escaped: str) -> str:
    if re.search("%(?![0-9A-Fa-f]{2})", escaped):
        raise UnruledError(f"a malformed escape in {escaped!r}")
    try:
        return unquote_to_bytes(escaped).decode()
    except UnicodeDecodeError:
        raise UnruledError(f"not UTF-8: {escaped!r}") from None


def _form(body: bytes, *, strict: bool) -> Pairs:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise UnruledError("a form that is not UTF-8") from None
    pairs = fields_of(text)
    encoded = "&".join(
        f"{quote(n, safe=' ')}={quote(v, safe=' ')}".replace(" ", "+") for n, v in pairs
    )
    if strict and encoded != text:
        raise UnruledError(f"the form {text!r} is not {encoded!r}")
    return pairs


def parts_of(written: str, body: bytes, *, strict: bool) -> tuple[Part, ...]:
    """Return the parts of a multipart body (RFC 7578), with nothing around them."""
    if (found := _BOUNDARY.fullmatch(written)) is None:
        raise UnruledError(f"the multipart type {written!r}")
    mark = b"--" + found[1].encode()
    if body == mark + b"--\r\n":
        return ()
    if not body.startswith(mark + b"\r\n") or not body.endswith(
        (b"\r\n" + mark + b"--\r\n", b"\r\n" + mark + b"--")
    ):
        raise UnruledError("a multipart body with something around its parts")
    inner = body[len(mark) + 2 : body.rindex(b"\r\n" + mark + b"--")]
    pieces = inner.split(b"\r\n" + mark + b"\r\n")
    if any(b"\r\n" + mark in piece for piece in pieces):
        raise UnruledError("a boundary within a part")
    return tuple(_part(piece, strict=strict) for piece in pieces)


def _part(piece: bytes, *, strict: bool) -> Part:
    head, mark, content = piece.partition(b"\r\n\r\n")
    try:
        lines = [line.partition(": ") for line in head.decode().split("\r\n")]
    except UnicodeDecodeError:
        raise UnruledError("the head of a part is not UTF-8") from None
    fields = {name.lower(): value for name, _, value in lines}
    allowed = {"content-disposition", "content-type"} if strict else set(fields)
    stated = _DISPOSITION.fullmatch(fields.get("content-disposition", ""))
    if not mark or stated is None or len(fields) != len(lines) or set(fields) - allowed:
        raise UnruledError(f"the head of a part {head!r}")
    name, filename = (None if s is None else _unescaped(s) for s in stated.groups())
    if filename is not None:
        media = fields.get("content-type", "application/octet-stream")
        return Part(str(name), None, filename, media, content)
    try:
        return Part(str(name), content.decode())
    except UnicodeDecodeError:
        raise UnruledError("a part without a file name is not UTF-8") from None


def _unescaped(text: str) -> str:
    """Undo the three escapes of the multipart algorithm of WHATWG's HTML."""
    for escape, character in (("%0A", "\n"), ("%0D", "\r"), ("%22", '"')):
        text = text.replace(escape, character)
    return text


def sha256(content: bytes) -> str:
    """Return the digest of *content* in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
