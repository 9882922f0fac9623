"""Backups of a team: they hold what the store held, and fill an empty store."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from support.bench import OPERATOR
from support.ledger_kit import agent, decision, manual_clock, note, token
from support.manual_clock import ManualClock
from support.postgres import TEAM, Cluster, Database
from support.restoring import restore_backup

from agentvault_tui.broker import backup, restore
from agentvault_tui.broker.backup import make_backup
from agentvault_tui.cli.app import run
from agentvault_tui.errors import RefusedError
from agentvault_tui.home import Home, put_private
from agentvault_tui.ledger import EventQuery, Ledger
from agentvault_tui.settings import Settings


@pytest.fixture
def clock() -> ManualClock:
    return manual_clock()


def member(folder: Path, url: str) -> Home:
    """Return a home of the team."""
    home = Home(folder, folder)
    home.prepare()
    text = f'[store]\nurl = "{url}"\n[team]\nname = "{TEAM}"\n'
    home.config_file.write_text(text)
    return home


async def write(home: Home, clock: ManualClock, count: int = 5) -> int:
    """Record as a broker of the team does; return the head."""
    ledger = await Ledger.open(home, clock=clock, settings=Settings.load(home))
    await ledger.commit(note(), changes=[agent(), token(clock)])
    for number in range(count):
        await ledger.commit(decision(number=number))
    head = ledger.head.seq
    await ledger.close()
    return head


async def kinds(home: Home, clock: ManualClock) -> list[str]:
    """Return the types of all events that a broker on *home* sees in the store."""
    ledger = await Ledger.open(home, clock=clock, settings=Settings.load(home))
    assert ledger.store_problem is None
    page = await ledger.events(EventQuery(after=0, limit=1000))
    loaded = await ledger.load()
    await ledger.close()
    assert loaded.panic
    assert loaded.tokens == ()
    return [event.type.value for event in page.events]


LAST = ["ledger.restored", "panic.on", "store.copied"]


def test_a_team_is_restored_into_an_empty_store(
    short: Path,
    clock: ManualClock,
    cluster: Cluster,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its first broker and every other then go on from there, with all stopped."""
    home = member(short / "a", store.url)
    asyncio.run(write(home, clock))
    made = make_backup(home, short / "backup", clock)
    monkeypatch.setenv("AGENTVAULT_STORE_URL", cluster.database().url)
    there = Home(short / "b", short / "b")
    with monkeypatch.context() as patch:
        patch.setenv("AGENTVAULT_TEAM_NAME", TEAM)
        assert run(["--home", str(there.data), "store", "prepare", "--yes"]) == 0
    restore_backup(there, short / "backup", clock, OPERATOR)
    assert not there.copied_file.exists(), "it was copied into its own team's store"
    other = member(short / "c", store.url)
    for one in (there, other):
        found = asyncio.run(kinds(one, clock))
        assert (len(found), found[-3:]) == (made.seq + 3, LAST)
    names = {one.broker_id_file.read_text() for one in (home, there, other)}
    assert len(names) == 3


def test_a_store_that_is_not_empty_is_left_alone(
    short: Path,
    clock: ManualClock,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """So is the home, into which the backup is then restored with another store."""
    home = member(short / "a", store.url)
    head = asyncio.run(write(home, clock))
    make_backup(home, short / "backup", clock)
    there = Home(short / "b", short / "b")
    with pytest.raises(RefusedError, match="not empty"):
        restore_backup(there, short / "backup", clock, OPERATOR)
    assert [path.name for path in there.data.iterdir()] == ["run"]
    assert store.run("SELECT seq FROM agentvault.head") == [(head,)]
    monkeypatch.setenv("AGENTVAULT_STORE_URL", store.cluster.store().url)
    assert run(["--home", str(there.data), "restore", str(short / "backup")]) == 0
    assert "write the new store.url" in capsys.readouterr().err
    assert asyncio.run(kinds(there, clock))[-3:] == LAST


@pytest.mark.parametrize("began", [False, True])
def test_a_restored_home_does_not_start_on_the_store_it_was_backed_up_from(
    short: Path,
    clock: ManualClock,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
    began: bool,
) -> None:
    """The team there goes on: that store lost nothing, it never had the restore."""
    home = member(short / "a", store.url)
    asyncio.run(write(home, clock))
    make_backup(home, short / "backup", clock)
    there = Home(short / "b", short / "b")
    with monkeypatch.context() as patch:
        patch.setenv("AGENTVAULT_STORE_URL", store.cluster.store().url)
        restore_backup(there, short / "backup", clock, OPERATOR)
        if began:
            assert asyncio.run(kinds(there, clock))[-3:] == LAST
    with pytest.raises(RefusedError, match="went on apart from the store"):
        asyncio.run(kinds(there, clock))
    assert store.run("SELECT fault FROM agentvault.head") == [(None,)]
    asyncio.run(write(home, clock))


class _KilledError(BaseException):
    """Stands for a SIGKILL."""


def test_a_restore_killed_after_the_copy_does_not_copy_again(
    short: Path,
    clock: ManualClock,
    cluster: Cluster,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next one finds its own events in the store, and moves the home into place."""
    home = member(short / "a", store.url)
    asyncio.run(write(home, clock))
    make_backup(home, short / "backup", clock)
    monkeypatch.setenv("AGENTVAULT_STORE_URL", cluster.store().url)
    there = Home(short / "b", short / "b")

    def killed(path: Path, content: bytes, *, replace: bool) -> None:
        if path.name == "ready":
            raise _KilledError
        put_private(path, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(restore, "put_private", killed)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(_KilledError):
            restore_backup(there, short / "backup", clock, OPERATOR)
    assert there.unfinished.exists()
    restore_backup(there, short / "backup", clock, OPERATOR)
    found = asyncio.run(kinds(there, clock))
    assert [found.count(kind) for kind in LAST] == [1, 1, 1]


def test_a_home_behind_its_store_is_not_backed_up(
    short: Path,
    clock: ManualClock,
    store: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What another broker recorded would be missing; where that is, it works."""
    home, other = member(short / "a", store.url), member(short / "b", store.url)
    asyncio.run(write(home, clock))
    head = asyncio.run(write(other, clock))
    monkeypatch.setattr(backup, "_PAUSE", 0)
    line = ("backup", str(short / "backup"), "--json", "--home")
    assert run([*line, str(home.data)]) == 1
    assert f"ends before event {head}" in capsys.readouterr().err
    assert run([*line, str(other.data)]) == 0
    assert json.loads(capsys.readouterr().out)["head"] == head
