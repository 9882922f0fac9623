"""``agentvault auth0 plan`` and ``apply``: what they do, and print."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentvault_tui.cli.auth0_credential import (
    from_descriptor,
    from_keyring,
    from_prompt,
    usable,
)
from agentvault_tui.cli.auth0_needs import management_issuer, needs, tenant_issuer
from agentvault_tui.cli.device import print_device
from agentvault_tui.cli.doctor import end_report, print_finding
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.terminal import confirm
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import (
    SettingsError,
    TenantCredentialError,
    TenantError,
    TenantScopeError,
    UsageError,
)
from agentvault_tui.model.finding import Level, fault
from agentvault_tui.text import visible
from agentvault_tui.vault import (
    Budget,
    DeviceFlow,
    FixedToken,
    Management,
    RegisteredClient,
    Secret,
    Tenant,
    TokenSource,
)
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import (
    Needs,
    PlanItem,
    PlanStep,
    Provisioner,
    ProvisioningPlan,
    TenantSurvey,
    checks,
    show,
    sign_in,
)
from agentvault_tui.vault.provision.needs import (
    READING_SCOPES,
    lacking_scopes,
    writing_scopes,
)


class ReportingSecretsFile(ClientSecretsFile):
    """Keeps as ever, and remembers what came new, to print it once if asked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.fresh: dict[str, tuple[str, Secret]] = {}

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Keep a client, and its secret if it has one; on disk when this returns."""
        super().keep(key, client_id, secret)
        if secret is not None:
            self.fresh[key] = (client_id, secret)


@dataclass
class ManagementSession:
    """A tenant that is reached, with a credential."""

    management: Management
    kept: ReportingSecretsFile
    needs: Needs

    @property
    def provisioner(self) -> Provisioner:
        """Return what plans and applies there."""
        return Provisioner(self.management, self.kept)


@asynccontextmanager
async def opened(
    session: CliSession,
    *,
    credential_fd: int | None,
    device: bool,
    change_mfa_policy: bool = False,
) -> AsyncIterator[ManagementSession]:
    """Reach the Management API; a person is asked for a credential last of all.

    Raises:
        UsageError: no tenant is set, or there is no credential.
    """
    issuer = tenant_issuer(session)
    wanted = replace(needs(session), change_mfa_policy=change_mfa_policy)
    kept = ReportingSecretsFile(session.home, issuer)
    async with reached(management_issuer(session)) as tenant:
        source: RegisteredClient | TokenSource
        if device:
            source = await _by_device(session, tenant, kept, wanted)
        elif credential_fd is not None:
            source = usable(from_descriptor(credential_fd))
        else:
            source = usable(from_keyring(issuer) or from_prompt())
        rate = session.settings.tenant.rate
        budget = Budget(tenant.clock, rate=rate, burst=max(2.0, rate))
        yield ManagementSession(Management(tenant, source, budget=budget), kept, wanted)


@asynccontextmanager
async def reached(issuer: str) -> AsyncIterator[Tenant]:
    """Yield the tenant at *issuer*, and close its connections afterwards.

    Raises:
        SettingsError: *issuer* is not one we may talk to.
    """
    tenant = Tenant(issuer, SystemClock())
    try:
        yield tenant
    finally:
        await tenant.aclose()


async def _by_device(
    session: CliSession, tenant: Tenant, kept: ClientSecretsFile, wanted: Needs
) -> TokenSource:
    if session.json:
        raise UsageError("a person reads the code", "leave out --json, or --device")
    client_id = session.settings.tenant.client_id or kept.client_id("console")
    if not client_id:
        raise UsageError(
            "signing in by device flow needs a native application of the tenant",
            "set tenant.client_id, or use a credential: --credential-fd N",
        )
    asked = READING_SCOPES + writing_scopes(wanted)

    def tell(flow: DeviceFlow) -> None:
        print_device(session, flow)

    return FixedToken(await sign_in(tenant, client_id, asked, tell))


def show_plan(session: CliSession, **given: Any) -> None:
    """Print what apply would do."""

    async def work() -> ProvisioningPlan:
        async with opened(session, **given) as there:
            await _must_have(there, READING_SCOPES)
            plan, _ = await there.provisioner.plan(there.needs)
            return plan

    plan = asyncio.run(work())
    if session.json:
        session.out.json(show.shape(plan))
    else:
        _print_plan(session, plan)


def apply(
    session: CliSession,
    *,
    asks: bool,
    print_secrets: bool,
    **given: Any,
) -> int:
    """Carry a plan out, printing each object once it has been read back."""

    async def work() -> int:
        """Plan, ask, write and print; return the exit code."""
        async with opened(session, **given) as there:
            wanted = READING_SCOPES + writing_scopes(there.needs)
            await _must_have(there, wanted)
            plan, found = await there.provisioner.plan(there.needs)
            if not session.json:
                _print_plan(session, plan)
            if not plan.writes:
                _print_end(session, there)
                return 0
            _must_know(plan, found, asks=asks)
            if asks and not await asyncio.to_thread(
                confirm, f"Do these {len(plan.writes)} on the tenant?"
            ):
                session.out.line("nothing was changed")
                return 1
            refused = False
            try:
                async with aclosing(there.provisioner.apply(plan, found)) as done:
                    async for item in done:
                        _print_done(session, item)
                        refused |= _is_missed(item)
            finally:
                # Also when it stopped half-way: what was made is made.
                if print_secrets:
                    _print_secrets(session, there.kept)
            _print_end(session, there)
            return int(refused)

    return asyncio.run(work())


def _is_missed(item: PlanItem) -> bool:
    """Tell whether it was refused and nothing works without it."""
    optional = item.wanted is not None and item.wanted.optional
    return item.step is PlanStep.REFUSED and not optional


async def _must_have(there: ManagementSession, wanted: tuple[str, ...]) -> None:
    """Refuse before the first call what would fail half-way, every scope by name.

    Raises:
        TenantScopeError: the credential lacks some.
    """
    lacks = lacking_scopes(wanted, await there.management.scopes())
    if lacks:
        raise TenantScopeError(
            "insufficient_scope",
            f"the credential lacks {', '.join(lacks)}",
            checks.GRANT_IT,
            scopes=lacks,
        )


def _must_know(plan: ProvisioningPlan, found: TenantSurvey, *, asks: bool) -> None:
    """Let a person see an application that is ours by its mark alone, before it is.

    Its owner would come by every right and secret that is meant for ours.

    Raises:
        UsageError: there is such a one, and nobody is asked.
    """
    unknown = [item.address for item in plan.writes if item.address in found.adopted]
    if unknown and not asks:
        told = ", ".join(f"{one} ({found.adopted[one]})" for one in unknown)
        raise UsageError(
            f"this home did not make {told}, which the tenant marks as ours",
            "run apply once without --yes, and look at the plan",
        )


def _print_plan(session: CliSession, plan: ProvisioningPlan) -> None:
    out = session.out
    for line in show.lines(plan):
        style = {"+": "good", "~": "wait", "!": "bad"}.get(line.mark, "")
        mark = out.cell(f"{line.mark:1} ", style)
        # The padding is ours; everything after it has been made displayable.
        out.line(" " * line.indent, mark, out.cell(line.text, limit=2000))
    out.line(show.summary(plan))


def _print_done(session: CliSession, item: PlanItem) -> None:
    out = session.out
    if session.json:
        note = {"note": item.note} if item.step is PlanStep.REFUSED else {}
        out.json({"step": item.step.value, "address": item.address, **note})
    elif item.step is PlanStep.REFUSED:
        word = out.word("fault" if _is_missed(item) else "warning")
        told = f": refused {visible(item.address, 120)}: {item.note}"
        out.line(word, out.cell(told, limit=500))
    else:
        out.line(out.word("ok"), f": {item.step.value} ", out.cell(item.address))


def _print_secrets(session: CliSession, kept: ReportingSecretsFile) -> None:
    """Print what was asked for, this once."""
    for key, (client_id, secret) in kept.fresh.items():
        if session.json:
            shown = {"client_id": client_id, "client_secret": secret.reveal()}
            session.out.json({"application": key, **shown})
        else:
            pairs = [("client_id", client_id), ("client_secret", secret.reveal())]
            session.out.line(session.out.cell(key, "strong"))
            session.out.fields(pairs)


def _print_end(session: CliSession, there: ManagementSession) -> None:
    out, kept = session.out, there.kept
    client_id = kept.client_id("console")
    if session.json:
        out.json({"ok": True, "client_id": client_id, "kept_in": str(kept.path)})
        return
    out.line("the console's application is ", out.cell(client_id, "strong"))
    out.line("secrets are in ", out.cell(kept.path, limit=500))


def doctor(session: CliSession, **credential: object) -> int:
    """Print what is wrong on the tenant; return 1 when there is a fault."""
    return end_report(session, asyncio.run(_all(session, **credential)))


async def _all(session: CliSession, **credential: object) -> list[checks.Check]:
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
