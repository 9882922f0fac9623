"""Waits for a change that a command became: a loosening needs an approver's factor."""

from __future__ import annotations

from typing import Final

from agentvault_tui.cli.device import followed, print_device
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, RefusedError, UnreachableError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.changes import ChangeDecision, ChangeInfo

_OPEN: Final = frozenset({"pending", "authorizing"})


def wait_for(session: CliSession, change: ChangeInfo) -> object:
    """Begin to approve *change*, and wait until it is decided.

    Leaving with Ctrl-C stops the waiting; the change waits on.

    Args:
        session: whose command it was.
        change: as it was asked for.

    Returns:
        the answer of the call, once it was carried out.

    Raises:
        RefusedError: it was denied, expired or cancelled.
        UnreachableError: the broker does not answer.
    """
    client, out = session.client, session.out
    out.note(
        f"{change.summary}: this needs an approver's factor ({change.id}, fingerprint"
        f" {change.fingerprint})"
    )
    approval = ChangeDecision(id=change.id, decision="approve", digest=change.digest)
    try:
        device = client.call(calls.DECIDE_CHANGE, approval).device
    except UnreachableError:
        raise
    except AgentVaultError as error:  # such as no_self: another person has to
        device = None
        out.note(f"{error.what}; elsewhere: agentvault stepup approve {change.id}")
    if device is not None and session.json:
        # The command's own data is all there is on stdout.
        out.note(f"open {device.verification_uri} and enter {device.user_code}")
    elif device is not None:
        print_device(session, device)
    ended = followed(
        session,
        lambda: client.call(calls.CHANGE, id=change.id),
        lambda now: now.status in _OPEN,
    )
    if ended.status != "applied":
        why = ended.denial or ended.problem
        raise RefusedError(
            f"the change {change.id} is {ended.status}" + (f": {why}" if why else "")
        )
    if ended.result is None:
        raise AgentVaultError(
            f"the change {change.id} is applied, and its answer was fetched already"
        )
    return ended.result
