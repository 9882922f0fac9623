"""Admission: during a pause, no queue of the broker admits a request."""

from __future__ import annotations

import asyncio

from support.bench import Bench


async def test_a_pause_holds_every_queue(bench: Bench) -> None:
    """During the block a request of each kind waits; after it, each is admitted."""
    admitting = bench.broker.admitting
    queues = (
        *(admitting.requests, admitting.others),
        *(admitting.calls, admitting.pieces, admitting.answers),
    )
    with admitting.paused():
        waiting = [asyncio.ensure_future(queue.enter()) for queue in queues]
        await bench.until(lambda: all(queue.waiting for queue in queues))
        assert not any(one.done() for one in waiting)
    await asyncio.gather(*waiting)
