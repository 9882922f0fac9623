"""A body that waits on disk: encrypted, without a name, and within an agent's share."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.patience import until
from support.small_disk import fill, small_disk

from agentvault_tui.gateway import spool as spool_module
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.spool import Spool, SpoolRoom
from agentvault_tui.model import AgentId

__all__ = ["small_disk"]
ONE, TWO = AgentId("agt_1"), AgentId("agt_2")
BODY = b"payload that nobody else may read " * 30_000


async def pieces(body: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def whole(spool: Spool) -> bytes:
    return b"".join([piece async for piece in spool.pieces()])


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def on_disk(spool: Spool) -> bytes:
    """Return what another process of this user could read of it."""
    return Path(f"/proc/self/fd/{spool._fd}").read_bytes()


async def refused(room: SpoolRoom, agent_id: AgentId, body: bytes) -> CallRefusedError:
    with pytest.raises(CallRefusedError) as raised:
        await room.spool(agent_id, pieces(body))
    return raised.value


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 1_000_000])
@pytest.mark.parametrize("step", [1_000, 262_144, 999_999])
async def test_a_body_comes_back_as_it_was(
    tmp_path: Path, size: int, step: int
) -> None:
    """Byte for byte, with its size and SHA-256, and as often as it is asked for."""
    body = os.urandom(size)
    spool = await SpoolRoom(tmp_path, 2**20).spool(ONE, pieces(body, step), size)
    assert (spool.size, spool.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert await whole(spool) == body
    assert await whole(spool) == body
    spool.close()
    await until(lambda: spool._fd < 0)


@pytest.mark.parametrize("unnamed", [True, False])
async def test_the_disk_has_only_ciphertext_that_no_path_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool
) -> None:
    """Read through the descriptor: mode 0600, no link, no byte of the body."""
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    spool = await SpoolRoom(tmp_path, 2**22).spool(ONE, pieces(BODY))
    raw = on_disk(spool)
    found = os.fstat(spool._fd)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_nlink == 0
    assert names_in(tmp_path) == []
    assert len(raw) > len(BODY)
    assert not any(BODY[at : at + 8] in raw for at in range(34))
    other = await SpoolRoom(tmp_path, 2**22).spool(ONE, pieces(BODY))
    assert on_disk(other) != raw
    for one in (spool, other):
        one.close()
        one.close()
        await until(lambda one=one: one._fd < 0)


@pytest.mark.parametrize("how", ["change", "swap", "truncate"])
async def test_a_changed_file_is_no_body(tmp_path: Path, how: str) -> None:
    """Another byte, another order or a missing end is 503, and nothing is passed on."""
    spool = await SpoolRoom(tmp_path, 2**22).spool(ONE, pieces(BODY))
    record = 262_144 + 16
    first, second = (os.pread(spool._fd, record, record * n) for n in range(2))
    if how == "change":
        os.pwrite(spool._fd, bytes([first[9] ^ 1]), 9)
    elif how == "swap":
        os.pwrite(spool._fd, second + first, 0)
    else:
        os.ftruncate(spool._fd, 100)
    with pytest.raises(CallRefusedError) as raised:
        await anext(spool.pieces())
    assert raised.value.status == 503
    spool.close()
    await until(lambda: spool._fd < 0)


async def test_one_agent_has_an_eighth_of_the_room(tmp_path: Path) -> None:
    """A larger body is 413, whether its length is known; more of them are 503."""
    room = SpoolRoom(tmp_path, 1_000)
    assert (await refused(room, ONE, b"x" * 1_001)).status == 413
    with pytest.raises(CallRefusedError) as raised:
        await room.spool(ONE, pieces(b""), 1_001)
    assert (raised.value.status, raised.value.error) == (413, "body_too_large")
    assert room._places.taken == 0
    held = [await room.spool(ONE, pieces(b"x" * 600))]
    late = await refused(room, ONE, b"x" * 500)
    assert late.status == 503
    assert b"retry-after" in dict(late.headers)
    for number in range(2, 9):
        agent = AgentId(f"agt_{number}")
        held.append(await room.spool(agent, pieces(b"x" * 1_000)))
    assert (await refused(room, AgentId("agt_9"), b"x" * 500)).status == 503
    held.append(await room.spool(AgentId("agt_9"), pieces(b"x" * 400)))
    for one in held:
        one.close()
        one.close()
        await until(lambda one=one: one._fd < 0)
    assert room._places.taken == 0


async def test_a_body_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """Its room is free again, and its file is gone."""
    room = SpoolRoom(tmp_path, 2**22)

    async def broken() -> AsyncIterator[bytes]:
        yield BODY
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await room.spool(ONE, broken())
    assert room._places.taken == 0


async def test_a_full_disk_is_503(small_disk: Path) -> None:
    """No part of the body is held; with space again the next one is."""
    full = small_disk / "full"
    fill(full, leave=8_192)
    room = SpoolRoom(small_disk, 2**22)
    assert (await refused(room, ONE, BODY)).status == 503
    full.unlink()
    spool = await room.spool(ONE, pieces(BODY))
    assert await whole(spool) == BODY
    spool.close()
    await until(lambda: spool._fd < 0)


async def test_a_closed_spool_waits_for_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor is not another file's while a read is under way."""
    spool = await SpoolRoom(tmp_path, 2**22).spool(ONE, pieces(BODY))
    reads = [asyncio.ensure_future(whole(spool)) for _ in range(3)]
    await asyncio.sleep(0)
    spool.close()
    results = await asyncio.gather(*reads, return_exceptions=True)
    for one in results:
        assert one == BODY or isinstance(one, CallRefusedError)
    await until(lambda: spool._fd < 0)
    assert spool_module.AGENTS == 8
