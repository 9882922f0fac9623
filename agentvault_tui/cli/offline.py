"""Loosening changes that a command makes in the files, because no broker runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentvault_tui.cli.session import CliSession, sign_in_needed
from agentvault_tui.errors import UnreachableError

if TYPE_CHECKING:
    from agentvault_tui.ledger import Change


def check_factor(session: CliSession, error: UnreachableError, change: str) -> None:
    """Refuse a change that needs a person's factor: there is no broker to prove it to.

    Otherwise a program of the broker's user could end the broker, and then make the
    change without a factor. Settings of the broker's last start count as well as the
    command's own: an environment variable is enough to change those.

    Args:
        session: the command's session.
        error: why no broker makes it.
        change: such as ``changing people``.

    Raises:
        UnreachableError: it needs a factor, or a role.
    """
    if not session.settings.operators.by_claim and _had(session)(
        "operators.roles", "claim"
    ):
        raise sign_in_needed(error, f"{change} takes an operator") from None
    if _needs_factor(session):
        raise type(error)(
            f"{error.what}, and {change} takes an approver's factor ([changes] socket)",
            "agentvault serve, then this command again",
        )


def approver_rows(session: CliSession) -> list[Change]:
    """Return the row that keeps a factor needed after the last approver is removed.

    Args:
        session: the session of a command that takes rights from a person.

    Returns:
        the row; none if no factor is needed now.
    """
    from agentvault_tui.broker.socket_factor import APPROVER
    from agentvault_tui.ledger import Meta

    return [Meta(APPROVER, "1")] if _needs_factor(session) else []


def _had(session: CliSession) -> Callable[[str, object], bool]:
    """Return the check of the settings of the broker's last start."""
    from agentvault_tui.broker.settings_record import last_start

    if session.settings.store.url:
        return lambda _name, _value: False  # the file is that of before the team
    return last_start(session.home)


def _needs_factor(session: CliSession) -> bool:
    """Check whether loosening needs a factor, now or by the last start's settings."""
    from agentvault_tui.broker.socket_factor import asked_before

    shared, prompted = asked_before(session.home)
    settings, had = session.settings, _had(session)
    own = settings.changes.socket
    wanted = {own, *(one for one in ("auto", "factor") if had("changes.socket", one))}
    if "factor" not in wanted and not ("auto" in wanted and shared):
        return False
    # By another list or tenant than the broker's, approvers seem not to exist.
    is_other = had("changes.socket", "factor") or had("changes.socket", "auto")
    is_other = is_other and not (
        had("stepup.approvers", settings.stepup.approvers)
        and had("tenant.issuer", settings.tenant.issuer)
    )
    return prompted or is_other or _has_approver(session)


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
