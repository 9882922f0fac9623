"""Roles of the embedded tenant's users: given, kept, and named in the ID token."""

from __future__ import annotations

import json
import sqlite3
from base64 import urlsafe_b64decode

import pytest
from auth0_double.running import CHEAP, TenantThread

from agentvault_tui.errors import UsageError
from agentvault_tui.home import Home
from agentvault_tui.model.claims import ROLES
from agentvault_tui.tenant.users import UserStore


@pytest.mark.parametrize(
    ("roles", "approver", "held"),
    [
        ((), False, ()),
        (("viewer",), False, ("viewer",)),
        (("approver", "operator", "operator"), False, ("operator", "approver")),
        (("viewer",), True, ("viewer", "approver")),
    ],
)
def test_a_users_roles_are_unique_and_ordered(
    home: Home, roles: tuple[str, ...], approver: bool, held: tuple[str, ...]
) -> None:
    """In one order, however they were typed; --approver is the role of that name."""
    with UserStore(home, hasher=CHEAP) as users:
        added = users.add("ann", approver=approver, roles=roles)
        assert added.user.roles == held
        assert users.all() == [added.user]
        assert added.user.approver is ("approver" in held)


@pytest.mark.parametrize("role", ["admin", "Approver", "", "viewer "])
def test_an_unknown_role_is_refused(home: Home, role: str) -> None:
    """A word that is no role is refused with those that are."""
    with UserStore(home, hasher=CHEAP) as users:
        with pytest.raises(UsageError) as error:
            users.add("ann", roles=[role])
        assert "approver" in error.value.diagnosis()
        assert users.all() == []


def test_migration_gives_approvers_their_role(home: Home) -> None:
    """Who could approve is an approver still, and others can be added."""
    file = home.tenant / "tenant.db"
    file.unlink()
    db = sqlite3.connect(file)
    db.execute(
        "CREATE TABLE users (sub TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
        " approver INTEGER NOT NULL CHECK (approver IN (0, 1)),"
        " password_hash TEXT NOT NULL, otp_sealed BLOB NOT NULL,"
        " otp_version INTEGER NOT NULL, otp_last_step INTEGER NOT NULL,"
        " created_at TEXT NOT NULL) STRICT, WITHOUT ROWID"
    )
    for name, approver in (("ann", 1), ("bob", 0)):
        row = (f"s|{name}", name, approver, "x", b"x", 1, 0, "2026-11-24T10:00:00Z")
        db.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    with UserStore(home, hasher=CHEAP) as users:
        users.add("carl", roles=["operator"])
        assert [(user.name, user.roles) for user in users.all()] == [
            ("ann", ("approver",)),
            ("bob", ()),
            ("carl", ("operator",)),
        ]


def test_an_id_token_names_the_users_roles(tenant: TenantThread) -> None:
    """Whoever signs in brings their roles in the claim, and no other."""
    olga = tenant.users.add("olga", roles=["operator", "viewer"])
    flow = tenant.flow(None)
    tenant.approve(flow, olga)
    tenant.clock.advance(2)
    body = tenant.poll(flow).json()["id_token"].split(".")[1]
    claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims[ROLES] == ["viewer", "operator"]
