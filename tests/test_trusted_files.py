"""Files of a home that other users could have written are put right or not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.needs import as_root

from agentvault_tui.broker.policy_files import read_text
from agentvault_tui.errors import PolicyError, SettingsError
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.trusted_files import check_named_file, read_trusted

STRANGER = 54_321
NAMES = (
    *("config.toml", "policy.cedar", "scopes.toml", "limits.toml", "alerts.toml"),
    *("services/a.toml", "mcp/a.toml", "hosts/a.toml", "secrets.json", "keys/x.key"),
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of this user's, closed to others."""
    (tmp_path / "home").mkdir(mode=0o700)
    made = Home.locate(tmp_path / "home")
    made.prepare()
    return made


def shared(home: Home, name: str, mode: int = 0o666) -> Path:
    path = home.data / name
    path.write_text("")
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602, 0o622])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_a_closed_home_is_put_right(
    home: Home, name: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """At a start as while running, with a warning: nobody else could reach it."""
    for read in (lambda path: read_trusted(path, home.data), lambda _: home.prepare()):
        path = shared(home, name, mode)
        read(path)
        assert mode_of(path) == 0o600
        assert f"others could write to {path} (mode {mode:04o})" in caplog.text
        caplog.clear()
    home.prepare()
    assert not caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_an_open_home_is_not_read(home: Home, name: str) -> None:
    """The error names it and the remedy; a second start does not believe it either."""
    home.data.chmod(0o711)
    path = shared(home, name)
    with pytest.raises(SettingsError, match="others can write to") as caught:
        read_trusted(path, home.data)
    assert f"chmod 600 {path}" in caught.value.remedy
    for _ in range(2):
        with pytest.raises(SettingsError) as caught:
            home.prepare()
        assert str(path) in caught.value.what
    assert (mode_of(home.data), mode_of(path)) == (0o711, 0o666)
    path.chmod(0o600)
    assert read_trusted(path, home.data) == b""
    home.prepare()


def test_settings_are_read_like_every_other_file(home: Home) -> None:
    """Also of settings and policy: what others may have written counts for nothing."""
    home.data.chmod(0o755)
    shared(home, "config.toml").write_text("[broker]\nlisten = '127.0.0.1:1'\n")
    shared(home, "policy.cedar")
    with pytest.raises(SettingsError, match="others can write to"):
        Settings.load(home, {})
    with pytest.raises(PolicyError, match="others can write to"):
        read_text(home.policy_file, home.config)


def test_settings_that_others_only_read_are_put_right(home: Home) -> None:
    """A start closes them with a warning, also in an open home."""
    home.data.chmod(0o755)
    path = shared(home, "config.toml", 0o644)
    (notice,) = home.check_files(private=True)
    assert mode_of(path) == 0o600
    assert f"others could read {path} (mode 0644)" in notice


@as_root
@pytest.mark.parametrize("closed", [True, False])
def test_a_file_of_another_user_is_not_read(home: Home, *, closed: bool) -> None:
    """Its owner may change it at any time, and its mode with it."""
    home.data.chmod(0o700 if closed else 0o755)
    path = shared(home, "policy.cedar", 0o600)
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(SettingsError, match=f"belongs to uid {STRANGER}"):
        read_trusted(path, home.data)
    with pytest.raises(SettingsError, match="who can change it") as caught:
        home.prepare()
    assert f"chown root {path}" in caught.value.remedy


def test_a_link_is_judged_by_what_it_leads_to(home: Home, tmp_path: Path) -> None:
    """A folder elsewhere may hold services, if others cannot write there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (home.config / "services").rmdir()
    (home.config / "services").symlink_to(elsewhere)
    path = shared(home, "services/a.toml")
    with pytest.raises(SettingsError, match="others can write to"):
        home.prepare()
    assert mode_of(path) == 0o666  # the home does not close it
    path.chmod(0o644)
    home.prepare()
    elsewhere.chmod(0o777)
    with pytest.raises(SettingsError, match=f"others can write in {elsewhere}"):
        read_trusted(path, home.data)


def test_a_pipe_and_a_file_that_is_not_there(home: Home) -> None:
    """A pipe in a file's place does not hold the broker up."""
    os.mkfifo(home.data / "policy.cedar", 0o600)
    with pytest.raises(SettingsError, match="not a plain file"):
        read_trusted(home.policy_file, home.config)
    assert read_trusted(home.limits_file, home.config) is None


def test_a_file_that_a_person_named_may_be_anybodys(tmp_path: Path) -> None:
    """`policy check FILE` looks at it, and decides nothing by it."""
    path = tmp_path / "new.cedar"
    path.write_text(json.dumps(1))
    path.chmod(0o666)
    assert read_text(path, None) == "1"
    assert mode_of(path) == 0o666


@pytest.mark.parametrize(
    ("mode", "why"),
    [(0o644, None), (0o400, None), (0o666, "others can write to"), (0o602, "0602")],
)
def test_a_file_that_a_library_reads_by_its_path_is_checked(
    tmp_path: Path, mode: int, why: str | None
) -> None:
    """Nothing is changed outside of the home directory: the owner has to decide."""
    path = tmp_path / "root.crt"
    path.write_text("")
    path.chmod(mode)
    if why is None:
        check_named_file(path)
    else:
        with pytest.raises(SettingsError, match=why):
            check_named_file(path)
    assert mode_of(path) == mode


def test_a_file_in_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """They could replace it; so could they a link on the way."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "root.crt").write_text("")
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match="replace what is in it"):
        check_named_file(folder / "root.crt")
    with pytest.raises(SettingsError, match="cannot be read"):
        check_named_file(tmp_path / "none")


@as_root
def test_a_named_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner may change it at any time."""
    path = tmp_path / "root.crt"
    path.write_text("")
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(SettingsError, match="who can change it"):
        check_named_file(path)
