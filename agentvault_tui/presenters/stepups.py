"""Words a step-up, for dialogs, plain mode and command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from agentvault_tui.operator_api.requests import RepeatRequest
from agentvault_tui.presenters.moments import countdown
from agentvault_tui.presenters.records import StepUpRow
from agentvault_tui.text import visible

_DAY: Final = 86_400
_GRANTED: Final = frozenset({"approved", "redeemed"})
_FORM: Final = "Write how many more, and within how many seconds: 5 600 amount=5000"
_SAME: Final = "exactly the same"


def ago(row: StepUpRow, now: datetime) -> str:
    """Write when it was decided: time of day, or days ago."""
    moment = row.decided_at or row.expires_at
    days = int(max((now - moment).total_seconds(), 0) // _DAY)
    return f"{days:,} d ago" if days else f"{moment:%H:%M:%S}Z"


def ended(row: StepUpRow) -> str:
    who = f" by {row.decided_name}" if row.deciders else ""
    used = f", {stages_of(row).used}" if row.status == "redeemed" else ""
    word = "approved" if row.status in _GRANTED else str(row.status)
    return f"{word}{who}{used}"


def differs(then: StepUpRow, stepup: StepUpRow) -> str:
    """Name the differences then, with the values of then."""
    if stepup.is_change and then.why != stepup.why:
        return str(then.why)
    old = dict((*then.members, *then.others))
    new = dict((*stepup.members, *stepup.others))
    differences = [f"{name} {old[name]}" for name in old if new.get(name) != old[name]]
    differences += [f"no {name}" for name in new if name not in old]
    if then.resource != stepup.resource:
        differences.append(
            f"on {then.resource}" if then.resource else "on nothing named"
        )
    if then.scope != stepup.scope:
        differences.append(f"scope {then.scope}")
    return ", ".join(differences) or _SAME


def tally(rows: Sequence[StepUpRow]) -> str:
    if not rows:
        return "the first of its kind"
    states = ["approved" if row.status in _GRANTED else row.state for row in rows]
    words = ", ".join(f"{states.count(word)} {word}" for word in sorted({*states}))
    many = f"last {len(rows)}" if len(rows) > 1 else "one"
    return f"{many} like it: {words}"


def sentences(
    rows: Iterable[StepUpRow], stepup: StepUpRow, now: datetime
) -> Iterable[str]:
    for row in rows:
        yield f"{ago(row, now)}, {ended(row)}: {differs(row, stepup)}"


_FACTS = (
    ("the agent", "agent_id"),
    ("its name", "agent_name"),
    ("the action", "action"),
    ("the scope", "scope"),
    ("the resource", "resource"),
    ("a parameter", "members"),
    ("another detail", "others"),
    ("the rule", "rule"),
    ("why it is asked", "why"),
    ("the risk", "risk"),
    ("how long it lasts", "ttl"),
    ("the connection", "connection"),
    ("the request", "request"),
    ("a text", "texts"),
    ("the fingerprint", "digest"),
)


def changes(opened: StepUpRow, now: StepUpRow) -> tuple[str, ...]:
    """Name the facts that changed; none of them ever may."""
    return tuple(
        words for words, name in _FACTS if getattr(opened, name) != getattr(now, name)
    )


def granted(row: StepUpRow, this: str = "exactly this, ") -> str:
    """Word the grant of an approval: a provider's token is more than one action."""
    if row.connection:
        return (
            f"a token of the account at {row.connection}, once: it may do all its "
            "owner allowed, and works there until the provider ends it"
        )
    if row.is_change:
        return "exactly this change, once, carried out at once"
    if row.request:
        return (
            f"these bytes, once, within {countdown(row.ttl)}; "
            "one changed byte asks again"
        )
    if row.unlimited:
        this = f"anything {row.scope} can do, "
    return f"{this}once, within {countdown(row.ttl)}"


def no_limits(row: StepUpRow) -> str:
    """Warn that nothing limits the token's use; empty where something does."""
    if not row.unlimited:
        return ""
    return (
        f"NOTHING LIMITS THIS: {visible(row.agent_name, 28)} may use {row.scope} for "
        f"anything, once, within {countdown(row.ttl)}."
    )


def subject(row: StepUpRow) -> str:
    """Name the request: the amount before the place, because its end is truncated."""
    if row.is_change:
        return f"change: {row.why}"
    if row.unlimited:
        return f"{row.action}, with no limits"
    much = f" {row.gist}" if row.gist else ""
    where = f" on {row.resource}" if row.resource else ""
    return f"{row.action}{much}{where}"


class Stages(NamedTuple):
    """The stages after an approval, and their failures."""

    ready: str
    unused: str
    used: str
    lapsed: tuple[str, str]
    nothing: str
    """The words for the missing stages without an approval."""


_TOKEN: Final = Stages(
    "token minted",
    "not redeemed yet",
    "redeemed",
    ("not redeemed", "token expired"),
    "Nothing was issued",
)
_CALL: Final = Stages(
    "call released",
    "not sent yet",
    "sent",
    ("not sent", "approval expired"),
    "Nothing was sent",
)
_EVALUATION: Final = Stages(
    "allowed once",
    "not done yet",
    "done",
    ("not done", "approval expired"),
    "Nothing was allowed",
)


_CHANGE: Final = Stages(
    "change applied",
    "not applied yet",
    "applied",
    ("not applied", "approval expired"),
    "Nothing was changed",
)


def stages_of(row: StepUpRow) -> Stages:
    """Word the result of an approval: a token, a call that goes out, or a yes."""
    if row.is_change:
        return _CHANGE
    if row.evaluation:
        return _EVALUATION
    return _CALL if row.request else _TOKEN


_CAUSES: Final = {
    "agent_revoked": "the agent was revoked",
    "panic": "the panic switch was pressed",
    "scope_not_granted": "the scope was taken away from the agent",
}


def summary(row: StepUpRow) -> str:
    """Summarise how it ended, for a list."""
    who = f" by {row.decided_name}" if row.deciders else ""
    match row.status:
        case "approved" | "redeemed" | "applied":
            return ended(row)
        case "denied":
            return f"denied{who}"
        case "expired":
            return "expired, nobody decided"
        case "cancelled":
            return f"cancelled: {cause(row)}"
    return str(row.status)


def cause(row: StepUpRow) -> str:
    return _CAUSES.get(row.problem, str(row.problem) or "the broker did not say why")


def answered(row: StepUpRow) -> str:
    """Name the words of a denial: an agent reads them, or who asked for a change."""
    return "The reason" if row.is_change else "Agent reads"


def handed_out(row: StepUpRow) -> str:
    """Word the state of the token after its use."""
    if row.connection:
        return (
            f"The agent has a token of the account at {row.connection}, which works "
            "until the provider ends it. Revoking the agent stops the next one at once."
        )
    if row.evaluation:
        return "It was allowed, once."
    if row.request:
        return "The call was sent, once; the audit has what came of it."
    return "The token is spent."


def takes_back(row: StepUpRow) -> str:
    """Word how an unused approval is taken back."""
    if row.connection:
        return (
            "The agent may fetch a token of the account. Revoke the agent before it "
            "does: then only the provider can end that token."
        )
    if row.evaluation:
        return "The agent may do exactly this, once. Revoke it to take that back."
    if row.request:
        return "The agent may send exactly this, once. Revoke it to take that back."
    return "The agent has a token for exactly this. Revoke the agent to take it back."


def read_repeat(text: str) -> RepeatRequest | str:
    """Read a typed repeat; return its fault, in our own words."""
    words = text.split()
    if len(words) < 2 or not all(map(_is_number, words[:2])):
        return _FORM
    count, within = map(int, words[:2])
    if not (1 <= count <= 20 and 1 <= within <= 3600):
        return "At most 20 more, and within 3,600 seconds."
    try:
        return RepeatRequest.of(count, within, words[2:])
    except ValueError as error:
        return str(error)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16


_FIRST: Final = ("amount", "currency", "recipients", "count")


def rank(parameter: tuple[str, object]) -> int:
    """Order parameters: those that rules limit come first."""
    name, _ = parameter
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)
