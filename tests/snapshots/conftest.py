"""What the pictures share: a scripted broker, and the gallery they are held against.

The pilot waits until the console has nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import idle
from support.fake_operator import FakeOperator, short_socket
from support.pictures import gallery

__all__ = ["fake", "gallery"]

idle.install()


@pytest.fixture
def fake() -> Iterator[FakeOperator]:
    with short_socket() as path, FakeOperator(path) as operator:
        yield operator
