"""Writes below a document wait for the approved call that names it."""

from __future__ import annotations

import asyncio

import pytest

from agentvault_tui.gateway import write_turns
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.target import Target, parse_target
from agentvault_tui.gateway.write_turns import WriteTurns
from agentvault_tui.origins import ServerOrigin

HERE = ServerOrigin("https", "api.test", 443)
OTHER = ServerOrigin("https", "api.test", 8443)


def at(path: str) -> Target:
    return parse_target(path.encode())


@pytest.mark.parametrize(
    ("origin", "path", "waits"),
    [
        (HERE, "/drafts/d1", True),
        (HERE, "/drafts/d1/parts/2?x=1", True),
        (HERE, "/DRAFTS/D1/", True),
        (HERE, "/drafts/%64%31", True),
        (HERE, "/drafts/d10", False),
        (HERE, "/drafts", False),
        (HERE, "/v2/drafts/d1", False),
        (OTHER, "/drafts/d1", False),
    ],
)
async def test_what_is_below_a_document_waits(
    origin: ServerOrigin, path: str, waits: bool
) -> None:
    """In any spelling, and at the same origin alone."""
    turns = WriteTurns()
    await turns.enter("send", HERE, at("/send"), [at("/drafts/d1")])
    write = asyncio.ensure_future(turns.enter("write", origin, at(path)))
    await asyncio.wait({write}, timeout=0)
    await asyncio.sleep(0)
    assert write.done() == (not waits)
    turns.leave("send")
    await write


async def test_turns_are_taken_in_the_order_of_asking() -> None:
    """A stream of writes keeps no approved call from its turn, nor two each other."""
    turns, order = WriteTurns(), []
    await turns.enter("first", HERE, at("/a/1"))

    async def take(key: str, path: str, *guarded: str) -> None:
        await turns.enter(key, HERE, at(path), [at(one) for one in guarded])
        order.append(key)

    tasks = []
    for key, path, guarded in (
        ("send", "/b/send", ("/a",)),
        ("second", "/a/2", ()),
        ("cross", "/a/3", ("/b",)),
    ):
        tasks.append(asyncio.ensure_future(take(key, path, *guarded)))
        await asyncio.sleep(0)
    assert order == []
    for key in ("first", "send", "second", "cross"):
        turns.leave(key)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["send", "second", "cross"]
    turns.leave("cross")
    assert not turns._turns
    assert not turns._guarding


async def test_a_wait_ends_with_its_call_or_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write that is cut waits no more; one that waits too long is 503."""
    turns = WriteTurns()
    await turns.enter("send", HERE, at("/send"), [at("/a")])
    cut = asyncio.get_running_loop().create_future()
    cut.set_result(None)
    await turns.enter("cut", HERE, at("/a"), ended=cut)
    turns.leave("cut")
    monkeypatch.setattr(write_turns, "PATIENCE_S", 0.0)
    with pytest.raises(CallRefusedError) as refused:
        await turns.enter("late", HERE, at("/a"))
    assert (refused.value.status, refused.value.reason) == (503, "referent_busy")
    turns.leave("send")
    await turns.enter("late", HERE, at("/a"))
