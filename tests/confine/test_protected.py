"""Paths that programs outside obey are found, and stand-ins come and go."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentvault_tui.cli.host_files import FILES_OF, HostCommands
from agentvault_tui.confine.protected import (
    PROTECTED,
    Protection,
    excluded,
    made_repositories,
    protect,
    sockets_in,
    stand_ins,
)
from agentvault_tui.errors import NotConfinedError

TOP_MISSING = {*PROTECTED, "refs"}
GIT_MISSING = {f".git/{name}" for name in ("config.lock", "config.worktree")}
GIT_MISSING |= {".git/commondir"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


def repository(folder: Path, *options: str) -> Path:
    line = ["git", "init", "-q", *options, str(folder)]
    subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})
    return folder


def names(protection: Protection, top: Path) -> tuple[set[str], set[str], set[str]]:
    """Return what is read-only, missing and pinned, below a folder."""
    return (
        {str(one.relative_to(top)) for one in protection.read_only},
        {str(one.relative_to(top)) for one in protection.missing},
        {str(one.relative_to(top)) for one in protection.pinned},
    )


def test_a_plain_folder_gets_stand_ins_for_all(project: Path) -> None:
    """Nothing of it is there, so everything is kept from being made."""
    found = names(protect([project]), project)
    assert found == (set(), TOP_MISSING | {".git"}, {".github"})


def test_a_repository_keeps_its_hooks_and_configuration(project: Path) -> None:
    """Those that are there are read-only, and its folder cannot be renamed."""
    repository(project)
    read_only, missing, pinned = names(protect([project]), project)
    assert read_only == {".git/hooks", ".git/config"}
    assert missing == TOP_MISSING | GIT_MISSING
    assert pinned == {".git", ".github"}


def test_a_repository_below_keeps_its_place(project: Path) -> None:
    """Each folder above it is pinned, or another could be put in its place."""
    repository(project / "a/b/repo")
    read_only, missing, pinned = names(protect([project]), project)
    assert "a/b/repo/.git/hooks" in read_only
    assert "a/b/repo/.claude" in missing
    repo = {"a", "a/b", "a/b/repo", "a/b/repo/.git", "a/b/repo/.github"}
    assert pinned == repo | {".github"}


def test_submodules_and_work_trees_are_repositories(project: Path) -> None:
    """Git reads hooks where a file .git leads, so that file and that folder count."""
    repository(project)
    repository(project / ".git/modules/part", "--bare")
    (project / "part").mkdir()
    (project / "part/.git").write_text("gitdir: ../.git/modules/part\n")
    read_only, _, pinned = names(protect([project]), project)
    assert {".git/modules/part/hooks", ".git/modules/part/config"} <= read_only
    assert "part/.git" in read_only
    assert {".git/modules", ".git/modules/part", "part"} <= pinned


def test_a_bare_repository_counts_by_its_content(project: Path) -> None:
    """Also one without the name .git, and a writable folder that is one itself."""
    bare = repository(project / "bare", "--bare")
    assert "bare/hooks" in names(protect([project]), project)[0]
    assert names(protect([bare]), bare)[0] == {"hooks", "config"}


def test_a_nested_writable_folder_is_pinned_from_the_outer_one(project: Path) -> None:
    """Its parents could be renamed otherwise, since they are writable too."""
    inner = project / "x/inner"
    inner.mkdir(parents=True)
    _, missing, pinned = names(protect([inner, project]), project)
    assert "x/inner/.claude" in missing
    assert pinned == {"x", "x/inner", ".github", "x/inner/.github"}


def test_an_opened_path_is_left_alone(project: Path) -> None:
    """An operator may let a command write one of them."""
    (project / ".vscode").mkdir()
    found = protect([project], [project / ".vscode", project / ".envrc"])
    read_only, missing, _ = names(found, project)
    assert ".vscode" not in read_only
    assert ".envrc" not in missing


@pytest.mark.parametrize(
    "name", [".claude", ".mcp.json", ".git/hooks", ".git", ".github", ".github/hooks"]
)
def test_a_link_is_refused(project: Path, name: str) -> None:
    """Nothing can be mounted over a link, so the run is refused with the remedy."""
    (project / "elsewhere").mkdir()
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).symlink_to("elsewhere")
    with pytest.raises(NotConfinedError, match="is a link") as caught:
        protect([project])
    assert f"--write {project / name}" in caught.value.remedy


def test_a_folder_that_looks_like_a_repository_is_protected_as_both(
    project: Path,
) -> None:
    """A command makes HEAD and objects at the top: nothing else is less protected."""
    (project / "HEAD").touch()
    for name in ("objects", "refs", "logs/inner/.git"):
        (project / name).mkdir(parents=True)
    _, missing, _ = names(protect([project]), project)
    assert missing >= {*PROTECTED, ".git", "hooks", "config", "logs/inner/.git/hooks"}


@pytest.mark.parametrize(
    ("there", "held"), [((), "refs"), (("refs",), "objects"), (("objects",), "refs")]
)
def test_the_top_cannot_become_a_bare_repository(
    project: Path, there: tuple[str, ...], held: str
) -> None:
    """Git takes it for one if HEAD, objects and refs are there and .git is not."""
    for name in there:
        (project / name).mkdir()
    assert held in names(protect([project]), project)[1]
    for name in ("refs", "objects"):
        (project / name).mkdir(exist_ok=True)
    assert {"config", "hooks"} <= names(protect([project]), project)[1]


@pytest.mark.parametrize("name", ["objects", "HEAD", "config"])
def test_a_submodule_whose_parts_were_renamed_is_one_still(
    project: Path, name: str
) -> None:
    """A command renames a part in one run and renames it back in the next."""
    repository(project)
    module = repository(project / ".git/modules/a/b", "--bare")
    (module / name).rename(module / "renamed")
    read_only, missing, _ = names(protect([project]), project)
    assert {f".git/modules/a/b/{one}" for one in ("config", "hooks")} <= (
        read_only | missing
    )


def test_branches_are_no_repositories(project: Path) -> None:
    """A branch may have the name of a part of a repository."""
    repository(project)
    for name in (".git/refs/heads/config", ".git/modules/m/refs/heads/hooks"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    found = protect([project])
    assert not [one for one in found.git if "refs" in one.parts]


def test_a_git_folder_of_an_earlier_start_stays_one(project: Path) -> None:
    """It is protected by its place, whatever is in it now."""
    (project / "bare").mkdir()
    found = protect([project], git=[project / "bare"])
    assert {"bare/hooks", "bare/config"} <= names(found, project)[1]
    assert found.git == [project / "bare"]


def test_each_file_that_connect_writes_into_a_project_is_protected(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of a host would start the command's program outside."""
    monkeypatch.chdir(project)
    run = HostCommands(("agentvault",), "a", (), ("server",))
    for host, files_of in FILES_OF.items():
        for file in files_of(run, Path("/home/of-somebody"), managed=False):
            if file.path.is_relative_to(project):
                name = file.path.relative_to(project)
                assert {str(one) for one in (name, *name.parents)} & {*PROTECTED}, host


def test_a_workspace_of_vs_code_is_read_only(project: Path) -> None:
    """It names tasks and settings, and has any name."""
    (project / "mine.code-workspace").touch()
    assert "mine.code-workspace" in names(protect([project]), project)[0]


def test_repositories_that_were_made_are_found(project: Path) -> None:
    """Those that were there at the start are not named."""
    repository(project)
    before = protect([project]).git
    repository(project / "a/clone")
    repository(project / "bare", "--bare")
    (project / "tree").mkdir()
    (project / "tree/.git").write_text("gitdir: /elsewhere\n")
    made = made_repositories([project], before)
    names = ("a/clone/.git", "bare", "tree/.git")
    assert made == [project / name for name in names]


def test_folders_that_are_links_are_not_searched(project: Path, tmp_path: Path) -> None:
    """A link leads where the command does not see."""
    repository(tmp_path / "other")
    (project / "link").symlink_to(tmp_path / "other")
    assert names(protect([project]), project)[0] == set()


def test_mounts_come_parents_first() -> None:
    """A later mount covers an earlier one, and one below a read-only one is idle."""
    one, two, three = Path("/p/.git"), Path("/p/.git/hooks"), Path("/p/.git/hooks/x")
    found = Protection([three, two], [one], {})
    assert [*found.mounts()] == [("bind", one), ("ro-bind", two)]


def test_stand_ins_are_there_for_the_block_alone(project: Path, records: Path) -> None:
    """They are made, are read-only then, and are gone afterwards."""
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
    """A person who works beside the run loses nothing."""
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
        "from agentvault_tui.confine.protected import Protection, stand_ins\n"
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


def test_sockets_are_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in a folder could be reached if Unix sockets work."""
    (project / "a").mkdir()
    with socket.socket(socket.AF_UNIX) as opened:
        monkeypatch.chdir(project)  # its path may be too long for a socket
        opened.bind("a/s")
        assert [*sockets_in([project])] == [project / "a/s"]
