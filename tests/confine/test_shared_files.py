"""A command changes no file elsewhere by a further name of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentvault_tui.confine.protected import protect
from agentvault_tui.errors import NotConfinedError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a file of a store that other projects have in common."""
    (tmp_path / "store").write_text("shared")
    (tmp_path / "project/lib/site").mkdir(parents=True)
    os.link(tmp_path / "store", tmp_path / "project/lib/site/mod.py")
    return tmp_path / "project"


def test_a_file_with_a_name_outside_is_refused(project: Path) -> None:
    """The remedy names it. `--write` with it or its folder allows the change."""
    with pytest.raises(NotConfinedError, match="has a further name") as caught:
        protect([project])
    assert "--no-hardlinks" in caught.value.remedy
    for opened in (project / "lib/site/mod.py", project / "lib"):
        assert protect([project, opened], [opened]).shared == []
    with pytest.raises(NotConfinedError):
        protect([project], [project])


@pytest.mark.parametrize("kind", ["uv", "pnpm", "conda"])
def test_installed_packages_are_read_only(project: Path, kind: str) -> None:
    """The folder of the environment is read-only: one of its files may be replaced."""
    place = project / "lib"
    if kind == "uv":
        (place / "pyvenv.cfg").touch()
    elif kind == "conda":
        (place / "conda-meta").mkdir()
    else:
        place = place.rename(project / "node_modules")
    found = protect([project])
    assert found.shared == [place]
    assert place in found.read_only
    assert ("ro-bind", place) in [*found.mounts()]
    opened = protect([project, place], [place])
    assert opened.shared == []
    assert place not in opened.read_only


def test_names_that_are_all_given_are_no_matter(tmp_path: Path) -> None:
    """Cargo and git link files within a project."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/file").touch()
    os.link(tmp_path / "one/file", tmp_path / "two/file")
    found = protect([tmp_path / "one", tmp_path / "two"])
    assert found.shared == []
    with pytest.raises(NotConfinedError):
        protect([tmp_path / "one"])
