"""How often a waiting step-up was asked for again, told in bulk."""

from __future__ import annotations

from dataclasses import replace

from agentvault_tui.broker.core import Broker
from agentvault_tui.model import StepUp


def count_again(broker: Broker, stepup: StepUp) -> StepUp:
    """Count one more identical request, in memory.

    Each has its own event. The step-up itself, which may hold 64 KiB of parameters,
    is written and shown by `record_counts`: an agent that asks in a loop does not
    flood disk and consoles with it.
    """
    again = replace(stepup, count=stepup.count + 1)
    # A decision on its way to the disk must not be written over.
    if stepup.id not in broker.deciding:
        broker.registry.put_stepup(again)
        broker.recounted.add(stepup.id)
    return again


async def record_counts(broker: Broker) -> None:
    """Write and show the step-ups that were asked for again since the last time.

    A decided one went to disk with its decision, its count in it.

    Raises:
        LedgerError: not now; they are kept for the next time.
    """
    ids, broker.recounted = broker.recounted, set()
    changed = [
        stepup
        for stepup in broker.registry.open_stepups()
        if stepup.id in ids and stepup.id not in broker.deciding
    ]
    if not changed:
        return
    try:
        await broker.record(changes=changed)
    except BaseException:
        broker.recounted |= ids
        raise
