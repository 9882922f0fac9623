"""Connecting an account: from the request, over the person's consent, to its proof."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from agentvault_tui.clock import Clock
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.management.wire import ApiError
from agentvault_tui.tenant.oauth.wire import proven
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.store import Store

EXPIRES_IN: Final = 300
"""Seconds from the request to its completion."""
_WAITING: Final = 64
"""Requests one user may have open: each costs a row."""


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """What a person is asked to consent to."""

    key: str
    """SHA-256 of the session the client holds."""
    user_id: str
    client_id: str
    connection: str
    redirect_uri: str
    state: str | None
    scope: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Connected:
    """What the person consented to."""

    connection: str
    account: str
    scope: str


class Connecting:
    """The requests of one store that wait for a person; hashes of their secrets."""

    def __init__(self, store: Store, clock: Clock, issuer: str) -> None:
        self._store = store
        self._clock = clock
        self._issuer = issuer

    def start(
        self, user: User, client: Client, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Begin; return what the client needs to go on.

        Raises:
            ApiError: 429: the user has too many open already.
        """
        now = self._now()
        self._store.change("DELETE FROM connect_requests WHERE expires_at <= ?", now)
        row = self._store.one(
            "SELECT count(*) AS n FROM connect_requests WHERE user_id = ?", user.sub
        )
        if row is not None and row["n"] >= _WAITING:
            raise ApiError(429, "Too many connect requests are waiting.", None)
        session, ticket = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._store.insert(
            "connect_requests",
            session_hash=sha256_hex(session),
            ticket_hash=sha256_hex(ticket),
            user_id=user.sub,
            client_id=client.client_id,
            connection=body["connection"],
            redirect_uri=body["redirect_uri"],
            state=body.get("state"),
            challenge=body.get("code_challenge"),
            scope=" ".join(body.get("scopes") or ()),
            expires_at=now + EXPIRES_IN,
        )
        return {
            "auth_session": session,
            "connect_uri": f"{self._issuer}connected-accounts/connect",
            "connect_params": {"ticket": ticket},
            "expires_in": EXPIRES_IN,
        }

    def by_ticket(self, ticket: str) -> PendingConsent | None:
        """Return the request that a link leads to, while nobody has decided it."""
        return self._undecided(ticket_hash=sha256_hex(ticket))

    def by_key(self, key: str) -> PendingConsent | None:
        """Return a request again, while nobody has decided it."""
        return self._undecided(session_hash=key)

    def consent(self, asked: PendingConsent, account: str) -> str | None:
        """Note a person's yes for *account*; return the code that proves it, once."""
        code = secrets.token_urlsafe(32)
        changed = self._store.change(
            "UPDATE connect_requests SET code_hash = ?, account = ?"
            " WHERE session_hash = ? AND code_hash IS NULL AND expires_at > ?",
            *(sha256_hex(code), account, asked.key, self._now()),
        )
        return code if changed else None

    def cancel(self, asked: PendingConsent) -> None:
        self._store.delete("connect_requests", session_hash=asked.key)

    def complete(
        self, user: User, client: Client, body: Mapping[str, Any]
    ) -> Connected:
        """Take the proof, once, from who began.

        The code alone is worth nothing: it takes the session of the client that
        began, that user's token, the same redirect_uri, and the verifier (RFC 7636).

        Raises:
            ApiError: 400 if any of it is wrong.
        """
        key = sha256_hex(body["auth_session"])
        with self._store.transaction():
            row = self._store.find("connect_requests", session_hash=key)
            refused = ApiError(400, "The connect request cannot be completed.", None)
            if row is None or (row["user_id"], row["client_id"]) != (
                user.sub,
                client.client_id,
            ):
                raise refused
            right = (
                row["code_hash"] is not None
                and row["expires_at"] > self._now()
                and hmac.compare_digest(
                    row["code_hash"], sha256_hex(body["connect_code"])
                )
                and row["redirect_uri"] == body["redirect_uri"]
                and proven(row["challenge"], body.get("code_verifier"))
            )
            if not right:
                raise refused
            self._store.delete("connect_requests", session_hash=key)
        return Connected(row["connection"], row["account"], row["scope"])

    def _undecided(self, **column: str) -> PendingConsent | None:
        row = self._store.find("connect_requests", code_hash=None, **column)
        if row is None or row["expires_at"] <= self._now():
            return None
        members = [one.name for one in fields(PendingConsent) if one.name != "key"]
        return PendingConsent(row["session_hash"], *(row[name] for name in members))

    def _now(self) -> float:
        return self._clock.now().timestamp()
