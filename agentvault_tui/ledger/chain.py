"""The chain: an event's body, its link to everything before it, and the genesis.

The format is written down, with test vectors, in ``docs/ledger-format.md``; whatever
changes here changes there, under a new version of the tags.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple, get_type_hints

import msgspec

from agentvault_tui.ledger.canonical import (
    MAX_BODY,
    WHOLE,
    clip,
    coerce,
    encode_plain,
    is_plain,
    quote,
    shrink_detail,
    well_formed,
    whole_members,
)
from agentvault_tui.ledger.canonical import canonical as canonical_text
from agentvault_tui.model import (
    Actor,
    AgentId,
    DecisionId,
    Draft,
    Event,
)

_GENESIS_TAG: Final = b"agentvault ledger v1\n"
_LINK_TAG: Final = b"agentvault event v1\n"
_SEQ_AND_TIME: Final = 72
"""Bytes reserved for the number and the time."""
_LONG_FIELD: Final = 1024
_SHORT_FIELD: Final = 256
_DETAIL: Final = 3584
PREFIX: Final = "sha256:"
_BODY: Final = msgspec.json.Decoder(
    msgspec.defstruct(
        "EventBody",
        [(n, kind) for n, kind in get_type_hints(Event).items() if n != "hash"],
    )
)
"""Reads a body's members of `Event`, in its order; its hash is computed over them."""


def genesis(ledger_id: str) -> bytes:
    """Return the hash before the first event; no two ledgers share it."""
    return hashlib.sha256(_GENESIS_TAG + ledger_id.encode()).digest()


def link(previous: bytes, seq: int, body: bytes) -> bytes:
    """Return the hash of the event *body* at place *seq*, after *previous*."""
    return hashlib.sha256(
        b"%b%b%b%b%b"
        % (
            _LINK_TAG,
            previous,
            seq.to_bytes(8, "big"),
            len(body).to_bytes(8, "big"),
            body,
        )
    ).digest()


def written(digest: bytes) -> str:
    """Return a hash as it is written outside the chain: ``sha256:`` and hexadecimal."""
    return PREFIX + digest.hex()


class Prepared(NamedTuple):
    """A draft made canonical, waiting for its place."""

    draft: Draft
    """Bounded: the form that a reader gets back."""
    before: str
    """The body before the number."""
    after: str
    """The body after the time."""
    text: str
    """The search text."""
    state: str = ""
    """The member that binds state rows, between the number and the time."""

    def body(self, seq: int, time: str) -> str:
        """Return the body at its place."""
        return f'{self.before}{seq}{self.state},"time":"{time}"{self.after}'


def prepare(draft: Draft, state: str = "") -> Prepared:
    """Make *draft* canonical, with the *state* that it binds; this never fails.

    *state* is no part of the detail, so no agent can write one, and no search text.
    """
    member = f',"state":{state}' if state else ""
    if is_plain(detail := draft.detail):
        try:
            return _assemble(draft, encode_plain(detail), _words(detail), member)
        except (UnicodeEncodeError, _TooLongError):
            pass
    coerced = replace(_map_text(draft, well_formed), detail=coerce(draft.detail))
    try:
        return _assemble_slowly(coerced, member)
    except _TooLongError:
        return _assemble_slowly(_shorten(coerced), member)


def read_event(body: bytes | str, digest: bytes) -> Event:
    """Return the event of a canonical *body*; ValueError: it is no event's."""
    try:
        value = _BODY.decode(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not an event ({error!r:.80})") from error
    return Event._make((*msgspec.structs.astuple(value), written(digest)))


def search_text(record: Draft | Event, words: list[str] | None = None) -> str:
    """Return the text for the search: the visible fields, folded, a line each.

    The *words* are those of its detail, where they are known already.
    """
    fields = (record.actor.name, record.action, record.resource, record.reason)
    listed = [*fields, record.rule, record.decision_id]
    return _folded(listed, _words(record.detail) if words is None else words)


def text_of(value: dict[str, Any]) -> str:
    """Return the search text of a parsed body."""
    names = ("action", "resource", "reason", "rule", "decision_id")
    fields = [value["actor"]["name"], *(value[name] for name in names)]
    return _folded(fields, _words(value["detail"]))


def _folded(fields: list[str | None], words: list[str]) -> str:
    text = "\n".join([field for field in fields if field] + words)
    # NUL would end the text for SQLite's tokenizer.
    return text.casefold().replace("\x00", "\ufffd")


class _TooLongError(Exception):
    """The body would be over the bound."""


def _assemble(draft: Draft, detail: str, words: list[str], state: str) -> Prepared:
    actor = draft.actor
    before = (
        f'{{"action":{_maybe(draft.action)}'
        f',"actor":{{"id":{quote(actor.id)},"kind":"{actor.kind}"'
        f',"name":{quote(actor.name)}}}'
        f',"agent_id":{_maybe(draft.agent_id)}'
        f',"decision_id":{_maybe(draft.decision_id)}'
        f',"detail":{detail}'
        f',"outcome":{_maybe(draft.outcome)}'
        f',"reason":{_maybe(draft.reason)}'
        f',"resource":{_maybe(draft.resource)}'
        f',"rule":{_maybe(draft.rule)}'
        ',"seq":'
    )
    after = f',"type":"{draft.type}"}}'
    size = len(before) if before.isascii() else len(before.encode())
    if state:
        size += len(state) if state.isascii() else len(state.encode())
    if size + len(after) + _SEQ_AND_TIME > MAX_BODY:
        whole = whole_members(draft.detail)
        size -= len(canonical_text(whole).encode())
        if size + len(after) + _SEQ_AND_TIME > MAX_BODY:
            raise _TooLongError
    return Prepared(draft, before, after, search_text(draft, words), state)


def _assemble_slowly(draft: Draft, state: str) -> Prepared:
    detail = canonical_text(draft.detail)
    # Read back, because the words stand in canonical order, and as they are written.
    parsed = json.loads(detail)
    return _assemble(replace(draft, detail=parsed), detail, _words(parsed), state)


def _maybe(value: str | None) -> str:
    return "null" if value is None else quote(value)


def _words(detail: dict[str, Any]) -> list[str]:
    """Return every name and scalar in *detail* that is searched, in canonical order."""
    words: list[str] = []
    searched = {name: value for name, value in detail.items() if name not in WHOLE}
    _collect(searched, words)
    return words


def _collect(value: object, words: list[str]) -> None:
    if isinstance(value, str):
        words.append(value)
    elif isinstance(value, dict):
        # RFC 8785, section 3.2.3: by UTF-16 units. ASCII sorts alike by code point.
        ordinary = "".join(value).isascii()
        for name in sorted(value, key=None if ordinary else _utf16):
            words.append(name)
            _collect(value[name], words)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _collect(member, words)
    elif isinstance(value, float):
        words.append(canonical_text(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        words.append(str(value))


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _shorten(draft: Draft) -> Draft:
    """Clip every long field, so that the body keeps its bound."""
    resource = draft.resource
    return replace(
        _map_text(replace(draft, resource=None), lambda text: clip(text, _SHORT_FIELD)),
        resource=None if resource is None else clip(resource, _LONG_FIELD),
        detail=shrink_detail(draft.detail, _DETAIL),
    )


def _map_text(draft: Draft, change: Callable[[str], str]) -> Draft:
    """Return *draft* with *change* made to each of its texts, the detail aside."""

    def optional(text: str | None) -> str | None:
        return None if text is None else change(text)

    actor = draft.actor
    agent_id, decision_id = optional(draft.agent_id), optional(draft.decision_id)
    return replace(
        draft,
        actor=Actor(actor.kind, change(actor.id), change(actor.name)),
        agent_id=None if agent_id is None else AgentId(agent_id),
        action=optional(draft.action),
        resource=optional(draft.resource),
        reason=optional(draft.reason),
        rule=optional(draft.rule),
        decision_id=None if decision_id is None else DecisionId(decision_id),
    )
