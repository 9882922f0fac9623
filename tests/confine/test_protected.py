"""Paths that programs outside obey are found, and stand-ins come and go."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from agentvault_tui.cli.host_files import FILES_OF, HostCommands
from agentvault_tui.confine.protected import (
    PROTECTED,
    Protection,
    protect,
    sockets_in,
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


def test_sockets_are_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in a folder could be reached if Unix sockets work."""
    (project / "a").mkdir()
    with socket.socket(socket.AF_UNIX) as opened:
        monkeypatch.chdir(project)  # its path may be too long for a socket
        opened.bind("a/s")
        assert [*sockets_in([project])] == [project / "a/s"]


# Names by which a read-only file could be changed all the same.


def test_a_script_to_which_a_hook_leads_is_read_only(project: Path) -> None:
    """Git starts the script outside; its folder cannot be renamed either."""
    repository(project)
    (project / "scripts").mkdir()
    (project / "scripts/check.sh").touch()
    (project / ".git/hooks/pre-commit").symlink_to("../../scripts/check.sh")
    (project / ".git/hooks/of-the-system").symlink_to("/usr/bin/true")
    found = protect([project])
    read_only, _, pinned = names(found, project)
    assert "scripts/check.sh" in read_only
    assert "scripts" in pinned
    found = protect([project], [project / "scripts/check.sh"])
    assert "scripts/check.sh" not in names(found, project)[0]


@pytest.mark.parametrize(
    "target", ["../../link", "../../missing", "../../way/check.sh"]
)
def test_a_hook_that_leads_by_a_further_link_is_refused(
    project: Path, target: str
) -> None:
    """A command that changes that link chooses the program that git starts."""
    repository(project)
    (project / "real").mkdir()
    (project / "real/check.sh").touch()
    (project / "link").symlink_to("real/check.sh")
    (project / "way").symlink_to("real")
    (project / ".git/hooks/pre-commit").symlink_to(target)
    with pytest.raises(NotConfinedError, match="pre-commit leads to"):
        protect([project])


def test_a_link_to_the_folder_itself_holds_nothing(project: Path) -> None:
    """The whole project would be read-only."""
    (project / ".vscode").mkdir()
    (project / ".vscode/root").symlink_to("..")
    assert names(protect([project]), project)[0] == {".vscode"}


def test_a_pipe_in_a_protected_place_is_refused(project: Path) -> None:
    """A command writes into a pipe also if its mount is read-only."""
    os.mkfifo(project / ".envrc")
    with pytest.raises(NotConfinedError, match="is no file and no folder"):
        protect([project])


def test_a_protected_file_with_a_second_name_is_refused(project: Path) -> None:
    """A command that writes to the other name changes it."""
    repository(project)
    os.link(project / ".git/config", project / "other")
    with pytest.raises(NotConfinedError, match="other is another name of"):
        protect([project])


@pytest.mark.parametrize("name", ["mise.toml", ".pre-commit-config.yaml", ".cargo"])
def test_a_file_that_tools_read_is_read_only_where_it_is(
    project: Path, name: str
) -> None:
    """No stand-in is made: an empty file would be an error to these programs."""
    assert name not in names(protect([project]), project)[1]
    (project / name).touch()
    assert name in names(protect([project]), project)[0]
