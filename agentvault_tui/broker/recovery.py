"""After an outage of the ledger: make disk and memory say the same again."""

from __future__ import annotations

import logging
from dataclasses import replace

from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import LedgerError, NotFoundError
from agentvault_tui.ledger import Change, Panic, Recovery
from agentvault_tui.model import Agent, AgentStatus, StepUp, StepUpStatus

log = logging.getLogger("agentvault.recovery")


async def recover(broker: Broker, recovery: Recovery) -> None:
    """Write the revocations that were kept, then whatever a doubtful batch left wrong.

    What a batch changed although its callers were told that it failed is written
    again as memory has it. What memory has nothing of was never handed out: an agent
    comes back revoked, a step-up cancelled.
    """
    try:
        await broker.record_missed()
        if recovery.found:
            again = [_as_known(broker, c) for a in recovery.attempts for c in a.changes]
            await broker.record(changes=[c for c in again if c is not None])
    except LedgerError as error:
        # It latched again: the next recovery comes here with the rest.
        log.warning("recovery is not over: %s", error.what)
    broker.on_status()


def _as_known(broker: Broker, change: Change) -> Change | None:
    """Return what memory says of the thing *change* changed."""
    registry = broker.registry
    match change:
        case Agent():
            try:
                return registry.agent(change.id)
            except NotFoundError:
                revoked = replace(
                    change,
                    status=AgentStatus.REVOKED,
                    revoked_at=broker.clock.now(),
                )
                registry.put_agent(revoked)
                return revoked
        case StepUp():
            try:
                return registry.stepup(change.id)
            except NotFoundError:
                return replace(
                    change,
                    status=StepUpStatus.CANCELLED,
                    problem="never_answered",
                    decided_at=broker.clock.now(),
                    device=None,
                )
        case Panic():
            return registry.panic or replace(change, on=False)
        case _:
            return None  # the ledger voided the batch's tokens itself
