"""Writes an event as a record of the Open Cybersecurity Schema Framework (OCSF).

Classes and members are those of schema.ocsf.io: 3003 Authorize Session, 3004 Entity
Management, 6003 API Activity. A test validates records against the schema's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agentvault_tui import __version__
from agentvault_tui.amounts import render_amount
from agentvault_tui.clock import parse_iso
from agentvault_tui.disclosure import public_detail, public_reason
from agentvault_tui.model import Money

VERSION: Final = "1.9.0"
"""Of the schema that records were validated against."""
AUTHORIZE: Final = 3003
MANAGE: Final = 3004
API: Final = 6003
_CLASSES: Final = {
    AUTHORIZE: (3, "Identity & Access Management", "Authorize Session"),
    MANAGE: (3, "Identity & Access Management", "Entity Management"),
    API: (6, "Application Activity", "API Activity"),
}
_CLASS_OF: Final = {
    **dict.fromkeys(("token", "stepup"), AUTHORIZE),
    **dict.fromkeys(("gateway", "access", "mcp", "run"), API),
}
_OTHER: Final = 99
_ASSIGNS: Final = frozenset({"token.decision", "token.delivered", "stepup.approved"})
"""Events that give an agent a privilege, or answer whether it gets one."""
_METHODS: Final = {"POST": 1, "GET": 2, "HEAD": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}
_DEEDS: Final = {
    "registered": 1,
    "added": 1,
    "changed": 3,
    "scopes_changed": 3,
    "user_changed": 3,
    "keys_changed": 3,
    "removed": 4,
    "restored": 8,
    "revoked": 9,
    "on": 12,
    "off": 13,
}
"""The activity of Entity Management, by the second word of an event's type."""
_ACTIVITIES: Final = {
    AUTHORIZE: {1: "Assign Privileges"},
    API: {1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
    MANAGE: {
        1: "Create",
        3: "Update",
        4: "Delete",
        8: "Enable",
        9: "Disable",
        12: "Suspend",
        13: "Resume",
    },
}
_FAILED: Final = frozenset(
    {
        *("stepup.denied", "stepup.expired", "stepup.cancelled", "stepup.not_approved"),
        *("token.not_exchanged", "operator.refused", "operator.not_signed_in"),
        *("tenant.away", "audit.ambiguous"),
    }
)
_GRAVE: Final = frozenset({"panic.on", "audit.ambiguous"})
_STATUS: Final = {1: "Success", 2: "Failure"}
_SEVERITIES: Final = {1: "Informational", 2: "Low", 3: "Medium", 4: "High"}


def record(event: Mapping[str, Any], *, details: bool) -> dict[str, object]:
    """Return an event as an OCSF record.

    Args:
        event: the event, as the operators' API and exports write it.
        details: whether everything leaves, also the agent's own words; see
            `disclosure`.

    Returns:
        the record, to be encoded as JSON.
    """
    kind, detail = event["type"], event["detail"]
    family, _, deed = kind.partition(".")
    uid = _CLASS_OF.get(family, MANAGE)
    category, category_name, class_name = _CLASSES[uid]
    activity = _activity(uid, event, deed)
    status = _status(event)
    severity = 4 if kind in _GRAVE else {1: 1, 2: 3}.get(status, 2)
    shown, reason = detail, event["reason"]
    if not details:
        shown, reason = public_detail(kind, detail), public_reason(event)
    return {
        "activity_id": activity,
        "activity_name": _ACTIVITIES[uid].get(activity, deed or family),
        "category_name": category_name,
        "category_uid": category,
        "class_name": class_name,
        "class_uid": uid,
        "type_uid": uid * 100 + activity,
        "severity": _SEVERITIES[severity],
        "severity_id": severity,
        "status": _STATUS.get(status, "Escalated"),
        "status_id": status,
        "time": int(parse_iso(event["time"]).timestamp() * 1000),
        "message": kind,
        "metadata": {
            "version": VERSION,
            "product": {
                "name": "AgentVault",
                "vendor_name": "AgentVault",
                "version": __version__,
            },
            "sequence": event["seq"],
            "uid": event["hash"],
            "event_code": kind,
            **_member("correlation_uid", event["decision_id"]),
        },
        "actor": _actor(event["actor"]),
        "unmapped": {
            "action": event["action"],
            "resource": event["resource"],
            "rule": event["rule"],
            "detail": shown,
            **(_amount(detail) if details else {}),
        },
        **_member("status_detail", reason),
        **_of_class(uid, event),
    }


def _member(name: str, value: object) -> dict[str, object]:
    """Return a member, if it has a value."""
    return {name: value} if value else {}


def _amount(detail: Mapping[str, Any]) -> dict[str, object]:
    """Return the amount of the action in words, if its parameters state one."""
    stated = detail.get("parameters")
    given = stated if isinstance(stated, Mapping) else {}
    return _member("amount", render_amount(given, Money.read(detail.get("money"))))


def _activity(uid: int, event: Mapping[str, Any], deed: str) -> int:
    if uid == AUTHORIZE:
        return 1 if event["type"] in _ASSIGNS else _OTHER
    if uid == API:
        return _METHODS.get(str(event["detail"].get("method")), _OTHER)
    return _DEEDS.get(deed, _OTHER)


def _status(event: Mapping[str, Any]) -> int:
    """Return 1 success, 2 failure, or 99: a person decides."""
    if event["outcome"] is not None:
        return {"allowed": 1, "denied": 2}.get(event["outcome"], _OTHER)
    if event["type"] in {"stepup.requested", "stepup.authorizing"}:
        return _OTHER
    failed = event["detail"].get("status") == "failed"
    return 2 if failed or event["type"] in _FAILED else 1


def _actor(actor: Mapping[str, Any]) -> dict[str, object]:
    if actor["kind"] in {"system", "tenant"}:
        # Since 1.9.0, in place of app_name and app_uid.
        return {"application": {"name": actor["name"], "uid": actor["id"]}}
    return {"user": _user(actor["id"], actor["name"], actor["kind"])}


def _user(uid: str, name: str | None, kind: str) -> dict[str, object]:
    user = {"uid": uid, "type": kind.capitalize(), "type_id": _OTHER}
    return user | _member("name", name)


def _of_class(uid: int, event: Mapping[str, Any]) -> dict[str, object]:
    """Return the members that the class requires."""
    actor, detail = event["actor"], event["detail"]
    agent_id = event["agent_id"]
    name = actor["name"] if actor["id"] == agent_id else None
    if uid == AUTHORIZE:
        scope = str(detail.get("scope") or event["action"] or "")
        # The class takes no event without a privilege, and some end a token alone.
        return {
            "user": _user(agent_id or actor["id"], name, "agent"),
            "privileges": scope.split() or ["none"],
        }
    if uid == API:
        source = (detail.get("facts") or {}).get("source")
        service = str(detail.get("service") or detail.get("server") or "")
        return {
            "api": {
                "operation": event["action"] or event["type"],
                **_member("service", service and {"name": service}),
            },
            "src_endpoint": {"ip": source} if source else {"uid": actor["id"]},
            "resources": [{"name": event["resource"] or "none"}],
        }
    family = event["type"].partition(".")[0]
    if agent_id:
        return {"entity": {"uid": agent_id, "name": name or agent_id, "type": "agent"}}
    return {"entity": {"name": event["resource"] or family, "type": family}}
