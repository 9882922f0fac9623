"""A tenant to provision, and a vault that wants it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Answer
from support.dict_tenant import DictTenant, dict_tenant
from support.provisioning import CREDENTIAL, Call, Vault, configure

from agentvault_tui.cli.app import run
from agentvault_tui.home import Home


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault and an empty tenant of its own."""
    with dict_tenant() as tenant:
        tenant.seed()
        yield Vault(tenant, Home(tmp_path, tmp_path))


@pytest.fixture
def tenant() -> Iterator[DictTenant]:
    """An empty tenant."""
    with dict_tenant() as made:
        made.seed()
        yield made


@pytest.fixture
def home(tmp_path: Path, tenant: DictTenant, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose settings name the tenant."""
    folder = tmp_path / "home"
    folder.mkdir(0o700)
    monkeypatch.setenv("AGENTVAULT_HOME", str(folder))
    monkeypatch.setenv("AGENTVAULT_TENANT_RATE", "1000")
    configure(folder, issuer=tenant.issuer)
    return folder


@pytest.fixture
def auth0(capfd: pytest.CaptureFixture[str]) -> Call:
    """Run one command line, with a credential on a descriptor of its own."""

    def call(*argv: str, credential: Any = CREDENTIAL) -> Answer:
        capfd.readouterr()
        given = credential if isinstance(credential, str) else json.dumps(credential)
        reader, writer = os.pipe()
        os.write(writer, given.encode())
        os.close(writer)
        try:
            code = run(["auth0", *argv, "--credential-fd", str(reader)])
        finally:
            os.close(reader)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return call
