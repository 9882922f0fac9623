"""A real vault, in a home whose socket path fits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_disk import small_disk
from support.vault import Vault, serving


@pytest.fixture
def home(short: Path) -> Path:
    return short


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """Hold what is expensive to make, for the tests of a module that copy it."""
    with tempfile.TemporaryDirectory(prefix="h-") as folder:
        yield Path(folder)


@pytest.fixture
def vault(home: Path) -> Iterator[Vault]:
    with serving(home) as vault:
        yield vault


__all__ = ["small_disk"]
