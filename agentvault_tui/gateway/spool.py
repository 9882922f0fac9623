"""Hold a body on disk, encrypted, from its first byte until it is sent or dropped.

A body that a person decides about has to be complete before the person is asked, and
may be too large for memory. Its file has no name; the key is only in this process.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentvault_tui.gateway.refusals import CallRefusedError, crowded, too_large
from agentvault_tui.web.shares import CappedPlaces

_T = TypeVar("_T")
AGENTS: Final = 8
"""All spools together may have this many times the bytes of the largest body; one agent
may have the bytes of one."""
_CHUNK: Final = 262_144
"""Bytes that are encrypted as one record."""
_TAG: Final = 16
_NONCE: Final = 12
_THREADS: Final = ThreadPoolExecutor(2, "agentvault-spool")
"""Disks may be slow; nothing else waits for these threads."""


class Spool:
    """One body on disk; the caller closes it."""

    def __init__(self, fd: int, give_back: Callable[[], None]) -> None:
        """Own *fd*, an empty file; *give_back* releases the bytes of the body."""
        self.size = 0
        """Bytes of the body."""
        self.sha256 = ""
        """Of the body, in hexadecimal, once it is complete."""
        self._fd = fd
        self._give_back = give_back
        self._key = AESGCM(AESGCM.generate_key(256))
        self._digest = hashlib.sha256()
        self._chunks = 0
        self._lock = threading.Lock()
        """Held while a thread uses the file."""
        self._closed = False

    async def write(self, chunk: bytes) -> None:
        """Append a chunk of the body; each but the last has `_CHUNK` bytes.

        Raises:
            CallRefusedError: 503; it cannot be written.
        """
        try:
            await self._apart(partial(self._write, chunk))
        except OSError:
            raise no_space() from None

    def _write(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        sealed = self._key.encrypt(self._nonce(self._chunks), chunk, None)
        self._chunks += 1
        self.size += len(chunk)
        view = memoryview(sealed)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Compute the digest of the complete body."""
        self.sha256 = self._digest.hexdigest()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body, piece by piece; may be called again.

        Raises:
            CallRefusedError: 503; the file cannot be read, or was changed. The pieces
                yielded before are not the whole body.
        """
        for number in range(self._chunks):
            try:
                yield await self._apart(partial(self._read, number))
            except (OSError, InvalidTag):
                raise no_space() from None

    def _read(self, number: int) -> bytes:
        length = min(_CHUNK, self.size - number * _CHUNK) + _TAG
        sealed = os.pread(self._fd, length, number * (_CHUNK + _TAG))
        # The nonce is the chunk's number, so no chunk can replace another one.
        return self._key.decrypt(self._nonce(number), sealed, None)

    @staticmethod
    def _nonce(number: int) -> bytes:
        """Return a nonce that this key uses once (NIST SP 800-38D section 8.2.1)."""
        return number.to_bytes(_NONCE, "big")

    async def _apart(self, work: Callable[[], _T]) -> _T:
        """Run *work* in a thread.

        Raises:
            OSError: the spool is closed.
        """
        return await asyncio.wrap_future(_THREADS.submit(self._alone, work))

    def _alone(self, work: Callable[[], _T]) -> _T:
        with self._lock:
            if self._fd < 0:
                raise OSError("the spool is closed")
            return work()

    def close(self) -> None:
        """Drop the body; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._give_back()
        # In a thread, after the work that runs there: a cancelled task leaves it
        # running, and the descriptor must not be another file's by then.
        _THREADS.submit(self._close_file)

    def _close_file(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            os.close(fd)


class SpoolRoom:
    """The space on disk for held bodies, and each agent's share of it."""

    def __init__(self, folder: Path, hold_bytes: int) -> None:
        """Spool nothing yet.

        Args:
            folder: where files are made; private to this user.
            hold_bytes: the largest body, and the share of one agent.
        """
        self.hold_bytes = hold_bytes
        self._folder = folder
        self._places = CappedPlaces(hold_bytes * AGENTS)

    async def spool(
        self,
        agent_id: str,
        pieces: AsyncIterator[bytes],
        length: int | None = None,
    ) -> Spool:
        """Write a complete body to disk.

        Args:
            agent_id: the agent of the body.
            pieces: the body as it comes.
            length: in bytes, where it is known before.

        Returns:
            the spool, to be closed.

        Raises:
            CallRefusedError: 413 if it has more than `hold_bytes`; 503 if there is no
                space for it now. No part of it stays on disk.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if taken + size > self.hold_bytes:
                raise too_large(self.hold_bytes)
            if self._places.take({agent_id: self.hold_bytes}, size) is not None:
                raise crowded()
            taken += size

        def give_back() -> None:
            self._places.release((agent_id,), taken)

        take(length or 0)
        try:
            spool = Spool(_unnamed_file(self._folder), give_back)
        except OSError:
            give_back()
            raise no_space() from None
        try:
            await _fill(spool, pieces, lambda size: take(max(size - taken, 0)))
        except BaseException:
            spool.close()
            raise
        return spool


async def _fill(
    spool: Spool, pieces: AsyncIterator[bytes], reserve: Callable[[int], None]
) -> None:
    """Write all *pieces*; *reserve* is called with the bytes so far."""
    waiting, size = bytearray(), 0
    async for piece in pieces:
        size += len(piece)
        reserve(size)
        waiting += piece
        while len(waiting) >= _CHUNK:
            chunk = bytes(waiting[:_CHUNK])
            del waiting[:_CHUNK]
            await spool.write(chunk)
    if waiting:
        await spool.write(bytes(waiting))
    spool.finish()


def no_space() -> CallRefusedError:
    """Return the refusal of a body that cannot be written to or read from disk."""
    text = "the body cannot be held on disk: send it again later"
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, code, text, (b"retry-after", b"30"))


def _unnamed_file(folder: Path) -> int:
    """Open a new file, mode 0600, that no path leads to.

    Raises:
        OSError: it cannot be made.
    """
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            pass  # not every file system has it (open(2))
    fd, name = tempfile.mkstemp(prefix=".spool-", dir=folder)
    os.unlink(name)  # noqa: PTH108 - in a folder that is ours
    return fd
