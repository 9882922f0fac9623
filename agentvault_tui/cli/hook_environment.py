"""Find what else than a command line determines the programs that it runs.

A variable of the host's environment may make a listed program run or read something
else, and so may a version manager: it takes the program that the project's files name.
"""

# Only the standard library: a hook starts before each call of a tool.
# ruff: noqa: PTH113, PTH118, PTH119

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

_OF_ALL: Final = re.compile(
    r"BASH_ENV|ENV|SHELLOPTS|BASHOPTS|LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|NLSPATH"
    r"|OPENSSL_(?:CONF|ENGINES|MODULES)",
    re.DOTALL,
)
"""Variables of the shell, the linker and of libraries.

bash(1) runs ``BASH_ENV``, and the commands in ``PS4`` if ``SHELLOPTS`` has xtrace.
ld.so(8), iconv(1) and OpenSSL's config(5) load code from the files that these name.
"""
_OF_PROGRAM: Final = {
    "curl": re.compile("CURL_HOME"),
    "file": re.compile("MAGIC"),
    "gcc": re.compile(
        "GCC_.*|COLLECT_.*|COMPILER_PATH|LIBRARY_PATH|CPATH|.+_INCLUDE_PATH"
        "|(?:DEPENDENCIES_OUTPUT|SUNPRO_DEPENDENCIES)",
        re.DOTALL,
    ),
    # Of git's every one that is not known to be without influence on a reading command:
    # its configuration alone has six (git(1), git-config(1)). It starts a pager for a
    # terminal alone, and the hosts give it none.
    "git": re.compile(
        r"GIT_(?!(?:ASKPASS|(?:AUTHOR|COMMITTER|CURL|HTTP|LFS|PROXY|PS1|SSH|SSL)_[A-Z_]+"
        r"|EDITOR|MERGE_AUTOEDIT|OPTIONAL_LOCKS|PAGER|SEQUENCE_EDITOR|SSH"
        r"|TERMINAL_PROMPT)$).*",
        re.DOTALL,
    ),
    **dict.fromkeys(("grep", "egrep", "fgrep"), re.compile("GREP_OPTIONS")),
    "make": re.compile("(?:GNU)?MAKEFLAGS|MFLAGS|MAKEFILES"),
    "rg": re.compile("RIPGREP_CONFIG_PATH"),
    "tar": re.compile("TAR_OPTIONS"),
}
"""By program, the variables from which it takes options, files or programs.

The other listed programs have none that name any: jq(1), find(1), ls(1), diff(1),
sort(1), tree(1) and the like. Test runners may have some, and run any code anyway.
"""
_FOLDERS: Final = (
    *("NIX_LD", "NIX_LD_LIBRARY_PATH", "XDG_CONFIG_HOME", "ZDOTDIR"),
    "fish_function_path",
)
"""Variables with the folders of zsh's, fish's and git's own files, and a linker. Users
set them, so they count if they name a place in the project."""
_FUNCTION: Final = "BASH_FUNC_{}%%"
"""The variable by which bash hands a function on, in the place of a program."""
_SHIMS: Final = "shims"
"""The folder in which asdf, mise, proto, pyenv and all managers like it (jenv, nodenv,
plenv, rbenv and others) have a program of each name that runs another one."""
_MULTIPLE: Final = frozenset(
    {
        *("bsdtar", "busybox", "coreutils", "ggrep", "grep", "snap", "toybox"),
        "uutils",
    }
)
"""Programs with several names, which read no file of the project for that."""


def changes_programs(
    programs: Collection[str],
    environ: Mapping[str, str],
    is_in_project: Callable[[str], bool],
) -> bool:
    """Check whether variables make programs of a line run or read something else.

    Args:
        programs: the first words of its commands.
        environ: the environment of the host.
        is_in_project: whether a path, with links followed, is in the project.
    """
    harmless = _harmless_options(environ)
    names = [_OF_ALL, *(_OF_PROGRAM[one] for one in programs if one in _OF_PROGRAM)]
    if any(one.fullmatch(name) for name in environ.keys() - harmless for one in names):
        return True
    if any(_FUNCTION.format(one) in environ for one in programs):
        return True
    paths = (environ.get(one, "").split(os.pathsep) for one in _FOLDERS)
    return any(is_in_project(one) for all_ in paths for one in all_ if one)


def _harmless_options(environ: Mapping[str, str]) -> set[str]:
    """Return the variables with options of git, if all options only make it stricter.

    Copilot CLI sets ``safe.bareRepository`` to ``explicit`` for its hooks.
    """
    count = environ.get("GIT_CONFIG_COUNT", "")
    names = {"GIT_CONFIG_COUNT"}
    for number in range(int(count) if re.fullmatch("[1-9]", count) else 0):
        key, value = f"GIT_CONFIG_KEY_{number}", f"GIT_CONFIG_VALUE_{number}"
        option = environ.get(key, "").lower(), environ.get(value)
        if option != ("safe.barerepository", "explicit"):
            return set()
        names |= {key, value}
    return names if len(names) > 1 else set()


def runs_projects(
    program: str,
    base: str,
    path: str,
    is_in_project: Callable[[str], bool],
) -> bool:
    """Check whether a program is a file of the project, or one that the project names.

    Nothing is run: the first file of that name is a version manager's if it is in a
    folder called ``shims``, or is a link to a program of another name, as volta's,
    mise's and aqua's are.

    Args:
        program: its name.
        base: the folder that the line runs in.
        path: ``PATH``.
        is_in_project: see `changes_programs`.
    """
    for folder in path.split(os.pathsep):
        there = os.path.join(base, folder)
        file = os.path.join(there, program)
        if not (os.path.isfile(file) and os.access(file, os.X_OK)):
            continue
        real = os.path.realpath(file)
        name = os.path.basename(real)
        of_name = re.compile(
            rf"(?:.*-|g)?{re.escape(program)}(?:[-.0-9].*)?", re.DOTALL
        )
        return (
            is_in_project(there)
            or is_in_project(real)
            or _SHIMS in {*there.split("/"), *real.split("/")}
            or not (of_name.fullmatch(name) or name in _MULTIPLE)
        )
    return False
