"""What the console's tests share: a scripted broker and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import idle
from support.console_terminal import Open, opener
from support.fake_operator import FakeOperator, short_socket
from support.fake_state import START
from support.manual_clock import ManualClock

idle.install()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator


@pytest.fixture
def terminal(fake: FakeOperator, tmp_path: Path) -> Open:
    """Opens the console in front of the fake broker, in a real terminal."""
    return opener(fake.socket, tmp_path)
