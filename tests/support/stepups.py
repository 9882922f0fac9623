"""Step-ups held and approved in a bench, and a gate that holds a record up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.bench import OPERATOR, PAYMENT, Bench
from support.scripted_tenant import ALICE

from agentvault_tui.broker.answers import Escalated, Granted
from agentvault_tui.broker.usecases.redeem import poll
from agentvault_tui.broker.usecases.request import request_token
from agentvault_tui.broker.usecases.stepup import begin_approval
from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.model import (
    DETAIL_TYPE,
    Action,
    Agent,
    Draft,
    Event,
    EventType,
    Repeat,
    StepUp,
    StepUpStatus,
)
from agentvault_tui.settings import ChangeSettings, Settings, StepUpSettings

FACTOR = Settings(
    changes=ChangeSettings(socket="factor"),
    stepup=StepUpSettings(approvers=(ALICE["sub"],)),
)
"""Alice has to approve what an operator at the socket changes."""


def details_of(action: Action) -> tuple[dict[str, Any], ...]:
    """Return *action* as an agent sends it (RFC 9396)."""
    return (
        {
            "type": DETAIL_TYPE,
            "action": action.action,
            "resource": action.resource,
            "parameters": action.parameters,
        },
    )


async def ask(bench: Bench, agent: Agent, action: Action = PAYMENT) -> Any:
    return await request_token(
        bench.broker, agent, action, resource=None, details=details_of(action)
    )


async def hold(
    bench: Bench, name: str = "payer", resource: str | None = None
) -> tuple[Agent, StepUp]:
    agent = await bench.agent(name)
    held = await request_token(
        bench.broker, agent, PAYMENT, resource=resource, details=details_of(PAYMENT)
    )
    assert isinstance(held, Escalated)
    return agent, held.stepup


async def start(bench: Bench, stepup: StepUp, repeat: Repeat | None = None) -> StepUp:
    """Begin an approval: the tenant is asked for a person's answer."""
    broker = bench.broker
    return await begin_approval(broker, stepup.id, stepup.digest, OPERATOR, repeat)


async def approve(
    bench: Bench, stepup: StepUp, repeat: Repeat | None = None
) -> StepUpStatus:
    """Have a person say yes; return the status afterwards."""
    await start(bench, stepup, repeat)
    bench.tenant.approve()
    known = bench.broker.stepups
    await bench.until(lambda: not known.get(stepup.id).status.open)
    status = known.get(stepup.id).status
    assert status in {"approved", "redeemed", "applied"}
    return status


async def redeemable(bench: Bench) -> tuple[Agent, Agent, str]:
    """Return an agent, a resource server, and an approved token the agent was given."""
    agent, stepup = await hold(bench)
    server = await bench.agent("api", resource_server=True)
    await approve(bench, stepup)
    granted = await poll(bench.broker, agent, stepup.id)
    assert isinstance(granted, Granted)
    return agent, server, granted.access_token


async def latched(*_: object, **__: object) -> None:
    raise LedgerUnwritableError("no space left")


class Gate:
    """Holds the answer of the ledger for one kind of event until told to go on."""

    def __init__(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: EventType
    ) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        commit = bench.ledger.commit

        async def slow(*drafts: Draft, **more: Any) -> tuple[Event, ...]:
            writing = asyncio.ensure_future(commit(*drafts, **more))
            if drafts and drafts[0].type is kind:
                self.reached.set()
                await self.open.wait()
            return await writing

        monkeypatch.setattr(bench.ledger, "commit", slow)
