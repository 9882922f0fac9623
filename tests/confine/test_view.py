"""What a command is given is checked before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from agentvault_tui.confine import view as module
from agentvault_tui.confine.protected import sockets_in
from agentvault_tui.confine.remembered import GivenFolders, read_given
from agentvault_tui.confine.view import (
    View,
    ViewOptions,
    build_view,
    remember_given,
    system_mounts,
)
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import Home


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home directory with a project and AgentVault's home in it."""
    home = tmp_path / "me"
    for folder in ("project", "vault/homes/agt_1", "other", "bin"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


def build(place: Path, **options: Any) -> View:
    given = {"folder": place / "project"} | options
    path = given.pop("path", "/usr/bin")
    vault = place / "vault"
    return build_view(
        ViewOptions(**given),
        Home(vault, vault),
        vault / "homes/agt_1",
        programs=[Path("/usr/bin/env")],
        path=path,
    )


@pytest.mark.parametrize("name", [".", "..", "/", "../..", "link"])
def test_a_home_directory_is_never_given(place: Path, name: str) -> None:
    """Nor what holds it, by whatever name, as working folder or by an option."""
    (place / "link").symlink_to(place)
    folder = place / name
    for options in (
        {"folder": folder},
        {"read": (folder,)},
        {"write": (folder,)},
        {"user_home": folder},
    ):
        with pytest.raises(NotConfinedError):
            build(place, **options)


@pytest.mark.parametrize("name", ["vault", "vault/homes", "vault/homes/agt_1"])
def test_agentvaults_home_is_never_given(place: Path, name: str) -> None:
    """Neither it, nor what is in it, nor what holds it."""
    for option in ("read", "write"):
        with pytest.raises(NotConfinedError, match="AgentVault's home"):
            build(place, **{option: (place / name,)})
    with pytest.raises(NotConfinedError, match="AgentVault's home"):
        build(place, folder=place / name)


@pytest.mark.parametrize("name", ["/proc", "/sys/kernel", "/dev", "/proc/self/cwd"])
def test_no_virtual_folder_is_given(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show the whole machine, and a link of theirs is resolved."""
    monkeypatch.chdir(place)
    with pytest.raises(NotConfinedError):
        build(place, read=(Path(name),))


def test_a_folder_that_is_not_there_is_named(place: Path) -> None:
    """With the option that gave it."""
    with pytest.raises(NotConfinedError, match=r"--write .*nosuch cannot be read"):
        build(place, write=(place / "nosuch",))


def test_folders_are_remembered_when_they_are_given(place: Path) -> None:
    """A start that is refused gives nothing, and its folders stay trusted."""
    (place / "project/bare/objects").mkdir(parents=True)
    (place / "project/bare/HEAD").touch()
    vault = Home(place / "vault", place / "vault")
    built = build(place, write=(place / "other",))
    assert not vault.given_folders.exists()
    remember_given(built, vault)
    given = read_given(vault.given_folders)
    folders = {place / one for one in ("project", "other", "vault/homes/agt_1")}
    assert given == GivenFolders(
        frozenset(folders), frozenset({place / "project/bare"})
    )


def test_links_are_resolved_before_a_folder_is_given(place: Path) -> None:
    """A link is followed now, and leads nowhere else later."""
    (place / "link").symlink_to(place / "other")
    found = build(place, read=(place / "link",))
    assert found.read == (place / "other",)


def test_folders_are_mounted_parents_first(place: Path) -> None:
    """A folder to read in the project covers a part of it."""
    (place / "project/docs").mkdir()
    found = build(place, read=(place / "project/docs",))
    mounts = [*found.mounts()]
    assert mounts.index(("bind", place / "project")) < mounts.index(
        ("ro-bind", place / "project/docs")
    )


def test_a_folder_to_read_stays_so_where_it_has_a_repository(place: Path) -> None:
    """The mounts that protect the repository do not make it writable."""
    (place / "project/docs/.git/hooks").mkdir(parents=True)
    docs = place / "project/docs"
    mounts = [*build(place, read=(docs,)).mounts()]
    assert [one for one in mounts if one[1].is_relative_to(docs)] == [("ro-bind", docs)]


def test_a_link_of_path_is_shown_as_one(place: Path) -> None:
    """What it leads to is mounted at its own place, so that no mount follows it."""
    (place / "tools").symlink_to(place / "bin")
    found = build(place, path=str(place / "tools"))
    assert found.links == ((place / "tools", place / "bin"),)
    assert ("ro-bind", place / "bin") in [*found.mounts()]
    assert place / "tools" not in [one for _, one in found.mounts()]


def test_the_folders_of_path_are_shown_but_not_a_home(place: Path) -> None:
    """A home directory on PATH is left out and named; so is AgentVault's."""
    path = os.pathsep.join(
        map(str, (place, place / "bin", place / "vault", "/usr/bin"))
    )
    found = build(place, path=path)
    assert found.runtime == (place / "bin",)
    assert set(found.omitted) == {place, place / "vault"}


def test_local_python_packages_do_not_bring_all_of_local(place: Path) -> None:
    """~/.local has keyrings too."""
    (place / ".local/lib/python3.12").mkdir(parents=True)
    (place / ".local/lib/python3.12/os.py").touch()
    (place / ".local/bin").mkdir()
    found = build(place, path=str(place / ".local/bin"))
    assert found.runtime == (place / ".local/bin",)


def test_a_socket_in_a_folder_refuses_local_sockets(place: Path, short: Path) -> None:
    """It would be reached; without that option no socket is."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(short / "s"))
        build(place, read=(short,))
        with pytest.raises(NotConfinedError, match=str(short / "s")):
            build(place, read=(short,), local_sockets=True)
    build(place, local_sockets=True)


def test_a_folder_that_cannot_be_listed_refuses_local_sockets(place: Path) -> None:
    """An earlier run may have taken the right away, over a socket."""
    with pytest.raises(NotConfinedError, match="cannot be listed"):
        list(sockets_in([place / "absent"]))


@pytest.mark.parametrize("option", ["read", "write", "user_home"])
def test_no_link_in_the_project_leads_an_option(place: Path, option: str) -> None:
    """An earlier run may have made it: it names any folder of the user's."""
    (place / "project/link").symlink_to(place / "other")
    (place / "other/below").mkdir()
    for name in ("link", "link/below"):
        path = place / "project" / name
        with pytest.raises(NotConfinedError, match="is a link"):
            build(place, **{option: path if option == "user_home" else (path,)})
    own = place / "mine"
    own.symlink_to(place / "other")
    assert build(place, read=(own,)).read == ((place / "other").resolve(),)


def test_paths_that_others_obey_are_held_in_a_given_home_too(place: Path) -> None:
    """It is a folder of the user's, which git and editors outside use."""
    built = build(place, user_home=place / "other")
    protected = {one.parent for one in built.protection.missing}
    assert place / "other" in protected


def test_connected_files_are_read_only_in_their_place(place: Path) -> None:
    """And the folders on the way to them cannot be renamed."""
    home = place / "vault/homes/agt_1"
    (home / ".claude").mkdir()
    (home / ".claude/settings.json").touch()
    found = build_view(
        ViewOptions(place / "project"),
        Home(place / "vault", place / "vault"),
        home,
        programs=[],
        path="",
        connected=[home / ".claude/settings.json"],
    )
    mounts = [*found.mounts()]
    assert ("ro-bind", home / ".claude/settings.json") in mounts
    assert ("bind", home / ".claude") in mounts


def test_of_etc_only_files_without_secrets_are_shown(tmp_path: Path) -> None:
    """By name: what a machine adds is not shown, such as hashes, keys and tokens."""
    for name in ("passwd", "shadow", "sudoers", "npmrc", "pip.conf", "gitconfig"):
        (tmp_path / name).touch()
    (tmp_path / "ssl/private").mkdir(parents=True)
    (tmp_path / "ssl/certs").mkdir()
    shown = [one[2] for one in system_mounts(tmp_path) if one[2].startswith("/etc")]
    assert shown == ["/etc/passwd", "/etc/ssl/certs"]


def test_a_user_without_a_home_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account without an entry, or whose home is /, refuses nothing by that."""
    monkeypatch.setenv("HOME", "/")

    def absent(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(module.pwd, "getpwuid", absent)
    assert module._homes() == set()


@pytest.mark.parametrize("name", [".claude", ".claude/settings.json"])
def test_a_link_of_the_agents_on_the_way_to_a_connected_file_refuses(
    place: Path, name: str
) -> None:
    """It would be followed outside, and show what it leads to."""
    home = place / "vault/homes/agt_1"
    if "/" in name:
        (home / ".claude").mkdir()
    (home / name).symlink_to(place / "other")
    with pytest.raises(NotConfinedError, match="a link that the agent has made"):
        build_view(
            ViewOptions(place / "project"),
            Home(place / "vault", place / "vault"),
            home,
            programs=[],
            path="",
            connected=[home / ".claude/settings.json"],
        )
