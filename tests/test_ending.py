"""A run ends and says why, whatever its tests leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.patience import PATIENT

LEAKS = """
import aiosqlite
import pytest

@pytest.mark.asyncio
async def test_fails():
    left = await aiosqlite.connect(":memory:")
    assert not left

@pytest.mark.asyncio
async def test_passes(request):
    request.config.left = await aiosqlite.connect(":memory:")

@pytest.mark.asyncio
async def test_closes():
    await (await aiosqlite.connect(":memory:")).close()
"""
SHARED = """
import asyncio

import aiosqlite
import pytest

@pytest.fixture(scope="module")
def shared():
    with asyncio.Runner() as runner:
        made = runner.run(CONNECT)
        yield made
        CLOSE

def test_first(shared): ...

def test_second(shared): ...
""".replace("CONNECT", 'aiosqlite.connect(":memory:").__aenter__()')
STUCK = """
import sqlite3

def test_never_returns():
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    sqlite3.connect(":memory:").execute(endless + " SELECT count(*) FROM n")
"""
HANGS = """
import threading

def test_leaves_a_thread():
    threading.Thread(target=threading.Event().wait).start()
"""


def run(folder: Path, code: str, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(code)
    loaded = ("support.ending", "pytest_asyncio.plugin", "pytest_timeout")
    plugins = [f"-p{name}" for name in (*loaded, "no:cacheprovider")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", *plugins, *more, "test_it.py"],
        cwd=folder,
        # Wide enough for a summary's lines, whatever this run's terminal is.
        env=plain_environment(
            COLUMNS="200",
            PYTHONPATH=os.pathsep.join(sys.path),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        ),
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
    )


@pytest.mark.slow
def test_an_open_database_fails_its_test_and_not_the_run(tmp_path: Path) -> None:
    """Each test that left one is named, failed or not; the next ones run; it ends."""
    done = run(tmp_path, LEAKS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ERROR test_it.py::test_fails - Failed: left 1 database" in done.stdout
    assert "ERROR test_it.py::test_passes - Failed: left 1 database" in done.stdout
    assert "1 failed, 2 passed, 2 errors" in done.stdout


@pytest.mark.slow
def test_a_fixture_of_several_tests_may_keep_one_open(tmp_path: Path) -> None:
    """It is asked for once the fixture is torn down, and not before."""
    closed = SHARED.replace("CLOSE", "runner.run(made.close())")
    assert "2 passed in" in run(tmp_path, closed).stdout
    left = run(tmp_path, SHARED.replace("CLOSE", "pass"))
    assert "ERROR test_it.py::test_second - Failed: left 1 database" in left.stdout
    assert "2 passed, 1 error" in left.stdout


@pytest.mark.slow
def test_a_thread_that_holds_the_end_up_is_shown_and_ended(tmp_path: Path) -> None:
    """Where it stands is printed, and the run fails instead of hanging."""
    done = run(tmp_path, HANGS, "-o", "end_within=0.5")
    assert "1 passed" in done.stdout
    assert "test_leaves_a_thread" in done.stdout
    assert "threading.py" in done.stderr
    assert done.returncode == 1


@pytest.mark.slow
def test_a_call_that_never_returns_is_shown_and_ended(tmp_path: Path) -> None:
    """What no time limit can interrupt ends the run, with the test's stack."""
    for seconds in (1, 5, 25):
        options = ("-o", "timeout=0.2", "-o", f"stuck_after={seconds}")
        done = run(tmp_path, STUCK, *options)
        assert done.returncode == 1
        if "in test_never_returns" in done.stderr:
            break  # a slow machine had not begun the test before
    assert "in test_never_returns" in done.stderr
