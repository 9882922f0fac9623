"""Which alerts an event represents, and which of them a route takes."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.model import Event, EventType, Outcome
from agentvault_tui.model.claims import PASSKEY_COPIED
from agentvault_tui.model.event import loosens
from agentvault_tui.model.ids import requester_of
from agentvault_tui.policy.limits import RULE as LIMIT_RULE
from agentvault_tui.policy.resources import reads_like
from agentvault_tui.watch.config import (
    DENIAL_BURST,
    LEDGER_FAULT,
    LIMIT_REACHED,
    LOOSENED,
    NEEDS_PERSON,
    TENANT_FAULT,
    AlertRoute,
)
from agentvault_tui.watch.messages import agent_name, risks_of

_BURST: Final = 20
BURST_SPAN: Final = timedelta(seconds=60)
_BURST_PAUSE: Final = timedelta(minutes=10)
_TENANT: Final = frozenset(
    {EventType.TENANT_AWAY, EventType.TENANT_BACK, EventType.TENANT_LOG_GAP}
)


class Signals:
    """Follows one sink's events in the order of the chain."""

    def __init__(self, broker: Broker, previous: dict[str, str]) -> None:
        """Begin where another one stopped.

        *previous* has the ends of pauses between equal messages; it is stored with the
        sink's place.
        """
        self._broker = broker
        self.muted_until = previous
        self._denied: dict[str, deque[datetime]] = defaultdict(
            lambda: deque(maxlen=_BURST)
        )

    def warm(self, denied: Iterable[Event]) -> None:
        """Count refusals that were followed before, oldest first."""
        for event in denied:
            self._counts(event)

    def of(self, event: Event) -> Iterator[str]:
        """Yield the kinds of messages for *event*, the plainest last."""
        if event.outcome is Outcome.ESCALATED and "stepup_id" in event.detail:
            return  # its step-up's own event stands for it, and for its repeats
        if event.type is EventType.STEPUP_REQUESTED:
            yield NEEDS_PERSON
        if self._counts(event) and self._first(
            f"{DENIAL_BURST} {event.agent_id}", event.time, _BURST_PAUSE
        ):
            yield DENIAL_BURST
        if (event.rule or "").startswith(LIMIT_RULE) and self._is_new_limit(event):
            yield LIMIT_REACHED
        if event.type is EventType.AUDIT_AMBIGUOUS:
            yield LEDGER_FAULT
        if event.type in _TENANT or _tells_of_copy(event):
            yield TENANT_FAULT
        if loosens(event):
            yield LOOSENED
        if event.type is EventType.STEPUP_REQUESTED:
            yield _asked_by(event)
        yield event.type.value

    def _counts(self, event: Event) -> bool:
        """Count a refusal; return whether it is one of many in a short time."""
        if event.outcome is not Outcome.DENIED or event.agent_id is None:
            return False
        facts = event.detail.get("facts") or {}
        above = tuple(one for one, _ in facts.get("above", ()))
        times = self._denied[requester_of(event.agent_id, above)]
        times.append(event.time)
        return len(times) == _BURST and times[-1] - times[0] <= BURST_SPAN

    def _is_new_limit(self, event: Event) -> bool:
        """Check whether this limit was not reached yet in its window, by its key."""
        rule = event.rule or ""
        limit = self._broker.deciding.policy.limits.by_id.get(
            rule.removeprefix(LIMIT_RULE)
        )
        if limit is None:
            return False  # of a file that is in force no more
        fold = reads_like(event.resource) if event.resource else None
        window = limit.windows([event.agent_id or ""], fold)[0]
        return self._first(f"{rule} {window[3]}", event.time, limit.within)

    def _first(self, key: str, now: datetime, pause: timedelta) -> bool:
        """Check whether *key* was not sent within its pause; note that it is now."""
        until = self.muted_until.get(key)
        if until is not None and now < parse_iso(until):
            return False
        stamp = iso(now)
        for old in [k for k, v in self.muted_until.items() if v <= stamp]:
            del self.muted_until[old]
        self.muted_until[key] = iso(now + pause)
        return True

    def takes(self, route: AlertRoute, event: Event) -> bool:
        """Check whether *route* is about the event's agent and risk."""
        if route.risks and risks_of(self._broker, event).isdisjoint(route.risks):
            return False
        names = {event.agent_id, agent_name(self._broker, event)}
        return not route.agents or not names.isdisjoint(route.agents)


def _asked_by(event: Event) -> str:
    """Return the type of the decision that a step-up's event represents."""
    if event.detail.get("evaluation"):
        return EventType.ACCESS_DECISION.value
    held = "request" in event.detail
    return (EventType.GATEWAY_HELD if held else EventType.TOKEN_DECISION).value


def _tells_of_copy(event: Event) -> bool:
    """Check whether the tenant's log says that a passkey may have been copied."""
    details = event.detail.get("details")
    copied = isinstance(details, dict) and details.get("error") == PASSKEY_COPIED
    return event.type is EventType.TENANT_LOG and copied
