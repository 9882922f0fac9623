"""Granting stops while there is room; cutting off uses what is left."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.ledger_kit import decision, note
from support.manual_clock import ManualClock
from support.patience import until

from agentvault_tui.errors import LedgerUnwritableError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger
from agentvault_tui.ledger.opening import RESERVE, START, make_room, shortage
from agentvault_tui.model import EventType

Disk = Callable[..., None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return what sets how large the disk is and what of it is free."""

    def free(
        free: int, size: int = 100 * RESERVE, files: int = 10**6, left: int = 10**6
    ) -> None:
        found = SimpleNamespace(
            f_bavail=free // 4096,
            f_frsize=4096,
            f_blocks=size // 4096,
            f_files=files,
            f_favail=left,
        )
        monkeypatch.setattr(os, "statvfs", lambda _: found)

    free(10 * RESERVE)
    return free


@pytest.fixture
async def ledger(home: Home, clock: ManualClock, disk: Disk) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(home, clock=clock)
    yield ledger
    await ledger.close()


def test_the_reserve_is_a_constant_or_an_eighth(disk: Disk, tmp_path: Path) -> None:
    """64 MiB, of a small disk less; inodes count too, where there are any."""
    for size, free, short in (
        (100 * RESERVE, RESERVE, False),
        (100 * RESERVE, RESERVE - 4096, True),
        (RESERVE, RESERVE // 8, False),
        (RESERVE, RESERVE // 8 - 4096, True),
    ):
        disk(free, size)
        assert (shortage(tmp_path) is not None) is short
    disk(10 * RESERVE, left=255)
    assert "255 more files" in (shortage(tmp_path) or "")
    disk(10 * RESERVE, files=0, left=0)
    assert shortage(tmp_path) is None


def test_a_disk_at_the_limit_does_not_come_and_go(disk: Disk, tmp_path: Path) -> None:
    """Once short, a tenth more than the reserve has to be free."""
    disk(RESERVE)
    assert shortage(tmp_path) is None
    assert shortage(tmp_path, before=True) is not None
    disk(2 * RESERVE)
    assert shortage(tmp_path, before=True) is None


@pytest.mark.slow
async def test_near_its_end_only_what_is_urgent_is_taken(
    ledger: Ledger, disk: Disk
) -> None:
    """A grant is refused with the reason, a revocation recorded; then all as before."""
    await ledger.commit(decision())
    disk(RESERVE - 4096)
    await until(lambda: not ledger.writable)
    assert ledger.takes_cuts
    assert "kept for revocations" in (ledger.problem or "")
    with pytest.raises(LedgerUnwritableError, match="63 MiB of disk are free"):
        await ledger.commit(decision())
    await ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
    disk(2 * RESERVE)
    await until(lambda: ledger.writable)
    (event,) = await ledger.commit(decision())
    assert event.seq == 3


async def test_a_start_on_a_nearly_full_disk_grants_nothing(
    home: Home, clock: ManualClock, disk: Disk
) -> None:
    """It is looked at before anything is served."""
    disk(0)
    ledger = await Ledger.open(home, clock=clock)
    try:
        assert not ledger.writable
        assert ledger.takes_cuts
    finally:
        await ledger.close()


@pytest.mark.slow
async def test_the_index_takes_no_last_space(ledger: Ledger, disk: Disk) -> None:
    """What can be built anew waits until there is room."""
    disk(0)
    await until(lambda: not ledger.writable)
    for _ in range(5):
        await ledger.commit(note(EventType.AGENT_REVOKED), urgent=True)
    lag = ledger.index_lag
    assert lag > 0
    disk(10 * RESERVE)
    await until(lambda: ledger.writable)
    await until(lambda: not ledger.index_lag)


@pytest.mark.slow
async def test_space_is_kept_for_a_start_on_a_full_disk(
    home: Home, clock: ManualClock, ledger: Ledger, disk: Disk
) -> None:
    """Taken while there is plenty, given up where it is needed, and taken again."""

    await until(home.start_space.exists)
    assert home.start_space.stat().st_blocks * 512 >= START
    assert home.start_space.stat().st_mode & 0o777 == 0o600
    await ledger.close()
    disk(2 * START)
    make_room(home)
    assert home.start_space.exists()
    disk(START // 2)
    again = await Ledger.open(home, clock=clock)
    try:
        assert not home.start_space.exists()
        disk(10 * RESERVE)
        await until(home.start_space.exists)
    finally:
        await again.close()
