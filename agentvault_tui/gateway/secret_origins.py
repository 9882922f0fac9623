"""Where secrets may be sent: who uses them, and lists for those of earlier versions."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Final

from agentvault_tui.broker.core import SYSTEM, Broker
from agentvault_tui.broker.secret_uses import SecretUse
from agentvault_tui.broker.team_copies import put
from agentvault_tui.errors import (
    AgentVaultError,
    LedgerError,
    NotForOriginError,
    UsageError,
)
from agentvault_tui.gateway.mcp import McpServers
from agentvault_tui.gateway.secret_rows import (
    LISTED,
    check_secret,
    listed_text,
    url_origin,
)
from agentvault_tui.gateway.secrets import Secrets, secret_draft
from agentvault_tui.gateway.services import Service, Services
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft
from agentvault_tui.operator_api.gateway import (
    MissingSecretInfo,
    SecretInfo,
    SecretList,
    SecretUserInfo,
)
from agentvault_tui.origins import NOWHERE, read_origins

log = logging.getLogger("agentvault.secrets")

TAKEN: Final = "secret_origins"
"""The key of the origins that connections without a list got, once; a ledger with it
gives no secret a list any more."""
_CALLED: Final = {
    "service": "The service", "mcp": "The MCP server",
    "sink": "The destination", "hook": "The decision webhook",
}  # fmt: skip


def service_uses(
    services: Iterable[Service], servers: McpServers
) -> Iterator[SecretUse]:
    """Return which services and MCP servers name secrets, and where they are sent."""
    for service in services:
        for secret in service.credential.secrets:
            yield SecretUse("service", service.name, secret, service.destinations)
    for server in servers:
        if server.service is not None:
            for secret in server.service.credential.secrets:
                to = server.service.destinations
                yield SecretUse("mcp", server.name, secret, to)


class SecretOrigins:
    """Where the secrets and connections of one broker may be sent."""

    def __init__(
        self,
        broker: Broker,
        secrets: Secrets,
        services: Services,
        servers: McpServers,
    ) -> None:
        """Read nothing yet.

        Args:
            broker: its rooms list their uses.
            secrets: of the broker's home.
            services: those that use secrets and connections.
            servers: MCP servers that do.
        """
        self._broker, self._secrets = broker, secrets
        self._services, self._servers = services, servers
        self._problem = ""
        broker.extensions.secret_uses.append(lambda: service_uses(services, servers))

    def uses(self) -> list[SecretUse]:
        """Return every use of a secret that a file names now."""
        return [use for room in self._broker.extensions.secret_uses for use in room()]

    def check(self, service: Service) -> None:
        """Refuse a service whose credential may not be sent to its address.

        Raises:
            NotFoundError: its secret is not set.
            NotForOriginError: its origin, or its token endpoint's, is not listed.
            ServiceError: the secrets cannot be read.
        """
        credential = service.credential
        for name in credential.secrets:
            self._secrets.check(name, service.destinations)
        if not credential.connection:
            return
        allowed = self._of_connection(credential.connection)
        if str(service.origin) not in allowed:
            raise NotForOriginError(
                f"the connection {credential.connection} is not for {service.origin}:"
                f" it is for {', '.join(allowed) or NOWHERE}",
                f"list it in config.toml: [connections.{credential.connection}] for",
            )

    def _of_connection(self, name: str) -> tuple[str, ...]:
        connection = self._broker.settings.connections.get(name)
        if connection is not None and connection.origins is not None:
            return connection.origins
        taken = json.loads(self._broker.recording.meta.get(TAKEN, "{}"))
        return tuple(taken.get(name, ()))

    def _connected(self) -> Iterator[tuple[str, str, Service]]:
        """Yield the users of connections' tokens: kind and name first."""
        reached = [("service", one.name, one) for one in self._services]
        reached += [
            ("mcp", one.name, one.service) for one in self._servers if one.service
        ]
        for kind, name, service in reached:
            if service.credential.connection:
                yield kind, name, service

    def problem(self, service: Service) -> str | None:
        """Return why a service's credential cannot be used, if so."""
        try:
            self.check(service)
            for name in service.credential.secrets:
                self._secrets.open(name, service.destinations)
        except AgentVaultError as error:
            return error.diagnosis()
        return None

    @property
    def warnings(self) -> list[str]:
        """Say which services and destinations may not be sent their secret."""
        problems = dict[str, None]()
        for use in self.uses():
            if problem := use_problem(self._secrets, use):
                problems[
                    f"{_CALLED[use.kind]} {use.name} gets no secret: {problem}"
                ] = None
        for kind, name, service in self._connected():
            try:
                self.check(service)
            except NotForOriginError as error:
                problems[
                    f"{_CALLED[kind]} {name} gets no token: {error.diagnosis()}"
                ] = None
        return list(problems)

    def choose(
        self, name: str, value: str, given: Iterable[str] | None
    ) -> tuple[str, ...]:
        """Return where a secret that is set may be sent.

        Args:
            name: of the secret.
            value: of it.
            given: the person's list; None takes the origins of all that name it.

        Raises:
            UsageError: one is no origin, or nothing names the secret.
        """
        check_secret(name, value)
        if given is not None:
            return read_origins(given)
        return origins_of(name, value, self.uses())

    def listing(self) -> SecretList:
        """Return the secrets, where they may be sent and who uses them; no value."""
        return secret_list(self._secrets, self.uses())

    async def look(self) -> None:
        """Give secrets of earlier versions their origins, once, and seal these."""
        try:
            if TAKEN not in self._broker.recording.meta:
                await self._take()
            await self._seal()
        except LedgerError as error:
            log.warning("origins of secrets are recorded later: %s", error.what)
        except AgentVaultError as error:
            if error.what != self._problem:  # at each look it would fill the log
                log.warning("origins of secrets: %s", error.diagnosis())
            self._problem = error.what

    async def _take(self) -> None:
        """Record the origins of all that uses secrets and connections now."""
        drafts, changes = await asyncio.to_thread(self._drafts)
        await self._broker.record(*drafts, changes=changes)
        for one in changes:
            put(self._broker.recording.meta, one.key, one.value)

    def _drafts(self) -> tuple[list[Draft], list[Meta]]:
        broker, secrets = self._broker, self._secrets
        drafts = list[Draft]()
        rows = {n: row for n, row in secrets.rows().items() if row.bound is None}
        by_secret: dict[str, set[str]] = {name: set() for name in rows}
        for use in self.uses():
            if use.secret in by_secret:
                by_secret[use.secret].update(_sent_to(secrets, use))
        changes = []
        for name, origins in by_secret.items():
            draft = secret_draft(SYSTEM, "origins taken", name, rows[name].version)
            draft.detail["for"] = sorted(origins) or [NOWHERE]
            drafts.append(draft)
            changes.append(Meta(f"{LISTED}{name}", listed_text(sorted(origins))))
        connections: dict[str, list[str]] = {}
        for name, one in broker.settings.connections.items():
            if one.origins is None:
                connections[name] = sorted(
                    {
                        str(service.origin)
                        for _, _, service in self._connected()
                        if service.credential.connection == name
                    }
                )
        if connections:
            draft = secret_draft(SYSTEM, "origins taken", None, 0)
            draft.detail["connections"] = connections
            drafts.append(draft)
        return drafts, [*changes, Meta(TAKEN, json.dumps(connections))]

    async def _seal(self) -> None:
        """Seal listed origins with their secrets, where every broker can open these."""
        broker, secrets = self._broker, self._secrets
        if not secrets.seals_origins and (shared := broker.ledger.shared):
            secrets.seals_origins = await shared.finished()
        listed = [key for key in broker.recording.meta if key.startswith(LISTED)]
        if not listed or not secrets.seals_origins:
            return
        if not broker.team.brokers.works():
            return
        await secrets.change(lambda: secrets.seal_origins(SYSTEM), broker.record)
        # Once they are sealed: a row without, from a copy of before, is sent nowhere.
        await broker.record(changes=[Meta(key, None) for key in listed])
        for key in listed:
            put(broker.recording.meta, key, None)


def _sent_to(secrets: Secrets, use: SecretUse) -> list[str]:
    if not use.is_url:
        return [str(origin) for origin in use.origins]
    origin = secrets.origin_of_url(use.secret)
    return [] if origin is None else [str(origin)]


def use_problem(secrets: Secrets, use: SecretUse) -> str | None:
    """Return why a secret that is set may not be sent where a file says, if so."""
    try:
        if use.is_url:
            secrets.open(use.secret, None)
        else:
            secrets.check(use.secret, use.origins)
    except NotForOriginError as error:
        return error.diagnosis()
    except AgentVaultError:
        return None  # it is not set, or does not open: whoever needs it says so
    return None


def origins_of(name: str, value: str, uses: Iterable[SecretUse]) -> tuple[str, ...]:
    """Return the origins of all that names a secret.

    Raises:
        UsageError: nothing does.
    """
    named = [use for use in uses if use.secret == name]
    if not named:
        raise UsageError(
            f"no service and no destination names the secret {name}",
            "say where it may be sent: --for https://HOST, or --for none",
        )
    origins = {str(origin) for use in named for origin in use.origins}
    if any(use.is_url for use in named):
        try:
            origins.add(str(url_origin(name, value)))
        except NotForOriginError as error:
            raise UsageError(error.what, "give the URL that is posted to") from None
    return tuple(sorted(origins))


def secret_list(secrets: Secrets, uses: Iterable[SecretUse]) -> SecretList:
    """Return the known facts of *secrets*, and of their *uses*; no value."""
    rows, users = secrets.rows(), dict[str, list[SecretUserInfo]]()
    for use in sorted(
        uses, key=lambda one: (one.kind != "service", one.kind, one.name)
    ):
        refused = use.secret in rows and use_problem(secrets, use) is not None
        info = SecretUserInfo(
            kind=use.kind,
            name=use.name,
            origins=tuple(map(str, use.origins)),
            is_url=use.is_url,
            refused=refused,
        )
        users.setdefault(use.secret, []).append(info)
    missing = sorted(users.keys() - rows.keys())
    return SecretList(
        secrets=tuple(
            SecretInfo(
                name=name,
                created_at=row.created_at,
                changed_at=row.changed_at,
                changed_by=row.changed_by,
                for_=secrets.origins(name) or (NOWHERE,),
                used_by=tuple(one.name for one in users.get(name, ())),
                users=tuple(users.get(name, ())),
            )
            for name, row in rows.items()
        ),
        missing=tuple(
            MissingSecretInfo(name=name, users=tuple(users[name])) for name in missing
        ),
        key=secrets.root(),
    )
