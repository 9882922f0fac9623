"""Read the parameters of an action from the parts of one request.

An absent parameter is left out. A parameter that cannot be relied on (its type is none
that policy reads, it is stated twice, or it is there in another spelling) is None: for
policy it is unclear, so a person decides.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, product
from math import prod
from typing import Any, Final

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.conditions import CaseCondition
from agentvault_tui.gateway.content import Fields, member_names
from agentvault_tui.gateway.counting import COUNTED, how_many, is_elsewhere
from agentvault_tui.gateway.headers import ALWAYS, RequestHeaders
from agentvault_tui.gateway.names import field_names, readings, split_parts
from agentvault_tui.gateway.routes import as_part
from agentvault_tui.gateway.sources import COMMIT_ID, Source, split_pointer
from agentvault_tui.gateway.target import Target
from agentvault_tui.gateway.templates import ServiceRoute
from agentvault_tui.json_document import Number, plain_name, plain_numbers
from agentvault_tui.policy.destinations import read_domains, read_hosts
from agentvault_tui.policy.facts import LARGEST, NAMING
from agentvault_tui.policy.resources import canonical

_NUMBERS: Final = frozenset({"amount", "count", "recipients"})
_LONGEST_VALUE: Final = 4_000
"""Characters of one parameter at most, as at the token endpoint."""
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""An array's index as RFC 6901 section 4 writes it."""
_MOST_UNSAID: Final = 8
MOST_RESOURCES: Final = 20
"""Of one request, next to that of its path: each is decided."""


class _Absent:
    """Marks a parameter that the request does not have."""


_ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class RequestParts:
    """The parts of one request that parameters are read from."""

    route: ServiceRoute
    captures: Mapping[str, str]
    target: Target
    headers: RequestHeaders
    fields: Fields
    """Of the body; without members where it is opaque or there is none."""


def read_parameters(parts: RequestParts) -> dict[str, object]:
    """Read the parameters that the route of a request names.

    The parameter ``resource`` is there, and None, if a service may read another value
    for a capture of the path that names the resource. The resource is then unclear.
    """
    reader = _ParameterReader(parts)
    parameters: dict[str, object] = {}
    for name, sources in parts.route.parameters.items():
        value = reader.parameter(name, sources)
        if value is not _ABSENT:
            parameters[name] = value
    # Without a template of its own, the resource is the whole path.
    named = _captures_in(parts, parts.route.resource or parts.route.path)
    again = any(map(reader.is_stated_again, named))
    if again or other_resources(parts) is None:
        parameters["resource"] = None
    return parameters


def case_of(parts: RequestParts) -> int | None:
    """Return the place of the first case of a route that applies to a request."""
    reader = _ParameterReader(parts)
    for place, case in enumerate(parts.route.cases):
        if all(map(reader.meets, case.conditions)):
            return place
    return None


def other_resources(parts: RequestParts) -> tuple[str, ...] | None:
    """Return the further resources that a request acts on.

    Returns:
        those that the request states; None if one of them is unclear, or if
        they are more than `MOST_RESOURCES`.
    """
    reader = _ParameterReader(parts)
    resources: dict[str, None] = {}
    for template in parts.route.also:
        stated = [
            [part] if isinstance(part, str) else reader.each(part) for part in template
        ]
        values_read = chain.from_iterable(stated[1::2])
        if not all(isinstance(one, str) and one for one in values_read):
            return None
        if prod(map(len, stated)) > MOST_RESOURCES:
            return None
        for values in product(*stated):
            filled = (as_part(one) if n % 2 else one for n, one in enumerate(values))
            resource = "".join(filled)
            resources[canonical(resource) or resource] = None
    return tuple(resources) if len(resources) <= MOST_RESOURCES else None


def unsaid(parts: RequestParts, parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Return the first few parts of a request that no parameter states.

    An elevated token opens a route only if its action states every part that is sent. A
    count says how many members there are, not which, so it states nothing.

    Args:
        parts: of the request.
        parameters: from `read_parameters`.
    """
    stated = [
        source
        for name, sources in parts.route.parameters.items()
        for source in sources
        if parameters.get(name) is not None and not (source.counted or source.places)
    ]
    return tuple(islice(_unsaid(parts, stated), _MOST_UNSAID))


def missing(parts: RequestParts) -> str | None:
    """Return the first value that the route requires and the request lacks."""
    reader = _ParameterReader(parts)
    for source in parts.route.requires:
        value = reader.value("", source)
        if value is None or value is _ABSENT:
            return str(source)
        if source.commit and not (
            isinstance(value, str) and COMMIT_ID.fullmatch(value)
        ):
            return f"{source}, a whole commit id"
    return None


def bound_ids(parts: RequestParts) -> tuple[str | None, ...]:
    """Return the values that name the documents a request's route binds.

    Returns:
        one for each binding; None where the path says all.

    Raises:
        UnreadableRequestError: ``parameter_required``, a value is missing or unclear.
    """
    reader = _ParameterReader(parts)
    ids: list[str | None] = []
    for binding in parts.route.binds:
        for one in filter(reader.is_stated_again, _captures_in(parts, binding.get)):
            raise required(f"path:{one}")
        source = binding.id
        if source is None:
            ids.append(None)
            continue
        value = reader.value("", source)
        if (name := plain_name(value)) is None:
            raise required(str(source))
        ids.append(name)
    return tuple(ids)


def _captures_in(parts: RequestParts, template: str) -> list[str]:
    return [one for one in parts.captures if re.search(rf"{{{one}\*?}}", template)]


def required(lacks: str) -> UnreadableRequestError:
    """Return the refusal of a request that lacks a value its route requires."""
    return UnreadableRequestError(
        "parameter_required",
        f"a request of this route states {lacks}, once",
        parameter=lacks,
    )


class _ParameterReader:
    """Reads parameters from the parts of one request."""

    def __init__(self, parts: RequestParts) -> None:
        self._parts = parts
        fields = parts.fields
        self._is_form = fields.kind in {"form", "multipart"}
        self._content: Any = fields.texts if self._is_form else fields.value
        self._names = readings if self._is_form else field_names
        self._absent = fields.kind in {"none", "opaque"}
        self._bases: dict[int, Counter[str]] = {}

    def meets(self, condition: CaseCondition) -> bool:
        """Check whether a request has a value of a condition, or may have one."""
        source = condition.source
        is_list = not isinstance(self._content, dict) and self._content is not None
        if source.kind == "body" and is_list:
            return True
        stated = self._several("", source)
        if stated is _ABSENT or (source.kind in {"query", "header"} and stated == []):
            return False
        return condition.holds(stated)

    def parameter(self, name: str, sources: tuple[Source, ...]) -> Any:
        """Return a parameter's value, None where it is unclear, or `_ABSENT`."""
        if self._is_addressed(name) and self._addresses_more(sources):
            return None
        if sources[0].places:
            return self._destinations(name, sources)
        if not sources[0].counted:
            source = sources[0]
            text_only = source.kind != "body" or self._is_form
            return _typed(name, self.value(name, source), text_only=text_only)
        counts = [self._count(name, one) for one in sources]
        stated = [one for one in counts if one is not _ABSENT]
        if None in counts:
            return None
        return sum(stated) if stated else _ABSENT

    def _destinations(self, name: str, sources: tuple[Source, ...]) -> Any:
        """Return the hosts and domains at all of *sources*, sorted."""
        destinations: set[str] = set()
        for source in sources:
            values = self._several(name, source)
            if values is None:
                return None
            if values is _ABSENT or values == []:
                continue
            values = values if isinstance(values, list) else [values]
            read = read_domains if source.places == "domains" else read_hosts
            if (names := read(values)) is None:
                return None
            destinations.update(names)
        if not destinations:
            return _ABSENT
        return _typed(name, sorted(destinations), text_only=False)

    def value(self, name: str, source: Source) -> Any:
        """Return the one value at *source*, as text or as JSON has it."""
        if source.kind == "constant":
            return source.value
        if source.kind == "path":
            # A service that decodes twice reads another segment.
            captured = self._parts.captures[source.name]
            again = self.is_stated_again(source.name, name)
            return None if again or "%" in captured else captured
        if source.kind == "body":
            return self._in_body(name, source, single=True)
        return _single(self._texts(name, source))

    def each(self, source: Source) -> list[Any]:
        """Return the values at a place, where ``*`` is each member of a list.

        Returns:
            those, or None in the place of an unclear one; none if it is absent.
        """
        head, star, rest = split_pointer(source.pointer)
        value = self.value("", replace(source, pointer=head))
        if value is _ABSENT:
            return []
        if not star:
            return [value]
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            return [None]
        return [self._inner_member(one, rest) for one in value]

    def _inner_member(self, value: Any, tokens: tuple[str, ...]) -> Any:
        for token in tokens:
            named = isinstance(value, dict) and token in value
            if not named or self._also(value, token):
                return None
            value = value[token]
        return value

    def is_stated_again(self, capture: str, parameter: str = "") -> bool:
        """Check whether a service may read another value for a capture of the path.

        Frameworks merge path, query, body and headers in different orders. To all of
        them an equal value is the same one, if it is stated once and as a plain text.

        Args:
            capture: its name.
            parameter: that states it; one that policy reads by value is also looked
                for inside of objects.
        """
        names, value = field_names(capture), self._parts.captures[capture]
        others = [one for name in names for one in self._others.get(name, ())]
        if others not in ([], [value]):
            return True
        return parameter in COUNTED and not names.isdisjoint(self._inner)

    @cached_property
    def _others(self) -> dict[str, list[str | None]]:
        """Return the values next to the path by all names that services may read.

        A value is None under a name with parts: ``id[$ne]`` is an object. Values are
        left out if the route's file says that the service reads them as something else.
        """
        parts, route = self._parts, self._parts.route
        declared = {(s.kind, s.name or s.pointer[0]) for s in route.declared}
        unread = ALWAYS - route.listed
        headers = [one for one in parts.headers.leaving if one[0] not in unread]
        stated: list[tuple[str, str, object]] = [
            *(("query", *one) for one in parts.target.query),
            *(("body", *one) for one in parts.fields.top()),
            *(("header", *one) for one in headers),
        ]
        others: dict[str, list[str | None]] = {}
        for kind, name, value in stated:
            if (kind, name) not in declared:
                plain = name.removeprefix("x-") if kind == "header" else name
                text = plain_name(value) if name in split_parts(name) else None
                for one in readings(name) | readings(plain):
                    others.setdefault(one, []).append(text)
        return others

    def _texts(self, name: str, source: Source) -> list[str] | None:
        """Return the values of a query parameter or header; None where unclear."""
        if source.kind == "query":
            values, other = self._parts.target.query_values(source.name)
            # Services that read query and body differ in which one they prefer.
            return None if other or self._in_fields(name, source.name) else values
        plain = source.name.lower().removeprefix("x-")
        if any(
            self._in_query(one) or self._in_fields(name, one)
            for one in (source.name, plain)
        ):
            return None  # services that read several places prefer one of them
        value = self._parts.headers.value(source.name)
        return [] if value is None else [value]

    def _count(self, name: str, source: Source) -> Any:
        values = self._several(name, source)
        if values is None or isinstance(values, _Absent):
            return values
        if not values and source.kind != "body":
            return _ABSENT
        return how_many(name, values)

    def _several(self, name: str, source: Source) -> Any:
        """Return all values at *source*: texts, or as JSON has them."""
        if source.kind in {"query", "header"}:
            values = self._texts(name, source)
            if source.kind == "header" and values is not None:
                values = [one for value in values for one in value.split(",")]
            return values
        if source.kind == "path":
            return self.value(name, source)
        return self._in_body(name, source, single=False)

    def _in_body(self, name: str, source: Source, *, single: bool) -> Any:
        """Return the value at a pointer; None where a service may find another."""
        if self._in_query(source.pointer[0]):
            return None  # services that read both differ in which one they prefer
        if self._absent:
            return _ABSENT
        if name and self._is_inside(name, source):
            return None
        value = self._content
        for depth, token in enumerate(source.pointer):
            if isinstance(value, dict):
                elsewhere = self._elsewhere(name, value, source, depth)
                if elsewhere or self._also(value, token):
                    return None
                value = value.get(token, _ABSENT)
                if self._is_form and single and isinstance(value, list):
                    value = value[0] if len(value) == 1 else None
            elif isinstance(value, list) and _INDEX.fullmatch(token):
                if int(token) >= len(value):
                    return _ABSENT
                value = value[int(token)]
            else:
                return _ABSENT
        return value

    def _in_query(self, name: str) -> bool:
        """Check whether a query parameter reads like *name*."""
        return self._parts.target.query_values(name) != ([], False)

    def _is_inside(self, name: str, source: Source) -> bool:
        """Check whether JSON has the name of a parameter inside another object.

        A service may bind that object and read the parameter there.
        """
        if len(source.pointer) != 1 and not self._is_form:
            of_name = self._parts.route.parameters.get(name, ())
            places = {one.pointer for one in of_name if one.kind == "body"}
            return name in COUNTED and is_elsewhere(
                self._content, places, addressed=self._is_addressed(name)
            )
        names = field_names(source.pointer[0])
        return bool(
            self._inner & (names | NAMING if self._is_addressed(name) else names)
        )

    def _is_addressed(self, name: str) -> bool:
        """Check whether the members of `NAMING` say the same as a parameter."""
        sources = self._parts.route.parameters.get(name, ())
        domains = any(one.places == "domains" for one in sources)
        return domains or name == "recipients"

    def _addresses_more(self, sources: tuple[Source, ...]) -> bool:
        """Check whether recipients are in the query or body where no source reads one.

        Next to a source of the body, `_elsewhere` and `_is_inside` look for them.
        """
        kinds = {one.kind for one in sources}
        declared = {(s.kind, s.name) for s in (*sources, *self._parts.route.declared)}
        pairs = () if "constant" in kinds else self._parts.target.query
        for name, value in pairs:
            if value and ("query", name) not in declared and readings(name) & NAMING:
                return True
        if kinds & {"body", "constant"} or not isinstance(self._content, dict):
            return False
        of_top = (self._names(one) for one, value in self._content.items() if value)
        return bool(NAMING & self._inner) or any(map(NAMING.intersection, of_top))

    @cached_property
    def _inner(self) -> frozenset[str]:
        """Return the folds of all names of JSON below the body's top level."""
        inner = self._parts.fields.inner
        if not self._is_form and isinstance(self._content, dict):
            inner = frozenset(member_names(self._content.values()))
        return frozenset().union(*map(field_names, inner))

    def _in_fields(self, parameter: str, name: str) -> bool:
        """Check whether a member of the body reads like *name*.

        At its top level, or where policy reads the parameter by value, at any.
        """
        content, names = self._content, field_names(name)
        if not isinstance(content, dict):
            return False
        if parameter in COUNTED and not names.isdisjoint(self._inner):
            return True
        return any(self._named(content)[one] for one in names)

    def _also(self, members: dict[str, object], token: str) -> bool:
        """Check whether another member reads like *token*: ``Count`` or ``count[]``."""
        named = self._named(members)
        return any(named[one] > (token in members) for one in field_names(token))

    def _named(self, members: dict[str, object]) -> Counter[str]:
        """Return how many members may have each name; counted once an object."""
        if id(members) not in self._bases:
            counted = Counter(one for name in members for one in self._names(name))
            self._bases[id(members)] = counted
        return self._bases[id(members)]

    def _elsewhere(
        self, name: str, members: dict[str, object], source: Source, depth: int
    ) -> bool:
        """Check whether recipients are also where the route does not count them."""
        if not self._is_addressed(name) or depth != len(source.pointer) - 1:
            return False
        counted = {
            one.pointer[depth]
            for one in self._parts.route.parameters[name]
            if one.pointer[:depth] == source.pointer[:depth]
        }
        if not NAMING & self._named(members).keys():
            return False
        return any(
            self._names(key) & NAMING and key not in counted
            for key, value in members.items()
            if value
        )


def _single(values: list[str] | None) -> Any:
    if not values:
        return None if values is None else _ABSENT
    return values[0] if len(values) == 1 else None


def _typed(name: str, value: Any, *, text_only: bool) -> Any:
    """Convert a value to the type that policy reads, if it has one clear meaning.

    Forms, queries, headers and paths have text only: a whole number in it is a number
    where policy reads a number. Currencies are codes of ISO 4217 in any case.
    """
    if isinstance(value, _Absent) or value is None:
        return value
    if name == "amount" and isinstance(value, Number):
        return value.text  # no float: policy and faces have the digits as sent
    if isinstance(value, str):
        if text_only and name in _NUMBERS and _NUMBER.fullmatch(value):
            value = int(value)
        elif name == "currency" and len(value) == 3 and value.isascii():
            return value.upper()
    value = plain_numbers(value)
    if isinstance(value, int | float):
        return value if abs(value) <= LARGEST else None
    written = json.dumps(value, ensure_ascii=False)
    # No record or program takes NUL for text; the token endpoint refuses it as well.
    unclear = len(written) > _LONGEST_VALUE or "\\u0000" in written
    return None if unclear else value


def _unsaid(parts: RequestParts, stated: list[Source]) -> Iterator[str]:
    route = parts.route
    named = {(one.kind, one.name) for one in stated}
    named_there = _captures_in(parts, route.resource or route.path)
    plain = ALWAYS - route.listed
    sent = [
        *(("path", name) for name in parts.captures if name not in named_there),
        *(("query", name) for name, _ in parts.target.query),
        *(("header", name) for name, _ in parts.headers.leaving if name not in plain),
    ]
    yield from (f"{kind}:{name}" for kind, name in sent if (kind, name) not in named)
    # Its approver saw the name of a document, and not the document.
    yield from (f"the document {one.get}" for one in route.binds)
    yield from _unsaid_fields(
        parts.fields, {one.pointer for one in stated if one.kind == "body"}
    )


def _unsaid_fields(fields: Fields, pointers: set[tuple[str, ...]]) -> Iterator[str]:
    if fields.kind in {"form", "multipart"}:
        for name, value in fields.value:
            if value is None or (name,) not in pointers:
                yield f"body:/{name}"
    elif fields.kind == "json":
        yield from _unsaid_members((), fields.value, pointers)
    elif fields.kind == "opaque":
        yield "body"


def _unsaid_members(
    path: tuple[str, ...], value: object, pointers: set[tuple[str, ...]]
) -> Iterator[str]:
    waiting: list[tuple[tuple[str, ...], object]] = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if path in pointers or (not path and value == {}):
            continue
        reaches = not path or any(one[: len(path)] == path for one in pointers)
        if reaches and isinstance(value, dict) and value:
            waiting += [((*path, name), inner) for name, inner in value.items()]
        elif reaches and isinstance(value, list) and value:
            waiting += [((*path, str(n)), inner) for n, inner in enumerate(value)]
        else:
            yield "body:" + "".join(f"/{one}" for one in path)
