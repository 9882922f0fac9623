"""A run of tests keeps to itself, and its end says what a person needs."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.patience import PATIENT

pytestmark = pytest.mark.slow

LEAVES = """
import os, pathlib, subprocess, sys, tempfile

def test_leaves_a_process_and_a_file():
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    left.returncode = 0  # its exit is not awaited
    pathlib.Path(tempfile.gettempdir(), "left").write_text("")
    os.environ["COLUMNS"] = "7"

def test_the_environment_is_as_it_was():
    assert os.environ["COLUMNS"] == "200"
"""
ASKS = """
import getpass, io, sys
import pytest

def test_asks(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("from stdin"))
    with pytest.raises(OSError):
        open("/dev/tty")
    with pytest.warns(getpass.GetPassWarning):
        assert getpass.getpass() == "from stdin"
"""
SKIPS = """
import pytest
from support.needs import need, needs

@needs(False, "a moon", "apt-get install moon")
@pytest.mark.parametrize("number", range(3))
def test_skipped(number): ...

def test_skipped_later():
    need(False, "a moon", "apt-get install moon")

def test_fails():
    raise AssertionError
"""


def run(
    folder: Path, code: str, *more: str, terminal: bool = False, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run *code* as tests, with a controlling terminal or without one."""
    (folder / "test_it.py").write_text(code)
    plugins = [f"-psupport.{name}" for name in ("alone", "needs", "summary")]
    plugins += ["-pxdist.plugin"] if "-n" in more else []
    ours, theirs = pty.openpty()

    def begin() -> None:
        os.setsid()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-pno:cacheprovider", *more],
        cwd=folder,
        env=plain_environment(
            COLUMNS="200",
            PYTHONPATH=os.pathsep.join(sys.path),
            TMPDIR=str(folder),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            **env,
        ),
        capture_output=True,
        text=True,
        timeout=PATIENT,
        check=False,
        preexec_fn=begin,
    )
    os.close(ours)
    os.close(theirs)
    return done


@pytest.mark.parametrize("more", [(), ("-n", "1")])
def test_no_test_asks_at_the_tester_s_terminal(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """There is none to open; a question is asked on standard input."""
    done = run(tmp_path, ASKS, *more, terminal=True)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_what_is_left_behind_fails_the_run_and_is_named(tmp_path: Path) -> None:
    """A process and a file; what a test leaves in the environment is taken back."""
    done = run(tmp_path, LEAVES, "-o", "gone_within=0.1")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    process, file = (one for one in done.stdout.splitlines() if "LEFT BEHIND" in one)
    assert "time.sleep(600)" in process
    assert file.endswith("/left")
    os.kill(int(process.split()[3].rstrip(":")), signal.SIGKILL)


def test_each_reason_to_skip_is_one_line_and_each_failure_its_command(
    tmp_path: Path,
) -> None:
    """The failures are last."""
    done = run(tmp_path, SKIPS)
    told = [one for one in done.stdout.splitlines() if "moon" in one]
    assert told == ["skipped    4  needs a moon: apt-get install moon"]
    assert done.stdout.splitlines()[-1].endswith(
        " -m pytest -n 0 test_it.py::test_fails"
    )


def test_where_all_is_required_a_skip_is_a_failure(tmp_path: Path) -> None:
    """As in CI."""
    done = run(tmp_path, SKIPS, AGENTVAULT_REQUIRE_ALL="1")
    assert "5 failed" in done.stdout, done.stdout + done.stderr
    assert "skipped where all is required: needs a moon" in done.stdout
