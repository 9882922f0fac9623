"""What watching costs, and how late alerts and exports are.

    python bench/watch.py [SECTION…] [--alerts 100000] [--rounds 5] [--seconds 20]

``outbox``: an outbox of so many alerts, all to one webhook that did not answer before,
drains while 64 connections ask for tokens. Rounds with the sink away and with it there
alternate on one broker. Target: the median rate while it drains is at least 0.9 of the
rate while it does not. Then the rest drains with nobody asking, and every alert has
arrived, each event's first arrival in order.

``flood``: one agent has evaluations permitted as fast as the machine allows (no bound
on its decisions), and every 100 ms another agent asks for what a person decides. Both
arrive at one server: requests for a person as alerts, every event as an export (OTLP).
Targets: the 99th percentile from the event to the alert's arrival is below 1 s, and no
export arrives 2 s or more after its event.

``bound``: the same agent with the bound of `[ledger] decisions_a_second` as shipped.
It records no more than that, and another agent is answered as without it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import uvloop
from support.load import Result, ask_many, connect, loading
from support.vault import Client, Vault, vault

SCOPE = "write:calendar"
_PERSON = "send:payment"
_ASK_EVERY = 0.1
"""Seconds between two requests for a person."""
_RATE, _BURST_S = 200, 10
"""`[ledger] decisions_a_second` as shipped, and the seconds of its burst."""
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
        """Answer each request of a connection, and note the delay of what it holds."""
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


@dataclass
class Collector:
    """A server for alerts and exports: how long after its event each arrived."""

    alerts: list[float] = field(default_factory=list)
    exports: list[float] = field(default_factory=list)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer each request of a connection, and note the delay of what it holds."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                now = time.time()
                at = head.lower().find(b"content-length:")
                size = int(head[at + 15 :].split(b"\r\n", 1)[0])
                body = await reader.readexactly(size)
                if head.startswith(b"POST /v1/logs"):
                    at = body.find(_STAMP) + len(_STAMP)
                    if at >= len(_STAMP):
                        self.exports.append(now - int(body[at : at + 19]) / 1e9)
                else:
                    moment = datetime.fromisoformat(json.loads(body)["timestamp"])
                    self.alerts.append(now - moment.timestamp())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


_STAMP: Final = b'"timeUnixNano":"'


async def flood(seconds: float) -> bool:
    """Measure how late alerts and exports are beside one agent's permitted flood."""
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with vault() as ours:
        agent = await ours.register("flooding", SCOPE)
        others = [
            await ours.register(f"paying-{n}", _PERSON)
            for n in range(int(seconds / _ASK_EVERY))
        ]
        to = [f"http://127.0.0.1:{port}"]
        secret = {"name": "hook", "value": _KEY, "for": to}
        await ours.operate("POST", "/api/secrets", secret)
        (ours.home / "alerts.toml").write_text(
            f'[sinks.hook]\nkind = "webhook"\nurl = "http://127.0.0.1:{port}/"\n'
            'secret = "hook"\nallow_private = true\n'
            f'[sinks.all]\nkind = "otlp"\nendpoint = "http://127.0.0.1:{port}"\n'
            "allow_private = true\n"
            '[[routes]]\nsinks = ["hook"]\nevents = ["needs_person"]\n'
        )
        await asyncio.sleep(3)  # it is read within a second, and the past is exported
        asked = [agent.evaluation_request(SCOPE, number) for number in range(5_000)]
        head = await ours.head()
        with loading(ours.agents, asked, 32):
            await asyncio.sleep(2)  # the flood is there
            collector.exports.clear()
            began = time.perf_counter()
            line = await connect(ours.agents)
            for other in others:
                status, _ = await line.ask(other.token_request(_PERSON))
                assert status == 403, status
                await asyncio.sleep(_ASK_EVERY)
            took = time.perf_counter() - began
        line.close()
        rate = (await ours.head() - head) / (took + 2)
        await asyncio.sleep(1)
    server.close()
    late = sorted(collector.alerts)
    p99 = late[min(len(late) - 1, int(len(late) * 0.99))]
    behind = max(collector.exports)
    print(f"one agent's permitted flood: {rate:,.0f} events/s for {took:.0f} s")
    print(
        f"  alerts: {len(late)} of {len(others)} arrived; event to arrival"
        f" p50 {statistics.median(late) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms,"
        " target 1,000"
    )
    print(
        f"  exports: {len(collector.exports):,} requests; at most {behind:.2f} s after"
        " their first event, target 2"
    )
    return len(late) == len(others) and p99 < 1 and behind < 2


async def bound(seconds: float) -> bool:
    """Measure what one agent's permitted flood is bounded to, and costs another."""
    with vault(bounded=True) as ours:
        flooding = await ours.register("flooding", SCOPE)
        other = await ours.register("other", SCOPE)
        asked = [flooding.evaluation_request(SCOPE, number) for number in range(5_000)]
        alone = await _answered(ours, other, seconds)
        with loading(ours.agents, asked, 32):
            await asyncio.sleep(2 * _BURST_S)  # the burst is used up
            head, began = await ours.head(), time.perf_counter()
            beside = await _answered(ours, other, seconds)
            took = time.perf_counter() - began
            rate = (await ours.head() - head - len(beside.latencies)) / took
    print("one agent's permitted flood, bounded as shipped")
    print(f"  it records {rate:,.0f} events/s, target {_RATE}")
    print(
        f"  another agent's evaluations: p99 {alone.p99:.1f} ms alone, {beside.p99:.1f}"
        f" ms beside it: ratio {beside.p99 / alone.p99:.1f}"
    )
    return rate <= _RATE * 1.05


async def _answered(ours: Vault, client: Client, seconds: float) -> Result:
    """Ask for evaluations one after another, ten a second."""
    result = Result()
    line = await connect(ours.agents)
    for number in range(int(seconds / _ASK_EVERY)):
        started = time.perf_counter()
        status, _ = await line.ask(client.evaluation_request(SCOPE, number))
        assert status == 200, status
        result.latencies.append(time.perf_counter() - started)
        await asyncio.sleep(_ASK_EVERY)
    line.close()
    return result


def main() -> int:
    """Run the sections; 0 when all met their targets."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", default=["outbox", "flood", "bound"])
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    asked = parser.parse_args()
    sections: dict[str, Callable[[], Coroutine[None, None, bool]]] = {
        "outbox": lambda: outbox(asked.alerts, asked.rounds),
        "flood": lambda: flood(asked.seconds),
        "bound": lambda: bound(asked.seconds),
    }
    met = [uvloop.run(sections[name]()) for name in asked.sections]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
