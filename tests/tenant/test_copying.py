"""A tenant's rows between a home's file and a team's store, and sealed anew."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.postgres import Database
from support.tenant_store import open_store, open_users, seal_of, settings_of, share

from agentvault_tui.errors import RefusedError, SealedError
from agentvault_tui.home import Home
from agentvault_tui.sealing import KEY_BYTES
from agentvault_tui.tenant.copying import copy_tenant, into_team, seal_anew
from agentvault_tui.tenant.keys import SigningKeys
from agentvault_tui.tenant.store import TABLES
from agentvault_tui.tenant.users import OTP_KIND


@pytest.fixture
def team(tmp_path: Path, store: Database) -> Home:
    made = Home.locate(tmp_path / "team")
    share(made, store)
    return made


def copy(source: Home, target: Home, *, anew: bool = True) -> bool:
    of = [(home, settings_of(home)) for home in (source, target)]
    return copy_tenant(of[0], of[1], anew=anew)


def known(home: Home, clock: ManualClock) -> tuple[list[str], str, str]:
    """Return who is there, ann's one-time code secret, and the key that signs."""
    with closing(open_store(home)) as store, open_users(home) as users:
        row = store.find("users", name="ann")
        assert row is not None
        seal = seal_of(home)
        secret = seal.open(OTP_KIND, row["sub"], row["otp_version"], row["otp_sealed"])
        (current, _) = SigningKeys(store, seal, clock).public()["keys"]
        return [user.name for user in users.all()], secret.decode(), current["kid"]


def test_people_and_keys_come_along_there_and_back(
    home: Home, team: Home, tmp_path: Path, clock: ManualClock
) -> None:
    """Each store's rows open with its own key, and a second copy replaces the first."""
    with open_users(home) as users:
        users.add("ann", approver=True)
        users.add("bob")
    before = known(home, clock)
    assert copy(home, team)
    assert copy(home, team)
    assert known(team, clock) == before
    back = Home.locate(tmp_path / "back")
    assert copy(team, back)
    assert known(back, clock) == before
    with closing(open_store(team)) as there, closing(open_store(back)) as here:
        assert there.rows("objects") == here.rows("objects")
        (one,) = (here.find("users", name="ann"),)
        assert one is not None
        with pytest.raises(SealedError):
            seal_of(team).open(OTP_KIND, one["sub"], 1, one["otp_sealed"])


def test_a_tenant_that_never_ran_is_not_copied(team: Home, tmp_path: Path) -> None:
    """Nothing is made where there was none."""
    none = Home.locate(tmp_path / "none")
    assert not copy(none, team)
    assert not none.data.exists()
    assert not copy(team, none)


def test_a_team_store_in_use_is_not_replaced(
    home: Home, team: Home, store: Database
) -> None:
    """Not once anything is recorded in its ledger."""
    with open_users(team) as users:
        users.add("carl")
    store.run("UPDATE agentvault.head SET revision = 1")
    with pytest.raises(RefusedError, match="not empty"):
        copy(home, team)
    with open_users(team) as users:
        assert [user.name for user in users.all()] == ["carl"]


def test_a_backups_rows_open_where_they_are_restored(
    home: Home, team: Home, tmp_path: Path, store: Database, clock: ManualClock
) -> None:
    """Those of a team as they are, and those of one home sealed with the team's key."""
    with open_users(home) as users:
        users.add("ann")
    before = known(home, clock)
    (home.keys / "team.key").write_bytes(team.team_key.read_bytes())
    into_team(home, store.settings)
    assert known(team, clock) == before
    passing = Home.locate(tmp_path / "passing")
    assert copy(team, passing, anew=False)
    assert not list(passing.keys.iterdir())
    store.run("TRUNCATE agentvault_tenant.users")
    (passing.keys / "team.key").write_bytes(team.team_key.read_bytes())
    into_team(passing, store.settings)
    assert known(team, clock) == before


def test_the_key_before_is_not_needed_any_more(
    home: Home, team: Home, clock: ManualClock
) -> None:
    """What it sealed is sealed with the key in force, and opens with that alone."""
    with open_users(home) as users:
        users.add("ann")
    copy(home, team)
    before, fresh = known(team, clock), secrets.token_bytes(KEY_BYTES)
    team.team_key.write_bytes(fresh + team.team_key.read_bytes())
    with closing(open_store(team)) as store:
        seal_anew(team, settings_of(team))
        rows = store.all("SELECT * FROM users")
        seal_anew(team, settings_of(team))
        assert store.all("SELECT * FROM users") == rows
    team.team_key.write_bytes(fresh)
    assert known(team, clock) == before


def test_both_stores_have_the_same_tables_and_columns(
    home: Home, store: Database
) -> None:
    """Each table that a file has, with each column, and nothing else."""
    open_store(home).close()
    with closing(sqlite3.connect(home.tenant / "tenant.db")) as db:
        sql = (
            "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c"
            " WHERE t.type = 'table'"
        )
        columns = set(db.execute(sql))
    there = store.run(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'agentvault_tenant'"
    )
    assert columns == set(there)
    assert {table for table, _ in columns} == set(TABLES)
