"""The tenant's users: added, listed and given new one-time code secrets."""

from __future__ import annotations

import re
import secrets
import sqlite3
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import pyotp
from argon2 import PasswordHasher

from agentvault_tui.clock import Clock, SystemClock, iso
from agentvault_tui.errors import ConflictError, NotFoundError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.model import new_id
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.store import Store

OTP_KIND: Final = "one-time code secret"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]*(@[a-z0-9-]+(\.[a-z0-9-]+)*)?")
_NAME_CAP: Final = 64
_PASSWORD_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # noqa: S105 - not one
_OTP_BASE32: Final = 32
"""160 bits, as RFC 4226 section 4 recommends."""


@dataclass(frozen=True, slots=True)
class User:
    """A person who can sign in."""

    sub: str
    name: str
    approver: bool
    created_at: str


@dataclass(frozen=True, slots=True)
class NewUser:
    """What is shown once, when a user is added."""

    user: User
    password: str = field(repr=False)
    otp_secret: str = field(repr=False)
    otpauth_uri: str = field(repr=False)


def strong_hasher() -> PasswordHasher:
    """Return argon2id at 64 MiB, 3 passes and 4 lanes: about 120 ms of two cores."""
    return PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


def normal_name(name: str) -> str:
    """Return how a user name is stored and looked up."""
    return name.strip().lower()


class UserStore:
    """The users of one home, for the process of whoever owns it.

    Safe while the tenant runs: each change is one SQLite transaction, and the tenant
    reads the user anew at each sign-in.
    """

    def __init__(
        self,
        home: Home,
        *,
        clock: Clock | None = None,
        hasher: PasswordHasher | None = None,
    ) -> None:
        """Open the store of *home*, and make it if there is none.

        Raises:
            TenantError: it cannot be used.
        """
        self._clock = clock or SystemClock()
        self._hasher = hasher or strong_hasher()
        self._store = Store(home, checkpoints=False)
        self._seal = Seal.of(home)

    def __enter__(self) -> Self:
        """Use the store for a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the file go."""
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self._store.close()

    def add(self, name: str, *, approver: bool) -> NewUser:
        """Add a user with a generated password and one-time code secret.

        Raises:
            UsageError: the name is not one.
            ConflictError: the name is taken.
        """
        name = normal_name(name)
        if len(name) > _NAME_CAP or not _NAME.fullmatch(name):
            raise UsageError(
                "this is not a user name",
                f"up to {_NAME_CAP} letters, digits and . _ + -, or an e-mail address",
            )
        user = User(
            f"agentvault|{new_id('usr')}", name, approver, iso(self._clock.now())
        )
        password, secret = _new_password(), pyotp.random_base32(_OTP_BASE32)
        try:
            self._store.change(
                "INSERT INTO users VALUES (?, ?, ?, ?, ?, 1, 0, ?)",
                user.sub,
                name,
                int(approver),
                self._hasher.hash(password),
                self._seal.close(OTP_KIND, user.sub, 1, secret.encode()),
                user.created_at,
            )
        except sqlite3.IntegrityError:
            raise ConflictError(
                f"there is a user {name} already",
                "choose another name, or give this one new codes with `user otp`",
            ) from None
        return NewUser(user, password, secret, _otpauth(name, secret))

    def list(self) -> tuple[User, ...]:
        """Return every user, by name."""
        return tuple(
            user_of(row)
            for row in self._store.all(
                "SELECT sub, name, approver, created_at FROM users ORDER BY name"
            )
        )

    def reset_otp(self, name: str) -> tuple[str, str]:
        """Give a user a new one-time code secret; the old one ends, and any lock.

        Returns:
            the secret and its ``otpauth://`` URI, to be shown once.

        Raises:
            NotFoundError: there is no such user.
        """
        name = normal_name(name)
        secret = pyotp.random_base32(_OTP_BASE32)
        with self._store.transaction():
            row = self._store.one(
                "SELECT sub, otp_version FROM users WHERE name = ?", name
            )
            if row is None:
                raise NotFoundError("there is no such user", "see `tenant user list`")
            sub, version = row["sub"], row["otp_version"] + 1
            # A higher version in the associated data: the old secret, put back from
            # an older copy of the row, no longer opens.
            self._store.change(
                "UPDATE users SET otp_sealed = ?, otp_version = ?, otp_last_step = 0 "
                "WHERE sub = ?",
                self._seal.close(OTP_KIND, sub, version, secret.encode()),
                version,
                sub,
            )
            self._store.change("DELETE FROM lockouts WHERE who = ?", sub)
        return secret, _otpauth(name, secret)


def user_of(row: sqlite3.Row) -> User:
    """Read a user from a row."""
    return User(row["sub"], row["name"], bool(row["approver"]), row["created_at"])


def _new_password() -> str:
    """Return 100 random bits in four groups that can be typed."""
    return "-".join(
        "".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(5)) for _ in range(4)
    )


def _otpauth(name: str, secret: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="AgentVault")
