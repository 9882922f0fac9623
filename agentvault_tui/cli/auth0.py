"""``agentvault auth0``: an Auth0 tenant brought to what AgentVault needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.errors import UsageError


@group("auth0", example="agentvault auth0 plan --credential-fd 3 3< management.json")
def auth0() -> None:
    """Prepare and examine the Auth0 tenant that config.toml names.

    The credential is a client of the tenant's Management API. It comes from a
    descriptor, the OS keyring or a prompt: never from an argument or the environment.
    """


_descriptor_option = click.option(
    "--credential-fd",
    type=click.IntRange(0),
    metavar="N",
    help="Read the credential, as JSON, from this open descriptor.",
)


def _credential_options(function: Callable[..., object]) -> Callable[..., object]:
    device = click.option(
        "--device", is_flag=True, help="Sign in by device flow instead."
    )
    return _descriptor_option(device(function))


_policy_option = click.option(
    "--change-mfa-policy",
    is_flag=True,
    help="Let the tenant's MFA policy, which holds for all its applications, be Never.",
)


@command(
    "plan",
    example="agentvault auth0 plan --credential-fd 3 3< management.json",
    prints_data=True,
)
@_credential_options
@_policy_option
@pass_session
def plan(session: CliSession, /, **given: object) -> None:
    """Show what apply would do to the tenant; writes nothing."""
    lazy_room("cli.auth0_work").show_plan(session, **given)


@command(
    "apply",
    example="agentvault auth0 apply --credential-fd 3 3< management.json",
    prints_data=True,
)
@_credential_options
@_policy_option
@click.option("--yes", is_flag=True, help="Do what the plan says without asking.")
@click.option(
    "--print-secrets",
    is_flag=True,
    help="Print the secrets made just now, this once; they are kept either way.",
)
@pass_session
def apply(session: CliSession, /, yes: bool, **given: object) -> int:
    """Make the tenant so, object by object, and read each back.

    Deletes nothing. What the tenant's plan does not have is told, and the rest done.
    Where it stops, the next run goes on. Secrets of our applications go into a private
    file of this home.
    """
    asks = not yes
    if asks and (session.json or not sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask yes or no at", "give --yes")
    return int(lazy_room("cli.auth0_work").apply(session, asks=asks, **given))


@command(
    "doctor",
    example="agentvault auth0 doctor --credential-fd 3 3< management.json",
    prints_data=True,
)
@_credential_options
@pass_session
def doctor(session: CliSession, /, **credential: object) -> int:
    """Find what is misconfigured on the tenant, and say the remedy.

    Each line is ok, warning or fault. Exits 1 when there is a fault.
    """
    return int(lazy_room("cli.auth0_work").doctor(session, **credential))


@command(
    "remember",
    example="agentvault auth0 remember --credential-fd 3 3< management.json",
    prints_data=True,
)
@_descriptor_option
@pass_session
def remember(session: CliSession, credential_fd: int | None) -> None:
    """Keep the credential in the OS keyring, for the other commands."""
    issuer = lazy_room("cli.auth0_needs").tenant_issuer(session)
    room = lazy_room("cli.auth0_credential")
    given = credential_fd is not None
    found = room.from_descriptor(credential_fd) if given else room.from_prompt()
    room.remember(issuer, found)
    if session.json:
        session.out.json({"kept": True, "tenant": issuer})
    else:
        session.out.line("kept in the OS keyring; `auth0 forget` takes it out")


@command("forget", example="agentvault auth0 forget", prints_data=True)
@pass_session
def forget(session: CliSession) -> int:
    """Take the credential out of the OS keyring."""
    issuer = lazy_room("cli.auth0_needs").tenant_issuer(session)
    was_there = lazy_room("cli.auth0_credential").forget(issuer)
    if session.json:
        session.out.json({"forgotten": was_there, "tenant": issuer})
    else:
        session.out.line("taken out" if was_there else "there was none")
    return 0 if was_there else 4


for _command in (plan, apply, doctor, remember, forget):
    auth0.add_command(_command)
