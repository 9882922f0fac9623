"""Check a service's file against recorded calls: parts it drops, or would refuse.

The ledger has no bodies, and rows of earlier versions have no headers; missing parts
are not guessed.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.content import (
    BODILESS,
    MULTIPART,
    READABLE,
    ContentRule,
)
from agentvault_tui.gateway.headers import is_listable
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.request import read_body, read_head
from agentvault_tui.gateway.services import Service
from agentvault_tui.model import EventType
from agentvault_tui.text import visible

_MOST_ROWS: Final = 200_000
_SHOWN: Final = 50


class Unlisted(NamedTuple):
    """A header or media type of requests that a service's file does not list."""

    kind: str
    """``header`` or ``type``."""
    name: str
    calls: int
    refused: bool
    """Whether the request was refused; a header may be dropped instead."""
    add: str | None
    """The line that would allow it; None where no line does."""


def unlisted(service: str, details: Iterable[Mapping[str, Any]]) -> list[Unlisted]:
    """Return the headers and types in a service's calls that its file does not list.

    Args:
        service: the service's name.
        details: ``detail`` of events of calls.

    Returns:
        each once, the most frequent first.
    """
    counted: Counter[tuple[str, str, bool]] = Counter()
    for detail in details:
        if detail.get("service") != service:
            continue
        dropped = detail.get("dropped")
        for name in dropped if isinstance(dropped, list) else ():
            if name != "more":
                counted["header", str(name), False] += 1
        for kind, key in (("header", "header"), ("type", "media_type")):
            if isinstance(value := detail.get(key), str):
                counted[kind, value, True] += 1
    return [
        Unlisted(kind, name, calls, refused, _line(kind, name))
        for (kind, name, refused), calls in counted.most_common(_SHOWN)
    ]


def _line(kind: str, name: str) -> str | None:
    """Return the line of a service's file that allows a header or media type."""
    if kind == "header":
        shown = "-".join(part.capitalize() for part in name.split("-"))
        return f"headers = [{to_json(shown)}]" if is_listable(name) else None
    media = MediaType.parse(name)
    if media is None:
        return None
    if media.type == MULTIPART:
        return 'body = "multipart"'
    if any(ContentRule(one).takes(media.type) for one in READABLE):
        return f"types = [{json.dumps(str(media))}]"
    return f'body = "opaque", types = ["{media.type}"]'


def recorded_calls(
    db: sqlite3.Connection,
    service: str,
    since: datetime,
    kind: EventType = EventType.GATEWAY_ATTEMPT,
) -> Iterator[dict[str, Any]]:
    """Yield ``detail`` of each call of a service since a moment, the latest first.

    Args:
        db: a reader of the ledger.
        service: the service's name.
        since: the earliest moment.
        kind: calls that went out, or refused requests.
    """
    rows = db.execute(
        "SELECT body FROM events WHERE type = ? ORDER BY seq DESC LIMIT ?",
        (kind.value, _MOST_ROWS),
    )
    for (body,) in rows:
        event = json.loads(body)
        if event["time"] < iso(since):
            break
        detail = event["detail"]
        if detail.get("service") == service and "for" not in detail:
            yield detail


def refused_now(service: Service, details: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return notes about routes whose recorded calls a file would refuse now.

    Args:
        service: the service, from its current file.
        details: ``detail`` of calls that went out.

    Returns:
        a sentence for each method, path template and reason.
    """
    seen: dict[str, tuple[str, str] | None] = {}
    refused: Counter[tuple[str, str]] = Counter()
    untold: Counter[tuple[str, str]] = Counter()
    for detail in details:
        key = json.dumps(
            [detail.get(n) for n in ("method", "path", "query", "headers")]
        )
        key += str(bool(detail.get("body_bytes")))
        if key not in seen:
            seen[key] = _refusal(service, detail)
        if (counted := seen[key]) is not None:
            (untold if counted[1].startswith("?") else refused)[counted] += 1
    return [
        *(
            f"{where}: refused now ({reason}); calls in the last 30 days: {calls}"
            for (where, reason), calls in refused.most_common(_SHOWN)
        ),
        *(
            f"{where}: now refused unless the request has {reason[1:]}, which the"
            f" records do not show; calls in the last 30 days: {calls}"
            for (where, reason), calls in untold.most_common(_SHOWN)
        ),
    ]


def _refusal(service: Service, detail: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the route and the reason by which a recorded call would now be refused.

    None if it would not, or if the row does not show it.
    """
    method, path = str(detail.get("method")), str(detail.get("path"))
    query, headers = detail.get("query"), detail.get("headers")
    target = f"{path}?{query}" if query else path
    sent_headers = headers if isinstance(headers, dict) else {}
    received = [
        (str(name).lower().encode(), str(value).encode("latin-1", "replace"))
        for name, value in sent_headers.items()
    ]
    where = f"{method} {visible(path, 120)}"
    try:
        raw = target.encode("latin-1", "replace")
        head = read_head(service, method, raw, received, has_body=False)
        where = f"{head.route.method} {head.route.path}"
        none = head.rule.kind == "none" or (
            head.rule.kind is None and method in BODILESS
        )
        if detail.get("body_bytes") and none:
            return where, "unexpected_body"
        if detail.get("body_bytes") == 0:  # the row has all of the request
            read_body(head.job(), b"")
            return None
        missing = [*head.route.requires, *(b.id for b in head.route.binds if b.id)]
        named = {name for name, _ in head.target.query}
        if any(one.kind == "query" and one.name not in named for one in missing):
            return where, "parameter_required"
        read = [str(one) for one in missing if one.kind == "body"]
        return (where, f"?{', '.join(read)}") if read else None
    except UnreadableRequestError as error:
        return where, error.code
