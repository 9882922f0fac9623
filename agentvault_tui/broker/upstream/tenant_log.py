"""The tenant's own log in the audit: events of our clients, agents and users.

Read forward from a row one has seen. The place and its events are written in one
transaction, so that a restart neither repeats a row nor loses one. The tenant stores
its log for a time only; a possible loss is an event as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final, Self
from urllib.parse import unquote

import msgspec

from agentvault_tui.broker.upstream.access import Holdings, TenantAccess
from agentvault_tui.clock import Clock, iso, parse_iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import (
    LedgerError,
    SealedError,
    SettingsError,
    TenantBusyError,
    TenantError,
)
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, ActorKind, AgentId, Draft, EventType, sha256_hex
from agentvault_tui.text import visible
from agentvault_tui.vault import Management, Priority
from agentvault_tui.vault.management import logs
from agentvault_tui.vault.reply import Json

WORDS: Final = MappingProxyType(
    {
        # Token Vault and connected accounts
        "seta": "Token Vault gave a token",
        "feta": "Token Vault gave no token",
        "connected_accounts_connection_succeeded": "account connected",
        "connected_accounts_connection_failed": "account not connected",
        "connected_accounts_delete_succeeded": "connected account deleted",
        "connected_accounts_delete_failed": "connected account not deleted",
        # Device sign-in
        "sede": "device sign-in gave tokens",
        "fede": "device sign-in gave no tokens",
        "fdeaz": "device sign-in did not start",
        "fdeac": "device code not activated",
        "fdecc": "device sign-in cancelled by the person",
        # Tokens
        "sertft": "refresh token used",
        "fertft": "refresh token refused",
        "ferrt": "refresh token used a second time",
        "srrt": "refresh token revoked",
        "seccft": "client got a token of its own",
        "feccft": "client got no token of its own",
        "seacft": "sign-in code gave tokens",
        "feacft": "sign-in code refused",
        "secte": "custom token exchanged",
        "fecte": "custom token refused",
        "success_on_behalf_of_token_exchange": "token exchanged on a person's behalf",
        "failed_on_behalf_of_token_exchange": "no token on a person's behalf",
        "idjag_exchange_succeeded": "cross-app token given",
        "idjag_exchange_failed": "cross-app token refused",
        # Approval by backchannel
        "ciba_start_succeeded": "approval asked for",
        "ciba_start_failed": "approval not asked for",
        "ciba_exchange_succeeded": "approval gave tokens",
        "ciba_exchange_failed": "approval gave no tokens",
        # Signing in
        "s": "signed in",
        "f": "sign-in failed",
        "fp": "wrong password",
        "fu": "no such user name",
        # Second factors
        "gd_start_auth": "second factor asked for",
        "gd_auth_succeed": "second factor right",
        "gd_auth_failed": "second factor wrong",
        "gd_auth_rejected": "second factor refused by the person",
        "gd_otp_rate_limit_exceed": "too many one-time codes tried",
        "gd_send_pn": "push message sent",
        "gd_send_pn_failure": "push message not sent",
        "gd_start_enroll": "second factor being set up",
        "gd_enrollment_complete": "second factor set up",
        "gd_unenroll": "second factor removed",
        "gd_recovery_succeed": "recovery code right",
        "gd_recovery_failed": "recovery code wrong",
        "gd_recovery_rate_limit_exceed": "too many recovery codes tried",
        "mfar": "second factor needed",
        # The Management API, whose rows name what was asked
        "sapi": "Management API changed something",
        "fapi": "Management API refused a change",
        "mgmt_api_read": "Management API read a secret",
        # The tenant itself
        "actions_execution_failed": "an Action failed",
        "api_limit": "rate limit reached",
        "api_limit_warning": "rate limit nearly reached",
        "limit_mu": "address blocked: too many failures",
        "limit_wc": "account blocked: too many failures",
        "pla": "risk looked at before a sign-in",
        "appi": "higher rate limit began",
        "depnote": "something in use will be taken away",
    }
)
"""By code, as Auth0's list of log event types names them."""


_TITLED: Final = {"sapi": "", "fapi": "refused"}
"""Codes whose description says more than our words."""


def meaning(code: str, description: str) -> str | None:
    """Word a row: our words for its *code*, and the rest of its description."""
    words, meaning_text = WORDS.get(code, ""), description.strip()
    if meaning_text.casefold() in {code.casefold(), words.casefold()}:
        meaning_text = ""
    if meaning_text and code in _TITLED:
        words = _TITLED[code]
    return ": ".join(part for part in (words, meaning_text) if part) or None


STORED_FOR: Final = timedelta(days=1)
"""The time for which every plan stores a row."""


Aware = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Place:
    """The last row that was read, at one tenant."""

    issuer: str
    row: str
    """Its ``log_id``; empty when the log was."""
    dated: Aware
    """When it happened, by the tenant's clock and never after ours."""
    read_at: Aware
    """When the log was last read to its end or a page of it, by our clock."""

    @classmethod
    def of(cls, issuer: str, rows: tuple[Json, ...], row: str, now: datetime) -> Self:
        """Return the place at *row*, which is one of *rows* if there are any."""
        dates = [date(one, now) for one in rows if one.get("log_id") == row]
        return cls(issuer, row, dates[-1] if dates else now, now)

    @classmethod
    def read(cls, text: str, issuer: str) -> Self | None:
        """Read the form that `text` writes; another tenant's place is none here."""
        try:
            place = msgspec.json.decode(text, type=cls)
        except ValueError:
            return None
        return place if place.issuer == issuer else None

    def text(self) -> str:
        """Return it as one line, to be stored."""
        return to_json(self)

    def aged(self, now: datetime) -> bool:
        """Check whether the tenant may have dropped the row by now."""
        return now - self.dated >= STORED_FOR

    def gap(self, earliest: Json | None, now: datetime) -> Draft | None:
        """Return the event of possibly missing rows, now that the row is gone.

        None is missing if this was read within the time every plan stores a row, nor if
        the tenant's rows, from *earliest* on, begin before the last one read.
        """
        until = date(earliest, now) if earliest else now
        if now - self.read_at < STORED_FOR or until <= self.read_at:
            return None
        since, then = f"{iso(self.read_at)[:19]}Z", f"{iso(until)[:19]}Z"
        return Draft(
            EventType.TENANT_LOG_GAP,
            Actor(ActorKind.SYSTEM, "broker", "broker"),
            reason=(
                f"the tenant's log from {since} to {then} was not read and rows may "
                "be missing: the last one read is no longer kept there"
            ),
            detail={"from": since, "to": then, "last_row": self.row or None},
        )


def date(row: Json, now: datetime) -> datetime:
    """Return when a row happened; one that is undated or ahead of us happened now."""
    try:
        return min(parse_iso(str(row.get("date"))), now)
    except (ValueError, OverflowError):
        return now


_TEXT: Final = 300
_NAMED: Final = ("log_id", "date", "client_id", "user_id", "connection", "ip")
_MEMBERS: Final = (
    "scope",
    "failure_reason",
    "audit_context",
    "subject_token_type",
    "is_privileged_worker",
    "expires_at",
    "token_thumbprint",
    "error",
)
"""Of a row's details; none holds a secret."""
_API: Final = ["", "api", "v2"]

Ours = dict[str, AgentId | None]
"""Our ids, each with its agent; None where it is no one agent's."""


def drafts(
    rows: Iterable[Json], holdings: Holdings, consoles: Iterable[str] = ()
) -> list[Draft]:
    """Return the events of the rows that are about our clients, agents and users.

    *consoles* are names of the client that operators sign in with.
    """
    clients, users = holdings.clients(), holdings.users()
    clients.update(dict.fromkeys(consoles))
    row_owners = ((row, list(_whose(row, clients, users))) for row in rows)
    return [_draft(row, owners[0]) for row, owners in row_owners if owners]


def _whose(row: Json, clients: Ours, users: Ours) -> Iterator[AgentId | None]:
    """Yield the owners of a row, the surest first; None: ours, and no one agent's."""
    client_id, user_id = _text_of(row, "client_id"), _text_of(row, "user_id")
    # What a client did is that client's alone, whoever signed in there.
    if clients.get(client_id):
        yield clients[client_id]
    # Who changes an agent's client or user by the Management API may be anybody.
    yield from _changed(row, clients, users)
    if client_id in clients:
        yield None
    elif not client_id and user_id in users:
        yield users[user_id]


def _changed(row: Json, clients: Ours, users: Ours) -> Iterator[AgentId | None]:
    """Yield the owners of the client or user in a call of the Management API."""
    request = _member(_member(row, "details"), "request")
    parts = [unquote(part) for part in _text_of(request, "path").split("/")]
    if parts[:3] != _API:
        return
    kind, key = (*parts[3:5], "", "")[:2]
    ours = {"clients": clients, "users": users}.get(kind, {})
    if key in ours:
        yield ours[key]
    client_id = _text_of(_member(request, "body"), "client_id")
    if client_id in clients:
        yield clients[client_id]


def _draft(row: Json, agent_id: AgentId | None) -> Draft:
    kind = visible(str(row.get("type") or "?"), 60)
    details = _member(row, "details")
    detail = {
        name: details[name] if isinstance(details[name], bool) else _text(details[name])
        for name in _MEMBERS
        if details.get(name) not in (None, "")
    }
    detail |= _request(details)
    named = {name: _text(row[name]) for name in _NAMED if row.get(name)}
    description = row.get("description")
    means = meaning(kind, _text(description) if description else "")
    return Draft(
        EventType.TENANT_LOG,
        Actor(ActorKind.TENANT, "tenant", "tenant"),
        agent_id=agent_id,
        action=kind,
        resource=named.get("connection"),
        reason=means and visible(means, _TEXT),
        detail={"type": kind, **named, **({"details": detail} if detail else {})},
    )


def _request(details: Json) -> dict[str, str]:
    """Return the effect of a call of the Management API, its actor, and its status."""
    request = _member(details, "request")
    method, path = _text_of(request, "method"), _text_of(request, "path")
    if not method or not path:
        return {}
    wanted = {"request": _text(f"{method.upper()} {path}")}
    status = _member(details, "response").get("statusCode")
    if isinstance(status, int):
        wanted["status"] = str(status)
    user = _member(_member(request, "auth"), "user")
    by = next((user[n] for n in ("email", "name", "user_id") if user.get(n)), None)
    return wanted | ({"by": _text(by)} if by else {})


def _member(row: Json, name: str) -> Json:
    value: object = row.get(name)
    return value if isinstance(value, dict) else {}


def _text_of(row: Json, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return visible(value if isinstance(value, str) else str(value), _TEXT)


log = logging.getLogger("agentvault.tenant_log")

MARK: Final = "tenant_log"
"""The key of the stored place."""
_NOTED: Final = timedelta(hours=1)
"""After how long the time of the last reading is recorded without new rows."""
_EVERY: Final = 10.0
_LONGEST: Final = 300.0

Record = Callable[..., Awaitable[object]]
"""Writes events, and *changes* of the state, in one transaction."""


class TenantLog:
    """Follows the log while there is a credential that may read it."""

    def __init__(
        self,
        clock: Clock,
        issuer: str,
        access: TenantAccess,
        record: Record,
        *,
        console: Callable[[], str] = lambda: "",
        mark: str = "",
        on_problem: Callable[[str | None], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Follow the log of *issuer* from *mark*, the stored place.

        *console* returns the client that operators sign in with, and *on_problem* is
        called with why the log cannot be read, and when it can again.
        """
        self._clock = clock
        self._issuer = issuer
        self._access = access
        self._record = record
        self._console = console
        self._place = self._stored = Place.read(mark, issuer)
        self._sleep = sleep
        self._on_problem = on_problem
        self._problem: str | None = None
        self._take = logs.MOST
        """Rows to ask for: halved while a page cannot be read."""

    async def run(self) -> None:
        """Read until cancelled."""
        pause = 0.0  # at once: what happens from here on is told
        while True:
            await self._sleep(pause)
            try:
                full = await self.read()
            except (TenantError, LedgerError, SettingsError, SealedError) as error:
                self._failed(error.diagnosis())
                wait = error.retry_after if isinstance(error, TenantBusyError) else 0.0
                pause = min(max(pause * 2, _EVERY, wait), _LONGEST)
            except Exception as error:
                # One odd row must not end the reading, nor pass unseen.
                log.exception("a row of the tenant's log could not be read")
                self._failed(f"a row cannot be read ({type(error).__name__})")
                pause = _LONGEST
            else:
                self._set_problem(None)
                pause = 0.0 if full else _EVERY

    async def read(self) -> bool:
        """Read one page; return whether another waits."""
        management = self._access.management
        if management is None:
            return False
        api = management.at(Priority.BACKGROUND)
        place, now = self._place, self._clock.now()
        if place is None:
            # Behind the newest row: what was before us is not ours to tell.
            newest = await logs.latest(api)
            await self._record_read(
                Place.of(self._issuer, newest.rows, newest.resume, now)
            )
            return False
        take = self._take
        self._take = max(take // 2, 1)
        page, gap = await self._next(api, place, now, take)
        self._take = min(take * 2, logs.MOST)
        rows = [row for row in page.rows if str(row["log_id"]) > place.row]
        console = self._console()
        # A tenant that treats the id as a secret logs a part of its hash.
        alias = f"run_{sha256_hex(console)[:16]}"
        consoles = (console, alias) if console else ()
        events = drafts(rows, self._access.holdings, consoles)
        if rows:
            place = Place.of(self._issuer, page.rows, page.resume, now)
        await self._record_read(
            replace(place, read_at=now), *([gap] if gap else []), *events
        )
        return bool(rows) and len(page.rows) >= take

    async def _next(
        self, api: Management, place: Place, now: datetime, take: int
    ) -> tuple[logs.LogPage, Draft | None]:
        """Return the rows after *place*, and the event about those that may be gone.

        The answer to a checkpoint whose row the tenant dropped is not documented, so it
        is never used: reading begins again at the oldest row there is.
        """
        there = bool(place.row)
        if there and place.aged(now):
            there = await logs.has(api, place.row)
        if not there:
            page = await logs.earliest(api)
            if not page.rows or page.resume > place.row:
                return page, place.gap(page.rows[0] if page.rows else None, now)
            # Older rows are there still, so none was dropped since.
        return await logs.after(api, place.row, take), None

    async def _record_read(self, place: Place, *events: Draft) -> None:
        """Record the read rows, with the place they lead to."""
        recorded = self._stored
        if (
            events
            or recorded is None
            or recorded.row != place.row
            or place.read_at - recorded.read_at >= _NOTED
        ):
            await self._record(*events, changes=[Meta(MARK, place.text())])
            self._stored = place
        self._place = place

    def _failed(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("the tenant's log cannot be read: %s", problem)
        self._set_problem(problem)

    def _set_problem(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_problem(problem)
