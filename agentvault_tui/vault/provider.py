"""A provider of Token Vault's, called directly: to revoke a token, or find its owner.

The broker is no client of the provider's and has nothing to show but the access token.
So only an endpoint that revokes for any holder is of use, and of those in `PRESETS`,
the provider's own documentation describes it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agentvault_tui.errors import AgentVaultError, TenantUnreachableError
from agentvault_tui.vault.credentials import Secret
from agentvault_tui.vault.issuer import check_endpoint
from agentvault_tui.vault.refusals import read_refusal
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.wire import Wire

SECONDS: Final = 5.0
"""For each exchange with a provider, from the first byte to the last."""
_CAP: Final = 16 * 1024
"""Bytes of an answer."""
_MAX_SUB: Final = 255
_GOOGLE: Final = "https://oauth2.googleapis.com/revoke"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A provider's endpoints; empty where there is none."""

    revocation: str = ""
    userinfo: str = ""

    @property
    def ends_all(self) -> bool:
        """Whether one token revoked ends every other of the same grant.

        RFC 7009 section 2.1 leaves that to the server. Google's guide: "Revocation
        removes all OAuth 2.0 scopes previously granted to a project, invalidating any
        issued access or refresh tokens for all clients registered under that project."
        """
        return self.revocation == _GOOGLE


PRESETS: Final[Mapping[str, Endpoints]] = {
    # https://developers.google.com/identity/protocols/oauth2/web-server#tokenrevoke:
    # the form has the token and no client; "If the token is an access token and it has
    # a corresponding refresh token, the refresh token will also be revoked."
    # The other: https://accounts.google.com/.well-known/openid-configuration.
    "google-oauth2": Endpoints(
        _GOOGLE, "https://openidconnect.googleapis.com/v1/userinfo"
    )
}
"""By Auth0's name of the connection."""


def endpoints(
    name: str,
    revocation: str,
    userinfo: str,
    presets: Mapping[str, Endpoints] = PRESETS,
) -> Endpoints:
    """Return the endpoints of the connection *name*, by its settings.

    *revocation* and *userinfo* are a URL each, ``none``, or ``auto``: the one *known*.

    Raises:
        SettingsError: a URL is none that a token may be sent to.
    """
    usual = presets.get(name, Endpoints())
    where = f"connections.{name}"
    return Endpoints(
        _chosen(revocation, usual.revocation, f"{where}.revocation_endpoint"),
        _chosen(userinfo, usual.userinfo, f"{where}.userinfo_endpoint"),
    )


def _chosen(value: str, usual: str, setting: str) -> str:
    if value == "none":
        return ""
    return usual if value == "auto" else check_endpoint(value, setting)


@dataclass(frozen=True, slots=True)
class ProviderRevoked:
    """The token is revoked."""


@dataclass(frozen=True, slots=True)
class RevocationPending:
    """No answer, or none that says so; to be tried again."""

    problem: str
    wait: float = 0.0
    """Seconds the provider asked for."""


@dataclass(frozen=True, slots=True)
class RevocationRefused:
    """Refused for good."""

    problem: str


class ProviderClient:
    """The HTTP client of one provider."""

    def __init__(self, at: Endpoints, name: str, seconds: float = SECONDS) -> None:
        """Connect to it at *at*; *name* is the connection's, for messages about it."""
        self._at = at
        self._name = name
        self._revocation = self._wire(at.revocation, seconds)
        self._userinfo = self._wire(at.userinfo, seconds)

    def _wire(self, url: str, seconds: float) -> Wire | None:
        remedy = f"see connections.{self._name} in config.toml"
        return Wire(url, seconds, who=self._name, remedy=remedy) if url else None

    async def revoke(
        self, token: Secret
    ) -> ProviderRevoked | RevocationPending | RevocationRefused:
        """Revoke an access token (RFC 7009), and check it where userinfo allows."""
        if self._revocation is None:
            return RevocationRefused(f"no revocation endpoint of {self._name} is known")
        try:
            # In the body, as section 2.1 has it: an address stands in logs.
            form = {"token": token.reveal()}
            reply = await self._revocation.send(
                "POST", self._at.revocation, form=form, cap=_CAP
            )
        except TenantUnreachableError as error:
            return RevocationPending(error.diagnosis())
        answer = self._read(reply)
        after = await self._info(token) if isinstance(answer, ProviderRevoked) else None
        if after is not None and after.status == 200:
            # Google's: "it might take some time before [it] has full effect".
            return RevocationPending(f"{self._name} revoked it and still takes it")
        return answer

    async def whose(self, token: Secret) -> str:
        """Return the token's subject there (OIDC Core section 5.3), or ``""``."""
        reply = await self._info(token)
        if reply is None or reply.status != 200:
            return ""
        sub = (reply.body or {}).get("sub")
        if not isinstance(sub, str) or len(sub) > _MAX_SUB:
            return ""
        # OIDC Core section 2: at most 255 ASCII characters. Another is nobody's.
        return sub if sub.isascii() and sub.isprintable() else ""

    async def aclose(self) -> None:
        """Close the connections."""
        for wire in (self._revocation, self._userinfo):
            if wire is not None:
                await wire.aclose()

    def _read(
        self, reply: TenantReply
    ) -> ProviderRevoked | RevocationPending | RevocationRefused:
        code = read_refusal(reply).code
        if reply.status == 200 and not _is_denied(reply):
            return ProviderRevoked()
        if reply.status == 400 and code == "invalid_token":
            # Section 2.2 wants 200 for it; Google's and Salesforce's answer this.
            return ProviderRevoked()
        message = f"{self._name} answered {reply.status}"
        if reply.error:
            message += f" {code}"
        if reply.status in {408, 425, 429} or not 400 <= reply.status < 500:
            # Section 2.2.1: after a 503 the token still exists; Retry-After says how
            # long to leave it.
            return RevocationPending(message, reply.retry_after or 0.0)
        return RevocationRefused(message)

    async def _info(self, token: Secret) -> TenantReply | None:
        if self._userinfo is None:
            return None
        try:
            return await self._userinfo.send(
                "GET", self._at.userinfo, bearer=token, cap=_CAP
            )
        except AgentVaultError:
            return None


def _is_denied(reply: TenantReply) -> bool:
    """Check whether a 200 says no in its body, as Slack's API does.

    RFC 7009 section 2.2 has the body ignored; this one would be taken for a yes.
    """
    body = reply.body or {}
    return body.get("ok") is False or body.get("revoked") is False or bool(reply.error)
