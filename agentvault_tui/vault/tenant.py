"""One tenant: its metadata and its keys, and the pace of requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final

from authlib.oidc.discovery import OpenIDProviderMetadata
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from agentvault_tui.clock import Clock
from agentvault_tui.encoder import from_base64url
from agentvault_tui.errors import TenantError, TenantUnreachableError
from agentvault_tui.model.claims import DETAILS_TYPES, EXTENSIONS_PATH
from agentvault_tui.text import visible
from agentvault_tui.vault.egress import route
from agentvault_tui.vault.issuer import check_issuer, origin
from agentvault_tui.vault.refreshed import CachedDocument
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.wire import Wire

MAX_KEYS: Final = 20
"""Keys in one set: of a larger one nothing is believed."""
_MAX_KID: Final = 256
_MIN_BITS, _MAX_BITS = 2048, 8192

Keys = Mapping[str, RSAKey]
"""The tenant's signing keys; ``kid`` is an opaque name and nothing else."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The endpoints we use; all on the issuer's own origin."""

    issuer: str
    device_authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    authorization_endpoint: str = ""
    """RFC 6749 section 3.1; empty where there is none."""
    revocation_endpoint: str = ""
    """RFC 7009; empty where there is none."""


def read_metadata(reply: TenantReply, issuer: str) -> Metadata:
    """Check a discovery document (OpenID Connect Discovery section 4.3).

    Raises:
        TenantUnreachableError: it is not one.
        TenantError: it is another issuer's, or names an endpoint on another origin.
    """
    body = _document(reply, "discovery document")
    stated = body.get("issuer")
    # OpenID Connect Discovery section 4.3: exactly the issuer we asked.
    if stated != issuer:
        raise TenantError(
            f"the tenant calls itself {visible(repr(stated), 100)}, not {issuer}",
            "set tenant.issuer to what the tenant's discovery document says",
        )
    try:
        OpenIDProviderMetadata(body).validate_id_token_signing_alg_values_supported()
    except (ValueError, TypeError) as error:
        raise TenantError(
            f"the tenant's discovery document is not accepted: {visible(error, 120)}",
            "have it sign ID tokens with RS256",
        ) from error
    home = origin(issuer)
    for name, value in body.items():
        # One URI template is Auth0's: it has a connection in its path.
        if (name.endswith("_endpoint") or name == "jwks_uri") and (
            not isinstance(value, str)
            or origin(value.removesuffix("/{connectionName}")) != home
        ):
            raise TenantError(
                f"the tenant's {visible(name, 60)} is not on its own origin",
                "a tenant that sends its clients elsewhere is not trusted",
            )

    def endpoint(name: str) -> str:
        value = body.get(name)
        if not isinstance(value, str):
            raise TenantError(
                f"the tenant names no {name}", "enable the device flow on it"
            )
        return value

    return Metadata(
        issuer=issuer,
        device_authorization_endpoint=endpoint("device_authorization_endpoint"),
        token_endpoint=endpoint("token_endpoint"),
        jwks_uri=endpoint("jwks_uri"),
        authorization_endpoint=body.get("authorization_endpoint", ""),
        revocation_endpoint=body.get("revocation_endpoint", ""),
    )


def read_details_types(reply: TenantReply, issuer: str) -> frozenset[str]:
    """Read which types of authorization details the tenant's device flow shows.

    A document of the embedded tenant's own: Auth0 has none, which reads as no types.

    Raises:
        TenantUnreachableError: no usable answer; the earlier one still counts.
    """
    if reply.status in {408, 425, 429} or reply.status >= 500:
        raise TenantUnreachableError(
            f"the tenant does not say what it shows (status {reply.status})",
            "try again",
        )
    body = reply.body if reply.status == 200 else None
    if body is None or body.get("issuer") != issuer:
        return frozenset()
    listed = body.get(DETAILS_TYPES)
    types = listed if isinstance(listed, list) else []
    return frozenset(one for one in types if isinstance(one, str))


def read_keys(reply: TenantReply) -> Keys:
    """Check a key set (RFC 7517); keys other than RSA signing keys are passed over.

    Raises:
        TenantUnreachableError: it is not a key set.
        TenantError: it has too many keys, or one that must not be public.
    """
    listed = _document(reply, "key set").get("keys")
    if not isinstance(listed, list) or not listed:
        raise TenantUnreachableError("the tenant's key set holds no keys")
    if len(listed) > MAX_KEYS:
        raise TenantError(f"the tenant's key set has more than {MAX_KEYS} keys")
    keys: dict[str, RSAKey] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            raise TenantError("the tenant's key set holds something that is no key")
        if jwk.get("kty") == "oct" or "d" in jwk or "k" in jwk:
            # Whoever reads such a set can sign: none of it is believed.
            raise TenantError("the tenant's key set gives away a secret key")
        kid = jwk.get("kid")
        if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig":
            continue
        if jwk.get("alg", "RS256") != "RS256":
            continue
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID or kid in keys:
            raise TenantError("the tenant's key set has a key without its own name")
        keys[kid] = _rsa(jwk)
    if not keys:
        raise TenantError("the tenant's key set has no RS256 key")
    return keys


def _rsa(jwk: dict[str, object]) -> RSAKey:
    """Take modulus and exponent alone: ``x5u`` and the like are never followed."""
    modulus, exponent = jwk.get("n"), jwk.get("e")
    if not isinstance(modulus, str) or not isinstance(exponent, str):
        raise TenantError("the tenant's key set has a malformed key")
    try:
        # Before a library sees it: leading zeros make a weak key look like a long one.
        raw = from_base64url(modulus)
        size = int.from_bytes(raw).bit_length()
        if not _MIN_BITS <= size <= _MAX_BITS:
            raise TenantError(f"the tenant signs with an RSA key of {size} bits")
        return RSAKey.import_key({"kty": "RSA", "n": modulus, "e": exponent})
    except (JoseError, ValueError, TypeError, OverflowError) as error:
        raise TenantError("the tenant's key set has a malformed key") from error


def _document(reply: TenantReply, what: str) -> dict[str, Any]:
    if reply.status != 200 or reply.body is None:
        raise TenantUnreachableError(
            f"the tenant's {what} cannot be read (status {reply.status})",
            "check tenant.issuer",
        )
    return reply.body


Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds; tests move a clock instead."""


class Tenant(Wire):
    """A tenant's HTTP, its metadata and its clock, shared by all clients of it."""

    def __init__(
        self,
        issuer: str,
        clock: Clock,
        *,
        local: str | None = None,
        timeout: float = 10.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Name the tenant; nothing is sent yet.

        Args:
            issuer: as its discovery document has it, with or without the slash.
            clock: the only source of now.
            local: where on loopback it answers for *issuer*, if it does.
            timeout: seconds for each exchange, from the first byte to the last.
            sleep: how to wait.

        Raises:
            SettingsError: *issuer* is not one we may talk to.
        """
        self.issuer: Final = check_issuer(issuer)
        super().__init__(self.issuer, timeout, local=local)
        self.clock: Final = clock
        self.sleep: Final = sleep
        self.skew: float | None = None
        """Seconds by which the tenant's clock was ahead, at its last answer."""
        self._metadata = CachedDocument(self._fetch_metadata, clock)
        self._details_types = CachedDocument(self._fetch_details_types, clock)

    @property
    def way(self) -> str:
        """How this process reaches it: proxy and certificate authorities."""
        try:
            return str(route(self.local or self.issuer))
        except TenantError as error:
            return f"not at all: {error.what}"

    async def metadata(self) -> Metadata:
        """Return the endpoints, at most a day old.

        Raises:
            TenantError: the discovery document cannot be had or trusted.
        """
        return await self._metadata.get()

    async def details_types(self) -> frozenset[str]:
        """Return the types of details that its device flow shows, at most a day old.

        Raises:
            TenantError: the tenant cannot be asked.
        """
        return await self._details_types.get()

    async def probe(self) -> bool:
        """Fetch the discovery document; return whether that worked."""
        try:
            await self._fetch_metadata()
        except TenantError:
            return False
        return True

    def _note(self, reply: TenantReply) -> None:
        super()._note(reply)
        if reply.date is not None:
            self.skew = (reply.date - self.clock.now()).total_seconds()

    async def _fetch_metadata(self) -> Metadata:
        url = f"{self.issuer}.well-known/openid-configuration"
        return read_metadata(await self.send("GET", url), self.issuer)

    async def _fetch_details_types(self) -> frozenset[str]:
        url = f"{self.issuer}{EXTENSIONS_PATH.removeprefix('/')}"
        return read_details_types(await self.send("GET", url), self.issuer)


Jitter = Callable[[], float]
"""Returns a number from 0 to 1, another each time."""

IDEMPOTENT: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""PATCH too: all of ours set values, and none adds to any."""
_FIRST, _LONGEST = 0.5, 20.0
_FAILURES: Final = 3
"""Tries after which silence and 5xx are taken for an answer."""
_random: Final[Jitter] = SystemRandom().random


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often to try, and how many seconds to wait in all between the tries."""

    attempts: int = 10
    seconds: float = 90.0
    jitter: Jitter = _random


async def persist(
    send: Callable[[], Awaitable[TenantReply]],
    tenant: Tenant,
    patience: RetryLimits,
    *,
    repeatable: bool,
) -> TenantReply:
    """Send until the answer is final, or *patience* ends; return the last one.

    A 429 was not carried out and is always tried again; after a 408, a 5xx or no answer
    at all it may have been, so only a *repeatable* request is.

    Raises:
        TenantUnreachableError: no answer came, the last time.
    """
    waited, attempt = 0.0, 0
    while True:
        attempt += 1
        outcome: TenantReply | TenantUnreachableError
        try:
            outcome = await send()
        except TenantUnreachableError as error:
            outcome = error
        pause = _pause(outcome, attempt, tenant, patience.jitter)
        if (
            not _is_worth_more(outcome, attempt, repeatable=repeatable)
            or attempt >= patience.attempts
            or waited + pause > patience.seconds
        ):
            break
        await tenant.sleep(pause)
        waited += pause
    if isinstance(outcome, TenantUnreachableError):
        raise outcome
    return outcome


def _is_worth_more(
    outcome: TenantReply | TenantUnreachableError, attempt: int, *, repeatable: bool
) -> bool:
    if isinstance(outcome, TenantReply):
        if outcome.status == 429:
            return True
        if outcome.status < 500 and outcome.status not in {408, 425}:
            return False
    return repeatable and attempt < _FAILURES


def _pause(
    outcome: TenantReply | TenantUnreachableError,
    attempt: int,
    tenant: Tenant,
    jitter: Jitter,
) -> float:
    """Return the pause in seconds: the tenant's, else an exponential backoff.

    With jitter, because every client gets the same moment of renewal.
    """
    pause: float | None = None
    if isinstance(outcome, TenantReply):
        # Every answer has the limit's reset; only a 429 is about it.
        limited = outcome.status == 429
        pause = outcome.wait(tenant.clock.now()) if limited else outcome.retry_after
    backoff: float = min(_FIRST * 2.0 ** (attempt - 1), _LONGEST)
    if pause is None:
        return backoff * (0.5 + jitter() / 2)
    return pause + min(backoff, 1.0) * jitter()
