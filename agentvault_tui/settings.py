"""Settings: one frozen object from defaults, file, environment and flags."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home

STANDARD_TTL_CAP: Final = 86_400
ELEVATED_TTL_CAP: Final = 300
LEASE_CAP: Final = 3600
DEVICE_CODE_TTL_CAP: Final = 900
"""What Auth0 gives a device code."""
CONNECTION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9])?")
"""What a connection of the tenant's may be called."""
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
"""Python refuses to read a number of thousands of digits, and none here has many."""


class Switch(StrEnum):
    """On, off, or as the surroundings suggest."""

    ON = "true"
    OFF = "false"
    AUTO = "auto"


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

    def __post_init__(self) -> None:
        """Refuse what is not a loopback address."""
        parse_listen(self.listen)

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        return parse_listen(self.listen)


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """``[tokens]``: lifetimes in seconds."""

    standard_ttl: int = 3600
    """Lifetime of a token that policy allowed, in seconds: 1 to 86400."""
    elevated_ttl: int = 300
    """Lifetime of a token that a person approved, in seconds: 1 to 300."""
    lease: int = 60
    """The longest ``expires_in`` an agent is told for a provider's token, in seconds: 1
    to 3600. A revoked agent asks again within that time and is refused."""

    def __post_init__(self) -> None:
        """Hold the caps."""
        _within("tokens.standard_ttl", self.standard_ttl, 1, STANDARD_TTL_CAP)
        _within("tokens.elevated_ttl", self.elevated_ttl, 1, ELEVATED_TTL_CAP)
        _within("tokens.lease", self.lease, 1, LEASE_CAP)


@dataclass(frozen=True, slots=True)
class StepUpSettings:
    """``[stepup]``."""

    expires_in: int = 300
    """How long a step-up waits for a person, in seconds: 1 to 86400."""
    max_pending: int = 3
    """How many step-ups of one agent may wait at once: 1 to 100."""
    device_code_ttl: int = 120
    """How long a user code is valid, in seconds: 1 to 900. Until somebody has signed in
    to this home, 900."""
    approvers: tuple[str, ...] = ()
    """Who may approve: subjects or e-mail addresses. Empty: every user who has the
    role ``approver``."""

    def __post_init__(self) -> None:
        """Hold the bounds."""
        _within("stepup.expires_in", self.expires_in, 1, 86_400)
        _within("stepup.max_pending", self.max_pending, 1, 100)
        _within("stepup.device_code_ttl", self.device_code_ttl, 1, DEVICE_CODE_TTL_CAP)


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
    rate: int = 2
    """Management API requests a second that the tenant's plan allows: 1 to 1000. Auth0
    Free allows 2."""

    def __post_init__(self) -> None:
        """Hold the bounds."""
        _within("tenant.rate", self.rate, 1, 1000)


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

    def __post_init__(self) -> None:
        """Refuse a connection that stands for nothing: nothing would be decided."""
        if not self.scopes:
            raise SettingsError(
                "a connection needs scopes of the catalogue",
                'for example scopes = ["read:calendar", "write:calendar"]',
            )


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """``[operators]``; ``broker.authority`` says what follows."""

    roles: str = "auto"
    """``auto``: the role of whoever is signed in counts, and without a sign-in the
    socket alone. ``claim``: restoring, registering and granting need a role from the
    tenant. Revoking needs none under either."""

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        _one_of("operators.roles", self.roles, ("auto", "claim"))

    @property
    def by_claim(self) -> bool:
        """Tell whether giving needs a role."""
        return self.roles == "claim"


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """``[console]``."""

    theme: str = "agentvault"
    """The colour theme; ``:theme`` in the console lists and tries them."""
    link: str = "fast"
    """``fast`` or ``slow``: how often the console repaints a stream of events."""
    mouse: Switch = Switch.OFF
    """``true``, ``false`` or ``auto``: on, but off over SSH."""
    ascii: str = "auto"
    """Draw in ASCII: ``yes``, ``no`` or ``auto``, by the locale."""

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        _one_of("console.link", self.link, ("fast", "slow"))
        _one_of("console.ascii", self.ascii, ("auto", "yes", "no"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a person can set; each key is also ``AGENTVAULT_<SECTION>_<KEY>``."""

    broker: BrokerSettings = field(default_factory=BrokerSettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    stepup: StepUpSettings = field(default_factory=StepUpSettings)
    tenant: TenantSettings = field(default_factory=TenantSettings)
    operators: OperatorSettings = field(default_factory=OperatorSettings)
    console: ConsoleSettings = field(default_factory=ConsoleSettings)
    connections: Mapping[str, ConnectionSettings] = field(default_factory=dict)

    @property
    def connection_scopes(self) -> dict[str, tuple[str, ...]]:
        """What using each connection stands for, by its name."""
        return {name: one.scopes for name, one in self.connections.items()}

    """By the tenant's name of the connection; in ``config.toml`` alone."""

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
            (str(home.config_file), _read_toml(home.config_file)),
            ("environment", _from_environ(os.environ if environ is None else environ)),
            ("command line", _from_flags(flags or {})),
        ):
            settings = _overlay(settings, table, source)
        return settings


def parse_listen(listen: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` and insist on loopback.

    Raises:
        SettingsError: it is malformed, or not a loopback address.
    """
    host, separator, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not _DIGITS.fullmatch(port) or int(port) > 65_535:
        raise SettingsError(
            f"'{listen}' is not HOST:PORT", "for example 127.0.0.1:7717"
        )
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(
            f"'{host}' is not a loopback address",
            "listen on 127.0.0.1 or [::1]; put a proxy with mutual TLS before it",
        )
    return "127.0.0.1" if host == "localhost" else host, int(port)


_SECTIONS: Final = {
    "broker": BrokerSettings,
    "tokens": TokenSettings,
    "stepup": StepUpSettings,
    "tenant": TenantSettings,
    "operators": OperatorSettings,
    "console": ConsoleSettings,
}


def _overlay(settings: Settings, table: Mapping[str, object], source: str) -> Settings:
    for section, values in table.items():
        if section == "connections":
            settings = replace(settings, connections=_connections(values, source))
            continue
        if section not in _SECTIONS:
            names = {*_SECTIONS, "connections"}
            raise _unknown(f"[{section}]", section, names, source)
        if not isinstance(values, Mapping):
            raise _no_table(section, source)
        current = getattr(settings, section)
        changed = _changed(current, values, section, source)
        settings = replace(settings, **{section: changed})
    return settings


def _changed(current: Any, values: Mapping[str, Any], section: str, source: str) -> Any:
    names = {item.name for item in fields(current)}
    changes = {}
    for key, value in values.items():
        if key not in names:
            raise _unknown(f"{section}.{key}", key, names, source)
        where = f"{section}.{key} in {source}"
        changes[key] = _coerce(value, getattr(current, key), where)
    return replace(current, **changes)


def _connections(table: object, source: str) -> dict[str, ConnectionSettings]:
    """Read ``[connections.NAME]`` tables."""
    if not isinstance(table, Mapping):
        raise _no_table("connections", source)
    known = {item.name: item.default for item in fields(ConnectionSettings)}
    read: dict[str, ConnectionSettings] = {}
    for name, values in table.items():
        section = f"connections.{name}"
        if not CONNECTION.fullmatch(name):
            raise SettingsError(
                f"{name!r:.60} in {source} is no name of a connection",
                "it has letters, digits and hyphens",
            )
        if not isinstance(values, Mapping):
            raise _no_table(section, source)
        changes = {}
        for key, value in values.items():
            if key not in known:
                raise _unknown(f"{section}.{key}", key, known, source)
            where = f"{section}.{key} in {source}"
            changes[key] = _coerce(value, known[key], where)
        try:
            read[name] = ConnectionSettings(**changes)
        except SettingsError as error:
            what = f"[{section}] in {source}: {error.what}"
            raise SettingsError(what, error.remedy) from None
    return read


def _no_table(section: str, source: str) -> SettingsError:
    return SettingsError(
        f"{section} in {source} is not a table",
        f"write [{section}] on a line of its own, and KEY = VALUE below it",
    )


def _unknown(
    shown: str, word: str, known: Mapping[str, object] | set[str], source: str
) -> SettingsError:
    near = difflib.get_close_matches(word, list(known), n=1)
    remedy = f"did you mean {near[0]}" if near else f"known: {', '.join(sorted(known))}"
    return SettingsError(f"unknown setting {shown} in {source}", remedy)


def _coerce(value: Any, default: Any, where: str) -> Any:
    """Bring *value* to the type of *default*; environment values are strings."""
    if isinstance(default, Switch):
        return _switch(value, where)
    if isinstance(default, tuple):
        items = value.split(",") if isinstance(value, str) else value
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return tuple(item.strip() for item in items if item.strip())
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            return int(value)
    elif isinstance(value, str):
        return value
    kinds = {tuple: "list of strings", int: "whole number", str: "string"}
    raise SettingsError(f"{where} must be a {kinds[type(default)]}, not {value!r:.60}")


def _switch(value: object, where: str) -> Switch:
    if value == Switch.AUTO:
        return Switch.AUTO
    if (on := _truth(value)) is None:
        raise SettingsError(f"{where} may be true, false or auto, not {value!r:.60}")
    return Switch.ON if on else Switch.OFF


def _truth(value: object) -> bool | None:
    words = {"true": True, "yes": True, "1": True}
    words |= {"false": False, "no": False, "0": False}
    return value if isinstance(value, bool) else words.get(str(value).lower())


def _read_toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        # Not UTF-8, not TOML, or a number or nesting beyond what Python reads.
        raise SettingsError(f"{path} cannot be read ({error})") from error


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for section, kind in _SECTIONS.items():
        for item in fields(kind):
            value = environ.get(f"AGENTVAULT_{section}_{item.name}".upper())
            if value is not None:
                table.setdefault(section, {})[item.name] = value
    return table


def _from_flags(flags: Mapping[str, object]) -> dict[str, dict[str, object]]:
    table: dict[str, dict[str, object]] = {}
    for name, value in flags.items():
        if value is not None:
            section, _, key = name.partition(".")
            table.setdefault(section, {})[key] = value
    return table


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{name} is {value}", f"it may be {low} to {high}")


def _one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise SettingsError(f"{name} is '{value}'", f"it may be {', '.join(words)}")
