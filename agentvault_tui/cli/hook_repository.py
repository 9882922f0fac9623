"""Check whether git may run a program that the repository itself names.

git reads the configuration of the repository it finds, so a reading command may run a
program that a file there names (git-config(1): core.fsmonitor, core.pager,
diff.*.textconv, filter.*, alias.*; gitattributes(5)). This module reads the files and
never runs git: a repository is plain only if every line of its configuration is listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LARGEST: Final = 65_536
_ATTRIBUTES: Final = re.compile(r"(?:^|\s)(?:filter|diff|merge)\s*=", re.MULTILINE)
_SECTION: Final = re.compile(r'\[([A-Za-z][A-Za-z0-9-]*)(?: +"([^"\\\n]*)")?\]')
_VALUE: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*)(?: *=.*)?")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEYS: Final = {
    "core": _words(
        "abbrev autocrlf bare bigfilethreshold eol filemode ignorecase ignorestat "
        "logallrefupdates longpaths precomposeunicode preloadindex protecthfs "
        "protectntfs quotepath repositoryformatversion safecrlf sharedrepository "
        "sparsecheckout sparsecheckoutcone symlinks untrackedcache whitespace"
    ),
    "extensions": frozenset({"objectformat", "refstorage"}),
    "fetch": frozenset({"prune", "prunetags"}),
    "init": frozenset({"defaultbranch"}),
    "merge": frozenset({"conflictstyle", "ff"}),
    "pull": frozenset({"ff", "rebase"}),
    "push": frozenset({"autosetupremote", "default", "followtags"}),
    "rebase": frozenset({"autosquash", "autostash"}),
    "remote": _words(
        "fetch gh-resolved mirror prune prunetags push pushurl skipdefaultupdate "
        "skipfetchall tagopt url"
    ),
    "user": frozenset({"email", "name", "signingkey"}),
}
"""Keys that name no program, no other file and no machine that a reading command would
reach; of ``branch`` and ``color`` that holds for every key."""
_ANY_KEY: Final = frozenset({"branch", "color", "advice"})


def names_programs(folder: str) -> bool:
    """Tell whether git, run in *folder*, may run a program that its repository names.

    Args:
        folder: an absolute path.

    Returns:
        True also if the repository cannot be read; False if there is none.
    """
    try:
        found = _repository(Path(folder))
        if found is None:
            return False
        top, git = found
        return not _is_plain(Path(folder), top, git)
    except (OSError, ValueError):
        return True


def is_within(folder: str, roots: Iterable[str]) -> bool:
    """Tell whether the repository that git finds in *folder* is within one of *roots*.

    git reads the whole repository from any of its folders: ``git show HEAD:FILE`` needs
    no path, and prints a file that is next to the project's folder.

    Args:
        folder: an absolute path, links followed.
        roots: the project's folders, links followed.

    Returns:
        True also where there is no repository.
    """
    try:
        found = _repository(Path(folder))
    except (OSError, ValueError):
        return False
    return found is None or any(found[0].is_relative_to(root) for root in roots)


def _repository(folder: Path) -> tuple[Path, Path] | None:
    """Return the working folder and the repository that git would find.

    Raises:
        ValueError: its configuration is elsewhere, or it is a bare repository, which
            any folder with the right files is.
    """
    for top in (folder, *folder.parents):
        git = top / ".git"
        if os.path.lexists(git):
            if git.is_symlink() or not git.is_dir() or _has(git, "commondir"):
                raise ValueError("the repository is elsewhere")
            if not all(_has(git, name) for name in ("HEAD", "objects", "refs")):
                raise ValueError("git would look further up")
            return top, git
        if _has(top, "HEAD") and any(
            _has(top, name) for name in ("objects", "refs", "commondir")
        ):
            raise ValueError("a bare repository")
    return None


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _is_plain(folder: Path, top: Path, git: Path) -> bool:
    if any(os.path.lexists(one) for one in (top / ".gitmodules", git / "modules")):
        return False  # git reads the configuration of each submodule
    if os.path.lexists(git / "hooks" / "post-index-change"):
        return False  # run when a reading command refreshes the index
    if os.path.lexists(git / "config.worktree"):
        return False
    between = [top, *(one for one in (folder, *folder.parents) if top in one.parents)]
    attributes = [
        git / "info" / "attributes",
        *(one / ".gitattributes" for one in between),
    ]
    return _is_plain_config(_text(git / "config")) and not any(
        _ATTRIBUTES.search(_text(one)) for one in attributes if os.path.lexists(one)
    )


def _text(path: Path) -> str:
    """Read a small file of the repository's own.

    Raises:
        ValueError: it is large, a link, or no text.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("no plain file")
    with path.open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST or b"\0" in raw:
        raise ValueError("too large")
    return raw.decode()


def _is_plain_config(text: str) -> bool:
    """Tell whether each line is one that `_KEYS` lists, written in the usual form."""
    section = ""
    for line in text.split("\n"):
        plain = line.strip(" \t\r")
        if not plain or plain[0] in "#;":
            continue
        if plain.endswith("\\"):
            return False  # goes on in the next line
        if header := _SECTION.fullmatch(plain):
            section = header[1].lower()
            if section not in _KEYS and section not in _ANY_KEY:
                return False
            continue
        value = _VALUE.fullmatch(plain)
        if value is None or not section:
            return False
        if section not in _ANY_KEY and value[1].lower() not in _KEYS[section]:
            return False
    return True
