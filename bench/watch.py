"""What watching costs: alerts that drain beside token requests.

    python bench/watch.py [SECTION…] [--alerts 100000] [--rounds 5]

``outbox``: an outbox of so many alerts, all to one webhook that did not answer before,
drains while 64 connections ask for tokens. Rounds with the sink away and with it there
alternate on one broker. Target: the median rate while it drains is at least 0.9 of the
rate while it does not. Then the rest drains with nobody asking, and every alert has
arrived, each event's first arrival in order.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop
from support.load import ask_many
from support.vault import Client, Vault, vault

SCOPE = "write:calendar"
_ROUND = 12_000
_TARGET = 0.9
_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Sink:
    """A webhook's server: keeps the numbers of the events it was told of."""

    seqs: list[int] = field(default_factory=list)
    port: int = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().find(b"content-length:")
                size = int(head[at + 15 :].split(b"\r\n", 1)[0])
                body = json.loads(await reader.readexactly(size))
                self.seqs.append(body["data"]["seq"])
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def outbox(alerts: int, rounds: int) -> bool:
    """Measure the token endpoint beside an outbox that drains."""
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    with vault() as ours:
        clients = [await ours.register(f"bench-{n}", SCOPE) for n in range(16)]
        to = [f"http://127.0.0.1:{port}" for port in (1, sink.port)]
        secret = {"name": "hook", "value": _KEY, "for": to}
        await ours.operate("POST", "/api/secrets", secret)
        await _point(ours, 1)  # nobody listens there
        await _fill(ours, clients, alerts)
        requests = [client.token_request(SCOPE) for client in clients]
        await ask_many(ours.agents, requests, connections=64, count=_ROUND)  # warm up
        rates: dict[bool, list[float]] = {False: [], True: []}
        costs: dict[bool, list[float]] = {False: [], True: []}
        drained = 0.0
        for number, there in itertools.product(range(rounds), (False, True)):
            await _point(ours, sink.port if there else 1)
            before, began, cpu = len(sink.seqs), time.perf_counter(), ours.cpu()
            result = await ask_many(ours.agents, requests, connections=64, count=_ROUND)
            assert set(result.statuses) == {200}
            rates[there].append(result.rate)
            used = (ours.cpu() - cpu)["loop"] / _ROUND * 1e6
            costs[there].append(used)
            if there:
                took = time.perf_counter() - began
                drained += (len(sink.seqs) - before) / took / rounds
            print(
                f"  round {number + 1} {'drains' if there else 'waits '}"
                f" {result.rate:7,.0f} tokens/s  p99 {result.p99:.1f} ms",
                flush=True,
            )
        # It goes on draining from the moment the last round ends.
        left, began = alerts - len(set(sink.seqs)), time.perf_counter()
        while len(set(sink.seqs)) < alerts:  # noqa: ASYNC110 - it arrives by itself
            await asyncio.sleep(0.2)
        took = time.perf_counter() - began
    server.close()
    firsts = list(dict.fromkeys(sink.seqs))
    assert firsts == sorted(firsts), "an alert overtook another"
    waits, drains = (statistics.median(rates[there]) for there in (False, True))
    apart, beside = (statistics.median(costs[there]) for there in (False, True))
    ratio = drains / waits
    print(f"outbox of {alerts:,} alerts, median of {rounds} rounds at 64 connections")
    print(
        f"  tokens a second: {waits:,.0f} while it waits, {drains:,.0f} while it"
        f" drains: ratio {ratio:.3f}, target {_TARGET}"
    )
    print(
        f"  the loop's CPU for a token, all it did included: {apart:.0f} µs while it"
        f" waits, {beside:.0f} µs while it drains: ratio {beside / max(apart, 1):.3f}"
    )
    alone = f"{left / took:,.0f} alone" if left else "all of them, so none was left"
    print(
        f"  alerts a second: {drained:,.0f} beside that load, {alone};"
        f" {len(sink.seqs) - len(firsts)} came twice, none is missing"
    )
    return ratio >= _TARGET


async def _point(ours: Vault, port: int) -> None:
    """Send alerts to *port* from now on."""
    text = (
        f'[sinks.hook]\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\n'
        'secret = "hook"\nallow_private = true\n'
        '[[routes]]\nsinks = ["hook"]\nevents = ["access.decision"]\n'
    )
    (ours.home / "alerts.toml").write_text(text)
    await asyncio.sleep(1.5)  # it is read within a second


async def _fill(ours: Vault, clients: list[Client], alerts: int) -> None:
    """Have so many evaluations decided, each an alert that cannot be sent yet."""
    for start in range(0, alerts, 10_000):
        count = min(alerts - start, 10_000)
        asked = [
            clients[number % len(clients)].evaluation_request(SCOPE, number)
            for number in range(start, start + count)
        ]
        done = await ask_many(ours.agents, asked, connections=64, count=count)
        assert set(done.statuses) == {200}, done.statuses


SECTIONS: dict[str, Callable[[int, int], Awaitable[bool]]] = {"outbox": outbox}


def main() -> int:
    """Run the sections; 0 when all met their targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=list(SECTIONS))
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    met = [
        uvloop.run(SECTIONS[name](asked.alerts, asked.rounds))  # type: ignore[arg-type]
        for name in asked.sections
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
