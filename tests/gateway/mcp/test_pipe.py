"""Lines for a program: whole and in order, or not at all."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator

import pytest
from support.patience import until

from agentvault_tui.gateway.mcp.pipe import LinePipe, PipeLine, read_lines


class Ends:
    """Both ends of a pipe, and the callbacks it made."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.broken = asyncio.Event()
        self.halted: list[PipeLine] = []
        self.pipe = LinePipe(writing, self.broken.set, self.on_halted)

    def on_halted(self, line: PipeLine) -> None:
        self.halted.append(line)
        self.pipe.halt()

    def read(self) -> bytes:
        """Return what is in the pipe now."""
        try:
            return os.read(self.reading, 2**22)
        except BlockingIOError:
            return b""

    async def until_given(self, line: PipeLine) -> bytes:
        """Read until a line was given whole; return all that was read."""
        found = b""
        async with asyncio.timeout(30):
            while not line.given.done():
                found += self.read()
                await asyncio.sleep(0)
        return found + self.read()

    def put(self, text: bytes) -> PipeLine:
        line = self.pipe.put(text)
        assert line is not None
        return line


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    yield ends
    ends.pipe.close()
    os.close(ends.reading)


async def test_a_line_that_the_program_has_is_sent(ends: Ends) -> None:
    """No turn of the loop is between, in which a revocation would take it for one that
    the program has not; what is not read yet is known, too."""
    seen: list[bytes] = []
    line = ends.pipe.put(b"a" * 1_500_000, sent=lambda: seen.append(ends.read()))
    assert line is not None
    read = b""
    async with asyncio.timeout(30):
        while not seen:
            assert not ends.pipe.has_read(line)
            read += ends.read()
            await asyncio.sleep(0)
    assert len(read + seen[0]) == 1_500_001
    assert ends.pipe.has_read(line)
    behind = ends.put(b"b")
    await behind.given
    assert not ends.pipe.has_read(behind)
    assert ends.read() == b"b\n"
    assert ends.pipe.has_read(behind)


async def test_lines_are_written_whole_and_in_order(ends: Ends) -> None:
    """Short ones, ones that fill the pipe, and longer ones."""
    texts = [b"a" * size for size in (1, 5_000, 3, 1_500_000, 0, 900_000, 2)]
    lines = [ends.put(text) for text in texts]
    read = await ends.until_given(lines[-1])
    assert read == b"".join(text + b"\n" for text in texts)
    assert all(not line.rest for line in lines)


async def test_a_line_is_begun_where_the_pipe_takes_it_whole(ends: Ends) -> None:
    """Until then it is taken back without a trace."""
    first, second = ends.put(b"1"), ends.put(b"2" * 60_000)
    await first.given
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert not second.begun
    assert ends.pipe.take_back(second)
    third = ends.put(b"3")
    assert await ends.until_given(third) == b"1\n3\n"


async def test_a_line_that_is_longer_than_the_pipe_is_halted(ends: Ends) -> None:
    """Nothing follows the part that was written when its sender was cut off."""
    cut = False

    def release() -> None:
        if cut:
            raise PermissionError

    line = ends.pipe.put(b"x" * 3_000_000, release=release)
    behind = ends.put(b"next")
    assert line is not None
    await until(lambda: line.begun)
    assert ends.pipe.half is line
    assert not ends.pipe.take_back(line)
    cut = True
    found = b""
    while not ends.halted:
        found += ends.read()
        await asyncio.sleep(0.001)
    assert ends.halted == [line]
    with pytest.raises(PermissionError):
        line.given.result()
    assert set(found + ends.read()) == {ord("x")}
    assert not behind.given.done()
    assert ends.pipe.put(b"more") is None


async def test_a_refused_line_that_was_not_begun_harms_nobody(ends: Ends) -> None:
    """The lines behind it are written."""

    def release() -> None:
        raise PermissionError

    line = ends.pipe.put(b"no", release=release)
    behind = ends.put(b"next")
    assert line is not None
    assert await ends.until_given(behind) == b"next\n"
    with pytest.raises(PermissionError):
        line.given.result()
    assert ends.halted == []


async def test_a_program_that_closes_its_input_is_noticed(ends: Ends) -> None:
    """If a program closes its input, the next line reports that and is not sent."""
    os.close(ends.reading)
    line = ends.put(b"x")
    async with asyncio.timeout(30):
        await ends.broken.wait()
    ends.reading = os.open(os.devnull, os.O_RDONLY)
    assert not line.given.done()


async def test_a_line_that_was_written_holds_neither_its_text_nor_its_call(
    ends: Ends,
) -> None:
    """A client that leaves each call would else fill memory with what it sent."""

    class Sender:
        def sent(self) -> None:
            pass

    sender = Sender()
    ended = weakref.ref(sender)
    line = ends.pipe.put(b"x" * 1000, sent=sender.sent)
    del sender
    assert line is not None
    await ends.until_given(line)
    assert ended() is None
    assert line.rest.obj == b""


async def test_lines_that_wait_are_bounded(ends: Ends) -> None:
    """A program that reads nothing is not answered without end."""
    ends.put(b"x" * 3_000_000)
    accepted = sum(ends.pipe.put(b"y") is not None for _ in range(2_000))
    assert accepted == 1_023


async def test_a_line_of_a_program_has_a_bound() -> None:
    """Of a longer one both ends are left, wherever the pieces of the pipe end."""
    long = b"a" * 5_000 + b"." * 300_000 + b"b" * 5_000
    stream = asyncio.StreamReader()
    full = b"{" + b"x" * 65_535
    stream.feed_data(b"{1}\n\n" + full + b"\n" + long + b"\nnoise\n {2}\n{half")
    stream.feed_eof()
    noise = list[bytes]()
    lines = [one async for one in read_lines(stream, 65_536, noise.append)]
    ends, is_whole = lines.pop(2)
    assert not is_whole
    assert len(ends) < 2 * 65_536
    assert (ends[:4_096], ends[-4_096:]) == (b"a" * 4_096, b"b" * 4_096)
    assert lines == [(line, True) for line in (b"{1}", full, b" {2}")]
    assert noise == [b"noise"]


async def test_a_flood_of_lines_leaves_turns_to_others() -> None:
    """Each line is short, and there are 65,536 in one piece of the pipe."""
    stream = asyncio.StreamReader(limit=2**20)
    stream.feed_data(b"{\n" * 30_000 + b"1\n" * 30_000)
    stream.feed_eof()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(count())
    lines = [one async for one in read_lines(stream, 65_536, lambda _: None)]
    others.cancel()
    assert len(lines) == 30_000
    assert turns >= 500
