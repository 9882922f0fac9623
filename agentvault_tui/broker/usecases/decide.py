"""Decide about a request: the one place where policy is asked, whatever the door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentvault_tui.broker.core import Broker
from agentvault_tui.model import Action, Agent, Verdict
from agentvault_tui.policy import Inputs


def foresee(
    broker: Broker,
    agent: Agent,
    action: Action,
    source: str | None = None,
    details: tuple[Mapping[str, Any], ...] | None = None,
    *,
    backchannel: bool = False,
    depth: int = 0,
) -> Verdict:
    """Say how a request would be answered now, with all the facts it depends on.

    Args:
        broker: the broker.
        agent: who asks.
        action: what for.
        source: the address the request came from; None where it is not known, and a
            rule that reads it then permits nothing.
        details: ``authorization_details`` (RFC 9396), if any were sent.
        backchannel: whether the agent itself asks for a person (CIBA Core 7).
        depth: how often the token it acts on was passed on (RFC 8693).

    Returns:
        the verdict; its facts are `Inputs.record`.
    """
    environment = broker.surroundings.at(source)
    environment = environment._replace(delegated=depth > 0, depth=depth)
    inputs = Inputs.of(agent, action, environment, details, backchannel=backchannel)
    return replace(broker.policy.answer(inputs), facts=inputs.record())
