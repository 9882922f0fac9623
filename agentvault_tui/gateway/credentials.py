"""The credential that a request gets, and the places of an agent's token."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus, unquote_plus, urlencode, urlsplit

from agentvault_tui.broker.accounts import HeldProviderToken
from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.usecases.exchange import usable
from agentvault_tui.broker.vault_access import SEALED
from agentvault_tui.clock import Deadline
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerError,
    NotForOriginError,
    SealedError,
)
from agentvault_tui.gateway.echo import Echo, Needles, needles
from agentvault_tui.gateway.secret_staging import SecretChange
from agentvault_tui.gateway.secrets import Secrets
from agentvault_tui.gateway.services import Service, UpstreamCredential
from agentvault_tui.gateway.upstream import Outgoing, Upstream
from agentvault_tui.model import Agent, AgentId
from agentvault_tui.vault import Cause, NoToken
from agentvault_tui.web.reply import Header
from agentvault_tui.web.service_connection import UpstreamError

log = logging.getLogger("agentvault.credentials")

_TOKEN: Final = "av_"  # noqa: S105 - no password
"""The beginning of our own tokens."""
_SPARE: Final = 30.0
"""Seconds before its end at which a token is fetched again."""
_UNSAID: Final = 300.0
"""Seconds a token lives if its endpoint does not state it."""
_REPLY_BYTES: Final = 65_536


@dataclass(slots=True)
class Shown:
    """An agent's presented token, and the request without it."""

    secret: str | None
    headers: list[Header]
    raw_target: bytes


def take_token(
    headers: list[Header], raw_target: bytes, credential: UpstreamCredential | None
) -> Shown:
    """Find the agent's token, and take away every place where one may stand.

    ``Authorization`` (Bearer, or either half of Basic), and where the service's
    credential goes. Nothing that an agent put there reaches the service.

    Args:
        headers: names in lower case, and values.
        raw_target: path and query.
        credential: the service's, if it is known.

    Returns:
        the token, if one was presented, and the rest of the request.
    """
    tokens: list[str] = []
    headers_left: list[Header] = []
    name = credential.name.lower().encode() if credential else b""
    in_header = credential is not None and credential.kind == "header"
    for header, value in headers:
        if header == b"authorization":
            tokens += _authorized(value)
        elif in_header and header == name:
            prefix = credential.prefix.encode() if credential else b""
            tokens.append(value.removeprefix(prefix).strip().decode("latin-1"))
        else:
            headers_left.append((header, value))
    if credential is not None and credential.kind == "query":
        path, mark, query = raw_target.partition(b"?")
        pieces = []
        for piece in query.split(b"&"):
            scheme, _, value = piece.partition(b"=")
            if unquote_plus(scheme.decode("latin-1")) == credential.name:
                tokens.append(unquote_plus(value.decode("latin-1")))
            else:
                pieces.append(piece)
        query = b"&".join(pieces)
        raw_target = path + (b"?" + query if mark and query else b"")
    ours = [one for one in tokens if one.startswith(_TOKEN)]
    return Shown(next(iter(ours or tokens), None), headers_left, raw_target)


def _authorized(value: bytes) -> list[str]:
    scheme, _, parameter = value.partition(b" ")
    parameter = parameter.strip()
    match scheme.lower():
        case b"bearer" | b"token":
            return [parameter.decode("latin-1")]
        case b"basic":
            with suppress(binascii.Error, ValueError):
                halves = base64.b64decode(parameter, validate=True).partition(b":")
                return [half.decode("latin-1") for half in halves[::2]]
    return []


@dataclass(slots=True)
class Attachment:
    """One credential, ready to be attached."""

    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    needles: Needles = field(default=Needles(), repr=False)
    """The values that no answer may hold."""

    def attach(self, outgoing: Outgoing) -> None:
        """Add it to a request."""
        outgoing.headers.extend(self.headers)
        if self.query:
            mark = "&" if "?" in outgoing.target else "?"
            outgoing.target = f"{outgoing.target}{mark}{self.query}"


@dataclass(slots=True)
class _Kept:
    """An attachment that was made once, and its source."""

    made_of: tuple[object, ...]
    attachment: Attachment
    ends: Deadline | None = None


class Credentials:
    """The credentials of all services: sealed secrets, and tokens fetched with them.

    A fetched token is cached for one agent, and dropped when that agent is revoked.
    Where a credential may be sent is checked each time one is asked for.
    """

    def __init__(
        self,
        broker: Broker,
        secrets: Secrets,
        check: Callable[[Service], None],
        upstream: Callable[[Service, AgentId | None], Upstream],
    ) -> None:
        """Fetch nothing yet.

        Args:
            broker: the broker, for vault access and clock.
            secrets: the encrypted ones; a rotated refresh token is stored there.
            check: refuses a service whose credential may not be sent to its origins;
                see `SecretOrigins.check`.
            upstream: returns how a service is reached.
        """
        self._broker = broker
        self._secrets = secrets
        self._check = check
        self._upstream = upstream
        self._cache: dict[tuple[str, AgentId | None], _Kept] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def drop(self, agent_id: AgentId | None) -> None:
        """Forget the tokens that were fetched for an agent, or for all."""
        for key in list(self._cache):
            if key[1] is not None and agent_id in {None, key[1]}:
                del self._cache[key]

    def _reveal(self, name: str, service: Service) -> str:
        return self._secrets.open(name, service.destinations).reveal()

    async def of(self, service: Service, agent: Agent) -> Attachment:
        """Return the attachment of a request of *agent* to *service*.

        Raises:
            UpstreamError: there is no such secret, it is not for where it would be
                sent, the key that opens it is not here, or no token was given for it.
        """
        try:
            self._check(service)
            match service.credential.kind:
                case "none":
                    return _NOTHING
                case "connection":
                    return await self._connected(service, agent)
                case "client_credentials" | "refresh_token":
                    return await self._token(service, agent)
                case _:
                    return self._sealed(service)
        except (LedgerError, TimeoutError) as error:
            log.warning("no credential for %s: %s", service.name, error)
            text = "the gateway cannot have a credential for this service now"
            raise UpstreamError(503, "temporarily_unavailable", text) from None
        except NotForOriginError as error:
            log.warning("no credential for %s: %s", service.name, error.diagnosis())
            text = "the credential of this service is not for its origin: an operator"
            raise UpstreamError(503, error.code, f"{text} has to look") from None
        except SealedError as error:
            log.warning("no credential for %s: %s", service.name, error.diagnosis())
            raise _unopened() from None
        except AgentVaultError as error:
            # Its words may name files of this machine, and an agent reads ours.
            log.warning("no credential for %s: %s", service.name, error.diagnosis())
            raise _missing() from None

    def _sealed(self, service: Service) -> Attachment:
        """Return the attachment of a secret, made again when the secret was changed."""
        credential = service.credential
        made_of = service, self._secrets.row(credential.secret)
        entry = self._cache.get((service.name, None))
        if entry is None or any(
            a is not b for a, b in zip(entry.made_of, made_of, strict=True)
        ):
            secret = self._reveal(credential.secret, service)
            entry = _Kept(made_of, _attachment(credential, secret))
            self._cache[service.name, None] = entry
        return entry.attachment

    async def _connected(self, service: Service, agent: Agent) -> Attachment:
        """Return the provider's token of the agent's connected account."""
        broker, credential = self._broker, service.credential
        account = usable(broker, agent.id, credential.connection)
        if account is None:
            raise _missing()
        key = service.name, agent.id
        held = broker.registry.provider_tokens.get(account)
        if held is not None:
            entry = self._cache.get(key)
            if entry is None or entry.made_of != (held.thumbprint,):
                attachment = _bearer(held.token.reveal())
                entry = self._cache[key] = _Kept((held.thumbprint,), attachment)
            return entry.attachment
        grant = broker.registry.unless_revoked(agent.id)
        exchanged = await broker.reaching.vault.exchange(account)
        if isinstance(exchanged, NoToken):
            raise _unopened() if exchanged.cause is Cause.SEALED else _missing()
        held = HeldProviderToken.of(
            broker.clock, account, exchanged, broker.settings.tokens.lease
        )
        if grant.revoked:
            broker.reaching.outbox.keep_undelivered(held)
            raise _missing()
        broker.registry.provider_tokens.put(held)
        return _bearer(held.token.reveal())

    async def _token(self, service: Service, agent: Agent) -> Attachment:
        """Return an access token from the service's token endpoint (RFC 6749)."""
        key = service.name, agent.id
        secret = service.credential.secret
        async with self._turns[secret]:
            entry = self._cache.get(key)
            if (
                entry is not None
                and entry.made_of == (service,)
                and entry.ends is not None
                and not entry.ends.passed(self._broker.clock)
            ):
                return entry.attachment
            grant = self._broker.registry.unless_revoked(agent.id)
            # A refresh token is shown once: another broker may have kept its successor.
            async with self._broker.team.brokers.alone(
                f"credential:{secret}"
            ) as seconds:
                await self._broker.ledger.confirm()
                fetched = await self._fetch(service, seconds)
            if not grant.revoked:
                self._cache[key] = fetched
            return fetched.attachment

    async def _fetch(self, service: Service, seconds: float | None) -> _Kept:
        """Ask the token endpoint, over the service's own address rules and trust.

        A successor of a refresh token is stored however long that takes.
        """
        credential = service.credential
        listed = self._secrets.origins(credential.secret)
        outgoing = self._token_request(service)
        origin = credential.token_origin
        said_back = bytearray()
        async with asyncio.timeout(seconds):
            answer = await self._upstream(service, None).send(outgoing, origin)
            try:
                async for chunk in answer.chunks():
                    said_back += chunk
                    if len(said_back) > _REPLY_BYTES:
                        raise _missing()
            finally:
                answer.close()
        fetched, rotated = self._granted(service, answer.status, bytes(said_back))
        if fetched is None:
            log.warning(
                "%s: its token endpoint answered %d", service.name, answer.status
            )
            raise _missing()
        if credential.kind == "refresh_token" and isinstance(rotated, str) and rotated:
            await self._secrets.change(
                lambda: self._rotated(credential.secret, rotated, listed),
                self._broker.record,
            )
        return fetched

    def _rotated(
        self, name: str, value: str, listed: tuple[str, ...] | None
    ) -> SecretChange | None:
        """Prepare to store a successor, for the origins of the one that it replaces.

        If an operator set other origins meanwhile, the operator's value stays: a value
        never comes under a list that it was not given for.
        """
        if listed is None or self._secrets.origins(name) != listed:
            log.warning("%s was set again: its successor is not kept", name)
            return None
        return self._secrets.set(name, value, SYSTEM, listed)

    def _token_request(self, service: Service) -> Outgoing:
        """Return the request to a token endpoint (RFC 6749 sections 4.4.2 and 6)."""
        credential = service.credential
        form: dict[str, str] = {"grant_type": credential.kind}
        secret_name = credential.secret
        headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        ]
        if credential.kind == "refresh_token":
            form["refresh_token"] = self._reveal(credential.secret, service)
            secret_name = credential.client_secret
        if credential.scope:
            form["scope"] = credential.scope
        if secret_name:
            # RFC 6749 section 2.3.1: both are form-encoded first.
            client_pair = (
                quote_plus(credential.client_id),
                quote_plus(self._reveal(secret_name, service)),
            )
            basic = base64.b64encode(":".join(client_pair).encode()).decode()
            headers.append(("Authorization", f"Basic {basic}"))
        else:
            form["client_id"] = credential.client_id
        body = urlencode(form).encode()
        url = urlsplit(credential.token_endpoint)
        return Outgoing(
            method="POST",
            target=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            headers=headers,
            body=body,
            length=None,
            attach=lambda _: None,
            echo=Echo(),
        )

    def _granted(
        self, service: Service, status: int, body: bytes
    ) -> tuple[_Kept | None, object]:
        """Read a token endpoint's answer, and a refresh token that takes its place."""
        try:
            value = json.loads(body)
            token, life = value["access_token"], float(value.get("expires_in", _UNSAID))
            rotated = value.get("refresh_token")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None, None
        if status != 200 or not isinstance(token, str) or not token.isprintable():
            return None, None
        ends = Deadline.after(self._broker.clock, max(life - _SPARE, 0.0))
        return _Kept((service,), _bearer(token), ends), rotated


_NOTHING: Final = Attachment()


def _attachment(credential: UpstreamCredential, secret: str) -> Attachment:
    """Return the attachment of a credential that needs only *secret*."""
    match credential.kind:
        case "basic":
            return _basic(credential, secret)
        case "header":
            header = (credential.name, credential.prefix + secret)
            return Attachment((header,), needles=needles(secret.encode()))
        case "query":
            query = f"{quote_plus(credential.name)}={quote(secret, safe='')}"
            return Attachment(query=query, needles=needles(secret.encode()))
        case _:
            return _bearer(secret)


def _bearer(token: str) -> Attachment:
    return Attachment(
        (("Authorization", f"Bearer {token}"),), needles=needles(token.encode())
    )


def _basic(credential: UpstreamCredential, secret: str) -> Attachment:
    pair = f"{credential.username}:{secret}".encode()
    encoded = base64.b64encode(pair)
    return Attachment(
        (("Authorization", f"Basic {encoded.decode()}"),),
        # A secret may be too short to be looked for by itself.
        needles=needles(secret.encode(), encoded),
    )


def _missing() -> UpstreamError:
    return UpstreamError(
        502,
        "upstream_unreachable",
        "the gateway has no credential for this service now: an operator has to look",
    )


def _unopened() -> UpstreamError:
    return UpstreamError(503, "sealed", SEALED)
