"""A team's files: those in force are the store's, and each home has copies of them.

Each file is one row of the store's state, under its path in the home. Readers ask here,
so that nothing is in force that the store does not have, and change with the row. An
edit of a copy that was in step is recorded, and so holds for all; of two edits at once
the store takes one. An edit of an outdated copy is kept beside it, as ``NAME.local``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from agentvault_tui.broker.policy_files import MAX_FILE, NAME, NAME_FORM, read_text
from agentvault_tui.errors import (
    LedgerError,
    OvertakenError,
    PolicyError,
    ServiceError,
)
from agentvault_tui.home import Home, file_stamp, put_private
from agentvault_tui.ledger import Change, EventQuery, Ledger, Meta
from agentvault_tui.model import Actor, Draft, Event, EventType, sha256_hex

_ROW: Final = "file:"
"""Begins the key of a file's row; its path follows."""
_AT_ONCE: Final = 16
"""Files that one commit carries."""
_TOML: Final = ".toml"
_LOCAL: Final = ".local"
_Texts = dict[str, str]
_Copy = tuple[tuple[int, ...], str]
"""A file's stamp, taken first, and what it said then."""
log = logging.getLogger("agentvault.team")


def file_draft(
    file: str, before: str | None, after: str | None, actor: Actor, **told: object
) -> Draft:
    """Return the event that a file of the home is in force as it is now.

    Args:
        file: its path in the home.
        before: the SHA-256 of what it said before; None where it was not there.
        after: the same of what it says now.
        actor: who changed it.
        told: what the event says besides.
    """
    word = "added" if before is None else "changed" if after else "removed"
    detail = {"file": file, "before": before, "after": after, **told}
    return Draft(
        EventType.SERVICE_CHANGED, actor, resource=file, reason=word, detail=detail
    )


class _Tracked(NamedTuple):
    at: Path
    """A file, or a folder of files ``NAME.toml``."""
    check: Callable[[str, str], object]
    """Raises ServiceError where a text, given after its name, cannot be in force."""

    @property
    def is_folder(self) -> bool:
        return not self.at.suffix


class TeamFiles:
    """The files that a team's homes have in common, as this broker has them."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        kept: Callable[[], Mapping[str, str]],
        actor: Actor,
    ) -> None:
        """Track nothing yet.

        Args:
            home: whose copies are held in step.
            ledger: the team's, as this home reaches it.
            kept: returns the small values that a start loaded.
            actor: who records an edit of a copy.
        """
        self.problems: dict[str, str] = {}
        """Why a copy is not in force as it stands, or a row cannot be, by its path."""
        self.aside: list[Path] = []
        """Edits that were kept beside their file, and that nobody has removed since."""
        self.on_change: list[Callable[[], Awaitable[None]]] = []
        """Awaited once other texts are in force; none may commit and wait for that."""
        self.on_problem: Callable[[], None] = lambda: None
        """Called when `problems` or `aside` changed."""
        self._home = home
        self._ledger = ledger
        self._kept = kept
        self._actor = actor
        self._tracked: dict[str, _Tracked] = {}
        self._turn = asyncio.Lock()
        self._named: dict[str, str | None] = {}
        """The SHA-256 that the chain names last for a file; None: it was removed."""
        self._rows: _Texts = {}
        self._texts: _Texts = {}
        """The rows that are in force; replaced as a whole."""
        self._unusable: dict[str, str] = {}
        """Why a row is not in force, by its path; replaced as a whole."""
        self._base: dict[str, str] = {}
        """SHA-256 of each copy when it was last in step."""
        self._kept_base: dict[str, str] | None = None
        """The same as it is on disk."""
        self._begun = False
        self._started = False
        """Whether copies were compared since the start."""
        self._joins = False
        """Whether this home has never had copies of this team's."""
        self._read: dict[str, _Copy] = {}
        self._refused: dict[str, tuple[str, str | None]] = {}
        """Edits that were checked, and why one cannot be in force."""
        self._waits = ""
        """Why edits could not be recorded, if so."""

    def track(self, name: str, at: Path, check: Callable[[str, str], object]) -> None:
        """Hold a file, or the files ``NAME.toml`` of a folder, in step.

        Args:
            name: its path in the home.
            at: where this home has it.
            check: raises ServiceError where a text, given after the file's name, cannot
                be in force.
        """
        self._tracked[name] = _Tracked(at, check)

    def text(self, path: str) -> str | None:
        """Return what a file says, if it is in force."""
        return self._texts.get(path)

    def folder(self, name: str) -> dict[str, str]:
        """Return what the files of a folder say, by their names there."""
        start = f"{name}/"
        return {
            path.removeprefix(start): text
            for path, text in self._texts.items()
            if path.startswith(start)
        }

    def problems_in(self, name: str) -> dict[str, str]:
        """Return why files of a folder are not in force as they stand, likewise."""
        start = f"{name}/"
        return {
            path.removeprefix(start): why
            for path, why in self.problems.items()
            if path.startswith(start)
        }

    def check_again(self) -> None:
        """Check edits that were refused: what they are checked against changed."""
        self._refused.clear()

    def change(
        self, texts: Mapping[str, str | None], actor: Actor, **told: object
    ) -> tuple[list[Draft], list[Change]]:
        """Return what records that files say *texts* from now on; None removes one.

        The commit is overtaken where another broker changed one of them meanwhile.
        """
        drafts, changes = list[Draft](), list[Change]()
        for path, text in texts.items():
            after = None if text is None else sha256_hex(text)
            drafts.append(file_draft(path, self._named.get(path), after, actor, **told))
            changes.append(Meta(f"{_ROW}{path}", text))
        return drafts, changes

    def take(self, events: Iterable[Event], changes: Iterable[Change]) -> bool:
        """Know what was recorded, here or elsewhere, in the order of the chain.

        Returns:
            whether other texts are in force now: then `tell` is to be awaited.
        """
        for event in events:
            if event.type is EventType.SERVICE_CHANGED:
                self._named[str(event.resource)] = event.detail.get("after")
        changed = [
            (change.key.removeprefix(_ROW), change.value)
            for change in changes
            if isinstance(change, Meta) and change.key.startswith(_ROW)
        ]
        if not self._begun or not changed:
            return False
        for path, text in changed:
            if text is None:
                self._rows.pop(path, None)
            else:
                self._rows[path] = text
        self._put_in_force([path for path, _ in changed])
        return True

    async def tell(self) -> None:
        """Have readers put in force what `take` took."""
        for changed in self.on_change:
            await changed()

    async def look(self) -> None:
        """Record edits of copies, and write copies that are outdated."""
        async with self._turn:
            if not self._begun:
                await self._begin()
            texts, told = self._texts, (self.problems, self.aside)
            # In a thread: files are read, checked and written.
            edits = await asyncio.to_thread(self._compare, texts, self._unusable)
            await asyncio.to_thread(self._keep_base)
            while edits:
                part = {path: edits.pop(path) for path in [*islice(edits, _AT_ONCE)]}
                if not await self._record(part, texts):
                    break
                await asyncio.to_thread(self._keep_base)
        if (self.problems, self.aside) != told:
            self.on_problem()

    async def _record(self, edits: Mapping[str, str | None], texts: _Texts) -> bool:
        """Record edits; return False where that has to wait for another look."""
        if any(self._texts.get(path) != texts.get(path) for path in edits):
            return False  # another broker's came meanwhile
        drafts, changes = self.change(edits, self._actor)
        try:
            await self._ledger.commit(*drafts, changes=changes)
        except OvertakenError:
            return False
        except LedgerError as error:
            if error.what != self._waits:  # at each look it would fill the log
                self._waits = error.what
                log.warning("changed files are recorded later: %s", error.what)
            return False
        self._waits = ""
        for path, text in edits.items():
            _put(self._base, path, _digest(text))
        await self.tell()
        return True

    async def _begin(self) -> None:
        """Take the rows that a start loaded, with what the chain names for each."""
        self._rows = {
            key.removeprefix(_ROW): text
            for key, text in self._kept().items()
            if key.startswith(_ROW)
        }
        await asyncio.to_thread(self._read_base)
        missing = self._rows.keys() - self._named.keys()
        named: dict[str, str | None] = {}
        query = EventQuery(type=EventType.SERVICE_CHANGED, limit=1000)
        while missing:
            page = await self._ledger.events(query)
            for event in page.events:  # newest first
                named.setdefault(str(event.resource), event.detail.get("after"))
            missing -= named.keys()
            if page.next is None:
                break
            query = EventQuery(type=query.type, limit=query.limit, before=page.next)
        self._named = named | self._named
        self._begun = True
        self._put_in_force(list(self._rows))

    def _put_in_force(self, paths: Sequence[str]) -> None:
        texts, unusable = dict(self._texts), dict(self._unusable)
        for path in paths:
            text = self._rows.get(path)
            why = None if text is None else self._why_unusable(path, text)
            _put(unusable, path, why)
            _put(texts, path, None if why else text)
        self._texts, self._unusable = texts, unusable

    def _why_unusable(self, path: str, text: str) -> str | None:
        if self._place(path) is None:
            return "it is no file that a home may have"
        if len(text.encode()) > MAX_FILE:
            return f"it is larger than {MAX_FILE // 1024} KiB"
        if sha256_hex(text) != self._named.get(path):
            return "the store has another text than its events name"
        return None

    def _place(self, path: str) -> Path | None:
        """Return where this home has a file; None: it is none that is tracked."""
        folder, slash, file = path.partition("/")
        tracked = self._tracked.get(folder)
        if tracked is None or tracked.is_folder is not bool(slash):
            return None
        if not slash:
            return tracked.at
        name = file.removesuffix(_TOML)
        named = file == f"{name}{_TOML}" and NAME.fullmatch(name)
        return tracked.at / file if named else None

    # In a thread, one at a time

    def _compare(
        self, texts: _Texts, unusable: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Write outdated copies, keep edits of those beside, and return other edits."""
        base, edits = self._base, dict[str, str | None]()
        joins = self._joins and bool(texts)
        problems: dict[str, str] = {}
        copies, self.aside = self._copies(problems)
        unread = set(problems)
        for path in sorted({*copies, *texts, *base}):
            place = self._place(path)
            if place is None or not unread.isdisjoint({path, path.partition("/")[0]}):
                continue
            copy, text, last = copies.get(path), texts.get(path), base.get(path)
            # What is gone at a start was not removed by hand: a disk may be another.
            edited = _digest(copy) != last and (copy is not None or self._started)
            if copy == text:
                _put(base, path, _digest(text))
            elif edited and not joins and (path in unusable or last == _digest(text)):
                if (why := self._refusal(path, copy)) is None:
                    edits[path] = copy
                else:
                    problems[path] = why
            elif path not in unusable:
                why = self._write(path, place, text, copy if edited else None)
                _put(problems, path, why)
        self.problems, self._started = {**unusable, **problems}, True
        return edits

    def _copies(self, problems: dict[str, str]) -> tuple[_Texts, list[Path]]:
        """Return what copies say, and which edits were kept beside one."""
        aside, known = list[Path](), self._read
        self._read = {}
        for name, tracked in self._tracked.items():
            files = {name: tracked.at}
            if tracked.is_folder:
                try:
                    there = {one.name for one in tracked.at.iterdir()}
                except OSError as error:
                    # Not taken for empty: it may be a link to what is not there now.
                    problems[name] = f"the folder cannot be read ({error.strerror})"
                    continue
                named = sorted({one.removesuffix(_LOCAL) for one in there})
                files = {
                    f"{name}/{one}": tracked.at / one
                    for one in named
                    if one.endswith(_TOML) and not one.startswith(".")
                }
            for path, at in files.items():
                if _aside(at).exists():
                    aside.append(_aside(at))
                try:
                    if (copy := self._copy(path, at, known.get(path))) is not None:
                        self._read[path] = copy
                except PolicyError as error:
                    problems[path] = error.diagnosis()
        return {path: text for path, (_, text) in self._read.items()}, aside

    def _copy(self, path: str, at: Path, known: _Copy | None) -> _Copy | None:
        """Read a copy, unless it is as it was *known*; None: it is not there.

        Raises:
            PolicyError: it cannot be read.
        """
        stamp = file_stamp(at)
        if stamp is None:
            if at.is_symlink():
                raise PolicyError("it is a symbolic link to nothing")
            return None
        if self._place(path) is None:
            raise PolicyError(NAME_FORM)
        if known is not None and known[0] == stamp:
            return known
        text = read_text(at)
        return None if text is None else (stamp, text)

    def _refusal(self, path: str, text: str | None) -> str | None:
        """Say why an edit cannot be in force, if so."""
        if text is None:
            return None
        digest = sha256_hex(text)
        if path not in self._refused or self._refused[path][0] != digest:
            folder, _, file = path.partition("/")
            try:
                self._tracked[folder].check(file.removesuffix(_TOML), text)
            except ServiceError as error:
                self._refused[path] = digest, error.diagnosis()
            else:
                return None
        return self._refused[path][1]

    def _write(
        self, path: str, place: Path, text: str | None, edit: str | None
    ) -> str | None:
        """Make a copy say what is in force; keep an *edit* of it beside.

        Returns:
            why that cannot be done, if so.
        """
        seen = self._read.get(path)
        if file_stamp(place) != (seen and seen[0]):
            return None  # edited meanwhile: another look is due
        if place.is_symlink():
            return "it is a symbolic link: what it points to stays as it is"
        try:
            if edit is not None:
                put_private(_aside(place), edit.encode(), replace=True)
                self.aside = sorted({*self.aside, _aside(place)})
            if text is None:
                place.unlink(missing_ok=True)
            else:
                put_private(place, text.encode(), replace=True)
        except OSError as error:
            return f"the copy cannot be written ({error.strerror})"
        _put(self._base, path, _digest(text))
        return None

    def _read_base(self) -> None:
        """Read what this home had in step; of another ledger it has nothing."""
        try:
            kept = msgspec.json.decode(self._home.team_files.read_bytes(), type=_Base)
        except (OSError, ValueError):
            kept = _Base("", {})
        self._joins = kept.ledger != self._ledger.ledger_id
        self._kept_base = None if self._joins else kept.files
        self._base = dict(self._kept_base or {})

    def _keep_base(self) -> None:
        """Keep what is in step, so that an edit is known for one after a start."""
        if self._base != self._kept_base:
            kept = _Base(self._ledger.ledger_id, self._base)
            try:
                put_private(
                    self._home.team_files, msgspec.json.encode(kept), replace=True
                )
            except OSError as error:
                log.warning("what is in step cannot be kept: %s", error.strerror)
                return
            self._kept_base, self._joins = dict(self._base), False


class _Base(msgspec.Struct, frozen=True):
    ledger: str
    files: dict[str, str]


def _aside(at: Path) -> Path:
    return at.with_name(f"{at.name}{_LOCAL}")


def _digest(text: str | None) -> str | None:
    return None if text is None else sha256_hex(text)


def _put(values: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
