"""Route tables: path templates, and where the parameters of a request are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from agentvault_tui.errors import ServiceError, UnreadableRequestError
from agentvault_tui.gateway.amounts import (
    NO_MONEY,
    UNKNOWN,
    AmountRule,
    MoneyTable,
    amount_rule,
    amount_sources,
)
from agentvault_tui.gateway.bindings import (
    MOST,
    Binding,
    BindingTable,
    parse_binding,
)
from agentvault_tui.gateway.body import BODY_CAP, DEFAULT_BODY
from agentvault_tui.gateway.conditions import CaseCondition, parse_conditions
from agentvault_tui.gateway.config_folder import DENY, check_scope
from agentvault_tui.gateway.content import (
    DEFAULT_RULE,
    MOST_FIELDS,
    MOST_PARTS,
    ContentRule,
)
from agentvault_tui.gateway.headers import is_listable
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.names import fold_case
from agentvault_tui.gateway.sources import DESTINATIONS, UNCLEAR, Source, read_source
from agentvault_tui.gateway.target import parse_target
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.text import visible

_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*|\*")
_CAPTURE: Final = re.compile(
    r"\{([A-Za-z_][A-Za-z0-9_-]*)(\*?)\}(:[A-Za-z][A-Za-z0-9]*)?"
)
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_PLAIN_SEGMENT: Final = re.compile(r"[a-z0-9._~-]*")
_TAIL: Final = re.compile("[;?#].*", re.DOTALL)
_MOST_DECODING: Final = 4


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """A method and a path template, and the action that matching requests are."""

    method: str
    """In capitals, or ``*``."""
    path: str
    """The template: ``{x}`` is one segment, ``{x*}`` at its end the rest, and
    ``{x}:verb`` at its end a segment with a custom verb (AIP-136)."""
    scope: str
    """Of the catalogue, or `DENY`."""
    resource: str | None
    parameters: Mapping[str, tuple[Source, ...]]
    segments: tuple[tuple[str, str], ...]
    """Of each segment its decoded text and the empty name; of one that is captured its
    custom verb, with the colon, if it has one, and the name."""
    rest: bool
    """Whether the last segment captures the rest of the path."""
    colons: bool = False
    """Whether the last segment may have a colon that begins no custom verb."""
    content: ContentRule = DEFAULT_RULE
    requires: tuple[Source, ...] = ()
    """Values without which a request is refused."""
    binds: tuple[Binding, ...] = ()
    """The documents that an approval of a request is about."""
    declared: tuple[Source, ...] = ()
    """Values that the service reads, though a name looks like a method override."""
    listed: frozenset[str] = frozenset()
    """Headers that leave next to those that always do, in lower case."""
    ranges: bool = False
    """Whether ``Range`` leaves."""
    drains_bodies: bool = False
    """Whether the service reads each request's body to its end."""
    amounts: AmountRule = UNKNOWN
    also: tuple[tuple[str | Source, ...], ...] = ()
    """Further resources that a request acts on: texts, and the places of values."""
    cases: tuple[Case, ...] = ()
    """Requests of the route that are another action; the first that applies counts."""

    @property
    def variants(self) -> tuple[ServiceRoute, ...]:
        """Return the route, and those of its cases."""
        return (self, *(case.route for case in self.cases))

    def names(self, kind: str) -> set[str]:
        """Return the names that the route itself reads in a place of this kind.

        Of a body the names at its top level.
        """
        read = (*self.declared, *(s for some in self.parameters.values() for s in some))
        matching = (one for one in read if one.kind == kind)
        return {one.pointer[0] if kind == "body" else one.name for one in matching}

    def captures(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """Return the captured values when decoded *segments* match, else None."""
        if len(segments) < len(self.segments) or (
            len(segments) > len(self.segments) and not self.rest
        ):
            return None
        captures = {}
        last = len(self.segments) - 1
        for index, (text, name) in enumerate(self.segments):
            if self.rest and index == last:
                captures[name] = "/".join(segments[index:])
            elif name:
                value = segments[index].removesuffix(text)
                if not value or (text and value == segments[index]):
                    return None
                if not (text or self.colons) and _has_verb(segments, index):
                    return None
                captures[name] = value
            elif segments[index] != text:
                return None
        return captures

    def differences(self, folded: tuple[str, ...]) -> frozenset[int] | None:
        """Return where a path, folded, is this route's in another spelling.

        Args:
            folded: the `fold` of each segment, a final slash left out.

        Returns:
            positions of segments that only an upstream that is lenient about case,
            escapes, suffixes or a final slash takes for this route's; None when it
            takes none of them.
        """
        # Without a last slash, a lenient router reads the rest of the path as empty.
        own = self.segments[: core_length(self.segments) - self.rest]
        if len(folded) < len(own) or (len(folded) > len(own) and not self.rest):
            return None
        odd = {len(folded)} if len(own) == len(folded) else set()
        for index, (text, name) in enumerate(own):
            if name and not text:
                continue
            folded_text = fold(text)
            if name:
                alike = folded_text in folded[index]
            else:
                alike = f"{folded[index]}.".startswith(f"{folded_text}.")
            if not alike:
                return None
            odd.add(index)
        return frozenset(odd)


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of a route that are another action because of their values."""

    conditions: tuple[CaseCondition, ...]
    """All of them have to hold."""
    route: ServiceRoute
    """The route, with the action of such requests."""


class CaseTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[[routes.cases]]``: the keys of a route that differ for some requests."""

    when: dict[str, str | list[str]]
    scope: str | None = None
    resource: str | list[str] | None = None
    binds: list[BindingTable] | None = None
    parameters: dict[str, str | int | list[str]] = {}


class RouteTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``[[routes]]``, as a file has it."""

    method: str
    path: str
    scope: str
    resource: str | list[str] | None = None
    body: Literal["none", "json", "form", "multipart", "opaque"] | None = None
    types: list[str] = []
    max_body: int = DEFAULT_BODY
    max_parts: int = MOST_PARTS
    requires: list[str] = []
    binds: list[BindingTable] = []
    read: list[str] = []
    headers: list[str] = []
    ranges: bool = False
    drains_bodies: bool | None = None
    parameters: dict[str, str | int | list[str]] = {}
    money: MoneyTable = NO_MONEY
    cases: list[CaseTable] = []


def fold(segment: str) -> str:
    """Return how a decoded segment reads to a program that is lenient about it.

    Case, compatibility forms (NFKC), further escapes, path parameters, what looks like
    a query or fragment, and outer space are gone. Only ever compared, to refuse: no
    request is taken for another one.
    """
    if _PLAIN_SEGMENT.fullmatch(segment):
        return segment
    return _TAIL.sub("", _decoded(segment)).strip()


def _decoded(segment: str) -> str:
    """Return a segment without further escapes, its case folded."""
    for _ in range(_MOST_DECODING):
        decoded = unquote(segment, errors="replace")
        if decoded == segment:
            break
        segment = decoded
    return fold_case(segment)


def _has_verb(segments: tuple[str, ...], index: int) -> bool:
    """Check whether an API may read a custom verb at the end of a segment (AIP-136)."""
    return index == core_length(segments) - 1 and ":" in _decoded(segments[index])


def core_length(segments: tuple[Any, ...]) -> int:
    """Return the number of segments, the empty one after a final slash left out."""
    return len(segments) - (len(segments) > 1 and segments[-1] in {"", ("", "")})


class RouteDefaults(NamedTuple):
    """The keys of a service's file that hold for each of its routes."""

    headers: frozenset[str] = frozenset()
    drains_bodies: bool = False
    money: MoneyTable = NO_MONEY
    colons: bool = False


_NO_DEFAULTS: Final = RouteDefaults()


def parse_route(
    table: RouteTable, catalogue: Catalogue, defaults: RouteDefaults = _NO_DEFAULTS
) -> ServiceRoute:
    """Check one route of a file, with its cases.

    Raises:
        ServiceError: with the fault.
    """
    route = _plain_route(table, catalogue, defaults)
    names = {name for _, name in route.segments if name}
    cases = []
    for number, one in enumerate(table.cases, start=1):
        try:
            conditions = parse_conditions(one.when, names)
            own = _plain_route(_table_of(table, one), catalogue, defaults)
        except ServiceError as error:
            raise ServiceError(f"case {number}: {error.what}", error.remedy) from None
        sources = [condition.source for condition in conditions]
        _check_readable(table.body, sources, "when")
        cases.append((sources, Case(conditions, own)))
    listed = route.listed.union(
        *(case.route.listed for _, case in cases),
        (s.name for sources, _ in cases for s in sources if s.kind == "header"),
    )
    return replace(
        route,
        listed=listed,
        cases=tuple(
            replace(case, route=replace(case.route, listed=listed)) for _, case in cases
        ),
    )


def _table_of(table: RouteTable, case: CaseTable) -> RouteTable:
    """Return the route of the requests of one case, as a file would have it."""
    stated = {
        key: value
        for key in ("scope", "resource", "binds")
        if (value := getattr(case, key)) is not None
    }
    parameters = table.parameters | case.parameters
    return msgspec.structs.replace(table, parameters=parameters, **stated)


def _plain_route(
    table: RouteTable, catalogue: Catalogue, defaults: RouteDefaults
) -> ServiceRoute:
    """Check one route without its cases."""
    if not _METHOD.fullmatch(table.method):
        raise ServiceError("the method is not one", 'write "POST", or "*" for any')
    if table.scope != DENY:
        check_scope(table.scope, catalogue, "scope")
    segments, rest = _template(table.path)
    names = {name for _, name in segments if name}
    resource, also = _resources(table, names)
    parameters = {
        name: _sources(name, stated, names) for name, stated in table.parameters.items()
    }
    parameters = amount_sources(
        *(parameters, table.money, defaults.money, names),
        readable=table.body not in {"none", "opaque"},
    )
    content = _content_rule(table, parameters)
    sources = [one for some in parameters.values() for one in some]
    drains = table.drains_bodies
    if len(table.binds) > MOST:
        raise ServiceError(f"binds has more than {MOST} entries")
    last = segments[-1][1] if rest else None
    return ServiceRoute(
        table.method,
        table.path,
        table.scope,
        resource,
        parameters,
        segments,
        rest,
        colons=defaults.colons,
        content=content,
        requires=tuple(read_source("requires", one, names) for one in table.requires),
        binds=tuple(parse_binding(one, names, last) for one in table.binds),
        declared=tuple(read_source("read", one, names) for one in table.read),
        listed=frozenset(
            (
                *defaults.headers,
                *listed_headers(table.headers),
                *(one.name for one in sources if one.kind == "header"),
            )
        ),
        ranges=table.ranges,
        drains_bodies=defaults.drains_bodies if drains is None else drains,
        amounts=amount_rule(table.money, defaults.money),
        also=also,
    )


def _resources(
    table: RouteTable, names: set[str]
) -> tuple[str | None, tuple[tuple[str | Source, ...], ...]]:
    """Read the resource of a route, and the further ones that its requests act on."""
    stated: list[str] | list[None] | list[str | None]
    stated = table.resource if isinstance(table.resource, list) else [table.resource]
    if not stated or "" in stated:
        raise ServiceError("the resource is empty", "leave it out for NAME:PATH")
    resource, *others = stated
    for name in _PLACEHOLDER.findall(resource or ""):
        if name not in names:
            raise ServiceError(
                f"the resource names {{{visible(name, 60)}}}, which the path has not",
                f"the path has {', '.join(sorted(names)) or 'none'}",
            )
    also = []
    for other in filter(None, others):
        parts: list[str | Source] = list(_PLACEHOLDER.split(other))
        for place in range(1, len(parts), 2):
            text = str(parts[place])
            where = f"path:{text}" if text in names else text
            parts[place] = source = read_source("resource", where, names)
            if source.counted or source.pointer[:1] == ("*",):
                raise ServiceError(
                    "the resource names a count, or members of the whole body"
                )
        sources = [one for one in parts if isinstance(one, Source)]
        _check_readable(table.body, sources, "the resource")
        also.append(tuple(parts))
    return resource, tuple(also)


def _check_readable(
    kind: str | None, sources: Iterable[Source], what: str = "a parameter"
) -> None:
    """Refuse sources in a body that nothing reads."""
    if kind in {"none", "opaque"} and any(one.kind == "body" for one in sources):
        raise ServiceError(
            f"{what} is read from the body, which is {kind}",
            "read it elsewhere, or name another kind of body",
        )


def listed_headers(names: Sequence[str]) -> frozenset[str]:
    """Return the headers that a file lets leave, in lower case.

    Raises:
        ServiceError: one of them frames, routes or authenticates a request.
    """
    for name in names:
        if not is_listable(name):
            raise ServiceError(
                f"headers: {visible(name, 60)} cannot be listed",
                "the gateway writes it itself, or it names another place or method",
            )
    return frozenset(name.lower() for name in names)


def check_cap(max_body: int) -> None:
    """Check a ``max_body``.

    Raises:
        ServiceError: it is not between 1 and `BODY_CAP`.
    """
    if not 0 < max_body <= BODY_CAP:
        raise ServiceError(f"max_body is at most {BODY_CAP} bytes")


def _content_rule(
    table: RouteTable, parameters: Mapping[str, tuple[Source, ...]]
) -> ContentRule:
    check_cap(table.max_body)
    kind = table.body
    for one in table.types:
        wild = one.endswith("/*") and kind == "opaque"
        if MediaType.parse(one.replace("*", "x") if wild else one) is None:
            raise ServiceError(
                f"types: {visible(one, 80)} is no media type",
                'write one such as "image/png", or "image/*" for opaque bodies',
            )
    if kind == "opaque" and not table.types:
        raise ServiceError("an opaque body needs types", 'add types = ["image/*"]')
    _check_readable(kind, (one for some in parameters.values() for one in some))
    if not 0 < table.max_parts <= MOST_FIELDS:
        raise ServiceError(f"max_parts is at most {MOST_FIELDS}")
    return ContentRule(kind, tuple(table.types), table.max_body, table.max_parts)


def _template(path: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Split a path template into literal and captured segments."""
    if not path.startswith("/"):
        raise ServiceError("the path does not begin with a slash")
    parts = path[1:].split("/")
    segments, names = [], set()
    for index, part in enumerate(parts):
        if match := _CAPTURE.fullmatch(part):
            name, star, verb = match.groups()
            if name in names:
                raise ServiceError(f"the path captures {{{name}}} twice")
            if verb and (star or index != len(parts) - 1):
                raise ServiceError(f"{verb} is no custom verb at the end of the path")
            if star and index != len(parts) - 1:
                raise ServiceError(f"{{{name}*}} takes the rest, and is not at the end")
            names.add(name)
            segments.append((verb or "", name))
            continue
        if "{" in part or "}" in part:
            raise ServiceError(
                f"the segment {visible(part, 60)} is more than a capture",
                "{x} is a whole segment, named in letters, digits, - and _; at the end"
                " of a path {x}:verb is one",
            )
        try:
            segments.append((parse_target(f"/{part}".encode()).segments[0], ""))
        except UnreadableRequestError as error:
            raise ServiceError(error.what) from None
    if any(not text and not name for text, name in segments[:-1]) or "?" in path:
        raise ServiceError("the path has an empty segment or a query")
    return tuple(segments), parts[-1].endswith("*}")


def _sources(
    parameter: str, stated: str | int | list[str], names: set[str]
) -> tuple[Source, ...]:
    """Read where a parameter comes from; several places are counted together."""
    if not parameter or not parameter.isprintable():
        raise ServiceError("a parameter has no name")
    if isinstance(stated, int):
        if stated < 0:
            raise ServiceError(f"{parameter} is negative")
        if parameter == DESTINATIONS:
            raise ServiceError(f"{parameter} is a number")
        return (Source("constant", value=stated),)
    if stated == UNCLEAR:
        return (Source("constant", value=None),)
    sources = [stated] if isinstance(stated, str) else stated
    sources_read = tuple(read_source(parameter, one, names) for one in sources)
    if not sources_read or (
        len(sources_read) > 1
        and not all(one.counted or one.places for one in sources_read)
    ):
        raise ServiceError(
            f"{parameter} is read from several places",
            'only counts and destinations add up: ["count:body:/to", "count:body:/cc"]',
        )
    return sources_read
