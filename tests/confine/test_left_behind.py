"""Paths that a command made and that programs outside obey are named at the end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentvault_tui.confine.left_behind import LeftBehind, find_left
from agentvault_tui.confine.protected import protect
from agentvault_tui.confine.view import View


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "project")


def repository(folder: Path, *options: str) -> Path:
    line = ["git", "init", "-q", *options, str(folder)]
    subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})
    return folder


def view_of(project: Path) -> View:
    home = project.parent / "home"
    return View(project, home, (), (project,), (), protect([project]))


def test_repositories_that_were_made_are_found(project: Path) -> None:
    """Those that were there at the start are not named."""
    view = view_of(project)
    assert find_left(view).lines() == []
    repository(project / "a/clone")
    repository(project / "bare", "--bare")
    (project / "tree").mkdir()
    (project / "tree/.git").write_text("gitdir: /elsewhere\n")
    left = find_left(view)
    names = ("a/clone/.git", "bare", "tree/.git")
    assert left.repositories == {project / name for name in names}
    assert "look at the configuration and hooks" in left.lines()[0]


def test_links_that_lead_out_are_found(project: Path, tmp_path: Path) -> None:
    """A program that writes there writes elsewhere; git does so by itself."""
    outside = tmp_path / "outside"
    (project / "before").symlink_to(outside)
    (project / "changed").symlink_to("inside")
    view = view_of(project)
    (project / "changed").unlink()
    (project / "changed").symlink_to(outside)
    (project / "build.log").symlink_to("../outside")
    (project / "inner").symlink_to("build.txt")
    (project / "python3").symlink_to("/usr/bin/env")
    (project / "planted").symlink_to("/usr/bin/no-such-program")
    (project / ".git/packed-refs").symlink_to("hooks/pre-commit")
    left = find_left(view)
    names = ("changed", "build.log", "planted", ".git/packed-refs")
    assert left.links == {project / name for name in names}
    assert "writes elsewhere" in left.lines()[0]


def test_files_that_tools_read_are_found(project: Path) -> None:
    """They are named at the top and in repositories, where tools read them."""
    (project / ".exrc").touch()
    view = view_of(project)
    (project / "sub").mkdir()
    for name in ("mise.toml", ".cargo", "x.code-workspace", "sub/mise.toml"):
        (project / name).touch()
    left = find_left(view)
    names = ("mise.toml", ".cargo", "x.code-workspace")
    assert left.obeyed == {project / name for name in names}
    assert "by themselves" in left.lines()[0]


def test_twenty_are_named() -> None:
    """A command may make thousands."""
    left = LeftBehind(links={Path(f"/p/{number}") for number in range(10, 34)})
    assert left.lines()[0].endswith("/p/28, /p/29 and 4 more")


def test_a_folder_that_cannot_be_searched_hides_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and so are the files that the command left in other folders."""
    view = view_of(project)
    deep = project / "a"
    for _ in range(20):  # a path over PATH_MAX: root is refused no other
        deep.mkdir()
        monkeypatch.chdir(deep)
        deep = Path("d" * 250)
    repository(project / "b/clone")
    (project / "mise.toml").touch()
    left = find_left(view)
    lines = left.lines()
    assert left.repositories == {project / "b/clone/.git"}
    assert left.obeyed == {project / "mise.toml"}
    assert "cannot be searched" in lines[0]
    assert len(lines) == 3
