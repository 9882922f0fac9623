"""Service files: the gateway's upstream APIs and their actions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from agentvault_tui.authorities import read_source, source_of, split_source
from agentvault_tui.broker.policy_files import NAME
from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.amounts import NO_MONEY, MoneyTable, amount_rule
from agentvault_tui.gateway.bindings import BindingTable
from agentvault_tui.gateway.config_folder import DENY, ConfigFolder, check_scope
from agentvault_tui.gateway.route_index import EarlierRoutes, RouteIndex
from agentvault_tui.gateway.same_as import SAME_AS, parse_same_as
from agentvault_tui.gateway.sources import HEADER_NAME
from agentvault_tui.gateway.templates import (
    CaseTable,
    RouteDefaults,
    RouteTable,
    ServiceRoute,
    listed_headers,
    parse_route,
)
from agentvault_tui.home import Home
from agentvault_tui.model import sha256_hex
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.settings import CONNECTION
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table

MAX_ROUTES: Final = 1000
_HOST: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_FRAMING: Final = frozenset(
    "connection content-encoding content-length content-type cookie expect host"  # noqa: SIM905
    " keep-alive te trailer transfer-encoding upgrade".split()
)
"""Headers that frame or route a message: no credential travels in them."""
_SCHEMES: Final = frozenset({"https", "http"})
_KINDS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    kind: (frozenset(needed.split()), frozenset(optional.split()))
    for kind, needed, optional in (
        ("none", "", ""),
        ("bearer", "secret", ""),
        ("basic", "secret", "username"),
        ("header", "name secret", "prefix"),
        ("query", "name secret", ""),
        ("client_credentials", "token_endpoint client_id secret", "scope"),
        (
            "refresh_token",
            "token_endpoint client_id secret",
            "scope client_secret",
        ),
        ("connection", "connection", ""),
    )
}
"""The keys that each kind of credential needs, and those it may have."""


class UpstreamCredential(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The credential that the gateway attaches to a request."""

    kind: Literal[
        "none",
        "bearer",
        "basic",
        "header",
        "query",
        "client_credentials",
        "refresh_token",
        "connection",
    ] = "none"
    secret: str = ""
    """The name of a sealed secret: the token, password or key; for
    ``client_credentials`` the client's secret, for ``refresh_token`` that token."""
    username: str = ""
    name: str = ""
    """The header or query parameter."""
    prefix: str = ""
    """The text before the secret in the header, such as ``Token ``."""
    token_endpoint: str = ""
    client_id: str = ""
    client_secret: str = ""
    """The name of a sealed secret: the client's, where a refresh needs one."""
    scope: str = ""
    connection: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of the sealed secrets it needs."""
        return tuple(name for name in (self.secret, self.client_secret) if name)

    def check(self, *, allow_http: bool) -> None:
        """Refuse keys that this kind has not, and values no request can carry.

        Raises:
            ServiceError: says which.
        """
        needed, optional = _KINDS[self.kind]
        stated = {
            key
            for key in self.__struct_fields__
            if key != "kind" and getattr(self, key)
        }
        if extra := sorted(stated - needed - optional):
            raise ServiceError(
                f"credential: the kind {self.kind} has no {extra[0]}",
                f"it has {', '.join(sorted(needed | optional)) or 'no other key'}",
            )
        if missing := sorted(needed - stated):
            raise ServiceError(
                f"credential: the kind {self.kind} needs {missing[0]}",
                f'add {missing[0]} = "…" below [credential]',
            )
        for key in ("secret", "client_secret"):
            if (value := getattr(self, key)) and not NAME.fullmatch(value):
                raise ServiceError(
                    f"credential: {key} is no name of a sealed secret",
                    "name one of `agentvault secrets list`; no value belongs here",
                )
        if self.kind == "header" and (
            not HEADER_NAME.fullmatch(self.name) or self.name.lower() in _FRAMING
        ):
            raise ServiceError("credential: name is no header that can carry it")
        if not _PRINTABLE.fullmatch(self.prefix + self.username + self.name):
            raise ServiceError("credential: a value holds more than printable ASCII")
        if ":" in self.username:
            raise ServiceError("credential: a username of Basic has no colon")
        if self.connection and not CONNECTION.fullmatch(self.connection):
            raise ServiceError("credential: connection is not the name of one")
        if self.token_endpoint:
            parse_origin(self.token_endpoint, allow_http=allow_http, whole=False)

    @property
    def token_origin(self) -> ServerOrigin | None:
        """Return the origin of the token endpoint, if it has one."""
        if not self.token_endpoint:
            return None
        return ServerOrigin.of(urlsplit(self.token_endpoint))


@dataclass(frozen=True, slots=True)
class Service:
    """One upstream API, as its file describes it."""

    name: str
    origin: ServerOrigin
    unmatched: str
    """``deny``, or the scope of requests that no route matches."""
    allow_private: bool
    """Whether loopback, link-local and private addresses may be reached."""
    allow_http: bool
    authorities: str
    """The authorities that may vouch for it, in PEM; empty: the system's."""
    credential: UpstreamCredential
    routes: tuple[ServiceRoute, ...]
    sha256: str
    """Of the file, with its ``ca_file``."""
    index: RouteIndex
    """The routes by method and path."""
    method_override: bool = True
    """Whether it may take another method from a query or body (``_method``)."""
    idempotency_keys: Literal["shared", "per_agent"] = "shared"
    """Whether keys leave as agents state them, or as keys of each agent's own."""
    escaped_marks: bool = False
    """Whether it reads ``%3F`` and ``%23`` of a path as a part of a name."""
    same_as: tuple[str, ...] = SAME_AS
    """Suffixes that name no other resource; see `same_as.parse_same_as`."""
    listed: frozenset[str] = frozenset()
    """Further headers that are sent, in lower case; see `headers.ALWAYS`."""
    drains_bodies: bool = False
    """Whether it reads each request's body to its end, as an operator has stated."""

    @property
    def resources(self) -> list[str | None]:
        """Return the resources of its routes, up to the first value of a request."""
        return [
            resource
            for one in chain.from_iterable(route.variants for route in self.routes)
            for resource in (one.resource, *(str(parts[0]) for parts in one.also))
        ]

    @property
    def destinations(self) -> tuple[ServerOrigin, ...]:
        """Return where its secrets are sent, or a token that is had with them."""
        token_origin = self.credential.token_origin
        return (self.origin,) if token_origin is None else (self.origin, token_origin)


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How the last call to a service went."""

    last_used: datetime
    problem: str | None
    """Why it had no answer, if it had none."""


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    origin: str
    unmatched: str = DENY
    allow_private: bool = False
    allow_http: bool = False
    ca_file: str = ""
    method_override: bool = True
    idempotency_keys: Literal["shared", "per_agent"] = "shared"
    escaped_marks: bool = False
    colons: bool = False
    same_as: tuple[str, ...] = SAME_AS
    headers: list[str] = []
    drains_bodies: bool = False
    credential: UpstreamCredential = UpstreamCredential()
    money: MoneyTable = NO_MONEY
    routes: list[RouteTable] = []


_SHAPES: Final = {
    "routes[]": RouteTable,
    "routes[].binds[]": BindingTable,
    "routes[].cases[]": CaseTable,
    "routes[].cases[].binds[]": BindingTable,
    "routes[].money": MoneyTable,
    "money": MoneyTable,
    "credential": UpstreamCredential,
}


def parse_service(name: str, text: str, catalogue: Catalogue, base: Path) -> Service:
    """Read and validate one service file.

    Args:
        name: the service's name: the file's without ``.toml``.
        text: the file's text, also joined with its ``ca_file`` (`read_source`).
        catalogue: the scopes there are.
        base: the folder that a relative ``ca_file`` starts from.

    Returns:
        the service.

    Raises:
        ServiceError: with the fault and its remedy.
    """
    source = source_of(text, base)
    text, files = split_source(source)
    table = read_table(text, _File, _SHAPES)
    origin = parse_origin(table.origin, allow_http=table.allow_http)
    table.credential.check(allow_http=table.allow_http)
    if table.unmatched != DENY:
        check_scope(table.unmatched, catalogue, "unmatched")
    if len(table.routes) > MAX_ROUTES:
        raise ServiceError(f"it has more than {MAX_ROUTES} routes")
    amount_rule(NO_MONEY, table.money)  # refused also where no route has amounts
    defaults = RouteDefaults(
        *(listed_headers(table.headers), table.drains_bodies, table.money, table.colons)
    )
    routes = _parse_routes(table.routes, catalogue, defaults)
    return Service(
        name=name,
        origin=origin,
        unmatched=table.unmatched,
        allow_private=table.allow_private,
        allow_http=table.allow_http,
        authorities=files.get(table.ca_file, ""),
        credential=table.credential,
        routes=tuple(routes),
        sha256=sha256_hex(source),
        index=RouteIndex(routes),
        method_override=table.method_override,
        idempotency_keys=table.idempotency_keys,
        escaped_marks=table.escaped_marks,
        same_as=parse_same_as(table.same_as),
        listed=defaults.headers,
        drains_bodies=defaults.drains_bodies,
    )


def _parse_routes(
    tables: Sequence[RouteTable], catalogue: Catalogue, defaults: RouteDefaults
) -> list[ServiceRoute]:
    routes: list[ServiceRoute] = []
    earlier = EarlierRoutes()
    for number, one in enumerate(tables, start=1):
        where = f"route {number} ({visible(one.method, 20)} {visible(one.path, 80)})"
        try:
            route = parse_route(one, catalogue, defaults)
        except ServiceError as error:
            raise ServiceError(f"{where}: {error.what}", error.remedy) from None
        if (before := earlier.covering(route)) is not None:
            raise ServiceError(
                f"{where} can never match: route {before} matches all that it does",
                "put the narrower route first, or remove one",
            )
        earlier.add(number, route)
        routes.append(route)
    return routes


def check_service(name: str, text: str, catalogue: Catalogue, base: Path) -> None:
    """Validate one service file, as `parse_service` does.

    Raises:
        ServiceError: with the fault and its remedy.
    """
    parse_service(name, read_source(text, base), catalogue, base)


def parse_origin(url: str, *, allow_http: bool, whole: bool = True) -> ServerOrigin:
    """Read the origin of *url*, whose host has only one spelling.

    Args:
        url: such as ``https://api.stripe.com``.
        allow_http: whether it may be ``http``.
        whole: whether the URL is an origin and nothing more; else a path and a query
            may follow, as in a token endpoint.

    Returns:
        the origin.

    Raises:
        ServiceError: it is not one.
    """
    shown = f"'{visible(url, 120)}'"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ServiceError(f"{shown} is no URL", "write https://HOST") from None
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ServiceError(f"{shown} is no URL of https", "write https://HOST")
    if parts.scheme == "http" and not allow_http:
        raise ServiceError(
            f"{shown} is not encrypted",
            "use https, or say allow_http = true where nobody can listen",
        )
    if whole and url != f"{parts.scheme}://{parts.netloc}":
        raise ServiceError(
            f"{shown} is more than an origin",
            "write scheme, host and port; paths belong to routes",
        )
    if "@" in parts.netloc or "#" in url or parts.netloc != parts.netloc.lower():
        raise ServiceError(f"{shown} has an account, a fragment or capitals")
    if not is_host(host) or port == 0 or parts.netloc.endswith(":"):
        raise ServiceError(
            f"the host or port of {shown} is not one",
            "write a name in lower case (xn-- for other scripts) or an address as"
            " programs print it",
        )
    return ServerOrigin.of(parts)


def origin_lines(url: str) -> list[str]:
    """Return the lines of a service file for an origin that an operator names.

    Raises:
        ServiceError: it is not one.
    """
    origin = parse_origin(url, allow_http=True)
    return [
        f'origin = "{origin}"',
        *(["allow_http = true"] if origin.scheme == "http" else []),
        *(["allow_private = true"] if origin.is_private else []),
    ]


def is_host(host: str) -> bool:
    """Check whether a host has no other spelling, such as ``0x7f.1`` for an address.

    An IPv4 address in IPv6 (RFC 4291 section 2.5.5.2) is one; a zone is of one machine.
    """
    try:
        if ":" in host:
            address = ipaddress.IPv6Address(host)
            other = address.ipv4_mapped or address.scope_id
            return other is None and str(address) == host
        if _NUMERIC.fullmatch(host):
            return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False
    return _HOST.fullmatch(host) is not None and len(host) <= 253


class Services(ConfigFolder[Service]):
    """The services in effect."""

    def __init__(self, home: Home, catalogue: Callable[[], Catalogue]) -> None:
        """Read nothing yet; *catalogue* returns the one in effect."""
        super().__init__(
            home,
            "services",
            lambda name, text: parse_service(name, text, catalogue(), home.config),
        )
