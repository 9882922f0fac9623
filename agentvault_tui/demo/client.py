"""An agent's side of OAuth: ask, poll, hand back; answers counted as they were seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import httpx

CIBA: Final = "urn:openid:params:grant-type:ciba"
VAULT: Final = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)
PROVIDER_TOKEN: Final = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105 - a kind
)
_NO_ACCOUNT: Final = "federated_connection_refresh_token_not_found"


@dataclass(frozen=True, slots=True)
class Granted:
    """A token; its secret is shown to nobody."""

    access_token: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True, slots=True)
class Denied:
    """``access_denied``, with the broker's stable code."""

    reason: str
    description: str


@dataclass(frozen=True, slots=True)
class Escalated:
    """A person has to decide: poll with this."""

    auth_req_id: str
    interval: float


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody decided yet; ``slower`` when the broker asked for patience."""

    slower: bool


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody decided in time."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The broker cannot answer now: try again after so many seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request itself was wrong: asking again the same way is pointless."""

    error: str
    description: str


Answer = Granted | Denied | Escalated | Unavailable | Rejected
PollAnswer = Granted | Denied | Pending | Expired | Unavailable | Rejected


@dataclass(slots=True)
class Tally:
    """What one agent saw answered, by outcome."""

    allowed: int = 0
    denied: int = 0
    escalated: int = 0
    unheard: int = 0
    """Requests whose answer never arrived: the broker may or may not have decided."""


class OAuthClient:
    """An ordinary OAuth client of the broker, for one agent."""

    def __init__(
        self, broker: str, client_id: str, client_secret: str, http: httpx.AsyncClient
    ) -> None:
        """Talk to the broker at the base URL *broker* through the shared *http*."""
        self.tally = Tally()
        self._token_url = f"{broker}/oauth/token"
        self._revoke_url = f"{broker}/oauth/revoke"
        self._auth = httpx.BasicAuth(client_id, client_secret)
        self._http = http

    async def ask(
        self, scope: str, details: list[dict[str, Any]] | None = None
    ) -> Answer:
        """Ask for a token for *scope*, and for exactly the action in *details*."""
        # RFC 6749 lets a client send a form; the broker takes JSON as well, which
        # keeps RFC 9396 details readable on the wire.
        body: dict[str, Any] = {"grant_type": "client_credentials", "scope": scope}
        if details is not None:
            body["authorization_details"] = details
        return await self._send(json=body)

    async def exchange(self, connection: str) -> Answer:
        """Ask Token Vault for a token of the owner's account, as Auth0's SDKs do."""
        return await self._send(
            data={
                "grant_type": VAULT,
                "connection": connection,
                "requested_token_type": PROVIDER_TOKEN,
            }
        )

    async def poll(self, auth_req_id: str) -> PollAnswer:
        """Ask once whether the person has decided (CIBA Core 10.1)."""
        body = {"grant_type": CIBA, "auth_req_id": auth_req_id}
        try:
            reply = await self._http.post(self._token_url, data=body, auth=self._auth)
        except httpx.TransportError:
            return Unavailable(1.0)
        return _read_poll(reply)

    async def hand_back(self, access_token: str) -> None:
        """Give up a token that is no longer needed (RFC 7009)."""
        try:
            await self._http.post(
                self._revoke_url, data={"token": access_token}, auth=self._auth
            )
        except httpx.TransportError:
            return  # it expires by itself

    async def _send(self, **body: Any) -> Answer:
        try:
            reply = await self._http.post(self._token_url, auth=self._auth, **body)
        except httpx.ConnectError:
            return Unavailable(1.0)
        except httpx.TransportError:
            self.tally.unheard += 1
            return Unavailable(1.0)
        return self._count(_read_answer(reply))

    def _count(self, answer: Answer) -> Answer:
        if isinstance(answer, Granted):
            self.tally.allowed += 1
        elif isinstance(answer, Denied):
            self.tally.denied += 1
        elif isinstance(answer, Escalated):
            self.tally.escalated += 1
        return answer


def _read_answer(reply: httpx.Response) -> Answer:
    if reply.status_code >= 500:
        return _unavailable(reply)
    body = _members(reply)
    if reply.status_code == 200 and isinstance(body.get("access_token"), str):
        return Granted(body["access_token"], int(body.get("expires_in", 0)))
    error = str(body.get("error", f"HTTP {reply.status_code}"))
    description = str(body.get("error_description", ""))
    if error == "insufficient_user_authentication" and "auth_req_id" in body:
        return Escalated(str(body["auth_req_id"]), float(body.get("interval", 5)))
    if error == _NO_ACCOUNT:
        return Denied("not_connected", description)
    if error == "access_denied":
        return Denied(str(body.get("reason", "")), description)
    return Rejected(error, description)


def _read_poll(reply: httpx.Response) -> PollAnswer:
    error = _members(reply).get("error")
    if error in {"authorization_pending", "slow_down"}:
        return Pending(slower=error == "slow_down")
    if error == "expired_token":
        return Expired()
    answer = _read_answer(reply)
    if isinstance(answer, Escalated):
        return Rejected("insufficient_user_authentication", "out of place in a poll")
    return answer


def _unavailable(reply: httpx.Response) -> Unavailable:
    after = reply.headers.get("retry-after", "1")
    return Unavailable(float(after) if after.isdigit() else 1.0)


def _members(reply: httpx.Response) -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
