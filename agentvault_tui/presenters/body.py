"""The body of a held call as a console shows it: its members, and its bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from agentvault_tui import held_body
from agentvault_tui.held_body import ForeignBodyError, LostBody
from agentvault_tui.operator_api.gateway import HeldBody
from agentvault_tui.presenters.records import BodyView, HeldRequest
from agentvault_tui.text import TWINS, Shown, visible

SHOWN: Final = 256 * 1024
"""Bytes of a body that are shown as they are; the command line saves all."""
_HEX: Final = 16
_ALL: Final = "agentvault stepup show ID --save FILE writes all of it."

READING: Final = BodyView("being read", problem="The body is being read.")


def body_view(
    request: HeldRequest,
    answer: HeldBody,
    *,
    ascii_only: bool = False,
    hex_bytes: int = SHOWN,
) -> BodyView:
    """Make the broker's answer about a body readable; see `view`."""
    documents = [_decoded(one) for one in answer.documents]
    body = _decoded(answer.base64)
    return view(request, body, documents, ascii_only=ascii_only, hex_bytes=hex_bytes)


def _decoded(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def unread(request: HeldRequest, why: Shown) -> BodyView:
    """Say that the broker did not hand a body out."""
    summary = f"{request.described.size:,} bytes"
    return BodyView(summary, problem=f"The body is not read: {why}.")


def view(
    request: HeldRequest,
    body: bytes | None,
    documents: Sequence[bytes | None] = (),
    *,
    ascii_only: bool = False,
    hex_bytes: int = SHOWN,
) -> BodyView:
    """Make a body readable; takes long for a large one, so not in an event loop.

    Args:
        request: the held request, which the step-up's digest covers.
        body: the bytes that will be sent; None if no broker has them.
        documents: those that the request names, likewise.
        ascii_only: whether the terminal takes ASCII alone.
        hex_bytes: how many bytes are shown of a body that is no text.

    Returns:
        its members, and the bytes as they are.
    """

    def shown(text: str) -> Shown:
        return visible(text, max(10 * len(text), 1), ascii_only=ascii_only)

    request_body = request.described
    try:
        content = held_body.read(request_body, body)
        body_text = held_body.text(request_body, content)
        warning_length = len(body_text.warning)
        named = [
            (one, held_body.read(one.described, held))
            for one, held in zip_longest(request.references, documents)
            if one is not None
        ]
        body_text = held_body.with_documents(body_text, named)
    except ForeignBodyError as error:
        words = f"Nothing is approved on this body: {error}."
        return BodyView("another body", problem=words, foreign=True)
    raw = body or b""
    missing = (
        [f"{body_text.left:,} more members are not listed"] if body_text.left else []
    )
    if len(raw) > SHOWN:
        missing.append(f"{len(raw) - SHOWN:,} of {len(raw):,} bytes are not shown")
    problem = f"{' and '.join(missing)}: {_ALL}" if missing else ""
    # The dialog has the warning about the body itself.
    problem = " ".join(
        filter(None, (shown(body_text.warning[warning_length:].strip()), problem))
    )
    contents = (content, *(one for _, one in named))
    lost = any(isinstance(one, LostBody) for one in contents)
    return BodyView(
        shown(body_text.summary),
        tuple((shown(name), shown(value)) for name, value in body_text.members),
        tuple(_lines(raw, hex_bytes, ascii_only=ascii_only)),
        body_text.warning if lost else problem,
        lost=lost,
    )


def _lines(body: bytes, hex_bytes: int, *, ascii_only: bool) -> Iterator[Shown]:
    """Yield lines of text, their ends marked, or of anything else rows in hex."""
    first = body[:SHOWN]
    try:
        body.decode()
    except UnicodeDecodeError:
        for start in range(0, min(len(first), hex_bytes), _HEX):
            row = first[start : start + _HEX]
            plain = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
            yield Shown(f"{start:06x}  {row.hex(' '):<{3 * _HEX}} {plain}")
        if (left := len(first) - hex_bytes) > 0:
            yield Shown(f"{left:,} bytes more: {_ALL}")
        return
    end = "⏎".translate(TWINS) if ascii_only else "⏎"
    *lines, last = first.decode(errors="ignore").split("\n")
    for line in lines:
        most = max(10 * len(line), 1)
        yield Shown(visible(line, most, ascii_only=ascii_only) + end)
    if last:
        yield visible(last, 10 * len(last), ascii_only=ascii_only)
