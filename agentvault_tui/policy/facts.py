"""Derives the typed facts that rules read from a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from agentvault_tui.lookalikes import fold_characters, fold_text
from agentvault_tui.model import Action
from agentvault_tui.policy.resources import canonical, reads_like

LARGEST: Final = 2**53 - 1
"""RFC 8785 and every JSON reader agree on whole numbers up to here; none above."""
_READ: Final = frozenset({"recipients", "amount", "currency", "count"})
PARAMETERS: Final = _READ | {"resource"}
"""What a rule may read of a request that the request may leave out."""
_LONG_NAME: Final = 128
ADDRESSED: Final = frozenset({"to", "cc", "bcc"})
_KNOWN: Final = PARAMETERS | ADDRESSED
_LETTERS_KNOWN: Final = frozenset("".join(_KNOWN))
_LONGEST_KNOWN: Final = max(map(len, _KNOWN))
_LETTERS: Final = {
    code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)
}
"""Lower case, and nothing of what is no letter or digit."""
CURRENCY: Final = re.compile(r"[A-Z]{3}")
_ADDRESS: Final = re.compile(r"[^\s,;:<>()\"*%#@]+(?:@[^\s,;:<>()\"*%#@]+)?")
"""One mailbox or user name: nothing that separates, groups, or stands for many."""
_NAMED: Final = re.compile(r"[^,;:<>\"@*%#\r\n\t\v\f]{1,200}<([^<>]*)>")
"""``Ada Lovelace <ada@acme.test>`` (RFC 5322 section 3.4, without its groups)."""
_FOR_MANY: Final = frozenset(
    {"all", "everyone", "everybody", "here", "channel", "team"}
)


class Facts(NamedTuple):
    """The typed attributes of a request; hashable, so that answers can be kept."""

    resource: str | None
    recipients: int | None
    amount: int | None
    currency: str | None
    things: int | None
    """The parameter ``count``: how many things are changed."""
    unclear: tuple[str, ...]
    """Names of parameters that were there but cannot be relied on, sorted."""
    same_as: tuple[str, ...] = ()
    """Suffixes that the service of the resource ignores."""

    @property
    def fold(self) -> str | None:
        """Return the fold of the resource, by which limits and rules compare it too."""
        return (
            None if self.resource is None else reads_like(self.resource, self.same_as)
        )

    def value(self, name: str) -> str | int | None:
        """Return the parameter a rule calls *name*, if it is stated clearly."""
        found: str | int | None = getattr(self, "things" if name == "count" else name)
        return found

    def context(self) -> dict[str, Any]:
        """Return the attributes there are, by the names a rule uses."""
        given = zip(_CONTEXT, self[: len(_CONTEXT)], strict=True)
        context: dict[str, Any] = {n: value for n, value in given if value is not None}
        context["unclear"] = list(self.unclear)
        return context


_CONTEXT: Final = ("resource", "recipients", "amount", "currency", "count")
"""What a rule calls the members, in their order, but for ``unclear``."""
_NOTHING_STATED: Final = Facts(None, None, None, None, None, ())


def derive(action: Action) -> Facts:
    """Reduce an agent's own objects to what a rule may be written about.

    Whatever is not exactly what it should be is left out and named in ``unclear``:
    a rule then asks a person, and never guesses in the agent's favour.
    """
    parameters = action.parameters
    if not parameters and action.resource is None:
        return _NOTHING_STATED
    said = [(_known_name(name), value) for name, value in parameters.items()]
    nested = [(_known_name(name), value) for name, value in _nested(parameters)]
    # Another spelling, or a place inside another object, may be what the resource
    # server goes by: the policy must not have overlooked it.
    unclear = {
        plain
        for name, (plain, _) in zip(parameters, said, strict=True)
        if plain in _READ and name != plain
    }
    unclear.update(plain for plain, _ in nested if plain in _READ)
    recipients = _read(parameters, "recipients", _how_many, unclear)
    addressed = _addressed([*said, *nested], stated="recipients" in parameters)
    if addressed > (recipients or 0):
        # One recipient declared, or none, and five hundred in bcc.
        recipients = None
        unclear.add("recipients")
    amount = _read(parameters, "amount", _whole, unclear)
    currency = _read(parameters, "currency", _currency, unclear)
    if amount is not None and currency is None:
        unclear.add("currency")
    count = _read(parameters, "count", _whole, unclear)
    resource = action.resource and canonical(action.resource)
    if any(plain == "resource" for plain, _ in (*said, *nested)):
        resource = None  # said twice, or where no rule looks
        unclear.add("resource")
    elif action.resource and resource is None:
        unclear.add("resource")
    return Facts(
        resource or None, recipients, amount, currency, count, tuple(sorted(unclear))
    )


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
    """Accept a count of at least one, or a list of plain addresses.

    Nobody sends to nobody: zero is a way of not saying.
    Duplicates count, because each may be delivered.
    """
    if isinstance(value, list):
        return len(value) if value and all(map(is_one_address, value)) else None
    number = _whole(value)
    return number or None


def is_one_address(value: object) -> bool:
    """Tell whether *value* names one recipient, and nothing that may fan out."""
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
    """Count what the usual address fields hold, over any number if unreadable.

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
    # What only fills would be folded too: the names that count are short.
    return "".join(filter(str.isalnum, fold_text(name[:_LONG_NAME])))


def _known_name(name: str) -> str:
    """Return the parameter that *name* reads like; nothing for any other name.

    A request may have thousands, so that most are left at the first letter that no
    parameter has.
    """
    if name.isascii():
        plain = name.translate(_LETTERS)
        return plain if plain in _KNOWN else ""
    plain = ""
    for character in fold_characters(name):
        plain += "".join(filter(str.isalnum, character))
        if not _LETTERS_KNOWN.issuperset(plain) or len(plain) > _LONGEST_KNOWN:
            return ""
    return plain if plain in _KNOWN else ""
