"""Decided tool calls: evaluations (AuthZEN), and the hook that a host starts.

    python bench/decision.py [--rounds 3] [--no-peers]

Against a real ``agentvault serve`` on a temporary home: evaluations that all differ, at
1 and 16 connections, each with its event durable before its answer; in the same run
Squidbrake deciding one call that its shipped rules allow, where it can be installed;
and `agentvault hook` as a process, beside a Python that starts and does nothing.
Target: at one connection an evaluation takes at most a fifth of Squidbrake's time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import uvloop
from support.disk import flushes
from support.figures import figure
from support.load import Result, ask_many
from support.peers import Peer, UnavailableError, squidbrake, workplace
from support.vault import AGENTVAULT, Client, Vault, filesystem, vault

LEVELS = {1: 1_500, 16: 4_000}
SCOPE = "read:files"
HOOKS = 40
CALL = {
    "hook_event_name": "PreToolUse",
    "tool_name": "Read",
    "tool_input": {"file_path": "/srv/a"},
    "cwd": "/srv",
}


async def measure(rounds: int, *, peers: bool) -> bool:
    """Measure everything, print it, and tell whether the target is met."""
    found: dict[tuple[str, int], list[Result]] = {}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(vault())
        client = await ours.register("bench", SCOPE)
        peer = _squidbrake(stack) if peers else None
        print(f"home on {filesystem(ours.home)}; median of {rounds} rounds")
        flush = statistics.median(flushes(ours.home, 1_000))
        numbers = itertools.count()
        for connections, count in LEVELS.items():
            for _ in range(rounds):
                before = await ours.head()
                asked = [
                    client.evaluation_request(SCOPE, next(numbers))
                    for _ in range(count)
                ]
                result = await _round(ours.agents, asked, connections, count)
                assert await ours.head() - before >= count, "no record, no answer"
                found.setdefault(("evaluation", connections), []).append(result)
                if peer is not None:
                    few = count // 5
                    result = await _round(
                        peer.address, [peer.token_request], connections, few
                    )
                    found.setdefault((peer.name, connections), []).append(result)
        hook, bare = _processes(ours, client)
    return _report(found, flush, hook, bare)


def _squidbrake(stack: contextlib.ExitStack) -> Peer | None:
    try:
        return stack.enter_context(squidbrake(stack.enter_context(workplace())))
    except UnavailableError as reason:
        print(f"  Squidbrake is left out: {reason}")
        return None


async def _round(
    address: tuple[str, int], requests: list[bytes], connections: int, count: int
) -> Result:
    result = await ask_many(address, requests, connections=connections, count=count)
    if set(result.statuses) - {200}:
        raise SystemExit(f"answered {result.statuses}")
    return result


def _processes(ours: Vault, client: Client) -> tuple[float, float]:
    """Return the median milliseconds of a hook, and of a Python that does nothing."""
    script = str(Path(sys.executable).with_name("agentvault"))
    program = [script] if Path(script).exists() else AGENTVAULT
    arguments = ["--agent", client.id, "--home", str(ours.home)]
    hook = [*program, "hook", "claude-code", *arguments]
    return _timed(hook), _timed([sys.executable, "-c", "pass"])


def _timed(argv: list[str]) -> float:
    took = []
    env = os.environ | {"CLAUDE_PROJECT_DIR": CALL["cwd"]}  # as Claude Code sets it
    for _ in range(HOOKS):
        started = time.perf_counter()
        done = subprocess.run(
            argv,
            input=json.dumps(CALL).encode(),
            env=env,
            capture_output=True,
            check=True,
        )
        took.append((time.perf_counter() - started) * 1000)
        assert done.stdout in {b"", b"{}\n"}, done.stdout
    return statistics.median(took)


def _report(
    found: dict[tuple[str, int], list[Result]], flush: float, hook: float, bare: float
) -> bool:
    print(
        f"{'':14}{'conns':>6}{'p50 ms':>9}{'p99 ms':>9}{'per s':>9}   evaluation's p50"
    )
    p50s: dict[tuple[str, int], float] = {}
    for (name, connections), results in found.items():
        p50, p99, rate = (
            statistics.median(getattr(one, what) for one in results)
            for what in ("p50", "p99", "rate")
        )
        p50s[name, connections] = p50
        ratio = p50s["evaluation", connections] / p50
        print(
            f"{name:14}{connections:6}{p50:9.3f}{p99:9.3f}{rate:9.0f}   {ratio:.2f} x"
        )
    ours, theirs = p50s["evaluation", 1], p50s.get(("Squidbrake", 1))
    print(f"one flush of this disk takes {flush:.3f} ms; an evaluation at 1", end=" ")
    print(f"is {ours / flush:.1f} of them")
    print(f"a hook takes {hook:.0f} ms, a Python that does nothing {bare:.0f} ms")
    name = "a decision (evaluation), p50, 1 connection"
    figure(name, ours, "ms", "a disk flush", flush)
    figure("a hook process", hook, "ms", "a Python that does nothing", bare)
    if theirs is None:
        return True
    met = ours <= theirs / 5
    print(f"target: at 1 connection {ours / theirs:.2f} of Squidbrake's", end=" ")
    print(f"(at most 0.20): {'met' if met else 'MISSED'}")
    return met


def main() -> int:
    """Run the bench; 0 when its target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    return 0 if uvloop.run(measure(given.rounds, peers=not given.no_peers)) else 1


if __name__ == "__main__":
    sys.exit(main())
