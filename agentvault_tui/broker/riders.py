"""Record a loosening in the same transaction as the change itself."""

from __future__ import annotations

import asyncio
import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from agentvault_tui.ledger import Change
from agentvault_tui.model import Actor, ChangedText, Draft
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.policy.texts import (
    FILES,
    SCOPES_FOLDER,
    PolicyTexts,
    unpack_files,
)

_COMPARED: Final = 4_000_000
"""Pairs of lines that are compared, in about 0.1 s: 2,000 lines with as many."""
_RIDING: Final[ContextVar[Rider | None]] = ContextVar("rider", default=None)


@dataclass
class Rider:
    """Who, how proven, why and which texts, for the first event of a change.

    Either every event of the change and this are durable, or none: a loosening without
    its proof on record must not be possible (NIST SP 800-53 AU-12).
    """

    actor: Actor
    """Who decides; their first event takes it along."""
    detail: dict[str, Any]
    """``detail.loosened`` of that event."""
    draft: Draft | None = None
    """An event of its own to hold the detail, where a person's factor is the proof."""
    changes: Sequence[Change] = ()
    check: Callable[[], None] = lambda: None
    """Raises when the change may not be carried out any more."""
    more: tuple[Draft, ...] = field(default=(), init=False)
    """Events about the change, behind its own."""
    is_judged: bool = field(default=False, init=False)
    """Whether the call itself compared the change with its target, under its locks."""
    done: asyncio.Future[Any] | None = field(default=None, init=False)

    @property
    def recorded(self) -> bool:
        """Check whether it is durable with an event of the change."""
        done = self.done
        return done is not None and done.done() and not self._failed(done)

    @staticmethod
    def _failed(done: asyncio.Future[Any]) -> bool:
        return done.cancelled() or done.exception() is not None

    def join(self, drafts: Sequence[Draft]) -> tuple[Sequence[Draft], Sequence[Change]]:
        """Return *drafts* with this, and its rows; as they are where it has ridden."""
        under_way = self.done is not None and not (
            self.done.done() and self._failed(self.done)
        )
        mine = next((one for one in drafts if one.actor == self.actor), None)
        if under_way or mine is None:
            return drafts, ()
        self.check()
        return self.alone(drafts, mine)

    def alone(
        self, drafts: Sequence[Draft], mine: Draft | None = None
    ) -> tuple[Sequence[Draft], Sequence[Change]]:
        """Return *drafts* with this, whether or not one of them is the change's."""
        draft = self.draft or mine
        if draft is not None:
            draft.detail[LOOSENED] = self.detail
        own = (self.draft,) if self.draft is not None else ()
        return (*own, *drafts, *self.more), self.changes


def riding() -> Rider | None:
    """Return the rider of the change that this task carries out, if it does."""
    return _RIDING.get()


@contextmanager
def ride(rider: Rider) -> Iterator[Rider]:
    """Let *rider* ride with the first event that its actor records in the block."""
    token = _RIDING.set(rider)
    try:
        yield rider
    finally:
        _RIDING.reset(token)


def record_of(
    kinds: Sequence[str],
    summary: str,
    texts: Sequence[ChangedText],
    why: str | None,
    **more: object,
) -> dict[str, Any]:
    """Return the description of a loosening in its event: ``detail.loosened``.

    Args:
        kinds: of `CHANGE_KINDS`.
        summary: in a few words.
        texts: that were replaced.
        why: in the operator's words.
        **more: who, and how that was proven.

    Returns:
        the object.
    """
    return {
        "kinds": list(kinds),
        "summary": summary,
        "why": why or None,
        "texts": {
            one.name: {"before": one.before, "after": one.after} for one in texts
        },
        **more,
    }


def record_by_uid(
    actor: Actor, kinds: Sequence[str], summary: str, why: str = "", *texts: ChangedText
) -> dict[str, Any]:
    """Return `record_of` a loosening for which the socket, or the home, is enough.

    Args:
        actor: who makes it.
        kinds: of `CHANGE_KINDS`.
        summary: in a few words.
        why: in the operator's words.
        *texts: that are replaced.

    Returns:
        the object.
    """
    by = [{"sub": actor.id, "name": actor.name}]
    return record_of(kinds, summary, texts, why, proof="uid", by=by)


def text_change(name: str, before: str | None, after: str | None) -> ChangedText:
    """Return a replaced text as events name it.

    Args:
        name: of the file.
        before: None where there was none.
        after: None where it is removed.

    Returns:
        both by their SHA-256, and how they differ.
    """

    def digest(text: str | None) -> str | None:
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()

    return ChangedText(name, digest(before), digest(after), _diff(before, after))


def policy_changes(before: PolicyTexts, after: PolicyTexts) -> list[ChangedText]:
    """Return the policy's files whose active texts differ, each of scopes.d alone.

    Args:
        before: the texts of the active policy; shipped ones stand in for absent ones.
        after: the texts that replace them.

    Returns:
        the files by `text_change`, in the order of `FILES`.
    """
    old, new = _active(before), _active(after)
    return [
        text_change(name, old.get(name), new.get(name))
        for name in dict.fromkeys((*FILES, *sorted({*old, *new})))
        if old.get(name) != new.get(name)
    ]


def policy_kinds(changed: Iterable[ChangedText]) -> tuple[str, ...]:
    """Return of which `CHANGE_KINDS` changed files of a policy are."""
    kinds = ("limits" if one.name == "limits.toml" else "policy" for one in changed)
    return tuple(dict.fromkeys(kinds))


def _active(texts: PolicyTexts) -> dict[str, str]:
    """Return active texts by the names of their files."""
    names = dict(zip(PolicyTexts._fields, FILES, strict=True))
    active = {names[one]: text for one, text in texts.effective().items()}
    packed = unpack_files(active.pop(SCOPES_FOLDER, None))
    return active | {f"{SCOPES_FOLDER}/{name}": text for name, text in packed.items()}


def _diff(before: str | None, after: str | None) -> str:
    """Return the differing lines of two texts with three lines around each place.

    Comparing is quadratic, so that long texts are compared as a whole: all lines of
    the one are removed and all of the other added.
    """
    old, new = _lines(before), _lines(after)
    if len(old) * len(new) > _COMPARED:
        lines = [*(f"-{line}" for line in old), *(f"+{line}" for line in new)]
    else:
        # The names of the files are known; the third line is the first place.
        lines = [*difflib.unified_diff(old, new, lineterm="")][2:]
    return "\n".join(lines)


def _lines(text: str | None) -> list[str]:
    """Divide a text where the parsers of policies and files do.

    At no other line break of Unicode: if one became a line feed, a comment could
    become a rule, and no line would differ.
    """
    lines = (text or "").split("\n")
    return lines if lines[-1] else lines[:-1]


def by_file(kinds: Sequence[str], *texts: ChangedText) -> dict[str, Any]:
    """Return the event's detail of a change by an edited file.

    Args:
        kinds: of `CHANGE_KINDS`, the loosened kinds; none: it only tightens.
        texts: that were edited.

    Returns:
        members of the event's detail.
    """
    if not kinds:
        return {"by": "file"}
    summary = f"edited: {', '.join(one.name for one in texts)}"
    by = [{"sub": "file", "name": "file"}]
    draft = record_of(kinds, summary, texts, None, proof="file", by=by)
    return {"by": "file", LOOSENED: draft}
