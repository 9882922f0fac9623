"""How often a waiting step-up was asked for again, told in bulk."""

from __future__ import annotations

from dataclasses import replace

from agentvault_tui.broker.core import Broker
from agentvault_tui.model import StepUp


def count_again(broker: Broker, stepup: StepUp) -> StepUp:
    """Count one more identical request, in memory.

    Each has its own event. The step-up itself, which may hold 64 KiB of parameters,
    is shown by `show_counts`: an agent that asks in a loop floods no console with it.
    """
    again = replace(stepup, count=stepup.count + 1)
    # A decision on its way to the disk must not be written over.
    if stepup.id not in broker.deciding:
        broker.registry.put_stepup(again)
        broker.recounted.add(stepup.id)
    return again


def show_counts(broker: Broker) -> None:
    """Show consoles the step-ups that were asked for again since the last time.

    Nothing is written: each repetition has an event, from which a start counts them.
    A decided one went to disk with its decision, its count in it.
    """
    if not broker.recounted:
        return
    ids, broker.recounted = broker.recounted, set()
    changed = [
        stepup
        for stepup in broker.registry.open_stepups()
        if stepup.id in ids and stepup.id not in broker.deciding
    ]
    if changed and broker.ledger.on_written is not None:
        broker.ledger.on_written((), changed)
