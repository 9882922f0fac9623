"""What a console remembers of the ledger between two runs."""

from __future__ import annotations

import os
from pathlib import Path

from agentvault_tui.console.link.memory import HeadStore, SeenHead
from agentvault_tui.operator_api.remote import RemoteBroker


def test_a_head_is_remembered_by_socket(tmp_path: Path) -> None:
    """Each socket has a memory of its own."""
    one = HeadStore(tmp_path / "one.sock", tmp_path / "state")
    two = HeadStore(tmp_path / "two.sock", tmp_path / "state")
    assert one.keep(SeenHead(7, "sha256:aa"))
    assert one.recall() == SeenHead(7, "sha256:aa")
    assert two.recall() is None


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """0600 in a folder of 0700, also under umask 000."""
    old = os.umask(0)
    try:
        HeadStore(tmp_path / "a.sock", tmp_path / "state").keep(SeenHead(1, "x"))
    finally:
        os.umask(old)
    (file,) = (tmp_path / "state").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_damaged_head_file_counts_as_none(tmp_path: Path) -> None:
    """A damaged file neither raises nor counts as something seen."""
    memory = HeadStore(tmp_path / "a.sock", tmp_path / "state")
    memory.keep(SeenHead(1, "x"))
    (file,) = (tmp_path / "state").glob("*.json")
    for rubbish in (b"", b"[]", b"{}", b'{"seq": "x"}', b"\xff\xfe"):
        file.write_bytes(rubbish)
        assert memory.recall() is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A console on a read-only disk works, it only cannot remember."""
    (tmp_path / "file").write_text("in the way")
    memory = HeadStore(tmp_path / "a.sock", tmp_path / "file" / "state")
    assert not memory.keep(SeenHead(1, "x"))


def test_heads_of_deleted_sockets_are_removed(tmp_path: Path) -> None:
    """Demos in temporary homes leave nothing; a broker elsewhere has no folder."""
    home = tmp_path / "home"
    home.mkdir()
    gone = HeadStore(home / "gone.sock", tmp_path / "state")
    stays = HeadStore(tmp_path / "stays.sock", tmp_path / "state")
    elsewhere = HeadStore(RemoteBroker("https://ops.example"), tmp_path / "state")
    gone.keep(SeenHead(1, "x"))
    stays.keep(SeenHead(2, "y"))
    elsewhere.keep(SeenHead(3, "z"))
    home.rmdir()
    stays.tidy()
    assert (gone.recall(), stays.recall()) == (None, SeenHead(2, "y"))
    assert elsewhere.recall() == SeenHead(3, "z")
