"""An agent's answer to a refused call: status, code, reason, body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentvault_tui.broker.answers import POLL_INTERVAL, RATE_RETRY, Denied
from agentvault_tui.broker.core import Broker
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    TooFastError,
    UnreadableRequestError,
)
from agentvault_tui.model import AgentId, StepUp
from agentvault_tui.text import visible
from agentvault_tui.web.reply import Header, Reply, json_reply

PENDING: Final = "insufficient_user_authentication"
"""The code of a call that waits for a person (RFC 9470 section 3)."""
_RETRY_SECONDS: Final = 1


class CallRefusedError(Exception):
    """A refused call, and the answer to its agent."""

    def __init__(
        self,
        status: int,
        error: str,
        reason: str,
        text: str,
        *headers: Header,
        decision_id: str | None = None,
        **more: object,
    ) -> None:
        """Store the answer: *error* is its code, *reason* the kind.

        Args:
            status: of HTTP.
            error: the code.
            reason: the stable code of the reason.
            text: the remedy for a person.
            headers: further ones.
            decision_id: of the decision, if there was one.
            more: further members of the body.
        """
        super().__init__(text)
        self.status = status
        self.error = error
        self.reason = reason
        self.text = text
        self.headers = headers
        self.decision_id = decision_id
        self.more = more

    def reply(self) -> Reply:
        """Return it as the answer of HTTP."""
        headers = [*self.headers, (b"agentvault-error", self.error.encode())]
        if self.status == 503 and b"retry-after" not in dict(headers):
            headers.append((b"retry-after", b"%d" % _RETRY_SECONDS))
        if self.decision_id is not None:
            headers.append((b"agentvault-decision", self.decision_id.encode()))
        body = {
            "error": self.error,
            "error_description": self.text,
            "reason": self.reason,
            "decision_id": self.decision_id,
            **self.more,
        }
        return json_reply(self.status, body, *headers)


def unreadable(error: UnreadableRequestError) -> CallRefusedError:
    """Return the refusal of a request that is ambiguous, or has no route."""
    code = "access_denied" if error.code == "no_route" else error.code
    more: dict[str, Any] = error.more
    return CallRefusedError(error.status, code, error.code, error.what, **more)


def wrong_method() -> CallRefusedError:
    """Return the refusal of a method that no service is sent."""
    code = "method_not_allowed"
    allow = (b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    return CallRefusedError(405, code, code, "no service is sent this method", allow)


def unauthorized(reason: str, text: str) -> CallRefusedError:
    """Return the refusal of a token (RFC 6750 section 3.1)."""
    challenge = (b"www-authenticate", b'Bearer error="invalid_token"')
    return CallRefusedError(401, "invalid_token", reason, text, challenge)


def authority_ended(
    agent_id: AgentId | None, scopes: frozenset[str] | None
) -> CallRefusedError:
    """Return the refusal of a call in flight whose authority ended meanwhile.

    Args:
        agent_id: the agent that was revoked; None for a panic.
        scopes: the scopes that were taken from it; None for all.
    """
    if scopes is not None:
        return scope_taken()
    if agent_id is None:
        return unauthorized("panic", "Everything is stopped by an operator.")
    return unauthorized("agent_revoked", "This agent was revoked by an operator.")


def lease_over() -> CallRefusedError:
    """Return the refusal of a broker that may not know any more who is revoked."""
    code = "temporarily_unavailable"
    text = "The team's store does not answer: try again."
    return CallRefusedError(503, code, code, text)


def unavailable(error: LedgerError) -> CallRefusedError:
    """Return the refusal of a call with a decision that could not be recorded."""
    busy = isinstance(error, LedgerBusyError)
    text = (
        "too many decisions wait to be recorded"
        if busy
        else "decisions cannot be recorded right now, so none is made"
    )
    retry = (b"retry-after", b"%d" % (_RETRY_SECONDS if busy else 5))
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, code, text, retry)


def too_fast(error: TooFastError) -> CallRefusedError:
    """Return the refusal of a call beyond its agent's rate; nothing is recorded."""
    retry = (b"retry-after", b"%d" % RATE_RETRY)
    return CallRefusedError(429, "slow_down", "slow_down", error.diagnosis(), retry)


def too_many_connections() -> CallRefusedError:
    """Return the refusal of a connection beyond its agent's share of them."""
    code = "temporarily_unavailable"
    text = "This agent has its share of the connections: use those, or try again."
    return CallRefusedError(503, code, "too_many_connections", text)


def insufficient(scope: str) -> CallRefusedError:
    """Return the refusal of a token without *scope* (RFC 6750 section 3.1)."""
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    text = f"this call needs a token with the scope {scope}"
    return CallRefusedError(
        403,
        "insufficient_scope",
        "insufficient_scope",
        text,
        (b"www-authenticate", challenge.encode()),
    )


def mismatch() -> CallRefusedError:
    """Return the refusal of a call that differs from the approved one."""
    text = "This is not what was approved, to the byte. Ask again."
    return CallRefusedError(403, "digest_mismatch", "digest_mismatch", text)


def referent_unreadable(url: str, text: str) -> CallRefusedError:
    """Return the refusal of a call whose document cannot be shown to a person."""
    text = f"the document {visible(url, 200)} {text}"
    code = "referent_unreadable"
    return CallRefusedError(403, "access_denied", code, text)


def referent_changed() -> CallRefusedError:
    """Return the refusal of a call whose document has changed since the approval."""
    text = "The document was changed after it was approved. Ask again."
    return CallRefusedError(403, "access_denied", "referent_changed", text)


def referent_busy() -> CallRefusedError:
    """Return the refusal of a write to a document that another call uses."""
    text = "another call changes this document: send it again later"
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, "referent_busy", text)


def ask_at_the_gateway(unsaid: Sequence[str]) -> CallRefusedError:
    """Return the refusal of a request that its elevated token does not state whole.

    Args:
        unsaid: parts of the request that the action does not state.
    """
    parts = ", ".join(visible(one, 60) for one in unsaid)
    text = (
        f"The token does not state {parts}, which its approver did not see. Send this"
        " request with a standard token: it is held, and shown whole."
    )
    code = "ask_at_the_gateway"
    return CallRefusedError(403, "access_denied", code, text)


def scope_taken() -> CallRefusedError:
    """Return the refusal of a call whose scope its agent has no more."""
    text = "This agent's scopes were changed while it asked. Ask again."
    return CallRefusedError(403, "access_denied", "scope_not_granted", text)


def denial(denied: Denied) -> CallRefusedError:
    """Return the agent's answer to a denial by policy or by a person."""
    return CallRefusedError(
        403,
        "access_denied",
        denied.reason,
        denied.message,
        decision_id=denied.decision_id,
        **({} if denied.retry_after is None else {"retry_after": denied.retry_after}),
    )


def pending(broker: Broker, stepup: StepUp, decision_id: str) -> CallRefusedError:
    """Return the answer about a call that waits for a person (as CIBA, RFC 9470)."""
    text = (
        "A person has to decide. Send this request again with the header"
        f" AgentVault-Request: {stepup.id}"
    )
    return CallRefusedError(
        403,
        PENDING,
        "stepup_required",
        text,
        decision_id=decision_id,
        auth_req_id=stepup.id,
        expires_in=max(1, round(stepup.expires.remaining(broker.clock))),
        interval=POLL_INTERVAL,
    )


def crowded() -> CallRefusedError:
    """Return the refusal of a body for which there is no room now."""
    text = "too many bodies are in memory: send it again later"
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, code, text, (b"retry-after", b"5"))


def too_many() -> CallRefusedError:
    """Return the refusal of a call of an agent that has too many under way."""
    text = "too many calls of this agent are under way: wait for one to end"
    code = "temporarily_unavailable"
    return CallRefusedError(503, code, "too_many_calls", text)


def too_large(cap: int) -> CallRefusedError:
    """Return the refusal of a body over *cap* bytes."""
    text = f"a body may have {cap} bytes here"
    return CallRefusedError(413, "body_too_large", "body_too_large", text)
