"""The desired state of a tenant: every object AgentVault needs, in order of making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import IN_ORDER, RUNTIME, Script
from agentvault_tui.vault.provision.needs import AgentNeed, Needs, Systems
from agentvault_tui.vault.provision.rules import (
    AllButOurs,
    AtLeast,
    InOrder,
    Is,
    Ref,
    Rule,
    SameSet,
)

_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Application:
    """One client of ours: its name, and what must be true of it."""

    key: str
    name: str
    fields: Mapping[str, Rule]


def console() -> Application:
    """Return the console's client: public, for the device flow and nothing else.

    Auth0 gives the device flow to native applications without a secret alone, and
    Token Vault to confidential ones alone, so no client can be both.
    """
    return Application(
        "console",
        "AgentVault console",
        {
            **_ours("AgentVault console", names.CONSOLE, "none"),
            "app_type": Is("native"),
            "grant_types": SameSet((DEVICE_GRANT,)),
            "known": Is(True),
        },
    )


def management() -> Application:
    """Return the client by which the broker revokes and reads the tenant's log."""
    return Application(
        "management",
        "AgentVault management",
        {
            **_ours("AgentVault management", names.MANAGEMENT, "client_secret_post"),
            "app_type": Is("non_interactive"),
            "grant_types": SameSet(("client_credentials",)),
            "kept": Is(True),
        },
    )


def agent(one: AgentNeed, systems: Systems) -> Application:
    """Return the confidential client by which the broker exchanges for one agent."""
    name = f"AgentVault agent {_plain(one.name)}"
    fields: dict[str, Rule] = {
        **_ours(name, names.AGENT, "client_secret_post"),
        f"client_metadata.{names.MARK_AGENT}": Is(one.id),
        "app_type": Is("regular_web"),
        "grant_types": SameSet(("authorization_code", "refresh_token", VAULT_GRANT)),
        "callbacks": AtLeast((names.CALLBACK,)),
        # A rotating token is spent by the first exchange; Token Vault refuses it.
        "refresh_token.rotation_type": Is("non-rotating"),
        "refresh_token.expiration_type": Is("non-expiring"),
        "kept": Is(True),
    }
    if systems.my_account:
        # Without this policy no refresh token becomes one for the My Account API.
        policy = {
            "audience": systems.my_account,
            "scope": list(names.CONNECTED_ACCOUNTS),
        }
        fields["refresh_token.policies"] = AtLeast((policy,), key="audience")
    return Application(f"agents/{one.id}", name, fields)


def _ours(name: str, mark: str, method: str) -> dict[str, Rule]:
    """Return what every client of ours has in common."""
    return {
        "name": Is(name),
        f"client_metadata.{names.MARK}": Is(mark),
        "is_first_party": Is(True),
        # Clients made through the Management API are not, unless they say so.
        "oidc_conformant": Is(True),
        "token_endpoint_auth_method": Is(method),
        "jwt_configuration.alg": Is("RS256"),
    }


def _plain(name: str) -> str:
    """Make an agent's name one Auth0 takes: it refuses angle brackets."""
    return visible(name, _NAME, ascii_only=True).translate({60: "(", 62: ")"})


class DesiredKind(StrEnum):
    """The kinds of objects, as their addresses begin."""

    FACTOR = "factor"
    SETTINGS = "settings"
    ROLE = "role"
    CLIENT = "client"
    GRANT = "grant"
    CONNECTION = "connection"
    ACTION = "action"
    FLOW = "flow"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class DesiredObject:
    """One object that should stand on the tenant."""

    kind: DesiredKind
    key: str
    title: str
    """What a person knows it by; may hold an agent's name."""
    fields: Mapping[str, Rule]
    """Dotted path to what should stand there."""
    fixed: Mapping[str, Rule] = field(default_factory=dict)
    """What is given when it is made and can never be changed."""
    held: str = ""
    """Why it is not changed unless a person says so; empty: nothing holds it."""
    optional: bool = False
    """Whether everything works without it: a plan may not have it."""
    after: tuple[str, ...] = ()
    """What must stand before: it is not changed where that was refused."""

    @property
    def address(self) -> str:
        """Its name in plans, and for others that refer to it."""
        return f"{self.kind}.{self.key}"


MANAGEMENT_SCOPES: Final = (
    "read:clients", "update:clients", "update:client_keys",
    "read:device_credentials", "delete:device_credentials",
    "read:refresh_tokens", "delete:refresh_tokens",
    "read:logs",
)  # fmt: skip
"""What the broker's own credential may do: cut agents off and look, and no more.

It lies in a home, so it has nothing with which whoever copies it gains more: with
``create:`` or ``update:client_grants`` it could give itself every other right, and
with ``update:users`` take an approver's place by a new password.
"""
BY_NAME: Final = "connections-by-name"
"""The setting by which a new application gets no connection but those it is given."""
_HELD_POLICY: Final = (
    "it holds for every application of the tenant: give --change-mfa-policy, once each "
    "other application asks for its second factor by an Action of its own"
)


def desired(needs: Needs, systems: Systems) -> tuple[DesiredObject, ...]:
    """Return what should stand, each after what it refers to.

    Applications get every connection of the tenant at their making, unless that is
    switched off before. What a plan may lack comes late, so that a refusal leaves
    the rest done. The policy comes last: it is loosened only when the Actions that
    take its place are bound.
    """
    return (
        *_settings(),
        _factor("otp"),
        *_roles(),
        *_clients(needs, systems),
        *_grants(needs, systems),
        *_connections(needs),
        *map(_action, IN_ORDER),
        _flow(),
        *(_factor(name) for name in names.FACTORS if name != "otp"),
        _policy(needs),
    )


def _factor(name: str) -> DesiredObject:
    fields = {"enabled": Is(True)}
    return DesiredObject(
        DesiredKind.FACTOR,
        name,
        "second factor",
        fields,
        optional=name != names.FACTORS[0],
    )


def _settings() -> Iterator[DesiredObject]:
    title = "Enable Application Connections"
    fields = {"flags.enable_client_connections": Is(False)}
    yield DesiredObject(DesiredKind.SETTINGS, BY_NAME, title, fields)
    title = "Customize MFA Factors using Actions"
    fields = {"customize_mfa_in_postlogin_action": Is(True)}
    yield DesiredObject(DesiredKind.SETTINGS, "mfa-by-action", title, fields)


def _roles() -> Iterator[DesiredObject]:
    for key, description in names.ROLES.items():
        name = f"{names.ROLE_PREFIX}{key}"
        fields: dict[str, Rule] = {"description": Is(description)}
        yield DesiredObject(DesiredKind.ROLE, key, name, fields, {"name": Is(name)})


def _clients(needs: Needs, systems: Systems) -> Iterator[DesiredObject]:
    for template in (
        console(),
        management(),
        *(agent(one, systems) for one in needs.agents),
    ):
        yield DesiredObject(
            DesiredKind.CLIENT, template.key, template.name, template.fields
        )


def _grants(needs: Needs, systems: Systems) -> Iterator[DesiredObject]:
    offered = systems.offered or frozenset(MANAGEMENT_SCOPES)
    allowed = tuple(scope for scope in MANAGEMENT_SCOPES if scope in offered)
    yield _grant("management", "auth0", systems.management, allowed, "client")
    if systems.my_account:
        for one in needs.agents:
            yield _grant(
                f"agents/{one.id}",
                "my-account",
                systems.my_account,
                names.CONNECTED_ACCOUNTS,
            )


def _grant(
    client: str, key: str, audience: str, scopes: tuple[str, ...], who: str = "user"
) -> DesiredObject:
    return DesiredObject(
        DesiredKind.GRANT,
        f"{client}.{key}",
        audience,
        {"scope": SameSet(scopes)},
        {
            "client_id": Ref(f"{DesiredKind.CLIENT}.{client}"),
            "audience": Is(audience),
            "subject_type": Is(who),
        },
    )


def _connections(needs: Needs) -> Iterator[DesiredObject]:
    """Yield the connections that the settings name."""
    for name in dict.fromkeys((*needs.sign_in, *needs.connections)):
        fields: dict[str, Rule] = {}
        if name in needs.connections:
            fields["connected_accounts.active"] = Is(True)
        yield connection(name, needs, fields)


def connection(
    name: str, needs: Needs, fields: Mapping[str, Rule] | None = None
) -> DesiredObject:
    """Return a connection, enabled for those of our applications that need it alone.

    Whoever can sign in by a connection that the console has could be an operator, and
    an agent's application can have tokens of any that it has.
    """
    agents = [Ref(f"{DesiredKind.CLIENT}.agents/{one.id}") for one in needs.agents]
    wanted: list[Ref] = []
    if name in needs.sign_in:
        wanted.append(Ref(f"{DesiredKind.CLIENT}.console"))
    if name in needs.connections:
        wanted += agents
    ours = (
        Ref(f"{DesiredKind.CLIENT}.console"),
        Ref(f"{DesiredKind.CLIENT}.management"),
        *agents,
    )
    fields = {**(fields or {}), "clients": AllButOurs(ours, tuple(wanted))}
    return DesiredObject(DesiredKind.CONNECTION, name, "", fields, {"name": Is(name)})


def _action(script: Script) -> DesiredObject:
    code = script.code
    return DesiredObject(
        DesiredKind.ACTION,
        script.key,
        script.name,
        {
            "code": Is(code),
            "runtime": Is(RUNTIME),
            "dependencies": Is([]),
            "deployed_code": Is(code),
        },
        {"name": Is(script.name)},
    )


def _flow() -> DesiredObject:
    bound = tuple(Ref(f"{DesiredKind.ACTION}.{script.key}") for script in IN_ORDER)
    return DesiredObject(
        DesiredKind.FLOW, names.TRIGGER, "Login", {"bindings": InOrder(bound)}
    )


def _policy(needs: Needs) -> DesiredObject:
    held = "" if needs.change_mfa_policy else _HELD_POLICY
    title = "Never, so that Token Vault can exchange"
    return DesiredObject(
        DesiredKind.POLICY,
        "mfa",
        title,
        {"policies": Is([])},
        held=held,
        after=(
            "factor.otp",
            "settings.mfa-by-action",
            f"{DesiredKind.FLOW}.{names.TRIGGER}",
        ),
    )
