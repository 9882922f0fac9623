"""Check whether git may run a program that the repository itself names.

git reads the configuration of the repository it finds, so a reading command may run a
program that a file there names (git-config(1): core.fsmonitor, core.pager,
diff.*.textconv, filter.*, alias.*; gitattributes(5)). This module reads the files and
never runs git: a repository is plain only if every line of its configuration is listed.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_LARGEST: Final = 65_536
_LARGEST_INDEX: Final = 64 * 1024 * 1024
_INDEX: Final = struct.Struct(">4sII")
_MODE: Final = struct.Struct(">I")
_FLAGS: Final = struct.Struct(">H")
_EXTENSION: Final = struct.Struct(">4sI")
_GITLINK: Final = 0o160000
_OF_REPOSITORY: Final = ("HEAD", "info", "logs", "objects", "packed-refs", "refs")
_MODES: Final = frozenset({0o100644, 0o100755, 0o100664, 0o120000})
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
    """Check whether git, run in *folder*, may run a program that its repository names.

    Args:
        folder: an absolute path.

    Returns:
        True also if the repository cannot be read; False if there is none.
    """
    try:
        repository = _repository(Path(folder))
        if repository is None:
            return False
        top, git = repository
        return not _is_plain(Path(folder), top, git)
    except (OSError, ValueError):
        return True


def top_folder(folder: str) -> str:
    """Return the top folder of the repository that git finds in *folder*.

    Args:
        folder: an absolute path, links followed.

    Returns:
        an absolute path; empty if there is no repository, or none that can be read.
    """
    with suppress(OSError, ValueError):
        repository = _repository(Path(folder))
        return str(repository[0]) if repository else ""
    return ""


def is_within(folder: str, roots: Iterable[str]) -> bool:
    """Check whether the repository that git finds in *folder* is within one of *roots*.

    git reads the whole repository from any of its folders: ``git show HEAD:FILE`` needs
    no path, and prints a file that is next to the project's folder.

    Args:
        folder: an absolute path, links followed.
        roots: the project's folders, links followed.

    Returns:
        True also where there is no repository.
    """
    try:
        repository = _repository(Path(folder))
    except (OSError, ValueError):
        return False
    return repository is None or any(
        repository[0].is_relative_to(root) for root in roots
    )


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
        if _is_bare(top):
            raise ValueError("a bare repository")
    return None


def _is_bare(folder: Path) -> bool:
    """Check whether git may take a folder for a bare repository."""
    names = ("objects", "refs", "commondir")
    return _has(folder, "HEAD") and any(_has(folder, name) for name in names)


def configures_bare(path: str) -> bool:
    """Check whether a file is part of a bare repository, such as its ``config``.

    Args:
        path: an absolute path, links followed.
    """
    try:
        return any(_is_bare(one) for one in Path(path).parents)
    except (OSError, ValueError):
        return True


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _is_plain(folder: Path, top: Path, git: Path) -> bool:
    if any(os.path.lexists(one) for one in (top / ".gitmodules", git / "modules")):
        return False  # git reads the configuration of each submodule
    if os.path.lexists(git / "hooks" / "post-index-change"):
        return False  # run when a reading command refreshes the index
    if os.path.lexists(git / "config.worktree") or _has_submodule(git / "index"):
        return False
    if os.path.lexists(git / "objects" / "info" / "alternates") or any(
        (git / name).is_symlink() for name in _OF_REPOSITORY
    ):
        return False  # it has the history of another repository too
    between = [top, *(one for one in (folder, *folder.parents) if top in one.parents)]
    attributes = [
        git / "info" / "attributes",
        *(one / ".gitattributes" for one in between),
    ]
    return _is_plain_config(_text(git / "config")) and not any(
        _ATTRIBUTES.search(_text(one)) for one in attributes if os.path.lexists(one)
    )


def _has_submodule(index: Path) -> bool:
    """Check whether an entry of the index is a commit of another repository.

    ``git status`` and ``git diff`` start git in the folder of each, also of one that
    ``.gitmodules`` does not name, and so run the programs in the configuration there.
    The form is gitformat-index(5); an index that is split or sparse lists not all
    entries, and counts as if it had one.

    Raises:
        ValueError: it is of another form, a link, or too large to be read in time.
    """
    if not os.path.lexists(index):
        return False
    if index.is_symlink() or not index.is_file():
        raise ValueError("no plain file")
    with index.open("rb") as file:
        raw = file.read(_LARGEST_INDEX + 1)
    if not _INDEX.size <= len(raw) <= _LARGEST_INDEX:
        raise ValueError("no index, or too large")
    magic, version, count = _INDEX.unpack_from(raw)
    if magic != b"DIRC" or version not in {2, 3, 4}:
        raise ValueError("another form of an index")
    for digest in (20, 32):  # SHA-1 or SHA-256, which the index itself does not say
        with suppress(ValueError, struct.error):
            return _lists_submodule(raw, version, count, digest)
    raise ValueError("another form of an index")


def _lists_submodule(raw: bytes, version: int, count: int, digest: int) -> bool:
    """Read entries whose object names have *digest* bytes."""
    at, end = _INDEX.size, len(raw) - digest
    for _ in range(count):
        (mode,) = _MODE.unpack_from(raw, at + 24)
        if mode == _GITLINK:
            return True
        if mode not in _MODES:
            raise ValueError("no entry")
        start = at + 40 + digest
        (flags,) = _FLAGS.unpack_from(raw, start)
        start += 4 if version > 2 and flags & 0x4000 else 2
        if version == 4:  # how much of the path before it is left out comes first
            while raw[start : start + 1] >= b"\x80":
                start += 1
            start += 1
        nul = raw.index(b"\0", start, end)
        at = nul + 1 if version == 4 else at + ((nul - at) // 8 + 1) * 8
    while at < end:
        name, size = _EXTENSION.unpack_from(raw, at)
        if not name.isalpha():
            raise ValueError("no extension")
        if name[:1].islower():
            return True  # one without which the entries cannot be read
        at += _EXTENSION.size + size
    if at != end:
        raise ValueError("no end")
    return False


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
    """Check whether each line is one that `_KEYS` lists, written in the usual form."""
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
