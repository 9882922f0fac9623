"""Copies of a team's files, against a store that is a dictionary, in any order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentvault_tui.broker.team_copies import MEMBER, TeamCopies, put
from agentvault_tui.errors import ServiceError
from agentvault_tui.home import Home

LEDGER = "a" * 32
NAMES = ("services/one.toml", "alerts.toml", "secrets.json")
MEMBERS = ("ann", "bob")
HOMES = st.integers(0, 1)


def check(_: str, text: str) -> None:
    if "broken" in text:
        raise ServiceError("it is broken")


class Copies(RuleBasedStateMachine):
    """Two homes that people edit; their brokers look now and then, and start anew."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="h-")
        self.store: dict[str, str] = {}
        self.held: list[dict[str, str]] = [{}, {}]
        """The store as each broker knew it last."""
        self.ever: set[str] = set()
        """What the store ever had."""
        self.overtaken: list[tuple[Path, str]] = []
        """Edits that were kept beside, and where."""
        self.count = 0
        folders = [Path(self.folder.name, one) for one in "ab"]
        self.homes = [Home(one, one) for one in folders]
        self.copies: list[TeamCopies] = []
        for home in self.homes:
            home.prepare()
            self.copies.append(self.started(home))
        for number in (0, 1):
            self.looks(number)

    def teardown(self) -> None:
        self.settles()
        self.folder.cleanup()

    def started(self, home: Home) -> TeamCopies:
        made = TeamCopies(home)
        made.track("services", home.config / "services", check)
        made.track("alerts.toml", home.alerts_file, check)
        made.track("secrets.json", home.secrets_file, check)
        made.begin(LEDGER)
        return made

    @rule(number=HOMES, name=st.sampled_from(NAMES[:2]), broken=st.booleans())
    def edits(self, number: int, name: str, broken: bool) -> None:
        self.count += 1
        text = f"text {self.count}{' broken' if broken else ''}\n"
        self.homes[number].config.joinpath(name).write_text(text)

    @rule(name=st.sampled_from(NAMES[:2]))
    def both_edit(self, name: str) -> None:
        for number in (0, 1):
            self.edits(number, name, broken=False)

    @rule(number=HOMES, name=st.sampled_from(NAMES[:2]))
    def removes(self, number: int, name: str) -> None:
        self.homes[number].config.joinpath(name).unlink(missing_ok=True)

    @rule(number=HOMES, name=st.sampled_from(MEMBERS), gone=st.booleans())
    def changes_a_member(self, number: int, name: str, gone: bool) -> None:
        self.count += 1
        path = self.homes[number].secrets_file
        content = json.loads(path.read_text()) if path.exists() else {}
        content.pop(name, None)
        if not gone:
            content[name] = {"n": self.count}
        path.write_text(json.dumps(content))

    @rule(number=HOMES)
    def looks(self, number: int) -> None:
        """A broker that knows all of the store looks."""
        self.held[number] = dict(self.store)
        self.looks_late(number)

    @rule(number=HOMES)
    def looks_late(self, number: int) -> None:
        """One that does not: what it records is overtaken where that was changed."""
        copies, held = self.copies[number], self.held[number]
        before = self.texts(number)
        edits = copies.compare(held, {})
        for name, text in before.items():
            if self.texts(number).get(name) != text and text not in self.ever:
                beside = self.homes[number].config / f"{name}.local"
                assert beside.read_text() == text
                self.overtaken.append((beside, text))
        copies.keep_base()
        if any(self.store.get(path) != held.get(path) for path in edits):
            return
        # Others' changes are known only once the broker looks at the store again.
        for known in (self.store, held):
            for path, text in edits.items():
                put(known, path, text)
        self.ever.update(self.store.values())
        copies.in_step(edits)
        copies.keep_base()

    def texts(self, number: int) -> dict[str, str]:
        """Return what the copies of plain files say."""
        folder = self.homes[number].config
        there = {name: folder / name for name in NAMES[:2]}
        return {name: at.read_text() for name, at in there.items() if at.exists()}

    @rule(number=HOMES)
    def starts_anew(self, number: int) -> None:
        self.copies[number] = self.started(self.homes[number])
        self.looks(number)

    @rule(number=HOMES)
    def loses_a_disk(self, number: int) -> None:
        """Files are gone at a start: none of them is removed from the store."""
        before = dict(self.store)
        for name in NAMES:
            self.homes[number].config.joinpath(name).unlink(missing_ok=True)
        self.starts_anew(number)
        assert self.store == before

    @invariant()
    def nothing_broken_is_in_the_store(self) -> None:
        assert not [text for text in self.store.values() if "broken" in text]

    @invariant()
    def no_edit_that_was_kept_is_lost(self) -> None:
        for beside, text in self.overtaken:
            kept = beside.parent.glob(f"{beside.name}*")
            assert text in {one.read_text() for one in kept}

    @rule()
    def settles(self) -> None:
        """Once all have looked, every copy says what the store does, or is broken."""
        for number in (0, 1, 0, 1):
            self.looks(number)
        for number, (home, copies) in enumerate(
            zip(self.homes, self.copies, strict=True)
        ):
            said = self.texts(number)
            for name in NAMES[:2]:
                if said.get(name) != self.store.get(name):
                    assert "broken" in said[name]
                    assert name in copies.problems
            file = home.secrets_file
            content = json.loads(file.read_text()) if file.exists() else {}
            members = {
                f"secrets.json{MEMBER}{key}": json.dumps(value, separators=(",", ":"))
                for key, value in content.items()
            }
            assert members == {p: t for p, t in self.store.items() if MEMBER in p}


TestCopies = Copies.TestCase
TestCopies.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
