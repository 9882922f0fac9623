"""What every room's tests share: helpers, a short folder, an ear for ctrl+c."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import uvloop
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "release"))

pytest_plugins = (
    "support.alone",
    "support.ending",
    "support.needs",
    "support.forked",
    "support.once",
    "support.postgres",
    "support.summary",
    "support.vault",
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores ctrl+c, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Without byte code each process that a test starts compiles all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# httpcore tries this import five times a request; where it fails, at 50 µs each.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]

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
    "release",
    "screens",
    "snapshots",
    "term",
    "upgrades",
}
"""Folders whose tests start processes or draw many screens."""
_WHOLE = {
    *("agents_api", "operators_api", "upstream", "usecases"),
    *("dialogs", "mcp", "provision", "test_calls_documented.py"),
}
"""Folders, and a file, whose tests put a whole broker, gateway or console together."""
_ASYNCIO = {"console", "e2e", "interop", "snapshots"}
"""Folders whose tests run a console's app."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole folders, and what needs a PostgreSQL server, as slow."""
    for item in items:
        if not _WHOLE.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.integration)
        served = "postgres" in item.name or "cluster" in item.fixturenames  # type: ignore[attr-defined]
        if served or not _SLOW.isdisjoint(item.path.parts):
            item.add_marker(pytest.mark.slow)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run servers on uvloop and consoles on asyncio's own loop, as production does."""
    own = not _ASYNCIO.isdisjoint(item.path.parts)
    return {"loop": asyncio.new_event_loop if own else uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Give each test a terminal's umask: a command in this process sets its own."""
    os.umask(0o022)
    yield
    os.umask(0o022)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from walking thousands of tests, now and later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)  # as a broker does


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """Report the test's own failure too, where a key met an app that it had closed."""
    if call.excinfo is not None and call.excinfo.typename == "ScreenStackError":
        call.excinfo.value.__suppress_context__ = False


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's, whatever tests are called."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        yield Path(folder)
