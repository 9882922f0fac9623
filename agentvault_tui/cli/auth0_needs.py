"""What this vault needs from its tenant: settings and agents together."""

from __future__ import annotations

import re
from typing import Final

from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.model import Agent, AgentStatus
from agentvault_tui.text import visible
from agentvault_tui.vault.issuer import check_issuer
from agentvault_tui.vault.provision.needs import AgentNeed, Needs

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")


def tenant_issuer(session: CliSession) -> str:
    """Return the issuer the settings name, as the tenant writes it.

    Raises:
        UsageError: they name none.
        SettingsError: it is not one we may talk to.
    """
    issuer = session.settings.tenant.issuer
    if not issuer:
        raise UsageError(
            "no Auth0 tenant is set: the embedded one needs nothing of this",
            'put [tenant] issuer = "https://acme.eu.auth0.com/" into '
            f"{session.home.config_file}",
        )
    return check_issuer(issuer)


def management_issuer(session: CliSession) -> str:
    """Return where the Management API is: never on a custom domain.

    Raises:
        SettingsError: it is not one we may talk to.
    """
    issuer, domain = tenant_issuer(session), session.settings.tenant.domain
    if not domain:
        return issuer
    if not _HOST.fullmatch(domain):
        raise SettingsError(
            f"tenant.domain is {visible(domain, 80)}",
            "a host name alone, such as acme.eu.auth0.com",
        )
    return check_issuer(f"{issuer.partition(':')[0]}://{domain}/")


def needs(session: CliSession) -> Needs:
    """Put together what should stand on the tenant.

    Raises:
        AgentVaultError: settings or ledger cannot be read.
    """
    settings = session.settings
    agents, stopped = served_agents(session.home)
    if stopped:
        # What the panic switch cut on the tenant is not handed out again here.
        session.out.note("everything is stopped: agents' applications are left alone")
    return Needs(
        agents=tuple(
            AgentNeed(agent.id, agent.name) for agent in (() if stopped else agents)
        ),
        connections=settings.tenant.connections,
        sign_in=settings.tenant.sign_in,
        client_id=settings.tenant.client_id,
    )


def served_agents(home: Home) -> tuple[list[Agent], bool]:
    """Return the agents that are served, and whether everything is stopped.

    Read from the ledger itself, so that no broker has to run.
    """
    if not home.database.exists():
        return [], False
    with lazy_room("ledger.opening").read_home(home) as db:
        loaded = lazy_room("ledger.state").load(db, SystemClock())
    served = [
        agent
        for agent in loaded.agents
        if agent.status is AgentStatus.ACTIVE and not agent.resource_server
    ]
    return served, loaded.panic is not None
