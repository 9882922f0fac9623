"""Reads the settings from defaults, config.toml, environment and flags."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
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
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.origins import parse_listen, read_origins
from agentvault_tui.store_url import store_parameters
from agentvault_tui.text import visible
from agentvault_tui.toml_table import (
    no_table,
    read_members,
    read_toml,
    unknown_setting,
)

DEVICE_CODE_TTL_CAP: Final = 900
"""What Auth0 gives a device code."""
CONNECTION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
"""What a connection of the tenant's may be called."""


class Switch(StrEnum):
    """On, off, or as the surroundings suggest."""

    ON = "true"
    OFF = "false"
    AUTO = "auto"

    @classmethod
    def _missing_(cls, value: object) -> Switch | None:
        words = {"true": cls.ON, "yes": cls.ON, "1": cls.ON}
        words |= {"false": cls.OFF, "no": cls.OFF, "0": cls.OFF}
        return words.get(str(value).lower())


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """``[broker]``."""

    listen: str = "127.0.0.1:7717"
    """Where agents reach the broker: loopback address and port; port 0 picks one."""
    tls: Switch = Switch.AUTO
    """``true``, ``false`` or ``auto``: https if there is a certificate, named below or
    made by ``agentvault tls init``."""
    tls_cert: str = ""
    """The certificate of the agents' listener: PEM, with its intermediates."""
    tls_key: str = ""
    """The certificate's private key: PEM, mode 0600, without a passphrase."""
    metrics: str = ""
    """Where ``GET /metrics`` is answered for Prometheus, and nothing else: loopback
    address and port. Empty: at the operators' socket alone."""
    metrics_by_agent: bool = False
    """Whether metrics of decisions name the agents."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies before the agents' listener: of what they add
    to ``X-Forwarded-For`` the source of a request is read."""

    def __post_init__(self) -> None:
        """Refuse what is not a loopback address, and proxies that are no networks."""
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
    """``[policy]``: what rules are told beside the request."""

    timezone: str = "UTC"
    """IANA name of the time zone of ``context.weekday``, ``hour`` and ``minute``."""
    country_database: str = ""
    """A MaxMind file, such as ``GeoLite2-Country.mmdb``, for ``context.country``."""
    advice_window: Annotated[int, Meta(ge=1, le=10 * 366 * 86_400)] = 30 * 86_400
    """Seconds of the history that count as now for ``agentvault advise`` and the
    console's ``A`` where no window is named."""

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
    """How many live tokens one agent may hold: 1 to 1000000. It is refused another one
    with the reason ``too_many_tokens``; none of those it has ends."""
    lease: Annotated[int, Meta(ge=1, le=3600)] = 60
    """The longest ``expires_in`` an agent is told for a provider's token, in seconds: 1
    to 3600. A revoked agent asks again within that time and is refused."""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """``[ledger]``: what agents may cause to be recorded."""

    decisions_a_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 200
    """How many decisions that need no person one agent may be permitted a second, by
    each broker: to 1000000, after a burst of ten seconds' worth; 0: no bound. Above it
    the answer is 429. ``agents set-rate`` sets it for one agent."""


@dataclass(frozen=True, slots=True)
class DelegationSettings:
    """``[delegation]``: how far agents pass tokens on."""

    max_depth: Annotated[int, Meta(ge=0, le=8)] = 2
    """How often a token may be passed on, one agent after the other: 0 to 8."""
    max_children: Annotated[int, Meta(ge=0, le=1000)] = 20
    """How many live tokens one token may have been exchanged for: 0 to 1000."""


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """``[changes]``: what loosens, and waits for a person's factor."""

    expires_in: Annotated[int, Meta(ge=1, le=604_800)] = 86_400
    """How long a change waits for a person, in seconds: 1 to 604800."""
    socket: Literal["auto", "uid", "factor"] = "auto"
    """``uid``: at the socket the local user is the check. ``factor``: what loosens
    waits for an approver's factor there too, and so does an edit of a file that
    loosens. ``auto``: ``factor`` once an agent runs as the broker's own user, by
    ``connect`` or ``run``. Before there is an approver, always ``uid``;
    a tenant that the broker cannot ask (no management credential, or away) may have
    one."""
    rules: tuple[ChangeRule, ...] = ()
    """Which changes take several people, or nobody who asked for them:
    ``[[changes.rules]]`` with ``kinds``, ``approvals``, ``no_self``."""


@dataclass(frozen=True, slots=True)
class StepUpSettings:
    """``[stepup]``."""

    expires_in: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """How long a step-up waits for a person, in seconds: 1 to 86400."""
    max_pending: Annotated[int, Meta(ge=1, le=100)] = 3
    """How many step-ups of one agent may wait at once: 1 to 100."""
    device_code_ttl: Annotated[int, Meta(ge=1, le=DEVICE_CODE_TTL_CAP)] = 120
    """How long a user code is valid, in seconds: 1 to 900. Until somebody has signed in
    to this home, 900."""
    approvers: tuple[str, ...] = ()
    """Who may approve: subjects or e-mail addresses. Empty: every user who has the
    role ``approver``."""
    passkey_only: bool = False
    """Whether a step-up of high risk takes a passkey: a password and a one-time code,
    which a copied page can ask for, then approve none."""
    rules: tuple[StepUpRule, ...] = ()
    """``[[stepup.rules]]`` with ``approvals``, ``scopes``, ``risk``, ``no_self``: how
    many different people have to approve, and whether the agent's owner may; the
    strictest of those that fit."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """``[tenant]``: an empty issuer means the embedded tenant."""

    issuer: str = ""
    """The tenant's issuer, such as ``https://acme.eu.auth0.com/``. Empty: the embedded
    tenant."""
    client_id: str = ""
    """The console's application. Empty: the one made by ``agentvault auth0 apply``."""
    domain: str = ""
    """The tenant's own host name, where ``issuer`` is a custom domain of it."""
    sign_in: tuple[str, ...] = ("Username-Password-Authentication",)
    """Auth0 connections by which operators sign in."""
    connections: tuple[str, ...] = ()
    """Auth0 connections whose accounts agents use through Token Vault."""
    workers: tuple[str, ...] = ()
    """Privileged workers, ``AGENT CONNECTION SCOPE`` each: agents that exchange without
    a signed-in user."""
    worker_ips: tuple[str, ...] = ()
    """Addresses or networks from which privileged workers may exchange."""
    listen: str = ""
    """Where phones reach the embedded tenant: address and port, such as
    ``0.0.0.0:7443``. Needs ``url``, ``tls_cert`` and ``tls_key``; TLS 1.3 alone."""
    url: str = ""
    """What phones open, such as ``https://ops.example:7443/``: then the issuer of the
    embedded tenant, and what links and QR codes name. Passkeys need a host name."""
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
    """``[store]``: an empty URL means ``agentvault.db`` in the home, for one broker."""

    url: str = ""
    """The PostgreSQL that the brokers of a team share, such as
    ``postgresql://USER@HOST1,HOST2:5432/NAME?sslmode=verify-full``, without a password.
    Empty: ``agentvault.db`` in the home."""
    pool: Annotated[int, Meta(ge=1, le=64)] = 8
    """How many connections to it look at once whether another broker wrote something,
    besides two to write and one to listen: 1 to 64."""

    def __post_init__(self) -> None:
        """Refuse a URL with a secret, or one that leaves the machine unverified."""
        if self.url:
            store_parameters(self.url)


@dataclass(frozen=True, slots=True)
class TeamSettings:
    """``[team]``: what the brokers on one store have in common."""

    name: str = ""
    """The team's name; it must be the one that the store was prepared for. Required
    with ``store.url``."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """``[connections.NAME]``: what using an account at a provider stands for."""

    scopes: tuple[str, ...] = ()
    """Required. Scopes of the catalogue: all that the provider's token can do. It
    carries all that the person allowed, so an exchange is decided over all of them."""
    revocation_endpoint: str = "auto"
    """Where the provider revokes a token for whoever shows it (RFC 7009): a URL,
    ``auto`` (the documented one of a provider we know) or ``none``."""
    userinfo_endpoint: str = "auto"
    """Where the provider tells whose a token is (OIDC Core section 5.3): a URL,
    ``auto`` or ``none``."""
    for_: tuple[str, ...] = ()
    """Origins that the gateway may send its tokens to, such as
    ``https://gmail.googleapis.com``; or ``none``. Left out: those of the services that
    used it at the first start of a version with this rule, and no others."""

    @property
    def origins(self) -> tuple[str, ...] | None:
        """Return the origins in one spelling; None if they are left out."""
        return read_origins(self.for_) if self.for_ else None

    def __post_init__(self) -> None:
        """Refuse a connection that stands for nothing: nothing would be decided.

        Raises:
            SettingsError: says so, or that ``for`` lists what is no origin.
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
    """Required. The platform's issuer, exactly as ``iss`` of its tokens."""
    audience: str = ""
    """Required. The only audience its tokens may be for, exactly as ``aud``."""
    jwks_uri: str = ""
    """Where its keys are (RFC 7517): https, or http on loopback."""
    jwks_file: str = ""
    """A file with its keys instead; a relative path is below the folder of
    ``config.toml``."""

    def __post_init__(self) -> None:
        """Refuse an issuer of which something is missing or said twice."""
        if not self.issuer or not self.audience:
            raise SettingsError("an issuer needs 'issuer' and 'audience'")
        if bool(self.jwks_uri) is bool(self.jwks_file):
            raise SettingsError("an issuer needs either 'jwks_uri' or 'jwks_file'")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """``[operators]``; ``broker.authority`` says what follows."""

    roles: Literal["auto", "claim"] = "auto"
    """``auto``: the role of whoever is signed in counts, and without a sign-in the
    socket alone. ``claim``: restoring, registering and granting need a role from the
    tenant. Revoking needs none under either. Elsewhere than at the socket it is always
    ``claim``, and nothing is done or shown without a role."""
    listen: str = ""
    """Where operators on other machines reach the broker: address and port, such as
    ``0.0.0.0:7719``. Needs ``url``, ``tls_cert`` and ``tls_key``, and a tenant that
    those machines reach; TLS 1.3 alone."""
    url: str = ""
    """What operators name with ``--connect``, such as ``https://ops.example:7719``."""
    tls_cert: str = ""
    """The certificate of ``listen``: PEM, with its intermediates, for the host of
    ``url``. A renewed one is read without a restart."""
    tls_key: str = ""
    """The certificate's private key: PEM, mode 0600, without a passphrase."""

    connect: str = ""
    """On an operator's own machine: `operators.url` of the broker that commands and
    console work on. Empty: this home's own."""
    ca_file: str = ""
    """PEM of the authorities that vouch for it, relative to ``config.toml``. Empty: the
    system's."""

    @property
    def by_claim(self) -> bool:
        """Tell whether giving needs a role."""
        return self.roles == "claim"


class PassThrough(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hosts that agents reach through the proxy without us reading along."""

    host: str
    """A name, ``*.`` and a name for all names below it, or an address; a port may
    follow, and without one any is meant."""
    allow_private: bool = False
    """Whether it may be at loopback, link-local and private addresses."""

    def __post_init__(self) -> None:
        """Refuse what names no host.

        Raises:
            SettingsError: it does not.
        """
        if not _PATTERN.fullmatch(self.host):
            raise SettingsError(
                f"'{self.host:.80}' in gateway.pass_through names no host",
                "write example.com, *.example.com or example.com:8443, in lower case",
            )

    def covers(self, host: str, port: int) -> bool:
        """Tell whether it means *host*, in lower case, and *port*."""
        found = _PATTERN.fullmatch(self.host)
        if found is None or (found["port"] and int(found["port"]) != port):
            return False
        name = found["name"].strip("[]")
        return host.endswith(name[1:]) if name.startswith("*.") else host == name


_PATTERN: Final = re.compile(
    r"(?P<name>(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``[gateway]``."""

    proxy: str = "auto"
    """Where the forward proxy listens: loopback address and port; port 0 picks one.
    Empty: only while ``agentvault run`` runs. ``auto``: 127.0.0.1:7718, or any free
    port where that one is taken or ``broker.listen`` picks one too."""
    pass_through: tuple[str | PassThrough, ...] = ()
    """Hosts that are no service and that agents may reach through the proxy, as
    opaque tunnels: ``example.com``, ``*.example.com``, or
    ``{ host = "*.corp", allow_private = true }``."""
    hook_wait: Annotated[int, Meta(ge=0, le=25)] = 20
    """How long a hook of an agent host waits for a person, in seconds: 0 to 25; more
    than 20 count as 20. Hosts stop a hook after a while, some after 30 seconds, and
    then let the call through."""
    hold_bytes: Annotated[int, Meta(ge=65_536, le=2**30)] = 10 * 2**20
    """The largest body, in bytes, of a call that waits for a person and that AgentVault
    cannot read (``body = "opaque"``): 65536 to 1073741824. It waits on disk, encrypted.
    All such bodies have eight times as much, one agent's a part in eight."""

    def __post_init__(self) -> None:
        """Refuse what is not a loopback address, and patterns that name no host."""
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
class ConsoleSettings:
    """``[console]``."""

    theme: str = "agentvault"
    """The colour theme; ``:theme`` in the console lists and tries them."""
    link: Literal["fast", "slow"] = "fast"
    """``fast`` or ``slow``: how often the console repaints a stream of events."""
    mouse: Switch = Switch.OFF
    """``true``, ``false`` or ``auto``: on, but off over SSH."""
    label: str = ""
    """What this vault is called, such as ``PROD``: in the header and in the titles of
    dialogs, at most 16 cells."""
    ascii: Literal["auto", "yes", "no"] = "auto"
    """Draw in ASCII: ``yes``, ``no`` or ``auto``, by the locale."""


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
    def connection_scopes(self) -> dict[str, tuple[str, ...]]:
        """What using each connection stands for, by its name."""
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
        for source, table in (
            (str(home.config_file), read_toml(home.config_file, home.config)),
            ("environment", _from_environ(os.environ if environ is None else environ)),
            ("command line", _from_flags(flags or {})),
        ):
            for section, values in table.items():
                known = [one.name for one in fields(cls)]
                if section not in known:
                    raise unknown_setting(f"[{section}]", section, known, source)
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


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for section in fields(Settings):
        if section.name in NAMED:
            continue
        for item in fields(getattr(Settings(), section.name)):
            value = environ.get(f"AGENTVAULT_{section.name}_{item.name}".upper())
            if value is not None:
                table.setdefault(section.name, {})[item.name] = value
    return table


def _from_flags(flags: Mapping[str, object]) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            table.setdefault(section, {})[key] = value
    return table
