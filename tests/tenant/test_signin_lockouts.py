"""Failed tries are counted in memory, written once a second, and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from auth0_double.running import START
from support.manual_clock import ManualClock
from support.tenant_store import open_store, open_users

from agentvault_tui.home import Home
from agentvault_tui.tenant.file_store import FileStore
from agentvault_tui.tenant.signin import Lockouts, _network


class Counting(FileStore):
    """Counts what is written, and whether it waits for a flush of the disk."""

    def __init__(self, home: Home) -> None:
        self.commits, self.flushed = 0, 0
        super().__init__(home, checkpoints=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        ((mode,),) = self._db.execute("PRAGMA synchronous").fetchall()
        self.commits += 1
        self.flushed += mode != 1  # 1 is NORMAL: SQLite flushes at checkpoints alone
        with super().transaction():
            yield


def test_guesses_are_counted_in_memory_and_written_once_a_second(
    tmp_path: Path,
) -> None:
    """A thousand cost one commit and no flush; none is lost over a restart."""
    home, clock = Home.locate(tmp_path / "home"), ManualClock(START)
    store = Counting(home)
    lockouts = Lockouts(store, clock)
    store.commits = store.flushed = 0
    for number in range(1000):
        assert lockouts.charge(f"browser {number}", "code") == 0.0
    for _ in range(5):
        assert lockouts.charge("from-x ann", "password") == 0.0
    assert lockouts.charge("from-x ann", "password") == 30.0
    assert (store.commits, store.flushed) == (1, 0)
    clock.advance(1)
    lockouts.charge("browser 0", "code")
    assert (store.commits, store.flushed) == (2, 0)
    lockouts.charge("browser 0", "code")
    store.close()
    store = Counting(home)
    again = Lockouts(store, clock)
    assert again.charge("from-x ann", "password") == 29.0
    row = store.find("lockouts", who="browser 0", factor="code")
    assert row is not None
    assert row["failures"] == 3
    store.close()


def test_a_lock_that_was_ended_elsewhere_is_ended_here(tmp_path: Path) -> None:
    """Another process resets a factor; what another broker counted counts here."""
    home, clock = Home.locate(tmp_path / "home"), ManualClock(START)
    store = Counting(home)
    one, other = Lockouts(store, clock), Lockouts(store, clock)
    for _ in range(5):
        clock.advance(1)
        one.charge("ann", "otp")
    assert other.charge("ann", "otp") == one.charge("ann", "otp") == 30.0
    store.delete("lockouts", who="ann", factor="otp")
    assert one.charge("ann", "otp") == other.charge("ann", "otp") == 0.0
    store.close()


def test_tries_at_two_brokers_are_one_count_once_they_are_written(
    tmp_path: Path,
) -> None:
    """Those of one second are added up, whoever writes them first."""
    home, clock = Home.locate(tmp_path / "home"), ManualClock(START)
    store = Counting(home)
    one, other = Lockouts(store, clock), Lockouts(store, clock)
    for lockouts in (one, other):
        assert lockouts.charge("from-x ann", "password") == 0.0
    clock.advance(0.5)
    for lockouts in (one, other, one, other):
        assert lockouts.charge("from-x ann", "password") == 0.0
    clock.advance(0.5)
    one.write()
    other.write()
    row = store.find("lockouts", who="from-x ann", factor="password")
    assert row is not None
    assert row["failures"] == 6
    waits = [lockouts.charge("from-x ann", "password") for lockouts in (one, other)]
    assert min(waits) > 0
    store.close()


def test_the_memory_that_guesses_take_is_bounded(tmp_path: Path) -> None:
    """Strangers with as many cookies as they like fill neither memory nor disk."""
    store = Counting(Home.locate(tmp_path / "home"))
    clock = ManualClock(START)
    lockouts = Lockouts(store, clock)
    for number in range(5000):
        lockouts.charge(f"browser {number}", "code")
    assert len(lockouts._tries) <= 2000
    clock.advance(1)
    lockouts.charge("browser x", "code")
    assert len(store.all("SELECT who FROM lockouts")) <= 1001
    store.close()


def test_a_reset_ends_a_lock_that_is_not_written_yet(tmp_path: Path) -> None:
    """Also that of a browser, within the second in which it began."""
    home, clock = Home.locate(tmp_path / "home"), ManualClock(START)
    with open_users(home, clock=clock) as users, closing(open_store(home)) as store:
        ann = users.add("ann").user
        lockouts = Lockouts(store, clock)
        for who in (ann.sub, f"browser-x {ann.sub}"):
            for _ in range(5):
                lockouts.charge(who, "otp")
        clock.advance(0.1)
        users.reset_otp("ann")
        for who in (ann.sub, f"browser-x {ann.sub}"):
            assert [lockouts.charge(who, "otp") for _ in range(6)] == [0.0] * 5 + [30.0]


def test_passwords_tried_from_another_machine_count_by_its_address() -> None:
    """A network stands for its machines; loopback is told apart by user."""
    assert _network("192.168.1.7") == ("192.168.1.7", "")
    assert _network("2001:db8::1:2:3:4") == ("2001:db8::/64", "2001:db8::/48")
    assert _network("127.0.0.1") == (None, "")
