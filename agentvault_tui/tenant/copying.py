"""Copies a tenant's rows into another store, and seals them again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final, NamedTuple

from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import RefusedError, SealedError
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.accounts import TOKENS_KIND
from agentvault_tui.tenant.file_store import is_kept, open_store
from agentvault_tui.tenant.keys import KEY_KIND
from agentvault_tui.tenant.store import TABLES, Row, Store, TenantSeal
from agentvault_tui.tenant.users import OTP_KIND


class _Sealed(NamedTuple):
    """An encrypted column of a table, and the words that bind it to its row."""

    column: str
    kind: str
    owner: str
    """The column that names the row, a key of the table."""
    version: str | None
    """The column that counts its secrets; None where there is one only."""

    def about(self, row: Row) -> tuple[str, str, int]:
        """Return kind, owner and version of a row's secret, as the seal takes them."""
        version = 1 if self.version is None else int(row[self.version])
        return self.kind, str(row[self.owner]), version


_SEALED: Final = {
    "signing_keys": _Sealed("sealed", KEY_KIND, "kid", None),
    "users": _Sealed("otp_sealed", OTP_KIND, "sub", "otp_version"),
    "connected_accounts": _Sealed("sealed", TOKENS_KIND, "id", "version"),
}
_PASSING: Final = frozenset(
    {
        *("device_codes", "access_tokens", "auth_codes", "connect_requests"),
        *("passkey_links", "page_sessions", "activations"),
    }
)
"""Codes and sessions, which are over in hours: they end with the copy."""


def copy_tenant(
    source: tuple[Home, Settings], target: tuple[Home, Settings], *, anew: bool
) -> bool:
    """Copy people, factors, keys, clients and accounts in one transaction.

    Earlier rows there are replaced. A team's store takes it while nothing is recorded
    in its ledger: no broker has used it. With *anew*, values that the key of *target*
    does not open are encrypted with it; else all encrypted values stay as they are.
    Return whether there was anything: a tenant that never ran has no signing keys.

    Raises:
        RefusedError: the team's store is in use.
        SealedError: a key is missing, or is not the one that sealed a row.
        LedgerUnwritableError: the team's store is away; nothing is copied.
    """
    if not is_kept(*source):
        return False
    with _opened(*source) as ours, _opened(*target) as theirs:
        if ours.find("signing_keys", use="current") is None:
            return False
        seal = _seal_of(*target) if anew else None
        with theirs.transaction():
            if target[1].store.url:
                _check_unused(theirs)
            for table in TABLES:
                theirs.delete(table)
                if table not in _PASSING:
                    _copy(ours, theirs, table, seal, lambda: _seal_of(*source))
    return True


def _opened(home: Home, settings: Settings) -> closing[Store]:
    return closing(open_store(home, settings, SystemClock(), checkpoints=False))


def _check_unused(store: Store) -> None:
    row = store.one("SELECT revision FROM agentvault.head")
    if row is None or row["revision"]:
        raise RefusedError("the target is not empty", "prepare a new database for it")


def _seal_of(home: Home, settings: Settings) -> TenantSeal:
    return TenantSeal.of(home, shared=bool(settings.store.url))


def _copy(
    ours: Store,
    theirs: Store,
    table: str,
    seal: TenantSeal | None,
    before: Callable[[], TenantSeal],
) -> None:
    sealed = _SEALED.get(table)
    rows = ours.all(f"SELECT * FROM {table}")  # noqa: S608 - one of ours
    for row in sorted(rows, key=lambda row: int(row.get("seq", 0))):
        columns = {name: value for name, value in row.items() if name != "seq"}
        if sealed is not None and seal is not None:
            about, box = sealed.about(row), row[sealed.column]
            try:
                seal.open(*about, box)
            except SealedError:
                columns[sealed.column] = seal.close(*about, before().open(*about, box))
        theirs.insert(table, **columns)


def into_team(home: Home, settings: Settings) -> None:
    """Put the rows in *home*'s file into the store of the team, as a restore does.

    They are a team's, and sealed with its key, or were one home's own.

    Raises:
        RefusedError: the team's store is in use.
        LedgerUnwritableError: it is away; nothing is copied.
    """
    copy_tenant((home, Settings()), (home, settings), anew=home.team_key.exists())


def tenant_problem(home: Home, settings: Settings) -> str | None:
    """Word the problem of tenant's rows that the key of *home* does not open, if any.

    Raises:
        LedgerUnwritableError: the team's store is away, or has no such tables.
    """
    with _opened(home, settings) as store:
        for table in TABLES:
            sealed, rows = _SEALED.get(table), store.all(f"SELECT * FROM {table}")  # noqa: S608
            if sealed is None or not rows:
                continue
            try:
                seal = _seal_of(home, settings)
                for row in rows:
                    seal.open(*sealed.about(row), row[sealed.column])
            except SealedError as error:
                return error.diagnosis()
    return None


def seal_anew(home: Home, settings: Settings) -> None:
    """Encrypt again with the active key; see `Seal.renewed`.

    Raises:
        SealedError: neither key opens a row.
        LedgerUnwritableError: the store is away; some rows may be encrypted again.
    """
    seal = _seal_of(home, settings)
    with _opened(home, settings) as store:
        for table, sealed in _SEALED.items():
            for row in store.all(f"SELECT * FROM {table}"):  # noqa: S608 - one of ours
                box = seal.renewed(*sealed.about(row), row[sealed.column])
                if box is not None:
                    # Not if it was replaced meanwhile: the key in force sealed that.
                    same = {sealed.owner: row[sealed.owner]}
                    same[sealed.column] = row[sealed.column]
                    store.update(table, {sealed.column: box}, **same)
