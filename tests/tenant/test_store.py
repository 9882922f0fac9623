"""The tenant's store through its versions: older homes keep what they hold."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from auth0_double.running import CHEAP, TenantThread
from support.tenant_admin import Admin
from support.tenant_store import open_store, open_users, seal_of

from agentvault_tui.errors import NotFoundError, TenantError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.tenant.file_store import MIGRATIONS
from agentvault_tui.tenant.store import rebase
from agentvault_tui.tenant.users import OTP_KIND


@pytest.fixture
def old(tmp_path: Path) -> Home:
    """A home as the first release left it, with two people and an open code."""
    home = Home.locate(tmp_path / "old")
    for folder in (home.data, home.tenant, home.keys):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seal = seal_of(home)
    database = sqlite3.connect(home.tenant / "tenant.db")
    database.executescript(MIGRATIONS[0])
    for name, approver in (("ann", 1), ("bob", 0)):
        sub = f"agentvault|usr_{name}"
        box = seal.close(OTP_KIND, sub, 1, b"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
        database.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?, ?, 1, 0, '2026-01-01T00:00:00Z')",
            (sub, name, approver, CHEAP.hash("her-old-password"), box),
        )
    locked = ("agentvault|usr_ann", "otp", 6, 1e12, 1e12)
    database.execute("INSERT INTO lockouts VALUES (?, ?, ?, ?, ?)", locked)
    database.commit()
    database.close()
    return home


def test_migration_keeps_users_and_their_secrets(old: Home) -> None:
    """Names, passwords, seeds, locks; who could approve has the role, others none."""
    with open_users(old) as users:
        found = {user.name: user.roles for user in users.all()}
    assert found == {"ann": ("approver",), "bob": ()}
    tenant = TenantThread(old)
    try:
        store = open_store(old, checkpoints=False)
        row = store.one("SELECT * FROM users WHERE name = 'ann'")
        lock = store.find("lockouts", who="agentvault|usr_ann", factor="otp")
        store.close()
        assert lock is not None
        assert lock["failures"] == 6
        assert row is not None
        assert CHEAP.verify(row["password_hash"], "her-old-password")
        opened = seal_of(old).open(OTP_KIND, row["sub"], 1, row["otp_sealed"])
        assert opened.startswith(b"JBSWY3DP")
        assert Admin(tenant).call("GET", "users").json()[0]["username"] == "ann"
    finally:
        tenant.close()


def test_two_processes_migrate_a_store_once(old: Home) -> None:
    """Two processes may come at the same time; the second finds it done."""
    stores = [open_store(old, checkpoints=False) for _ in range(2)]
    for store in stores:
        row = store.one("PRAGMA user_version")
        assert row is not None
        assert row["user_version"] == len(MIGRATIONS)
        store.close()


def test_a_store_of_a_later_release_is_refused(home: Home) -> None:
    """It says so, and changes nothing."""
    database = sqlite3.connect(home.tenant / "tenant.db")
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.commit()
    database.close()
    with pytest.raises(TenantError, match="later release"):
        open_store(home, checkpoints=False)


def test_migration_drops_ciba_and_rotating_tokens(old: Home) -> None:
    """A store of version 4 loses CIBA's table and rotating tokens, and no more."""
    database = sqlite3.connect(old.tenant / "tenant.db")
    database.executescript(MIGRATIONS[1])
    database.execute("CREATE TABLE ciba_requests (auth_req_hash TEXT PRIMARY KEY)")
    database.executescript(MIGRATIONS[3])
    for key, rotating in (("rt_1", 0), ("rt_2", 1)):
        database.execute(
            "INSERT INTO refresh_tokens (id, user_id, client_id, audience, reach,"
            " rotating, created_at) VALUES (?, 'u', 'c', '', '{}', ?, 1.0)",
            (key, rotating),
        )
    database.execute("PRAGMA user_version = 4")
    database.commit()
    database.close()
    store = open_store(old, checkpoints=False)
    # One that rotates would live for ever, now that none is rotated.
    assert [row["id"] for row in store.rows("refresh_tokens")] == ["rt_1"]
    tables = store.all("SELECT name FROM sqlite_schema WHERE type = 'table'")
    assert "ciba_requests" not in {row["name"] for row in tables}
    assert len(store.all("SELECT * FROM users")) == 2
    store.close()


def test_stored_audiences_follow_a_changed_port(home: Home) -> None:
    """What was configured under the old issuer's name has the new one's."""
    store = open_store(home)
    rebase(store, "http://127.0.0.1:1/")
    store.change(
        "INSERT INTO objects (kind, id, name, doc) VALUES ('client-grant', 'c', 'n',"
        ' \'{"audience": "http://127.0.0.1:1/me/"}\')'
    )
    rebase(store, "http://127.0.0.1:2/")
    row = store.one("SELECT doc FROM objects WHERE id = 'c'")
    assert row is not None
    assert row["doc"] == '{"audience": "http://127.0.0.1:2/me/"}'
    store.close()


def test_roles_are_set_in_order(home: Home) -> None:
    """In the order of their weight, once each; approver is one of them."""
    with open_users(home) as users:
        ann = users.add("ann", roles=["approver", "viewer", "viewer"])
        assert ann.user.roles == ("viewer", "approver")
        assert users.add("bob", approver=True, roles=["operator"]).user.roles == (
            "operator",
            "approver",
        )
        assert users.set_roles("ann", ["operator"]).roles == ("operator",)
        assert [user.approver for user in users.all()] == [False, True]
        with pytest.raises(UsageError, match="no role"):
            users.set_roles("ann", ["admin"])
        with pytest.raises(NotFoundError, match="no such user"):
            users.set_roles("nobody", [])
