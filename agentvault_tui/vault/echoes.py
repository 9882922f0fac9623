"""What was sent in confidence and comes back in a refusal: taken out of it.

Refusals are shown to agents, recorded and logged, in the tenant's own words. One that
quotes the token it does not like must not hand it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self
from urllib.parse import quote, quote_plus

from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.secret import Secret

_CONFIDENTIAL: Final = frozenset(
    {
        "auth_session",
        "client_assertion",
        "client_secret",
        "code",
        "code_verifier",
        "connect_code",
        "device_code",
        "refresh_token",
        "subject_token",
        "token",
    }
)
"""Fields of our requests, by the names OAuth and Auth0 give them."""
_SHORTEST: Final = 8
"""Characters: less is no secret, and would be found in words."""
_IN_ITS_PLACE: Final = "(hidden)"
_WAYS: Final = (str, quote, quote_plus)
"""How a secret may be written: as it is, or as an address or a form has it."""


class Echoes:
    """The secrets of one request."""

    def __init__(self, secrets: frozenset[str]) -> None:
        """Take *secrets*, and what they are in an address, out of what comes back."""
        ways = {way(one) for one in secrets for way in _WAYS}
        # The longest first: one may be the beginning of another.
        self._secrets = sorted(ways, key=len, reverse=True)

    @classmethod
    def of(
        cls, form: Mapping[str, str] | None, body: Any, bearer: Secret | None
    ) -> Self:
        """Find the secrets of a request."""
        members = {**(form or {}), **(body if isinstance(body, dict) else {})}
        found = [members[name] for name in _CONFIDENTIAL & members.keys()]
        if bearer is not None:
            found.append(bearer.reveal())
        return cls(
            frozenset(
                one for one in found if isinstance(one, str) and len(one) >= _SHORTEST
            )
        )

    def out_of(self, text: str) -> str:
        """Return *text* without them."""
        for secret in self._secrets:
            text = text.replace(secret, _IN_ITS_PLACE)
        return text

    def out_of_refusal(self, reply: TenantReply) -> TenantReply:
        """Return a refusal without them; an answer that is a success as it is.

        A success may repeat a refresh token, which is the one to keep (RFC 6749
        section 6).
        """
        if reply.status < 300 and not reply.error:
            return reply
        return replace(reply, value=self._out_of(reply.value))

    def _out_of(self, value: Any) -> Any:
        """Walk JSON: its depth was bounded when it was read."""
        if isinstance(value, str):
            return self.out_of(value)
        if isinstance(value, dict):
            return {self.out_of(k): self._out_of(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._out_of(one) for one in value]
        return value
