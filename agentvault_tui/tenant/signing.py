"""Tells the log how sign-ins went, on the activation pages and on the login pages."""

from __future__ import annotations

from typing import Any, Final

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.clients import Client, log_name
from agentvault_tui.tenant.journal import Code, Journal, Peer
from agentvault_tui.tenant.people import User
from agentvault_tui.tenant.signin import WrongSignInError
from agentvault_tui.tenant.tokens import MFA_ACR

_CODES: Final[dict[str, Code]] = {"wrong_sign_in": "fp", "wrong_otp": "gd_auth_failed"}
_LOCKED: Final[tuple[Code, Code]] = ("limit_wc", "gd_otp_rate_limit_exceed")
"""Too many passwords, and too many one-time codes."""


class SignInLog:
    """Writes the rows that Auth0 writes."""

    def __init__(self, journal: Journal) -> None:
        """Write to *journal*."""
        self._journal = journal

    def succeeded(
        self, user: User, client: Client | None, peer: Peer, *, mfa: bool
    ) -> None:
        """Note that *user* showed every factor that was asked for."""
        prompts: list[dict[str, Any]] = [{"name": "login"}]
        if mfa:
            self._journal.write("gd_auth_succeed", user=user, peer=peer)
            prompts.append(
                {"name": "mfa", "performed_amr": ["mfa"], "performed_acr": [MFA_ACR]}
            )
        details = {"prompts": prompts}
        name = log_name(client)
        self._journal.write("s", client=name, user=user, peer=peer, details=details)

    def challenged(self, user: User, peer: Peer) -> None:
        """Note that *user*, whose password was right, is asked for a second factor."""
        self._journal.write("gd_start_auth", user=user, peer=peer)

    def refused(
        self, error: TenantRefusedError, peer: Peer, user: User | None = None
    ) -> None:
        """Note a failed sign-in; what was typed as a name is nobody's business."""
        kind = _CODES.get(error.error, "f")
        if isinstance(error, WrongSignInError) and not error.known:
            kind = "fu"
        elif error.error == "locked":
            kind = _LOCKED[user is not None]
        self._journal.write(
            kind,
            description=error.what,
            user=user,
            peer=peer,
            details={"error": error.error},
        )
