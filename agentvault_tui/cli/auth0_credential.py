"""The Management API credential: from a descriptor, the OS keyring, or a prompt.

Never from an argument or the environment, which other processes can read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from agentvault_tui import keyrings, strict_json
from agentvault_tui.clock import Deadline, SystemClock
from agentvault_tui.encoder import from_base64url
from agentvault_tui.errors import UsageError
from agentvault_tui.vault import (
    AccessToken,
    ClientSecret,
    FixedToken,
    PrivateKey,
    RegisteredClient,
    Secret,
    SigningKey,
    TokenSource,
)
from agentvault_tui.vault.tokens import words

_SERVICE: Final = "agentvault auth0"
_MAX: Final = 64 * 1024
_DAY: Final = 86_400
_FORMS: Final = (
    'JSON: {"client_id": …, "client_secret": …}, or "private_key" (PEM) instead, or '
    '{"access_token": …}'
)
_MEMBERS: Final = (
    frozenset({"client_id", "client_secret"}),
    frozenset({"client_id", "private_key"}),
    frozenset({"client_id", "private_key", "kid"}),
    frozenset({"access_token"}),
)


def from_descriptor(descriptor: int) -> dict[str, str]:
    """Read a credential, to the end, from an open descriptor."""
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX + 1)
    except OSError as error:
        raise UsageError(
            f"descriptor {descriptor} cannot be read",
            "open one: agentvault auth0 plan --credential-fd 3 3< FILE",
        ) from error
    return parse(content)


def parse(content: bytes | str) -> dict[str, str]:
    """Read a credential; errors do not quote it."""
    value: Any = None
    try:
        value = strict_json.loads(content) if len(content) <= _MAX else None
    except ValueError:
        value = None
    if not _is_credential(value):
        raise UsageError("this is no credential", _FORMS) from None
    return dict(value)


def from_prompt() -> dict[str, str]:
    """Ask for client id and secret at the terminal, the secret unseen."""
    if not sys.stdin.isatty():
        raise UsageError(
            "no credential for the Management API, and no terminal to ask at",
            "give --credential-fd N, or keep one: agentvault auth0 remember",
        )
    client_id = click.prompt("Client id of the Management API client", err=True)
    secret = click.prompt("Client secret", hide_input=True, err=True)
    return {"client_id": str(client_id).strip(), "client_secret": str(secret).strip()}


def from_keyring(issuer: str) -> dict[str, str] | None:
    """Return the stored credential of *issuer*, if there is one."""
    stored = keyrings.read(_SERVICE, issuer)
    return None if stored is None else parse(stored)


def remember(issuer: str, credential: Mapping[str, str]) -> None:
    """Store a credential in the OS keyring."""
    keyrings.keep(_SERVICE, issuer, json.dumps(dict(credential)))


def forget(issuer: str) -> bool:
    """Remove a credential from the OS keyring; return whether there was one."""
    return keyrings.forget(_SERVICE, issuer)


def usable(members: Mapping[str, str]) -> RegisteredClient | TokenSource:
    """Convert a credential to the form that the tenant's client takes."""
    if "access_token" in members:
        expires = Deadline.after(SystemClock(), _DAY)
        token = Secret(members["access_token"])
        scopes = _scopes_in(members["access_token"])
        return FixedToken(AccessToken(token=token, scopes=scopes, expires=expires))
    client_id = members["client_id"]
    if "private_key" in members:
        key = SigningKey(Secret(members["private_key"]), members.get("kid", ""))
        return PrivateKey(client_id, key)
    return ClientSecret(client_id, Secret(members["client_secret"]))


def _scopes_in(token: str) -> frozenset[str]:
    """Read a token's scopes, to name all missing ones at once.

    Unverified, and nothing is decided by it: the tenant has the last word. Empty when
    it does not say, or is no JWT.
    """
    payload = f"{token}..".split(".")[1]
    try:
        claims = strict_json.loads(from_base64url(payload))
    except ValueError:
        return frozenset()
    return frozenset(words(claims.get("scope")) if isinstance(claims, dict) else ())


def _is_credential(value: object) -> bool:
    return (
        isinstance(value, dict)
        and frozenset(value) in _MEMBERS
        and all(isinstance(one, str) and one for one in value.values())
    )
