"""Device codes and user codes (RFC 8628): issued, found, decided, and spent once."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from agentvault_tui.clock import Clock, Deadline, iso, parse_iso
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import new_secret, sha256_hex
from agentvault_tui.tenant import details
from agentvault_tui.tenant.details import PageDetails
from agentvault_tui.tenant.store import Row, Store, TenantSeal

USER_CODE_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, so no words, and no Y; 20^8 is 34.5 bits."""
_HALF: Final = 4
_LONGEST: Final = 80
_WIDE: Final = {0xFEE0 + code: code for code in range(0x21, 0x7F)}
"""Full-width forms, and their meaning (Unicode, Halfwidth and Fullwidth Forms)."""
_PAGE, _AGENT, _SIGN_IN = "approval pages", "agents' requests", "sign-ins"
_CAPS: Final = {_PAGE: 256, _AGENT: 256, _SIGN_IN: 64}
"""The purposes of codes, and the number of each that may wait for a person at once."""
AGENT_CAP: Final = 16
"""Codes of one agent's step-ups that may wait for a person."""
_TRIES: Final = 5
"""Failed sign-ins on one code (RFC 8628 section 5.1)."""
_LISTED_FOR: Final = timedelta(days=1)
_LISTED: Final = 100
"""Step-ups that the pages list, and decided codes that are stored for that."""
_RETENTION: Final = timedelta(hours=1)
"""The time for which an ended code differs from one that never was."""


def new_user_code() -> str:
    """Return a fresh user code, as ``BCDF-GHJK``."""
    return _hyphened("".join(secrets.choice(USER_CODE_LETTERS) for _ in range(8)))


def normal_user_code(typed: str) -> str | None:
    """Return a typed user code in its normal form, or None.

    RFC 8628 section 6.1: case is ignored, and so are characters other than letters and
    digits. Full-width letters, as some input methods write them, count as the plain
    ones; no other letter represents another.
    """
    if len(typed) > _LONGEST:
        return None
    letters = "".join(filter(str.isalnum, typed.translate(_WIDE)))
    if not letters.isascii() or len(letters) != 2 * _HALF:
        return None
    letters = letters.upper()
    return _hyphened(letters) if set(letters) <= set(USER_CODE_LETTERS) else None


def _hyphened(letters: str) -> str:
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


@dataclass(frozen=True, slots=True)
class CodePair:
    """The codes of one device flow, given out once."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredDeviceCode:
    """A device code as the store holds it: hashes, and its purpose."""

    key: str
    """SHA-256 of the device code."""
    client: str
    """SHA-256 of the id of the client that asked."""
    scope: str
    details: details.StepUpDetails | None
    created_at: datetime
    expires: Deadline
    state: str
    failures: int
    sub: str | None
    sid: str | None
    authenticated_at: int | None
    audience: str | None = None
    """The API the tokens are for; None for /userinfo."""
    amr: tuple[str, ...] = ("mfa", "pwd", "otp")
    """How the person proved who they are (RFC 8176)."""
    outcome: str | None = None
    """The result of the step-up, as the broker sent it, or the request that a person
    wants to approve instead (`ask_instead`): JSON."""
    origin: str | None = None
    """Of a sign-in from another machine: its address, and the fingerprint of its key,
    as the broker sent it."""

    @property
    def page(self) -> PageDetails | None:
        """The data for its approval page, if it has one."""
        return None if self.details is None else self.details.page

    @property
    def ends(self) -> datetime:
        """When the request ends: after its code, if a person began that."""
        return (self.page and self.page.ends) or self.expires.wall

    @property
    def answer(self) -> dict[str, Any] | None:
        """The person's decision at the approval page, as in their ID token."""
        if self.page is None or self.sub is None:
            return None
        outcome: dict[str, Any] = json.loads(self.outcome) if self.outcome else {}
        decision = "approve" if self.state == "approved" else "deny"
        answer: dict[str, Any] = {"digest": self.page.digest, "decision": decision}
        if decision == "deny" and outcome.get("status") == "instead":
            answer |= {"decision": "repeat", "repeat": outcome["repeat"]}
        elif decision == "deny" and outcome.get("status") == "waiting":
            answer |= {"reason": outcome["reason"], "stop": outcome["stop"]}
        return answer

    @property
    def exhausted(self) -> bool:
        """Check whether failed sign-ins denied it, and not a person."""
        return self.failures >= _TRIES


class TooManyCodesError(TenantRefusedError):
    """As many device codes wait for a person as may.

    Attributes:
        cap: how many those are. The client tells it from Auth0's rate limit by that.
    """

    def __init__(self, cap: int, whose: str) -> None:
        super().__init__(
            "too_many_requests",
            f"{cap} device codes of {whose} are waiting for a person, as many as may.",
        )
        self.cap = cap


class DeviceCodes:
    """The device codes of one store."""

    def __init__(self, store: Store, seal: TenantSeal, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pepper = seal.derive("user code")

    def issue(
        self,
        client: str,
        scope: str,
        what: details.StepUpDetails | None,
        lifetime: float,
        *,
        audience: str | None = None,
        origin: str | None = None,
    ) -> CodePair:
        """Make a pair of codes that live *lifetime* seconds.

        Raises:
            TooManyCodesError: as many of its kind, or of its agent, wait as may.
            TenantRefusedError: ``authorization_begun``: it is for the approval page
                alone, and a person was given a code for the same step-up, which has
                that page as well.
        """
        page = None if what is None else what.page
        with self._store.transaction():
            if page is not None and page.expires_in and self._begun(page):
                raise TenantRefusedError(
                    "authorization_begun", "A person has a code for this already."
                )
            return self._issue(
                {
                    "client_id": client,
                    "scope": scope,
                    "details": what and what.to_json(),
                    "audience": audience,
                    # Of a step-up it tells what the code counts for.
                    "origin": origin
                    if what is None
                    else f"{_kind(what)} {what.agent_id}",
                },
                what,
                Deadline.after(self._clock, lifetime),
            )

    def _issue(
        self,
        columns: Mapping[str, object],
        what: details.StepUpDetails | None,
        expires: Deadline,
    ) -> CodePair:
        now = self._clock.now()
        stepup_id = None if what is None or what.page is None else what.page.id
        self._forget(now)
        if what is not None and what.page is not None:
            self._end_outdated(what.page)
        self._check_room(what)
        while True:
            pair = CodePair(new_secret("av_d"), new_user_code())
            inserted = self._store.insert(
                "device_codes",
                **columns,
                device_code_hash=sha256_hex(pair.device_code),
                user_code_hash=self._hash(pair.user_code),
                created_at=iso(now),
                expires_wall=iso(expires.wall),
                expires_boot=expires.boot,
                boot_id=expires.boot_id,
                stepup_id=stepup_id,
            )
            if inserted:
                return pair

    def _forget(self, now: datetime) -> None:
        """Delete ended ones: of decided ones the last day's stay, and few of them."""
        self._store.change(
            "DELETE FROM device_codes WHERE expires_wall < ?"
            " AND (outcome IS NULL OR created_at < ? OR created_at <= coalesce((SELECT"
            " created_at FROM device_codes WHERE outcome IS NOT NULL"
            " ORDER BY created_at DESC LIMIT 1 OFFSET ?), ''))",
            *(iso(now - _RETENTION), iso(now - _LISTED_FOR), _LISTED),
        )

    def _begun(self, page: PageDetails) -> bool:
        """Check whether a code for more than the page waits, for the same digest."""
        return any(_is_same(code, page) for code in self._waiting(page.id))

    def _waiting(self, stepup_id: str) -> list[StoredDeviceCode]:
        sql = "SELECT * FROM device_codes WHERE stepup_id = ? AND state = 'pending'"
        codes = filter(None, map(self._read, self._store.all(sql, stepup_id)))
        return list(filter(self.open, codes))

    def _end_outdated(self, page: PageDetails) -> None:
        """End the codes of another digest of a step-up, and those for its page alone.

        Codes of the same digest stay: each person who approves has one.
        """
        for code in self._waiting(page.id):
            if not _is_same(code, page):
                self._move(code, "pending", {"state": "denied"})

    def by_key(self, key: str) -> StoredDeviceCode | None:
        return self._read(self._store.find("device_codes", device_code_hash=key))

    def by_user_code(self, user_code: str) -> StoredDeviceCode | None:
        """Find a normal user code that may still be decided."""
        hashed = self._hash(user_code)
        code = self._read(self._store.find("device_codes", user_code_hash=hashed))
        if code is None or (code.page and code.page.expires_in):
            return None
        return code if self.open(code) else None

    def by_stepup(self, stepup_id: str) -> StoredDeviceCode | None:
        """Find the last code of a step-up, whatever became of it."""
        return self._read(
            self._store.one(
                # Behind the others those that ended without anybody's answer.
                "SELECT * FROM device_codes WHERE stepup_id = ? ORDER BY"
                " state = 'denied' AND sub IS NULL AND outcome IS NULL,"
                " created_at DESC, state = 'pending' DESC LIMIT 1",
                stepup_id,
            )
        )

    def open(self, code: StoredDeviceCode) -> bool:
        """Check whether *code* still waits for a person."""
        return code.state == "pending" and not code.expires.passed(self._clock)

    def failed(self, code: StoredDeviceCode) -> None:
        """Count a failed sign-in; the fifth denies the code (T-08)."""
        with self._store.unflushed():
            self._store.change(
                "UPDATE device_codes SET failures = failures + 1, state ="
                " CASE WHEN failures + 1 >= ? THEN 'denied' ELSE state END"
                " WHERE device_code_hash = ? AND state = 'pending'",
                _TRIES,
                code.key,
            )

    def approve(
        self,
        code: StoredDeviceCode,
        sub: str,
        sid: str,
        authenticated: int,
        amr: tuple[str, ...] = ("mfa", "pwd", "otp"),
    ) -> bool:
        """Approve *code*; False if it was decided or expired first."""
        who = {"sub": sub, "sid": sid, "authenticated_at": authenticated}
        how = {"state": "approved", "amr": json.dumps(amr)}
        return self._decide(code, {**how, **who})

    def deny(
        self,
        code: StoredDeviceCode,
        sub: str | None = None,
        reason: str = "",
        *,
        stop: bool = False,
    ) -> bool:
        """Deny *code*, as *sub* if they signed in; False if it was decided before.

        *reason* is for the agent; *stop* asks the broker to revoke it as well.
        """
        changes: dict[str, object] = {"state": "denied", "sub": sub}
        if reason or stop:
            outcome = {"status": "waiting", "reason": reason, "stop": stop}
            changes["outcome"] = json.dumps(outcome)
        return self._decide(code, changes)

    def of_pages(self) -> list[StoredDeviceCode]:
        """Return the last code of each step-up that has a page, newest first."""
        rows = self._store.all(
            "SELECT stepup_id FROM device_codes WHERE stepup_id IS NOT NULL"
            " GROUP BY stepup_id ORDER BY max(created_at) DESC LIMIT ?",
            _LISTED,
        )
        codes = [self.by_stepup(row["stepup_id"]) for row in rows]
        return [code for code in codes if code is not None]

    def ask_instead(
        self, code: StoredDeviceCode, sub: str, repeat: Mapping[str, object] | None
    ) -> bool:
        """End *code*, since *sub* wants to approve the step-up with another *repeat*.

        Returns:
            False if it was decided or expired first.
        """
        wanted = json.dumps({"status": "instead", "repeat": repeat})
        changes = {"state": "denied", "sub": sub, "outcome": wanted}
        return self._decide(code, changes)

    def tell(self, code: StoredDeviceCode, outcome: str) -> None:
        """Note the result of the step-up; it ends the waiting codes."""
        for one in self._waiting(code.page.id) if code.page else ():
            self._move(one, "pending", {"state": "denied", "outcome": outcome})
        self._store.change(
            "UPDATE device_codes SET outcome = ?, state ="
            " CASE WHEN state = 'pending' THEN 'denied' ELSE state END"
            " WHERE device_code_hash = ?",
            *(outcome, code.key),
        )

    def spend(self, code: StoredDeviceCode) -> bool:
        """Spend *code*; True for exactly one caller (T-11)."""
        return self._move(code, code.state, {"state": "spent"})

    def _decide(self, code: StoredDeviceCode, changes: Mapping[str, object]) -> bool:
        over = code.expires.passed(self._clock)
        return not over and self._move(code, "pending", changes)

    def _move(
        self, code: StoredDeviceCode, state: str, to: Mapping[str, object]
    ) -> bool:
        where = {"device_code_hash": code.key, "state": state}
        return bool(self._store.update("device_codes", to, **where))

    def _check_room(self, what: details.StepUpDetails | None) -> None:
        """Refuse one more code of a kind, or of an agent, that has as many as may be.

        Raises:
            TooManyCodesError: it has.
        """
        kind = _kind(what)
        cap = _CAPS[kind]
        live = "SELECT count(*) AS n FROM device_codes WHERE state = 'pending'"
        live += " AND expires_wall > ? AND "
        now = iso(self._clock.now())
        if what is None:
            row = self._store.one(f"{live} details IS NULL", now)
        else:
            begins = f"{kind} "
            row = self._store.one(
                f"{live} details IS NOT NULL AND substr(origin, 1, ?) = ?",
                *(now, len(begins), begins),
            )
        if row is not None and int(row["n"]) >= cap:
            raise TooManyCodesError(cap, kind)
        if what is not None:
            whose = [f"{one} {what.agent_id}" for one in (_PAGE, _AGENT)]
            row = self._store.one(
                f"{live} details IS NOT NULL AND origin IN (?, ?)", now, *whose
            )
            if row is not None and int(row["n"]) >= AGENT_CAP:
                raise TooManyCodesError(AGENT_CAP, "this agent")

    def _hash(self, user_code: str) -> str:
        # Keyed: 34 bits are too few for a plain hash to hide.
        return hmac.new(self._pepper, user_code.encode(), "sha256").hexdigest()

    def _read(self, row: Row | None) -> StoredDeviceCode | None:
        if row is None:
            return None
        return StoredDeviceCode(
            key=row["device_code_hash"],
            client=row["client_id"],
            scope=row["scope"],
            details=None if row["details"] is None else details.read(row["details"]),
            created_at=parse_iso(row["created_at"]),
            expires=Deadline(
                parse_iso(row["expires_wall"]), row["expires_boot"], row["boot_id"]
            ),
            state=row["state"],
            failures=row["failures"],
            sub=row["sub"],
            sid=row["sid"],
            authenticated_at=row["authenticated_at"],
            audience=row["audience"],
            **({} if row["amr"] is None else {"amr": tuple(json.loads(row["amr"]))}),
            outcome=row["outcome"],
            origin=row["origin"] if row["details"] is None else None,
        )


def _is_same(code: StoredDeviceCode, page: PageDetails) -> bool:
    """Check whether a code is for exactly this page's digest, and not for a page alone.

    *page* is of a new code.
    """
    page_of_code = code.page
    return page_of_code is not None and (
        page_of_code.digest,
        page_of_code.expires_in,
    ) == (page.digest, None)


def _kind(what: details.StepUpDetails | None) -> str:
    """Return the purpose of a code, under which it is counted."""
    if what is None:
        return _SIGN_IN
    return _PAGE if what.page and what.page.expires_in else _AGENT
