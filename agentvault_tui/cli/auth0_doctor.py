"""``agentvault auth0 doctor``: what is misconfigured on the tenant, from outside in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from agentvault_tui.cli.auth0_needs import management_issuer, tenant_issuer
from agentvault_tui.cli.auth0_reach import opened, reached
from agentvault_tui.cli.doctor import print_finding
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    SettingsError,
    TenantCredentialError,
    TenantError,
    TenantScopeError,
)
from agentvault_tui.model.finding import Level, fault
from agentvault_tui.vault.provision import checks


def doctor(session: CliSession, **credential: Any) -> int:
    """Print what is wrong on the tenant; return 1 when there is a fault."""
    found = asyncio.run(_all(session, **credential))
    healthy = all(finding.level is not Level.FAULT for _, finding in found)
    if session.json:
        findings = [{"area": area, **finding.shape()} for area, finding in found]
        session.out.json({"ok": healthy, "findings": findings})
    return 0 if healthy else 1


async def _all(session: CliSession, **credential: Any) -> list[checks.Check]:
    found: list[checks.Check] = []
    try:
        async with aclosing(_findings(session, **credential)) as findings:
            async for check in findings:
                _note(session, found, check)
    except SettingsError as error:
        _note(session, found, ("settings", fault(error.what, error.remedy)))
    except TenantScopeError as error:
        for scope in error.scopes or ("a scope the tenant does not name",):
            finding = fault(f"the credential lacks {scope}", checks.GRANT_IT)
            _note(session, found, ("credential", finding))
    except TenantCredentialError as error:
        _note(session, found, ("credential", fault(error.what, error.remedy)))
    except TenantError as error:
        _note(session, found, ("tenant", fault(error.what, error.remedy)))
    return found


def _note(session: CliSession, found: list[checks.Check], check: checks.Check) -> None:
    if check in found:  # a scope that is lacking is also what ends the look
        return
    found.append(check)
    if not session.json:
        print_finding(session.out, *check)


async def _findings(
    session: CliSession, **credential: Any
) -> AsyncGenerator[checks.Check]:
    """Yield findings; what cannot be reached or may not be read ends it."""
    for issuer in dict.fromkeys((tenant_issuer(session), management_issuer(session))):
        async with reached(issuer) as tenant, aclosing(checks.reach(tenant)) as seen:
            async for check in seen:
                yield check
                if check[1].level is Level.FAULT and check[0] == "tenant":
                    return
    async with opened(session, **credential) as there:
        try:
            held = await there.management.scopes()
        except TenantError as error:
            yield checks.no_token(error, there.management)
            return
        for check in checks.rights(held, there.needs):
            yield check
        plan, found = await there.provisioner.plan(there.needs)
        for check in checks.examine(plan, found, there.needs):
            yield check
