"""Active revocations that the ledger has not recorded, stored without new disk space.

A revocation takes effect before its record. While the database cannot be written, a
cut is written here before its reply, so that it outlives the process. The file is
written in full once, with zero bytes, and from then on only overwritten in place.

File format, all numbers big-endian:

* 0: magic, the ledger's id, SHA-256 of both; never changed.
* 512: one byte, the selector: 1 area A, 2 area B.
* 4096: area A; 4096 + AREA: area B. Each is the length of a payload (4 bytes), its
  number (8 bytes), the SHA-256 of ledger id, number and payload, and the payload: a
  JSON list of cuts. A new file has an empty list, with the number 0, in area A.

A list is written to the area that is not selected and flushed, then the selector is
written and flushed: a crash at any byte leaves the list before or the one after.
So a selected area that does not verify was damaged, which no crash can do. Where both
verify the larger number counts, so that a changed selector brings no older list back.

Next to it, with the ledger's keys, is a marker. It holds the number of the last list,
overwritten in place after each, so that a process that can write only the file brings
no older list back. Where the file cannot be written, the marker is deleted, for which a
full disk has room: a start without it stops everything, as does one with a file that is
damaged, missing or another ledger's.

On a file system that has turned read-only the marker cannot be deleted either. Then a
note is left on other file systems (`note_folders`), which stops the next start as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

import msgspec

from agentvault_tui.home import Home, fsync_folder, put_private

_MAGIC: Final = b"AgentVault cuts 2\n"
_SELECTOR: Final = 512
_MARK: Final = b"%019d\n"
"""Of fixed width, so that it is overwritten in place."""
_FIRST: Final = 4096
AREA: Final = 256 * 1024
_SIZE: Final = _FIRST + 2 * AREA
_HEAD: Final = 4 + 8 + hashlib.sha256().digest_size
CAPACITY: Final = AREA - _HEAD
"""Bytes of JSON the file can hold."""


class _DamagedError(Exception):
    """The file is not as it was written."""


@dataclass(frozen=True, slots=True)
class KeptCut:
    """One revocation, with the data to apply and record it after a restart."""

    kind: str
    """``revoke``, ``panic``, ``ungrant``, ``undelegate``, ``token``, ``stepup``,
    ``account`` or ``cooldown``."""
    at: str
    """When it took effect."""
    by: tuple[str, str, str]
    """The actor: kind, id and name."""
    since: int = 0
    """The ledger's head when it took effect; its event comes later."""
    agent: str = ""
    id: str = ""
    """Of the token, step-up or account; the connection's name comes after a space. Of
    the other agent, where it may be passed no more."""
    scopes: tuple[str, ...] = ()
    """Those taken away."""
    status: str = ""
    """The step-up's, or a cool-down's deadline as `docs` writes it."""
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str, tuple[str, ...]]:
        """Return the key that two revocations of the same thing share."""
        return self.kind, self.agent, self.id, self.scopes


def encode_cuts(cuts: list[KeptCut]) -> bytes:
    """Return the payload that keeps *cuts*.

    Args:
        cuts: the ones in effect and not recorded.

    Returns:
        the payload, JSON.
    """
    names = [field.name for field in fields(KeptCut)]
    listed = [{n: v for n in names if (v := getattr(entry, n))} for entry in cuts]
    text = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


@dataclass(slots=True)
class CutJournal:
    """The file and its marker. Its methods block: call them in a thread."""

    path: Path
    marker: Path
    ledger_id: str
    entries: tuple[KeptCut, ...] = ()
    """The entries of the last process."""
    problem: str | None = None
    """Why entries may be missing, or cannot be stored: the next start stops
    everything."""
    lasting: bool = True
    """Whether that start finds it so: nothing says so where nothing can be written."""
    _selected: int = field(default=1, repr=False)
    _number: int = field(default=0, repr=False)
    """Of the list in the selected area."""

    @classmethod
    def open(
        cls, home: Home, ledger_id: str, *, expected: bool, fresh: bool
    ) -> CutJournal:
        """Read the stored entries; create file and marker in a home without them.

        Args:
            home: the home.
            ledger_id: the ledger that the cuts belong to.
            expected: whether the chain says that this home has a journal.
            fresh: whether the ledger is empty, so that nothing can have been cut.

        Raises:
            OSError: there is no room for a new one.
        """
        journal = cls(home.cut_journal, home.cut_marker, ledger_id)
        marked, there = journal.marker.exists(), os.path.lexists(journal.path)
        if fresh or not (expected or marked or there):
            journal.create()
            return journal
        try:
            journal._load()
        except FileNotFoundError:
            journal.problem = f"{journal.path} is gone"
        except (_DamagedError, OSError) as error:
            journal.problem = f"{journal.path} is damaged ({error})"
        if not marked:
            journal.problem = (
                f"a cut could not be kept, and {journal.marker} was removed to say so"
            )
        elif note := next(journal._notes(), None):
            journal.problem = f"a cut could not be kept, as {note} says"
        return journal

    def create(self) -> None:
        """Write a new, empty file over the present one, then the marker."""
        draft = self.path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            # Zeros that are written, not a hole or an extent that is only reserved:
            # overwriting them allocates nothing.
            number = max(self._number, self._marked())
            new = (self._header() + b"\1").ljust(_FIRST, b"\0")
            new += self._area(number, b"[]")
            _write_all(descriptor, new.ljust(_SIZE, b"\0"), 0)
            os.fsync(descriptor)
            if os.path.lexists(self.path):
                # Evidence, where it holds something that could not be read.
                self.path.replace(self.path.with_suffix(".damaged"))
            draft.replace(self.path)
            fsync_folder(self.path.parent)
            with contextlib.suppress(FileExistsError):
                put_private(self.marker, _MARK % number, replace=False)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        for note in self._notes():
            note.unlink(missing_ok=True)
        self._selected, self._number, self.problem = 1, number, None
        self.lasting = True

    def write(self, cuts: list[KeptCut]) -> bool:
        """Store exactly *cuts*, durably; if that fails, delete the marker.

        Where that fails too, a note elsewhere does the same until the machine restarts.

        Returns:
            whether they are in the file. Where not, the next start stops everything.

        Raises:
            OSError: neither was possible: a restart loses them.
        """
        if self.problem is None:
            try:
                self._write(cuts)
            except OSError as error:
                self.problem = f"{self.path} cannot be written ({error.strerror})"
            else:
                return True
        try:
            # Also where it is gone already: the folder must say so on disk.
            self.marker.unlink(missing_ok=True)
            fsync_folder(self.marker.parent)
        except OSError:
            self.lasting = self._leave_note()
            if not self.lasting:
                raise
        else:
            self.lasting = True
        return False

    def _leave_note(self) -> bool:
        """Leave a note in each folder that takes one; return whether there is any."""
        there = {note.parent for note in self._notes()}
        for folder in note_folders():
            if folder not in there:
                with contextlib.suppress(OSError):
                    # Its name cannot be foreseen, so that nobody else takes it.
                    descriptor, _ = tempfile.mkstemp(dir=folder, prefix=self._prefix)
                    try:
                        os.write(descriptor, f"{self.problem}\n".encode())
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
                    there.add(folder)
        return bool(there)

    def _notes(self) -> Iterator[Path]:
        """Yield the notes about this ledger that are ours."""
        for folder in note_folders():
            with contextlib.suppress(OSError):
                for note in folder.glob(f"{self._prefix}*"):
                    status = note.lstat()
                    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                        yield note

    @property
    def _prefix(self) -> str:
        named = hashlib.sha256(_MAGIC + self.ledger_id.encode()).hexdigest()
        return f"agentvault-stop-{named[:16]}-"

    def _write(self, cuts: list[KeptCut]) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size != _SIZE:
                raise OSError(0, "its size was changed")
            selected, number = 3 - self._selected, self._number + 1
            area = self._area(number, encode_cuts(cuts))
            if len(area) > AREA:
                raise OSError(0, "more was cut than it holds")
            _write_all(descriptor, area, _FIRST + (selected - 1) * AREA)
            os.fsync(descriptor)
            _write_all(descriptor, bytes((selected,)), _SELECTOR)
            os.fsync(descriptor)
            self._selected, self._number = selected, number
        finally:
            os.close(descriptor)
        self._mark(number)

    def _mark(self, number: int) -> None:
        """Write the number into the marker, in the bytes it has."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.marker, flags)
        try:
            _write_all(descriptor, _MARK % number, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _marked(self) -> int:
        """Return the number in the marker; 0 where it is gone or has none yet."""
        try:
            return int(self.marker.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0

    def _load(self) -> None:
        # Without O_NONBLOCK a FIFO in the file's place would hold the start up.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self.path, flags)
        try:
            content = os.pread(descriptor, _SIZE + 1, 0)
        finally:
            os.close(descriptor)
        if len(content) != _SIZE or content[:_SELECTOR] != self._header():
            raise _DamagedError("it is another ledger's, or was cut")
        selected = content[_SELECTOR]
        if selected not in {1, 2}:
            raise _DamagedError("it names no area")
        newer, other = (self._list(content, area) for area in (selected, 3 - selected))
        if newer is None:
            raise _DamagedError("its checksum is another")
        if other is not None and other[0] > newer[0]:
            newer, selected = other, 3 - selected
        if newer[0] < self._marked():
            raise _DamagedError("it holds an older list")
        try:
            self.entries = msgspec.convert(json.loads(newer[1]), tuple[KeptCut, ...])
        except (ValueError, TypeError, KeyError) as error:
            raise _DamagedError(f"{error!r:.80}") from error
        self._selected, self._number = selected, newer[0]

    def _list(self, content: bytes, area: int) -> tuple[int, bytes] | None:
        """Return number and payload of an area, if it is as it was written."""
        start = _FIRST + (area - 1) * AREA
        written = content[start : start + AREA]
        length = int.from_bytes(written[:4], "big")
        number = int.from_bytes(written[4:12], "big")
        payload = written[_HEAD : _HEAD + length]
        right = written.startswith(self._area(number, payload))
        return (number, payload) if right else None

    def _header(self) -> bytes:
        name = _MAGIC + self.ledger_id.encode()
        return (name + hashlib.sha256(name).digest()).ljust(_SELECTOR, b"\0")

    def _area(self, number: int, payload: bytes) -> bytes:
        counted = number.to_bytes(8, "big")
        digest = hashlib.sha256(self.ledger_id.encode() + counted + payload).digest()
        return len(payload).to_bytes(4, "big") + counted + digest + payload


def note_folders() -> tuple[Path, ...]:
    """Return folders on other file systems, of which some outlast a process.

    Those of a service's own (``PrivateTmp``) do not, so every one of them is used.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    folders = map(Path, (runtime, "/dev/shm", "/var/tmp", tempfile.gettempdir()))  # noqa: S108 - names are random, owners checked
    return tuple(dict.fromkeys(one for one in folders if one.is_dir()))


def _write_all(descriptor: int, content: bytes, at: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], at + written)
