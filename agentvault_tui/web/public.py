"""An address at which other machines reach a listener: settings and certificate."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agentvault_tui.clock import Clock
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.origins import HttpsOrigin
from agentvault_tui.settings import OperatorSettings, TenantSettings
from agentvault_tui.web.tls import ServerName, ServerTls, TlsFiles

_KEYS: Final = ("listen", "url", "tls_cert", "tls_key")
_LISTEN: Final = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class PublicAddress:
    """Where the tenant listens for phones, or the broker for operators elsewhere."""

    address: str
    port: int
    url: str
    """``https://HOST[:PORT]/``, as browsers write it: no default port."""
    host: str
    """Of `url`: a name in lower case, or an address."""
    files: TlsFiles

    @classmethod
    def of(cls, home: Home, settings: TenantSettings | OperatorSettings) -> Self | None:
        """Read ``[tenant]`` or ``[operators]``; None: it is for this machine alone.

        Relative paths are below the config folder of *home*.

        Raises:
            SettingsError: one of the four is missing or invalid.
        """
        section = "tenant" if isinstance(settings, TenantSettings) else "operators"
        missing = [name for name in _KEYS if not getattr(settings, name)]
        if len(missing) == len(_KEYS):
            return None
        if missing:
            raise SettingsError(
                f"{section}.{missing[0]} is missing",
                f"{', '.join(_KEYS)} of [{section}] are given together",
            )
        if isinstance(settings, TenantSettings) and settings.issuer:
            raise SettingsError(
                f"tenant.listen is for the embedded tenant, and tenant.issuer names "
                f"{settings.issuer}",
                "remove one of them",
            )
        address, port = _listen(settings.listen, section)
        try:
            origin = HttpsOrigin.parse(settings.url)
        except ValueError:
            raise SettingsError(
                f"{section}.url is {settings.url!r:.80}: not https, or not only host "
                "and port",
                "for example https://ops.example:7443/",
            ) from None
        cert, key = (
            home.config / Path(path).expanduser()
            for path in (settings.tls_cert, settings.tls_key)
        )
        return cls(address, port, f"{origin}/", origin.host, TlsFiles(cert, key))

    @property
    def named(self) -> bool:
        """Whether the host is a name: passkeys need one (WebAuthn section 5.1.2)."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    def tls(self, clock: Clock) -> ServerTls:
        """Read certificate and key.

        Raises:
            SettingsError: they cannot be used, are for another host, or lapsed.
        """
        return ServerTls(self.files, ServerName(self.host, clock))


LOCALHOST: Final = "localhost"


@dataclass(frozen=True, slots=True)
class LocalSite:
    """Where browsers of this machine reach the tenant's pages: passkeys work there.

    A browser takes http://localhost for a secure context (WebAuthn section 5). It is
    ours alone only while the tenant holds the port on 127.0.0.1 and on ::1.
    """

    port: int
    host: str = LOCALHOST
    named: bool = True

    @property
    def url(self) -> str:
        """The root of the pages."""
        return f"http://{LOCALHOST}:{self.port}/"


def _listen(text: str, section: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(text)
    try:
        host = str(ipaddress.ip_address(match["host"].strip("[]"))) if match else ""
    except ValueError:
        host = ""
    port = int(match["port"]) if match else 0
    if not host or not 0 < port <= 65_535:
        raise SettingsError(
            f"{section}.listen is {text!r:.60}: no address and port",
            "for example 0.0.0.0:7443, or [::]:7443",
        )
    return host, port
