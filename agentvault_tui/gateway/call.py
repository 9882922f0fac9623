"""One call through the gateway, from its admission to its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from msgspec import to_builtins

from agentvault_tui.clock import iso
from agentvault_tui.gateway.caller import Caller
from agentvault_tui.gateway.refusals import CallRefusedError, lease_over
from agentvault_tui.model import Action, Actor, EventType, new_id
from agentvault_tui.operator_api.gateway import CallInfo
from agentvault_tui.operator_api.history import ActorInfo


class NamedDocuments(Protocol):
    """The documents that a call names; see `referents.BoundDocuments`."""

    references: list[dict[str, object]]
    """How the request of a step-up names them."""
    contents: tuple[bytes, ...]
    """Those that were fetched last."""

    async def fetch(self, stepup_id: str) -> None:
        """Fetch all of them, for one step-up.

        Raises:
            CallRefusedError: 403 ``referent_unreadable``, or the fetch was cut.
        """

    async def hold(self) -> None:
        """Let no other write below them out until the call is over.

        Raises:
            CallRefusedError: 503, another one does not end.
        """


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
    """The detail of its events: by contract, ``call_id`` among it."""
    read: Callable[[], Awaitable[bytes | None]]
    """Returns the encoded body that a person decides about, or None for an opaque one,
    and adds its digest to `detail`. Raises if it is too large."""
    describe: Callable[[bytes | None], str]
    """Returns the request as in `StepUp.request_json`; call `read` before."""
    gone: asyncio.Future[None]
    """Done when the caller is gone."""
    in_force: Callable[[], bool]
    """Tells whether the file that it was read by still says the same."""
    wait: float | None = None
    """Seconds to wait for a person; 0 not at all; None where the agent did not say."""
    retry: str | None = None
    """The step-up whose approval this call would use up."""
    audience: str | None = None
    """The permitted audience of a token instead of the action's resource (RFC 8707)."""
    unsaid: tuple[str, ...] = ()
    """Parts of the request that no parameter of its action states."""
    others: tuple[Action, ...] = ()
    """The same action on further resources; see `Request.others`."""
    meant: object = None
    """The route or the rule of a tool that the call is of."""
    bound: NamedDocuments | None = None
    """The documents that an approval of it is about."""
    result: EventType = EventType.GATEWAY_RESULT
    """The type of the event that says how it ended."""
    id: str = field(default_factory=lambda: new_id("call"))
    state: str = "sending"
    started_at: datetime | None = None
    began: float = 0.0
    """In boot seconds."""
    bytes_in: int = 0
    bytes_out: int = 0
    sent: bool | None = False
    """Whether the request has reached the upstream whole; None: it cannot be known."""
    status: int | None = None
    ended: str | None = None
    problem: str | None = None
    """The code of the upstream fault."""
    decision_id: str | None = None
    stepup_id: str | None = None
    attempt_seq: int = 0
    cut: CallRefusedError | None = None
    """Why it must not go on."""
    cut_by: Actor | None = None
    """The operator who cancelled it, or revoked its token, if that is known here."""
    broker: str | None = None
    """The broker of a team that carries the call."""
    lease_over: Callable[[], bool] = lambda: False
    """Tells whether this broker may not know any more who is revoked."""
    on_cut: list[Callable[[], None]] = field(default_factory=list)
    """Called when it is cut, in the same turn: closes connections at once."""

    def __post_init__(self) -> None:
        """Name it in its events, and all resources if it acts on several."""
        self.detail["call_id"] = self.id
        if self.others:
            actions = (self.action, *self.others)
            self.detail["resources"] = [one.resource for one in actions]

    def check(self) -> None:
        """Raise the reason why this call was cancelled, if it was.

        Raises:
            CallRefusedError: it must not go on.
        """
        if self.cut is None and self.lease_over():
            self.cut = lease_over()
        if self.cut is not None:
            raise self.cut

    def outcome(self) -> dict[str, object]:
        """Return the members of its result's detail that say how it ended."""
        return {
            "status": self.status,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "request_whole": self.sent,
            "ended": self.ended,
            **self.cancelled_by(),
        }

    def cancelled_by(self) -> dict[str, object]:
        """Return the member of an event's detail that names who cancelled it."""
        return {"cut_by": to_builtins(self._cut_by())} if self.cut_by else {}

    def _cut_by(self) -> ActorInfo | None:
        if (by := self.cut_by) is None:
            return None
        return ActorInfo(kind=by.kind.value, id=by.id, name=by.name)

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
            request_whole=self.sent,
            cut_by=self._cut_by(),
            status=self.status,
            ended=self.ended,
            decision_id=self.decision_id,
            stepup_id=self.stepup_id,
            broker=self.broker,
        )
