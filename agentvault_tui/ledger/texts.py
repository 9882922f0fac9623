"""Texts of the policy that were in effect, by version: stored once, named by events.

A ``policy.changed`` or ``broker.started`` event names the SHA-256 of each text that its
version consists of; the table ``texts`` has them under that digest, so the chain covers
them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agentvault_tui.errors import LedgerDamagedError, NotFoundError
from agentvault_tui.model import EventType, sha256_hex

NAMING: Final = (EventType.POLICY_CHANGED, EventType.BROKER_STARTED)
"""Types of the events that say which texts a version consists of."""


def texts_named(body: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the version that an event of `NAMING` is about, and its texts' digests.

    Events from before texts were stored name none.
    """
    detail = body["detail"]
    version = detail.get("after") or detail.get("policy_version")
    return str(version), dict(detail.get("texts", {}))


def read_texts(db: sqlite3.Connection, version: str) -> dict[str, str]:
    """Return the texts that *version* consists of, by name.

    Raises:
        NotFoundError: it was never in effect, or before texts were stored.
        LedgerDamagedError: one is gone, or is not the one that events name.
    """
    recorded: dict[str, str] | None = None
    for body in _naming(db):
        named, texts = texts_named(body)
        if named == version:
            recorded = texts or recorded or {}
    if recorded is None:
        raise NotFoundError(
            f"no policy of version {version[:80]} was in force",
            "policy.changed events name those that were",
        )
    if not recorded:
        raise NotFoundError(
            f"the texts of version {version} were not kept: it was in force before"
            " AgentVault kept them",
            "its events name only their digest, policy_sha256",
        )
    return {name: _read(db, digest) for name, digest in recorded.items()}


def _naming(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    kinds = ",".join(f"'{kind.value}'" for kind in NAMING)
    sql = f"SELECT body FROM events WHERE type IN ({kinds}) ORDER BY seq"  # noqa: S608
    for (body,) in db.execute(sql):
        yield json.loads(body)


def _read(db: sqlite3.Connection, digest: str) -> str:
    row = db.execute("SELECT text FROM texts WHERE sha256 = ?", (digest,)).fetchone()
    if row is None or sha256_hex(row[0]) != digest:
        raise LedgerDamagedError(
            f"the text {digest[:12]}… of a policy that was in force is gone or changed",
            "agentvault audit verify tells what else is",
        )
    return str(row[0])
