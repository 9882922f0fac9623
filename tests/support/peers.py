"""Other people's clients as processes: told one line at a time, they answer in JSON."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

INTEROP = Path(__file__).parent.parent / "interop"
PYTHON = Path(sys.prefix) / "interop"
MANAGEMENT = Path(sys.prefix) / "interop-management"
TOOLS = Path(sys.prefix) / "interop-tools"
"""Environments that have other people's packages and nothing of ours."""
NODE = shutil.which("node")
ABSENT = "other people's clients are not all installed: make interop"
_LONGEST = 1 << 20


def with_python(module: str, home: Path = PYTHON) -> pytest.MarkDecorator:
    """Skip where *module* is not installed in the environment *home*."""
    found = any(home.glob(f"lib/python*/site-packages/{module}"))
    return pytest.mark.skipif(not found, reason=ABSENT)


def with_node(package: str) -> pytest.MarkDecorator:
    """Skip where there is no node, or *package* is not installed."""
    found = NODE is not None and (INTEROP / "node_modules" / package).exists()
    return pytest.mark.skipif(not found, reason=ABSENT)


class Peer:
    """A client that runs, and what goes to and fro."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def says(self) -> dict[str, Any]:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        return dict(json.loads(line))

    async def ends(self) -> int:
        """Wait for its end; return its exit code."""
        return await asyncio.wait_for(self.process.wait(), 30)

    async def told(self, line: str) -> dict[str, Any]:
        """Return what it prints when told *line*."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return await self.says()


@asynccontextmanager
async def peer(
    script: str,
    given: Any = None,
    /,
    *,
    python: Path = PYTHON,
    argument: str = "",
    **env: str,
) -> AsyncIterator[Peer]:
    """Run *script* of tests/interop, give it its first line, and see it end well.

    Its input ends when the caller is done; then it has to.
    """
    program = python / "bin" / "python" if script.endswith(".py") else NODE
    process = await asyncio.create_subprocess_exec(
        str(program),
        str(INTEROP / script),
        *([argument] if argument else ()),
        stdin=PIPE,
        stdout=PIPE,
        limit=_LONGEST,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*", **env},
    )
    try:
        assert process.stdin is not None
        if given is not None:
            process.stdin.write(f"{json.dumps(given)}\n".encode())
        one = Peer(process)
        yield one
        process.stdin.close()
        assert await one.ends() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def answer(script: str, given: Any, /, **more: Any) -> dict[str, Any]:
    """Run *script*, which reads all it is given, and return all it says."""
    async with peer(script, given, **more) as one:
        assert one.process.stdin is not None
        one.process.stdin.close()
        return await one.says()
