"""Check the two factors, password and one-time code, and count failed tries."""

from __future__ import annotations

import asyncio
import base64
import hmac
import math
import re
import secrets
from typing import Final, Literal

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.lanes import Lanes, Origin, Turns
from agentvault_tui.tenant.people import OTP_KIND, User, normal_name, user_of
from agentvault_tui.tenant.sealing import Seal
from agentvault_tui.tenant.store import Store

Factor = Literal["password", "otp"]

FREE_TRIES: Final = 5
"""Tries before the first lock."""
_FIRST_LOCK: Final = 30.0
"""Seconds; each further failure doubles it."""
_LONGEST: Final[dict[Factor, float]] = {"password": 60.0, "otp": 900.0}
"""Passwords are generated with 100 bits, so their lock only slows. One-time codes have
20 bits and are asked for only after the right password: theirs is the long one."""
_LANES: Final = 1000
_STEP_SECONDS: Final = 30
"""Of one-time codes (RFC 6238 section 5.2)."""
_OTP: Final = re.compile(r"[0-9]{6}")
_SPACES: Final = re.compile(r"[ -]")


class WrongSignInError(TenantRefusedError):
    """The first factor was wrong; which part of it, only the log is told."""

    def __init__(self, *, known: bool) -> None:
        super().__init__("wrong_sign_in", "The user name or the password is not right.")
        self.known = known


class SignIn:
    """Says who signs in, or why not; the same words for a wrong name and password."""

    def __init__(
        self, store: Store, seal: Seal, clock: Clock, hasher: PasswordHasher
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._hasher = hasher
        self._lockouts = Lockouts(store, clock)
        self._turns = Turns()
        self.lanes = Lanes(seal, clock)
        self._stranger_key = seal.derive("unknown user name")
        self._dummy = _of_no_password(hasher)

    async def password(self, name: str, password: str, origin: Origin) -> User:
        """Check the first factor.

        Args:
            name: as it was typed.
            password: the same.
            origin: decides in whose lane the try counts and waits.

        Raises:
            TenantRefusedError: ``wrong_sign_in``, ``blocked``, ``locked`` or ``busy``.
        """
        name = normal_name(name)
        row = self._store.find("users", name=name)
        who = self._stranger(name) if row is None else str(row["sub"])
        lane = self.lanes.lane(origin, who)
        self._turns.check_room(lane)
        counted = f"{lane.key} {who}" if lane.by_name else None
        if counted is not None:
            self._charge(counted, "password")
        # T-16: a stranger costs as much time as a user with a wrong password.
        stored = self._dummy if row is None else str(row["password_hash"])
        async with self._turns.turn(lane):
            right = await asyncio.to_thread(self._matches, stored, password)
        if row is None or not right:
            raise WrongSignInError(known=row is not None)
        if counted is not None:
            self._lockouts.clear(counted, "password")
        user = user_of(row)
        if user.blocked:
            raise TenantRefusedError("blocked", "This user is blocked.")
        return user

    def one_time_code(self, user: User, code: str, origin: Origin) -> int:
        """Check the second factor and use it up.

        Tries count for the person, whoever makes them: that takes the password, and
        six digits bear few. Only where it was shown that it is their browser, or this
        home's owner, they count apart.

        Returns:
            when the person was authenticated, in epoch seconds.

        Raises:
            TenantRefusedError: ``wrong_otp`` or ``locked``.
        """
        lane = self.lanes.lane(origin, user.sub)
        counted = f"{lane.key} {user.sub}" if lane.apart else user.sub
        self._charge(counted, "otp")
        if not self._use_code(user.sub, _SPACES.sub("", code)):
            raise TenantRefusedError(
                "wrong_otp",
                "The one-time code is not right, or was used before.",
                "Wait for your app to show the next one.",
            )
        self._lockouts.clear(counted, "otp")
        return int(self._clock.now().timestamp())

    def _use_code(self, sub: str, code: str) -> bool:
        row = self._store.find("users", sub=sub)
        if row is None or not _OTP.fullmatch(code):
            return False
        version = int(row["otp_version"])
        secret = self._seal.open(OTP_KIND, sub, version, row["otp_sealed"]).decode()
        totp = pyotp.TOTP(secret)
        now = int(self._clock.now().timestamp()) // _STEP_SECONDS
        # RFC 6238 section 5.2: one step of delay either way, and each step once.
        matching = [
            step
            for step in (now - 1, now, now + 1)
            if hmac.compare_digest(totp.generate_otp(step), code)
        ]
        # One statement looks and marks, so of two that send the same code one wins.
        return any(
            self._store.change(
                "UPDATE users SET otp_last_step = ? "
                "WHERE sub = ? AND otp_version = ? AND otp_last_step < ?",
                step,
                sub,
                version,
                step,
            )
            for step in matching
        )

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def _charge(self, who: str, factor: Factor) -> None:
        wait = self._lockouts.charge(who, factor)
        if wait > 0:
            raise TenantRefusedError(
                "locked",
                "Too many tries.",
                f"Wait {math.ceil(wait)} seconds, then try again.",
            )

    def _stranger(self, name: str) -> str:
        # Keyed: people type passwords into the wrong field.
        digest = hmac.new(self._stranger_key, name.encode(), "sha256")
        return f"?{digest.hexdigest()}"


class Lockouts:
    """The tries of each person in each lane, kept over restarts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def charge(self, who: str, factor: Factor) -> float:
        """Take one try before it is looked at, so that parallel ones all count.

        Returns:
            0.0, or the seconds to wait: then the try was not taken.
        """
        now = self._clock.now().timestamp()
        with self._store.transaction():
            row = self._store.find("lockouts", who=who, factor=factor)
            failures = 0 if row is None else int(row["failures"])
            # The wall clock, set back by a year, must not lock for a year.
            left = 0.0 if row is None else float(row["locked_until"]) - now
            if left > 0:
                return min(left, _LONGEST[factor])
            failures += 1
            self._store.change(
                "INSERT OR REPLACE INTO lockouts VALUES (?, ?, ?, ?, ?)",
                who,
                factor,
                failures,
                now + _lock(failures, factor),
                now,
            )
            self._forget_lanes()
        return 0.0

    def clear(self, who: str, factor: Factor) -> None:
        """Forget the tries: the last one was right."""
        self._store.delete("lockouts", who=who, factor=factor)

    def _forget_lanes(self) -> None:
        """Keep what anybody can cause from filling the disk.

        Only what counts for a person alone, and so took their password, stays.
        """
        self._store.change(
            "DELETE FROM lockouts WHERE who IN (SELECT who FROM lockouts "
            "WHERE who LIKE '% %' ORDER BY last_at DESC LIMIT -1 OFFSET ?)",
            _LANES,
        )


def _lock(failures: int, factor: Factor) -> float:
    if failures < FREE_TRIES:
        return 0.0
    doubled = _FIRST_LOCK * 2.0 ** min(failures - FREE_TRIES, 16)
    return min(doubled, _LONGEST[factor])


def _of_no_password(hasher: PasswordHasher) -> str:
    """Return the hash of no password, which takes as long to check as any other.

    Random bytes with *hasher*'s parameters: making a true one takes as long as a
    sign-in, and the tenant would be ready that much later.
    """
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    sizes = (hasher.salt_len, hasher.hash_len)
    parts = (base64.b64encode(secrets.token_bytes(size)).decode() for size in sizes)
    salt, digest = (part.rstrip("=") for part in parts)
    return f"$argon2id$v=19${cost}${salt}${digest}"
