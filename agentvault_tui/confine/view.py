"""Which folders a confined command sees, and which of them it may change."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from agentvault_tui.confine.paths import lies_in, resolve_trusted
from agentvault_tui.confine.protected import (
    Protection,
    excluded,
    protect,
    sockets_in,
)
from agentvault_tui.confine.remembered import add_given, read_given
from agentvault_tui.confine.runtime import outermost, path_folders, program_paths
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import Home

_VIRTUAL: Final = tuple(map(Path, ("/proc", "/sys", "/dev")))
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/libx32")
_ETC: Final = (
    *("alternatives", "debian_version", "fonts", "inputrc", "ld.so.cache"),
    *("ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime"),
    *("magic", "magic.mime", "mime.types", "nsswitch.conf", "os-release", "passwd"),
    *("group", "protocols", "services", "shells", "terminfo", "timezone"),
    *("bash.bashrc", "profile", "zsh", "java", "python3", "perl", "php", "vim"),
    *("ca-certificates", "ca-certificates.conf", "ssl/certs", "ssl/openssl.cnf"),
    *("pki/tls/certs", "pki/tls/openssl.cnf", "pki/ca-trust", "crypto-policies"),
    *("rpc", "ethertypes", "gai.conf", "xattr.conf", "lsb-release"),
)
"""Of /etc, by name: no hashes of passwords, no keys, and no files of tools that may
have tokens in them."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """The access that an operator gives a command."""

    folder: Path
    """The working folder."""
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    user_home: Path | None = None
    env: tuple[str, ...] = ()
    """Names of further variables."""
    local_sockets: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A command's files, besides the system's own."""

    folder: Path
    home: Path
    read: tuple[Path, ...]
    """Given by option."""
    write: tuple[Path, ...]
    """With the working folder."""
    runtime: tuple[Path, ...]
    """Found: the folders of ``PATH``, the program and its runtime."""
    protection: Protection
    omitted: tuple[Path, ...] = ()
    """Folders of ``PATH`` that are not shown."""
    own: tuple[Path, ...] = field(default=())
    """Of AgentVault's home: the run's token and authorities, read-only."""
    links: tuple[tuple[Path, Path], ...] = ()
    """Further names of `runtime`, and where they lead."""

    def mounts(self) -> Iterator[tuple[str, Path]]:
        """Yield ``bind`` or ``ro-bind`` and a path, in the order of mounting."""
        names = {name for name, _ in self.links}
        given = dict.fromkeys((*self.runtime, *self.read), "ro-bind")
        given |= dict.fromkeys((self.home, *self.write), "bind")
        mounts = {path: kind for path, kind in given.items() if path not in names}
        for kind, path in self.protection.mounts():
            around = (given[one] for one in (path, *path.parents) if one in given)
            if next(around, "bind") == "bind":
                mounts[path] = kind
        mounts |= dict.fromkeys(self.own, "ro-bind")
        for path in sorted(mounts):
            yield mounts[path], path

    def changeable(self) -> list[Path]:
        """Return the mount points that lie in folders which the command may write."""
        folders = (self.home, *self.write)
        return [path for _, path in self.mounts() if lies_in(path, folders)]

    @property
    def ignored_by_git(self) -> str:
        """Return patterns for stand-ins, as a file of git's."""
        return excluded(self.protection)


def build_view(
    options: ViewOptions,
    vault: Home,
    home: Path,
    *,
    programs: Sequence[Path],
    path: str,
    connected: Iterable[Path] = (),
) -> View:
    """Check a command's access, and return all that it sees.

    Args:
        options: the operator's choice.
        vault: AgentVault's home.
        home: the command's own home directory, if no option names one.
        programs: its program, and others that it starts.
        path: its ``PATH``.
        connected: files in *home* that `agentvault connect` wrote.

    Returns:
        the view, with links resolved.

    Raises:
        NotConfinedError: a folder must not be given.
    """
    before = read_given(vault.given_folders)
    chosen = [options.folder, *options.write, options.user_home or home]
    writable = [*before.writable, vault.homes.resolve()]
    writable += [Path(os.path.realpath(one)) for one in chosen]
    check = partial(_checked, vault=vault, writable=writable)
    folder = check(options.folder, words="the working folder")
    read = [check(one, words=f"--read {one}") for one in options.read]
    write, opened = [folder], set[Path]()
    for one in options.write:
        write.append(check(one, words=f"--write {one}"))
        opened |= {one.absolute(), write[-1]}
    at_home = home
    if (other := options.user_home) is not None:
        at_home = check(other, words=f"--user-home {other}")
    given = [*read, *write, at_home]
    if options.local_sockets:
        _check_no_sockets(given)
    tops = [*write, *([at_home] if options.user_home is not None else [])]
    protection = protect(tops, opened, before.git)
    _protect_connected(protection, connected, home)
    shown, omitted = _runtime(programs, path, vault, writable)
    outer = {one: real for one, real in shown.items() if not lies_in(one, given)}
    view = View(
        folder=folder,
        home=at_home,
        read=tuple(read),
        write=tuple(write),
        runtime=tuple(outer),
        protection=protection,
        omitted=tuple(omitted),
        links=tuple(pair for pair in outer.items() if pair[0] != pair[1]),
    )
    for program in programs[:1]:
        _check_visible(program, view, writable)
    return view


def remember_given(view: View, vault: Home) -> None:
    """Record the folders that a command is about to be given, for later starts.

    Args:
        view: the command's files.
        vault: AgentVault's home, which has the record.

    Raises:
        NotConfinedError: the record cannot be read.
    """
    git = [one for one in view.protection.git if one not in view.write]
    add_given(vault.given_folders, [*view.write, view.home], git)


def _check_no_sockets(folders: Sequence[Path]) -> None:
    for socket in sockets_in(outermost(folders)):
        raise NotConfinedError(
            f"the socket {socket} would be reached",
            "give folders without sockets, or leave --local-sockets away",
        )


def _protect_connected(
    protection: Protection, files: Iterable[Path], home: Path
) -> None:
    for file in files:
        check_unlinked(file, home)
        protection.read_only.append(file)
        above = (one for one in file.parents if one.is_relative_to(home))
        protection.pinned += [one for one in above if one != home]


def _check_visible(program: Path, view: View, writable: Sequence[Path]) -> None:
    """Check that the command sees its program, and not by a link of a command's."""
    real = program.resolve()
    folders = (*view.read, *view.write, *view.runtime, view.home, *_system_folders())
    if resolve_trusted(program, writable) is None and not lies_in(real, folders):
        raise NotConfinedError(
            f"{program} leads to {real}, by a link that a command may have made",
            "if that is the program you mean, give its folder with --read",
        )


def check_unlinked(path: Path, home: Path) -> None:
    """Check that the way from an agent's home directory to a file has no link.

    The agent writes there, so a link would lead where it likes.

    Args:
        path: the file, which need not be there.
        home: the agent's home directory.

    Raises:
        NotConfinedError: there is one.
    """
    for one in (path, *path.parents):
        if one == home:
            return
        if one.is_symlink():
            raise NotConfinedError(
                f"{one} is a link that the agent has made", f"look at it: rm {one}"
            )


def _checked(path: Path, *, words: str, vault: Home, writable: Sequence[Path]) -> Path:
    """Return a folder or file with links resolved, if it may be given.

    A command may have made a link in one of *writable*, or change it meanwhile.

    Raises:
        NotConfinedError: it may not, or is not there.
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise NotConfinedError(f"{words} cannot be read ({why})") from None
    if real != resolve_trusted(path.absolute(), writable):
        raise NotConfinedError(
            f"{words} is a link, or leads through one, that a command can change",
            f"name the folder that it leads to: {real}",
        )
    for home in _homes():
        if home.is_relative_to(real):
            raise NotConfinedError(
                f"{words} is or holds your home directory {home}"
                if real != Path("/")
                else f"{words} is /",
                "work in a folder of its own, and give others with --read",
            )
    for own in {vault.data.resolve(), vault.config.resolve()}:
        if own.is_relative_to(real) or real.is_relative_to(own):
            raise NotConfinedError(
                f"{words} is, holds or lies in AgentVault's home {own}",
                "work in a folder elsewhere",
            )
    shared = Path("/dev/shm")  # noqa: S108 - a file system of its own
    if any(_overlap(real, one) for one in _VIRTUAL) and shared not in real.parents:
        raise NotConfinedError(f"{words} is no folder of files", "leave it away")
    return real


def _runtime(
    programs: Iterable[Path], path: str, vault: Home, writable: Sequence[Path]
) -> tuple[dict[Path, Path], list[Path]]:
    """Return the shown folders of ``PATH`` and of the runtime, and the omitted ones.

    The first value has, by name, where that leads.
    """
    shown, omitted = dict[Path, Path](), list[Path]()
    own = {vault.data.resolve(), vault.config.resolve()}
    listed = {Path(one) for one in path.split(os.pathsep)}
    needed = (one for program in programs for one in program_paths(program, writable))
    for folder in (*path_folders(path, writable), *needed):
        real = resolve_trusted(folder, writable)
        private = real is None or any(home.is_relative_to(real) for home in _homes())
        local = any(real == home / ".local" for home in _homes())
        if real is None or private or local or any(_overlap(real, one) for one in own):
            omitted += [folder] if folder in listed and folder not in omitted else []
        else:
            shown |= {folder: real, real: real}
    system = _system_folders()
    outer = outermost(one for one in shown if not lies_in(one, system))
    return {one: shown[one] for one in outer}, omitted


def _system_folders() -> list[Path]:
    return [Path(one) for one in _SYSTEM if Path(one).is_dir()]


def system_paths() -> Iterator[str]:
    """Yield the system's own files and folders, which every command may read."""
    for mount in system_mounts():
        if mount[0] == "--ro-bind":
            yield from mount[1:]


def system_mounts(etc: Path = Path("/etc")) -> Iterator[tuple[str, ...]]:
    """Yield options of bubblewrap for the system's own files, all read-only."""
    for name in _SYSTEM:
        place = Path(name)
        if place.is_symlink():
            yield "--symlink", str(place.readlink()), name
        elif place.is_dir():
            yield "--ro-bind", name, name
    for name in _ETC:
        there = etc / name
        if there.exists():
            # Where it leads, under its own name: /etc/localtime is a link.
            yield "--ro-bind", str(there.resolve()), f"/etc/{name}"


def _homes() -> set[Path]:
    homes = {os.path.expanduser("~")}  # noqa: PTH111 - without $HOME it is not absolute
    with suppress(KeyError):  # a user without an entry has no home there
        homes.add(pwd.getpwuid(os.getuid()).pw_dir)
    absolute = {one for one in map(Path, homes) if one.is_absolute()} - {Path("/")}
    return {one.resolve() for one in absolute}


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
