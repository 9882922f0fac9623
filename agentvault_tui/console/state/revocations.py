"""Words a revocation at tenant and providers, for console, plain mode and CLI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from agentvault_tui.console.state.moments import clock_time, countdown, plural
from agentvault_tui.console.state.records import AgentRow, AtProvider, UpstreamStep

PROVIDERS: Final = 3
"""Of an agent, named one by one."""
_OVER: Final = {
    "confirmed": ("confirmed", " "),
    "failed": ("given up", " after "),
    "left": ("left", " after "),
}
"""How a step ended, and what stands before the time it took."""


def outside(agent: AgentRow, now: datetime) -> float:
    """Return for how many seconds a token that left already can still be used."""
    until = agent.outside_until
    return max((until - now).total_seconds(), 0.0) if until else 0.0


def headline(agent: AgentRow) -> str:
    """Say in few words how far they are; nothing where nothing is held."""
    steps = [s for s in agent.upstream if s.status not in {"withdrawn", "left"}]
    for step in steps:
        if step.status == "failed" and step.reason != "no_credential":
            return f"{'' if step.connection else 'tenant: '}{step.ends} given up"
    at_tenant = [step for step in steps if not step.connection]
    done = [step for step in at_tenant if step.status == "confirmed"]
    if len(done) < len(at_tenant):
        lacking = any(step.reason == "no_credential" for step in at_tenant)
        why = ", no credential" if lacking else ""
        return f"tenant {len(done)} of {len(at_tenant)}{why}"
    for step in steps:
        if step.status == "pending":
            return f"{step.ends} pending"
    if not done:
        return ""
    return f"tenant confirmed {took(max(step.ms or 0.0 for step in done))}"


def ahead(one: AtProvider) -> str:
    """Say what a revocation would do to an account at its provider."""
    if not one.known:
        return "nothing revokes there, tokens work until they end"
    if one.kept_for:
        return f"left, {', '.join(one.kept_for)} would lose it too"
    if one.may_cut:
        return f"revoked, perhaps for {', '.join(one.may_cut)} too"
    return "the token is revoked"


def stays(agent: AgentRow) -> list[str]:
    """Say which accounts others use as well, who are served; of many, some."""
    told = [
        f"{one.connection}, which {', '.join(one.agents)} "
        f"{'uses' if len(one.agents) == 1 else 'use'} too"
        for one in agent.shared[:PROVIDERS]
    ]
    more = len(agent.shared) - PROVIDERS
    return [*told, f"and {more} more"] if more > 0 else told


def state(step: UpstreamStep, *, brief: bool = False) -> str:
    """Say how one step stands; *brief*, where there is room for no more."""
    if step.reason == "no_credential":
        return "no credential"
    if step.status in _OVER:
        word, between = _OVER[step.status]
        if step.ms is None or (brief and step.status == "failed"):
            return word
        return took(step.ms) if brief else f"{word}{between}{took(step.ms)}"
    if not step.attempts:
        return "pending"
    again = f" at {clock_time(step.next_at)}" if step.next_at and not brief else ""
    return f"retry {step.attempts}{again}"


def took(ms: float) -> str:
    """Write a duration: milliseconds below a second, then seconds, then a clock's."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else countdown(ms / 1000)


def elsewhere(agent: AgentRow, now: datetime) -> Iterator[str]:
    """Tell what an agent has at tenant and providers, and what a revocation ends."""
    if agent.connections:
        yield f"  Accounts: {', '.join(agent.connections)}, by Token Vault."
    if agent.shared_with:
        yield f"  Shared with: {', '.join(agent.shared_with)}."
    if agent.revoked:
        yield from [*steps(agent.upstream)] or [
            "  At the tenant: it held nothing there."
        ]
        yield from remains(agent, now)
        return
    if agent.at_tenant:
        yield f"  Revoking ends at the tenant: {', '.join(agent.at_tenant)}."
    yield from _at_providers(agent)
    yield from _outside(agent, now)


def remains(agent: AgentRow, now: datetime) -> Iterator[str]:
    """Tell which accounts were left, for whom, and how long what is outside works."""
    for text in stays(agent):
        yield f"  Left: {text}."
    yield from _outside(agent, now)


def steps(known: Iterable[UpstreamStep]) -> Iterator[str]:
    """Tell each step at tenant and providers as it stands."""
    for step in known:
        if step.status != "withdrawn":
            place = "provider" if step.connection else "tenant"
            told = step.status != "confirmed" and step.problem
            why = f": {step.problem}" if told else ""
            yield f"  At the {place}: {step.ends} {state(step)}{why}."


def touches(agent: AgentRow, now: datetime) -> str:
    """Tell before a revocation what it ends there, and whom else it touches or not."""
    told = [f"At the tenant it ends {', '.join(agent.at_tenant) or 'nothing'}."]
    if agent.connections:
        number = plural(len(agent.connections), "account")
        told.append(f"It uses {number}: {', '.join(agent.connections)}.")
        names = ", ".join(agent.shared_with)
        shares = f"What it shares with {names} stays" if names else "Nobody shares one"
        told.append(f"{shares}.")
    told += [line.strip() for line in _at_providers(agent)]
    told += [line.strip() for line in _outside(agent, now)]
    return " ".join(told)


def _at_providers(agent: AgentRow) -> Iterator[str]:
    for one in agent.at_providers:
        yield f"  At the provider {one.connection}: {ahead(one)}."


def _outside(agent: AgentRow, now: datetime) -> Iterator[str]:
    until, seconds = agent.outside_until, outside(agent, now)
    if until is not None and seconds:
        left = countdown(seconds)
        end = f"{clock_time(until)}, {left} from now"
        yield f"  Outside: a provider's token works until {end}."
