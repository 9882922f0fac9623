"""The content of ``alerts.toml``: sinks, and the events for them.

Secrets are named here and stored encrypted; nothing in the file is one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

import msgspec

from agentvault_tui.authorities import source_of, split_source
from agentvault_tui.broker.secret_uses import SecretUse
from agentvault_tui.clock import seconds_of
from agentvault_tui.errors import ServiceError
from agentvault_tui.home import Home
from agentvault_tui.model import EventType, Risk
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_table
from agentvault_tui.web.reach import may_reach

Kind = Literal["slack", "webhook", "email", "ntfy", "syslog", "otlp", "file"]
EXPORTS: Final = frozenset({"syslog", "otlp", "file"})
"""Kinds that carry every event, without a route."""
NEEDS_PERSON: Final = "needs_person"
DENIAL_BURST: Final = "denial_burst"
LEDGER_FAULT: Final = "ledger_fault"
LIMIT_REACHED: Final = "limit_reached"
TENANT_FAULT: Final = "tenant_fault"
LOOSENED: Final = "loosened"
SIGNALS: Final = (
    NEEDS_PERSON,
    DENIAL_BURST,
    LEDGER_FAULT,
    LIMIT_REACHED,
    TENANT_FAULT,
    LOOSENED,
)
"""The names for routes besides types of events."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_KEYS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    kind: (frozenset(required.split()), frozenset(other.split()))
    for kind, required, other in (
        ("slack", "url_secret", "allow_private ca_file"),
        ("webhook", "url secret", "allow_private ca_file"),
        (
            "email",
            "host from to",
            "port tls username password allow_private ca_file",
        ),
        ("ntfy", "url", "token allow_private ca_file"),
        ("syslog", "address", "allow_private ca_file"),
        ("otlp", "endpoint", "headers_secret allow_private ca_file"),
        ("file", "path", ""),
    )
}
"""The keys of each kind: those it needs, and those it may have."""
_MAILBOX: Final = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,253}")
_LONGEST: Final = timedelta(days=366)
"""Alerts are gathered for no longer."""
_QUIET: Final = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d) ([A-Za-z0-9_+/-]{1,64})")
_PORTS: Final = {"udp": 514, "tcp": 601, "tls": 6514, "https": 443, "http": 80}


class SinkTable(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """``[sinks.NAME]``: where alerts or events go."""

    kind: Kind
    url: str = ""
    url_secret: str = ""
    """The sealed secret that is the URL: who knows Slack's may post there."""
    secret: str = ""
    host: str = ""
    port: int = 0
    from_: str = ""
    to: str | tuple[str, ...] = ()
    tls: bool | Literal["starttls", "implicit"] = True
    """``true``: implicit at port 465, else STARTTLS."""
    username: str = ""
    password: str = ""
    token: str = ""
    address: str = ""
    endpoint: str = ""
    headers_secret: str = ""
    path: str = ""
    allow_private: bool = False
    """Whether it may be at loopback, link-local and private addresses."""
    ca_file: str = ""
    """PEM of the authorities that vouch for it, in place of the system's; a relative
    path starts from the folder of ``alerts.toml``."""
    authorities: str = ""
    """The text of ``ca_file`` when it was read; no key of the file."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Return to whom mail goes."""
        return (self.to,) if isinstance(self.to, str) else self.to

    @property
    def exports(self) -> bool:
        """Whether it carries every event."""
        return self.kind in EXPORTS

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of the sealed secrets that it is reached with."""
        named = (self.url_secret, self.secret, self.password, self.token)
        return tuple(name for name in (*named, self.headers_secret) if name)


class AlertRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[routes]]``: which events go to which sinks."""

    sinks: tuple[str, ...]
    events: tuple[str, ...] = ()
    """Types of events, or words of `SIGNALS`."""
    risk: Risk | tuple[Risk, ...] = ()
    """Only about scopes of such a risk; empty: of any."""
    agents: tuple[str, ...] = ()
    """Only about these, by id or name; empty: about any."""
    details: bool = False
    """Whether parameters and the agent's own words are sent."""
    digest: str = ""
    quiet: str = ""
    after: str = ""
    """Send a request for a person only once it has waited for so long."""

    @property
    def risks(self) -> tuple[Risk, ...]:
        """Return of which risks it takes events."""
        return (self.risk,) if isinstance(self.risk, str) else self.risk

    @property
    def gathers(self) -> timedelta:
        """The time for which alerts are gathered before they are sent together."""
        return timedelta(seconds=seconds_of(self.digest) or 0)

    @property
    def waits(self) -> timedelta:
        """How long a request for a person waits before it is sent."""
        return timedelta(seconds=seconds_of(self.after) or 0)

    def quiet_until(self, now: datetime) -> datetime | None:
        """Return when the quiet hours that *now* is in end; None outside of any."""
        if not (match := _QUIET.fullmatch(self.quiet)):
            return None
        zone = ZoneInfo(match[5])
        begins, ends = (time(int(match[n]), int(match[n + 1])) for n in (1, 3))
        local = now.astimezone(zone)
        at = local.time().replace(tzinfo=None)
        inside = begins <= at < ends if begins < ends else at >= begins or at < ends
        if not inside:
            return None
        day = local.date() + timedelta(days=at >= ends)
        return datetime.combine(day, ends, zone).astimezone(now.tzinfo)


class _AlertsToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sinks: dict[str, SinkTable] = {}
    routes: tuple[AlertRoute, ...] = ()


class AlertsFile(msgspec.Struct, frozen=True):
    """``alerts.toml``, as it is in effect."""

    sinks: Mapping[str, SinkTable] = {}
    routes: tuple[AlertRoute, ...] = ()
    sha256: str = ""

    def routes_to(self, sink: str) -> tuple[AlertRoute, ...]:
        """Return the routes that name a sink, in the order of the file."""
        return tuple(route for route in self.routes if sink in route.sinks)

    def lacks(self, before: AlertsFile) -> bool:
        """Check whether a sink or route of *before* is gone, or is another now.

        The first route that takes an event sends it: one that is put in front of
        others takes their alerts from them, so that new ones stand at the end.
        """
        sinks = any(self.sinks.get(name) != one for name, one in before.sinks.items())
        return sinks or self.routes[: len(before.routes)] != before.routes


def parse_alerts(text: str, home: Home) -> AlertsFile:
    """Read and validate ``alerts.toml``.

    Args:
        text: its text, also joined with that of its ``ca_file``.
        home: its data folder is the root of a destination's relative path.

    Returns:
        the file; each ``ca_file`` as it is in the source, or on disk.

    Raises:
        ServiceError: with the fault and its remedy.
    """
    text, authorities = split_source(source_of(text, home.config))
    read = read_table(text, _AlertsToml, {"sinks[]": SinkTable, "routes[]": AlertRoute})
    sinks = {}
    for name, sink in read.sinks.items():
        if not _NAME.fullmatch(name):
            raise ServiceError(
                f"'{visible(name, 60)}' is no name for a sink",
                "it has lower-case letters, digits, - and _, at most 63",
            )
        try:
            checked = _checked(sink, home)
            pem = authorities.get(sink.ca_file, "")
            sinks[name] = msgspec.structs.replace(checked, authorities=pem)
        except ServiceError as error:
            raise ServiceError(f"sinks.{name}: {error.what}", error.remedy) from None
    for number, route in enumerate(read.routes, start=1):
        try:
            _check_route(route, read.sinks)
        except ServiceError as error:
            raise ServiceError(f"route {number}: {error.what}", error.remedy) from None
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return AlertsFile(sinks, read.routes, sha256)


def _checked(sink: SinkTable, home: Home) -> SinkTable:
    required, other = _KEYS[sink.kind]
    given = {
        written
        for field, written in zip(
            sink.__struct_fields__, sink.__struct_encode_fields__, strict=True
        )
        if field != "kind" and getattr(sink, field) != _DEFAULTS[field]
    }
    if missing := sorted(required - given):
        raise ServiceError(f"{missing[0]} is missing", f"{sink.kind} needs it")
    if odd := sorted(given - required - other):
        names = ", ".join(sorted(required | other))
        raise ServiceError(f"{sink.kind} has no {odd[0]}", f"it has {names}")
    for name in sink.secrets:
        if not _NAME.fullmatch(name):
            raise ServiceError(
                "that is no name of a sealed secret: nothing here is a secret itself",
                "agentvault secrets set NAME, and write NAME",
            )
    if url := sink.url or sink.endpoint:
        parse_url(url, private=sink.allow_private)
    if sink.address:
        parse_address(sink.address, private=sink.allow_private)
    if sink.kind == "email":
        _check_email(sink)
    if not sink.path:
        return sink
    path = (home.data / Path(sink.path).expanduser()).resolve()
    own = (home.data.resolve(), home.config.resolve())
    if any(map(path.is_relative_to, own)) and path.suffix != ".jsonl":
        raise ServiceError(
            f"{visible(path, 120)} may be a file of the home",
            "inside the home its name ends in .jsonl",
        )
    return msgspec.structs.replace(sink, path=str(path))


_DEFAULTS: Final = {
    field: getattr(SinkTable("file"), field) for field in SinkTable.__struct_fields__
}


def _check_email(sink: SinkTable) -> None:
    for address in (sink.from_, *sink.recipients):
        if not _MAILBOX.fullmatch(address):
            raise ServiceError(
                f"'{visible(address, 80)}' is no e-mail address",
                "write ops@example.com",
            )
    check_host(sink.host, private=sink.allow_private)
    if not 0 <= sink.port <= 65_535:
        raise ServiceError(f"{sink.port} is no port")
    if bool(sink.username) != bool(sink.password):
        raise ServiceError("username and password belong together")
    if not sink.tls and (sink.username or not sink.allow_private):
        raise ServiceError(
            "without TLS everybody on the way reads it",
            'tls = "starttls", or allow_private = true and no password',
        )


def smtp_port(sink: SinkTable) -> int:
    """Return the port of an email sink, by how it is encrypted if none is given."""
    implicit = sink.tls == "implicit"
    return sink.port or (465 if implicit else 587 if sink.tls else 25)


def origin_of(sink: SinkTable) -> ServerOrigin | None:
    """Return where a sink's secrets are sent; None if a secret is itself the URL."""
    if sink.kind == "email":
        return ServerOrigin("smtp", sink.host.lower(), smtp_port(sink))
    if sink.kind == "slack":
        return None
    return ServerOrigin.of(urlsplit(sink.url or sink.endpoint or sink.address))


def sink_uses(file: AlertsFile) -> Iterator[SecretUse]:
    """Return which sinks name secrets, and where they are sent."""
    for name, sink in file.sinks.items():
        for secret in sink.secrets:
            origin = origin_of(sink)
            to = () if origin is None else (origin,)
            yield SecretUse("sink", name, secret, to, is_url=origin is None)


def parse_url(url: str, *, private: bool) -> SplitResult:
    """Return the parts of a sink's URL; one that may be private may speak plain HTTP.

    Raises:
        ServiceError: it is none, or one that may not be reached: see `may_reach`.
    """
    parts = _split(url, ("https", "http") if private else ("https",))
    if parts.fragment:
        raise ServiceError("a URL has no # here")
    check_host(parts.hostname or "", private=private)
    return parts


def parse_address(address: str, *, private: bool) -> tuple[str, str, int]:
    """Return transport (``udp``, ``tcp``, ``tls``), host and port of a syslog server.

    Raises:
        ServiceError: it is none, or one that may not be reached: see `may_reach`.
    """
    parts = _split(address, ("udp", "tcp", "tls"))
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ServiceError("an address is transport, host and port alone")
    host = parts.hostname or ""
    check_host(host, private=private)
    return parts.scheme, host, parts.port or _PORTS[parts.scheme]


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises if it is above 65535
    except ValueError:
        port = 0
    if port == 0:
        parts = SplitResult("", "", "", "", "")
    if not (url.isascii() and url.isprintable()) or " " in url or not parts.hostname:
        raise ServiceError(
            f"'{visible(url, 80)}' is no address", f"begin with {schemes[0]}://HOST"
        )
    if parts.scheme not in schemes:
        raise ServiceError(
            f"it may not begin with {visible(parts.scheme, 20)}:",
            f"one of {', '.join(schemes)}"
            + ("; http needs allow_private" if parts.scheme == "http" else ""),
        )
    if "@" in parts.netloc:
        raise ServiceError("an address names no user", "use a sealed secret")
    return parts


def check_host(host: str, *, private: bool) -> None:
    """Refuse a host that says by itself that it is private; names are resolved later.

    Raises:
        ServiceError: it may not be reached: see `may_reach`.
    """
    try:
        allowed = may_reach(host, private=private)
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2].lower()
        # Resolvers read 127.1, 0x7f.1 and 2130706433 as addresses, too.
        odd = last[:2] == "0x" or last.isdigit() or not last
        allowed = not odd and (private or last != "localhost")
    if not allowed:
        raise ServiceError(
            f"{visible(host, 80)} is not an address it may have",
            "allow_private = true, where it is meant to be private",
        )


def _check_route(route: AlertRoute, sinks: Mapping[str, SinkTable]) -> None:
    for name in route.sinks:
        if name not in sinks:
            raise ServiceError(
                f"there is no sink {visible(name, 60)}", f"known: {', '.join(sinks)}"
            )
    words = (*SIGNALS, *(kind.value for kind in EventType))
    for word in route.events:
        if word not in words:
            raise ServiceError(
                f"'{visible(word, 60)}' is no event",
                f"a type of docs/events.md, or {', '.join(SIGNALS)}",
            )
    exports = all(sinks[name].exports for name in route.sinks)
    if not route.sinks or not (route.events or exports):
        raise ServiceError("it names no sink, or no event", "write sinks and events")
    if route.digest and not timedelta() < route.gathers <= _LONGEST:
        raise ServiceError("digest is no time", 'write "1m": s, m, h or d; to 366d')
    if route.after:
        _check_after(route)
    if route.quiet and not _is_quiet(route.quiet):
        raise ServiceError(
            "quiet is no span of hours in a zone", 'write "22:00-07:00 Europe/Berlin"'
        )


def _check_after(route: AlertRoute) -> None:
    if not timedelta() < route.waits <= _LONGEST:
        raise ServiceError("after is no time", 'write "2m": s, m, h or d; to 366d')
    requests = {NEEDS_PERSON, EventType.STEPUP_REQUESTED.value}
    if not route.events or set(route.events) - requests:
        raise ServiceError(
            "after is for requests that wait for a person",
            f'events = ["{NEEDS_PERSON}"], and another route for the rest',
        )
    if route.digest:
        raise ServiceError("a route has digest or after, not both", "write two routes")


def _is_quiet(text: str) -> bool:
    if match := _QUIET.fullmatch(text):
        with suppress(ValueError, OSError, KeyError):
            ZoneInfo(match[5])
            begins, ends = (time(int(match[n]), int(match[n + 1])) for n in (1, 3))
            return begins != ends
    return False
