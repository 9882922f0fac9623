"""What a connection stands for: read from the settings, held to the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.policy import shipped_catalogue
from agentvault_tui.settings import Settings


def load(folder: Path, text: str) -> Settings:
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(text)
    return Settings.load(Home.locate(folder), environ={})


def test_connections_are_read_by_name(tmp_path: Path) -> None:
    """Each table is one connection, and its scopes keep their order."""
    settings = load(
        tmp_path / "home",
        '[connections.google-oauth2]\nscopes = ["write:calendar", "read:calendar"]\n'
        'revocation_endpoint = "none"\n'
        '[connections."my.bank"]\nscopes = ["send:payment"]\n[tokens]\nlease = 30\n',
    )
    assert settings.connections["google-oauth2"].scopes == (
        "write:calendar",
        "read:calendar",
    )
    assert set(settings.connections) == {"google-oauth2", "my.bank"}
    assert settings.tokens.lease == 30
    endpoints = [one.revocation_endpoint for one in settings.connections.values()]
    assert endpoints == ["none", "auto"]
    shipped_catalogue().check_connections(settings.connection_scopes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[connections.google]\nscopes = []\n", "needs scopes"),
        ("[connections.google]\n", "needs scopes"),
        ('[connections.google]\nscope = ["x"]\n', "did you mean scopes"),
        ("[connections.google]\nscopes = 7\n", "expected `array`"),
        (
            '[connections.google]\nscopes = ["x"]\nrevocation_url = "none"\n',
            "did you mean revocation_endpoint",
        ),
        (
            '[connections.google]\nscopes = ["x"]\nuserinfo_endpoint = 7\n',
            "expected `str`",
        ),
        ('[connections."a b"]\nscopes = ["x:y"]\n', "no name for a table"),
        ('[connections."-x"]\nscopes = ["x:y"]\n', "no name for a table"),
        ("[connections]\ngoogle = 1\n", "not a table"),
        ("connections = 1\n", "not a table"),
        ("[connection]\nx = 1\n", "did you mean connections"),
        ("[tokens]\nlease = 0\n", "lease"),
        ("[tokens]\nlease = 3601\n", "lease"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With what is wrong, and the nearest that is right."""
    with pytest.raises(SettingsError) as raised:
        load(tmp_path / "home", text)
    assert said in raised.value.diagnosis()


def test_a_scope_nobody_knows_is_refused_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt scope would otherwise be one that nobody is ever granted."""
    settings = load(
        tmp_path / "home", '[connections.google]\nscopes = ["read:calender"]\n'
    )
    with pytest.raises(SettingsError, match="read:calender") as raised:
        shipped_catalogue().check_connections(settings.connection_scopes)
    assert "read:calendar" in raised.value.remedy
