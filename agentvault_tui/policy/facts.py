"""Derives the typed facts that rules read from a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

from agentvault_tui.lookalikes import fold_characters, fold_text
from agentvault_tui.model import Action
from agentvault_tui.model.money import MOST_DIGITS
from agentvault_tui.policy.destinations import is_destination, read_domains
from agentvault_tui.policy.resources import canonical, reads_like

LARGEST: Final = 2**53 - 1
"""RFC 8785 and every JSON reader agree on whole numbers up to here; none above."""
_READ: Final = frozenset(
    {"recipients", "amount", "amount_major", "currency", "count", "destinations"}
)
PARAMETERS: Final = _READ | {"resource"}
"""The facts of a request that a rule may read and the request may leave out."""
_LONG_NAME: Final = 128
MOST_ADDRESSES: Final = 1_000
"""Of one request, that are read: each takes some 7 µs of the event loop, where others
wait. The recipients of more are unclear."""
ADDRESSED: Final = frozenset(
    {
        *("to", "cc", "bcc", "recipient", "emails"),
        *("torecipients", "ccrecipients", "bccrecipients"),  # of Microsoft Graph
    }
)
"""Members that name people whom a request reaches, by their letters."""
NAMING: Final = ADDRESSED | {"recipients"}
_NAMES: Final = {name.replace("_", ""): name for name in PARAMETERS | ADDRESSED}
"""Names by their letters."""
_LETTERS_KNOWN: Final = frozenset("".join(_NAMES))
_LONGEST_KNOWN: Final = max(map(len, _NAMES))
_LETTERS: Final = {
    code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)
}
"""Maps to lower case, and removes everything but letters and digits."""
CURRENCY: Final = re.compile(r"[A-Z]{3}")
_ADDRESS: Final = re.compile(r"[^\s,;:<>()\"*%#@]+(?:@[^\s,;:<>()\"*%#@]+)?")
"""One mailbox or user name: nothing that separates, groups, or represents many."""
_NAMED: Final = re.compile(r"[^,;:<>\"@*%#\r\n\t\v\f]{1,200}<([^<>]*)>")
"""``Ada Lovelace <ada@acme.test>`` (RFC 5322 section 3.4, without its groups)."""
_FOR_MANY: Final = frozenset(
    {"all", "everyone", "everybody", "here", "channel", "team"}
)


class Facts(NamedTuple):
    """The typed attributes of a request; hashable, so that answers can be cached."""

    resource: str | None
    recipients: int | None
    amount: int | None
    currency: str | None
    things: int | None
    """The parameter ``count``: how many things are changed."""
    amount_major: Decimal | None
    """The amount in major units, where the unit is known and Cedar has the number."""
    destinations: tuple[str, ...] | None
    """Hosts and mail domains that it reaches, sorted."""
    unclear: tuple[str, ...]
    """Names of parameters that were there but cannot be relied on, sorted."""
    same_as: tuple[str, ...] = ()
    """Suffixes that the resource's service ignores."""

    @property
    def fold(self) -> str | None:
        """Return the fold of the resource, which limits and rules compare too."""
        return (
            None if self.resource is None else reads_like(self.resource, self.same_as)
        )

    @property
    def hidden(self) -> tuple[str, ...]:
        """Return the attributes that are absent though the request is about one.

        An amount in major units with a fraction has no `amount`, one of an unknown unit
        no `amount_major`, and a count of recipients no `destinations`: these requests
        do not lack the fact, as a request without money or mail does.
        """
        unclear, names = self.unclear, []
        if (self.amount is None) is not (self.amount_major is None):
            names.append("amount" if self.amount is None else "amount_major")
        elif self.amount is None and {"amount", "amount_major"} & {*unclear}:
            names += ["amount", "amount_major"]
        addressed = self.recipients is not None or "recipients" in unclear
        if self.destinations is None and addressed:
            names.append("destinations")
        return tuple(names)

    def value(self, name: str) -> Any:
        """Return the parameter a rule calls *name*, if it is stated clearly."""
        return getattr(self, "things" if name == "count" else name)

    def context(self) -> dict[str, Any]:
        """Return the attributes there are, by the names a rule uses."""
        given = zip(_CONTEXT, self[: len(_CONTEXT)], strict=True)
        context: dict[str, Any] = {n: value for n, value in given if value is not None}
        if self.amount_major is not None:
            context["amount_major"] = cedar_decimal(self.amount_major)
        if self.destinations is not None:
            context["destinations"] = list(self.destinations)
        context["unclear"] = list(self.unclear)
        return context


_CONTEXT: Final = (
    *("resource", "recipients", "amount", "currency", "count", "amount_major"),
    "destinations",
)
"""The members' names in rules, in their order, but for ``unclear``."""
_NOTHING_STATED: Final = Facts(None, None, None, None, None, None, None, ())
_LARGEST_DECIMAL: Final = Decimal(2**63 - 1).scaleb(-MOST_DIGITS)
"""Cedar's decimal is a signed 64-bit number of ten-thousandths."""


def read_fact(name: str, value: Any) -> Any:
    """Return a fact as `Facts` has it from its form in the ledger, which is JSON."""
    if value is not None and name == "amount_major":
        return Decimal(value)
    return tuple(value) if isinstance(value, list) else value


def cedar_decimal(number: Decimal) -> str:
    """Return a number as Cedar's ``decimal()`` reads it: with a point and digits."""
    return f"{number:f}" if "." in f"{number:f}" else f"{number:f}.0"


def derive(action: Action) -> Facts:
    """Reduce an agent's own objects to the facts that rules may read.

    A malformed value is left out and named in ``unclear``: a rule then asks a person,
    and never guesses in the agent's favour.
    """
    parameters = action.parameters
    if not parameters and action.resource is None:
        return _NOTHING_STATED
    members = [(_known_name(name), value) for name, value in parameters.items()]
    nested = [(_known_name(name), value) for name, value in _nested(parameters)]
    # Another spelling, or a place inside another object, may be what the resource
    # server goes by: the policy must not have overlooked it.
    unclear = {
        plain
        for name, (plain, _) in zip(parameters, members, strict=True)
        if plain in _READ and name != plain
    }
    unclear.update(plain for plain, _ in nested if plain in _READ)
    if "amount_major" in parameters:
        unclear.add("amount_major")  # which is computed, and never stated
    recipients = _read(parameters, "recipients", _how_many, unclear)
    addressed = _addressed([*members, *nested], stated="recipients" in parameters)
    if addressed > (recipients or 0):
        # One recipient declared, or none, and five hundred in bcc.
        recipients = None
        unclear.add("recipients")
    currency = _read(parameters, "currency", _currency, unclear)
    amount, major = _amounts(action, currency, unclear)
    if amount is not None and currency is None:
        unclear.add("currency")
    count = _read(parameters, "count", _whole, unclear)
    resource = action.resource and canonical(action.resource)
    if any(plain == "resource" for plain, _ in (*members, *nested)):
        resource = None  # said twice, or where no rule looks
        unclear.add("resource")
    elif action.resource and resource is None:
        unclear.add("resource")
    places = _destinations(parameters, [*members, *nested], recipients, unclear)
    return Facts(
        *(resource or None, recipients, amount, currency, count, major, places),
        tuple(sorted(unclear)),
    )


def _amounts(
    action: Action, currency: str | None, unclear: set[str]
) -> tuple[int | None, Decimal | None]:
    """Read the amount: as a whole number of its unit, and in major units.

    One that is clear in major units alone, such as ``42.50``, is not unclear.
    """
    parameters, major = action.parameters, None
    if action.money and currency and not {"amount", "amount_major"} & unclear:
        major = action.money.in_major_units(parameters.get("amount"))
        if major is not None and major > _LARGEST_DECIMAL:
            major = None
    if major is not None and isinstance(parameters["amount"], str):
        return None, major
    amount = _read(parameters, "amount", _whole, unclear)
    return amount, None if amount is None else major


def _destinations(
    parameters: dict[str, Any],
    members: list[tuple[str, Any]],
    recipients: int | None,
    unclear: set[str],
) -> tuple[str, ...] | None:
    """Read the hosts and mail domains that a request reaches.

    Without a parameter for them, they are those of the addresses that it names, if it
    names all of its recipients. With both, no address may be elsewhere.
    """
    named = [v for name, v in members if name in NAMING and v is not None and v != []]
    listed = [v for v in named if type(v) is not int]
    if "destinations" not in parameters and not (listed and recipients):
        return None
    domains = read_domains(listed)
    if "destinations" in parameters:
        stated: tuple[str, ...] | None
        stated = _read(parameters, "destinations", _hosts, unclear)
        if stated and listed and not (domains and {*domains} <= {*stated}):
            unclear.add("destinations")
        return None if "destinations" in unclear else stated
    count = sum(len(one) if isinstance(one, list) else 1 for one in listed)
    return domains if count >= (recipients or 0) else None


def _hosts(value: object) -> tuple[str, ...] | None:
    """Accept a list of hosts, each in its one spelling."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(one, str) and is_destination(one) for one in value):
        return None
    return tuple(sorted({*value}))


def _nested(parameters: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members of objects inside *parameters*, at any depth."""
    waiting: list[Any] = [
        value for value in parameters.values() if isinstance(value, dict | list)
    ]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, dict):
            yield from outer.items()
            outer = list(outer.values())
        waiting += [value for value in outer if isinstance(value, dict | list)]


def _read(parameters: dict[str, Any], name: str, reader: Any, unclear: set[str]) -> Any:
    """Apply *reader*; a value that is there but makes no sense is unclear."""
    if name not in parameters:
        return None
    value = reader(parameters[name])
    if value is None or name in unclear:
        unclear.add(name)
        return None
    return value


def _whole(value: object) -> int | None:
    """Accept a whole number; true is not 1, "20" and 20.0 are not 20."""
    return value if type(value) is int and 0 <= value <= LARGEST else None


def _currency(value: object) -> str | None:
    """Accept an ISO 4217 code as written there."""
    return value if isinstance(value, str) and CURRENCY.fullmatch(value) else None


def _how_many(value: object) -> int | None:
    """Accept a count of at least one, or a list of `MOST_ADDRESSES` at most.

    Zero recipients means that the request does not state them. Duplicates count,
    because each may be delivered.
    """
    if isinstance(value, list):
        few = 0 < len(value) <= MOST_ADDRESSES
        return len(value) if few and all(map(is_one_address, value)) else None
    number = _whole(value)
    return number or None


def is_one_address(value: object) -> bool:
    """Check whether *value* names one recipient, and nothing that may fan out."""
    if not isinstance(value, str) or len(value) > 320:
        return False
    named = _NAMED.fullmatch(value) if value.endswith(">") else None
    address = named.group(1) if named else value
    return (
        address.isprintable()
        and _ADDRESS.fullmatch(address) is not None
        and address.partition("@")[0].casefold() not in _FOR_MANY
    )


def _addressed(parameters: list[tuple[str, object]], *, stated: bool) -> int:
    """Count the recipients in the usual address fields, as too many if unreadable.

    Where no recipients are *stated*, a ``to`` may be the end of a period: then only
    lists, objects and text with an ``@`` are taken for addresses.
    """
    total = 0
    for name, value in parameters:
        if name not in ADDRESSED or value is None or value == []:
            continue
        if not (stated or isinstance(value, list | dict) or "@" in str(value)):
            continue
        number = _how_many([value] if isinstance(value, str) else value)
        total += LARGEST + 1 if number is None else number
    return total


def plain_name(name: str) -> str:
    """Return how *name* reads to a lenient program: no case, width or hidden marks.

    Letters of other scripts that look like one are taken for it.
    """
    if name.isascii():
        return name.translate(_LETTERS)
    # The names that count are short; the rest of a long one is not worth folding.
    return "".join(filter(str.isalnum, fold_text(name[:_LONG_NAME])))


def _known_name(name: str) -> str:
    """Return the known parameter that *name* reads like; empty for any other name.

    A request may have thousands of names: most are rejected at the first letter that no
    parameter has.
    """
    if name.isascii():
        plain = name.translate(_LETTERS)
        return _NAMES.get(plain, "")
    plain = ""
    for character in fold_characters(name):
        plain += "".join(filter(str.isalnum, character))
        if not _LETTERS_KNOWN.issuperset(plain) or len(plain) > _LONGEST_KNOWN:
            return ""
    return _NAMES.get(plain, "")
