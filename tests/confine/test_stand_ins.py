"""Stand-ins come and go with the runs that use them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentvault_tui.confine.protected import excluded, protect
from agentvault_tui.confine.stand_ins import list_left, remove_stand_in, stand_ins
from agentvault_tui.errors import NotConfinedError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


def repository(folder: Path) -> Path:
    line = ["git", "init", "-q", str(folder)]
    subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})
    return folder


def test_stand_ins_are_there_for_the_block_alone(project: Path, records: Path) -> None:
    """They are made and read-only during the run, and are removed afterwards."""
    found = protect([project])
    with stand_ins(records, found):
        assert (project / ".claude").is_dir()
        assert (project / ".mcp.json").read_bytes() == b""
        assert project / ".envrc" in found.read_only
        assert (project / ".github/hooks").is_dir()
        assert json.loads((project / "opencode.json").read_bytes()) == {}
        assert len([*records.glob("*.json")]) == 1
    assert [*project.iterdir()] == []
    assert [*records.glob("*.json")] == []


def test_git_works_with_stand_ins_in_its_folder(project: Path, records: Path) -> None:
    """The one for commondir says that git's folder is its own."""
    repository(project)
    (project / "a").write_text("a")
    found = protect([project])
    with stand_ins(records, found):
        ignored = records / "ignored"
        ignored.write_text(excluded(found))
        who = ("-c", "user.name=a", "-c", "user.email=a@b.test")
        git = ("git", "-C", str(project), *who, "-c", f"core.excludesFile={ignored}")
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "x"], check=True)
        subprocess.run([*git, "switch", "-qc", "branch"], check=True)
        listed = subprocess.run([*git, "ls-files"], check=True, capture_output=True)
        assert listed.stdout == b"a\n"
        status = subprocess.run(
            [*git, "status", "--short"], check=True, capture_output=True
        )
        assert status.stdout == b""
    assert not (project / ".git/commondir").exists()


def test_something_put_into_a_stand_in_stays(project: Path, records: Path) -> None:
    """A person may add settings in the same folder during the run."""
    with stand_ins(records, protect([project])):
        (project / ".claude/settings.json").write_text("{}")
        (project / ".envrc").write_text("export A=1")
    left = {one.name for one in project.iterdir()}
    assert left == {".claude", ".envrc"}


def test_stand_ins_of_a_run_that_was_killed_go_at_the_next_start(
    project: Path, tmp_path: Path, records: Path
) -> None:
    """Its record is left, and its lock is gone with it."""
    records.mkdir()
    (project / ".claude").mkdir()
    (project / ".envrc").touch()
    (project / "kept").touch()
    paths = [str(project / name) for name in (".claude", ".envrc", "missing")]
    (records / "1.json").write_text(json.dumps(paths))
    (records / "2.json").write_text("broken")
    other = tmp_path / "other"
    other.mkdir()
    with stand_ins(records, protect([other])):
        assert {one.name for one in project.iterdir()} == {"kept"}
        assert len([*records.glob("*.json")]) == 1


def test_a_git_folder_that_a_killed_run_left_is_made_again(
    project: Path, records: Path
) -> None:
    """It looks like a repository at the next start, and goes as that one begins."""
    records.mkdir()
    (project / ".git").mkdir()
    (records / "1.json").write_text(json.dumps([str(project / ".git")]))
    protection = protect([project])
    with stand_ins(records, protection):
        assert (project / ".git/hooks").is_dir()
        assert project / ".git/hooks" in protection.read_only
    assert [*project.iterdir()] == []


def test_a_stand_in_that_another_run_needs_stays(project: Path, records: Path) -> None:
    """Removing it would take the other's protection away (rmdir detaches mounts)."""
    records.mkdir()
    (project / ".claude").mkdir()
    other = records / "1.json"
    other.write_text(json.dumps([str(project / ".claude")]))
    lock = os.open(other, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with stand_ins(records, protect([project])):
        os.close(lock)  # the other run ends first
        run_elsewhere(records)
        assert (project / ".claude").is_dir()
    assert [*project.iterdir()] == []


def run_elsewhere(records: Path) -> None:
    """Start and end a run elsewhere, which cleans up."""
    script = (
        "import sys; from pathlib import Path\n"
        "from agentvault_tui.confine.protected import Protection\n"
        "from agentvault_tui.confine.stand_ins import stand_ins\n"
        "with stand_ins(Path(sys.argv[1]), Protection()): pass\n"
    )
    subprocess.run([sys.executable, "-c", script, str(records)], check=True)


def test_a_stand_in_is_made_through_no_link(
    project: Path, tmp_path: Path, records: Path
) -> None:
    """A command at work in the folder may swap one for a link meanwhile."""
    repository(project / "below")
    found = protect([project])
    (project / "below").rename(tmp_path / "moved")
    (tmp_path / "victim").mkdir()
    (project / "below").symlink_to(tmp_path / "victim")
    with pytest.raises(NotConfinedError), stand_ins(records, found):
        pass
    assert [*(tmp_path / "victim").iterdir()] == []
    assert {one.name for one in project.iterdir()} == {"below"}


def test_those_of_a_killed_run_are_listed(project: Path, records: Path) -> None:
    """`agentvault uninstall` removes them; those that a run uses are not listed."""
    assert list_left(records) == []
    records.mkdir()
    (project / ".git/hooks").mkdir(parents=True)
    (project / ".envrc").write_text("export A=1")
    paths = [str(project / name) for name in (".git", ".git/hooks", ".envrc", "gone")]
    (records / "1.json").write_text(json.dumps(paths))
    (records / "2.json").write_text("broken")
    left = list_left(records)
    assert left == [project / name for name in (".git/hooks", ".git", ".envrc")]
    for path in left:
        remove_stand_in(path)
    assert [one.name for one in project.iterdir()] == [".envrc"]
    with stand_ins(records, protect([project])):
        assert list_left(records) == []
