"""Read an agent's request: scopes and one exact action (RFC 6749 3.3, RFC 9396)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from agentvault_tui.broker.agents_api.replies import TYPE_ACCESS, OAuthError, malformed
from agentvault_tui.broker.audience import audience_of
from agentvault_tui.model import DETAIL_TYPE, Action, Token
from agentvault_tui.policy.catalogue import Catalogue
from agentvault_tui.policy.resources import canonical_resource
from agentvault_tui.settings import CONNECTION
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import TYPE_PROVIDER
from agentvault_tui.web.forms import BodyError, parse_json


def read_connection(form: dict[str, object]) -> str:
    """Return the connection of the requested token.

    ``subject_token`` is not looked at: the vault user's credential is with the broker.
    ``login_hint`` and ``scope`` change nothing either: the account is the one an
    operator connected, and the vault does not narrow its token.
    """
    if text_of(form, "requested_token_type") != TYPE_PROVIDER:
        raise malformed(f"requested_token_type must be {TYPE_PROVIDER}")
    connection = text_of(form, "connection")
    if not connection:
        raise malformed("connection is missing")
    if not CONNECTION.fullmatch(connection):
        raise malformed("connection is not the name of one")
    return connection


class ParsedExchange(NamedTuple):
    """A token exchange between agents, before anything of it is looked up."""

    subject_token: str
    audience: str
    """The other agent's ``client_id``."""


def read_exchange(form: dict[str, object]) -> ParsedExchange:
    """Read the token to exchange, and the receiver (RFC 8693 section 2.1).

    Raises:
        OAuthError: it is no exchange of an access token for one of another agent.
    """
    if text_of(form, "subject_token_type") != TYPE_ACCESS:
        raise malformed(f"subject_token_type must be {TYPE_ACCESS}")
    if text_of(form, "requested_token_type") not in {None, "", TYPE_ACCESS}:
        raise malformed(f"requested_token_type may be {TYPE_ACCESS} alone")
    if form.keys() & {"actor_token", "actor_token_type"}:
        raise malformed("send no actor_token: the client that asks is the actor")
    subject_token = text_of(form, "subject_token")
    if not subject_token:
        raise malformed("subject_token is missing")
    audience = text_of(form, "audience")
    if not audience:
        raise malformed("audience is missing: the other agent's client_id")
    return ParsedExchange(subject_token, audience)


def read_narrowed(
    form: dict[str, object],
    parent: Token,
    whole: Action,
    catalogue: Catalogue,
    issuer: str,
) -> ParsedRequest:
    """Read the requested token of an exchange; omitted members are the *parent*'s.

    *whole* is the action that the parent is good for, to be compared with.

    Raises:
        OAuthError: it makes no sense.
    """
    stated = {name: value for name, value in form.items() if value != ""}
    left_out: dict[str, object] = {"scope": parent.scope}
    if parent.authorization_details is not None:
        details: list[dict[str, object]] = json.loads(parent.authorization_details)
        if "resource" in stated:
            for one in details:
                one.pop("resource", None)
        left_out["authorization_details"] = details
    narrowed = read_request(left_out | stated, catalogue, issuer)
    action = narrowed.action
    if action.resource is None:
        action = replace(action, resource=whole.resource)
    if whole.named and whole.action in action.scopes and not action.named:
        action = replace(action, action=whole.action, named=True)
    return narrowed._replace(
        action=action, resource=narrowed.resource or parent.resource
    )


_MEMBERS: Final = frozenset({"type", "action", "resource", "parameters", "reason"})
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_MOST_SCOPES: Final = 64
_MOST_DETAILS: Final = 16
_OURS: Final = DETAIL_TYPE.partition(":")[0] + ":"
"""The namespace of our own types: a misspelt one is refused."""

Details = tuple[dict[str, object], ...]


class ParsedRequest(NamedTuple):
    """One request, as the use-cases want it."""

    action: Action
    resource: str | None
    """RFC 8707 resource indicator."""
    details: Details | None
    """RFC 9396 ``authorization_details``: at most one object of our own type."""


def read_request(
    form: dict[str, object],
    catalogue: Catalogue,
    issuer: str = "",
    *,
    backchannel: bool = False,
) -> ParsedRequest:
    """Read scope, resource and details of a token or backchannel request.

    In CIBA (*backchannel*) clients also send ``openid`` and a ``binding_message``,
    which is the reason when there is no other.
    """
    scopes = _scopes(text_of(form, "scope"), catalogue, openid=backchannel)
    alone = len(scopes) == 1
    # Empty is absent (RFC 6749 section 3.1), in a JSON body as in a form.
    resource = canonical_resource(text_of(form, "resource"))
    # A URL of the gateway says where a token is good, not what it acts on.
    acted_on = None if audience_of(resource, issuer) else resource
    message = text_of(form, "binding_message") if backchannel else None
    raw = form.get("authorization_details")
    details = None if raw is None else _details(raw)
    detail = next((one for one in details or () if one["type"] == DETAIL_TYPE), {})
    action = _member(detail, "action", str, "a string", scopes[0])
    if action not in scopes:
        raise _bad_details("'action' must be one of the requested scopes")
    named = canonical_resource(_member(detail, "resource", str, "a string", acted_on))
    if named is None:
        detail.pop("resource", None)
    if acted_on is not None and named != acted_on:
        # RFC 8707: what is decided about must be what the token is good for.
        text = "'resource' and the resource in authorization_details differ"
        raise OAuthError(400, "invalid_target", text)
    return ParsedRequest(
        Action(
            scopes,
            action,
            named,
            _member(detail, "parameters", dict, "an object", {}),
            _member(detail, "reason", str, "a string", message),
            named=alone or "action" in detail,
        ),
        resource,
        details,
    )


def text_of(form: dict[str, object], name: str) -> str | None:
    """Return a parameter that is a string if it is there, or raise OAuthError."""
    value = form.get(name)
    if value is None or isinstance(value, str):
        return value
    raise malformed(f"{name} must be a string")


def _scopes(
    scope: str | None, catalogue: Catalogue, *, openid: bool
) -> tuple[str, ...]:
    if not scope:
        # RFC 6749 section 3.3 lets a server have a default: the least is none.
        text = (
            "scope is missing, and none is given by default: send scope=read:calendar "
        )
        text += "or the like; docs/agents.md says how each SDK sends it"
        raise OAuthError(400, "invalid_scope", text)
    names = tuple(dict.fromkeys(scope.split(" ")))
    if openid:
        names = tuple(name for name in names if name != "openid")
        if not names:
            raise OAuthError(400, "invalid_scope", "scope must name more than openid")
    if len(names) > _MOST_SCOPES:
        raise OAuthError(400, "invalid_scope", f"ask for at most {_MOST_SCOPES} scopes")
    for name in names:
        if name not in catalogue:
            raise unknown_scope(scope, name, catalogue)
    return names


def unknown_scope(scope: str, name: str, catalogue: Catalogue) -> OAuthError:
    """Return the fault of a request whose *scope* has an unknown *name*."""
    if not _SCOPE.fullmatch(scope):
        text = "scope must be names of printable ASCII with single spaces between"
        return OAuthError(400, "invalid_scope", text)
    hint = _hint(catalogue, name)
    return OAuthError(
        400,
        "invalid_scope",
        f"unknown scope {visible(name, 80)}{hint}",
    )


@lru_cache(maxsize=256)
def _hint(catalogue: Catalogue, name: str) -> str:
    """Name the nearest scopes; searching costs more than deciding, so cache it."""
    near = catalogue.nearest(name)
    return f"; did you mean {' or '.join(near)}" if near else ""


def _details(raw: object) -> Details:
    """Return the objects; members that are null count as absent.

    One of another type is carried and shown to a person, where RFC 9396 section 5
    would have it refused: Auth0's own SDKs send theirs to any server.
    """
    if isinstance(raw, str):
        try:
            raw = parse_json(raw)
        except BodyError as error:
            raise _bad_details(error.text) from None
    if not isinstance(raw, list) or not 1 <= len(raw) <= _MOST_DETAILS:
        raise _bad_details(f"send an array of 1 to {_MOST_DETAILS} objects")
    details = tuple(_detail(one) for one in raw)
    if sum(one["type"] == DETAIL_TYPE for one in details) > 1:
        raise _bad_details(f"send at most one object of the type {DETAIL_TYPE}")
    return details


def _detail(raw: object) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise _bad_details("each member of the array must be an object")
    detail = {name: value for name, value in raw.items() if value is not None}
    kind = detail.get("type")
    if not isinstance(kind, str) or not kind.strip():
        raise _bad_details("each object needs a 'type', a string")
    if kind != DETAIL_TYPE:
        if kind.strip().casefold().startswith(_OURS):
            raise _bad_details(f"of our own types there is {DETAIL_TYPE} alone")
        return detail
    # RFC 9396 section 5: unknown fields of a known type are refused.
    unknown = detail.keys() - _MEMBERS
    if unknown:
        named = visible(min(unknown), 60)
        raise _bad_details(f"unknown field '{named}': put it into 'parameters'")
    return detail


def _member(
    detail: dict[str, Any], name: str, kind: type, words: str, default: Any
) -> Any:
    if name not in detail:
        return default
    value = detail[name]
    if not isinstance(value, kind):
        raise _bad_details(f"'{name}' must be {words}")
    return value


def _bad_details(text: str) -> OAuthError:
    return OAuthError(
        400, "invalid_authorization_details", f"authorization_details: {text}"
    )
