"""Growth: a decision and a revocation as agents, events and rules become more.

    python bench/growth.py [--quick]

Against a real ``agentvault serve``: evaluations (AuthZEN) one after another, and
revocations over the operators' socket, each with its event durable before its answer.
First on a new home directory with ten agents, then with more agents, then with more
events; and on another home directory whose policy has more rules for the same action.
Target: neither is more than twice as slow as on the new home directory.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop
from support.figures import figure
from support.load import ask_many
from support.vault import Client, Vault, disk, vault

from agentvault_tui.policy.texts import shipped_policy

SCOPE = "read:files"
MOST = 2.0
RULE = """
@id("bench-{n}")
@why("A rule of the bench.")
@optional("resource")
forbid (principal, action == Action::"read:files", resource)
when {{ context has resource && context.resource like "/bench/{n}/*" }};
"""
_numbers = itertools.count()


class Sizes(NamedTuple):
    """How much of everything."""

    agents: int
    events: int
    rules: int
    decisions: int
    revocations: int


FULL = Sizes(2_000, 100_000, 500, 1_000, 100)
QUICK = Sizes(200, 2_000, 50, 200, 20)


class Costs(NamedTuple):
    """Milliseconds, at the median."""

    decision: float
    revocation: float


async def costs(ours: Vault, client: Client, sizes: Sizes) -> Costs:
    """Measure decisions and revocations on a broker."""
    requests = [
        client.evaluation_request(SCOPE, next(_numbers)) for _ in range(sizes.decisions)
    ]
    decided = await ask_many(ours.agents, requests, connections=1, count=len(requests))
    assert set(decided.statuses) == {200}, decided.statuses
    took = []
    for _ in range(sizes.revocations):
        victim = await ours.register(f"victim-{next(_numbers)}", SCOPE)
        body = {"agent_id": victim.id, "reason": "bench"}
        started = time.perf_counter()
        await ours.operate("POST", "/api/agents/revoke", body)
        took.append((time.perf_counter() - started) * 1000)
    return Costs(decided.p50, statistics.median(took))


async def measure(sizes: Sizes) -> bool:
    """Measure everything, print it, and tell whether the target is met."""
    with vault() as ours:
        client = await ours.register("asker", SCOPE)
        for number in range(9):
            await ours.register(f"agent-{number}", SCOPE)
        await costs(ours, client, sizes)  # the first warms up
        base = await costs(ours, client, sizes)
        for number in range(sizes.agents):
            await ours.register(f"more-{number}", SCOPE)
        found = {f"with {sizes.agents:,} agents more": await costs(ours, client, sizes)}
        more = [
            client.evaluation_request(SCOPE, next(_numbers))
            for _ in range(sizes.events)
        ]
        await ask_many(ours.agents, more, connections=16, count=len(more))
        name = f"with {sizes.events:,} events more"
        found[name] = await costs(ours, client, sizes)
    home = Path(tempfile.mkdtemp(prefix="av-bench-", dir=disk()))
    try:
        rules = "".join(RULE.format(n=number) for number in range(sizes.rules))
        (home / "policy.cedar").write_text(f"{shipped_policy()}\n{rules}")
        with vault(home) as ruled:
            client = await ruled.register("asker", SCOPE)
            await costs(ruled, client, sizes)
            name = f"with {sizes.rules:,} rules more for the action"
            found[name] = await costs(ruled, client, sizes)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return _report(base, found)


def _report(base: Costs, found: dict[str, Costs]) -> bool:
    """Print each figure with its ratio; tell whether none is above the target."""
    print(f"10 agents: decision {base.decision:.2f} ms,", end=" ")
    print(f"revocation {base.revocation:.2f} ms")
    met = True
    for name, one in found.items():
        for what, value, before in zip(Costs._fields, one, base, strict=True):
            ratio = value / before
            met = met and ratio <= MOST
            print(f"  {what:10} {name:40} {value:7.2f} ms, {ratio:.2f} times")
            figure(
                f"{what}, p50, {name}",
                value,
                "ms",
                f"{what} on a new home directory",
                before,
            )
    print(f"at most {MOST:g} times: {'met' if met else 'MISSED'}")
    return met


def main() -> int:
    """Run; 0 when the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer of everything")
    sizes = QUICK if parser.parse_args().quick else FULL
    return 0 if uvloop.run(measure(sizes)) else 1


if __name__ == "__main__":
    sys.exit(main())
