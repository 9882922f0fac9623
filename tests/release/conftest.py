"""A release of the tree as it is now, built once from a commit of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.command_line import plain_environment
from support.needs import need, program
from support.patience import PATIENT

ROOT = Path(__file__).parents[2]
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


@pytest.fixture(scope="session")
def make() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Run `release/make.py` in a checkout."""
    need(find_spec("cyclonedx"), "cyclonedx-python-lib", "make .venv/dev.stamp")

    def run(checkout: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, checkout / "release/make.py"],
            env=plain_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENT,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commit the tracked files, as they are now, in a repository of their own."""
    folder = tmp_path_factory.mktemp("checkout")
    git = program("git")
    listed = subprocess.check_output([git, "-C", ROOT, "ls-files", "-z"], text=True)
    for name in listed.split("\0"):
        if name and (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "release")):
        subprocess.run([git, "-C", folder, *AUTHOR, *words], check=True)
    return folder


@pytest.fixture(scope="session")
def release(
    checkout: Path, make: Callable[[Path], subprocess.CompletedProcess[str]]
) -> Path:
    """Return the folder of a release."""
    done = make(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    return checkout / "dist"
