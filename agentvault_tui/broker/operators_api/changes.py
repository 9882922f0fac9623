"""``/api/changes``, and how a call that may loosen something is answered."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace as replaced
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.stepups import own_device
from agentvault_tui.broker.operators_api.wire import (
    answer,
    answer_in_parts,
    body_of,
    error_problem,
    listing,
    operator_of,
    query_of,
    refuse_grant,
    route,
    turn_of,
)
from agentvault_tui.broker.riders import Rider, record_by_uid
from agentvault_tui.broker.shapes import change_info
from agentvault_tui.broker.shown_texts import shown_request
from agentvault_tui.broker.usecases.change_basis import basis
from agentvault_tui.broker.usecases.changes import (
    Asker,
    Wanted,
    ask,
    carry,
    request_of,
    shown_digest,
    take_answer,
)
from agentvault_tui.broker.usecases.stepup import begin_approval, known_stepup
from agentvault_tui.broker.usecases.stepup_end import deny, expire_due
from agentvault_tui.errors import AgentVaultError, NotFoundError, UsageError
from agentvault_tui.model import Actor, AgentId, StepUp, sha256_hex
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.calls import CLAIM_HEADER, AnswerT, ApiCall
from agentvault_tui.operator_api.changes import (
    CHANGE_STATUSES,
    ChangeDecision,
    ChangeInfo,
    ChangeQuery,
)
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.shapes import WireShape

BodyT = TypeVar("BodyT", bound=WireShape)


class How(NamedTuple):
    """How a call is carried out."""

    path: dict[str, str]
    """The parameters of its path."""
    loosens: bool
    """Whether it may loosen: at the socket, or approved by a person's factor."""
    operator: Actor
    """Who asked for it."""
    shown: str = ""
    """The `shown_digest` of the loosening that was judged; empty: it was none."""


@dataclass(frozen=True, slots=True)
class Loosening(Generic[BodyT, AnswerT]):
    """A call that may loosen something: at once, or once a person has approved it.

    Approved, it is carried out by the same function and from the same request, which
    the digest covers: there is no second way to change anything.
    """

    authority: Authority
    call: ApiCall[AnswerT]
    body: type[BodyT]
    perform: Callable[[BodyT, Actor, How], Awaitable[AnswerT]]
    """Carries it out, as that actor."""
    apart: tuple[str, ...] = ()
    """Members of the body that a change shows as texts, or that are secret. The others
    are shown whether or not the change's details name them."""

    def __post_init__(self) -> None:
        """Register the function that carries the call out."""

        async def carrier(request: Any, actor: Actor) -> bytes:
            body = msgspec.convert(request["body"], self.body)
            how = How(request["path"], True, actor, request["shown"])
            return encode(await self.perform(body, actor, how))

        self.authority.broker.extensions.carriers[self.name] = carrier

    @property
    def name(self) -> str:
        """Return method and path: it names the call in a change."""
        return f"{self.call.method} {self.call.path}"

    async def settle(
        self,
        request: Request,
        body: BodyT,
        wanted: Wanted,
        *,
        exempt: bool = False,
        need: Need = Need.REVOKE,
        local: Need | None = None,
        by_factor: bool | None = None,
    ) -> Response:
        """Answer a request that was read: carry it out, or hold it as a change.

        Args:
            request: the request.
            body: its content.
            wanted: its loosening.
            exempt: whether the socket alone is enough under any setting.
            need: of a request that loosens nothing.
            local: of such a request at the socket, where that is another.
            by_factor: `Authority.by_factor` as *wanted* was judged with it; None: it
                is read here. It may change between two readings.

        Raises:
            ForbiddenError: their role is not enough.
            AgentVaultError: as the call does.
        """
        authority, seat = self.authority, operator_of(request)
        about, path = wanted.about, dict(request.path_params)
        if not wanted.kinds:
            elsewhere = authority.is_elsewhere(seat)
            least = need if elsewhere else local or need
            actor = await authority.actor(seat, least, about)
            done = await self.perform(body, actor, How(path, False, actor))
            return await answer_in_parts(request, done, self.call.status)
        # Before others have their turn: the approver is shown what was judged.
        try:
            wanted = replace(wanted, basis=basis(authority.broker, wanted.subjects))
        except NotFoundError:
            await authority.actor(seat, Need.GIVE, about)  # who may not ask learns less
            raise
        if by_factor is None:
            by_factor = await authority.by_factor(seat)
        by_factor = by_factor and (not exempt or authority.is_elsewhere(seat))
        actor = await authority.actor(seat, Need.GIVE, about)
        if by_factor:
            return await self.hold(request, body, wanted, actor)
        described = wanted.kinds, wanted.summary, wanted.reason
        draft = record_by_uid(actor, *described, *wanted.texts)
        request_body = _request_body(request, body, wanted)
        content = await carry(
            authority.broker, Rider(actor, draft), self.name, request_body
        )
        return Response(content, self.call.status, media_type="application/json")

    async def hold(
        self, request: Request, body: BodyT, wanted: Wanted, actor: Actor
    ) -> Response:
        """Hold a request until a person has approved it, and answer with the change."""
        held_body = _request_body(request, body, wanted)
        asker = Asker(actor, _asking(request))
        apart = (*self.apart, "reason") if wanted.reason else self.apart
        details = shown_request(body, apart, wanted.details)
        wanted = replace(wanted, details=details)
        change = await ask(self.authority.broker, self.name, held_body, wanted, asker)
        return await answer_in_parts(request, change_info(change), 202)


def _asking(request: Request) -> Actor:
    """Return the session that asks for a change, or for its answer.

    Programs of one user are the same operator at the socket. One that sends a claim, a
    random text, differs from the others by it.
    """
    seat, claim = operator_of(request), request.headers.get(CLAIM_HEADER)
    if claim is None or Authority.is_elsewhere(seat):
        return seat
    return replace(seat, id=f"{seat.id} {sha256_hex(claim)}")


def _request_body(
    request: Request, body: WireShape, wanted: Wanted
) -> dict[str, object]:
    return {
        "path": dict(request.path_params),
        "body": msgspec.to_builtins(body),
        "shown": shown_digest(wanted),
    }


async def with_taken(
    request: Request, rest: Awaitable[Response], taken: WireShape | None
) -> Response:
    """Answer a call that takes and gives: its rest, and the rights that ended at once.

    Also a refusal of the rest says that the other part is done.
    """
    if taken is None:
        return await rest
    try:
        answered = await rest
    except AgentVaultError as error:
        error.what += "; the rights to take away have ended"
        answered = await error_problem(request, error)
    content: dict[str, object] = json.loads(bytes(answered.body))
    content["taken"] = msgspec.to_builtins(taken)
    return Response(
        encode(content), answered.status_code, media_type=answered.media_type
    )


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the routes about changes that wait for a person."""

    async def index(request: Request) -> Response:
        """List the changes that wait, then the latest decided.

        Raises:
            UsageError: the status is none.
        """
        await expire_due(broker)
        query = query_of(request, ChangeQuery)
        if query.status not in {None, *CHANGE_STATUSES}:
            raise UsageError("unknown status", f"one of {', '.join(CHANGE_STATUSES)}")
        stepups = [*broker.stepups.open(AgentId("")), *broker.stepups.decided()]
        infos = (
            change_info(one, whole=False)
            for one in stepups
            if one.change and query.status in {None, one.status}
        )
        return await listing(request, "changes", islice(infos, query.limit))

    async def show(request: Request) -> ChangeInfo:
        """Return one change; once, to the session that asked, with its answer."""
        change = await _named(broker, request.path_params["id"])
        body = request_of(broker, change) if change.status.open else None
        await turn_of(request)()
        who = operator_of(request)
        device = own_device(broker, who)(change)
        info = replaced(change_info(change, device), request=body)
        # Without a claim, the change is any program's of that user.
        result = await take_answer(broker, change, {who.id, _asking(request).id})
        if result is None:
            return info
        secret = result.get("client_secret", UNSET)
        return replaced(info, result=result, client_secret=secret)

    async def decide(request: Request) -> Response:
        """Begin to approve (202, the second factor follows), or deny."""
        body = await body_of(request, ChangeDecision)
        who = operator_of(request)
        if body.decision == "approve":
            if (refusal := refuse_grant(request)) is not None:
                return refusal
            operator = await authority.actor(who, Need.APPROVE, body.id)
            await _named(broker, body.id)
            begun = await begin_approval(
                broker, body.id, body.digest, operator, seat=who.id
            )
            authority.renew_once_approved(who.id, begun)
            device = own_device(broker, who)(begun)
            return answer(change_info(begun, device), 202)
        operator = await authority.actor(who, Need.REVOKE, body.id)
        await _named(broker, body.id)
        denied, _ = await deny(broker, body.id, body.reason, operator)
        return answer(change_info(denied))

    return [
        route(calls.CHANGES, index),
        route(calls.CHANGE, show),
        route(calls.DECIDE_CHANGE, decide),
    ]


async def _named(broker: Broker, change_id: str) -> StepUp:
    missing = NotFoundError("no change has that id", "agentvault changes list")
    if not change_id.startswith("chg_"):
        raise missing
    try:
        return await known_stepup(broker, change_id)
    except NotFoundError:
        raise missing from None
