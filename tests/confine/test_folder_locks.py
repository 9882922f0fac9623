"""With an older bubblewrap, one confined command at a time works in a folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from agentvault_tui.confine.folder_locks import locked
from agentvault_tui.errors import NotConfinedError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("a/b/c", "a/b/d", "vault/homes/agt_1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").touch()
    return tmp_path


def refusal(folder: Path, vault: Path) -> str:
    """Lock a folder for a moment; return the reason if that is refused."""
    try:
        with locked([folder], vault):
            return ""
    except NotConfinedError as error:
        return error.what


@pytest.mark.parametrize("other", ["a/b", "a", "a/b/c", "a/file"])
def test_a_folder_around_or_inside_is_refused(place: Path, other: str) -> None:
    """A command that changes one of them changes the way to the other."""
    vault = place / "vault"
    with locked([place / "a/b"], vault):
        assert "another confined command" in refusal(place / other, vault)
    assert not refusal(place / other, vault)


def test_other_folders_are_free(place: Path) -> None:
    """Also next to each other, and several of one command."""
    vault = place / "vault"
    with locked([place / "a/b", place / "a/b/c"], vault):
        assert refusal(place / "a/b/c", vault)
    with locked([place / "a/b/c"], vault):
        assert not refusal(place / "a/b/d", vault)


def test_agentvaults_own_locks_are_left_alone(place: Path) -> None:
    """It locks the folder of the agents' home directories for a moment."""
    own, vault = place / "vault/homes/agt_1", place / "vault"
    with locked([own], vault):
        descriptor = os.open(own.parent, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        assert refusal(own, vault)
