"""A scripted broker on a real socket, and a client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from support.patience import PATIENT
from support.scripted_broker import ScriptedBroker

from agentvault_tui.demo.workspace import serving


@pytest.fixture
def scripted() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def scripted_url(scripted: ScriptedBroker) -> AsyncIterator[str]:
    async with serving(scripted.app()) as url:
        yield url
        if scripted.held is not None:
            scripted.held.set()  # the server ends with its last answer


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENT) as client:
        yield client
