"""A home is backed up under load, and restored; either is killed at any moment."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from support.bench import OPERATOR
from support.command_line import plain_environment
from support.forked import Forked
from support.ledger_kit import decision, manual_clock
from support.restoring import restore_backup
from support.small_disk import fill
from support.vault import Client, serving

from agentvault_tui.broker.backup import make_backup
from agentvault_tui.errors import LedgerUnwritableError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Ledger, verify_ledger

CALLERS = 64


def command(home: Path, *argv: str) -> Forked:
    return Forked(("--home", str(home), *argv), plain_environment())


def test_a_backup_under_load_is_a_state_that_was(home: Path, short: Path) -> None:
    """While 64 callers get tokens it holds what the chain was at its head, and every
    token it knows is worth nothing where it is restored."""
    there, file = short / "there", short / "backup"
    with serving(home / "home") as vault:
        agents = [vault.register(f"a{n}", "write:calendar") for n in range(8)]
        tokens: list[tuple[Client, str]] = []
        enough, over = threading.Event(), threading.Event()

        def ask(agent: Client) -> None:
            while not over.is_set():
                answer = agent.token("write:calendar").json()
                tokens.append((agent, answer["access_token"]))
                if len(tokens) > 4 * CALLERS:
                    enough.set()

        askers = [
            threading.Thread(target=ask, args=(agents[n % 8],)) for n in range(CALLERS)
        ]
        for asker in askers:
            asker.start()
        assert enough.wait(60)
        done = vault.cli("backup", str(file), "--json")
        over.set()
        for asker in askers:
            asker.join()
        assert done.returncode == 0, done.stderr
    with command(there, "restore", str(file)) as restoring:
        assert restoring.wait() == 0
    with (
        closing(sqlite3.connect(home / "home" / "agentvault.db")) as live,
        closing(sqlite3.connect(there / "agentvault.db")) as copy,
    ):
        sql = "SELECT * FROM events WHERE type NOT IN ('ledger.restored', 'panic.on')"
        events = copy.execute(f"{sql} ORDER BY seq").fetchall()
        assert len(events) > 4 * CALLERS
        was = live.execute(f"{sql} AND seq <= ? ORDER BY seq", (len(events),))
        assert was.fetchall() == events
        known = {row[0] for row in copy.execute("SELECT id FROM tokens")}
    with serving(there) as vault:
        assert vault.cli("audit", "verify").returncode == 0
        assert known
        for agent in agents:
            vault.again(agent)
        assert agents[0].token("write:calendar").json()["reason"] == "panic"
        lifted = vault.operator.post("/api/agents/restore", json={"all": True})
        assert lifted.status_code == 200
        for agent, token in tokens[:20]:
            assert agent.introspect(token) == {"active": False}
        assert agents[0].token("write:calendar").status_code == httpx.codes.OK


@pytest.fixture(scope="module")
def large(module_folder: Path) -> Home:
    """A home whose backup takes long enough to be killed in."""
    home, clock = Home(module_folder, module_folder), manual_clock()

    async def fill() -> None:
        ledger = await Ledger.open(home, clock=clock)
        for _ in range(10):
            await asyncio.gather(*(ledger.commit(decision()) for _ in range(1_000)))
        await ledger.close()

    asyncio.run(fill())
    return home


@pytest.fixture(scope="module")
def backup(large: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("b") / "backup"
    make_backup(large, file, manual_clock())
    return file


def kill_once(process: Forked, there: Path, pattern: str) -> None:
    """Kill a process as soon as a file is there, if it does not end before."""
    while process.poll() is None and not any(there.glob(pattern)):
        os.sched_yield()
    process.kill()
    process.wait()


def test_a_killed_backup_leaves_nothing(large: Home, short: Path) -> None:
    """Neither half a file under its name, nor a draft with keys under another."""
    folder = short / "backups"
    folder.mkdir()
    for _ in range(3):
        with command(large.data, "backup", str(folder / "b")) as process:
            while process.poll() is None and not opened_in(folder, process.pid):
                os.sched_yield()
            process.kill()
            process.wait()
        for left in folder.iterdir():
            # Done before it was killed, or killed between making and unlinking one.
            assert (left.stat().st_size == 0) is (left.name != "b")
            left.unlink()


def opened_in(folder: Path, pid: int) -> bool:
    """Tell whether a process has a file of *folder* open."""
    try:
        return any(
            str(entry.readlink()).startswith(str(folder))
            for entry in Path(f"/proc/{pid}/fd").iterdir()
        )
    except OSError:
        return False


@pytest.mark.parametrize(
    "moment",
    [".restore", ".restore/data/agentvault.db", ".restore/verified", "keys", "*.db"],
)
def test_a_killed_restore_serves_nothing_and_is_run_again(
    backup: Path, short: Path, moment: str
) -> None:
    """Wherever it was killed: the home is refused or whole, and then it is whole."""
    there = short / "there"
    with command(there, "restore", str(backup)) as process:
        kill_once(process, there, moment)
    home = Home(there, there)
    if home.unfinished.exists() or not home.database.exists():
        with command(there, "audit", "verify") as verifying:
            assert verifying.wait() in {2, 4}
        with command(there, "restore", str(backup)) as process:
            assert process.wait() == 0
    assert not home.unfinished.exists()
    assert verify_ledger(home).ok


def test_without_room_neither_leaves_anything(
    large: Home, backup: Path, small_disk: Path
) -> None:
    """What is missing is said, and when there is room it is done."""
    there, filler = small_disk / "there", small_disk / "full"
    fill(filler, leave=512 * 1024)
    with pytest.raises(UsageError, match="cannot write"):
        make_backup(large, small_disk / "backup", manual_clock())
    assert [path.name for path in small_disk.iterdir()] == ["full"]
    with pytest.raises(LedgerUnwritableError, match="no room"):
        restore_backup(Home(there, there), backup, manual_clock(), OPERATOR)
    assert [path.name for path in there.iterdir()] == ["run"]
    filler.unlink()
    restore_backup(Home(there, there), backup, manual_clock(), OPERATOR)
    assert verify_ledger(Home(there, there)).ok
