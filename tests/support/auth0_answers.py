"""The token endpoint's answers as Auth0 words them, status and text."""

from __future__ import annotations

from support.rogue_tenant import Answer


def oauth_error(status: int, error: str, description: str = "") -> Answer:
    """Return a refusal as Auth0 words it."""
    return Answer({"error": error, "error_description": description}, status)


PENDING = oauth_error(
    403, "authorization_pending", "User has yet to authorize device code."
)
SLOW_DOWN = oauth_error(
    429, "slow_down", "You are polling faster than the specified interval of 5 seconds."
)
GOOD = Answer(
    {
        "access_token": "eyJ.a.b",
        "id_token": "eyJ.c.d",
        "expires_in": 300,
        "token_type": "Bearer",
    }
)
CANCELLED = oauth_error(403, "access_denied", "User cancelled the confirmation prompt.")
