"""Where a request came from: the caller's address, and its country."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.country_file import write_countries
from support.manual_clock import ManualClock

from agentvault_tui.broker.surroundings import Surroundings, plain_address
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.settings import BrokerSettings, PolicySettings, Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.locate(tmp_path / "home")
    home.prepare()
    return home


NOW = datetime(2026, 11, 27, tzinfo=UTC)
TRUSTED = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


def surroundings(home: Home, *trusted: str, database: str = "") -> Surroundings:
    settings = Settings(
        broker=BrokerSettings(trusted_proxies=trusted),
        policy=PolicySettings(country_database=database),
    )
    return Surroundings(ManualClock(NOW), home, settings)


def scope(peer: str | None, *lines: str) -> dict[str, Any]:
    return {
        "client": None if peer is None else (peer, 4711),
        "headers": [
            (b"forwarded", b"for=9.9.9.9"),
            *((b"x-forwarded-for", line.encode("latin-1")) for line in lines),
        ],
    }


@pytest.mark.parametrize(
    ("peer", "lines", "source"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), "192.0.2.1"),  # no proxy of ours
        ("127.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("127.0.0.1", ("1.1.1.1, 198.51.100.7, 10.0.0.9",), "198.51.100.7"),
        ("127.0.0.1", ("1.1.1.1", "198.51.100.7", "10.0.0.9"), "198.51.100.7"),
        ("127.0.0.1", ("1.1.1.1, 198.51.100.7,10.0.0.9", "fd00::1"), "198.51.100.7"),
        ("127.0.0.1", ("::ffff:198.51.100.7",), "198.51.100.7"),
        ("::ffff:127.0.0.1", ("2001:DB8::0:7",), "2001:db8::7"),
        ("127.0.0.1", ("1.1.1.1, unknown",), None),
        ("127.0.0.1", ("1.1.1.1, 198.51.100.7:80",), None),
        ("127.0.0.1", ("1.1.1.1, [2001:db8::7]",), None),
        ("127.0.0.1", ("1.1.1.1, fe80::1%eth0",), None),
        ("127.0.0.1", ("1.1.1.1,",), None),
        ("127.0.0.1", ("010.1.1.1",), None),
        ("127.0.0.1", ("\xa01.1.1.1",), None),
        ("127.0.0.1", ("10.0.0.9, 127.0.0.1",), None),
        ("127.0.0.1", (), None),
        (None, ("198.51.100.7",), None),
    ],
)
def test_the_source_is_the_first_address_from_the_right_that_is_no_trusted_proxy(
    home: Home, peer: str | None, lines: tuple[str, ...], source: str | None
) -> None:
    """Of all lines in their order; what is no plain address makes it unknown."""
    assert surroundings(home, *TRUSTED).source_of(scope(peer, *lines)) == source


def test_without_trusted_proxies_headers_say_nothing(home: Home) -> None:
    """The source is the peer, whatever it writes."""
    found = surroundings(home).source_of(scope("127.0.0.1", "198.51.100.7"))
    assert found == "127.0.0.1"


@given(st.text(max_size=60), st.ip_addresses())
def test_a_source_is_an_address_in_its_canonical_form_or_nothing(
    text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """For any text an agent may put before the proxy's own."""
    found = plain_address(text)
    assert found is None or str(ipaddress.ip_address(found)) == found
    known = plain_address(str(address))
    mapped = getattr(address, "ipv4_mapped", None) or address
    scoped = getattr(address, "scope_id", None)
    assert known == (None if scoped else str(mapped))


@pytest.mark.parametrize("proxies", ["10.0.0.1/99", "proxy.test", ""])
def test_a_proxy_that_is_no_network_is_refused(proxies: str) -> None:
    """By name, before anything is served."""
    with pytest.raises(SettingsError, match="trusted_proxies"):
        BrokerSettings(trusted_proxies=(proxies,))


def test_a_time_zone_that_is_not_known_is_refused() -> None:
    """Nor is one outside the folder of time zones."""
    for name in ("Europe/Berlni", "../../etc/passwd", "Europe", ""):
        with pytest.raises(SettingsError, match=r"policy\.timezone"):
            PolicySettings(timezone=name)


async def test_the_country_is_read_from_the_database_and_again_once_it_is_replaced(
    home: Home,
) -> None:
    """Without data, or with other data, there is none; a broken file is not used."""
    path = home.config / "countries.mmdb"
    write_countries(path, {"192.0.2.0/24": "DE", "198.51.100.0/24": "de"})
    found = surroundings(home, database=path.name)
    assert found.at("192.0.2.9").country == "DE"
    for source in ("198.51.100.7", "203.0.113.1", "2001:db8::1", None):
        assert found.at(source).country is None
    replaced = path.with_name("new")
    write_countries(replaced, {"192.0.2.0/24": "FR"})
    os.replace(replaced, path)  # noqa: PTH105 - as updaters do
    await found.look()
    assert found.at("192.0.2.9").country == "FR"
    path.write_bytes(b"\0" * 2000)
    await found.look()
    assert found.at("192.0.2.9").country == "FR"


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * 5000], ids=["none", "empty", "rubbish"]
)
def test_a_country_database_that_cannot_be_read_is_refused(
    home: Home, content: bytes | None
) -> None:
    """At the start, with its path."""
    path = Path(home.config, "countries.mmdb")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"countries\.mmdb cannot be read"):
        surroundings(home, database=path.name)
