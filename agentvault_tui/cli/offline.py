"""Loosening changes that a command makes in the files, because no broker runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UnreachableError

if TYPE_CHECKING:
    from agentvault_tui.ledger import Change


def check_factor(session: CliSession, error: UnreachableError, change: str) -> bool:
    """Refuse a change that needs a person's factor: there is no broker to prove it to.

    Otherwise a program of the broker's user could end the broker, and then make the
    change without a factor.

    Args:
        session: the command's session.
        error: why no broker makes it.
        change: such as ``changing people``.

    Returns:
        whether a setting has turned off the factor that was required before.

    Raises:
        UnreachableError: it needs a factor.
    """
    asks, prompted = _asks_factor(session)
    if asks and (prompted or _has_approver(session)):
        raise type(error)(
            f"{error.what}, and {change} takes an approver's factor ([changes] socket)",
            "agentvault serve, then this command again",
        )
    return prompted and not asks


def approver_rows(session: CliSession) -> list[Change]:
    """Return the row that keeps a factor needed after the last approver is removed.

    Args:
        session: the session of a command that takes rights from a person.

    Returns:
        the row; none if no factor is needed now.
    """
    from agentvault_tui.broker.socket_factor import APPROVER
    from agentvault_tui.ledger import Meta

    asks, _ = _asks_factor(session)
    return [Meta(APPROVER, "1")] if asks and _has_approver(session) else []


def _asks_factor(session: CliSession) -> tuple[bool, bool]:
    """Return whether loosening needs a factor once one exists, and whether it did."""
    from agentvault_tui.broker.socket_factor import asked_before

    shared, prompted = asked_before(session.home)
    socket = session.settings.changes.socket
    return socket == "factor" or (socket == "auto" and shared), prompted


def _has_approver(session: CliSession) -> bool:
    """Check whether a person in the home directory's files can approve."""
    from agentvault_tui.tenant.file_store import is_kept
    from agentvault_tui.tenant.users import UserStore

    settings = session.settings
    if settings.stepup.approvers:
        return True
    if settings.tenant.issuer or not is_kept(session.home, settings):
        return False
    with UserStore(session.home, settings) as users:
        return any(one.approver and not one.blocked for one in users.all())


def loosened_here(session: CliSession, kind: str, summary: str) -> dict[str, Any]:
    """Return ``detail.loosened`` of a change that a command makes by itself."""
    from agentvault_tui.broker.riders import record_by_uid

    return record_by_uid(session.operator, (kind,), summary)
