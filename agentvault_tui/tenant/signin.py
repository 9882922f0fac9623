"""Check the two factors, password and one-time code, and limit failed tries."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import logging
import math
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.clock import Clock
from agentvault_tui.errors import LedgerError, TenantRefusedError
from agentvault_tui.model import sha256_hex
from agentvault_tui.tenant.store import Store, TenantSeal
from agentvault_tui.tenant.users import OTP_KIND, User, normal_name, user_of
from agentvault_tui.web.shares import classes_of
from agentvault_tui.web.sockets import tcp_user

Factor = Literal["password", "otp", "code"]
"""The kinds of tries: a password, a one-time code, or the code of a device flow."""

FREE_TRIES: Final = 5
"""Tries before the first lock."""
_FIRST_LOCK: Final = 30.0
"""Seconds; each further failure doubles it."""
_LONGEST: Final[dict[Factor, float]] = {"password": 60.0, "otp": 900.0, "code": 60.0}
"""Passwords are generated with 100 bits, so their lock only slows. One-time codes have
20 bits and are asked for only after the right password: theirs is the long one."""
_LANES_COUNTED: Final = 1000
_WRITE_S: Final = 1.0
"""Seconds between two writes of counts."""
_STEP_SECONDS: Final = 30
"""Length of a time step of one-time codes, in seconds (RFC 6238 section 5.2)."""
_OTP: Final = re.compile(r"[0-9]{6}")
_SPACES: Final = re.compile(r"[ -]")
GUESSES: Final = frozenset({"wrong_sign_in", "wrong_otp"})
"""Refusals that count as a guess against the device code as well."""
_log = logging.getLogger("agentvault.tenant")


class WrongSignInError(TenantRefusedError):
    """The first factor was wrong; only the log has which part of it."""

    def __init__(self, *, exists: bool) -> None:
        super().__init__("wrong_sign_in", "The user name or the password is not right.")
        self.exists = exists


class SignIn:
    """Checks factors; the error is the same for a wrong name and a wrong password."""

    def __init__(
        self, store: Store, seal: TenantSeal, clock: Clock, hasher: PasswordHasher
    ) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        self._hasher = hasher
        self.lockouts = Lockouts(store, clock)
        self._turns = Turns()
        self.lanes = Lanes(seal, clock)
        self._stranger_key = seal.derive("unknown user name")
        self._dummy = _of_no_password(hasher)

    async def password(self, name: str, password: str, origin: Origin) -> User:
        """Check the first factor; its *origin* decides the lane that counts the try.

        Raises:
            TenantRefusedError: ``wrong_sign_in``, ``blocked``, ``locked`` or ``busy``.
        """
        name = normal_name(name)
        row = self._store.find("users", name=name)
        # Keyed, for a stranger: people type passwords into the wrong field.
        digest = hmac.new(self._stranger_key, name.encode(), "sha256").hexdigest()
        who = f"?{digest}" if row is None else str(row["sub"])
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
            raise WrongSignInError(exists=row is not None)
        # The check may have waited: read the user again.
        row = self._store.find("users", sub=who)
        if row is None or row["password_hash"] != stored:
            raise WrongSignInError(exists=row is not None)
        if counted is not None:
            self.lockouts.clear(counted, "password")
        user = user_of(row)
        if user.blocked:
            raise TenantRefusedError("blocked", "This user is blocked.")
        return user

    def one_time_code(self, user: User, code: str, origin: Origin) -> int:
        """Check the second factor and spend it.

        Guesses count per person from any origin, because the guesser already has the
        password and six digits allow few guesses. A known browser and the owner of the
        home directory have their own counts.

        Returns:
            when the person was authenticated, in epoch seconds.

        Raises:
            TenantRefusedError: ``wrong_otp``, ``used_otp`` or ``locked``.
        """
        lane = self.lanes.lane(origin, user.sub)
        counted = f"{lane.key} {user.sub}" if lane.apart else user.sub
        self._charge(counted, "otp")
        matching = self._steps_of(user.sub, _SPACES.sub("", code))
        if not matching:
            raise TenantRefusedError(
                "wrong_otp", "The one-time code is not right.", "Look again, and retry."
            )
        if not self._use_step(user.sub, *matching):
            left = _STEP_SECONDS - int(self._clock.now().timestamp()) % _STEP_SECONDS
            raise TenantRefusedError(
                "used_otp",
                "This one-time code was used already.",
                f"Wait for the next code (0:{left:02}).",
            )
        self.lockouts.clear(counted, "otp")
        return int(self._clock.now().timestamp())

    def charge_passkey(self, credential_id: str, origin: Origin) -> str:
        """Count one try to show a passkey, before it is verified.

        Args:
            credential_id: of the passkey, as the answer names it.
            origin: where it comes from.

        Returns:
            its count; `Lockouts.clear` forgets it once the passkey was right.

        Raises:
            TenantRefusedError: ``locked``.
        """
        named = sha256_hex(credential_id)[:32]
        counted = f"{self.lanes.lane(origin, named).key} passkey-{named}"
        self._charge(counted, "code")
        return counted

    def _steps_of(self, sub: str, code: str) -> tuple[int, list[int]] | None:
        """Return the seed's version, and the steps near now that *code* is of."""
        row = self._store.find("users", sub=sub)
        if row is None or not _OTP.fullmatch(code):
            return None
        version = int(row["otp_version"])
        secret = self._seal.open(OTP_KIND, sub, version, row["otp_sealed"]).decode()
        totp = pyotp.TOTP(secret)
        now = int(self._clock.now().timestamp()) // _STEP_SECONDS
        # RFC 6238 section 5.2: one step of delay either way.
        steps = [
            step
            for step in (now - 1, now, now + 1)
            if hmac.compare_digest(totp.generate_otp(step), code)
        ]
        return (version, steps) if steps else None

    def _use_step(self, sub: str, version: int, steps: list[int]) -> bool:
        """Spend one of *steps*, each once (RFC 6238 section 5.2)."""
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
            for step in steps
        )

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def _charge(self, who: str, factor: Factor) -> None:
        wait = self.lockouts.charge(who, factor)
        if wait > 0:
            raise TenantRefusedError(
                "locked",
                "Too many tries.",
                f"Wait {math.ceil(wait)} seconds, then try again.",
            )


@dataclass(slots=True)
class _Tries:
    """The counts of one person, lane or browser."""

    failures: int = 0
    unwritten: int = 0
    """How many of those the store does not have yet."""
    locked_until: float = 0.0
    last_at: float = 0.0
    stored: bool = False
    """Whether the store has it. If the row is gone, someone has lifted the lock."""
    ended_at: float = float("-inf")
    """When a lock of the person was ended last, before these tries."""


class Lockouts:
    """Failed tries by person and lane, or browser, over restarts.

    They are counted in memory and written at most once a second, without a flush: a
    guess costs the event loop no more than the work of looking at it. Where brokers
    share the store, each adds its own, so that within a second all are one count.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tries: dict[tuple[str, Factor], _Tries] = {}
        self._unwritten: dict[tuple[str, Factor], None] = {}
        self._written_at = float("-inf")
        self._due: asyncio.TimerHandle | None = None
        store.before_close.append(self.write)

    def charge(self, who: str, factor: Factor) -> float:
        """Count one try before it is checked, so that parallel ones all count.

        Returns:
            0.0, or the seconds to wait: then the try was not counted.
        """
        now = self._clock.now().timestamp()
        tries = self._tries_of(who, factor)
        # A wall clock that was set back by a year must not lock for a year. One
        # slightly behind another broker's must not lock at all.
        left = tries.locked_until - now if tries.failures >= FREE_TRIES else 0.0
        if left > 0:
            return min(left, _LONGEST[factor])
        tries.failures += 1
        tries.unwritten += 1
        tries.locked_until, tries.last_at = now + _lock(tries.failures, factor), now
        key = (who, factor)
        self._tries.pop(key, None)  # the latest last
        self._tries[key] = tries
        self._unwritten[key] = None
        self._forget()
        self._write_soon()
        return 0.0

    def clear(self, who: str, factor: Factor) -> None:
        """Forget the tries: the last one was right."""
        tries = self._tries.pop((who, factor), None)
        self._unwritten.pop((who, factor), None)
        if tries is None or tries.stored:
            self._store.delete("lockouts", who=who, factor=factor)

    def _tries_of(self, who: str, factor: Factor) -> _Tries:
        """Return the counts here, and of the brokers that share the store."""
        row = self._store.find("lockouts", who=who, factor=factor)
        tries = self._tries.get((who, factor)) or _Tries()
        if tries.stored and row is None:
            tries = _Tries()
        person = who.rpartition(" ")[2]
        ended = self._store.find("lockouts", who=person, factor=factor, failures=0)
        if ended is not None and tries.ended_at < ended["last_at"] >= tries.last_at:
            tries = _Tries(ended_at=ended["last_at"])
        if row is not None:
            tries.stored = True
            written = int(row["failures"]) + tries.unwritten
            tries.failures = max(tries.failures, written)
            tries.locked_until = max(tries.locked_until, float(row["locked_until"]))
        return tries

    def _forget(self) -> None:
        """Bound the memory that strangers' tries take, the oldest first.

        Counts for a person alone stay, as in `_forget_lanes`.
        """
        while len(self._tries) > 2 * _LANES_COUNTED:
            key = next((one for one in self._tries if " " in one[0]), None)
            if key is None:
                return
            del self._tries[key]
            self._unwritten.pop(key, None)

    def _write_soon(self) -> None:
        """Write now, or once the second is over."""
        left = self._written_at + _WRITE_S - self._clock.boot()
        if left <= 0:
            self.write()
        elif self._due is None:
            with suppress(RuntimeError):  # no loop runs: the next try writes it
                loop = asyncio.get_running_loop()
                self._due = loop.call_later(left, self.write)

    def write(self) -> None:
        """Write the counts since the last time."""
        if self._due is not None:
            self._due.cancel()
        self._due, self._written_at = None, self._clock.boot()
        unwritten, self._unwritten = self._unwritten, {}
        if not unwritten:
            return
        try:
            with self._store.unflushed(), self._store.transaction():
                for who, factor in unwritten:
                    self._put(who, factor)
                for kind in {factor for _, factor in unwritten}:
                    self._forget_lanes(kind)
        except LedgerError as error:  # a team's store is away
            _log.warning("failed tries are written later: %s", error.what)
            self._unwritten = unwritten | self._unwritten
            return
        for key in unwritten:
            if (tries := self._tries.get(key)) is not None:
                tries.unwritten = 0

    def _put(self, who: str, factor: Factor) -> None:
        """Add the unwritten counts to those of the brokers that share the store."""
        tries = self._tries_of(who, factor)
        if not tries.unwritten:
            self._tries.pop((who, factor), None)  # ended meanwhile
            return
        lock = tries.last_at + _lock(tries.failures, factor)
        tries.locked_until = max(tries.locked_until, lock)
        columns: dict[str, object] = {
            "failures": tries.failures,
            "locked_until": tries.locked_until,
            "last_at": tries.last_at,
        }
        key = {"who": who, "factor": factor}
        if not tries.stored:
            self._store.put("lockouts", ("who", "factor"), **key, **columns)
            tries.stored = True
        else:
            self._store.update("lockouts", columns, **key)

    def _forget_lanes(self, factor: Factor) -> None:
        """Prevent strangers from filling the disk.

        Only counts for a person alone, which took their password, stay.
        """
        self._store.change(
            "DELETE FROM lockouts WHERE who IN (SELECT who FROM lockouts "
            "WHERE who LIKE '% %' AND factor = ? ORDER BY last_at DESC LIMIT -1"
            " OFFSET ?) AND factor = ?",
            *(factor, _LANES_COUNTED, factor),
        )


def _lock(failures: int, factor: Factor) -> float:
    if failures < FREE_TRIES:
        return 0.0
    doubled = _FIRST_LOCK * 2.0 ** min(failures - FREE_TRIES, 16)
    return min(doubled, _LONGEST[factor])


def _of_no_password(hasher: PasswordHasher) -> str:
    """Return a hash that no password has, and that takes as long to check as any other.

    Random bytes with *hasher*'s parameters: hashing something would delay the start.
    """
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    sizes = (hasher.salt_len, hasher.hash_len)
    parts = (base64.b64encode(secrets.token_bytes(size)).decode() for size in sizes)
    salt, digest = (part.rstrip("=") for part in parts)
    return f"$argon2id$v=19${cost}${salt}${digest}"


PROOF_HEADER: Final = "agentvault-sign-in-proof"
_COOKIE: Final = "agentvault_known_"
_VALUE: Final = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9]{1,12})\.([0-9a-f]{64})")
_RETENTION_S: Final = 90 * 86_400
"""Seconds a browser is known after a sign-in."""
_PARALLEL: Final = 2
"""Each check takes 64 MiB: more at once would let sign-ins eat the machine's memory."""
_OPEN_PARALLEL: Final = 1
"""How many of `_PARALLEL` may serve untrusted clients; the rest is reserved."""
_WAITING: Final = 64
"""Sign-ins of one lane that may wait for their turn; more must come again."""
_LANES: Final = 256
"""Lanes that may wait at a time."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sign-in comes from, as far as that shows."""

    uid: int | None = None
    """The owner of the asking process, if the kernel names it."""
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    code: str | None = None
    """The key of the device code it is for, if only the console could start that."""
    address: str | None = None
    """Of another machine, an IPv6 one as its network of 64 bits."""
    site: str = ""
    """Of such a network, the /48 that it is in."""
    secure: bool = False
    """Whether it came over TLS."""
    own: bool = False
    """Whether its owner proved that they can read this home."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Sign-ins that share their tries and their turns."""

    key: str
    trusted: bool
    """Whether it has proved something that a stranger cannot."""
    by_name: bool = True
    """Whether wrong passwords are counted for each name. Not where the tries are few
    anyway. Not for an unknown origin either: anyone could lock a user out by name."""
    apart: bool = False
    """Whether one-time codes are counted apart from everybody else's as well."""
    site: str = ""
    """The /48 of an IPv6 address: its lanes have one turn among them (RFC 6177)."""


class Lanes:
    """Assigns sign-ins to lanes, and remembers browsers."""

    def __init__(self, seal: TenantSeal, clock: Clock) -> None:
        self._clock = clock
        self._seal = seal
        self._key = seal.derive("known browser")

    def origin(
        self, request: Request, *, code: str | None = None, user_code: str = ""
    ) -> Origin:
        """Return where a *request* comes from that brings a password or one-time code.

        If it is for a device code of the console's, *code* is the key of that, and
        *user_code* its normal form.
        """
        proof = request.headers.get(PROOF_HEADER, "")
        own = bool(user_code) and hmac.compare_digest(
            proof.encode(), proof_of(self._seal, user_code).encode()
        )
        client, server = request.client, request.scope.get("server")
        uid = None
        if client is not None and server is not None:
            uid = tcp_user((client.host, client.port), (server[0], server[1]))
        address, site = (None, "") if client is None else _network(client.host)
        secure = request.url.scheme == "https"
        return Origin(uid, request.cookies, code, address, site, secure, own)

    def lane(self, origin: Origin, who: str) -> Lane:
        """Return the lane of a sign-in as *who*, the subject or a stranger's digest."""
        if origin.own:
            return Lane("own", trusted=True, apart=True)
        match = _VALUE.fullmatch(origin.cookies.get(self._name(who), ""))
        if match is not None:
            nonce, issued, mac = match.groups()
            age = self._clock.now().timestamp() - int(issued)
            expected = self._mac(who, nonce, issued, origin.uid)
            if hmac.compare_digest(mac, expected) and 0 <= age < _RETENTION_S:
                # One lane for a person's browsers: more sign-ins give no more tries.
                return Lane(f"browser-{who}", trusted=True, apart=True)
        if origin.code is not None:
            return Lane(f"code-{origin.code}", trusted=True, by_name=False)
        if origin.uid is None and origin.address is not None:
            return Lane(f"from-{origin.address}", trusted=False, site=origin.site)
        if origin.uid is None:
            return Lane("anyone", trusted=False, by_name=False)
        return Lane(f"uid-{origin.uid}", trusted=False)

    def remember(self, answer: Response, origin: Origin, sub: str) -> None:
        """Set the cookie that makes this browser known as *sub*'s, after both factors.

        Cookies do not separate ports: another server on this address may be sent it. So
        it is good for no other user's process, and for nothing but tries.
        """
        nonce = secrets.token_urlsafe(16)
        issued = str(int(self._clock.now().timestamp()))
        answer.set_cookie(
            self._name(sub),
            f"{nonce}.{issued}.{self._mac(sub, nonce, issued, origin.uid)}",
            max_age=_RETENTION_S,
            path="/",
            secure=origin.secure,
            httponly=True,
            samesite="strict",
        )

    def _name(self, who: str) -> str:
        return _COOKIE + self._sign(f"name {who}")[:16]

    def _mac(self, who: str, nonce: str, issued: str, uid: int | None) -> str:
        return self._sign(f"value {who} {nonce} {issued} {uid}")

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def _network(host: str) -> tuple[str | None, str]:
    """Return another machine's address as tries are counted by, and its /48.

    A machine has as many addresses of its /64 as it likes (RFC 4291 section 2.5.4).
    """
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None, ""
    classes = classes_of(host)
    return (classes[0], "") if len(classes) == 1 else (classes[1], classes[0])


def proof_of(seal: TenantSeal, user_code: str) -> str:
    """Return the proof that a sign-in for *user_code* is by this home's owner."""
    key = seal.derive("sign-in from the home")
    return hmac.new(key, user_code.encode(), "sha256").hexdigest()


class Turns:
    """Limits parallel password checks, and serves waiting lanes in rotation."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {}
        self._running = {True: 0, False: 0}
        """By whether the lane is trusted."""

    def check_room(self, lane: Lane) -> None:
        """Refuse a sign-in of a lane in which too many wait.

        Raises:
            TenantRefusedError: ``busy``.
        """
        line = self._waiting.get(lane)
        alike = sum(one.trusted == lane.trusted for one in self._waiting)
        if len(line or ()) >= _WAITING or (line is None and alike >= _LANES):
            raise TenantRefusedError(
                "busy",
                "Too many people are signing in right now.",
                "Try again in a moment.",
            )

    @asynccontextmanager
    async def turn(self, lane: Lane) -> AsyncIterator[None]:
        """Wait for a turn of *lane*'s, and have it for the block."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(place)
        self._go_on()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._end(lane)
            raise
        try:
            yield
        finally:
            self._end(lane)

    def _end(self, lane: Lane) -> None:
        self._running[lane.trusted] -= 1
        self._go_on()

    def _go_on(self) -> None:
        while (lane := self._next()) is not None:
            line = self._waiting.pop(lane)
            place = line.popleft()
            # Behind the others, with all lanes of the same site.
            site = lane.site or None
            for one in [one for one in self._waiting if one.site == site]:
                self._waiting[one] = self._waiting.pop(one)
            if line:
                self._waiting[lane] = line
            if not place.done():
                self._running[lane.trusted] += 1
                place.set_result(None)

    def _next(self) -> Lane | None:
        """Return the lane whose turn it is; None: there is none."""
        if sum(self._running.values()) >= _PARALLEL:
            return None
        first = {
            trusted: next(
                (one for one in self._waiting if one.trusted == trusted), None
            )
            for trusted in (True, False)
        }
        open_now = self._running[False] < _OPEN_PARALLEL
        if first[False] is not None and open_now and self._running[True]:
            return first[False]  # trusted lanes must not starve the others
        return first[True] or (first[False] if open_now else None)
