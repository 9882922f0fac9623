"""Rows of the tenant's log: which are about what is ours, and what of them is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

from agentvault_tui.broker.upstream.holdings import Holdings
from agentvault_tui.broker.upstream.log_codes import meaning
from agentvault_tui.model import Actor, ActorKind, AgentId, Draft, EventType
from agentvault_tui.text import visible
from agentvault_tui.vault.reply import Json

_TEXT: Final = 300
_NAMED: Final = ("log_id", "date", "client_id", "user_id", "connection", "ip")
_TOLD: Final = (
    "scope",
    "failure_reason",
    "audit_context",
    "subject_token_type",
    "is_privileged_worker",
    "expires_at",
    "token_thumbprint",
    "error",
)
"""Of a row's details: what says who got what, and why not. None holds a secret."""
_API: Final = ["", "api", "v2"]

Ours = dict[str, AgentId | None]
"""Ids of ours, and whose each is: an agent's, or no one agent's."""


def drafts(
    rows: Iterable[Json], holdings: Holdings, consoles: Iterable[str] = ()
) -> list[Draft]:
    """Return the events of the rows that are about our clients, agents and users.

    Args:
        rows: as the tenant wrote them; every text is untrusted.
        holdings: what agents have there.
        consoles: names of the client that operators sign in with.
    """
    clients, users = holdings.clients(), holdings.users()
    clients.update(dict.fromkeys(consoles))
    known = ((row, list(_whose(row, clients, users))) for row in rows)
    return [_draft(row, owners[0]) for row, owners in known if owners]


def _whose(row: Json, clients: Ours, users: Ours) -> Iterator[AgentId | None]:
    """Yield whose a row is, the surest first; nothing when it is none of ours."""
    client_id, user_id = _text_of(row, "client_id"), _text_of(row, "user_id")
    # What a client did is that client's alone, whoever signed in there.
    if clients.get(client_id):
        yield clients[client_id]
    # Who changes an agent's client or user by the Management API may be anybody.
    yield from _changed(row, clients, users)
    if client_id in clients:
        yield None
    elif not client_id and user_id in users:
        yield users[user_id]


def _changed(row: Json, clients: Ours, users: Ours) -> Iterator[AgentId | None]:
    """Yield whose it is what a call of the Management API was about."""
    request = _member(_member(row, "details"), "request")
    parts = [unquote(part) for part in _text_of(request, "path").split("/")]
    if parts[:3] != _API:
        return
    kind, key = (*parts[3:5], "", "")[:2]
    ours = {"clients": clients, "users": users}.get(kind, {})
    if key in ours:
        yield ours[key]
    client_id = _text_of(_member(request, "body"), "client_id")
    if client_id in clients:
        yield clients[client_id]


def _draft(row: Json, agent_id: AgentId | None) -> Draft:
    """Write a row as an event of the tenant's."""
    kind = visible(str(row.get("type") or "?"), 60)
    details = _member(row, "details")
    told = {
        name: details[name] if isinstance(details[name], bool) else _text(details[name])
        for name in _TOLD
        if details.get(name) not in (None, "")
    }
    told |= _request(details)
    named = {name: _text(row[name]) for name in _NAMED if row.get(name)}
    description = row.get("description")
    means = meaning(kind, _text(description) if description else "")
    return Draft(
        EventType.TENANT_LOG,
        Actor(ActorKind.TENANT, "tenant", "tenant"),
        agent_id=agent_id,
        action=kind,
        resource=named.get("connection"),
        reason=means and visible(means, _TEXT),
        detail={"type": kind, **named, **({"details": told} if told else {})},
    )


def _request(details: Json) -> dict[str, str]:
    """Tell of a call of the Management API what was done, by whom, and its status."""
    request = _member(details, "request")
    method, path = _text_of(request, "method"), _text_of(request, "path")
    if not method or not path:
        return {}
    told = {"request": _text(f"{method.upper()} {path}")}
    status = _member(details, "response").get("statusCode")
    if isinstance(status, int):
        told["status"] = str(status)
    user = _member(_member(request, "auth"), "user")
    by = next((user[n] for n in ("email", "name", "user_id") if user.get(n)), None)
    return told | ({"by": _text(by)} if by else {})


def _member(row: Json, name: str) -> Json:
    value: Any = row.get(name)
    return value if isinstance(value, dict) else {}


def _text_of(row: Json, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return visible(value if isinstance(value, str) else str(value), _TEXT)
