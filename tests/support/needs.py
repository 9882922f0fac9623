"""What a machine may lack: a test that needs it is skipped, in CI it fails.

Every reason begins with "needs", so that a run's end counts them in one line each, and
with ``AGENTVAULT_REQUIRE_ALL`` set none of them is an excuse.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from typing import Final

import pytest

Reporting = Generator[None, pytest.TestReport, pytest.TestReport]
ALL_REQUIRED: Final = bool(os.environ.get("AGENTVAULT_REQUIRE_ALL"))
_SYSTEM: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
"""Debian has servers where only root's path leads."""


def needs(found: object, what: str, install: str = "") -> pytest.MarkDecorator:
    """Skip where *what* was not *found*; *install* is the command that brings it."""
    return pytest.mark.skipif(not found, reason=_reason(what, install))


def need(found: object, what: str, install: str = "") -> None:
    """Skip the test that runs now where *what* was not *found*."""
    if not found:
        pytest.skip(_reason(what, install))


def program(name: str, package: str = "") -> str:
    """Return where the program *name* is; skip the test that runs where it is not."""
    found = shutil.which(name, path=_SYSTEM)
    need(found, name, f"apt-get install {package or name}")
    return str(found)


def _reason(what: str, install: str) -> str:
    return f"needs {what}" + (f": {install}" if install else "")


as_root = needs(os.geteuid() == 0, "root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Reporting:
    """Fail what is skipped for a need where everything is required."""
    report = yield
    if ALL_REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        reason = skipped_for(report)
        if reason.startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f"skipped where all is required: {reason}"
    return report


def skipped_for(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why something was skipped."""
    where = report.longrepr
    reason = where[2] if isinstance(where, tuple) else str(where)
    return reason.removeprefix("Skipped: ")
