"""Makes and examines the schema of a team's store; no broker ever does."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui import __version__
from agentvault_tui.errors import RefusedError
from agentvault_tui.ledger.chain import genesis
from agentvault_tui.ledger.store_schema import (
    EXAMINE,
    FINISH,
    FINISHED,
    FINISHED_NOW,
    PUBLIC,
    STATEMENTS,
    closing_to_public,
    updates,
)
from agentvault_tui.store_connection import (
    VERSION,
    Connection,
    Connector,
    ask,
    close,
)

_HEAD: Final = (
    "INSERT INTO agentvault.head (version, team, ledger, hash, batch)"
    " VALUES (%s, %s, %s, %s, gen_random_uuid())"
)
_INFO: Final = """
SELECT current_setting('server_version'), pg_database_size(current_database()),
  current_setting('synchronous_commit'),
  current_setting('synchronous_standby_names') <> '',
  (SELECT count(*) FROM pg_stat_replication),
  h.version, h.team, h.ledger, h.seq, encode(h.hash, 'hex'), h.time, h.fault
FROM agentvault.head h
"""
_BROKERS: Final = (
    "SELECT id, doc, extract(epoch FROM clock_timestamp() - seen)::float8"
    " FROM agentvault.brokers WHERE left(id, 4) = 'brk_' ORDER BY id"
)
LIVE_SECONDS: Final = 2.0
"""A broker that said nothing for so long does not live."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The description of a team's store by `store info`."""

    server: str
    size: int
    """Bytes of the database."""
    durability: str
    """``single``; ``synchronous``: a commit is on a replica as well before it is
    answered; ``asynchronous``: there are replicas, and a failover can lose commits."""
    version: int
    team: str
    ledger: str
    head: int
    hash: str
    time: str | None
    fault: str | None
    brokers: tuple[tuple[str, bytes, float], ...]
    """Each one's id, its heartbeat, and that heartbeat's age in seconds."""
    public: tuple[str, ...] = ()
    """The rights of any role of the server on the database."""

    @property
    def live(self) -> tuple[str, ...]:
        """The ids of the brokers that live."""
        return tuple(one for one, _, ago in self.brokers if ago <= LIVE_SECONDS)


async def missing_statements(
    connector: Connector, *, finish: bool = False
) -> tuple[str, ...]:
    """Return the statements that make the schema, or bring it up to date.

    Args:
        connector: of its owner.
        finish: whether to end the parts that only brokers of an earlier version need.

    Raises:
        RefusedError: it is another team's, or of a newer version; or a broker of
            another version lives, which needs a part that would end.
        StoreAwayError: the store does not answer.
    """
    db = await connector.open()
    try:
        connector.check_server(db)
        ((database, user, source, queue),) = await ask(db, EXAMINE)
        prepared = await _is_prepared(db)
        if prepared:
            await connector.check_schema(db)
        statements = updates(source, queue=queue) if prepared else STATEMENTS
        if prepared and finish:
            statements = (*statements, *await _finishing(db))
        if await _public(db):
            statements = (*statements, *closing_to_public(database, user))
        return statements
    finally:
        await close(db)


async def _finishing(db: Connection) -> tuple[str, ...]:
    """Return the statement that no earlier version is left, if it is due."""
    ((done,),) = await ask(db, FINISHED_NOW)
    if int(done or 0) >= FINISHED:
        return ()
    brokers: Any = await ask(db, _BROKERS)
    for name, doc, ago in brokers:
        if ago <= LIVE_SECONDS and json.loads(doc).get("version") != __version__:
            raise RefusedError(
                f"the broker {name} lives, and is not of version {__version__}",
                "stop it, or upgrade it first",
            )
    return FINISH


async def prepare_store(
    connector: Connector, statements: tuple[str, ...], grants: tuple[str, ...] = ()
) -> None:
    """Run *statements* in one transaction, for the connector's team, and *grants*.

    Raises:
        LedgerUnwritableError: one failed, and none has an effect.
    """
    db = await connector.open()
    try:
        await ask(db, "BEGIN")
        for sql in (*statements, *grants):
            await ask(db, sql)
        if STATEMENTS[0] in statements:
            ledger = secrets.token_hex(16)
            values = (VERSION, connector.team, ledger, genesis(ledger))
            await ask(db, _HEAD, values)
        await ask(db, "COMMIT")
    finally:
        await close(db)


async def store_info(connector: Connector) -> StoreInfo:
    """Return the description of the store.

    Raises:
        RefusedError: it is not this team's, or not fit for use.
        StoreAwayError: it does not answer.
    """
    db = await connector.connect()
    try:
        ((server, size, commit, named, replicas, *head),) = await ask(db, _INFO)
        brokers: Any = await ask(db, _BROKERS)
        public = await _public(db)
    finally:
        await close(db)
    durability = "asynchronous" if replicas else "single"
    if named and commit in {"on", "remote_apply"}:
        durability = "synchronous"
    version, team, ledger, seq, digest, time, fault = head
    return StoreInfo(
        *(server, size, durability, version, team, ledger),
        *(seq, digest, time, fault, tuple(brokers), public),
    )


async def _public(db: Connection) -> tuple[str, ...]:
    ((public,),) = await ask(db, PUBLIC)
    return tuple(public or ())


async def _is_prepared(db: Connection) -> bool:
    ((there,),) = await ask(db, "SELECT to_regclass('agentvault.head') IS NOT NULL")
    return bool(there)
