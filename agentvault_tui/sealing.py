"""Encrypts secrets at rest by AES-256-GCM under a separate key."""

from __future__ import annotations

import contextlib
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from agentvault_tui.errors import SealedError, UsageError
from agentvault_tui.home import Home, put_private

_VERSION: Final = b"\x01"
_NONCE: Final = 12
KEY_BYTES: Final = 32
MOST_KEYS: Final = 3
"""Of a team at once: the one in effect, the one before it until nothing needs that, and
one that a home had of its own when another was imported."""
EXPORT_BYTES: Final = 4096
"""Of the longest file with a team's keys."""
SHORTEST_PASSPHRASE: Final = 12
"""Characters."""


class Seal:
    """AES-256-GCM under one of several keys derived from the home's or the team's.

    The associated data names the kind, owner and version of the value, each with its
    length before it, so that a ciphertext moved to another row, or an older one put
    back in its place, does not open. Further conditions, such as the permitted origins
    of a secret, are named there too: `bound`.

    A subclass is a use; `of` returns the seal of a use under the right key.
    """

    WHOSE: ClassVar[str]
    """The use: names the home's key for it, and is in all that is derived."""
    LOST: ClassVar[str]
    """The loss if the home's key for it is gone."""

    def __init__(self, root: bytes, *before: bytes) -> None:
        """Derive from *root*, the key in effect, which never encrypts anything itself.

        The keys *before* it open their own ciphertexts.
        """
        self._root = root
        self._roots = root, *before

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Seal(…)"

    @classmethod
    def of(cls, home: Home, *, shared: bool = False) -> Self:
        """Return the seal for this use, under the home's own key or the team's.

        Shared values are encrypted with the team's key (``keys/team.key``), which
        differs by use through the label of HKDF (RFC 5869 section 3.2): pass
        ``shared=bool(settings.store.url)`` for it. This home's own values stay under a
        separate key (``keys/USE.key``), made at the first use; the team's is never made
        here. While the team changes its key the seal has both: it closes with the new
        one, opens ciphertexts of either, and `renewed` encrypts again.

        The keys are read once: a holder of a seal makes it again when the file's stamp
        changes.

        Args:
            home: the home.
            shared: whether the encrypted value is the team's.

        Raises:
            SealedError: the key is damaged, or cannot be read or made; the team's is
                not here.
        """
        if shared:
            return cls(*read_keys(home.team_key, MOST_KEYS))
        path = home.keys / f"{cls.WHOSE}.key"
        try:
            if not path.exists():
                # Another process may be first; its key is as good.
                with contextlib.suppress(FileExistsError):
                    put_private(path, secrets.token_bytes(KEY_BYTES), replace=False)
        except OSError as error:
            raise SealedError(
                f"the {cls.WHOSE}'s key {path} cannot be made ({error.strerror})",
                "look at its owner, its mode and its disk",
            ) from error
        try:
            return cls(*read_keys(path))
        except SealedError as error:
            remedy = f"{error.remedy}; without it {cls.LOST}"
            raise SealedError(error.what, remedy) from error.__cause__

    def derive(self, label: str) -> bytes:
        """Return the key for *label*: one key, one job.

        Brokers compare derived values: these come from the earlier key for as long as
        there is one, which all of them have.
        """
        return self._derived(self._roots[:2][-1], label)

    def _derived(self, root: bytes, label: str) -> bytes:
        info = f"agentvault {self.WHOSE} {label}".encode()
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(root)

    @property
    def key_id(self) -> str:
        """An identifier of the active key that discloses nothing about it."""
        return self._derived(self._root, "key id")[:8].hex()

    def wrap(
        self,
        kind: str,
        owner: str,
        version: int,
        secret: bytes,
        *,
        bound: Sequence[str] | None = None,
    ) -> tuple[bytes, bytes]:
        """Seal *secret* under a new key of its own, and that key as `close` does.

        Returns:
            the sealed key, and the sealed secret.
        """
        key = secrets.token_bytes(KEY_BYTES)
        box = type(self)(key).close(kind, owner, version, secret, bound=bound)
        return self.close(f"{kind} key", owner, version, key, bound=bound), box

    def unwrap(
        self,
        kind: str,
        owner: str,
        version: int,
        wrapped: bytes,
        box: bytes,
        *,
        bound: Sequence[str] | None = None,
    ) -> bytes:
        """Open the result of `wrap` with the same kind, owner, version and *bound*.

        Raises:
            SealedError: one of both is another's, an older one, or damaged.
        """
        key = self.open(f"{kind} key", owner, version, wrapped, bound=bound)
        return type(self)(key).open(kind, owner, version, box, bound=bound)

    def close(
        self,
        kind: str,
        owner: str,
        version: int,
        secret: bytes,
        *,
        bound: Sequence[str] | None = None,
    ) -> bytes:
        """Seal *secret* as version *version* of *owner*'s *kind*."""
        nonce = secrets.token_bytes(_NONCE)
        data = _associated(kind, owner, version, bound)
        box = AESGCM(self._derived(self._root, kind)).encrypt(nonce, secret, data)
        return _VERSION + nonce + box

    def open(
        self,
        kind: str,
        owner: str,
        version: int,
        box: bytes,
        *,
        bound: Sequence[str] | None = None,
    ) -> bytes:
        """Open the result of `close` with the same kind, owner, version and *bound*.

        Raises:
            SealedError: it is another's, an older one, damaged, or another key's.
        """
        data = _associated(kind, owner, version, bound)
        if box.startswith(_VERSION):
            nonce, sealed = box[1 : 1 + _NONCE], box[1 + _NONCE :]
            for root in self._roots:
                with contextlib.suppress(InvalidTag, ValueError):
                    key = AESGCM(self._derived(root, kind))
                    return key.decrypt(nonce, sealed, data)
        raise SealedError(
            f"a sealed {kind} of the {self.WHOSE}'s store does not open",
            f"the store and the key it is sealed with (keys/{self.WHOSE}.key, a"
            " team's keys/team.key) must come from the same backup",
        )

    def renewed(self, kind: str, owner: str, version: int, box: bytes) -> bytes | None:
        """Encrypt again a value of an earlier key; None: the active one encrypted it.

        Raises:
            SealedError: none did.
        """
        with contextlib.suppress(SealedError):
            type(self)(self._root).open(kind, owner, version, box)
            return None
        return self.close(kind, owner, version, self.open(kind, owner, version, box))


def team_keys(home: Home) -> list[bytes]:
    """Return the team's key in effect, and those before it that still open something.

    Raises:
        SealedError: they cannot be read. Without a file there are none.
    """
    return read_keys(home.team_key, MOST_KEYS) if home.team_key.exists() else []


def read_keys(path: Path, most: int = 1) -> list[bytes]:
    """Read a file of one key or several, the one in effect first.

    Raises:
        SealedError: it is not there, cannot be read, or holds no such keys.
    """
    remedy = "restore it from a backup"
    if most > 1:
        remedy = "bring it here: agentvault team key import FILE"
    try:
        with path.open("rb") as file:
            content = file.read(most * KEY_BYTES + 1)
    except FileNotFoundError as error:
        raise SealedError(f"the key {path} is not here", remedy) from error
    except OSError as error:
        raise SealedError(
            f"the key {path} cannot be used ({error.strerror})",
            "look at its owner, its mode and its disk",
        ) from error
    keys = _split_keys(content, most)
    if keys is None:
        raise SealedError(f"the key {path} is damaged", remedy)
    return keys


def _associated(
    kind: str, owner: str, version: int, bound: Sequence[str] | None
) -> bytes:
    """Return the associated data; with an empty list it is not that without a list."""
    words = [kind, owner, str(version)]
    words += [] if bound is None else ["for", *bound]
    parts = (_VERSION, *(word.encode() for word in words))
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class TeamSeal(Seal):
    """An identifier of the team's keys."""

    WHOSE: ClassVar[str] = "team"


class _PassphraseSeal(Seal):
    WHOSE: ClassVar[str] = "exported team"


class _Exported(
    msgspec.Struct,
    forbid_unknown_fields=True,
    tag_field="format",
    tag="agentvault-team-key/1",
):
    """A team's keys under a passphrase, as JSON.

    The format's version represents all parameters, so that none come from the file:
    argon2id with 3 passes, 64 MiB and 4 lanes (RFC 9106 section 4) over the passphrase
    in NFC; AES-256-GCM as `Seal.close` does, bound to the team's name.
    """

    team: str
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    box: bytes


class _Plain(
    msgspec.Struct,
    forbid_unknown_fields=True,
    tag_field="format",
    tag="agentvault-team-key-plain/1",
):
    """A team's keys in clear, as JSON, with the name of the team."""

    team: str
    keys: bytes


def key_ids(keys: Sequence[bytes]) -> list[str]:
    """Return identifiers of a team's keys that disclose nothing about them."""
    return [TeamSeal(key).key_id for key in keys]


def encode_keys(keys: Sequence[bytes], team: str, passphrase: str | None) -> bytes:
    """Return the keys of *team* for a file that only *passphrase* opens.

    Raises:
        UsageError: the passphrase is too short; with None they are in clear.
    """
    if passphrase is None:
        plain = msgspec.json.encode(_Plain(team, b"".join(keys)))
        return msgspec.json.format(plain, indent=1) + b"\n"
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise UsageError(
            f"the passphrase has fewer than {SHORTEST_PASSPHRASE} characters",
            "take a longer one",
        )
    salt = secrets.token_bytes(16)
    seal = _PassphraseSeal(_stretched(passphrase, salt))
    box = seal.close("keys", team, 1, b"".join(keys))
    made = _Exported(team, salt, box)
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def decode_keys(
    content: bytes, team: str, passphrase: Callable[[], str]
) -> list[bytes]:
    """Return the keys of a file that `encode_keys` made.

    Args:
        content: of the file.
        team: the expected team.
        passphrase: asked where there is one.

    Raises:
        UsageError: it is no such file, another team's, or of a later version.
        SealedError: the passphrase is another one, or the file was changed.
    """
    try:
        made = msgspec.json.decode(content, type=_Exported | _Plain)
    except (msgspec.MsgspecError, ValueError):
        raise UsageError(
            "that is no file of a team's key of this version, or not the whole of it",
            "agentvault team key export writes one",
        ) from None
    if made.team != team:
        raise UsageError(
            "that is the key of another team", f"this home is of the team {team}"
        )
    if isinstance(made, _Plain):
        opened = made.keys
    else:
        seal = _PassphraseSeal(_stretched(passphrase(), made.salt))
        try:
            opened = seal.open("keys", team, 1, made.box)
        except SealedError:
            raise SealedError(
                "the passphrase is not the one of this file, or the file was changed",
                "give the one that it was exported with",
            ) from None
    keys = _split_keys(opened, MOST_KEYS)
    if keys is None:
        raise UsageError("that file holds no keys", "export them again")
    return keys


def _split_keys(content: bytes, most: int) -> list[bytes] | None:
    """Return the keys that *content* joins; None where it is no such thing."""
    count, rest = divmod(len(content), KEY_BYTES)
    if rest or not 0 < count <= most:
        return None
    return [content[KEY_BYTES * i : KEY_BYTES * (i + 1)] for i in range(count)]


def _stretched(passphrase: str, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415

    normal = unicodedata.normalize("NFC", passphrase).encode()
    kdf = Argon2id(
        salt=salt, length=KEY_BYTES, iterations=3, lanes=4, memory_cost=65_536
    )
    return kdf.derive(normal)
