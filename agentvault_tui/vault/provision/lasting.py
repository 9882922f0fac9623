"""Whether a connection's provider gives refresh tokens, as far as its options say."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Lasting(StrEnum):
    """What is known about refresh tokens from a provider."""

    YES = "yes"
    NO = "no"
    UNSEEN = "unseen"
    """Set at the provider, where the tenant does not see it."""


REMEDY: Final = {
    "google-oauth2": "tick Offline Access in the connection's Permissions",
    "windowslive": "tick Offline Access in the connection's Permissions",
    "github": "use a GitHub App with expiring user tokens: an OAuth App gives none",
    "slack": "turn token rotation on for the Slack app",
    "sign-in-with-slack": "turn token rotation on for the Slack app",
}
"""What to do about a connection without refresh tokens, by strategy."""
DEFAULT_REMEDY: Final = "add offline_access to the connection's scopes"
_BY_SWITCH: Final = frozenset({"google-oauth2", "windowslive", "twitter"})
_BY_SCOPE: Final = frozenset({"oidc", "waad", "okta"})
_ASKING: Final = frozenset({"offline_access", "refresh_token"})
_AT_PROVIDER: Final = frozenset({"github", "slack", "sign-in-with-slack", "box"})


def lasting(connection: Mapping[str, Any]) -> Lasting:
    """Read a connection as the Management API gives it."""
    options = connection.get("options")
    strategy = str(connection.get("strategy"))
    if strategy in _AT_PROVIDER:
        return Lasting.UNSEEN
    if not isinstance(options, Mapping):
        return Lasting.UNSEEN
    if strategy in _BY_SWITCH:
        return Lasting.YES if options.get("offline_access") is True else Lasting.NO
    scope = options.get("scope")
    words = scope.split() if isinstance(scope, str) else scope
    if isinstance(words, list) and _ASKING & set(map(str, words)):
        return Lasting.YES
    # Another provider may give a refresh token without being asked for one.
    return Lasting.NO if strategy in _BY_SCOPE else Lasting.UNSEEN
