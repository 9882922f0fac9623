"""Everything that a verdict is made from, and how the ledger records it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from agentvault_tui.clock import parse_iso
from agentvault_tui.model import Action, Agent, other_details
from agentvault_tui.policy.facts import PARAMETERS, Facts, derive, read_fact

REPORTED: Final = frozenset({"source", "country"})
"""The facts about a request's origin that a rule may read; either may be unknown."""
READABLE: Final = PARAMETERS | REPORTED
"""The facts that a rule may read and a request may lack."""
ENVIRONMENT: Final = REPORTED | {
    *("now", "weekday", "hour", "minute", "delegated", "depth", "limits")
}
"""The facts of a rule's context that are not in the request."""

LACKS_SCOPE: Final = "token_lacks_scope"
"""In ``detail.facts`` of a call whose standard token lacks the scope of its action: it
is refused if policy would issue such a token."""
NARROWED: Final = "token_narrowed"
"""The same of a token that was asked for less than its agent could have: it is refused
where no person decides."""


class Principal(NamedTuple):
    """The facts about the agent that a rule may read; hashable."""

    id: str
    name: str
    owner: str
    scopes: tuple[str, ...]
    age_days: int
    """Whole days since it was registered."""


class Environment(NamedTuple):
    """When and where a request came in (XACML 3.0 section 2.8: environment)."""

    now: datetime
    """To the millisecond, as Cedar reads it."""
    weekday: int
    """1 Monday to 7 Sunday; like hour and minute in the policy's time zone."""
    hour: int
    minute: int
    source: str | None = None
    """The caller's IP address, if it is known."""
    country: str | None = None
    """ISO 3166-1 code of the source, if it is known."""
    delegated: bool = False
    """Whether the agent acts on a token that another passed on (RFC 8693)."""
    depth: int = 0
    """How often the token was passed on."""
    limits: Mapping[str, tuple[int, int]] = MappingProxyType({})
    """The use and the rest of each limit's windows, by the limit's name in Cedar; only
    of limits that the request could depend on."""

    @classmethod
    def at(cls, now: datetime, zone: timezone | Any, **more: Any) -> Environment:
        """Return the environment at *now*, as clocks in *zone* show it."""
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        local = now.astimezone(zone)
        return cls(now, local.isoweekday(), local.hour, local.minute, **more)

    def context(self) -> dict[str, Any]:
        """Return the attributes there are, by the names a rule uses."""
        context: dict[str, Any] = {
            "now": self.written(),
            "weekday": self.weekday,
            "hour": self.hour,
            "minute": self.minute,
            "delegated": self.delegated,
            "depth": self.depth,
        }
        if self.source is not None:
            context["source"] = self.source
        if self.country is not None:
            context["country"] = self.country
        if self.limits:
            context["limits"] = {
                name: {"count": count, "left": left}
                for name, (count, left) in self.limits.items()
            }
        return context

    def written(self) -> str:
        """Return `now` as Cedar and the ledger write it (RFC 3339)."""
        return f"{self.now.isoformat('T', 'milliseconds')[:23]}Z"


class Inputs(NamedTuple):
    """Everything that one verdict is made from."""

    who: Principal
    requested: tuple[str, ...]
    """The scopes, the one that the action is performed under first."""
    named: bool
    """Whether the request said which scope that is."""
    facts: Facts
    environment: Environment
    unread: bool = False
    """Whether it carries ``authorization_details`` that no rule can read."""
    backchannel: bool = False
    """Whether the agent itself asks for a person (CIBA Core 7)."""
    exempt: bool = False
    """Whether no limit stops it: its token was counted when it was given out."""
    above: tuple[tuple[str, str], ...] = ()
    """Ids and names of the agents that passed its token on, in order."""

    @classmethod
    def of(
        cls,
        agent: Agent,
        action: Action,
        environment: Environment,
        details: tuple[Mapping[str, object], ...] | None = None,
        *,
        backchannel: bool = False,
        exempt: bool = False,
        same_as: tuple[str, ...] = (),
        above: tuple[tuple[str, str], ...] = (),
    ) -> Inputs:
        """Collect the inputs of a request.

        Args:
            agent: who asks.
            action: the action.
            environment: when, and from where.
            details: ``authorization_details`` (RFC 9396), if any were sent.
            backchannel: whether the agent itself asks for a person.
            exempt: whether no limit stops it.
            same_as: suffixes that the resource's service ignores.
            above: see `above`.
        """
        age = max(0, (environment.now - agent.created_at).days)
        return cls(
            Principal(agent.id, agent.name, agent.owner, agent.scopes, age),
            tuple(dict.fromkeys((action.action, *action.scopes))),
            action.named,
            derive(action)._replace(same_as=same_as),
            environment,
            bool(details and other_details(details)),
            backchannel,
            exempt,
            above,
        )

    def value(self, name: str) -> Any:
        """Return the value that rules call *name*; None if it is not clearly known."""
        if name in PARAMETERS:
            return self.facts.value(name)
        if name.startswith("limits"):
            _, _, path = name.partition(".")
            limit, _, member = path.partition(".")
            held = self.environment.limits
            if not limit:
                return tuple(sorted(held.items()))
            return held[limit][member == "left"] if limit in held else None
        return getattr(self.environment, name)

    def record(self) -> dict[str, Any]:
        """Return the inputs as the ledger keeps them: ``detail.facts`` of a decision.

        The agent's id is in the event. Unknown facts are left out.
        """
        who = self.who
        record = {
            "principal": {
                "name": who.name,
                "owner": who.owner,
                "scopes": who.scopes,
                "age_days": who.age_days,
            },
            "scopes": self.requested,
            "named": self.named,
            **self.facts.context(),
            **self.environment.context(),
        }
        if self.unread or self.backchannel or self.exempt:
            record |= {name: True for name in _MARKS if getattr(self, name)}
        if self.facts.same_as:
            record["same_as"] = self.facts.same_as
        if self.above:
            record["above"] = self.above
        return record

    @classmethod
    def read(cls, agent_id: str, facts: Mapping[str, Any]) -> Inputs:
        """Return the inputs that `record` wrote.

        Args:
            agent_id: of the event.
            facts: its ``detail.facts``.

        Raises:
            KeyError: they are no such record.
            ValueError: likewise.
            TypeError: likewise.
        """
        who = facts["principal"]
        given = {name: read_fact(name, facts.get(name)) for name in PARAMETERS}
        given["things"], given["unclear"] = given.pop("count"), tuple(facts["unclear"])
        given["same_as"] = tuple(facts.get("same_as", ()))
        parts = {name: facts[name] for name in Environment._fields if name in facts}
        parts["now"] = parse_iso(facts["now"])
        parts["limits"] = {
            name: (held["count"], held["left"])
            for name, held in facts.get("limits", {}).items()
        }
        return cls(
            Principal(id=agent_id, **{**who, "scopes": tuple(who["scopes"])}),
            tuple(facts["scopes"]),
            facts["named"],
            Facts(**given),
            Environment(**parts),
            **{name: bool(facts.get(name)) for name in _MARKS},
            above=tuple((one, name) for one, name in facts.get("above", ())),
        )


_MARKS: Final = ("unread", "backchannel", "exempt")
