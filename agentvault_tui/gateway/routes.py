"""Map a request to the action that policy decides about, from its own bytes alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from agentvault_tui import strict_json
from agentvault_tui.errors import UnreadableBodyError
from agentvault_tui.gateway.overrides import OVERRIDDEN, is_override, query_overrides
from agentvault_tui.gateway.services import DENY, Service
from agentvault_tui.gateway.target import Target
from agentvault_tui.gateway.templates import ServiceRoute, Source, core_length, fold
from agentvault_tui.model import Action
from agentvault_tui.policy.facts import ADDRESSED, LARGEST, is_one_address, plain_name
from agentvault_tui.policy.resources import canonical
from agentvault_tui.web.forms import BodyError, form_value

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case and values, as they were received."""

_FORM: Final = b"application/x-www-form-urlencoded"
_MEDIA_TYPE: Final = re.compile(
    rb"([\w!#$&^.+-]+/[\w!#$&^.+-]+)[ \t]*"
    rb"((?:;[ \t]*(?:[\w.-]+=(?:\"[^\"\\]*\"|[^\s\";,]+))?[ \t]*)*)"
)
"""RFC 9110 section 8.3.1, without quoted pairs."""
_NUMBERS: Final = frozenset({"amount", "count", "recipients"})
_MOST_FIELDS: Final = 10_000
_MOST_MEMBERS: Final = 1_000
"""Members of an object whose names are compared with the one that is read."""
_LONGEST_VALUE: Final = 4_000
"""What an agent sends at most as one parameter, as at the token endpoint."""
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
"""An array's index as RFC 6901 section 4 writes it."""


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a request is, by its method and path."""

    route: ServiceRoute | None
    """None for one that no route matches and `Service.unmatched` has a scope for."""
    scope: str
    resource: str
    """In canonical form where it has one."""
    captures: dict[str, str]
    overridable: bool
    """See `Service.method_override`."""

    def reads_body(self, headers: Headers) -> bool:
        """Tell whether the action is only known with the whole body.

        So where a parameter is read from it, or it has fields in which an upstream may
        find another method, or another value of what is read from the query.
        """
        route = self.route
        if route is not None and route.reads("body"):
            return True
        kind = _media_type(headers)
        return kind == _FORM or (
            route is not None and route.reads("query") and _is_json(kind)
        )


def match(service: Service, method: str, target: Target) -> RouteMatch | None:
    """Find the route of a request: the first whose method and path match.

    A path that an earlier route has in another spelling (case, escapes, a suffix such
    as ``.json``, a final slash) is not matched by a later one that leaves that part
    open: the upstream may take it for the earlier one.

    Args:
        service: the service that is called.
        method: the request's, in capitals.
        target: its path and query.

    Returns:
        the match; None when the service has no route for it.
    """
    if not (method.isascii() and method.isupper()):
        return None
    if service.method_override and query_overrides(target.raw_query):
        return None
    segments = target.segments
    folded = tuple(map(fold, segments[: core_length(segments)]))
    passed: list[frozenset[int]] = []
    for route in service.index.candidates(method, folded):
        captures = route.captures(segments)
        if captures is not None:
            fixed = {i for i, (_, name) in enumerate(route.segments) if not name}
            if not route.rest:
                fixed.add(core_length(segments))
            if any(not odd <= fixed for odd in passed):
                return None
            resource = _resource(route, service, target, captures)
            overridable = service.method_override
            return RouteMatch(route, route.scope, resource, captures, overridable)
        if (odd := route.differences(folded)) is not None:
            passed.append(odd)
    if passed or service.unmatched == DENY:
        return None
    resource = f"{service.name}:{target.path}"
    resource = canonical(resource) or resource
    return RouteMatch(None, service.unmatched, resource, {}, service.method_override)


def _resource(
    route: ServiceRoute, service: Service, target: Target, captures: dict[str, str]
) -> str:
    if route.resource is None:
        resource = f"{service.name}:{target.path}"
    else:
        parts = route.resource.split("{")
        resource = parts[0]
        for part in parts[1:]:
            name, _, text = part.partition("}")
            resource += captures[name] + text
    return canonical(resource) or resource


def action_of(
    found: RouteMatch, target: Target, headers: Headers, body: bytes | None
) -> Action:
    """Return the action that a request is, as the token endpoint would have read it.

    A parameter that is absent is left out. One that cannot be relied on (of no type
    that policy reads, said twice, or also in another spelling) is None, which policy
    holds to be unclear, so that a person decides.

    Args:
        found: the request's match.
        target: its path and query.
        headers: its header fields.
        body: its whole body; None where `RouteMatch.reads_body` does not ask for it
            and it is not empty.

    Returns:
        the action; the agent's own words are no part of it.

    Raises:
        UnreadableBodyError: a parameter is in a body that cannot be read, or the body
            asks for another method.
    """
    parameters: dict[str, object] = {}
    read = found.reads_body(headers)
    content = _content(headers, body or b"") if read else _ABSENT
    if (
        isinstance(content, dict)
        and found.overridable
        and any(map(is_override, content))
    ):
        raise UnreadableBodyError(OVERRIDDEN)
    if found.route is not None:
        if not read and body != b"" and may_hold_fields(headers):
            content = None
        request = _Request(found, target, headers, content, found.route)
        for name, sources in found.route.parameters.items():
            value = request.parameter(name, sources)
            if value is not _ABSENT:
                parameters[name] = value
    return Action((found.scope,), found.scope, found.resource, parameters)


class _Absent:
    """Stands for a parameter that the request does not have."""


_ABSENT: Final = _Absent()


class _Form(dict[str, list[str]]):
    """The fields of a form, each with all its values."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One request whose parameters are read."""

    match: RouteMatch
    target: Target
    headers: Headers
    content: Any
    """The body: a form, a JSON value, `_ABSENT` where there is none or it holds no
    fields, None where it may hold any."""
    route: ServiceRoute

    def parameter(self, name: str, sources: tuple[Source, ...]) -> Any:
        """Return a parameter's value, None where it is unclear, or `_ABSENT`."""
        if not sources[0].counted:
            source = sources[0]
            text_only = source.kind != "body" or isinstance(self.content, _Form)
            return _typed(name, self._value(name, source), text_only=text_only)
        counts = [self._count(name, one) for one in sources]
        stated = [one for one in counts if one is not _ABSENT]
        if None in counts:
            return None
        return sum(stated) if stated else _ABSENT

    def _value(self, name: str, source: Source) -> Any:
        """Return the one value at *source*, as text or as JSON has it."""
        if source.kind == "constant":
            return source.value
        if source.kind == "path":
            return self.match.captures[source.name]
        if source.kind == "body":
            return self._in_body(name, source, single=True)
        return _single(self._texts(source))

    def _texts(self, source: Source) -> list[str] | None:
        """Return the values of a query parameter or header; None where unclear."""
        if source.kind == "query":
            values, alike = self.target.query_values(source.name)
            content = self.content
            if content is None or (
                isinstance(content, dict) and _has(content, source.name)
            ):
                return None  # some servers read both, and prefer either
            return None if alike else values
        found = [v for n, v in self.headers if n == source.name.encode()]
        try:
            return [value.decode("ascii").strip() for value in found]
        except UnicodeDecodeError:
            return None

    def _count(self, name: str, source: Source) -> Any:
        if source.kind in {"query", "header"}:
            values = self._texts(source)
            if source.kind == "header" and values is not None:
                values = [one for value in values for one in value.split(",")]
        else:
            values = self._in_body(name, source, single=False)
        if values is None or isinstance(values, _Absent):
            return values
        if not values and source.kind != "body":
            return _ABSENT
        return _how_many(name, values)

    def _in_body(self, name: str, source: Source, *, single: bool) -> Any:
        """Return what the pointer names; None where another reader may find another."""
        value = self.content
        if self.target.query_values(source.pointer[0]) != ([], False):
            return None  # some servers read both, and prefer either
        for depth, token in enumerate(source.pointer):
            if isinstance(value, dict):
                if _also(value, token) or self._elsewhere(name, value, source, depth):
                    return None
                if token not in value:
                    return _ABSENT
                inner = value[token]
                if isinstance(value, _Form) and single:
                    inner = inner[0] if len(inner) == 1 else None
                value = inner
            elif isinstance(value, list) and _INDEX.fullmatch(token):
                if int(token) >= len(value):
                    return _ABSENT
                value = value[int(token)]
            else:
                return _ABSENT
        return value

    def _elsewhere(
        self, name: str, members: dict[str, object], source: Source, depth: int
    ) -> bool:
        """Tell whether recipients also stand where the route does not count them."""
        if name != "recipients" or depth != len(source.pointer) - 1:
            return False
        counted = {
            one.pointer[depth]
            for one in self.route.parameters[name]
            if one.pointer[:depth] == source.pointer[:depth]
        }
        return any(
            _base(key) in ADDRESSED and key not in counted
            for key, value in members.items()
            if value
        )


def _base(key: str) -> str:
    """Return how a member's name reads to a lenient program, without ``[…]``."""
    return plain_name(key.partition("[")[0])


def _also(members: dict[str, object], token: str) -> bool:
    """Tell whether another member's name reads like *token* to a lenient program."""
    if len(members) > _MOST_MEMBERS:
        return True
    plain = _base(token)
    return any(key != token and _base(key) == plain for key in members)


def _has(members: dict[str, object], name: str) -> bool:
    """Tell whether a member reads like *name* to a lenient program."""
    return name in members or _also(members, name)


def _single(values: list[str] | None) -> Any:
    if not values:
        return None if values is None else _ABSENT
    return values[0] if len(values) == 1 else None


def _typed(name: str, value: Any, *, text_only: bool) -> Any:
    """Give a value the type that policy reads, where it has one clear meaning.

    Text is all that forms, queries, headers and paths have: whole numbers in it are
    numbers where policy reads numbers. Currencies are codes of ISO 4217 in any case.
    """
    if isinstance(value, _Absent) or value is None:
        return value
    if isinstance(value, str):
        if text_only and name in _NUMBERS and _NUMBER.fullmatch(value):
            value = int(value)
        elif name == "currency" and len(value) == 3 and value.isascii():
            return value.upper()
    if isinstance(value, int | float):
        return value if abs(value) <= LARGEST else None
    written = json.dumps(value, ensure_ascii=False)
    # No record or program takes NUL for text; the token endpoint refuses it as well.
    unclear = len(written) > _LONGEST_VALUE or "\\u0000" in written
    return None if unclear else value


def _how_many(name: str, value: Any) -> int | None:
    """Count the members of a list or object, or one text; None where it is neither.

    Recipients are addresses: one that may stand for many cannot be counted.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | dict):
        return None
    if name == "recipients" and not all(map(_is_one, value)):
        return None
    return len(value)


def _is_one(recipient: object) -> bool:
    """Tell whether a recipient, a text or an object about one, is not several."""
    if isinstance(recipient, str):
        return is_one_address(recipient)
    if not isinstance(recipient, dict):
        return False
    return all(
        is_one_address(value)
        if isinstance(value, str) and "@" in value
        else not isinstance(value, list | dict)
        for value in recipient.values()
    )


def _content(headers: Headers, body: bytes) -> Any:
    """Read a body as its content type says.

    Raises:
        UnreadableBodyError: it is compressed, of another type, or not what it says.
    """
    check_plain(headers)
    if not body:
        return _ABSENT
    kind = _media_type(headers)
    try:
        if kind == _FORM:
            return _form(body)
        if _is_json(kind):
            return strict_json.loads(body)
    except BodyError as error:
        raise UnreadableBodyError(error.text) from None
    except ValueError as error:
        raise UnreadableBodyError(f"the body is not JSON as it says: {error}") from None
    raise UnreadableBodyError("the body is no form and no JSON, which its route reads")


def check_plain(headers: Headers) -> None:
    """See that a body is not compressed.

    Raises:
        UnreadableBodyError: it is.
    """
    if any(
        n == b"content-encoding" and v.strip().lower() != b"identity"
        for n, v in headers
    ):
        raise UnreadableBodyError("the body is compressed: send it as it is")


def _is_json(kind: bytes) -> bool:
    return kind == b"application/json" or kind.endswith(b"+json")


def may_hold_fields(headers: Headers) -> bool:
    """Tell whether an upstream may read fields in a body that is not read here."""
    kind = _media_type(headers)
    return not kind or kind.startswith(b"multipart/") or kind == _FORM or _is_json(kind)


def _media_type(headers: Headers) -> bytes:
    """Return the media type of a body; empty where programs may differ about it."""
    types = [value.lower() for name, value in headers if name == b"content-type"]
    return _plain_type(types[0]) if len(types) == 1 else b""


@lru_cache(maxsize=64)
def _plain_type(written: bytes) -> bytes:
    """Return a media type without its parameters; empty where programs may differ.

    Some cut it at a comma or a space, and some look for a word anywhere in it.
    """
    found = _MEDIA_TYPE.fullmatch(written.strip())
    if found is None:
        return b""
    kind, rest = found[1], found[2].replace(b" ", b"").replace(b"\t", b"")
    charsets = re.findall(rb";charset=\"?([^;\"]*)", rest)
    if not {b"utf-8", b"utf8", b"us-ascii"}.issuperset(charsets):
        return b""
    words = (b"urlencoded", b"multipart", b"json")
    if sum(word in written for word in words) > 1:
        return b""
    return kind


def _form(body: bytes) -> _Form:
    """Read ``application/x-www-form-urlencoded``; fields may be repeated.

    Raises:
        BodyError: it is none.
    """
    if body[:1] in b"{[":
        raise BodyError(400, "the body is JSON and says that it is a form")
    pieces = body.split(b"&")
    if len(pieces) > _MOST_FIELDS:
        raise BodyError(400, f"a form may have {_MOST_FIELDS} fields")
    form = _Form()
    for piece in filter(None, pieces):
        name, _, value = piece.partition(b"=")
        form.setdefault(form_value(name, capped=False), []).append(
            form_value(value, capped=False)
        )
        for hidden in piece.split(b";")[1:]:
            # Some servers separate fields by it too: a name that reads alike.
            other = form_value(hidden.partition(b"=")[0], capped=False)
            form.setdefault(f"{other}[;]", [])
    return form
