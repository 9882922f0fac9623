"""Calls: decided, held, recorded before they go out, cut in flight, and recorded again.

The life of one call, whatever it came by: `Calls.authenticate`, `Calls.permit` (which
may wait for a person), `Calls.begin` (after which its attempt is durable, and it may be
sent once), `Call.check` before each byte either way, `Calls.end`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

from agentvault_tui.broker.answers import Denied, Escalated
from agentvault_tui.broker.core import SYSTEM, Broker, CallsCut
from agentvault_tui.broker.floods import SPAN
from agentvault_tui.broker.usecases.redeem import refusal_of, spend_token
from agentvault_tui.broker.usecases.request import (
    ANEW,
    POLL_INTERVAL,
    Request,
    decision,
    deny,
    digest_of,
    escalate,
    is_same,
    refused,
)
from agentvault_tui.broker.usecases.stepup import expire, known_stepup
from agentvault_tui.broker.uses import is_below
from agentvault_tui.clock import iso
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    NotFoundError,
)
from agentvault_tui.ledger import Meta
from agentvault_tui.model import (
    Action,
    Agent,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenKind,
    Verdict,
    new_id,
    sha256_hex,
)
from agentvault_tui.operator_api.shapes import CallInfo
from agentvault_tui.web.exchange import ClientGoneError
from agentvault_tui.web.reply import Header, Reply, json_reply

log = logging.getLogger("agentvault.calls")

WAIT: Final = 25.0
"""Seconds a held call waits for a person where the agent does not say."""
BODY_CAP: Final = 10 * 2**20
"""Bytes of a body that policy reads, or a person."""
HELD_BYTES: Final = 256 * 2**20
"""Of all bodies that wait for a person."""
_EVENTS: Final = {
    Outcome.DENIED: EventType.GATEWAY_REFUSED,
    Outcome.ESCALATED: EventType.GATEWAY_HELD,
    Outcome.ALLOWED: EventType.GATEWAY_ATTEMPT,
}
_SETTLED: Final = "gateway_settled"
"""The event from which on attempts may have no result, in the ledger's small values."""
_TOLD_EVERY: Final = 0.25
_TOLD_ENDED: Final = 200
"""Ended calls told to consoles at a time: the audit has them all."""
_RETRY_SECONDS: Final = 1


class RefusedError(Exception):
    """A call that goes no further, and what its agent is told."""

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        text: str,
        *headers: Header,
        decision_id: str | None = None,
        **more: object,
    ) -> None:
        """Keep the answer: *error* is its code, *reason* says which of its kind.

        Args:
            status: of HTTP.
            error: the code.
            reason: the stable code of the reason.
            text: what a person can act on.
            headers: further ones.
            decision_id: of the decision, if there was one.
            more: further members of the body.
        """
        super().__init__(text)
        self.status = status
        self.error = error
        self.reason = reason
        self.text = text
        self.headers = headers
        self.decision_id = decision_id
        self.more = more

    def reply(self) -> Reply:
        """Return it as the answer of HTTP."""
        headers = [*self.headers, (b"agentvault-error", self.error.encode())]
        if self.decision_id is not None:
            headers.append((b"agentvault-decision", self.decision_id.encode()))
        body = {
            "error": self.error,
            "error_description": self.text,
            "reason": self.reason,
            "decision_id": self.decision_id,
            **self.more,
        }
        return json_reply(self.status, body, *headers)


def unauthorized(reason: str, text: str) -> RefusedError:
    """Return the refusal of a token (RFC 6750 section 3.1)."""
    challenge = (b"www-authenticate", b'Bearer error="invalid_token"')
    return RefusedError(401, "invalid_token", reason, text, challenge)


def unavailable(error: LedgerError) -> RefusedError:
    """Return the refusal of a call whose decision could not be recorded."""
    busy = isinstance(error, LedgerBusyError)
    text = (
        "too many decisions wait to be recorded"
        if busy
        else "decisions cannot be recorded right now, so none is made"
    )
    retry = (b"retry-after", b"%d" % (_RETRY_SECONDS if busy else 5))
    code = "temporarily_unavailable"
    return RefusedError(503, code, code, text, retry)


class Caller(NamedTuple):
    """Who shows which live token."""

    agent: Agent
    token: Token


@dataclass(eq=False, slots=True)
class Call:
    """One call, from its admission to its result."""

    caller: Caller
    service: str
    route: str
    method: str
    path: str
    action: Action
    detail: dict[str, Any]
    """What its events say: by contract, ``call_id`` among it."""
    read: Callable[[], Awaitable[bytes]]
    """Returns the whole body, read on demand, for a person; may raise RefusedError."""
    describe: Callable[[bytes], str]
    """Returns the request that *body* makes, as `StepUp.request_json` has it."""
    gone: asyncio.Future[None]
    """Done when whoever asks is gone."""
    wait: float | None = WAIT
    """Seconds to wait for a person; 0 not at all; None where the agent did not say."""
    retry: str | None = None
    """The step-up whose approval this call would use up."""
    id: str = field(default_factory=lambda: new_id("call"))
    state: str = "sending"
    started_at: datetime | None = None
    began: float = 0.0
    """In boot seconds."""
    bytes_in: int = 0
    bytes_out: int = 0
    sent: bool = False
    """Whether the request has reached the upstream whole."""
    status: int | None = None
    ended: str | None = None
    problem: str | None = None
    """The code of what went wrong upstream."""
    decision_id: str | None = None
    stepup_id: str | None = None
    attempt_seq: int = 0
    cut: RefusedError | None = None
    """Why it must not go on."""
    on_cut: list[Callable[[], None]] = field(default_factory=list)
    """Called when it is cut, in the same turn: closes connections at once."""

    def __post_init__(self) -> None:
        """Name it in its events."""
        self.detail["call_id"] = self.id

    def check(self) -> None:
        """Raise what cut this call, if anything did.

        Raises:
            RefusedError: it must not go on.
        """
        if self.cut is not None:
            raise self.cut

    def info(self) -> CallInfo:
        """Return it as operators see it."""
        agent = self.caller.agent
        return CallInfo(
            id=self.id,
            agent_id=agent.id,
            agent_name=agent.name,
            service=self.service,
            route=self.route,
            method=self.method,
            path=self.path,
            state="ended" if self.ended else self.state,
            started_at=iso(self.started_at) if self.started_at else "",
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            status=self.status,
            ended=self.ended,
            decision_id=self.decision_id,
            stepup_id=self.stepup_id,
        )


class Permit(NamedTuple):
    """What lets one call go out, and as of when."""

    request: Request
    verdict: Verdict
    epoch: tuple[int, bool]
    spends: Token | None = None
    """Used up by this call: good for one action."""


class Calls:
    """The calls of one broker: those in flight, and those held for a person."""

    def __init__(
        self, broker: Broker, tell: Callable[[str, CallInfo], None] | None = None
    ) -> None:
        """Start with none.

        Args:
            broker: whose decisions and records they are.
            tell: sends a call to the consoles that listen.
        """
        self._broker = broker
        self._tell = tell
        self._open: dict[str, Call] = {}
        self._changed: dict[str, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._bodies: OrderedDict[StepUpId, bytes] = OrderedDict()
        self._unrecorded: deque[Draft] = deque()
        """Results that the ledger could not take yet."""
        self._recording: set[asyncio.Future[Any]] = set()

    def __iter__(self) -> Any:
        """Yield the calls that are open, the oldest first."""
        return iter(list(self._open.values()))

    # Who asks

    async def authenticate(self, secret: str | None, detail: dict[str, Any]) -> Caller:
        """Return who shows *secret*, an agent's live token.

        Args:
            secret: what was shown, if anything was.
            detail: what the record of a refusal says.

        Raises:
            RefusedError: 401; 429 for an agent that floods.
        """
        broker = self._broker
        registry = broker.registry
        if not secret:
            text = "show a live token of your own: Authorization: Bearer av_t_…"
            raise unauthorized("no_token", text)
        hashed = sha256_hex(secret)
        token = registry.token(hashed)
        if token is not None:
            agent = registry.agent(token.agent_id)
            if broker.floods.limited(agent.id):
                retry = (b"retry-after", b"%d" % SPAN)
                text = f"refused too often: keep still for {SPAN} s"
                raise RefusedError(429, "slow_down", "slow_down", text, retry)
            registry.seen(agent.id)
            return Caller(agent, token)
        owner = registry.owner_of_ended(hashed)
        if owner is not None and (why := refused(broker, registry.agent(owner))):
            if not broker.floods.limited(owner):
                await self.refuse(
                    registry.agent(owner), unauthorized(*why), Action((), ""), detail
                )
            raise unauthorized(*why)
        raise unauthorized("invalid_token", "this is no live token of an agent")

    async def refuse(
        self,
        agent: Agent,
        refusal: RefusedError,
        action: Action,
        detail: dict[str, Any],
    ) -> NoReturn:
        """Record a refusal that is no decision of policy's, and raise it.

        Raises:
            RefusedError: *refusal*, with its decision's id.
        """
        request = self._request(agent, action, detail)
        self._broker.floods.refused(agent.id)
        try:
            await deny(self._broker, request, refusal.reason, refusal.text)
        except LedgerError as error:
            raise unavailable(error) from None
        refusal.decision_id = request.decision_id
        raise refusal

    # May it go out?

    async def permit(self, call: Call) -> Permit:
        """Decide about *call*; where a person has to, hold it for as long as it says.

        Returns:
            what lets it go out, to be used at once.

        Raises:
            RefusedError: it does not; recorded, but for one that waits already.
            ClientGoneError: nobody waits for it any more.
        """
        try:
            return await self._permit(call)
        except LedgerError as error:
            raise unavailable(error) from None
        except RefusedError:
            self._broker.floods.refused(call.caller.agent.id)
            raise

    async def _permit(self, call: Call) -> Permit:
        broker, (agent, token) = self._broker, call.caller
        call.started_at, call.began = broker.clock.now(), broker.clock.boot()
        request = self._request(agent, call.action, call.detail)
        epoch = broker.registry.epoch(agent.id)
        if why := refused(broker, agent):
            raise await self._denied(request, unauthorized(*why))
        scope, resource = call.action.action, call.action.resource or ""
        if token.resource is not None and not is_below(resource, token.resource):
            text = "this token was issued for another resource"
            raise await self._denied(request, unauthorized("invalid_token", text))
        verdict = broker.policy.decide(agent, call.action)
        if verdict.outcome is Outcome.DENIED:
            denied = await deny(
                broker, request, verdict.reason, verdict.message, verdict
            )
            raise _no(denied)
        permit = Permit(request, verdict, epoch)
        if token.kind is TokenKind.ELEVATED:
            return await self._elevated(call, permit)
        if scope not in token.scope.split() and self.is_asked(agent, scope):
            refusal = insufficient(scope)
            raise await self._denied(request, refusal, verdict)
        if call.retry is not None:
            return await self._retried(call, permit, call.retry)
        if verdict.outcome is Outcome.ESCALATED:
            return await self._held(call, permit)
        return permit._replace(spends=token if token.single_use else None)

    def is_asked(self, agent: Agent, scope: str) -> bool:
        """Tell whether a standard token must carry *scope* for a call under it.

        Not one that is granted and that policy would not issue as such a token.
        """
        plain = self._broker.policy.decide(agent, Action((scope,), scope))
        return plain.outcome is Outcome.ALLOWED

    def _request(self, agent: Agent, action: Action, detail: dict[str, Any]) -> Request:
        return Request(
            agent,
            action,
            None,
            None,
            DecisionId(new_id("dec")),
            events=_EVENTS,
            about=detail,
        )

    async def _denied(
        self, request: Request, refusal: RefusedError, verdict: Verdict | None = None
    ) -> RefusedError:
        """Record a refusal; return it with its decision's id."""
        await deny(self._broker, request, refusal.reason, refusal.text, verdict)
        refusal.decision_id = request.decision_id
        return refusal

    async def _elevated(self, call: Call, permit: Permit) -> Permit:
        """Let a token for one action open that action; for another, spend it in vain.

        It carries no held call's approval: that is never fetched as a token.
        """
        token = call.caller.token
        stepup = self._broker.stepups.find(token.stepup_id)
        asked = permit.request._replace(
            resource=token.resource, details=stepup.details if stepup else None
        )
        same = (
            stepup is not None
            and digest_of(stepup) == stepup.digest
            and is_same(stepup, asked)
        )
        if not same:
            await spend_token(self._broker, call.caller.agent, token)
            raise await self._denied(permit.request, mismatch(), permit.verdict)
        return permit._replace(spends=token)

    # Held calls

    async def _held(self, call: Call, permit: Permit) -> Permit:
        """Hold *call* for a person, and let it go out if they approve in time."""
        broker = self._broker
        body = await self._body(call)
        if sum(map(len, self._bodies.values())) + len(body) > HELD_BYTES:
            text = "too much waits for a person already"
            code = "temporarily_unavailable"
            raise RefusedError(503, code, code, text, (b"retry-after", b"5"))
        permit = permit._replace(
            request=permit.request._replace(call=call.describe(body))
        )
        answer = await escalate(broker, permit.request, permit.verdict)
        if isinstance(answer, Denied):
            raise _no(answer)
        if answer.stepup.status.open:
            self._bodies[answer.stepup.id] = body
        call.decision_id, call.stepup_id = answer.decision_id, answer.stepup.id
        wait = WAIT if call.wait is None else call.wait
        return await self._waited(call, permit, answer, wait)

    async def _waited(
        self, call: Call, permit: Permit, answer: Escalated, wait: float
    ) -> Permit:
        """Wait for a person's decision about *answer*'s step-up, then act on it."""
        broker, stepup = self._broker, answer.stepup
        wait = min(wait, stepup.expires.remaining(broker.clock))
        if wait > 0 and stepup.status.open:
            call.state = "held"
            self._open[call.id] = call
            self._note(call)
            decided = asyncio.ensure_future(broker.stepups.decision(stepup.id))
            try:
                await asyncio.wait(
                    {decided, call.gone},
                    timeout=wait,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                decided.cancel()
                self._open.pop(call.id, None)
                call.state = "sending"
                self._note(call)
            if call.gone.done():
                raise ClientGoneError
            call.check()
        found = broker.stepups.find(stepup.id) or stepup
        if found.status.open:
            raise _pending(broker, found, answer.decision_id)
        # What was decided before may have changed while a person thought.
        agent, verdict = call.caller.agent, permit.verdict
        epoch = broker.registry.epoch(agent.id)
        if found.status is StepUpStatus.APPROVED:
            verdict = broker.policy.decide(broker.registry.agent(agent.id), call.action)
            if verdict.outcome is Outcome.DENIED:
                denied = await deny(
                    broker, permit.request, verdict.reason, verdict.message, verdict
                )
                raise _no(denied)
        permit = permit._replace(verdict=verdict, epoch=epoch)
        return self._decided(found, permit)

    async def _retried(self, call: Call, permit: Permit, stepup_id: str) -> Permit:
        """Let a held call go out under the approval that it names."""
        broker, agent = self._broker, call.caller.agent
        stepup = await self._find(stepup_id)
        if stepup is None or stepup.agent_id != agent.id or stepup.request_json is None:
            refusal = RefusedError(
                403, "access_denied", "unknown_request", "no held call of yours is that"
            )
            raise await self._denied(permit.request, refusal, permit.verdict)
        body = await self._body(call)
        asked = permit.request._replace(call=call.describe(body))
        permit = permit._replace(request=asked)
        if not is_same(stepup, asked) or digest_of(stepup) != stepup.digest:
            minted = broker.registry.elevated(stepup.id)
            if stepup.status is StepUpStatus.APPROVED and minted is not None:
                await spend_token(broker, agent, minted)
            raise await self._denied(asked, mismatch(), permit.verdict)
        call.stepup_id = stepup.id
        if stepup.status.open:
            left = max(1, round(stepup.expires.remaining(broker.clock)))
            answer = Escalated(
                stepup, permit.verdict.message, left, POLL_INTERVAL, stepup.decision_id
            )
            return await self._waited(call, permit, answer, call.wait or 0.0)
        try:
            return self._decided(stepup, permit)
        except RefusedError as refusal:
            raise await self._denied(asked, refusal, permit.verdict) from None

    def _decided(self, stepup: StepUp, permit: Permit) -> Permit:
        """Return what a decided step-up allows, which is one sending.

        Raises:
            RefusedError: nothing.
        """
        broker, agent = self._broker, permit.request.agent
        if not broker.stepups.find(stepup.id) or not stepup.status.open:
            self._bodies.pop(stepup.id, None)
        code, reason = "access_denied", ""
        match stepup.status:
            case StepUpStatus.APPROVED:
                minted = broker.registry.elevated(stepup.id)
                if minted is not None:
                    request = permit.request._replace(decision_id=stepup.decision_id)
                    return permit._replace(request=request, spends=minted)
                reason = "stepup_expired"
                text = "It was approved, and not sent in time. Ask again."
            case StepUpStatus.REDEEMED:
                code = reason = "already_used"
                text = "This approval was used: a held call is sent once. Ask again."
            case StepUpStatus.EXPIRED:
                reason, text = "stepup_expired", "Nobody decided in time. Ask again."
            case _:
                told = refusal_of(broker, agent, stepup)
                reason, text = told.reason, told.message
        raise RefusedError(403, code, reason, text, decision_id=stepup.decision_id)

    async def _find(self, stepup_id: str) -> StepUp | None:
        """Return a step-up, however old, as it is now."""
        with contextlib.suppress(NotFoundError):
            stepup = self._broker.stepups.find(stepup_id)
            if stepup is not None and stepup.status.open:
                await expire(self._broker, [stepup])
            return await known_stepup(self._broker, stepup_id)
        return None

    async def _body(self, call: Call) -> bytes:
        """Read the body of a call that a person decides about."""
        body = await call.read()
        call.detail["body_sha256"] = hashlib.sha256(body).hexdigest()
        call.detail["body_bytes"] = len(body)
        return body

    def body_of(self, stepup_id: str) -> bytes | None:
        """Return the body that waits for a person, if it is still in memory."""
        stepup = self._broker.stepups.find(stepup_id)
        if stepup is None or not stepup.status.open:
            self._bodies.pop(StepUpId(stepup_id), None)
        return self._bodies.get(StepUpId(stepup_id))

    # Out and back

    async def begin(self, call: Call, permit: Permit) -> None:
        """Record that *call* goes out; when this returns it may be sent, once.

        Raises:
            RefusedError: it was overtaken by a revocation, or could not be recorded.
        """
        broker, agent = self._broker, call.caller.agent
        request = permit.request
        call.decision_id = request.decision_id
        if overtaken := self._overtaken(call, permit):
            raise await self._denied(request, overtaken, permit.verdict)
        reason = "stepup_approved" if call.stepup_id else permit.verdict.reason
        draft = decision(broker, request, Outcome.ALLOWED, reason, permit.verdict)
        if call.stepup_id:
            draft.detail["stepup_id"] = call.stepup_id
        call.attempt_seq = broker.ledger.head.seq
        self._open[call.id] = call
        try:
            if permit.spends is None:
                await broker.record(draft)
            elif not await spend_token(broker, agent, permit.spends, draft):
                code = "already_used" if call.stepup_id else "invalid_token"
                text = "This was good for one action, which was taken. Ask again."
                refusal = RefusedError(403 if call.stepup_id else 401, code, code, text)
                raise await self._denied(request, refusal, permit.verdict)
        except LedgerError as error:
            self._open.pop(call.id, None)
            raise unavailable(error) from None
        except BaseException:
            self._open.pop(call.id, None)
            raise
        self._note(call)
        if call.cut is not None:
            self.end(call, "cut")
            call.check()

    def _overtaken(self, call: Call, permit: Permit) -> RefusedError | None:
        """Return why a decision does not hold any more, if it does not."""
        broker, agent = self._broker, call.caller.agent
        registry = broker.registry
        if registry.epoch(agent.id) != permit.epoch:
            if why := refused(broker, agent):
                return unauthorized(*why)
            if call.action.action not in registry.agent(agent.id).scopes:
                return _taken()
        if permit.verdict.policy_version != broker.policy.version:
            now = broker.policy.decide(registry.agent(agent.id), call.action)
            if now.outcome.strictness > permit.verdict.outcome.strictness:
                return RefusedError(403, "access_denied", "policy_changed", ANEW)
        return None

    def release(self, call: Call) -> None:
        """Check, right before the credential is attached, that *call* may go out.

        Raises:
            RefusedError: not any more.
        """
        call.check()
        agent = call.caller.agent
        if why := refused(self._broker, agent):
            raise unauthorized(*why)
        if call.action.action not in self._broker.registry.agent(agent.id).scopes:
            raise _taken()

    def end(self, call: Call, ended: str) -> None:
        """Record how *call* ended; where that fails, when the ledger writes again.

        Args:
            call: begun.
            ended: ``done``, ``failed`` or ``cut``.
        """
        if self._open.pop(call.id, None) is None:
            return
        broker = self._broker
        call.ended = "cut" if call.cut is not None else ended
        call.on_cut.clear()
        self._note(call)
        draft = Draft(
            EventType.GATEWAY_RESULT,
            broker.actor(call.caller.agent),
            agent_id=call.caller.agent.id,
            action=call.action.action,
            resource=call.action.resource,
            reason=call.problem,
            decision_id=DecisionId(call.decision_id) if call.decision_id else None,
            detail={
                **call.detail,
                "status": call.status,
                "bytes_in": call.bytes_in,
                "bytes_out": call.bytes_out,
                "ms": round((broker.clock.boot() - call.began) * 1000, 1),
                "ended": call.ended,
            },
        )
        try:
            recorded = asyncio.ensure_future(broker.record(draft))
        except LedgerError:
            self._unrecorded.append(draft)
            return
        self._recording.add(recorded)

        def settled(done: asyncio.Future[Any]) -> None:
            self._recording.discard(done)
            if done.cancelled() or done.exception() is not None:
                self._unrecorded.append(draft)

        recorded.add_done_callback(settled)

    # Cut

    def cut(
        self, agent_id: AgentId | None, scopes: frozenset[str] | None = None
    ) -> CallsCut:
        """Cut calls in flight; see `DataPlane.cut`."""
        if scopes is not None:
            refusal = _taken()
        elif agent_id is None:
            refusal = unauthorized("panic", "Everything is stopped by an operator.")
        else:
            text = "This agent was revoked by an operator."
            refusal = unauthorized("agent_revoked", text)
        cut = sent = 0
        for call in list(self._open.values()):
            if (
                agent_id in {None, call.caller.agent.id}
                and (scopes is None or call.action.action in scopes)
                and call.state != "held"
                and self._cut(call, refusal)
            ):
                cut, sent = cut + 1, sent + call.sent
        return CallsCut(cut, sent)

    def cut_one(self, call_id: str) -> Call:
        """Cut one call, as an operator asks.

        Raises:
            NotFoundError: it is not in flight.
        """
        call = self._open.get(call_id)
        if call is None:
            raise NotFoundError("no call in flight has that id", "agentvault calls")
        text = "An operator cut this call."
        self._cut(call, RefusedError(403, "access_denied", "call_cut", text))
        return call

    def _cut(self, call: Call, refusal: RefusedError) -> bool:
        if call.cut is not None:
            return False
        refusal.decision_id = call.decision_id
        call.cut = refusal
        for act in call.on_cut:
            act()
        self._note(call)
        return True

    # After a crash, and while the ledger cannot write

    async def recover(self) -> None:
        """Give attempts of an earlier process that have no result one: ``unknown``."""
        broker = self._broker
        since = int(broker.kept.get(_SETTLED, "0"))
        for attempt in await broker.ledger.unfinished(since):
            members = (
                "service method path query body_sha256 body_bytes call_id server tool"
                " arguments_sha256"
            )
            detail = {
                n: attempt.detail[n] for n in members.split() if n in attempt.detail
            }
            await broker.record_cut(
                Draft(
                    EventType.GATEWAY_RESULT,
                    SYSTEM,
                    agent_id=attempt.agent_id,
                    action=attempt.action,
                    resource=attempt.resource,
                    decision_id=attempt.decision_id,
                    detail={
                        **detail,
                        "status": None,
                        "bytes_in": None,
                        "bytes_out": None,
                        "ms": None,
                        "ended": "unknown",
                    },
                )
            )

    async def look(self) -> None:
        """Record results that could not be; remember from where on some may miss.

        Raises:
            LedgerError: not now.
        """
        while self._unrecorded:
            await self._broker.record(self._unrecorded[0])
            self._unrecorded.popleft()
        if self._recording:
            return
        opened = [call.attempt_seq for call in self._open.values() if call.attempt_seq]
        settled = str(min(opened, default=self._broker.ledger.head.seq))
        known = int(self._broker.kept.get(_SETTLED, "0"))
        if int(settled) - known >= _SETTLE_EVERY:
            await self._broker.record(changes=[Meta(_SETTLED, settled)])
            self._broker.kept[_SETTLED] = settled

    async def aclose(self) -> None:
        """End what is in flight, and wait for its records."""
        text = "The broker stops."
        code = "temporarily_unavailable"
        for call in list(self._open.values()):
            self._cut(call, RefusedError(503, code, code, text))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING):
                while any(call.state != "held" for call in self._open.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        with contextlib.suppress(LedgerError):
            if self._recording:
                await asyncio.wait(set(self._recording))
            await self.look()

    # Consoles

    def _note(self, call: Call) -> None:
        """Have consoles see *call* anew, a few times a second."""
        if self._tell is None:
            return
        self._changed[call.id] = call
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_TOLD_EVERY, self._flush)

    def _flush(self) -> None:
        self._timer = None
        changed, self._changed = self._changed, {}
        ended = 0
        for call in changed.values():
            ended += call.ended is not None
            if self._tell is not None and ended <= _TOLD_ENDED:
                self._tell("call", call.info())
        for call in self._open.values():
            if call.state == "streaming":
                self._note(call)


_SETTLE_EVERY: Final = 2_000
"""Events between two notes of where attempts have their results."""
_CLOSING: Final = 1.0


def insufficient(scope: str) -> RefusedError:
    """Return the refusal of a token without *scope* (RFC 6750 section 3.1)."""
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    text = f"this call needs a token with the scope {scope}"
    return RefusedError(
        403,
        "insufficient_scope",
        "insufficient_scope",
        text,
        (b"www-authenticate", challenge.encode()),
    )


def mismatch() -> RefusedError:
    """Return the refusal of what is not what a person approved."""
    text = "This is not what was approved, to the byte. Ask again."
    return RefusedError(403, "digest_mismatch", "digest_mismatch", text)


def _taken() -> RefusedError:
    text = "This agent's scopes were changed while it asked. Ask again."
    return RefusedError(403, "access_denied", "scope_not_granted", text)


def _no(denied: Denied) -> RefusedError:
    return RefusedError(
        403,
        "access_denied",
        denied.reason,
        denied.message,
        decision_id=denied.decision_id,
    )


def _pending(broker: Broker, stepup: StepUp, decision_id: str) -> RefusedError:
    text = "A person has to decide: repeat this request with AgentVault-Request."
    return RefusedError(
        403,
        "insufficient_user_authentication",
        "stepup_required",
        text,
        decision_id=decision_id,
        auth_req_id=stepup.id,
        expires_in=max(1, round(stepup.expires.remaining(broker.clock))),
        interval=POLL_INTERVAL,
    )
