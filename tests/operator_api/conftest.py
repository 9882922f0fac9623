"""A vault that serves, for a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.vault import Vault, serving


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with serving(tmp_path_factory.mktemp("h")) as running:
        yield running
