"""Attempts to leave a confinement by files, and what all attempts share."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Targets = dict[str, Any]
Attempt = Callable[[Targets], object]
ATTEMPTS: dict[str, Attempt] = {}
libc = ctypes.CDLL(None, use_errno=True)


def attempt(function: Attempt) -> Attempt:
    """Register an attempt; one that returns without an error has reached its goal."""
    ATTEMPTS[function.__name__] = function
    return function


def checked(result: int) -> int:
    """Return what a system call returned; raise OSError where it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# Files.


@attempt
def file_outside(told: Targets) -> None:
    assert Path(told["outside"], "secret").read_text() == told["mark"]


@attempt
def link_to_a_file_outside(told: Targets) -> None:
    Path("link").unlink(missing_ok=True)
    Path("link").symlink_to(f"{told['outside']}/secret")
    assert Path("link").read_text() == told["mark"]


@attempt
def write_outside(told: Targets) -> None:
    Path(told["outside"], "written").write_text("x")


@attempt
def write_into_a_folder_to_read(told: Targets) -> None:
    Path(told["read"], "written").write_text("x")


@attempt
def remount_a_folder_to_read(told: Targets) -> None:
    place = told["read"].encode()
    checked(libc.mount(None, place, None, 0x1020, None))


@attempt
def home_of_agentvault(told: Targets) -> None:
    Path(told["vault"], "agentvault.db").read_bytes()


@attempt
def home_of_another_agent(told: Targets) -> None:
    os.listdir(f"{told['vault']}/homes/agt_2")


@attempt
def hashes_of_passwords(_: Targets) -> None:
    Path("/etc/shadow").read_bytes()


@attempt
def system_file_is_writable(_: Targets) -> None:
    os.close(os.open("/usr/bin/env", os.O_WRONLY))


@attempt
def kernel_setting(_: Targets) -> None:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


@attempt
def system_request(_: Targets) -> None:
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))


@attempt
def kernel_objects(_: Targets) -> None:
    assert os.listdir("/sys/kernel")


# Paths that programs outside obey.


@attempt
def git_hook(_: Targets) -> None:
    Path(".git/hooks/pre-commit").write_text("#!/bin/sh\n")


@attempt
def git_configuration(_: Targets) -> None:
    with open(".git/config", "a") as file:
        file.write("[core]\n")


@attempt
def git_configuration_by_git(_: Targets) -> None:
    line = ["git", "config", "core.fsmonitor", "evil"]
    subprocess.run(line, check=True, capture_output=True)
    subprocess.run([*line[:2], "--unset", line[2]], check=True, capture_output=True)


@attempt
def another_git_folder(_: Targets) -> None:
    os.rename(".git", "moved")
    os.rename("moved", ".git")


@attempt
def common_git_folder(_: Targets) -> None:
    path = Path(".git/commondir")
    path.write_text("../evil")
    path.unlink()


@attempt
def git_configuration_of_the_work_tree(_: Targets) -> None:
    path = Path(".git/config.worktree")
    path.write_text("[core]\n")
    path.unlink()


@attempt
def hook_of_a_repository_below(_: Targets) -> None:
    Path("below/repo/.git/hooks/pre-commit").write_text("#!/bin/sh\n")


@attempt
def another_repository_at_the_same_path(_: Targets) -> None:
    os.rename("below", "moved")
    os.rename("moved", "below")


@attempt
def hook_of_a_submodule(_: Targets) -> None:
    Path(".git/modules/part/hooks/post-checkout").write_text("#!/bin/sh\n")


@attempt
def another_submodule_at_the_same_path(_: Targets) -> None:
    os.rename(".git/modules", ".git/moved")
    os.rename(".git/moved", ".git/modules")


@attempt
def settings_of_a_host_that_are_there(_: Targets) -> None:
    Path(".claude/settings.json").write_text("{}")


@attempt
def settings_of_a_host_that_are_missing(_: Targets) -> None:
    Path(".cursor").mkdir(exist_ok=True)
    Path(".cursor/hooks.json").write_text("{}")


@attempt
def settings_of_a_host_by_a_link(_: Targets) -> None:
    if Path(".codex").exists():
        Path(".codex").rmdir()
    Path(".codex").symlink_to("evil")
    Path(".codex").unlink()


@attempt
def variables_of_direnv(_: Targets) -> None:
    Path(".envrc").write_text("evil")


@attempt
def another_name_of_a_protected_file(_: Targets) -> None:
    os.link(".git/config", "name")
    os.unlink("name")


@attempt
def protected_path_by_another_way(_: Targets) -> None:
    Path("/proc/self/root", str(Path.cwd())[1:], ".git/hooks/update").write_text("x")


@attempt
def a_program_of_another_user(_: Targets) -> None:
    Path("program").write_text("#!/bin/sh\n")
    os.chmod("program", 0o4755)  # noqa: S103
    os.chmod("program", 0o2755)  # noqa: S103
