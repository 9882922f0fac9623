"""Seals secrets at rest by AES-256-GCM under a key kept apart from them."""

from __future__ import annotations

import contextlib
import secrets
from typing import ClassVar, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentvault_tui.errors import TenantError
from agentvault_tui.home import Home, put_private

_VERSION: Final = b"\x01"
_NONCE: Final = 12
KEY_BYTES: Final = 32


class Seal:
    """AES-256-GCM under one of several keys derived from a key of the home's.

    The associated data names the kind, owner and version of what is sealed, each with
    its length before it, so that a ciphertext moved to another row, or an older one
    put back in its place, does not open.

    A subclass says whose key it is: one for each store, kept in ``keys/``.
    """

    WHOSE: ClassVar[str]
    """Names the key's file, and stands in all that is derived from it."""
    LOST: ClassVar[str]
    """What cannot be done any more when the key is gone."""

    def __init__(self, root: bytes) -> None:
        """Derive from *root*, which never encrypts anything itself."""
        self._root = root

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Seal(…)"

    @classmethod
    def of(cls, home: Home) -> Self:
        """Use the key of *home*, and make it at the first use.

        Raises:
            TenantError: the key is damaged, or cannot be read or made.
        """
        path = home.keys / f"{cls.WHOSE}.key"
        try:
            if not path.exists():
                # Another process may be first; its key is as good.
                with contextlib.suppress(FileExistsError):
                    put_private(path, secrets.token_bytes(KEY_BYTES), replace=False)
            root = path.read_bytes()
        except OSError as error:
            raise TenantError(
                f"the {cls.WHOSE}'s key {path} cannot be used ({error.strerror})",
                "look at its owner, its mode and its disk",
            ) from error
        if len(root) != KEY_BYTES:
            raise TenantError(
                f"the {cls.WHOSE}'s key {path} is damaged",
                f"restore it from a backup; without it {cls.LOST}",
            )
        return cls(root)

    def derive(self, label: str) -> bytes:
        """Return the key for *label*: one key, one job."""
        info = f"agentvault {self.WHOSE} {label}".encode()
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self._root)

    @property
    def key_id(self) -> str:
        """What tells this key from others, and nothing about it."""
        return self.derive("key id")[:8].hex()

    def wrap(
        self, kind: str, owner: str, version: int, secret: bytes
    ) -> tuple[bytes, bytes]:
        """Seal *secret* under a new key of its own, and that key as `close` does.

        Returns:
            the sealed key, and the sealed secret.
        """
        key = secrets.token_bytes(KEY_BYTES)
        box = type(self)(key).close(kind, owner, version, secret)
        return self.close(f"{kind} key", owner, version, key), box

    def unwrap(
        self, kind: str, owner: str, version: int, wrapped: bytes, box: bytes
    ) -> bytes:
        """Open what `wrap` made of the same kind, owner and version.

        Raises:
            TenantError: one of both is another's, an older one, or damaged.
        """
        key = self.open(f"{kind} key", owner, version, wrapped)
        return type(self)(key).open(kind, owner, version, box)

    def close(self, kind: str, owner: str, version: int, secret: bytes) -> bytes:
        """Seal *secret* as version *version* of *owner*'s *kind*."""
        nonce = secrets.token_bytes(_NONCE)
        data = _associated(kind, owner, version)
        box = AESGCM(self.derive(kind)).encrypt(nonce, secret, data)
        return _VERSION + nonce + box

    def open(self, kind: str, owner: str, version: int, box: bytes) -> bytes:
        """Open what `close` made of the same kind, owner and version.

        Raises:
            TenantError: it is another's, an older one, or damaged.
        """
        damaged = TenantError(
            f"a sealed {kind} in the {self.WHOSE}'s store does not open",
            f"the store and keys/{self.WHOSE}.key must come from the same backup",
        )
        if not box.startswith(_VERSION):
            raise damaged
        nonce, sealed = box[1 : 1 + _NONCE], box[1 + _NONCE :]
        try:
            data = _associated(kind, owner, version)
            return AESGCM(self.derive(kind)).decrypt(nonce, sealed, data)
        except (InvalidTag, ValueError):
            raise damaged from None


def _associated(kind: str, owner: str, version: int) -> bytes:
    parts = (_VERSION, kind.encode(), owner.encode(), str(version).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
