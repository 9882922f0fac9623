"""A team's brokers on one PostgreSQL: what they issue together, and what limits that.

    python bench/team.py [--quick] [--count 4000] [--revocations 200]
                         [--events 1000000] [--agents 10000] [--delay 0.25]

PostgreSQL has a synchronous replica beside it. In turn:

- Tokens a second of one broker on SQLite, and of one, two and three on PostgreSQL on
  the same processors, with what each part used of them. Target of three: at least half
  of the one.
- A model, fed with what one broker and what three took: a broker sends a transaction
  when the last one is answered; the head takes one at a time, until its commit is on
  the replica; and what one issues takes of the processors of all, who follow it. It is
  checked against the brokers here, which share these processors with all that runs, and
  says what brokers on machines of their own issue (each as fast as this one, a database
  with as many processors, `--delay` ms between any two), and what limits them.
- While all three are asked: from sending a revocation to one until another says
  inactive. Targets: p50 below 10 ms, worst of 200 below 100 ms.
- From registering an agent at one until the feed of another tells a console of it.
  Target: 250 ms.
- From stopping the database until a token request made since is answered 503. Target:
  2 s.
- From killing the broker that does what is done once until another lists it as silent
  and until another does that. Targets: 2 s, and the half second after which it is
  looked at again; 10 s.
- What a decision takes of the processors with 1,000,000 events, and with 10,000 agents,
  as a multiple of 10,000 events and 10 agents. Target: below 1.1.

The exit status is 1 if a target was missed. --quick is for looking whether it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from support.load import ask_many, connect, loading, request
from support.vault import Client, Vault, vault

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.ledger_kit import agent, decision, manual_clock, note, token
from support.postgres import TEAM, Cluster, Database

from agentvault_tui.clock import SystemClock
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
from agentvault_tui.ledger.batch import Job
from agentvault_tui.ledger.shared_log import SharedLog
from agentvault_tui.ledger.store_copying import copy_to_store
from agentvault_tui.ledger.writer import MAX_BATCH
from agentvault_tui.model import Actor, ActorKind
from agentvault_tui.store_connection import Connector

SCOPE = "write:calendar"
CONNECTIONS = 16
OPERATOR = Actor(ActorKind.OPERATOR, "uid:0", "bench")
PARTS = ("brokers", "database", "replica", "who asks", "others")
FEW = 10_000, 10
"""Events and agents that more of them are compared with."""
_FILLED = 500
_ROUNDS = 3
_TENANT = '[tenant]\nissuer = "http://127.0.0.1:9/"\nclient_id = "console"\n'
_TICKS = os.sysconf("SC_CLK_TCK")
_CORES = os.cpu_count() or 1


class Targets:
    """Prints figures, and remembers whether one missed its target."""

    def __init__(self) -> None:
        self.missed = False

    def say(self, text: str, *, met: bool) -> None:
        self.missed |= not met
        print(f"{text}: {'met' if met else 'MISSED'}", flush=True)


@dataclass(frozen=True)
class Run:
    """What issuing tokens took."""

    tokens: int
    wall: float
    used: Counter[str]
    """Processor seconds of each part."""
    transactions: int
    """That moved the head."""
    p50: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.wall

    @property
    def batch(self) -> float:
        """Tokens in a transaction."""
        return self.tokens / max(1, self.transactions)

    def each(self, *parts: str) -> float:
        """Return the processor seconds of some parts for a token."""
        return sum(self.used[part] for part in parts) / self.tokens


@dataclass(frozen=True)
class Model:
    """Brokers that take turns at one head."""

    first: float
    """Seconds that the head is taken for a transaction, besides its tokens."""
    each: float
    """The same for a token."""
    runs: list[Run]
    """What one broker did, and more of them, on these processors."""
    delay: float
    """Seconds between two machines, one way."""

    @property
    def run(self) -> Run:
        """Return what one broker did."""
        return self.runs[0]

    def takes(self, brokers: int, *parts: str) -> float:
        """Return the processor seconds of some parts for a token that all follow."""
        one, all_here = self.run.each(*parts), self.runs[-1].each(*parts)
        return one + (brokers - 1) * (all_here - one) / (len(self.runs) - 1)

    @property
    def own(self) -> float:
        """Return a broker's seconds for a token while none of its own has the head."""
        cycle = self.run.batch / self.run.rate
        return max(0.0, cycle - self.held(self.run.batch, 0.0)) / self.run.batch

    def held(self, batch: float, delay: float) -> float:
        """Return the seconds for which one transaction takes the head."""
        return self.first + self.each * batch + 2 * delay  # to the replica and back

    def alone(self, batch: float, delay: float) -> float:
        """Return the seconds between two transactions of a broker without others."""
        return self.held(batch, delay) + 2 * delay + batch * self.own

    def taken(self, brokers: int, batch: float, delay: float) -> float:
        """Return the tokens a second that the head and the brokers' turns allow."""
        held = self.held(batch, delay)
        return brokers * batch / max(self.alone(batch, delay), brokers * held)

    def here(self, brokers: int) -> float:
        """Return what brokers on these processors issue a second."""
        processors = _CORES / self.takes(brokers, *PARTS)
        return min(processors, self.taken(brokers, self.run.batch, 0.0))

    def apart(self, brokers: int) -> tuple[float, str]:
        """Return the same for machines of their own, always asked, and the limit."""
        held, alone = (at(MAX_BATCH, self.delay) for at in (self.held, self.alone))
        turns = "the head" if brokers * held > alone else "the brokers' turns"
        return min(
            (self.taken(brokers, MAX_BATCH, self.delay), turns),
            # A broker's requests share one event loop.
            (brokers / self.takes(brokers, "brokers"), "the brokers' processors"),
            (_CORES / self.run.each("database"), "the database's processors"),
        )


def home(place: Path, name: str, store: Database | None = None) -> Path:
    """Make a home whose tenant is asked nothing, of a team where there is a store."""
    made = place / name
    made.mkdir(mode=0o700, exist_ok=True)
    team = f'[store]\nurl = "{store.url}"\n[team]\nname = "{TEAM}"\n' if store else ""
    (made / "config.toml").write_text(team + _TENANT)
    return made


def used(cluster: Cluster) -> float:
    """Return the processor seconds of all processes of a server (proc(5))."""
    main = cluster.process.pid if cluster.process is not None else 0
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if main in {int(fields[1]), int(stat.parent.name)}:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def busy() -> float:
    """Return the processor seconds of all that runs on this machine (proc(5))."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(ticks) - sum(ticks[3:5])) / _TICKS  # idle, and waiting for the disk


class Bench:
    """One cluster with its replica, and what runs on it."""

    def __init__(self, place: Path, cluster: Cluster, replica: Cluster) -> None:
        self.place, self.cluster, self.replica = place, cluster, replica
        self.store = cluster.store()
        self.targets = Targets()

    def spent(self, brokers: Iterable[Vault]) -> Counter[str]:
        """Return the processor seconds so far."""
        known = (
            sum(sum(one.cpu().values()) for one in brokers),
            used(self.cluster),
            used(self.replica),
            time.process_time(),
        )
        return Counter(dict(zip(PARTS, (*known, busy() - sum(known)), strict=True)))

    def revision(self, store: Database) -> int:
        """Return how many transactions moved the head so far."""
        ((revision,),) = store.run("SELECT revision FROM agentvault.head")
        return int(str(revision))

    async def issue(
        self, brokers: list[Vault], asks: Client, count: int, store: Database | None
    ) -> Run:
        """Ask each broker for its part of *count* tokens, all at once."""
        before, moved = self.spent(brokers), self.revision(store) if store else 0
        began = time.perf_counter()
        found = await asyncio.gather(
            *(
                ask_many(
                    one.agents,
                    [at(one, asks).token_request(SCOPE)],
                    connections=CONNECTIONS,
                    count=count // len(brokers),
                )
                for one in brokers
            )
        )
        wall = time.perf_counter() - began
        spent = self.spent(brokers)
        spent.subtract(before)
        for one in found:
            assert set(one.statuses) == {200}, one.statuses
        tokens = sum(len(one.latencies) for one in found)
        moved = self.revision(store) - moved if store else 0
        p50 = statistics.median(one.p50 for one in found)
        return Run(tokens, wall, spent, moved, p50)


def at(broker: Vault, asks: Client) -> Client:
    """Return an agent, as it asks that broker."""
    host = "{}:{}".format(*broker.agents)
    return Client(asks.id, asks.client_id, asks.client_secret, host)


async def appends(store: Database, count: int) -> tuple[float, float, float]:
    """Time what a transaction takes without others.

    Returns:
        the seconds of a round trip, of a transaction besides its tokens, and of each of
        those.
    """
    log = SharedLog(Connector(store.url, TEAM), "brk_bench", 1, SystemClock())
    clock, names = manual_clock(), itertools.count()
    took: dict[int, list[float]] = {0: [], 1: [], MAX_BATCH: []}
    for _ in range(count):
        for size, times in took.items():
            known = await log.end()
            numbers = itertools.count(known.n + 1)
            jobs = [
                Job.of([decision()], [token(clock, f"tok_{next(names)}")], numbers)
                for _ in range(size)
            ]
            began = time.perf_counter()
            if size:
                await log.append(known, jobs, str(uuid.uuid4()), urgent=False)
            else:
                await log.end()
            times.append(time.perf_counter() - began)
    await log.close()
    trip, one, many = (statistics.median(times) for times in took.values())
    each = (many - one) / (MAX_BATCH - 1)
    return trip, one - each - trip, each


async def rates(
    bench: Bench, single: Vault, brokers: list[Vault], given: argparse.Namespace
) -> None:
    """Print what brokers issue here, and what the model makes of it."""
    asks = await single.register("bench", SCOPE)
    await bench.issue([single], asks, given.count // 8, None)
    alone = await bench.issue([single], asks, given.count, None)
    print(f"one broker on SQLite:     {alone.rate:8,.0f} tokens/s, {alone.p50:.1f} ms")
    asks = await brokers[0].register("bench", SCOPE)
    await bench.issue(brokers, asks, given.count // 8, bench.store)
    runs = []
    for count in range(1, len(brokers) + 1):
        run = await bench.issue(brokers[:count], asks, given.count, bench.store)
        runs.append(run)
        whole = run.wall * _CORES
        shares = (f"{part} {run.used[part] / whole:.0%}" for part in PARTS)
        print(
            f"{count} on PostgreSQL:          {run.rate:8,.0f} tokens/s,"
            f" {run.p50:.1f} ms; {run.batch:.1f} a transaction;"
            f" of the processors {', '.join(shares)}"
        )
    share = runs[-1].rate / alone.rate
    text = f"three on PostgreSQL to one on SQLite {share:.2f}, target 0.5"
    bench.targets.say(text, met=share >= 0.5)
    times = max(10, given.count // 40)
    trip, first, each = await appends(bench.cluster.store(), times)
    print(
        f"a round trip {trip * 1e3:.2f} ms; a transaction {first * 1e3:.2f} ms at the"
        f" head, and {each * 1e3:.3f} ms a token"
    )
    model = Model(first, each, runs, given.delay / 1000)
    for count, run in enumerate(runs, 1):
        made = model.here(count)
        print(
            f"  model, {count} here:    {made:8,.0f} tokens/s,"
            f" {made / run.rate:.2f} of what was measured"
        )
    for count in (3, 10, 30):
        rate, limit = model.apart(count)
        print(f"  model, {count:2} machines: {rate:8,.0f} tokens/s, limit: {limit}")
    full = model.alone(MAX_BATCH, model.delay) / model.held(MAX_BATCH, model.delay)
    print(f"  the head alone would be the limit from {full:.1f} machines on")


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


async def cuts(bench: Bench, brokers: list[Vault], count: int) -> None:
    """Print how soon a revocation at one broker holds at another."""
    asks = await brokers[0].register("busy", SCOPE)
    door = await brokers[0].register("door", resource_server=True)
    victims = [await brokers[0].register(f"v{name}", SCOPE) for name in range(count)]
    with ExitStack() as stack:
        for one in brokers:
            asked = [at(one, asks).token_request(SCOPE)] * 4
            stack.enter_context(loading(one.agents, asked, 4))
        times = [await cut(brokers, door, victim) for victim in victims]
    middle, worst = statistics.median(times), max(times)
    text = (
        f"revoked at one, inactive at another, all busy: p50 {middle:.1f} ms, target"
        f" 10, worst of {count} {worst:.1f} ms, target 100"
    )
    bench.targets.say(text, met=middle < 10 and worst < 100)


async def feed(bench: Bench, brokers: list[Vault], count: int) -> None:
    """Print how soon what one broker records is told by the feed of another."""
    reader, writer = await asyncio.open_unix_connection(brokers[1].operators)
    writer.write(request("GET", "/api/events"))
    times = []
    for number in range(count):
        began = time.perf_counter()
        made = await brokers[0].register(f"f{number}", SCOPE)
        while made.id.encode() not in await reader.readline():
            pass
        times.append((time.perf_counter() - began) * 1000)
    writer.close()
    middle, worst = statistics.median(times), max(times)
    text = (
        f"recorded at one, told by another's feed: p50 {middle:.1f} ms, worst of"
        f" {count} {worst:.1f} ms, target 250"
    )
    bench.targets.say(text, met=worst < 250)


async def away(bench: Bench, broker: Vault) -> None:
    """Print how soon a broker says that it grants nothing without the database.

    What it was recording just then waits for its outcome, up to ten seconds.
    """
    asked = (await broker.register("away", SCOPE)).token_request(SCOPE)
    lines = [await connect(broker.agents) for _ in range(2)]
    with bench.cluster.stopped():
        began = time.perf_counter()
        recorded = asyncio.ensure_future(lines[0].ask(asked))
        await asyncio.sleep(0.1)
        status, _ = await lines[1].ask(asked)
        took = time.perf_counter() - began
        assert status == 503, status
    text = f"503 {took:.2f} s after the database stopped, target 2"
    bench.targets.say(text, met=took < 2)
    await recorded
    while status != 200:
        status, _ = await lines[1].ask(asked)
        await asyncio.sleep(0.05)
    for line in lines:
        line.close()


async def failure(bench: Bench, brokers: list[Vault]) -> None:
    """Kill the broker that does what is done once; print who notices when."""
    working = (
        "SELECT b.id FROM agentvault.brokers b JOIN agentvault.brokers w"
        " ON w.id = 'work' AND w.run = b.run AND b.id <> 'work'"
    )
    ((worker,),) = bench.store.run(working)
    ids = {(one.home / "broker.id").read_text().strip(): one for one in brokers}
    victim = ids.pop(str(worker))
    other = next(iter(ids.values()))
    began = time.perf_counter()
    os.kill(victim.pid, signal.SIGKILL)
    silent = elsewhere = 0.0
    while not (silent and elsewhere):
        status = await other.operate("GET", "/api/status")
        alive = {one["id"] for one in status["team"]["brokers"] if one["alive"]}
        if not silent and worker not in alive:
            silent = time.perf_counter() - began
        if not elsewhere and bench.store.run(working) not in ([], [(worker,)]):
            elsewhere = time.perf_counter() - began
    text = f"a killed broker is listed as silent after {silent:.2f} s, target 2.5"
    bench.targets.say(text, met=silent < 2.5)
    text = f"another does what is done once after {elsewhere:.2f} s, target 10"
    bench.targets.say(text, met=elsewhere < 10)


async def fill(where: Home, events: int, agents: int) -> None:
    """Make a ledger of so many events and agents."""
    where.prepare()
    ledger = await Ledger.open(where, clock=SystemClock())
    kinds = [agent(f"agt_{number:016}") for number in range(agents)]
    for start in range(0, agents, _FILLED):
        part = kinds[start : start + _FILLED]
        await ledger.commit(*(note(agent=one.id) for one in part), changes=part)
    while (left := events - ledger.head.seq) > 0:
        drafts = (decision(f"agt_{n % agents:016}") for n in range(min(left, _FILLED)))
        await ledger.commit(*drafts)
    await ledger.close()


@contextmanager
def filled(bench: Bench, events: int, agents: int) -> Iterator[tuple[Vault, Database]]:
    """Run a broker on a store with so many events and agents."""
    name, store = f"e{events}a{agents}", bench.cluster.store()
    (bench.place / name).mkdir(mode=0o700)
    where = Home(bench.place / name, bench.place / name)
    uvloop.run(fill(where, events, agents))
    connector = Connector(store.url, TEAM)
    asyncio.run(copy_to_store(where, connector, store.url, OPERATOR))
    with vault(home(bench.place, name, store)) as running:
        yield running, store


def growth(bench: Bench, given: argparse.Namespace) -> None:
    """Print what a decision takes with many events and with many agents."""
    events, agents = FEW
    with ExitStack() as stack:
        few = stack.enter_context(filled(bench, events, agents))
        for what, less, number, size in (
            ("events", events, given.events, (given.events, agents)),
            ("agents", agents, given.agents, (events, given.agents)),
        ):
            if number:
                many = stack.enter_context(filled(bench, *size))
                ratio = uvloop.run(compared(bench, few, many, given.count))
                text = f"a decision with {number:,} {what} takes {ratio:.2f} of"
                bench.targets.say(f"{text} {less:,}, target 1.1", met=ratio < 1.1)


async def compared(
    bench: Bench,
    few: tuple[Vault, Database],
    many: tuple[Vault, Database],
    count: int,
) -> float:
    """Return what a token takes of the processors at one broker, as part of another."""
    found: dict[bool, list[float]] = {False: [], True: []}
    asks = [await one.register(f"g{uuid.uuid4().hex}", SCOPE) for one, _ in (few, many)]
    for turn in range(_ROUNDS + 1):
        for more, (broker, store) in enumerate((few, many)):
            run = await bench.issue([broker], asks[more], count // 2, store)
            if turn:  # the first warms up
                found[bool(more)].append(run.each("brokers", "database"))
    less, most = (statistics.median(found[more]) for more in (False, True))
    return most / less


def main(place: Path, given: argparse.Namespace) -> bool:
    """Run all of it in a folder; return whether no target was missed."""
    cluster = Cluster(place / "pg", ("shared_buffers=128MB", "max_wal_size=4GB"))
    cluster.create()
    cluster.start()
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        replica = cluster.replica()
        stack.callback(replica.stop)
        bench = Bench(place, cluster, replica)
        with ExitStack() as running:
            brokers = [
                running.enter_context(vault(home(place, name, bench.store)))
                for name in "abc"
            ]
            with vault(home(place, "alone")) as single:
                uvloop.run(rates(bench, single, brokers, given))
            uvloop.run(cuts(bench, brokers, given.revocations))
            uvloop.run(feed(bench, brokers, given.revocations))
            uvloop.run(away(bench, brokers[0]))
            uvloop.run(failure(bench, brokers))
        growth(bench, given)
    return not bench.targets.missed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--revocations", type=int, default=200)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--delay", type=float, default=0.25)
    asked = parser.parse_args()
    if asked.quick:
        asked.count, asked.revocations, asked.events, asked.agents = 600, 20, 20_000, 0
    folder = Path(tempfile.mkdtemp(prefix="avteam"))
    folder.chmod(0o755)
    try:
        sys.exit(0 if main(folder, asked) else 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
