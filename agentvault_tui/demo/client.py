"""The OAuth client of an example agent, on authlib; counts the answers it gets."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import Final

import httpx
from authlib.deprecate import AuthlibDeprecationWarning

with warnings.catch_warnings():
    # It asks for httpx2; one HTTP client is enough, and nobody at a demo can mend it.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import AsyncOAuth2Client

CIBA: Final = "urn:openid:params:grant-type:ciba"
VAULT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
PROVIDER_TOKEN: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105 - a kind
)
GRANTED: Final = ""
DENIED: Final = "access_denied"
ESCALATED: Final = "insufficient_user_authentication"
UNAVAILABLE: Final = "temporarily_unavailable"
_NO_ACCOUNT: Final = "federated_connection_refresh_token_not_found"


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """One answer of the token endpoint."""

    error: str
    """OAuth's error code; empty: a token came."""
    access_token: str = field(default="", repr=False)
    reason: str = ""
    """The broker's stable code for a denial."""
    auth_req_id: str = ""
    """What to poll with while a person decides (CIBA Core section 10.1)."""
    interval: float = 5.0
    """Seconds between polls."""
    retry_after: float = 1.0
    """Seconds after which an unavailable broker may be asked again."""


@dataclass(slots=True)
class AnswerCounts:
    """What one agent saw answered, by outcome."""

    allowed: int = 0
    denied: int = 0
    escalated: int = 0
    unheard: int = 0
    """Requests whose answer never arrived: the broker may or may not have decided."""


class OAuthClient(AsyncOAuth2Client):  # type: ignore[misc] # authlib is not typed
    """An ordinary OAuth client of the broker, for one agent."""

    def __init__(
        self,
        broker: str,
        client_id: str,
        client_secret: str,
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        """Talk to the broker at the base URL *broker* through a shared *transport*."""
        # No proxy from the environment: everything here is on loopback. Waiting for a
        # free connection is not a fault, so it has no time limit.
        super().__init__(
            client_id,
            client_secret,
            transport=transport,
            trust_env=False,
            timeout=httpx.Timeout(30.0, pool=None),
        )
        self.tally = AnswerCounts()
        self._broker = broker

    async def ask(
        self, scope: str, details: list[dict[str, object]] | None = None
    ) -> TokenAnswer:
        """Request a token for *scope* and the action in *details*."""
        asked = {"authorization_details": json.dumps(details)} if details else {}
        return await self._count("client_credentials", scope=scope, **asked)

    async def exchange(self, connection: str) -> TokenAnswer:
        """Request a provider's token from Token Vault."""
        return await self._count(
            VAULT, connection=connection, requested_token_type=PROVIDER_TOKEN
        )

    async def poll(self, auth_req_id: str) -> TokenAnswer:
        """Ask once whether the person has decided (CIBA Core section 10.1)."""
        try:
            return await self._send(CIBA, auth_req_id=auth_req_id)
        except httpx.TransportError:
            return TokenAnswer(UNAVAILABLE)

    async def hand_back(self, access_token: str) -> None:
        """Revoke a token that is no longer needed (RFC 7009)."""
        try:
            await self.revoke_token(f"{self._broker}/oauth/revoke", access_token)
        except httpx.TransportError:
            return  # it expires by itself

    def parse_response_token(self, resp: httpx.Response) -> TokenAnswer:
        """Parse an answer: authlib keeps only the code of a refusal."""
        try:
            body = resp.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            body = {}
        if resp.status_code >= 500:
            after = resp.headers.get("retry-after", "1")
            return TokenAnswer(
                UNAVAILABLE, retry_after=float(after) if after.isdigit() else 1.0
            )
        if resp.status_code == 200 and isinstance(body.get("access_token"), str):
            return TokenAnswer(GRANTED, body["access_token"])
        error = str(body.get("error", f"HTTP {resp.status_code}"))
        if error == _NO_ACCOUNT:
            return TokenAnswer(DENIED, reason="not_connected")
        return TokenAnswer(
            error,
            reason=str(body.get("reason", "")),
            auth_req_id=str(body.get("auth_req_id", "")),
            interval=float(body.get("interval", 5)),
        )

    async def _send(self, grant_type: str, **parameters: str) -> TokenAnswer:
        answer: TokenAnswer = await self.fetch_token(
            f"{self._broker}/oauth/token", grant_type=grant_type, **parameters
        )
        return answer

    async def _count(self, grant_type: str, **parameters: str) -> TokenAnswer:
        try:
            answer = await self._send(grant_type, **parameters)
        except httpx.ConnectError:
            return TokenAnswer(UNAVAILABLE)
        except httpx.TransportError:
            self.tally.unheard += 1
            return TokenAnswer(UNAVAILABLE)
        self.tally.allowed += answer.error == GRANTED
        self.tally.denied += answer.error == DENIED
        self.tally.escalated += answer.error == ESCALATED
        return answer
