"""The desired value of one field of a tenant's object, given the present one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentvault_tui.errors import TenantError

Ids = Mapping[str, str]
"""Address of an object to its id on the tenant, if it exists."""


class _Missing:
    """No value there: another thing than null."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class Unknown:
    """The id of an object that is yet to be made."""

    address: str


@dataclass(frozen=True, slots=True)
class Ref:
    """The id of another object of ours, by its address."""

    address: str

    def settle(self, now: object, ids: Ids) -> object:  # noqa: ARG002 - a rule's signature
        """Return the id, or `Unknown`."""
        return ids.get(self.address) or Unknown(self.address)


@dataclass(frozen=True, slots=True)
class Is:
    """Exactly this value; `MISSING`: nothing, and null deletes the present one."""

    value: object

    def settle(self, now: object, ids: Ids) -> object:  # noqa: ARG002 - a rule's signature
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class SameSet:
    """A list of exactly these, in whatever order."""

    items: tuple[object, ...]

    def settle(self, now: Any, ids: Ids) -> Any:  # noqa: ARG002 - a rule's signature
        """Return *now* when it holds the same, so that order is no difference."""
        same = isinstance(now, list) and len(now) == len(self.items)
        if same and all(item in now for item in self.items):
            return now
        return list(self.items)


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A list that holds these; other entries next to them stay.

    Objects are the same when their *key* is: then lists in them are joined, and other
    members left as they are.
    """

    items: tuple[Any, ...]
    key: str = ""

    def settle(self, now: Any, ids: Ids) -> Any:  # noqa: ARG002 - a rule's signature
        """Return *now* with the missing ones after it."""
        items = list(now) if isinstance(now, list) else []
        for item in self.items:
            place = _place(items, item, self.key)
            if place is None:
                items.append(item)
            elif self.key:
                items[place] = _joined(items[place], item)
        return items


@dataclass(frozen=True, slots=True)
class AllButOurs:
    """A list of ids in which others' stay as they are, and of *ours* only *wanted*."""

    ours: tuple[Ref, ...]
    wanted: tuple[Ref, ...]

    def settle(self, now: object, ids: Ids) -> object:
        """Return *now* without those of ours that are not wanted, the missing added."""
        items = list(now) if isinstance(now, list) else []
        wanted = [item.settle(None, ids) for item in self.wanted]
        gone = {ids.get(item.address) for item in self.ours if item not in self.wanted}
        remaining = [one for one in items if one not in gone]
        return remaining + [one for one in wanted if one not in remaining]


@dataclass(frozen=True, slots=True)
class InOrder:
    """A list that holds these ids in this order, among whatever others put there.

    If they stand so already, nothing moves; else they go to the end, where nothing
    of others' runs after them.
    """

    items: tuple[Ref, ...]

    def settle(self, now: object, ids: Ids) -> object:
        """Return *now* with these in order."""
        items = list(now) if isinstance(now, list) else []
        wanted = [item.settle(None, ids) for item in self.items]
        if [one for one in items if one in wanted] == wanted:
            return items
        return [*(one for one in items if one not in wanted), *wanted]


Rule = Is | SameSet | AtLeast | AllButOurs | Ref | InOrder


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that is not as it should be."""

    path: str
    before: object
    after: Any


def compare(
    rules: Mapping[str, Rule], now: Mapping[str, object], ids: Ids
) -> tuple[FieldChange, ...]:
    """Return the changes in *now*, field by field, in the order of *rules*."""
    changes = []
    for path, rule in rules.items():
        before = at(now, path)
        after = rule.settle(None if before is MISSING else before, ids)
        if before is not after and (before is MISSING or before != after):
            changes.append(FieldChange(path, before, after))
    return tuple(changes)


def at(value: object, path: str) -> object:
    """Return the value at a dotted *path*, or `MISSING`."""
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def body(
    changes: Sequence[FieldChange], now: Mapping[str, Any], ids: Ids
) -> dict[str, Any]:
    """Return the JSON that makes *changes*: whole top-level members.

    The Management API replaces a member as a whole, so the fields next to a changed one
    in it are sent along.

    Raises:
        TenantError: a field needs the id of an object that does not stand yet.
    """
    made: dict[str, Any] = {}
    for change in changes:
        *parents, last = change.path.split(".")
        where = made
        standing: Any = now
        for name in parents:
            beside = standing.get(name) if isinstance(standing, Mapping) else None
            standing = beside if isinstance(beside, Mapping) else {}
            where = where.setdefault(name, dict(standing))
        where[last] = resolved(change.after, ids)
    return made


def unmet(changes: Sequence[FieldChange], ids: Ids) -> str:
    """Return the address of an object that *changes* need and that does not stand."""

    def within(value: object) -> Iterator[str]:
        match value:
            case Unknown(address) if address not in ids:
                yield address
            case list():
                for item in value:
                    yield from within(item)
            case dict():
                yield from within(list(value.values()))

    return next((one for change in changes for one in within(change.after)), "")


def resolved(value: object, ids: Ids) -> object:
    """Return *value* with every reference resolved."""
    match value:
        case Unknown(address):
            if address not in ids:
                raise TenantError(f"{address} does not stand on the tenant yet")
            return ids[address]
        case _Missing():
            return None
        case list():
            return [resolved(item, ids) for item in value]
        case dict():
            return {name: resolved(item, ids) for name, item in value.items()}
        case _:
            return value


def _place(items: list[Any], wanted: Any, key: str) -> int | None:
    def same(one: object) -> bool:
        if not key:
            return bool(one == wanted)
        return isinstance(one, Mapping) and one.get(key) == wanted[key]

    return next((index for index, one in enumerate(items) if same(one)), None)


def _joined(
    standing: Mapping[str, object], wanted: Mapping[str, object]
) -> dict[str, object]:
    """Add to the lists of *standing* the entries that only *wanted* has."""
    joined = dict(standing)
    for name, value in wanted.items():
        beside = joined.get(name)
        if name not in joined:
            joined[name] = value
        elif isinstance(value, list) and isinstance(beside, list):
            joined[name] = [*beside, *(one for one in value if one not in beside)]
    return joined
