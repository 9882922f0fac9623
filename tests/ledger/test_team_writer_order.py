"""Commits of one broker wait in several lanes: the one asked last stays in force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.ledger_kit import decision, note, token
from support.manual_clock import ManualClock
from support.postgres import Database

from agentvault_tui.errors import OvertakenError
from agentvault_tui.home import Home
from agentvault_tui.ledger import (
    Change,
    DropAgentTokens,
    Ledger,
    Meta,
    verify_ledger,
    writer,
)
from agentvault_tui.model import AgentId, Event, EventType, Token

Ask = tuple[str, str]
"""A lane, and what is asked there."""
LANES = ("urgent", "queue", "lazy", "call")
KINDS = ("set k", "set m", "void", "grant")
ASKS = st.tuples(st.sampled_from(LANES), st.sampled_from(KINDS)).filter(
    lambda ask: ask[1] != "grant" or ask[0] in {"queue", "lazy"}
)


@dataclass
class Asked:
    """What one broker was asked and another was told, in examples one after another."""

    a: Ledger
    b: Ledger
    clock: ManualClock
    names: Iterator[int] = field(default_factory=lambda: count(1))
    told: dict[str, Any] = field(default_factory=dict)
    """What the other broker's memory has."""

    async def follow(self, _: tuple[Event, ...], changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Meta):
                self.told[change.key] = change.value

    async def at_once(self, asks: Sequence[Ask]) -> tuple[dict[str, str], set[str]]:
        """Ask for all of it before anything is placed; return what is to be in force.

        Returns:
            the values that were set last, and the tokens that were not voided after.
        """
        here = next(self.names)
        who, commits, made = AgentId(f"agt_{here}"), [], list[Change]()
        for number, (lane, kind) in enumerate(asks):
            name = f"{here} {number}"
            verb, _, key = kind.partition(" ")
            change: Change
            match verb:
                case "set":
                    change = Meta(f"{key} {here}", name)
                case "void":
                    change = DropAgentTokens(who)
                case _:
                    change = token(self.clock, f"tok_{here}_{number}", who)
            kind_of_event = (
                EventType.GATEWAY_RESULT
                if lane == "call"
                else EventType.AGENT_REGISTERED
            )
            draft = decision(who) if verb == "grant" else note(kind_of_event, who)
            urgent, lazy = lane == "urgent", lane == "lazy"
            done = self.a.commit(draft, changes=[change], urgent=urgent, lazy=lazy)
            commits.append(done)
            made.append(change)
        others = self.b.commit(note(agent="agt_b"), changes=[Meta("b", str(here))])
        values, tokens = dict[str, str](), set[str]()
        done_all = await asyncio.gather(*commits, others, return_exceptions=True)
        for change, outcome in zip(made, done_all, strict=False):
            if isinstance(outcome, OvertakenError):
                continue
            assert isinstance(outcome, tuple), outcome
            match change:
                case Meta():
                    values[change.key] = str(change.value)
                case DropAgentTokens():
                    tokens.clear()
                case Token():
                    tokens.add(change.id)
        return values, tokens


@contextmanager
def few_at_once() -> Iterator[None]:
    """Have transactions so small that lanes are not emptied by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "MAX_BATCH", 2)
        patch.setattr(writer, "_CALLS_ALONE", 2)
        patch.setattr(writer, "_CALLS_BESIDE", 1)
        yield


async def in_force(ledger: Ledger) -> tuple[dict[str, Any], set[str]]:
    """Return what a start would load: values, and tokens."""
    loaded = await ledger.load()
    return dict(loaded.meta), {str(one.id) for one in loaded.tokens}


def test_of_two_commits_under_one_key_the_one_asked_last_is_in_force(
    short: Path, store: Database
) -> None:
    """In whatever lanes they wait: at every broker, in memory, and after a restart."""
    homes = [Home(short / name, short / name) for name in "ab"]
    clock = ManualClock(datetime.now(UTC))
    loop = asyncio.new_event_loop()

    async def begin() -> Asked:
        a, b = [
            await Ledger.open(one, clock=clock, settings=store.settings)
            for one in homes
        ]
        asked = Asked(a, b, clock)
        b.on_followed = asked.follow
        return asked

    asked = loop.run_until_complete(begin())

    async def check(asks: Sequence[Ask]) -> None:
        before = await in_force(asked.a)
        values, tokens = await asked.at_once(asks)
        await asked.a.confirm()
        await asked.b.confirm()
        for ledger in (asked.a, asked.b):
            kept, there = await in_force(ledger)
            assert ({key: kept[key] for key in values}, there - before[1]) == (
                values,
                tokens,
            )
        assert {key: asked.told[key] for key in values} == values

    async def end() -> None:
        found = [await in_force(one) for one in (asked.a, asked.b)]
        for opened in (asked.a, asked.b):
            await opened.close()
        for home in homes:
            again = await Ledger.open(home, clock=clock, settings=store.settings)
            found.append(await in_force(again))
            await again.close()
        assert all(one == found[0] for one in found)

    @settings(max_examples=40)
    @given(st.lists(ASKS, min_size=2, max_size=10))
    @example([("call", "set m"), ("call", "set k"), ("queue", "set k")])
    @example([("queue", "set m")] * 2 + [("queue", "set k"), ("call", "set k")])
    @example([*[("urgent", "set k")] * 2, ("urgent", "set m"), ("queue", "set m")])
    @example([*[("urgent", "set k")] * 2, ("urgent", "void"), ("queue", "grant")])
    def run(asks: list[Ask]) -> None:
        loop.run_until_complete(check(asks))

    try:
        with few_at_once():
            run()
    finally:
        loop.run_until_complete(end())
        loop.close()
    reports = [verify_ledger(home) for home in homes]
    assert all(one.ok for one in reports), reports
