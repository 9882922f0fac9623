"""Bodies and answers of the Authentication API, with Auth0's envelope and statuses."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from agentvault_tui.encoder import to_base64url
from agentvault_tui.errors import LedgerError, SealedError, TenantRefusedError
from agentvault_tui.tenant.codes import TooManyCodesError
from agentvault_tui.web import BodyError, parse_body, parse_form, read_body

FORM: Final = "application/x-www-form-urlencoded"
_FIELDS: Final = 64
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_GRANTS_DOC: Final = "https://auth0.com/docs/clients/client-grant-types"
_STATUS: Final = {
    # Auth0's own, where RFC 8628 section 3.5 has 400 (facts measured on its traffic).
    "authorization_pending": 403,
    "slow_down": 429,
    "expired_token": 403,
    "access_denied": 403,
    "invalid_grant": 403,
    "unauthorized_client": 403,
    "too_many_requests": 429,
    "invalid_client": 401,
    "invalid_token": 401,
    "federated_connection_refresh_token_not_found": 401,
    "federated_connection_refresh_token_flow_failed": 401,
    "unsupported_media_type": 415,
    "not_found": 404,
}


_log = logging.getLogger("agentvault.tenant")


class ExchangeError(TenantRefusedError):
    """A refusal whose reason is in the log and not in the answer."""

    def __init__(self, error: str, what: str, reason: str) -> None:
        super().__init__(error, what)
        self.reason = reason


class DeniedByPersonError(TenantRefusedError):
    """A person answered otherwise at the approval page: an ID token has the answer."""

    def __init__(self, id_token: str) -> None:
        super().__init__("access_denied", "The person denied it.")
        self.id_token = id_token


def refused(error: str, description: str) -> TenantRefusedError:
    """Return a refusal as OAuth words it (RFC 6749 section 5.2)."""
    return TenantRefusedError(error, description)


def required(form: Mapping[str, str], *names: str) -> list[str]:
    """Return the parameters *names* of a request.

    Raises:
        TenantRefusedError: ``invalid_request``: one is missing or empty.
    """
    for name in names:
        if not form.get(name):
            raise refused("invalid_request", f"Missing required parameter: {name}")
    return [form[name] for name in names]


def reply(status: int, body: Mapping[str, object]) -> Response:
    """Write a JSON answer that no cache keeps (RFC 6749 section 5.1)."""
    return json_reply(status, body, {"pragma": "no-cache"})


def refusal(error: TenantRefusedError) -> Response:
    """Write a refusal in Auth0's envelope, with the status it has in its flow."""
    text = f"{error.what} {error.remedy}".rstrip()
    body: dict[str, object] = {"error": error.error, "error_description": text}
    if error.error == "unauthorized_client":
        body["error_uri"] = _GRANTS_DOC
    if isinstance(error, TooManyCodesError):
        body["cap"] = error.cap
    if isinstance(error, DeniedByPersonError):
        body["id_token"] = error.id_token
    return reply(error.status or _STATUS.get(error.error, 400), body)


async def body_of(request: Request) -> dict[str, str]:
    """Read a form or JSON, as Auth0 does; values other than texts are passed over.

    Raises:
        TenantRefusedError: ``invalid_request`` or ``unsupported_media_type``.
    """
    try:
        kind = request.headers.get("content-type", "").encode("latin-1")
        fields = parse_body(kind, await read_body(request.receive))
    except BodyError as error:
        code = "unsupported_media_type" if error.status == 415 else "invalid_request"
        raise refused(code, error.text) from None
    return {name: value for name, value in fields.items() if isinstance(value, str)}


async def page_form(request: Request) -> dict[str, str]:
    """Read a page's form; one that no page of ours sends reads as empty."""
    body = await read_body(request.receive)
    try:
        return parse_form(body) if media_type(request) == FORM else {}
    except BodyError:
        return {}


def media_type(request: Request) -> str:
    """Return only the media type of a header."""
    sent = request.headers.get("content-type", "")
    return sent.partition(";")[0].strip().lower()


async def wide_form(request: Request) -> dict[str, str]:
    """Read a form one field of which may be as long as the body's cap allows.

    A form alone, as Auth0 documents for the device flow: no JSON.

    Raises:
        TenantRefusedError: ``unsupported_media_type``, or ``invalid_request``:
            malformed, or a parameter twice.
    """
    body = await read_body(request.receive)
    if media_type(request) != FORM:
        raise refused("unsupported_media_type", f"send {FORM}")
    pairs: list[tuple[str, str]] | None = None
    with contextlib.suppress(ValueError):
        pairs = parse_qsl(
            body.decode(), strict_parsing=True, errors="strict", max_num_fields=_FIELDS
        )
    if pairs is None or len(dict(pairs)) != len(pairs):
        raise refused("invalid_request", "malformed form, or a parameter stands twice")
    return dict(pairs)


async def away(_: Request, error: Exception) -> Response:
    """Answer that the team's store, or a key, is missing: sign-ins are impossible."""
    _log.warning("%s", error)
    code, text = "temporarily_unavailable", "The tenant's store does not answer."
    if isinstance(error, SealedError):
        code, text = "sealed", "What the tenant has sealed does not open here."
    payload = {"error": code, "error_description": f"{text} Try again in a moment."}
    answer = reply(503, payload)
    answer.headers["retry-after"] = "1"
    return answer


AWAY: Final = {LedgerError: away, SealedError: away}
"""Of each Starlette application: one that is mounted answers for itself."""


def json_reply(
    status: int, body: object = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer that no cache keeps; a *body* of None has no media type."""
    return Response(
        b"" if body is None else json.dumps(body).encode(),
        status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type=None if body is None else "application/json",
    )


def proven(challenge: str | None, verifier: str | None) -> bool:
    """Check *verifier* against *challenge* by S256 (RFC 7636 section 4.6).

    RFC 9700 section 2.1.1: an unannounced verifier is refused, too; else a code could
    be slipped in by leaving PKCE out.
    """
    if challenge is None or verifier is None:
        return challenge is verifier
    digest = hashlib.sha256(verifier.encode()).digest()
    return _VERIFIER.fullmatch(verifier) is not None and hmac.compare_digest(
        to_base64url(digest).encode(), challenge.encode()
    )
