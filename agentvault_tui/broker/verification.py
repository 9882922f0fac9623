"""Verify the whole ledger next to the running broker; stop everything if it fails.

A start checks the newest events, and finds older ones by columns and indexes that a
writer of the file can change. So `verify_ledger` runs after it, in a process of its
own, and once a day from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any, Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.health import Verified
from agentvault_tui.broker.usecases.revoke import panic
from agentvault_tui.ledger import CHECKED_AT_START, EventQuery
from agentvault_tui.model import Draft, EventType
from agentvault_tui.process import home_arguments
from agentvault_tui.text import visible

FAULT: Final = "ledger_does_not_hold"
"""The reason of the event."""
_AGAIN: Final = 86_400.0
"""Seconds between two verifications."""
_SILENCE: Final = 900.0
"""Seconds without progress until operators are warned."""
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_TRIES: Final = 10
"""So many in a row may end without a result; then nothing is granted until one has."""

log = logging.getLogger("agentvault.verification")


async def keep_verified(broker: Broker, pause: float = _PAUSE) -> None:
    """Verify the ledger, again after a day, and whenever its process was ended.

    After some tries without a result nothing is granted any more, and revoking works: a
    process that ends the verifier each time must not make a changed ledger stay in
    service.
    """
    if broker.ledger.head.seq <= CHECKED_AT_START and not broker.health.verify_first:
        await asyncio.sleep(_AGAIN)
    wait, tries = pause, 0
    while True:
        try:
            result = await _verify(broker)
        except OSError as error:
            result = f"its process cannot be started ({error.strerror})"
        if isinstance(result, str):
            log.error("the ledger is not verified: %s", result)
            broker.health.unverified, tries = result, tries + 1
            if tries == _TRIES:
                message = f"could not be verified in {tries} tries: {result}"
                broker.ledger.set_unverified(message)
            broker.health.changed()
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_PAUSE)
            continue
        if not result["ok"]:
            await stop_for_fault(broker, result)
            return
        broker.health.verified = Verified(
            result["head"]["seq"], broker.clock.now(), True
        )
        broker.health.unverified, broker.health.verify_first, wait, tries = (
            None,
            False,
            pause,
            0,
        )
        broker.ledger.set_unverified(None)
        broker.health.changed()
        await asyncio.sleep(_AGAIN)


async def fault_recorded(broker: Broker) -> bool:
    """Check whether the ledger failed verification, without a restore since."""
    lifted = await broker.ledger.events(EventQuery(type=EventType.PANIC_OFF, limit=1))
    after = lifted.events[0].seq if lifted.events else 0
    before: int | None = None
    while True:
        query = EventQuery(type=EventType.AUDIT_AMBIGUOUS, before=before, limit=100)
        page = await broker.ledger.events(query)
        newer = [event for event in page.events if event.seq > after]
        if any(event.reason == FAULT for event in newer):
            return True
        before = page.next
        if before is None or before <= after:
            return False


async def stop_for_fault(broker: Broker, result: dict[str, Any]) -> None:
    """Grant nothing and stop everything: served tokens may have been ended.

    Neither ends with a restart: the panic is in the ledger, and the cut journal's
    marker is deleted, so that a copy without that event starts stopped as well.
    """
    where = "" if result["first_bad"] is None else f"event {result['first_bad']}: "
    problem = f"{where}{visible(result['problem'], 300)}"
    broker.ledger.distrust(f"does not hold ({problem})")
    broker.health.state_problem = (
        f"The ledger does not hold ({problem}): everything was stopped. Stop "
        "the broker, keep a copy as evidence, then agentvault audit accept."
    )
    log.error("%s", broker.health.state_problem)
    stopped = asyncio.create_task(
        panic(broker, f"the ledger does not hold: {problem}", SYSTEM)
    )
    draft = Draft(
        EventType.AUDIT_AMBIGUOUS,
        SYSTEM,
        reason=FAULT,
        detail={
            "problem": problem,
            "first_bad": result["first_bad"],
            "right_up_to": result["head"]["seq"],
        },
    )
    await broker.record_cut(draft)
    await stopped
    await broker.recording.cuts.stop_next_start("the ledger does not hold")
    broker.health.changed()


async def _verify(broker: Broker) -> dict[str, Any] | str:
    """Run the verifier; return its result, or the reason why it has none."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-E", "-P", "-m", "agentvault_tui.ledger"),
        *home_arguments(broker.home),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        while line := await _next_line(broker, process.stdout):
            try:
                reply: dict[str, Any] = json.loads(line)
            except ValueError:
                break  # cut short
            if "ok" in reply:
                return reply
            if broker.health.verified is None or not broker.health.verified.complete:
                broker.health.verified = Verified(
                    reply["seq"], broker.clock.now(), False
                )
        code = await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return f"its process was ended with {code} before it was done; it is started again"


async def _next_line(broker: Broker, output: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return await asyncio.wait_for(output.readline(), _SILENCE)
        except TimeoutError:
            broker.health.unverified = "its process does not get on"
            broker.health.changed()
