"""A load generator light enough to share two cores with what it measures.

Raw sockets with keep-alive and request bytes built beforehand: each connection sends
its next request when the answer to the last one has come (a closed loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


@dataclass
class Result:
    """What a run of requests took."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall: float = 0.0
    cpu: Counter[str] = field(default_factory=Counter)
    """Microseconds of CPU an answer took each thread of the server, where known."""
    written: float = 0.0
    """Bytes the server wrote to disk for an answer, where known."""

    @property
    def p50(self) -> float:
        """Median latency in milliseconds."""
        return statistics.median(self.latencies) * 1000

    @property
    def p99(self) -> float:
        """99th percentile in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.wall


class Connection(asyncio.Protocol):
    """One keep-alive connection that asks, one question at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand the answer over once it is whole."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + size:
            return
        status, body = int(self._buffer[9:12]), self._buffer[end + 4 :]
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send *request* and return status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def connect(address: Address) -> Connection:
    """Open one connection."""
    loop = asyncio.get_running_loop()
    if isinstance(address, str):
        _, protocol = await loop.create_unix_connection(Connection, address)
    else:
        _, protocol = await loop.create_connection(Connection, *address)
    return protocol


async def ask_many(
    address: Address, requests: Sequence[bytes], *, connections: int, count: int
) -> Result:
    """Send *count* requests in all over so many *connections*, and time each."""
    result = Result()
    turns = itertools.islice(itertools.cycle(requests), count)
    lines = [await connect(address) for _ in range(connections)]
    started = time.perf_counter()
    await asyncio.gather(*(_line(line, turns, result) for line in lines))
    result.wall = time.perf_counter() - started
    for line in lines:
        line.close()
    return result


async def _line(line: Connection, turns: Iterator[bytes], result: Result) -> None:
    for request in turns:
        started = time.perf_counter()
        status, _ = await line.ask(request)
        result.latencies.append(time.perf_counter() - started)
        result.statuses[status] += 1


def request(
    method: str,
    path: str,
    body: bytes = b"",
    *,
    kind: str = "application/x-www-form-urlencoded",
    host: str = "127.0.0.1",
    **headers: str,
) -> bytes:
    """Build the bytes of one HTTP/1.1 request; underscores in names become dashes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Type: {kind}")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def loading(
    address: Address, requests: Sequence[bytes], connections: int
) -> Iterator[None]:
    """Send *requests* again and again during a block, from a process of its own.

    In the process that measures, answers to the load would delay what is timed.
    """
    job = [address, [request.decode("latin-1") for request in requests], connections]
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job))
        process.stdin.close()
        process.stdout.readline()
        try:
            yield
            assert process.poll() is None, "the load ended by itself"
        finally:
            process.kill()


async def _load() -> None:
    address, texts, connections = json.load(sys.stdin)
    requests = [text.encode("latin-1") for text in texts]
    where = address if isinstance(address, str) else tuple(address)
    print("loading", flush=True)
    turns = itertools.cycle(requests)
    await asyncio.gather(*(_ask_on(where, turns) for _ in range(connections)))


async def _ask_on(address: Address, turns: Iterator[bytes]) -> None:
    """Ask without end, over another connection where one is closed."""
    while True:
        with contextlib.suppress(OSError):
            line = await connect(address)
            await _line(line, turns, Result())
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(_load())
