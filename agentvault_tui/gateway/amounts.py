"""Which amounts a service's requests state, and in which unit, as its file says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.sources import Source, read_source
from agentvault_tui.model import Money
from agentvault_tui.model.money import EXPONENTS, MOST_DIGITS
from agentvault_tui.policy.facts import CURRENCY
from agentvault_tui.text import visible

_PLACES: Final = ("amount", "currency")


class MoneyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[money]`` of a service or one of its routes."""

    amount: str | None = None
    currency: str | None = None
    unit: Literal["minor", "major"] | None = None
    exponents: dict[str, int] | None = None
    """Digits of the minor unit where the service differs from ISO 4217."""


class AmountRule(NamedTuple):
    """The unit of the amounts of a route."""

    unit: Literal["minor", "major"] | None = None
    """None where the file does not say it: the unit is unknown."""
    exponents: tuple[tuple[str, int], ...] = ()
    """Where the service differs from ISO 4217."""

    def money(self, parameters: Mapping[str, Any]) -> Money | None:
        """Return how the amount of a request is written; see `Money.of`."""
        return Money.of(self.unit, parameters, EXPONENTS | dict(self.exponents))


NO_MONEY: Final = MoneyTable()
UNKNOWN: Final = AmountRule()


def amount_rule(route: MoneyTable, service: MoneyTable) -> AmountRule:
    """Return the unit and the exponents of the most specific table that states them.

    Raises:
        ServiceError: an exponent is none, or is not for a currency.
    """
    exponents = service.exponents if route.exponents is None else route.exponents
    for code, exponent in (exponents or {}).items():
        if not CURRENCY.fullmatch(code) or not 0 <= exponent <= MOST_DIGITS:
            raise ServiceError(
                f"money: the exponent of {visible(code, 20)} is {exponent}",
                f"name a currency by three capital letters, with 0 to {MOST_DIGITS}",
            )
    return AmountRule(route.unit or service.unit, tuple((exponents or {}).items()))


def amount_sources(
    stated: Mapping[str, tuple[Source, ...]],
    route: MoneyTable,
    service: MoneyTable,
    names: Collection[str],
    *,
    readable: bool,
) -> dict[str, tuple[Source, ...]]:
    """Return the parameters of a route with those that ``money`` tables name.

    The route's own table wins, then its parameters, then the service's table.

    Args:
        stated: the route's parameters.
        route: its own table.
        service: the table of the service.
        names: the segments that the route's path captures.
        readable: whether a parameter can be read from its body; the service's table
            names none there if not.

    Returns:
        all parameters, with the places they are read from.

    Raises:
        ServiceError: a table names no place of a request.
    """
    found = dict(stated)
    for name in _PLACES:
        own, common = getattr(route, name), getattr(service, name)
        if own is not None:
            found[name] = (_place(name, own, names),)
        elif name not in found and common is not None:
            source = _place(name, common, ())
            if readable or source.kind != "body":
                found[name] = (source,)
    return found


def _place(name: str, text: str, names: Collection[str]) -> Source:
    source = read_source(f"money.{name}", text, names)
    if source.counted:
        raise ServiceError(f"money.{name} is a count", "name the place of one value")
    return source
