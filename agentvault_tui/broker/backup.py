"""Back a home up into one file beside a running broker, and restore one.

File format: a POSIX tar archive, then one line over every byte before it, which tar
ignores: ``agentvault-backup sha256:`` and 64 hexadecimal digits. The archive holds
``manifest.json``, then regular files in ``config/`` and ``data/``, the database last.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import re
import shutil
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
from agentvault_tui.broker.recovery import ended_stepups
from agentvault_tui.broker.usecases.stepup import cancelled_draft
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import (
    ConflictError,
    LedgerDamagedError,
    LedgerUnwritableError,
    NotFoundError,
    UsageError,
)
from agentvault_tui.home import (
    Home,
    file_stamp,
    fsync_folder,
    private_draft,
    private_folder,
    put_private,
)
from agentvault_tui.ledger import DropAllTokens, Ledger, Panic, schema, verify_ledger
from agentvault_tui.ledger.batch import read_tip
from agentvault_tui.ledger.headfile import Witness, encode_witness, read_witness
from agentvault_tui.ledger.opening import HomeLock, open_checked, read_ledger_id
from agentvault_tui.ledger.records import Head
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.model import Actor, Draft, EventType, StepUpStatus

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FORMAT: Final = "agentvault-backup/1"
_TRAILER: Final = b"agentvault-backup sha256:%s\n"
_TRAILER_BYTES: Final = len(_TRAILER % (b"0" * 64))
_MANIFEST: Final = "manifest.json"
_MANIFEST_CAP: Final = 65_536
_CHUNK: Final = 1024 * 1024
_SETTINGS: Final = frozenset(
    {
        *("alerts.toml", "config.toml", "hosts", "keymap.toml", "limits.toml", "mcp"),
        *("policy.cedar", "scopes.toml", "services"),
    }
)
"""What is restored into the settings' folder, where the home that was backed up had one
folder for both."""
_LEFT_OUT: Final = frozenset(
    {
        # Written from the snapshots: databases, and the head that belongs to them.
        *("agentvault.db", "agentvault.db-wal", "agentvault.db-shm"),
        *("tenant/tenant.db", "tenant/tenant.db-wal", "tenant/tenant.db-shm"),
        "keys/ledger-head.json",
        # Of one process or one disk, or built anew.
        *("run", "start.reserve", "index.db", "index.db-wal", "index.db-shm"),
        "tenant/tenant.lock",
    }
)
_TRIES: Final = 100
_PAUSE: Final = 0.05
"""Seconds before the files are read again because one changed meanwhile."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself: its first member."""

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


class _Summed(io.BufferedIOBase):
    """Reads or writes a file in order, up to a length, and hashes what passes."""

    def __init__(self, file: BinaryIO, length: int = 2**63) -> None:
        self._file = file
        self._left = length
        self.sha256 = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size >= 0  # noqa: PT018, S101 - tarfile says
        found = self._file.read(min(size, self._left))
        self._left -= len(found)
        self.sha256.update(found)
        return found

    def write(self, content: ReadableBuffer, /) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    @property
    def trailer(self) -> bytes:
        """The line that ends a file with these bytes."""
        return _TRAILER % self.sha256.hexdigest().encode()


def make_backup(home: Home, target: Path, clock: Clock) -> Manifest:
    """Write all of *home* to *target*, mode 0600, whole or not at all.

    Needs no broker, and works beside a running one, which goes on writing: both
    databases are read in one snapshot each, taken at a moment at which no other file
    of the home changed. Sealed secrets stay sealed; the keys that open them are in the
    backup where they are in the home.

    Args:
        home: what to back up.
        target: a file that is not there yet, outside of the home.
        clock: tells the time for the manifest.

    Returns:
        what the backup says of itself.

    Raises:
        NotFoundError: there is no ledger.
        UsageError: the target is there, is in the home, or cannot be written.
        LedgerDamagedError: a database cannot be read, or is of a newer version.
        LedgerUnwritableError: files of the home changed too often.
    """
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    if any(map(target.parent.resolve().is_relative_to, _folders(home).values())):
        raise UsageError(f"{target} is in the home", "choose a folder outside of it")
    if os.path.lexists(target):
        raise _there(target)
    with ExitStack() as ending:
        snapshots, files = ending.enter_context(_consistent(home))
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


def _there(target: Path) -> UsageError:
    return UsageError(f"{target} is there already", "choose another name")


@contextmanager
def _consistent(
    home: Home,
) -> Iterator[tuple[dict[str, sqlite3.Connection], dict[str, tuple[int, bytes]]]]:
    """Yield a snapshot of each database, and the home's other files as they were then.

    SQLite's read transactions pin the databases; that no file changed from before the
    first was pinned until after the last was, and neither did the tenant's database,
    makes all of it the state of one moment.
    """
    paths = {"data/agentvault.db": home.database}
    if (tenant := home.tenant / "tenant.db").exists():
        paths = {"data/tenant/tenant.db": tenant, **paths}
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
            if still and _stamps(home) == before:
                yield snapshots, files
                return
        time.sleep(_PAUSE)
    raise LedgerUnwritableError(
        "files of the home change all the time", "try again when that is over"
    )


def _commits(db: sqlite3.Connection) -> int:
    """Return what differs once another connection has committed."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def _folders(home: Home) -> dict[str, Path]:
    return {"data": home.data.resolve(), "config": home.config.resolve()}


def _stamps(home: Home) -> list[tuple[str, Path, tuple[int, ...] | None]]:
    """Return the files to back up: name in the archive, path, and stamp."""
    found = []
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
                if not passing and _LEFT_OUT.isdisjoint((top.name, str(named))):
                    found.append((f"{inside}/{named}", path, file_stamp(path)))
    return found


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
    if version != schema.UPGRADED:
        schema.check_version(db, home.database)
    ledger = read_ledger_id(db, home.database)
    head = read_tip(db, ledger).head
    manifest = Manifest(
        format=_FORMAT,
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
                snapshot.backup(copy)
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
    summed = _Summed(file)
    told = 0o600, msgspec.json.encode(manifest)
    with tarfile.open(fileobj=summed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, (mode, content) in {_MANIFEST: told, **files}.items():
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


def restore_backup(
    home: Home, source: Path, clock: Clock, actor: Actor
) -> tuple[Manifest, Head]:
    """Restore a backup into an empty home, with everything stopped.

    It is unpacked and checked in a folder of the home, its ledger continued there by
    the restore's own events, and then moved into place. Until that is done commands
    refuse the home, so that one killed at any moment leaves nothing that serves; run
    again with the same file, it goes on.

    Args:
        home: an empty home.
        source: the backup.
        clock: tells the time for the events.
        actor: who restores it.

    Returns:
        what the backup says of itself, and the ledger's head now.

    Raises:
        NotFoundError: there is no such file.
        ConflictError: the home is not empty.
        UsageError: the file is no backup, was changed or cut, or is of a newer version.
        LedgerDamagedError: its ledger does not verify.
        LedgerUnwritableError: there is no room for it.
    """
    try:
        file = source.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error
    with file:
        trailer = _read_trailer(file, source)
        begun = home.unfinished / "verified"
        again = begun.exists() and begun.read_bytes() == trailer
        if not again:
            _check_empty(home)
        for folder in (home.data, home.run):
            private_folder(folder)
        lock = HomeLock(home.lock_file)
        try:
            if again:
                with tarfile.open(fileobj=file, mode="r|") as tar:
                    manifest = _read_manifest(tar, source)
            else:
                _check_empty(home)  # a broker may have been first
                manifest = _unpack(file, source, trailer, home.unfinished)
                staged = _staged(home.unfinished)
                asyncio.run(_continue_ledger(staged, manifest, clock, actor))
                put_private(begun, trailer, replace=False)
            return manifest, _move(home)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise LedgerUnwritableError(
                f"there is no room for the backup in {home.data}", "make room"
            ) from error
        finally:
            if home.unfinished.exists() and not begun.exists():
                shutil.rmtree(home.unfinished)
            lock.release()


def _read_trailer(file: BinaryIO, source: Path) -> bytes:
    """Return the line that ends a backup."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TRAILER_BYTES, 0))
    trailer = file.read()
    file.seek(0)
    if not re.fullmatch(
        re.escape(_TRAILER % b"@").replace(b"@", b"[0-9a-f]{64}"), trailer
    ):
        raise UsageError(
            f"{source} is no backup, or its end is missing", "take another copy of it"
        )
    return trailer


def _check_empty(home: Home) -> None:
    for folder in {home.data, home.config}:
        there = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        if named := sorted(there - {home.run.name, home.unfinished.name}):
            raise ConflictError(
                f"{folder} is not empty: it has {named[0]}",
                "restore into an empty home: choose another with --home",
            )


def _staged(staging: Path) -> Home:
    return Home(staging / "data", staging / "config")


def _unpack(file: BinaryIO, source: Path, trailer: bytes, staging: Path) -> Manifest:
    """Unpack into a new folder, and check that the file is as it was written."""
    if staging.exists():
        shutil.rmtree(staging)
    private_folder(staging)
    length = os.fstat(file.fileno()).st_size - _TRAILER_BYTES
    summed = _Summed(file, length)
    try:
        with tarfile.open(fileobj=summed, mode="r|") as tar:
            manifest = _read_manifest(tar, source)
            while (member := tar.next()) is not None:
                _unpack_member(tar, member, staging)
    except (tarfile.TarError, FileExistsError, EOFError) as error:
        raise _changed(source) from error
    while summed.read(_CHUNK):
        pass
    if summed.trailer != trailer:
        raise _changed(source)
    return manifest


def _changed(source: Path) -> UsageError:
    return UsageError(
        f"{source} is not as it was written", "take another copy of it, or an older one"
    )


def _read_manifest(tar: tarfile.TarFile, source: Path) -> Manifest:
    member = tar.next()
    try:
        if member is None or member.name != _MANIFEST or member.size > _MANIFEST_CAP:
            raise _changed(source)
        content = tar.extractfile(member)
        assert content is not None  # noqa: S101 - a regular file
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    except (msgspec.MsgspecError, tarfile.TarError) as error:
        raise _changed(source) from error
    newer = _release(manifest.version) > _release(__version__)
    if newer or manifest.format != _FORMAT or manifest.schema > schema.VERSION:
        raise UsageError(
            f"{source} is a backup of AgentVault {manifest.version}, this is"
            f" {__version__}",
            "upgrade AgentVault, then restore",
        )
    return manifest


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Path
) -> None:
    inside = PurePosixPath(member.name)
    place, *parts = inside.parts
    named = "/".join(parts)
    odd = ".." in parts or parts[:1] == ["run"] or not parts or named.startswith(".")
    if odd or place not in {"config", "data"} or not member.isreg():
        raise tarfile.TarError(member.name)
    path = staging / inside
    private_folder(path.parent)
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 - a regular file
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        if file.tell() != member.size:
            raise EOFError(member.name)
        os.fchmod(
            file.fileno(), stat.S_IRUSR | stat.S_IWUSR | member.mode & stat.S_IXUSR
        )
        file.flush()
        os.fsync(file.fileno())


async def _continue_ledger(
    home: Home, manifest: Manifest, clock: Clock, actor: Actor
) -> None:
    """Verify the ledger, then record the restore: nothing of before is in force.

    What was revoked after the backup was made is not known, so every token ends, every
    step-up is cancelled, and panic is on.
    """
    with closing(schema.open_writer(home.database)) as db:
        open_checked(db, home, trust=False)  # brings an older one up to date
    # Before it is opened, which begins to build the text index beside it.
    found = verify_ledger(home, now=clock.now())
    head = Head(manifest.seq, manifest.hash)
    if not found.ok or (found.ledger, found.head) != (manifest.ledger, head):
        raise LedgerDamagedError(
            f"the backup's ledger does not verify: {found.problem}",
            "restore an older backup",
        )
    ledger = await Ledger.open(home, clock=clock)
    try:
        loaded = await ledger.load()
        now, reason = clock.now(), f"restored the backup of {manifest.made_at}"
        ended = ended_stepups(loaded, "restored", clock)
        cancelled = [one for one in ended if one.status is StepUpStatus.CANCELLED]
        made = {"at": manifest.made_at, "host": manifest.host}
        detail = {
            "from": {"seq": manifest.seq, "hash": manifest.hash, **made},
            "to": {"at": iso(now), "host": socket.gethostname()},
            "version": manifest.version,
        }
        counts = {
            "agents": len(loaded.agents),
            "tokens_revoked": len(loaded.tokens),
            "stepups_cancelled": len(cancelled),
        }
        await ledger.commit(
            Draft(EventType.LEDGER_RESTORED, actor, reason=reason, detail=detail),
            Draft(EventType.PANIC_ON, actor, reason=reason, detail=counts),
            *(cancelled_draft(one, actor) for one in cancelled),
            changes=[Panic(True, now, actor.name, reason), DropAllTokens(), *ended],
            urgent=True,
        )
    finally:
        await ledger.close()


def _move(home: Home) -> Head:
    """Move what was unpacked into the home; each file at once, and again if killed.

    Returns:
        where its ledger ends.
    """
    staged = _staged(home.unfinished)
    shutil.rmtree(staged.run, ignore_errors=True)
    for here, there in ((staged.config, home.config), (staged.data, home.data)):
        private_folder(there)
        for path in sorted(here.rglob("*")):
            target = there / path.relative_to(here)
            if path.is_dir():
                private_folder(target)
            else:
                shutil.move(path, target)  # the settings' may be another file system
        for folder in {there, *(path for path in there.rglob("*") if path.is_dir())}:
            fsync_folder(folder)
    # At once: what is left of it is no unfinished restore.
    done = home.run / "restored"
    shutil.rmtree(done, ignore_errors=True)
    home.unfinished.replace(done)
    fsync_folder(home.data)
    shutil.rmtree(done)
    witness = read_witness(home.head_file)
    assert witness is not None  # noqa: S101 - it was moved there
    return witness.head
