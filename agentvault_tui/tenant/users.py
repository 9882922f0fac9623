"""The tenant's users as the owner of a home keeps them, from another process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import pyotp
from argon2 import PasswordHasher

from agentvault_tui.clock import Clock, SystemClock
from agentvault_tui.errors import NotFoundError
from agentvault_tui.home import Home
from agentvault_tui.tenant.people import (
    People,
    User,
    checked_name,
    checked_roles,
    name_taken,
    new_password,
    normal_name,
)
from agentvault_tui.tenant.sealing import TenantSeal
from agentvault_tui.tenant.store import Store


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
        self._hasher = hasher or strong_hasher()
        self._store = Store(home, checkpoints=False)
        self._people = People(self._store, TenantSeal.of(home), clock or SystemClock())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._store.close()

    def add(
        self, name: str, *, approver: bool = False, roles: Iterable[str] = ()
    ) -> NewUser:
        """Add a user with a generated password and one-time code secret.

        Args:
            name: what they sign in as.
            approver: the same as the role ``approver`` among *roles*.
            roles: of ``viewer``, ``operator`` and ``approver``.

        Raises:
            UsageError: the name is not one, or a role is unknown.
            ConflictError: the name is taken.
        """
        name = checked_name(name)
        held = checked_roles([*roles, *(["approver"] if approver else [])])
        password = new_password()
        user, secret = self._people.add(name, self._hasher.hash(password), roles=held)
        return NewUser(user, password, secret, _otpauth(name, secret))

    def list(self) -> tuple[User, ...]:
        """Return every user, by name."""
        return tuple(self._people.all())

    def named(self, name: str) -> User:
        """Return the user of that name.

        Raises:
            NotFoundError: there is no such user.
        """
        user = self._people.named(name)
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
        if self._people.named(name) is not None:
            raise name_taken(name)
        return name

    def set_roles(self, name: str, roles: Iterable[str]) -> User:
        """Give a user exactly these roles; in force from their next sign-in on.

        Raises:
            UsageError: a role is unknown.
            NotFoundError: there is no such user.
        """
        user, held = self.named(name), checked_roles(roles)
        self._people.set_roles(user.sub, held)
        return replace(user, roles=held)

    def reset_password(self, name: str) -> str:
        """Give a user a new password, to be shown once; the old one ends.

        Raises:
            NotFoundError: there is no such user.
        """
        user, password = self.named(name), new_password()
        self._people.set_password(user.sub, self._hasher.hash(password))
        return password

    def remove(self, name: str) -> User:
        """Forget a user; what was issued to them ends.

        Raises:
            NotFoundError: there is no such user.
        """
        user = self.named(name)
        self._people.delete(user.sub)
        self._store.update("refresh_tokens", {"gone_at": 0}, user_id=user.sub)
        return user

    def reset_otp(self, name: str) -> tuple[str, str]:
        """Give a user a new one-time code secret; the old one ends, and any lock.

        Returns:
            the secret and its ``otpauth://`` URI, to be shown once.

        Raises:
            NotFoundError: there is no such user.
        """
        secret = self._people.new_otp(name)
        return secret, _otpauth(normal_name(name), secret)


def _otpauth(name: str, secret: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="AgentVault")
