"""Where phones reach the embedded tenant: settings and certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.manual_clock import ManualClock

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.settings import TenantSettings
from agentvault_tui.web.local_ca import CaFiles, renew
from agentvault_tui.web.public import PublicAddress

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
GOOD = TenantSettings(
    listen="0.0.0.0:7443",
    url="https://Ops.example:7443",
    tls_cert="keys/tls-cert.pem",
    tls_key="keys/tls-key.pem",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home.locate(tmp_path / "home")
    made.prepare()
    renew(made, ["ops.example"], now=NOW)
    return made


def read(home: Home, **changes: str) -> PublicAddress:
    found = PublicAddress.of(home, replace(GOOD, **changes))
    assert found is not None
    return found


def test_none_of_the_settings_means_this_machine_alone(home: Home) -> None:
    """Without `listen` the tenant stays on loopback."""
    assert PublicAddress.of(home, TenantSettings()) is None


def test_the_url_is_spelled_as_browsers_spell_an_origin(home: Home) -> None:
    """Case, a default port and a missing slash do not make another origin."""
    assert read(home).url == "https://ops.example:7443/"
    assert read(home, url="https://ops.example:443/").url == "https://ops.example/"
    assert read(home, url="https://[FD00::1]:7443/").url == "https://[fd00::1]:7443/"
    assert read(home).named
    assert not read(home, url="https://192.168.1.7:7443/").named


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": ""},
        {"url": ""},
        {"tls_key": ""},
        {"listen": "ops.example:7443"},
        {"listen": "0.0.0.0:0"},
        {"listen": "0.0.0.0:70000"},
        {"listen": "300.0.0.1:7443"},
        {"url": "http://ops.example:7443/"},
        {"url": "https://ops.example/path"},
        {"url": "https://ops.example/?a=b"},
        {"url": "https://alice@ops.example/"},
        {"url": "https://ops.example:port/"},
        {"url": "https:///"},
        {"issuer": "https://acme.eu.auth0.com/"},
    ],
)
def test_half_an_address_or_a_wrong_one_is_refused_in_one_line(
    home: Home, changes: dict[str, str]
) -> None:
    """Each of the four settings is checked, and the error names it."""
    with pytest.raises(SettingsError) as caught:
        read(home, **changes)
    assert "tenant." in caught.value.what
    assert "\n" not in caught.value.diagnosis()


@pytest.mark.parametrize(
    ("url", "later", "told"),
    [
        ("https://other.example:7443/", 0, "not for other.example"),
        ("https://ops.example:7443/", 400, "not now"),
        ("https://ops.example:7443/", -2, "not now"),
    ],
)
def test_a_certificate_for_another_host_or_time_is_refused(
    home: Home, url: str, later: int, told: str
) -> None:
    """What a phone's browser would refuse is told before anybody opens it."""
    with pytest.raises(SettingsError, match=told):
        read(home, url=url).tls(ManualClock(NOW + timedelta(days=later)))


def test_a_key_that_others_can_read_is_refused(home: Home) -> None:
    """The key's mode is checked as the broker's own is."""
    CaFiles.of(home).leaf.key.chmod(0o644)
    with pytest.raises(SettingsError, match="open to others"):
        read(home).tls(ManualClock(NOW))


def test_a_renewed_certificate_for_another_host_does_not_take_its_place(
    home: Home,
) -> None:
    """A renewal is checked like the first one; the one before stays."""
    tls = read(home).tls(ManualClock(NOW))
    before = tls.context()
    renew(home, ["ops.example"], now=NOW)
    renewed = tls.context()
    assert renewed is not before
    renew(home, ["other.example"], now=NOW, new_ca=True)
    assert tls.context() is renewed
