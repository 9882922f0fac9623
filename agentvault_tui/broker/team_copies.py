"""This home's copies of files that a team has in common, compared with the store's.

A copy that is as it was when it was last in step is outdated where the store has
another text; one that is not was edited. All of this runs in a thread, one call at a
time.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from agentvault_tui.broker.policy_files import (
    MAX_FILE,
    NAME,
    NAME_FORM,
    read_text,
)
from agentvault_tui.errors import (
    ConflictError,
    PolicyError,
    SealedError,
    ServiceError,
)
from agentvault_tui.home import Home, file_stamp, locked_folder, put_private
from agentvault_tui.model import sha256_hex
from agentvault_tui.policy.texts import is_policy_file

_MAX_SEALED: Final = 64 * 1024 * 1024
"""Of a sealed file."""
_TOML: Final = ".toml"
_LOCAL: Final = ".local"
MEMBER: Final = "#"
"""Separates the path of an encrypted file from the name of a member of it."""
_TextT = TypeVar("_TextT", str, str | None)
Texts = dict[str, str]
_Copy = tuple[tuple[int, ...], str]
"""A file's stamp, taken first, and its text then."""
log = logging.getLogger("agentvault.team")


class _Tracked(NamedTuple):
    at: Path
    """A folder of files ``NAME.toml``, one such file, or a sealed file of JSON."""
    check: Callable[[str, str], object]
    """Raises ServiceError where a text, given after its name, cannot be in effect."""

    @property
    def is_folder(self) -> bool:
        return self.at.suffix in {"", ".d"}

    @property
    def is_sealed(self) -> bool:
        return self.at.suffix == ".json"


class TeamCopies:
    """The copies of one home."""

    def __init__(self, home: Home) -> None:
        """Read nothing yet."""
        self.problems: dict[str, str] = {}
        """The reason why a copy or a row is not in effect, by its path."""
        self.aside: list[Path] = []
        """Edits that were stored next to their file, and that were not removed
        since."""
        self.lost: set[str] = set()
        """Encrypted files whose edits `compare` found outdated."""
        self._home = home
        self._tracked: dict[str, _Tracked] = {}
        self._base: Texts = {}
        """SHA-256 of each copy when it was last in step."""
        self._kept_base: Texts | None = None
        """The same as it is on disk."""
        self._ledger = ""
        self._started = False
        """Whether copies were compared since the start."""
        self._joins = False
        """Whether this home has never had copies of this team's."""
        self._read: dict[str, _Copy] = {}
        self._members: dict[str, Texts] = {}
        """The members' values in encrypted files, by the file's name."""
        self._settled: tuple[Texts, object, object, object] | None = None
        """Rows and stamps of copies with which nothing was left to do."""

    def track(self, name: str, at: Path, check: Callable[[str, str], object]) -> None:
        """Compare a file, or the files ``NAME.toml`` of a folder.

        Args:
            name: its path in the home.
            at: its place in this home; a name that ends in ``.json`` is encrypted.
            check: raises ServiceError where a text, given after the name of its file or
                member, cannot be in effect, and ConflictError where it is outdated.
        """
        # Replaced as a whole: a thread may go through it.
        self._tracked = {**self._tracked, name: _Tracked(at, check)}

    def check_again(self) -> None:
        """Check refused edits again, after a change of their basis."""
        self._settled = None

    def place(self, path: str) -> Path | None:
        """Return where this home has a file; None: it is none that is tracked."""
        name, member, _ = path.partition(MEMBER)
        if (tracked := self._tracked.get(name)) is not None:
            right = tracked.is_sealed is bool(member) and not tracked.is_folder
            return tracked.at if right else None
        folder, _, file = path.partition("/")
        if (tracked := self._tracked.get(folder)) is None or not tracked.is_folder:
            return None
        named = file.endswith(_TOML) and NAME.fullmatch(file.removesuffix(_TOML))
        return tracked.at / file if named else None

    def compare(
        self, texts: Texts, unusable: Mapping[str, str], *, keep: bool = True
    ) -> dict[str, str | None]:
        """Write outdated copies, set their edits aside, and return other edits.

        Args:
            texts: those in effect, by path; another object once one of them changed.
            unusable: the reason why the store's text of a path cannot be in effect;
                empty if it is not about this home.
            keep: whether edits of outdated encrypted files are stored next to them.

        Returns:
            the texts to record; None if a file was removed.
        """
        edits, outdated = dict[str, str | None](), dict[str, str | None]()
        problems: dict[str, str] = {}
        self.aside = self._read_copies(problems)
        joins = self._joins and not all(map(is_policy_file, texts))
        unread = dict(problems)
        stamps = {path: stamp for path, (stamp, _) in self._read.items()}
        now = texts, stamps, unread, file_stamp(self._home.team_key)
        if self._settled and self._settled[0] is texts and self._settled == now:
            self.lost.clear()
            return {}
        copies = Texts()
        for path, (_, problem) in self._read.items():
            copies |= self._members.get(path, {path: problem})
        for path in sorted({*copies, *texts, *self._base}):
            if unread.keys().isdisjoint({path, self._within(path)}):
                copy, text = copies.get(path), texts.get(path)
                if copy == text:
                    put(self._base, path, digest_of(text))
                elif not joins and self._is_edit(path, copy, text, unusable):
                    edits[path] = copy
                elif path not in unusable and self.place(path) is not None:
                    outdated[path] = text
        refused, overtaken = self._refused(edits)
        outdated |= {path: texts.get(path) for path in overtaken}
        for path in (*refused, *overtaken):
            del edits[path]
        faults = {path: why for path, why in unusable.items() if why} | refused
        problems |= self._write(outdated, copies, texts, keep=keep)
        # Once of a sealed file, however many members it has.
        problems |= {self._told_of(path): why for path, why in faults.items()}
        self.problems, self._started = problems, True
        self._settled = None if outdated or edits else now
        return edits

    def _is_edit(
        self, path: str, copy: str | None, text: str | None, unusable: Mapping[str, str]
    ) -> bool:
        """Check whether a copy that differs from *text* was edited while in step."""
        last = self._base.get(path)
        in_step = path in unusable or last == digest_of(text)
        if self._joins and is_policy_file(path):
            return False  # the team has a policy already, if no other files
        return in_step and self._edited(path, copy)

    def _edited(self, path: str, copy: str | None) -> bool:
        # What is gone at a start was not removed by hand: a disk may be another.
        there = self._within(path) in self._read if MEMBER in path else self._started
        changed = digest_of(copy) != self._base.get(path)
        return changed and self.place(path) is not None and (copy is not None or there)

    def _within(self, path: str) -> str:
        """Return the folder or sealed file that has a file; of another its own path."""
        name = path.partition(MEMBER)[0]
        return name if name in self._tracked else path.partition("/")[0]

    def _told_of(self, path: str) -> str:
        return self._within(path) if MEMBER in path else path

    def _read_copies(self, problems: dict[str, str]) -> list[Path]:
        """Read changed copies; return the edits that were stored next to one."""
        aside, read = list[Path](), self._read
        self._read = {}
        for name, tracked in self._tracked.items():
            try:
                files = _files_of(tracked.at) if tracked.is_folder else [tracked.at]
            except OSError as error:
                # Not taken for empty: it may be a link to what is not there now.
                problems[name] = f"the folder cannot be read ({error.strerror})"
                continue
            for at in files:
                path = f"{name}/{at.name}" if tracked.is_folder else name
                if beside(at).exists():
                    aside.append(beside(at))
                try:
                    copy = self._copy(path, at, read.get(path))
                    if tracked.is_sealed and copy is not read.get(path):
                        self._members[path] = _members(path, copy[1]) if copy else {}
                except PolicyError as error:
                    problems[path] = error.diagnosis()
                    continue
                if copy is not None:
                    self._read[path] = copy
        return aside

    def _copy(self, path: str, at: Path, before: _Copy | None) -> _Copy | None:
        """Read a copy, unless it is as it was *known*; None: it is not there.

        Raises:
            PolicyError: it cannot be read.
        """
        stamp = file_stamp(at)
        if stamp is None:
            if at.is_symlink():
                raise PolicyError("it is a symbolic link to nothing")
            return None
        tracked = self._tracked.get(path)
        if tracked is None and self.place(path) is None:
            raise PolicyError(NAME_FORM)
        if before is not None and before[0] == stamp:
            return before
        most = _MAX_SEALED if tracked is not None and tracked.is_sealed else MAX_FILE
        text = read_text(at, self._home.folder_of(at), most)
        return None if text is None else (stamp, text)

    def _refused(
        self, edits: Mapping[str, str | None]
    ) -> tuple[dict[str, str], list[str]]:
        """Return why edits cannot be in effect, and which are outdated copies."""
        refused, outdated = dict[str, str](), list[str]()
        for path, text in edits.items():
            tracked = self._tracked[self._within(path)]
            name = path.partition(MEMBER if tracked.is_sealed else "/")[2]
            try:
                if text is not None:
                    tracked.check(name.removesuffix(_TOML), text)
            except ConflictError:
                outdated.append(path)
            except (ServiceError, SealedError) as error:
                refused[path] = error.diagnosis()
        return refused, outdated

    def _write(
        self,
        texts: Mapping[str, str | None],
        copies: Texts,
        current: Texts,
        *,
        keep: bool,
    ) -> dict[str, str]:
        """Write *texts* into copies, and store edits of them next to them.

        Returns:
            why one cannot be written, by its path.
        """
        problems = dict[str, str]()
        self.lost.clear()
        sealed = {path: text for path, text in texts.items() if MEMBER in path}
        for path, copy in ((path, copies.get(path)) for path in texts):
            edit = copy if self._edited(path, copy) else None
            if path not in sealed:
                why = self._write_text(path, texts[path], edit)
                put(problems, path, why)
            elif edit is not None:
                self.lost.add(self._within(path))
        try:
            for name in self.lost if keep else ():
                self._keep_aside(self._tracked[name].at, self._read[name][1])
            self.merge(sealed, current)
        except OSError as error:
            names = {self._within(path) for path in sealed}
            problems |= dict.fromkeys(names, _unwritten(error))
        return problems

    def _write_text(self, path: str, text: str | None, edit: str | None) -> str | None:
        """Write one copy; return why it cannot be, if so."""
        place, seen = self.place(path), self._read.get(path)
        if place is None or file_stamp(place) != (seen and seen[0]):
            return None  # edited meanwhile: another look is due
        if place.is_symlink():
            return "it is a symbolic link: what it points to stays as it is"
        try:
            if edit is not None:
                self._keep_aside(place, edit)
            if text is None:
                place.unlink(missing_ok=True)
            else:
                put_private(place, text.encode(), replace=True)
        except OSError as error:
            return _unwritten(error)
        put(self._base, path, digest_of(text))
        return None

    def _keep_aside(self, path: Path, edit: str) -> None:
        """Store an edit of a file, and under a number one that is stored already."""
        place, content = beside(path), edit.encode()
        if place.exists() and place.read_bytes() != content:
            names = (f"{place.name}.{number}" for number in itertools.count(1))
            free = (place.with_name(one) for one in names)
            place.rename(next(one for one in free if not one.exists()))
        put_private(place, content, replace=True)
        self.aside = sorted({*self.aside, place})

    def merge(self, texts: Mapping[str, str | None], copies: Texts) -> None:
        """Write members of sealed files, whatever the files say of them.

        Args:
            texts: the new texts; None if one is removed.
            copies: all that are in effect.

        Raises:
            OSError: a file cannot be written.
        """
        for name in {self._within(path) for path in texts}:
            at, wanted = self._tracked[name].at, _of(name, texts)
            with locked_folder(at.parent):
                try:
                    now = _members(
                        name,
                        read_text(at, self._home.folder_of(at), _MAX_SEALED) or "{}",
                    )
                except PolicyError:
                    now = {}
                # Of a file that is gone all of it, or the rest were taken for removed.
                after = dict(now or _of(name, copies))
                for path, text in wanted.items():
                    put(after, path, text)
                if after != now:
                    put_private(at, _file_of(after), replace=True)
            self.in_step(wanted)

    def in_step(self, texts: Mapping[str, str | None]) -> None:
        """Know that copies are in step with the store, which says *texts*."""
        for path, text in texts.items():
            put(self._base, path, digest_of(text))

    def begin(self, ledger: str) -> None:
        """Read this home's texts in step with *ledger*."""
        try:
            base = msgspec.json.decode(self._home.team_files.read_bytes(), type=_Base)
        except (OSError, ValueError):
            base = _Base("", {})
        self._ledger, self._joins = ledger, base.ledger != ledger
        self._kept_base = None if self._joins else base.files
        self._base = dict(self._kept_base or {})

    def keep_base(self) -> None:
        """Store the texts in step, so that an edit is recognized after a start."""
        if self._base != self._kept_base:
            base = _Base(self._ledger, self._base)
            try:
                put_private(
                    self._home.team_files, msgspec.json.encode(base), replace=True
                )
            except OSError as error:
                log.warning("what is in step cannot be kept: %s", error.strerror)
                return
            self._kept_base, self._joins = dict(self._base), False


class _Base(msgspec.Struct, frozen=True):
    ledger: str
    files: dict[str, str]


def _members(name: str, text: str) -> Texts:
    """Return the members of an encrypted file; PolicyError: it is invalid."""
    try:
        content = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise PolicyError("it is no file of sealed secrets", "restore it") from error
    return {
        f"{name}{MEMBER}{key}": msgspec.json.format(raw, indent=-1).decode()
        for key, raw in content.items()
    }


def _file_of(members: Mapping[str, str]) -> bytes:
    content = {
        path.partition(MEMBER)[2]: msgspec.Raw(text.encode())
        for path, text in sorted(members.items())
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def _of(name: str, texts: Mapping[str, _TextT]) -> dict[str, _TextT]:
    """Return the members of a sealed file."""
    start = f"{name}{MEMBER}"
    return {path: text for path, text in texts.items() if path.startswith(start)}


def _files_of(folder: Path) -> list[Path]:
    """Return the files ``NAME.toml`` of a folder, and those with an edit next to."""
    names = {one.name.removesuffix(_LOCAL) for one in folder.iterdir()}
    names_of_files = (
        one for one in sorted(names) if one.endswith(_TOML) and one[0] != "."
    )
    return [folder / one for one in names_of_files]


def beside(path: Path) -> Path:
    """Return the place of an edit of a file that the team's text overtook."""
    return path.with_name(f"{path.name}.local")


def _unwritten(error: OSError) -> str:
    return f"the copy cannot be written ({error.strerror})"


def digest_of(text: str | None) -> str | None:
    """Return the SHA-256 of a text, if there is one."""
    return None if text is None else sha256_hex(text)


def put(values: dict[str, str], key: str, value: str | None) -> None:
    """Set a value, or with None remove it."""
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
