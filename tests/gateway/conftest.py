"""What the gateway's tests start from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.bench import bench, clock
from support.call_kit import BEARER, ROUTES
from support.gateway_stand import Received, Stand, ok, standing

from agentvault_tui.gateway import Service, Services
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.home import Home
from agentvault_tui.model import Agent
from agentvault_tui.policy import shipped_catalogue

__all__ = ["bench", "clock"]
Parse = Callable[[str], Service]


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    """Parses a service file called ``api``; its origin stands above the text."""

    def make(text: str) -> Service:
        head = "" if "origin =" in text else 'origin = "https://api.test"\n'
        return parse_service("api", head + text, shipped_catalogue(), tmp_path)

    return make


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with an empty folder for service files."""
    (tmp_path / "services").mkdir()
    return Home(tmp_path, tmp_path)


@pytest.fixture
def services(home: Home) -> Services:
    """The services of `home`, nothing read yet."""
    return Services(home, shipped_catalogue)


@pytest.fixture
async def stand(short: Path) -> AsyncIterator[Stand]:
    """A broker with its gateway on a socket, and an upstream that counts."""
    async with standing(short) as opened:
        yield opened


@pytest.fixture
def gate(stand: Stand) -> asyncio.Event:
    """Must be set before the service answers."""
    opened = asyncio.Event()

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        await opened.wait()
        await ok(request, writer)

    stand.upstream.answer = slow
    return opened


@pytest.fixture
async def agent(stand: Stand) -> Agent:
    """An agent of a service that reads, uploads and pays."""
    await stand.secret()
    await stand.service(BEARER + ROUTES)
    return await stand.agent("read:calendar", "write:calendar", "send:payment")


@pytest.fixture
async def token(stand: Stand, agent: Agent) -> str:
    """Its token for all but payments, which a person decides."""
    return await stand.token(agent, "read:calendar write:calendar")
