"""Whose proven second factor is a yes that counts."""

from __future__ import annotations

from agentvault_tui.model.role import Role, role_of
from agentvault_tui.settings import Settings
from agentvault_tui.vault import Identity, is_approver


def may_approve(identity: Identity, settings: Settings) -> bool:
    """Tell whether *identity*, proven a moment ago, may approve.

    An approver by the list of approvers or by role. Where the tenant gives a role of
    ours, or where roles are ``claim``, being on the list is not enough.
    """
    if not is_approver(identity, settings.stepup.approvers):
        return False
    role = role_of(identity.roles)
    if role is None:
        return not settings.operators.by_claim
    return role is Role.APPROVER
