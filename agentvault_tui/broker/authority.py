"""An operator's rights, by the connection's origin, and by the role once signed in.

Operators have seats: a local user at the socket, named ``uid:``, or a key of an
operator elsewhere, named ``key:`` (`operators_api.remote` checks that it is theirs).

The socket belongs to one user, and the kernel identifies the peer. Each rule follows
from: cutting off is free, granting costs.

* Signed in with a role, the role decides: `Role` includes other roles.
* With no role (not signed in, a session that ended, a tenant that names none):

  * *cutting* (revoke, panic, deny, take scopes away) needs the socket alone. A
    revocation must never wait for a phone, a tenant or a clock, and a process that
    holds this socket can kill the broker anyway. It can be undone, and is recorded
    under the local user.
  * *giving* (restore, register, give scopes, lift the panic) needs the socket alone
    where roles are ``auto``, and is refused where they are ``claim``.
  * *changing people* of the embedded tenant needs the socket alone where roles are
    ``auto``, and the role approver where they are ``claim``, once anybody has it.
  * *approving* may be begun: the role of the person counts who then proves a second
    factor, fresh from the tenant. See `mint.may_approve`.

* Elsewhere nothing is done or shown without a role, whatever the setting:
  `operator_api.calls.ACCESS` says which. *Giving* needs the role approver there, and
  each time a factor that is proven for exactly that change; see `usecases.changes`.
  A session there lasts its 12 hours, so that a console goes on watching; after 15
  minutes without a decision it gives nothing until a new sign-in.

The people who signed in, by device flow, are in memory by the seat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.rates import Rates
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.usecases.approvals import approved_by
from agentvault_tui.broker.usecases.stepup import (
    DeskSession,
    device_code,
    problem_of,
)
from agentvault_tui.clock import Clock, Deadline, iso
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    ForbiddenError,
    IdentityError,
    LedgerError,
    TooFastError,
)
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import (
    Actor,
    ActorKind,
    DeviceCode,
    Draft,
    EventType,
    StepUp,
    sha256_hex,
)
from agentvault_tui.model.role import Role, role_of
from agentvault_tui.operator_api.calls import Access
from agentvault_tui.settings import DEVICE_CODE_TTL_CAP
from agentvault_tui.text import visible
from agentvault_tui.vault import DeviceFlow, FlowTokens, Identity

log = logging.getLogger("agentvault.sessions")

_ABSOLUTE: Final = 12 * 3600
"""NIST SP 800-63B-4, AAL3: at most 12 hours."""
_IDLE: Final = 15 * 60
"""Same: at most 15 minutes without use."""
_STRANGERS: Final = 2
"""Requests to the tenant, of eight at a time, for sign-ins from elsewhere."""
_IDLE_WHY: Final = "nothing was decided for 15 minutes"


_AUTH_TIME: Final = timedelta(seconds=1)
"""How exact ``auth_time`` is."""
_REFUSALS: Final = 1
"""Refusals of one session that are recorded a second, and ten times that at once."""
_REMOTE: Final = "key:"


def remote_seat(thumbprint: str) -> str:
    """Return the seat of the key with that thumbprint (RFC 7638)."""
    return _REMOTE + thumbprint


def is_remote(seat: str) -> bool:
    """Check whether the seat is a key's and not a local user's."""
    return seat.startswith(_REMOTE)


def origin_of(operator: Actor) -> str:
    """Return the address of an operator elsewhere and the fingerprint of their key.

    The tenant's page and the terminal both show it, so that a person tells the sign-in
    they began from a stranger's (RFC 8628 section 5.4). Nothing for a local user.
    """
    if not is_remote(operator.id):
        return ""
    fingerprint = sha256_hex(operator.id)[:4].upper()
    return f"{operator.name}, key {fingerprint}"


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in operator."""

    identity: Identity
    since: datetime
    ends: Deadline
    idle: Deadline

    def over(self, clock: Clock, *, when_idle: bool) -> str | None:
        """Return why it is over, if it is, by either clock."""
        if self.ends.passed(clock):
            return "12 hours are over"
        idle = when_idle and self.idle.passed(clock)
        return "15 minutes without a decision" if idle else None


@dataclass(frozen=True, slots=True)
class _Login:
    flow: DeviceFlow
    task: asyncio.Task[None]


class Sessions:
    """Sessions by the operator's seat; a restart ends them all."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sessions: dict[str, Session] = {}
        self._desks: dict[str, DeskSession] = {}
        """Who signed in last at each seat; it outlives the idle time, as it approves
        nothing without a fresh one-time code."""
        self._logins: dict[str, _Login] = {}
        self._problems: dict[str, str] = {}
        self._over: list[Draft] = []
        """Sessions that expired and are not recorded yet."""
        self._starting: dict[str, asyncio.Task[_Login]] = {}
        self._strangers = asyncio.Semaphore(_STRANGERS)
        broker.reaching.people.listeners.append(self.end_of)
        self.on_change: Callable[[], None] = lambda: None
        """Called when someone signed in or out."""

    def of(self, uid: str) -> Session | None:
        """Return the seat's live session; asking is no use of it, as consoles poll."""
        session = self._sessions.get(uid)
        idle = not is_remote(uid)
        why = session.over(self._broker.clock, when_idle=idle) if session else None
        if session is None or why is None:
            return session
        # Gone for good at the first look: no clock set back revives it.
        del self._sessions[uid]
        self._over.append(
            _session_draft(EventType.OPERATOR_LOGOUT, session.identity, uid, why)
        )
        return None

    def desk(self, uid: str) -> DeskSession | None:
        """Return who may approve at this seat with a one-time code: none at Auth0."""
        return self._desks.get(uid)

    def used(self, uid: str) -> None:
        """Begin the idle time of a live session again, unless it has passed."""
        session = self.of(uid)
        if session is not None and not session.idle.passed(self._broker.clock):
            idle = Deadline.after(self._broker.clock, _IDLE)
            self._sessions[uid] = replace(session, idle=idle)

    async def end_due(self) -> None:
        """End expired sessions, and record it."""
        for uid in tuple(self._sessions):
            self.of(uid)
        over, self._over = self._over, []
        if over:
            self.on_change()
            await self._broker.record_cut(*over)

    def pending(self, uid: str) -> bool:
        """Check whether a sign-in of this uid waits for the tenant."""
        return uid in self._logins

    def problem(self, uid: str) -> str | None:
        """Return why the last sign-in failed, if it did."""
        return self._problems.get(uid)

    def forget(self, uid: str) -> None:
        """Forget the failure of the last sign-in, which is not read any more."""
        self._problems.pop(uid, None)

    async def login(self, operator: Actor) -> DeviceCode:
        """Start a device flow, or return the one under way."""
        seat = operator.id
        if (login := self._logins.get(seat)) is None:
            if (starting := self._starting.get(seat)) is None:
                starting = asyncio.create_task(self._start(operator))
                self._starting[seat] = starting
                starting.add_done_callback(partial(self._started, seat))
            # Of several that ask at once, one may leave.
            await asyncio.wait({starting})
            if starting.cancelled():
                raise ConflictError("the sign-in was ended", "begin another one")
            login = starting.result()
        return device_code(login.flow)

    def _started(self, seat: str, starting: asyncio.Task[_Login]) -> None:
        del self._starting[seat]
        if not starting.cancelled():
            starting.exception()  # also if all who asked have left

    async def _start(self, operator: Actor) -> _Login:
        """Ask the tenant for a device code; no other party waits for its answer."""
        self._problems.pop(operator.id, None)
        ttl = await self._code_ttl()
        async with self._turn(operator):
            flow = await self._broker.reaching.tenant.start_device_flow(
                ttl=ttl, origin=origin_of(operator)
            )
        waiting = asyncio.create_task(self._wait(operator, flow))
        login = self._logins[operator.id] = _Login(flow, waiting)
        return login

    def _turn(self, operator: Actor) -> AbstractAsyncContextManager[object]:
        """Return the lock that a request to the tenant holds.

        Those of strangers have some of the connections alone: approvals use the rest.
        """
        return self._strangers if is_remote(operator.id) else nullcontext()

    def cancel(self, seat: str) -> None:
        """End a sign-in that is under way at a seat."""
        if (login := self._logins.pop(seat, None)) is not None:
            login.task.cancel()
        if (starting := self._starting.get(seat)) is not None:
            starting.cancel()

    async def _code_ttl(self) -> int:
        """Return the seconds a code may live: the most until someone has signed in.

        Who signs in first also enrols a factor; the code of a sign-in approves nothing.
        """
        settled = self._broker.settings.stepup.device_code_ttl
        query = EventQuery(type=EventType.OPERATOR_LOGIN, limit=1)
        try:
            page = await self._broker.ledger.events(query)
        except LedgerError:
            return settled
        anyone = page.events or page.next is not None
        return settled if anyone else DEVICE_CODE_TTL_CAP

    async def logout(self, operator: Actor) -> None:
        """End the session and any sign-in under way."""
        self.cancel(operator.id)
        self._desks.pop(operator.id, None)
        if session := self.of(operator.id):
            del self._sessions[operator.id]
            self.on_change()
            await self._broker.record_cut(
                _session_draft(EventType.OPERATOR_LOGOUT, session.identity, operator.id)
            )

    def end_of(self, sub: str) -> None:
        """End every session of a person who was changed; `end_due` records it."""
        ended = {u: s for u, s in self._sessions.items() if s.identity.sub == sub}
        for uid in [uid for uid, one in self._desks.items() if one.sub == sub]:
            del self._desks[uid]
        for uid, session in ended.items():
            del self._sessions[uid]
            why = "changed at the tenant"
            draft = _session_draft(
                EventType.OPERATOR_LOGOUT, session.identity, uid, why
            )
            self._over.append(draft)

    async def _wait(self, operator: Actor, flow: DeviceFlow) -> None:
        reaching = self._broker.reaching
        try:
            end = await reaching.tenant.wait(flow, lambda: self._turn(operator))
            if not isinstance(end, FlowTokens):
                away = reaching.tenant.reachable is False
                await self._refused(operator, problem_of(end, away=away))
                return
            identity = await reaching.tenant.verify_id_token(
                end.id_token, not_before=flow.started_at, until=flow.expires
            )
            await self._begin(operator, identity)
        except AgentVaultError as error:
            log.warning("sign-in failed: %s", error.what)
            await self._refused(operator, error.diagnosis())
        except Exception as error:
            log.exception("a sign-in broke")
            fault = f"the broker failed, see its log ({type(error).__name__})"
            await self._refused(operator, fault)
        finally:
            # After a sign-out another may have begun: that one is not ours to end.
            login = self._logins.get(operator.id)
            if login is not None and login.task is asyncio.current_task():
                del self._logins[operator.id]

    async def _refused(self, operator: Actor, why: str) -> None:
        """Report the failure of a sign-in to the operator, and record it."""
        self._problems[operator.id] = why
        await self._broker.record_cut(
            Draft(
                EventType.OPERATOR_NOT_SIGNED_IN,
                operator,
                reason=why,
                detail={"uid": operator.id},
            )
        )

    async def _begin(self, operator: Actor, identity: Identity) -> None:
        """Begin a session, in place of the one under that uid.

        Raises:
            IdentityError: the person was changed since they showed their factors.
        """
        if self._is_outdated(identity):
            raise IdentityError("stale", "changed at the tenant", "sign in again")
        draft = _session_draft(EventType.OPERATOR_LOGIN, identity, operator.id)
        if is_remote(operator.id):
            draft = replace(draft, detail={**draft.detail, "address": operator.name})
        drafts = [draft]
        before = self.of(operator.id)
        if before is not None and before.identity.sub != identity.sub:
            why = "someone else signed in"
            drafts.insert(
                0,
                _session_draft(
                    EventType.OPERATOR_LOGOUT, before.identity, operator.id, why
                ),
            )
        await self._broker.record(*drafts)
        clock = self._broker.clock
        self._sessions[operator.id] = Session(
            identity,
            clock.now(),
            Deadline.after(clock, _ABSOLUTE),
            Deadline.after(clock, _IDLE),
        )
        self._desks.pop(operator.id, None)
        sid = identity.claims.get("sid")
        if self._broker.reaching.kind == "embedded" and isinstance(sid, str):
            self._desks[operator.id] = DeskSession(
                *(operator.id, identity.sub, identity.name, sid),
                since=identity.authenticated_at,
            )
        if self._is_outdated(identity):  # while that was being recorded
            self.end_of(identity.sub)
        self.on_change()

    def _is_outdated(self, identity: Identity) -> bool:
        shown = identity.authenticated_at + _AUTH_TIME
        return self._broker.reaching.people.changed_since(identity.sub, shown)


def _session_draft(
    kind: EventType, identity: Identity, uid: str, reason: str | None = None
) -> Draft:
    return Draft(
        kind,
        Actor(ActorKind.OPERATOR, identity.sub, identity.name),
        reason=reason,
        detail={
            "uid": uid,
            "roles": list(identity.roles),
            "amr": list(identity.amr),
            "auth_time": iso(identity.authenticated_at),
        },
    )


class Need(StrEnum):
    """Kinds of decisions, by their effect on an agent's reach."""

    REVOKE = "revoke"
    GIVE = "restore"
    OWN = "own"
    """Giving that an operator elsewhere may do too: see docs/remote.md."""
    APPROVE = "approve"
    PEOPLE = "people"


LEAST: Final = {
    Need.REVOKE: Role.OPERATOR,
    Need.GIVE: Role.OPERATOR,
    Need.OWN: Role.OPERATOR,
    Need.APPROVE: Role.APPROVER,
    Need.PEOPLE: Role.APPROVER,
}
DEEDS: Final = {
    Need.REVOKE: "revoking, denying or taking away",
    Need.GIVE: "restoring, registering, granting or loosening",
    Need.OWN: "restoring or registering",
    Need.APPROVE: "approving",
    Need.PEOPLE: "changing the tenant's people",
}


def _least(need: Need, *, remote: bool) -> Role:
    """Return the least role that a decision needs."""
    return Role.APPROVER if remote and need is Need.GIVE else LEAST[need]


@dataclass(frozen=True, slots=True)
class Standing:
    """Who the operator at a seat is to us now."""

    session: Session | None
    role: Role | None
    refused: dict[str, str]
    """The missing rights, each with the reason."""


class Authority:
    """Decides whether an operator may make a decision."""

    def __init__(self, broker: Broker, sessions: Sessions) -> None:
        self.broker = broker
        self._sessions = sessions
        self._by_claim = broker.settings.operators.by_claim
        self._refusals = Rates(broker.clock)
        self._unrecorded = Counter[str]()
        """Refusals since the last record of one, by seat."""

    def standing(self, uid: str) -> Standing:
        """Return who *uid* is now; asking is no use of the session."""
        session, remote = self._sessions.of(uid), is_remote(uid)
        role = role_of(session.identity.roles) if session else None
        by_claim = self._by_claim or remote
        who = _who(session, role)
        refused = {
            need.value: f"{DEEDS[need]} needs the role {_least(need, remote=remote)};"
            f" {who}"
            for need in Need
            if not _allowed(need, role, by_claim=by_claim, remote=remote)
        }
        if session is not None and session.idle.passed(self.broker.clock):
            for need in (Need.GIVE, Need.OWN, Need.PEOPLE):
                refused.setdefault(
                    need.value, f"{DEEDS[need]} needs a new sign-in; {_IDLE_WHY}"
                )
        return Standing(session, role, refused)

    def renew_once_approved(self, seat: str, begun: StepUp) -> None:
        """Renew a session's idle time once its person has approved its request.

        Args:
            seat: the session's seat.
            begun: the step-up to be approved.
        """
        flow = self.broker.stepups.flows.get(begun.id, {}).get(seat)
        session, before = self._sessions.of(seat), approved_by(begun)
        if flow is None or session is None:
            return
        sub = session.identity.sub

        def ended(_: object) -> None:
            now = self.broker.stepups.find(begun.id)
            if now is not None and sub in approved_by(now) - before:
                self._sessions.used(seat)

        flow.task.add_done_callback(ended)

    async def actor(self, operator: Actor, need: Need, about: str) -> Actor:
        """Return who decides, as the record shall name them.

        Args:
            operator: who asks, by the seat.
            need: the kind of decision.
            about: its subject, unchecked, for the record of a refusal.

        Raises:
            ForbiddenError: their role is not enough, and that is recorded.
            LedgerError: it is not enough, and that could not be recorded; or the
                team's store did not answer, and it is no revocation.
        """
        if need is not Need.REVOKE:
            # What others revoked, and whose sessions they ended, is known first.
            await self.broker.ledger.confirm()
        signed_in = self.standing(operator.id)
        actor = self.named(operator)
        if need in signed_in.refused:
            least = _least(need, remote=is_remote(operator.id))
            why, role = signed_in.refused[need], least.value
            draft = Draft(
                EventType.OPERATOR_REFUSED,
                actor,
                action=need.value,
                resource=visible(about, 120),
                reason=why,
                detail={"uid": operator.id, "needed_role": role},
            )
            await self._record_refusal(operator.id, draft)
            raise ForbiddenError(role, why, "agentvault login, as someone who has it")
        return actor

    async def _record_refusal(self, seat: str, draft: Draft) -> None:
        """Record a refusal; count it in a later record if there were too many.

        Each record is an event that goes to all exports, and a refusal costs its caller
        nothing.
        """
        try:
            self._refusals.take(seat, _REFUSALS)
        except TooFastError:
            self._unrecorded[seat] += 1
            return
        if more := self._unrecorded.pop(seat, 0):
            draft.detail["more"] = more
        await self.broker.record(draft)

    @staticmethod
    def is_elsewhere(operator: Actor) -> bool:
        """Check whether *operator* is on another machine."""
        return is_remote(operator.id)

    async def by_factor(self, operator: Actor) -> bool:
        """Check whether a loosening from there needs a person's factor."""
        return is_remote(operator.id) or await asks_factor(self.broker)

    async def admit(self, operator: Actor, access: Access, path: str) -> None:
        """Refuse a call of an operator elsewhere that their role does not allow.

        At the socket the calls themselves check their rights.

        Raises:
            ConflictError: it is done on the broker's machine alone.
            ForbiddenError: their role is not enough.
        """
        if not is_remote(operator.id) or access is Access.SESSION:
            return
        if access is Access.MACHINE:
            raise ConflictError(
                "that is done on the broker's machine alone",
                "run the command there, as the user who runs the broker",
            )
        if self.standing(operator.id).role is None:
            message = "nothing is shown without a role, and the tenant gives you none"
            raise ForbiddenError(Role.VIEWER, message, "ask who manages the tenant")
        if access is not Access.READ:
            # What only an approver may do is refused to others where it is asked for.
            await self.actor(operator, Need.REVOKE, path)

    def named(self, operator: Actor) -> Actor:
        """Return who is signed in at *operator*'s seat, or *operator*."""
        session = self._sessions.of(operator.id)
        if session is None:
            return operator
        return Actor(ActorKind.OPERATOR, session.identity.sub, session.identity.name)


def _allowed(need: Need, role: Role | None, *, by_claim: bool, remote: bool) -> bool:
    if need is Need.PEOPLE and not by_claim:
        return True
    if role is not None:
        return role.includes(_least(need, remote=remote))
    return not remote and (need in {Need.REVOKE, Need.APPROVE} or not by_claim)


def _who(session: Session | None, role: Role | None) -> str:
    if session is None:
        return "nobody is signed in here"
    name = visible(session.identity.name, 60)
    return f"{name} is {role}" if role else f"the tenant gives {name} none"
