"""What is wrong on a tenant, and its remedy: the doctor's eyes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from agentvault_tui.errors import TenantError
from agentvault_tui.model.finding import Finding, Level, fault, ok, warning
from agentvault_tui.text import visible
from agentvault_tui.vault.egress import route
from agentvault_tui.vault.identity import SKEW
from agentvault_tui.vault.issuer import is_loopback
from agentvault_tui.vault.management import Management
from agentvault_tui.vault.provision import scopes
from agentvault_tui.vault.provision.found import Found
from agentvault_tui.vault.provision.lasting import Lasting
from agentvault_tui.vault.provision.needs import Needs
from agentvault_tui.vault.provision.plan import PlanItem, PlanStep, ProvisioningPlan
from agentvault_tui.vault.provision.reasons import all_reasons, missing
from agentvault_tui.vault.tenant import Tenant
from agentvault_tui.vault.wire import ASK_DOCTOR

Area = str
Check = tuple[Area, Finding]
Resolve = Callable[[str, int], Awaitable[object]]

_NOTABLE: Final = 5.0
_AT_PROVIDER: Final = "GitHub: an App with expiring user tokens; Slack: token rotation"
_WAY_THERE: Final = "check tenant.issuer, and the way to it: network, proxy, https"
_CHANGE_PLAN: Final = "change the plan, or leave it: one-time codes are enough"
_REMOVE: Final = "agentvault auth0 plan --remove-unused shows what it would delete"
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
        remedy = f"look for a typing error in {way.proxy_from or 'tenant.issuer'}"
        yield "tenant", fault(what, f"{remedy}; try another resolver")
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
    told = f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} the tenant"
    if abs(seconds) > SKEW:
        return fault(
            f"this machine's clock is {told}; from {SKEW} s on ID tokens are refused",
            "set it: timedatectl set-ntp true",
        )
    if abs(seconds) > _NOTABLE:
        return warning(f"this machine's clock is {told}", "check its synchronisation")
    return ok("this machine's clock agrees with the tenant's")


def no_token(error: TenantError, management: Management) -> Check:
    """Say why the tenant gives the credential no token, and where to look."""
    remedy = error.remedy or "check the credential: client id, secret, and grants"
    return "credential", fault(error.what, remedy + _on_custom_domain(management))


def rights(held: frozenset[str], needs: Needs) -> Iterator[Check]:
    """Yield each scope that is not *held*: to read a fault, to apply a warning.

    A token that someone else got is only known to be good once a call was answered.
    """
    for scope in scopes.lacking(scopes.reading(needs), held):
        yield "credential", fault(f"the credential lacks {scope}", GRANT_IT)
    for scope in scopes.lacking(scopes.writing(needs), held):
        what = f"the credential lacks {scope}, which apply needs"
        yield "credential", warning(what, GRANT_IT)


def _on_custom_domain(management: Management) -> str:
    """Return what else may be wrong where the host is none of Auth0's own."""
    host = urlsplit(management.tenant.issuer).hostname or ""
    if host.endswith(".auth0.com"):
        return ""
    return "; if this is a custom domain, set tenant.domain to the tenant's own"


def examine(plan: ProvisioningPlan, found: Found, needs: Needs) -> Iterator[Check]:
    """Yield what *plan* would change or cannot, as findings, and what is well."""
    yield "credential", ok("the tenant takes the credential")
    well: dict[Area, int] = {}
    for item in plan.items:
        area = item.address.partition(".")[0]
        findings = list(_item(item, found))
        if not findings:
            well[area] = well.get(area, 0) + 1
        for finding in findings:
            yield area, finding
    for area, count in well.items():
        yield area, ok(f"{count} as {'it' if count == 1 else 'they'} should be")
    yield from _connections(found, needs)
    yield from _client_id(found, needs)
    for name in found.remembering:
        what = (
            f"the Action {visible(name, 60)} lets browsers be remembered: a sign-in "
            "by such a one proves no fresh factor, and is refused here"
        )
        remedy = "have it pass by our console, or set allowRememberBrowser to false"
        yield "flow", warning(what, remedy)


def _item(item: PlanItem, found: Found) -> Iterator[Finding]:
    match item.step:
        case PlanStep.CREATE:
            yield missing(item, found.misfiled.get(item.address, ""))
        case PlanStep.CHANGE:
            yield from all_reasons(item)
        case PlanStep.BY_HAND:
            what, _, remedy = item.note.partition(": ")
            yield fault(f"{item.address}: {what}", remedy)
        case PlanStep.LEAVE:
            yield from _left(item, found)
        case _:
            return


def _left(item: PlanItem, found: Found) -> Iterator[Finding]:
    """Yield what is left alone: a warning where it matters all the same."""
    for finding in all_reasons(item):
        # Adaptive MFA asks only now and then; Always breaks each exchange.
        always = item.changes[0].before == ["all-applications"]
        level = Level.FAULT if always else Level.WARNING
        yield replace(finding, level=level, remedy=item.note)
    if item.address in found.lacking:
        yield warning(f"{item.address} is off: {item.note}", _CHANGE_PLAN)
    elif item.address in {one.address for one in found.unused}:
        yield warning(f"{item.address} was {item.note}", _REMOVE)
    elif not item.changes:
        yield ok(f"{item.address} is left alone: {item.note}")


def _connections(found: Found, needs: Needs) -> Iterator[Check]:
    for name in needs.connections:
        one = found.objects.get(f"connection.{name}")
        if one is not None and one["lasting"] is Lasting.UNSEEN:
            what = (
                f"whether {visible(name, 60)} gives refresh tokens is set at its "
                "provider, where the tenant does not see it"
            )
            yield "connection", warning(what, _AT_PROVIDER)
    if not needs.sign_in:
        what = "no connection is named by which operators sign in"
        remedy = "set tenant.sign_in to the names of one or more connections"
        yield "connection", fault(what, remedy)


def _client_id(found: Found, needs: Needs) -> Iterator[Check]:
    there = visible(found.ids.get("client.console", ""), 60)
    said = visible(needs.client_id, 60)
    if there and said and said != there:
        what = f"tenant.client_id is {said}, and the console's application is {there}"
        remedy = f'set client_id = "{there}" under [tenant], or leave it out'
        yield "client", fault(what, remedy)
