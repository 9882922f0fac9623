"""A process that holds authority: nothing of it leaks by files, dumps or its log."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentvault_tui.process import watchdog_seconds

_HARDENED = """
import ctypes, json, os, resource
from agentvault_tui.process import harden
os.umask(0)
harden()
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
limits = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps({"umask": os.umask(0), "core": limits, "dumpable": dumpable}))
"""
_LOGGED = """
import logging
from agentvault_tui.process import log_json_lines
log_json_lines()
logging.getLogger("httpx").info("GET https://tenant.test/?code=s3cret")
logging.getLogger("agentvault.test").debug('one\\n{"level": "forged"}\\x1b[31m')
"""


def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_files_are_private_and_nobody_dumps_or_debugs_the_process() -> None:
    """Whatever umask and limits it was started with."""
    found = json.loads(run(_HARDENED).stdout)
    assert found == {"umask": 0o077, "core": [0, 0], "dumpable": 0}


_YIELDING = """
import os, sys, threading
from agentvault_tui import process
threading.Thread.start = lambda one: None
process.end_with_stdin = None
try:
    __import__("runpy").run_module(sys.argv.pop(1), run_name="__main__")
finally:
    print("yields", os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the policy is Linux's")
@pytest.mark.parametrize("room", ["agentvault_tui.ledger", "agentvault_tui.watch"])
def test_a_job_takes_what_others_leave_of_the_processor(
    tmp_path: Path, room: str
) -> None:
    """Reading a long history, or a home that has none, delays no decision."""
    line = (sys.executable, "-c", _YIELDING, room, "--home", str(tmp_path))
    done = subprocess.run(line, input=b"", capture_output=True, check=False)
    assert b"yields 19 True" in done.stdout


def test_a_message_is_one_line_of_json_whatever_stands_in_it() -> None:
    """A line break forges no second record, and no escape sequence leaves."""
    said = run(_LOGGED, AGENTVAULT_LOG_LEVEL="debug").stderr
    (line,) = said.splitlines()
    assert line.isprintable()
    record = json.loads(line)
    assert (record["level"], record["logger"]) == ("debug", "agentvault.test")
    assert record["message"] == 'one\n{"level": "forged"}\x1b[31m'


def test_the_libraries_log_no_address_at_any_level() -> None:
    """What httpx would tell of a request, codes among it, is not told."""
    assert "s3cret" not in run(_LOGGED, AGENTVAULT_LOG_LEVEL="debug").stderr


def test_a_service_manager_is_told_at_its_abstract_socket() -> None:
    """Its name begins with @ in the environment, and with NUL in the kernel."""
    name = f"agentvault-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        script = "from agentvault_tui.process import notify; notify('READY=1')"
        run(script, NOTIFY_SOCKET=f"@{name}")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.slow
def test_no_service_manager_is_told_nothing() -> None:
    """Neither where there is none, nor where its socket is gone or is no path."""
    script = "from agentvault_tui.process import notify; notify('READY=1')"
    for path in ("", "/nowhere/notify", "vsock:2:1234"):
        assert run(script, NOTIFY_SOCKET=path).stdout == ""


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_of_this_process(
    told: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child of a watched process does not speak for it."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds
