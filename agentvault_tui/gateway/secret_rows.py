"""The rows of encrypted secrets, as in the home's file, and their permitted values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from agentvault_tui.broker.policy_files import NAME
from agentvault_tui.errors import NotForOriginError, UsageError
from agentvault_tui.origins import ServerOrigin

MAX_SECRET: Final = 4000
LISTED: Final = "secret_for:"
"""Of the small values with the origins of secrets that are sealed without them."""
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class SecretRow(msgspec.Struct, frozen=True, kw_only=True, rename={"origins": "for"}):
    """One sealed secret."""

    version: int
    key: bytes
    """The key it is sealed under, wrapped by the root key."""
    box: bytes
    created_at: str
    changed_at: str
    changed_by: str
    origins: tuple[str, ...] | UnsetType = UNSET
    """Where it may be sent, sealed with it. Unset: versions before, and a team until
    `store prepare --finish`, do not seal them."""

    @property
    def bound(self) -> tuple[str, ...] | None:
        """Return the origins that are sealed with it, if they are."""
        return None if self.origins is UNSET else self.origins


class SecretsContent(msgspec.Struct, frozen=True):
    """The file."""

    key: str = ""
    """The id of the root key."""
    last: int = 0
    """The last version there was; each change of the file has a larger one."""
    secrets: dict[str, SecretRow] = {}


def check_secret(name: str, value: str) -> None:
    """Refuse an invalid name, and a value that no request can carry.

    Raises:
        UsageError: says which.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            "that is no name for a secret",
            "use lower-case letters, digits, - and _, at most 63",
        )
    if not value or len(value) > MAX_SECRET or _UNSENDABLE.search(value):
        raise UsageError(
            "the value is empty, too long, or holds control characters",
            f"give one line of at most {MAX_SECRET} characters",
        )


def listed_text(origins: Sequence[str]) -> str:
    """Return how the ledger keeps the origins of a secret that is sealed without."""
    return msgspec.json.encode(list(origins)).decode()


def url_origin(name: str, value: str) -> ServerOrigin:
    """Return the origin of a secret that is a URL; its path is a part of the secret.

    Raises:
        NotForOriginError: it is none.
    """
    try:
        parts = urlsplit(value)
        whole = f"{parts.scheme}://{parts.netloc}"
        return ServerOrigin.parse(whole)
    except (ValueError, UsageError):
        raise NotForOriginError(
            f"the secret {name} is not a URL, as its destination needs",
            f"set it again: agentvault secrets set {name}",
        ) from None
