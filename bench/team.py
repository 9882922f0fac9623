"""Three brokers on one PostgreSQL against one on SQLite, and how soon a cut holds.

    python bench/team.py [--count 4000] [--revocations 200]

Tokens a second that three brokers issue together on a local PostgreSQL with a
synchronous replica, as a share of what one broker on SQLite issues on the same
processors, with what each part used of them. Then, while all three are asked, the
milliseconds from sending a revocation to one broker until another says inactive.
Targets: at least half; p50 below 10 ms, worst of 200 below 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import uvloop
from support.load import Result, ask_many, connect, loading, request
from support.vault import Client, Vault, vault

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.postgres import TEAM, Cluster, Database

SCOPE = "write:calendar"
CONNECTIONS = 16
_TENANT = '[tenant]\nissuer = "http://127.0.0.1:9/"\nclient_id = "console"\n'
_TICKS = os.sysconf("SC_CLK_TCK")


def home(place: Path, name: str, store: Database | None = None) -> Path:
    """Make a home whose tenant is asked nothing, of a team where there is a store."""
    made = place / name
    made.mkdir(mode=0o700)
    team = f'[store]\nurl = "{store.url}"\n[team]\nname = "{TEAM}"\n' if store else ""
    (made / "config.toml").write_text(team + _TENANT)
    return made


def used(clusters: Iterable[Cluster]) -> float:
    """Return the processor seconds of all processes of some servers (proc(5))."""
    mains = {one.process.pid for one in clusters if one.process is not None}
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) in mains or int(stat.parent.name) in mains:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


async def issue(brokers: list[Vault], agent: Client, count: int) -> list[Result]:
    """Ask each broker for its part of *count* tokens, all at once."""
    each = count // len(brokers)
    found = await asyncio.gather(
        *(
            ask_many(
                one.agents,
                [at(one, agent).token_request(SCOPE)],
                connections=CONNECTIONS,
                count=each,
            )
            for one in brokers
        )
    )
    for one in found:
        assert set(one.statuses) == {200}, one.statuses
    return found


def at(broker: Vault, agent: Client) -> Client:
    """Return *agent*, as it asks that broker."""
    host = "{}:{}".format(*broker.agents)
    return Client(agent.id, agent.client_id, agent.client_secret, host)


async def cut(brokers: list[Vault], door: Client, victim: Client) -> float:
    """Revoke an agent at one broker; return the ms until another says inactive."""
    one, other = brokers[:2]
    line, operator = await connect(other.agents), await connect(one.operators)
    status = 0
    while status != 200:
        status, body = await line.ask(at(other, victim).token_request(SCOPE))
    asked = at(other, door).introspection(json.loads(body)["access_token"])
    text = json.dumps({"agent_id": victim.id, "reason": "bench"}).encode()
    began = time.perf_counter()
    path = "/api/agents/revoke"
    sent = asyncio.ensure_future(
        operator.ask(request("POST", path, text, kind="application/json"))
    )
    while b'"active":true' in (await line.ask(asked))[1].replace(b" ", b""):
        pass
    took = (time.perf_counter() - began) * 1000
    await sent
    line.close()
    operator.close()
    return took


async def measure(
    single: Vault,
    brokers: list[Vault],
    clusters: list[Cluster],
    arguments: argparse.Namespace,
) -> None:
    """Print the rates, what took the processors, and how soon cuts hold."""
    alone = await single.register("bench", SCOPE)
    (before,) = await issue([single], alone, arguments.count)
    print(f"one broker on SQLite:     {before.rate:8,.0f} tokens/s")
    agent = await brokers[0].register("bench", SCOPE)
    database, own = used(clusters), [sum(one.cpu().values()) for one in brokers]
    began = time.perf_counter()
    found = await issue(brokers, agent, arguments.count)
    wall = time.perf_counter() - began
    rate = sum(len(one.latencies) for one in found) / wall
    print(
        f"three on PostgreSQL:      {rate:8,.0f} tokens/s, {rate / before.rate:.2f}"
        f" of that; p50 {statistics.median(one.p50 for one in found):.1f} ms"
    )
    spent = [sum(b.cpu().values()) - was for b, was in zip(brokers, own, strict=True)]
    print(
        f"  processors: database and replica {used(clusters) - database:.1f} s,"
        f" brokers {sum(spent):.1f} s, of {wall * (os.cpu_count() or 1):.1f} s"
    )
    door = await brokers[0].register("door", resource_server=True)
    names = range(arguments.revocations)
    victims = [await brokers[0].register(f"v{name}", SCOPE) for name in names]
    with ExitStack() as stack:
        for one in brokers:
            asked = [at(one, agent).token_request(SCOPE)] * 4
            stack.enter_context(loading(one.agents, asked, 4))
        times = [await cut(brokers, door, victim) for victim in victims]
    print(
        f"revoked at one, inactive at another, all busy: p50"
        f" {statistics.median(times):.1f} ms, worst of {len(times)} {max(times):.1f} ms"
    )


def main(place: Path, arguments: argparse.Namespace) -> None:
    """Run all of it in a folder."""
    cluster = Cluster(place / "pg", ("shared_buffers=128MB",))
    cluster.create()
    cluster.start()
    try:
        replica = cluster.replica()
        try:
            store = cluster.store()
            with ExitStack() as stack:
                single = stack.enter_context(vault(home(place, "alone")))
                homes = [home(place, name, store) for name in "abc"]
                brokers = [stack.enter_context(vault(one)) for one in homes]
                clusters = [cluster, replica]
                uvloop.run(measure(single, brokers, clusters, arguments))
        finally:
            replica.stop()
    finally:
        cluster.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--revocations", type=int, default=200)
    folder = Path(tempfile.mkdtemp(prefix="avteam"))
    folder.chmod(0o755)
    try:
        main(folder, parser.parse_args())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
