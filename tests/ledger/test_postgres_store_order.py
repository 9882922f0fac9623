"""Commits wait in lanes and go over two connections: the last one is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

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
    EventQuery,
    Ledger,
    Meta,
    urgent_line,
    verify_ledger,
    writer,
)
from agentvault_tui.ledger.postgres_store import PostgresStore
from agentvault_tui.model import AgentId, Event, EventType

BROKERS = "abc"
LANES = ("urgent", "queue", "lazy", "call")
KINDS = ("set k", "set m", "void", "grant")
Ask = tuple[str, str, str]
"""Which broker is asked, in which lane, and for what."""
ASKS = st.tuples(
    st.sampled_from(BROKERS), st.sampled_from(LANES), st.sampled_from(KINDS)
).filter(lambda ask: ask[2] != "grant" or ask[1] in {"queue", "lazy"})
REGISTERED, RESULT = EventType.AGENT_REGISTERED, EventType.GATEWAY_RESULT


class Done(NamedTuple):
    """One commit that was placed."""

    who: str
    kind: str
    name: str
    """The value, or the token."""


class Brokers:
    """Brokers on one store, which are asked all at once, again and again."""

    def __init__(self, folder: Path, store: Database) -> None:
        self.homes = {name: Home(folder / name, folder / name) for name in BROKERS}
        self.clock = ManualClock(datetime.now(UTC))
        self.store = store
        self.ledgers = dict[str, Ledger]()
        self.heard = {name: list[int]() for name in BROKERS}
        """The events that each was told of, whoever wrote them."""
        self.told = {name: dict[str, Any]() for name in BROKERS}
        """The values that others' commits put into each one's memory."""
        self.examples = count(1)

    async def open(self) -> None:
        for name, home in self.homes.items():
            made = await Ledger.open(
                home, clock=self.clock, settings=self.store.settings
            )
            self.ledgers[name] = made
            made.listeners.written.append(
                lambda events, _, name=name: self.heard[name].extend(
                    event.seq for event in events
                )
            )

            async def followed(
                events: tuple[Event, ...], changes: Sequence[Change], name: str = name
            ) -> None:
                self.heard[name].extend(event.seq for event in events)
                values = (one for one in changes if isinstance(one, Meta))
                self.told[name].update({one.key: one.value for one in values})

            made.listeners.followed.append(followed)

    async def close(self) -> None:
        for ledger in self.ledgers.values():
            await ledger.close()

    async def ask(self, here: int, asks: Sequence[Ask]) -> list[Done]:
        """Ask for all of it before anything is placed; return what was."""
        who, commits, made = AgentId(f"agt_{here}"), [], list[Done]()
        for number, (broker, lane, kind) in enumerate(asks):
            name = f"tok_{here}_{number}"
            change: Change
            match kind:
                case "grant":
                    change = token(self.clock, name, who)
                case "void":
                    change = DropAgentTokens(who)
                case _:
                    change = Meta(f"{kind} {here}", name)
            draft = decision(who)
            if kind != "grant":
                draft = note(RESULT if lane == "call" else REGISTERED, who)
            commits.append(
                self.ledgers[broker].commit(
                    draft,
                    changes=[change],
                    urgent=lane == "urgent",
                    lazy=lane == "lazy",
                )
            )
            made.append(Done(broker, kind, name))
        outcomes = await asyncio.gather(*commits, return_exceptions=True)
        for one in outcomes:
            assert isinstance(one, tuple | OvertakenError), one
        urgent = [ask[1] == "urgent" for ask in asks]
        refused = [isinstance(one, OvertakenError) for one in outcomes]
        assert not any(map(all, zip(urgent, refused, strict=True)))
        return [one for one, gone in zip(made, refused, strict=True) if not gone]

    async def in_force(self) -> tuple[dict[str, str], set[str]]:
        """Return the values and tokens that every broker would start with."""
        found = list[tuple[dict[str, Any], set[str]]]()
        for ledger in self.ledgers.values():
            await ledger.confirm()
            loaded = await ledger.load()
            found.append((dict(loaded.meta), {str(one.id) for one in loaded.tokens}))
        assert all(one == found[0] for one in found), found
        return found[0]

    async def check(self, asks: Sequence[Ask]) -> None:
        here = next(self.examples)
        done = await self.ask(here, asks)
        values, tokens = await self.in_force()
        for kind in ("set k", "set m"):
            last = {one.who: one for one in done if one.kind == kind}
            value = values.get(f"{kind} {here}")
            by = [one.who for one in last.values() if one.name == value]
            assert bool(by) is bool(last), (kind, value, done)
            for name, told in self.told.items():
                if by and name not in last:
                    assert told[f"{kind} {here}"] == value
        for at, one in enumerate(done):
            if one.kind == "grant":
                voids = [later for later in done if later.kind == "void"]
                after = [later for later in done[at:] if later.kind == "void"]
                if any(later.who == one.who for later in after):
                    assert one.name not in tokens, done
                elif not any(void.who != one.who for void in voids):
                    assert one.name in tokens, done

    async def check_whole(self) -> None:
        """See that all have one chain, were told of all of it in order, and restart."""
        before = await self.in_force()
        chains = []
        for name, ledger in self.ledgers.items():
            seqs, after = list[Event](), 0
            while page := (
                await ledger.events(EventQuery(after=after, limit=1000))
            ).events:
                seqs += page
                after = page[-1].seq
            chains.append(seqs)
            assert self.heard[name] == [event.seq for event in seqs]
            assert self.heard[name] == list(range(1, len(seqs) + 1))
        assert all(one == chains[0] for one in chains)
        await self.close()
        self.ledgers.clear()
        await self.open()
        assert await self.in_force() == before


@contextmanager
def few_at_once() -> Iterator[None]:
    """Have transactions so small that lanes are not emptied by one, on a slow disk."""
    write_copy = PostgresStore._write_copy

    async def slowly(*args: Any) -> None:
        await asyncio.sleep(0.003)
        await write_copy(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresStore, "_write_copy", slowly)
        patch.setattr(writer, "MAX_BATCH", 2)
        patch.setattr(urgent_line, "MAX_BATCH", 2)
        patch.setattr(writer, "_CALLS_ALONE", 2)
        patch.setattr(writer, "_CALLS_BESIDE", 1)
        yield


def of_one(*asks: tuple[str, str]) -> list[Ask]:
    return [("a", *ask) for ask in asks]


def test_of_two_commits_under_one_key_the_one_asked_last_is_in_force(
    short: Path, store: Database
) -> None:
    """In whatever lanes, at whatever broker: everywhere, and after a restart.

    Three brokers write at once, each over two connections.
    """
    brokers, loop = Brokers(short, store), asyncio.new_event_loop()
    loop.run_until_complete(brokers.open())

    @settings(max_examples=60)
    @given(st.lists(ASKS, min_size=2, max_size=12))
    @example(of_one(("call", "set m"), ("call", "set k"), ("queue", "set k")))
    @example(of_one(*[("queue", "set m")] * 2, ("queue", "set k"), ("call", "set k")))
    @example(of_one(*[("urgent", "set k")] * 3, ("queue", "set k")))
    @example(of_one(*[("urgent", "set k")] * 2, ("urgent", "void"), ("queue", "grant")))
    @example([(one, "urgent", "void") for one in BROKERS] * 3)
    def run(asks: list[Ask]) -> None:
        loop.run_until_complete(brokers.check(asks))

    try:
        with few_at_once():
            run()
            loop.run_until_complete(brokers.check_whole())
    finally:
        loop.run_until_complete(brokers.close())
        loop.close()
    reports = [verify_ledger(home) for home in brokers.homes.values()]
    assert all(one.ok for one in reports), reports
