"""The tables of the tenant's store, version by version."""

from __future__ import annotations

from typing import Final

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
"""Without what no client of an embedded tenant ever had: requests by CIBA, rotating or
expiring refresh tokens, signed assertions, and consents kept to be listed."""

MIGRATIONS: Final = (_FIRST, _AUTH0_SHAPED, "", _SIGNED_UNTIL, _OUR_OWN)
"""Each takes a store from the version of its place to the next.
The first leaves what is there: stores were made before versions were counted."""
