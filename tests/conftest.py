"""What every room's tests share: helpers, a short folder, an ear for ctrl+c."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ("support.ending",)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores ctrl+c, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loaded machine is slow: what may not be has a clock of its own.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's, whatever tests are called."""
    with tempfile.TemporaryDirectory(prefix="av") as folder:
        yield Path(folder)
