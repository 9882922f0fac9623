"""What a grant is given and what it yields, and the three grants that need no page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from agentvault_tui.tenant.apis import Apis
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.journal import Code, Peer
from agentvault_tui.tenant.oauth.wire import missing, refused
from agentvault_tui.tenant.people import People, User
from agentvault_tui.tenant.refresh import RefreshTokens
from agentvault_tui.tenant.tokens import Issued, TokenService


@dataclass(frozen=True, slots=True)
class Exchange:
    """A token request whose client is authenticated and may use the grant."""

    form: Mapping[str, str] = field(repr=False)
    client: Client
    peer: Peer


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer, and what the log tells of it."""

    answer: dict[str, Any] = field(repr=False)
    user: User | None = None
    details: dict[str, Any] = field(default_factory=dict)
    connection: str | None = None
    audience: str | None = None

    @classmethod
    def of(cls, issued: Issued, audience: str | None = None) -> Self:
        """Tell of tokens of ours by their ``jti``."""
        details = {} if issued.jti is None else {"access_token_jti": issued.jti}
        return cls(issued.answer, issued.user, details, None, audience)


@dataclass(frozen=True, slots=True)
class Grant:
    """One ``grant_type``: what it does, and the log's codes for how it ends."""

    act: Callable[[Exchange], Outcome]
    succeeded: Code
    failed: Code


class MachineGrant:
    """Client credentials (RFC 6749 section 4.4)."""

    def __init__(self, apis: Apis, tokens: TokenService) -> None:
        """Give tokens for *apis*."""
        self._apis = apis
        self._tokens = tokens

    def __call__(self, asked: Exchange) -> Outcome:
        """Give a client a token of its own.

        Raises:
            TenantRefusedError: ``access_denied``: no such API, or no client grant.
        """
        audience = asked.form.get("audience", asked.form.get("resource"))
        if audience is None:
            raise refused(
                "access_denied",
                "No audience parameter was provided, and no default audience has been"
                " configured",
            )
        api = self._apis.asked(audience)
        granted = None
        if api is not None and asked.client.confidential:
            granted = self._apis.granted(asked.client, api, "client")
        if api is None or granted is None:
            raise refused(
                "access_denied",
                f'Client is not authorized to access "{audience}". You need to create a'
                ' "client-grant" associated to this API. See:'
                " https://auth0.com/docs/api/v2#!/Client_Grants/post_client_grants",
            )
        wanted = asked.form.get("scope", "").split() or sorted(granted)
        scope = " ".join(word for word in dict.fromkeys(wanted) if word in granted)
        issued = self._tokens.for_machine(asked.client, scope, api)
        return Outcome.of(issued, audience)


class RefreshGrant:
    """Refresh tokens (RFC 6749 section 6), also for another API (MRRT)."""

    def __init__(
        self, apis: Apis, tokens: TokenService, refresh: RefreshTokens, people: People
    ) -> None:
        """Exchange *refresh* tokens of *people*."""
        self._apis = apis
        self._tokens = tokens
        self._refresh = refresh
        self._people = people

    def __call__(self, asked: Exchange) -> Outcome:
        """Give new tokens for a refresh token.

        Raises:
            TenantRefusedError: ``invalid_grant`` for the token; ``access_denied`` for
                its user, or for an audience it does not reach.
        """
        token = asked.form.get("refresh_token")
        if not token:
            raise missing("refresh_token")
        held = self._refresh.find(token, asked.client)
        user = self._user(held.user_id)
        audience = asked.form.get("audience") or held.audience
        if audience == self._apis.userinfo:
            audience = ""
        allowed = self._reach(asked.client, held.audience, held.reach, audience)
        api = self._apis.asked(audience or None)
        wanted = asked.form.get("scope", "").split() or allowed
        scope = " ".join(word for word in dict.fromkeys(wanted) if word in allowed)
        # Also where it was issued for: a client grant may have been taken back since.
        scope = self._apis.for_user(asked.client, api, scope)
        issued = self._tokens.for_refresh(
            asked.client, user, scope, api, held.session_id
        )
        if audience not in held.reach:
            self._refresh.extend(held, audience, scope)
        answer = issued.answer
        if held.rotating:
            answer["refresh_token"] = self._refresh.rotate(token, held)
        return Outcome.of(issued, audience or None)

    def _user(self, sub: str) -> User:
        if self._people.find(sub) is None:
            raise refused(
                "invalid_grant",
                "The refresh_token was generated for a user who doesn't exist anymore.",
            )
        return self._tokens.able(sub)

    def _reach(
        self, client: Client, own: str, reach: Mapping[str, str], audience: str
    ) -> list[str]:
        """Return the scopes a token has at *audience*."""
        if audience == own:
            return reach[own].split()
        policy = client.refresh.policies.get(audience)
        if policy is None:
            api = self._apis.asked(audience or None)
            raise (
                refused("access_denied", "No policy reaches this audience.")
                if (api is None)
                else self._apis.no_access(client, api)
            )
        return [*reach[own].split(), *policy]
