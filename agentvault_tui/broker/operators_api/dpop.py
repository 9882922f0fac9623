"""DPoP proofs: each request shows that its sender holds one key (RFC 9449)."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Final

from agentvault_tui.broker.assertion import Assertion, UnprovenError
from agentvault_tui.broker.public_key import parse_public_key, verifier
from agentvault_tui.clock import Clock
from agentvault_tui.encoder import to_base64url
from agentvault_tui.errors import UsageError
from agentvault_tui.web.reply import Scope

ALGORITHMS: Final = ("ES256", "Ed25519", "EdDSA")
SKEW: Final = 60
"""Seconds by which ``iat`` may differ from the broker's time."""
_KINDS: Final = frozenset({"dpop+jwt"})
_NONCE_SECONDS: Final = 60.0
"""How long a nonce is given out; the one before is taken for as long again."""
_LONGEST_JTI: Final = 512
_PROOFS: Final = 4096
"""Proofs of one seat, and of all sign-ins, that are remembered for one nonce."""


class ProofError(Exception):
    """A request that proves nothing: the error code of its answer, and why."""

    def __init__(self, code: str, why: str, status: int = 401) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.status = status


@dataclass(frozen=True, slots=True)
class DpopProof:
    """A proof for this request, whose signature is not verified yet."""

    jwk: str
    thumbprint: str
    """Of the key (RFC 7638)."""
    nonce: str
    jti: str
    assertion: Assertion


class Proofs:
    """Checks proofs, gives out nonces, and takes each proof once.

    Proofs are remembered by the nonce they carry, so for as long as that is taken:
    no clock that is set back has one taken twice.
    """

    def __init__(self, clock: Clock, origin: str) -> None:
        """Take proofs for *origin*, the URL that clients name, without a slash."""
        self._clock = clock
        self._origin = origin
        self._used: dict[str, dict[str, set[bytes]]] = {}
        """Of each nonce that is taken, the latest last: digests by seat."""
        self._since = 0.0

    @property
    def nonce(self) -> str:
        """The nonce to give out now; another one every minute."""
        age = self._clock.boot() - self._since
        if not self._used or age >= _NONCE_SECONDS:
            latest = list(self._used.items())[-1:]
            self._used = dict(latest) if age < 2 * _NONCE_SECONDS else {}
            self._used[secrets.token_urlsafe(24)] = {}
            self._since = self._clock.boot()
        return next(reversed(self._used))

    def read(self, scope: Scope, token: str | None) -> DpopProof:
        """Read the proof of a request (RFC 9449 section 4.3), all but its signature.

        It must be bound to the request's access *token*, where it has one.

        Raises:
            ProofError: ``invalid_dpop_proof``, or ``use_dpop_nonce``.
        """
        given = [value for name, value in scope["headers"] if name == b"dpop"]
        if len(given) != 1:
            raise _invalid("one DPoP header is needed")
        try:
            assertion = Assertion.parse(given[0].decode("latin-1"))
            assertion.check_type(_KINDS)
            jwk = parse_public_key(json.dumps(assertion.header.get("jwk")))
        except UnprovenError:
            raise _invalid("the proof is no JWT of the type dpop+jwt") from None
        except UsageError as error:
            raise _invalid(f"its jwk: {error.what}") from None
        claims = assertion.claims
        if assertion.header.get("alg") not in ALGORITHMS:
            raise _invalid("it is not signed with ES256 or Ed25519")
        if claims.get("htm") != scope["method"]:
            raise _invalid("it is for another method")
        url = claims.get("htu")
        path = scope["raw_path"].decode("latin-1")
        if not isinstance(url, str) or _plain(url) != self._origin + path:
            raise _invalid(f"it is for another URL than those of {self._origin}")
        self._check_time(assertion)
        if token is not None and not _same(claims.get("ath"), _ath(token)):
            raise _invalid("it is not for this access token")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST_JTI:
            raise _invalid("it has no jti")
        nonce = claims.get("nonce")
        _ = self.nonce  # an old one is not taken any more
        if not isinstance(nonce, str) or nonce not in self._used:
            raise ProofError("use_dpop_nonce", "the proof needs the nonce given here")
        # The canonical JWK is what RFC 7638 hashes.
        thumbprint = to_base64url(hashlib.sha256(jwk.encode()).digest())
        return DpopProof(jwk, thumbprint, nonce, jti, assertion)

    def take(self, proof: DpopProof, seat: str) -> None:
        """Verify the signature, and take this proof for the first and only time.

        Args:
            proof: of a request.
            seat: the seat whose room it takes; empty for sign-ins, which strangers
                begin, with as many keys as they like.

        Raises:
            ProofError: it is not by that key, or was taken before; 429 when there is
                no room to remember it.
        """
        used = self._used[proof.nonce].setdefault(seat, set())
        digest = hashlib.sha256(f"{proof.thumbprint} {proof.jti}".encode()).digest()
        if digest in used:
            raise _invalid("it was used before")
        if len(used) >= _PROOFS:
            raise ProofError("slow_down", "too many requests in a minute", 429)
        if not proof.assertion.signed_by(verifier(proof.jwk)):
            raise _invalid("its signature is not by its key")
        used.add(digest)

    def _check_time(self, assertion: Assertion) -> None:
        try:
            issued = assertion.time("iat")
        except UnprovenError:
            raise _invalid("it has no iat") from None
        apart = issued - self._clock.now().timestamp()
        if not abs(apart) <= SKEW:
            offset = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'}"
            raise _invalid(f"its iat is {offset} the broker's time: set the clock")


def _plain(url: str) -> str:
    """Return *url* without query and fragment (RFC 9449 section 4.3, number 9)."""
    return url.partition("#")[0].partition("?")[0]


def _ath(token: str) -> str:
    return to_base64url(hashlib.sha256(token.encode()).digest())


def _same(given_value: object, wanted: str) -> bool:
    return isinstance(given_value, str) and hmac.compare_digest(
        given_value.encode("utf-8", "surrogatepass"), wanted.encode()
    )


def _invalid(why: str) -> ProofError:
    return ProofError("invalid_dpop_proof", f"the DPoP proof is refused: {why}")
