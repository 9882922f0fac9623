"""Mounts are where they were made, and their end is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentvault_tui.confine import mounts
from agentvault_tui.confine.mounts import MountWatch, check_mounts
from agentvault_tui.confine.paths import FileId
from agentvault_tui.errors import NotConfinedError


def identity(path: Path) -> FileId:
    status = path.stat()
    return FileId(status.st_dev, status.st_ino)


def test_a_mount_that_is_elsewhere_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command exchanged a folder on the way to it while it was mounted."""
    proc = identity(Path("/proc"))
    check_mounts(os.getpid(), {Path("/proc"): proc})
    monkeypatch.setattr(mounts, "_MOUNTS_S", 0)
    with pytest.raises(NotConfinedError, match="was exchanged before"):
        check_mounts(os.getpid(), {Path("/proc"): proc, tmp_path: proc})


def test_another_folder_in_its_place_refuses(tmp_path: Path) -> None:
    """An older bubblewrap looks for each path again when it mounts it."""
    with pytest.raises(NotConfinedError, match="/proc was exchanged before"):
        check_mounts(os.getpid(), {Path("/proc"): identity(tmp_path)})


def test_a_process_that_has_ended_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says where its mounts are."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(NotConfinedError):
        check_mounts(child, {Path("/proc"): identity(Path("/proc"))})


def test_a_name_with_spaces_is_read(tmp_path: Path) -> None:
    """The kernel escapes them in octal digits."""
    line = rb"1 2 0:3 / /a\040b\134c rw - ext4 x rw"
    (tmp_path / "mountinfo").write_bytes(line)
    with (tmp_path / "mountinfo").open("rb") as file:
        assert mounts._read_mount_points(file) == {Path("/a b\\c")}


def test_a_watch_ends_the_command_once(tmp_path: Path) -> None:
    """The mount point that is missing is named."""
    ended: list[str] = []
    watch = MountWatch(os.getpid(), [tmp_path], lambda: ended.append("x"))
    watch.start()
    watch._thread.join()
    watch.stop()
    assert (watch.lost, ended) == (tmp_path, ["x"])


def test_a_watch_that_is_stopped_ends_nothing() -> None:
    """All mounts were there until then."""
    ended: list[str] = []
    watch = MountWatch(os.getpid(), [Path("/proc")], lambda: ended.append("x"))
    watch.start()
    watch.stop()
    assert (watch.lost, ended) == (None, [])
