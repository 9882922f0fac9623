"""The header: what is wrong and what was loosened, at the smallest usual terminal."""

from __future__ import annotations

from pathlib import Path

from support.console_scenes import busy, console, drawn, ledger_down, running, settle
from support.fake_operator import FakeOperator
from support.manual_clock import ManualClock

CAROL = {"sub": "auth0|1", "name": "carol"}


async def test_a_loosening_is_in_the_header_of_80_columns_for_a_minute(
    fake: FakeOperator, tmp_path: Path
) -> None:
    """Beside panic, a ledger that cannot write and warnings too; then it goes."""
    busy(fake)
    fake.panic.update(on=True, by="alice", reason="runaway agents, in all of sales")
    ledger_down(fake)
    fake.warnings = ["a file that others may write is not read: policy.cedar"] * 4
    app = console(fake.socket, tmp_path)
    async with running(app, (80, 24)) as pilot:
        for number in (1, 2):
            told = {"summary": f"grant payer scope-{number}", "by": [CAROL]}
            fake.add_event("change.applied", detail={"loosened": told})
        await settle(pilot, lambda: app.desk.mirror.last_seq == fake.head)
        app.watch_screen.pulse()
        await pilot.pause()
        for words in (
            "PANIC: everything",
            "LEDGER CANNOT WRITE",
            "LOOSENED (2 in 60 s",
        ):
            assert words in drawn(app)
        assert "by carol at" in drawn(app)
        clock = app.desk.mirror.clock
        assert isinstance(clock, ManualClock)
        clock.advance(61)
        await settle(pilot, lambda: "LOOSENED" not in drawn(app))
