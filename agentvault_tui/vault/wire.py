"""HTTP to tenant and providers: the one module that uses httpx.

No netrc, no redirects, no cookies, no compression, bounded bodies, one deadline over
the whole exchange, and one origin; `egress` chooses proxy and authorities.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

import httpx

from agentvault_tui import __version__
from agentvault_tui.errors import TenantCredentialError, TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.egress import Route, route
from agentvault_tui.vault.issuer import origin
from agentvault_tui.vault.reply import TenantReply, read_reply

_CONFIDENTIAL: Final = frozenset((
    "auth_session", "client_assertion", "client_secret", "code", "code_verifier",
    "connect_code", "device_code", "refresh_token", "subject_token", "token",
))  # fmt: skip
"""Fields of our requests, by the names OAuth and Auth0 give them."""
_SHORTEST: Final = 8
"""Characters: less is no secret, and would be found in words."""
_IN_ITS_PLACE: Final = "(hidden)"
_WAYS: Final = (str, quote, quote_plus)
"""How a secret may be written: as it is, or as an address or a form has it."""


class SecretRedactor:
    """Removes the secrets of one request from its answer."""

    def __init__(
        self, form: Mapping[str, str] | None, body: object, bearer: Secret | None
    ) -> None:
        """Find the secrets of a request, also as an address or a form writes them."""
        members = {**(form or {}), **(body if isinstance(body, dict) else {})}
        confidential = [members[name] for name in _CONFIDENTIAL & members.keys()]
        if bearer is not None:
            confidential.append(bearer.reveal())
        secrets = {one for one in confidential if isinstance(one, str)}
        ways = {way(one) for one in secrets if len(one) >= _SHORTEST for way in _WAYS}
        # The longest first: one may be the beginning of another.
        self._secrets = sorted(ways, key=len, reverse=True)

    def out_of(self, text: str) -> str:
        """Return *text* without them."""
        for secret in self._secrets:
            text = text.replace(secret, _IN_ITS_PLACE)
        return text

    def out_of_refusal(self, reply: TenantReply) -> TenantReply:
        """Return a refusal without them; a success as it is.

        It may repeat a refresh token, which is then the current one (RFC 6749 section
        6).
        """
        if reply.status < 300 and not reply.error:
            return reply
        return replace(reply, value=self._out_of(reply.value))

    def _out_of(self, value: object) -> object:
        """Walk JSON: its depth was bounded when it was read."""
        if isinstance(value, str):
            return self.out_of(value)
        if isinstance(value, dict):
            return {self.out_of(k): self._out_of(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._out_of(one) for one in value]
        return value


MAX_BODY: Final = 64 * 1024
"""Bytes of an answer, unless the caller takes more."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1; anything else httpx would quote in its own error."""

# httpx writes each URL at INFO and httpcore each header at DEBUG: never ours to log.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


_TRUSTS_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ASK_DOCTOR: Final = "agentvault doctor shows whether it is up"


class Wire:
    """One HTTP client for one tenant or provider."""

    def __init__(
        self,
        issuer: str,
        seconds: float = 10.0,
        *,
        who: str = "the tenant",
        remedy: str = ASK_DOCTOR,
        local: str | None = None,
    ) -> None:
        """Reach *issuer*'s origin alone, each exchange within *seconds*.

        Errors call it *who*, and give *remedy* when it cannot be reached. With *local*
        the same requests go to that address on loopback, naming the issuer's host: then
        neither DNS nor a certificate decides who answers.
        """
        self.local: Final = local
        self._url: Final = local or issuer
        self.origin: Final = origin(issuer)
        self._seconds = seconds
        self._who = who
        self._remedy = remedy
        self._client: httpx.AsyncClient | None = None
        self._route = Route()
        self.reachable: bool | None = None
        """Whether the last exchange was answered; nothing before the first."""

    async def send(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        body: object = None,
        bearer: Secret | None = None,
        cap: int = MAX_BODY,
    ) -> TenantReply:
        """Send one request, with *form* or *body* as JSON, and read its answer whole.

        Args:
            method: of HTTP, in capitals.
            url: on the tenant's own origin.
            form: fields to send as a form.
            body: the JSON to send instead; nothing when it is None.
            bearer: the access token to send with it (RFC 6750 section 2.1).
            cap: the most bytes of an answer that are read.

        Raises:
            TenantUnreachableError: no answer, a redirect, or too large an answer.
            TenantCredentialError: *bearer* is no token.
        """
        if origin(url) != self.origin:
            raise TenantUnreachableError(f"{visible(url)} is not on {self._who}")
        headers, content = {}, None
        if self.local:
            there = urlsplit(url)
            headers["Host"] = there.netloc
            url = urlunsplit((*urlsplit(self.local)[:2], *there[2:]))
        if bearer is not None:
            token = bearer.reveal()
            if not _TOKEN.fullmatch(token):
                what = "the access token is none: it holds odd characters"
                raise TenantCredentialError("invalid_token", what)
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        try:
            request = self._http().build_request(
                method, url, data=form, content=content, headers=headers
            )
            echoes = SecretRedactor(form, body, bearer)
            reply = await self._exchange(request, cap, echoes)
        except TenantUnreachableError:
            self.reachable = False
            raise
        self._note(reply)
        return reply

    def _note(self, reply: TenantReply) -> None:
        """Note the sender's data in an answer."""
        self.reachable = reply.status < 500

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _exchange(
        self, request: httpx.Request, cap: int, echoes: SecretRedactor
    ) -> TenantReply:
        try:
            # httpx bounds each read; a byte a second would pass all of them.
            async with asyncio.timeout(self._seconds):
                reply = await self._read(request, cap)
        except TimeoutError as error:
            what = f"did not answer within {self._seconds:g} s"
            raise self._unreachable(what) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            what = f"cannot be reached ({visible(echoes.out_of(str(error)), 120)})"
            if self._route.proxy:
                what += f" through the proxy {visible(self._route.proxy_shown, 100)}"
            # Without its cause: httpx quotes what it could not read.
            raise self._unreachable(what, str(error)) from None
        return echoes.out_of_refusal(reply)

    async def _read(self, request: httpx.Request, cap: int) -> TenantReply:
        response = await self._http().send(request, stream=True)
        try:
            if 300 <= response.status_code < 400:
                what = "answered with a redirect, which is not followed"
                raise self._unreachable(what)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise self._unreachable("sent a compressed answer nobody asked for")
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > cap:
                    raise self._unreachable(f"sent more than {cap // 1024} KiB")
            return read_reply(response.status_code, response.headers, bytes(content))
        finally:
            await response.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._route = way = route(self._url)
            plain = self._url.startswith("http:")  # on loopback: no certificate counts
            self._client = httpx.AsyncClient(
                trust_env=False,
                verify=_TRUSTS_NOBODY if plain else verifier(way),
                proxy=_proxy(way),
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

    def _unreachable(self, what: str, error: str = "") -> TenantUnreachableError:
        remedy = self._remedy
        if "CERTIFICATE_VERIFY_FAILED" in error:
            remedy = "if a proxy of yours makes the certificates, SSL_CERT_FILE names "
            remedy += "its authority"
        return TenantUnreachableError(f"{self._who} {what}", remedy)


def verifier(way: Route) -> ssl.SSLContext:
    """Return the SSL context that verifies certificates on *way*."""
    made = way.context() or httpx.create_ssl_context(trust_env=False)
    # Python would write the keys of each connection where SSLKEYLOGFILE says.
    made.keylog_filename = None  # type: ignore[assignment]
    return made


def _proxy(way: Route) -> httpx.Proxy | None:
    if not way.proxy:
        return None
    tls = verifier(way) if way.proxy.startswith("https:") else None
    try:
        return httpx.Proxy(way.proxy, ssl_context=tls)
    except httpx.InvalidURL:
        # Without its cause, which may quote the credentials.
        raise TenantUnreachableError(f"{way.proxy_from} names no proxy") from None
