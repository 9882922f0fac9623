"""HTTP to the tenant: the one place that knows httpx, and trusts no answer.

No proxy or netrc from the environment, no redirects, no cookies, no compression,
bounded bodies, one deadline over the whole exchange, and one origin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx

from agentvault_tui import __version__
from agentvault_tui.errors import SettingsError, TenantUnreachableError
from agentvault_tui.text import visible

MAX_BODY: Final = 64 * 1024
_MAX_URL: Final = 2048
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}

# httpx writes each URL at INFO and httpcore each header at DEBUG: never ours to log.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status and, when it was one, a JSON object."""

    status: int
    body: dict[str, Any] | None = field(repr=False)
    """Hidden: it may hold tokens."""
    retry_after: float | None = None
    """Seconds to wait, when a rate limit said so."""

    @property
    def error(self) -> str:
        """The OAuth error code of a refusal (RFC 6749 section 5.2), or ``""``."""
        error = None if self.body is None else self.body.get("error")
        return error if isinstance(error, str) else ""

    @property
    def description(self) -> str:
        """The tenant's own sentence, made displayable."""
        text = None if self.body is None else self.body.get("error_description")
        return visible(text, 200) if isinstance(text, str) else ""


class Wire:
    """One HTTP client for one tenant."""

    def __init__(self, issuer: str, seconds: float = 10.0) -> None:
        """Reach *issuer*'s origin alone, each exchange within *seconds*."""
        self.origin: Final = origin(issuer)
        self._seconds = seconds
        self._client: httpx.AsyncClient | None = None
        self.reachable: bool | None = None
        """Whether the last exchange was answered; nothing before the first."""

    async def get(self, url: str) -> Reply:
        """Fetch *url*.

        Raises:
            TenantUnreachableError: no answer, a redirect, or too large an answer.
        """
        return await self._exchange("GET", url, None)

    async def post(self, url: str, form: Mapping[str, str]) -> Reply:
        """Send *form* to *url*.

        Raises:
            TenantUnreachableError: no answer, a redirect, or too large an answer.
        """
        return await self._exchange("POST", url, form)

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _exchange(
        self, method: str, url: str, form: Mapping[str, str] | None
    ) -> Reply:
        if origin(url) != self.origin:
            raise TenantUnreachableError(f"{visible(url)} is not on the tenant")
        try:
            # httpx bounds each read; a byte a second would pass all of them.
            async with asyncio.timeout(self._seconds):
                reply = await self._stream(method, url, form)
        except TimeoutError as error:
            self.reachable = False
            raise _unreachable(f"did not answer within {self._seconds:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self.reachable = False
            raise _unreachable(f"cannot be reached ({visible(error, 120)})") from error
        except TenantUnreachableError:
            self.reachable = False
            raise
        self.reachable = reply.status < 500
        return reply

    async def _stream(
        self, method: str, url: str, form: Mapping[str, str] | None
    ) -> Reply:
        async with self._http().stream(method, url, data=form) as response:
            if 300 <= response.status_code < 400:
                raise _unreachable("answered with a redirect, which is not followed")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _unreachable("sent a compressed answer nobody asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _unreachable(f"sent more than {MAX_BODY // 1024} KiB")
            return Reply(
                response.status_code, _json_object(bytes(body)), _pause(response)
            )

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                timeout=self._seconds,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                limits=httpx.Limits(max_connections=8, max_keepalive_connections=4),
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"agentvault/{__version__}",
                },
            )
        return self._client


def strict_json(text: bytes | str) -> Any:
    """Read JSON, refusing duplicate keys and numbers JSON does not have.

    Raises:
        ValueError: it is not such JSON.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key stands there twice")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


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
    if parts.scheme != "https" and not _is_loopback(parts.hostname or ""):
        raise SettingsError(f"{visible(issuer)} does not use https", remedy)
    return issuer if issuer.endswith("/") else issuer + "/"


def origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an absolute http(s) URL; else nothing."""
    try:
        parts = _parts(url)
        port = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port or _DEFAULT_PORTS[parts.scheme]


def _parts(url: str) -> SplitResult:
    """Split *url*, refusing what two readers could take for different hosts."""
    plain = url.isascii() and url.isprintable() and len(url) <= _MAX_URL
    if not plain or any(mark in url for mark in ' \\"<>`{}|^'):
        raise ValueError("not a plain URL")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an absolute URL without user information")
    _ = parts.port
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = strict_json(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _pause(response: httpx.Response) -> float | None:
    """Read ``Retry-After`` in seconds; its date form is not worth a parser."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _unreachable(what: str) -> TenantUnreachableError:
    return TenantUnreachableError(
        f"the tenant {what}", "agentvault doctor shows whether it is up"
    )
