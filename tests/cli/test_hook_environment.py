"""The environment of a host, and version managers, may change what a line runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agentvault_tui.cli.hook_environment import changes_programs, runs_projects


def changes(program: str, **environ: str) -> bool:
    return changes_programs(
        [program], environ, lambda path: not path.startswith(("/home", "/etc"))
    )


def words(text: str) -> list[str]:
    return text.split()


OF_ALL = words(
    """
    BASH_ENV ENV SHELLOPTS BASHOPTS LD_AUDIT LD_PRELOAD DYLD_INSERT_LIBRARIES GCONV_PATH
    LOCPATH NLSPATH OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES
    """
)
OF_PROGRAM = {
    "curl": ["CURL_HOME"],
    "file": ["MAGIC"],
    "gcc": [
        "GCC_EXEC_PREFIX",
        "COMPILER_PATH",
        "DEPENDENCIES_OUTPUT",
        "C_INCLUDE_PATH",
    ],
    "git": [
        *("GIT_DIR", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"),
        *(
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_PARAMETERS",
            "GIT_CONFIG_SYSTEM",
            "GIT_TRACE",
        ),
        *("GIT_TRACE2_EVENT", "GIT_TRACE_CURL", "GIT_EXEC_PATH", "GIT_OF_THE_FUTURE"),
    ],
    "grep": ["GREP_OPTIONS"],
    "egrep": ["GREP_OPTIONS"],
    "make": ["MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "MFLAGS"],
    "rg": ["RIPGREP_CONFIG_PATH"],
    "tar": ["TAR_OPTIONS"],
}
PAIRS = [(program, name) for program, names in OF_PROGRAM.items() for name in names]


@pytest.mark.parametrize("name", [*OF_ALL, "BASH_FUNC_ls%%"])
def test_variables_of_shells_and_libraries_count_for_every_program(name: str) -> None:
    """They make it run or read something else, whatever their value is."""
    assert changes("ls", **{name: "/home/x"})
    assert not changes("ls", **{f"MY_{name}": "/home/x"})


@pytest.mark.parametrize(("program", "name"), PAIRS)
def test_variables_of_a_program_count_for_that_one(program: str, name: str) -> None:
    """Another program does not read them."""
    assert changes(program, **{name: "/home/x"})
    assert not changes("ls", **{name: "/home/x"})


@pytest.mark.parametrize(
    "name",
    [
        "NIX_LD",
        "NIX_LD_LIBRARY_PATH",
        "XDG_CONFIG_HOME",
        "ZDOTDIR",
        "fish_function_path",
    ],
)
def test_variables_that_name_folders_count_in_the_project(name: str) -> None:
    """A user has them for folders of their own."""
    for value in ("/p/x", "x", ".", "/home/x:/p"):
        assert changes("ls", **{name: value})
    for value in ("/home/x", "", "/etc:/home/x"):
        assert not changes("ls", **{name: value})


@pytest.mark.parametrize(
    "name",
    [
        *("GIT_ASKPASS", "GIT_AUTHOR_NAME", "GIT_EDITOR", "GIT_PAGER", "GIT_SSH"),
        *("GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_TERMINAL_PROMPT", "PAGER"),
        *("BASH_FUNC_which%%", "PS4", "TZ", "LS_COLORS", "LANG", "LESS", "EDITOR"),
    ],
)
def test_usual_variables_change_nothing(name: str) -> None:
    """Editors and hosts set them, and no reading command uses them."""
    assert not changes("git", **{name: "x"})


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_variable_of_a_shell_is_one_that_a_real_shell_obeys(
    shell: str, tmp_path: Path
) -> None:
    """So the table has no variable for nothing."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    for name in (".zshenv", "x.sh", "fish/config.fish"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("echo ran\n")
    (tmp_path / "true.fish").write_text("function true; echo ran; end\n")
    variables = {
        "bash": [{"BASH_ENV": f"{tmp_path}/x.sh"}],
        "zsh": [{"ZDOTDIR": f"{tmp_path}"}],
        "fish": [
            {"XDG_CONFIG_HOME": f"{tmp_path}"},
            {"fish_function_path": f"{tmp_path}"},
        ],
    }
    if os.geteuid() != 0:  # as root, bash ignores PS4 of the environment
        variables["bash"].append({"SHELLOPTS": "xtrace", "PS4": "$(echo ran >&2)"})
    for more in variables[shell]:
        environ = {"PATH": os.defpath, "HOME": "/nonexistent", **more}
        result = subprocess.run(
            [program, "-c", "true"],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "ran" in result.stdout + result.stderr, more
        assert changes_programs(["true"], environ, lambda _: True)


def test_an_option_that_makes_git_stricter_changes_nothing() -> None:
    """Copilot CLI sets it for its hooks; next to another option it is no excuse."""
    strict = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.bareRepository",
        "GIT_CONFIG_VALUE_0": "explicit",
    }
    assert not changes("git", **strict)
    for more in (
        {"GIT_CONFIG_VALUE_0": "all"},
        {"GIT_CONFIG_KEY_0": "core.fsmonitor"},
        {"GIT_CONFIG_COUNT": "2"},
        {"GIT_CONFIG_COUNT": "0"},
        {"GIT_CONFIG_KEY_1": "core.fsmonitor"},
        {"GIT_DIR": "x"},
    ):
        assert changes("git", **{**strict, **more}), more


def program_at(path: Path, link: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if link:
        path.symlink_to(link)
        path = path.parent / link
        path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def runs(tmp_path: Path, program: str, *folders: str) -> bool:
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    path = os.pathsep.join(str(tmp_path / one) for one in folders)
    return runs_projects(
        program, str(project), path, lambda one: one.startswith(str(project))
    )


@pytest.mark.parametrize(
    ("program", "at", "link"),
    [
        ("python3", ".pyenv/shims/python3", ""),
        ("jq", ".asdf/shims/jq", ""),
        ("node", ".nodenv/shims/node", ""),
        ("rg", ".proto/shims/rg", ""),
        ("rg", ".local/share/mise/shims/rg", "../../../bin/mise"),
        ("jq", ".local/bin/jq", "../../opt/mise-v2026"),
        ("node", ".volta/bin/node", "volta-shim"),
        ("jq", ".local/share/aquaproj-aqua/bin/jq", "../aqua-proxy"),
        ("cargo", ".cargo/bin/cargo", "rustup"),
        ("gcc", "usr/lib/ccache/gcc", "../../bin/ccache"),
        ("ls", "bin/ls", "tools"),
        ("git", "mine/git", "../project/tool/git"),
    ],
)
def test_a_version_manager_runs_what_the_project_names(
    tmp_path: Path, program: str, at: str, link: str
) -> None:
    """By its folder, or by the name of the program behind the link."""
    folder = str(Path(at).parent)
    program_at(tmp_path / "other" / program)
    program_at(tmp_path / at, link)
    assert runs(tmp_path, program, folder, "other")
    assert not runs(tmp_path, program, "other", folder)


@pytest.mark.parametrize(
    ("program", "link"),
    [
        *(("python3", one) for one in ("", "python3.11", "../x/bin/python3.12")),
        *(("python", one) for one in ("python3", "python3.11")),
        ("gcc", "x86_64-linux-gnu-gcc-12"),
        ("which", "which.debianutils"),
        *(("ls", one) for one in ("", "busybox", "coreutils", "gls", "toybox")),
        *(("egrep", one) for one in ("grep", "ggrep")),
        *(("tar", one) for one in ("bsdtar", "gtar")),
        ("jq", "../x/snap"),
    ],
)
def test_usual_links_of_a_system_are_no_version_managers(
    tmp_path: Path, program: str, link: str
) -> None:
    """Versions, architectures, and programs with many names."""
    program_at(tmp_path / "bin" / program, link)
    assert not runs(tmp_path, program, "missing", "bin")
    assert not runs(tmp_path, "missing", "bin")


def test_each_listed_program_of_this_system_is_its_own() -> None:
    """A system's own `ls`, `git` and so on match their entries."""
    for name in ("ls", "cat", "grep", "egrep", "find", "git", "diff", "which", "sort"):
        assert not runs_projects(name, "/", "/usr/bin:/bin", lambda _: False), name
