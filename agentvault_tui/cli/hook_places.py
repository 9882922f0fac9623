"""Resolve the paths of a tool call on the machine that the host runs on.

The hook resolves each path once, when it asks the broker: against the folder that the
host states, with links followed. The broker may not see the same files; it decides on
the result. Only the standard library is used, because a hook starts before each call.
"""

# A stated path stays a text until it is resolved.
# ruff: noqa: PTH110, PTH111, PTH112, PTH116, PTH117, PTH118

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import islice
from pathlib import PurePath
from typing import Final, NamedTuple
from urllib.parse import unquote

from agentvault_tui.cli import hook_environment, hook_repository
from agentvault_tui.cli.hook_configuring import FOLDERS, names_configuration
from agentvault_tui.shell_line import SimpleCommand, parse_line

PROJECT, OUTSIDE, VAULT, UNKNOWN = "project", "outside", "vault", "unknown"
LONGEST: Final = 1_024
"""Characters of an argument that may be a path."""
MOST_PARTS: Final = 64
MOST_PLACES: Final = 512
_GLOB: Final = re.compile(r"[*?\[\]{}()!]")
_BRACES: Final = re.compile(r"\{([^{}]*,[^{}]*)\}")
MOST_ALTERNATIVES: Final = 64
MOST_ENTRIES: Final = 20_000
"""Entries of folders that are looked at for links that one glob matches."""
_ANY_NAME: Final = re.compile(".*", re.DOTALL)
_ELSEWHERE: Final = re.compile(r"(?:^|[{,(|!/])[/~]|\.\.|\\")
"""Parts after a pattern's first glob that may lead out of the folder it begins in."""
_NAMES_GLOBS: Final = re.compile("glob|include|paths|pattern")
_TOKENS: Final = re.compile(r"""[^\s'"`;|&()<>{},=]+""")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WITHOUT_PATHS: Final = _words(
    "cmd command content description files justification new_source new_str new_string "
    "old_str old_string patch prompt query url"
)
_FOLDERS: Final = (
    *("workdir", "dir_path", "directory", "target_directory"),
    *("path", "dir", "folder", "cwd"),
)
"""Arguments that name the folder of a pattern or a command line."""
_SPLIT: Final = frozenset({"path", "paths"})
"""Arguments that some hosts read as several paths; see `HostWire.splitting`."""
_MOST_READINGS: Final = 16
_BETWEEN_GLOBS: Final = re.compile(r"[\s,]+")
"""Claude Code's `Grep` reads a text with these as several globs."""
_URL_SCHEME: Final = re.compile(r"(?:file:|[a-z][a-z0-9+.-]{0,31}:/)/*", re.IGNORECASE)
_OF_PROCESS: Final = re.compile(r"//?(?:proc|dev/fd|dev/std[a-z]+)(?:/|$)")
"""Paths that lead elsewhere in another process: ``/proc/self/cwd`` (proc(5))."""


class PathLocation(NamedTuple):
    """One path that a call states, and where it leads now."""

    resolved: str
    where: str
    """`PROJECT`, `OUTSIDE`, `VAULT` (AgentVault's home directory), or `UNKNOWN`."""
    configures: bool = False
    """Whether a change there makes a host, git, an editor or a shell run programs."""
    folder: bool = False


class PlacedCommand(NamedTuple):
    """One simple command of a line, and where it would run."""

    words: tuple[str, ...]
    cwd: str
    local: bool
    """Whether the program itself is one of the project's files, or is named by them."""
    configured: bool
    """Whether git's repository there names programs, leaves the project's folder, or
    cannot be read."""
    places: tuple[tuple[int, PathLocation], ...]
    """By the index of the word."""
    repository: str
    """The top folder of git's repository there; empty if git is not run."""


class PathLocator:
    """Resolves the paths of one call."""

    def __init__(
        self,
        cwd: str,
        roots: Iterable[str],
        vault: Iterable[str | PurePath],
        environ: Mapping[str, str],
        folder: str = "",
        *,
        code: Iterable[str] = (),
        searches: bool = False,
        splits: bool = False,
        moves: bool = False,
    ) -> None:
        """Resolve against *cwd*.

        Args:
            cwd: the folder that the host states.
            roots: the project's folders.
            vault: AgentVault's folders.
            environ: the host's environment.
            folder: the argument with the folder that a glob starts from.
            code: folders from which the hook itself takes its program.
            searches: see `HostWire.searching`.
            splits: see `HostWire.splitting`.
            moves: whether a ``cd`` changes the folder of calls that are being decided.
        """
        self._searches, self._splits, self._moves = searches, splits, moves
        self._folder = folder
        self._environ = environ
        self.cwd = os.path.realpath(cwd) if os.path.isabs(cwd) else ""
        home = os.path.realpath(os.path.expanduser("~"))
        real = {os.path.realpath(one) for one in roots if os.path.isabs(one)}
        # A home directory, or a folder above it, is no project.
        self._roots = [one for one in real if not _is_within(home, one)]
        self._vault = {os.path.realpath(one) for one in vault}
        self._code = {os.path.realpath(one) for one in code}
        self._home = home
        self._stats: dict[str, tuple[int, int] | None] = {}

    def of(self, stated: str, base: str | None = None) -> PathLocation:
        """Return where *stated* leads, from the folder *base* or the call's own."""
        base = self.cwd if base is None else base
        if (
            not stated.isprintable()
            or stated != stated.strip()
            or not stated
            or "://" in stated
            or stated.count("/") > MOST_PARTS
        ):
            return PathLocation(stated, UNKNOWN)
        text = os.path.expanduser(stated)
        if stated[0] == "~" and os.path.lexists(
            os.path.join(base, stated.partition("/")[0])
        ):
            return PathLocation(stated, UNKNOWN)  # some programs take it as it is
        if text.startswith("~") or not (base or os.path.isabs(text)):
            return PathLocation(stated, UNKNOWN)
        try:
            joined = os.path.join(base, text)
            resolved, lexical = os.path.realpath(joined), os.path.normpath(joined)
            if os.path.realpath(lexical) != resolved:
                return PathLocation(
                    resolved, UNKNOWN
                )  # programs differ about `link/..`
            place = self._placed(resolved, lexical)
        except (OSError, ValueError):
            return PathLocation(stated, UNKNOWN)
        if place.where != VAULT and _OF_PROCESS.match(lexical):
            return place._replace(where=UNKNOWN)
        return place

    def of_argument(
        self,
        stated: str,
        read: Callable[[str], PathLocation] | None = None,
        *,
        splits: bool = False,
    ) -> PathLocation:
        """Return where a path or pattern leads that the host itself reads.

        Args:
            stated: the text of an argument.
            read: returns the place of one reading; left out: `of`.
            splits: whether the host reads words as paths if no file has the name.

        Returns:
            the place; `UNKNOWN` if hosts read the text in several ways. Then it
            configures if one of the readings does.
        """
        readings = _readings(stated)
        if read:
            globs = _without_braces(stated)
            parts = [part for one in globs for part in _BETWEEN_GLOBS.split(one)]
            readings += parts if parts != globs else []
            readings = [*dict.fromkeys(filter(None, readings))] or [stated]
        if splits and not os.path.exists(os.path.join(self.cwd, stated)):
            words = (word.strip("\"'`") for word in stated.split())
            readings = [*dict.fromkeys([*readings, *filter(None, words)])]
        places = [(read or self.of)(one) for one in readings]
        searched = (
            self._searches
            and not os.path.isabs(stated)
            and not os.path.lexists(os.path.join(self.cwd, stated))
        )
        named = any(names_configuration(one, self._roots) for one in readings)
        if len(readings) == 1 and not searched:
            place = places[0]
            unknown = place.where == UNKNOWN and named
            return place._replace(configures=place.configures or unknown)
        in_vault = (one for one in places if one.where == VAULT)
        configures = (
            searched
            or len(readings) > _MOST_READINGS
            or any(one.configures for one in places)
            or named
        )
        return next(in_vault, PathLocation(stated, UNKNOWN, configures))

    def of_pattern(self, pattern: str, base: str | None = None) -> PathLocation:
        """Return the places of all matches of a glob, if these can be known.

        Each alternative of its braces is a glob of its own: ``.{.,}/x`` is ``../x``.
        """
        alternatives = _without_braces(pattern)
        if len(alternatives) > MOST_ALTERNATIVES:
            return PathLocation(pattern, UNKNOWN)
        places = [self._of_glob(one, base) for one in alternatives]
        for where in (VAULT, UNKNOWN, OUTSIDE):
            for place in places:
                if place.where == where:
                    return place
        return self._of_glob(pattern, base, linked=False)

    def _of_glob(
        self, pattern: str, base: str | None, *, linked: bool = True
    ) -> PathLocation:
        lead: list[str] = []
        parts = pattern.split("/")
        while parts and not _GLOB.search(parts[0]):
            lead.append(parts.pop(0))
        if not parts:
            return self.of(pattern, base)
        rest = "/".join(parts)
        start = "/".join(lead) + ("/" if lead == [""] else "")
        place = self.of(start or ".", base)
        if _ELSEWHERE.search(rest) or place.where == UNKNOWN:
            return PathLocation(pattern, UNKNOWN)
        if linked and place.where == PROJECT:
            try:
                where = self._by_links(place.resolved, parts, first=not lead)
            except OSError:
                where = UNKNOWN
            place = place._replace(where=where)
        return place._replace(resolved=os.path.join(place.resolved, rest))

    def _by_links(self, folder: str, parts: list[str], *, first: bool) -> str:
        """Return where a glob leads through the links that it matches in *folder*.

        Only as far as the first ``**``: if the pattern begins with it, programs follow
        no links there, else node-glob follows one.

        Args:
            folder: in which the first of *parts* is matched.
            parts: of the pattern, from the first with a wildcard on.
            first: whether the pattern begins with them.

        Returns:
            the worst place; `PROJECT` if no link leads out.
        """
        folders, left, worst = [folder], MOST_ENTRIES, PROJECT
        plain = next((n for n, one in enumerate(parts) if "**" in one), len(parts))
        one_level = ["*"] if plain < len(parts) and (plain or not first) else []
        for number, part in enumerate([*parts[:plain], *one_level]):
            name, last, below = _name_of(part), number == len(parts) - 1, list[str]()
            for entry in (one for there in folders for one in _entries(there)):
                left -= 1
                if left < 0:
                    return UNKNOWN
                if not name.fullmatch(entry.name):
                    continue
                place = self.of(entry.path) if entry.is_symlink() else None
                if place is None:
                    below += [entry.path] if entry.is_dir() else []
                elif place.where == VAULT and not (last and place.folder):
                    return VAULT
                elif place.where == PROJECT:
                    below += [place.resolved] if place.folder else []
                elif not last:  # the last part lists a link, and nothing in it
                    worst = OUTSIDE
            folders = below
        return worst

    def of_arguments(
        self, arguments: Mapping[str, object]
    ) -> list[tuple[str, str, bool, PathLocation]]:
        """Return argument, text, whether it is read as a pattern, and its place."""
        base = self.base_of(arguments)
        start = self.of(base) if base else PathLocation("", UNKNOWN)
        places = [("", "", False, start)]
        for name, value in arguments.items():
            if name in _WITHOUT_PATHS:
                continue
            for text in value if isinstance(value, list) else [value]:
                if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
                    continue
                if len(places) >= MOST_PLACES:
                    return places
                splits = self._splits and name in _SPLIT
                place = self.of_argument(text, splits=splits)
                places.append((name, text, False, place))
                if _NAMES_GLOBS.search(name) or _GLOB.search(text):
                    glob = self.of_argument(
                        text, lambda one: self.of_pattern(one, base)
                    )
                    places.append((name, text, True, glob))
        return places

    def base_of(self, arguments: Mapping[str, object]) -> str:
        """Return the folder that a call's globs start from; empty if it is unclear.

        An argument that the host does not read must not change it.
        """
        named = [name for name in _FOLDERS if arguments.get(name) not in (None, "")]
        if not named:
            return self.cwd
        stated = arguments[named[0]]
        if named != [self._folder] or not isinstance(stated, str):
            return ""
        place = self.of_argument(stated, splits=self._splits)
        return "" if place.where == UNKNOWN else place.resolved

    def of_line(self, line: str, base: str) -> tuple[PlacedCommand, ...] | None:
        """Return the commands of a line that begins in the folder *base*.

        If *base* is unknown, the line has to begin with ``cd`` and an absolute path.

        Returns:
            None if it is more than simple commands in the project.
        """
        parsed = parse_line(line)
        if parsed is None or hook_environment.changes_programs(
            {one.words[0] for one in parsed}, self._environ, self._is_in_project
        ):
            return None
        first = parsed[0].words
        if not base and first[0] == "cd" and first[1:2] and first[1].startswith("/"):
            base = "/"  # wherever the shell is, it goes there
        elif not base or self.of(base).where != PROJECT:
            return None
        placed: list[PlacedCommand] = []
        changes = any(one.words[0] == "cd" for one in parsed)
        if changes and not self._changes_folder_plainly(parsed):
            return None
        for command in parsed:
            if command.words[0] == "cd":
                there = self.of(command.words[1], base)
                if there.where != PROJECT or not there.folder:
                    return None
                if self._moves and there.resolved != self.cwd:
                    return None
                base = there.resolved
                continue
            placed.append(self._command(command.words, base))
        return tuple(placed)

    def _changes_folder_plainly(self, parsed: tuple[SimpleCommand, ...]) -> bool:
        """Check whether the commands after each ``cd`` run only in its folder."""
        if "CDPATH" in self._environ:
            return False
        after = (*(one.joined for one in parsed[1:]), "")
        return all(one.joined in {"", "&&", "|"} for one in parsed) and all(
            one.joined in {"", "&&"}
            and after[number] == "&&"
            and len(one.words) == 2
            and not one.words[1].startswith(("-", "+"))  # zsh counts folders so
            and ".." not in one.words[1].split("/")
            for number, one in enumerate(parsed)
            if one.words[0] == "cd"
        )

    def _command(self, words: tuple[str, ...], base: str) -> PlacedCommand:
        places = [
            (number, self.of(word, base))
            for number, word in enumerate(words)
            if number and not word.startswith("-")
        ]
        configured = words[0] == "git" and (
            hook_repository.names_programs(base)
            or not hook_repository.is_within(base, self._roots)
        )
        path = self._environ.get("PATH", "")
        local = hook_environment.runs_projects(
            words[0], base, path, self._is_in_project
        )
        top = hook_repository.top_folder(base) if words[0] == "git" else ""
        return PlacedCommand(words, base, local, configured, tuple(places), top)

    def _is_in_project(self, path: str) -> bool:
        """Check whether a path, from the call's folder and with links, is in a root."""
        real = os.path.realpath(os.path.join(self.cwd, path))
        return any(_is_within(real, root) for root in self._roots)

    def reaches_vault(self, line: str) -> str:
        """Return a word of the line that leads into AgentVault's home directory."""
        parsed = parse_line(line)
        words: Iterable[str] = (word for one in parsed or () for word in one.words)
        if parsed is None:
            tokens = _TOKENS.findall(line.replace("${HOME}", "$HOME"))
            words = (re.sub(r"^\$HOME(?=/|$)", "~", one) for one in tokens)
        for number, word in enumerate(words):
            if number >= MOST_PLACES:
                break
            for text in {word, word.partition("=")[2]} - {""}:
                if self.of(text).where == VAULT:
                    return text
        return ""

    def _placed(self, resolved: str, lexical: str) -> PathLocation:
        folder = os.path.isdir(resolved)
        configures = (
            names_configuration(resolved, self._roots)
            or names_configuration(lexical, self._roots)
            or self._is_same(resolved, self._configuring)
            or any(_is_within(resolved, one) for one in self._code)
            or hook_repository.configures_bare(resolved)
        )
        where = OUTSIDE
        if any(
            _is_within(path, vault)
            for path in (resolved, lexical)
            for vault in self._vault
        ) or self._is_same(resolved, self._vault):
            where = VAULT
        elif any(_is_within(one, resolved) for one in self._vault):
            where = OUTSIDE  # all below it could be read
        elif any(_is_within(resolved, root) for root in self._roots):
            where = PROJECT
        return PathLocation(resolved, where, configures, folder)

    @cached_property
    def _configuring(self) -> set[str]:
        """Return the paths of configuring folders, which may have other names too."""
        tops = [*self._roots, self._home]
        return {os.path.join(one, name) for one in tops for name in FOLDERS}

    def _is_same(self, path: str, folders: set[str]) -> bool:
        """Check whether *path* is in one of *folders* under another name.

        A file system that ignores case, or a mount, gives one folder several names; its
        device and number are the same.
        """
        stats = {self._stat(one) for one in folders} - {None}
        above = [path, *map(str, PurePath(path).parents)]
        return any(self._stat(one) in stats for one in above)

    def _stat(self, path: str) -> tuple[int, int] | None:
        if path not in self._stats:
            try:
                status = os.stat(path)
                self._stats[path] = status.st_dev, status.st_ino
            except (OSError, ValueError):
                self._stats[path] = None
        return self._stats[path]


def _readings(stated: str) -> list[str]:
    """Return a path as hosts may read it: as it is, and as they rewrite it.

    Gemini CLI drops NUL and a leading ``@`` with the slashes after it, and decodes
    escapes of URLs. VS Code parses a text that is no absolute path as a URL.
    """
    readings = [stated]
    for one in readings:
        marked = one.removeprefix("@")
        forms = (
            "".join(filter(str.isprintable, one)).strip(),
            *((marked, marked.lstrip("/\\")) if marked != one else ()),
            _URL_SCHEME.sub("/", one, count=1) if _URL_SCHEME.match(one) else one,
            unquote(one),
        )
        readings += [form for form in dict.fromkeys(forms) if form not in readings]
        if len(readings) > _MOST_READINGS:
            break
    return [one for one in readings if one] or [stated]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return list(islice(entries, MOST_ENTRIES + 1))


def _name_of(part: str) -> re.Pattern[str]:
    """Return the possible matches of one part of a glob: more, if programs differ."""
    if re.search(r"[^\w.*?\x20-]", part):
        return _ANY_NAME
    # Its stars are atomic: with several, a file's name costs no more than its length.
    return re.compile(fnmatch.translate(part), re.IGNORECASE)


def _without_braces(pattern: str) -> list[str]:
    """Return the expansions of a glob's braces: one more than the maximum, if so many.

    From the innermost outwards, as none of them nests another one.
    """
    done, waiting = list[str](), [pattern]
    while waiting and len(done) + len(waiting) <= MOST_ALTERNATIVES:
        one = waiting.pop()
        if inner := _BRACES.search(one):
            parts = inner[1].split(",")
            start, end = one[: inner.start()], one[inner.end() :]
            waiting += [f"{start}{part}{end}" for part in parts]
        else:
            done.append(one)
    return done + waiting


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
