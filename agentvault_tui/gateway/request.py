"""The one object of a request to a service.

It is parsed once from the agent's request. The decision, the digest, the approver's
page, the ledger's row and the bytes on the wire are all computed from it; a part that
was not parsed does not leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, NamedTuple

from agentvault_tui import __version__
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.config_folder import DENY
from agentvault_tui.gateway.content import (
    BODILESS,
    EMPTY,
    FORM,
    MOST_FIELDS,
    NOTHING,
    Content,
    ContentRule,
    Fields,
    Kind,
    check_fields,
    check_members,
    read_content,
)
from agentvault_tui.gateway.headers import (
    RequestHeaders,
    names_for_record,
    nominated,
    read_headers,
)
from agentvault_tui.gateway.media_types import MediaType
from agentvault_tui.gateway.names import field_names
from agentvault_tui.gateway.overrides import (
    check_credentials,
    check_overrides,
    check_routes,
    check_types,
)
from agentvault_tui.gateway.parameters import (
    RequestParts,
    bound_ids,
    case_of,
    missing,
    other_resources,
    read_parameters,
    required,
    unsaid,
)
from agentvault_tui.gateway.routes import RouteMatch, as_case, match
from agentvault_tui.gateway.services import Service, UpstreamCredential
from agentvault_tui.gateway.sources import Source
from agentvault_tui.gateway.target import Pair, Target, parse_target
from agentvault_tui.gateway.templates import ServiceRoute
from agentvault_tui.model import Action
from agentvault_tui.text import visible
from agentvault_tui.web.reply import Header

_USER_AGENT: Final = f"AgentVault/{__version__}"
_NO_BODY: Final = ContentRule("none")
_COMMON_TYPES: Final = frozenset({None, "application/json", FORM})
"""Types of content that say no more than its members: a patch is another thing."""
UNMATCHED: Final = ServiceRoute("*", "*", "", None, {}, (("", "path"),), rest=True)
"""The route of a request that no route of its service's file matches."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request with a known route, without the content of its body."""

    service: Service
    method: str
    target: Target
    match: RouteMatch
    headers: RequestHeaders
    rule: ContentRule
    kind: Kind
    media: MediaType | None
    encoding: str | None

    @property
    def route(self) -> ServiceRoute:
        """Return its route, or `UNMATCHED`."""
        return self.match.route or UNMATCHED

    @property
    def about(self) -> Action:
        """Return the action without its parameters, for the record of a refusal."""
        route_match = self.match
        return Action((route_match.scope,), route_match.scope, route_match.resource)

    def read_as(self, case: int | None) -> RequestHead:
        """Return the head of a request to which a case of its route applies, if any."""
        if case is None:
            return self
        narrowed = as_case(self.match, self.service, self.target, case)
        return replace(self, match=narrowed)

    def actions(self, reading: BodyReading) -> tuple[Action, ...]:
        """Return the actions of the request, one for each resource.

        Args:
            reading: of its body; the case in it was read already (`read_as`).
        """
        route_match = self.match
        return tuple(
            Action(
                (route_match.scope,),
                route_match.scope,
                resource,
                dict(reading.parameters),
                money=self.route.amounts.money(reading.parameters),
            )
            for resource in (route_match.resource, *reading.resources)
        )

    def job(self, *, elevated: bool = False) -> BodyJob:
        """Return the inputs of `read_body`, which a worker process may run.

        Args:
            elevated: whether the token is for one action, which has to state all parts.
        """
        return BodyJob(
            self.route,
            self.match.captures,
            self.target,
            self.headers,
            self.rule,
            self.kind,
            self.media,
            self.encoding,
            overridable=self.service.method_override,
            credential=self.service.credential.name,
            elevated=elevated,
        )


class BodyJob(NamedTuple):
    """The inputs of `read_body` for one request; pickled for a worker process."""

    route: ServiceRoute
    captures: Mapping[str, str]
    target: Target
    headers: RequestHeaders
    rule: ContentRule
    kind: Kind
    media: MediaType | None
    encoding: str | None
    overridable: bool
    credential: str
    elevated: bool


class BodyReading(NamedTuple):
    """The body of one request as it is sent, and the parameters of the request."""

    content: Content
    parameters: dict[str, object]
    unsaid: tuple[str, ...]
    """Parts that no parameter states, if the token is elevated; see `unsaid`."""
    bound_ids: tuple[str | None, ...] = ()
    """See `bound_ids`."""
    case: int | None = None
    """The place of the case that applies; see `case_of`."""
    resources: tuple[str, ...] = ()
    """Further ones that the request acts on; see `other_resources`."""


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """One request to a service, as it is decided, shown, recorded and sent."""

    head: RequestHead
    content: Content

    @classmethod
    def of(cls, head: RequestHead, content: Content, requester: str) -> ServiceRequest:
        """Build the request that is sent for *requester*."""
        if head.service.idempotency_keys == "per_agent":
            head = replace(head, headers=head.headers.with_keys_of(requester))
        return cls(head, content)

    @property
    def url(self) -> str:
        """Return the URL that it goes to, without the credential."""
        return f"{self.head.service.origin}{self.head.target.encoded}"

    @property
    def is_drained(self) -> bool:
        """Check whether the service always reads its body to the end, however sent."""
        return self.head.route.drains_bodies

    def shown(self) -> dict[str, str]:
        """Return the headers that leave as they are shown and recorded."""
        headers, encoding = dict(self.head.headers.leaving), self.content.encoding
        return headers | ({"content-encoding": encoding} if encoding else {})

    def lines(self) -> list[Pair]:
        """Return the headers that are sent, without the credential and the framing."""
        headers = self.head.headers
        return [
            *headers.leaving,
            *headers.trace,
            *self.content.headers,
            ("User-Agent", _USER_AGENT),
            ("Accept-Encoding", "identity"),
        ]

    def detail(self) -> dict[str, object]:
        """Return the members of its ledger rows, without those of the body."""
        target, headers = self.head.target, self.head.headers
        dropped = names_for_record(headers.dropped)
        return {
            "method": self.head.method,
            "path": target.encoded_path,
            "query": target.encoded_query or None,
            "headers": self.shown(),
            **({"dropped": dropped} if dropped else {}),
            **({"trace": dict(headers.trace)} if headers.trace else {}),
            **({"idempotency_keys": dict(headers.keys)} if headers.keys else {}),
        }

    def described(
        self,
        sha256: object,
        size: object,
        references: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """Return the request a person decides about; see `StepUp.request_json`.

        Args:
            sha256: of the content.
            size: of the content, in bytes.
            references: the documents that the route binds; see `Referent.described`.

        Returns:
            JSON. Trace context is left out, since it differs between two tries of a
            client. The SHA-256 of the service's file is there: an approval is for the
            credential and the certificate authorities that the file named, too.
        """
        return to_json(
            {
                "method": self.head.method,
                "url": self.url,
                "headers": dict(sorted(self.shown().items())),
                "body_sha256": sha256,
                "body_bytes": size,
                **self.content.described(),
                **({"references": list(references)} if self.head.route.binds else {}),
                "configuration_sha256": self.head.service.sha256,
            }
        )


def read_head(
    service: Service,
    method: str,
    raw_target: bytes,
    received: Sequence[Header],
    *,
    has_body: bool,
) -> RequestHead:
    """Read all of a request but its body.

    Args:
        service: the service that is called.
        method: the request's.
        raw_target: path and query at the service, as received.
        received: headers as received, without the agent's token.
        has_body: whether the request has a body of at least one byte.

    Returns:
        the head, with a known route.

    Raises:
        UnreadableRequestError: the request is ambiguous, has no route
            (``no_route``), or holds a part that the route does not take.
    """
    target = parse_target(raw_target, marks=service.escaped_marks)
    route_match = match(service, method, target)
    if route_match is None:
        path = visible(target.encoded_path, 200)
        text = f"no route of services/{service.name}.toml matches {method} {path}"
        raise UnreadableRequestError("no_route", text, status=403)
    _check_credential(service.credential, target)
    route = route_match.route or UNMATCHED
    declared = route.names("query")
    pairs = [(n, v) for n, v in target.query if n not in declared]
    check_routes("query", (name for name, _ in pairs))
    check_types("query", (name for name, _ in pairs))
    check_credentials("query", (n for n, _ in pairs), service.credential.name)
    if service.method_override:
        check_overrides("query", pairs)
    headers = read_headers(
        received,
        method=method,
        listed=route.listed if route_match.route else service.listed,
        ranges=route.ranges,
        overridable=service.method_override,
    )
    rule = route.content
    if rule.kind is None and method in BODILESS:
        rule = _NO_BODY
    kind: Kind = "none"
    media = encoding = None
    if has_body:
        media = _media_type(received)
        kind = rule.kind_of(media)
        encoding = _encoding(received, rule, kind)
    if encoding is not None:
        dropped = tuple(one for one in headers.dropped if one != "content-encoding")
        headers = replace(headers, dropped=dropped)
    return RequestHead(
        service, method, target, route_match, headers, rule, kind, media, encoding
    )


def read_body(job: BodyJob, raw: bytes) -> BodyReading:
    """Read a request's body, and the parameters of the whole request.

    Args:
        job: from `RequestHead.job`.
        raw: the body as received; empty if there is none or it is opaque.

    Returns:
        the content as it is sent, and the parameters.

    Raises:
        UnreadableRequestError: the body is ambiguous or cannot be read, asks for
            another method, or lacks a value that the route requires.
    """
    content, fields = NOTHING, EMPTY
    route = job.route
    if job.kind == "opaque":
        content = Content("opaque", str(job.media), None, job.encoding)
        fields = Fields("opaque")
    elif job.kind != "none" and job.media is not None:
        pointers = [one.pointer for one in _sources(route) if one.kind == "body"]
        bases = frozenset().union(*(field_names(one[0]) for one in pointers))
        content, fields = read_content(job.rule, job.kind, job.media, raw, bases)
        named = len(fields.value) if fields.kind in {"form", "multipart"} else 0
        if named and named + len(job.target.query) > MOST_FIELDS:
            text = f"query and body together may have {MOST_FIELDS} values"
            raise UnreadableRequestError("unreadable_body", text)
        check_fields(
            *(fields, route.names("body")),
            methods=job.overridable,
            credential=job.credential,
        )
        if fields.kind == "json":
            check_members(fields.value, pointers)
    parts = RequestParts(route, job.captures, job.target, job.headers, fields)
    if (case := case_of(parts)) is not None:
        route = route.cases[case].route
        parts = replace(parts, route=route)
        if route.scope == DENY:
            text = f"a case of the route {route.method} {route.path} refuses it"
            raise UnreadableRequestError("no_route", text, status=403)
    if route.requires and (lacks := missing(parts)):
        raise required(lacks)
    ids = bound_ids(parts) if route.binds else ()
    parameters = read_parameters(parts)
    more = unsaid(parts, parameters) if job.elevated else ()
    if job.elevated and content.type not in _COMMON_TYPES:
        more = (f"the type {content.type}", *more)
    others = other_resources(parts) or ()
    return BodyReading(content, parameters, more, ids, case, others)


def _check_credential(credential: UpstreamCredential, target: Target) -> None:
    """Refuse a query parameter that a service may read instead of the credential.

    Raises:
        UnreadableRequestError: ``ambiguous_query``.
    """
    if credential.kind == "query":
        names = field_names(credential.name)
        if any(field_names(name) & names for name, _ in target.query):
            raise UnreadableRequestError(
                "ambiguous_query", "the query names the credential in another spelling"
            )


def _sources(route: ServiceRoute) -> Iterator[Source]:
    """Yield all places that a route and its cases read."""
    for one in route.variants:
        yield from chain.from_iterable(one.parameters.values())
        yield from one.requires
        yield from (binding.id for binding in one.binds if binding.id is not None)
        for template in one.also:
            yield from (part for part in template if isinstance(part, Source))
    for case in route.cases:
        yield from (condition.source for condition in case.conditions)


def _media_type(received: Sequence[Header]) -> MediaType | None:
    """Return the media type of a body, if it is stated once and is end-to-end."""
    if "content-type" in nominated(received):
        return None
    types = [value for name, value in received if name == b"content-type"]
    return MediaType.parse(types[0].decode("latin-1")) if len(types) == 1 else None


def _encoding(received: Sequence[Header], rule: ContentRule, kind: Kind) -> str | None:
    """Return the ``Content-Encoding`` of an opaque body that has one.

    Raises:
        UnreadableRequestError: 415, a readable body is compressed.
    """
    values = [value for name, value in received if name == b"content-encoding"]
    text = b", ".join(values).decode("latin-1").strip().lower()
    if text in {"", "identity"}:
        return None
    if kind != "opaque" or not text.isascii() or not text.isprintable():
        raise rule.refusal("the body is compressed: send it as it is")
    return text
