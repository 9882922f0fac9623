"""The rights that end with a revocation: found again while others add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.extensions import CallsCut
from agentvault_tui.broker.pending_cuts import Decide, Decided
from agentvault_tui.broker.usecases.stepup_end import cancelled, cancelled_draft
from agentvault_tui.errors import NotFoundError
from agentvault_tui.ledger import OutboxStep, Panic
from agentvault_tui.model import (
    Actor,
    Agent,
    AgentId,
    Draft,
    StepUp,
    StepUpId,
    Token,
    TokenId,
)
from agentvault_tui.text import visible

_NONE: Final = CallsCut()


@dataclass(slots=True)
class InForce:
    """A revocation in effect in memory, and the function that finds its record."""

    decide: Decide
    """Finds the ended rights, each time with those that others added; see `Cuts`."""
    decided: Decided
    """The first answer."""
    below: list[Token] = field(default_factory=list)
    """Tokens of other agents that ended with it, each with an event of its own."""
    reason: str = ""
    """Why those ended."""

    async def record(self, broker: Broker, operator: Actor) -> Kept:
        """Persist it; return where it is now."""
        with broker.admitting.paused():
            durability = await broker.record_decided(self.decide)
            await broker.record_ended(self.below, operator, self.reason)
        return durability


@dataclass(frozen=True, slots=True)
class Cut:
    """The result of a revocation, and its duration."""

    agents: tuple[Agent, ...]
    tokens: int
    stepups: int
    effective_ms: float
    """From the call until nothing was served any more."""
    durability: Kept
    """Where it is durable; if not in the ledger, it is recorded when that works."""
    steps: tuple[OutboxStep, ...] = ()
    """The steps that remain at the tenant and at providers."""
    calls: CallsCut = _NONE
    delegated: int = 0
    """Tokens that were exchanged for those, directly or further."""
    derived: int = 0
    """Agents that were made from it, and ended with it."""
    panic: Panic | None = None
    """The panic that was on already."""

    @property
    def ended_any(self) -> bool:
        """Check whether a token, step-up, call or other agent ended with it."""
        ended = self.tokens, self.stepups, self.calls.cut, self.delegated, self.derived
        return any(ended)

    @property
    def recorded(self) -> bool:
        """Check whether its event is durable."""
        return self.durability is Kept.LEDGER


class Cancelling:
    """Step-ups that end with something else, and repeats of approvals."""

    def __init__(
        self,
        broker: Broker,
        reason: str,
        open_ones: Callable[[], Iterable[StepUp]],
        repeating: Callable[[], Iterable[StepUp]],
    ) -> None:
        """Cancel the step-ups of *open_ones*, and end those of *repeating*.

        Args:
            broker: the broker.
            reason: why, for the step-ups' events.
            open_ones: finds those that wait, or whose token is unused.
            repeating: finds approvals with repeats left.
        """
        self._broker, self._reason = broker, reason
        self._open, self._repeating = open_ones, repeating
        self._ended: dict[StepUpId, StepUp] = {}
        self._repeats: dict[StepUpId, StepUp] = {}

    def __len__(self) -> int:
        """Return how many step-ups were cancelled."""
        return len(self._ended)

    def end(self) -> None:
        """End the present ones, in memory; forget those that another party decided."""
        for of in (self._ended, self._repeats):
            gone = [one for one in of if self._broker.stepups.find(one) is not of[one]]
            for one in gone:
                del of[one]
        for stepup in self._open():
            self._ended[stepup.id] = cancelled(self._broker, stepup, self._reason)
        for stepup in self._broker.stepups.end_repeats(self._repeating()):
            self._repeats[stepup.id] = stepup

    def drafts(self, operator: Actor) -> list[Draft]:
        """Return the events of the step-ups."""
        return [cancelled_draft(one, operator) for one in self._ended.values()]

    @property
    def changes(self) -> list[StepUp]:
        """The rows of all that ended."""
        return [*self._repeats.values(), *self._ended.values()]


def unused(broker: Broker, agent_id: AgentId | None = None) -> list[StepUp]:
    """Return approved step-ups whose token lives: a revocation ends the approval too.

    Those whose use is being recorded are left out.
    """
    return [
        stepup
        for stepup in broker.stepups.approved(agent_id)
        if broker.registry.elevated(stepup.id)
    ]


async def revoke_token(
    broker: Broker, token_id: str, reason: str, operator: Actor
) -> tuple[int, CallsCut, Kept]:
    """Revoke one live token, with the calls it authorized and tokens exchanged for it.

    Args:
        broker: the broker.
        token_id: identifies the token.
        reason: for the record.
        operator: who decided.

    Returns:
        the number of tokens that ended, the cancelled calls, and where it is durable.

    Raises:
        NotFoundError: no live token has this id.
        LedgerUnwritableError: it is not known here, and the store did not answer.
    """

    def find() -> Token:
        token = broker.registry.token_with_id(TokenId(token_id))
        if token is None:
            raise NotFoundError(
                f"there is no live token '{visible(token_id, 60)}'",
                "`agentvault tokens list` names them",
            )
        return token

    ended, calls = broker.end_tokens([await broker.look_up(find)])
    return len(ended), calls, await broker.record_ended(ended, operator, reason)
