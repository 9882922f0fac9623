"""Keeps a run from hanging: a test's databases are closed, and who holds it is shown.

A connection has a thread, and no daemon: a process ends once they all have. A failed
test's traceback keeps its ledger from being collected, so pytest said what had failed
and then never ended. pytest-timeout fails the test that takes too long; what its signal
cannot interrupt, a call that never returns to Python, is ended here.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import weakref
from collections.abc import Generator
from functools import wraps
from typing import Any, Final

import aiosqlite
import pytest

_SECONDS: Final = 10

_STDERR = pytest.StashKey[int]()

_made: weakref.WeakSet[aiosqlite.Connection] = weakref.WeakSet()
_lasting: dict[Any, list[aiosqlite.Connection]] = {}
"""What fixtures opened for more than one test, until they are torn down."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of this wait for less."""
    parser.addini("end_within", "seconds the process has to end in", default="60")
    parser.addini("stuck_after", "seconds a test has in all", default="150")


def pytest_configure(config: pytest.Config) -> None:
    """Know of every connection this process makes, and where to print to."""
    config.stash[_STDERR] = os.dup(2)  # a test's own is captured, and lost with us
    init = aiosqlite.Connection.__init__

    @wraps(init)
    def known(self: aiosqlite.Connection, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        _made.add(self)

    aiosqlite.Connection.__init__ = known  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Show where everything stands, and end, should pytest-timeout not get through."""
    _end_after("stuck_after", item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any],
) -> Generator[None, object, object]:
    """Leave a module's or a session's own alone for as long as it is in use."""
    before = set(_made)
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _lasting[fixturedef] = list(set(_made) - before)


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any]) -> None:
    """Look at what it opened like at any other from now on."""
    _lasting.pop(fixturedef, None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """Look once the test's fixtures have closed what is theirs to close."""
    yield
    lasting = {one for opened in _lasting.values() for one in opened}
    # Told to stop, a thread may take a moment to: only those nobody told count.
    left = [
        one
        for one in _made
        if one not in lasting and one._running and one._thread.is_alive()
    ]
    if left:
        asyncio.run(_close(left))
        pytest.fail(f"left {len(left)} database connection(s) open", pytrace=False)


async def _close(connections: list[aiosqlite.Connection]) -> None:
    told = [one.stop() for one in connections]
    await asyncio.wait([future for future in told if future], timeout=_SECONDS)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Whatever else keeps the process from ending: show where it stands, and end it.

    No test's time limit counts any more. A worker of xdist may wait for its fellows,
    and is ended by the process that started it.
    """
    if not hasattr(config, "workerinput"):
        sys.stdout.flush()  # an end by force writes nothing that is held back
        _end_after("end_within", config)


def _end_after(name: str, config: pytest.Config) -> None:
    seconds = float(config.getini(name))
    file = config.stash[_STDERR]
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)
