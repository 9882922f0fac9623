"""Reads the settings from defaults, config.toml, environment and flags."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeAlias,
    TypeVar,
)
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from agentvault_tui.approval_rules import ChangeRule, StepUpRule
from agentvault_tui.console_settings import ConsoleSettings, Switch, read_sources
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.origins import parse_listen, read_origins
from agentvault_tui.store_url import store_parameters
from agentvault_tui.text import visible
from agentvault_tui.toml_table import (
    no_table,
    read_members,
    unknown_setting,
)

DEVICE_CODE_TTL_CAP: Final = 900
"""Auth0's limits of a device code."""
CONNECTION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
"""The permitted names of a connection of the tenant's."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """``[broker]``."""

    listen: str = "127.0.0.1:7717"
    """The address for agents: loopback address and port; port 0 picks a free one."""
    tls: Switch = Switch.AUTO
    """``true``, ``false``, or ``auto``: https if there is a certificate, named below or
    made by ``agentvault tls init``."""
    tls_cert: str = ""
    """The certificate of the agents' listener: PEM, with its intermediates."""
    tls_key: str = ""
    """The certificate's private key: PEM, mode 0600, without a passphrase."""
    metrics: str = ""
    """Loopback address and port that answer ``GET /metrics`` for Prometheus, and
    nothing else. Empty: metrics are only at the operators' socket."""
    metrics_by_agent: bool = False
    """Whether metrics of decisions name the agents."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies in front of the agents' listener. AgentVault
    reads the source of a request from the ``X-Forwarded-For`` that they add."""

    def __post_init__(self) -> None:
        """Refuse addresses beyond loopback, and proxies that are no networks."""
        parse_listen(self.listen, "broker.listen")
        if self.metrics:
            parse_listen(self.metrics, "broker.metrics")
        _ = self.proxies

    @property
    def proxies(self) -> tuple[Network, ...]:
        """Return `trusted_proxies` as networks."""
        return tuple(map(_network, self.trusted_proxies))

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return parse_listen(self.listen)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """``[policy]``: further facts for rules besides the request."""

    timezone: str = "UTC"
    """IANA name of the time zone for ``context.weekday``, ``hour`` and ``minute``."""
    country_database: str = ""
    """A MaxMind file, such as ``GeoLite2-Country.mmdb``, for ``context.country``."""
    advice_window: Annotated[int, Meta(ge=1, le=10 * 366 * 86_400)] = 30 * 86_400
    """How many seconds of the history ``agentvault advise`` and the console's ``A``
    look at if no window is given."""

    def __post_init__(self) -> None:
        """Refuse a time zone that is not known here."""
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise SettingsError(
                f"policy.timezone '{visible(self.timezone, 60)}' is not known here",
                "write a name such as Europe/Berlin, or UTC",
            ) from None


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """``[tokens]``: lifetimes in seconds."""

    standard_ttl: Annotated[int, Meta(ge=1, le=86_400)] = 3600
    """Lifetime of a token that policy allowed, in seconds: 1 to 86400."""
    elevated_ttl: Annotated[int, Meta(ge=1, le=300)] = 300
    """Lifetime of a token that a person approved, in seconds: 1 to 300."""
    max_live: Annotated[int, Meta(ge=1, le=1_000_000)] = 5000
    """How many live tokens one agent may have: 1 to 1000000. A further one is refused
    with the reason ``too_many_tokens``; the existing ones stay valid."""
    lease: Annotated[int, Meta(ge=1, le=3600)] = 60
    """The longest ``expires_in`` of a provider's token, in seconds: 1 to 3600. A
    revoked agent has to ask again within that time, and is refused."""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """``[ledger]``: bounds on the events that agents cause."""

    decisions_a_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    """How many requests a second each broker permits one agent without a person: up to
    1000000, after a burst of ten seconds' worth; 0: no limit. Above it the answer is
    429. ``agents set-rate`` sets it for one agent."""


@dataclass(frozen=True, slots=True)
class DelegationSettings:
    """``[delegation]``: how far agents may delegate tokens."""

    max_depth: Annotated[int, Meta(ge=0, le=8)] = 2
    """How often a token may be delegated, from one agent to the next: 0 to 8."""
    max_children: Annotated[int, Meta(ge=0, le=1000)] = 20
    """How many live tokens may be exchanged for one token: 0 to 1000."""


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """``[changes]``: loosening changes, which wait for a person's second factor."""

    expires_in: Annotated[int, Meta(ge=1, le=604_800)] = 86_400
    """How long a change waits for a person, in seconds: 1 to 604800."""
    socket: Literal["auto", "uid", "factor"] = "auto"
    """``uid``: at the socket, it is enough to be the broker's user. ``factor``: a
    loosening change there also waits for an approver's second factor, and so does a
    loosening edit of a file. ``auto``: ``factor`` once an agent has run as the broker's
    own user, by ``connect`` or ``run``. Until there is an approver, always ``uid``;
    a tenant that cannot be asked (no management credential, or away) may have one."""
    rules: tuple[ChangeRule, ...] = ()
    """``[[changes.rules]]`` with ``kinds``, ``approvals``, ``no_self``: changes that
    need several approvers, or that the person who asked cannot approve."""


@dataclass(frozen=True, slots=True)
class StepUpSettings:
    """``[stepup]``."""

    expires_in: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """How long a step-up waits for a person, in seconds: 1 to 86400."""
    max_pending: Annotated[int, Meta(ge=1, le=100)] = 3
    """How many step-ups of one agent may wait at once: 1 to 100."""
    device_code_ttl: Annotated[int, Meta(ge=1, le=DEVICE_CODE_TTL_CAP)] = 120
    """How long a user code is valid, in seconds: 1 to 900. Until the first sign-in with
    this home directory, 900."""
    approvers: tuple[str, ...] = ()
    """The people who may approve: subjects or e-mail addresses. Empty: every user with
    the role ``approver``."""
    passkey_only: bool = False
    """Whether a step-up of high risk needs a passkey. A password and a one-time code,
    which a phishing page can ask for, are then not enough."""
    rules: tuple[StepUpRule, ...] = ()
    """``[[stepup.rules]]`` with ``approvals``, ``scopes``, ``risk``, ``no_self``: how
    many different people have to approve, and whether the agent's owner may. If several
    rules match, the strictest applies."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """``[tenant]``: an empty issuer means the embedded tenant."""

    issuer: str = ""
    """The tenant's issuer, such as ``https://acme.eu.auth0.com/``. Empty: the embedded
    tenant."""
    client_id: str = ""
    """The console's application. Empty: the one made by ``agentvault auth0 apply``."""
    domain: str = ""
    """The tenant's own host name, if ``issuer`` is a custom domain."""
    sign_in: tuple[str, ...] = ("Username-Password-Authentication",)
    """Auth0 connections with which operators sign in."""
    connections: tuple[str, ...] = ()
    """Auth0 connections whose accounts agents use through Token Vault."""
    workers: tuple[str, ...] = ()
    """Privileged workers, ``AGENT CONNECTION SCOPE`` each: agents that exchange without
    a signed-in user."""
    worker_ips: tuple[str, ...] = ()
    """Addresses or networks from which privileged workers may exchange."""
    listen: str = ""
    """The embedded tenant's listener for phones: address and port, such as
    ``0.0.0.0:7443``. Needs ``url``, ``tls_cert`` and ``tls_key``; TLS 1.3 only."""
    url: str = ""
    """The address that phones open, such as ``https://ops.example:7443/``: it becomes
    the embedded tenant's issuer, and links and QR codes use it. Passkeys need a host
    name."""
    tls_cert: str = ""
    """The certificate of ``listen``: PEM, with its intermediates, for the host of
    ``url``. A renewed one is read without a restart."""
    tls_key: str = ""
    """The certificate's private key: PEM, mode 0600, without a passphrase."""
    rate: Annotated[int, Meta(ge=1, le=1000)] = 2
    """Management API requests a second that the tenant's plan allows: 1 to 1000. Auth0
    Free allows 2."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """``[store]``: an empty URL means ``agentvault.db``, for one broker."""

    url: str = ""
    """The PostgreSQL that the brokers of a team share, such as
    ``postgresql://USER@HOST1,HOST2:5432/NAME?sslmode=verify-full``, without a password.
    Empty: ``agentvault.db`` in the home directory."""
    pool: Annotated[int, Meta(ge=1, le=64)] = 8
    """How many connections check at the same time for another broker's writes, in
    addition to two for writing and one each for polling, listening and notifying: 1 to
    64."""

    def __post_init__(self) -> None:
        """Refuse a URL with a secret, or one that leaves the machine unverified."""
        if self.url:
            store_parameters(self.url)


@dataclass(frozen=True, slots=True)
class TeamSettings:
    """``[team]``: the brokers that share one store."""

    name: str = ""
    """The team's name, for which the store was prepared. Required with
    ``store.url``."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """``[connections.NAME]``: the scopes that an account at a provider covers."""

    scopes: tuple[str, ...] = ()
    """Required. The catalogue scopes that cover everything the provider's token can do.
    The token has all rights that the person allowed, so policy decides an exchange over
    all of these scopes."""
    revocation_endpoint: str = "auto"
    """The provider's revocation endpoint, if it needs no client credentials (RFC 7009):
    a URL, ``auto`` (the documented one of a known provider) or ``none``."""
    userinfo_endpoint: str = "auto"
    """The provider's UserInfo endpoint (OIDC Core section 5.3): a URL, ``auto`` or
    ``none``."""
    for_: tuple[str, ...] = ()
    """Origins that the gateway may send its tokens to, such as
    ``https://gmail.googleapis.com``; or ``none``. Default: the origins of the services
    that used it at the first start of a version with this rule, and no others."""

    @property
    def origins(self) -> tuple[str, ...] | None:
        """Return the origins in one spelling; None if they are left out."""
        return read_origins(self.for_) if self.for_ else None

    def __post_init__(self) -> None:
        """Refuse a connection that represents nothing: nothing would be decided.

        Raises:
            SettingsError: it represents nothing, or ``for`` lists an invalid origin.
        """
        try:
            read_origins(self.for_)
        except UsageError as error:
            raise SettingsError(f"for: {error.what}", error.remedy) from None
        if not self.scopes:
            raise SettingsError(
                "a connection needs scopes of the catalogue",
                'for example scopes = ["read:calendar", "write:calendar"]',
            )


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """``[issuers.NAME]``: a platform whose tokens agents authenticate with."""

    issuer: str = ""
    """Required. The platform's issuer, exactly as in ``iss`` of its tokens."""
    audience: str = ""
    """Required. The only accepted audience, exactly as in ``aud`` of its tokens."""
    jwks_uri: str = ""
    """The URL of its keys (JWKS, RFC 7517): https, or http on loopback."""
    jwks_file: str = ""
    """A file with its keys, instead of ``jwks_uri``; a relative path starts at the
    folder of ``config.toml``."""

    def __post_init__(self) -> None:
        """Refuse an issuer of which something is missing or said twice."""
        if not self.issuer or not self.audience:
            raise SettingsError("an issuer needs 'issuer' and 'audience'")
        if bool(self.jwks_uri) is bool(self.jwks_file):
            raise SettingsError("an issuer needs either 'jwks_uri' or 'jwks_file'")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """``[operators]``; see ``broker.authority``."""

    roles: Literal["auto", "claim"] = "auto"
    """``auto``: if a person is signed in, their role counts; without a sign-in, access
    to the socket is enough. ``claim``: restoring, registering and granting need a role
    from the tenant. Revoking never needs one. On other machines it is always
    ``claim``, and nothing is done or shown without a role."""
    listen: str = ""
    """The listener for operators on other machines: address and port, such as
    ``0.0.0.0:7719``. Needs ``url``, ``tls_cert`` and ``tls_key``, and a tenant that
    those machines can reach; TLS 1.3 only."""
    url: str = ""
    """The URL that operators give to ``--connect``, such as
    ``https://ops.example:7719``."""
    tls_cert: str = ""
    """The certificate of ``listen``: PEM, with its intermediates, for the host of
    ``url``. A renewed one is read without a restart."""
    tls_key: str = ""
    """The certificate's private key: PEM, mode 0600, without a passphrase."""

    connect: str = ""
    """On an operator's own machine: `operators.url` of the broker that commands and
    console use. Empty: the broker of this home directory."""
    ca_file: str = ""
    """PEM file of the certificate authorities to trust for it, relative to
    ``config.toml``. Empty: the system's."""

    @property
    def by_claim(self) -> bool:
        """Check whether giving needs a role."""
        return self.roles == "claim"


class PassThrough(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts that agents reach through the proxy as opaque tunnels."""

    host: str
    """A name, ``*.`` and a name for all names below it, or an address; a port may
    follow, and without one any is meant."""
    allow_private: bool = False
    """Whether it may be at loopback, link-local and private addresses."""

    def __post_init__(self) -> None:
        """Refuse an address without a host.

        Raises:
            SettingsError: it does not.
        """
        if not _PATTERN.fullmatch(self.host):
            raise SettingsError(
                f"'{self.host:.80}' in gateway.pass_through names no host",
                "write example.com, *.example.com or example.com:8443, in lower case",
            )

    def covers(self, host: str, port: int) -> bool:
        """Check whether it means *host*, in lower case, and *port*."""
        match = _PATTERN.fullmatch(self.host)
        if match is None or (match["port"] and int(match["port"]) != port):
            return False
        name = match["name"].strip("[]")
        return host.endswith(name[1:]) if name.startswith("*.") else host == name


_PATTERN: Final = re.compile(
    r"(?P<name>(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``[gateway]``."""

    proxy: str = "auto"
    """The forward proxy's listener: loopback address and port; port 0 picks a free one.
    Empty: only while ``agentvault run`` runs. ``auto``: 127.0.0.1:7718, or any free
    port if that one is in use or ``broker.listen`` picks one too."""
    pass_through: tuple[str | PassThrough, ...] = ()
    """Further hosts that agents may reach through the proxy, as opaque tunnels:
    ``example.com``, ``*.example.com``, or
    ``{ host = "*.corp", allow_private = true }``."""
    hook_wait: Annotated[int, Meta(ge=0, le=25)] = 20
    """How long a hook of an agent host waits for a person, in seconds: 0 to 25; more
    than 20 counts as 20. Hosts end a hook after a time, some of them after 30 seconds,
    and then let the call through."""
    hold_bytes: Annotated[int, Meta(ge=65_536, le=2**30)] = 10 * 2**20
    """The largest opaque body (``body = "opaque"``), in bytes, of a call that waits for
    a person, or that comes without a length: 65536 to 1073741824. It waits on disk,
    encrypted. All such bodies together have eight times as much space, and one agent's
    an eighth of that."""

    def __post_init__(self) -> None:
        """Refuse addresses beyond loopback, and patterns that name no host."""
        if self.proxy not in {"", "auto"}:
            parse_listen(self.proxy, "gateway.proxy")
        _ = self.passed

    @property
    def passed(self) -> tuple[PassThrough, ...]:
        """Return `pass_through`, each of its entries as a table."""
        return tuple(
            PassThrough(one) if isinstance(one, str) else one
            for one in self.pass_through
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set; each key is also ``AGENTVAULT_<SECTION>_<KEY>``."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    delegation: DelegationSettings = field(default_factory=DelegationSettings)
    stepup: StepUpSettings = field(default_factory=StepUpSettings)
    changes: ChangeSettings = field(default_factory=ChangeSettings)
    tenant: TenantSettings = field(default_factory=TenantSettings)
    operators: OperatorSettings = field(default_factory=OperatorSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    team: TeamSettings = field(default_factory=TeamSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    connections: Mapping[str, ConnectionSettings] = field(default_factory=dict)
    """By the tenant's name of the connection; in ``config.toml`` alone."""
    issuers: Mapping[str, IssuerSettings] = field(default_factory=dict)
    """By the names that subjects of agents use; in ``config.toml`` alone."""

    @property
    def approves_by_list(self) -> bool:
        """Check whether people without a role may approve, if a list names them."""
        return bool(self.stepup.approvers) and not self.operators.by_claim

    @property
    def connection_scopes(self) -> dict[str, tuple[str, ...]]:
        """The scopes of using each connection, by its name."""
        return {name: one.scopes for name, one in self.connections.items()}

    @classmethod
    def load(
        cls,
        home: Home,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Settings:
        """Read defaults, then ``config.toml``, then the environment, then *flags*.

        Args:
            home: where ``config.toml`` is looked for; it need not exist.
            environ: the environment, by default the process's own.
            flags: ``section.key`` to value; ``None`` values are passed over.

        Raises:
            SettingsError: an unknown key (with the nearest known one) or a bad value.
        """
        settings = cls()
        sections = [one.name for one in fields(cls)]
        kinds = {
            section: type(getattr(settings, section))
            for section in sections
            if section not in NAMED
        }
        for source, table in read_sources(home, kinds, environ, flags or {}):
            for section, values in table.items():
                if section not in sections:
                    raise unknown_setting(f"[{section}]", section, sections, source)
                changed: Any
                if kind := NAMED.get(section):
                    changed = _read_named(kind, section, values, source)
                else:
                    now = getattr(settings, section)
                    changed = replace(
                        now, **read_members(type(now), values, section, source)
                    )
                settings = replace(settings, **{section: changed})
        return settings


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(
            f"'{visible(text, 60)}' in broker.trusted_proxies is no address or network",
            "write 10.0.0.7 or 10.0.0.0/24",
        ) from None


_Named = TypeVar("_Named", ConnectionSettings, IssuerSettings)
NAMED: Final = {"connections": ConnectionSettings, "issuers": IssuerSettings}
"""Sections of tables that have names of their own."""


def _read_named(
    kind: type[_Named], section: str, table: object, source: str
) -> dict[str, _Named]:
    """Read the ``[SECTION.NAME]`` tables."""
    if not isinstance(table, Mapping):
        raise no_table(section, source)
    read: dict[str, _Named] = {}
    for name, values in table.items():
        if not CONNECTION.fullmatch(name):
            raise SettingsError(
                f"{name!r:.60} in {source} is no name for a table of [{section}]",
                "it has letters, digits and hyphens",
            )
        members = read_members(kind, values, f"{section}.{name}", source)
        try:
            read[name] = kind(**members)
        except SettingsError as error:
            what = f"[{section}.{name}] in {source}: {error.what}"
            raise SettingsError(what, error.remedy) from None
    return read
