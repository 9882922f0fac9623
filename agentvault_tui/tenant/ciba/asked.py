"""Reads what a client asks at ``/bc-authorize``, form or JSON, strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request

from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.tenant.management.bodies import read_json
from agentvault_tui.tenant.management.problems import ApiError
from agentvault_tui.tenant.oauth.wire import (
    FORM,
    media_type,
    missing,
    refused,
    wide_form,
)
from agentvault_tui.web import BodyError, parse_json, read_body

EXPIRY: Final = 300
"""Seconds, where the client asks for none; Auth0's default."""
LONGEST: Final = 259_200
"""Seconds that a client may ask for at most, as Auth0 has it: three days."""
_MESSAGE: Final = re.compile(r"[A-Za-z0-9 +\-_.,:#]{1,64}")
_DIGITS: Final = re.compile(r"[0-9]{1,6}")
_ABSENT: Final = "None"
"""What ``auth0-ai`` and ``auth0-python`` send for an audience that nobody named."""

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its client words it; the texts in it are untrusted."""

    sub: str
    scope: str
    binding_message: str
    audience: str | None
    expiry: int
    details: str | None
    """``authorization_details``, still JSON."""


async def members_of(request: Request) -> Members:
    """Read the body; a member that says nothing counts as absent.

    Raises:
        TenantRefusedError: ``invalid_request`` or ``unsupported_media_type``.
    """
    body, kind = await read_body(request.receive), media_type(request)
    if kind == FORM:
        return wide_form(body)
    if kind != "application/json":
        raise refused("unsupported_media_type", f"send {FORM} or application/json")
    try:
        found = read_json(kind, body)
    except ApiError as error:
        raise refused("invalid_request", error.message) from None
    if not isinstance(found, dict):
        raise refused("invalid_request", "the JSON body must be an object")
    return {name: value for name, value in found.items() if value not in (None, "")}


def texts(members: Members) -> dict[str, str]:
    """Return the members that are texts: client authentication reads no others."""
    return {name: text for name, text in members.items() if isinstance(text, str)}


def read(members: Members, issuer: str) -> Asked:
    """Read a request (CIBA Core section 7.1), by the rules Auth0 documents.

    Raises:
        TenantRefusedError: as section 13 names it.
    """
    scope = _text(members, "scope")
    if "openid" not in scope.split():
        raise refused("invalid_request", "openid scope must be requested")
    message = _text(members, "binding_message")
    if _MESSAGE.fullmatch(message) is None:
        # No markup, link or control in it: it is what the person compares.
        raise refused(
            "invalid_binding_message",
            "binding_message may have 64 letters, digits, spaces and +-_.,:#",
        )
    return Asked(
        sub=_subject(_text(members, "login_hint"), issuer),
        scope=scope,
        binding_message=message,
        audience=_audience(members),
        expiry=_expiry(members.get("requested_expiry", EXPIRY)),
        details=_details(members.get("authorization_details")),
    )


def _text(members: Members, name: str) -> str:
    value = members.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, str):
        raise refused("invalid_request", f"{name} must be a string")
    return value


def _subject(hint: str, issuer: str) -> str:
    """Return whom a hint of the format ``iss_sub`` is about.

    Of its issuer the host alone counts: SDKs write https and their own port before
    whatever they were told the domain is.
    """
    try:
        said = parse_json(hint)
    except BodyError:
        said = None
    if not isinstance(said, dict) or said.get("format") != "iss_sub":
        raise refused(
            "invalid_request", "login_hint must be a JSON object of the format iss_sub"
        )
    iss, sub = said.get("iss"), said.get("sub")
    if not isinstance(iss, str) or not isinstance(sub, str) or not sub:
        raise unknown()
    try:
        host = urlsplit(iss).hostname
    except ValueError:
        raise unknown() from None
    if host != urlsplit(issuer).hostname:
        raise unknown()
    return sub


def _audience(members: Members) -> str | None:
    for name in ("audience", "resource"):
        if name in members and members[name] != _ABSENT:
            return _text(members, name)
    return None


def _expiry(said: Any) -> int:
    """Return for how long the request is to live, a number or its digits."""
    number = said
    if isinstance(said, str):
        number = int(said) if _DIGITS.fullmatch(said) else 0
    if isinstance(number, bool) or not isinstance(number, int):
        number = 0
    if not 1 <= number <= LONGEST:
        raise refused("invalid_request", f"requested_expiry must be 1 to {LONGEST}")
    return number


def _details(said: Any) -> str | None:
    """Return the details as JSON: in a JSON body they may be there as they are."""
    if said is None or isinstance(said, str):
        return said
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def unknown() -> TenantRefusedError:
    """Return the refusal of whom nobody here is (as recorded)."""
    return refused("unknown_user_id", "User ID is malformed or unknown")
