"""The tenant's users as its endpoints see them: found, listed, added, blocked."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyotp

from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import ConflictError, NotFoundError, UsageError
from agentvault_tui.model import new_id
from agentvault_tui.model.role import Role
from agentvault_tui.tenant.objects import merged
from agentvault_tui.tenant.sealing import TenantSeal
from agentvault_tui.tenant.store import Store

OTP_KIND: Final = "one-time code secret"
CONNECTION: Final = "Username-Password-Authentication"
"""What Auth0 calls the connection of users it keeps itself."""
ROLES: Final = tuple(role.value for role in Role)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._+-]*(@[a-z0-9-]+(\.[a-z0-9-]+)*)?")
_NAME_CAP: Final = 64
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
    profile: dict[str, Any] = field(default_factory=dict, repr=False)
    """What is known besides, under Auth0's names; never a secret."""

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
        """Whether this issuer stands for the address.

        The owner of the home typed it at the command line, and the same person writes
        the list of approvers it is compared with. An address that came over the
        Management API counts as verified only if that said so.
        """
        return bool(self.profile.get("email_verified", True))


def user_of(row: sqlite3.Row) -> User:
    """Read a user from a row."""
    return User(
        row["sub"],
        row["name"],
        tuple(json.loads(row["roles"])),
        row["created_at"],
        bool(row["blocked"]),
        json.loads(row["profile"]),
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
    asked = set(roles)
    if unknown := asked.difference(ROLES):
        raise UsageError(f"there is no role {min(unknown)}", f"see: {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in asked)


def name_taken(name: str) -> ConflictError:
    """Return the refusal of a name that somebody has."""
    return ConflictError(
        f"there is a user {name} already",
        "choose another name, or give this one new codes with `user otp`",
    )


class People:
    """The users of one store."""

    def __init__(self, store: Store, seal: TenantSeal, clock: Clock) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock

    def find(self, sub: str | None) -> User | None:
        row = self._store.find("users", sub=sub)
        return None if row is None else user_of(row)

    def named(self, name: str) -> User | None:
        row = self._store.find("users", name=normal_name(name))
        return None if row is None else user_of(row)

    def all(self) -> list[User]:
        return [
            user_of(row) for row in self._store.all("SELECT * FROM users ORDER BY name")
        ]

    def add(
        self,
        name: str,
        password_hash: str,
        *,
        roles: tuple[str, ...] = (),
        profile: dict[str, Any] | None = None,
    ) -> tuple[User, str]:
        """Add a user; return it and its one-time code secret, to be shown once.

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
            raise name_taken(name)
        return user, secret

    def new_otp(self, name: str) -> str:
        """Give a user a new one-time code secret; the old one ends, and any lock.

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
            self._store.change(_UNLOCK, sub)
        return secret

    def set_roles(self, sub: str, roles: tuple[str, ...]) -> None:
        self._store.update("users", {"roles": json.dumps(roles)}, sub=sub)

    def set_password(self, sub: str, password_hash: str) -> None:
        """Give a user another password; it ends what locks the old one caused."""
        self._store.update("users", {"password_hash": password_hash}, sub=sub)
        self._store.change(_UNLOCK, sub)

    def describe(self, sub: str, **members: Any) -> None:
        """Add to what is known of a user; a None takes the member away."""
        with self._store.transaction():
            user = self.find(sub)
            if user is None:
                return
            profile = json.dumps(merged(user.profile, members))
            self._store.update("users", {"profile": profile}, sub=sub)

    def note_login(self, sub: str) -> None:
        user = self.find(sub)
        if user is not None:
            count = int(user.profile.get("logins_count", 0)) + 1
            now = iso(self._clock.now())
            self.describe(sub, last_login=now, logins_count=count)

    def delete(self, sub: str) -> bool:
        """Forget a user and all that is kept of them; tell whether there was one."""
        with self._store.transaction():
            self._store.change(_UNLOCK, sub)
            self._store.delete("connected_accounts", user_id=sub)
            self._store.delete("access_tokens", sub=sub)
            return bool(self._store.delete("users", sub=sub))


_UNLOCK: Final = "DELETE FROM lockouts WHERE ?1 IN (who, substr(who, -length(?1)))"
"""What is counted for a person, in any lane."""


def new_password() -> str:
    """Return 100 random bits in four groups that can be typed."""
    return "-".join(
        "".join(secrets.choice(_PASSWORD_ALPHABET) for _ in range(5)) for _ in range(4)
    )


_PASSWORD_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # noqa: S105 - not one
