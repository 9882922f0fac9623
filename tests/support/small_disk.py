"""A file system of a few megabytes, and how it is filled."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.needs import need

SIZE = 16 * 1024 * 1024


@contextmanager
def disk_of(size: int) -> Iterator[Path]:
    """Mount a file system of *size* bytes, which is really full when it is."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        mount = ["/bin/mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        need(os.geteuid() == 0, "root")
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("this machine does not let root mount")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["/bin/umount", "-l", folder], check=True)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with disk_of(SIZE) as path:
        yield path


def fill(path: Path, *, leave: int = 0) -> None:
    """Write until no more than *leave* bytes are free."""
    with path.open("ab", buffering=0) as file:
        try:
            while os.statvfs(path).f_bavail * 4096 > leave:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - how the loop ends
