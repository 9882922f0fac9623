"""URLs in the headers of answers: none leads an agent's client to another service.

All services are at the broker's origin, so a client that follows a redirect there keeps
the agent's token, method and body. Through the forward proxy a client keeps the proxy's
password. Programs read a relative URL in different ways (``///host``), so there every
URL is written absolute.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.services import Service, is_host
from agentvault_tui.gateway.target import parse_target
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.web.reply import Header
from agentvault_tui.web.service_connection import UpstreamError

_URL_BYTES: Final = "!#$%&'()*+,/:;=?@[]~"
"""Sent as they are, like letters, digits, ``-``, ``.`` and ``_`` (RFC 3986)."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SPECIAL: Final = frozenset({"http", "https"})
_IN_LINK: Final = re.compile(rb"<([^<>]*)>")
"""RFC 8288 section 3; common clients find one in a quoted string, too."""
_WITH_URLS: Final = frozenset({b"location", b"content-location", b"link", b"refresh"})
_MOST_URLS: Final = 64
"""In one answer; resolving one takes some 40 us of the event loop."""
_MOST_BYTES: Final = 16_384
"""Of the headers with URLs in one answer; clients read no longer ones."""
_REFRESH: Final = re.compile(
    rb"([0-9.]+)[ \t]*(?:[;,][ \t]*(?:url[ \t]*=[ \t]*)?"
    rb"(?:'([^']*)'.*|\"([^\"]*)\".*|([^'\"].*))?)?",
    re.IGNORECASE,
)
"""HTML section 4.2.5.3; ``url=`` may be left out."""


class AnswerUrls:
    """Rewrites the URLs of one answer."""

    def __init__(
        self, service: Service, target: str, own: frozenset[bytes] | None
    ) -> None:
        """Resolve the URLs of an answer against the URL of the request.

        Args:
            service: the service that answers.
            target: path and query of the request, as they were sent.
            own: see `Incoming.own`; None leaves the service's URLs at its own origin.
        """
        self._origin = service.origin
        self._base = f"{service.origin}{target}"
        self._prefix = f"/gw/{service.name}"
        self._own = own

    def rewrite(self, headers: list[Header]) -> list[Header]:
        """Return the headers of an answer as the agent's client may follow them.

        Raises:
            UpstreamError: 502; one names the broker's own origin, or is read by
                programs in different ways; or there are too many.
        """
        urls = [value for name, value in headers if name in _WITH_URLS]
        if (
            len(urls) + sum(value.count(b"<") for value in urls) > _MOST_URLS
            or sum(map(len, urls)) > _MOST_BYTES
        ):
            text = "the service's answer has more URLs in its headers than are resolved"
            raise UpstreamError(502, "upstream_reset", text)
        return [(name, self._value(name, value)) for name, value in headers]

    def check_redirect(
        self,
        status: int,
        headers: list[Header],
        leads_away: Callable[[str, int], bool],
        *,
        reads: bool,
    ) -> None:
        """Refuse an answer that sends a client of the forward proxy to another service.

        The proxy's password is with each request of the client: AgentVault would attach
        the other service's credential to the request that this one made.

        Args:
            status: of the answer.
            headers: of the answer, as `rewrite` returned them.
            leads_away: tells whether another service is at a host and port.
            reads: whether the request only reads: then it may be redirected to another
                port of its host, such as that of https.

        Raises:
            UpstreamError: 502.
        """
        for name, value in headers:
            if name == b"refresh":
                url = value.partition(b"; url=")[2]
            elif name == b"location" and 300 <= status < 400:
                url = value
            else:
                continue
            parts = urlsplit(url.decode())
            if parts.scheme not in _SPECIAL:
                continue
            origin = ServerOrigin.of(parts)
            if reads and origin.host == self._origin.host:
                continue
            if leads_away(origin.host, origin.port):
                text = "the service's answer leads to another service: ask there"
                raise UpstreamError(502, "upstream_reset", text)

    def _value(self, name: bytes, value: bytes) -> bytes:
        if name in {b"location", b"content-location"}:
            return self._url(value)
        if name == b"link":
            if not value.startswith(b"<") or b"<" in _IN_LINK.sub(b"", value):
                raise _refused()
            return _IN_LINK.sub(lambda link: b"<%s>" % self._url(link[1]), value)
        if name == b"refresh":
            refresh = _REFRESH.fullmatch(value)
            if refresh is None:
                raise _refused()
            delay, *urls = refresh.groups()
            url = next((one for one in urls if one is not None), None)
            return delay if url is None else delay + b"; url=" + self._url(url)
        return value

    def _resolve(self, raw: bytes) -> SplitResult | bytes:
        """Return the parts of a URL of HTTP; any other as it is sent."""
        # Escaped, a backslash, tab or blank has one reading.
        text = quote(raw.strip(), safe=_URL_BYTES)
        scheme = _SCHEME.match(text)
        if scheme and scheme[1].lower() not in _SPECIAL:
            return text.encode()  # no client sends a token of HTTP there
        if scheme and not text.startswith("//", scheme.end()):
            raise _refused()  # WHATWG's URL standard and RFC 3986 differ on it
        try:
            parts = urlsplit(urljoin(self._base, text))
            host = ServerOrigin.of(parts).host
        except ValueError:
            raise _refused() from None
        if not is_host(host) or "@" in parts.netloc:
            raise _refused()
        return parts

    def _url(self, raw: bytes) -> bytes:
        """Return a URL: of the service below ``/gw/``, of any other place absolute."""
        parts = self._resolve(raw)
        if isinstance(parts, bytes):
            return parts
        origin = ServerOrigin.of(parts)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        below, url = self._own is not None and _is_plain(path), f"{origin}{path}"
        if origin == self._origin and below:
            url = self._prefix + path
        elif origin != self._origin and origin.authority.encode() in (self._own or ()):
            if not below or not path.startswith(f"{self._prefix}/"):
                raise _refused()
            url = path
        return (f"{url}#{parts.fragment}" if parts.fragment else url).encode()


def _is_plain(path: str) -> bool:
    """Check whether all programs resolve a path and query alike, as `parse_target`."""
    try:
        parse_target(path.encode())
    except UnreadableRequestError:
        return False
    return True


def _refused() -> UpstreamError:
    text = "the service's answer leads to the broker itself, or to an unclear place"
    return UpstreamError(502, "upstream_reset", text)
