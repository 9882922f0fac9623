"""The faults of a tenant, and their remedies: the doctor's eyes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from agentvault_tui.errors import TenantError
from agentvault_tui.model.finding import Finding, Level, fault, ok, warning
from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.egress import route
from agentvault_tui.vault.identity import SKEW
from agentvault_tui.vault.issuer import is_loopback
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.provision.needs import (
    READING_SCOPES,
    Needs,
    TenantSurvey,
    lacking_scopes,
    writing_scopes,
)
from agentvault_tui.vault.provision.plan import PlanItem, PlanStep, ProvisioningPlan
from agentvault_tui.vault.provision.reading import OfflineAccess
from agentvault_tui.vault.provision.rules import MISSING, FieldChange
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.wire import ASK_DOCTOR

APPLY: Final = "agentvault auth0 apply"
_Say = Callable[[FieldChange], str]


def reason(item: PlanItem, change: FieldChange) -> Finding:
    """Return the finding for one field of an existing object."""
    for address, path, level, say in _REASONS:
        if fnmatchcase(item.address, address) and fnmatchcase(change.path, path):
            what = say if isinstance(say, str) else say(change)
            return Finding(level, f"{_whose(item)} {what}", APPLY)
    before, after = _short(change.before), _short(change.after)
    what = f"{_whose(item)} has {change.path} {before}, and should have {after}"
    return Finding(Level.FAULT, what, APPLY)


def _whose(item: PlanItem) -> str:
    title = f" ({visible(item.title, 60)})" if item.title else ""
    return f"{item.address}{title}"


def _short(value: object) -> str:
    return "nothing" if value is MISSING else visible(value, 80)


def _lost(change: FieldChange) -> list[object]:
    before = change.before if isinstance(change.before, list) else []
    after = change.after if isinstance(change.after, list) else []
    return [one for one in after if one not in before]


def _too_much(change: FieldChange) -> list[str]:
    before = change.before if isinstance(change.before, list) else []
    return [_short(one) for one in before if one not in change.after]


def _console_grants(change: FieldChange) -> str:
    if DEVICE_GRANT in _lost(change):
        return "lacks the Device Code grant: no sign-in and no step-up can start"
    return f"may use {', '.join(_too_much(change))}, which the console has no use for"


def _vault_grants(change: FieldChange) -> str:
    lost = _lost(change)
    if VAULT_GRANT in lost:
        return "lacks the Token Vault grant: each exchange is unauthorized_client"
    if lost:
        return f"lacks the grants {', '.join(map(_short, lost))}"
    return f"may use {', '.join(_too_much(change))}, which an agent has no use for"


def _clients(change: FieldChange) -> str:
    if lost := _lost(change):
        return f"is not enabled for {len(lost)} of our applications"
    return (
        f"is enabled for {len(_too_much(change))} of our applications that have no "
        "business with it: people may sign in, or accounts be used, by it"
    )


def _policy(change: FieldChange) -> str:
    if change.before == ["all-applications"]:
        return "is Always: every Token Vault exchange fails for want of a second factor"
    return f"is {_short(change.before)}: an exchange may be asked for a second factor"


_ROTATION: Final = (
    "has refresh token rotation on: the first exchange spends the token, and Token "
    "Vault refuses such a client"
)
_MRRT: Final = (
    "has no refresh token policy for the My Account API: no account can be connected "
    "for it"
)
_NO_DEVICE: Final = ": it gets no device flow"
_F, _W = Level.FAULT, Level.WARNING
_REASONS: Final[tuple[tuple[str, str, Level, str | _Say], ...]] = (
    ("client.console", "app_type", _F, f"is not native{_NO_DEVICE}"),
    ("client.console", "token_endpoint_auth_method", _F,
     "has a secret: Auth0 gives the device flow to public clients alone"),
    ("client.console", "grant_types", _F, _console_grants),
    ("client.console", "is_first_party", _F, f"is not first-party{_NO_DEVICE}"),
    ("client.console", "oidc_conformant", _F, f"is not OIDC conformant{_NO_DEVICE}"),
    ("client.management", "token_endpoint_auth_method", _F,
     "takes no secret: the broker can neither revoke there nor read the log"),
    ("client.*", "token_endpoint_auth_method", _F,
     "is not confidential by client_secret_post: Token Vault refuses public ones"),
    ("client.*", "is_first_party", _F, "is not first-party: Token Vault refuses it"),
    ("client.*", "oidc_conformant", _F, "is not OIDC conformant: Token Vault wants it"),
    ("client.agents/*", "grant_types", _F, _vault_grants),
    ("client.*", "refresh_token.rotation_type", _F, _ROTATION),
    ("client.*", "refresh_token.policies", _F, _MRRT),
    ("client.*", "known", _F, "is not known in this home: no sign-in goes by it"),
    ("client.*", "kept", _F, "has a secret that is not in this home"),
    ("client.*", "worker_key", _F, "has a worker's key that is not in this home"),
    ("client.*", "name", _W, "goes by another name"),
    ("client.*", "client_metadata.*", _F, "lacks our mark: the Actions pass it by"),
    ("connection.*", "connected_accounts.active", _F,
     "is not active for connected accounts: nothing of it gets into Token Vault"),
    ("connection.*", "clients", _F, _clients),
    ("action.*", "deployed_code", _F, "is not deployed as it ships"),
    ("action.*", "code", _F, "has other code than ships: edited there, or older"),
    ("flow.credentials-exchange", "bindings", _W,
     "does not run the Action that limits tokens of applications"),
    ("flow.*", "bindings", _F,
     "does not run our Actions one after the other: no fresh factor is proved"),
    ("settings.*", "flags.enable_client_connections", _F,
     "is on: each new application of ours gets every connection of the tenant"),
    ("factor.otp", "enabled", _F, "is off"),
    ("factor.*", "enabled", _W, "is off: nobody can approve with a security key"),
    ("settings.*", "customize_mfa_in_postlogin_action", _F,
     "is off: the Actions cannot ask for a second factor"),
    ("policy.mfa", "policies", _F, _policy),
)  # fmt: skip


def missing(item: PlanItem, misfiled: str) -> Finding:
    """Return the finding for an object that does not stand at all."""
    if misfiled:
        return Finding(
            Level.FAULT,
            f"{_whose(item)} stands for subject_type {visible(misfiled, 20)} instead: "
            "nobody gets a token through it",
            "delete it in the Dashboard, under the API's Application Access; then "
            + APPLY,
        )
    return Finding(Level.FAULT, f"{_whose(item)} is missing", APPLY)


Area = str
Check = tuple[Area, Finding]
Resolve = Callable[[str, int], Awaitable[object]]

_NOTABLE: Final = 5.0
_AT_PROVIDER: Final = "GitHub: an App with expiring user tokens; Slack: token rotation"
_WAY_THERE: Final = "check tenant.issuer, and the way to it: network, proxy, https"
_CHANGE_PLAN: Final = "change the plan, or leave it: one-time codes are enough"
GRANT_IT: Final = (
    "authorize it for the credential's application, in the Dashboard under APIs, "
    "Auth0 Management API, Application Access"
)


async def resolve(host: str, port: int) -> object:
    """Ask the system for the addresses of *host*."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def reach(tenant: Tenant, look_up: Resolve = resolve) -> AsyncGenerator[Check]:
    """Yield whether the tenant is found, answers as itself, and shares our time."""
    parts = urlsplit(tenant.issuer)
    try:
        way = route(tenant.issuer)
    except TenantError as error:
        yield "tenant", fault(error.what, error.remedy)
        return
    # Behind a proxy the names of the outside need not be known here.
    near = urlsplit(way.proxy or tenant.issuer)
    host = near.hostname or ""
    try:
        await look_up(host, near.port or (80 if near.scheme == "http" else 443))
    except OSError as error:
        what = f"DNS has no address for {visible(host, 100)} ({visible(error, 80)})"
        named = way.proxy_from or "tenant.issuer or tenant.url"
        remedy = f"look for a typing error in {named}; try another resolver"
        yield "tenant", fault(what, remedy)
        return
    if not is_loopback(parts.hostname or ""):
        yield "tenant", ok(f"from this shell it is reached {way}")
    if way.ignored:
        what = f"{way.ignored} is not read here: certifi's authorities are trusted"
        yield "tenant", warning(what, "SSL_CERT_FILE names others")
    try:
        await tenant.metadata()
    except TenantError as error:
        own = "" if error.remedy == ASK_DOCTOR else error.remedy  # which asks here
        yield "tenant", fault(error.what, own or _WAY_THERE)
        return
    yield "tenant", ok(f"{tenant.issuer} answers, and as itself")
    if parts.scheme == "http":
        yield "tenant", warning("it is reached by http, which loopback alone may be")
    yield "clock", skew(tenant.skew)


def skew(seconds: float | None) -> Finding:
    """Say how far the tenant's clock, by its Date header, is from ours."""
    if seconds is None:
        return warning(
            "the tenant does not say what time it is", "compare clocks yourself"
        )
    offset = (
        f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} the tenant"
    )
    if abs(seconds) > SKEW:
        return fault(
            f"this machine's clock is {offset}; from {SKEW} s on ID tokens are refused",
            "set it: timedatectl set-ntp true",
        )
    if abs(seconds) > _NOTABLE:
        return warning(f"this machine's clock is {offset}", "check its synchronisation")
    return ok("this machine's clock agrees with the tenant's")


def no_token(error: TenantError, management: Management) -> Check:
    """Say why the tenant gives the credential no token, and where to look."""
    remedy = error.remedy or "check the credential: client id, secret, and grants"
    return "credential", fault(error.what, remedy + _on_custom_domain(management))


def rights(held: frozenset[str], needs: Needs) -> Iterator[Check]:
    """Yield each scope that is not *held*: to read a fault, to apply a warning.

    A token that someone else got is only known to be good once a call was answered.
    """
    for scope in lacking_scopes(READING_SCOPES, held):
        yield "credential", fault(f"the credential lacks {scope}", GRANT_IT)
    for scope in lacking_scopes(writing_scopes(needs), held):
        what = f"the credential lacks {scope}, which apply needs"
        yield "credential", warning(what, GRANT_IT)


def _on_custom_domain(management: Management) -> str:
    """Return further possible faults if the host is none of Auth0's own."""
    host = urlsplit(management.tenant.issuer).hostname or ""
    if host.endswith(".auth0.com"):
        return ""
    return "; if this is a custom domain, set tenant.domain to the tenant's own"


def examine(
    plan: ProvisioningPlan, survey: TenantSurvey, needs: Needs
) -> Iterator[Check]:
    """Yield the changes of *plan* as findings, and the sound parts."""
    yield "credential", ok("the tenant takes the credential")
    well: dict[Area, int] = {}
    for item in plan.items:
        area = item.address.partition(".")[0]
        findings = list(_item(item, survey))
        if not findings:
            well[area] = well.get(area, 0) + 1
        for finding in findings:
            yield area, finding
    for area, count in well.items():
        yield area, ok(f"{count} as {'it' if count == 1 else 'they'} should be")
    yield from _connections(survey, needs)
    yield from _client_id(survey, needs)
    for name in survey.remembering:
        what = (
            f"the Action {visible(name, 60)} lets browsers be remembered: a sign-in "
            "by such a one proves no fresh factor, and is refused here"
        )
        remedy = "have it pass by our console, or set allowRememberBrowser to false"
        yield "flow", warning(what, remedy)


def _item(item: PlanItem, survey: TenantSurvey) -> Iterator[Finding]:
    match item.step:
        case PlanStep.CREATE:
            yield missing(item, survey.misfiled.get(item.address, ""))
        case PlanStep.CHANGE:
            yield from (reason(item, change) for change in item.changes)
        case PlanStep.BY_HAND:
            what, _, remedy = item.note.partition(": ")
            yield fault(f"{item.address}: {what}", remedy)
        case PlanStep.LEAVE:
            yield from _left(item, survey)
        case _:
            return


def _left(item: PlanItem, survey: TenantSurvey) -> Iterator[Finding]:
    """Yield the objects left alone: a warning if it matters all the same."""
    for change in item.changes:
        # Adaptive MFA asks only now and then; Always breaks each exchange.
        always = item.changes[0].before == ["all-applications"]
        level = Level.FAULT if always else Level.WARNING
        yield replace(reason(item, change), level=level, remedy=item.note)
    if item.address in survey.lacking:
        yield warning(f"{item.address} is off: {item.note}", _CHANGE_PLAN)
    elif not item.changes:
        yield ok(f"{item.address} is left alone: {item.note}")


def _connections(survey: TenantSurvey, needs: Needs) -> Iterator[Check]:
    for name in needs.connections:
        one = survey.objects.get(f"connection.{name}")
        if one is not None and one["lasting"] is OfflineAccess.UNSEEN:
            what = (
                f"whether {visible(name, 60)} gives refresh tokens is set at its "
                "provider, where the tenant does not see it"
            )
            yield "connection", warning(what, _AT_PROVIDER)
    if not needs.sign_in:
        what = "no connection is named by which operators sign in"
        remedy = "set tenant.sign_in to the names of one or more connections"
        yield "connection", fault(what, remedy)


def _client_id(survey: TenantSurvey, needs: Needs) -> Iterator[Check]:
    there = visible(survey.ids.get("client.console", ""), 60)
    client_id = visible(needs.client_id, 60)
    if there and client_id and client_id != there:
        what = (
            f"tenant.client_id is {client_id}, and the console's application is {there}"
        )
        remedy = f'set client_id = "{there}" under [tenant], or leave it out'
        yield "client", fault(what, remedy)
