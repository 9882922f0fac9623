"""Paths that a command may change lead nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentvault_tui.confine.paths import (
    lies_in,
    open_unlinked,
    resolve_trusted,
    write_unlinked,
)


def test_a_path_without_links_is_opened(tmp_path: Path) -> None:
    """The descriptor names it, also when its path leads elsewhere later."""
    (tmp_path / "a/b").mkdir(parents=True)
    opened = open_unlinked(tmp_path / "a/b")
    (tmp_path / "a").rename(tmp_path / "moved")
    assert os.path.samestat(os.fstat(opened), (tmp_path / "moved/b").stat())
    os.close(opened)


@pytest.mark.parametrize("name", ["a", "a/b", "a/b/c"])
def test_a_link_anywhere_on_the_way_is_not_followed(tmp_path: Path, name: str) -> None:
    """The last component as little as those before, to a file as to a folder."""
    (tmp_path / "real/b/c").mkdir(parents=True)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        open_unlinked(tmp_path / "a/b/c")


def test_links_of_a_person_are_followed(tmp_path: Path) -> None:
    """Relative and absolute ones, and several on a way; a circle and a gap are None."""
    (tmp_path / "real/bin").mkdir(parents=True)
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one/../one")
    (tmp_path / "circle").symlink_to("circle")
    assert resolve_trusted(tmp_path / "two/bin", []) == tmp_path / "real/bin"
    assert resolve_trusted(tmp_path / "circle/x", []) is None
    assert resolve_trusted(tmp_path / "nosuch", []) is None


def test_a_link_in_a_folder_of_commands_is_not_followed(tmp_path: Path) -> None:
    """Nor where a person's link leads to it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/link").symlink_to(tmp_path / "real")
    (tmp_path / "mine").symlink_to(tmp_path / "project/link")
    for name in ("project/link", "mine"):
        assert resolve_trusted(tmp_path / name, [tmp_path / "project"]) is None
        assert resolve_trusted(tmp_path / name, []) == tmp_path / "real"


def test_a_folder_lies_in_itself() -> None:
    """And not in one whose name begins as its own."""
    assert lies_in(Path("/a/b"), [Path("/a/b")])
    assert not lies_in(Path("/a/bc"), [Path("/a/b")])


def test_a_file_is_written_whole_and_through_no_link(tmp_path: Path) -> None:
    """Missing folders are made; the same text is left alone."""
    name = Path("a/b/file")
    assert write_unlinked(tmp_path, name, b"one") is True
    assert write_unlinked(tmp_path, name, b"one") is False
    assert write_unlinked(tmp_path, name, b"two") is True
    assert (tmp_path / name).read_bytes() == b"two"
    assert [one.name for one in (tmp_path / "a/b").iterdir()] == ["file"]
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a/other").symlink_to("b/file")
    os.mkfifo(tmp_path / "a/pipe")
    for wrong in ("link/b/file", "a/other", "a/pipe", "a/b"):
        with pytest.raises(OSError):
            write_unlinked(tmp_path, Path(wrong), b"three")
    assert (tmp_path / name).read_bytes() == b"two"
