"""Which PostgreSQL is used as a team's store, and which never is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.needs import program
from support.patience import PATIENT
from support.postgres import TEAM, Database, as_user

from agentvault_tui import store_connection
from agentvault_tui.errors import (
    AgentVaultError,
    RefusedError,
    SettingsError,
    StoreAwayError,
)
from agentvault_tui.store_connection import Connector, ask, close

pytestmark = pytest.mark.slow


async def refusal(connector: Connector) -> AgentVaultError:
    """Return why *connector* refuses to connect."""
    try:
        db = await connector.connect()
    except AgentVaultError as error:
        return error
    await close(db)
    raise AssertionError("it connected")


async def test_a_prepared_primary_is_used(store: Database) -> None:
    """Its identity and timeline are remembered."""
    connector = Connector(store.url, TEAM)
    db = await connector.connect()
    assert await ask(db, "SELECT 1 + %s", (1,)) == [(2,)]
    await close(db)
    ((system, timeline),) = connector.systems
    assert timeline == 1
    assert store.run("SELECT system_identifier FROM pg_control_system()") == [
        (int(system),)
    ]


@pytest.mark.parametrize("level", ["off", "local", "remote_write"])
async def test_early_confirmations_are_refused(store: Database, level: str) -> None:
    """A commit is on disk, here and on synchronous replicas, before it is answered."""
    store.run(f"ALTER DATABASE {store.name} SET synchronous_commit = {level}")
    error = await refusal(Connector(store.url, TEAM))
    assert isinstance(error, RefusedError)
    assert f"synchronous_commit = {level}" in error.what


async def test_another_team_or_version_is_refused(store: Database) -> None:
    """Version N works on N and N + 1; older and newer schemas say what to do."""
    assert "the team 'payments'" in (await refusal(Connector(store.url, "x"))).what
    connector = Connector(store.url, TEAM)
    for version, words in ((0, "store prepare"), (3, "upgrade AgentVault")):
        store.run("UPDATE agentvault.head SET version = %s", version)
        assert words in (await refusal(connector)).diagnosis()
    store.run("UPDATE agentvault.head SET version = 2")
    await close(await connector.connect())


async def test_a_database_without_the_schema_is_refused(database: Database) -> None:
    """It says which command makes it."""
    error = await refusal(Connector(database.url, TEAM))
    assert "store prepare" in error.remedy


async def test_a_replica_is_not_the_store(own_store: Database) -> None:
    """In the primary's place it is no store, as long as it is one."""
    replica = own_store.cluster.replica()
    try:
        url = f"postgresql://postgres@/{own_store.name}?host={replica.folder}"
        error = await refusal(Connector(url, TEAM))
        assert isinstance(error, StoreAwayError)
        assert "a replica" in error.what
    finally:
        replica.stop(signal.SIGQUIT)


async def test_an_earlier_server_is_never_used_again(store: Database) -> None:
    """Once a later timeline, or another system, was seen."""
    connector = Connector(store.url, TEAM)
    await close(await connector.connect())
    ((system, _),) = connector.systems
    for later in ([(system, 2)], [(system, 1), ("4711", 1)]):
        connector.systems = later
        error = await refusal(connector)
        assert isinstance(error, StoreAwayError)
        assert "a later one was seen" in error.what
        assert connector.systems == later
    connector.systems = [("4711", 3)]
    await close(await connector.connect())
    assert connector.systems == [("4711", 3), (system, 1)]


async def test_an_old_postgresql_is_refused(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is told, and which is needed."""
    monkeypatch.setattr(store_connection, "_OLDEST", 990_000)
    error = await refusal(Connector(store.url, TEAM))
    assert isinstance(error, RefusedError)
    assert "15 or later" in error.remedy


async def test_a_password_comes_from_a_private_file_alone(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the environment, and not from a file that others read."""
    path = tmp_path / "password"
    path.write_text("hunter2\n")
    path.chmod(0o640)
    monkeypatch.setenv("PGPASSWORD_FILE", str(path))
    error = await refusal(Connector(store.url, TEAM))
    assert isinstance(error, SettingsError)
    assert "others can read" in error.what
    # systemd's folder is this service's alone, whatever the mode of a file in it.
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    await close(await Connector(store.url, TEAM).connect())
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    path.chmod(0o600)
    await close(await Connector(store.url, TEAM).connect())
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    error = await refusal(Connector(store.url, TEAM))
    assert error.exit_code == 2
    assert "hunter2" not in error.diagnosis()


async def test_a_password_is_asked_for_and_never_told(
    own_store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right one opens; a wrong one is not in the error."""
    cluster = own_store.cluster
    own_store.run("ALTER ROLE av_broker PASSWORD 'correct horse'")
    rules = "local all all scram-sha-256\n"
    (cluster.data / "pg_hba.conf").write_text(rules)
    os.kill(cluster.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
    path = tmp_path / "password"
    monkeypatch.setenv("PGPASSWORD_FILE", str(path))
    for words, opens in (("hunter2", False), ("correct horse", True)):
        path.write_text(words)
        path.chmod(0o600)
        connector = Connector(own_store.url, TEAM)
        if opens:
            await close(await connector.connect())
        else:
            assert words not in (await refusal(connector)).diagnosis()


@contextmanager
def pgbouncer(store: Database, folder: Path, mode: str) -> Iterator[str]:
    """Run PgBouncer before a store; yield the store's URL through it."""
    server = program("pgbouncer")
    port = 6432  # of a socket in the folder, and of no address
    folder.chmod(0o777)
    users = folder / "users"
    users.write_text('"postgres" ""\n')
    users.chmod(0o644)
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"* = host={store.cluster.folder}\n"
        "[pgbouncer]\n"
        f"listen_addr =\nlisten_port = {port}\nunix_socket_dir = {folder}\n"
        f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
    )
    config.chmod(0o644)
    process = subprocess.Popen(
        as_user(server, config), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if b"process up" in line:
                break
        yield f"postgresql://postgres@/{store.name}?host={folder}&port={port}"
    finally:
        process.kill()
        process.wait(PATIENT)
        process.stdout.close()


async def test_pooled_transactions_are_refused_and_pooled_sessions_used(
    short: Path, store: Database
) -> None:
    """PgBouncer in transaction mode is told apart from session mode."""
    for mode in ("transaction", "session"):
        with pgbouncer(store, short, mode) as url:
            connector = Connector(url, TEAM)
            if mode == "session":
                await close(await connector.connect())
            else:
                error = await refusal(connector)
                assert isinstance(error, RefusedError)
                assert "pools transactions" in error.what


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
async def test_a_file_of_the_url_that_others_could_write_is_not_read(
    store: Database, tmp_path: Path, name: str
) -> None:
    """It says which server is the store, or who this broker is."""
    path = tmp_path / "root.crt"
    path.write_text("")
    path.chmod(0o666)
    mark = "&" if "?" in store.url else "?"
    error = await refusal(Connector(f"{store.url}{mark}{name}={path}", TEAM))
    assert f"others can write to {path}" in error.what
