"""The environment's proxy and certificate authorities, for tenant and providers alone.

Nothing on loopback goes through a proxy or by other authorities.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from agentvault_tui.errors import TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.issuer import is_loopback

_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""In this order, as curl has it; http is spoken to loopback alone."""
_BYPASS: Final = ("no_proxy", "NO_PROXY")
_FILE, _FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"
_OTHERS: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Of other programs: with two variables it would not be plain who is trusted."""
_EXAMPLE: Final = "such as http://proxy.acme.test:3128"


@dataclass(frozen=True, slots=True)
class Route:
    """How one origin is reached, by the environment as it is now."""

    proxy: str = field(default="", repr=False)
    """The proxy's URL with its credentials; empty: none is used."""
    proxy_from: str = ""
    """The variable that names it."""
    authorities: str = ""
    """The variable that names the certificate authorities; empty: certifi's."""
    at: str = ""
    """The file or folder it names."""
    ignored: str = ""
    """A variable of another program that names authorities, where ours does not."""

    @property
    def proxy_shown(self) -> str:
        """The proxy without its credentials; empty: none is used."""
        if not self.proxy:
            return ""
        parts = urlsplit(self.proxy)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def __str__(self) -> str:
        way = "directly"
        if self.proxy:
            way = f"through the proxy {visible(self.proxy_shown, 100)}"
            way += f" ({self.proxy_from})"
        trusted = "certifi's authorities"
        if self.authorities:
            trusted = f"the authorities in {visible(self.at, 200)} ({self.authorities})"
        return f"{way}, trusting {trusted}"

    def context(self) -> ssl.SSLContext | None:
        """Return an SSL context of the authorities named; None means certifi's.

        Raises:
            TenantUnreachableError: they cannot be read.
        """
        try:
            if self.authorities == _FILE:
                return ssl.create_default_context(cafile=self.at)
            if not self.authorities:
                return None
            if not Path(self.at).is_dir():
                raise NotADirectoryError(self.at)
            return ssl.create_default_context(capath=self.at)
        except OSError as error:
            raise TenantUnreachableError(
                f"{self.authorities} names {visible(self.at, 200)}, whose certificates "
                "cannot be read",
                "a file of certificates in PEM; unset it to trust certifi's",
            ) from error


def route(url: str, environ: Mapping[str, str] = os.environ) -> Route:
    """Return how the origin of *url* is reached.

    Raises:
        TenantUnreachableError: a proxy is named that we cannot use.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return Route()
    authorities = next((one for one in (_FILE, _FOLDER) if environ.get(one)), "")
    others = (one for one in _OTHERS if environ.get(one) and not authorities)
    named = next((one for one in _PROXIES if environ.get(one)), "")
    bypass = next((environ[one] for one in _BYPASS if environ.get(one)), "")
    where = f"{host}:{parts.port or 443}"
    if bypass and proxy_bypass_environment(where, {"no": bypass}):
        named = ""
    return Route(
        proxy=_proxy(named, environ[named].strip()) if named else "",
        proxy_from=named,
        authorities=authorities,
        at=environ.get(authorities, ""),
        ignored=next(others, ""),
    )


def _proxy(variable: str, value: str) -> str:
    """Return a proxy's URL; an error about it never quotes its credentials."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        # After a "/", "?" or "#" that should be %2F, %3F or %23 comes more of a
        # password, and what stands before it would be shown as the proxy's host.
        whole = parts.path in {"", "/"} and not parts.query and not parts.fragment
        usable = whole and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise TenantUnreachableError(f"{variable} names no proxy", _EXAMPLE)
    if parts.scheme not in {"http", "https"}:
        what = f"{variable} names a proxy that speaks {visible(parts.scheme, 20)}"
        raise TenantUnreachableError(what, f"name one that speaks http, {_EXAMPLE}")
    return f"{parts.scheme}://{parts.netloc}"
