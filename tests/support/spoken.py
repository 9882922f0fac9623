"""A command line beside a running vault, whose JSON Lines are read as they come."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.command_line import PROGRAM, plain_environment
from support.peers import Peer
from support.vault import Vault


@asynccontextmanager
async def spoken(vault: Vault, *argv: str) -> AsyncIterator[Peer]:
    """Run ``agentvault ARGV --json`` on the vault's home, no longer than the block."""
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "--home", str(vault.home), *argv, "--json"),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        env=plain_environment(),
    )
    try:
        yield Peer(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
