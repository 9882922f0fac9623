"""Authenticate the calling agent: exactly one method, one error for every failure."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import replace
from typing import Final

from agentvault_tui.broker.agents_api.replies import bad_client, malformed, unavailable
from agentvault_tui.broker.assertion import (
    SKEW,
    TYPES,
    Assertion,
    FullError,
    ReplayStore,
    UnprovenError,
    check_claims,
)
from agentvault_tui.broker.issuers import Issuer, Issuers
from agentvault_tui.broker.public_key import verifier
from agentvault_tui.broker.registry import Registry
from agentvault_tui.clock import Clock
from agentvault_tui.errors import TenantError
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.model import Agent, sha256_hex
from agentvault_tui.web.forms import BodyError, form_value

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = ("EdDSA", "ES256", "RS256")
_LONGEST_JTI: Final = 512
METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_NOBODY: Final = "0" * 64
"""Compared with where a client has no secret; no secret hashes to it."""

Caller = tuple[Agent, UsedAssertion | None]
"""The agent, and the assertion that authenticated it."""


class ClientAuth:
    """Authenticates agents by secret or by assertion."""

    def __init__(
        self,
        registry: Registry,
        issuers: Issuers,
        clock: Clock,
        audiences: frozenset[str],
        replays: ReplayStore,
    ) -> None:
        """Know clients by *registry*; their own assertions are for *audiences*."""
        self._registry = registry
        self._find = registry.find_agent
        self._issuers = issuers
        self._clock = clock
        self._audiences = audiences
        self._replays = replays

    async def __call__(
        self, authorization: bytes | None, form: dict[str, object]
    ) -> Caller:
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
            return await self._by_assertion(named, assertion, kind)
        raise bad_client()

    def _by_secret(self, client_id: object, secret: object) -> Agent:
        if not isinstance(client_id, str) or not isinstance(secret, str):
            raise bad_client()
        agent = self._find(client_id)
        expected = (agent.credential.secret_sha256 if agent else None) or _NOBODY
        # The same hash and comparison whether or not there is such a client.
        if not hmac.compare_digest(sha256_hex(secret), expected) or agent is None:
            raise bad_client()
        return agent

    async def _by_assertion(self, named: object, text: object, kind: object) -> Caller:
        if kind != ASSERTION_TYPE or not isinstance(text, str):
            raise bad_client()
        try:
            assertion = Assertion.parse(text)
            if self._issuers.knows(assertion):
                issuer = self._issuers.of(assertion)
                return await self._by_platform(named, issuer, assertion), None
            assertion.check_type(TYPES)
        except UnprovenError:
            raise bad_client() from None
        client_id = assertion.claims.get("sub")
        if not isinstance(client_id, str) or named not in (None, client_id):
            raise bad_client()
        agent = self._find(client_id)
        key = agent.credential.public_key if agent else None
        try:
            used = self._accept(assertion, client_id, key)
        except FullError:
            text = "too many assertions in five minutes; reuse tokens while they last"
            raise unavailable(text, 30) from None
        if used is None or agent is None:
            raise bad_client()
        return agent, used

    async def _by_platform(
        self, named: object, issuer: Issuer, assertion: Assertion
    ) -> Agent:
        """Return the agent that a platform's token is of; *named* picks one of several.

        Raises:
            UnprovenError: the token is not that issuer's, or not exactly one agent is
                meant: of those that match, one that is revoked does not count next to
                one that is served.
        """
        try:
            subject = f"{issuer.name}:{await issuer.subject(assertion)}"
        except TenantError:
            text = "the keys of the token's issuer cannot be had right now"
            raise unavailable(text, 5) from None
        agents = self._registry.agents_of_subject(subject)
        if named is not None:
            agents = [one for one in agents if one.client_id == named]
        active = self._registry.lifetimes.is_active
        served = [one for one in agents if active(one.id)]
        if len(candidates := served or agents) != 1:
            raise UnprovenError
        return replace(candidates[0], authenticated_as=subject)

    def _accept(
        self, assertion: Assertion, client_id: str, jwk: str | None
    ) -> UsedAssertion | None:
        """Use *assertion*, if the client with the registered key *jwk* made it."""
        key = verifier(jwk) if jwk else assertion.stand_in()
        if not assertion.signed_by(key) or not jwk:
            return None
        now, boot = self._clock.now().timestamp(), self._clock.boot()
        try:
            expires = check_claims(assertion, client_id, self._audiences, now)
        except UnprovenError:
            return None
        jti = assertion.claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI:
            return None
        return self._replays.use(client_id, jti, expires + SKEW, now, boot)


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
