"""The tenant's store in PostgreSQL: who writes when, and what a lost server does."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pyotp
import pytest
from auth0_double.running import TenantThread
from support.manual_clock import ManualClock
from support.patience import PATIENT
from support.postgres import Database
from support.tenant_store import CHEAP, open_store, open_users, seal_of, share

from agentvault_tui.clock import SharedClock, SystemClock
from agentvault_tui.errors import (
    LedgerUnwritableError,
    RefusedError,
    StoreAwayError,
    TenantRefusedError,
)
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings, TeamSettings
from agentvault_tui.tenant.signin import Origin, SignIn
from agentvault_tui.tenant.store import rebase
from agentvault_tui.tenant.team_store import TeamStore, _merged

pytestmark = pytest.mark.slow

Open = Callable[..., TeamStore]


def test_of_servers_the_latest_timeline_that_either_saw_counts() -> None:
    """The broker's order stands; what the tenant alone saw is the latest."""
    seen, ours = [("a", 1), ("b", 3)], [("b", 2), ("c", 1), ("a", 4)]
    assert _merged(seen, ours) == [("a", 4), ("b", 3), ("c", 1)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path / "home")


@pytest.fixture
def opened(home: Home) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda database, clock=None: stack.enter_context(
            closing(TeamStore(home, database.settings, clock or SystemClock()))
        )


def waiting(database: Database) -> int:
    """Return how many connections wait for a lock."""
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    ((count,),) = database.run(sql)
    return int(str(count))


def end_connections(database: Database) -> None:
    database.run(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name = 'agentvault' AND datname = current_database()"
    )


def cancel_waiting(database: Database) -> None:
    """Let the commit that waits for a replica wait no more."""
    sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while not (found := database.run(sql)):
        pass
    database.run("SELECT pg_cancel_backend(%s)", found[0][0])


def test_nobody_else_writes_during_a_transaction(store: Database, opened: Open) -> None:
    """Another's single statement waits for its end, and counts what it left."""
    one, other = opened(store), opened(store)
    one.remember("count", 0)
    done: list[int] = []

    def count() -> None:
        sql = "UPDATE facts SET value = value || 'b' WHERE name = ? AND value = ?"
        done.append(other.change(sql, "count", "a"))

    thread = threading.Thread(target=count)
    with one.transaction():
        thread.start()
        while not waiting(store):
            pass
        assert one.fact("count") == "0"
        one.remember("count", "a")
    thread.join(PATIENT)
    assert done == [1]
    assert one.fact("count") == "ab"


def test_a_failed_block_leaves_nothing(store: Database, opened: Open) -> None:
    """Whatever it raised, all of it is taken back, and the store goes on."""
    one = opened(store)

    def block() -> None:
        with one.transaction():
            one.remember("a", 1)
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert one.fact("a") is None
    with one.transaction():
        one.remember("b", 2)
    assert one.fact("b") == "2"


def test_a_connection_that_was_ended_is_made_anew(
    store: Database, opened: Open
) -> None:
    """Between two statements nobody notices; a transaction is not done by halves."""
    one = opened(store)
    one.remember("a", 1)
    end_connections(store)
    assert one.fact("a") == "1"

    def block() -> None:
        with one.transaction():
            one.remember("b", 1)
            end_connections(store)
            one.remember("c", 1)

    with pytest.raises(StoreAwayError, match="during a transaction"):
        block()
    assert (one.fact("b"), one.fact("c")) == (None, None)


def test_a_stopped_server_holds_nobody_for_long(
    own_store: Database, opened: Open
) -> None:
    """A statement gives up, the next ones fail at once, and later all goes on."""
    clock = ManualClock(datetime.now(UTC))
    one = opened(own_store, clock)
    one.remember("a", 1)
    with own_store.cluster.stopped():
        for _ in range(2):
            with pytest.raises(LedgerUnwritableError):
                one.fact("a")
        with pytest.raises(StoreAwayError, match="the store is away"):
            one.fact("a")
    clock.advance(2)
    assert one.fact("a") == "1"


def test_a_commit_that_no_replica_has_is_not_told(
    own_store: Database, opened: Open
) -> None:
    """A failover would forget it: what it decided counts as not known."""
    one = opened(own_store)
    one.remember("a", 1)
    own_store.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    own_store.run("SELECT pg_reload_conf()")
    thread = threading.Thread(target=cancel_waiting, args=(own_store,))
    thread.start()

    def remember() -> None:
        while True:  # until the server has read its settings again
            one.remember("b", 1)

    with pytest.raises(LedgerUnwritableError, match="replicas"):
        remember()
    thread.join(PATIENT)


def test_the_clock_is_set_to_the_stores(store: Database, opened: Open) -> None:
    """Whatever the machine's says; what it decides by time is decided alike."""
    wrong = ManualClock(datetime.now(UTC) - timedelta(days=3))
    shared = SharedClock(wrong)
    opened(store, shared).fact("a")
    ((now,),) = store.run("SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    assert abs(shared.now() - now) < timedelta(seconds=PATIENT)


def test_text_that_postgresql_does_not_take_finds_nobody(
    store: Database, opened: Open
) -> None:
    """A NUL in what was typed is no error, and no other name either."""
    one = opened(store)
    one.remember("a", 1)
    assert one.find("facts", name="a\0") is None
    assert one.find("facts", name="\0a%s ?") is None
    one.remember("a\0", "b\0")
    assert one.fact("a") == "1"


def test_a_server_before_one_that_the_broker_saw_is_not_used(
    store: Database, home: Home, opened: Open
) -> None:
    """An old primary that came back has codes unspent that are spent."""
    one = opened(store)
    one.remember("a", 1)
    ((system,),) = store.run("SELECT system_identifier FROM pg_control_system()")
    home.data.mkdir(mode=0o700)
    for systems, used in (
        ([[str(system), 1]], True),
        ([[str(system), 2]], False),
        ([[str(system), 1], ["another", 1]], False),
    ):
        with closing(sqlite3.connect(home.database)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS meta (key PRIMARY KEY, value, n)")
            row = json.dumps({"systems": systems})
            db.execute(
                "INSERT OR REPLACE INTO meta VALUES ('ledger copy', ?, 0)", (row,)
            )
        fresh = opened(store)
        if used:
            assert fresh.fact("a") == "1"
        else:
            with pytest.raises(StoreAwayError, match="a later one was seen"):
                fresh.fact("a")
    home.database.write_bytes(b"no database" * 100)
    with pytest.raises(StoreAwayError, match="cannot be read"):
        opened(store).fact("a")
    home.database.write_bytes(b"")
    assert opened(store).fact("a") == "1"


def test_another_teams_store_is_refused(store: Database, home: Home) -> None:
    """As a broker refuses it."""
    settings = Settings(store=store.settings.store, team=TeamSettings("other"))
    with (
        closing(TeamStore(home, settings, SystemClock())) as one,
        pytest.raises(RefusedError, match="team"),
    ):
        one.fact("a")


def test_a_one_time_code_brought_twice_at_once_is_good_once(
    store: Database, home: Home
) -> None:
    """At two brokers in the same moment: one of them accepts it."""
    clock = ManualClock(datetime.now(UTC))
    share(home, store)
    stores = [open_store(home) for _ in range(2)]
    brokers = [SignIn(one, seal_of(home), clock, CHEAP) for one in stores]
    with open_users(home, clock=clock) as users:
        ann = users.add("ann")
    totp = pyotp.TOTP(ann.otp_secret)

    def accepts(sign_in: SignIn) -> bool:
        try:
            sign_in.one_time_code(ann.user, totp.at(clock.now()), Origin())
        except TenantRefusedError:
            return False
        return True

    with ThreadPoolExecutor() as both:
        for _ in range(20):
            clock.advance(30)
            assert sorted(both.map(accepts, brokers)) == [False, True]
    for one in stores:
        one.close()


@pytest.mark.parametrize("said", ["https://ops.example/", ""])
def test_a_stranger_to_the_team_renames_nothing(
    store: Database, opened: Open, said: str
) -> None:
    """One that is about to be refused, for its URL or for having none."""
    one = opened(store)
    rebase(one, "https://ops.example/")
    for name, tenant in (("brk_1", said), ("brk_2", "")):
        store.run(
            "INSERT INTO agentvault.brokers VALUES (%s, clock_timestamp(), %b, 'run')",
            *(name, json.dumps({"tenant": tenant}).encode()),
        )
    with pytest.raises(RefusedError, match="not as"):
        rebase(one, "http://127.0.0.1:7/")
    assert one.fact("issuer") == "https://ops.example/"
    # Who is seen no more serves nobody.
    ago = "seen = seen - interval '2 seconds'"
    store.run(f"UPDATE agentvault.brokers SET {ago} WHERE id = 'brk_1'")
    rebase(one, "http://127.0.0.1:7/")
    assert one.fact("issuer") == "http://127.0.0.1:7/"


def test_sign_in_answers_503_while_the_store_is_away(
    own_store: Database, home: Home
) -> None:
    """Pages and endpoints alike, with when to come again; then they go on."""
    share(home, own_store)
    tenant = TenantThread(home)
    ann = tenant.users.add("ann", approver=True)
    flow = tenant.flow()
    own_store.cluster.stop()

    def asked() -> list[httpx.Response]:
        bearer = {"authorization": f"Bearer {'.'.join('abc')}"}
        return [
            tenant.ask(),
            tenant.poll(flow),
            tenant.http.get(tenant.issuer + ".well-known/jwks.json"),
            tenant.http.get(tenant.issuer + "api/v2/clients", headers=bearer),
            tenant.http.get(
                tenant.issuer + "me/v1/connected-accounts/accounts", headers=bearer
            ),
        ]

    for answer in asked():
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"] == "temporarily_unavailable"
    own_store.cluster.start()
    ends = time.monotonic() + PATIENT
    while tenant.ask().status_code == 503:
        assert time.monotonic() < ends
        time.sleep(0.05)
    tenant.approve(flow, ann)
    assert tenant.poll(flow).status_code == 200
    tenant.close()
