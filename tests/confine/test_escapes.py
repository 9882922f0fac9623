"""Nothing that a command can do leads out of its confinement."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from confine import escapes, escapes_files
from support.confining import SYSTEM_PYTHON, need_confinement, run_in, small_machine
from support.needs import need

ORDINARY = 1234
USERS = [pytest.param(0, id="root"), pytest.param(ORDINARY, id="user")]
NAMES = sorted(escapes_files.ATTEMPTS)
Outcomes = dict[str, str]


@cache
def outcomes(uid: int, *, confined: bool) -> Outcomes:
    """Return how each attempt ends for a user."""
    need_confinement()
    need(Path(SYSTEM_PYTHON).exists(), "the system's Python")
    if os.geteuid() != 0:
        if uid == 0:
            need(False, "root")
        uid = os.geteuid()
    with small_machine(uid) as base:
        folder = base / "project/confine"
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask is
        for module in (escapes, escapes_files):
            copy = Path(shutil.copy(module.__file__, folder))
            copy.chmod(0o644)
        words = [SYSTEM_PYTHON, "-m", "confine.escapes", "targets.json"]
        return dict(json.loads(run_in(base, uid, words, confined=confined)))


@pytest.mark.parametrize("uid", USERS)
@pytest.mark.parametrize("name", NAMES)
def test_an_attempt_to_leave_fails(name: str, uid: int) -> None:
    """It fails with the confinement, and for its sake: without it reaches its goal."""
    assert outcomes(uid, confined=True)[name] != "reached"
    without = outcomes(uid, confined=False)[name]
    if without != "reached":
        pytest.skip(f"it fails on this machine without a confinement too: {without}")


@pytest.mark.parametrize("uid", USERS)
def test_most_attempts_reach_their_goal_without_it(uid: int) -> None:
    """At least 40 are made, and at least 25 would have worked."""
    assert len(NAMES) >= 40
    found = outcomes(uid, confined=False).values()
    assert sum(outcome == "reached" for outcome in found) >= 25


def test_every_attempt_was_made() -> None:
    """No attempt is left out, inside or outside."""
    for confined in (False, True):
        assert set(outcomes(0, confined=confined)) == set(NAMES)
