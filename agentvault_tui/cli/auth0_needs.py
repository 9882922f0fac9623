"""What this vault needs from its tenant: settings and agents together."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.home import Home
from agentvault_tui.model import Agent, AgentStatus
from agentvault_tui.settings import TenantSettings
from agentvault_tui.text import visible
from agentvault_tui.vault.issuer import check_issuer
from agentvault_tui.vault.provision.needs import AgentNeed, Needs, Pin

_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?")
_MOST_CONNECTIONS, _MOST_SCOPES, _MOST_IPS = 5, 20, 10
"""What Auth0 takes for one privileged worker."""


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
    ips = _ips(settings.tenant)
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
        worker_ips=ips,
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


def _pins(settings: TenantSettings, agents: list[Agent]) -> dict[str, tuple[Pin, ...]]:
    """Read ``tenant.workers``, an agent, a connection and a provider's scope each."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in settings.workers:
        words = entry.split()
        if len(words) != 3:
            raise SettingsError(
                f"tenant.workers has {visible(entry, 80)}",
                'write "AGENT CONNECTION SCOPE", one scope each',
            )
        name, connection, scope = words
        if connection not in settings.connections:
            raise SettingsError(
                f"tenant.workers names the connection {visible(connection, 60)}",
                "put it into tenant.connections too",
            )
        pinned = found.setdefault(_served(name, agents), {})
        pinned.setdefault(connection, []).append(scope)
    for agent, by_connection in found.items():
        scopes = sum(map(len, by_connection.values()))
        if len(by_connection) > _MOST_CONNECTIONS or scopes > _MOST_SCOPES:
            raise SettingsError(
                f"tenant.workers gives {agent} too much",
                f"at most {_MOST_CONNECTIONS} connections and {_MOST_SCOPES} scopes",
            )
    return {
        agent: tuple(
            Pin(connection, tuple(scopes)) for connection, scopes in pinned.items()
        )
        for agent, pinned in found.items()
    }


def _served(name: str, agents: list[Agent]) -> str:
    """Return the id of the one agent of that id or name: two would share the pins."""
    found = [agent.id for agent in agents if name in (agent.id, agent.name)]
    if len(found) != 1:
        what = "several agents" if found else "no agent that is served"
        raise SettingsError(
            f"tenant.workers names {visible(name, 60)}, which is {what}",
            "agentvault agents list; an id is never two agents'",
        )
    return found[0]


def _ips(settings: TenantSettings) -> tuple[str, ...]:
    if bool(settings.workers) != bool(settings.worker_ips):
        raise SettingsError(
            "tenant.workers and tenant.worker_ips go together: with one of them empty "
            "Auth0 refuses every exchange",
            "set both, or neither",
        )
    if len(settings.worker_ips) > _MOST_IPS:
        raise SettingsError("tenant.worker_ips is too long", f"at most {_MOST_IPS}")
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
    return settings.worker_ips
