"""Settings come from four places, the last one wins, and mistakes are named."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agentvault_tui.console_settings import Switch
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home, private_file
from agentvault_tui.origins import parse_listen
from agentvault_tui.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path)


def test_flags_override_environment_file_and_defaults(home: Home) -> None:
    """File over default, environment over file, flag over environment."""
    home.config_file.write_text("[tokens]\nstandard_ttl = 60\nelevated_ttl = 50\n")
    environ = {
        "AGENTVAULT_TOKENS_ELEVATED_TTL": "40",
        "AGENTVAULT_STEPUP_MAX_PENDING": "9",
    }
    settings = Settings.load(home, environ, {"stepup.max_pending": 2})
    assert settings.tokens.standard_ttl == 60
    assert settings.tokens.elevated_ttl == 40
    assert settings.stepup.max_pending == 2
    assert settings.stepup.expires_in == 300


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[tokens]\nstandart_ttl = 1", "did you mean standard_ttl"),
        ("[token]\n", "did you mean tokens"),
        ("[tokens]\nstandard_ttl = 86401", "<= 86400"),
        ("[tokens]\nelevated_ttl = 301", "<= 300"),
        ("[tokens]\nelevated_ttl = true", "expected `int`"),
        ("[stepup]\napprovers = 5", "expected `array`"),
        ('[broker]\nlisten = "0.0.0.0:7717"', "in broker.listen is not a loopback"),
        ('[broker]\nmetrics = "9464"', "'9464' in broker.metrics is not HOST:PORT"),
        ('[broker]\nmetrics = "1.2.3.4:1"', "in broker.metrics is not a loopback"),
        ('[console]\nlink = "warp"', "fast, slow"),
        ("[console]\nmouse = 2", "true, false, auto"),
        ("[tokens", "cannot be read"),
        (f"[tokens]\nstandard_ttl = {'1' * 5000}", "cannot be read"),
        (f"a = {'[' * 3000}{']' * 3000}", "cannot be read"),
        ("tokens = 1", "not a table: write [tokens] on a line of its own"),
    ],
)
def test_bad_settings_are_refused_with_the_key_and_remedy(
    home: Home, toml: str, words: str
) -> None:
    """An unknown key, a wrong type or value says what would be right."""
    home.config_file.write_text(toml)
    with pytest.raises(SettingsError) as caught:
        Settings.load(home, {})
    assert words in caught.value.diagnosis()


def test_a_number_of_thousands_of_digits_is_a_mistake_too(home: Home) -> None:
    """From the environment, where it is text that Python refuses to read as one."""
    environ = {"AGENTVAULT_TENANT_RATE": "1" * 5000}
    with pytest.raises(SettingsError, match=r"tenant\.rate in environment is"):
        Settings.load(home, environ)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", Switch.ON),
        ("false", Switch.OFF),
        ('"auto"', Switch.AUTO),
        ('"yes"', Switch.ON),
    ],
)
def test_the_mouse_may_be_on_off_or_auto(
    home: Home, value: str, expected: Switch
) -> None:
    """As a TOML truth value, as a word, and from the environment."""
    home.config_file.write_text(f"[console]\nmouse = {value}")
    assert Settings.load(home, {}).console.mouse is expected
    environ = {"AGENTVAULT_CONSOLE_MOUSE": value.strip('"')}
    assert Settings.load(home, environ).console.mouse is expected


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7717", ("127.0.0.1", 7717)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("127.8.8.8:1", ("127.8.8.8", 1)),
    ],
)
def test_loopback_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    """Every spelling of loopback is an address to listen on."""
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "192.168.1.1:80",
        "example.com:80",
        "127.0.0.1",
        "127.0.0.1:99999",
        f"127.0.0.1:{'1' * 5000}",
        ":80",
        "::1:x",
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """Nothing but loopback is ever listened on."""
    with pytest.raises(SettingsError):
        parse_listen(text)


def test_modes_are_private_under_any_umask(short: Path) -> None:
    """Directories are 0700 and files 0600 even when the umask is 000."""
    home = Home.locate(short / "a" / "b" / "c")
    before = os.umask(0)
    try:
        home.prepare()
        private_file(home.database)
    finally:
        os.umask(before)
    parents = (home.data.parent, home.data.parent.parent)
    for folder in (*parents, home.data, home.keys, home.tenant, home.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.database.stat().st_mode) == 0o600


def test_folders_that_were_open_are_closed(tmp_path: Path) -> None:
    """A home that others could look into is nobody else's once it is used."""
    home = Home(tmp_path / "home", tmp_path / "home")
    for folder in (home.data, home.keys, home.run):
        folder.mkdir()
        folder.chmod(0o755)
    home.prepare()
    for folder in (home.data, home.keys, home.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """What it points to is neither made nor given another mode."""
    target = tmp_path / "theirs"
    (tmp_path / "ours").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        private_file(tmp_path / "ours")
    assert not target.exists()


def test_a_socket_path_too_long_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """A home whose socket the system would cut is refused before anything is made."""
    home = Home.locate(tmp_path / ("x" * 120))
    with pytest.raises(SettingsError) as caught:
        home.prepare()
    assert "shorter --home" in caught.value.diagnosis()
    assert not home.data.exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", 10_485_760),
        ("hold_bytes = 1073741824", 1_073_741_824),
        ("hold_bytes = 1073741825", None),
    ],
)
def test_a_held_opaque_body_has_ten_mib_and_up_to_one_gib(
    home: Home, line: str, found: int | None
) -> None:
    """The default is 10 MiB, the most that can be set 1 GiB."""
    home.config_file.write_text(f"[gateway]\n{line}\n")
    if found is None:
        with pytest.raises(SettingsError, match="hold_bytes"):
            Settings.load(home, {})
    else:
        assert Settings.load(home, {}).gateway.hold_bytes == found


def test_roles_are_auto_or_claim(home: Home) -> None:
    """From file and environment; another word is refused with those there are."""
    assert Settings.load(home, {}).operators.by_claim is False
    home.config_file.write_text('[operators]\nroles = "claim"')
    assert Settings.load(home, {}).operators.by_claim is True
    environ = {"AGENTVAULT_OPERATORS_ROLES": "auto"}
    assert Settings.load(home, environ).operators.by_claim is False
    for word in ("off", "Claim", ""):
        with pytest.raises(SettingsError, match=r"operators\.roles"):
            Settings.load(home, {"AGENTVAULT_OPERATORS_ROLES": word})


def test_rules_of_approvals_are_read_from_an_array_of_tables(home: Home) -> None:
    """`[[stepup.rules]]` says how many approve what; a wrong one is told in a line."""
    home.config_file.write_text(
        '[[stepup.rules]]\napprovals = 2\nscopes = ["payments"]\nrisk = "high"\n'
        "[[stepup.rules]]\nno_self = true\n"
    )
    first, second = Settings.load(home, {}).stepup.rules
    assert (first.approvals, first.scopes, first.risk) == (2, ("payments",), "high")
    assert second.no_self
    for bad in ('approvals = "two"', "aprovals = 2", "approvals = 0", "approvals = 1"):
        home.config_file.write_text(f"[[stepup.rules]]\n{bad}\n")
        with pytest.raises(SettingsError):
            Settings.load(home, {})
