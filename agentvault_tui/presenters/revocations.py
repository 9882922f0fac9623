"""Words a revocation at tenant and providers, for console, plain mode and CLI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct

from agentvault_tui.operator_api.ending import (
    Ended,
    RevokeAnswer,
    ScopesAnswer,
    TokenRevokeAnswer,
)
from agentvault_tui.operator_api.shapes import AgentRef
from agentvault_tui.presenters.moments import clock_time, countdown, plural
from agentvault_tui.presenters.records import (
    AgentRow,
    ScopeRow,
    StepUpRow,
    UpstreamStep,
)
from agentvault_tui.text import Shown, visible

_PROVIDERS: Final = 3
"""Of an agent, named one by one."""
_OVER: Final = {
    "confirmed": ("confirmed", " "),
    "failed": ("given up", " after "),
}
"""The end of a step, and the word before its time."""


def outside(agent: AgentRow, now: datetime) -> float:
    """Return for how many seconds a token that left already can still be used."""
    until = agent.outside_until
    return max((until - now).total_seconds(), 0.0) if until else 0.0


def headline(agent: AgentRow) -> str:
    """Say in few words how far they are; nothing where nothing is held."""
    steps = [s for s in agent.upstream if s.status not in {"withdrawn", "left"}]
    for step in steps:
        if step.status == "failed" and step.reason != "no_credential":
            return f"{'' if step.connection else 'tenant: '}{step.ends} given up"
    at_tenant = [step for step in steps if not step.connection]
    done = [step for step in at_tenant if step.status == "confirmed"]
    if len(done) < len(at_tenant):
        lacking = any(step.reason == "no_credential" for step in at_tenant)
        why = ", no credential" if lacking else ""
        return f"tenant {len(done)} of {len(at_tenant)}{why}"
    for step in steps:
        if step.status == "pending":
            return f"{step.ends} pending"
    if not done:
        return ""
    return f"tenant confirmed {took(max(step.ms or 0.0 for step in done))}"


NOTHING_WORKS: Final = "nothing: all its tokens end here"


class Consequences(NamedTuple):
    """The effects of a revocation, each once."""

    ends: list[str]
    stays: list[str]
    works_until: list[str]

    @property
    def lasts(self) -> bool:
        """Whether anything works on."""
        return self.works_until != [NOTHING_WORKS]


def consequences(
    agent: AgentRow,
    grants: Iterable[ScopeRow],
    here: str,
    now: datetime,
    *,
    separated: bool = False,
) -> Consequences:
    """Word a revocation's effect, the rest, and how long tokens outside still work.

    Args:
        agent: whom it would cut off, or did.
        grants: its scopes, as the catalogue describes them.
        here: the part that ends here.
        now: for how long a token that was handed out still works.
        separated: whether the broker cannot notify the others of its team.
    """
    effects = Consequences([f"{here}, at once", "all it asks for from then on"], [], [])
    if agent.at_tenant:
        effects.ends.append(f"at the tenant: {', '.join(agent.at_tenant)}")
    elif not agent.connections:
        effects.ends.append("nothing at the tenant: it has nothing there")
    _accounts(agent, effects)
    if agent.shared_with and not effects.stays:
        effects.stays.append(f"what it shares with {_names(agent.shared_with)}")
    if (left := outside(agent, now)) and agent.outside_until:
        end = f"{clock_time(agent.outside_until)}, in {countdown(left)}"
        effects.works_until.append(f"{end}: a provider's token that it was given")
    if separated:
        effects.works_until.append(
            "the team's other brokers are notified: this one cannot reach the store"
        )
    if not effects.works_until:
        effects.works_until.append(NOTHING_WORKS)
    for scope in grants:
        text = scope.revoking or "the catalogue says nothing"
        effects.stays.append(f"{scope.name}: {text}")
    return effects


def _accounts(agent: AgentRow, effects: Consequences) -> None:
    """Say of each account at a provider whether it ends, stays or works on."""
    for one in agent.connections:
        there = one.at_provider
        if others := (*one.shared_with, *(there.kept_for if there else ())):
            effects.stays.append(_shared(one.connection, others))
        elif there is None:  # a broker of an earlier version does not say
            effects.ends.append(f"{one.connection}: its account")
        elif there.known:
            too = f", perhaps for {_names(there.may_cut)} too" if there.may_cut else ""
            effects.ends.append(f"{one.connection}: its token at the provider{too}")
        else:
            effects.works_until.append(
                f"its own end: a {one.connection} token; no revoking there"
            )


def forecast(effects: Consequences) -> list[str]:
    """Word the effect of revoking an agent as sentences."""
    ends, stays_, until = map("; ".join, effects)
    left = f"It leaves {stays_ or 'nothing'}."
    works = f"Works until {until}."
    if until == NOTHING_WORKS:
        works = f"Still working: {until}."
    return [f"Revoking ends {ends}.", left, works]


def _shared(connection: str, agents: Iterable[AgentRef[Shown, datetime]]) -> str:
    use = "uses" if len({one.name for one in agents}) == 1 else "use"
    return f"{connection}, which {_names(agents)} {use} too"


def _names(agents: Iterable[AgentRef[Shown, datetime]]) -> str:
    return ", ".join(dict.fromkeys(one.name for one in agents))


def stays(agent: AgentRow) -> list[str]:
    """Say which accounts others use as well, who are served; of many, some."""
    shared = [one for one in agent.connections if one.shared_with]
    texts = [_shared(one.connection, one.shared_with) for one in shared[:_PROVIDERS]]
    more = len(shared) - _PROVIDERS
    return [*texts, f"and {more} more"] if more > 0 else texts


def state(step: UpstreamStep, *, brief: bool = False) -> str:
    """Word the state of one step; *brief*, if there is no room for more."""
    if step.reason == "no_credential":
        return "no credential"
    if step.status == "left":  # the account: others use it
        return "left" if brief else "left in place"
    if step.status in _OVER:
        word, between = _OVER[step.status]
        if step.ms is None or (brief and step.status == "failed"):
            return word
        return took(step.ms) if brief else f"{word}{between}{took(step.ms)}"
    if not step.attempts:
        return "pending"
    again = f" at {clock_time(step.next_at)}" if step.next_at and not brief else ""
    return f"retry {step.attempts}{again}"


def took(ms: float) -> str:
    """Write a duration: milliseconds below a second, then seconds, then a clock's."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else countdown(ms / 1000)


def elsewhere(
    agent: AgentRow, now: datetime, *, everywhere: bool = True
) -> Iterator[str]:
    """Word the progress of a revocation at the tenant and providers."""
    yield from [*steps(agent.upstream)] or ["  At the tenant: it had nothing there."]
    yield from remains(agent, now, everywhere=everywhere)


def remains(
    agent: AgentRow, now: datetime, *, everywhere: bool = True
) -> Iterator[str]:
    """Word the accounts that stay, and how long tokens outside still work.

    Where not every broker of a team knows of it (*everywhere*), `unnotified` tells.
    """
    for text in stays(agent):
        yield f"  Stays: {text}."
    works = "Still works: nothing; all its tokens have ended"
    if (seconds := outside(agent, now)) and agent.outside_until:
        end = f"{clock_time(agent.outside_until)}, in {countdown(seconds)}"
        works = f"Works until {end}: the last token handed out before"
    elif not everywhere:
        return
    yield f"  {works}."


def steps(upstream: Iterable[UpstreamStep]) -> Iterator[str]:
    """Word each step at tenant and providers as it is."""
    for step in upstream:
        if step.status != "withdrawn":
            place = "provider" if step.connection else "tenant"
            problem = step.status != "confirmed" and step.problem
            why = f": {step.problem}" if problem else ""
            yield f"  At the {place}: {step.ends} {state(step)}{why}."


_NOT_IN_LEDGER: Final = {
    "journal": "the cut journal keeps it, also over a restart.",
    "stop": "if the broker restarts before it is, everything is stopped.",
}
_IN_MEMORY: Final = "a broker that restarts before it is serves again."


def ended(answer: RevokeAnswer) -> str:
    """Count the rights that a revocation ended, in words."""
    tokens = plural(answer.tokens_revoked, "token")
    text = f"{tokens}, {plural(answer.stepups_cancelled, 'step-up')}"
    if answer.agent and answer.delegated_revoked:
        text += f", {plural(answer.delegated_revoked, 'delegated token')}"
    if answer.derived_revoked:
        text += f", {plural(answer.derived_revoked, 'agent')} made from it"
    calls = cancelled(answer)
    return f"{text}, {calls}" if calls else text


def cancelled(answer: RevokeAnswer | ScopesAnswer | TokenRevokeAnswer) -> str:
    """Count the cancelled calls, and those that the service had received whole."""
    if not answer.calls_cut:
        return ""
    sent = f" ({answer.calls_sent} may have taken effect)" if answer.calls_sent else ""
    return f"{plural(answer.calls_cut, 'call')}{sent}"


class Revoked(Struct, frozen=True):
    """The result of a revocation, or of the panic switch."""

    answer: RevokeAnswer
    round_trip_ms: float
    """Measured here: from the key to the broker's word."""
    upstream: tuple[UpstreamStep, ...]
    """The answer's, displayable."""

    @property
    def ended(self) -> str:
        """Count the ended rights, in words."""
        return ended(self.answer)

    @property
    def everywhere(self) -> bool:
        """Whether each broker of the team knows of it."""
        return not unnotified(self.answer)

    @property
    def here(self) -> str:
        """The time from the request to nothing being honoured, by the broker."""
        return f"{self.answer.effective_ms:.1f} ms"


class DeniedRow(NamedTuple):
    """A request that was turned down."""

    row: StepUpRow
    cautions: tuple[str, ...]
    """See `unrecorded`."""


def caution(answer: object) -> tuple[str, ...]:
    """Warn of a revocation that is not recorded, or not known to each broker, yet."""
    if not isinstance(answer, Revoked):
        return ()
    return unrecorded(answer.answer)


def unrecorded(answer: Ended) -> tuple[str, ...]:
    """Warn of an effect here that is not recorded or known elsewhere yet."""
    warnings = unnotified(answer)
    if answer.kept != "ledger":
        warning = _NOT_IN_LEDGER.get(answer.kept, _IN_MEMORY)
        why = "agentvault doctor says why."
        warnings += (f"In effect, but NOT in the ledger yet: {warning} {why}",)
    return warnings


def unnotified(answer: Ended) -> tuple[str, ...]:
    """Name the brokers of the team that have not been notified of a revocation."""
    late = [visible(one.id, 40) for one in answer.brokers or () if not one.confirmed]
    if answer.others:
        named = ", ".join(late) or "the other brokers of the team"
        text = f"NOT notified: {named}. It does not hold there until this broker "
        text += "reaches the store again; repeat it at one of those too."
    elif late:
        text = f"Not confirmed by {', '.join(late)}: its calls end within 2 s of its "
        text += "last sign of life, and it follows the store before it grants anything."
    else:
        return ()
    return (text,)
