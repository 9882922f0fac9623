"""An edit of a team's file in one home directory waits for an approver's factor.

Only where `socket_factor` asks for one: who may edit the files may then be an agent.
The store's version decides meanwhile, at every broker. Approved at any broker, exactly
the edited text is recorded. If the store's version changes before, or the edit is
undone, the change is cancelled. The policy's own files are held by `policy_edits`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.team_copies import digest_of
from agentvault_tui.broker.team_files import Loosens, TeamFiles
from agentvault_tui.broker.usecases.change_basis import OUTDATED
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.broker.usecases.stepup_end import cancel
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model import Actor, ActorKind, StepUpId

log = logging.getLogger("agentvault.team")

EDIT: Final = "EDIT team file"
"""Names the carrier of such a change, next to those of calls."""
_STATE: Final = "team file"
_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")


def hold_team_edits(broker: Broker) -> None:
    """Have edits of a team's files that loosen wait, where a factor is asked for.

    Args:
        broker: the broker, before copies are compared with the store.
    """
    if (files := broker.team.files) is not None:
        edits = _Edits(broker, files)
        files.hold, broker.extensions.carriers[EDIT] = edits.hold, edits.carry
        broker.extensions.states[_STATE] = lambda path: f"{digest_of(files.text(path))}"


class _Edits:
    """The edits of one home directory that are not recorded yet."""

    def __init__(self, broker: Broker, files: TeamFiles) -> None:
        self._broker, self._files = broker, files
        self._changes: dict[str, tuple[str | None, StepUpId]] = {}
        """For which text a change was asked for, and its id."""

    async def hold(self, edits: Mapping[str, str | None]) -> Collection[str]:
        """Ask a person about each edit that loosens; return the paths that wait."""
        loosened: dict[str, Loosens] = {}
        for path, text in edits.items():
            if judged := self._files.judge(path, text):
                loosened[path] = judged
        if loosened and not await asks_factor(self._broker):
            loosened = {}
        self._files.waiting = loosened.keys()
        await self._cancel_outdated({path: edits[path] for path in loosened})
        for path, loosens in loosened.items():
            if path not in self._changes:
                await self._ask(path, edits[path], loosens)
        return loosened.keys()

    async def _cancel_outdated(self, waiting: Mapping[str, str | None]) -> None:
        """Cancel changes that were asked for other texts than those that wait."""
        stepups = self._broker.stepups
        for path, (text, change_id) in list(self._changes.items()):
            if path in waiting and waiting[path] == text:
                continue
            if change_id in stepups.deciding:
                continue  # it is being carried out, which is why the edit is gone
            del self._changes[path]
            change = stepups.find(change_id)
            if change is not None and change.status.open:
                await cancel(self._broker, change_id, OUTDATED, _FILE)

    async def _ask(self, path: str, text: str | None, loosens: Loosens) -> None:
        verb, after = "edited", text
        if text is None:
            verb, after = "removed", loosens.instead
        wanted = Wanted(
            loosens.kinds,
            f"{verb} on a broker's machine: {path}",
            path,
            (f"{_STATE}:{path}",),
            (text_change(path, self._files.text(path), after),),
            loosens.details,
        )
        request = {"path": {}, "body": {"file": path, "text": text}}
        try:
            change = await ask(self._broker, EDIT, request, wanted, Asker(_FILE, _FILE))
        except AgentVaultError as error:  # the next look asks again
            log.warning("an edit of %s waits: %s", path, error.what)
            return
        self._changes[path] = text, change.id
        self._broker.health.changed()

    async def carry(self, request: Mapping[str, Any], actor: Actor) -> bytes:
        """Record the edited text, once it is approved."""
        path, text = str(request["body"]["file"]), request["body"]["text"]
        drafts, changes = self._files.change({path: text}, actor)
        await self._broker.record(*drafts, changes=changes)
        await self._files.tell()
        await self._files.look()  # which writes this home's copy
        return b"{}"
