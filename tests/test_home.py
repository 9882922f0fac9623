"""A home is one that nobody else can fill, swap, or take away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.needs import as_root

from agentvault_tui.errors import SettingsError
from agentvault_tui.home import Home
from agentvault_tui.trusted_files import check_trusted

STRANGER = 54_321


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        Home.locate(path)
    said = caught.value.diagnosis()
    assert caught.value.exit_code == 2
    assert "\n" not in said
    return said


def folder(path: Path, mode: int = 0o700) -> Path:
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o1700])
def test_a_folder_of_ours_is_taken(tmp_path: Path, mode: int) -> None:
    """Ours, and written by nobody else: there already, or still to be made."""
    home = folder(tmp_path / "home", mode)
    assert Home.locate(home).data == home
    Home.locate(home / "not" / "there" / "yet")
    Home.locate(home / "sub" / ".." / "other")


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777])
def test_a_home_others_can_write_in_is_refused(tmp_path: Path, mode: int) -> None:
    """Whatever lies in it may be someone else's; the remedy is a chmod."""
    home = folder(tmp_path / "home", mode)
    said = refusal(home)
    assert f"others can write in the home {home} (mode {mode:04o})" in said
    assert f"chmod 700 {home}" in said


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o775, 0o777])
def test_a_folder_in_other_use_is_refused_without_a_chmod(
    tmp_path: Path, mode: int
) -> None:
    """On /tmp or /opt the chmod of a start, or one advised, would lock others out."""
    home = folder(tmp_path / "shared", mode)
    if not mode & 0o1000:
        (home / "other-program").mkdir()
    said = refusal(home)
    assert f"{home} is a folder that others use (mode {mode:04o})" in said
    assert "chmod" not in said
    assert home.stat().st_mode & 0o7777 == mode


def test_a_folder_with_a_file_of_a_home_in_it_is_a_home(tmp_path: Path) -> None:
    """Someone made it with the usual umask and put the policy there first."""
    home = folder(tmp_path / "home", 0o755)
    (home / "policy.cedar").touch()
    assert Home.locate(home).data == home


def test_a_home_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """The name is what a person checks, so it names the folder itself."""
    home = folder(tmp_path / "home")
    link = tmp_path / "link"
    link.symlink_to(home)
    said = refusal(link)
    assert "is a symbolic link" in said
    assert str(home) in said
    monkey = tmp_path / "dangling"
    monkey.symlink_to(tmp_path / "nowhere")
    assert "is a symbolic link" in refusal(monkey)


def test_our_links_on_the_way_are_followed(tmp_path: Path) -> None:
    """A link we (or root) made leads on, absolute, relative or to another link."""
    real = folder(tmp_path / "real")
    (tmp_path / "absolute").symlink_to(real)
    (tmp_path / "relative").symlink_to("absolute")
    folder(real / "inner")
    (real / "up").symlink_to("../real/inner")
    for way in ("absolute/home", "relative/home", "relative/up/home"):
        assert Home.locate(tmp_path / way).data == tmp_path / way


def test_a_platform_folder_may_be_our_link(tmp_path: Path) -> None:
    """Where no home was named, a link of ours in its place is followed."""
    real, link = folder(tmp_path / "real"), tmp_path / "link"
    link.symlink_to(real)
    check_trusted(link, may_be_link=True)
    real.chmod(0o777)
    with pytest.raises(SettingsError, match="others can write"):
        check_trusted(link, may_be_link=True)


def test_a_start_makes_the_folders_that_people_write_in(tmp_path: Path) -> None:
    """Private ones; what stands there under such a name already stays as it is."""
    (tmp_path / "kept").mkdir(mode=0o750)
    home = Home.locate(folder(tmp_path / "home"))
    (home.config / "mcp").symlink_to(tmp_path / "kept")
    home.prepare()
    for name in ("services", "hosts"):
        assert (home.config / name).stat().st_mode & 0o7777 == 0o700
    assert (home.config / "mcp").is_symlink()
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o750
    Home.locate(home.data).prepare()


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o703])
def test_a_parent_others_can_write_in_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put another home in its place; a sticky folder prevents that."""
    parent = folder(tmp_path / "parent", mode)
    home = parent / "home"
    assert f"others can write in {parent}" in refusal(home)
    home.mkdir(mode=0o700)
    assert f"others can write in {parent}" in refusal(home)
    link = tmp_path / "link"
    link.symlink_to(parent)
    assert f"others can write in {parent}" in refusal(link / "home")
    parent.chmod(mode | 0o1000)
    Home.locate(home)


@pytest.mark.parametrize(
    ("members", "strangers", "taken"),
    [((), (), True), (("bob",), (), False), ((), ("bob",), False)],
)
def test_a_private_group_is_not_others(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: tuple[str, ...],
    strangers: tuple[str, ...],
    taken: bool,
) -> None:
    """Group-writable on the way is fine where the group is the owner's alone."""
    parent = folder(tmp_path / "parent", 0o775)
    gid = parent.stat().st_gid
    me = _Entry(pw_name="me", pw_gid=gid)
    others = [_Entry(pw_name=name, pw_gid=gid) for name in strangers]
    group = _Entry(gr_gid=gid, gr_mem=list(members))
    monkeypatch.setattr("pwd.getpwuid", lambda _: me)
    monkeypatch.setattr("pwd.getpwall", lambda: [me, *others])
    monkeypatch.setattr("grp.getgrgid", lambda _: group)
    if taken:
        Home.locate(parent / "home")
    else:
        assert "others can write" in refusal(parent / "home")


class _Entry:
    """An entry of passwd or group."""

    def __init__(self, **members: object) -> None:
        self.__dict__.update(members)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A file, a folder below a file, and a circle of links are no home."""
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in refusal(file)
    assert "is not a folder" in refusal(file / "home")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "circles" in refusal(tmp_path / "a" / "home")


def test_someone_elses_folder_is_refused(tmp_path: Path) -> None:
    """A home of another user is refused, for root as for anyone."""
    if os.geteuid() == 0:
        home = folder(tmp_path / "home")
        os.chown(home, STRANGER, STRANGER)
    else:
        home = Path("/usr")
    said = refusal(home)
    assert "not to you" in said
    assert "run as that user" in said


@as_root
def test_what_someone_else_controls_on_the_way_is_refused(tmp_path: Path) -> None:
    """A parent or a link of another user could lead anywhere tomorrow."""
    theirs = folder(tmp_path / "theirs", 0o755)
    os.chown(theirs, STRANGER, STRANGER)
    assert f"belongs to uid {STRANGER}" in refusal(theirs / "home")
    real, link = folder(tmp_path / "real"), tmp_path / "link"
    link.symlink_to(real)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert f"the link {link}" in refusal(link / "home")


def test_the_environment_is_held_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AGENTVAULT_HOME is as strict as --home."""
    monkeypatch.setenv("AGENTVAULT_HOME", str(folder(tmp_path / "home", 0o777)))
    with pytest.raises(SettingsError, match="others can write"):
        Home.locate()
