"""Tokens of platforms as client assertions: GitHub Actions, Kubernetes, SPIFFE.

Each ``[issuers.NAME]`` names an accepted issuer, its audience, and the place of its
keys. A token may be shown more than once: platforms hand the same one out for as long
as it lives.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agentvault_tui.broker.assertion import Assertion, UnprovenError
from agentvault_tui.broker.callouts import read_content
from agentvault_tui.broker.public_key import KeySet, read_key_set
from agentvault_tui.clock import Clock
from agentvault_tui.errors import SettingsError, TenantUnreachableError
from agentvault_tui.home import Home
from agentvault_tui.settings import IssuerSettings
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted
from agentvault_tui.vault.issuer import check_endpoint
from agentvault_tui.vault.refreshed import CachedDocument
from agentvault_tui.web.reach import service_connection, trust
from agentvault_tui.web.service_connection import Bounds, UpstreamError

log = logging.getLogger("agentvault.issuers")

SKEW: Final = 60
"""Seconds by which a platform's clock may be ahead of ours."""
MAX_LIFE: Final = 86_400
"""Seconds that a token may be good for yet."""
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_TYPES: Final = frozenset({"jwt", "jose"})
"""SPIFFE JWT-SVID section 2.4; no other kind of token is taken (RFC 8725 3.11)."""
_REFUSED: Final = frozenset({"jku", "x5u", "jwk"})
"""Headers that would have us take another key than the issuer's (RFC 8725 3.10)."""
_FRESH: Final = 300.0
"""Seconds for which keys are used without asking: so long a withdrawn key counts."""
_STALE: Final = 3600.0
"""Seconds for which keys go on where the issuer does not answer."""
_PAUSE: Final = 30.0
"""Seconds between two fetches while there are keys, whatever tokens name."""
_RETRY: Final = 5.0
_MOST: Final = 262_144
"""Bytes of a key set."""
_BOUNDS: Final = Bounds(connect=3.0, idle=3.0, whole=3.0, answer_bytes=2 * _MOST)


class Issuer:
    """One accepted issuer."""

    def __init__(
        self, name: str, settings: IssuerSettings, folder: Path, clock: Clock
    ) -> None:
        """Trust the keys that *settings* name; a relative file is below *folder*.

        Raises:
            SettingsError: where they are said to be is no place for them.
        """
        self.name = name
        self.settings = settings
        self._clock = clock
        self._folder = folder
        self._file = folder / settings.jwks_file if settings.jwks_file else None
        if self._file is None:
            setting = f"issuers.{name}.jwks_uri"
            self._url = urlsplit(check_endpoint(settings.jwks_uri, setting))
        self._trust: ssl.SSLContext | None = None
        self._keys = CachedDocument(
            self._fetch,
            clock,
            fresh=_RETRY if self._file else _FRESH,
            stale=_STALE,
            pause=_RETRY if self._file else _PAUSE,
            retry=_RETRY,
        )

    @property
    def problem(self) -> str | None:
        """Why its keys could not be had at the last try, if so."""
        return self._keys.failure.what if self._keys.failure else None

    async def subject(self, assertion: Assertion) -> str:
        """Verify a token of this issuer (RFC 7523 section 3); return its ``sub``.

        Raises:
            UnprovenError: it is none, or not good now.
            TenantUnreachableError: the issuer's keys cannot be had.
        """
        header, now = assertion.header, self._clock.now().timestamp()
        assertion.check_type(_TYPES)
        kid, subject = header.get("kid"), assertion.claims.get("sub")
        if _REFUSED & header.keys() or header.get("alg") not in ALGORITHMS:
            raise UnprovenError
        if not isinstance(kid, str | None) or not isinstance(subject, str):
            raise UnprovenError
        if not now < assertion.time("exp") <= now + MAX_LIFE:
            raise UnprovenError
        if max(assertion.time(name, now) for name in ("iat", "nbf")) > now + SKEW:
            raise UnprovenError
        if kid not in await self._keys.get():
            await self._keys.renew()
        key = (await self._keys.get()).get(kid)
        if key is None or not assertion.signed_by(key):
            raise UnprovenError
        # It may have waited for the keys.
        if assertion.time("exp") <= self._clock.now().timestamp():
            raise UnprovenError
        return subject

    async def _fetch(self) -> KeySet:
        at = str(self._file or self.settings.jwks_uri)
        try:
            if self._file is None:
                content = await self._download()
            else:
                content = await asyncio.to_thread(self._read_file, self._file)
            return read_key_set(content.decode())
        except (UpstreamError, SettingsError, OSError, ValueError) as error:
            what = f"the keys of the issuer {self.name} cannot be had at {at}"
            log.warning("%s: %s", what, visible(error, 120))
            raise TenantUnreachableError(f"{what} ({visible(error, 120)})") from error

    def _read_file(self, path: Path) -> bytes:
        content = read_trusted(path, self._folder, _MOST + 1)
        if content is None or len(content) > _MOST:
            raise ValueError("it is not there" if content is None else "it is too long")
        return content

    async def _download(self) -> bytes:
        """Ask once, over a connection of its own; a redirect is an answer like any.

        The address is resolved once, and the name verified by TLS; http is to loopback
        alone.
        """
        at, secure = self._url, self._url.scheme == "https"
        if secure and self._trust is None:
            self._trust = trust("")
        async with asyncio.timeout(_BOUNDS.whole):
            connection = await service_connection(
                at.hostname or "",
                at.port or (443 if secure else 80),
                private=True,
                tls=self._trust if secure else None,
                bounds=_BOUNDS,
            )
            try:
                connection.begin("GET")
                headers = [("Host", at.netloc), ("Accept", "application/json")]
                connection.send(at.path or "/", headers, None, None)
                return await read_content(connection, _MOST)
            finally:
                connection.abort()


class Issuers:
    """The issuers of this home, by the names that subjects use."""

    def __init__(
        self, settings: Mapping[str, IssuerSettings], home: Home, clock: Clock
    ) -> None:
        """Trust those of ``[issuers]``.

        Raises:
            SettingsError: the keys of one cannot be where it says, or two are the same.
        """
        self.names = tuple(settings)
        self._issuers: dict[tuple[str, str], Issuer] = {}
        for name, one in settings.items():
            key = one.issuer, one.audience
            if key in self._issuers:
                raise SettingsError(
                    f"issuers.{name} and issuers.{self._issuers[key].name} have the "
                    "same issuer and audience",
                    "remove one: nobody could tell whose a token is",
                )
            self._issuers[key] = Issuer(name, one, home.config, clock)
        self._names = frozenset(one.issuer for one in settings.values())

    def knows(self, assertion: Assertion) -> bool:
        """Check whether an assertion says that it is of one of the issuers."""
        issuer = assertion.claims.get("iss")
        return isinstance(issuer, str) and issuer in self._names

    def of(self, assertion: Assertion) -> Issuer:
        """Return the issuer of a token that is for us, by its exact claims.

        Raises:
            UnprovenError: it is for another audience, or for several.
        """
        key = str(assertion.claims["iss"]), assertion.audience()
        if key not in self._issuers:
            raise UnprovenError
        return self._issuers[key]

    @property
    def problems(self) -> list[str]:
        """Say in sentences which keys could not be had at the last try."""
        problems = [one.problem for one in self._issuers.values() if one.problem]
        return [f"{one}; without them none of its tokens counts." for one in problems]
