"""Users at rest: what the store holds, and what it refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import traceback
from base64 import urlsafe_b64decode
from contextlib import closing
from pathlib import Path

import pyotp
import pytest
from auth0_double.running import TenantThread
from support.manual_clock import ManualClock
from support.tenant_store import open_store, open_users, seal_of

from agentvault_tui.errors import (
    ConflictError,
    NotFoundError,
    SealedError,
    TenantError,
    UsageError,
)
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.model.claims import ROLES
from agentvault_tui.tenant.codes import DeviceCodes
from agentvault_tui.tenant.store import TenantSeal
from agentvault_tui.tenant.users import OTP_KIND


def test_a_user_is_added_once_and_listed(home: Home) -> None:
    """add shows password and seed; list never does; a name is taken in any case."""
    with open_users(home) as users:
        bob = users.add("bob", approver=False)
        ann = users.add(" Ann@Acme.test", approver=True)
        assert users.all() == [ann.user, bob.user]
        assert ann.user.name == "ann@acme.test"
        assert ann.user.sub.startswith("agentvault|usr_")
        with pytest.raises(ConflictError):
            users.add("BOB", approver=True)
        with pytest.raises(NotFoundError):
            users.reset_otp("carol")


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "-x", "\x1b[31m", "a" * 65, "x@", "Ünal", "a\n"]
)
def test_a_bad_user_name_is_refused(home: Home, name: str) -> None:
    """A user name is plain ASCII without spaces, or it is refused."""
    with open_users(home) as users:
        if name == "a\n":
            assert users.add(name, approver=False).user.name == "a"
        else:
            with pytest.raises(UsageError):
                users.add(name, approver=False)


def test_the_otpauth_uri_works_in_any_authenticator_app(home: Home) -> None:
    """The otpauth URI has issuer, account and 160 bits, and the defaults besides."""
    with open_users(home) as users:
        new = users.add("ann@acme.test", approver=True)
    parsed = pyotp.parse_uri(new.otpauth_uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert parsed.secret == new.otp_secret
    assert (parsed.issuer, parsed.name) == ("AgentVault", "ann@acme.test")
    assert (parsed.digits, parsed.interval) == (6, 30)
    assert len(parsed.byte_secret()) == 20


def test_passwords_and_seeds_are_in_no_repr_and_no_file(home: Home) -> None:
    """Neither repr nor files hold a password or a seed; passwords are argon2id."""
    with open_users(home) as users:
        new = users.add("ann", approver=True)
        row = users._store.one("SELECT password_hash FROM users")
        assert row is not None
        assert row["password_hash"].startswith("$argon2id$")
        for secret in (new.password, new.otp_secret):
            assert secret not in repr(new)
            for file in home.data.rglob("*"):
                if file.is_file():
                    assert secret.encode() not in file.read_bytes()


@pytest.mark.slow
def test_passwords_are_hashed_at_64_mib_and_three_passes(home: Home) -> None:
    """argon2id with 64 MiB, three passes and four lanes, if nothing else is given."""
    users = open_users(home, hasher=None)
    hashed = users._hasher.hash("x")
    users.close()
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_the_store_is_private_under_any_umask(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600 with a umask of 000."""
    before = os.umask(0)
    try:
        with open_users(Home.locate(tmp_path / "home")) as users:
            users.add("ann", approver=True)
            for path in (tmp_path / "home", *(tmp_path / "home").rglob("*")):
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)


def test_a_sealed_seed_opens_for_its_user_and_version_alone(home: Home) -> None:
    """A seed opens only for its own user, its own version, and unharmed."""
    seal = seal_of(home)
    box = seal.close(OTP_KIND, "ann", 1, b"JBSWY3DP")
    assert seal.open(OTP_KIND, "ann", 1, box) == b"JBSWY3DP"
    for kind, owner, version, sealed in (
        (OTP_KIND, "bob", 1, box),
        (OTP_KIND, "ann", 2, box),
        ("signing key", "ann", 1, box),
        (OTP_KIND, "ann", 1, box[:-1] + bytes([box[-1] ^ 1])),
        (OTP_KIND, "ann", 1, b"\x02" + box[1:]),
        (OTP_KIND, "ann", 1, b""),
        (OTP_KIND, "ann", 1, box[:5]),
    ):
        with pytest.raises(SealedError) as error:
            seal.open(kind, owner, version, sealed)
        assert "JBSWY3DP" not in "".join(traceback.format_exception(error.value))


@pytest.mark.one_file
def test_a_damaged_key_or_store_is_an_error_with_a_remedy(home: Home) -> None:
    """A half key file and a file that is no database are errors with a remedy."""
    key = home.keys / "tenant.key"
    whole = key.read_bytes()
    key.write_bytes(whole[:7])
    with pytest.raises(SealedError, match="damaged"):
        seal_of(home)
    assert whole.hex() not in repr(TenantSeal(whole))
    for file in home.tenant.iterdir():
        file.unlink()
    (home.tenant / "tenant.db").write_bytes(b"no database" * 1000)
    with pytest.raises(TenantError, match="cannot be used"):
        open_users(home)


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
    with open_users(home) as users:
        added = users.add("ann", approver=approver, roles=roles)
        assert added.user.roles == held
        assert users.all() == [added.user]
        assert added.user.approver is ("approver" in held)


@pytest.mark.parametrize("role", ["admin", "Approver", "", "viewer "])
def test_an_unknown_role_is_refused(home: Home, role: str) -> None:
    """A word that is no role is refused with those that are."""
    with open_users(home) as users:
        with pytest.raises(UsageError) as error:
            users.add("ann", roles=[role])
        assert "approver" in error.value.diagnosis()
        assert users.all() == []


@pytest.mark.one_file
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
    with open_users(home) as users:
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


@pytest.mark.parametrize("change", ["password", "factor", "role", "passkey", "removed"])
def test_a_change_of_a_person_ends_what_they_began(
    home: Home, change: str, clock: ManualClock
) -> None:
    """Page sessions, passkey links, and an approval that nobody has fetched."""
    with open_users(home) as users, closing(open_store(home)) as store:
        subs = [users.add(name).user.sub for name in ("ann", "bob")]
        codes = DeviceCodes(store, seal_of(home), clock)
        store.insert(
            "passkeys",
            id="k",
            sub=subs[0],
            public_key=b"",
            counter=0,
            synced=0,
            host="h",
            created_at="now",
        )
        keys = []
        for sub in subs:
            row = {"sub": sub, "expires_at": 9e9}
            store.insert("page_sessions", cookie_hash=sub, **row)
            store.insert("passkey_links", link_hash=sub, **row)
            pair = codes.issue("client", "openid", None, 120)
            code = codes.by_key(sha256_hex(pair.device_code))
            assert code is not None
            assert codes.approve(code, sub, "s", 1)
            keys.append(code.key)
        {
            "password": lambda: users.reset_password("ann"),
            "factor": lambda: users.reset_otp("ann"),
            "role": lambda: users.set_roles("ann", ["viewer"]),
            "passkey": lambda: users.remove_passkeys(["k"]),
            "removed": lambda: users.remove("ann"),
        }[change]()
        for table in ("page_sessions", "passkey_links"):
            left = [row["sub"] for row in store.all(f"SELECT sub FROM {table}")]
            assert left == [subs[1]], table
        now = [codes.by_key(key) for key in keys]
        assert [code and code.state for code in now] == ["denied", "approved"]
