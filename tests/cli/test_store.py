"""`agentvault store`: prepares, examines and copies a team's PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.command_line import Answer
from support.ledger_kit import agent, decision, manual_clock, note, token
from support.pages import DOCS, blocks
from support.patience import PATIENT
from support.postgres import TEAM, Database, programs

from agentvault_tui.cli.store import _home_rows, _team_rows
from agentvault_tui.errors import RefusedError
from agentvault_tui.home import Home
from agentvault_tui.ledger import DropToken, Ledger, Meta, verify_ledger
from agentvault_tui.model import EventType, TokenId
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.store import TenantSeal
from agentvault_tui.tenant.users import UserStore

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]
CLOCK = manual_clock()


@pytest.fixture
def home(short: Path) -> Home:
    return Home(short / "home", short / "home")


def configured(home: Home, url: str, team: str = TEAM) -> Home:
    home.prepare()
    home.config_file.write_text(f'[store]\nurl = "{url}"\n[team]\nname = "{team}"\n')
    return home


async def filled(home: Home, settings: Settings | None = None, count: int = 40) -> None:
    ledger = await Ledger.open(home, clock=CLOCK, settings=settings)
    await ledger.commit(note(), changes=[agent(), Meta("mark", "7")])
    for number in range(count):
        await ledger.commit(
            decision(number=number, odd="\u00fc\ud800"),
            changes=[token(CLOCK, f"tok_{number}")],
        )
    await ledger.commit(
        note(EventType.TOKEN_REDEEMED), changes=[DropToken(TokenId("tok_1"))]
    )
    await ledger.close()


def all_of(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    tables = ("events", "eras", "agents", "tokens", "dropped", "meta", "texts")
    with closing(sqlite3.connect(home.database)) as db:
        return {
            one: db.execute(f"SELECT * FROM {one} ORDER BY 1").fetchall()
            for one in tables
        }


def test_a_prepared_store_says_what_it_is(
    cli: Run, home: Home, database: Database
) -> None:
    """`prepare` prints and runs the statements once; `info` and `check` then answer."""
    at = ("--home", str(configured(home, database.url).data))
    refused = cli("store", "prepare", *at)
    assert refused.code == 1
    assert "CREATE TABLE agentvault.events" in refused.out
    assert database.run("SELECT to_regclass('agentvault.head')") == [(None,)]
    assert cli("store", "prepare", "--yes", *at).code == 0
    assert "nothing to do" in cli("store", "prepare", *at).out
    found = cli("store", "info", "--json", *at).json
    assert (found["team"], found["head"], found["durability"]) == (TEAM, 0, "single")
    assert found["brokers"] == []
    asyncio.run(filled(home, database.settings))
    database.run(
        "INSERT INTO agentvault.brokers VALUES"
        """ ('brk_1', now(), '{"host": "here", "channel": "secret"}', 'run')"""
    )
    found = cli("store", "info", "--json", *at).json
    assert found["head"] == 42
    assert [(one["host"], "channel" in one) for one in found["brokers"]] == [
        ("here", False)
    ]
    database.run("DELETE FROM agentvault.brokers")
    checked = cli("store", "check", "--json", *at)
    assert (checked.code, checked.json["ok"], checked.json["events"]) == (0, True, 42)
    findings = cli("doctor", "--json", *at).json["findings"]
    told = [one["what"] for one in findings if one["area"] == "store"]
    assert "durability single" in told


def test_finish_states_once_that_no_older_broker_lives(
    cli: Run, home: Home, database: Database
) -> None:
    """It exits 1 while a broker of another version lives, and changes nothing then."""
    at = ("--home", str(configured(home, database.url).data))
    assert cli("store", "prepare", "--yes", *at).code == 0
    assert "nothing to remove" in cli("store", "prepare", "--finish", *at).out
    database.run("ALTER TABLE agentvault.head DROP COLUMN finished")
    assert "nothing to do" in cli("store", "prepare", *at).out
    database.run(
        "INSERT INTO agentvault.brokers VALUES ('brk_old', clock_timestamp(), %s, 'r')",
        b'{"version": "0.0.9"}',
    )
    refused = cli("store", "prepare", "--finish", "--yes", *at)
    assert refused.code == 1
    assert "brk_old" in refused.err
    ago = "seen = seen - interval '1 minute'"
    database.run(f"UPDATE agentvault.brokers SET {ago} WHERE id = 'brk_old'")
    asked = cli("store", "prepare", "--finish", *at)
    assert (asked.code, "ADD finished" in asked.out) == (1, True)
    assert cli("store", "prepare", "--finish", "--yes", *at).code == 0
    assert "nothing to remove" in cli("store", "prepare", "--finish", *at).out
    assert cli("store", "check", *at).code == 0


def test_a_prepared_store_is_closed_to_other_roles_of_the_server(
    cli: Run, home: Home, database: Database
) -> None:
    """Who may not serve cannot connect; `doctor` warns where PUBLIC still may."""
    at = ("--home", str(configured(home, database.url).data))
    database.cluster.role("av_passer_by")
    database.cluster.role("av_server")
    prepared = cli("store", "prepare", "--broker", "av_server", "--yes", "--json", *at)
    assert prepared.code == 0, prepared.err
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        database.cluster.session(database.name, "av_passer_by")
    asyncio.run(filled(home, replace(database, user="av_server").settings))
    for grant, warned in (("GRANT CONNECT", "GRANT"), ("REVOKE TEMP", "")):
        word = "TO" if warned else "FROM"
        database.run(f"{grant} ON DATABASE {database.name} {word} PUBLIC")
        if not warned:
            assert cli("store", "prepare", "--yes", *at).code == 0
        findings = cli("doctor", "--json", *at).json["findings"]
        told = [one["what"] for one in findings if one["area"] == "store"]
        assert any("every role" in one for one in told) is bool(warned)


def test_a_store_that_an_earlier_build_prepared_is_brought_up_to_date(
    cli: Run, home: Home, database: Database
) -> None:
    """Its function and the table that it locks, with the rights of who serves."""
    at = ("--home", str(configured(home, database.url).data))
    database.cluster.role("av_server")
    assert cli("store", "prepare", "--broker", "av_server", "--yes", *at).code == 0
    database.run("DROP TABLE agentvault.queue")
    (source,) = database.run("SELECT pg_get_functiondef('agentvault.append'::regproc)")
    lock = "LOCK TABLE agentvault.queue IN EXCLUSIVE MODE"
    older = str(source[0]).replace(lock, "PERFORM 1")
    database.run(older)
    missing = cli("store", "prepare", "--yes", "--json", *at)
    assert missing.code == 0, missing.err
    assert len(missing.json["statements"]) == 3
    assert "nothing to do" in cli("store", "prepare", *at).out


def test_a_broker_s_role_changes_no_event_and_no_table(
    cli: Run, home: Home, database: Database
) -> None:
    """It is given its rights by `prepare`, also later, and owns nothing."""
    at = ("--home", str(configured(home, database.url).data))
    assert cli("store", "prepare", "--yes", *at).code == 0
    database.cluster.role('odd "name')
    granted = cli("store", "prepare", "--broker", 'odd "name', "--yes", "--json", *at)
    assert granted.code == 0, granted.err
    assert all(one.startswith("GRANT ") for one in granted.json["statements"])
    assert cli("store", "prepare", "--broker", "nobody", "--yes", *at).code == 1
    role = replace(database, user='odd "name')
    asyncio.run(filled(home, role.settings))
    for sql in (
        "UPDATE agentvault.events SET body = body",
        "DELETE FROM agentvault.events",
        "TRUNCATE agentvault.events",
        "DELETE FROM agentvault.head",
        "DROP TRIGGER events_are_kept ON agentvault.events",
        "ALTER TABLE agentvault.events DISABLE TRIGGER ALL",
        "DROP TABLE agentvault.state",
        "ALTER FUNCTION agentvault.append OWNER TO CURRENT_USER",
        "CREATE TABLE agentvault.mine ()",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            database.cluster.session(database.name, role.user) as db,
        ):
            db.execute(sql)


def test_doctor_warns_of_a_replica_that_lags_behind(
    cli: Run, home: Home, store: Database, tmp_path: Path
) -> None:
    """A replica that no commit waits for loses answered decisions in a failover."""
    at = ("--home", str(configured(home, store.url).data))
    host = store.cluster.folder
    receiver = ("pg_receivewal", "-D", tmp_path, "-h", host, "-U", "postgres")
    with subprocess.Popen([programs() / receiver[0], *receiver[1:]]) as replica:
        until = time.monotonic() + PATIENT
        while not store.run("SELECT 1 FROM pg_stat_replication"):
            assert time.monotonic() < until
            assert replica.poll() is None
        findings = cli("doctor", "--json", *at).json["findings"]
        replica.terminate()
    told = [one for one in findings if one["area"] == "store"]
    (warned,) = [one for one in told if "replicas" in one["what"]]
    assert warned["level"] == "warning"
    assert "a failover loses what was answered" in warned["what"]
    assert "synchronous_standby_names" in warned["remedy"]
    assert not [one for one in told if "durability" in one["what"]]


def test_check_finds_a_changed_row(cli: Run, home: Home, store: Database) -> None:
    """State that the events do not bear out is a fault."""
    at = ("--home", str(configured(home, store.url).data))
    asyncio.run(filled(home, store.settings))
    store.run(
        "UPDATE agentvault.state SET doc = convert_to(replace(convert_from("
        "doc, 'UTF8'), 'read:mail', 'send:mail'), 'UTF8') WHERE kind = 'agents'"
    )
    checked = cli("store", "check", *at)
    assert checked.code == 1
    assert "fault" in checked.out


def test_check_finds_a_changed_event(cli: Run, home: Home, store: Database) -> None:
    """An event that somebody rewrote in PostgreSQL does not follow any more."""
    at = ("--home", str(configured(home, store.url).data))
    asyncio.run(filled(home, store.settings))
    store.run("ALTER TABLE agentvault.events DISABLE TRIGGER events_are_kept")
    store.run("UPDATE agentvault.events SET body = body || ' ' WHERE seq = 3")
    checked = cli("store", "check", *at)
    assert checked.code == 1
    assert "event 3 " in checked.err


def test_what_a_store_lost_is_told_and_accepted(
    cli: Run, home: Home, store: Database
) -> None:
    """`info` and `doctor` say it; `audit accept` lets the team go on, on the record."""
    at = ("--home", str(configured(home, store.url).data))
    asyncio.run(filled(home, store.settings))
    store.run("UPDATE agentvault.head SET fault = 'event 40 is gone'")
    assert "event 40 is gone" in cli("store", "info", *at).out
    findings = cli("doctor", "--json", *at).json["findings"]
    told = {one["what"] for one in findings if one["area"] == "store"}
    assert "event 40 is gone" in told
    accepted = cli("audit", "accept", "--reason", "a drill", "--json", *at)
    assert (accepted.code, accepted.json["head"]) == (0, 43), accepted.err
    assert cli("store", "info", "--json", *at).json["fault"] is None


def test_another_teams_store_is_refused(cli: Run, home: Home, store: Database) -> None:
    """A second team on the same schema is told whose it is, by every command."""
    at = ("--home", str(configured(home, store.url, "pirates").data))
    for command in ("info", "check", "prepare"):
        answer = cli("store", command, *at)
        assert answer.code == 1
        assert f"the team '{TEAM}'" in answer.err


def test_a_store_copies_there_and_back_byte_for_byte(
    cli: Run, short: Path, home: Home, store: Database
) -> None:
    """SQLite to PostgreSQL and back: the same events and rows, and one event more each.

    The embedded tenant's people come along, sealed with the team's key, which there has
    to be. The source is refused then, until that is said.
    """
    asyncio.run(filled(home))
    with UserStore(home, Settings()) as users:
        ann = users.add("ann").user
    with closing(sqlite3.connect(home.tenant / "tenant.db")) as db, db:
        sealed = TenantSeal.of(home).close("signing key", "kid", 1, b"PEM")
        sql = "INSERT INTO signing_keys VALUES ('current', 'kid', ?, 'now', 0)"
        db.execute(sql, (sealed,))
    home.config_file.write_text(f'[team]\nname = "{TEAM}"\n')
    copy = ("store", "copy", "--to", store.url, "--json", "--home", str(home.data))
    assert "make it first: agentvault team key new" in cli(*copy).err
    home.team_key.write_bytes(bytes(32))
    source = all_of(home)
    there = cli(*copy)
    assert (there.code, there.json["head"]) == (0, 43), there.err
    with pytest.raises(RefusedError, match="was copied to postgresql://"):
        asyncio.run(filled(home))
    team, back = (Home(short / name, short / name) for name in ("team", "back"))
    at = ("--home", str(configured(team, store.url).data))
    assert cli("tenant", "user", "list", *at).code == 1
    shutil.copy(home.team_key, team.team_key)
    assert ann.sub in cli("tenant", "user", "list", *at).out
    assert cli("store", "check", *at).code == 0
    team.team_key.write_bytes(b"x" * 32)
    other = cli("store", "check", "--json", *at)
    assert (other.code, other.json["ok"]) == (1, False)
    assert "does not open" in other.json["problem"]
    shutil.copy(home.team_key, team.team_key)
    again = cli("store", "copy", "--to", f"sqlite:{back.data}", "--json", *at)
    assert (again.code, again.json["head"]) == (0, 44), again.err
    copied = all_of(back)
    assert copied["events"][:42] == source["events"]
    assert [row[2] for row in copied["events"][42:]] == ["store.copied"] * 2
    del copied["events"], source["events"]
    # No gateway file is active there: one in the new home is an edit.
    copied["meta"].remove(("app:gateway_files", "{}", 44))
    assert copied == source
    assert verify_ledger(back).ok
    with UserStore(back, Settings()) as users:
        assert users.all() == [ann]
    with pytest.raises(RefusedError, match="was copied to"):
        asyncio.run(filled(team, store.settings))


def test_the_source_goes_on_as_a_copy_of_where_it_was_copied_to(
    cli: Run, home: Home, store: Database
) -> None:
    """The home of the day before joins the team with its own file."""
    asyncio.run(filled(home))
    home.config_file.write_text(f'[team]\nname = "{TEAM}"\n')
    at = ("--home", str(home.data))
    assert cli("store", "copy", "--to", store.url, *at).code == 0

    async def joined() -> tuple[int, set[str]]:
        ledger = await Ledger.open(home, clock=CLOCK, settings=store.settings)
        await ledger.commit(note())
        tokens = {one.id for one in (await ledger.load()).tokens}
        await ledger.close()
        return ledger.head.seq, tokens

    head, tokens = asyncio.run(joined())
    assert head == 44
    assert tokens == {f"tok_{n}" for n in range(40)} - {"tok_1"}
    assert verify_ledger(home).ok


def test_only_an_empty_store_is_copied_into(
    cli: Run, short: Path, home: Home, store: Database
) -> None:
    """Neither a store that has events nor a home with a ledger is written over."""
    asyncio.run(filled(home))
    home.config_file.write_text(f'[team]\nname = "{TEAM}"\n')
    other = configured(Home(short / "o", short / "o"), store.url)
    asyncio.run(filled(other, store.settings, 1))
    before = all_of(home)
    refused = cli("store", "copy", "--to", store.url, "--home", str(home.data))
    assert (refused.code, "not empty" in refused.err) == (1, True)
    refused = cli(
        *("store", "copy", "--to", f"sqlite:{home.data}", "--home", str(other.data))
    )
    assert (refused.code, "is there" in refused.err) == (1, True)
    assert all_of(home) == before


def test_a_home_of_its_own_says_what_it_is(cli: Run, home: Home) -> None:
    """Without store.url the store is the home's file, and nothing is to prepare."""
    at = ("--home", str(home.data))
    asyncio.run(filled(home))
    found = cli("store", "info", "--json", *at).json
    assert found["store"] == f"sqlite:{home.database}"
    assert found["head"] == 42
    assert cli("store", "check", *at).code == 0
    refused = cli("store", "prepare", "--yes", *at)
    assert (refused.code, "store.url is not set" in refused.err) == (2, True)


def test_the_commands_of_the_page_work_in_its_order(
    cli: Run, home: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/team.md: prepared by the environment, copied into, and checked."""
    asyncio.run(filled(home))
    home.config_file.write_text('[team]\nname = "payments"\n')
    monkeypatch.setenv("AGENTVAULT_HOME", str(home.data))
    monkeypatch.setenv("HOME", str(home.data.parent))
    for whose in ("owner", "store"):
        password = home.data.parent / f"agentvault-{whose}-password"
        password.touch(0o600)
        password.write_text("unused\n")
    database.cluster.role("agentvault")
    typed = []
    for line in "\n".join(blocks(DOCS / "team.md", "sh")).splitlines():
        at_ours = re.sub(r"postgresql://[^']+", lambda _: database.url, line)
        match shlex.split(os.path.expandvars(at_ours)):
            case ["export", setting]:
                monkeypatch.setenv(*setting.split("=", 1))
            case ["unset", *names]:
                for name in names:
                    monkeypatch.delenv(name)
            case ["agentvault", "store", word, *more]:
                if word == "check":
                    configured(home, database.url, "payments")
                yes = ["--yes"] if word == "prepare" else []
                answer = cli("store", word, *more, *yes)
                assert answer.code == 0, answer.err
                typed.append(word)
            case ["agentvault", "team", "key", word, *more]:
                if word != "new":
                    configured(home, database.url, "payments")
                plain = ["--plain"] if word == "export" else []  # no terminal here
                answer = cli("team", "key", word, *more, *plain)
                assert answer.code == 0, answer.err
                typed.append(word)
    assert typed == ["prepare", "info", "new", "copy", "export", "import", "check"]


def test_a_team_gets_texts_without_the_authorities_of_a_home() -> None:
    """A ``ca_file`` is each broker's own: with it no broker could read the text."""
    source = 'ca_file = "ca.pem"\n\x1eca.pem\nPEM\n'
    values = {
        "gateway_text:services/api.toml": source,
        "alerts_file": json.dumps({"text": f"# alerts\n{source}"}),
    }
    rows = {
        row.key: row.value
        for row in _team_rows(values)
        if isinstance(row, Meta) and row.value is not None
    }
    assert rows == {
        "file:services/api.toml": 'ca_file = "ca.pem"\n',
        "file:alerts.toml": '# alerts\nca_file = "ca.pem"\n',
    }


def test_a_copy_ends_the_settings_of_starts_before_the_source() -> None:
    """The first start there is compared with the source's last one, and recorded."""
    values = {"settings_recorded": "{}", "settings_recorded brk_a": "{}"}
    home, team = (
        {row.key for row in rows(values) if isinstance(row, Meta) and row.value is None}
        for rows in (_home_rows, _team_rows)
    )
    assert home == {"settings_recorded"}
    assert team == {"settings_recorded brk_a"}
