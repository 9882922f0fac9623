"""The desired state of a tenant: every object AgentVault needs, in order of making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import IN_ORDER, RUNTIME, Script
from agentvault_tui.vault.provision.clients import agent, broker, console, management
from agentvault_tui.vault.provision.needs import Needs, Systems
from agentvault_tui.vault.provision.rules import (
    AtLeast,
    InOrder,
    Is,
    Ref,
    Rule,
    SameSet,
)


class Kind(StrEnum):
    """The kinds of objects, as their addresses begin."""

    FACTOR = "factor"
    SETTINGS = "settings"
    API = "api"
    ROLE = "role"
    CLIENT = "client"
    GRANT = "grant"
    CONNECTION = "connection"
    ACTION = "action"
    FLOW = "flow"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object that should stand on the tenant."""

    kind: Kind
    key: str
    title: str
    """What a person knows it by; may hold an agent's name."""
    fields: Mapping[str, Rule]
    """Dotted path to what should stand there."""
    fixed: Mapping[str, Rule] = field(default_factory=dict)
    """What is given when it is made and can never be changed."""
    held: str = ""
    """Why it is not changed unless a person says so; empty: nothing holds it."""

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
_HELD_POLICY: Final = (
    "it holds for every application of the tenant: give --change-mfa-policy, once each "
    "other application asks for its second factor by an Action of its own"
)


def desired(needs: Needs, systems: Systems) -> tuple[Wanted, ...]:
    """Return what should stand, each after what it refers to.

    The policy comes last: it is loosened only when the Actions that take its place
    are bound.
    """
    return (
        *_factors(),
        _settings(),
        *_apis(needs),
        *_roles(needs),
        *_clients(needs, systems),
        *_grants(needs, systems),
        *_connections(needs),
        *map(_action, IN_ORDER),
        _flow(),
        _policy(needs),
    )


def _factors() -> Iterator[Wanted]:
    for name in names.FACTORS:
        yield Wanted(Kind.FACTOR, name, "second factor", {"enabled": Is(True)})


def _settings() -> Wanted:
    title = "Customize MFA Factors using Actions"
    fields = {"customize_mfa_in_postlogin_action": Is(True)}
    return Wanted(Kind.SETTINGS, "mfa-by-action", title, fields)


def _apis(needs: Needs) -> Iterator[Wanted]:
    both: dict[str, Rule] = {
        "signing_alg": Is("RS256"),
        "allow_offline_access": Is(False),
        # A client of the tenant must be let in by name, machine or person.
        "subject_type_authorization.user.policy": Is("require_client_grant"),
        "subject_type_authorization.client.policy": Is("require_client_grant"),
    }
    standard = {
        "name": Is("AgentVault broker"),
        "scopes": _scopes(needs, ""),
        "token_lifetime": Is(needs.standard_ttl),
        "token_lifetime_for_web": Is(min(needs.standard_ttl, 7200)),
        "token_dialect": Is("rfc9068_profile"),
        **both,
    }
    elevated = {
        "name": Is("AgentVault elevated"),
        "scopes": _scopes(needs, names.STEP_UP),
        "token_lifetime": Is(needs.elevated_ttl),
        "token_lifetime_for_web": Is(needs.elevated_ttl),
        # Roles decide who gets such a scope at all, and the token has a jti to be
        # spent once by (RFC 9068 section 2.2).
        "enforce_policies": Is(True),
        "token_dialect": Is("rfc9068_profile_authz"),
        **both,
        # No machine gets an elevated token: a person approves each.
        "subject_type_authorization.client.policy": Is("deny_all"),
    }
    for key, identifier, fields in (
        ("broker", names.BROKER_API, standard),
        ("elevated", names.ELEVATED_API, elevated),
    ):
        fixed = {"identifier": Is(identifier)}
        yield Wanted(Kind.API, key, identifier, fields, fixed)


def _scopes(needs: Needs, prefix: str) -> AtLeast:
    return AtLeast(
        tuple(
            {"value": f"{prefix}{name}", "description": description[:500]}
            for name, description in needs.scopes
        ),
        key="value",
    )


def _roles(needs: Needs) -> Iterator[Wanted]:
    for key, description in names.ROLES.items():
        name = f"{names.ROLE_PREFIX}{key}"
        fields: dict[str, Rule] = {"description": Is(description)}
        if key == names.APPROVER:
            fields["permissions"] = AtLeast(
                tuple(
                    {
                        "resource_server_identifier": names.ELEVATED_API,
                        "permission_name": f"{names.STEP_UP}{scope}",
                    }
                    for scope, _ in needs.scopes
                )
            )
        yield Wanted(Kind.ROLE, key, name, fields, {"name": Is(name)})


def _clients(needs: Needs, systems: Systems) -> Iterator[Wanted]:
    for template in (
        console(),
        broker(),
        management(),
        *(agent(one, needs, systems) for one in needs.agents),
    ):
        yield Wanted(
            Kind.CLIENT, template.key, template.name, template.fields, template.fixed
        )


def _grants(needs: Needs, systems: Systems) -> Iterator[Wanted]:
    elevated = tuple(f"{names.STEP_UP}{name}" for name, _ in needs.scopes)
    yield _grant("console", "broker", names.BROKER_API, ())
    yield _grant("console", "elevated", names.ELEVATED_API, elevated)
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
) -> Wanted:
    return Wanted(
        Kind.GRANT,
        f"{client}.{key}",
        audience,
        {"scope": SameSet(scopes)},
        {
            "client_id": Ref(f"{Kind.CLIENT}.{client}"),
            "audience": Is(audience),
            "subject_type": Is(who),
        },
    )


def _connections(needs: Needs) -> Iterator[Wanted]:
    agents = [Ref(f"{Kind.CLIENT}.agents/{one.id}") for one in needs.agents]
    for name in dict.fromkeys((*needs.sign_in, *needs.connections)):
        clients: list[Ref] = []
        fields: dict[str, Rule] = {}
        if name in needs.sign_in:
            clients.append(Ref(f"{Kind.CLIENT}.console"))
        if name in needs.connections:
            clients += [Ref(f"{Kind.CLIENT}.broker"), *agents]
            fields["connected_accounts.active"] = Is(True)
        fields["clients"] = AtLeast(tuple(clients))
        yield Wanted(Kind.CONNECTION, name, "", fields, {"name": Is(name)})


def _action(script: Script) -> Wanted:
    code = script.code
    return Wanted(
        Kind.ACTION,
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


def _flow() -> Wanted:
    bound = tuple(Ref(f"{Kind.ACTION}.{script.key}") for script in IN_ORDER)
    return Wanted(Kind.FLOW, names.TRIGGER, "Login", {"bindings": InOrder(bound)})


def _policy(needs: Needs) -> Wanted:
    held = "" if needs.change_mfa_policy else _HELD_POLICY
    title = "Never, so that Token Vault can exchange"
    return Wanted(Kind.POLICY, "mfa", title, {"policies": Is([])}, held=held)
