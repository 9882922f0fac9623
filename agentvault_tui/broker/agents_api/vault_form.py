"""What an agent asks Token Vault for, in the form Auth0's SDKs send (RFC 8693)."""

from __future__ import annotations

from typing import Any

from agentvault_tui.broker.agents_api.action import text_of
from agentvault_tui.broker.agents_api.faults import malformed
from agentvault_tui.settings import CONNECTION
from agentvault_tui.vault.credentials import TYPE_PROVIDER


def read_connection(form: dict[str, Any]) -> str:
    """Return the connection whose token is asked for.

    ``subject_token`` is not looked at: the vault user's credential is with the broker
    and never with an agent, so whatever an agent sends there says nothing about whose
    account it may use. ``login_hint`` and ``scope`` change nothing either: the account
    is the one an operator connected, and the vault does not narrow its token.

    Raises:
        OAuthError: 400, in the word that fits.
    """
    if text_of(form, "requested_token_type") != TYPE_PROVIDER:
        raise malformed(f"requested_token_type must be {TYPE_PROVIDER}")
    connection = text_of(form, "connection")
    if not connection:
        raise malformed("connection is missing")
    if not CONNECTION.fullmatch(connection):
        raise malformed("connection is not the name of one")
    return connection
