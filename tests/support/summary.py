"""The end of a run, for a person: what was skipped and why, what failed, and how to
repeat it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter

import pytest
from support.needs import skipped_for


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once of each reason how many tests were skipped for it."""
    skipped = terminalreporter.stats.get("skipped", ())
    for reason, count in sorted(Counter(map(skipped_for, skipped)).items()):
        terminalreporter.write_line(f"skipped {count:>4}  {reason}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Say last what failed, each with the command that repeats it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return
    failed = (*reporter.stats.get("failed", ()), *reporter.stats.get("error", ()))
    names = dict.fromkeys(one.nodeid for one in failed)
    python = os.path.relpath(sys.executable, config.invocation_params.dir)
    if names:
        reporter.write_line(f"{len(names)} failed; each alone:", red=True)
    for name in names:
        reporter.write_line(f"  {python} -m pytest -n 0 {shlex.quote(name)}", red=True)
