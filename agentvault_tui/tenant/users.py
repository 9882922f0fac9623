"""The tenant's users: names, roles and secrets, managed by the owner of the home."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Self

import pyotp
from argon2 import PasswordHasher

from agentvault_tui.clock import Clock, SharedClock, SystemClock, iso
from agentvault_tui.errors import (
    ConflictError,
    NotFoundError,
    SealedError,
    UsageError,
)
from agentvault_tui.home import Home
from agentvault_tui.model import new_id, sha256_hex
from agentvault_tui.model.role import Role
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.file_store import open_store
from agentvault_tui.tenant.row_time import row_time
from agentvault_tui.tenant.store import Row, Store, TenantSeal

LINK_SECONDS: Final = 600
"""Lifetime of a link that registers a passkey."""
OTP_KIND: Final = "one-time code secret"
CONNECTION: Final = "Username-Password-Authentication"
"""Auth0's name of the connection of users in its own database."""
ROLES: Final = tuple(role.value for role in Role)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]*(@[a-z0-9-]+(\.[a-z0-9-]+)*)?")
_NAME_CAP: Final = 64
_PASSWORD_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # noqa: S105 - not one
_OTP_BASE32: Final = 32
"""160 bits, as RFC 4226 section 4 recommends."""


@dataclass(frozen=True, slots=True)
class User:
    """A person, or an agent's own vault user."""

    sub: str
    name: str
    roles: tuple[str, ...]
    created_at: str
    blocked: bool = False
    profile: dict[str, object] = field(default_factory=dict, repr=False)
    """Further facts, under Auth0's names; never a secret."""

    @property
    def approver(self) -> bool:
        return "approver" in self.roles

    @property
    def email(self) -> str | None:
        if "email" in self.profile:
            return str(self.profile["email"])
        return self.name if "@" in self.name else None

    @property
    def email_verified(self) -> bool:
        """Whether the e-mail address counts as verified.

        The owner of the home typed it at the command line, and the same person writes
        the list of approvers it is compared with. An address that came over the
        Management API counts as verified only if that said so.
        """
        return bool(self.profile.get("email_verified", True))


def user_of(row: Row) -> User:
    """Read a user from a row."""
    roles, profile = json.loads(row["roles"]), json.loads(row["profile"])
    blocked = bool(row["blocked"])
    return User(
        row["sub"], row["name"], tuple(roles), row["created_at"], blocked, profile
    )


def normal_name(name: str) -> str:
    """Return how a user name is stored and looked up."""
    return name.strip().lower()


def checked_name(name: str) -> str:
    """Return the normal form of a new user's name.

    Raises:
        UsageError: it is not one.
    """
    name = normal_name(name)
    if len(name) > _NAME_CAP or not _NAME.fullmatch(name):
        raise UsageError(
            "this is not a user name",
            f"up to {_NAME_CAP} letters, digits and . _ + -, or an e-mail address",
        )
    return name


def checked_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Return *roles* in the order of their weight, each once.

    Raises:
        UsageError: one is unknown.
    """
    wanted = set(roles)
    if unknown := wanted.difference(ROLES):
        raise UsageError(f"there is no role {min(unknown)}", f"see: {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in wanted)


class People:
    """The users of one store."""

    def __init__(self, store: Store, seal: TenantSeal, clock: Clock) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock

    def find(self, sub: str | None) -> User | None:
        row = self._store.find("users", sub=sub)
        return None if row is None else user_of(row)

    def by_name(self, name: str) -> User | None:
        row = self._store.find("users", name=normal_name(name))
        return None if row is None else user_of(row)

    def all(self) -> list[User]:
        return list(map(user_of, self._store.all("SELECT * FROM users ORDER BY name")))

    def insert(
        self,
        name: str,
        password_hash: str,
        *,
        roles: tuple[str, ...] = (),
        profile: dict[str, object] | None = None,
    ) -> tuple[User, str]:
        """Add a user; return it and its one-time code secret, shown once.

        Raises:
            ConflictError: the name is taken.
        """
        now = iso(self._clock.now())
        secret = pyotp.random_base32(_OTP_BASE32)
        user = User(
            f"agentvault|{new_id('usr')}", name, roles, now, profile=profile or {}
        )
        added = self._store.insert(
            "users",
            sub=user.sub,
            name=name,
            roles=json.dumps(roles),
            password_hash=password_hash,
            otp_sealed=self._seal.close(OTP_KIND, user.sub, 1, secret.encode()),
            otp_version=1,
            otp_last_step=0,
            created_at=now,
            profile=json.dumps(user.profile),
        )
        if not added:
            raise _taken(name)
        return user, secret

    def delete(self, sub: str) -> bool:
        """Delete a user and their data; return whether there was one."""
        with self._store.transaction():
            self._unlock(sub)
            self._store.delete("lockouts", who=sub)
            self._end_begun(sub)
            self._store.delete("passkeys", sub=sub)
            self._store.delete("connected_accounts", user_id=sub)
            self._store.delete("access_tokens", sub=sub)
            return bool(self._store.delete("users", sub=sub))

    def _end_begun(self, sub: str) -> None:
        """End a person's sessions and links, and their approvals not fetched yet."""
        for table in ("page_sessions", "activations", "passkey_links"):
            self._store.delete(table, sub=sub)
        denied = {"state": "denied", "sub": None}
        self._store.update("device_codes", denied, sub=sub, state="approved")

    def _unlock(self, sub: str) -> None:
        """Forget the counts of a person, in any lane.

        A running tenant may have unwritten counts; from a row with zero failures it
        knows when the lock was lifted (`signin.Lockouts`).
        """
        self._store.change(
            "DELETE FROM lockouts"
            " WHERE who = ? OR substr(who, length(who) - length(?)) = ' ' || ?",
            *(sub, sub, sub),
        )
        now = self._clock.now().timestamp()
        for factor in ("password", "otp"):
            row = {"failures": 0, "locked_until": 0.0, "last_at": now}
            self._store.put(
                "lockouts", ("who", "factor"), who=sub, factor=factor, **row
            )


@dataclass(frozen=True, slots=True)
class NewUser:
    """A new user's secrets, shown once."""

    user: User
    password: str = field(repr=False)
    otp_secret: str = field(repr=False)
    otpauth_uri: str = field(repr=False)


def strong_hasher() -> PasswordHasher:
    """Return argon2id at 64 MiB, 3 passes and 4 lanes: about 120 ms of two cores."""
    return PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


class UserStore(People):
    """The users of one tenant, for the process of its home's owner.

    Safe while the tenant runs: each change is one transaction, and the tenant reads the
    user again at each sign-in.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        *,
        clock: Clock | None = None,
        hasher: PasswordHasher | None = None,
    ) -> None:
        """Open the store of *settings*; the file of *home* is made if there is none.

        Raises:
            TenantError: it cannot be used.
            SealedError: the key of the encrypted values cannot be used.
        """
        self._hasher = hasher or strong_hasher()
        clock = clock or SharedClock(SystemClock())
        store = open_store(home, settings, clock, checkpoints=False)
        try:
            seal = TenantSeal.of(home, shared=bool(settings.store.url))
        except SealedError:
            store.close()
            raise
        super().__init__(store, seal, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._store.close()

    def add(
        self, name: str, *, approver: bool = False, roles: Iterable[str] = ()
    ) -> NewUser:
        """Add a user with a generated password and one-time code secret.

        *approver* is the same as the role ``approver`` among *roles*.

        Raises:
            UsageError: the name is not one, or a role is unknown.
            ConflictError: the name is taken.
        """
        name = checked_name(name)
        held = checked_roles([*roles, *(["approver"] if approver else [])])
        password = _new_password()
        user, secret = self.insert(name, self._hasher.hash(password), roles=held)
        return NewUser(user, password, secret, _otpauth(name, secret))

    def named(self, name: str) -> User:
        """Return the user of that name.

        Raises:
            NotFoundError: there is no such user.
        """
        user = self.by_name(name)
        if user is None:
            raise NotFoundError("there is no such user", "see `tenant user list`")
        return user

    def free(self, name: str) -> str:
        """Return the normal form of a new user's name.

        Raises:
            UsageError: the name is not one.
            ConflictError: the name is taken.
        """
        name = checked_name(name)
        if self.by_name(name) is not None:
            raise _taken(name)
        return name

    def set_roles(self, name: str, roles: Iterable[str]) -> User:
        """Give a user exactly these roles; in effect from their next sign-in on.

        Raises:
            UsageError: a role is unknown.
            NotFoundError: there is no such user.
        """
        user, held = self.named(name), checked_roles(roles)
        with self._store.transaction():
            self._store.update("users", {"roles": json.dumps(held)}, sub=user.sub)
            self._end_begun(user.sub)
        return replace(user, roles=held)

    def reset_password(self, name: str) -> str:
        """Give a user a new password, to be shown once.

        The old one ends, with any lock and the sessions begun with it.

        Raises:
            NotFoundError: there is no such user.
        """
        user, password = self.named(name), _new_password()
        hashed = {"password_hash": self._hasher.hash(password)}
        with self._store.transaction():
            self._store.update("users", hashed, sub=user.sub)
            self._unlock(user.sub)
            self._end_begun(user.sub)
        return password

    def remove(self, name: str) -> User:
        """Delete a user; their tokens end.

        Raises:
            NotFoundError: there is no such user.
        """
        user = self.named(name)
        self.delete(user.sub)
        self._store.delete("refresh_tokens", user_id=user.sub)
        return user

    def invite_passkey(self, user: User) -> str:
        """Return the token that registers one passkey, within `LINK_SECONDS`.

        An earlier link ends, as it does when the person's factors or role change.
        """
        token = secrets.token_urlsafe(32)
        with self._store.transaction():
            self._store.delete("passkey_links", sub=user.sub)
            self._store.insert(
                "passkey_links",
                link_hash=sha256_hex(token),
                sub=user.sub,
                expires_at=row_time(self._store, self._clock) + LINK_SECONDS,
            )
        return token

    def passkeys(self, **columns: str) -> list[dict[str, object]]:
        """Return the passkeys with these *columns*, oldest first."""
        shown = "id, sub, host, synced, created_at, last_used_at"
        rows = self._store.all(f"SELECT {shown} FROM passkeys ORDER BY created_at")  # noqa: S608
        rows_read = [dict(row) for row in rows]
        return [one for one in rows_read if columns.items() <= one.items()]

    def remove_passkeys(self, keys: Iterable[str]) -> None:
        """Delete passkeys by their ids; sessions that began with one end."""
        for key in keys:
            for one in self.passkeys(id=key):
                self._end_begun(str(one["sub"]))
            self._store.delete("passkeys", id=key)

    def reset_otp(self, name: str) -> tuple[str, str]:
        """Give a user a new one-time code secret; the old one ends, and any lock.

        Returns:
            the secret and its ``otpauth://`` URI, to be shown once.

        Raises:
            NotFoundError: there is no such user.
        """
        secret = pyotp.random_base32(_OTP_BASE32)
        with self._store.transaction():
            row = self._store.find("users", name=normal_name(name))
            if row is None:
                raise NotFoundError("there is no such user", "see `tenant user list`")
            sub, version = row["sub"], row["otp_version"] + 1
            # A higher version in the associated data: the old secret, put back from
            # an older copy of the row, no longer opens.
            box = self._seal.close(OTP_KIND, sub, version, secret.encode())
            fresh = {"otp_sealed": box, "otp_version": version, "otp_last_step": 0}
            self._store.update("users", fresh, sub=sub)
            self._unlock(sub)
            self._end_begun(sub)
        return secret, _otpauth(normal_name(name), secret)


def _otpauth(name: str, secret: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="AgentVault")


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"there is a user {name} already",
        "choose another name, or give this one new codes with `user otp`",
    )


def _new_password() -> str:
    """Return 100 random bits in four groups that can be typed."""
    return "-".join(
        "".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(5)) for _ in range(4)
    )
