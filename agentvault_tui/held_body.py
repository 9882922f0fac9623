"""The body of a held call: from the bytes to send to the members on show.

Every face that shows a held call uses `read` and `text`: the operators' API, console,
command line and approval page. The gateway has parsed the body once and encoded it
again, and the step-up records its kind and media type: nothing is guessed here.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from agentvault_tui import json_document

UNREADABLE: Final = "AgentVault cannot read this content"
LOST: Final = (
    "Its body is lost: the broker that held it has restarted. "
    "This can only be denied; the agent may ask again."
)
_NAME: Final = 300
"""Characters of a member's name that are shown; of a longer one, both ends."""
_TYPE: Final = 300
_FIRST: Final = (
    *("amount", "currency", "price", "total", "to", "cc", "bcc", "recipients"),
    *("recipient", "payee", "destination", "account", "iban", "email", "address"),
)
"""Names of members that say how much, and to whom: they come first."""
_LETTERS: Final = re.compile(r"[a-z]+")
_PLAIN: Final = re.compile(r"[\w./~$@\[\]-]+")
_NO_ESCAPE: Final = re.compile(rb"%(?![0-9a-fA-F]{2})")
_MULTIPART: Final = re.compile(
    r"""multipart/form-data; ?boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1"""
)
_QUOTED: Final = r'"((?:[^"\\\r\n]|\\["\\])*)"'
_DISPOSITION: Final = re.compile(
    rf"content-disposition: form-data; name={_QUOTED}(?:; filename={_QUOTED})?",
    re.IGNORECASE,
)
_PART_TYPE: Final = re.compile(r"content-type: ([!-~]+(?: [!-~]+)*)", re.IGNORECASE)


class ForeignBodyError(ValueError):
    """The bytes are not those that the step-up describes, so it cannot be approved."""


class Described(NamedTuple):
    """The body of a held call, as its step-up describes it and its digest covers."""

    kind: str
    """``none``, ``json``, ``form``, ``multipart`` or ``opaque``."""
    media_type: str
    """As it is sent; empty without one."""
    size: int
    """Bytes."""
    sha256: str
    encoding: str = ""
    """``Content-Encoding``, which an opaque body may have (RFC 9110 section 8.4)."""

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Described:
        """Return the description in a step-up's ``request``.

        A step-up that an earlier version wrote has no kind: its body is opaque.
        """
        size = request.get("body_bytes") or 0
        return cls(
            request.get("body_kind") or ("opaque" if size else "none"),
            request.get("body_type") or "",
            size,
            request.get("body_sha256") or "",
            request.get("body_encoding") or "",
        )

    @property
    def warning(self) -> str:
        """The warning that comes first; empty if a person can read every member."""
        if self.kind != "opaque":
            return ""
        coded = (
            f", encoded as {_truncate(self.encoding, _TYPE)}" if self.encoding else ""
        )
        kind = _truncate(self.media_type, _TYPE) or "no recorded type"
        return (
            f"{UNREADABLE}: {self.size:,} bytes, {kind}{coded}, SHA-256 {self.sha256}"
        )


# The content, as the operators' API has it


class NoBody(Struct, frozen=True, tag_field="kind", tag="none"):
    """Nothing is sent."""


class JsonBody(Struct, frozen=True, tag_field="kind", tag="json"):
    """One JSON document (RFC 8259)."""

    value: Raw
    """With its digits and the order of its members: `json_document.read_document`."""


class FormBody(Struct, frozen=True, tag_field="kind", tag="form"):
    """A form (``application/x-www-form-urlencoded``)."""

    pairs: tuple[tuple[str, str], ...]
    """Names and values in their order; a name may be there several times."""


class BodyPart(Struct, frozen=True, kw_only=True):
    """A part of a multipart body (RFC 7578): a field with its value, or a file."""

    name: str
    value: str | UnsetType = UNSET
    """The text of a field."""
    filename: str | UnsetType = UNSET
    """The name of a file; only files have this member and those below."""
    type: str | UnsetType | None = UNSET
    bytes: int | UnsetType = UNSET
    sha256: str | UnsetType = UNSET


class MultipartBody(Struct, frozen=True, tag_field="kind", tag="multipart"):
    """A form with files (``multipart/form-data``)."""

    parts: tuple[BodyPart, ...]


class OpaqueBody(Struct, frozen=True, kw_only=True, tag_field="kind", tag="opaque"):
    """Content that AgentVault cannot read, and sends byte for byte."""

    type: str | None
    bytes: int
    sha256: str
    encoding: str | UnsetType = UNSET
    """``Content-Encoding``, if it has one."""


class LostBody(Struct, frozen=True, tag_field="kind", tag="lost"):
    """No broker has the body in memory: the step-up can only be denied."""


HeldContent: TypeAlias = (
    NoBody | JsonBody | FormBody | MultipartBody | OpaqueBody | LostBody
)


class DocumentInfo(Struct, kw_only=True):
    """A document that a held call names, as it was when it was fetched."""

    url: str
    sha256: str
    """Of the members that count, as one JSON object, or of all of it."""
    bytes: int
    kind: str
    """``json`` or ``opaque``."""
    type: str | None = None
    """The media type of an opaque one."""
    content: HeldContent | UnsetType = UNSET
    """As `operator_api.stepups.HeldRequestInfo.body`."""

    @property
    def described(self) -> Described:
        """Return it as a body is described."""
        return Described(self.kind, self.type or "", self.bytes, self.sha256)


def read(described: Described, body: bytes | None) -> HeldContent:
    """Read the bytes that will be sent as content of the described kind.

    Args:
        described: the body as the step-up describes it.
        body: the complete body; None if it is opaque, or if no broker has it.

    Returns:
        the content.

    Raises:
        ForeignBodyError: they are not the described bytes, or not of that kind.
    """
    if body is None and described.size:
        # An opaque body is spooled for one request only: a retry sends it again, and
        # its SHA-256 is compared. Without a recorded type, an old version held it.
        opaque = described.kind == "opaque" and described.media_type
        return _opaque(described, b"") if opaque else LostBody()
    body = body or b""
    digest = hashlib.sha256(body).hexdigest() if body else described.sha256
    if len(body) != described.size or digest != described.sha256:
        raise ForeignBodyError("it does not have the SHA-256 that the digest covers")
    try:
        return _READERS[described.kind](described, body)
    except (KeyError, ValueError) as error:
        raise ForeignBodyError(
            f"it is not the {described.kind} it was read as"
        ) from error


def _none(_: Described, body: bytes) -> NoBody:
    if body:
        raise ValueError("there are bytes")
    return NoBody()


def _json(_: Described, body: bytes) -> JsonBody:
    body.decode()  # RFC 8259 section 8.1, which `Raw` leaves out
    return JsonBody(msgspec.json.decode(body, type=Raw))


def _form(_: Described, body: bytes) -> FormBody:
    pieces = (piece.partition(b"=") for piece in body.split(b"&") if body)
    return FormBody(tuple((_decoded(n), _decoded(v)) for n, _, v in pieces))


def _decoded(piece: bytes) -> str:
    if _NO_ESCAPE.search(piece):
        raise ValueError("a percent sign escapes nothing")
    return unquote_to_bytes(piece.replace(b"+", b" ")).decode()


def _multipart(described: Described, body: bytes) -> MultipartBody:
    """Read the gateway's own encoding, and no other spelling (RFC 7578 section 4)."""
    named = _MULTIPART.fullmatch(described.media_type)
    if named is None:
        raise ValueError("it has no boundary")
    line = b"--" + named[2].encode()
    if body.rstrip(b"\r\n") == line + b"--":
        return MultipartBody(())
    inner, end, rest = body.rpartition(b"\r\n" + line + b"--")
    if not inner.startswith(line + b"\r\n") or not end or rest not in {b"", b"\r\n"}:
        raise ValueError("it does not begin or end with its boundary")
    pieces = inner[len(line) + 2 :].split(b"\r\n" + line + b"\r\n")
    return MultipartBody(tuple(_part(piece, b"\r\n" + line) for piece in pieces))


def _part(piece: bytes, delimiter: bytes) -> BodyPart:
    head, blank, data = piece.partition(b"\r\n\r\n")
    first, *more = head.decode().split("\r\n")
    match = _DISPOSITION.fullmatch(first)
    types = [_PART_TYPE.fullmatch(one) for one in more]
    if not match or not blank or len(types) > 1 or not all(types) or delimiter in data:
        raise ValueError("a part is written in another way")
    name, filename = (text and re.sub(r"\\(.)", r"\1", text) for text in match.groups())
    kind = types[0][1] if types and types[0] else None
    if filename is None:
        return BodyPart(name=name, value=data.decode(), type=kind or UNSET)
    digest = hashlib.sha256(data).hexdigest()
    return BodyPart(
        name=name, filename=filename, type=kind, bytes=len(data), sha256=digest
    )


def _opaque(described: Described, _: bytes) -> OpaqueBody:
    return OpaqueBody(
        type=described.media_type or None,
        bytes=described.size,
        sha256=described.sha256,
        encoding=described.encoding or UNSET,
    )


_READERS: Final[Mapping[str, Callable[[Described, bytes], HeldContent]]] = {
    "none": _none,
    "json": _json,
    "form": _form,
    "multipart": _multipart,
    "opaque": _opaque,
}


# The text of it, before any terminal or page has seen it


class Room(NamedTuple):
    """The most that one face shows of a body."""

    members: int
    value: int
    """Characters of one value."""
    characters: int
    """Characters of all names and values together."""


SCREEN: Final = Room(5_000, 256 * 1024, 1_000_000)
PAGE: Final = Room(100, 1_000, 12_000)
"""The room of an approval page, which is sent to the tenant with the request."""


class BodyText(NamedTuple):
    """A body for people. Every text may be hostile: pass it through `text.visible`."""

    summary: str
    members: tuple[tuple[str, str], ...] = ()
    """Names and values. A text is quoted and a file is not, so neither can pass for the
    other. A file's SHA-256 follows it. Amounts and recipients are first."""
    left: int = 0
    """How many members are left out."""
    cut: int = 0
    """How many values are truncated; each says how much of it is missing."""
    warning: str = ""
    """Shown first, in the colour of danger."""


def text(described: Described, content: HeldContent, room: Room = SCREEN) -> BodyText:
    """Return *content* as text for a person; slow for large content.

    Args:
        described: the body as the step-up describes it.
        content: from `read`.
        room: how much of it is shown.

    Returns:
        its text, the same on every face with the same room.

    Raises:
        ForeignBodyError: it is a JSON document that is ambiguous.
    """
    size = f"{described.size:,} byte{'s' * (described.size != 1)}"
    match content:
        case NoBody():
            return BodyText("none")
        case LostBody():
            return BodyText(f"{size}, lost", warning=LOST)
        case OpaqueBody():
            return BodyText(f"opaque, {size}", warning=described.warning)
    name, usual = _NAMED[described.kind]
    if described.media_type.partition(";")[0] not in {usual, ""}:
        name = f"{name} ({_truncate(described.media_type, _TYPE)})"
    total, picked = _picked(_members_of(content), room.members)
    shown: list[tuple[str, str]] = []
    left, omitted, spent = total, 0, 0
    for member in picked:
        label, value = _quoted(member.path), _truncate(member.value, room.value)
        spent += len(label) + len(value)
        if spent > room.characters:
            break
        left -= 1
        omitted += value != member.value
        shown.append((label, value))
        if member.sha256:
            shown.append((_SHA256, member.sha256))
    count = f"{total:,} member{'s' * (total != 1)}"
    return BodyText(f"{name}, {size}, {count}", tuple(shown), left, omitted)


def with_documents(
    body: BodyText,
    documents: Sequence[tuple[DocumentInfo, HeldContent]],
    room: Room = SCREEN,
) -> BodyText:
    """Return the text of a body and, before it, of the documents that the call names.

    Args:
        body: the text of the body.
        documents: each with its content.
        room: how much is shown of each document.

    Raises:
        ForeignBodyError: see `text`.
    """
    members: list[tuple[str, str]] = []
    warnings = [body.warning]
    for document, content in documents:
        one = text(document.described, content, room)
        members.append((_DOCUMENT, f"{document.url} ({one.summary})"))
        members += [
            (name if name == _SHA256 else f"{_DOCUMENT} {name}", value)
            for name, value in one.members
        ]
        warnings.append(one.warning and f"{document.url}: {one.warning}")
        body = body._replace(left=body.left + one.left, cut=body.cut + one.cut)
    return body._replace(
        members=(*members, *body.members),
        warning=" ".join(filter(None, warnings)),
    )


_DOCUMENT: Final = "The document"
"""A document that a call names. No member is called that: a name with a blank is
quoted."""
_SHA256: Final = "its SHA-256"
"""The label of a file's SHA-256. No member has it: a name with a blank is quoted."""


_NAMED: Final = {
    "json": ("JSON", "application/json"),
    "form": ("form", "application/x-www-form-urlencoded"),
    "multipart": ("form with files", "multipart/form-data"),
}


def _picked(members: Iterable[_Member], most: int) -> tuple[int, list[_Member]]:
    """Count *members*, and return those that come first."""
    total = 0

    def counted() -> Iterator[tuple[int, int, _Member]]:
        nonlocal total
        for member in members:
            total += 1
            yield member.rank, total, member

    smallest = heapq.nsmallest(most, counted())
    return total, [member for _, _, member in smallest]


class _Member:
    """A value and its parents; its path is written only if it is shown."""

    __slots__ = ("parent", "rank", "sha256", "step", "value")

    def __init__(
        self, parent: _Member | None, step: str, value: str = "", sha256: str = ""
    ) -> None:
        self.parent, self.step, self.value, self.sha256 = parent, step, value, sha256
        letters = "".join(_LETTERS.findall(step.lower()))
        self.rank: int = len(_FIRST) if parent is None else parent.rank
        if letters in _FIRST:
            self.rank = _FIRST.index(letters)

    @property
    def path(self) -> str:
        """The name of a field, or a JSON Pointer (RFC 6901)."""
        steps, one = [_cut_middle(self.step)], self.parent
        while one is not None:
            steps.append(_cut_middle(one.step))
            one = one.parent
        return _cut_middle("/".join(reversed(steps)))


def _members_of(content: JsonBody | FormBody | MultipartBody) -> Iterable[_Member]:
    match content:
        case FormBody(pairs):
            return [_Member(None, name, _json_text(value)) for name, value in pairs]
        case MultipartBody(parts):
            return [
                _Member(None, one.name, _part_text(one), one.sha256 or "")
                for one in parts
            ]
    try:
        document = json_document.read_document(bytes(content.value))
    except ValueError as error:
        raise ForeignBodyError("it is not the json it was read as") from error
    return _values(document)


def _values(document: object) -> Iterator[_Member]:
    """Yield each value of a document with its JSON Pointer (RFC 6901)."""
    waiting: list[tuple[_Member, object]] = [(_Member(None, ""), document)]
    while waiting:
        member, value = waiting.pop()
        if isinstance(value, dict) and value:
            steps = (
                (k.replace("~", "~0").replace("/", "~1"), v) for k, v in value.items()
            )
            inner = [(_Member(member, step), one) for step, one in steps]
            waiting += reversed(inner)
        elif isinstance(value, list) and value:
            inner = [(_Member(member, f"{n}"), one) for n, one in enumerate(value)]
            waiting += reversed(inner)
        else:
            member.value = json_document.encode_document(value).decode()
            yield member


def _part_text(part: BodyPart) -> str:
    kind = f", {part.type}" if part.type else ""
    if isinstance(part.value, str):
        return f"{_json_text(part.value)}{kind}"
    named = _json_text(str(part.filename))
    return f"file {named}{kind or ', no type'}, {part.bytes:,} bytes"


def _json_text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _quoted(name: str) -> str:
    """Quote a name that could pass for a name with its value."""
    return name if _PLAIN.fullmatch(name) else _json_text(name)


def _truncate(value: str, most: int) -> str:
    """Truncate a long value; the quotes stay open, so the note is not part of it."""
    left = len(value) - most
    return value if left <= 0 else f"{value[:most]}… and {left:,} more characters"


def _cut_middle(name: str) -> str:
    left = len(name) - _NAME
    half = _NAME // 2
    return name if left <= 0 else f"{name[:half]}…{left:,} more…{name[-half:]}"
