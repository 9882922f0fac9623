"""A tenant to provision, and a vault that wants it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dict_tenant import dict_tenant
from support.provisioning import Vault

from agentvault_tui.home import Home


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault and an empty tenant of its own."""
    with dict_tenant() as tenant:
        tenant.seed()
        yield Vault(tenant, Home(tmp_path, tmp_path))
