"""The tenant's signing keys: RSA, sealed at rest; current, next, and retired."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import ConflictError
from agentvault_tui.home import Home
from agentvault_tui.settings import Settings
from agentvault_tui.tenant.file_store import open_store
from agentvault_tui.tenant.store import Store, TenantSeal

_BITS: Final = 2048
"""Of the modulus: the size of Auth0's keys, allowed by NIST SP 800-131A."""
KEY_KIND: Final = "signing key"
_RETIRED: Final = "retired_keys"
MARGIN: Final = timedelta(seconds=60)
"""For clocks that differ: a key stays published so long after its last token lapsed."""
MOST_RETIRED: Final = 16
"""Clients bound the key sets they read, ours at 20 keys: beyond it they read none."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The result of a rotation, by the ids of the keys."""

    current: str
    next: str
    retired: str
    """The signing key until now."""
    retired_until: datetime
    """When the last token it signed is worth nothing; now, if it was revoked."""


class SigningKeys:
    """Signs ID tokens with RS256, the one algorithm Auth0 offers every client.

    Two keys are published, like Auth0's current and next, so that a client which
    cached the set already knows the key that a rotation brings into use. A retired key
    is published until the last token that it signed has expired, which may be a month
    for an API's. So the latest ``exp`` is stored before a token leaves.
    """

    def __init__(self, store: Store, seal: TenantSeal, clock: Clock) -> None:
        self._store = store
        self._seal = seal
        self._clock = clock
        for use in ("current", "next"):
            if self._kid(use) is None:
                self._write(use, _new_key())
        self._keys: dict[str, RSAKey] = {}

    def __repr__(self) -> str:
        """Name the keys, without their values."""
        return f"SigningKeys({', '.join(str(key.kid) for key in self._keys.values())})"

    def sign(self, claims: dict[str, Any], typ: str = "JWT") -> str:
        """Return *claims*, which have an ``exp``, as a signed JWT (RFC 7519)."""
        key = self._used_until(claims["exp"])
        header = {"alg": "RS256", "typ": typ, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=["RS256"])

    def verified(
        self, token: str
    ) -> tuple[dict[str, object], dict[str, object]] | None:
        """Return header and claims signed by one of the published keys.

        RS256 alone (RFC 8725 section 3.1), whatever the header says.
        """
        keys = KeySet.import_key_set({"keys": self.public()["keys"]})
        try:
            verified = jwt.decode(token, keys, algorithms=["RS256"])
        except (JoseError, ValueError, TypeError, RecursionError):
            return None
        return verified.header, verified.claims

    def public(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517 section 5): public parts only."""
        self._read()
        keys = [_public(key) for key in self._keys.values()]
        return {"keys": keys + [old["jwk"] for old in self._retired()]}

    def rotate(self) -> Rotation:
        """Bring the next key into use, and make another next one, in one transaction.

        The private part of the key that was in use is deleted; its public part is
        published until its signatures have expired. A running tenant follows.

        Raises:
            ConflictError: too many retired keys are published still.
        """
        fresh = _new_key()
        with self._store.transaction():
            self._read()
            before, until = self._keys["current"], self._lapse()
            retired = self._retired()
            if len(retired) >= MOST_RETIRED:
                first = datetime.fromtimestamp(min(o["until"] for o in retired), UTC)
                raise ConflictError(
                    f"{MOST_RETIRED} retired keys are published for tokens that are "
                    "still good",
                    f"wait until {iso(first)[:19]}Z, or end those tokens: "
                    "agentvault tenant rotate-keys --revoke",
                )
            retired.append({"jwk": _public(before), "until": until.timestamp()})
            self._store.remember(_RETIRED, json.dumps(retired))
            self._store.change("DELETE FROM signing_keys WHERE use = 'current'")
            self._store.change("UPDATE signing_keys SET use = 'current'")
            self._write("next", fresh)
        return self._rotation(str(before.kid), until)

    def revoke(self) -> Rotation:
        """Replace every key there is: somebody else may know one of them.

        A reader of one could read the other, so the next one does not sign either, and
        no earlier signature verifies any more.
        """
        fresh = {use: _new_key() for use in ("current", "next")}
        with self._store.transaction():
            # Not opened: what sealed it may be lost.
            before = str(self._kid("current"))
            self._store.remember(_RETIRED, "[]")
            self._store.change("DELETE FROM signing_keys")
            for use, key in fresh.items():
                self._write(use, key)
        return self._rotation(before, self._clock.now())

    def _used_until(self, expires: float) -> RSAKey:
        """Return the current key, once *expires* is stored as its latest ``exp``."""
        noted = 0
        while not noted:
            self._read()
            key = self._keys["current"]
            # None, if another process rotated the keys after we read them.
            noted = self._store.change(
                "UPDATE signing_keys SET signed_until ="
                " CASE WHEN signed_until < ? THEN ? ELSE signed_until END"
                " WHERE use = 'current' AND kid = ?",
                *(float(expires), float(expires), key.kid),
            )
        return key

    def _lapse(self) -> datetime:
        """Return when the last token of the current key expires."""
        sql = "SELECT signed_until FROM signing_keys WHERE use = 'current'"
        until = float(self._store.all(sql)[0]["signed_until"])
        signed = datetime.fromtimestamp(until, UTC)
        return max(signed, self._clock.now().astimezone(UTC)) + MARGIN

    def _rotation(self, before: str, until: datetime) -> Rotation:
        self._read()
        kids = [str(self._keys[use].kid) for use in ("current", "next")]
        return Rotation(kids[0], kids[1], before, until)

    def _read(self) -> None:
        """Load the keys of the store: another process may have rotated them."""
        for use in ("current", "next"):
            key = self._keys.get(use)
            if key is None or key.kid != self._kid(use):
                self._keys[use] = self._load(use)

    def _kid(self, use: str) -> str | None:
        row = self._store.find("signing_keys", use=use)
        return None if row is None else str(row["kid"])

    def _load(self, use: str) -> RSAKey:
        row = self._store.all("SELECT * FROM signing_keys WHERE use = ?", use)[0]
        kid = str(row["kid"])
        pem = self._seal.open(KEY_KIND, kid, 1, row["sealed"])
        # We made it and sealed it: whether its numbers are those of an RSA key takes
        # longer to check than to sign with it.
        private = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(private, RSAPrivateKey)  # noqa: S101 - no others are made
        return RSAKey(private, pem, {"use": "sig", "alg": "RS256", "kid": kid})

    def _write(self, use: str, key: RSAKey) -> None:
        """Store *key* for *use*, unless another process was first."""
        kid = str(key.kid)
        self._store.insert(
            "signing_keys",
            use=use,
            kid=kid,
            sealed=self._seal.close(KEY_KIND, kid, 1, key.as_pem(private=True)),
            created_at=iso(self._clock.now()),
        )

    def _retired(self) -> list[dict[str, Any]]:
        now = self._clock.now().timestamp()
        retired = json.loads(self._store.fact(_RETIRED) or "[]")
        return [old for old in retired if old["until"] > now]


def rotate_keys(
    home: Home, settings: Settings, clock: Clock, *, revoke: bool = False
) -> Rotation:
    """Rotate the keys of *home*'s tenant, whether or not it runs.

    With *revoke* all are replaced at once, so that nothing signed before verifies.

    Raises:
        TenantError: its store cannot be used.
        ConflictError: too many retired keys are published still.
    """
    store = open_store(home, settings, clock, checkpoints=False)
    try:
        seal = TenantSeal.of(home, shared=bool(settings.store.url))
        keys = SigningKeys(store, seal, clock)
        return keys.revoke() if revoke else keys.rotate()
    finally:
        store.close()


def _new_key() -> RSAKey:
    key = RSAKey.generate_key(_BITS, private=True)
    key.ensure_kid()
    return key


def _public(key: RSAKey) -> dict[str, Any]:
    """Return *key* as it is published."""
    jwk: dict[str, Any] = key.as_dict(private=False)
    return jwk
