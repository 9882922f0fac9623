"""The OAuth client of an example agent, on authlib, and its way through the gateway."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Final

import httpx
from authlib.deprecate import AuthlibDeprecationWarning

with warnings.catch_warnings():
    # It asks for httpx2; one HTTP client is enough, and nobody at a demo can mend it.
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import AsyncOAuth2Client

UNAVAILABLE: Final = "temporarily_unavailable"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
_HELD: Final = 600
"""Seconds a call waits for a person at most; a step-up ends sooner."""
_QUIET: Final = 120.0
"""Seconds without a byte after which a download is given up."""


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """The result of a request for a token, or of a call."""

    error: str = ""
    """The broker's or the gateway's code; empty: a token, or the service's answer."""
    reason: str = ""
    """The stable code of a denial's reason."""
    access_token: str = field(default="", repr=False)
    done: bool = False
    """Whether the service carried out the request."""
    retry_after: float = 1.0
    """Seconds after which an unavailable answer may be requested again."""


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
        # free connection is not a fault, so it has no time limit; nor has a held call.
        super().__init__(
            client_id,
            client_secret,
            transport=transport,
            trust_env=False,
            timeout=httpx.Timeout(30.0, pool=None),
        )
        self.decided: dict[str, bool] = {}
        """The decisions that answers named: whether the call had gone out."""
        self._broker = broker

    async def ask(self, scope: str) -> AgentAnswer:
        """Request a token for *scope* (RFC 6749 section 4.4)."""
        return await self._token(grant_type="client_credentials", scope=scope)

    async def pass_on(self, token: str, other: str, scope: str) -> AgentAnswer:
        """Exchange *token* for one of another client, for less (RFC 8693 section 2)."""
        return await self._token(
            grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token=token,
            subject_token_type=ACCESS_TOKEN,
            audience=other,
            scope=scope,
        )

    async def _token(self, **form: str) -> AgentAnswer:
        try:
            url = f"{self._broker}/oauth/token"
            answer: AgentAnswer = await self.fetch_token(url, **form)
        except httpx.TransportError:
            return AgentAnswer(UNAVAILABLE)
        return answer

    async def call(
        self,
        access_token: str,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
    ) -> AgentAnswer:
        """Send a request through the gateway; where a person decides, wait for them.

        Args:
            access_token: the agent's own; the gateway attaches the service's
                credential in its place.
            method: of HTTP.
            path: the service and the path at it.
            body: sent as JSON.
        """
        headers = {
            "Authorization": f"Bearer {access_token}",
            "Prefer": f"wait={_HELD}",
        }
        waits = httpx.Timeout(30.0, read=_HELD + _QUIET, pool=None)
        url = f"{self._broker}/gw/{path}"
        try:
            async with self.stream(
                *(method, url),
                withhold_token=True,
                headers=headers,
                json=body,
                timeout=waits,
            ) as reply:
                refused = reply.headers.get("agentvault-error", "")
                decision = reply.headers.get("agentvault-decision", "")
                if decision:
                    self.decided[decision] = not refused
                if refused:
                    await reply.aread()
                    return _refusal(reply)
                async for _ in reply.aiter_raw():
                    pass  # what a download brings is counted by the gateway
                return AgentAnswer(done=reply.is_success)
        except httpx.ConnectError:
            return AgentAnswer(UNAVAILABLE)
        except httpx.TransportError:
            return AgentAnswer("cut")

    def parse_response_token(self, resp: httpx.Response) -> AgentAnswer:
        """Parse an answer: authlib keeps only the code of a refusal."""
        if resp.status_code == 200:
            return AgentAnswer(access_token=str(resp.json()["access_token"]))
        return _refusal(resp)


def _refusal(reply: httpx.Response) -> AgentAnswer:
    try:
        body = reply.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    after = reply.headers.get("retry-after", "")
    status = reply.status_code
    unavailable = status in {404, 429} or status >= 500
    return AgentAnswer(
        UNAVAILABLE if unavailable else str(body.get("error", f"HTTP {status}")),
        str(body.get("reason", "")),
        retry_after=float(after) if after.isdigit() else 1.0,
    )
