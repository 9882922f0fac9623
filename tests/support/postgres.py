"""A PostgreSQL of the tests' own: one cluster a run, on a socket; a database a test.

``initdb`` runs once. The server does not flush (``fsync=off``) unless durability is the
subject; it is not root's, since PostgreSQL refuses to be.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.needs import program
from support.patience import PATIENT
from support.postgres_relay import Relay

from agentvault_tui.home import Home
from agentvault_tui.settings import Settings, StoreSettings, TeamSettings

if TYPE_CHECKING:
    import psycopg

TEAM = "payments"
_TEST_TIME = """
CREATE TABLE agentvault.test_time AS SELECT clock_timestamp() AS at;
GRANT SELECT, UPDATE ON agentvault.test_time TO av_broker;
CREATE OR REPLACE FUNCTION agentvault.time_ago(seconds integer) RETURNS text
LANGUAGE sql VOLATILE AS $$ SELECT to_char(
  at AT TIME ZONE 'UTC' - make_interval(secs => seconds),
  'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') FROM agentvault.test_time $$
"""
"""Makes the time of a store a thing that tests set."""
_END_WITH_US = """
cat >/dev/null
for pid in "$1"/data/postmaster.pid "$1"/replica/data/postmaster.pid; do
  [ -f "$pid" ] && kill -QUIT "$(head -n 1 "$pid")"
done
until rm -rf "$1"; do sleep 0.1; done 2>/dev/null
"""
"""Waits until nobody has the other end of its input, then ends what a folder holds."""
_USER, _BROKER = "postgres", "av_broker"
_QUICK = (
    *("fsync=off", "full_page_writes=off", "shared_buffers=32MB"),
    "max_wal_senders=2",  # a replica, and its first copy
    *("bgwriter_delay=10s", "wal_writer_delay=10s", "checkpoint_timeout=1h"),
    "autovacuum=off",  # else a worker starts for each of hundreds of databases a minute
)


def programs() -> Path:
    """Return the folder of the newest PostgreSQL here; skip where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    return Path(program("initdb", "postgresql")).parent


def as_user(*command: str | Path) -> list[str]:
    """Return *command* as somebody whom PostgreSQL serves."""
    if os.geteuid():
        return [str(word) for word in command]
    return [
        "setpriv",
        f"--reuid={_USER}",
        f"--regid={_USER}",
        "--clear-groups",
        *map(str, command),
    ]


@dataclass
class Cluster:
    """One server, on a socket in *folder*."""

    folder: Path
    options: tuple[str, ...] = _QUICK
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    prepared: str | None = None
    """A database that has the schema already."""
    copying: str = ""
    """How a database is copied: its files take half of what its log would."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def own(self) -> None:
        """Make the folder, PostgreSQL's own."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not os.geteuid():
            there = pwd.getpwnam(_USER)
            os.chown(self.folder, there.pw_uid, there.pw_gid)

    def create(self) -> None:
        """Make an empty cluster that trusts whoever reaches its socket."""
        self.own()
        subprocess.run(
            as_user(
                *(programs() / "initdb", "-D", self.data, "-U", _USER),
                *("-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"),
            ),
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self, *more: str) -> None:
        """Start the server, and wait until it answers."""
        said = [word for one in (*self.options, *more) for word in ("-c", one)]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                as_user(
                    *(programs() / "postgres", "-D", self.data, "-k", self.folder),
                    *("-c", "listen_addresses=", *said),
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        import psycopg  # noqa: PLC0415 - most tests do without, and start faster

        until = time.monotonic() + PATIENT
        while True:
            try:
                ((version,),) = self.run("postgres", "SHOW server_version_num")
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                if int(str(version)) >= 150_000:
                    self.copying = " STRATEGY file_copy"
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT is PostgreSQL's fast shutdown, SIGQUIT a crash."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(PATIENT)
            self.process = None

    def stores_of_homes(self, patch: pytest.MonkeyPatch) -> Callable[[Home], Database]:
        """Return what gives each home a store whose time is its broker's clock."""
        from agentvault_tui.ledger.shared_log import SharedLog  # noqa: PLC0415 - same

        self.prepare()
        made: dict[Path, Database] = {}
        append = SharedLog.append

        async def timed(log: Any, *args: Any, urgent: bool, **more: Any) -> Any:
            db = await log._connected(urgent=urgent)
            await db.execute(
                "UPDATE agentvault.test_time SET at = %s", (log._clock.now(),)
            )
            return await append(log, *args, urgent=urgent, **more)

        def store_of(home: Home) -> Database:
            if home.data not in made:
                made[home.data] = self.store()
                made[home.data].run(_TEST_TIME)
            return made[home.data]

        patch.setattr(SharedLog, "append", timed)
        return store_of

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all of the server's processes (SIGSTOP) during a block."""
        assert self.process is not None
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        everyone = [main, *map(int, children)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in everyone:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def replica(self) -> Cluster:
        """Start a synchronous streaming replica of this server."""
        made = Cluster(self.folder / "replica", self.options)
        made.own()
        subprocess.run(
            as_user(
                *(programs() / "pg_basebackup", "-D", made.data, "-h", self.folder),
                *("-U", _USER, "-R", "-c", "fast", "--no-sync"),
            ),
            check=True,
        )
        made.start()
        self.run("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.run("postgres", "SELECT pg_reload_conf()")
        return made

    def run(self, database: str, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Run one statement as the superuser, and return its rows."""
        with self.session(database) as db:
            found = db.execute(sql, values or None)  # type: ignore[arg-type]
            return found.fetchall() if found.description else []

    def session(
        self, database: str, user: str = _USER
    ) -> psycopg.Connection[tuple[object, ...]]:
        """Connect; the block that this is used in closes it."""
        import psycopg  # noqa: PLC0415 - same

        return psycopg.connect(
            host=str(self.folder), dbname=database, user=user, autocommit=True
        )

    def role(self, name: str) -> None:
        """Make a role that may connect and owns nothing, unless it is there."""
        if not self.run("postgres", "SELECT 1 FROM pg_roles WHERE rolname = %s", name):
            quoted = name.replace('"', '""')
            self.run("postgres", f'CREATE ROLE "{quoted}" LOGIN')

    def database(self, like: str = "template0") -> Database:
        """Make a database like another; by default an empty one."""
        name = f"av_{secrets.token_hex(6)}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE {like}{self.copying}")
        return Database(self, name)

    def store(self) -> Database:
        """Make a database with the schema of a team, for brokers that own nothing."""
        return replace(self.database(self.prepare()), user=_BROKER)

    def prepare(self) -> str:
        """Make the database that `store` copies, outside of any event loop."""
        if self.prepared is None:
            made = self.database()
            self.role(_BROKER)
            asyncio.run(_prepare(made.url))
            self.prepared = made.name
        return self.prepared


@dataclass
class Database:
    """One empty database of a cluster."""

    cluster: Cluster
    name: str
    user: str = _USER
    """Who its URL names."""

    @property
    def url(self) -> str:
        """What `store.url` takes."""
        return self.url_at(self.cluster.folder)

    def url_at(self, folders: Path | str) -> str:
        """Return what `store.url` takes where sockets are in *folders*."""
        return f"postgresql://{quote(self.user)}@/{self.name}?host={folders}"

    @property
    def settings(self) -> Settings:
        """What a broker of the team has in its config.toml."""
        return self.settings_at(self.cluster.folder)

    def settings_at(self, folders: Path | str) -> Settings:
        """Return the same for a broker that reaches it at sockets in *folders*."""
        url = self.url_at(folders)
        return Settings(store=StoreSettings(url=url), team=TeamSettings(TEAM))

    def run(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        return self.cluster.run(self.name, sql, *values)


async def _prepare(url: str) -> None:
    from agentvault_tui.ledger import store_admin  # noqa: PLC0415 - same
    from agentvault_tui.ledger.store_schema import grants  # noqa: PLC0415
    from agentvault_tui.store_connection import Connector  # noqa: PLC0415

    connector = Connector(url, TEAM)
    statements = await store_admin.missing_statements(connector)
    await store_admin.prepare_store(connector, statements, grants(_BROKER))


@contextmanager
def _place() -> Iterator[Path]:
    """Yield a folder for servers; it and they end with this process, killed or not."""
    folder = Path(tempfile.mkdtemp(prefix="avpg"))
    line = ("sh", "-c", _END_WITH_US, "sh", str(folder))
    with subprocess.Popen(line, stdin=subprocess.PIPE, start_new_session=True):
        yield folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster that tests share which leave it as it is."""
    with _place() as folder:
        made = Cluster(folder)
        made.create()
        subprocess.run(as_user("cp", "-a", made.data, folder / "empty"), check=True)
        made.start()
        yield made
        made.stop(signal.SIGQUIT)


@pytest.fixture
def own_store(cluster: Cluster) -> Iterator[Database]:
    """A prepared database on a server that the test may break; it does flush."""
    with _place() as folder:
        made = Cluster(folder, ("shared_buffers=16MB",))
        made.own()
        empty = cluster.folder / "empty"
        subprocess.run(as_user("cp", "-a", empty, made.data), check=True)
        made.start()
        yield made.store()
        made.stop(signal.SIGQUIT)


@pytest.fixture
def store(cluster: Cluster) -> Database:
    """A database that is prepared for a team."""
    return cluster.store()


@pytest.fixture
def database(cluster: Cluster) -> Database:
    """An empty database."""
    return cluster.database()


@pytest.fixture
async def relay(short: Path, store: Database) -> AsyncIterator[Relay]:
    """A relay before the store, in the folder ``relay``."""
    relay = Relay(store.cluster.folder)
    (short / "relay").mkdir()
    async with relay.listening(short / "relay"):
        yield relay
