"""Whether a call may go out: the caller, policy's answer, and a person's decision."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from agentvault_tui.broker.answers import Denied, Escalated
from agentvault_tui.broker.audience import audiences_of
from agentvault_tui.broker.core import Broker, decide_anew
from agentvault_tui.broker.floods import SPAN
from agentvault_tui.broker.usecases.decide import Request, call_webhooks, decide
from agentvault_tui.broker.usecases.policy_change import action_of
from agentvault_tui.broker.usecases.redeem import refusal_of, spend_token
from agentvault_tui.broker.usecases.repeat import is_same
from agentvault_tui.broker.usecases.request import deny, escalate, refused
from agentvault_tui.broker.usecases.stepup import known_stepup
from agentvault_tui.broker.uses import is_below
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    NotFoundError,
    OvertakenError,
    TooFastError,
)
from agentvault_tui.gateway.body import referent_key
from agentvault_tui.gateway.call import Call, NamedDocuments
from agentvault_tui.gateway.caller import Caller, Permit
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.gateway.refusals import (
    PENDING,
    CallRefusedError,
    ask_at_the_gateway,
    denial,
    insufficient,
    mismatch,
    pending,
    referent_changed,
    too_fast,
    too_many_connections,
    unauthorized,
    unavailable,
)
from agentvault_tui.model import (
    Action,
    Agent,
    DecisionId,
    EventType,
    Outcome,
    StepUp,
    StepUpId,
    StepUpStatus,
    Token,
    TokenKind,
    new_id,
    sha256_hex,
)
from agentvault_tui.policy.inputs import LACKS_SCOPE, NARROWED
from agentvault_tui.policy.subset import wider_parameter
from agentvault_tui.text import visible
from agentvault_tui.web.exchange import ClientGoneError, count_connection

WAIT: Final = 25.0
"""Seconds a held call waits for a person where the agent does not say."""
_EVENTS: Final = {
    Outcome.DENIED: EventType.GATEWAY_REFUSED,
    Outcome.ESCALATED: EventType.GATEWAY_HELD,
    Outcome.ALLOWED: EventType.GATEWAY_ATTEMPT,
}


class Admission:
    """Decides about calls, by the broker's one decision machinery."""

    def __init__(self, broker: Broker, calls: Calls) -> None:
        """Decide as *broker* does; those that wait are held among *calls*."""
        self._broker = broker
        self._calls = calls
        self.readings: list[Callable[[Action, object], str | None]] = []
        """Functions that return another request of the same action, if there is one;
        see `routes.other_reading` and `servers.other_tool`."""

    # Who asks

    async def step(self) -> None:
        """Let others have their turn before a call's next step.

        One group commit or one look at the sockets would otherwise resume dozens of
        calls in one turn of the event loop.
        """
        await self._broker.admitting.calls.enter()

    async def pace(self) -> None:
        """Let others have their turn, a revocation above all, before a next piece."""
        await self._broker.admitting.pieces.enter()

    async def pace_slow(self) -> None:
        """Wait for a turn in which no other piece that takes long is searched."""
        await self._broker.admitting.pieces.enter(large=True)

    async def authenticate(
        self,
        secret: str | None,
        detail: dict[str, object],
        hashed: str | None = None,
        source: str | None = None,
    ) -> Caller:
        """Return who shows *secret*, an agent's live token.

        Args:
            secret: the presented token, if there is one.
            detail: the detail of a refusal's record.
            hashed: the SHA-256 of a token that counts instead, shown elsewhere.
            source: the address of the presenter, if that is known.

        Raises:
            CallRefusedError: 401; 429 for an agent that floods.
        """
        broker = self._broker
        await self.step()
        await self._calls.confirm()
        registry = broker.registry
        if not secret and hashed is None:
            text = "show a live token of your own: Authorization: Bearer av_t_…"
            raise unauthorized("no_token", text)
        hashed = hashed or sha256_hex(secret or "")
        token = registry.token(hashed)
        if token is not None:
            agent = registry.agent(token.agent_id)
            if broker.admitting.floods.limited(token.requester):
                retry = (b"retry-after", b"%d" % SPAN)
                text = f"refused too often: send no request for {SPAN} s"
                raise CallRefusedError(429, "slow_down", "slow_down", text, retry)
            if not count_connection(token.requester):
                raise too_many_connections()
            registry.seen(agent.id)
            return Caller(token.principal(agent), token, source)
        owner = registry.owner_of_ended(hashed)
        if owner is not None and (why := refused(broker, registry.agent(owner))):
            if not broker.admitting.floods.limited(owner):
                request = self._request(registry.agent(owner), Action((), ""), detail)
                await self._refuse(request, unauthorized(*why), owner)
            raise unauthorized(*why)
        raise unauthorized("invalid_token", "this is no live token of an agent")

    def check_live(self, caller: Caller) -> None:
        """Refuse a caller whose token ended while the body of a request arrives.

        A body may take long to arrive, and nothing decides about it before it is whole.

        Raises:
            CallRefusedError: 401; it is not recorded yet.
        """
        registry = self._broker.registry
        if registry.token(caller.token.sha256) is None:
            text = "this token ended while the body of its request arrived"
            why = refused(self._broker, registry.agent(caller.agent.id))
            raise unauthorized(*(why or ("invalid_token", text)))

    async def refuse(
        self,
        caller: Caller,
        refusal: CallRefusedError,
        action: Action,
        detail: dict[str, object],
    ) -> NoReturn:
        """Record a refusal that is no decision of policy's, and raise it.

        Raises:
            CallRefusedError: *refusal*, with its decision's id.
        """
        request = self._request(caller.agent, action, detail)
        await self._refuse(request, refusal, caller.token.requester)

    async def _refuse(
        self, request: Request, refusal: CallRefusedError, requester: str
    ) -> NoReturn:
        self._broker.admitting.floods.refused(requester)
        try:
            await deny(self._broker, request, refusal.reason, refusal.text)
        except LedgerError as error:
            raise unavailable(error) from None
        refusal.decision_id = request.decision_id
        raise refusal

    # May it go out?

    async def admit(self, call: Call) -> None:
        """Decide about *call*, and record that it goes out; then it may, once.

        Raises:
            CallRefusedError: it may not; see `permit` and `Calls.begin`.
            ClientGoneError: its caller has left.
        """

        async def decide() -> None:
            caller, registry = call.caller, self._broker.registry
            agent = caller.token.principal(registry.agent(caller.agent.id))
            call.caller = caller._replace(agent=agent)
            await self._calls.begin(call, await self.permit(call))

        try:
            await decide_anew(decide)
        except LedgerBusyError as error:
            raise unavailable(error) from None

    async def permit(self, call: Call) -> Permit:
        """Decide about *call*; where a person has to, hold it for as long as it says.

        Returns:
            the permit, to be used at once.

        Raises:
            CallRefusedError: it does not; recorded, but for one that waits already.
            ClientGoneError: its caller has left.
        """
        observe, caller = self._calls.observe, call.caller
        try:
            permit = await self._permit(call)
        except OvertakenError:
            raise
        except LedgerError as error:
            raise unavailable(error) from None
        except TooFastError as error:
            raise too_fast(error) from None
        except CallRefusedError as refusal:
            if refusal.error != PENDING:
                observe(caller, "refused")
            elif call.retry is None:
                observe(caller, "held")
            if refusal.decision_id is None:  # its body could not be had
                await self.refuse(caller, refusal, call.action, call.detail)
            self._broker.admitting.floods.refused(caller.token.requester)
            raise
        if call.stepup_id and call.retry is None:
            observe(caller, "held")
        return permit

    async def _permit(self, call: Call) -> Permit:
        broker, (agent, token, source) = self._broker, call.caller
        call.started_at, call.began = broker.clock.now(), broker.clock.boot()
        request = self._request(agent, call.action, call.detail)._replace(
            source=source,
            chain=token.chain,
            others=call.others,
            # A fetched approval was counted when it was given out.
            exempt=token.kind is TokenKind.ELEVATED,
        )
        grant = broker.registry.unless_revoked(agent.id)
        if why := refused(broker, agent):
            raise await self._calls.denied(request, unauthorized(*why))
        scope, actions = call.action.action, (call.action, *call.others)
        if token.resource not in {None, call.audience} and not all(
            is_below(one.resource or "", token.resource or "") for one in actions
        ):
            text = "this token was issued for another resource"
            raise await self._calls.denied(request, unauthorized("invalid_token", text))
        if (refusal := self._beyond(token, actions)) is not None:
            raise await self._calls.denied(request, refusal)
        verdict = await decide(broker, request)
        lacking = token.kind is TokenKind.STANDARD and scope not in token.scope.split()
        if lacking:
            narrowed = self._is_narrowed(call.caller)
            marks = {LACKS_SCOPE: True, **({NARROWED: True} if narrowed else {})}
            verdict = verdict._replace(facts={**verdict.facts, **marks})
        if verdict.outcome is Outcome.DENIED:
            denied = await deny(
                broker, request, verdict.reason, verdict.message, verdict
            )
            raise denial(denied)
        permit = Permit(request, verdict, grant)
        if token.kind is TokenKind.ELEVATED:
            return await self._elevated(call, permit)
        if lacking and (
            self.is_asked(call.caller, scope)
            or (verdict.outcome is Outcome.ALLOWED and narrowed)
        ):
            refusal = insufficient(scope)
            raise await self._calls.denied(request, refusal, verdict)
        # One that was approved already is here again where another broker was first.
        if (approved := call.retry or call.stepup_id) is not None:
            # Its own sending reserves what it uses; asking for it uses nothing.
            broker.deciding.limits.release(request.decision_id)
            return await self._retried(call, permit, approved)
        if verdict.outcome is Outcome.ESCALATED:
            return await self._held(call, permit)
        return permit._replace(spends=token) if token.single_use else permit

    def _beyond(
        self, token: Token, actions: Sequence[Action]
    ) -> CallRefusedError | None:
        """Return the refusal of actions that are not within the one a token states.

        The resource and parameters that a standard token was requested with limit its
        bearer (RFC 9396 section 7.1). Calls under a scope that it lacks are decided as
        those of a narrowed token, and an elevated token opens its exact action alone.
        """
        scope = actions[0].action
        own, lacking = not token.chain, scope not in token.scope.split()
        if own and (token.kind is TokenKind.ELEVATED or lacking):
            return None
        beyond = next(filter(None, (self._wider(token, one) for one in actions)), None)
        if beyond is None:
            return None
        code, which = "wider_than_parent", "the token that was passed on"
        if own:
            code, which = "wider_than_token", "the action that this token states"
        text = f"The {beyond} is not within {which}."
        return CallRefusedError(403, "access_denied", code, text)

    def _wider(self, token: Token, action: Action) -> str | None:
        whole = action_of(self._broker, token)
        limit, resource = whole.resource, action.resource or ""
        if limit is not None and not is_below(resource, limit):
            return "resource"
        limited = whole.parameters and whole.action == action.action
        name = wider_parameter(whole, action) if limited else None
        return f"parameter {visible(name, 60)}" if name else None

    def audience(self, caller: Caller, path: str) -> str | None:
        """Return for which URL the caller's token is good, if it is that of *path*."""
        resource = caller.token.resource
        audiences = audiences_of(resource, self._broker.admitting.url)
        return resource if path in audiences else None

    def is_asked(self, caller: Caller, scope: str) -> bool:
        """Check whether a standard token must carry *scope* for a call under it.

        Not one that is granted and that policy would not issue as such a token.
        """
        action = Action((scope,), scope)
        return caller.foresee(self._broker, action).outcome is Outcome.ALLOWED

    def _is_narrowed(self, caller: Caller) -> bool:
        """Check whether a token was asked for less than its agent could have.

        It has fewer scopes, or states an action (RFC 9396 section 7). Such a token
        limits its bearer (RFC 6749 section 3.3), so it opens nothing under another
        scope unless a person decides. A token without scopes says who asks.
        """
        carried = caller.token.scope.split()
        if carried and caller.token.states_action:
            return True
        return bool(carried) and any(
            scope not in carried and self.is_asked(caller, scope)
            for scope in caller.agent.scopes
        )

    def _request(
        self, agent: Agent, action: Action, detail: dict[str, object]
    ) -> Request:
        return Request(
            agent,
            action,
            None,
            None,
            DecisionId(new_id("dec")),
            events=_EVENTS,
            about=detail,
        )

    async def _elevated(self, call: Call, permit: Permit) -> Permit:
        """Let a token for one action open that action; for another, spend it in vain.

        It carries no held call's approval: that is never fetched as a token. If the
        request sends parts that the action does not state, it is refused: the token's
        approver did not see them, so the call itself has to be held.
        """
        token = call.caller.token
        others = (read(call.action, call.meant) for read in self.readings)
        if unsaid := (*filter(None, others), *call.unsaid):
            raise await self._calls.denied(
                permit.request, ask_at_the_gateway(unsaid), permit.verdict
            )
        stepup = self._broker.stepups.find(token.stepup_id)
        request = permit.request._replace(
            resource=token.resource, details=stepup.details if stepup else None
        )
        if stepup is None or not is_same(stepup, request):
            await spend_token(self._broker, call.caller.agent, token)
            raise await self._calls.denied(permit.request, mismatch(), permit.verdict)
        return permit._replace(spends=token)

    # Held calls

    async def _held(self, call: Call, permit: Permit) -> Permit:
        """Hold *call* for a person, and let it go out if they approve in time."""
        broker = self._broker
        body = await call.read()
        stepup_id = StepUpId(new_id("sup"))
        if call.bound is not None:
            await self._fetched(call, call.bound, permit, stepup_id)
        permit = permit._replace(
            request=permit.request._replace(call=call.describe(body))
        )
        answer = await escalate(
            broker,
            permit.request,
            permit.verdict,
            held=lambda one: self._keep(call, one, body),
            stepup_id=stepup_id,
        )
        if isinstance(answer, Denied):
            raise denial(answer)
        call.decision_id, call.stepup_id = answer.decision_id, answer.stepup.id
        wait = WAIT if call.wait is None else call.wait
        return await self._waited(call, permit, answer, wait)

    async def _fetched(
        self, call: Call, bound: NamedDocuments, permit: Permit, fresh: StepUpId
    ) -> None:
        """Fetch the documents that a call names, for a person.

        The rows of the fetch name the step-up of the same request if one waits already
        and its documents did not change, or else *fresh*.

        Raises:
            CallRefusedError: 403 ``referent_unreadable``; recorded.
        """
        bound.references = []
        plain = json.loads(call.describe(await call.read()))
        waiting = [
            one
            for one in self._broker.stepups.open(call.caller.agent.id)
            if one.request is not None and one.request | {"references": []} == plain
        ]
        try:
            for stepup in waiting[-1:]:
                await bound.fetch(stepup.id)
                if bound.references == (stepup.request or {})["references"]:
                    return
            await bound.fetch(fresh)
        except CallRefusedError as refusal:
            raise await self._calls.denied(
                permit.request, refusal, permit.verdict
            ) from None

    def _keep(self, call: Call, stepup_id: str, body: bytes | None) -> None:
        """Hold in memory all content of a person's decision; see `HeldBodies.keep`."""
        agent_id, bodies = call.caller.token.requester, self._calls.bodies
        bodies.keep(agent_id, stepup_id, body)
        for place, content in enumerate(call.bound.contents if call.bound else ()):
            bodies.keep(agent_id, referent_key(stepup_id, place), content)

    async def _waited(
        self, call: Call, permit: Permit, answer: Escalated, wait: float
    ) -> Permit:
        """Wait for a person's decision about *answer*'s step-up, then act on it."""
        broker, stepup = self._broker, answer.stepup
        wait = min(wait, stepup.expires.remaining(broker.clock))
        wanted = asyncio.get_running_loop().create_future()
        place = None
        if wait > 0 and stepup.status.open:
            requester = call.caller.token.requester
            place = self._calls.held.wait_in(requester, wanted)
        if place is not None:  # without a place: 403 at once, as with respond-async
            decided = asyncio.ensure_future(broker.stepups.decision(stepup.id))
            try:
                with self._calls.holding(call) as cancelled:
                    await asyncio.wait(
                        {decided, call.gone, cancelled, wanted},
                        timeout=wait,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            finally:
                place.leave()
                decided.cancel()
            if call.gone.done():
                raise ClientGoneError
            if call.cut is not None:
                about = {**permit.request.about, **call.cancelled_by()}
                request = permit.request._replace(about=about)
                raise await self._calls.denied(request, call.cut, permit.verdict)
        stepup_now = broker.stepups.find(stepup.id) or stepup
        if stepup_now.status.open:
            raise pending(broker, stepup_now, answer.decision_id)
        # What was decided before may have changed while a person thought.
        agent, verdict = call.caller.agent, permit.verdict
        grant = broker.registry.unless_revoked(agent.id)
        if stepup_now.status is StepUpStatus.APPROVED:
            agent = call.caller.token.principal(broker.registry.agent(agent.id))
            current = permit.request._replace(agent=agent)
            verdict = await call_webhooks(broker, current, current.foresee(broker))
            if call.gone.done():
                raise ClientGoneError
            if verdict.outcome is Outcome.DENIED:
                denied = await deny(
                    broker, permit.request, verdict.reason, verdict.message, verdict
                )
                raise denial(denied)
        permit = permit._replace(verdict=verdict, grant=grant)
        permit = self._decided(stepup_now, permit)
        return await self._looked_again(call, stepup_now, permit)

    async def _retried(self, call: Call, permit: Permit, stepup_id: str) -> Permit:
        """Let a held call go out under the approval that it names."""
        broker, agent = self._broker, call.caller.agent
        stepup = await self.find(stepup_id)
        if (
            stepup is None
            or stepup.agent_id != agent.id
            or stepup.chain != call.caller.token.chain
            or stepup.request_json is None
            or stepup.evaluation
        ):
            refusal = CallRefusedError(
                403, "access_denied", "unknown_request", "no held call of yours is that"
            )
            raise await self._calls.denied(permit.request, refusal, permit.verdict)
        body = await call.read()
        if call.bound is not None:
            # Which documents they were then: they are fetched again before it leaves.
            call.bound.references = (stepup.request or {}).get("references", [])
        request = permit.request._replace(call=call.describe(body))
        permit = permit._replace(request=request)
        if not is_same(stepup, request):
            minted = broker.registry.elevated(stepup.id)
            if stepup.status is StepUpStatus.APPROVED and minted is not None:
                await spend_token(broker, agent, minted)
            raise await self._calls.denied(request, mismatch(), permit.verdict)
        call.stepup_id = stepup.id
        if stepup.status.open:
            left = max(1, round(stepup.expires.remaining(broker.clock)))
            message = permit.verdict.message
            answer = Escalated(stepup, message, left, stepup.decision_id)
            return await self._waited(call, permit, answer, call.wait or 0.0)
        try:
            permit = self._decided(stepup, permit)
        except CallRefusedError as refusal:
            raise await self._calls.denied(request, refusal, permit.verdict) from None
        return await self._looked_again(call, stepup, permit)

    async def _looked_again(self, call: Call, stepup: StepUp, permit: Permit) -> Permit:
        """See that the documents of an approved call are still the approved ones.

        Until the call is over no other write below them leaves.

        Raises:
            CallRefusedError: 403 ``referent_changed``, and the approval is spent; 403
                ``referent_unreadable`` or 503, and it is not.
        """
        if call.bound is None:
            return permit
        try:
            await call.bound.hold()
            await call.bound.fetch(stepup.id)
        except CallRefusedError as refusal:
            raise await self._calls.denied(
                permit.request, refusal, permit.verdict
            ) from None
        if call.bound.references == (stepup.request or {}).get("references"):
            return permit
        if permit.spends is not None:
            await spend_token(self._broker, permit.request.agent, permit.spends)
        raise await self._calls.denied(
            permit.request, referent_changed(), permit.verdict
        )

    def _decided(self, stepup: StepUp, permit: Permit) -> Permit:
        """Return the permit of a decided step-up, which is for one sending.

        Raises:
            CallRefusedError: nothing.
        """
        broker, agent = self._broker, permit.request.agent
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
                refusal = refusal_of(broker, agent, stepup)
                reason, text = refusal.reason, refusal.message
        raise CallRefusedError(403, code, reason, text, decision_id=stepup.decision_id)

    async def find(self, stepup_id: str) -> StepUp | None:
        """Return a step-up, however old, as it is now."""
        with contextlib.suppress(NotFoundError):
            return await known_stepup(self._broker, stepup_id)
        return None
