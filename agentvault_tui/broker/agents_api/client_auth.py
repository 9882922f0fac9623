"""Authenticate the calling agent: exactly one method, one error for every failure."""

from __future__ import annotations

import base64
import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from agentvault_tui.broker.agents_api.replies import bad_client, malformed, unavailable
from agentvault_tui.broker.public_key import Verifier, verifier
from agentvault_tui.broker.replay import FullError, ReplayStore
from agentvault_tui.clock import Clock
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.model import Agent, sha256_hex
from agentvault_tui.web.forms import BodyError, form_value, parse_json

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = ("EdDSA", "ES256", "RS256")
MAX_LIFE: Final = 300
SKEW: Final = 30
"""Seconds by which an agent's clock may differ from ours."""
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})
_LONGEST_JTI: Final = 512
_DEPTH: Final = 3


class UnprovenError(Exception):
    """The assertion proves nothing; why is told to nobody."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion taken apart, believed in nothing yet."""

    header: dict[str, object]
    claims: dict[str, object]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str, kinds: frozenset[str] = _TYPES) -> Assertion:
        """Take a compact JWS of one of *kinds* apart; nothing is looked up for it."""
        signed, _, signature = text.rpartition(".")
        head, _, payload = signed.partition(".")
        if not text.isascii():
            raise UnprovenError
        header = _table(head)
        kind = header.get("typ", "JWT")
        # jku, x5u, jwk and kid are passed over: the key is the one registered (RFC
        # 8725 section 3.10). Of crit we understand nothing (RFC 7515 section 4.1.11).
        if {"crit", "b64"} & header.keys() or not isinstance(kind, str):
            raise UnprovenError
        if kind.lower() not in kinds:  # RFC 8725 section 3.11
            raise UnprovenError
        return cls(header, _table(payload), signed.encode(), _decode(signature))

    def signed_by(self, key: Verifier) -> bool:
        """Tell whether *key* made the signature, by an algorithm that is the key's."""
        name = self.header.get("alg")
        if name not in key.algorithms:
            return False
        try:
            # Through the algorithm itself: joserfc's decoder warns on every EdDSA.
            return JWSRegistry.algorithms[name].verify(
                self.signed, self.signature, key.key
            )
        except (JoseError, ValueError):
            return False

    def stand_in(self) -> Verifier:
        """Return a key of nobody, so that an unknown client costs the same work."""
        return _STAND_INS.get(str(self.header.get("alg")), _STAND_INS["ES256"])


def check_claims(
    claims: dict[str, object], client_id: str, audiences: frozenset[str], now: float
) -> float:
    """Check everything but the ``jti`` (RFC 7523 section 3); return the ``exp``."""
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise UnprovenError
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        # Two audiences would let the other one use it here (RFC 7523 section 3).
        audience = audience[0]
    if not isinstance(audience, str) or audience not in audiences:
        raise UnprovenError
    expires = _time(claims, "exp", None)
    if not now - SKEW < expires <= now + MAX_LIFE:
        raise UnprovenError
    issued = _time(claims, "iat", min(now, expires))
    if issued > now + SKEW or expires - issued > MAX_LIFE:
        raise UnprovenError
    if _time(claims, "nbf", now) > now + SKEW:
        raise UnprovenError
    return expires


def _time(claims: dict[str, object], name: str, default: float | None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnprovenError
    return value


def _table(segment: str) -> dict[str, object]:
    try:
        table = parse_json(_decode(segment).decode(), _DEPTH)
    except (BodyError, UnicodeDecodeError):
        raise UnprovenError from None
    if not isinstance(table, dict):
        raise UnprovenError
    return table


def _decode(segment: str) -> bytes:
    try:
        padded = segment + "=" * (-len(segment) % 4)
        raw = urlsafe_b64decode(padded)
    except (binascii.Error, ValueError):
        raise UnprovenError from None
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != segment or not raw:
        # b64decode drops what is not in the alphabet; one token has one spelling.
        raise UnprovenError
    return raw


def _stand_ins() -> dict[str, Verifier]:
    edwards = Verifier(OKPKey.generate_key("Ed25519"), ("EdDSA", "Ed25519"))
    # Verifying needs a number of the right size, not one with known factors.
    nobody = rsa.RSAPublicNumbers(65_537, (1 << 2047) + (1 << 1023) + 1).public_key()
    return {
        "EdDSA": edwards,
        "Ed25519": edwards,
        "ES256": Verifier(ECKey.generate_key("P-256"), ("ES256",)),
        "RS256": Verifier(RSAKey(nobody, nobody), ("RS256",)),
    }


_STAND_INS: Final = _stand_ins()


METHODS: Final = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_NOBODY: Final = "0" * 64
"""Compared with where a client has no secret; no secret hashes to it."""

Caller = tuple[Agent, UsedAssertion | None]
"""The agent, and the assertion that authenticated it."""
Find = Callable[[str], Agent | None]


class ClientAuth:
    """Authenticates agents by secret or by assertion."""

    def __init__(
        self,
        find: Find,
        clock: Clock,
        audiences: frozenset[str],
        replays: ReplayStore,
    ) -> None:
        """Look clients up with *find*; assertions are for one of *audiences*."""
        self._find = find
        self._clock = clock
        self._audiences = audiences
        self._replays = replays

    def __call__(self, authorization: bytes | None, form: dict[str, object]) -> Caller:
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
            used = self._accept(assertion, client_id, key)
        except FullError:
            text = "too many assertions in five minutes; reuse tokens while they last"
            raise unavailable(text, 30) from None
        if used is None or agent is None:
            raise bad_client()
        return agent, used

    def _accept(
        self, assertion: Assertion, client_id: str, jwk: str | None
    ) -> UsedAssertion | None:
        """Use *assertion*, if the client with the registered key *jwk* made it."""
        key = verifier(jwk) if jwk else assertion.stand_in()
        if not assertion.signed_by(key) or not jwk:
            return None
        now, boot = self._clock.now().timestamp(), self._clock.boot()
        try:
            expires = check_claims(assertion.claims, client_id, self._audiences, now)
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
