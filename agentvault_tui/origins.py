"""Origins, names of hosts, and addresses to listen on: one spelling of each."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.text import visible

NOWHERE: Final = "none"
"""In place of origins: the secret is sent nowhere."""
DEFAULT_PORTS: Final = {
    "https": 443, "http": 80, "smtp": 587, "tcp": 601, "tls": 6514
}  # fmt: skip
"""Mail is submitted with TLS (RFC 8314 section 3.3); syslog over TCP and TLS is of
RFC 6587 and RFC 5425."""
_SHORT: Final = frozenset({"https", "http"})
"""Schemes that are written without their default port."""
_UNIX: Final = "unix"
_MOST_ORIGINS: Final = 64
_LISTED_HOST: Final = re.compile(r"[a-z0-9._-]{1,254}")
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_HTTPS: Final = 443


def host_name(text: str) -> str:
    """Return *text* as one spelling of a DNS name or an address, or a UsageError."""
    name = text.strip().lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        # A last label of digits alone is an address gone wrong (RFC 3696 section 2).
        named = _DNS.fullmatch(name) and not name.rpartition(".")[2].isdigit()
    else:
        named = None
        # A zone is of one machine; a mapped address is spelled by Python's version.
        other = ("scope_id", "ipv4_mapped")
        if all(getattr(address, name, None) is None for name in other):
            return str(address)
    if not named:
        raise UsageError(
            f"{text!r:.80} is no name of a host",
            "a DNS name without * or port, or an IP address",
        )
    return name


def parse_listen(listen: str, setting: str = "") -> tuple[str, int]:
    """Split ``HOST:PORT`` and insist on loopback.

    Args:
        listen: the text.
        setting: where it was written, for the error.

    Returns:
        host and port.

    Raises:
        SettingsError: it is malformed, or not a loopback address.
    """
    where = f" in {setting}" if setting else ""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = re.fullmatch("[0-9]{1,5}", port)
    if not colon or not number or int(port) > 65_535:
        raise SettingsError(
            f"'{visible(listen, 80)}'{where} is not HOST:PORT",
            "for example 127.0.0.1:7717",
        )
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(
            f"'{visible(host, 80)}'{where} is not a loopback address",
            "listen on 127.0.0.1 or [::1]; put a proxy with mutual TLS before it",
        )
    return "127.0.0.1" if host == "localhost" else host, int(port)


@dataclass(frozen=True, slots=True)
class ServerOrigin:
    """Scheme, host and port (RFC 6454 section 4), or the path of a Unix socket."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without its brackets; of ``unix`` the path."""
    port: int

    @classmethod
    def of(cls, parts: SplitResult) -> ServerOrigin:
        """Return the origin of a URL that was checked where it was read."""
        if parts.scheme == _UNIX:
            return cls(_UNIX, parts.path, 0)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname or "", port)

    @classmethod
    def parse(cls, text: str) -> ServerOrigin:
        """Read an origin that a person lists for a secret.

        Upper and lower case are the same host; every other spelling is another one,
        also with a dot at its end: nothing is resolved or decoded.

        Raises:
            UsageError: it is none, or more than an origin.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
            if ":" in host and host != str(ipaddress.IPv6Address(host)):
                raise ValueError  # noqa: TRY301 - as the functions above do
        except ValueError:
            raise _no_origin(text) from None
        if parts.scheme == _UNIX:
            if not re.fullmatch(r"unix:/[!-.0-~][!-~]*", text) or {*"?#"} & {*text}:
                raise _no_origin(text)
            return cls(_UNIX, parts.path, 0)
        listed = ":" in host or _LISTED_HOST.fullmatch(host)
        if parts.scheme not in DEFAULT_PORTS or not listed or port == 0:
            raise _no_origin(text)
        whole = f"{parts.scheme}://{parts.netloc}".lower()
        if text.lower() != whole or "@" in whole or whole.endswith(":"):
            raise _no_origin(text)
        return cls.of(parts)

    @property
    def authority(self) -> str:
        """Return the ``Host`` header: the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = DEFAULT_PORTS[self.scheme] == self.port
        return host if default else f"{host}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Check whether the host says by itself that it is no public address."""
        try:
            return not ipaddress.ip_address(self.host).is_global
        except ValueError:
            return self.host.rpartition(".")[2] == "localhost"

    def __str__(self) -> str:
        if self.scheme == _UNIX:
            return f"{_UNIX}:{self.host}"
        if self.scheme in _SHORT:
            return f"{self.scheme}://{self.authority}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def read_origins(texts: Iterable[str]) -> tuple[str, ...]:
    """Read the list of origins that a secret may be sent to.

    Args:
        texts: origins, or ``none`` alone, as which an empty list counts.

    Returns:
        the origins in one spelling, each once, in order.

    Raises:
        UsageError: one is no origin, ``none`` is not alone, or there are too many.
    """
    listed = list(texts)
    if listed == [NOWHERE]:
        return ()
    if len(listed) > _MOST_ORIGINS or NOWHERE in listed:
        raise UsageError(
            "a secret is for at most 64 origins, or for none",
            "--for https://HOST, once for each; or --for none alone",
        )
    return tuple(sorted({str(ServerOrigin.parse(one)) for one in listed}))


def _no_origin(text: str) -> UsageError:
    return UsageError(
        f"'{visible(text, 120)}' is no origin",
        "write scheme, host and port alone: https://HOST, smtp://HOST:PORT,"
        " tcp://HOST:PORT or tls://HOST:PORT",
    )


class HttpsOrigin(NamedTuple):
    """Scheme, host and port of a URL (RFC 6454), the scheme being https."""

    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> HttpsOrigin:
        """Read a URL that is an origin and nothing more, but for a slash at its end.

        Raises:
            ValueError: it is another.
        """
        parts = urlsplit(url)
        port = _HTTPS if parts.port is None else parts.port
        if parts.scheme != "https" or parts.path not in {"", "/"} or port == 0:
            raise ValueError
        if any(mark in url for mark in "@?#"):
            raise ValueError
        try:
            return cls(host_name(parts.hostname or ""), port)
        except UsageError:
            raise ValueError from None

    def __str__(self) -> str:
        """Write it as browsers do: without the default port, and with no slash."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{shown}{'' if self.port == _HTTPS else f':{self.port}'}"
