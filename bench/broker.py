"""Token decisions: authenticate, Cedar, durable event, opaque token.

    python bench/broker.py [--rounds 3] [--no-peers]

Against a real ``agentvault serve`` on a temporary home, at 1, 16 and 64 connections:
first requests for actions that all differ, as agents send them, then the same bare
request again and again, then differing ones under a policy whose rules also read the
resource; and in the same run against npm's oidc-provider (no policy, nothing durable)
and OpenBao, in dev mode (nothing durable) and with raft storage and a file audit, where
they can be installed.
Rounds alternate between the systems; what is printed is the median of the rounds.
Targets: repeated, at one connection p50 at or below 0.9 ms, at 64 at least 4,000 a
second; actions that differ at least 0.7 of that rate, and ahead of OpenBao at 64.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop
from support.disk import flushes
from support.load import Result, ask_many
from support.peers import (
    Peer,
    UnavailableError,
    oidc_provider,
    openbao,
    openbao_durable,
    workplace,
)
from support.vault import Client, Vault, filesystem, vault

LEVELS = {1: 2_000, 16: 8_000, 64: 16_000}
SCOPE = "write:calendar"


@dataclass
class System:
    """Something that issues tokens."""

    name: str
    address: tuple[str, int]
    build: Callable[[int], Sequence[bytes]]
    """Makes so many requests; fewer are sent again and again."""
    ours: Vault | None = None
    rounds: dict[int, list[Result]] = field(default_factory=dict)

    async def ask(self, connections: int) -> Result:
        """Run one round, on requests that are built before it."""
        count = LEVELS[connections]
        requests = self.build(count)
        if self.ours is None:
            return await ask_many(
                self.address, requests, connections=connections, count=count
            )
        ours = self.ours
        before, cpu, written = await ours.head(), ours.cpu(), ours.written()
        result = await ask_many(
            self.address, requests, connections=connections, count=count
        )
        # No record, no answer: every answer has its event in the ledger.
        recorded = await ours.head() - before
        assert recorded >= count, (recorded, connections)
        result.written = (ours.written() - written) / count
        for thread, seconds in (ours.cpu() - cpu).items():
            result.cpu[thread] = seconds / count * 1e6
        return result

    def median(self, connections: int, what: str) -> float:
        """Return the median over the rounds of a result's attribute *what*."""
        return statistics.median(
            getattr(result, what) for result in self.rounds[connections]
        )


async def measure(rounds: int, *, peers: bool) -> bool:
    """Measure everything, print it, and tell whether the targets are met."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(vault())
        clients = [await ours.register(f"bench-{n}", SCOPE) for n in range(16)]
        systems = [
            System("differing", ours.agents, _differing(clients), ours),
            System(
                "repeated",
                ours.agents,
                lambda _: [client.token_request(SCOPE) for client in clients],
                ours,
            ),
        ]
        strict = stack.enter_context(vault(resources=True))
        others = [await strict.register(f"bench-{n}", SCOPE) for n in range(16)]
        systems.append(System("by resource", strict.agents, _differing(others), strict))
        if peers:
            work = stack.enter_context(workplace())
            for start in (oidc_provider, openbao, openbao_durable):
                try:
                    peer = stack.enter_context(start(work))
                except UnavailableError as reason:
                    print(f"  {start.__name__} is left out: {reason}")
                    continue
                systems.append(System(peer.name, peer.address, _again(peer)))
        print(f"home on {filesystem(ours.home)}; median of {rounds} rounds")
        flush = statistics.median(flushes(ours.home, 1_000))
        for system in systems:
            await system.ask(16)  # warm up
        for connections in LEVELS:
            for _ in range(rounds):
                for system in systems:
                    result = await system.ask(connections)
                    if wrong := set(result.statuses) - {200, 201}:
                        raise SystemExit(f"{system.name} answered {wrong}")
                    system.rounds.setdefault(connections, []).append(result)
    return _report(systems, flush)


def _differing(clients: list[Client]) -> Callable[[int], list[bytes]]:
    numbers = itertools.count()
    return lambda count: [
        client.action_request(SCOPE, next(numbers))
        for client in itertools.islice(itertools.cycle(clients), count)
    ]


def _again(peer: Peer) -> Callable[[int], list[bytes]]:
    return lambda _: [peer.token_request]


def _report(systems: list[System], flush: float) -> bool:
    differing, repeated, by_resource, *peers = systems
    print(
        f"{'':14}{'conns':>6}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}   differing's rate"
    )
    for connections in LEVELS:
        for system in systems:
            row = [system.median(connections, what) for what in ("p50", "p99", "rate")]
            ratio = differing.median(connections, "rate") / row[2]
            print(
                f"{system.name:14}{connections:6}{row[0]:9.3f}{row[1]:9.3f}{row[2]:9.0f}"
                + ("" if system is differing else f"   {ratio:.2f} x")
            )
    for system in (differing, repeated, by_resource):
        for connections in (1, 64):
            print(_cost(system, connections))
    p50, rate = repeated.median(1, "p50"), repeated.median(64, "rate")
    print(f"one flush of this disk takes {flush:.3f} ms; repeated at 1 is", end=" ")
    print(f"{p50 / flush:.1f} x that")
    share = differing.median(64, "rate") / rate
    met = p50 <= 0.9 and rate >= 4_000 and share >= 0.7
    words = [
        f"p50 at 1 is {p50:.2f} ms (at most 0.90)",
        f"rate at 64 is {rate:.0f}/s (at least 4000)",
        f"differing ones are {share:.2f} of it (at least 0.70)",
    ]
    for bao in peers:
        if bao.name == "OpenBao":
            ahead = differing.median(64, "rate") / bao.median(64, "rate")
            met = met and ahead > 1
            words.append(f"and {ahead:.2f} of OpenBao's (above 1)")
    print(f"targets {'met' if met else 'MISSED'}: {', '.join(words)}")
    return met


def _cost(system: System, connections: int) -> str:
    results = system.rounds[connections]
    written = statistics.median(result.written for result in results)
    threads = Counter(
        {
            name: statistics.median(result.cpu[name] for result in results)
            for name in results[-1].cpu
        }
    )
    told = ", ".join(f"{name} {spent:.0f}" for name, spent in threads.most_common(3))
    return (
        f"a decision, {system.name} at {connections}: {written / 1000:.1f} kB written;"
        f" CPU of each thread in µs: {told}"
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    sys.exit(0 if uvloop.run(measure(given.rounds, peers=not given.no_peers)) else 1)


if __name__ == "__main__":
    main()
