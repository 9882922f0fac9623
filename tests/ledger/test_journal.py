"""The cut journal: in place, all or nothing, and what was damaged is never trusted."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from agentvault_tui.home import Home
from agentvault_tui.ledger import journal as journal_module
from agentvault_tui.ledger.journal import AREA, CAPACITY, CutJournal, KeptCut

LEDGER = "ab" * 16
CUT = KeptCut(
    "revoke", "2026-11-24T10:00:00Z", ("operator", "uid:0", "olga"), 7, "agt_1"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, tmp_path)
    home.prepare()
    return home


def opened(home: Home, *, expected: bool = True, ledger: str = LEDGER) -> CutJournal:
    return CutJournal.open(home, ledger, expected=expected, fresh=False)


def new(home: Home) -> CutJournal:
    journal = opened(home, expected=False)
    assert journal.problem is None
    return journal


def test_a_new_journal_takes_all_its_space_at_once(home: Home) -> None:
    """Private, of real zero bytes, never longer: to keep a cut needs no new block."""
    journal = new(home)
    found = home.cut_journal.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_blocks * 512 >= found.st_size >= 2 * AREA
    assert stat.S_IMODE(home.cut_marker.stat().st_mode) == 0o600
    for count in (1, 400, 0, 3):
        assert journal.write([replace(CUT, agent=f"agt_{n}") for n in range(count)])
        after = home.cut_journal.stat()
        assert (after.st_size, after.st_blocks, after.st_ino) == (
            found.st_size,
            found.st_blocks,
            found.st_ino,
        )
        assert len(opened(home).entries) == count


def test_a_cut_with_any_text_is_kept_and_read(home: Home) -> None:
    """What an operator typed is kept as typed; a lone surrogate does no harm."""
    cuts = [replace(CUT, why='größe "\n\x1b[31m'), replace(CUT, why="\udfff")]
    assert new(home).write(cuts)
    first, second = opened(home).entries
    assert first == cuts[0]
    assert second.agent == "agt_1"


@pytest.mark.parametrize(
    "damage",
    [
        *("gone", "marker", "both", "cut short", "emptied", "payload", "selector"),
        *("other", "a pipe", "a link"),
    ],
)
def test_what_was_damaged_is_told(home: Home, damage: str) -> None:
    """With cuts kept, nothing done to file or marker makes them silently none."""
    journal = new(home)
    assert journal.write([replace(CUT, agent="agt_2")])
    assert journal.write([])
    assert journal.write([CUT])
    content = bytearray(home.cut_journal.read_bytes())
    if damage in {"gone", "both"}:
        home.cut_journal.unlink()
    if damage in {"marker", "both"}:
        home.cut_marker.unlink()
    if damage == "cut short":
        os.truncate(home.cut_journal, 600)
    if damage == "emptied":
        home.cut_journal.write_bytes(bytes(len(content)))
    if damage == "payload":
        content[4096 + AREA + 60] ^= 1
        home.cut_journal.write_bytes(content)
    if damage == "selector":
        content[512] = 0
        home.cut_journal.write_bytes(content)
    if damage in {"a pipe", "a link"}:
        home.cut_journal.rename(home.cut_journal.with_suffix(".moved"))
    if damage == "a pipe":
        os.mkfifo(home.cut_journal)
    if damage == "a link":
        home.cut_journal.symlink_to(home.cut_journal.with_suffix(".moved"))
    found = opened(home, ledger="cd" * 16 if damage == "other" else LEDGER)
    assert found.problem is not None
    assert found.entries == ((CUT,) if damage == "marker" else ())


def test_where_the_file_cannot_be_written_the_marker_goes(home: Home) -> None:
    """Then the next start says so, whatever the file holds, until it is made anew."""
    journal = new(home)
    os.truncate(home.cut_journal, 0)
    assert journal.write([CUT]) is False
    assert not home.cut_marker.exists()
    assert opened(home).problem is not None
    journal.create()
    assert home.cut_marker.exists()
    again = opened(home)
    assert (again.problem, again.entries) == (None, ())
    assert again.write([CUT])


def test_more_than_it_holds_is_not_kept_in_part(home: Home) -> None:
    """A list too long for the file fails as a whole, and the marker goes."""
    journal = new(home)
    assert journal.write([replace(CUT, why="x" * CAPACITY)]) is False
    assert opened(home).entries == ()
    assert opened(home).problem is not None


def test_an_older_copy_of_the_journal_is_told(home: Home) -> None:
    """Put back whole, or with the newer list wiped out: the marker counts the lists."""
    journal = new(home)
    home.cut_marker.write_bytes(b"see the cut journal\n")  # of an older version
    assert journal.write([])
    older = home.cut_journal.read_bytes()
    assert journal.write([CUT])
    home.cut_journal.write_bytes(older)
    assert "it holds an older list" in (opened(home).problem or "")
    again = opened(home)
    again.create()
    assert again.write([CUT])
    assert opened(home).entries == (CUT,)
    assert opened(home).problem is None


def test_a_changed_selector_brings_no_older_list_back(home: Home) -> None:
    """Whichever area it names, the newest list counts, and the next one is newer."""
    journal = new(home)
    kept: list[KeptCut] = []
    for count in (1, 0, 2, 0):
        kept = [replace(CUT, agent=f"agt_{n}") for n in range(count)]
        assert journal.write(kept)
        content = bytearray(home.cut_journal.read_bytes())
        content[512] = 3 - content[512]
        home.cut_journal.write_bytes(content)
        journal = opened(home)
        assert (list(journal.entries), journal.problem) == (kept, None)


class _Crash(BaseException):
    """The machine lost power."""


class Journal(RuleBasedStateMachine):
    """Whatever is written, and wherever it crashes: the list before, or the new one."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        self.home = Home(path, path)
        self.kept: list[KeptCut] = []

    @initialize()
    def start(self) -> None:
        self.home.prepare()
        self.journal = new(self.home)

    cuts = st.lists(
        st.builds(
            replace,
            st.just(CUT),
            agent=st.text(max_size=20),
            why=st.text(max_size=200),
            scopes=st.tuples(st.text(max_size=9)),
        ),
        max_size=5,
    )

    @rule(cuts=cuts)
    def write(self, cuts: list[KeptCut]) -> None:
        assert self.journal.write(cuts)
        self.kept = _as_read(cuts)

    @rule(cuts=cuts, after=st.integers(0, 3000))
    def crash(self, cuts: list[KeptCut], after: int) -> None:
        """Lose power once so many bytes are on their way."""
        left = after

        def torn(descriptor: int, content: bytes, at: int) -> None:
            nonlocal left
            os.pwrite(descriptor, content[:left], at)
            left -= len(content)
            if left < 0:
                raise _Crash

        with mock.patch.object(journal_module, "_write_all", torn):
            try:
                assert self.journal.write(cuts)
                acknowledged = True
            except _Crash:
                acknowledged = False
        self.journal = opened(self.home)
        found = list(self.journal.entries)
        assert (
            found == _as_read(cuts)
            if acknowledged
            else found in (self.kept, _as_read(cuts))
        )
        self.kept = found

    @precondition(lambda self: self.kept)
    @rule(place=st.integers(0, 10**6))
    def damage(self, place: int) -> None:
        """One changed byte of what is kept is found out."""
        clean = self.home.cut_journal.read_bytes()
        start = 4096 + (clean[512] - 1) * AREA
        length = 44 + int.from_bytes(clean[start : start + 4], "big")
        broken = bytearray(clean)
        broken[start + place % length] ^= 0x55
        self.home.cut_journal.write_bytes(broken)
        assert opened(self.home).problem is not None
        self.home.cut_journal.write_bytes(clean)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "journal"):
            found = opened(self.home)
            assert (list(found.entries), found.problem) == (self.kept, None)

    def teardown(self) -> None:
        self.folder.cleanup()


def _as_read(cuts: list[KeptCut]) -> list[KeptCut]:
    """Return *cuts* as JSON in UTF-8 gives them back."""

    def plain(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    return [
        replace(
            cut,
            agent=plain(cut.agent),
            why=plain(cut.why),
            scopes=tuple(plain(scope) for scope in cut.scopes),
        )
        for cut in cuts
    ]


TestJournal = Journal.TestCase
TestJournal.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)


@contextmanager
def read_only(home: Home) -> Iterator[None]:
    """Have nothing in a home written or deleted, as on a read-only file system."""
    here, opens, unlink = home.data, os.open, Path.unlink

    def refuse(path: Path) -> None:
        if here in path.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            refuse(Path(path))
        return opens(path, flags, *more, **named)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        refuse(path)
        unlink(path, missing_ok)

    with (
        mock.patch.object(os, "open", opened),
        mock.patch.object(Path, "unlink", unlinked),
    ):
        yield


@pytest.fixture
def notes(short: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders on file systems that are not the home's."""
    folders = short / "one", short / "two"
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(journal_module, "note_folders", lambda: folders)
    return folders


def test_a_cut_on_a_read_only_file_system_stops_the_next_start(
    home: Home, notes: tuple[Path, Path]
) -> None:
    """Neither file nor marker can be changed: a note elsewhere says so."""
    journal = new(home)
    with read_only(home):
        assert journal.write([CUT]) is False
        assert journal.write([CUT]) is False
    assert journal.lasting
    assert [len([*folder.iterdir()]) for folder in notes] == [1, 1]
    again = opened(home)
    assert again.problem is not None
    assert "agentvault-stop-" in again.problem
    assert opened(home, ledger="cd" * 16).problem != again.problem
    again.create()
    assert opened(home).problem is None
    assert [*notes[0].iterdir(), *notes[1].iterdir()] == []


def test_a_note_that_is_not_ours_stops_nothing(
    home: Home, notes: tuple[Path, Path]
) -> None:
    """Whoever may write in such a folder keeps no broker from granting by a link."""
    journal = new(home)
    with read_only(home):
        journal.write([CUT])
    (ours,) = notes[0].iterdir()
    name = ours.name
    journal.create()
    (notes[0] / name).symlink_to(home.cut_journal)
    assert opened(home).problem is None


def test_where_no_note_can_be_left_nothing_is_promised(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller says that a restart loses the cut."""
    monkeypatch.setattr(journal_module, "note_folders", lambda: (home.data / "no",))
    journal = new(home)
    with read_only(home), pytest.raises(OSError, match="Read-only"):
        journal.write([CUT])
    assert not journal.lasting
    assert opened(home).problem is None
