"""What every room's tests share: helpers, a short folder, an ear for ctrl+c."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = (
    "support.ending",
    "support.once",
    "support.postgres",
    "support.vault",
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores ctrl+c, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without byte code each process that a test starts compiles all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")  # noqa: S108 - tests make their own folders in it
if "TMPDIR" not in os.environ and MEMORY.is_dir():
    # A disk takes 4 ms to flush and a test flushes often, which is all it waits for.
    room = os.statvfs(MEMORY)
    runs = not room.f_flag & os.ST_NOEXEC
    if runs and os.access(MEMORY, os.W_OK) and room.f_bavail * room.f_frsize > 2**31:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# A loaded machine is slow: what may not be has a clock of its own.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

_SLOW = {
    "demo",
    "differential",
    "docs",
    "e2e",
    "interop",
    "live",
    "screens",
    "snapshots",
    "term",
}
"""Folders whose tests start processes or draw many screens."""


_FOLDER = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give tests folders whose paths leave room for a socket's name, of 108 bytes.

    pytest's own say who runs it and the how manieth time.
    """
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = config.option.basetemp = tempfile.mkdtemp(prefix="av-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the folders of tests that failed alone."""
    if exitstatus == 0 and (folder := session.config.stash.get(_FOLDER, "")):
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole folders, and what needs a PostgreSQL server, as slow."""
    for item in items:
        served = "postgres" in item.name or "cluster" in item.fixturenames  # type: ignore[attr-defined]
        if served or not _SLOW.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking thousands of collected tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's, whatever tests are called."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        yield Path(folder)
