"""Passkeys (WebAuthn): registered by a link, and verified with user verification.

py_webauthn is imported where a passkey is used: it takes 0.2 s of a start.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from agentvault_tui import strict_json
from agentvault_tui.clock import Clock, iso
from agentvault_tui.encoder import from_base64url, to_base64url
from agentvault_tui.errors import TenantRefusedError
from agentvault_tui.model.claims import PASSKEY_COPIED
from agentvault_tui.tenant.store import Row, Store, TenantSeal
from agentvault_tui.tenant.users import User
from agentvault_tui.text import visible
from agentvault_tui.web import LocalSite, PublicAddress

if TYPE_CHECKING:
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor

CHALLENGE_LIFE: Final = 300
"""Seconds from a page with a random challenge to the answer to it."""
_USES_KEPT: Final = 8 * 86_400
"""Seconds: longer than any step-up, change or random challenge lives."""
_NONCE: Final = 16
_TIME: Final = 8
_UNREADABLE: Final = (
    *(ValueError, TypeError, LookupError, AttributeError),
    *(ArithmeticError, EOFError, RecursionError),
)
"""The errors of reading an answer: JSON, CBOR and COSE, of a stranger."""
_MOST: Final = 20
"""Passkeys of one person."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """A credential of one person, as the store holds it."""

    id: str
    """The credential id, in base64url."""
    sub: str
    public_key: bytes = field(repr=False)
    counter: int
    synced: bool
    """Whether it may be copied to other devices: backup eligible (section 6.1.3)."""
    host: str
    """The RP id it is good for."""
    created_at: str
    last_used_at: str | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """Read one from its row."""
        members = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**members | {"synced": bool(row["synced"])})

    @property
    def amr(self) -> tuple[str, ...]:
        """How it proves its person, in the words of RFC 8176 section 2."""
        return ("swk" if self.synced else "hwk", "user", "mfa")


class CounterError(TenantRefusedError):
    """A passkey's counter did not grow: maybe it is a copy (WebAuthn section 6.1.1)."""

    def __init__(self) -> None:
        super().__init__(
            PASSKEY_COPIED,
            "This passkey may have been copied: its counter did not grow.",
            "Remove it, and tell whoever looks after this AgentVault.",
        )


class Passkeys:
    """The passkeys of one store, at the host of one URL."""

    def __init__(
        self,
        store: Store,
        seal: TenantSeal,
        clock: Clock,
        site: PublicAddress | LocalSite,
    ) -> None:
        self._store = store
        self._clock = clock
        # A restore makes another epoch: what was answered before it is not open again.
        self._key = seal.derive(f"passkey challenge {store.fact('epoch') or ''}")
        self.usable: Final = site.named
        """Whether there can be any: an address is no RP id (WebAuthn section 5.1.2)."""
        self.rp_id: Final = site.host
        self.origin: Final = site.url.rstrip("/")
        """Where an assertion has to be asked for (WebAuthn section 5.8.1)."""

    def of(self, sub: str) -> list[Passkey]:
        """Return the passkeys of *sub* that this host takes."""
        rows = self._store.all(
            "SELECT * FROM passkeys WHERE sub = ? AND host = ? ORDER BY created_at",
            *(sub, self.rp_id),
        )
        return list(map(Passkey.of, rows))

    def challenge(self, about: str) -> bytes:
        """Return a random challenge bound to *about*, good for `CHALLENGE_LIFE`."""
        until = int(self._clock.now().timestamp()) + CHALLENGE_LIFE
        head = secrets.token_bytes(_NONCE) + until.to_bytes(_TIME)
        return head + self._mac(head, about)

    def is_ours(self, challenge: bytes, about: str) -> bool:
        """Check whether *challenge* is a live one of ours about *about*."""
        head, mac = challenge[: _NONCE + _TIME], challenge[_NONCE + _TIME :]
        left = int.from_bytes(head[_NONCE:]) - self._clock.now().timestamp()
        # Not if the clock was set back by more than its life, either.
        lives = 0 < left <= CHALLENGE_LIFE
        return lives and hmac.compare_digest(mac, self._mac(head, about))

    def request_options(self, challenge: bytes, sub: str | None = None) -> str:
        """Return the options of a page for `navigator.credentials.get`, as JSON.

        Passkeys of *sub* may answer; without one any that the device knows for us.
        """
        from webauthn import (  # noqa: PLC0415 - see the module's docstring
            generate_authentication_options,
            options_to_json,
        )
        from webauthn.helpers.structs import (  # noqa: PLC0415 - as above
            UserVerificationRequirement,
        )

        allowed = [] if sub is None else [_named(one.id) for one in self.of(sub)]
        return options_to_json(
            generate_authentication_options(
                rp_id=self.rp_id,
                challenge=challenge,
                allow_credentials=allowed,
                user_verification=UserVerificationRequirement.REQUIRED,
            )
        )

    def creation_options(self, user: User, about: str) -> str:
        """Return the options of a page for `navigator.credentials.create`, as JSON."""
        from webauthn import (  # noqa: PLC0415 - see the module's docstring
            generate_registration_options,
            options_to_json,
        )
        from webauthn.helpers.structs import (  # noqa: PLC0415 - as above
            AuthenticatorSelectionCriteria,
            ResidentKeyRequirement,
            UserVerificationRequirement,
        )

        selection = AuthenticatorSelectionCriteria(
            # Found without a user name, so that signing in is one touch.
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        options = generate_registration_options(
            rp_id=self.rp_id,
            rp_name="AgentVault",
            user_name=user.name,
            # Not the subject: section 14.6.1 keeps what names a person out of it.
            user_id=hashlib.sha256(user.sub.encode()).digest(),
            challenge=self.challenge(about),
            authenticator_selection=selection,
            exclude_credentials=[_named(one.id) for one in self.of(user.sub)],
        )
        return options_to_json(options)

    def register(self, user: User, about: str, answer: str) -> Passkey:
        """Verify and store a new passkey of *user*'s (WebAuthn section 7.1).

        *answer* is the browser's, as JSON, and *about* the binding of its challenge.

        Raises:
            TenantRefusedError: ``bad_passkey``.
        """
        from webauthn import (  # noqa: PLC0415 - see the module's docstring
            verify_registration_response,
        )
        from webauthn.helpers.exceptions import (  # noqa: PLC0415 - as above
            WebAuthnException,
        )
        from webauthn.helpers.structs import (  # noqa: PLC0415 - as above
            CredentialDeviceType,
        )

        challenge = self._signed_challenge(answer, about)
        if len(self.of(user.sub)) >= _MOST:
            raise _bad(f"a person may have {_MOST}")
        try:
            made = verify_registration_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=self.rp_id,
                expected_origin=self.origin,
                require_user_verification=True,
            )
        except (WebAuthnException, *_UNREADABLE) as error:
            raise _bad(visible(error, 200)) from None
        synced = made.credential_device_type is CredentialDeviceType.MULTI_DEVICE
        passkey = Passkey(
            to_base64url(made.credential_id),
            user.sub,
            made.credential_public_key,
            made.sign_count,
            synced,
            self.rp_id,
            iso(self._clock.now()),
            None,
        )
        columns = {name: getattr(passkey, name) for name in passkey.__slots__}
        # Section 7.1, step 26: a credential id of another person is refused.
        if not self._store.insert("passkeys", **columns):
            raise _bad("it is registered already")
        return passkey

    def named_in(self, answer: str) -> str:
        """Return the id of the passkey that *answer* names; empty if it names none."""
        with suppress(*_UNREADABLE):
            return str(_object(answer)["id"])
        return ""

    def signed_in(self, answer: str, about: str, sub: str | None = None) -> Passkey:
        """Verify an assertion over a random challenge about *about*, good once.

        Args:
            answer: the browser's or the security key's, as JSON.
            about: the binding that the challenge must have.
            sub: the passkey's owner, if it has to be a certain one.

        Raises:
            TenantRefusedError: ``bad_passkey`` or ``passkey_copied``.
        """
        challenge = self._signed_challenge(answer, about)
        return self._verify(answer, challenge, sub, challenge.hex())

    def verify(self, answer: str, challenge: bytes, sub: str) -> Passkey:
        """Verify an assertion over a digest as the challenge; each counts once.

        The digest stays the same if the broker fails before it records an approval.
        Then the person touches the passkey again, for another device code: that is
        another assertion, and the one before approves nothing any more.

        Args:
            answer: the browser's, as JSON.
            challenge: the digest.
            sub: the passkey's owner.

        Raises:
            TenantRefusedError: ``bad_passkey``, or ``passkey_copied``: its counter
                did not grow.
        """
        return self._verify(answer, challenge, sub, None)

    def _verify(
        self, answer: str, challenge: bytes, sub: str | None, use: str | None
    ) -> Passkey:
        """Verify an assertion (section 7.2), and record its *use*; None: itself."""
        from webauthn import (  # noqa: PLC0415 - see the module's docstring
            verify_authentication_response,
        )
        from webauthn.helpers.exceptions import (  # noqa: PLC0415 - as above
            WebAuthnException,
        )

        try:
            answered = _object(answer)
            row = self._store.find("passkeys", id=str(answered["id"]), host=self.rp_id)
            client_data = _object(_decoded(answered, "clientDataJSON"))
        except _UNREADABLE:
            raise _bad("it cannot be read") from None
        if row is None:
            raise _bad("it is not registered here")
        passkey = Passkey.of(row)
        if sub is not None and passkey.sub != sub:
            raise _bad("it is another person's")
        # Section 7.2, step 14: py_webauthn does not look at it. No page of ours is
        # framed by another's.
        if client_data.get("crossOrigin") not in {None, False} or (
            "topOrigin" in client_data
        ):
            raise _bad("it was asked for by a page of another site")
        try:
            done = verify_authentication_response(
                credential=answered,
                expected_challenge=challenge,
                expected_rp_id=self.rp_id,
                expected_origin=self.origin,
                credential_public_key=passkey.public_key,
                # Not here: compared below, once the signature is known to be right.
                credential_current_sign_count=-1,
                require_user_verification=True,
            )
        except (WebAuthnException, *_UNREADABLE) as error:
            raise _bad(visible(error, 200)) from None
        self._count(passkey, done.new_sign_count, use or _digest_of(answered))
        return passkey

    def _count(self, passkey: Passkey, counter: int, used: str) -> None:
        """Spend a challenge or an assertion, and note the counter, in one step."""
        now = self._clock.now()
        with self._store.transaction():
            self._store.change(
                "DELETE FROM passkey_uses WHERE at < ?", now.timestamp() - _USES_KEPT
            )
            use = {"passkey": passkey.id, "challenge": used}
            fresh = self._store.insert("passkey_uses", **use, at=now.timestamp())
            grown = fresh and self._store.change(
                "UPDATE passkeys SET counter = ?, last_used_at = ? WHERE id = ?"
                " AND (counter < ? OR counter = 0 AND ? = 0)",
                *(counter, iso(now), passkey.id, counter, counter),
            )
        if not fresh:
            raise _bad("it was used for this already")
        if not grown:
            raise CounterError

    def _signed_challenge(self, answer: str, about: str) -> bytes:
        """Return the challenge that *answer* signs, if it is a live one of ours."""
        challenge = b""
        with suppress(*_UNREADABLE):
            data = _object(_decoded(_object(answer), "clientDataJSON"))
            challenge = from_base64url(data["challenge"])
        if not self.is_ours(challenge, about):
            raise _bad("the page it answers is out of date")
        return challenge

    def _mac(self, head: bytes, about: str) -> bytes:
        return hmac.new(self._key, head + about.encode(), "sha256").digest()


def _object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object of bounded depth.

    Raises:
        ValueError: it is no JSON.
        TypeError: it is no object.
    """
    parsed = strict_json.loads(text)
    if not isinstance(parsed, dict):
        raise TypeError("it is no object")
    return parsed


def _decoded(value: Any, name: str) -> bytes:
    return from_base64url(value["response"][name])


def _digest_of(answered: Any) -> str:
    """Return a digest of a verified assertion, of the signed data and the signature.

    An ECDSA signature (r, s) is known by its r: (r, -s) verifies as well.
    """
    names = ("authenticatorData", "clientDataJSON", "signature")
    *signed, signature = (_decoded(answered, name) for name in names)
    with suppress(ValueError):
        signature = str(decode_dss_signature(signature)[0]).encode()
    parts = (hashlib.sha256(one).digest() for one in (*signed, signature))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _named(key: str) -> PublicKeyCredentialDescriptor:
    from webauthn.helpers.structs import (  # noqa: PLC0415 - see the module's docstring
        PublicKeyCredentialDescriptor,
    )

    return PublicKeyCredentialDescriptor(id=from_base64url(key))


def _bad(why: str) -> TenantRefusedError:
    return TenantRefusedError(
        "bad_passkey", f"The passkey was not accepted: {why}.", "Nothing was approved."
    )
