"""Answers and errors as OAuth's wire has them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final, assert_never

from agentvault_tui.broker import answers
from agentvault_tui.broker.audience import audience_claim
from agentvault_tui.errors import OutcomeUnknownError, TooFastError
from agentvault_tui.model import TokenKind
from agentvault_tui.text import clip
from agentvault_tui.vault.credentials import TYPE_PROVIDER
from agentvault_tui.web.reply import Header, Reply, json_reply

TYPE_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
"""RFC 8693 section 3."""
_LONGEST: Final = 500
_SAFE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{0,500}")
"""RFC 6749 section 5.2: the permitted characters of ``error_description``."""
_ASCII: Final = str.maketrans(
    {"‘": "'", "’": "'", "“": "'", "”": "'", "–": "-", "—": "-", "\n": " ", "\r": " "}
)
_REPLACED: Final = str.maketrans({'"': "'", "\\": "/"})
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="agentvault", charset="UTF-8"')


class OAuthError(Exception):
    """A request that gets an error answer."""

    def __init__(
        self, status: int, error: str, text: str, headers: tuple[Header, ...] = ()
    ) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.text = text
        self.headers = headers

    def reply(self) -> Reply:
        """Return the error as RFC 6749 section 5.2 writes it."""
        return error_reply(self.status, self.error, self.text, self.headers)


def error_reply(
    status: int,
    error: str,
    text: str,
    headers: tuple[Header, ...] = (),
    **more: object,
) -> Reply:
    """Return an error answer; *text* may hold anything."""
    body = {"error": error, "error_description": describable(text), **more}
    return json_reply(status, body, *headers)


def describable(text: str) -> str:
    """Bring *text* to the characters ``error_description`` may hold, still readable."""
    if _SAFE.fullmatch(text):
        return text
    plain = unicodedata.normalize("NFKD", text[: _LONGEST * 2].translate(_ASCII))
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    return clip(letters, _LONGEST, ascii_only=True).translate(_REPLACED)


def malformed(text: str) -> OAuthError:
    """Return the fault of a request that makes no sense."""
    return OAuthError(400, "invalid_request", text)


def bad_client() -> OAuthError:
    """Return the one fault of every failed authentication: it tells nothing apart."""
    text = (
        "client authentication failed: no client with this id and this secret or key "
        "is registered at this broker; one of another home is not known here"
    )
    return OAuthError(401, "invalid_client", text, headers=(_CHALLENGE,))


def unavailable(text: str, seconds: int) -> OAuthError:
    """Return the fault of a broker that cannot answer now."""
    retry = (b"retry-after", b"%d" % seconds)
    return OAuthError(503, "temporarily_unavailable", text, headers=(retry,))


def too_fast(error: TooFastError) -> OAuthError:
    """Return the fault of a request beyond its agent's rate; the next second counts."""
    retry = (b"retry-after", b"%d" % answers.RATE_RETRY)
    return OAuthError(429, "slow_down", error.diagnosis(), headers=(retry,))


def outcome_unknown(error: OutcomeUnknownError, seconds: int) -> Reply:
    """Answer a request whose record may or may not have been committed."""
    return error_reply(
        503,
        "temporarily_unavailable",
        error.what,
        ((b"retry-after", b"%d" % seconds),),
        reason="outcome_unknown",
        decision_id=error.decision_id,
    )


def token_reply(answer: answers.Decided) -> Reply:
    """Answer a client_credentials request; refusal and step-up are 403.

    Auth0's clients take 429 and 5xx for faults.
    """
    match answer:
        case answers.Granted():
            return _granted(answer)
        case answers.Denied():
            return _denied(403, answer)
        case answers.InvalidScope():
            return error_reply(400, "invalid_scope", answer.message)
        case answers.Escalated():
            return error_reply(
                403,
                "insufficient_user_authentication",
                answer.message,
                auth_req_id=answer.stepup.id,
                expires_in=answer.expires_in,
                interval=answers.POLL_INTERVAL,
                decision_id=answer.decision_id,
            )
        case _:
            assert_never(answer)


def exchange_reply(answer: answers.Exchanged | answers.Escalated) -> Reply:
    """Answer a Token Vault exchange, as Auth0's clients expect it.

    They take any 4xx for "a person connects the account again" and a 5xx for an outage:
    so a refusal and a missing account are 4xx, and a tenant that is away is 503.
    """
    match answer:
        case answers.Provided():
            body = {
                "access_token": answer.access_token.reveal(),
                "scope": answer.scope,
                "expires_in": answer.expires_in,
                "issued_token_type": TYPE_PROVIDER,
                "token_type": "Bearer",
                "decision_id": answer.decision_id,
            }
            return json_reply(200, body)
        case answers.Disconnected():
            # No challenge, as Auth0 sends none: clients would read that and not why.
            return error_reply(
                401, answer.error, answer.message, decision_id=answer.decision_id
            )
        case answers.TenantUnavailable():
            return error_reply(
                503,
                answer.error,
                answer.message,
                ((b"retry-after", b"%d" % answer.retry_after),),
                decision_id=answer.decision_id,
            )
        case answers.Denied() | answers.Escalated():
            return token_reply(answer)
        case _:
            assert_never(answer)


def poll_reply(answer: answers.Polled) -> Reply:
    """Answer a CIBA poll (CIBA Core sections 10.1.1 and 11)."""
    match answer:
        case answers.Granted():
            return _granted(answer)
        case answers.Provided() | answers.Disconnected() | answers.TenantUnavailable():
            return exchange_reply(answer)
        case answers.Denied():
            return _denied(400, answer)
        case answers.Waiting():
            text = f"nobody has decided yet; ask again in {answers.POLL_INTERVAL} s"
            return error_reply(400, "authorization_pending", text)
        case answers.SlowDown():
            text = f"you ask too often; wait {answers.POLL_INTERVAL} s between polls"
            retry = (b"retry-after", b"%d" % answers.POLL_INTERVAL)
            return error_reply(
                400, "slow_down", text, (retry,), interval=answers.POLL_INTERVAL
            )
        case answers.Expired():
            how = "unfetched though approved" if answer.approved else "undecided"
            text = f"the request ended {how}; ask for the token again"
            return error_reply(400, "expired_token", text)
        case answers.Spent():
            text = (
                "auth_req_id is unknown, another client's, already answered, or of a "
                "call or an evaluation, which is sent again and gets no token"
            )
            return error_reply(400, "invalid_grant", text)
        case _:
            assert_never(answer)


def backchannel_reply(answer: answers.Decided) -> Reply:
    """Answer a backchannel start (CIBA Core section 7.3)."""
    if not isinstance(answer, answers.Escalated):
        return token_reply(answer)
    return json_reply(
        200,
        {
            "auth_req_id": answer.stepup.id,
            "expires_in": answer.expires_in,
            "interval": answers.POLL_INTERVAL,
        },
    )


def introspection_reply(answer: answers.Introspection, client_id: str) -> Reply:
    """Answer an introspection; anything wrong looks the same (RFC 7662 2.2)."""
    token = answer.token
    if token is None:
        return json_reply(200, {"active": False})
    body: dict[str, object] = {
        "active": True,
        "client_id": client_id,
        "sub": token.subject,
        "scope": token.scope,
        "exp": int(token.expires.wall.timestamp()),
        "iat": int(token.issued_at.timestamp()),
        "token_type": "Bearer",
        "elevated": token.kind is TokenKind.ELEVATED,
    }
    actor: dict[str, object] = {}
    for agent_id in (*token.chain[1:], token.agent_id) if token.chain else ():
        actor = {"sub": agent_id, **({"act": actor} if actor else {})}
    if actor:
        body["act"] = actor  # RFC 8693 section 4.1: the holder outermost
    if token.resource is not None:
        body["aud"] = audience_claim(token.resource)
    details = token.authorization_details or "[]"
    return json_reply(200, body, texts={"authorization_details": details})


def _granted(answer: answers.Granted) -> Reply:
    body: dict[str, object] = {
        "access_token": answer.access_token,
        "token_type": "Bearer",
        "expires_in": answer.expires_in,
        "scope": answer.token.scope,
    }
    if answer.token.chain:
        body["issued_token_type"] = TYPE_ACCESS
    body["decision_id"] = answer.decision_id
    details = answer.token.authorization_details
    texts = None if details is None else {"authorization_details": details}
    return json_reply(200, body, texts=texts)


def _denied(status: int, answer: answers.Denied) -> Reply:
    more: dict[str, Any] = {"reason": answer.reason, "decision_id": answer.decision_id}
    if answer.retry_after is not None:
        more["retry_after"] = answer.retry_after
    return error_reply(status, "access_denied", answer.message, **more)
