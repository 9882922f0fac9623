"""Restore a backup into an empty home, with everything stopped."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import shutil
import socket
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import msgspec

from agentvault_tui import __version__
from agentvault_tui.broker.backup import (
    FORMAT,
    MANIFEST,
    TRAILER,
    TRAILER_BYTES,
    Manifest,
    Summed,
)
from agentvault_tui.broker.recovery import ended_stepups
from agentvault_tui.broker.usecases.stepup_end import cancelled_draft
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import (
    ConflictError,
    LedgerDamagedError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    SettingsError,
)
from agentvault_tui.home import Home, fsync_folder, private_folder, put_private
from agentvault_tui.ledger import DropAllTokens, Ledger, Panic, schema, verify_ledger
from agentvault_tui.ledger.chain import written
from agentvault_tui.ledger.headfile import read_witness
from agentvault_tui.ledger.opening import HomeLock, open_checked
from agentvault_tui.ledger.records import Head
from agentvault_tui.ledger.schema import storage_errors
from agentvault_tui.model import Actor, Draft, EventType, StepUpStatus
from agentvault_tui.settings import Settings
from agentvault_tui.store_url import require_library

IntoTeam = Callable[[Home, Settings], None]
"""Puts the rows of a home's embedded tenant into the store that settings name."""
_MANIFEST_CAP: Final = 65_536
_DEEPEST: Final = 64
"""Folders of a member's path: `shutil.rmtree` recurses into each."""
_CHUNK: Final = 1024 * 1024
_UNREADABLE: Final = (tarfile.TarError, ArithmeticError, LookupError, ValueError)
"""The errors of reading a changed archive."""
_BEGUN: Final = frozenset(
    {
        *("device_codes", "access_tokens", "auth_codes", "connect_requests"),
        *("passkey_links", "page_sessions", "activations"),
    }
)
"""Tables of the embedded tenant that hold codes, links and sessions."""


def restore_backup(
    home: Home, source: Path, clock: Clock, actor: Actor, into_team: IntoTeam
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
        into_team: puts the embedded tenant's rows of a home into the team's store.

    Returns:
        the backup's description, and the ledger's head now.

    Raises:
        NotFoundError: there is no such file.
        ConflictError: the home is not empty.
        RefusedError: the file is no backup, was changed or cut, is of a newer version,
            or others can write it.
        LedgerDamagedError: its ledger does not verify.
        LedgerUnwritableError: there is no room for it.
    """
    try:
        file = source.open("rb")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error
    with file:
        trailer = _read_trailer(file, source)
        manifest = _read_manifest(file, source)
        continued, ready = (home.unfinished / name for name in ("continued", "ready"))
        if not _is(ready, trailer):
            _check_empty(home)
        for folder in (home.data, home.run):
            private_folder(folder)
        lock = HomeLock(home.lock_file)
        try:
            if not _is(ready, trailer):
                _check_empty(home)  # a broker may have been first
                staged = _staged(home.unfinished)
                if not _is(continued, trailer):
                    _unpack(file, source, trailer, home.unfinished)
                    asyncio.run(_continue_ledger(staged, manifest, clock, actor))
                    put_private(continued, trailer, replace=False)
                _into_store(staged, actor, into_team)
                put_private(ready, trailer, replace=False)
            return manifest, _move(home)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _no_room(home) from error
        finally:
            if home.unfinished.exists() and not ready.exists():
                shutil.rmtree(home.unfinished)
            lock.release()


def _no_room(home: Home) -> LedgerUnwritableError:
    what = f"there is no room for the backup in {home.data}"
    return LedgerUnwritableError(what, "make room")


def _is(marker: Path, trailer: bytes) -> bool:
    """Check whether a restore of the same file came so far."""
    return marker.exists() and marker.read_bytes() == trailer


def _read_trailer(file: BinaryIO, source: Path) -> bytes:
    """Return the line that ends a backup, which no other party can have written."""
    status = os.fstat(file.fileno())
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in {
        0,
        os.geteuid(),
    }:
        raise RefusedError(
            f"others can write {source}, and what it restores is trusted",
            "see that it is the one you made, then copy it for yourself alone",
        )
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - TRAILER_BYTES, 0))
    trailer = file.read()
    file.seek(0)
    if not re.fullmatch(
        re.escape(TRAILER % b"@").replace(b"@", b"[0-9a-f]{64}"), trailer
    ):
        raise RefusedError(
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


def _unpack(file: BinaryIO, source: Path, trailer: bytes, staging: Path) -> None:
    """Unpack into a new folder, and check that the file is as it was written."""
    if staging.exists():
        shutil.rmtree(staging)
    private_folder(staging)
    length = os.fstat(file.fileno()).st_size - TRAILER_BYTES
    summed = Summed(file, length)
    try:
        with tarfile.open(fileobj=summed, mode="r|") as tar:
            tar.next()  # the manifest
            while (member := tar.next()) is not None:
                _unpack_member(tar, member, staging)
    except (*_UNREADABLE, FileExistsError) as error:
        raise _changed(source) from error
    while summed.read(_CHUNK):
        pass
    if summed.trailer != trailer:
        raise _changed(source)


def _changed(source: Path) -> RefusedError:
    return RefusedError(
        f"{source} is not as it was written", "take another copy of it, or an older one"
    )


def _read_manifest(file: BinaryIO, source: Path) -> Manifest:
    """Return the first member; the file is at its start again."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            member = tar.next()
            content = tar.extractfile(member) if member else None
            if content is None or member is None or member.name != MANIFEST:
                raise _changed(source)
            manifest = msgspec.json.decode(content.read(_MANIFEST_CAP), type=Manifest)
    except (*_UNREADABLE, msgspec.MsgspecError) as error:
        raise _changed(source) from error
    file.seek(0)
    newer = _release(manifest.version) > _release(__version__)
    if newer or manifest.format != FORMAT or manifest.schema > schema.VERSION:
        raise RefusedError(
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
    odd = odd or len(parts) > _DEEPEST
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
        os.fchmod(
            file.fileno(), stat.S_IRUSR | stat.S_IWUSR | member.mode & stat.S_IXUSR
        )
        file.flush()
        os.fsync(file.fileno())


async def _continue_ledger(
    home: Home, manifest: Manifest, clock: Clock, actor: Actor
) -> None:
    """Verify the ledger, then record the restore: nothing of before is in effect.

    Later revocations are unknown to the backup, so every token ends, every step-up is
    cancelled, and panic is on.
    """
    with (
        storage_errors(home.database),
        closing(schema.open_writer(home.database)) as db,
    ):
        open_checked(db, home, trust=False)  # brings an older one up to date
    # Before it is opened, which begins to build the text index beside it.
    result = verify_ledger(home, now=clock.now())
    head = Head(manifest.seq, manifest.hash)
    if not result.ok or (result.ledger, result.head) != (manifest.ledger, head):
        raise LedgerDamagedError(
            f"the backup's ledger does not verify: {result.problem}",
            "restore an older backup",
        )
    _end_begun(home)
    # Of a team it was the copy of a store, and now is what a new one is made from.
    ledger = await Ledger.open(home, clock=clock, again=True)
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


def _end_begun(home: Home) -> None:
    """End sign-ins under way at the embedded tenant, as a copy to a team's does.

    A session that was ended, or a link and a code that were used, after the backup was
    made are as they were before; and challenges that were answered count as open.
    """
    path = home.tenant / "tenant.db"
    if not path.exists():
        return
    with storage_errors(path), closing(sqlite3.connect(path)) as db, db:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        for table in there & _BEGUN:
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - one of ours
        if "facts" in there:
            epoch = secrets.token_hex(16)
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", ("epoch", epoch))


def _into_store(home: Home, actor: Actor, into_team: IntoTeam) -> None:
    """Copy the shared data into a team's empty store, if the settings name one.

    A restore that was killed after it had done so does not do it again.
    """
    try:
        settings = Settings.load(home)
    except SettingsError:
        return  # a start says what is broken; they were backed up as they were
    if not settings.store.url:
        return
    require_library()
    from agentvault_tui.ledger.store_copying import copy_to_store  # noqa: PLC0415
    from agentvault_tui.store_connection import (  # noqa: PLC0415
        Connector,
        ask,
        close,
    )

    connector = Connector(settings.store.url, settings.team.name)
    head = _head(home)

    async def there() -> list[str]:
        db = await connector.connect()
        try:
            sql = "SELECT hash FROM agentvault.events WHERE seq = %s"
            return [written(digest) for (digest,) in await ask(db, sql, (head.seq,))]
        finally:
            await close(db)

    if asyncio.run(there()) != [head.hash]:
        into_team(home, settings)
        asyncio.run(copy_to_store(home, connector, settings.store.url, actor))
    home.copied_file.unlink(missing_ok=True)
    (home.tenant / "tenant.db").unlink(missing_ok=True)  # the store's from here on


def _head(home: Home) -> Head:
    witness = read_witness(home.head_file)
    assert witness is not None  # noqa: S101 - a ledger was closed in good order
    return witness.head


def _move(home: Home) -> Head:
    """Move the unpacked files into the home; each at once, and again if killed.

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
    return _head(home)
