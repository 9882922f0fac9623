"""The console reads its own section, whatever the others hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentvault_tui.console_settings import ConsoleSettings, Switch
from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.locate(tmp_path)


def test_the_section_is_read_as_all_settings_read_it(home: Home) -> None:
    """File, environment and flags give the console the same values as the broker."""
    home.config_file.write_text('[console]\nlabel = "PROD"\nlink = "slow"\n')
    environ = {"AGENTVAULT_CONSOLE_MOUSE": "auto"}
    flags = {"console.link": "fast", "operators.connect": None}
    read = ConsoleSettings.load(home, environ, flags)
    assert (read.label, read.link, read.mouse) == ("PROD", "fast", Switch.AUTO)
    assert read == Settings.load(home, environ, flags).console


def test_a_mistake_in_another_section_stops_no_console(home: Home) -> None:
    """If `[tokens]` is wrong, you can still open the console and revoke."""
    home.config_file.write_text('[tokens]\nttl = 1\n[console]\nlabel = "PROD"\n')
    assert ConsoleSettings.load(home, {}).label == "PROD"
    with pytest.raises(SettingsError, match=r"tokens\.ttl"):
        Settings.load(home, {})


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[console]\nlabl = "PROD"', "did you mean label"),
        ('[console]\nlink = "warp"', "fast, slow"),
        ("console = 1", "not a table"),
        ("[console", "cannot be read"),
    ],
)
def test_a_mistake_in_the_section_is_refused(home: Home, toml: str, words: str) -> None:
    """The error names the key and its remedy, as for every other section."""
    home.config_file.write_text(toml)
    with pytest.raises(SettingsError) as raised:
        ConsoleSettings.load(home, {})
    assert words in raised.value.diagnosis()
