"""One request of an agent, as every use-case that decides is handed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.decide import foresee
from agentvault_tui.encoder import to_json
from agentvault_tui.model import (
    DETAIL_TYPE,
    Action,
    Actor,
    Agent,
    DecisionId,
    EventType,
    Outcome,
    Verdict,
)

_TOKEN_DECISIONS: Final = dict.fromkeys(Outcome, EventType.TOKEN_DECISION)
_NOTHING: Final[Mapping[str, object]] = {}


class Request(NamedTuple):
    """One request of an agent: who, what, and the id of its decision."""

    agent: Agent
    action: Action
    resource: str | None
    """RFC 8707 resource indicator."""
    details: tuple[dict[str, object], ...] | None
    """RFC 9396 ``authorization_details`` as sent."""
    decision_id: DecisionId
    connection: str | None = None
    """Of the provider whose token is asked for, if it is one."""
    asked_scope: str = ""
    """All scopes that were asked for, where this is about one of them."""
    events: Mapping[Outcome, EventType] = _TOKEN_DECISIONS
    """How its decision is recorded."""
    about: Mapping[str, object] = _NOTHING
    """What its events say besides."""
    call: str | None = None
    """The HTTP request that a person decides about; see `StepUp.request_json`."""
    evaluation: bool = False
    """Whether no token is asked for; see `StepUp.evaluation`."""
    asked_by: Actor | None = None
    """Who asked, where it was not the agent itself."""
    source: str | None = None
    """The address it came from, if that is known."""
    backchannel: bool = False
    """Whether the agent itself asks for a person (CIBA Core 7)."""
    depth: int = 0
    """How often the token it acts on was passed on (RFC 8693)."""

    def foresee(self, broker: Broker) -> Verdict:
        """Say how this would be answered now; see `decide.foresee`."""
        return foresee(
            broker,
            self.agent,
            self.action,
            self.source,
            self.details,
            backchannel=self.backchannel,
            depth=self.depth,
        )

    @property
    def scope(self) -> str:
        """Return the requested scopes as the wire writes them."""
        return " ".join(self.action.scopes)

    @property
    def served(self) -> tuple[dict[str, object], ...] | None:
        """Return ``authorization_details`` as a resource server will read them.

        The object of our type says the action and resource that were decided about,
        also where the request named them elsewhere (RFC 9396 section 7 lets a server
        enrich them).
        """
        if self.details is None:
            return None
        decided = {"action": self.action.action} if self.action.named else {}
        if self.action.resource is not None:
            decided["resource"] = self.action.resource
        return tuple(
            one | decided if one["type"] == DETAIL_TYPE else one for one in self.details
        )

    @property
    def served_text(self) -> str | None:
        """Return `served` as the JSON text that is stored and sent."""
        served = self.served
        return None if served is None else to_json(served)
