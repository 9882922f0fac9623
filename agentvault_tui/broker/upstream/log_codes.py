"""What the codes of the tenant's log mean, in a few plain words each.

Auth0's rows carry a code and often no description, so an audit of them alone would be
read by nobody who has not the table beside it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

WORDS: Final = MappingProxyType(
    {
        # Token Vault and connected accounts
        "seta": "Token Vault gave a token",
        "feta": "Token Vault gave no token",
        "connected_accounts_connection_succeeded": "account connected",
        "connected_accounts_connection_failed": "account not connected",
        "connected_accounts_delete_succeeded": "connected account deleted",
        "connected_accounts_delete_failed": "connected account not deleted",
        # Device sign-in
        "sede": "device sign-in gave tokens",
        "fede": "device sign-in gave no tokens",
        "fdeaz": "device sign-in did not start",
        "fdeac": "device code not activated",
        "fdecc": "device sign-in cancelled by the person",
        # Tokens
        "sertft": "refresh token used",
        "fertft": "refresh token refused",
        "ferrt": "refresh token used a second time",
        "srrt": "refresh token revoked",
        "seccft": "client got a token of its own",
        "feccft": "client got no token of its own",
        "seacft": "sign-in code gave tokens",
        "feacft": "sign-in code refused",
        "secte": "custom token exchanged",
        "fecte": "custom token refused",
        "success_on_behalf_of_token_exchange": "token exchanged on a person's behalf",
        "failed_on_behalf_of_token_exchange": "no token on a person's behalf",
        "idjag_exchange_succeeded": "cross-app token given",
        "idjag_exchange_failed": "cross-app token refused",
        # Approval by backchannel
        "ciba_start_succeeded": "approval asked for",
        "ciba_start_failed": "approval not asked for",
        "ciba_exchange_succeeded": "approval gave tokens",
        "ciba_exchange_failed": "approval gave no tokens",
        # Signing in
        "s": "signed in",
        "f": "sign-in failed",
        "fp": "wrong password",
        "fu": "no such user name",
        # Second factors
        "gd_start_auth": "second factor asked for",
        "gd_auth_succeed": "second factor right",
        "gd_auth_failed": "second factor wrong",
        "gd_auth_rejected": "second factor refused by the person",
        "gd_otp_rate_limit_exceed": "too many one-time codes tried",
        "gd_send_pn": "push message sent",
        "gd_send_pn_failure": "push message not sent",
        "gd_start_enroll": "second factor being set up",
        "gd_enrollment_complete": "second factor set up",
        "gd_unenroll": "second factor removed",
        "gd_recovery_succeed": "recovery code right",
        "gd_recovery_failed": "recovery code wrong",
        "gd_recovery_rate_limit_exceed": "too many recovery codes tried",
        "mfar": "second factor needed",
        # The Management API, whose rows name what was asked
        "sapi": "Management API changed something",
        "fapi": "Management API refused a change",
        "mgmt_api_read": "Management API read a secret",
        # The tenant itself
        "actions_execution_failed": "an Action failed",
        "api_limit": "rate limit reached",
        "api_limit_warning": "rate limit nearly reached",
        "limit_mu": "address blocked: too many failures",
        "limit_wc": "account blocked: too many failures",
        "pla": "risk looked at before a sign-in",
        "appi": "higher rate limit began",
        "depnote": "something in use will be taken away",
    }
)
"""By code, as Auth0's list of log event types names them."""


_TITLED: Final = {"sapi": "", "fapi": "refused"}
"""Before a description that names what was done better than our words do."""


def meaning(code: str, description: str) -> str | None:
    """Say what a row means: our words for its *code*, and what it says besides.

    A description that only repeats the code or our words is no better than they are.
    Nothing when neither is known: then the code stands alone.
    """
    words, said = WORDS.get(code, ""), description.strip()
    if said.casefold() in {code.casefold(), words.casefold()}:
        said = ""
    if said and code in _TITLED:
        words = _TITLED[code]
    return ": ".join(part for part in (words, said) if part) or None
