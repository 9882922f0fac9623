"""Multipart bodies (RFC 7578): parts that all programs read alike, encoded again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import multipart

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.names import fold_name

_LONGEST_HEAD: Final = 512
"""Bytes of the headers of a part: Tomcat's `maxPartHeaderSize`."""
_LONGEST_NAME: Final = 100
"""Bytes of a part's name: busboy's `fieldNameSize`, which truncates it."""
_DISPOSITION: Final = re.compile(
    r'form-data[ \t]*;[ \t]*name="([\w.\[\]$@/ -]+)"'
    r'(?:[ \t]*;[ \t]*filename="([^"\\\x00-\x1f\x7f]*)")?[ \t]*',
    re.IGNORECASE | re.ASCII,
)
"""RFC 7578 section 4.2, without escapes and the forms of RFC 2231 and RFC 2047, which
servers decode in different ways."""
_STRUCTURE: Final = re.compile(r"[;=]|%[0-9a-f]{2}", re.IGNORECASE)
"""Not in a value of a part's header: Rack before 3.1 takes the last ``; name=`` of a
head for the field's name, also in quotes, and some servers decode escapes first."""
TYPED: Final = "a field of the body has a Content-Type, as files have"
"""Some servers take such a field for a file (busboy, formidable): its value is then no
field there."""
_NAMING: Final = frozenset({"name", "filename"})
"""Parameters that some servers read in any header of a part."""
_PLAIN_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})


class Part(NamedTuple):
    """One part of a multipart body."""

    name: str
    content: bytes
    filename: str | None = None
    type: str | None = None

    @property
    def is_file(self) -> bool:
        """Check whether it is a file, whose content is opaque."""
        return self.filename is not None

    @property
    def head(self) -> bytes:
        """Return its headers as they are sent, with the empty line after them."""
        file = "" if self.filename is None else f'; filename="{self.filename}"'
        kind = f"Content-Type: {self.type}\r\n" if self.type else ""
        text = f'Content-Disposition: form-data; name="{self.name}"{file}\r\n{kind}'
        return f"{text}\r\n".encode()


def read_parts(raw: bytes, boundary: str, most: int) -> list[Part]:
    """Parse a multipart body.

    Args:
        raw: the body.
        boundary: of its media type.
        most: parts at most.

    Raises:
        UnreadableRequestError: ``unreadable_body`` or ``ambiguous_body``.
    """
    parts: list[Part] = []
    content = bytearray()
    try:
        with multipart.PushMultipartParser(
            boundary, max_segment_count=most, strict=True
        ) as parser:
            for event in parser.parse(raw):
                if isinstance(event, multipart.MultipartSegment):
                    head, content = event, bytearray()
                elif event is None:
                    parts.append(_part(head, bytes(content)))
                else:
                    content += event
    except multipart.ParserLimitReached:
        text = f"the body may have {most} parts (max_parts), with small headers"
        raise unreadable(text) from None
    except multipart.MultipartError as error:
        raise unreadable(
            f"the body is not valid multipart/form-data: {error}"
        ) from None
    if any(len(p.name) > _LONGEST_NAME or len(p.head) > _LONGEST_HEAD for p in parts):
        text = f"the name of a part may have {_LONGEST_NAME} bytes"
        raise unreadable(f"{text}, and its headers {_LONGEST_HEAD}")
    return parts


def encode_multipart(parts: Sequence[Part]) -> tuple[str, bytes]:
    """Encode parts as ``multipart/form-data``.

    The boundary is computed from the parts, so equal parts give equal bytes.

    Returns:
        the boundary and the body.
    """
    digest = hashlib.sha256()
    for part in parts:
        for one in (part.name, part.filename, part.type):
            digest.update(b"\0" if one is None else b"\1" + one.encode() + b"\0")
        digest.update(b"%d:" % len(part.content) + part.content)
    boundary = f"agentvault-{digest.hexdigest()[:40]}"
    lines = []
    for part in parts:
        lines += [f"--{boundary}\r\n".encode(), part.head, part.content, b"\r\n"]
    return boundary, b"".join([*lines, f"--{boundary}--\r\n".encode()])


def _part(segment: multipart.MultipartSegment, content: bytes) -> Part:
    headers: dict[str, str] = {}
    for name, value in segment.headerlist:
        if name in headers:
            raise ambiguous("a part of the body has a header twice")
        headers[name] = value
    disposition = headers.pop("Content-Disposition", "")
    match = _DISPOSITION.fullmatch(disposition)
    coding = headers.pop("Content-Transfer-Encoding", "binary").lower()
    kind = MediaType.parse(headers.pop("Content-Type", "text/plain"))
    headers.pop("Content-Length", None)
    if match is None or _STRUCTURE.search(match[2] or ""):
        raise ambiguous("servers read the name of a part of the body in different ways")
    if headers or coding not in _PLAIN_ENCODINGS or kind is None:
        raise ambiguous("a part of the body has a header that is not read here")
    name, filename = match[1], match[2]
    if filename == "":  # servers read a field, a file or nothing
        raise ambiguous("a part of the body has an empty file name")
    if filename is not None:
        if any(n in _NAMING or _STRUCTURE.search(v) for n, v in kind.parameters):
            raise ambiguous("servers read the type of a file in different ways")
        return Part(name, content, filename, str(kind))
    _check_field(name, content, kind)
    return Part(name, content, None, None if kind.type == "text/plain" else kind.type)


def _check_field(name: str, content: bytes, media: MediaType) -> None:
    """Refuse a field without a file name that servers do not all read as that text."""
    if not media.is_utf8 or fold_name(name) == "charset":
        raise ambiguous("a field of the body is not UTF-8")
    try:
        content.decode()
    except ValueError:
        raise ambiguous("a field of the body is not UTF-8") from None
    if b"\0" in content:
        raise ambiguous("a field of the body holds NUL")
    if media.type != "text/plain" and "json" not in media.type:
        raise ambiguous(TYPED)


def ambiguous(text: str) -> UnreadableRequestError:
    """Return the refusal of a body that programs read in several ways."""
    return UnreadableRequestError("ambiguous_body", text)


def unreadable(text: str) -> UnreadableRequestError:
    """Return the refusal of a body that cannot be read."""
    return UnreadableRequestError("unreadable_body", text)
