"""The device authorization flow (RFC 8628), from the client's side."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.errors import TenantError, TenantRefusedError
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import DEVICE_GRANT, RegisteredClient
from agentvault_tui.vault.issuer import origin
from agentvault_tui.vault.management import audience
from agentvault_tui.vault.refusals import refused
from agentvault_tui.vault.reply import TenantReply
from agentvault_tui.vault.tenant import RetryLimits, Tenant
from agentvault_tui.vault.tokens import AccessToken, ask_token, read_access

DEFAULT_INTERVAL: Final = 5
"""RFC 8628 section 3.2, when the tenant names none."""
SLOWER: Final = 5
"""RFC 8628 section 3.5: each slow_down adds as many seconds, for good."""
MARGIN: Final = 0.25
"""Seconds on top of each interval. A tenant that counts between arrivals sees a shorter
pause than ours if a request travels faster than the one before, and its slow_down costs
five seconds for good."""
_SLOWEST: Final = 30.0
"""Seconds between polls while the tenant does not answer."""
_MAX_INTERVAL: Final = 60
"""Seconds; a tenant that asks for more is not believed."""
_MAX_LIFE: Final = 86_400
"""Seconds."""
_USER_CODE: Final = re.compile(r"[A-Z0-9]+(?:[- ][A-Z0-9]+)*")
_DEVICE_CODE: Final = re.compile(r"[\x21-\x7e]{8,2048}")


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """A started flow: the codes to show, and the device code that only polls send."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int
    started_at: datetime
    expires: Deadline


@dataclass(frozen=True, slots=True)
class FlowTokens:
    """Approved; the ID token is yet to be verified."""

    id_token: str = field(repr=False)
    access: AccessToken | None = field(default=None, compare=False)
    """For the audience that was asked for, with a refresh token if that was too."""


@dataclass(frozen=True, slots=True)
class FlowPending:
    """Not decided yet."""


@dataclass(frozen=True, slots=True)
class FlowSlowDown:
    """Polled too fast."""

    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class FlowUnavailable:
    """No usable answer; worth asking again."""

    problem: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class FlowDenied:
    """The person cancelled, or the tenant refused them (``access_denied``)."""

    message: str
    id_token: str | None = field(default=None, repr=False)
    """Who answered, where the embedded tenant's approval page says so."""


@dataclass(frozen=True, slots=True)
class FlowExpired:
    """The code expired before it was decided."""


@dataclass(frozen=True, slots=True)
class FlowFailed:
    """The tenant will not answer for this code any more."""

    error: str
    message: str


Poll = (
    FlowTokens
    | FlowPending
    | FlowSlowDown
    | FlowUnavailable
    | FlowDenied
    | FlowExpired
    | FlowFailed
)
End = FlowTokens | FlowDenied | FlowExpired | FlowFailed


async def start_flow(
    tenant: Tenant, client_id: str, parameters: Mapping[str, str], ttl: int
) -> DeviceFlow:
    """Ask for a device code that lives at most *ttl* seconds (RFC 8628 section 3.1).

    The answer is checked, for it will be displayed.

    Raises:
        TenantRefusedError: the tenant said no.
        TenantError: it is unreachable, or sent text that must not be shown.
    """
    endpoint = (await tenant.metadata()).device_authorization_endpoint
    form = {"client_id": client_id, **parameters}
    reply = await tenant.send("POST", endpoint, form=form)
    body = reply.body
    if reply.status != 200 or body is None:
        raise refused(reply, "start the device flow", tenant.clock.now())
    device_code, user_code = body.get("device_code"), body.get("user_code")
    if not isinstance(device_code, str) or not _DEVICE_CODE.fullmatch(device_code):
        raise _odd("device code")
    if not isinstance(user_code, str) or not _is_user_code(user_code):
        raise _odd("user code")
    uri = _uri(body.get("verification_uri"), tenant.issuer)
    complete = body.get("verification_uri_complete")
    life = _seconds(body.get("expires_in"), _MAX_LIFE, "expires_in")
    interval = _seconds(
        body.get("interval", DEFAULT_INTERVAL), _MAX_INTERVAL, "interval"
    )
    life = min(life, ttl)
    return DeviceFlow(
        device_code=device_code,
        user_code=user_code,
        verification_uri=uri,
        verification_uri_complete=(
            uri if complete is None else _uri(complete, tenant.issuer)
        ),
        expires_in=life,
        interval=interval,
        started_at=tenant.clock.now(),
        expires=Deadline.after(tenant.clock, life),
    )


async def poll_once(
    tenant: Tenant, client_id: str, flow: DeviceFlow, *, openid: bool = True
) -> Poll:
    """Ask the token endpoint once (RFC 8628 section 3.4); an outage is an answer.

    Where *openid* was asked for, an ID token must come.

    Raises:
        TenantError: only an access token was requested, and the answer has none.
    """
    form = {"grant_type": DEVICE_GRANT, "device_code": flow.device_code}
    try:
        reply = await ask_token(
            tenant, RegisteredClient(client_id), form, RetryLimits(attempts=1)
        )
    except TenantError as error:
        return FlowUnavailable(error.what)
    if reply.status == 200 and not openid:
        return FlowTokens("", read_access(reply, tenant.clock))
    return read_poll(reply, tenant.clock)


def read_poll(reply: TenantReply, clock: Clock) -> Poll:
    """Read one answer of the token endpoint.

    ``error`` is read before the status: Auth0 answers 403 and 429 where RFC 8628 has
    400, and its 429 for slow_down is no rate limit.
    """
    if reply.status >= 500 or reply.body is None:
        return FlowUnavailable(
            f"the tenant answered {reply.status}", reply.wait(clock.now())
        )
    if reply.status == 200:
        token = reply.body.get("id_token")
        if isinstance(token, str):
            return FlowTokens(token)
        return FlowFailed("no_id_token", "the tenant sent no ID token; it needs openid")
    error = reply.error
    match error:
        case "authorization_pending":
            return FlowPending()
        case "slow_down":
            return FlowSlowDown(reply.retry_after)
        case "expired_token":
            return FlowExpired()
        case "invalid_grant":
            # After the one expired_token, or a success whose answer was lost.
            return FlowFailed(error, reply.description or "the code is used or expired")
        case "access_denied":
            token = reply.body.get("id_token")
            return FlowDenied(
                reply.description or "cancelled at the tenant",
                token if isinstance(token, str) else None,
            )
    if not error or reply.status in {408, 425, 429}:
        answered = f"the tenant answered {visible(error or reply.status, 60)}"
        return FlowUnavailable(answered, reply.wait(clock.now()))
    return FlowFailed(visible(error, 60), reply.description or "no reason given")


def _is_user_code(code: str) -> bool:
    """Check whether *code* may be shown: Auth0's masks have 8 to 20 characters."""
    letters = sum(map(str.isalnum, code))
    return len(code) <= 20 and letters >= 6 and bool(_USER_CODE.fullmatch(code))


def _uri(value: object, issuer: str) -> str:
    """Accept a page on the tenant itself: a person is about to open it."""
    if not isinstance(value, str) or len(value) > 500:
        raise _odd("verification address")
    if origin(value) != origin(issuer) or origin(value) is None:
        raise _odd("verification address")
    return value


def _seconds(value: object, most: int, name: str) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise _odd(name)
    return value


def _odd(what: str) -> TenantError:
    return TenantError(
        f"the tenant sent a {what} that cannot be shown",
        "check that tenant.issuer is the tenant you mean",
    )


async def poll_until_ended(
    tenant: Tenant, flow: DeviceFlow, ask: Callable[[], Awaitable[Poll]]
) -> End:
    """Poll with *ask* until the person decided or the code ran out.

    The interval counts from the receipt of the last answer; each slow_down makes it
    longer for good, an outage only until it is over.
    """
    interval = flow.interval + MARGIN
    pause = interval
    while True:
        await tenant.sleep(min(pause, flow.expires.remaining(tenant.clock)))
        if flow.expires.passed(tenant.clock):
            return FlowExpired()
        result = await ask()
        match result:
            case FlowPending():
                pause = interval
            case FlowSlowDown():
                interval += SLOWER
                pause = max(result.retry_after or 0.0, interval)
            case FlowUnavailable():
                slower = max(min(pause * 2, _SLOWEST), interval)
                pause = max(result.retry_after or 0.0, slower)
            case _:
                return result


_LIFE: Final = 900
"""Seconds: the life of Auth0's device codes."""


async def sign_in(
    tenant: Tenant,
    client_id: str,
    scopes: Iterable[str],
    show: Callable[[DeviceFlow], None],
) -> AccessToken:
    """Sign a person in by device flow, for a Management API token.

    Args:
        tenant: the tenant with the API.
        client_id: a native application with the device grant.
        scopes: the requested scopes; the tenant may give less.
        show: called with the code and the link, for the person.

    Returns:
        an access token with the scopes that were given.

    Raises:
        TenantError: the tenant refused, or no person signed in in time.
    """
    form = {"scope": " ".join(scopes), "audience": audience(tenant)}
    flow = await start_flow(tenant, client_id, form, _LIFE)
    show(flow)

    async def ask() -> Poll:
        # No openid in the scope, so no ID token: what it may is all that counts.
        return await poll_once(tenant, client_id, flow, openid=False)

    match await poll_until_ended(tenant, flow, ask):
        case FlowTokens(access=AccessToken() as access):
            return access
        case FlowDenied(message):
            error = "access_denied"
        case FlowFailed(error, message):
            pass
        case _:
            raise TenantError("nobody signed in before the code ran out", "start again")
    what = f"the tenant ended the sign-in: {error} {message}"
    raise TenantRefusedError(error, what.rstrip(), status=403)
