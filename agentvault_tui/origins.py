"""One spelling of a host's name, and of an https origin."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from agentvault_tui.errors import UsageError

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
