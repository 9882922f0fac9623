"""The desired state of a tenant: every object AgentVault needs, in order of making."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentvault_tui.text import visible
from agentvault_tui.vault.credentials import DEVICE_GRANT, VAULT_GRANT
from agentvault_tui.vault.my_account import SCOPES
from agentvault_tui.vault.provision import names
from agentvault_tui.vault.provision.actions import (
    IN_ORDER,
    LOGIN,
    RUNTIME,
    TOKEN_LIMITS,
    Script,
)
from agentvault_tui.vault.provision.needs import Needs, Systems
from agentvault_tui.vault.provision.rules import (
    MISSING,
    AllButOurs,
    AtLeast,
    InOrder,
    Is,
    Ref,
    Rule,
    SameSet,
)

_NAME: Final = 80
MANAGEMENT_SCOPES: Final = (
    "read:clients", "update:clients", "update:client_keys",
    "read:device_credentials", "delete:device_credentials",
    "read:refresh_tokens", "delete:refresh_tokens",
    "read:logs",
)  # fmt: skip
"""The rights of the broker's own credential: revoke, and read.

It lies in a home, so it has no right with which a thief gains more: with
``create:`` or ``update:client_grants`` it could give itself every other right, and
with ``update:users`` take an approver's place by a new password.
"""
_HELD_POLICY: Final = (
    "it holds for every application of the tenant: give --change-mfa-policy, once each "
    "other application asks for its second factor by an Action of its own"
)


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
    """Its name for a person; may hold an agent's name."""
    fields: Mapping[str, Rule]
    """Dotted path to the desired value there."""
    fixed: Mapping[str, Rule] = field(default_factory=dict)
    """The members given when it is made, which can never be changed."""
    held: str = ""
    """Why it is not changed unless a person says so; empty: it may be changed."""
    optional: bool = False
    """Whether everything works without it: a plan may not have it."""
    after: tuple[str, ...] = ()
    """The objects it needs: it is not changed if one of these was refused."""

    @property
    def address(self) -> str:
        """Its name in plans, and for others that refer to it."""
        return f"{self.kind}.{self.key}"


def desired(needs: Needs, systems: Systems) -> tuple[DesiredObject, ...]:
    """Return the desired objects, each after those it refers to.

    Applications get every connection of the tenant at their making, unless that is
    switched off before. Objects that a plan may lack come late, so that a refusal
    leaves the rest done. The policy comes last: it is loosened only when the Actions
    that take its place are bound.
    """
    settings, flow = DesiredKind.SETTINGS, DesiredKind.FLOW
    by_name = {"flags.enable_client_connections": Is(False)}
    by_action = {"customize_mfa_in_postlogin_action": Is(True)}
    bound = tuple(Ref(f"{DesiredKind.ACTION}.{script.key}") for script in IN_ORDER)
    named = dict.fromkeys((*needs.sign_in, *needs.connections))
    active = {"connected_accounts.active": Is(True)}
    return (
        DesiredObject(
            settings, "connections-by-name", "Enable Application Connections", by_name
        ),
        DesiredObject(
            settings, "mfa-by-action", "Customize MFA Factors using Actions", by_action
        ),
        _factor(names.FACTORS[0]),
        *(
            DesiredObject(
                DesiredKind.ROLE,
                key,
                f"{names.ROLE_PREFIX}{key}",
                {"description": Is(description)},
                {"name": Is(f"{names.ROLE_PREFIX}{key}")},
            )
            for key, description in names.ROLES.items()
        ),
        *_clients(needs, systems),
        *_grants(needs, systems),
        *(
            connection(one, needs, active if one in needs.connections else {})
            for one in named
        ),
        *map(_action, IN_ORDER),
        DesiredObject(flow, LOGIN, "Login", {"bindings": InOrder(bound)}),
        *(_token_limits() if needs.token_limits else ()),
        *(_factor(name, optional=True) for name in names.FACTORS[1:]),
        DesiredObject(
            DesiredKind.POLICY,
            "mfa",
            "Never, so that Token Vault can exchange",
            {"policies": Is([])},
            held="" if needs.change_mfa_policy else _HELD_POLICY,
            after=("factor.otp", "settings.mfa-by-action", f"{flow}.{LOGIN}"),
        ),
    )


def _factor(name: str, *, optional: bool = False) -> DesiredObject:
    fields = {"enabled": Is(True)}
    title = "second factor"
    return DesiredObject(DesiredKind.FACTOR, name, title, fields, optional=optional)


def _clients(needs: Needs, systems: Systems) -> Iterator[DesiredObject]:
    """Yield our applications.

    Auth0 gives the device flow to native applications without a secret alone, and
    Token Vault to confidential ones alone, so no client can be both.
    """
    console: dict[str, Rule] = {
        "app_type": Is("native"),
        "grant_types": SameSet((DEVICE_GRANT,)),
        "known": Is(True),
    }
    yield _client("console", "AgentVault console", names.CONSOLE, "none", console)
    management: dict[str, Rule] = {
        "app_type": Is("non_interactive"),
        "grant_types": SameSet(("client_credentials",)),
        "kept": Is(True),
    }
    secret = "client_secret_post"  # noqa: S105 - a method's name
    title = "AgentVault management"
    yield _client("management", title, names.MANAGEMENT, secret, management)
    for one in needs.agents:
        # Auth0 refuses angle brackets in a name.
        plain = visible(one.name, _NAME, ascii_only=True)
        title = f"AgentVault agent {plain.translate({60: '(', 62: ')'})}"
        grants = ("authorization_code", "refresh_token", VAULT_GRANT)
        fields: dict[str, Rule] = {
            f"client_metadata.{names.MARK_AGENT}": Is(one.id),
            "app_type": Is("regular_web"),
            "grant_types": SameSet(grants),
            "callbacks": AtLeast((names.CALLBACK,)),
            # A rotating token is spent by the first exchange; Token Vault refuses it.
            "refresh_token.rotation_type": Is("non-rotating"),
            "refresh_token.expiration_type": Is("non-expiring"),
            "kept": Is(True),
        }
        if systems.my_account:
            # Without this policy no refresh token becomes one for the My Account API.
            scope = list(SCOPES)
            policy = {"audience": systems.my_account, "scope": scope}
            fields["refresh_token.policies"] = AtLeast((policy,), key="audience")
        if not one.pins:
            fields[names.WORKER] = Is(MISSING)
        else:
            pins = ((pin.connection, sorted(pin.scopes)) for pin in one.pins)
            fields[f"{names.WORKER}.ip_allowlist"] = SameSet(needs.worker_ips)
            fields[f"{names.WORKER}.grants"] = SameSet(
                tuple({"connection": name, "scopes": some} for name, some in pins)
            )
            fields["worker_key"] = Is(True)
        yield _client(f"agents/{one.id}", title, names.AGENT, secret, fields)


def _client(
    key: str, name: str, mark: str, method: str, fields: Mapping[str, Rule]
) -> DesiredObject:
    common: dict[str, Rule] = {
        "name": Is(name),
        f"client_metadata.{names.MARK}": Is(mark),
        "is_first_party": Is(True),
        # Clients made through the Management API are not, unless they say so.
        "oidc_conformant": Is(True),
        "token_endpoint_auth_method": Is(method),
        "jwt_configuration.alg": Is("RS256"),
    }
    return DesiredObject(DesiredKind.CLIENT, key, name, {**common, **fields})


def _grants(needs: Needs, systems: Systems) -> Iterator[DesiredObject]:
    offered = systems.offered or frozenset(MANAGEMENT_SCOPES)
    allowed = tuple(scope for scope in MANAGEMENT_SCOPES if scope in offered)
    yield _grant("management", "auth0", systems.management, allowed, "client")
    for one in needs.agents if systems.my_account else ():
        client = f"agents/{one.id}"
        yield _grant(client, "my-account", systems.my_account, SCOPES, "user")


def _grant(
    client: str, key: str, audience: str, scopes: tuple[str, ...], who: str
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


def connection(
    name: str, needs: Needs, fields: Mapping[str, Rule] | None = None
) -> DesiredObject:
    """Return a connection, enabled for those of our applications that need it alone.

    A person who can sign in by a connection of the console could be an operator, and an
    agent's application can have tokens of any connection that it has.
    """
    console, management = (
        Ref(f"{DesiredKind.CLIENT}.{one}") for one in ("console", "management")
    )
    agents = [Ref(f"{DesiredKind.CLIENT}.agents/{one.id}") for one in needs.agents]
    wanted = [
        *([console] if name in needs.sign_in else []),
        *(agents if name in needs.connections else []),
    ]
    clients = AllButOurs((console, management, *agents), tuple(wanted))
    fields = {**(fields or {}), "clients": clients}
    return DesiredObject(DesiredKind.CONNECTION, name, "", fields, {"name": Is(name)})


def _token_limits() -> tuple[DesiredObject, ...]:
    """Return the Action that limits tokens of applications, and where it is bound."""
    bound = InOrder((Ref(f"{DesiredKind.ACTION}.{TOKEN_LIMITS.key}"),))
    flow, key = DesiredKind.FLOW, TOKEN_LIMITS.trigger
    fields = {"bindings": bound}
    return _action(TOKEN_LIMITS), DesiredObject(flow, key, "Machine to Machine", fields)


def _action(script: Script) -> DesiredObject:
    code = Is(script.code)
    fields = {
        "code": code,
        "runtime": Is(RUNTIME),
        "dependencies": Is([]),
        "deployed_code": code,
    }
    fixed = {"name": Is(script.name)}
    return DesiredObject(DesiredKind.ACTION, script.key, script.name, fields, fixed)
