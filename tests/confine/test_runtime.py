"""A program and its runtime are found, and no more of a home directory than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentvault_tui.confine.runtime import (
    find_program,
    outermost,
    path_folders,
    program_paths,
)


def executable(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_program_is_found_as_a_shell_finds_it(tmp_path: Path) -> None:
    """By PATH or by its path; one that cannot be run is another error than none."""
    tool = executable(tmp_path / "bin/tool")
    assert find_program("tool", str(tmp_path / "bin")) == tool
    assert find_program(str(tool), "") == tool
    with pytest.raises(FileNotFoundError):
        find_program("nosuch", str(tmp_path))
    with pytest.raises(PermissionError):
        find_program(str(tmp_path), "")


def test_a_program_alone_is_one_file(tmp_path: Path) -> None:
    """Nothing else of its folder is shown."""
    tool = executable(tmp_path / "home/tools/tool")
    assert [*program_paths(tool)] == [tool]


def test_a_link_brings_what_it_leads_to(tmp_path: Path) -> None:
    """Claude Code's installer has a link in ~/.local/bin to a version elsewhere."""
    real = executable(tmp_path / ".local/share/claude/versions/2.1.0")
    link = tmp_path / ".local/bin/claude"
    link.parent.mkdir()
    link.symlink_to(real)
    assert [*program_paths(link)] == [link, tmp_path / ".local/share/claude"]


def test_a_virtual_environment_comes_with_its_python(tmp_path: Path) -> None:
    """pyvenv.cfg says where that is."""
    base = tmp_path / "versions/3.12"
    (base / "lib/python3.12").mkdir(parents=True)
    (base / "lib/python3.12/os.py").touch()
    executable(base / "bin/python3")
    python = executable(tmp_path / "venv/bin/python")
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {base}/bin\nversion = 3.12\n")
    assert [*program_paths(python)] == [tmp_path / "venv", base]
    assert [*path_folders(f"{tmp_path}/venv/bin")] == [
        tmp_path / "venv/bin",
        tmp_path / "venv",
        base,
    ]


def test_a_prefix_of_node_has_its_packages(tmp_path: Path) -> None:
    """A package's program is a script far below it."""
    executable(tmp_path / "node/bin/node")
    script = executable(
        tmp_path / "node/lib/node_modules/@openai/codex/bin/codex.js",
        "#!/usr/bin/env node\n",
    )
    (tmp_path / "node/bin/codex").symlink_to(script)
    found = [*program_paths(tmp_path / "node/bin/codex")]
    assert set(found) == {tmp_path / "node"}


def test_shims_of_pyenv_bring_its_versions(tmp_path: Path) -> None:
    """A shim is a script that looks for the version."""
    shim = executable(tmp_path / ".pyenv/shims/python3")
    (tmp_path / ".pyenv/versions").mkdir()
    assert [*program_paths(shim)] == [tmp_path / ".pyenv"]


def test_the_interpreter_of_a_script_counts_too(tmp_path: Path) -> None:
    """A script of pipx names the Python of its environment."""
    python = executable(tmp_path / "venvs/tool/bin/python")
    (tmp_path / "venvs/tool/pyvenv.cfg").write_text("home = /usr/bin\n")
    script = executable(tmp_path / "bin/tool", f"#!{python}\n")
    assert [*program_paths(script)] == [script, tmp_path / "venvs/tool"]


def test_a_script_that_names_itself_ends(tmp_path: Path) -> None:
    """A line that a stranger wrote must not loop."""
    one = tmp_path / "one"
    executable(one, f"#!{one}\n")
    assert [*program_paths(one)] == [one]


def test_relative_folders_of_path_are_left_out(tmp_path: Path) -> None:
    """They are wherever the command is."""
    assert [*path_folders(f".:bin::{tmp_path}:{tmp_path}/nosuch")] == [tmp_path]


def test_the_outermost_folders_remain() -> None:
    """A folder in another one is shown with it."""
    found = outermost(map(Path, ("/a/b", "/a", "/ab", "/a")))
    assert found == [Path("/a"), Path("/ab")]


def test_a_line_of_a_script_shows_no_file_that_is_no_program(tmp_path: Path) -> None:
    """The script may be the agent's, and name a key as its interpreter."""
    key = tmp_path / "key"
    key.write_text("secret")
    script = executable(tmp_path / "script", f"#!{key}\n")
    assert [*program_paths(script)] == [script]


@pytest.mark.parametrize("separator", ["\f", "\v", "\r", "\x1c"])
def test_a_line_of_a_script_is_split_as_the_kernel_does(
    tmp_path: Path, separator: str
) -> None:
    """Another separator is a part of the name, so another file is started."""
    python = executable(tmp_path / "other/bin/python")
    script = executable(tmp_path / "script", f"#!{separator}{python}\n")
    assert [*program_paths(script)] == [script]


def test_a_folder_is_no_interpreter(tmp_path: Path) -> None:
    """It can be searched, which is the same bit as to be run."""
    (tmp_path / "private").mkdir()
    script = executable(tmp_path / "script", f"#!{tmp_path}/private\n")
    assert [*program_paths(script)] == [script]


def test_scripts_that_name_each_other_end(tmp_path: Path) -> None:
    """The kernel follows a few."""
    one, two = tmp_path / "one", tmp_path / "two"
    executable(one, f"#!{two}\n")
    executable(two, f"#!{one}\n")
    assert {*program_paths(one)} == {one, two}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that commands may write, beside another folder with a secret."""
    secret = tmp_path / "secret"
    (secret / "lib/python3.12").mkdir(parents=True)
    (secret / "lib/python3.12/os.py").touch()
    executable(secret / "bin/python3")
    (secret / "bin/pyvenv.cfg").touch()
    (tmp_path / "project/.venv/bin").mkdir(parents=True)
    return tmp_path / "project"


def outside(project: Path, program: Path) -> list[Path]:
    """Return what a program brings that lies outside of the folder."""
    found = [*program_paths(program, [project])]
    found += path_folders(str(program.parent), [project])
    return [one for one in found if not one.resolve().is_relative_to(project)]


def test_a_script_in_a_folder_of_commands_brings_no_interpreter(project: Path) -> None:
    """The line was written by a command."""
    python = project.parent / "secret/bin/python3"
    script = executable(project / "script", f"#!{python}\n")
    assert outside(project, script) == []


def test_an_environment_in_a_folder_of_commands_brings_no_python(project: Path) -> None:
    """pyvenv.cfg was written by a command."""
    home = project.parent / "secret/bin"
    (project / ".venv/pyvenv.cfg").write_text(f"home = {home}\n")
    assert outside(project, executable(project / ".venv/bin/python")) == []


@pytest.mark.parametrize("name", [".venv/bin/python", ".venv/bin", ".venv"])
def test_a_link_in_a_folder_of_commands_brings_nothing(
    project: Path, name: str
) -> None:
    """Whatever part of the way it is."""
    secret = project.parent / "secret"
    leads = {".venv": secret, ".venv/bin": secret / "bin"}
    (project / ".venv/bin").rmdir()
    if name == ".venv":
        (project / ".venv").rmdir()
    elif name == ".venv/bin/python":
        (project / ".venv/bin").mkdir()
    (project / name).symlink_to(leads.get(name, secret / "bin/python3"))
    found = [*program_paths(project / ".venv/bin/python", [project])]
    assert [one for one in found if one != project / ".venv/bin/python"] == []


def test_a_link_to_a_folder_of_commands_brings_no_more(project: Path) -> None:
    """A person's own link leads there, and a script's line from there to a secret."""
    python = project.parent / "secret/bin/python3"
    script = executable(project / "script", f"#!{python}\n")
    link = project.parent / "tool"
    link.symlink_to(script)
    assert {*program_paths(link, [project])} == {link, script}
