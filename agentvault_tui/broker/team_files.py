"""A team's files: those in effect are the store's, and each home has copies of them.

Each file is one row of the store's state, under its path in the home. Readers ask here,
so that nothing is in effect that the store does not have, and change with the row. An
edit of a copy that was in step is recorded, and so holds for all; of two edits at once
the store takes one. An edit of an outdated copy is stored next to it, as
``NAME.local``.

Of sealed files each member is a row. Their readers read the home's copy, which is
written before anything later than the row is known here.

The policy, with catalogue and limits, is one row of its own: an edit of one of these
files is put in effect and recorded by `usecases.policy_change`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from agentvault_tui.broker.policy_files import MAX_FILE
from agentvault_tui.broker.riders import by_file
from agentvault_tui.broker.team_copies import (
    MEMBER,
    TeamCopies,
    Texts,
    digest_of,
    put,
)
from agentvault_tui.errors import LedgerError, LedgerUnwritableError, OvertakenError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Change, EventQuery, Ledger, Meta
from agentvault_tui.model import (
    Actor,
    ActorKind,
    ChangedText,
    Draft,
    Event,
    EventType,
    sha256_hex,
)
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.policy.texts import (
    FILES,
    SCOPES_FOLDER,
    PolicyTexts,
    is_policy_file,
    pack_files,
    unpack_files,
)

ROW: Final = "file:"
"""Begins the key of a file's row; its path follows."""
_AT_ONCE: Final = 1024 * 1024
"""Characters that one commit carries, and the row with which it has more."""
_MAX_MEMBER: Final = 4 * 1024 * 1024
"""Of a member of a sealed file, in bytes."""
_TRIES: Final = 8
"""How often a sealed file is changed again where other brokers were first."""
log = logging.getLogger("agentvault.team")


_ALERTS: Final = "alerts.toml"


def file_draft(
    file: str,
    before: str | None,
    after: str | None,
    actor: Actor,
    *,
    opens: bool = False,
    **changes: object,
) -> Draft:
    """Return the event that a file of the home is in effect as it is now.

    Args:
        file: its path in the home.
        before: the SHA-256 of its earlier text; None if it did not exist.
        after: the same of its present text.
        actor: who changed it.
        opens: whether its removal loosens something.
        changes: the event's further members.

    An edit has no operator: the event states that a file brought it, and whether it
    loosens.
    """
    if actor.kind is ActorKind.SYSTEM and LOOSENED not in changes:
        loosens = after is not None or opens
        kinds = ("alerts",) if file == _ALERTS else ("services",)
        text = ChangedText(file, before, after)
        changes = by_file(kinds if loosens else (), text) | changes
    word = "added" if before is None else "changed" if after else "removed"
    detail = {"file": file, "before": before, "after": after, **changes}
    return Draft(
        EventType.SERVICE_CHANGED, actor, resource=file, reason=word, detail=detail
    )


class Loosens(NamedTuple):
    """The rights that an edit loosens."""

    kinds: tuple[str, ...]
    """Of `CHANGE_KINDS`."""
    details: Mapping[str, str] = MappingProxyType({})
    """The further content for the approver."""
    instead: str | None = None
    """The text that counts once the file is removed."""


Replacing = Callable[[str | None, str | None], Iterable[Change]]
"""Returns further rows of an edit, from the texts before and after."""
Judge = Callable[[str, str | None, str | None], Loosens | None]
"""Judges an edit by its path, and the texts before and after: None loosens nothing."""


class TeamFiles:
    """The files that a team's homes have in common, as this broker has them."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        recorded: Mapping[str, str],
        actor: Actor,
        notify: Callable[[], None],
    ) -> None:
        """Track nothing yet.

        Args:
            home: the home of the copies.
            ledger: the team's, as this home reaches it.
            recorded: the small values of the ledger, by name.
            actor: who records an edit of a copy.
            notify: called when the operators' view of copies changed.
        """
        self._home = home
        self.copies = TeamCopies(home)
        """This home's."""
        self.on_change: list[Callable[[], Awaitable[None]]] = []
        """Awaited once other texts are in effect; none may commit and wait for that."""
        self.in_force: list[Callable[[], Iterable[tuple[str, str]]]] = []
        """Each returns path and SHA-256 of files that a reader has in effect here."""
        self._notify = notify
        self.on_policy: Callable[[PolicyTexts, str | None], Awaitable[None]]
        """Awaited with the texts of this home's policy files, edits included, and the
        problem if one of them cannot be read or written."""
        self.judges: dict[str, Judge] = {}
        """By file or folder, the function that checks whether an edit loosens."""
        self.replacing: dict[str, Replacing] = {}
        """By file, the function that returns the rows to be recorded with an edit."""
        self.hold: Callable[[Mapping[str, str | None]], Awaitable[Collection[str]]]
        self.hold = _hold_nothing
        """Awaited with edits; returns the paths of those that are not recorded yet."""
        self.waiting: Collection[str] = ()
        """The paths of edits that wait for a person."""
        self._ledger = ledger
        self._recorded_texts = recorded
        self._actor = actor
        self._turn = asyncio.Lock()
        self._disk = asyncio.Lock()
        """Held while copies are read or written, and never while one is recorded."""
        self._due: dict[str, str | None] = {}
        """Members of encrypted files that are to be written before `tell` returns."""
        self._named: dict[str, str | None] = {}
        """The SHA-256 that the chain names last for a file; None: it was removed."""
        self._rows: Texts = {}
        self._texts: Texts = {}
        """The rows that are in effect; replaced as a whole."""
        self._unusable: dict[str, str] = {}
        """Why a row is not in effect, by its path; replaced as a whole."""
        self._policy: PolicyTexts | None = None
        """The policy that is recorded, if one is."""
        self._begun = False
        self._waits = ""
        """Why edits could not be recorded, if so."""

    def version(self) -> str:
        """Return a value that differs if other files are in effect."""
        versions = sorted(pair for reader in self.in_force for pair in reader())
        return sha256_hex(repr(versions))[:16]

    def text(self, path: str) -> str | None:
        """Return a file's text, if it is in effect."""
        return self._texts.get(path)

    def folder(self, name: str) -> dict[str, str]:
        """Return the texts of a folder's files, by their names there."""
        return _inside(name, self._texts)

    def problems_in(self, name: str) -> dict[str, str]:
        """Return why files of a folder are not in effect as they stand, likewise."""
        return _inside(name, self.copies.problems)

    def judge(self, path: str, text: str | None) -> Loosens | None:
        """Return the loosening of an edit, or with None of the file's removal."""
        judge = self.judges.get(path.partition("/")[0])
        return judge and judge(path, self._texts.get(path), text)

    def change(
        self, texts: Mapping[str, str | None], actor: Actor, **detail: object
    ) -> tuple[list[Draft], list[Change]]:
        """Return the record of new *texts* of files; None removes one.

        The commit is overtaken where another broker changed one of them meanwhile.
        """
        drafts, changes = list[Draft](), list[Change]()
        for path, text in texts.items():
            if MEMBER not in path:  # whoever changes what is sealed has recorded it
                before, after = self._named.get(path), digest_of(text)
                opens = text is None and bool(self.judge(path, None))
                drafts.append(
                    file_draft(path, before, after, actor, opens=opens, **detail)
                )
            if (replacing := self.replacing.get(path)) is not None:
                changes += replacing(self._texts.get(path), text)
            changes.append(Meta(f"{ROW}{path}", text))
        return drafts, changes

    def take(self, events: Iterable[Event], changes: Iterable[Change]) -> bool:
        """Apply a record, from here or elsewhere, in the order of the chain.

        Returns:
            whether other texts are in effect now: then `tell` is to be awaited.
        """
        for event in events:
            if event.type is EventType.SERVICE_CHANGED:
                self._named[str(event.resource)] = event.detail.get("after")
        changed = [
            (change.key.removeprefix(ROW), change.value)
            for change in changes
            if isinstance(change, Meta) and change.key.startswith(ROW)
        ]
        if not self._begun or not changed:
            return False
        for path, text in changed:
            if text is None:
                self._rows.pop(path, None)
            else:
                self._rows[path] = text
        self._put_in_force([path for path, _ in changed])
        for path, _ in changed:
            if MEMBER in path and path not in self._unusable:
                self._due[path] = self._texts.get(path)
        return True

    def put_policy(self, texts: PolicyTexts) -> None:
        """Take the policy's files, by the last recorded policy."""
        texts_of_policy = dict(self._texts)
        for path in filter(is_policy_file, self._texts):
            del texts_of_policy[path]
        texts_of_policy |= _policy_paths(texts)
        self._policy, self._texts = texts, texts_of_policy

    async def tell(self) -> None:
        """Let readers put in effect the texts that `take` took.

        Raises:
            OSError: a sealed file cannot be written.
        """
        async with self._disk:
            due, self._due = self._due, {}
            if due:
                await asyncio.to_thread(self.copies.merge, due, self._texts)
        for changed in self.on_change:
            await changed()

    async def publish(self, change: Callable[[], object]) -> None:
        """Let *change* write encrypted files, and publish them to the other brokers.

        Args:
            change: called in a thread, and again where another broker was first.

        Raises:
            LedgerError: it is written here, and recorded later; or others were first
                each time.
        """
        for _ in range(_TRIES):
            if await self.look(change):
                return
            if self._waits:
                raise LedgerUnwritableError(self._waits, "ask again shortly")
        raise OvertakenError("other brokers changed it meanwhile", "ask again")

    async def look(self, change: Callable[[], object] | None = None) -> bool:
        """Record edits of copies, and write copies that are outdated.

        Args:
            change: writes sealed files before that; called in a thread.

        Returns:
            whether all edits are recorded that may be.
        """
        async with self._turn:
            if not self._begun:
                await self._begin()
            copies = self.copies
            for path in FILES if self._policy is not None else ():
                copies.track(path, self._home.config / path, lambda *_: None)
            problems = copies.problems, copies.aside
            # In a thread: files are read, checked and written.
            async with self._disk:
                if change is not None:
                    await asyncio.to_thread(change)
                texts, seen = self._texts, self._unusable
                edits = await asyncio.to_thread(
                    lambda: copies.compare(texts, seen, keep=change is None)
                )
                await asyncio.to_thread(copies.keep_base)
            policy_texts = _policy_of(texts, edits)
            edits = {path: edits[path] for path in edits if not is_policy_file(path)}
            if self._policy is not None and self._texts is texts:
                whys = [
                    why for path, why in copies.problems.items() if is_policy_file(path)
                ]
                await self.on_policy(policy_texts, whys[0] if whys else None)
            for path in tuple(await self.hold(edits)):
                del edits[path]
            recorded = change is None or not copies.lost
            for part in _parts(edits):
                recorded = recorded and await self._record(part, texts)
        if (copies.problems, copies.aside) != problems:
            self._notify()
        return recorded

    async def _record(self, edits: Mapping[str, str | None], texts: Texts) -> bool:
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
        await self.tell()
        async with self._disk:
            self.copies.in_step(edits)
            await asyncio.to_thread(self.copies.keep_base)
        return True

    async def _begin(self) -> None:
        """Take the rows that a start loaded, with the chain's digest of each."""
        self._rows = {
            key.removeprefix(ROW): text
            for key, text in self._recorded_texts.items()
            if key.startswith(ROW)
        }
        await asyncio.to_thread(self.copies.begin, self._ledger.ledger_id)
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
            if is_policy_file(path):  # what these say, the policy's own row does
                put(unusable, f"{ROW}{path}", why)
                continue
            put(unusable, path, why)
            put(texts, path, text if why is None else None)
        self._texts, self._unusable = texts, unusable

    def _why_unusable(self, path: str, text: str) -> str | None:
        sealed = MEMBER in path
        if is_policy_file(path) or self.copies.place(path) is None:
            # Of a tenant that another home still asks, or asked before.
            return "" if sealed else "it is no file that a home may have"
        most = _MAX_MEMBER if sealed else MAX_FILE
        if len(text.encode()) > most:
            return f"it is larger than {most // 1024} KiB"
        if sealed:
            return None if _is_json(text) else "it is no sealed member"
        if digest_of(text) != self._named.get(path):
            return "the store has another text than its events name"
        return None


async def _hold_nothing(_: Mapping[str, str | None]) -> Collection[str]:
    """Stand in until edits are judged."""
    return ()


def _policy_paths(texts: PolicyTexts) -> Texts:
    """Return the texts of a policy's files, by their paths."""
    own = unpack_files(texts.own_scopes)
    paths = dict(zip(FILES, texts[:3], strict=False))
    paths |= {f"{SCOPES_FOLDER}/{name}": text for name, text in own.items()}
    return {path: text for path, text in paths.items() if text is not None}


def _policy_of(texts: Texts, edits: Mapping[str, str | None]) -> PolicyTexts:
    """Return the texts of the policy's files, with *edits* of them."""
    after = dict(texts)
    for path, text in edits.items():
        put(after, path, text)
    policy, scopes, limits = map(after.get, FILES[:3])
    own_scopes = pack_files(_inside(SCOPES_FOLDER, after))
    return PolicyTexts(policy, scopes, limits, own_scopes)


def _inside(folder: str, values: Mapping[str, str]) -> dict[str, str]:
    start = f"{folder}/"
    return {
        path.removeprefix(start): value
        for path, value in values.items()
        if path.startswith(start)
    }


def _parts(edits: Mapping[str, str | None]) -> Iterator[dict[str, str | None]]:
    """Divide edits into the parts of one commit each."""
    part, size = dict[str, str | None](), 0
    for path, text in edits.items():
        if size > _AT_ONCE:
            yield part
            part, size = {}, 0
        part[path] = text
        size += len(path) + len(text or "")
    if part:
        yield part


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return False
    return True
