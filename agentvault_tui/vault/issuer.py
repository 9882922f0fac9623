"""The issuer as it must be written, and URLs on its origin."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from agentvault_tui.errors import SettingsError, TenantUnreachableError
from agentvault_tui.text import visible

_MAX_URL: Final = 2048
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_PATH: Final = re.compile(r"[A-Za-z0-9_.~%-]+(?:/[A-Za-z0-9_.~%-]+)*")


def check_issuer(issuer: str) -> str:
    """Return *issuer* with its trailing slash, as Auth0 writes it.

    Raises:
        SettingsError: it is no https URL (http only on loopback), or has extras.
    """
    remedy = "tenant.issuer is a URL such as https://acme.eu.auth0.com/"
    try:
        parts = _parts(issuer)
    except ValueError as error:
        raise SettingsError(f"{visible(issuer)} is not an issuer", remedy) from error
    if parts.query or parts.fragment or "?" in issuer or "#" in issuer:
        raise SettingsError(f"{visible(issuer)} has a query or a fragment", remedy)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise SettingsError(f"{visible(issuer)} does not use https", remedy)
    return issuer if issuer.endswith("/") else issuer + "/"


def check_endpoint(url: str, setting: str) -> str:
    """Return *url*, of a provider's endpoint that the operator set as *setting*.

    Raises:
        SettingsError: it is no https URL (http only on loopback), or has extras.
    """
    remedy = f"{setting} is a URL such as https://provider.test/revoke, auto or none"
    try:
        parts = _parts(url)
    except ValueError as error:
        what = f"{setting}: {visible(url, 120)} is not an endpoint"
        raise SettingsError(what, remedy) from error
    # RFC 6749 section 3.2: no fragment. A token must not end in a query, so neither
    # does the address it is sent to have one.
    if "?" in url or "#" in url:
        what = f"{setting}: {visible(url, 120)} has a query or a fragment"
        raise SettingsError(what, remedy)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        what = f"{setting}: {visible(url, 120)} does not use https"
        raise SettingsError(what, remedy)
    return url


def origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an absolute http(s) URL; else nothing."""
    try:
        parts = _parts(url)
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port or _DEFAULT_PORTS[parts.scheme]


def path(*segments: str) -> str:
    """Join *segments* to a path, each quoted whole: ids hold ``|``, ``/`` and ``:``.

    Raises:
        TenantUnreachableError: a segment, an id of the tenant's, is empty or climbs.
    """
    if not segments or any(one in {"", ".", ".."} for one in segments):
        raise TenantUnreachableError("the tenant sent an id that names nothing")
    return "/".join(quote(one, safe="") for one in segments)


def is_path(text: str) -> bool:
    """Check whether *text* is a path as `path` makes them, with nowhere to climb."""
    return bool(_PATH.fullmatch(text)) and not {".", ".."} & set(text.split("/"))


def _parts(url: str) -> SplitResult:
    """Split *url*, refusing one that two readers could take for different hosts."""
    plain = url.isascii() and url.isprintable() and len(url) <= _MAX_URL
    if not plain or any(mark in url for mark in ' \\"<>`{}|^'):
        raise ValueError("not a plain URL")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an absolute URL without user information")
    _ = parts.port
    return parts


def is_loopback(host: str) -> bool:
    """Check whether *host* is this machine, by its address or as ``localhost``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
