"""An edit of the policy's files that loosens waits for an approver's factor.

Only where `socket_factor` asks for one: who may edit the files may then be an agent.
The version before decides meanwhile. Approved, exactly the edited texts are applied; if
the files say something else by then, the change is cancelled. In a team any broker can
approve: the other home directories lack the edit, so only the broker with the edited
files cancels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import read_texts
from agentvault_tui.broker.riders import policy_changes, policy_kinds
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.usecases.change_basis import OUTDATED, subjects_of
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.policy_change import POLICY, read_kept
from agentvault_tui.broker.usecases.stepup_end import cancel
from agentvault_tui.errors import AgentVaultError
from agentvault_tui.model import Actor, ActorKind, AgentId, StepUp
from agentvault_tui.policy import Policy, PolicyTexts, differences, only_tightens

log = logging.getLogger("agentvault.policy")

EDIT: Final = "EDIT policy"
"""Names the carrier of such a change, next to those of calls."""
_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")
_ON_DISK: Final = "policy files"
_AT_BROKER: Final = "policy files of a broker"
"""The same in a team: its state is the same everywhere, see `_cancel_outdated`."""


def hold_policy_edits(broker: Broker) -> None:
    """Have edits that loosen wait, where a factor is asked for.

    Args:
        broker: the broker, before its policy's files are looked at.
    """
    extensions = broker.extensions
    broker.deciding.state.hold = partial(_hold, broker)
    extensions.carriers[EDIT] = partial(_carry, broker)
    extensions.states[_ON_DISK] = lambda _: read_texts(broker.home).digest()
    extensions.states[_AT_BROKER] = lambda _: ""
    waiting = _changes_of(broker)
    broker.deciding.state.held = waiting[-1].id if waiting else None


async def _hold(broker: Broker, last: Policy, edited: Policy) -> bool:
    """Check whether *edited* has to wait; then it is asked for, once."""
    broker.deciding.state.held = None
    waits = (
        last.texts != edited.texts
        and not only_tightens(last, edited)
        and await asks_factor(broker)
    )
    held = await _ask(broker, last, edited) if waits else None
    await _cancel_outdated(broker, held)
    return waits


def _edit_of(broker: Broker) -> str:
    """Name the edited files, as a change of them does."""
    shared = broker.ledger.shared
    return f"{_AT_BROKER}:{shared.broker_id}" if shared else _ON_DISK


def _changes_of(broker: Broker) -> list[StepUp]:
    """Return the changes of this home's files that wait."""
    edit, waiting = _edit_of(broker), broker.stepups.open(AgentId(""))
    return [one for one in waiting if one.change and edit in subjects_of(one)]


async def _cancel_outdated(broker: Broker, held: str | None) -> None:
    """Cancel the changes of this home's files, but for *held*."""
    # One that is being carried out is why the files are no longer edited.
    spared = {held, *broker.stepups.deciding}
    for one in _changes_of(broker):
        if one.id not in spared:
            await cancel(broker, one.id, OUTDATED, _FILE)


async def _ask(broker: Broker, last: Policy, edited: Policy) -> str | None:
    """Ask a person about *edited*; return the id of the change, if it could be."""
    record = broker.recording.meta.get(POLICY)
    if record is not None and read_kept(record)[1] != last.texts:
        return None  # another policy was applied meanwhile: the next look compares
    changed = policy_changes(last.texts, edited.texts)
    folders = dict.fromkeys(one.name.partition("/")[0] for one in changed)
    named = " and ".join(folders) or "policy.cedar"
    wanted = Wanted(
        policy_kinds(changed) or ("policy",),
        f"edited on the broker's machine: {named}",
        named,
        ("policy", _edit_of(broker)),
        tuple(changed),
        differences(last, edited),
    )
    request = {"path": {}, "body": edited.texts._asdict()}
    try:
        change = await ask(broker, EDIT, request, wanted, Asker(_FILE, _FILE))
    except AgentVaultError as error:  # the next look asks again
        log.warning("an edit of the policy waits: %s", error.what)
        return None
    broker.deciding.state.held = change.id
    broker.health.changed()
    return change.id


async def _carry(broker: Broker, request: Mapping[str, Any], actor: Actor) -> bytes:
    """Apply the edited texts, once they are approved."""
    texts = PolicyTexts(**request["body"])._asdict()
    await apply_policy(broker, texts, actor, None, "")
    broker.deciding.state.held = None
    return b"{}"
