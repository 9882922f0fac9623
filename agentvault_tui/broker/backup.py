"""Back a home up into one file, next to a running broker or without one.

File format: a POSIX tar archive, then one line over every byte before it, which tar
ignores: ``agentvault-backup sha256:`` and 64 hexadecimal digits. The archive holds
``manifest.json``, then regular files in ``config/`` and ``data/``, the database last.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from agentvault_tui import __version__
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import LedgerUnwritableError, NotFoundError, UsageError
from agentvault_tui.home import Home, file_stamp, private_draft
from agentvault_tui.ledger import schema
from agentvault_tui.ledger.batch import read_tip
from agentvault_tui.ledger.headfile import Witness, encode_witness
from agentvault_tui.ledger.opening import read_ledger_id
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.ledger.search import index_path

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FORMAT: Final = "agentvault-backup/1"
TRAILER: Final = b"agentvault-backup sha256:%s\n"
TRAILER_BYTES: Final = len(TRAILER % (b"0" * 64))
MANIFEST: Final = "manifest.json"
_SETTINGS: Final = frozenset(
    {
        *("alerts.toml", "config.toml", "hosts", "keymap.toml", "limits.toml", "mcp"),
        *("policy.cedar", "scopes.d", "scopes.toml", "services", "tls"),
    }
)
"""The files that are restored into the settings' folder, if the backed-up home had one
folder for both."""
_TRIES: Final = 100
_PAUSE: Final = 0.05
"""Seconds before the files are read again because one changed meanwhile."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a backup: its first member."""

    format: str
    version: str
    """Of the AgentVault that made it."""
    schema: int
    """Of its database."""
    made_at: str
    host: str
    ledger: str
    seq: int
    """The ledger's head, with `hash`."""
    hash: str


class Summed(io.BufferedIOBase):
    """Reads or writes a file in order, up to a length, and hashes the bytes."""

    def __init__(self, file: BinaryIO, length: int = 2**63) -> None:
        self._file = file
        self._left = length
        self.sha256 = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most *size* bytes, which has to be given."""
        assert size is not None and size >= 0  # noqa: PT018, S101 - tarfile says
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        self.sha256.update(data)
        return data

    def write(self, content: ReadableBuffer, /) -> int:
        """Write all of *content*."""
        self.sha256.update(content)
        return self._file.write(content)

    @property
    def trailer(self) -> bytes:
        """The line that ends a file with these bytes."""
        return TRAILER % self.sha256.hexdigest().encode()


def make_backup(
    home: Home,
    target: Path,
    clock: Clock,
    *,
    least: int = 0,
    tenant: Path | None = None,
) -> Manifest:
    """Write all of *home* to *target*, mode 0600, whole or not at all.

    Needs no broker, and works next to a running one, which goes on writing: both
    databases are read in one snapshot each, taken at a moment at which no other file
    of the home changed. Sealed secrets stay sealed; the keys that open them are in the
    backup where they are in the home.

    Args:
        home: the home to back up.
        target: a file that is not there yet, outside of the home.
        clock: tells the time for the manifest.
        least: the head of the team's store, which the home's copy of it must have.
        tenant: the embedded tenant's database, where that is not the home's file; it
            need not exist.

    Returns:
        the backup's description.

    Raises:
        NotFoundError: there is no ledger.
        UsageError: the target is there, is in the home, or cannot be written.
        LedgerDamagedError: a database cannot be read, or is of a newer version.
        LedgerUnwritableError: files of the home changed too often, or its copy of the
            team's store stays behind.
    """
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    _check_target(home, target)
    with ExitStack() as ending:
        snapshots, files = ending.enter_context(
            _consistent(home, least, tenant or home.tenant / "tenant.db")
        )
        ledger = snapshots["data/agentvault.db"]
        manifest, witness = _describe(ledger, home, clock)
        try:
            file = ending.enter_context(private_draft(target, replace=False))
            copies = {
                name: ending.enter_context(_copied(snapshot, target.parent))
                for name, snapshot in snapshots.items()
            }
            _write_archive(file, manifest, {**files, **witness}, copies)
            ending.close()
        except FileExistsError as error:
            raise _there(target) from error
        except OSError as error:
            raise UsageError(
                f"cannot write {target} ({error.strerror})",
                "choose another folder: it takes twice the size of the home for a"
                " moment",
            ) from error
    return manifest


def _check_target(home: Home, target: Path) -> None:
    if any(map(target.parent.resolve().is_relative_to, _folders(home).values())):
        raise UsageError(f"{target} is in the home", "choose a folder outside of it")
    if os.path.lexists(target):
        raise _there(target)


def _there(target: Path) -> UsageError:
    return UsageError(f"{target} is there already", "choose another name")


@contextmanager
def _consistent(
    home: Home, least: int, tenant: Path
) -> Iterator[tuple[dict[str, sqlite3.Connection], dict[str, tuple[int, bytes]]]]:
    """Yield a snapshot of each database, and the home's other files as they were then.

    SQLite's read transactions pin the databases; that no file changed from before the
    first was pinned until after the last was, and neither did the tenant's database,
    makes all of it the state of one moment.
    """
    paths = {"data/agentvault.db": home.database}
    if tenant.exists():
        paths = {"data/tenant/tenant.db": tenant, **paths}
    behind = False
    for _ in range(_TRIES):
        with ExitStack() as opened:
            before = _stamps(home)
            snapshots, watched = {}, []
            for name, path in paths.items():
                opened.enter_context(storage_errors(path))
                snapshot, watch = (
                    opened.enter_context(closing(schema.open_reader(path)))
                    for _ in range(2)
                )
                watched.append((watch, _commits(watch)))
                snapshot.execute("BEGIN")
                snapshot.execute("SELECT count(*) FROM sqlite_master").fetchone()
                snapshots[name] = snapshot
            try:
                files = {name: _content(path) for name, path, _ in before}
            except FileNotFoundError:
                files = {}
            # The last one was pinned last: what it gets afterwards is no matter.
            still = all(_commits(watch) == count for watch, count in watched[:-1])
            behind = head_seq(snapshots["data/agentvault.db"]) < least
            if still and not behind and _stamps(home) == before:
                yield snapshots, files
                return
        time.sleep(_PAUSE)
    if behind:
        raise LedgerUnwritableError(
            f"this home's copy of the team's store ends before event {least}",
            "start its broker, or back up where one is in step",
        )
    raise LedgerUnwritableError(
        "files of the home change all the time", "try again when that is over"
    )


def _commits(db: sqlite3.Connection) -> int:
    """Return a value that differs once another connection has committed."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _folders(home: Home) -> dict[str, Path]:
    return {"data": home.data.resolve(), "config": home.config.resolve()}


def _stamps(home: Home) -> list[tuple[str, Path, tuple[int, ...] | None]]:
    """Return the files to back up: name in the archive, path, and stamp."""
    stamps, left_out = [], _left_out(home)
    for place, folder in _folders(home).items():
        if place == "config" and home.config == home.data:
            break
        for top in sorted(folder.iterdir()):
            inside = "config" if top.name in _SETTINGS else place
            for path in sorted(_files(top)):
                named = PurePosixPath(top.name, path.relative_to(top))
                # A draft of ours, or another program's, such as .git.
                passing = path.suffix == ".new" or any(
                    part.startswith(".") for part in named.parts
                )
                if not passing and left_out.isdisjoint((folder / top.name, path)):
                    stamps.append((f"{inside}/{named}", path, file_stamp(path)))
    return stamps


def _left_out(home: Home) -> set[Path]:
    """Return the files that are not copied as they are."""
    databases = (home.database, home.tenant / "tenant.db", index_path(home))
    return {
        path.parent.resolve() / path.name
        for path in (
            # Written from the snapshots, with the head; the index is built anew.
            *(Path(f"{db}{end}") for db in databases for end in ("", "-wal", "-shm")),
            home.head_file,
            # Of one process or one disk.
            *(home.run, home.start_space, home.tenant / "tenant.lock"),
            # What is restored is another broker, and goes on from no copy.
            *(home.broker_id_file, home.copied_file),
        )
    }


def _files(top: Path) -> Iterator[Path]:
    """Yield the regular files in *top*, which may be one or a link to a folder."""
    if top.is_file():
        yield top
    for folder, _, names in os.walk(top):
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _content(path: Path) -> tuple[int, bytes]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mode, file.read()


def _describe(
    db: sqlite3.Connection, home: Home, clock: Clock
) -> tuple[Manifest, dict[str, tuple[int, bytes]]]:
    """Return the manifest of a snapshot, and the head file that belongs to it."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in schema.UPGRADED:
        schema.check_version(db, home.database)
    ledger = read_ledger_id(db, home.database)
    head = read_tip(db, ledger).head
    manifest = Manifest(
        format=FORMAT,
        version=__version__,
        schema=version,
        made_at=iso(clock.now()),
        host=socket.gethostname(),
        ledger=ledger,
        seq=head.seq,
        hash=head.hash,
    )
    content = encode_witness(Witness(ledger, head))
    return manifest, {"data/keys/ledger-head.json": (0o600, content)}


@contextmanager
def _copied(snapshot: sqlite3.Connection, folder: Path) -> Iterator[BinaryIO]:
    """Yield a copy of a database as its snapshot has it, in a file without a name."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".agentvault-")
    with os.fdopen(descriptor, "rb") as file:
        try:
            with closing(sqlite3.connect(name)) as copy:
                for pragma in ("journal_mode = OFF", "synchronous = OFF"):
                    copy.execute(f"PRAGMA {pragma}")
                Path(name).unlink()
                try:
                    snapshot.backup(copy)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                        raise
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                snapshot.execute("ROLLBACK")  # the log can shrink again
        finally:
            Path(name).unlink(missing_ok=True)
        yield file


def _write_archive(
    file: BinaryIO,
    manifest: Manifest,
    files: dict[str, tuple[int, bytes]],
    copies: dict[str, BinaryIO],
) -> None:
    summed = Summed(file)
    entry = 0o600, msgspec.json.encode(manifest)
    with tarfile.open(fileobj=summed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, (mode, content) in {MANIFEST: entry, **files}.items():
            member = _member(name, mode, len(content))
            tar.addfile(member, io.BytesIO(content))
        for name, copy in copies.items():
            size = os.fstat(copy.fileno()).st_size
            tar.addfile(_member(name, 0o600, size), copy)
    file.write(summed.trailer)


def _member(name: str, mode: int, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.size = stat.S_IMODE(mode) & stat.S_IRWXU, size
    return member
