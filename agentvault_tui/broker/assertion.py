"""Client assertions as compact JWS: taken apart, verified, checked, and used once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from agentvault_tui.broker.public_key import Verifier
from agentvault_tui.clock import Clock
from agentvault_tui.encoder import from_base64url, to_base64url
from agentvault_tui.ledger import UsedAssertion
from agentvault_tui.web.forms import BodyError, parse_json

MAX_LIFE: Final = 300
"""Seconds an assertion may be valid. After a start, each used one is remembered at
least this long."""
SKEW: Final = 30
"""Seconds by which an agent's clock may differ from ours."""
TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})


class UnprovenError(Exception):
    """The assertion proves nothing; the reason is not disclosed."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """A parsed assertion; nothing in it is verified yet."""

    header: dict[str, object]
    claims: dict[str, object]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """Parse a compact JWS; fetch nothing that it names (``jku``, ``x5u``)."""
        signed, _, signature = text.rpartition(".")
        head, _, payload = signed.partition(".")
        if not text.isascii():
            raise UnprovenError
        header = _table(head)
        # No extension of crit is supported (RFC 7515 section 4.1.11).
        if {"crit", "b64"} & header.keys():
            raise UnprovenError
        return cls(header, _table(payload), signed.encode(), _decode(signature))

    def check_type(self, types: frozenset[str]) -> None:
        """Refuse any other ``typ`` than one of *types* (RFC 8725 section 3.11)."""
        kind = self.header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in types:
            raise UnprovenError

    def signed_by(self, key: Verifier) -> bool:
        """Check whether *key* made the signature, by an algorithm that is the key's."""
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
        """Return an unused key, so that an unknown client costs the same work."""
        return _STAND_INS.get(str(self.header.get("alg")), _STAND_INS["ES256"])

    def audience(self) -> str:
        """Return the audience; refuse several.

        Another audience could replay the assertion here (RFC 7523 section 3).
        """
        audience = self.claims.get("aud")
        if isinstance(audience, list) and len(audience) == 1:
            audience = audience[0]
        if not isinstance(audience, str):
            raise UnprovenError
        return audience

    def time(self, name: str, default: float | None = None) -> float:
        """Return a claim that is a NumericDate (RFC 7519 section 2)."""
        value = self.claims.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnprovenError
        return value


def check_claims(
    assertion: Assertion, client_id: str, audiences: frozenset[str], now: float
) -> float:
    """Check everything but the ``jti`` (RFC 7523 section 3); return the ``exp``."""
    claims = assertion.claims
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        raise UnprovenError
    if assertion.audience() not in audiences:
        raise UnprovenError
    expires = assertion.time("exp")
    if not now - SKEW < expires <= now + MAX_LIFE:
        raise UnprovenError
    issued = assertion.time("iat", min(now, expires))
    if issued > now + SKEW or expires - issued > MAX_LIFE:
        raise UnprovenError
    if assertion.time("nbf", now) > now + SKEW:
        raise UnprovenError
    return expires


def _table(segment: str) -> dict[str, object]:
    try:
        table = parse_json(_decode(segment).decode())
    except (BodyError, UnicodeDecodeError):
        raise UnprovenError from None
    if not isinstance(table, dict):
        raise UnprovenError
    return table


def _decode(segment: str) -> bytes:
    try:
        raw = from_base64url(segment)
    except ValueError:
        raise UnprovenError from None
    if to_base64url(raw) != segment or not raw:  # one token has one spelling
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


_SPAN: Final = 30
"""Seconds of expiry that share a bucket; a bucket is dropped whole."""
_UNSAVED_CAP: Final = 10_000


class FullError(Exception):
    """A client has used as many assertions as are remembered for one."""


class ReplayStore:
    """Keeps each ``jti`` until its assertion has expired, bounded for each client.

    If a client reaches its limit, its next assertions are refused until earlier ones
    expire; other clients are unaffected.
    """

    def __init__(self, per_client: int = 65_536) -> None:
        """Remember at most *per_client* live assertions of one client."""
        self._per_client = per_client
        self._buckets: dict[int, dict[str, set[str]]] = {}
        self._ends: dict[int, float] = {}
        """The end of a bucket's assertions by the boot clock, which cannot be set."""
        self._unsaved: list[UsedAssertion] = []
        self._shown: WeakValueDictionary[tuple[str, str], UsedAssertion] = (
            WeakValueDictionary()
        )
        """Those with requests under way, unless another broker recorded them."""

    def take_over(self, used: Iterable[UsedAssertion], clock: Clock) -> None:
        """Take over the state of the last process, at any present wall clock."""
        now, boot = clock.now().timestamp(), clock.boot()
        for one in used:
            self._shown.pop((one.client_id, one.digest), None)
            self._note(one, boot + max(one.expires.timestamp() - now, MAX_LIFE))

    def use(
        self, client_id: str, jti: str, expires: float, now: float, boot: float
    ) -> UsedAssertion | None:
        """Note the use of *jti*; return its record, or None if it was used before.

        Call this for registered clients only, so that strangers fill nothing.

        Args:
            client_id: the registered client.
            jti: the assertion's own id.
            expires: when it is refused for its age anyway, in epoch seconds.
            now: the wall clock, in epoch seconds.
            boot: the boot clock, in seconds; a wrong wall clock drops no entry early.

        Raises:
            FullError: too many live ones of that client.
        """
        for index in [i for i in self._buckets if (i + 1) * _SPAN < now]:
            if self._ends[index] < boot:
                del self._buckets[index], self._ends[index]
        digest = hashlib.sha256(jti.encode()).hexdigest()[:32]
        used = 0
        for bucket in self._buckets.values():
            seen = bucket.get(client_id)
            if seen is not None:
                if digest in seen:
                    return None
                used += len(seen)
        if used >= self._per_client:
            raise FullError
        one = UsedAssertion(client_id, digest, datetime.fromtimestamp(expires, UTC))
        self._note(one, boot + expires - now)
        self._shown[client_id, digest] = one
        return one

    def is_first(self, used: UsedAssertion) -> bool:
        """Check whether no other broker recorded it since *used* was returned here."""
        return self._shown.get((used.client_id, used.digest)) is used

    def save_later(self, used: UsedAssertion, now: datetime) -> bool:
        """Store a use that the ledger could not record; False without room."""
        if len(self._unsaved) >= _UNSAVED_CAP:
            self._unsaved = [one for one in self._unsaved if one.expires > now]
        if len(self._unsaved) >= _UNSAVED_CAP:
            return False
        self._unsaved.append(used)
        return True

    @property
    def unsaved(self) -> tuple[UsedAssertion, ...]:
        """The uses that the ledger lacks."""
        return tuple(self._unsaved)

    def saved(self, used: Iterable[UsedAssertion]) -> None:
        """Release the uses that the ledger has now."""
        done = set(used)
        self._unsaved = [one for one in self._unsaved if one not in done]

    def _note(self, used: UsedAssertion, ends: float) -> None:
        index = int(used.expires.timestamp() // _SPAN)
        bucket = self._buckets.setdefault(index, {})
        bucket.setdefault(used.client_id, set()).add(used.digest)
        self._ends[index] = max(ends, self._ends.get(index, 0.0))
