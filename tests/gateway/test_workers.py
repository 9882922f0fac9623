"""Large bodies are read in other processes, with a turn for each agent."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.patience import PATIENT, until

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway import workers as gateway_workers
from agentvault_tui.gateway.mcp.messages import McpError, read_message
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.workers import Workers
from agentvault_tui.json_document import read_document
from agentvault_tui.model import AgentId

UNREADABLE = """
from agentvault_tui.errors import UnreadableRequestError
raise UnreadableRequestError("unreadable_body", "the body is none", status=415, a=1)
"""
UNPICKLABLE = """
class LockedError(Exception):
    pass
raise LockedError(lambda: None)
"""
ONE, TWO, THREE = AgentId("agt_1"), AgentId("agt_2"), AgentId("agt_3")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start workers as a gateway does, where other tests fork them."""
    monkeypatch.setattr(gateway_workers, "subprocess", subprocess)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(processes=1, deadline_s=PATIENT)
    yield made
    await asyncio.to_thread(made.close)


def gone(pid: int) -> bool:
    """Tell whether a process has ended and its parent knows."""
    return not Path(f"/proc/{pid}").exists()


async def until_gone(pid: int) -> None:
    await until(lambda: gone(pid))


async def refused(workers: Workers, agent_id: AgentId = ONE) -> CallRefusedError:
    """Have the worker end amid a job."""
    with pytest.raises(CallRefusedError) as raised:
        await workers.run(agent_id, os._exit, 0)
    return raised.value


@pytest.mark.usefixtures("programs")
async def test_a_job_runs_elsewhere_and_the_loop_goes_on(workers: Workers) -> None:
    """The same process does one job after the other."""
    first = await workers.run(ONE, os.getpid)
    assert first != os.getpid()
    waits = asyncio.ensure_future(workers.run(ONE, time.sleep, 0.05))
    turns = 0
    while not waits.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert turns > 3
    assert await workers.run(TWO, os.getpid) == first


async def test_a_job_raises_what_its_function_raises(workers: Workers) -> None:
    """Also errors that take other arguments than they hold."""
    with pytest.raises(ValueError, match="Expecting"):
        await workers.run(ONE, read_document, b"x")
    with pytest.raises(McpError) as raised:
        await workers.run(ONE, read_message, b"[]")
    assert raised.value.code == -32600
    with pytest.raises(FileNotFoundError):
        await workers.run(ONE, os.listdir, "/proc/none")
    with pytest.raises(UnreadableRequestError) as unreadable:
        await workers.run(ONE, exec, UNREADABLE)
    assert (unreadable.value.status, unreadable.value.more) == (415, {"a": 1})
    with pytest.raises(RuntimeError, match="LockedError"):
        await workers.run(ONE, exec, UNPICKLABLE)
    with pytest.raises(Exception, match=r"pickle|local object"):
        await workers.run(ONE, lambda: None)
    assert await workers.run(ONE, read_document, b"[1.50]") == [1.5]


async def test_agents_take_turns(workers: Workers) -> None:
    """One that asked for much first waits after each of its jobs for the others."""
    order: list[AgentId] = []

    async def job(agent_id: AgentId) -> None:
        await workers.run(agent_id, os.getpid)
        order.append(agent_id)

    await workers.run(ONE, os.getpid)
    gate = asyncio.ensure_future(workers.run(ONE, time.sleep, 0.1))
    jobs = [asyncio.ensure_future(job(ONE)) for _ in range(6)]
    jobs += [asyncio.ensure_future(job(one)) for one in (TWO, THREE, TWO)]
    await asyncio.gather(gate, *jobs)
    assert set(order[:3]) == {ONE, TWO, THREE}
    assert order[3:6].count(TWO) == 1


async def test_a_job_whose_caller_left_is_not_done(
    workers: Workers, tmp_path: Path
) -> None:
    """It leaves the line, and the others go on."""
    await workers.run(ONE, os.getpid)
    gate = asyncio.ensure_future(workers.run(ONE, time.sleep, 0.1))
    left = asyncio.ensure_future(workers.run(TWO, os.mkdir, str(tmp_path / "no")))
    later = asyncio.ensure_future(workers.run(TWO, os.mkdir, str(tmp_path / "yes")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(gate, later)
    assert await workers.run(ONE, os.listdir, str(tmp_path)) == ["yes"]
    assert workers._turns._waiting == {}


async def test_a_process_that_dies_is_replaced(workers: Workers) -> None:
    """Its job is 503, the next one is done."""
    first = await workers.run(ONE, os.getpid)
    error = await refused(workers)
    assert (error.status, b"retry-after" in dict(error.reply().headers)) == (503, True)
    second = await workers.run(ONE, os.getpid)
    os.kill(second, signal.SIGKILL)
    process = workers._workers[0]._process
    assert process is not None
    await asyncio.to_thread(process.wait)
    assert await workers.run(ONE, os.getpid) not in {first, second}
    assert gone(first)


async def test_a_job_that_takes_too_long_ends_its_process() -> None:
    """It is 400, the process is gone, and who waited behind it is served."""
    workers = Workers(processes=1, deadline_s=1.0)
    try:
        async with asyncio.timeout(PATIENT):
            first = await workers.run(ONE, os.getpid)
            slow = asyncio.ensure_future(workers.run(ONE, time.sleep, 2 * PATIENT))
            after = asyncio.ensure_future(workers.run(TWO, os.getpid))
            with pytest.raises(CallRefusedError) as raised:
                await slow
            assert raised.value.status == 400
            assert await after != first
        assert gone(first)
    finally:
        await asyncio.to_thread(workers.close)


async def test_a_job_that_needs_too_much_memory_is_400(workers: Workers) -> None:
    """The process stays: it has given the memory back."""
    first = await workers.run(ONE, os.getpid)
    with pytest.raises(CallRefusedError) as raised:
        await workers.run(ONE, bytearray, 2**40)
    assert raised.value.status == 400
    assert await workers.run(ONE, os.getpid) == first


@pytest.mark.usefixtures("programs")
async def test_a_worker_holds_nothing_of_the_broker(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret of its environment, no file, no core dump, its own session."""
    monkeypatch.setenv("AGENTVAULT_SECRET", "sk_live")
    pid = await workers.run(ONE, os.getpid)
    assert await workers.run(ONE, os.getenv, "AGENTVAULT_SECRET") is None
    assert await workers.run(ONE, os.getenv, "HOME") is None
    assert await workers.run(ONE, resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)
    assert await workers.run(ONE, os.getsid, 0) == pid
    assert await workers.run(ONE, os.getcwd) == "/"
    opened = await workers.run(ONE, os.listdir, "/proc/self/fd")
    assert len(opened) <= 4  # the line, twice nothing, and this folder


@pytest.mark.usefixtures("programs")
async def test_workers_end_with_their_gateway() -> None:
    """Also amid a job, which is refused; a later job starts a new one."""
    workers = Workers(processes=2, deadline_s=PATIENT)
    pids = {await workers.run(ONE, os.getpid) for _ in range(8)}
    busy = [
        asyncio.ensure_future(workers.run(ONE, time.sleep, PATIENT)) for _ in range(3)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(workers.close)
    for one in await asyncio.gather(*busy, return_exceptions=True):
        assert isinstance(one, CallRefusedError)
    for pid in pids:
        await until_gone(pid)
    assert await workers.run(ONE, json.loads, "1") == 1
    await asyncio.to_thread(workers.close)


async def test_a_job_that_is_over_is_compared_with_no_other(workers: Workers) -> None:
    """A job leaves those that wait without a look at what they hold."""

    class Watched(bytes):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("a body was compared")

        __hash__ = bytes.__hash__

        def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
            return bytes, (b"abc",)

    asked = [workers.run(ONE, len, Watched(b"abc")) for _ in range(5)]
    assert await asyncio.gather(*asked) == [3] * 5
