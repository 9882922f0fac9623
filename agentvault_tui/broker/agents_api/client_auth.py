"""Which agent is calling: exactly one method, and one error for every failure."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from typing import Any, Final

from agentvault_tui.broker.agents_api.assertion import (
    ASSERTION_TYPE,
    Assertion,
    Assertions,
    UnprovenError,
)
from agentvault_tui.broker.agents_api.faults import bad_client, malformed, unavailable
from agentvault_tui.broker.replay import FullError
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.model import Agent, sha256_hex
from agentvault_tui.web.forms import BodyError, form_value

METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_NOBODY: Final = "0" * 64
"""Compared with when there is nothing to compare with; no secret hashes to it."""

Caller = tuple[Agent, UsedAssertion | None]
"""Who calls, and the assertion that was used up for it."""
Find = Callable[[str], Agent | None]


class ClientAuth:
    """Authenticates agents by secret or by assertion."""

    def __init__(self, find: Find, assertions: Assertions) -> None:
        """Look clients up with *find*."""
        self._find = find
        self._assertions = assertions

    def __call__(self, authorization: bytes | None, form: dict[str, Any]) -> Caller:
        """Return the agent that sent a request with these credentials.

        With an assertion, also that one: it is to be recorded before the answer.

        Raises:
            OAuthError: 401 ``invalid_client``; 400 when more than one method was used
                (RFC 6749 section 2.3).
        """
        secret, assertion = form.get("client_secret"), form.get("client_assertion")
        if (authorization, secret, assertion).count(None) < 2:
            raise malformed("use exactly one method of client authentication")
        named = form.get("client_id")
        if authorization is not None:
            client_id, secret = _basic(authorization)
            if named is not None and named != client_id:
                raise bad_client()
            return self._by_secret(client_id, secret), None
        if secret is not None:
            return self._by_secret(named, secret), None
        if assertion is not None:
            kind = form.get("client_assertion_type")
            return self._by_assertion(named, assertion, kind)
        raise bad_client()

    def _by_secret(self, client_id: object, secret: object) -> Agent:
        if not isinstance(client_id, str) or not isinstance(secret, str):
            raise bad_client()
        agent = self._find(client_id)
        known = (agent.credential.secret_sha256 if agent else None) or _NOBODY
        # The same hash and comparison whether or not there is such a client.
        if not hmac.compare_digest(sha256_hex(secret), known) or agent is None:
            raise bad_client()
        return agent

    def _by_assertion(self, named: object, text: object, kind: object) -> Caller:
        if kind != ASSERTION_TYPE or not isinstance(text, str):
            raise bad_client()
        try:
            assertion = Assertion.parse(text)
        except UnprovenError:
            raise bad_client() from None
        client_id = assertion.claims.get("sub")
        if not isinstance(client_id, str) or named not in (None, client_id):
            raise bad_client()
        agent = self._find(client_id)
        key = agent.credential.public_key if agent else None
        try:
            used = self._assertions.accept(assertion, client_id, key)
        except FullError:
            text = "too many assertions in five minutes; reuse tokens while they last"
            raise unavailable(text, 30) from None
        if used is None or agent is None:
            raise bad_client()
        return agent, used


def _basic(header: bytes) -> tuple[str, str]:
    """Read ``Authorization: Basic``; both halves are form-encoded (RFC 6749 2.3.1)."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        raise bad_client()
    try:
        pair = base64.b64decode(encoded.strip(), validate=True)
        client_id, _, secret = pair.partition(b":")
        return form_value(client_id), form_value(secret)
    except (binascii.Error, BodyError):
        raise bad_client() from None
