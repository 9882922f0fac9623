"""Reads what is being approved from a device request (RFC 9396), strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agentvault_tui import strict_json
from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model import Risk, detail_members, limits_nothing

TYPE: Final = "agentvault:stepup"
_FINGERPRINT: Final = re.compile(r"[0-9A-F]{4}")
_TEXT_CAP: Final = 4000
_DEPTH: Final = 6
_MEMBERS: Final = 64


@dataclass(frozen=True, slots=True)
class StepUpDetails:
    """One exact action, as the client described it; every text in it is untrusted."""

    agent_id: str
    agent_name: str
    action: str
    scope: str
    resource: str | None
    parameters: dict[str, Any]
    risk: Risk
    why: str
    fingerprint: str
    requested_at: datetime
    requested_on: str
    connection: str | None = None
    """Of the provider whose own token is handed out, if it is one."""
    ttl: int = 300
    """Seconds the token lives once it is fetched."""
    resource_indicator: str | None = None
    """RFC 8707, which the token will say beside the resource."""
    other_details: tuple[dict[str, Any], ...] = ()
    """RFC 9396 objects of other types, which the token will say as they are."""

    @property
    def unlimited(self) -> bool:
        """Tell whether nothing but the scope limits what the token is used for."""
        return limits_nothing(
            self.resource, self.parameters, self.other_details, self.connection
        )

    def others(self) -> list[tuple[str, Any]]:
        """Return what else a resource server will read, one member a row."""
        rows = detail_members(self.other_details)
        if self.resource_indicator not in {None, self.resource}:
            rows.append(("resource indicator", self.resource_indicator))
        return rows

    def to_json(self) -> str:
        """Write it for the store; `read` takes it back."""
        member = {name: getattr(self, name) for name in self.__slots__}
        member |= {"type": TYPE, "requested_at": iso(self.requested_at)}
        return json.dumps([member])


def read(text: str) -> StepUpDetails:
    """Read ``authorization_details``: exactly one object of our type.

    RFC 9396 section 5: unknown types and wrong members are refused, not dropped, since
    a person is going to decide by them.

    Raises:
        TenantRefusedError: ``invalid_authorization_details``.
    """
    try:
        found = strict_json.loads(text)
    except ValueError:
        raise _refuse("it is not JSON, or a name stands twice in it") from None
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise _refuse("it must be an array of one object")
    member: dict[str, Any] = found[0]
    if member.get("type") != TYPE:
        raise _refuse(f"its type must be {TYPE}")
    return StepUpDetails(
        agent_id=_text(member, "agent_id"),
        agent_name=_text(member, "agent_name"),
        action=_text(member, "action"),
        scope=_text(member, "scope") if "scope" in member else _text(member, "action"),
        resource=_optional(member, "resource"),
        parameters=_parameters(member.get("parameters")),
        risk=_risk(member),
        why=_text(member, "why"),
        fingerprint=_fingerprint(member),
        requested_at=_requested_at(member),
        requested_on=_text(member, "requested_on"),
        connection=_optional(member, "connection"),
        ttl=_ttl(member),
        resource_indicator=_optional(member, "resource_indicator"),
        other_details=_others(member.get("other_details")),
    )


def member_rows(members: Iterable[tuple[str, Any]]) -> list[tuple[str, str, str]]:
    """Return names, values and kinds: ``text`` as it is, the rest as ``json``."""
    return [
        (name, value, "text")
        if isinstance(value, str)
        else (name, json.dumps(value, ensure_ascii=False), "json")
        for name, value in members
    ]


def _refuse(why: str) -> TenantRefusedError:
    return TenantRefusedError(
        "invalid_authorization_details", f"authorization_details: {why}"
    )


def _text(member: dict[str, Any], name: str) -> str:
    value = member.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_CAP:
        raise _refuse(f"{name} must be a text of 1 to {_TEXT_CAP} characters")
    return value


def _optional(member: dict[str, Any], name: str) -> str | None:
    return None if member.get(name) is None else _text(member, name)


def _ttl(member: dict[str, Any]) -> int:
    value = member.get("ttl", 300)
    if type(value) is not int or value < 1:
        raise _refuse("ttl must be a number of seconds")
    return value


def _risk(member: dict[str, Any]) -> Risk:
    try:
        return Risk(_text(member, "risk"))
    except ValueError:
        raise _refuse("risk must be low, medium or high") from None


def _fingerprint(member: dict[str, Any]) -> str:
    value = _text(member, "fingerprint")
    if not _FINGERPRINT.fullmatch(value):
        raise _refuse("fingerprint must be four hexadecimal digits in capitals")
    return value


def _requested_at(member: dict[str, Any]) -> datetime:
    try:
        return parse_iso(_text(member, "requested_at"))
    except (ValueError, OverflowError):
        raise _refuse("requested_at must be an RFC 3339 time") from None


def _parameters(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refuse("parameters must be an object")
    _bounded(value, 1)
    return value


def _others(value: object) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _refuse("other_details must be an array of objects")
    for one in value:
        _bounded(one, 1)
    return tuple(value)


def _bounded(value: object, depth: int) -> None:
    """Hold the caps that agents' requests have at the broker."""
    if isinstance(value, str) and len(value) > _TEXT_CAP:
        raise _refuse(f"a text in parameters is over {_TEXT_CAP} characters")
    if isinstance(value, dict | list):
        # A list may be long: sends to many are just what a person is asked about.
        if depth > _DEPTH or (isinstance(value, dict) and len(value) > _MEMBERS):
            raise _refuse(f"parameters are over {_DEPTH} levels or {_MEMBERS} members")
        if isinstance(value, dict):
            for name in value:
                _bounded(name, depth)
        for item in value.values() if isinstance(value, dict) else value:
            _bounded(item, depth + 1)
