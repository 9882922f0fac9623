"""State rows as JSON text and back: one definition of each, by msgspec.

The hash of every row is in the chain, so a document is read exactly as it was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any, Final, Generic, TypeVar

import msgspec

from agentvault_tui.clock import Deadline
from agentvault_tui.encoder import to_json
from agentvault_tui.ledger.records import Cooldown, OutboxStep, Panic
from agentvault_tui.model import (
    Account,
    Agent,
    AgentId,
    DecisionId,
    IssuedProviderToken,
    Lease,
    StepUp,
    StepUpId,
    Token,
    TokenId,
    TokenKind,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Array(Generic[_T]):
    """A record as a JSON array of *names*; *keys* of the row are in its key instead."""

    kind: type[_T]
    names: tuple[str, ...]

    def write(self, record: _T) -> str:
        return to_json([getattr(record, name) for name in self.names])

    def read(self, doc: str, **keys: str) -> _T:
        # Fields that were added later have defaults and come last.
        value = zip(self.names, json.loads(doc), strict=False)
        return msgspec.convert(dict(value) | keys, self.kind)


PANIC: Final = _Array(Panic, ("on", "since", "by", "reason"))
ACCOUNT: Final = _Array(
    Account,
    (
        *("id", "issuer", "user", "user_name", "scopes", "since", "removing"),
        "provider_user",
    ),
)
OUTBOX: Final = _Array(
    OutboxStep,
    (
        *("agent_id", "step", "begun_at", "attempts", "next_at", "ms", "problem"),
        *("users", "connection"),
    ),
)


def write_agent(agent: Agent) -> str:
    """Return *agent* as text."""
    value = msgspec.to_builtins(agent)
    del value["authenticated_as"]
    return to_json(value | value.pop("credential"))


def read_agent(doc: str) -> Agent:
    """Return the agent `write_agent` wrote."""
    value = json.loads(doc)
    return msgspec.convert(value | {"credential": value}, Agent)


class _TokenDocument(msgspec.Struct, array_like=True):
    sha256: str
    scope: str
    kind: TokenKind
    issued_at: datetime
    wall: datetime
    boot: float
    boot_id: str
    details: Any
    resource: str | None
    stepup_id: StepUpId | None
    decision_id: DecisionId | None = None
    single_use: bool = False
    source: str | None = None
    parent_id: TokenId | None = None
    chain: tuple[AgentId, ...] = ()


_TOKEN: Final = msgspec.json.Decoder(_TokenDocument)


def write_token(token: Token) -> str:
    """Return *token* as text; its secret was never in it."""
    head = to_json(
        [token.sha256, token.scope, token.kind, token.issued_at, *token.expires]
    )
    last = [
        *(token.resource, token.stepup_id, token.decision_id),
        *(token.single_use, token.source),
    ]
    tail = to_json([*last, token.parent_id, token.chain] if token.chain else last)
    return f"{head[:-1]},{token.authorization_details or 'null'},{tail[1:]}"


def token_scopes(doc: str) -> frozenset[str]:
    """Return the scopes of the token `write_token` wrote."""
    return frozenset(json.loads(doc)[1].split())


def read_token(token_id: str, agent_id: str, doc: str) -> Token:
    """Return the token `write_token` wrote; texts many tokens share are interned."""
    try:
        document = _TOKEN.decode(doc)
    except msgspec.DecodeError:  # msgspec reads no half of a surrogate pair
        document = msgspec.convert(json.loads(doc), _TokenDocument)
    return Token(
        TokenId(token_id),
        document.sha256,
        AgentId(intern(agent_id)),
        intern(document.scope),
        document.kind,
        document.issued_at,
        Deadline(document.wall, document.boot, intern(document.boot_id)),
        None if document.details is None else to_json(document.details),
        document.resource,
        document.stepup_id,
        document.single_use,
        document.decision_id,
        None if document.source is None else intern(document.source),
        document.parent_id,
        document.chain,
    )


def write_stepup(stepup: StepUp) -> str:
    """Return *stepup* as text.

    Its device code is left out: a reader of a live user code can enter it (RFC 8628
    section 5.4), and no device flow outlives its process.
    """
    value = msgspec.to_builtins(stepup)
    details = value.pop("authorization_details") or "null"
    parameters, request = value.pop("parameters_json"), value.pop("request_json")
    del value["device"]
    if not stepup.chain:
        del value["chain"]
    if stepup.change is None:
        del value["change"]
    if not stepup.approvers:
        del value["approvers"]
    if stepup.money is None:
        del value["money"]
    return (
        f'{to_json(value)[:-1]},"parameters":{parameters}'
        f',"authorization_details":{details}'
        + (f',"request":{request}}}' if request else "}")
    )


def read_stepup(doc: str) -> StepUp:
    """Return the step-up `write_stepup` wrote."""
    value: dict[str, Any] = json.loads(doc)
    details = value["authorization_details"]
    value["authorization_details"] = None if details is None else to_json(details)
    value["parameters_json"] = to_json(value["parameters"])
    if "request" in value:
        value["request_json"] = to_json(value["request"])
    return msgspec.convert(value, StepUp)


def write_cooldown(cooldown: Cooldown) -> str | None:
    """Return *cooldown* as text; None when an approval has ended it."""
    if cooldown.until is None:
        return None
    return to_json([cooldown.denials, *cooldown.until])


def read_cooldown(requester: str, doc: str) -> Cooldown:
    """Return the cool-down `write_cooldown` wrote."""
    denials, *until = json.loads(doc)
    return Cooldown(requester, denials, msgspec.convert(until, Deadline))


def write_lease(lease: Lease) -> str | None:
    """Return *lease* as text; None when no token is out any more."""
    return to_json(lease.given) if lease.given else None


def read_lease(agent_id: str, connection: str, doc: str) -> Lease:
    """Return the lease `write_lease` wrote."""
    given = msgspec.convert(json.loads(doc), tuple[IssuedProviderToken, ...])
    return Lease(AgentId(agent_id), connection, given)
