"""A repository that makes git run programs is recognized without running git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.cli.hook_repository import _is_plain_config, names_programs


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One that git itself made."""
    subprocess.run(
        ["git", "init", "-q", str(tmp_path / "r")],  # noqa: S607 - the system's git
        check=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)},
    )
    (tmp_path / "r" / "src").mkdir()
    return tmp_path / "r"


def test_a_repository_as_git_makes_it_is_plain(repository: Path) -> None:
    """In any of its folders, and with what cloning and tracking add."""
    config = repository / ".git" / "config"
    config.write_text(
        config.read_text()
        + '[remote "origin"]\n\turl = https://git.test/x.git\n'
        + "\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        + '[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n'
        + '; a note\n[user]\n\tname = "A \\" B"\n\temail = a@example.com\n'
    )
    assert not names_programs(str(repository))
    assert not names_programs(str(repository / "src"))
    assert not names_programs(str(repository.parent))  # no repository at all


PROGRAMS = [
    "[core]\n\tfsmonitor = ./x\n",
    "[core]\n\tpager = ./x\n",
    "[core]\n\teditor = ./x\n",
    "[core]\n\tsshCommand = ./x\n",
    "[core]\n\thooksPath = x\n",
    "[core]\n\tgitProxy = ./x\n",
    "[core]\n\taskPass = ./x\n",
    "[core]\n\tworktree = /etc\n",
    "[core]\n\tattributesFile = x\n",
    "[core]\n\texcludesFile = /x\n",
    "[core] fsmonitor = ./x\n",
    "[CORE]\n\tFSMonitor = ./x\n",
    "[core]\n\tbare = false\\\n\n\tfsmonitor = ./x\n",
    "[core]\n\tfsmonitor\n",
    "[core]\r\n\tfsmonitor = ./x\r\n",
    "[diff]\n\texternal = ./x\n",
    '[diff "x"]\n\ttextconv = ./x\n',
    '[diff "x"]\n\tcommand = ./x\n',
    "[diff.x]\n\tcommand = ./x\n",
    '[filter "x"]\n\tclean = ./x\n',
    '[filter "x"]\n\tprocess = ./x\n',
    "[alias]\n\tstatus = !./x\n",
    "[gpg]\n\tprogram = ./x\n",
    "[log]\n\tshowSignature = true\n",
    "[include]\n\tpath = x\n",
    '[includeIf "gitdir:/"]\n\tpath = x\n',
    "[pager]\n\tlog = ./x\n",
    "[interactive]\n\tdiffFilter = ./x\n",
    "[credential]\n\thelper = ./x\n",
    '[submodule "x"]\n\tupdate = !./x\n',
    "[extensions]\n\tworktreeConfig = true\n",
    "[extensions]\n\tpartialClone = origin\n",
    '[remote "o"]\n\tpromisor = true\n',
    '[remote "o"]\n\tuploadpack = ./x\n',
    "[protocol]\n\tallow = always\n",
    "no section\n",
    "x = 1\n",
    '[branch "a\\\\"]\n\tx = 1\n',
    "[branch\n",
    "\ufeff[core]\n\tbare = false\n",
]


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_configuration_that_may_name_a_program_is_not_plain(
    repository: Path, text: str
) -> None:
    """Each key that is not on the list, and each form that is not the usual one."""
    config = repository / ".git" / "config"
    config.write_bytes(config.read_bytes() + text.encode())
    assert names_programs(str(repository))
    assert names_programs(str(repository / "src"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".gitattributes", "*.x filter=x\n"),
        (".gitattributes", "*.x text diff=x\n"),
        (".gitattributes", "*.x merge=x\n"),
        ("src/.gitattributes", "*.x filter=x\n"),
        (".git/info/attributes", "*.x diff=x\n"),
        (".gitmodules", '[submodule "x"]\n'),
        (".git/modules/x/config", ""),
        (".git/hooks/post-index-change", "#!/bin/sh\n"),
        (".git/config.worktree", ""),
        (".git/commondir", "../x\n"),
        ("src/commondir", "../x\n"),
    ],
)
def test_other_files_that_have_git_run_programs(
    repository: Path, name: str, text: str
) -> None:
    """Drivers, submodules, the hook of a refreshed index, files from elsewhere."""
    file = repository / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if name == "src/commondir":
        (repository / "src" / "HEAD").symlink_to("refs/heads/none")
    assert names_programs(str(repository / "src"))


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],  # noqa: S607 - the system's git
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder)},
    )


@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("names", ["sha1", "sha256"])
def test_a_submodule_that_only_the_index_names_runs_programs(
    tmp_path: Path, version: str, names: str
) -> None:
    """`git status` starts git in it, and so what its own configuration names."""
    git(tmp_path, "init", "-q", f"--object-format={names}")
    for number in range(12):
        (tmp_path / f"a-file-{number}").touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "later").touch()
    git(tmp_path, "add", "-N", "later")
    git(tmp_path, "update-index", "--index-version", version)
    assert not names_programs(str(tmp_path))
    sub = tmp_path / "b-sub"
    sub.mkdir()
    git(sub, "init", "-q", f"--object-format={names}")
    git(sub, "commit", "-q", "--allow-empty", "-m", "x")
    git(sub, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    git(tmp_path, "add", "b-sub")
    git(tmp_path, "status")
    assert (tmp_path / "ran").exists()
    assert names_programs(str(tmp_path))


@pytest.mark.parametrize("name", ["objects", "refs", "HEAD", "info"])
def test_a_repository_with_parts_of_another_is_not_plain(
    repository: Path, name: str
) -> None:
    """git would print the history of a repository outside of the project."""
    part = repository / ".git" / name
    part.rename(repository / "moved")
    part.symlink_to(repository / "moved")
    assert names_programs(str(repository))
    part.unlink()
    (repository / "moved").rename(part)
    assert not names_programs(str(repository))
    (repository / ".git" / "objects" / "info" / "alternates").write_text("/x/objects\n")
    assert names_programs(str(repository))


def test_an_index_that_cannot_be_read_whole_is_not_plain(repository: Path) -> None:
    """Cut short, of another version, a link, or with its entries elsewhere."""
    (repository / "a").touch()
    git(repository, "add", "a")
    index = repository / ".git" / "index"
    whole = index.read_bytes()
    assert not names_programs(str(repository))
    for raw in (b"", whole[:40], whole[:-1], whole + b"x", b"DIRC\0\0\0\5" + whole[8:]):
        index.write_bytes(raw)
        assert names_programs(str(repository))
    index.unlink()
    index.symlink_to("HEAD")
    assert names_programs(str(repository))
    index.unlink()
    index.write_bytes(whole)
    git(repository, "update-index", "--split-index")
    assert names_programs(str(repository))


@pytest.mark.parametrize("name", ["HEAD", "objects", "refs"])
def test_a_folder_that_git_does_not_take_for_a_repository_is_not_plain(
    repository: Path, name: str
) -> None:
    """git would use a repository further up, with a configuration that was not read."""
    (repository / ".git" / name).rename(repository / "moved")
    assert names_programs(str(repository))


def test_what_cannot_be_read_is_not_plain(repository: Path) -> None:
    """A link, a file in the place of a folder, one that is too large or no text."""
    config = repository / ".git" / "config"
    kept = config.read_bytes()
    for raw in (b"\xff\xfe", b"[core]\n\0", b"#" * 70_000):
        config.write_bytes(raw)
        assert names_programs(str(repository))
    config.unlink()
    assert names_programs(str(repository))
    (repository / "elsewhere").write_bytes(kept)
    config.symlink_to(repository / "elsewhere")
    assert names_programs(str(repository))
    (repository / ".git").rename(repository / "moved")
    (repository / ".git").write_text("gitdir: moved\n")
    assert names_programs(str(repository))
    (repository / ".git").unlink()
    (repository / ".git").symlink_to("moved")
    assert names_programs(str(repository))


def test_a_folder_that_git_would_take_for_a_bare_repository_is_not_plain(
    repository: Path,
) -> None:
    """An agent may write such files: then their configuration counts."""
    folder = repository / "src" / "deep"
    (folder / "objects").mkdir(parents=True)
    assert not names_programs(str(folder))
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    assert names_programs(str(folder))
    assert names_programs(str(folder / "objects"))
    assert not names_programs(str(repository / "src"))


@given(st.text(max_size=80))
def test_a_key_of_no_list_is_never_plain(text: str) -> None:
    """Whatever is around it."""
    assert not _is_plain_config(f"{text}\n[core]\n\tfsmonitor = x\n{text}")
