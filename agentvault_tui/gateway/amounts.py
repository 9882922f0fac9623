"""Amounts in requests of services and calls of tools, and their unit, by the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.sources import Source, read_source
from agentvault_tui.json_document import Number
from agentvault_tui.model import Money
from agentvault_tui.model.money import EXPONENTS, MOST_DIGITS
from agentvault_tui.policy.facts import CURRENCY
from agentvault_tui.text import visible

_PLACES: Final = ("amount", "currency")


class MoneyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[money]`` of a service, an MCP server or a host, or of a route or tool."""

    amount: str | None = None
    currency: str | None = None
    unit: Literal["minor", "major"] | None = None
    exponents: dict[str, int] | None = None
    """Digits of the minor unit where the service differs from ISO 4217."""


class AmountRule(NamedTuple):
    """The unit of the amounts of a route or tool."""

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
    sources = dict(stated)
    for name in _PLACES:
        own, common = getattr(route, name), getattr(service, name)
        if own is not None:
            sources[name] = (_place(name, own, names),)
        elif name not in sources and common is not None:
            source = _place(name, common, ())
            if readable or source.kind != "body":
                sources[name] = (source,)
    return sources


def amount_parameters(
    stated: Mapping[str, str | int], tool: MoneyTable, file: MoneyTable
) -> dict[str, str | int]:
    """Return the parameters of a tool with those that ``money`` tables name.

    The tool's own table wins, then its parameters, then the file's table.

    Raises:
        ServiceError: a table names no place of one argument.
    """
    places = dict(stated)
    for name in _PLACES:
        own, common = getattr(tool, name), getattr(file, name)
        if (place := common if own is None else own) is None:
            continue
        if not place.startswith("/"):
            raise ServiceError(
                f"money.{name} is '{visible(place, 60)}'",
                "name the argument by a JSON Pointer, such as /amount",
            )
        places[name] = place if own is not None else places.get(name, place)
    return places


def exact_value(name: str, value: Any, exact: Number | None) -> Any:
    """Return a parameter of a tool with a unit: an amount with its digits as sent."""
    if name == "amount" and exact is not None:
        return exact.text  # no float: policy and faces have these digits
    is_code = name == "currency" and isinstance(value, str) and len(value) == 3
    return value.upper() if is_code and value.isascii() else value


def _place(name: str, text: str, names: Collection[str]) -> Source:
    source = read_source(f"money.{name}", text, names)
    if source.counted:
        raise ServiceError(f"money.{name} is a count", "name the place of one value")
    return source
