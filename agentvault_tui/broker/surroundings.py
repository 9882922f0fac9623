"""When and where a request came in: clock, time zone, caller's address, country."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import maxminddb

from agentvault_tui.clock import Clock
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home, file_stamp
from agentvault_tui.policy import Environment
from agentvault_tui.settings import Network, Settings
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted

LOCAL: Final = "127.0.0.1"
"""The source of a local command's request over the operators' socket."""
_SOURCES: Final = 4096
"""Addresses whose country is cached."""
_LONGEST: Final = 45
"""Characters of an IPv6 address (RFC 4291 section 2.2)."""
_FORWARDED: Final = b"x-forwarded-for"
_CODE: Final = re.compile("[A-Z]{2}")

log = logging.getLogger("agentvault.surroundings")


class Surroundings:
    """The broker's facts for policy about a request, next to the request itself."""

    def __init__(self, clock: Clock, home: Home, settings: Settings) -> None:
        """Read the country database, where the settings name one.

        Raises:
            SettingsError: it cannot be read.
        """
        self._clock = clock
        self._zone = ZoneInfo(settings.policy.timezone)
        self._trusted = settings.broker.proxies
        named = settings.policy.country_database
        self._folder = home.config
        self._database = home.config / named if named else None
        self._seen: object = None
        self.country_of = lru_cache(maxsize=_SOURCES)(_unknown)
        if self._database is not None:
            self._load(self._database)

    def at(self, source: str | None, now: datetime | None = None) -> Environment:
        """Return the facts for policy of a request from *source*, now or at *now*."""
        country = self.country_of(source) if self._database and source else None
        now = now or self._clock.now()
        return Environment.at(now, self._zone, source=source, country=country)

    def source_of(self, scope: Mapping[str, Any]) -> str | None:
        """Return the address that a request came from, if that can be known.

        Behind trusted proxies it is the first address from the right of all
        ``X-Forwarded-For`` lines that is no trusted proxy: the caller may have written
        the part to the left of it. ``Forwarded`` (RFC 7239) is ignored.

        Returns:
            an IP address in its canonical form; None where the proxies name none.
        """
        peer = peer_of(scope)
        if peer is None or not self._is_trusted(peer):
            return peer
        lines = [line for name, line in scope["headers"] if name == _FORWARDED]
        for written in reversed(b",".join(lines).split(b",")):
            source = plain_address(written.strip(b" \t").decode("latin-1"))
            if source is None or not self._is_trusted(source):
                return source
        return None

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._trusted)

    async def look(self) -> None:
        """Read the country database again where its file was replaced."""
        path = self._database
        if path is None or file_stamp(path) == self._seen:
            return
        try:
            await asyncio.to_thread(self._load, path)
        except SettingsError as error:
            self._seen = file_stamp(path)
            log.warning("the country database before is used: %s", error.diagnosis())

    def _load(self, path: Path) -> None:
        # Not mapped: if a mapped file becomes shorter, the process ends.
        seen = file_stamp(path)
        try:
            content = read_trusted(path, self._folder)
            database = io.BytesIO(content or b"")
            reader = maxminddb.open_database(database, maxminddb.MODE_FD)
        except (ValueError, maxminddb.InvalidDatabaseError) as error:
            raise SettingsError(
                f"policy.country_database {path} cannot be read ({visible(error, 80)})",
                "name a MaxMind file such as GeoLite2-Country.mmdb",
            ) from error

        def country_of(source: str) -> str | None:
            try:
                record: Any = reader.get(source)
                code = record["country"]["iso_code"]
            except (TypeError, LookupError, ValueError, maxminddb.InvalidDatabaseError):
                return None
            valid = isinstance(code, str) and _CODE.fullmatch(code)
            return code if valid else None

        self.country_of = lru_cache(maxsize=_SOURCES)(country_of)
        self._seen = seen


def peer_of(scope: Mapping[str, Any]) -> str | None:
    """Return the address at the other end of a request's connection."""
    client = scope.get("client")
    return plain_address(client[0]) if client else None


@lru_cache(maxsize=_SOURCES)
def plain_address(text: str) -> str | None:
    """Return an IP address in its canonical form; None for anything else.

    A port, brackets or a zone make it something else; an IPv4 address in IPv6
    (RFC 4291 section 2.5.5.2) is that IPv4 address.
    """
    if len(text) > _LONGEST or "%" in text:
        return None
    try:
        parsed: Network | Any = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _unknown(_: str) -> str | None:
    return None
