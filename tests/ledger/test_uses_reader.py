"""Single windows are read up to an event that is named, and no further."""

from __future__ import annotations

from datetime import timedelta

from support.ledger_kit import decision
from support.manual_clock import ManualClock

from agentvault_tui.clock import iso
from agentvault_tui.ledger import Ledger
from agentvault_tui.ledger.uses import micros

ALL = ("a", "", "all", "")


async def test_what_is_durable_and_not_announced_is_not_read(
    ledger: Ledger, clock: ManualClock
) -> None:
    """Total, uses and the time at which a sum was reached are those of the event."""
    assert ledger.uses.latest() == 0
    start = clock.now()
    for _ in range(5):
        clock.advance(10)
        counted = {"at": iso(clock.now()), "limits": {"a": {"count": 2}}}
        await ledger.commit(decision(counted=counted))
    reader = ledger.uses
    assert reader.latest() == micros(clock.now())
    assert reader.window(("a", "USD", "all", ""), 5) is None
    assert reader.window(ALL, 0) is None
    found = reader.window(ALL, 3)
    assert found is not None
    assert found[1:] == (micros(start + timedelta(seconds=30)), 6)
    after = micros(start + timedelta(seconds=15))
    uses = [(micros(start + timedelta(seconds=20 + 10 * n)), 2 + 2 * n) for n in (0, 1)]
    assert reader.uses(found.id, after, 3, 10) == uses
    assert reader.uses(found.id, after, 3, 1) == uses[:1]
    for units, seconds in ((1, 30), (2, 30), (3, 40), (6, 50)):
        reached = reader.reached_at(found.id, 4, units, reader.latest())
        assert reached == micros(start + timedelta(seconds=seconds))
