"""The content of a request: parsed once, and encoded again for the service.

JSON (RFC 8259), forms (WHATWG URL, section 5), ``multipart/form-data`` (RFC 7578), or,
where a service's file says so, opaque bytes that pass as they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote_plus

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.multipart_body import (
    TYPED,
    Part,
    ambiguous,
    encode_multipart,
    read_parts,
    unreadable,
)
from agentvault_tui.gateway.names import (
    alike,
    alike_fields,
    are_too_long,
    field_names,
)
from agentvault_tui.gateway.overrides import (
    check_credentials,
    check_overrides,
    check_routes,
    check_types,
)
from agentvault_tui.gateway.target import Pair, decode_form_text
from agentvault_tui.json_document import encode_document, read_document
from agentvault_tui.strict_json import AmbiguousError
from agentvault_tui.text import visible

Kind = Literal["none", "json", "form", "multipart", "opaque"]
READABLE: Final[tuple[Kind, ...]] = ("json", "form", "multipart")
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
"""Methods that have no body in requests, unless a route says so."""
MOST_FIELDS: Final = 1_000
"""Fields of a form or multipart body, with the pairs of the query: PHP
(`max_input_vars`), Node (`querystring`, `qs`), Go (multipart) and Tomcat
(`maxParameterCount`, which counts both together) read no more, and report no error."""
MOST_PARTS: Final = 50
"""Unless the route raises it: Tomcat's `maxPartCount`, which drops all fields."""
_JSON: Final = re.compile(
    r"application/(?:(?!.*(?:urlencoded|form))[\w!#$&^.-]+\+)?json"
)
"""Without names in which a service may look for another type."""
_FIELDS: Final = re.compile(
    "json|urlencoded|form|multipart|yaml|graphql|(?<!^image/svg[+])xml"
)
"""Marks of a media type in which services look for fields."""
_BRIEF_FIELDS: Final = re.compile("json|urlencoded|xml")
"""Those in a boundary or charset: browsers write ``WebKitFormBoundary``."""
_UNEXPECTED: Final = (
    "this route takes no body. Send the request without one, or an operator can add a"
    ' body to the route, such as body = "json"'
)


def has_fields(type_: str) -> bool:
    """Check whether services may look for fields in content of a media type."""
    return _FIELDS.search(type_) is not None


@dataclass(frozen=True, slots=True)
class ContentRule:
    """The content that a route accepts."""

    kind: Kind | None = None
    """None: JSON or a form, as its ``Content-Type`` says."""
    types: tuple[str, ...] = ()
    """Media types, exact or with ``/*``; of JSON and forms with their parameters."""
    max_bytes: int = 2**20
    max_parts: int = MOST_PARTS
    """Of a multipart body."""

    def accepts(self) -> list[str]:
        """Return the media types that the route accepts, for the agent."""
        readable = {
            "json": ["application/json", "application/*+json"],
            "form": [FORM],
            "multipart": [MULTIPART],
            None: ["application/json", "application/*+json", FORM],
        }
        return [*readable.get(self.kind, []), *self.types]

    def kind_of(self, media: MediaType | None) -> Kind:
        """Return the kind of content that a request with this media type has.

        Raises:
            UnreadableRequestError: 415 ``unsupported_body``; 400 ``unexpected_body``.
        """
        if self.kind == "none":
            raise UnreadableRequestError("unexpected_body", _UNEXPECTED)
        if media is None:
            raise self.refusal("the body has no Content-Type that can be read")
        kind = self._kind_of(media)
        if kind is None:
            named = visible(media.type, 60)
            raise self.refusal(f"this route takes no body of the type {named}")
        if kind != "opaque" and not self._is_listed(media):
            read = {"charset", "boundary"} if kind == "multipart" else {"charset"}
            extra = any(name not in read for name, _ in media.parameters)
            if extra or not media.is_utf8:
                raise self.refusal("a parameter of Content-Type is not read here")
        return kind

    def _kind_of(self, media: MediaType) -> Kind | None:
        if self.kind == "opaque":
            return "opaque" if self._is_opaque(media) else None
        if self.kind == "multipart":
            return "multipart" if media.type == MULTIPART else None
        if media.type == FORM:
            return "form" if self.kind in {None, "form"} else None
        if _JSON.fullmatch(media.type):
            return "json" if self.kind in {None, "json"} else None
        return None

    def _is_opaque(self, media: MediaType) -> bool:
        """Check whether the file lists a type as opaque.

        A wildcard covers no type in which services look for fields, such as
        ``image/x+json``: the file has to name such a type exactly. A parameter must not
        hold such a type, since services search the whole header for it.
        """
        if self._is_listed(media):
            return True
        for name, value in media.parameters:
            brief = name in {"boundary", "charset"}
            marks = _BRIEF_FIELDS if brief else _FIELDS
            if marks.search(f"{name}={value.lower()}"):
                return False
        listed = {one.lower() for one in self.types}
        if has_fields(media.type):
            return media.type in listed
        return bool({media.type, media.type.partition("/")[0] + "/*"} & listed)

    def _is_listed(self, media: MediaType) -> bool:
        return any(MediaType.parse(one) == media for one in self.types)

    def takes(self, type_: str) -> bool:
        """Check whether the route takes a media type that has no parameters."""
        return self._kind_of(MediaType(type_)) is not None

    def type_sent(self, kind: Kind, media: MediaType) -> str:
        """Return the ``Content-Type`` that is sent; it is always written here.

        Frameworks do not parse a ``+json`` type that they have not registered, so one
        that the file does not list is sent as JSON (RFC 8259 section 11).
        """
        if kind == "opaque" or self._is_listed(media):
            return str(media)
        return "application/json" if kind == "json" else media.type

    def refusal(self, text: str) -> UnreadableRequestError:
        """Return the refusal of content that the route does not take."""
        return UnreadableRequestError(
            "unsupported_body", text, status=415, accepts=self.accepts()
        )


DEFAULT_RULE: Final = ContentRule()


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a request, as it is sent."""

    kind: Kind = "none"
    type: str | None = None
    """The ``Content-Type``."""
    encoded: bytes | None = b""
    """None where an opaque body is streamed or spooled."""
    encoding: str | None = None
    """The ``Content-Encoding`` of an opaque body."""
    sha256: str | None = field(init=False, default=None)
    """Of ``encoded``; computed where a body is read, which may be a worker process."""

    def __post_init__(self) -> None:
        """Compute the digest."""
        if self.encoded is not None:
            digest = hashlib.sha256(self.encoded).hexdigest()
            object.__setattr__(self, "sha256", digest)

    def described(self) -> dict[str, object]:
        """Return the members that describe it in `StepUp.request_json`."""
        encoding = {"body_encoding": self.encoding} if self.encoding else {}
        return {"body_kind": self.kind, "body_type": self.type, **encoding}

    @property
    def headers(self) -> list[Pair]:
        """Return the headers that describe it."""
        given = (("Content-Type", self.type), ("Content-Encoding", self.encoding))
        return [(name, value) for name, value in given if value]


NOTHING: Final = Content()


class Fields(NamedTuple):
    """Readable content as parameters are read from it."""

    kind: Kind
    value: Any = None
    """A JSON document; or the pairs of a form or multipart body, in which the value of
    a file is None."""
    inner: frozenset[str] = frozenset()
    """Names of the objects in parts of a multipart body that are JSON."""

    @property
    def texts(self) -> dict[str, list[str | None]]:
        """Return the values of a form's or multipart body's fields, by name."""
        texts: dict[str, list[str | None]] = {}
        for name, value in self.value:
            texts.setdefault(name, []).append(value)
        return texts

    def top(self) -> Iterable[tuple[str, object]]:
        """Return the members at the top level."""
        if self.kind in {"form", "multipart"}:
            return list(self.value)
        return self.value.items() if isinstance(self.value, dict) else ()


EMPTY: Final = Fields("none")


def read_content(
    rule: ContentRule,
    kind: Kind,
    media: MediaType,
    raw: bytes,
    bases: frozenset[str] = frozenset(),
) -> tuple[Content, Fields]:
    """Parse a readable body, and encode it again.

    Args:
        rule: of the route.
        kind: see `ContentRule.kind_of`.
        media: of the body.
        raw: the body, not empty.
        bases: see `field_names`, of the fields that parameters read.

    Returns:
        the content that is sent, and its fields.

    Raises:
        UnreadableRequestError: ``unreadable_body`` or ``ambiguous_body``.
    """
    sent = rule.type_sent(kind, media)
    if kind == "json":
        value = _json(raw)
        return Content(kind, sent, encode_document(value)), Fields(kind, value)
    if kind == "form":
        pairs = _form(raw)
        if not pairs:
            return NOTHING, EMPTY
        _check_names([name for name, _ in pairs], bases)
        return Content(kind, sent, encode_form(pairs)), Fields(kind, pairs)
    parts = read_parts(raw, media.boundary, rule.max_parts)
    _check_names([part.name for part in parts], bases)
    if any(p.type and not p.is_file and field_names(p.name) & bases for p in parts):
        raise ambiguous(TYPED)
    fields = [(p.name, None if p.is_file else p.content.decode()) for p in parts]
    boundary, encoded = encode_multipart(parts)
    content = Content(kind, f"{MULTIPART}; boundary={boundary}", encoded)
    inner = _inner_names(parts) if bases else frozenset()
    return content, Fields(kind, fields, inner)


def check_fields(
    fields: Fields, declared: Iterable[str], *, methods: bool, credential: str
) -> None:
    """Refuse a body that overrides method, path, type or credential at its top level.

    Args:
        fields: of the body.
        declared: names that the route reads itself.
        methods: whether the service may take a method from the body.
        credential: the name of the service's; see `check_credentials`.

    Raises:
        UnreadableRequestError: ``method_override``, ``route_override``,
            ``type_override`` or ``credential_override``.
    """
    named = frozenset(declared)
    top = [(name, value) for name, value in fields.top() if name not in named]
    if fields.kind != "json":
        check_routes("body", (name for name, _ in top))
    check_types("body", (name for name, _ in top))
    check_credentials("body", (name for name, _ in top), credential)
    if methods:
        check_overrides("body", top)


def encode_form(pairs: Sequence[Pair]) -> bytes:
    """Encode pairs as ``application/x-www-form-urlencoded``."""
    coded = (
        f"{quote_plus(name, safe='')}={quote_plus(value, safe='')}"
        for name, value in pairs
    )
    return "&".join(coded).encode("ascii")


def check_members(value: object, pointers: Iterable[Sequence[str]]) -> None:
    """Refuse names that fold alike in the objects that a parameter is read through.

    The top object is always checked. Deeper objects that no parameter reads are shown
    and sent whole: in these, only exact duplicates are refused.

    Args:
        value: a JSON document.
        pointers: the tokens of the JSON Pointers that parameters are read at.

    Raises:
        UnreadableRequestError: ``ambiguous_body``.
    """
    seen: set[int] = set()
    for pointer in [(), *pointers]:
        inner: Any = value
        for token in (*pointer, None):
            if isinstance(inner, dict):
                if id(inner) not in seen and (pair := alike(inner)):
                    raise _alike(pair)
                seen.add(id(inner))
                inner = inner.get(token) if token is not None else None
            elif isinstance(inner, list) and token is not None and token.isdecimal():
                place = int(token) if len(token) < 10 else len(inner)
                inner = inner[place] if place < len(inner) else None
            else:
                break


def _json(raw: bytes) -> object:
    try:
        value = read_document(raw, exact=True)
    except AmbiguousError as error:
        raise ambiguous(f"the body is read in several ways: {error}") from None
    except ValueError as error:
        raise unreadable(f"the body is not valid JSON: {error}") from None
    if b"proto" in raw or b"\\u" in raw or not raw.isascii():
        names = member_names([value])
        # JavaScript's Object.assign makes the members of __proto__ members of the copy
        # (ECMA-262, B.2.2.1): a service reads values there that no parameter stated.
        if "__proto__" in names:
            raise ambiguous("the body has a member named __proto__")
        _check_length(names)
    return value


def member_names(values: Iterable[object]) -> set[str]:
    """Return the names of all objects in some JSON values, at any depth."""
    names: set[str] = set()
    waiting = list(values)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            names |= inner.keys()
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner
    return names


def _check_length(names: Iterable[str]) -> None:
    """Refuse names that would make the agents who wait for their turn wait long."""
    if are_too_long(names):
        raise unreadable("the names in the body that are not ASCII are too long")


def _form(raw: bytes) -> list[Pair]:
    if b"\0" in raw:  # servers end a name or value there
        raise ambiguous("the form holds NUL")
    pieces = [piece for piece in raw.split(b"&") if piece]
    if len(pieces) > MOST_FIELDS:
        raise unreadable(f"a form may have {MOST_FIELDS} fields")
    try:
        halves = (piece.decode().partition("=") for piece in pieces)
        pairs = [(decode_form_text(n), decode_form_text(v)) for n, _, v in halves]
    except UnicodeDecodeError:
        raise ambiguous("the form is not UTF-8") from None
    except ValueError as error:
        raise ambiguous(f"the form cannot be decoded: {error}") from None
    if any(name.lower() == "_charset_" for name, _ in pairs):
        # Servers decode the other fields by its value (HTML, section 4.10.21.7).
        raise ambiguous("the form names a charset")
    return pairs


def _inner_names(parts: Iterable[Part]) -> frozenset[str]:
    """Return the names of the objects in parts whose media type says JSON.

    Frameworks bind such a part as the body's fields, also where it has a file name, as
    each Blob of a browser has.

    Raises:
        UnreadableRequestError: ``ambiguous_body``; a part is no JSON.
    """
    documents = []
    for part in parts:
        if "json" in (part.type or ""):
            try:
                documents.append(_json(part.content))
            except UnreadableRequestError as error:
                text = f"a part is not read in one way: {error.what}"
                raise ambiguous(text) from None
    names = member_names(documents)
    _check_length(names)
    return frozenset(names)


def _check_names(names: Sequence[str], bases: frozenset[str]) -> None:
    """Refuse names of fields that a service may take for one name."""
    if not all(names):
        raise ambiguous("a value of the body has no name")
    _check_length(names)
    if pair := alike_fields(names):
        raise _alike(pair)
    seen: dict[str, str] = {}
    for name in names if bases else ():
        for base in field_names(name) & bases:
            if (other := seen.setdefault(base, name)) != name:
                raise _alike((other, name))


def _alike(names: Pair) -> UnreadableRequestError:
    one, other = (visible(name, 60) for name in names)
    return ambiguous(
        f"the body has {one} and {other}, which a service may take for one name"
    )
