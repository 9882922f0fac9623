"""Limits of ``limits.toml``: how much may be done in a rolling window, and call-outs.

This module does not count: the count of a window comes with the inputs of a request, so
that the same inputs are answered alike at any time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, UnsetType

from agentvault_tui.amounts import bare_units, render_units
from agentvault_tui.clock import seconds_of
from agentvault_tui.errors import PolicyError, ServiceError
from agentvault_tui.model import Action, Outcome
from agentvault_tui.model.money import MOST_DIGITS
from agentvault_tui.policy.catalogue import Catalogue, action_groups
from agentvault_tui.policy.facts import CURRENCY, LARGEST, cedar_decimal
from agentvault_tui.policy.inputs import Inputs
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table

RULE: Final = "limit:"
"""Prefix of the rule of an answer that a limit gave."""
LIMIT_REACHED: Final = "limit_reached"
_MOST_LIMITS: Final = 100
_MOST_HOOKS: Final = 16
_CACHED: Final = 4096
"""The number of agents and scopes whose limits are cached."""
_LONGEST: Final = timedelta(days=366)
_ID: Final = re.compile("[a-z][a-z0-9-]{0,63}")
_URL: Final = re.compile(
    r"https://[^\s/@?#]+(/[^\s#]*)?"
    r"|http://(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]{1,5})?(/[^\s#]*)?|unix:/[^\s?#]+"
)

_Words = Annotated[list[str], Meta(min_length=1, max_length=500)]
_Number = Annotated[int, Meta(ge=1, le=LARGEST)]
_MAJOR: Final = re.compile(r"(?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,4})?")


class _LimitTable(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    scopes: _Words
    within: str
    agents: list[str] = []
    per: Literal["agent", "resource", "all"] = "agent"
    count: _Number | UnsetType = UNSET
    amount: _Number | UnsetType = UNSET
    amount_major: Any = UNSET
    """A number, or a text of digits with a point."""
    currency: str | UnsetType = UNSET
    over: Literal["step_up", "deny"] = "step_up"


def _is_url(url: str) -> bool:
    """Check whether a decision webhook may have *url*; its port is 1 to 65535."""
    try:
        port = urlsplit(url).port
    except ValueError:
        return False
    return _URL.fullmatch(url) is not None and port != 0


class HookTable(msgspec.Struct, forbid_unknown_fields=True):
    """One call-out, as ``[[hooks]]`` says it."""

    id: str
    url: str
    scopes: _Words
    budget_ms: Annotated[int, Meta(ge=1, le=10_000)] = 50
    """Milliseconds for the whole exchange."""
    secret: str = ""
    """Name of the sealed secret that requests are signed with; empty: unsigned."""


class _Tables(msgspec.Struct, forbid_unknown_fields=True):
    limits: Annotated[list[_LimitTable], Meta(max_length=_MOST_LIMITS)] = []
    hooks: Annotated[list[HookTable], Meta(max_length=_MOST_HOOKS)] = []


_AMOUNTS: Final = frozenset({"amount", "amount_major", "currency"})
_MAJOR_UNITS: Final = f"/{10**MOST_DIGITS}"


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of some scopes may be used in a rolling window."""

    id: str
    attribute: str
    """Its name in Cedar: ``context.limits.ATTRIBUTE``."""
    scopes: frozenset[str]
    agents: frozenset[str]
    """Names or ids; empty for every agent."""
    kind: tuple[str, str, str]
    """The id, `counted_in` and `per`: see `windows`."""
    per: str
    """``agent``, ``resource`` or ``all``: each has a separate window."""
    within: timedelta
    micros: int
    """The same in microseconds."""
    span: str
    """And as it was written: ``24h``."""
    most: int
    """The number of requests, or the sum of amounts, that the window may hold; amounts
    in major units are in ten-thousandths, as in Cedar."""
    currency: str | None
    """Of amounts; None where requests are counted."""
    in_major: bool
    """Whether amounts are counted in major units, and not in each service's own."""
    over: Outcome
    """The answer beyond it."""

    def agents_of(self, inputs: Inputs) -> tuple[str, ...]:
        """Return the agents for which a request counts, the holder first.

        The use of a passed-on token also counts for each agent above its holder.
        """
        if self.scopes.isdisjoint(inputs.requested):
            return ()
        if not self.agents and not inputs.above:
            return (inputs.who.id,)
        involved = ((inputs.who.id, inputs.who.name), *inputs.above)
        return tuple(one for one, name in involved if self._is_for(one, name))

    def _is_for(self, agent_id: str, name: str) -> bool:
        return not self.agents or agent_id in self.agents or name in self.agents

    def windows(
        self, agents: Sequence[str], fold: str | None
    ) -> tuple[tuple[str, str, str, str], ...]:
        """Return the windows that a use counts in.

        Args:
            agents: those for which the use counts.
            fold: of the resource; None counts as one more resource.

        Returns:
            `kind` and the key of each, each once.
        """
        if self.per == "agent" and len(agents) == 1:
            return ((*self.kind, agents[0]),)
        if self.per == "agent":
            return tuple((*self.kind, one) for one in dict.fromkeys(agents))
        return ((*self.kind, (fold or "") if self.per == "resource" else ""),)

    def windows_of(
        self, inputs: Inputs, fold: str | None
    ) -> tuple[tuple[str, str, str, str], ...]:
        """Return the windows that a request counts in or reads.

        Args:
            inputs: of the request.
            fold: of its resource: `Facts.fold`, which computes it at each access.

        Returns:
            as `windows`.
        """
        agents: tuple[str, ...] = ()
        if self.per == "agent":
            agents = self.agents_of(inputs) or (inputs.who.id,)
        return self.windows(agents, fold)

    def units(self, inputs: Inputs) -> int | None:
        """Return a request's use of this limit; None if it cannot be known."""
        if self.currency is None:
            return 1
        facts = inputs.facts
        if facts.currency != self.currency or not _AMOUNTS.isdisjoint(facts.unclear):
            return None
        if not self.in_major:
            return facts.amount
        major = facts.amount_major
        return None if major is None else int(major.scaleb(MOST_DIGITS))

    @property
    def counted_in(self) -> str:
        """Return the unit of its windows: empty for requests, else a currency.

        Amounts in major units are counted in ten-thousandths: ``USD/10000``. So
        windows of the two kinds of amounts are never mixed up.
        """
        return self.kind[1]

    @property
    def cedar_type(self) -> str:
        """Return the type of its numbers in Cedar."""
        return "decimal" if self.in_major else "Long"

    def context(self, count: int, left: int) -> dict[str, int | str]:
        """Return the use and the rest of its fullest window, as rules read them."""
        if not self.in_major:
            return {"count": count, "left": left}
        both = (Decimal(one).scaleb(-MOST_DIGITS) for one in (count, left))
        return dict(zip(("count", "left"), map(cedar_decimal, both), strict=True))

    def standing(self, count: int, left: int) -> str:
        """Word the use and the rest of a window."""
        both = (
            bare_units(one, self.currency, in_major=self.in_major)
            for one in (count, left)
        )
        return "{} used, {} left".format(*both)

    def wording(self) -> str:
        """Return it in words: ``20 in 24h``."""
        most = render_units(self.most, self.currency, in_major=self.in_major)
        return f"{most} in {self.span}"


class LimitAnswer(NamedTuple):
    """A limit's answer to a request that policy would allow or escalate."""

    limit: Limit
    outcome: Outcome
    reason: str
    why: str


@dataclass(frozen=True)
class LimitSet:
    """The limits of one ``limits.toml``."""

    limits: tuple[Limit, ...] = ()
    hooks: tuple[HookTable, ...] = ()
    version: str = ""
    """Everything that the file says, in one form; empty without a file."""
    _applying: dict[tuple[object, ...], tuple[Limit, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Which limits apply, by scopes and agent."""

    @classmethod
    def parse(cls, text: str, source: str, catalogue: Catalogue) -> LimitSet:
        """Read a ``limits.toml``; *source* names it in errors.

        Raises:
            PolicyError: it is not TOML, or something in it cannot be put in effect.
        """
        inner = {"limits[]": _LimitTable, "hooks[]": HookTable}
        try:
            tables = read_table(text, _Tables, inner)
        except ServiceError as error:
            raise PolicyError(f"{source}: {error.what}", error.remedy) from None
        groups = action_groups(catalogue)
        _check([("limit", one) for one in tables.limits], source, catalogue)
        _check([("hook", one) for one in tables.hooks], source, catalogue)
        for hook in tables.hooks:
            if not _is_url(hook.url):
                raise PolicyError(
                    f"{source}: the hook {hook.id} has the url {visible(hook.url, 80)}",
                    "https://HOST/PATH, http:// to a loopback address, or unix:/PATH",
                )
        return cls(
            tuple(_limit(table, source, groups) for table in tables.limits),
            tuple(
                msgspec.structs.replace(one, scopes=sorted(_scopes(one.scopes, groups)))
                for one in tables.hooks
            ),
            msgspec.json.encode(tables).decode(),
        )

    @cached_property
    def by_id(self) -> dict[str, Limit]:
        """The limits by their ids."""
        return {one.id: one for one in self.limits}

    def applying(self, inputs: Inputs) -> tuple[Limit, ...]:
        """Return the limits of a request, in the order of the file."""
        key = inputs.requested, inputs.who.id, inputs.who.name, inputs.above
        matching = self._applying.get(key)
        if matching is None:
            matching = tuple(one for one in self.limits if one.agents_of(inputs))
            if len(self._applying) >= _CACHED:
                self._applying.clear()
            self._applying[key] = matching
        return matching

    def hooks_of(self, action: Action) -> list[HookTable]:
        """Return the call-outs that are asked about *action*."""
        names = {action.action, *action.scopes}
        return [one for one in self.hooks if not names.isdisjoint(one.scopes)]

    def answer(self, inputs: Inputs) -> LimitAnswer | None:
        """Return the limits' answer to a request; None if it fits in all of them.

        An amount that would pass a limit is refused whole. One that cannot be counted
        is for a person to decide, whatever the limit says of those beyond it.

        Returns:
            the answer of the first in the file among the strictest.
        """
        strictest: LimitAnswer | None = None
        held = inputs.environment.limits
        for limit in self.applying(inputs):
            count, left = held.get(limit.attribute) or (0, limit.most)
            units = 1 if limit.currency is None else limit.units(inputs)
            if limit.per == "resource" and "resource" in inputs.facts.unclear:
                # A service may take it for a resource that has a window.
                text = f"The limit {limit.id} counts by resource, which is unclear."
                one = LimitAnswer(limit, Outcome.ESCALATED, "stepup_required", text)
            elif units is None:
                form = f"whole numbers of {limit.currency}"
                if limit.in_major:
                    form = f"amounts in {limit.currency} whose unit is known"
                text = f"The limit {limit.id} counts {form}."
                one = LimitAnswer(limit, Outcome.ESCALATED, "stepup_required", text)
            elif units > left:
                text = f"At most {limit.wording()}: {limit.standing(count, left)}."
                one = LimitAnswer(limit, limit.over, LIMIT_REACHED, text)
            else:
                continue
            if (
                strictest is None
                or one.outcome.strictness > strictest.outcome.strictness
            ):
                strictest = one
        return strictest

    def counted(self, inputs: Inputs) -> dict[str, Any]:
        """Return a request's uses in the ledger's form: ``detail.counted``.

        An amount that cannot be counted, which only a person approves, is 0.

        Returns:
            the units of each limit, with the agents where there are several, and the
            fold of the resource; empty without any.
        """
        used = {limit.id: _used(limit, inputs) for limit in self.applying(inputs)}
        if not used:
            return {}
        return {"limits": used, "resource": inputs.facts.fold}


def _used(limit: Limit, inputs: Inputs) -> dict[str, Any]:
    used: dict[str, Any] = {"count": 1}
    if limit.currency is not None:
        used = {"amount": limit.units(inputs) or 0, "currency": limit.counted_in}
    return used | ({"agents": limit.agents_of(inputs)} if inputs.above else {})


def _check(
    tables: Sequence[tuple[str, _LimitTable | HookTable]],
    source: str,
    catalogue: Catalogue,
) -> None:
    """Refuse invalid and duplicate ids, and unknown scopes."""
    seen, groups = set[str](), action_groups(catalogue)
    for kind, table in tables:
        shown = f"{source}: the {kind} '{visible(table.id, 80)}'"
        if not _ID.fullmatch(table.id):
            form = "a letter, then letters, digits and -, in lower case, at most 64"
            raise PolicyError(f"{shown} cannot be called that", form)
        if table.id in seen:
            raise PolicyError(f"{shown} is there twice", "give each its own id")
        seen.add(table.id)
        for name in table.scopes:
            if name in catalogue or name in groups:
                continue
            near = catalogue.nearest(name)
            if ":" not in name:
                near = difflib.get_close_matches(name, groups, n=1) or near
            raise PolicyError(
                f"{shown} names the unknown scope {visible(name, 60)}",
                f"did you mean {near[0]}" if near else "agentvault policy check",
            )


def _scopes(names: Collection[str], groups: Mapping[str, list[str]]) -> frozenset[str]:
    return frozenset(scope for name in names for scope in groups.get(name, [name]))


def _ten_thousandths(
    table: _LimitTable, fault: Callable[[str, str], PolicyError]
) -> int:
    """Read ``amount_major``, in the ten-thousandths that Cedar's decimal has."""
    value = table.amount_major
    is_number = isinstance(value, int | Decimal | str) and not isinstance(value, bool)
    if not is_number or not _MAJOR.fullmatch(str(value)) or not Decimal(str(value)):
        raise fault(
            f"has the amount_major '{visible(str(value), 40)}'",
            'a number above 0 such as 500, or a text such as "499.50"',
        )
    return int(Decimal(str(value)).scaleb(MOST_DIGITS))


def _limit(table: _LimitTable, source: str, groups: Mapping[str, list[str]]) -> Limit:
    """Check the members of one ``[[limits]]`` table together."""

    def fault(what: str, remedy: str) -> PolicyError:
        return PolicyError(f"{source}: the limit {table.id} {what}", remedy)

    major = UNSET if table.amount_major is UNSET else _ten_thousandths(table, fault)
    stated = [
        one
        for one in (table.count, table.amount, major)
        if not isinstance(one, UnsetType)
    ]
    if len(stated) != 1:
        raise fault(
            "counts nothing, or two things", "give it count, amount or amount_major"
        )
    if (table.currency is UNSET) is (table.count is UNSET):
        raise fault("has an amount or a currency alone", "give it both, or neither")
    if table.currency is not UNSET and not CURRENCY.fullmatch(table.currency):
        shown = visible(table.currency, 40)
        raise fault(f"has the currency '{shown}'", "three capital letters, such as USD")
    seconds = seconds_of(table.within) or 0
    if not 0 < seconds <= _LONGEST.total_seconds():
        shown = visible(table.within, 40)
        raise fault(f"is within '{shown}'", "for example 60s, 30m, 24h or 30d; to 366d")
    currency = None if table.currency is UNSET else table.currency
    counted_in = f"{currency or ''}{'' if major is UNSET else _MAJOR_UNITS}"
    return Limit(
        id=table.id,
        attribute=table.id.replace("-", "_"),
        scopes=_scopes(table.scopes, groups),
        agents=frozenset(table.agents),
        kind=(table.id, counted_in, table.per),
        per=table.per,
        within=timedelta(seconds=seconds),
        micros=seconds * 1_000_000,
        span=table.within,
        most=stated[0],
        currency=currency,
        in_major=major is not UNSET,
        over=Outcome.DENIED if table.over == "deny" else Outcome.ESCALATED,
    )
