"""What the disk itself takes: nothing durable is faster, and all wait when it does."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK = 4096
PAUSE = 0.02
"""Seconds between two flushes of a probe that runs beside something else."""


def flushes(folder: Path, count: int, size: int = BLOCK) -> list[float]:
    """Append *size* bytes and flush, *count* times; return the milliseconds of each."""
    with _file(folder) as descriptor:
        return [_flush(descriptor, size) for _ in range(count)]


@contextlib.contextmanager
def probe(folder: Path) -> Iterator[list[float]]:
    """Flush a block now and then, and keep how many milliseconds each took."""
    times: list[float] = []
    stop = threading.Event()

    def run() -> None:
        with _file(folder) as descriptor:
            while not stop.wait(PAUSE):
                times.append(_flush(descriptor, BLOCK))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _file(folder: Path) -> Iterator[int]:
    path = folder / "flushes"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        path.unlink()


def _flush(descriptor: int, size: int) -> float:
    data = bytes(size)
    started = time.perf_counter()
    os.write(descriptor, data)
    os.fdatasync(descriptor)
    return (time.perf_counter() - started) * 1000
