"""Bind state rows to the chain: an event holds the hash of each row its commit wrote.

The member ``state`` of a body maps the key of a row to ``n:hash``, where *n* is the
row's own number and the hash covers every column; it is empty for a row that was
removed. Of two bindings of a key the one with the larger *n* is valid, which is also
how rows replace each other (see `state`).
"""

# ruff: noqa: S608 - statements are put together from constants; values are bound

from __future__ import annotations

import hashlib
import json
import sqlite3
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from agentvault_tui.ledger.canonical import canonical
from agentvault_tui.model import (
    DECISION_TYPES,
    Actor,
    ActorKind,
    Draft,
    EventType,
    Outcome,
)

Row: TypeAlias = tuple[Any, ...]
LEDGER: Final = Actor(ActorKind.SYSTEM, "ledger", "ledger")
ALL_TOKENS: Final = "tokens:"
"""Prefix of the key that voids tokens of an agent, a scope of it, or every agent."""
CREDENTIAL: Final = "credential:"
"""Prefix of the key of an agent's secret hash and public key."""
STEP: Final = "step:"
UNBOUND: Final = ("app:", "jti:")
"""Prefixes of keys in ``meta`` that are not bound; see docs/threat-model.md."""
MAYBE_BOUND: Final = (
    *("app:policy", "app:policy_checked", "app:tenant_log"),
    *("app:agent_shares_user", "app:approver_existed", "app:gateway_files"),
    *("app:alerts_file", "app:settings_recorded", "app:applied_files"),
)
"""Of those the keys that are bound all the same: a broker decides by their values.
Earlier builds bound none, so a row that no event binds is no fault."""
_DECIDING: Final = (
    *("app:secret_origins", "app:secret_for:", "app:grant_ends:"),
    *("app:gateway_text:", "app:alerts_replaced:"),
)
"""Prefixes of keys in ``meta`` that every row has to be bound under, likewise."""
LASTING_TYPES: Final = (
    EventType.AGENT_REGISTERED,
    EventType.AGENT_REVOKED,
    EventType.AGENT_RESTORED,
    EventType.AGENT_SCOPES_CHANGED,
    EventType.AGENT_CHANGED,
    EventType.PANIC_ON,
    EventType.PANIC_OFF,
    EventType.CONNECTION_ADDED,
    EventType.CONNECTION_REMOVED,
    EventType.UPSTREAM_REVOCATION,
    EventType.CLOCK_JUMP,
    EventType.AUDIT_AMBIGUOUS,
    EventType.STATE_RECORDED,
)
"""The only events that bind rows of unbounded age: few, so a start reads them all."""
PASSING_TYPES: Final = tuple(kind for kind in EventType if kind not in DECISION_TYPES)
_PASSING: Final = (
    *("tok_", "sup_", "chg_", "cooldown:", "lease:"),
    *MAYBE_BOUND,
    *_DECIDING,
)
"""Keys that any event binds: of rows that expire, found by a scan back, and of those
that `verify` alone compares."""
_FINAL: Final = 2**62
"""A dropped token stays dropped, whatever the numbers of its rows."""
_ROOM: Final = 640
"""Bytes of bindings that an event may have besides its other members."""
_ROOM_ALONE: Final = 7_000


def digest(table: str, columns: Sequence[str | None]) -> str:
    """Return the hash of a row: SHA-256 over its table and columns, in base64."""
    text = "\0".join([table, *[column or "" for column in columns]])
    made = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return b2a_base64(made, newline=False)[:-1].decode()


def bindings(table: str, row: Row) -> Iterator[tuple[str, str]]:
    """Yield the keys that *row* is bound under, each with its binding."""
    match table:
        case "tokens":
            yield row[1], f"{row[0]}:{digest(table, row[1:5])}"
        case "dropped":
            yield row[0], f"{row[1]}:"
        case "voided":
            yield f"{ALL_TOKENS}{row[0]}", f"{row[1]}:"
        case "agents":
            yield row[0], f"{row[-1]}:{digest(table, row[:-1])}"
            yield f"{CREDENTIAL}{row[0]}", f"{row[-1]}:{credential_digest(row[1])}"
        case "outbox":
            yield f"{STEP}{row[0]}", f"{row[-1]}:{digest(table, row[:-1])}"
        case "meta" if row[0].startswith(UNBOUND) and not is_deciding(row[0]):
            return
        case "texts":
            return  # the events that name its digest bind it
        case "meta" if row[1] is None:
            yield row[0], f"{row[-1]}:"
        case _:
            yield row[0], f"{row[-1]}:{digest(table, row[:-1])}"


def is_maybe_bound(key: str) -> bool:
    """Check whether *key* is of `MAYBE_BOUND`, or of a broker's own row of such."""
    return key.partition(" ")[0] in MAYBE_BOUND


def is_deciding(key: str) -> bool:
    """Check whether a broker decides by the value under a key of ``meta``."""
    return is_maybe_bound(key) or key.startswith(_DECIDING)


def credential_digest(doc: str) -> str:
    """Return the fingerprint of the credential in an agent's document."""
    value = json.loads(doc)
    digests = [value["secret_sha256"], value["public_key"]]
    if subject := value.get("subject"):  # earlier versions wrote none
        digests.append(subject)
    return digest("credential", digests)


def bind(
    drafts: Sequence[Draft], rows: Sequence[tuple[str, Row]]
) -> Iterator[tuple[Draft, str]]:
    """Distribute the bindings of *rows* over the events of their commit.

    Bindings that none of them may carry, or has room for, get separate events.
    """
    if len(drafts) == len(rows) == 1 and rows[0][0] == "tokens":
        # As often as all else together: an answer that issues a token.
        n, key, *columns = rows[0][1]
        if _carried(drafts[0]) == "passing":
            hashed = digest("tokens", [key, *columns])
            yield drafts[0], f'{{"{key}":"{n}:{hashed}"}}'
            return
    left = {key: value for pair in rows for key, value in bindings(*pair)}
    for draft in drafts:
        yield draft, _take(left, _carried(draft), _ROOM) if left else ""
    while left:
        yield Draft(EventType.STATE_RECORDED, LEDGER), _take(left, "all", _ROOM_ALONE)


def _carried(draft: Draft) -> str:
    """Return which keys an event may carry: all, passing, or none."""
    if draft.type in LASTING_TYPES:
        return "all"
    issues = draft.outcome is None or (
        draft.outcome is Outcome.ALLOWED and draft.type is EventType.TOKEN_DECISION
    )
    return "passing" if issues else "none"


def _take(left: dict[str, str], which: str, room: int) -> str:
    """Remove from *left* as many as fit, and return them as JSON."""
    if which == "none":
        return ""
    taken: dict[str, str] = {}
    for key, value in left.items():
        if which == "all" or key.startswith(_PASSING):
            room -= len(key.encode()) + len(value) + 6
            if room < 0 and taken:
                break
            taken[key] = value
    for key in taken:
        del left[key]
    return canonical(taken) if taken else ""


def is_bound(row: Row) -> bool:
    """Check whether the event a token's row names binds exactly that row."""
    n, key, *_, text = row
    value = f"{n}:{digest('tokens', row[1:5])}"
    # Nearly always it binds nothing else, so that whole texts compare.
    return text == f'{{"{key}":"{value}"}}' or (
        text is not None and json.loads(text).get(key) == value
    )


class Bound(dict[str, tuple[int, str]]):
    """The bindings of events, by key: the valid number, and hash (empty: removed)."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, int] = {}
        """The event that bound each key."""

    def learn(self, seq: int, state: str | None) -> None:
        """Take an event's bindings, in any order of events."""
        for key, value in json.loads(state or "{}").items():
            number, _, digest = value.partition(":")
            n = int(number) if digest or not key.startswith("tok_") else _FINAL
            self.put(seq, key, n, digest)

    def put(self, seq: int, key: str, n: int, digest: str) -> None:
        """Take one binding of event *seq*, unless one with a larger number is known."""
        if key not in self or self[key][0] < n:
            self[key] = n, digest
            self.at[key] = seq

    def settled(self, key: str, n: int) -> bool:
        """Check whether nothing older can say more about a row numbered *n*."""
        return key in self and self[key][0] >= n

    def holds(self, table: str, row: Row) -> bool:
        """Check whether *row* is exactly the last bound one."""
        return all(
            f"{n}:{digest}" == value
            for key, value in bindings(table, row)
            for n, digest in (self.get(key, (-1, "")),)
        )

    def voided(self, agent_id: str, scope: str = "") -> int:
        """Return the number up to which an agent's tokens of *scope* are void."""
        own = f"{ALL_TOKENS}{agent_id}"
        keys = (ALL_TOKENS, own, *(f"{own} {word}" for word in scope.split()))
        return max(self.get(key, (0, ""))[0] for key in keys)


def read_bound(
    db: sqlite3.Connection,
    types: Iterable[EventType],
    bound: Bound,
    low: int = 0,
    high: int | None = None,
) -> None:
    """Learn the bindings of events of *types* between two places, both included."""
    kinds = ",".join(f"'{kind.value}'" for kind in types)
    rows = db.execute(
        "SELECT seq, json_extract(body, '$.state') FROM events"
        f" WHERE type IN ({kinds}) AND outcome IS NULL AND seq BETWEEN ? AND ?",
        (low, 2**62 if high is None else high),
    )
    for seq, state in rows:
        if state is not None:
            bound.learn(seq, state)
