"""The tenant's log, as ``GET /api/v2/logs`` shows it: one row an event, capped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from starlette.requests import Request

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.signin import WrongSignInError
from agentvault_tui.tenant.store import Store
from agentvault_tui.tenant.tokens import MFA_ACR
from agentvault_tui.tenant.users import CONNECTION, User

LogCode = Literal[
    "connected_accounts_connection_failed",
    "connected_accounts_connection_succeeded",
    "connected_accounts_delete_failed", "connected_accounts_delete_succeeded",
    "f", "fapi", "fdeac", "fdeaz", "fdecc", "feacft", "feccft", "fede",
    "fertft", "feta", "fp", "gd_auth_failed", "gd_auth_succeed",
    "fu", "gd_enrollment_complete", "gd_otp_rate_limit_exceed", "gd_start_auth",
    "limit_wc", "s", "sapi",
    "seacft", "seccft", "sede", "sertft", "seta", "srrt",
]  # fmt: skip
"""Every type of row there is here, by Auth0's codes."""
MOST_ROWS: Final = 10_000
"""Rows; the oldest go first."""
_CODES: Final[dict[str, LogCode]] = {
    "wrong_sign_in": "fp",
    "wrong_otp": "gd_auth_failed",
    "used_otp": "gd_auth_failed",
    "bad_passkey": "gd_auth_failed",
    "passkey_copied": "gd_auth_failed",
}
_SWEEP: Final = 100
"""Rows between two times the oldest are deleted."""
_STRANGERS: Final = 60
_WINDOW: Final = 60.0
_DIGITS: Final = 36
_TEXT_CAP: Final = 500


class Journal:
    """Writes rows with the members that Auth0's have, and reads them by id."""

    def __init__(self, store: Store, clock: Clock, host: str) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._written = 0
        self._strangers = (0.0, 0)

    def write(
        self,
        kind: LogCode,
        request: Request,
        *,
        description: str = "",
        client: Client | None = None,
        user: User | None = None,
        details: Mapping[str, object] | None = None,
        connection: str | None = None,
        audience: str | None = None,
        scope: str | None = None,
    ) -> None:
        """Add a row of type *kind*; *details* must hold no secret.

        Without a *connection*, a user's row is of the one where users sign in; with an
        empty one, of none.
        """
        if client is None and user is None and self._too_many_strangers():
            # Whoever has no name here must not push out what was written of others.
            return
        now = self._clock.now()
        if connection is None and user is not None:
            connection = CONNECTION
        doc = {
            "date": millis(now),
            "type": kind,
            "description": _truncate(description),
            "connection": _truncate(connection) if connection else None,
            "client_id": None if client is None else client.log_name,
            "client_name": None if client is None else client.name,
            "ip": "" if request.client is None else request.client.host,
            "hostname": self._host,
            "details": dict(details or {}),
            "user_id": None if user is None else user.sub,
            "user_name": None if user is None else user.name,
            "user_agent": _truncate(request.headers.get("user-agent", "")),
            "audience": audience and _truncate(audience),
            "scope": scope and _truncate(scope),
        }
        with self._store.transaction():  # whoever reads on from a row misses none
            log_id = self._next_id(now)
            named = {"_id": log_id, "log_id": log_id, **doc}
            self.keep(log_id, kind, now.timestamp(), json.dumps(named))
        self._written += 1
        if self._written % _SWEEP == 1:
            self._store.change(
                "DELETE FROM journal WHERE log_id IN (SELECT log_id FROM journal"
                " ORDER BY log_id DESC LIMIT -1 OFFSET ?)",
                MOST_ROWS,
            )

    def signed_in(
        self, request: Request, user: User, client: Client | None, *, mfa: bool
    ) -> None:
        """Note that *user* showed every factor that was asked for."""
        prompts: list[dict[str, object]] = [{"name": "login"}]
        if mfa:
            self.write("gd_auth_succeed", request, user=user)
            prompts.append(
                {"name": "mfa", "performed_amr": ["mfa"], "performed_acr": [MFA_ACR]}
            )
        details = {"prompts": prompts}
        self.write("s", request, client=client, user=user, details=details)

    def sign_in_refused(
        self,
        request: Request,
        error: TenantRefusedError,
        user: User | None = None,
        client: Client | None = None,
    ) -> None:
        """Note a failed sign-in, without the typed name.

        The password of *user* was right before; *client* is whom it was for, if known.
        """
        kind = _CODES.get(error.error, "f")
        if isinstance(error, WrongSignInError) and not error.exists:
            kind = "fu"
        elif error.error == "locked":
            kind = "limit_wc" if user is None else "gd_otp_rate_limit_exceed"
        details = {"error": error.error}
        with self._store.unflushed():  # anybody can cause it
            self.write(
                kind,
                request,
                description=error.what,
                client=client,
                user=user,
                details=details,
            )

    def keep(self, log_id: str, kind: str, at: float, doc: str) -> None:
        self._store.insert("journal", log_id=log_id, type=kind, visible_at=at, doc=doc)

    def after(self, log_id: str, take: int) -> list[dict[str, object]]:
        return self._rows("log_id > ? ORDER BY log_id LIMIT ?", log_id, take)

    def page(
        self, skip: int, take: int, *, newest_first: bool = True
    ) -> list[dict[str, object]]:
        order = "DESC" if newest_first else "ASC"
        return self._rows(f"TRUE ORDER BY log_id {order} LIMIT ? OFFSET ?", take, skip)

    def one(self, log_id: str) -> dict[str, object] | None:
        return next(iter(self._rows("log_id = ?", log_id)), None)

    def _rows(self, where: str, *values: object) -> list[dict[str, object]]:
        rows = self._store.all(f"SELECT doc FROM journal WHERE {where}", *values)  # noqa: S608 - ours
        return [json.loads(row["doc"]) for row in rows]

    def _next_id(self, now: datetime) -> str:
        """Return an id that sorts after every other, also when the clock goes back."""
        stamp = now.strftime("%Y%m%d%H%M%S") + f"{now.microsecond // 1000:03d}"
        fresh = f"900{stamp}{0:0{_DIGITS}d}"
        row = self._store.one("SELECT max(log_id) AS id FROM journal")
        last = None if row is None else row["id"]
        return fresh if last is None or fresh > last else str(int(last) + 1)

    def _too_many_strangers(self) -> bool:
        since, count = self._strangers
        now = self._clock.boot()
        if now - since >= _WINDOW:
            since, count = now, 0
        self._strangers = (since, count + 1)
        return count >= _STRANGERS


def _truncate(text: str) -> str:
    return text[:_TEXT_CAP]


def millis(at: datetime) -> str:
    """Return *at*, a time in UTC, to the millisecond (RFC 3339)."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_epoch(seconds: float | None) -> str | None:
    """Return a time in epoch *seconds* to the millisecond; None for none."""
    return None if seconds is None else millis(datetime.fromtimestamp(seconds, UTC))
