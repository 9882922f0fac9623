"""A hundred agents of three brokers, each of which fails at random, by a seed.

Afterwards what the service did, what agents were answered and the chain agree.
``AGENTVAULT_CHAOS_SEEDS="1 2 3"`` runs it with others than the suite's one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.command_line import plain_environment
from support.forked import Forked
from support.gateway_stand import Upstream
from support.patience import PATIENT
from support.postgres import TEAM, Cluster, Database
from support.postgres_relay import Relay
from support.vault import Vault

from agentvault_tui.home import Home
from agentvault_tui.ledger import verify_ledger

SEEDS = os.environ.get("AGENTVAULT_CHAOS_SEEDS", "14").split()
AGENTS, SECONDS, MOST = 100, 3.0, 40
AT_ONCE = 20
"""Requests under way, so that a slow machine answers each within its broker's time."""
SCOPES = ("read:calendar", "write:calendar", "write:files", "send:email")
SERVICE = """
allow_http = true
allow_private = true
[[routes]]
method = "*"
path = "/{rest*}"
scope = "write:calendar"
"""
LIMITS = f"""
[[limits]]
id = "files"
scopes = ["write:files"]
within = "24h"
count = {MOST}
over = "deny"
"""
SENDING = {
    "type": "agentvault:action",
    "action": "send:email",
    "resource": "mail:me",
    "parameters": {"recipients": ["bo@example.test"]},
}

OVERTAKEN = "revoked while it was being issued"
"""The reason of the end of what a revocation overtook; its agent is told no."""
GONE = (httpx.NetworkError, httpx.RemoteProtocolError)
"""What a client meets where a broker is killed. A timeout is a fault of the broker."""


class Member:
    """One broker, behind a relay of its own, in a process that may be killed."""

    def __init__(self, folder: Path, store: Database, upstream: Upstream) -> None:
        self.home, self.relay = folder / "home", Relay(store.cluster.folder)
        self.socket = folder / "relay"
        self.socket.mkdir(parents=True)
        (self.home / "services").mkdir(parents=True, mode=0o700)
        origin = f'origin = "http://127.0.0.1:{upstream.port}"'
        (self.home / "services" / "api.toml").write_text(origin + SERVICE)
        (self.home / "limits.toml").write_text(LIMITS)
        (self.home / "config.toml").write_text(
            f"[store]\nurl = {json.dumps(store.url_at(self.socket))}\n"
            f"[team]\nname = {json.dumps(TEAM)}\n"
            # A tenant that never answers: none has to be started.
            '[tenant]\nissuer = "http://127.0.0.1:9/"\nclient_id = "console"\n'
        )
        self.up = asyncio.Event()
        self.lives = False

    async def start(self) -> None:
        line = ("--home", str(self.home), "serve", "--listen", "127.0.0.1:0")
        self.process = Forked(line, plain_environment())
        self.vault = await asyncio.to_thread(Vault, self.home, self.process)
        self.up.set()

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.up.clear()
        self.process.send_signal(how)
        await asyncio.to_thread(self.process.wait)
        self.vault.close()
        self.process.stdout.close()

    def operator(self) -> httpx.AsyncClient:
        """Return a client of its own, whatever becomes of the broker."""
        uds = httpx.AsyncHTTPTransport(uds=self.vault.ready["operator_socket"])
        return httpx.AsyncClient(
            transport=uds, base_url="http://broker", timeout=PATIENT
        )

    def stands(self) -> bool:
        """Tell whether it writes, and all brokers live."""
        status = self.vault.operator.get("/api/status").json()
        alive = [one["alive"] for one in status["team"]["brokers"]]
        return not status.get("stale") and alive == [True] * 3

    def revoked(self, agents: set[str]) -> bool:
        """Tell whether those agents are revoked here."""
        get = self.vault.operator.get
        found = [get(f"/api/agents/{one}").json()["status"] for one in agents]
        return set(found) <= {"revoked"}


@dataclass
class Records:
    """What agents and the operator were answered."""

    allowed: set[str] = field(default_factory=set)
    """Ids of decisions that were answered so."""
    denied: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    active: Counter[str] = field(default_factory=Counter)
    """By decision how often its token, good for one action, was said to be active."""
    called: dict[str, int] = field(default_factory=dict)
    """The status of each call through the gateway."""
    cut: set[str] = field(default_factory=set)
    """Agents that were revoked at some broker."""
    late: list[str] = field(default_factory=list)
    """What was granted though it was asked for after a revocation's reply."""
    told: list[int] = field(default_factory=list)
    """Numbers of the events that a broker's feed told of."""

    @property
    def enough(self) -> bool:
        """Whether there is something to compare."""
        return bool(self.allowed) and 200 in self.called.values()


class Agents:
    """Agents that ask any broker for anything, until they are told to stop."""

    def __init__(self, members: list[Member], chance: random.Random) -> None:
        self.members, self.chance, self.records = members, chance, Records()
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=0)
        self.http = httpx.AsyncClient(timeout=PATIENT, trust_env=False, limits=limits)
        self.stop = asyncio.Event()
        self.turns = asyncio.Semaphore(AT_ONCE)
        self.revoked: set[str] = set()
        """Those whose revocation all have confirmed, or had no lease any more."""

    def add(self, name: str, *scopes: str, **more: Any) -> tuple[str, str]:
        """Register one; return its id and secret."""
        body = {"name": name, "owner": "olga", "scopes": scopes, **more}
        operator = self.members[0].vault.operator
        made = operator.post("/api/agents", json=body).json()
        return made["client_id"], made["client_secret"]

    async def run(self, agent: tuple[str, str], server: tuple[str, str]) -> None:
        """Be one of them."""
        kept: list[str] = []
        for number in count():
            await asyncio.sleep(self.chance.random() * 0.3)
            async with self.turns:
                if self.stop.is_set():
                    return
                before = agent[0] in self.revoked
                what = self.chance.choice([*SCOPES, "call", "call"])
                with suppress(*GONE):
                    if await self.do(what, number, agent, server, kept) and before:
                        self.records.late.append(f"{agent[0]} {what}")

    async def do(
        self,
        what: str,
        number: int,
        agent: tuple[str, str],
        server: tuple[str, str],
        kept: list[str],
    ) -> bool:
        """Ask for one thing; tell whether it was granted."""
        if what == "call" and kept:
            return await self.call(self.chance.choice(kept), f"/{agent[0]}/{number}")
        scope = "write:calendar" if what == "call" else what
        said = await self.ask(agent, scope)
        token = said.get("access_token")
        if token and scope == "write:calendar":
            kept.append(token)
        elif token and scope == "send:email":
            await self.use(server, token, said["decision_id"])
        return token is not None

    async def somewhere(self) -> str:
        """Return where a broker listens, or did a moment ago."""
        up = [one for one in self.members if one.up.is_set()]
        member = self.chance.choice(up or self.members)
        await member.up.wait()
        return str(member.vault.ready["agents_url"])

    async def ask(self, agent: tuple[str, str], scope: str) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "scope": scope}
        if scope == "send:email":
            form["authorization_details"] = json.dumps([SENDING])
        url = f"{await self.somewhere()}/oauth/token"
        reply = await self.http.post(url, data=form, auth=agent)
        said, records = dict(reply.json()), self.records
        if said.get("reason") == "outcome_unknown":
            records.unknown.add(said["decision_id"])
        elif "decision_id" in said:
            to = records.allowed if reply.status_code == 200 else records.denied
            to.add(said["decision_id"])
        else:
            assert reply.status_code == 503, said
        await rest(reply)
        return said

    async def call(self, token: str, target: str) -> bool:
        headers = {"authorization": f"Bearer {token}"}
        url = f"{await self.somewhere()}/gw/api{target}"
        reply = await self.http.post(url, headers=headers)
        self.records.called[target] = reply.status_code
        await rest(reply)
        return reply.status_code == 200

    async def use(self, server: tuple[str, str], token: str, decision: str) -> None:
        """Ask every broker at once about a token that is good for one action."""

        async def asked(member: Member) -> bool:
            with suppress(*GONE):
                url = f"{member.vault.ready['agents_url']}/oauth/introspect"
                reply = await self.http.post(url, data={"token": token}, auth=server)
                return bool(reply.json().get("active"))
            return False

        answers = await asyncio.gather(*map(asked, self.members))
        self.records.active[decision] += sum(answers)

    async def revoke(self, agents: list[tuple[str, str]]) -> None:
        """Revoke a few of them, one after the other, at any broker."""
        for agent_id, _ in self.chance.sample(agents, 10):
            await asyncio.sleep(self.chance.random() * 0.6)
            member = self.chance.choice(self.members)
            await member.up.wait()
            body = {"agent_id": agent_id, "reason": "drill"}
            with suppress(*GONE):
                # The broker's own client is closed when it is killed, in this thread.
                async with member.operator() as http:
                    answer = await http.post("/api/agents/revoke", json=body)
                if answer.status_code == 503:
                    continue  # registered a moment ago, and the store is away
                assert answer.status_code == 200, answer.text
                self.records.cut.add(agent_id)
                if answer.json()["recorded"]:
                    self.revoked.add(agent_id)


async def rest(reply: httpx.Response) -> None:
    """Wait as a broker asks for that cannot answer now (RFC 9110 section 10.2.3)."""
    if reply.status_code == 503:
        await asyncio.sleep(float(reply.headers["retry-after"]))


async def fail(member: Member, chance: random.Random, ends: float) -> None:
    """Let a broker, or its way to the store, fail in one way after the other."""
    loop, relay = asyncio.get_running_loop(), member.relay
    kinds = ["kill", "kill", "stop", "cut", "late", "silent", "lose", "halve"]
    while loop.time() < ends:
        await asyncio.sleep(chance.random() * 0.5)
        match chance.choice(kinds[2:] if member.lives else kinds):
            case "kill":
                await member.kill()
                await member.start()
            case "stop":
                member.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(chance.choice([0.1, 2.2]))
                member.process.send_signal(signal.SIGCONT)
            case "cut":
                relay.cut()
            case "late":
                relay.delay = 0.05
                await asyncio.sleep(0.5)
                relay.delay = 0.0
            case "silent":
                relay.silent = True
                await asyncio.sleep(0.7)
                relay.silent = False
            case "lose":
                relay.word, relay.lose = b"append_or_follow", "answer"
                await asyncio.sleep(0.2)
                relay.lose = ""
            case "halve":
                relay.halve = True
                await asyncio.sleep(0.1)
                relay.halve = False


async def follow(member: Member, told: list[int]) -> None:
    """Note the numbers of the events that the feed of a broker tells of."""
    async with member.operator() as http:
        while True:  # a console that is too far behind is cut off, and comes back
            last = {"last-event-id": str(told[-1])} if told else {}
            async with http.stream("GET", "/api/events", headers=last) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("id: "):
                        told.append(int(line[4:]))  # noqa: PERF401 - as each comes


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("seed", SEEDS)
async def test_agents_the_service_and_the_chain_tell_the_same_after_any_faults(
    short: Path, cluster: Cluster, upstream: Upstream, seed: str
) -> None:
    """Nothing is done or answered that is not recorded, and no limit passed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    store = await asyncio.to_thread(cluster.store)
    members = [Member(short / name, store, upstream) for name in "abc"]
    members[2].lives = True
    agents = Agents(members, chance)
    records = agents.records
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(agents.http)
        for member in members:
            await stack.enter_async_context(member.relay.listening(member.socket))
            await member.start()
            stack.push_async_callback(member.kill, signal.SIGTERM)
        names = [f"agent {number}" for number in range(AGENTS)]
        every = [await asyncio.to_thread(agents.add, one, *SCOPES) for one in names]
        server = await asyncio.to_thread(agents.add, "api", resource_server=True)
        feed = asyncio.create_task(follow(members[2], records.told))
        tasks = [asyncio.create_task(agents.run(one, server)) for one in every]
        tasks.append(asyncio.create_task(agents.revoke(every)))
        ends = asyncio.get_running_loop().time() + SECONDS
        await asyncio.gather(*(fail(member, chance, ends) for member in members))
        for member in members:
            await until(member.stands)
        await until(lambda: records.enough)
        agents.stop.set()
        await asyncio.gather(*tasks)
        await until(lambda: not store.run(UNFINISHED)[0][0])
        for member in members:
            await until(partial(member.revoked, records.cut))
        ((last,),) = store.run(HEAD)
        await until(lambda: records.told[-1:] == [last])
        feed.cancel()
        rows = await asyncio.to_thread(store.run, EVENTS)
    events = [json.loads(bytes(body)) for (body,) in rows]
    compare(events, records, Counter(one.target for one in upstream.received))
    first = records.told[0]
    assert records.told == list(range(first, first + len(records.told)))
    for member in members:
        report = verify_ledger(Home(member.home, member.home))
        assert report.ok, report


HEAD = "SELECT seq FROM agentvault.head"
EVENTS = "SELECT body FROM agentvault.events ORDER BY seq"
UNFINISHED = """
SELECT count(*) FILTER (WHERE kind = 'gateway.attempt')
  - count(*) FILTER (WHERE kind = 'gateway.result')
  FROM (SELECT convert_from(body, 'UTF8')::jsonb->>'type' FROM agentvault.events)
  AS events (kind)"""
"""How many calls have no result yet."""


async def until(done: Callable[[], object]) -> None:
    """Wait for what other processes do in their own time."""
    async with asyncio.timeout(PATIENT):
        while not await asyncio.to_thread(done):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


def compare(
    events: list[dict[str, Any]], records: Records, received: Counter[str]
) -> None:
    """See that the chain, the agents and the service tell the same."""
    decided = {e["decision_id"]: e for e in events if e["type"] == "token.decision"}
    allowed = {name for name, e in decided.items() if e["outcome"] == "allowed"}
    assert records.allowed <= allowed
    ends = [e for e in events if e["type"] == "token.revoked"]
    ended = {e["decision_id"] for e in ends if e["reason"] == "not_delivered"}
    overtaken = {e["decision_id"] for e in ends if e["reason"] == OVERTAKEN}
    assert records.denied <= (decided.keys() - allowed) | overtaken
    assert records.unknown & allowed <= ended
    assert not records.allowed & ended
    used = Counter(e["decision_id"] for e in events if e["type"] == "token.redeemed")
    assert max([*used.values(), *records.active.values()]) == 1
    assert {name for name, times in records.active.items() if times} <= used.keys()
    files = [one for one in allowed if decided[one]["action"] == "write:files"]
    assert len(files) <= MOST
    attempts = {
        e["detail"]["call_id"]: e["detail"]["path"]
        for e in events
        if e["type"] == "gateway.attempt"
    }
    results = Counter(
        e["detail"]["call_id"] for e in events if e["type"] == "gateway.result"
    )
    assert max(received.values()) == 1
    assert received.keys() <= set(attempts.values())
    assert {one for one, status in records.called.items() if status == 200} <= (
        received.keys()
    )
    assert results == dict.fromkeys(attempts, 1)
    assert not records.late
