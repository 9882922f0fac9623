"""The tenant's SQLite file: schema, migrations, and short transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError
from agentvault_tui.home import Home, private_file, private_folder
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.store import Row, Store

_BUSY_SECONDS: Final = 5.0
_FILE: Final = "tenant.db"


def open_store(
    home: Home, settings: Settings, clock: Clock, *, checkpoints: bool
) -> Store:
    """Open the store that *settings* name: the team's, or the file of *home*.

    The file is made if it is not there; a `SharedClock` is set to the team's. Only the
    server *checkpoints*: it copies SQLite's log back.

    Raises:
        TenantError: the file cannot be used, or is not such a store.
        SettingsError: a library for the team's store is not installed.
    """
    if not settings.store.url:
        return FileStore(home, checkpoints=checkpoints)
    # It imports psycopg, which few need.
    from agentvault_tui.tenant.team_store import TeamStore  # noqa: PLC0415

    return TeamStore(home, settings, clock)


def is_kept(home: Home, settings: Settings) -> bool:
    """Check whether the store of *settings* was ever made; a team's always is."""
    return bool(settings.store.url) or (home.tenant / _FILE).exists()


class FileStore(Store):
    """One connection to the file of a home.

    Called from the event loop: each statement touches a few rows of a file that holds a
    handful of users, and the only other writer is a person adding one.
    """

    def __init__(self, home: Home, *, checkpoints: bool) -> None:
        """Open the store of *home*, 0600 under any umask, and make the missing parts.

        Only the server *checkpoints*: SQLite before 3.51.3 can lose a race when two
        connections reset the write-ahead log.

        Raises:
            TenantError: the file cannot be used, or is not such a store.
        """
        for folder in (home.data, home.tenant, home.keys):
            private_folder(folder)
        self.before_close = []
        self._path = home.tenant / _FILE
        try:
            private_file(self._path)
            self._db = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._prepare(checkpoints=checkpoints)
        except sqlite3.Error as error:
            self._db.close()
            raise self._unusable(error) from error
        except TenantError:
            self._db.close()
            raise

    def _prepare(self, *, checkpoints: bool) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("PRAGMA trusted_schema = OFF")
        if not checkpoints:
            self._db.execute("PRAGMA wal_autocheckpoint = 0")
        with self.transaction():
            self._migrate()

    def _migrate(self) -> None:
        """Bring the tables to our version, with their data.

        Raises:
            TenantError: the file is of a later release.
        """
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise TenantError(
                f"the tenant's store {self._path} is of a later release",
                "use that release, or restore the store from a backup",
            )
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";\n"):
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close the file."""
        for write in self.before_close:
            write()
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction, during which no other party writes."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """Run a block whose commits are in the log and not flushed (SQLite, WAL)."""
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def check_may_move(self, issuer: str) -> None:
        """Refuse nothing: a home has one tenant."""

    def run(self, sql: str, values: Sequence[object]) -> tuple[list[Row], int]:
        """Run one statement; return its rows, and how many it changed."""
        done = self._db.execute(sql, values)
        names = [column[0] for column in done.description or ()]
        return [dict(zip(names, row, strict=True)) for row in done], done.rowcount

    def _unusable(self, error: Exception) -> TenantError:
        return TenantError(
            f"the tenant's store {self._path} cannot be used ({error})",
            "check its owner and the disk, or restore it from a backup",
        )


_FIRST: Final = """
CREATE TABLE IF NOT EXISTS facts (
    name TEXT PRIMARY KEY, value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signing_keys (
    use TEXT PRIMARY KEY CHECK (use IN ('current', 'next')),
    kid TEXT NOT NULL UNIQUE, sealed BLOB NOT NULL, created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users (
    sub TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    approver INTEGER NOT NULL CHECK (approver IN (0, 1)),
    password_hash TEXT NOT NULL, otp_sealed BLOB NOT NULL,
    otp_version INTEGER NOT NULL, otp_last_step INTEGER NOT NULL,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lockouts (
    who TEXT NOT NULL, factor TEXT NOT NULL CHECK (factor IN ('password', 'otp')),
    failures INTEGER NOT NULL, locked_until REAL NOT NULL, last_at REAL NOT NULL,
    PRIMARY KEY (who, factor)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device_codes (
    device_code_hash TEXT PRIMARY KEY, user_code_hash TEXT NOT NULL UNIQUE,
    client_id TEXT NOT NULL, scope TEXT NOT NULL, details TEXT,
    created_at TEXT NOT NULL, expires_wall TEXT NOT NULL, expires_boot REAL NOT NULL,
    boot_id TEXT NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'approved', 'denied', 'spent')),
    sub TEXT, sid TEXT, authenticated_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS access_tokens (
    token_hash TEXT PRIMARY KEY, client_id TEXT NOT NULL, sub TEXT NOT NULL,
    scope TEXT NOT NULL, expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

_AUTH0_SHAPED: Final = """
ALTER TABLE users ADD COLUMN roles TEXT NOT NULL DEFAULT '[]';
UPDATE users SET roles = '["approver"]' WHERE approver = 1;
ALTER TABLE users DROP COLUMN approver;
ALTER TABLE users ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0
    CHECK (blocked IN (0, 1));
ALTER TABLE users ADD COLUMN profile TEXT NOT NULL DEFAULT '{}';
ALTER TABLE device_codes ADD COLUMN audience TEXT;
CREATE TABLE objects (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL,
    name TEXT NOT NULL, doc TEXT NOT NULL,
    UNIQUE (kind, id), UNIQUE (kind, name)
) STRICT;
CREATE TABLE client_secrets (
    client_id TEXT PRIMARY KEY, secret_hash TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE user_grants (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
    client_id TEXT NOT NULL, audience TEXT NOT NULL, scope TEXT NOT NULL,
    UNIQUE (user_id, client_id, audience)
) STRICT;
CREATE TABLE refresh_tokens (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
    client_id TEXT NOT NULL, session_id TEXT, audience TEXT NOT NULL,
    reach TEXT NOT NULL, rotating INTEGER NOT NULL, created_at REAL NOT NULL,
    idle_expires_at REAL, expires_at REAL, last_exchanged_at REAL, gone_at REAL
) STRICT;
CREATE INDEX refresh_tokens_of ON refresh_tokens (user_id, client_id);
CREATE TABLE refresh_secrets (
    token_hash TEXT PRIMARY KEY, id TEXT NOT NULL, rotated_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE auth_codes (
    code_hash TEXT PRIMARY KEY, client_id TEXT NOT NULL, redirect_uri TEXT NOT NULL,
    challenge TEXT, method TEXT, login TEXT NOT NULL, scope TEXT NOT NULL,
    audience TEXT, nonce TEXT, expires_at REAL NOT NULL, spent INTEGER NOT NULL,
    refresh_id TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE connected_accounts (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
    connection TEXT NOT NULL, account TEXT NOT NULL, scope TEXT NOT NULL,
    created_at REAL NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,
    token_expires_at REAL NOT NULL, last_used_at REAL,
    UNIQUE (user_id, connection, account)
) STRICT;
CREATE TABLE connect_requests (
    session_hash TEXT PRIMARY KEY, ticket_hash TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL, client_id TEXT NOT NULL, connection TEXT NOT NULL,
    redirect_uri TEXT NOT NULL, state TEXT, challenge TEXT, scope TEXT NOT NULL,
    expires_at REAL NOT NULL, code_hash TEXT, account TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE provider_grants (
    id TEXT PRIMARY KEY, connection TEXT NOT NULL, account TEXT NOT NULL,
    scope TEXT NOT NULL, refresh_hash TEXT NOT NULL UNIQUE, created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE provider_tokens (
    token_hash TEXT PRIMARY KEY, grant_id TEXT NOT NULL, scope TEXT NOT NULL,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_jtis (
    jti_hash TEXT PRIMARY KEY, expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE journal (
    log_id TEXT PRIMARY KEY, type TEXT NOT NULL, visible_at REAL NOT NULL,
    doc TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_SIGNED_UNTIL: Final = """
ALTER TABLE signing_keys ADD COLUMN signed_until REAL NOT NULL DEFAULT 0;
UPDATE signing_keys SET signed_until = strftime('%s', 'now') + 2592000
    WHERE use = 'current';
"""
"""A key that signed before that was noted may have made a token of the longest life
there is, 30 days."""

_OUR_OWN: Final = """
DROP TABLE IF EXISTS ciba_requests;
DROP TABLE IF EXISTS user_grants;
DROP TABLE IF EXISTS seen_jtis;
DELETE FROM refresh_tokens WHERE rotating OR expires_at NOT NULL
    OR idle_expires_at NOT NULL;
ALTER TABLE refresh_tokens DROP COLUMN rotating;
ALTER TABLE refresh_tokens DROP COLUMN expires_at;
ALTER TABLE refresh_tokens DROP COLUMN idle_expires_at;
DELETE FROM refresh_secrets WHERE rotated_at NOT NULL;
ALTER TABLE refresh_secrets DROP COLUMN rotated_at;
ALTER TABLE auth_codes DROP COLUMN method;
"""
"""Without features that no client of an embedded tenant ever had: requests by CIBA,
rotating or expiring refresh tokens, signed assertions, and listed consents."""

_PASSKEYS: Final = """
ALTER TABLE device_codes ADD COLUMN stepup_id TEXT;
ALTER TABLE device_codes ADD COLUMN amr TEXT;
ALTER TABLE device_codes ADD COLUMN outcome TEXT;
CREATE INDEX device_codes_of ON device_codes (stepup_id, created_at);
CREATE TABLE passkeys (
    id TEXT PRIMARY KEY, sub TEXT NOT NULL, public_key BLOB NOT NULL,
    counter INTEGER NOT NULL, synced INTEGER NOT NULL, host TEXT NOT NULL,
    created_at TEXT NOT NULL, last_used_at TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE passkey_uses (
    passkey TEXT NOT NULL, challenge TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (passkey, challenge)
) STRICT, WITHOUT ROWID;
CREATE TABLE passkey_links (
    link_hash TEXT PRIMARY KEY, sub TEXT NOT NULL, expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE page_sessions (
    cookie_hash TEXT PRIMARY KEY, sub TEXT NOT NULL, expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""

_ORIGIN: Final = "ALTER TABLE device_codes ADD COLUMN origin TEXT"

_ACTIVATIONS: Final = """
CREATE TABLE activations (
    id_hash TEXT PRIMARY KEY, code_key TEXT NOT NULL, user_code_sealed BLOB NOT NULL,
    browser TEXT NOT NULL, expires_at REAL NOT NULL, step TEXT NOT NULL,
    sub TEXT, authenticated_at INTEGER, page INTEGER NOT NULL, used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
"""Browsers' progress with device codes, so that any broker's pages go on with one."""

_CODES_TRIED: Final = """
ALTER TABLE lockouts RENAME TO lockouts_before;
CREATE TABLE lockouts (
    who TEXT NOT NULL, factor TEXT NOT NULL
        CHECK (factor IN ('password', 'otp', 'code')),
    failures INTEGER NOT NULL, locked_until REAL NOT NULL, last_at REAL NOT NULL,
    PRIMARY KEY (who, factor)
) STRICT, WITHOUT ROWID;
INSERT INTO lockouts SELECT * FROM lockouts_before;
DROP TABLE lockouts_before
"""
"""Wrong codes of device flows count as well, which are no factor of a person's."""

MIGRATIONS: Final = (
    *(_FIRST, _AUTH0_SHAPED, "", _SIGNED_UNTIL, _OUR_OWN, _PASSKEYS, _ORIGIN),
    *(_ACTIVATIONS, _CODES_TRIED),
)
"""Each takes a store from the version of its place to the next. The first leaves
everything: stores were made before versions were counted."""
