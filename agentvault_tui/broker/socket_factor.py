"""Check whether the socket alone is enough for a loosening: ``[changes] socket``.

The uid of the socket's peer is a person's only where no agent runs as that user. Once
an agent has the socket, it can do whatever a person can there, so a factor is needed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.team_copies import put
from agentvault_tui.errors import LedgerError, TenantError
from agentvault_tui.home import Home
from agentvault_tui.ledger import Meta
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import Actor
from agentvault_tui.model.role import Role
from agentvault_tui.vault.management.objects import roles

_SHARED: Final = "agent_shares_user"
"""The name in the ledger of that an agent runs as the broker's own user."""
APPROVER: Final = "approver_existed"
"""The name in the ledger of that a factor was asked for at the socket: removing the
last approver, which needs none, must not end that."""


async def note_shared_user(broker: Broker, operator: Actor) -> None:
    """Note that an agent runs as *operator*, if that is the broker's own user.

    Args:
        broker: the broker.
        operator: who used `agentvault run`, or `connect` and the hooks it writes.

    Raises:
        LedgerError: it could not be recorded.
    """
    if operator.id == f"uid:{os.getuid()}" and _SHARED not in broker.recording.meta:
        await broker.record(changes=[Meta(_SHARED, "1")])
        broker.recording.meta[_SHARED] = "1"


async def asks_factor(broker: Broker) -> bool:
    """Check whether a loosening needs an approver's factor at the socket now.

    From the moment that there is an approver; before, there would be no factor. That
    lasts when the approver is removed, over restarts too: only a setting ends it.
    """
    reaching = broker.reaching
    recording = broker.recording
    wanted = broker.settings.changes.socket
    if wanted == "uid" or (wanted == "auto" and _SHARED not in recording.meta):
        return False
    if not reaching.people.has_approver and APPROVER not in recording.meta:
        try:
            reaching.people.has_approver = await _has_approver(broker)
        except TenantError:
            return True  # unknown is strict
    if reaching.people.has_approver and APPROVER not in recording.meta:
        with suppress(LedgerError):  # or at the next look
            await broker.record(changes=[Meta(APPROVER, "1")])
            put(recording.meta, APPROVER, "1")
    return reaching.people.has_approver or APPROVER in recording.meta


async def _has_approver(broker: Broker) -> bool:
    """Check whether somebody can approve.

    Raises:
        TenantError: the tenant cannot be asked: it may have an approver at any time.
    """
    if broker.settings.stepup.approvers:
        return True
    api = broker.reaching.access.management
    if api is None:
        raise TenantError("it is asked nothing without a management credential")
    return await roles.held(api, Role.APPROVER.value)


def asked_before(home: Home) -> tuple[bool, bool]:
    """Return a home's record of this, for commands while no broker runs.

    Args:
        home: the home.

    Returns:
        whether an agent ran as its user, and whether a factor was asked for.
    """
    if not home.database.exists():
        return False, False
    with read_home(home) as db:
        shared, recorded = (read_meta(db, name) for name in (_SHARED, APPROVER))
        return shared is not None, recorded is not None
