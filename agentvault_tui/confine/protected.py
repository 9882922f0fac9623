"""Paths that a confined command must not write, because programs outside obey them.

Each becomes a read-only mount; one that is missing gets a stand-in for the mount.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentvault_tui.confine.paths import lies_in, resolve_trusted
from agentvault_tui.confine.search import Folder, is_own, not_searched, search
from agentvault_tui.confine.shared_files import SharedFiles
from agentvault_tui.errors import NotConfinedError

PROTECTED: Final = {
    **dict.fromkeys((".claude", ".codex", ".cursor", ".gemini"), "folder"),
    **dict.fromkeys((".vscode", ".idea", ".github/hooks", ".devcontainer"), "folder"),
    **dict.fromkeys((".zed", ".kiro", ".windsurf", ".opencode"), "folder"),
    **dict.fromkeys((".gitmodules", ".mcp.json", ".envrc", ".npmrc"), "file"),
    **dict.fromkeys((".yarnrc", ".yarnrc.yml", ".devcontainer.json"), "file"),
    **dict.fromkeys(("opencode.json", "opencode.jsonc"), "file"),
}
"""At the top of a folder or repository; `_IN_GIT` has the names in its ``.git``."""
_OBEYED: Final = frozenset(
    (
        *("mise.toml", ".mise.toml", "mise.local.toml", ".mise.local.toml", ".mise"),
        *(".pre-commit-config.yaml", ".pre-commit-config.yml", ".pnpmfile.cjs"),
        *("lefthook.yml", "lefthook.yaml", ".lefthook.yml", ".lefthook.yaml"),
        *(".cargo", ".exrc", ".nvimrc", ".nvim.lua", ".dir-locals.el"),
        *(".autoenv", ".autoenv.zsh", ".vimspector.json", ".lvimrc"),
    )
)
"""There too, if they exist. They have no stand-ins, because an empty one would be an
error to the programs that read it: `find_left` names new ones at the end."""
_IN_GIT: Final = {
    "hooks": "folder",
    "config": "file",
    "config.lock": "file",
    "config.worktree": "file",
    "commondir": "file",
}
"""In git's own folder: ``commondir`` names another folder with hooks and a
configuration (gitrepository-layout(5)). While ``config.lock`` is there, git outside
does not replace ``config``, which would detach the mount over it."""
_GIT_MARKS: Final = frozenset({"objects", "commondir"})
"""Git's own folder has ``HEAD`` and one of them."""
_OF_OTHERS: Final = frozenset({"modules", "worktrees"})
"""In ``.git``: the folders of submodules and of further work trees, each of which git
takes for its own."""
_GIT_PARTS: Final = frozenset({"HEAD", *_IN_GIT})
"""One of them is enough there, as a command can rename the others."""
_IN_REPOSITORY: Final = frozenset({"refs", "logs", "objects"})
"""Where such a name is a branch's."""
_BARE: Final = ("refs", "objects")
"""Folders without which git takes no folder but ``.git`` for its own."""
_KINDS: Final = {
    ".git": "folder",
    **PROTECTED,
    **_IN_GIT,
    **dict.fromkeys(_BARE, "file"),
}


@dataclass(slots=True)
class Protection:
    """The mounts over the folders that a command may write."""

    read_only: list[Path] = field(default_factory=list)
    pinned: list[Path] = field(default_factory=list)
    """Folders mounted on themselves: a mount point cannot be renamed (EBUSY)."""
    missing: dict[Path, str] = field(default_factory=dict)
    """Stand-ins to be made, with ``folder`` or ``file``."""
    git: list[Path] = field(default_factory=list)
    """Git's own folders."""
    shared: list[Path] = field(default_factory=list)
    """Read-only because their files have further names outside (link(2))."""
    links: dict[Path, str] = field(default_factory=dict)
    """The symbolic links that are there, and the path that each has."""

    def mounts(self) -> Iterator[tuple[str, Path]]:
        """Yield ``bind`` or ``ro-bind`` and a path, parents first."""
        mounts = dict.fromkeys(self.pinned, "bind")
        mounts |= dict.fromkeys(self.read_only, "ro-bind")
        for path in sorted(mounts):
            if not any(mounts.get(above) == "ro-bind" for above in path.parents):
                yield mounts[path], path


def protect(
    tops: Iterable[Path], opened: Iterable[Path] = (), git: Collection[Path] = ()
) -> Protection:
    """Find the files to be read-only in folders that a command may write.

    Args:
        tops: the folders, with links resolved.
        opened: protected paths that the operator opens by an option.
        git: folders that were git's own at an earlier start.

    Returns:
        the protection of each folder, and of each git repository in it.

    Raises:
        NotConfinedError: a protected path is a link, over which nothing can be mounted,
            or the command could change it by another name, or a folder cannot be
            searched.
    """
    protection, allowed = Protection(), frozenset(opened)
    given = sorted(set(tops))
    shared = SharedFiles()
    for top in given:
        outer = next(one for one in given if top.is_relative_to(one))
        for entries in search(top, shared=True):
            shared.add(entries)
            protection.links |= {
                entries.path / name: text for name, text in entries.links.items()
            }
            if names := _protected_names(entries, top, git):
                if "hooks" in names:
                    protection.git.append(entries.path)
                for path in (entries.path / name for name in names):
                    if path not in allowed:
                        _add(protection, entries.path, path)
                        _pin(protection, outer, path)
    for path in _led_to(protection, given):
        if path not in allowed:
            protection.read_only.append(path)
            _pin(protection, next(one for one in given if lies_in(path, [one])), path)
    shared.check(protection.read_only)
    for place in shared.places(given, allowed):
        protection.shared.append(place)
        protection.read_only.append(place)
        _pin(protection, next(one for one in given if lies_in(place, [one])), place)
    return protection


def _led_to(protection: Protection, tops: Sequence[Path]) -> Iterator[Path]:
    """Yield the files to which links in read-only folders lead, if they lie in *tops*.

    Git starts ``.git/hooks/pre-commit`` also if that is a link to a script of the
    project.

    Raises:
        NotConfinedError: such a link leads to another one, or to nothing.
    """
    held = frozenset(protection.read_only)
    for link, text in protection.links.items():
        around = {*link.parents}
        if around.isdisjoint(held):
            continue
        real = Path(os.path.realpath(link))
        if not lies_in(real, tops) or real in around or lies_in(real, held):
            continue
        if resolve_trusted(link.parent / text, tops) != real:
            raise NotConfinedError(
                f"{link} leads to {real} by another link, or there is nothing",
                "remove it, or let it lead to a file",
            )
        yield real


def _add(protection: Protection, folder: Path, path: Path) -> None:
    try:
        for one in (path.parent, path):
            mode = one.lstat().st_mode
            if one != folder and stat.S_ISLNK(mode):
                raise linked(one)
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise NotConfinedError(
                    f"{one} is no file and no folder, so that a command can write it"
                    " although it is read-only",
                    f"look at it: rm {one}",
                )
    except FileNotFoundError:
        # The mode says nothing about a folder of ours, which the command may change.
        if os.access(folder, os.W_OK) or is_own(folder):
            protection.missing[path] = kind_of(path)
    except NotADirectoryError:
        return  # a file has the place of a folder above it, and is held
    except OSError as error:
        raise not_searched(folder, error) from None
    else:
        protection.read_only.append(path)


def kind_of(path: Path) -> str:
    """Return the kind of a path's stand-in: ``folder`` or ``file``."""
    return _KINDS.get(path.name, "folder")


def linked(path: Path) -> NotConfinedError:
    """Return why a path that is a link is not given."""
    return NotConfinedError(
        f"{path} is a link, which cannot be made read-only",
        f"replace it by what it leads to, or allow changes with --write {path}",
    )


def _pin(protection: Protection, top: Path, path: Path) -> None:
    for above in path.parents:
        if above == top or above in protection.pinned:
            return
        protection.pinned.append(above)


def _protected_names(entries: Folder, top: Path, git: Collection[Path]) -> list[str]:
    """Return the names in a folder that are protected."""
    path, names = entries.path, entries.names
    protected, own = list[str](), is_git(path, names) or path in git
    if path == top or ".git" in names:
        protected += PROTECTED
        if not names.get(".git"):  # such a folder has a turn of its own
            protected.append(".git")
        protected += [one for one in names if is_obeyed(one)]
        # Without one of them git does not take the folder itself for its own where
        # .git is missing or damaged.
        bare = [one for one in _BARE if not names.get(one)]
        protected += bare[:1]
        own = own or not bare
    return [*protected, *_IN_GIT] if own else protected


def is_obeyed(name: str) -> bool:
    """Check whether programs read a file or folder of that name by themselves."""
    return name in _OBEYED or name.endswith(".code-workspace")


def is_git(path: Path, names: Collection[str]) -> bool:
    """Check whether git may take a folder for its own, now or after a rename in it."""
    if path.name == ".git" or ("HEAD" in names and not _GIT_MARKS.isdisjoint(names)):
        return True
    _, *below = "/".join(path.parts).split("/.git/")
    inner = {*below[-1].split("/")} if below else set[str]()
    of_others = bool(inner & _OF_OTHERS) and not inner & _IN_REPOSITORY
    return of_others and not _GIT_PARTS.isdisjoint(names)


def excluded(protection: Protection) -> str:
    """Return patterns by which git leaves stand-ins alone (gitignore(5))."""
    top = {*PROTECTED, *_BARE}
    names = {path.name for path in protection.missing if path.name in top}
    return "".join(f"/{name}\n" for name in sorted(names))


def sockets_in(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the Unix sockets in folders that a command sees.

    Raises:
        NotConfinedError: a folder cannot be listed, so that it may hold one.
    """

    def refuse(error: OSError) -> None:
        raise NotConfinedError(
            f"{error.filename} may hold sockets and cannot be listed",
            "leave --local-sockets away",
        )

    for top in folders:
        for folder, _, names in os.walk(top, onerror=refuse):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    if stat.S_ISSOCK(path.lstat().st_mode):
                        yield path
