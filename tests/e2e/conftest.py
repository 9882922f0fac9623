"""A home whose socket path fits, whatever the temporary folder is called."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.vault import Vault, serving


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="av") as folder:
        yield Path(folder)


@pytest.fixture
def vault(home: Path) -> Iterator[Vault]:
    with serving(home) as vault:
        yield vault
