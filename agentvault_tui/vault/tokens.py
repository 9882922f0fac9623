"""Access tokens for the tenant's APIs: fetched, cached, and revoked."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import RegisteredClient, Secret
from agentvault_tui.vault.refusals import read_refusal, refused
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import RetryLimits, Tenant, persist

_MARGIN: Final = 60.0
"""Seconds before its end at which a token is not used any more."""
_MAX_LIFE: Final = 30 * 86_400
"""Seconds; a longer life in the tenant's answer is not believed."""
BRIEF: Final = RetryLimits(attempts=4, seconds=20.0)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token, its scopes, and until when it is used."""

    token: Secret
    scopes: frozenset[str]
    """As the tenant granted them; empty when it did not say."""
    expires: Deadline
    refresh_token: Secret | None = None
    """A new one, when the tenant rotates them."""
    young: Deadline | None = None
    """Until then another token would have the same scopes; tokens are counted too."""


class TokenSource(Protocol):
    """Where an API's access token comes from."""

    async def access(self) -> AccessToken:
        """Return a token that is not about to expire."""
        ...

    def drop(self, access: AccessToken) -> None:
        """Forget *access*: the API does not take it any more."""
        ...


class FixedToken:
    """A token that was got elsewhere, by a device login for example."""

    def __init__(self, access: AccessToken) -> None:
        self._access = access

    async def access(self) -> AccessToken:
        """Return the token."""
        return self._access

    def drop(self, access: AccessToken) -> None:
        """Do nothing: there is no other."""


class _CachedToken(ABC):
    """A token of one grant, fetched once for all who wait for it, and cached."""

    def __init__(self, tenant: Tenant, client: RegisteredClient) -> None:
        self._tenant = tenant
        self._client = client
        self._lock = asyncio.Lock()
        self._access: AccessToken | None = None

    async def access(self) -> AccessToken:
        """Return a token that is not about to expire.

        Raises:
            TenantError: the tenant gives none.
        """
        async with self._lock:
            if self._access is None or self._access.expires.passed(self._tenant.clock):
                self._access = await self._fetch()
            return self._access

    def drop(self, access: AccessToken) -> None:
        """Forget *access*, unless another has taken its place already."""
        if self._access is access:
            self._access = None

    @abstractmethod
    async def _fetch(self) -> AccessToken:
        """Ask the token endpoint."""

    async def _ask(self, form: Mapping[str, str], *, repeatable: bool) -> AccessToken:
        reply = await ask_token(self._tenant, self._client, form, repeatable=repeatable)
        if reply.status != 200:
            what = f"give {visible(self._client.client_id, 60)} a token"
            raise refused(reply, what, self._tenant.clock.now())
        return read_access(reply, self._tenant.clock)


class ClientCredentials(_CachedToken):
    """Tokens of RFC 6749 section 4.4, for one audience."""

    def __init__(self, tenant: Tenant, client: RegisteredClient, audience: str) -> None:
        super().__init__(tenant, client)
        self._audience = audience

    async def _fetch(self) -> AccessToken:
        form = {"grant_type": "client_credentials", "audience": self._audience}
        return await self._ask(form, repeatable=True)


class RefreshedToken(_CachedToken):
    """Tokens of a refresh token, also for another audience (Auth0's MRRT)."""

    def __init__(
        self,
        tenant: Tenant,
        client: RegisteredClient,
        refresh_token: Secret,
        *,
        audience: str = "",
        scope: str = "",
        rotated: Callable[[Secret], None] | None = None,
    ) -> None:
        """Use *refresh_token*; *rotated* is called with each successor."""
        super().__init__(tenant, client)
        self._refresh_token = refresh_token
        self._parameters = {"audience": audience, "scope": scope}
        self._rotated = rotated

    async def _fetch(self) -> AccessToken:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._refresh_token.reveal(),
            **self._parameters,
        }
        # Where tokens rotate, sending one a second time revokes the whole family.
        access = await self._ask(form, repeatable=False)
        if access.refresh_token is not None:
            self._refresh_token = access.refresh_token
            if self._rotated is not None:
                self._rotated(access.refresh_token)
        return access


async def ask_token(
    tenant: Tenant,
    client: RegisteredClient,
    form: Mapping[str, str],
    patience: RetryLimits = BRIEF,
    *,
    repeatable: bool = True,
) -> TenantReply:
    """Send *form* to the token endpoint with the client's authentication.

    That is made again for each try, for an assertion is good once. Empty parameters
    are left out.

    Raises:
        TenantError: the tenant does not answer.
    """
    endpoint = (await tenant.metadata()).token_endpoint

    async def send() -> TenantReply:
        requests = client.requests(tenant.issuer, tenant.clock.now())
        fields = requests.fetch_token(endpoint, **form)
        return await tenant.send("POST", endpoint, form=fields)

    return await persist(send, tenant, patience, repeatable=repeatable)


def read_access(reply: TenantReply, clock: Clock) -> AccessToken:
    """Read a token endpoint's success (RFC 6749 section 5.1).

    Raises:
        TenantUnreachableError: it holds no bearer token.
    """
    body = reply.json()
    token, kind = body.get("access_token"), body.get("token_type", "Bearer")
    # RFC 6749 section 7.1: a type that is not understood must not be used.
    if not isinstance(token, str) or not isinstance(kind, str):
        raise _odd()
    if not token or kind.lower() != "bearer":
        raise _odd()
    renewed = body.get("refresh_token")
    life = seconds(body.get("expires_in"))
    return AccessToken(
        token=Secret(token),
        scopes=frozenset(words(body.get("scope"))),
        expires=Deadline.after(clock, life - min(_MARGIN, life / 10)),
        refresh_token=Secret(renewed) if isinstance(renewed, str) and renewed else None,
        young=Deadline.after(clock, _MARGIN),
    )


def seconds(value: object) -> int:
    """Read ``expires_in``; 0, which keeps nothing, when it is none."""
    return min(value, _MAX_LIFE) if type(value) is int and value > 0 else 0


def words(value: object) -> tuple[str, ...]:
    """Read a ``scope``: words with spaces between them, displayable and bounded."""
    if not isinstance(value, str):
        return ()
    return tuple(visible(word, 200) for word in value.split()[:200])


def _odd() -> TenantUnreachableError:
    return TenantUnreachableError("the tenant sent an answer without a bearer token")


async def revoke_token(
    tenant: Tenant, client: RegisteredClient, refresh_token: Secret
) -> None:
    """Revoke a refresh token one holds (RFC 7009), at once; 200 also when it was.

    Access tokens made of it live on: Auth0 cannot revoke those.

    Args:
        tenant: who issued it.
        client: to whom.
        refresh_token: the token to revoke.

    Raises:
        TenantError: the tenant does not answer, refuses, or names no such endpoint.
    """
    metadata = await tenant.metadata()
    endpoint = metadata.revocation_endpoint
    if not endpoint:
        raise TenantError("the tenant names no revocation endpoint")

    async def send() -> TenantReply:
        requests = client.requests(tenant.issuer, tenant.clock.now())
        fields = requests.revoke_token(endpoint, refresh_token.reveal())
        return await tenant.send("POST", endpoint, form=fields)

    reply = await persist(send, tenant, BRIEF, repeatable=True)
    if reply.status != 200:
        raise refused(reply, "revoke the refresh token", tenant.clock.now())


async def probe_refresh_token(
    tenant: Tenant, client: RegisteredClient, refresh_token: Secret
) -> Secret | None:
    """Return the refresh token that is live in the place of one, if any is.

    It is used, for no more than ``openid``, and the new token is dropped: the
    revocation endpoint answers 200 for an unknown token too (RFC 7009 section 2.2), so
    only the token endpoint shows whether this one is dead.

    Args:
        tenant: who issued it.
        client: to whom.
        refresh_token: the one in doubt.

    Returns:
        None when the token is dead, else the one to revoke: another where the tenant
        rotates them (RFC 6749 section 6).

    Raises:
        TenantError: the tenant does not answer, or refuses for another reason.
    """
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token.reveal(),
        "scope": "openid",
    }
    # Where tokens rotate, sending one a second time revokes the whole family.
    reply = await ask_token(tenant, client, form, repeatable=False)
    if reply.status == 200:
        return read_access(reply, tenant.clock).refresh_token or refresh_token
    # RFC 6749 section 5.2: "invalid, expired, revoked, [...] or was issued to another
    # client"; whose it is was looked at before.
    if reply.status < 500 and read_refusal(reply).code == "invalid_grant":
        return None
    raise refused(reply, "say whether it takes the token", tenant.clock.now())
