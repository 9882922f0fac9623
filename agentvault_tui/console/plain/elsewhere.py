"""What an agent has at tenant and providers, how far its end is, whom it touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from agentvault_tui.console.draw import tenantwords
from agentvault_tui.console.draw.lines import clock_time, countdown, plural
from agentvault_tui.console.state.records import AgentRow, UpstreamStep


def held(agent: AgentRow, now: datetime) -> Iterator[str]:
    """Tell what one that is served has there, and what a revocation would end."""
    yield from accounts(agent)
    if agent.at_tenant:
        yield f"  Revoking ends at the tenant: {', '.join(agent.at_tenant)}."
    yield from _at_providers(agent)
    yield from _outside(agent, now)


def accounts(agent: AgentRow) -> Iterator[str]:
    """Tell which accounts it uses, and who uses them too."""
    if agent.connections:
        yield f"  Accounts: {', '.join(agent.connections)}, by Token Vault."
    if agent.shared_with:
        yield f"  Shared with: {', '.join(agent.shared_with)}."


def ended(agent: AgentRow, now: datetime) -> Iterator[str]:
    """Tell how far the tenant is with one that was cut off."""
    yield from accounts(agent)
    told = list(steps(agent.upstream))
    yield from told or ["  At the tenant: it held nothing there."]
    yield from remains(agent, now)


def remains(agent: AgentRow, now: datetime) -> Iterator[str]:
    """Tell which accounts were left, for whom, and how long what is outside works."""
    for text in tenantwords.stays(agent):
        yield f"  Left: {text}."
    yield from _outside(agent, now)


def steps(known: Iterable[UpstreamStep]) -> Iterator[str]:
    """Tell each step at tenant and providers as it stands."""
    for step in known:
        if step.status != "withdrawn":
            place = "provider" if step.connection else "tenant"
            told = step.status != "confirmed" and step.problem
            why = f": {step.problem}" if told else ""
            yield f"  At the {place}: {step.ends} {tenantwords.state(step)}{why}."


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
        yield f"  At the provider {one.connection}: {tenantwords.ahead(one)}."


def _outside(agent: AgentRow, now: datetime) -> Iterator[str]:
    until = agent.outside_until
    if until is not None and tenantwords.outside(agent, now):
        left = countdown(tenantwords.outside(agent, now))
        end = f"{clock_time(until)}, {left} from now"
        yield f"  Outside: a provider's token works until {end}."
