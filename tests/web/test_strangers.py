"""Requests of strangers that wait have a quarter of the places, fairly shared."""

from __future__ import annotations

import asyncio
import operator
from typing import Any

import pytest
from support.patience import until

from agentvault_tui.web.reply import Message, Receive, Scope, Send, oauth_error
from agentvault_tui.web.strangers import StrangersGuard, peer_classes


class Door:
    """A guarded app whose requests wait until `opened`."""

    def __init__(self, connections: int) -> None:
        self.opened, self.waiting = asyncio.Event(), 0
        self.guard = StrangersGuard(
            self, connections, operator.itemgetter("waits"), oauth_error
        )

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        self.waiting += 1
        try:
            await self.opened.wait()
            await oauth_error(200, "served").send(send)
        finally:
            self.waiting -= 1

    async def status(self, address: str, *, waits: bool = True) -> int:
        told: list[Message] = []

        async def send(message: Message) -> None:
            told.append(message)

        async def receive() -> Message:
            return {}

        server = ("192.0.2.9", 443)
        scope = {"client": (address, 1), "server": server, "waits": waits}
        await self.guard(scope, receive, send)
        return int(told[0]["status"])

    def ask(self, address: str, **more: Any) -> asyncio.Task[int]:
        return asyncio.create_task(self.status(address, **more))


@pytest.fixture
async def door() -> Door:
    return Door(64)


async def test_sixteen_networks_shut_no_other_out() -> None:
    """The newcomer is served; the latest of the network with most is told 503."""
    door = Door(256)
    flood = [door.ask(f"2001:db8:{n % 16:x}:{n}::1") for n in range(128)]
    await asyncio.sleep(0)
    newcomers = [door.ask(f"192.0.2.{n}") for n in range(3)]
    await until(lambda: sum(one.done() for one in flood) >= 67)
    assert door.waiting == 64
    door.opened.set()
    assert await asyncio.gather(*newcomers) == [200] * 3
    assert sorted(await asyncio.gather(*flood)) == [200] * 61 + [503] * 67


async def test_one_network_takes_half_and_leaves_the_rest(door: Door) -> None:
    """What does not wait is not counted, and a place is free again afterwards."""
    flood = [door.ask(f"2001:db8::{n:x}") for n in range(40)]
    others = [door.ask(f"192.0.2.{n}") for n in range(8)]
    await until(lambda: door.waiting >= 16)
    quick = door.ask("2001:db8::1", waits=False)
    await asyncio.sleep(0)
    door.opened.set()
    assert await asyncio.gather(*others) == [200] * 8
    assert sorted(await asyncio.gather(*flood)) == [200] * 8 + [503] * 32
    assert (await quick, len(door.guard.places)) == (200, 0)


async def test_a_place_is_taken_from_who_has_more(door: Door) -> None:
    """Eight networks hold two each of sixteen places; a ninth is served at once."""
    flood = [door.ask(f"2001:db8:{n % 8:x}:{n}::1") for n in range(16)]
    await asyncio.sleep(0)
    ninth = door.ask("192.0.2.1")
    await until(lambda: any(one.done() for one in flood))
    door.opened.set()
    assert await ninth == 200
    assert sorted(await asyncio.gather(*flood)) == [200] * 15 + [503]


def test_local_users_are_told_apart_and_others_by_network() -> None:
    """On loopback each user is a class."""
    local: Scope = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    assert peer_classes(local) == ("uid None",)
    assert peer_classes({"client": ("192.0.2.1", 1), "server": ("192.0.2.2", 2)}) == (
        "192.0.2.1",
    )
