"""The tenant's own log, as ``GET /api/v2/logs`` tells it: one row an event, capped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from agentvault_tui.clock import Clock
from agentvault_tui.tenant.faults import FaultSwitch
from agentvault_tui.tenant.objects import Objects
from agentvault_tui.tenant.people import CONNECTION, User
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.times import millis

Code = Literal[
    "api_limit",
    "connected_accounts_connection_failed",
    "connected_accounts_connection_succeeded",
    "connected_accounts_delete_failed", "connected_accounts_delete_succeeded",
    "f", "fapi", "fdeac", "fdeaz", "fdecc", "feacft", "feccft", "fede", "ferrt",
    "fertft", "feta", "fp", "gd_auth_failed", "gd_auth_succeed",
    "fu", "gd_otp_rate_limit_exceed", "gd_start_auth", "limit_wc", "s", "sapi",
    "seacft", "seccft", "sede", "sertft", "seta", "srrt",
]  # fmt: skip
"""Every type of row there is here, by Auth0's codes."""
KEPT: Final = 10_000
"""Rows; the oldest go first."""
REACHABLE: Final = 1000
"""Rows that a search finds."""
FIELDS: Final = frozenset(
    (
        "type", "client_id", "client_name", "user_id", "user_name", "connection",
        "connection_id", "ip", "date", "description", "hostname", "log_id",
        "organization_id", "strategy", "strategy_type", "user_agent",
    )
)  # fmt: skip
"""What a search can ask for."""
_KINDS: Final = {
    "auth0": "database",
    **dict.fromkeys(("google-apps", "oidc", "okta", "samlp", "waad"), "enterprise"),
}
"""What a strategy is, where it is no social one."""
_SWEEP: Final = 100
"""Rows between two times the oldest are deleted."""
_STRANGERS: Final = 60
_WINDOW: Final = 60.0
_DIGITS: Final = 36
_THERE: Final = "visible_at <= ? AND visible_at >= ?"
_TEXT_CAP: Final = 500


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a request, as far as HTTP says."""

    ip: str = ""
    user_agent: str = ""


class Journal:
    """Writes rows with the keys Auth0's have, and reads them by their ids."""

    def __init__(
        self, store: Store, clock: Clock, host: str, faults: FaultSwitch
    ) -> None:
        """Keep rows in *store*, those of *host*."""
        self._store = store
        self._clock = clock
        self._host = host
        self._faults = faults
        self._connections = Objects(store, "connection")
        last = store.one("SELECT max(log_id) AS id, count(*) AS n FROM journal")
        self._last = "" if last is None or last["id"] is None else str(last["id"])
        self._written = 0
        self._strangers = (0.0, 0)

    def write(
        self,
        kind: Code,
        *,
        description: str = "",
        client: tuple[str | None, str | None] = (None, None),
        user: User | None = None,
        peer: Peer | None = None,
        details: Mapping[str, Any] | None = None,
        connection: str | None = None,
        audience: str | None = None,
        scope: str | None = None,
    ) -> None:
        """Add a row of type *kind*; never a secret among its *details*.

        Unless *connection* names another, or none with an empty name, a row of a user
        is of the connection where users sign in.
        """
        if client[0] is None and user is None and self._too_many_strangers():
            # Whoever has no name here must not push out what was written of others.
            return
        now = self._clock.now()
        log_id = self._next_id(now)
        if connection is None and user is not None:
            connection = CONNECTION
        doc = {
            "_id": log_id,
            "log_id": log_id,
            "date": millis(now),
            "type": kind,
            "description": _cut(description),
            **self._where(connection or None),
            "organization_id": None,
            "organization_name": None,
            "client_id": client[0],
            "client_name": client[1],
            "ip": "" if peer is None else peer.ip,
            "hostname": self._host,
            "details": dict(details or {}),
            "user_id": None if user is None else user.sub,
            "user_name": None if user is None else user.name,
            "user_agent": "" if peer is None else _cut(peer.user_agent),
            "audience": audience and _cut(audience),
            "scope": scope and _cut(scope),
            "isMobile": False,
            "location_info": None,
        }
        self._store.change(
            "INSERT INTO journal VALUES (?, ?, ?, ?)",
            log_id,
            kind,
            now.timestamp() + self._faults.now.log_delay,
            json.dumps(doc),
        )
        self._sweep()

    def _where(self, named: str | None) -> dict[str, str | None]:
        """Return what rows say of a connection; of one there is not, its name alone."""
        found = None if named is None else self._connections.named(named)
        strategy = None if found is None else str(found["strategy"])
        kind = None if strategy is None else _KINDS.get(strategy, "social")
        return {
            "connection": named and _cut(named),
            "connection_id": None if found is None else str(found["id"]),
            "strategy": strategy,
            "strategy_type": kind,
        }

    def after(self, log_id: str, take: int) -> list[dict[str, Any]]:
        """Return up to *take* rows newer than *log_id*, oldest first."""
        rows = self._store.all(
            f"SELECT doc FROM journal WHERE log_id > ? AND {_THERE}"  # noqa: S608 - ours
            " ORDER BY log_id LIMIT ?",
            log_id,
            *self._there(),
            take,
        )
        return [json.loads(row["doc"]) for row in rows]

    def search(
        self, terms: Iterable[tuple[str, str]], *, newest_first: bool = True
    ) -> list[dict[str, Any]]:
        """Return rows that have each field of *terms*, as Auth0's search compares.

        The case counts; a star at the end of a value stands for any end.

        Args:
            terms: names among `FIELDS`, and values.
            newest_first: or oldest.
        """
        where = [_THERE]
        wanted: list[object] = [*self._there()]
        for name, value in terms:
            if name not in FIELDS:
                raise ValueError(name)
            column = f"coalesce(json_extract(doc, '$.{name}'), '')"
            if value.endswith("*"):
                where.append(f"substr({column}, 1, ?) = ?")
                wanted += [len(value) - 1, value[:-1]]
            else:
                where.append(f"{column} = ?")
                wanted.append(value)
        order = "DESC" if newest_first else "ASC"
        rows = self._store.all(
            f"SELECT doc FROM journal WHERE {' AND '.join(where)}"  # noqa: S608 - names of ours
            f" ORDER BY log_id {order} LIMIT {REACHABLE}",
            *wanted,
        )
        return [json.loads(row["doc"]) for row in rows]

    def one(self, log_id: str) -> dict[str, Any] | None:
        """Return the row of that id."""
        row = self._store.one(
            f"SELECT doc FROM journal WHERE log_id = ? AND {_THERE}",  # noqa: S608 - ours
            log_id,
            *self._there(),
        )
        return None if row is None else json.loads(row["doc"])

    def _there(self) -> tuple[float, float]:
        """Return until when, and since when, rows can be read now."""
        now, kept = self._clock.now().timestamp(), self._faults.now.log_kept
        return now, now - kept if kept else 0.0

    def _next_id(self, now: datetime) -> str:
        """Return an id that sorts after every other, also when the clock goes back."""
        stamp = now.strftime("%Y%m%d%H%M%S") + f"{now.microsecond // 1000:03d}"
        fresh = f"900{stamp}{0:0{_DIGITS}d}"
        self._last = fresh if fresh > self._last else str(int(self._last) + 1)
        return self._last

    def _sweep(self) -> None:
        self._written += 1
        if self._written % _SWEEP == 1:
            self._store.change(
                "DELETE FROM journal WHERE log_id IN (SELECT log_id FROM journal"
                " ORDER BY log_id DESC LIMIT -1 OFFSET ?)",
                KEPT,
            )

    def _too_many_strangers(self) -> bool:
        since, count = self._strangers
        now = self._clock.boot()
        if now - since >= _WINDOW:
            since, count = now, 0
        self._strangers = (since, count + 1)
        return count >= _STRANGERS


def _cut(text: str) -> str:
    return text[:_TEXT_CAP]
