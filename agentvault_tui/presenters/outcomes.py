"""Outcomes, reasons and types of events in words: the same on every face.

Console, plain mode, command line and the tables of docs/events.md use these tables
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OUTCOME_WORDS: Final = {
    "allowed": "may happen, or a token was issued for it",
    "denied": "may not happen: policy or a person refused it, or its time ran out",
    "waiting": "waits for a person",
    "done": "happened: the service answered below 400, or the token was used or ended",
    "failed": "went out and did not succeed: the service answered 400 or above, or the"
    " connection broke",
    "unknown": "went out, and its answer was lost",
    "cut": "was ended before its end: a call was cancelled, or a token was revoked",
    "changed": "neither a request nor a call: a login, a registration, a start",
}
"""The eight outcome words, and their meanings."""
ROUTINE: Final = frozenset({"allowed", "done"})
"""Routine outcomes; the other six matter."""
_HOUSEKEEPING: Final = frozenset(
    {
        *("state.recorded", "upstream.revocation confirmed"),
        *(f"tenant.log {code}" for code in ("seta", "sede", "seccft", "seacft")),
        *(f"tenant.log {code}" for code in ("sertft", "secte", "srrt", "s", "pla")),
        *(f"tenant.log gd_{code}" for code in ("start_auth", "auth_succeed")),
        *("tenant.log gd_send_pn", "tenant.log mfar"),
        "tenant.log success_on_behalf_of_token_exchange",
        "tenant.log idjag_exchange_succeeded",
    }
)
"""Types of events that are details of another row; of rows of the tenant's log those
that say that a token was issued, or a sign-in went well."""


def is_housekeeping(what: str) -> bool:
    """Check whether an event is a detail of another row: the log alone shows it.

    Args:
        what: its type, of a row of the tenant's log with its code, and of a step of a
            revocation with its result.
    """
    return what in _HOUSEKEEPING


_BY_TYPE: Final = {
    **dict.fromkeys(
        (
            "stepup.requested",
            "stepup.authorizing",
            "stepup.confirmed",
            "stepup.not_approved",
        ),
        "waiting",
    ),
    "stepup.approved": "allowed",
    **dict.fromkeys(("stepup.denied", "stepup.expired", "stepup.cancelled"), "denied"),
    **dict.fromkeys(
        (
            "token.delegated",
            "token.delivered",
            "token.exchanged",
            "token.redeemed",
            "token.used",
            "mcp.message",
        ),
        "done",
    ),
    "token.not_exchanged": "failed",
    "token.revoked": "cut",
}
_RESULTS: Final = frozenset({"gateway.result", "gateway.tunnel"})
_HANDED_BACK: Final = "handed back"
_CANCELLED: Final = "call_cut"
_FAILED_FROM: Final = 400
"""The lowest status of HTTP that says that a request did not succeed."""
_RECORDED: Final = {"allowed": "allowed", "denied": "denied", "escalated": "waiting"}


def outcome_word(
    type_: str, outcome: str | None, reason: str | None, detail: Mapping[str, object]
) -> str:
    """Return the outcome word of an event.

    Args:
        type_: its type.
        outcome: as it was recorded, if it is a decision.
        reason: as it was recorded.
        detail: as it was recorded.

    Returns:
        one of `OUTCOME_WORDS`.
    """
    if outcome == "denied" and reason == _CANCELLED:
        return "cut"  # a held call, which a person cancelled
    if word := _RECORDED.get(outcome or ""):
        return word
    if type_ in _RESULTS:
        return _of_result(detail)
    if type_ == "token.revoked" and reason == _HANDED_BACK:
        return "done"  # by the agent itself (RFC 7009)
    return _BY_TYPE.get(type_, "changed")


def answer_word(outcome: str) -> str:
    """Return the outcome word of an answer as decisions record it."""
    return _RECORDED.get(outcome, outcome)


def _of_result(detail: Mapping[str, object]) -> str:
    ended, status = detail.get("ended"), detail.get("status")
    if ended in {"failed", "cut", "unknown"}:
        return str(ended)
    failed = isinstance(status, int) and status >= _FAILED_FROM
    return "failed" if failed else "done"


EVENT_PHRASES: Final = {
    "access.decision": "access asked for",
    "advice.applied": "trial started",
    "advice.dismissed": "advice dismissed",
    "advice.given_back": "trial ended",
    "agent.changed": "agent changed",
    "agent.flooding": "agent floods",
    "agent.registered": "agent registered",
    "agent.restored": "agent restored",
    "agent.revoked": "agent revoked",
    "agent.scopes_changed": "scopes changed",
    "alert.dead": "alert not delivered",
    "audit.ambiguous": "stored state differs from the ledger",
    "broker.started": "broker started",
    "broker.stopped": "broker stopped",
    "change.applied": "change applied",
    "clock.jump": "clock set",
    "config.applied": "files applied",
    "connection.added": "account connected",
    "connection.removed": "account removed",
    "export.skipped": "event not exported",
    "gateway.attempt": "call",
    "gateway.held": "call",
    "gateway.refused": "call",
    "gateway.result": "call",
    "gateway.tunnel": "tunnel",
    "ledger.restored": "backup restored",
    "mcp.message": "MCP messages",
    "operator.login": "signed in",
    "operator.logout": "signed out",
    "operator.not_signed_in": "sign-in failed",
    "operator.refused": "operator refused",
    "panic.off": "panic lifted",
    "panic.on": "stopped everything",
    "policy.changed": "policy changed",
    "run.confined": "confined run started",
    "run.refused": "reach outside",
    "secret.changed": "secret changed",
    "service.changed": "file changed",
    "service.probed": "service probed",
    "state.recorded": "state recorded",
    "stepup.approved": "step-up approved",
    "stepup.authorizing": "step-up being approved",
    "stepup.cancelled": "step-up cancelled",
    "stepup.confirmed": "step-up confirmed",
    "stepup.denied": "step-up denied",
    "stepup.expired": "step-up expired",
    "stepup.not_approved": "approval failed",
    "stepup.repeat_ended": "repeats ended",
    "stepup.requested": "step-up",
    "store.copied": "ledger copied",
    "tenant.away": "tenant does not answer",
    "tenant.back": "tenant answers again",
    "tenant.keys_changed": "signing keys changed",
    "tenant.log": "tenant log",
    "tenant.log_gap": "gap in the tenant log",
    "tenant.user_changed": "person changed",
    "token.decision": "token asked for",
    "token.delegated": "token delegated",
    "token.delivered": "token fetched",
    "token.exchanged": "token exchanged",
    "token.not_exchanged": "token not exchanged",
    "token.redeemed": "token used up",
    "token.revoked": "token ended",
    "token.used": "token used",
    "upstream.revocation": "revocation step",
}
"""Types of events in words, for events that name no action."""


def event_phrase(type_: str) -> str:
    """Return a type of event in words; an unknown type as it is."""
    return EVENT_PHRASES.get(type_, type_.replace(".", " ").replace("_", " "))


REASONS: Final = {
    "agent_revoked": "its agent is revoked",
    "already_used": "its approval was used already",
    "ambiguous_body": "its body can be read in two ways",
    "ambiguous_headers": "its headers can be read in two ways",
    "ambiguous_query": "its query can be read in two ways",
    "approver_changed": "its approver was changed",
    "ask_at_the_gateway": "its token does not state all that it sends",
    "bad_host": "its host cannot be read",
    "bad_path": "its path can be read in two ways",
    "bad_query": "its query cannot be decoded",
    "body_too_large": "its body is too large",
    "call_cut": "an operator cancelled it",
    "cooling_down": "asked again too soon after a denial",
    "credential_echoed": "the answer held the service's credential",
    "digest_mismatch": "it is not what was approved",
    "encoded_path": "its path has an escape that can be read in two ways",
    "encoded_query": "its query has an escape that can be read in two ways",
    "header_not_listed": "it has a header that its route does not list",
    "hook_denied": "a decision webhook denied it",
    "hook_failed": "a decision webhook did not answer as it must",
    "host_not_mapped": "no service file has its host",
    "insufficient_scope": "its token lacks the scope",
    "invalid_request": "its request is malformed",
    "invalid_token": "its token is not valid",
    "limit_reached": "a limit is reached",
    "method_not_allowed": "no service is sent its method",
    "method_override": "it names another method",
    "not_found": "there is nothing at this path",
    "no_route": "no route or tool of its file matches it",
    "not_connected": "no account is connected",
    "not_for_this": "its token is for something else",
    "on_trial": "taken away by a trial, and can be restored",
    "outcome_unknown": "no result came",
    "outside": "its confinement has no way there",
    "panic": "everything is stopped",
    "parameter_required": "it lacks a value that its route requires",
    "parameter_unclear": "a value that policy reads cannot be read",
    "passed_on": "a delegated token may not do this",
    "policy_changed": "the policy changed",
    "policy_error": "a rule of policy failed",
    "policy_forbids": "policy forbids it",
    "referent_busy": "its document could not be fetched in time",
    "referent_changed": "its document changed after the approval",
    "referent_unreadable": "its document cannot be shown to a person",
    "request_changed": "it changed after the approval",
    "route_override": "it names another path",
    "run_ended": "its run has ended",
    "scope_not_granted": "not granted",
    "service_changed": "its service file changed",
    "service_not_in_run": "its run is bound to other services",
    "session_not_found": "its MCP session is not known",
    "slow_down": "it asks too often",
    "stepup_denied": "a person denied it",
    "stepup_expired": "expired unanswered",
    "stepup_required": "a person has to decide",
    "temporarily_unavailable": "the broker cannot decide now",
    "too_deep": "delegated too often",
    "too_many": "it has delegated too many live tokens",
    "too_many_calls": "too many calls are in flight",
    "too_many_connections": "it has too many connections",
    "too_many_pending": "too many requests wait already",
    "too_many_tokens": "it holds too many tokens already",
    "too_many_tunnels": "it has too many tunnels",
    "type_override": "it names another media type",
    "credential_override": "it has a credential or account of its own",
    "unclear_call": "its arguments can be read in two ways",
    "unexpected_body": "its route takes no body",
    "unknown_connection": "no scope is set for that connection",
    "unknown_request": "no such request waits",
    "unknown_service": "no file describes that service",
    "unmatched_tool": "no tool of its file matches it",
    "unreadable_body": "its body cannot be read",
    "unsupported_body": "its route takes no such body",
    "upstream_reset": "the service closed the connection",
    "upstream_timeout": "the service did not answer in time",
    "upstream_unreachable": "the service cannot be reached",
    "uri_too_long": "its address is too long",
    "wider_than_parent": "it asks for more than the token that it comes from",
    "wider_than_token": "it is not within the action that its token states",
}
"""Codes of reasons in words."""


def reason_words(code: str) -> str:
    """Return a code of a reason in words; a person's own words as they are."""
    return REASONS.get(code, code)
