"""Calls in flight and held: recorded before they go out, cut, and recorded again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, Final

from agentvault_tui.broker.core import SYSTEM, Broker, decide_anew
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.usecases.decide import (
    Request,
    denied_by_limit,
    reserve_approved,
)
from agentvault_tui.broker.usecases.redeem import spend_token
from agentvault_tui.broker.usecases.request import ANEW, decision, deny, refused
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    NotFoundError,
    OvertakenError,
)
from agentvault_tui.gateway.body import HeldBodies
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.caller import Caller, Permit
from agentvault_tui.gateway.refusals import (
    CallRefusedError,
    authority_ended,
    denial,
    lease_over,
    scope_taken,
    too_many,
    unauthorized,
    unavailable,
)
from agentvault_tui.ledger import Meta
from agentvault_tui.ledger.query import read_unfinished
from agentvault_tui.model import (
    Actor,
    AgentId,
    DecisionId,
    Draft,
    EventType,
    Outcome,
    TokenId,
    Verdict,
    new_id,
)
from agentvault_tui.operator_api.gateway import CallInfo
from agentvault_tui.web.shares import SharedPlaces

log = logging.getLogger("agentvault.calls")

MOST_HELD: Final = 128
"""Calls that wait for a person with their connection open. The cap on step-ups does not
bound them: identical calls share one step-up."""
MOST_OPEN: Final = 256
"""Calls of one agent at once, held ones too: slow ones take no service from others."""
MOVED: Final = "The service's file changed while this was decided. Ask again."
_GONE: Final = "invalid_token"
_SETTLED: Final = "gateway_settled"
"""The event from which on attempts may have no result, in the ledger's small values."""
_TOLD_EVERY: Final = 0.25
_TOLD_ENDED: Final = 200
"""Ended calls in one message to consoles: the audit has them all."""


def _ended() -> CallRefusedError:
    return unauthorized(_GONE, "The token that this was passed on from has ended.")


class Calls:
    """The calls of one broker: those in flight, and those held for a person."""

    def __init__(
        self,
        broker: Broker,
        tell: Callable[[str, Callable[[], CallInfo]], None] | None = None,
        on_end: Callable[[Call], None] = lambda _: None,
    ) -> None:
        """Start with none.

        Args:
            broker: the broker that decides and records.
            tell: sends a call to the listening consoles.
            on_end: called with each call that went out and has ended.
        """
        self._broker = broker
        self._on_end = on_end
        self.observe: Callable[[Caller, str], None] = lambda *_: None
        """Called with the kind of each request: ``calls``, ``tunnels``, ``held`` or
        ``refused``."""
        self._tell = tell
        self.share: Callable[[Call], None] | None = None
        """Called with each changed call, for the other brokers of a team."""
        self._open: dict[str, Call] = {}
        self._counts: Counter[tuple[str, EventType]] = Counter()
        """How many of each agent are open, by the type of their result."""
        self._changed: dict[str, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.bodies = HeldBodies()
        self.held = SharedPlaces(MOST_HELD, broker.clock.boot)
        """Places of calls that wait for a person with their connection open."""
        self._unrecorded: deque[Draft] = deque()
        """Results that the ledger could not take yet."""
        self._ended_of: set[str] = set()
        """Brokers that died, whose attempts have their results."""
        self._withheld: set[str] = set()
        """Calls that did not go out, since their attempt's record failed."""
        self._recording: set[asyncio.Future[Any]] = set()

    def __iter__(self) -> Iterator[Call]:
        """Yield the calls that are open, the oldest first."""
        return iter(list(self._open.values()))

    def info(self, call: Call) -> CallInfo:
        """Return *call* as operators see it: one that is not open here has ended."""
        infos = call.info()
        if call.id not in self._open:
            infos.state = "ended"
        return infos

    async def denied(
        self,
        request: Request,
        refusal: CallRefusedError,
        verdict: Verdict | None = None,
    ) -> CallRefusedError:
        """Record a refusal; return it with its decision's id."""
        await deny(self._broker, request, refusal.reason, refusal.text, verdict)
        refusal.decision_id = request.decision_id
        return refusal

    def _enter(self, call: Call) -> None:
        call.lease_over, call.broker = self._broker.team.brokers.lease_over, self._own
        self._open[call.id] = call
        self._counts[call.caller.token.requester, call.result] += 1

    def _leave(self, call: Call) -> bool:
        """Forget a call; return whether it was open."""
        if self._open.pop(call.id, None) is None:
            return False
        key = call.caller.token.requester, call.result
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        return True

    # Held

    @contextlib.contextmanager
    def holding(self, call: Call) -> Iterator[asyncio.Future[None]]:
        """Show *call* as held, in a block that waits for a person.

        Yields:
            the future that is done when an operator cancels it.
        """
        cancelled = asyncio.get_running_loop().create_future()
        call.state = "held"
        call.on_cut.append(lambda: cancelled.set_result(None))
        self._enter(call)
        self._note(call)
        try:
            yield cancelled
        finally:
            call.on_cut.clear()
            self._leave(call)
            call.state = "sending"
            self._note(call)

    # Out and back

    async def begin(self, call: Call, permit: Permit) -> None:
        """Record that *call* goes out; when this returns it may be sent, once.

        Raises:
            CallRefusedError: a revocation overtook it, or it could not be recorded.
        """
        try:
            await self._begin(call, permit)
        finally:  # what its record did not count
            self._broker.deciding.limits.release(permit.request.decision_id)

    async def _begin(self, call: Call, permit: Permit) -> None:
        broker, agent = self._broker, call.caller.agent
        request = permit.request
        call.decision_id = request.decision_id
        if overtaken := self._overtaken(call, permit):
            raise await self.denied(request, overtaken, permit.verdict)
        if self._counts[call.caller.token.requester, call.result] >= MOST_OPEN:
            raise await self.denied(request, too_many(), permit.verdict)
        reason, verdict = permit.verdict.reason, permit.verdict
        if call.stepup_id:
            reason, verdict = "stepup_approved", reserve_approved(broker, request)
            if denied_by_limit(verdict):
                why, text = verdict.reason, verdict.message
                raise denial(await deny(broker, request, why, text, verdict))
        draft = decision(broker, request, Outcome.ALLOWED, reason, verdict)
        if call.stepup_id:
            draft.detail["stepup_id"] = call.stepup_id
        spent = True
        with self._recording_attempt(call):
            if permit.spends is None:
                await broker.record(draft)
            else:
                spent = await spend_token(broker, agent, permit.spends, draft)
        if not spent:
            self._leave(call)
            status, code = (403, "already_used") if call.stepup_id else (401, _GONE)
            text = "This was good for one action, which was taken. Ask again."
            refusal = CallRefusedError(status, code, code, text)
            raise await self.denied(request, refusal, permit.verdict)
        self._begun(call, "calls")

    async def begin_apart(self, call: Call, reason: str) -> None:
        """Record that a call goes out which policy does not decide about; see `begin`.

        Args:
            call: the call.
            reason: ``pass_through``: a tunnel. ``referent``: the fetch of a document.

        Raises:
            CallRefusedError: its agent was cut off, or it could not be recorded.
        """
        try:
            await decide_anew(lambda: self._begin_apart(call, reason))
        except LedgerBusyError as error:
            raise unavailable(error) from None

    async def _begin_apart(self, call: Call, reason: str) -> None:
        broker, agent = self._broker, call.caller.agent
        call.started_at, call.began = broker.clock.now(), broker.clock.boot()
        if over := self.cut_off(call.caller):
            raise over
        is_tunnel = reason == "pass_through"
        token = call.caller.token
        if is_tunnel and (token.chain or token.states_action):
            code, which = "wider_than_token", "states an action"
            if token.chain:
                code, which = "passed_on", "was passed on"
            text = f"A token that {which} opens no tunnel: a tunnel has no scope."
            raise unauthorized(code, text)
        if not is_tunnel and self._counts[token.requester, call.result] >= MOST_OPEN:
            raise too_many()
        call.decision_id = decision_id = DecisionId(new_id("dec"))
        draft = Draft(
            EventType.GATEWAY_ATTEMPT,
            broker.actor(agent),
            agent_id=agent.id,
            # No action: it is no use of a scope, and is counted as none.
            resource=call.action.resource,
            outcome=Outcome.ALLOWED,
            reason=reason,
            decision_id=decision_id,
            detail=dict(call.detail),
        )
        with self._recording_attempt(call):
            await broker.record(draft)
        self._begun(call, "tunnels" if is_tunnel else "calls")

    @contextlib.contextmanager
    def _recording_attempt(self, call: Call) -> Iterator[None]:
        """Let *call* be cut from now on; forget it where its record fails."""
        call.attempt_seq = self._broker.ledger.head.seq
        self._enter(call)
        try:
            yield
        except BaseException as error:
            self._leave(call)
            if isinstance(error, OvertakenError) or not isinstance(error, LedgerError):
                raise
            if not isinstance(error, LedgerBusyError):
                self._withheld.add(call.id)  # it may be on disk all the same
            raise unavailable(error) from None

    def _begun(self, call: Call, kind: str) -> None:
        self.observe(call.caller, kind)
        self._note(call)
        if call.cut is not None:
            self.end(call, "cut")
            call.check()

    def _overtaken(self, call: Call, permit: Permit) -> CallRefusedError | None:
        """Return why a decision does not hold any more, if it does not."""
        broker, agent = self._broker, call.caller.agent
        if over := self.cut_off(call.caller):
            return over
        token = call.caller.token
        principal = token.principal(broker.registry.agent(agent.id))
        if permit.grant.revoked and call.action.action not in principal.scopes:
            return scope_taken()
        if not call.in_force():
            return CallRefusedError(403, "access_denied", "service_changed", MOVED)
        if permit.verdict.policy_version != broker.deciding.policy.version:
            now = call.caller._replace(agent=principal).foresee(broker, call.action)
            if now.outcome.strictness > permit.verdict.outcome.strictness:
                return CallRefusedError(403, "access_denied", "policy_changed", ANEW)
        # Of a token that this call uses up, its record says whether it still lives.
        if permit.spends is not token and not broker.registry.lives(token):
            return unauthorized(_GONE, "This token has ended.")
        return None

    def cut_off(self, caller: Caller) -> CallRefusedError | None:
        """Return why nothing of *caller* goes on, if so: revoked, stopped, ended."""
        if why := refused(self._broker, caller.agent):
            return unauthorized(*why)
        if self._broker.team.brokers.lease_over():
            return lease_over()
        token = caller.token
        if token.chain and not self._broker.registry.lives(token):
            return _ended()
        return None

    async def confirm(self) -> None:
        """Read other brokers' records, before a token or credential counts.

        Raises:
            CallRefusedError: the team's store does not say.
        """
        try:
            await self._broker.ledger.confirm()
        except LedgerError as error:
            raise unavailable(error) from None

    def release(self, call: Call) -> None:
        """Check, right before the credential is attached, that *call* may go out.

        Raises:
            CallRefusedError: not any more.
        """
        call.check()
        if why := refused(self._broker, call.caller.agent):
            raise unauthorized(*why)
        # Whatever took the scope should have cut the call as well.
        agent = self._broker.registry.agent(call.caller.agent.id)
        if call.action.action not in call.caller.token.principal(agent).scopes:
            raise scope_taken()

    def end(self, call: Call, ended: str) -> None:
        """Record how *call* ended; where that fails, when the ledger writes again.

        Args:
            call: begun.
            ended: ``done``, ``failed`` or ``cut``.
        """
        if not self._leave(call):
            return
        broker = self._broker
        call.ended = "cut" if call.cut is not None else ended
        call.on_cut.clear()
        self._note(call)
        self._on_end(call)
        draft = Draft(
            call.result,
            broker.actor(call.caller.agent),
            agent_id=call.caller.agent.id,
            action=call.action.action or None,
            resource=call.action.resource,
            reason=call.cut.reason if call.cut is not None else call.problem,
            decision_id=DecisionId(call.decision_id) if call.decision_id else None,
            detail={
                **call.detail,
                **call.outcome(),
                "ms": round((broker.clock.boot() - call.began) * 1000),
            },
        )
        self._record(draft)

    def _record(self, draft: Draft) -> None:
        """Begin to record a result; if that fails `look` goes on.

        It is not urgent, so that only one of two brokers' results is recorded.
        """
        try:
            recorded = self._broker.ledger.commit(draft, lazy=True)
        except LedgerError:
            self._unrecorded.append(draft)
            return
        self._recording.add(recorded)

        def settled(done: asyncio.Future[Any]) -> None:
            self._recording.discard(done)
            error = None if done.cancelled() else done.exception()
            if isinstance(error, OvertakenError):
                return  # another broker, which took this one for dead, has told of it
            if done.cancelled() or error is not None:
                self._unrecorded.append(draft)

        recorded.add_done_callback(settled)

    # Cut

    def cut(
        self,
        agent_id: AgentId | None,
        scopes: frozenset[str] | None = None,
        by: Actor | None = None,
    ) -> CallsCut:
        """Cancel calls in flight; see `DataPlane.cut`."""
        refusal = authority_ended(agent_id, scopes)
        cancelled = sent = 0
        for call in list(self._open.values()):
            token = call.caller.token
            if (
                agent_id in {None, call.caller.agent.id, *token.chain}
                and (scopes is None or call.action.action in scopes)
                and call.state != "held"
                and self._cancel(call, refusal, by)
            ):
                cancelled, sent = cancelled + 1, sent + bool(call.sent)
        return CallsCut(cancelled, sent)

    def over(self, call_id: str) -> None:
        """End a call whose result another broker recorded, taking this one for dead."""
        for draft in [d for d in self._unrecorded if d.detail["call_id"] == call_id]:
            self._unrecorded.remove(draft)
        if (call := self._open.get(call_id)) is not None:
            self._cancel(call, lease_over())
            call.ended = "cut"
            self._leave(call)
            self._note(call)
            self._on_end(call)

    def stop(self, text: str, *, held: bool = False) -> None:
        """Cut every call in flight, and those that are *held* if so, with 503."""
        code = "temporarily_unavailable"
        for call in list(self._open.values()):
            if held or call.state != "held":
                self._cancel(call, CallRefusedError(503, code, code, text))

    def cut_tokens(self, tokens: Collection[TokenId]) -> CallsCut:
        """Cut calls in flight made with one of *tokens*; see `DataPlane.cut_tokens`."""
        made = [one for one in self if one.caller.token.id in tokens]
        ended = [call for call in made if self._cancel(call, _ended())]
        return CallsCut(len(ended), sum(bool(call.sent) for call in ended))

    def cut_one(self, call_id: str, operator: Actor) -> Call:
        """Cut one call, as *operator* asks; a held one goes on waiting for a retry.

        Raises:
            NotFoundError: it is not in flight.
        """
        call = self._open.get(call_id)
        if call is None:
            raise NotFoundError("no call in flight has that id", "agentvault calls")
        text = "An operator cut this call."
        refusal = CallRefusedError(403, "access_denied", "call_cut", text)
        self._cancel(call, refusal, operator)
        return call

    def _cancel(
        self, call: Call, refusal: CallRefusedError, by: Actor | None = None
    ) -> bool:
        if call.cut is not None:
            return False
        refusal.decision_id = call.decision_id
        call.cut, call.cut_by = refusal, by
        for act in call.on_cut:
            act()
        self._note(call)
        return True

    # After a crash, and while the ledger cannot write

    async def recover(self, dead: str | None = None) -> None:
        """Give attempts that have no result one: ``unknown`` of an earlier process.

        ``failed`` of one that was withheld since its record failed, and is there.

        Args:
            dead: the team's broker that made the attempts, if it is another.
        """
        broker, own = self._broker, dead or self._own
        withheld = self._withheld.copy() if dead is None else set()
        since = int(broker.recording.meta.get(_settled(own), "0"))
        shared = broker.ledger.shared
        # No result of another broker may go by between the reading and the records.
        async with shared.taking if shared else contextlib.nullcontext():
            for attempt in await broker.ledger.read(read_unfinished, since):
                stored = attempt.detail
                if stored.get("broker") != own:
                    continue
                if withheld and stored["call_id"] not in withheld:
                    continue
                detail = {name: stored[name] for name in _REPEATED if name in stored}
                draft = Draft(
                    EventType.GATEWAY_RESULT,
                    SYSTEM,
                    agent_id=attempt.agent_id,
                    action=attempt.action,
                    resource=attempt.resource,
                    decision_id=attempt.decision_id,
                    detail={
                        **detail,
                        **dict.fromkeys(_UNKNOWN),
                        "ended": "failed" if withheld else "unknown",
                    },
                )
                self._record(draft)
        if self._recording:
            await asyncio.wait(set(self._recording))
        self._withheld -= withheld

    async def look(self) -> None:
        """Record results that could not be; remember from where on some may miss.

        Raises:
            LedgerError: not now.
        """
        self.bodies.keep_alone(one.id for one in self._broker.stepups.open())
        if self._withheld and self._broker.ledger.writable:
            await self.recover()
        await self._end_of_dead()
        while self._unrecorded:
            draft = self._unrecorded[0]
            with contextlib.suppress(OvertakenError):
                await self._broker.record(draft)
            if self._unrecorded and self._unrecorded[0] is draft:
                self._unrecorded.popleft()
        if self._recording:
            return
        opened = [call.attempt_seq for call in self._open.values() if call.attempt_seq]
        settled = str(min(opened, default=self._broker.ledger.head.seq))
        key = _settled(self._own)
        number = int(self._broker.recording.meta.get(key, "0"))
        if int(settled) - number >= _SETTLE_EVERY:
            await self._broker.record(changes=[Meta(key, settled)])
            self._broker.recording.meta[key] = settled

    @property
    def _own(self) -> str | None:
        """The members in attempts of this broker, if it is one of several."""
        return self._broker.team.brokers.id or None

    async def _end_of_dead(self) -> None:
        """Give the attempts of brokers that died a result, once for the whole team."""
        team, works = self._broker.team.brokers, self._broker.team.brokers.works()
        dead = {one.id for one in team.members if not one.alive}
        self._ended_of &= dead
        for one in dead - self._ended_of if works else ():
            await self.recover(one)
            self._ended_of.add(one)

    async def aclose(self) -> None:
        """End the calls in flight, and wait for their records."""
        self.stop("The broker stops.", held=True)
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
        """Have consoles see *call* again, a few times a second."""
        if self.share is not None:
            self.share(call)
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
            ended += call.id not in self._open
            if self._tell is not None and ended <= _TOLD_ENDED:
                self._tell("call", partial(self.info, call))
        for call in self._open.values():
            if call.state == "streaming":
                self._note(call)


def _settled(broker: str | None) -> str:
    """Return the key of the event after which attempts of a broker may lack results."""
    return f"{_SETTLED}:{broker}" if broker else _SETTLED


_REPEATED: Final = tuple(
    "service method path query body_sha256 body_bytes call_id server tool"  # noqa: SIM905
    " arguments_sha256".split()
)
"""The members of an attempt that its result repeats."""
_UNKNOWN: Final = ("status", "bytes_in", "bytes_out", "request_whole", "ms")
_SETTLE_EVERY: Final = 2_000
"""Events between two notes of where attempts have their results."""
_CLOSING: Final = 1.0
