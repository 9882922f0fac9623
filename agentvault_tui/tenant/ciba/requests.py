"""Requests that wait for a person: kept, found, decided, and spent exactly once."""

from __future__ import annotations

import json
import math
import secrets
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.model import new_secret, sha256_hex
from agentvault_tui.tenant.ciba.details import Detail
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.oauth.wire import LaterError
from agentvault_tui.tenant.store import Store

_WINDOW: Final = 60.0
_STARTS: Final = 500
_PER_USER: Final = 5
"""Requests a minute, of the tenant and to one person: Auth0's limits."""
_PENDING: Final = 5000
_KEPT: Final = 3600.0
"""Seconds that a request which is over is still told apart from one that never was."""


@dataclass(frozen=True, slots=True)
class CibaRequest:
    """One request, as the store holds it."""

    key: str
    """SHA-256 of the ``auth_req_id``, which the client alone has."""
    consent: str = field(repr=False)
    """What the person's link has; it opens the page, and decides nothing by itself."""
    client_id: str
    user_id: str
    scope: str
    audience: str | None
    binding_message: str
    details: list[Detail]
    created: datetime
    expires: Deadline
    state: str
    sid: str | None
    authenticated_at: int | None

    @property
    def linking_id(self) -> str:
        """What the log's rows about it have in common."""
        return self.key[:32]


class CibaRequests:
    """The requests of one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Keep them in *store*."""
        self._store = store
        self._clock = clock

    def start(
        self,
        client: Client,
        sub: str,
        *,
        scope: str,
        audience: str | None,
        binding_message: str,
        details: list[Detail],
        lifetime: int,
    ) -> tuple[str, CibaRequest]:
        """Keep a new request; return its ``auth_req_id``, once, and the request.

        Raises:
            LaterError: ``too_many_requests``: one of Auth0's limits is reached.
        """
        self._forget()
        token = new_secret("arq")
        deadline = Deadline.after(self._clock, lifetime)
        with self._store.transaction():
            self._check_limits(sub)
            self._store.change(
                "INSERT INTO ciba_requests (auth_req_hash, consent, client_id, user_id,"
                " scope, audience, binding_message, details, created_wall,"
                " created_boot, expires_wall, expires_boot, boot_id)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(sha256_hex(token), new_secret("cns"), client.client_id, sub),
                *(scope, audience, binding_message, json.dumps(details)),
                *(self._now(), self._clock.boot()),
                *(deadline.wall.timestamp(), deadline.boot, deadline.boot_id),
            )
        found = self.by_token(token)
        assert found is not None  # noqa: S101 - it was just kept
        return token, found

    def by_token(self, token: str) -> CibaRequest | None:
        """Find what a client polls for."""
        return self.by_key(sha256_hex(token))

    def by_key(self, key: str) -> CibaRequest | None:
        """Find a request again, to see how it stands now."""
        return self._one("auth_req_hash", key)

    def by_consent(self, consent: str) -> CibaRequest | None:
        """Find what a person's link leads to."""
        return self._one("consent", consent)

    def waiting(self, sub: str) -> list[CibaRequest]:
        """Return what waits for one person, newest first."""
        rows = self._store.all(
            "SELECT * FROM ciba_requests WHERE user_id = ? AND state = 'pending'"
            " ORDER BY created_wall DESC",
            sub,
        )
        return [found for found in map(_read, rows) if self.open(found)]

    def open(self, request: CibaRequest) -> bool:
        """Tell whether *request* still waits for its person."""
        return request.state == "pending" and not self.over(request)

    def over(self, request: CibaRequest) -> bool:
        """Tell whether its time has passed."""
        return request.expires.passed(self._clock)

    def accept(self, request: CibaRequest, sub: str, authenticated_at: int) -> bool:
        """Note its person's yes; False if it was decided or over first.

        What proves the person must be newer than the request: a factor shown before
        it existed was shown for something else.
        """
        return not self.over(request) and bool(
            self._store.change(
                "UPDATE ciba_requests SET state = 'accepted', sid = ?,"
                " authenticated_at = ? WHERE auth_req_hash = ? AND state = 'pending'"
                " AND user_id = ? AND CAST(created_wall AS INTEGER) <= ?",
                *(secrets.token_urlsafe(24), authenticated_at, request.key),
                *(sub, authenticated_at),
            )
        )

    def reject(self, request: CibaRequest) -> bool:
        """Note a no; False if it was decided or over first."""
        return not self.over(request) and self._move(request, "rejected")

    def spend(self, request: CibaRequest) -> bool:
        """Use *request* up; True for exactly one caller."""
        return self._move(request, "spent")

    def _move(self, request: CibaRequest, state: str) -> bool:
        return bool(
            self._store.change(
                "UPDATE ciba_requests SET state = ? WHERE auth_req_hash = ?"
                " AND state = ?",
                *(state, request.key, request.state),
            )
        )

    def _check_limits(self, sub: str) -> None:
        self._check_rate(_STARTS, "1", None)
        self._check_rate(_PER_USER, "user_id = ?", sub)
        row = self._store.one(
            "SELECT count(*) AS n FROM ciba_requests WHERE state = 'pending'"
            " AND expires_wall > ?",
            self._now(),
        )
        if row is not None and row["n"] >= _PENDING:
            raise _later(_WINDOW)

    def _check_rate(self, most: int, where: str, value: str | None) -> None:
        """Count by the boot clock, which nobody sets; a restart forgets nothing."""
        now = self._clock.boot()
        row = self._store.one(
            f"SELECT count(*) AS n, min(created_boot) AS first FROM ciba_requests"  # noqa: S608 - a condition of ours
            f" WHERE {where} AND boot_id = ? AND created_boot > ?",
            *(() if value is None else (value,)),
            *(self._clock.boot_id, now - _WINDOW),
        )
        if row is not None and row["n"] >= most:
            raise _later(row["first"] + _WINDOW - now)

    def _forget(self) -> None:
        self._store.change(
            "DELETE FROM ciba_requests WHERE expires_wall < ?", self._now() - _KEPT
        )

    def _one(self, column: str, value: str) -> CibaRequest | None:
        row = self._store.one(
            f"SELECT * FROM ciba_requests WHERE {column} = ?",  # noqa: S608 - a column of ours
            value,
        )
        return None if row is None else _read(row)

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _later(seconds: float) -> LaterError:
    return LaterError(
        "too_many_requests", "Rate limit exceeded.", max(1, math.ceil(seconds))
    )


def _read(row: sqlite3.Row) -> CibaRequest:
    return CibaRequest(
        key=row["auth_req_hash"],
        consent=row["consent"],
        client_id=row["client_id"],
        user_id=row["user_id"],
        scope=row["scope"],
        audience=row["audience"],
        binding_message=row["binding_message"],
        details=json.loads(row["details"]),
        created=datetime.fromtimestamp(row["created_wall"], UTC),
        expires=Deadline(
            datetime.fromtimestamp(row["expires_wall"], UTC),
            row["expires_boot"],
            row["boot_id"],
        ),
        state=row["state"],
        sid=row["sid"],
        authenticated_at=row["authenticated_at"],
    )
