"""A command line beside a running vault, whose JSON Lines are read as they come."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.command_line import PROGRAM, plain_environment
from support.vault import Vault


class Spoken:
    """One that runs."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def says(self) -> dict[str, Any]:
        """Return its next line."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        return dict(json.loads(line))

    async def ends(self) -> int:
        """Wait for its end; return its exit code."""
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def spoken(vault: Vault, *argv: str) -> AsyncIterator[Spoken]:
    """Run ``agentvault ARGV --json`` on the vault's home, no longer than the block."""
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "--home", str(vault.home), *argv, "--json"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env=plain_environment(),
    )
    try:
        yield Spoken(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
