"""Secrets in the operating system's keyring, where that keeps them sealed."""

from __future__ import annotations

import keyring
from keyring.backends.chainer import ChainerBackend
from keyring.errors import KeyringError

from agentvault_tui.errors import NotFoundError


def sealed() -> bool:
    """Check whether there is a keyring that seals (priority 1 or more)."""
    ring = keyring.get_keyring()
    if isinstance(ring, ChainerBackend):
        # It ranks above all its links, and writes to the first, be that a plain file.
        ring = next(iter(ring.backends), ring)
    return ring.priority >= 1


def read(service: str, name: str) -> str | None:
    """Return a secret; None where there is none, or no keyring opens."""
    try:
        return keyring.get_password(service, name) if sealed() else None
    except KeyringError:
        return None


def keep(service: str, name: str, secret: str) -> None:
    """Store a secret.

    Raises:
        NotFoundError: there is no keyring that keeps it sealed.
    """
    if not sealed():
        raise _none()
    try:
        keyring.set_password(service, name, secret)
    except KeyringError as error:
        raise _none() from error


def forget(service: str, name: str) -> bool:
    """Delete a secret; return whether there was one.

    Raises:
        NotFoundError: the keyring does not open.
    """
    if not sealed():
        return False
    try:
        if keyring.get_password(service, name) is None:
            return False
        keyring.delete_password(service, name)
    except KeyringError as error:
        raise _none() from error
    return True


def _none() -> NotFoundError:
    return NotFoundError(
        "this system has no keyring that keeps secrets sealed",
        "give the secret each time, where a command asks for it",
    )
