"""Admits operators on other machines: a session, bound to a key, for every request.

The key is one the client made for its sign-in (DPoP, RFC 9449). Its session's token is
given out when the sign-in begins, and is good for nothing until a person has proved
who they are with a second factor. Neither is of use without the other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.broker.authority import (
    Authority,
    Sessions,
    origin_of,
    remote_seat,
)
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.dpop import ALGORITHMS, ProofError, Proofs
from agentvault_tui.broker.operators_api.streams import is_urgent
from agentvault_tui.broker.operators_api.wire import (
    SHARE,
    answer,
    error_problem,
    problem,
)
from agentvault_tui.broker.shapes import device_info
from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import AgentVaultError, ConflictError
from agentvault_tui.model import (
    Actor,
    ActorKind,
    Draft,
    EventType,
    new_secret,
    sha256_hex,
)
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.access import SignInInfo
from agentvault_tui.web.reply import App, Message, Receive, Scope, Send
from agentvault_tui.web.shares import CappedPlaces, FairPlace, FairPlaces, classes_of

CONNECTIONS: Final = 128
"""Places of the listener for operators elsewhere."""

_SIGN_INS: Final = 16
"""Sign-ins that may be under way: each has the broker ask the tenant for it. One /48
may have half of them."""
_OF_ONE_ADDRESS: Final = 4
"""How many of them one IPv4 address or IPv6 /64 may have."""
_BEGINNING: Final = 120
"""Seconds that the tenant has to begin one."""
_TOLD_SECONDS: Final = 30
"""How long after its code has expired a sign-in still tells that it did."""
_LOOK: Final = 0.5
"""Seconds between two looks whether the session of an open stream has ended."""
_SESSION_CALLS: Final = frozenset({calls.ME.path, calls.LOGOUT.path})


@dataclass(frozen=True, slots=True)
class _SignIn:
    """A sign-in under way, or the session that it became."""

    seat: str
    network: str
    place: FairPlace
    until: Deadline
    """When it is forgotten, unless somebody has signed in with it."""


class SignIns:
    """The tokens of sign-ins under way and of sessions, by their SHA-256."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._held: dict[str, _SignIn] = {}
        self._places = FairPlaces(_SIGN_INS)

    async def begin(self, operator: Actor) -> SignInInfo:
        """Begin a sign-in for *operator*, whose name is the address they come from.

        Each keeps its place until its code has expired, however it ends. Cancelling
        frees no place, so that a stranger who cancels cannot flood the ledger.

        Raises:
            ProofError: too many are under way.
            ConflictError: the key was used for one.
            TenantError: the tenant begins none.
        """
        waiting = self._sweep()
        if any(one.seat == operator.id for one in self._held.values()):
            raise ConflictError("this key was used before", "make another key")
        token = new_secret("av_s")
        digest = sha256_hex(token)
        begun = self._count(operator, digest, waiting)
        try:
            device = device_info(await self._sessions.login(operator))
        except BaseException as error:
            ended = digest not in self._held
            self._end(digest)
            if ended and isinstance(error, ConflictError):
                raise _too_many() from None  # its place was given to another network
            raise
        if digest not in self._held:
            raise _too_many()
        until = Deadline.after(self._clock, device.expires_in + _TOLD_SECONDS)
        self._held[digest] = replace(begun, until=until)
        origin = origin_of(operator)
        return SignInInfo(access_token=token, device=device, origin=origin)

    def _count(
        self, operator: Actor, digest: str, waiting: Sequence[_SignIn]
    ) -> _SignIn:
        """Count a sign-in, before anything waits for it.

        Raises:
            ProofError: too many are under way.
        """
        classes = classes_of(operator.name)
        network = classes[:2][-1]
        place = None
        if sum(one.network == network for one in waiting) < _OF_ONE_ADDRESS:
            place = self._places.take(classes, lambda: self._end(digest))
        if place is None:
            raise _too_many()
        until = Deadline.after(self._clock, _BEGINNING)
        self._held[digest] = _SignIn(operator.id, network, place, until)
        return self._held[digest]

    def _end(self, digest: str) -> None:
        """Forget a sign-in that has not ended, and stop polling the tenant for it."""
        session = self._held.pop(digest, None)
        if session is not None:
            self._places.leave(session.place)
            self._sessions.cancel(session.seat)

    def seat(self, token: str) -> str | None:
        """Return the seat of the key that *token* is good with."""
        self._sweep()
        session = self._held.get(sha256_hex(token))
        return session.seat if session else None

    def _sweep(self) -> list[_SignIn]:
        """Forget sign-ins and sessions that are over; return those that wait."""
        waiting = []
        for digest, one in list(self._held.items()):
            if self._sessions.of(one.seat) is not None:
                self._places.leave(one.place)
                continue
            if one.until.passed(self._clock):
                self._end(digest)
                self._sessions.forget(one.seat)
            else:
                waiting.append(one)
        return waiting


class RemoteGuard:
    """ASGI middleware that admits remote operators."""

    def __init__(
        self,
        app: App,
        broker: Broker,
        sessions: Sessions,
        url: str,
        connections: int = CONNECTIONS,
    ) -> None:
        """Guard *app*.

        Args:
            app: the guarded app.
            broker: the broker.
            sessions: who has signed in.
            url: how clients name it, with a slash at the end.
            connections: places of its listener; a session or a role has half of them.
        """
        self._requests = CappedPlaces(sys.maxsize)
        self._most = max(connections // 2, 1)
        self._app = app
        self._broker = broker
        self._sessions = sessions
        self._stolen: set[str] = set()
        self._authority = Authority(broker, sessions)
        self._sign_ins = SignIns(sessions, broker.clock)
        self._proofs = Proofs(broker.clock, url.removesuffix("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refusal, or pass the request on as its operator's."""
        nonce = (b"dpop-nonce", self._proofs.nonce.encode())

        async def with_nonce(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], nonce]
            await send(message)

        try:
            if scope["path"] == calls.SIGN_IN.path and scope["method"] == "POST":
                response = await self._sign_in(scope)
            else:
                response = None
                seat = await self._admitted(scope)
        except ProofError as error:
            response = _unproven(error)
        except AgentVaultError as error:
            response = await error_problem(Request(scope), error)
        if response is not None:
            await response(scope, receive, with_nonce)
            return
        await self._counted(scope, seat, receive, with_nonce)

    async def _counted(
        self, scope: Scope, seat: str, receive: Receive, send: Send
    ) -> None:
        """Pass a request on while its session and role have their share of them.

        Requests that end rights have a share of their own. Some of their paths can
        also grant. The body shows it: `refuse_grant` counts that in the normal share.
        """
        held = list[Mapping[str, int]]()

        def count(caps: Mapping[str, int]) -> Response | None:
            """Count the request until it is answered; return the refusal if full."""
            if self._requests.take(caps) is not None:
                text = "your session or role has too many requests under way"
                return problem(503, text)
            held.append(caps)
            return None

        role = self._authority.standing(seat).role
        caps = {seat: self._most, f"role {role}": self._most}
        if is_urgent(scope):
            scope["state"][SHARE] = partial(count, caps)
            caps = {f"{seat} ends rights": self._most}
        try:
            if (refusal := count(caps)) is not None:
                await refusal(scope, receive, send)
                return
            await self._app(scope, self._while_signed_in(seat, receive), send)
        finally:
            for one in held:
                self._requests.release(one)

    async def _sign_in(self, scope: Scope) -> Response:
        proof = self._proofs.read(scope, None)
        self._proofs.take(proof, "")
        operator = _operator(remote_seat(proof.thumbprint), scope)
        return answer(await self._sign_ins.begin(operator), calls.SIGN_IN.status)

    async def _admitted(self, scope: Scope) -> str:
        """Check session and key; return the seat, which the scope then names.

        Raises:
            ProofError: the request proves neither, or not both.
        """
        token = _token(scope)
        proof = self._proofs.read(scope, token)
        seat = self._sign_ins.seat(token)
        if seat is None:
            raise _invalid_token("the session is over, or was never one here")
        if seat != remote_seat(proof.thumbprint):
            await self._tell_stolen(_operator(seat, scope))
            raise _invalid_token("the session is another key's")
        self._proofs.take(proof, seat)
        operator = _operator(seat, scope)
        scope["state"]["operator"] = operator
        # Roles are checked by the routes themselves; see `wire.guarded`.
        own = scope["path"] in _SESSION_CALLS
        if not own and self._authority.standing(seat).session is None:
            raise _invalid_token("nobody is signed in with it")
        return seat

    async def _tell_stolen(self, operator: Actor) -> None:
        """Record, once a session, that its token came with another key."""
        if operator.id in self._stolen:
            return
        self._stolen.add(operator.id)
        why = "the session's token came with another key: it may be stolen"
        detail = {"uid": operator.id, "address": operator.name}
        actor = self._authority.named(operator)
        draft = Draft(EventType.OPERATOR_REFUSED, actor, reason=why, detail=detail)
        await self._broker.record(draft)

    def _while_signed_in(self, seat: str, receive: Receive) -> Receive:
        """Return a channel that ends a stream within a second of its session's end."""

        async def watched() -> Message:
            """Return the next message, or a disconnect once the session ended."""
            arriving = asyncio.ensure_future(receive())
            try:
                while True:
                    done, _ = await asyncio.wait({arriving}, timeout=_LOOK)
                    if done:
                        return arriving.result()
                    if self._sessions.of(seat) is None:
                        return {"type": "http.disconnect"}
            finally:
                arriving.cancel()

        return watched


def _token(scope: Scope) -> str:
    """Return the access token of a request (RFC 9449 section 7.1).

    Raises:
        ProofError: it has none.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "dpop" or not token:
        raise _invalid_token("sign in first: agentvault login")
    return token.strip()


def _operator(seat: str, scope: Scope) -> Actor:
    return Actor(ActorKind.OPERATOR, seat, scope["client"][0])


def _too_many() -> ProofError:
    message = "too many sign-ins are under way: try again in a few minutes"
    return ProofError("slow_down", message, 503)


def _invalid_token(why: str) -> ProofError:
    return ProofError("invalid_token", why)


def _unproven(error: ProofError) -> Response:
    """Word a refusal as RFC 9449 section 7.1 does, and as a problem document."""
    remedy = "agentvault login" if error.code == "invalid_token" else ""
    response = problem(error.status, error.why, error=error.code, remedy=remedy)
    if error.status == HTTPStatus.UNAUTHORIZED:
        algorithms = " ".join(ALGORITHMS)
        response.headers["WWW-Authenticate"] = (
            f'DPoP error="{error.code}", algs="{algorithms}"'
        )
    return response
