"""The content of an alert: displayable facts, an agent's words made inert.

A message is plain text. Names, resources and parameters in it cannot form a link,
mention or markup at any destination: this module breaks them up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from agentvault_tui.amounts import render_amount, shown_parameters
from agentvault_tui.broker.approval_pages import approval_page
from agentvault_tui.broker.core import Broker
from agentvault_tui.clock import iso
from agentvault_tui.disclosure import public_reason
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import NotFoundError
from agentvault_tui.headline import headline, wish
from agentvault_tui.lures import mask_lures
from agentvault_tui.model import Event, EventType, Money, Risk, StepUp, fingerprint
from agentvault_tui.model.event import loosens
from agentvault_tui.presenters.outcomes import event_phrase, reason_words
from agentvault_tui.text import Shown, clip, visible
from agentvault_tui.watch.config import (
    DENIAL_BURST,
    LEDGER_FAULT,
    LIMIT_REACHED,
    LOOSENED,
    NEEDS_PERSON,
    TENANT_FAULT,
)

_TITLES: Final = {
    NEEDS_PERSON: "A person has to decide",
    DENIAL_BURST: "An agent is denied again and again",
    LEDGER_FAULT: "The ledger has a fault",
    LIMIT_REACHED: "A limit is reached",
    LOOSENED: "More is allowed than before",
    TENANT_FAULT: "The tenant has a fault",
}
_GRAVE: Final = frozenset({LEDGER_FAULT, LOOSENED, EventType.PANIC_ON.value})
"""Sent immediately, like high-risk alerts, although no scope is involved."""
_CALLS: Final = frozenset(
    {EventType.STEPUP_REQUESTED, EventType.PANIC_ON, EventType.AUDIT_AMBIGUOUS}
)
"""Types of events that call people, whatever the risk."""
_LONG: Final = 200
_LISTED: Final = 20
"""Alerts that a digest names; the others are counted."""
_LINKS: Final = re.compile(r"(?<=[^\W\d_])([.·。])(?=\w)|(?<=\w)([.·。])(?=[^\W\d_])")
"""Dots in a name, which mail and chat clients turn into links; not those of numbers."""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One alert, or a digest of several, as it leaves."""

    id: str
    """The same at each try: receivers recognize repeats by it."""
    kind: str
    """A type of event, a signal, ``digest`` or ``test``."""
    at: datetime
    title: str
    facts: tuple[tuple[str, str], ...]
    """Labels, and inert text."""
    high: bool
    command: str
    page: str | None = None
    data: dict[str, object] = field(default_factory=dict)
    """`facts` for programs; an agent's words are displayable, and not truncated."""

    @property
    def subject(self) -> str:
        """Return a title for a mail header, without text that an agent chose."""
        return _TITLES.get(self.kind, self.title)

    @property
    def text(self) -> str:
        """Return it as lines of plain text."""
        lines = [self.title, *(f"{label}: {text}" for label, text in self.facts)]
        lines += [self.command, *([self.page] if self.page else [])]
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """Return it in one line, for a digest."""
        texts = [text for _, text in self.facts]
        return " · ".join((self.title, *texts, self.command))


def inert(raw: object, limit: int = _LONG) -> str:
    """Return an agent's text in a form that no sink interprets.

    It is displayable, on one line of *limit* cells, and addresses are broken up.
    """
    text = visible(raw, limit)
    text = Shown(text.replace("://", ":[//]").replace("@", "(at)"))
    text = Shown(text.replace(" · ", " - "))  # as facts are joined in a digest
    return _LINKS.sub(lambda match: f"[{match[0]}]", text)


def message_id(broker: Broker, sink: str, *parts: object) -> str:
    """Return an id that is the same for the same message to the same sink."""
    seed = "\0".join(map(str, (broker.ledger.ledger_id, sink, *parts)))
    return f"msg_{hashlib.sha256(seed.encode()).hexdigest()[:24]}"


def risks_of(broker: Broker, event: Event) -> set[Risk]:
    """Return the risks of an event's scopes; an unknown scope counts as high.

    Where an event states a risk, that is the highest.
    """
    detail, stated = event.detail, event.detail.get("risk")
    highest = Risk(stated) if stated in list(Risk) else None
    named = [detail.get("scope"), detail.get("asked_scope")]
    if highest is None and not named[0]:
        named.append(event.action)
    scopes = " ".join(str(one) for one in named if one).split()
    entries = map(broker.deciding.policy.catalogue.get, scopes)
    risks = {scope.risk if scope else Risk.HIGH for scope in entries}
    if highest is None:
        return risks
    return {highest, *(risk for risk in risks if risk.rank < highest.rank)}


def risk_of(broker: Broker, event: Event) -> Risk | None:
    """Return the highest of `risks_of`; None where an event names no scope."""
    risks = risks_of(broker, event)
    return max(risks, key=lambda risk: risk.rank, default=None)


def is_high(broker: Broker, kind: str, event: Event | None) -> bool:
    """Check whether an alert is sent immediately, despite digests and quiet hours."""
    if kind in _GRAVE or event is None or event.type.value in _GRAVE:
        return True
    return risk_of(broker, event) is Risk.HIGH


def asks_for_person(event: Event) -> bool:
    """Check whether an event asks for a person's decision."""
    return event.type is EventType.STEPUP_REQUESTED


def calls_people(broker: Broker, event: Event, *, risk: bool = True) -> bool:
    """Check whether the alert of an event waits for no other alert.

    Args:
        broker: the broker.
        event: the event.
        risk: whether high risk is reason enough. It depends on the active catalogue;
            everything else depends on the event alone.
    """
    if event.type in _CALLS or loosens(event):
        return True
    return risk and risk_of(broker, event) is Risk.HIGH


def agent_name(broker: Broker, event: Event) -> str:
    """Return the name of the agent that an event is about."""
    if event.actor.id == event.agent_id:
        return event.actor.name
    try:
        return broker.registry.agent(event.agent_id).name if event.agent_id else ""
    except NotFoundError:
        return ""


def compose(
    broker: Broker, sink: str, kind: str, event: Event, *, details: bool
) -> AlertMessage:
    """Return the message of one event, as *kind*: the event's type, or a signal.

    With *details*, parameters and the agent's own words are included.
    """
    stepup = broker.stepups.find(event.detail.get("stepup_id"))
    risk = risk_of(broker, event)
    facts = [
        ("Agent", _named(event, agent_name(broker, event))),
        ("Action", inert(event.action) if event.action else ""),
        ("Resource", inert(event.resource) if event.resource else ""),
        ("Risk", risk.value if risk else ""),
        ("Answer", event.outcome.value if event.outcome else ""),
        ("Reason", inert(reason_words(_reason(event) or ""))),
        ("Rule", inert(event.rule or "")),
        *_decided(stepup),
        *(_words(event) if details else ()),
    ]
    page = approval_page(broker, stepup) if stepup and stepup.status.open else None
    command = _command(kind, event, stepup)
    return AlertMessage(
        id=message_id(broker, sink, kind, event.seq),
        kind=kind,
        at=event.time,
        title=_title(kind, stepup, details=details),
        facts=tuple((label, text) for label, text in facts if text),
        high=is_high(broker, kind, event),
        command=command,
        page=page,
        data=_data(broker, event, stepup, details=details)
        | {"command": command, "page": page},
    )


def _title(kind: str, stepup: StepUp | None, *, details: bool) -> str:
    """Return the headline, as every face words it; parameters only in *details*."""
    if stepup is None or kind != NEEDS_PERSON:
        return _TITLES.get(kind) or event_phrase(kind)
    change = stepup.why if stepup.change is not None else None
    wanted = wish(
        *(stepup.action, stepup.resource),
        stepup.parameters if details else {},
        stepup.money,
        connection=stepup.connection,
        change=change if details else change and "something that needs an approver",
    )
    return inert(headline(stepup.agent_name, wanted))


def _named(event: Event, name: str) -> str:
    return f"{inert(name, 100)} ({event.agent_id})" if event.agent_id else ""


def _decided(stepup: StepUp | None) -> list[tuple[str, str]]:
    """Return the distinguishing facts of a step-up."""
    if stepup is None:
        return []
    ends = iso(stepup.expires.wall)
    return [("Fingerprint", fingerprint(stepup.digest)), ("Ends", ends)]


def _reason(event: Event) -> str | None:
    """Return the reason, unless it may be an agent's words; see `_agent_says`."""
    return public_reason(
        {
            "type": event.type.value,
            "actor": {"kind": event.actor.kind.value},
            "reason": event.reason,
        }
    )


def _words(event: Event) -> list[tuple[str, str]]:
    """Return the parameters, and the agent's own words with lures masked.

    Parameter names are the agent's text: they are shown as values, never as labels.
    """
    parameters, money = _parameters(event)
    lines = []
    for name, value in shown_parameters(parameters, money).items():
        text = inert(value if isinstance(value, str) else to_json(value))
        lines.append(("Parameter", f"{inert(name, 60)} = {text}"))
    if text := _agent_says(event):
        lines.append(("Agent says", inert(mask_lures(visible(text)).text)))
    return lines


def _parameters(event: Event) -> tuple[dict[str, Any], Money | None]:
    """Return the parameters of the action, and how its amount is written."""
    stated = event.detail.get("parameters")
    given = stated if isinstance(stated, dict) else {}
    return given, Money.read(event.detail.get("money"))


def _agent_says(event: Event) -> str:
    words = event.detail.get("agent_says")
    return str(words or (event.reason if _reason(event) is None else "") or "")


def _command(kind: str, event: Event, stepup: StepUp | None) -> str:
    if stepup is not None:
        return f"agentvault stepup show {stepup.id}"
    if kind in {LEDGER_FAULT, TENANT_FAULT}:
        return "agentvault doctor"
    if kind == DENIAL_BURST:
        return f"agentvault audit search --agent {event.agent_id} --outcome denied"
    return f"agentvault audit show {event.seq}"


def _data(
    broker: Broker, event: Event, stepup: StepUp | None, *, details: bool
) -> dict[str, object]:
    """Return the message for programs."""

    def shown(value: object) -> str | None:
        return visible(value, 4_000) if value else None

    risk = risk_of(broker, event)
    data: dict[str, object] = {
        "seq": event.seq,
        "hash": event.hash,
        "event": event.type.value,
        "agent": event.agent_id
        and {"id": event.agent_id, "name": shown(agent_name(broker, event))},
        "action": shown(event.action),
        "resource": shown(event.resource),
        "risk": risk and risk.value,
        "outcome": event.outcome and event.outcome.value,
        "reason": shown(_reason(event)),
        "rule": shown(event.rule),
        "stepup_id": stepup and stepup.id,
        "fingerprint": stepup and fingerprint(stepup.digest),
        "digest": stepup and stepup.digest,
        "expires_at": stepup and iso(stepup.expires.wall),
    }
    if details:
        data["parameters"] = event.detail.get("parameters")
        data["amount"] = shown(render_amount(*_parameters(event)))
        data["agent_says"] = shown(_agent_says(event))
    return data


def gathered(
    broker: Broker,
    sink: str,
    messages: Sequence[AlertMessage],
    *,
    count: int,
    since: datetime,
    first: int,
) -> AlertMessage:
    """Return one message in place of *count*, of which *messages* are listed.

    *since* is when the first of them was held back, and *first* is its event.
    """
    listed = messages[:_LISTED]
    more = count - len(listed)
    lines = [(str(n), clip(m.line, 400)) for n, m in enumerate(listed, start=1)]
    return AlertMessage(
        id=message_id(broker, sink, "digest", first, count),
        kind="digest",
        at=broker.clock.now(),
        title=f"{count} alerts since {iso(since)}",
        facts=(*lines, *([("And", f"{more} more")] if more else [])),
        high=False,
        command=f"agentvault audit tail --after {first - 1}",
        data={
            "count": count,
            "since": iso(since),
            "alerts": [{"type": m.kind, **m.data} for m in messages],
        },
    )


def fault_message(broker: Broker, sink: str, text: str) -> AlertMessage:
    """Return the message of a fault that the ledger cannot record."""
    now = broker.clock.now()
    return AlertMessage(
        id=message_id(broker, sink, LEDGER_FAULT, iso(now)),
        kind=LEDGER_FAULT,
        at=now,
        title=_TITLES[LEDGER_FAULT],
        facts=(("Fault", inert(text, 400)),),
        high=True,
        command="agentvault doctor",
        data={"reason": visible(text, 400), "command": "agentvault doctor"},
    )


def trial_message(broker: Broker, sink: str) -> AlertMessage:
    """Return the message of `alerts test`."""
    now = broker.clock.now()
    return AlertMessage(
        id=message_id(broker, sink, "test", iso(now)),
        kind="test",
        at=now,
        title="Test alert from AgentVault",
        facts=(("Destination", sink),),
        high=False,
        command="agentvault alerts list",
        data={"sink": sink},
    )
