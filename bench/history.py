"""Deciding the recorded history again, and advice over it.

    python bench/history.py [plan|advice] [--decisions 1000000] [--dir DIR]

A ledger of decisions that differ (agent, scope, resource, amount, source, time) is
filled as the broker records them. ``plan``: a candidate policy over all of them within
60 s, and how many answers were made anew; then the replay of the same. ``advice``: all
advice over the same within 20 s. Each is also told as a multiple of reading the records
alone, in the same run.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import uvloop

from agentvault_tui.broker.usecases.policy_change import kept_texts
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, schema
from agentvault_tui.model import (
    Action,
    Actor,
    ActorKind,
    Agent,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    new_id,
)
from agentvault_tui.policy import Environment, Inputs, Policy, PolicyTexts
from agentvault_tui.watch.advice import Window, advise
from agentvault_tui.watch.history import records
from agentvault_tui.watch.plan import plan, replay

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.manual_clock import ManualClock

Found = TypeVar("Found")
START = datetime(2026, 8, 1, tzinfo=UTC)
DAYS = 90
AGENTS = 50
_BATCH = 500
SOURCES = ("policy.cedar", "scopes.toml", "limits.toml")
PLANNED, ADVISED = 60.0, 20.0
SYSTEM = Actor(ActorKind.SYSTEM, "bench", "bench")
CANDIDATE = """
@id("sends-and-payments-wait") @why("w") @obligation("step_up")
permit (principal, action in [Action::"sends", Action::"payments"], resource)
unless { context has amount && context.amount <= 100000 };
@id("others") @why("w") @obligation("allow")
permit (principal, action, resource)
unless { action in Action::"deletions" };
"""


def _agent(number: int, scopes: list[str]) -> Agent:
    chance = random.Random(number)  # noqa: S311 - a repeatable load, no secret
    return Agent(
        AgentId(f"agt_{number:016}"),
        f"agt_{number:016}",
        f"agent-{number}",
        "alice@acme.test",
        "",
        tuple(sorted(chance.sample(scopes, 8))),
        START - timedelta(days=number),
    )


def _decision(
    chance: random.Random, agent: Agent, policy: Policy, now: datetime
) -> Draft:
    """Decide one request as the broker does, and record its facts."""
    scope = chance.choice(agent.scopes[:6])  # two of the eight are never used
    parameters: dict[str, object] = {}
    if scope.startswith("send:payment"):
        amount = chance.randrange(1, 10_000) * 100
        parameters = {"amount": amount, "currency": chance.choice(["EUR", "USD"])}
    elif scope.startswith("send"):
        parameters = {"recipients": chance.randrange(1, 40)}
    elif not scope.startswith("read"):
        parameters = {"count": chance.randrange(1, 200)}
    action = Action((scope,), scope, f"thing:{chance.randrange(500)}", parameters)
    source = f"10.0.{chance.randrange(8)}.{chance.randrange(250)}"
    inputs = Inputs.of(agent, action, Environment.at(now, UTC, source=source))
    verdict = policy.answer(inputs)
    detail: dict[str, object] = {
        "scope": scope,
        "facts": inputs.record(),
        "policy_version": verdict.policy_version,
    }
    if parameters:
        detail["parameters"] = parameters
    if verdict.outcome is Outcome.ESCALATED:
        detail["stepup_id"] = new_id("sup")
    return Draft(
        EventType.TOKEN_DECISION,
        Actor(ActorKind.AGENT, agent.id, agent.name),
        agent_id=agent.id,
        action=scope,
        resource=action.resource,
        outcome=verdict.outcome,
        reason=verdict.reason,
        rule=verdict.rule,
        decision_id=DecisionId(new_id("dec")),
        detail=detail,
    )


async def fill(home: Home, decisions: int) -> None:
    """Record so many decisions over 90 days."""
    clock = ManualClock(START)
    ledger = await Ledger.open(home, clock=clock)
    policy = Policy.of(PolicyTexts(), SOURCES)
    texts, named = kept_texts(policy)
    detail = {"policy_version": policy.version, **named}
    await ledger.commit(
        Draft(EventType.BROKER_STARTED, SYSTEM, detail=detail), changes=texts
    )
    scopes = [scope.name for scope in policy.catalogue]
    agents = [_agent(number, scopes) for number in range(AGENTS)]
    await ledger.commit(changes=agents)
    chance = random.Random(1)  # noqa: S311 - a repeatable load, no secret
    step = timedelta(days=DAYS).total_seconds() / (decisions / _BATCH)
    for _ in range(decisions // _BATCH):
        clock.advance(step)
        now = clock.now()
        drafts = [
            _decision(chance, chance.choice(agents), policy, now) for _ in range(_BATCH)
        ]
        await ledger.commit(*drafts)
    await ledger.close()


def timed(work: Callable[[], Found]) -> tuple[Found, float]:
    """Do *work*; return what it found, and the seconds it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def measure(home: Home, sections: list[str]) -> bool:
    """Run the sections; tell whether all met their targets."""
    db, met = schema.open_reader(home.database), True
    count, base = timed(lambda: sum(1 for _ in records(db)))
    print(f"reading {count:,} decisions: {base:.1f} s")
    if "plan" in sections:
        new = Policy.of(PolicyTexts(CANDIDATE), SOURCES)
        lasts = timedelta(minutes=5)
        found, took = timed(lambda: plan(db, new, "x", lasts=lasts))
        print(
            f"plan: {found.decisions:,} decisions in {took:.1f} s"
            f" ({took / base:.1f} readings), {found.made:,} made anew,"
            f" {found.mismatches} mismatches, {len(found.changes)} changes"
        )
        met &= took <= PLANNED
        again, took = timed(lambda: replay(db))
        print(
            f"replay: {again.decisions:,} decisions in {took:.1f} s"
            f" ({took / base:.1f} readings), {again.made:,} made anew,"
            f" {again.mismatches} mismatches"
        )
    if "advice" in sections:
        until = START + timedelta(days=DAYS)
        window = Window(until - timedelta(days=30), until)
        policy = Policy.of(PolicyTexts(), SOURCES)
        told, took = timed(lambda: advise(db, policy, window))
        print(
            f"advice: {len(told)} pieces in {took:.1f} s ({took / base:.1f} readings)"
        )
        met &= took <= ADVISED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory of this process, which also filled the ledger: {peak} MiB")
    db.close()
    return met


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=["plan", "advice"])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--dir", type=Path, default=None)
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="history-bench-", dir=asked.dir))
    try:
        vault = Home(place / "home", place / "home")
        vault.prepare()
        _, filled = timed(lambda: uvloop.run(fill(vault, asked.decisions)))
        print(
            f"{asked.decisions:,} decisions of {AGENTS} agents filled in {filled:.0f} s"
        )
        good = measure(vault, asked.sections)
    finally:
        shutil.rmtree(place)
    sys.exit(0 if good else 1)
