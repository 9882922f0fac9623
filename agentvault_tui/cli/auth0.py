"""``agentvault auth0``: provision and examine an Auth0 tenant."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from agentvault_tui.cli import auth0_credential as credentials
from agentvault_tui.cli.device import print_device
from agentvault_tui.cli.doctor import end_report, print_finding
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.output import confirm
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import (
    SettingsError,
    TenantCredentialError,
    TenantError,
    TenantScopeError,
    UsageError,
)
from agentvault_tui.home import Home
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.ledger.state import load
from agentvault_tui.model import Agent, AgentStatus
from agentvault_tui.model.finding import Level, fault
from agentvault_tui.settings import TenantSettings
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
from agentvault_tui.vault.issuer import check_issuer
from agentvault_tui.vault.kept_clients import ClientSecretsFile
from agentvault_tui.vault.provision import (
    Needs,
    PlanItem,
    PlanStep,
    Provisioner,
    ProvisioningPlan,
    TenantSurvey,
    checks,
    sign_in,
)
from agentvault_tui.vault.provision.needs import (
    READING_SCOPES,
    AgentNeed,
    Pin,
    lacking_scopes,
    writing_scopes,
)

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_MAX_CONNECTIONS, _MAX_SCOPES, _MAX_IPS = 5, 20, 10
"""The grants that Auth0 takes for one privileged worker."""


@group(
    "auth0",
    on_home=True,
    example="agentvault auth0 plan --credential-fd 3 3< management.json",
)
def auth0() -> None:
    """Set up and check the Auth0 tenant that config.toml names.

    The credential is a client of the tenant's Management API. It comes from a
    descriptor, the OS keyring or a prompt: never from an argument or the environment.
    """


_descriptor_option = click.option(
    "--credential-fd",
    type=click.IntRange(0),
    metavar="N",
    help="Read the credential, as JSON, from this open descriptor.",
)
_device_option = click.option(
    "--device", is_flag=True, help="Sign in by device flow instead."
)
_policy_option = click.option(
    "--change-mfa-policy",
    is_flag=True,
    help="Set the MFA policy of the whole tenant, all its applications, to Never.",
)
_limits_option = click.option(
    "--token-limits",
    is_flag=True,
    help="Bind the Action that limits tokens of machine-to-machine applications.",
)


@auth0.command(
    "plan", example="agentvault auth0 plan --credential-fd 3 3< management.json"
)
@_descriptor_option
@_device_option
@_policy_option
@_limits_option
@pass_session
def show_plan(session: CliSession, /, **given: Any) -> None:
    """Show the changes that apply would make to the tenant; writes nothing."""

    async def work() -> ProvisioningPlan:
        async with _opened(session, **given) as there:
            await _require_scopes(there, READING_SCOPES)
            plan, _ = await there.provisioner.plan(there.needs)
            return plan

    plan = asyncio.run(work())
    if not session.out.print_json(plan.shape()):
        _print_plan(session, plan)


@auth0.command(
    "apply", example="agentvault auth0 apply --credential-fd 3 3< management.json"
)
@_descriptor_option
@_device_option
@_policy_option
@_limits_option
@click.option("--yes", is_flag=True, help="Apply the plan without asking.")
@click.option(
    "--print-secrets",
    is_flag=True,
    help="Print the new secrets once; they are stored either way.",
)
@pass_session
def apply(
    session: CliSession, /, *, yes: bool, print_secrets: bool, **given: Any
) -> int:
    """Change the tenant as planned, object by object, and read each back.

    Deletes nothing. If the tenant's plan lacks a feature, it reports that and does the
    rest. If it stops, the next run continues. Secrets of AgentVault's applications are
    written to a private file of this home directory.
    """
    if not yes and (session.json or not sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask yes or no at", "give --yes")

    return asyncio.run(_apply(session, given, yes=yes, print_secrets=print_secrets))


async def _apply(
    session: CliSession, given: dict[str, Any], *, yes: bool, print_secrets: bool
) -> int:
    async with _opened(session, **given) as there:
        wanted = READING_SCOPES + writing_scopes(there.needs)
        await _require_scopes(there, wanted)
        plan, survey = await there.provisioner.plan(there.needs)
        if not session.json:
            _print_plan(session, plan)
        if not plan.writes:
            _print_end(session, there)
            return 0
        if yes:
            _refuse_adopted(plan, survey)
        elif not await asyncio.to_thread(
            confirm, f"Do these {len(plan.writes)} on the tenant?"
        ):
            session.out.line("nothing was changed")
            return 1
        refused = False
        try:
            async with aclosing(there.provisioner.apply(plan, survey)) as done:
                async for item in done:
                    _print_done(session, item)
                    refused |= _is_missed(item)
        finally:
            # Also when it stopped half-way: what was made is made.
            if print_secrets:
                _print_secrets(session, there.secrets)
        _print_end(session, there)
        return int(refused)


@auth0.command(
    "doctor", example="agentvault auth0 doctor --credential-fd 3 3< management.json"
)
@_descriptor_option
@_device_option
@pass_session
def doctor(session: CliSession, /, **credential: Any) -> int:
    """Find wrong settings on the tenant, and print the remedies.

    Each line is ok, warning or fault. Exits 1 when there is a fault.
    """
    return end_report(session, asyncio.run(_examine(session, **credential)))


@auth0.command(
    "remember", example="agentvault auth0 remember --credential-fd 3 3< management.json"
)
@_descriptor_option
@pass_session
def remember(session: CliSession, credential_fd: int | None) -> None:
    """Store the credential in the OS keyring, for the other commands."""
    issuer = _tenant_issuer(session)
    credential = (
        credentials.from_prompt()
        if credential_fd is None
        else credentials.from_descriptor(credential_fd)
    )
    credentials.remember(issuer, credential)
    if not session.out.print_json({"kept": True, "tenant": issuer}):
        session.out.line("kept in the OS keyring; `auth0 forget` takes it out")


@auth0.command("forget", example="agentvault auth0 forget")
@pass_session
def forget(session: CliSession) -> int:
    """Delete the credential from the OS keyring."""
    issuer = _tenant_issuer(session)
    was_there = credentials.forget(issuer)
    if not session.out.print_json({"forgotten": was_there, "tenant": issuer}):
        session.out.line("taken out" if was_there else "there was none")
    return 0 if was_there else 4


def _tenant_issuer(session: CliSession) -> str:
    """Return the issuer the settings name, as the tenant writes it."""
    issuer = session.settings.tenant.issuer
    if not issuer:
        raise UsageError(
            "no Auth0 tenant is set: the embedded one needs nothing of this",
            'put [tenant] issuer = "https://acme.eu.auth0.com/" into '
            f"{session.home.config_file}",
        )
    return check_issuer(issuer)


def _management_issuer(session: CliSession) -> str:
    """Return where the Management API is: never on a custom domain."""
    issuer, domain = _tenant_issuer(session), session.settings.tenant.domain
    if not domain:
        return issuer
    if not _HOST.fullmatch(domain):
        raise SettingsError(
            f"tenant.domain is {visible(domain, 80)}",
            "a host name alone, such as acme.eu.auth0.com",
        )
    return check_issuer(f"{issuer.partition(':')[0]}://{domain}/")


def _needs(session: CliSession) -> Needs:
    """Return the desired objects on the tenant."""
    settings = session.settings
    _check_worker_ips(settings.tenant)
    agents, stopped = served_agents(session.home)
    pins = _pins(settings.tenant, agents)
    if stopped:
        # What the panic switch cut on the tenant is not handed out again here.
        session.out.note("everything is stopped: agents' applications are left alone")
    return Needs(
        agents=tuple(
            AgentNeed(agent.id, agent.name, pins.get(agent.id, ()))
            for agent in (() if stopped else agents)
        ),
        connections=settings.tenant.connections,
        sign_in=settings.tenant.sign_in,
        worker_ips=settings.tenant.worker_ips,
        client_id=settings.tenant.client_id,
    )


def _pins(settings: TenantSettings, agents: list[Agent]) -> dict[str, tuple[Pin, ...]]:
    """Read ``tenant.workers``: an agent, a connection and a provider's scope each."""
    pins: dict[str, dict[str, list[str]]] = {}
    for entry in settings.workers:
        try:
            name, connection, scope = entry.split()
        except ValueError as error:
            raise SettingsError(
                f"tenant.workers has {visible(entry, 80)}",
                'write "AGENT CONNECTION SCOPE", one scope each',
            ) from error
        if connection not in settings.connections:
            raise SettingsError(
                f"tenant.workers names the connection {visible(connection, 60)}",
                "put it into tenant.connections too",
            )
        named = [agent.id for agent in agents if name in (agent.id, agent.name)]
        if len(named) != 1:
            what = "several agents" if named else "no agent that is served"
            raise SettingsError(
                f"tenant.workers names {visible(name, 60)}, which is {what}",
                "agentvault agents list; an id is never two agents'",
            )
        scopes = pins.setdefault(named[0], {}).setdefault(connection, [])
        if scope not in scopes:
            scopes.append(scope)
    for agent, pinned in pins.items():
        if (
            len(pinned) > _MAX_CONNECTIONS
            or sum(map(len, pinned.values())) > _MAX_SCOPES
        ):
            raise SettingsError(
                f"tenant.workers gives {agent} too much",
                f"at most {_MAX_CONNECTIONS} connections and {_MAX_SCOPES} scopes",
            )
    return {
        agent: tuple(Pin(name, tuple(scopes)) for name, scopes in pinned.items())
        for agent, pinned in pins.items()
    }


def _check_worker_ips(settings: TenantSettings) -> None:
    if bool(settings.workers) != bool(settings.worker_ips):
        raise SettingsError(
            "tenant.workers and tenant.worker_ips go together: with one of them empty "
            "Auth0 refuses every exchange",
            "set both, or neither",
        )
    if len(settings.worker_ips) > _MAX_IPS:
        raise SettingsError("tenant.worker_ips is too long", f"at most {_MAX_IPS}")
    for entry in settings.worker_ips:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError as error:
            raise SettingsError(
                f"tenant.worker_ips has {visible(entry, 60)}",
                "addresses or networks, such as 203.0.113.7 or 203.0.113.0/28",
            ) from error
        if not network.prefixlen:
            # Whoever has a worker's key could then use it from anywhere.
            raise SettingsError(
                f"tenant.worker_ips has {visible(entry, 60)}, which is everywhere",
                "name the addresses this broker is seen under",
            )


def served_agents(home: Home) -> tuple[list[Agent], bool]:
    """Return the agents that are served, and whether everything is stopped.

    Read from the ledger itself, so that no broker has to run.
    """
    if not home.database.exists():
        return [], False
    with read_home(home) as db:
        loaded = load(db, SystemClock())
    served = [
        agent
        for agent in loaded.agents
        if agent.status is AgentStatus.ACTIVE and not agent.resource_server
    ]
    return served, loaded.panic is not None


class _ReportingSecretsFile(ClientSecretsFile):
    """Remembers the secrets that are new, to print them once if asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fresh: dict[str, tuple[str, Secret]] = {}

    def keep(self, key: str, client_id: str, secret: Secret | None) -> None:
        """Store a client, and its secret if it has one; on disk when this returns."""
        super().keep(key, client_id, secret)
        if secret is not None:
            self.fresh[key] = (client_id, secret)


@dataclass
class _ManagementSession:
    """A tenant that is reached, with a credential."""

    management: Management
    secrets: _ReportingSecretsFile
    needs: Needs

    def __post_init__(self) -> None:
        self.provisioner = Provisioner(self.management, self.secrets)


@asynccontextmanager
async def _opened(
    session: CliSession,
    *,
    credential_fd: int | None,
    device: bool,
    change_mfa_policy: bool = False,
    token_limits: bool = False,
) -> AsyncIterator[_ManagementSession]:
    """Connect to the Management API; a prompt for the credential comes last."""
    issuer = _tenant_issuer(session)
    wanted = replace(
        _needs(session), change_mfa_policy=change_mfa_policy, token_limits=token_limits
    )
    shared = bool(session.settings.store.url)
    secrets_file = _ReportingSecretsFile(session.home, issuer, shared=shared)
    if shared:
        secrets_file.seal()  # a secret that cannot be sealed would be lost
    async with aclosing(Tenant(_management_issuer(session), SystemClock())) as tenant:
        source: RegisteredClient | TokenSource
        if device:
            source = await _by_device(session, tenant, secrets_file, wanted)
        elif credential_fd is not None:
            source = credentials.usable(credentials.from_descriptor(credential_fd))
        else:
            credential = credentials.from_keyring(issuer) or credentials.from_prompt()
            source = credentials.usable(credential)
        rate = session.settings.tenant.rate
        budget = Budget(tenant.clock, rate=rate, burst=max(2.0, rate))
        management = Management(tenant, source, budget=budget)
        yield _ManagementSession(management, secrets_file, wanted)


async def _by_device(
    session: CliSession, tenant: Tenant, secrets_file: ClientSecretsFile, wanted: Needs
) -> TokenSource:
    if session.json:
        raise UsageError("a person reads the code", "leave out --json, or --device")
    client_id = session.settings.tenant.client_id or secrets_file.client_id("console")
    if not client_id:
        raise UsageError(
            "signing in by device flow needs a native application of the tenant",
            "set tenant.client_id, or use a credential: --credential-fd N",
        )
    scopes = READING_SCOPES + writing_scopes(wanted)

    def tell(flow: DeviceFlow) -> None:
        print_device(session, flow)

    return FixedToken(await sign_in(tenant, client_id, scopes, tell))


def _is_missed(item: PlanItem) -> bool:
    """Check whether a required object was refused."""
    optional = item.wanted is not None and item.wanted.optional
    return item.step is PlanStep.REFUSED and not optional


async def _require_scopes(there: _ManagementSession, wanted: tuple[str, ...]) -> None:
    """Refuse before the first call if the credential lacks a scope."""
    lacks = lacking_scopes(wanted, await there.management.scopes())
    if lacks:
        raise TenantScopeError(
            "insufficient_scope",
            f"the credential lacks {', '.join(lacks)}",
            checks.GRANT_IT,
            scopes=lacks,
        )


def _refuse_adopted(plan: ProvisioningPlan, survey: TenantSurvey) -> None:
    """Refuse to write unseen to an application that is ours by its mark alone.

    Its owner would come by every right and secret that is meant for ours.
    """
    unknown = [item.address for item in plan.writes if item.address in survey.adopted]
    if unknown:
        names = ", ".join(f"{one} ({survey.adopted[one]})" for one in unknown)
        raise UsageError(
            f"this home did not make {names}, which the tenant marks as ours",
            "run apply once without --yes, and look at the plan",
        )


def _print_plan(session: CliSession, plan: ProvisioningPlan) -> None:
    out = session.out
    for line in plan.lines():
        style = {"+": "good", "~": "wait", "!": "bad"}.get(line.mark, "")
        mark = out.cell(f"{line.mark:1} ", style)
        # The padding is ours; everything after it has been made displayable.
        out.line(" " * line.indent, mark, out.cell(line.text, limit=2000))
    out.line(plan.summary())


def _print_done(session: CliSession, item: PlanItem) -> None:
    out = session.out
    if session.json:
        note = {"note": item.note} if item.step is PlanStep.REFUSED else {}
        out.json({"step": item.step.value, "address": item.address, **note})
    elif item.step is PlanStep.REFUSED:
        word = out.word("fault" if _is_missed(item) else "warning")
        line = f": refused {visible(item.address, 120)}: {item.note}"
        out.line(word, out.cell(line, limit=500))
    else:
        out.line(out.word("ok"), f": {item.step.value} ", out.cell(item.address))


def _print_secrets(session: CliSession, secrets_file: _ReportingSecretsFile) -> None:
    for key, (client_id, secret) in secrets_file.fresh.items():
        if session.json:
            shown = {"client_id": client_id, "client_secret": secret.reveal()}
            session.out.json({"application": key, **shown})
        else:
            pairs = [("client_id", client_id), ("client_secret", secret.reveal())]
            session.out.line(session.out.cell(key, "strong"))
            session.out.fields(pairs)


def _print_end(session: CliSession, there: _ManagementSession) -> None:
    out, secrets_file = session.out, there.secrets
    client_id = secrets_file.client_id("console")
    if out.print_json(
        {"ok": True, "client_id": client_id, "kept_in": str(secrets_file.path)}
    ):
        return
    out.line("the console's application is ", out.cell(client_id, "strong"))
    out.line("secrets are in ", out.cell(secrets_file.path, limit=500))


async def _examine(session: CliSession, **credential: object) -> list[checks.Check]:
    all_checks: list[checks.Check] = []
    try:
        async with aclosing(_findings(session, **credential)) as findings:
            async for check in findings:
                _note(session, all_checks, check)
    except SettingsError as error:
        _note(session, all_checks, ("settings", fault(error.what, error.remedy)))
    except TenantScopeError as error:
        for scope in error.scopes or ("a scope the tenant does not name",):
            finding = fault(f"the credential lacks {scope}", checks.GRANT_IT)
            _note(session, all_checks, ("credential", finding))
    except TenantCredentialError as error:
        _note(session, all_checks, ("credential", fault(error.what, error.remedy)))
    except TenantError as error:
        _note(session, all_checks, ("tenant", fault(error.what, error.remedy)))
    return all_checks


def _note(
    session: CliSession, all_checks: list[checks.Check], check: checks.Check
) -> None:
    if check in all_checks:  # a scope that is lacking is also what ends the look
        return
    all_checks.append(check)
    if not session.json:
        print_finding(session.out, *check)


async def _findings(
    session: CliSession, **credential: Any
) -> AsyncGenerator[checks.Check]:
    """Yield findings; an unreachable tenant or missing right ends them."""
    for issuer in dict.fromkeys((_tenant_issuer(session), _management_issuer(session))):
        tenant = Tenant(issuer, SystemClock())
        async with aclosing(tenant), aclosing(checks.reach(tenant)) as seen:
            async for check in seen:
                yield check
                if check[1].level is Level.FAULT and check[0] == "tenant":
                    return
    async with _opened(session, **credential) as there:
        try:
            held = await there.management.scopes()
        except TenantError as error:
            yield checks.no_token(error, there.management)
            return
        for check in checks.rights(held, there.needs):
            yield check
        plan, survey = await there.provisioner.plan(there.needs)
        for check in checks.examine(plan, survey, there.needs):
            yield check
