"""The text of a refusal: the tenant's three error envelopes, with remedies.

* the Authentication API (RFC 6749 section 5.2): ``error``, ``error_description``
* the Management API: ``statusCode``, ``error``, ``message``, ``errorCode``
* the My Account API (RFC 9457): ``type``, ``status``, ``title``, ``detail``,
  ``validation_errors``
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agentvault_tui.errors import (
    TenantBusyError,
    TenantConflictError,
    TenantCredentialError,
    TenantError,
    TenantNotFoundError,
    TenantRefusedError,
    TenantScopeError,
    TenantUnreachableError,
)
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.reply import Json, TenantReply


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal, read; every text of it is displayable."""

    status: int
    code: str
    """Stable, such as ``insufficient_scope``; the status in words when none came."""
    message: str = ""
    scopes: tuple[str, ...] = ()
    """The scopes of which one would have been enough, when the tenant named them."""


_SCOPES: Final = re.compile(r"[Ii]nsufficient scope.*?:\s*([\w:./, -]{1,1000})")
_GRANT: Final = re.compile(r"Grant type '([^']{1,200})'")
_WORDS: Final = re.compile(r"[^a-z0-9]+")
_KINDS: Final[dict[int, type[TenantRefusedError]]] = {
    401: TenantCredentialError,
    404: TenantNotFoundError,
    409: TenantConflictError,
}
_REMEDIES: Final = {
    "access_denied": "see whether an Action, a client grant or the policy forbids it",
    "invalid_client": "check the client id, and its secret or key",
    "invalid_grant": "sign in again: what was shown is spent, revoked or unknown",
    "invalid_token": "get a new token: this one is expired or for another API",
    "mfa_required": "set the tenant's MFA policy to Never; our Actions ask for it",
    "unauthorized_client": "enable the grant for the client",
    "unmet_authentication_requirements": "sign in again with a second factor",
    "inexistent_user": "check the user id",
    **dict.fromkeys(
        ("insufficient_entitlement", "trial_expired", "feature_not_enabled"),
        "the tenant's plan does not have it: change the plan, or do without",
    ),
}
_GRANTS: Final = {
    DEVICE_GRANT: ("enable the Device Code grant for the client, a native application"),
    VAULT_GRANT: (
        "enable the Token Vault grant for the client, a confidential first-party one"
    ),
    "client_credentials": "enable the Client Credentials grant for the client",
    "refresh_token": "enable the Refresh Token grant for the client",
}


def read_refusal(reply: TenantReply) -> Refusal:
    """Read an answer that is no success, in whichever envelope it came."""
    body = reply.body or {}
    if type(body.get("statusCode")) is int:
        code = body.get("errorCode") or body.get("error")
        return _refusal(reply, code, body.get("message"))
    if isinstance(body.get("title"), str) and ("type" in body or "status" in body):
        return _refusal(reply, _tail(body.get("type")), _problem(body))
    if reply.error:
        return _refusal(reply, reply.error, body.get("error_description"))
    return Refusal(reply.status, f"status_{reply.status}")


def refused(
    reply: TenantReply, what: str, now: datetime, *, scope: str = ""
) -> TenantError:
    """Return the error for a reply that is no success: "the tenant would not *what*".

    *scope* is the needed one, if the tenant does not name it.
    """
    refusal = read_refusal(reply)
    # The embedded tenant's own caps are no rate limit.
    if reply.status == 429 and "cap" not in (reply.body or {}):
        pause = reply.wait(now) or 0.0
        suffix = f" for {pause:.0f} s" if pause else ""
        return TenantBusyError(
            f"the tenant's rate limit is spent{suffix}; it would not {what}",
            "wait, or ask for less at a time",
            retry_after=pause,
        )
    if reply.status >= 500 or reply.status in {408, 425}:
        return TenantUnreachableError(
            f"the tenant answered {reply.status}", "try again in a moment"
        )
    if reply.status < 400:
        return TenantUnreachableError(
            f"the tenant answered {reply.status} where nothing does",
            "check that tenant.issuer is the tenant you mean",
        )
    sentence = f"the tenant would not {what}: {refusal.code} {refusal.message}".rstrip()
    if is_scope(refusal):
        scopes = refusal.scopes or tuple(filter(None, [scope]))
        return TenantScopeError(
            refusal.code,
            sentence,
            f"grant the client the scope {' or '.join(scopes)}" if scopes else "",
            status=reply.status,
            scopes=scopes,
        )
    kind = TenantRefusedError
    if refusal.code in {"invalid_client", "invalid_token"}:
        kind = TenantCredentialError
    kind = _KINDS.get(reply.status, kind)
    return kind(refusal.code, sentence, _remedy(refusal), status=reply.status)


def is_scope(refusal: Refusal) -> bool:
    """Check whether it is a scope that is missing."""
    return bool(refusal.scopes) or refusal.code == "insufficient_scope"


def _remedy(refusal: Refusal) -> str:
    grant = _GRANT.search(refusal.message)
    if grant is not None:
        return _GRANTS.get(grant[1], "enable that grant for the client")
    if "Service not found" in refusal.message:
        return "make an API with this identifier on the tenant"
    if "client-grant" in refusal.message or "is not authorized" in refusal.message:
        return "authorize the client for that API with a client grant"
    return _REMEDIES.get(refusal.code, "")


def _refusal(reply: TenantReply, code: object, message: object) -> Refusal:
    text = visible(message, 300) if isinstance(message, str) else ""
    scopes: tuple[str, ...] = ()
    listed = _SCOPES.search(text)
    if listed is not None:
        words = re.split(r"[,\s]+", listed[1].strip(" .,"))
        scopes = tuple(word for word in words if word)[:20]
    return Refusal(reply.status, _code(code, reply), text, scopes)


def _code(code: object, reply: TenantReply) -> str:
    """Return *code* as a stable word: ``Not Found`` is ``not_found``."""
    if not isinstance(code, str) or not code.strip():
        return f"status_{reply.status}"
    if " " in code:
        code = _WORDS.sub("_", code.lower()).strip("_")
    return visible(code, 60) or f"status_{reply.status}"


def _tail(uri: object) -> object:
    """Return the last word of a problem type, which is a URI (RFC 9457 3.1.1)."""
    if not isinstance(uri, str) or uri == "about:blank":
        return ""
    return re.split(r"[/#:]", uri.rstrip("/"))[-1]


def _problem(body: Json) -> str:
    """Return title, detail and the invalid parts, as one sentence."""
    texts = [body.get("title"), body.get("detail")]
    errors = body.get("validation_errors")
    for error in errors[:5] if isinstance(errors, list) else []:
        if isinstance(error, dict):
            texts += [error.get("field") or error.get("pointer"), error.get("detail")]
    return ": ".join(one for one in texts if isinstance(one, str) and one)
