"""Folders are walked through no link, and a folder that cannot be read is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentvault_tui.confine.search import is_own, search
from agentvault_tui.errors import NotConfinedError


def test_it_yields_each_folder_with_its_entries(tmp_path: Path) -> None:
    """Links and files with further names are listed, and no link is followed."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/file").touch()
    os.link(tmp_path / "a/file", tmp_path / "a/b/second")
    (tmp_path / "a/link").symlink_to("/usr")
    found = {one.path.name: one for one in search(tmp_path / "a", shared=True)}
    assert {*found} == {"a", "b"}
    assert found["a"].names == {"b": True, "file": False, "link": False}
    assert found["a"].links == {"link": "/usr"}
    assert [*found["a"].shared] == ["file"]
    assert found["b"].shared["second"].st_nlink == 2
    assert not next(search(tmp_path / "a")).shared


def test_a_file_and_a_missing_folder_have_nothing(tmp_path: Path) -> None:
    """A folder may go while it is walked."""
    (tmp_path / "file").touch()
    assert [*search(tmp_path / "file")] == []
    assert [*search(tmp_path / "missing")] == []
    assert not is_own(tmp_path / "missing")


def test_a_folder_of_ours_that_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command may change its mode. A folder of another user is left out instead."""
    (tmp_path / "below").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("below"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(NotConfinedError, match="cannot be searched"):
        [*search(tmp_path)]
    monkeypatch.setattr("agentvault_tui.confine.search.is_own", lambda _: False)
    assert [one.path for one in search(tmp_path)] == [tmp_path]
