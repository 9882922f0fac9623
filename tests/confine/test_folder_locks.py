"""With an older bubblewrap, one confined command at a time works in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentvault_tui.confine.folder_locks import locked
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import locked_folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("a/b/c", "a/b/d", "vault/homes/agt_1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").touch()
    return tmp_path


@pytest.mark.parametrize("other", ["a/b", "a", "a/b/c", "a/file"])
def test_a_folder_around_or_inside_is_refused(place: Path, other: str) -> None:
    """A command that changes one of them changes the way to the other."""
    vault = place / "vault"
    with (
        locked([place / "a/b"], vault),
        pytest.raises(NotConfinedError, match="another confined command"),
        locked([place / other], vault),
    ):
        pass
    with locked([place / other], vault):
        pass


def test_other_folders_are_free(place: Path) -> None:
    """Also next to each other, and several of one command."""
    vault = place / "vault"
    with locked([place / "a/b", place / "a/b/c"], vault):
        pass
    with locked([place / "a/b/c"], vault), locked([place / "a/b/d"], vault):
        pass


def test_agentvaults_own_locks_are_left_alone(place: Path) -> None:
    """It locks the folder of the agents' home directories for a moment."""
    with locked([place / "vault/homes/agt_1"], place / "vault"):
        with locked_folder(place / "vault/homes"):
            pass
        with (
            pytest.raises(NotConfinedError),
            locked([place / "vault/homes/agt_1"], place / "vault"),
        ):
            pass
