"""The body of a held call as a person reads it: members, text, or bytes in hex."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from agentvault_tui import strict_json
from agentvault_tui.console.state.records import BodyView, HeldRequest
from agentvault_tui.operator_api.gateway import HeldBody
from agentvault_tui.text import TWINS, Shown, visible

SHOWN: Final = 256 * 1024
"""Bytes of a body that are made readable at most; the command line saves all."""
_MEMBERS: Final = 5_000
"""Members of a body that are listed; of one with more, all is in its raw lines."""
_HEX: Final = 16
_FIRST: Final = (
    *("amount", "currency", "price", "total", "to", "cc", "bcc", "recipients"),
    *("recipient", "payee", "destination", "account", "iban", "email", "address"),
)
"""How members are called that say how much, and to whom: they come first."""
_NAME: Final = re.compile(r"[a-z]+")
_PLAIN: Final = re.compile(r"[\w./~$@\[\]-]+")
_PERCENT: Final = re.compile(rb"%(?![0-9a-fA-F]{2})")


READING: Final = BodyView("being read", problem="The body is being read.")


def told(
    request: HeldRequest, answer: HeldBody, *, ascii_only: bool = False
) -> BodyView:
    """Make the broker's answer about a body readable; see `view`."""
    if answer.base64 is None and request.bytes:
        return gone(request)
    try:
        body = base64.b64decode(answer.base64 or "", validate=True)
    except ValueError:
        body = b""
    return view(request, body, ascii_only=ascii_only)


def gone(request: HeldRequest) -> BodyView:
    """Say that a body is in memory no more."""
    return BodyView(
        f"{request.bytes:,} bytes, not in memory any more",
        problem="The body cannot be shown: it was decided, or the broker restarted. "
        "Its digest stays; deny this, and the agent may ask again.",
    )


def unread(request: HeldRequest, why: Shown) -> BodyView:
    """Say that the broker did not hand a body out."""
    return BodyView(f"{request.bytes:,} bytes", problem=f"The body is not read: {why}.")


def view(request: HeldRequest, body: bytes, *, ascii_only: bool = False) -> BodyView:
    """Make a body readable; takes long for a large one, so not in an event loop.

    Args:
        request: the held request, which the step-up's digest covers.
        body: what the broker keeps for it.
        ascii_only: whether the terminal takes ASCII alone.

    Returns:
        its members where it is what its content type says and two readers cannot
        take it for different things, and its raw lines in any case.
    """
    if (
        len(body) != request.bytes
        or hashlib.sha256(body).hexdigest() != request.body_sha256
    ):
        words = "This is not the body the digest covers: nothing is approved on it."
        return BodyView("another body", problem=words, foreign=True)
    if not body:
        return BodyView("none")
    said = {name.lower(): value for name, value in request.headers}
    kind = said.get("content-type", "").partition(";")[0].strip().lower()
    encoding, text = said.get("content-encoding", ""), _is_text(body)
    raw = tuple(_lines(body, text=text, ascii_only=ascii_only))
    size, name, problem = f"{len(body):,} bytes", "text" if text else "no text", ""
    members: list[tuple[str, str]] | None = None
    if len(body) > SHOWN:
        problem = (
            f"Only the first {SHOWN:,} of {len(body):,} bytes are shown: "
            "agentvault stepup show ID --save FILE has all."
        )
    elif encoding:
        name = encoding
    elif kind == "application/x-www-form-urlencoded":
        members = _form(body)
        name = "not the form it says" if members is None else "form"
    elif kind in {"", "application/json"} or kind.endswith("+json"):
        members = _json(body)
        name = (
            "JSON" if members is not None else "not the JSON it says" if kind else name
        )
    if members is None or len(members) > _MEMBERS:
        return BodyView(f"{name}, {size}", (), raw, problem)
    count = f"{len(members):,} member{'s' * (len(members) != 1)}"
    members.sort(key=_rank)
    found = tuple(
        (_shown(_quoted(n), ascii_only), _shown(v, ascii_only)) for n, v in members
    )
    return BodyView(f"{name}, {size}, {count}", found, raw)


def _shown(text: str, ascii_only: bool) -> Shown:
    return visible(text, max(10 * len(text), 1), ascii_only=ascii_only)


def _rank(member: tuple[str, str]) -> int:
    """Order members: those that say how much and to whom come first."""
    for step in reversed(member[0].lower().split("/")):
        if step.isdigit():
            continue
        plain = "".join(_NAME.findall(step))
        if plain in _FIRST:
            return _FIRST.index(plain)
    return len(_FIRST)


def _quoted(name: str) -> str:
    """Quote a name that could pass for a name with its value."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _json(body: bytes) -> list[tuple[str, str]] | None:
    """Return each value with its JSON Pointer (RFC 6901); None where it is no JSON."""
    try:
        value = strict_json.loads(body)
    except ValueError:
        return None
    return list(_values("", value))


def _values(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            step = key.replace("~", "~0").replace("/", "~1")
            yield from _values(f"{path}/{step}", inner)
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _values(f"{path}/{number}", inner)
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _form(body: bytes) -> list[tuple[str, str]] | None:
    """Return each field, decoded; None where that has no one meaning."""
    if _PERCENT.search(body):
        return None
    try:
        pieces = [
            [unquote_to_bytes(part.replace(b"+", b" ")).decode() for part in pair]
            for pair in (
                piece.partition(b"=")[::2] for piece in body.split(b"&") if piece
            )
        ]
    except UnicodeDecodeError:
        return None
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in pieces]


def _lines(body: bytes, *, text: bool, ascii_only: bool) -> Iterator[Shown]:
    """Yield lines of text, their ends marked, or of anything else rows in hex."""
    body = body[:SHOWN]
    if text:
        end = "⏎".translate(TWINS) if ascii_only else "⏎"
        *lines, last = body.decode(errors="ignore").split("\n")
        for line in lines:
            yield Shown(_shown(line, ascii_only) + end)
        if last:
            yield _shown(last, ascii_only)
        return
    for start in range(0, len(body), _HEX):
        row = body[start : start + _HEX]
        plain = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        yield Shown(f"{start:06x}  {row.hex(' '):<{3 * _HEX}} {plain}")


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
