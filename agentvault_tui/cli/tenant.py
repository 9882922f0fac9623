"""``agentvault tenant``: the embedded tenant's people, second devices, and keys."""

from __future__ import annotations

from typing import Any

import click

from agentvault_tui.cli.activate import activate
from agentvault_tui.cli.device import print_qr
from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session, lazily, lazy_room
from agentvault_tui.errors import UsageError
from agentvault_tui.model.role import Role


@group("tenant", example="agentvault tenant user add alice --approver")
def tenant() -> None:
    """Manage the embedded tenant's people and keys; approve without a browser."""


@group("user", example="agentvault tenant user list")
def user() -> None:
    """Add people, list them, give them a new one-time code."""


@command("add", example="agentvault tenant user add alice --approver", prints_data=True)
@click.argument("name")
@click.option("--approver", is_flag=True, help="The same as --role approver.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="What they may do once signed in; each includes those before it.",
)
@pass_session
def add_user(
    session: Session, name: str, approver: bool, roles: tuple[str, ...]
) -> None:
    """Add a person; password and one-time code seed are shown this once."""
    with _users(session) as users:
        added = users.add(name, approver=approver, roles=roles)
    out = session.out
    if session.json:
        out.json(
            {
                "user": added.user.name,
                "password": added.password,
                "otp_secret": added.otp_secret,
                "otpauth_uri": added.otpauth_uri,
            }
        )
        return
    out.fields(
        [
            ("user", out.cell(added.user.name, "strong")),
            ("roles", ", ".join(added.user.roles)),
            ("password", added.password),
        ]
    )
    _print_otp(out, added.otp_secret, added.otpauth_uri)


@command("list", example="agentvault tenant user list --json", prints_data=True)
@pass_session
def list_users(session: Session) -> None:
    """List the people who can sign in."""
    with _users(session) as users:
        found = users.list()
    out = session.out
    if session.json:
        out.json({"users": [_shape(person) for person in found]})
    elif not found:
        out.line("nobody yet: `agentvault tenant user add NAME --approver`")
    else:
        out.table(
            ("NAME", "ROLES", "SUBJECT", "ADDED"),
            [
                [
                    out.cell(person.name, "strong"),
                    out.cell(", ".join(person.roles)),
                    out.cell(person.sub),
                    out.cell(person.created_at[:19] + "Z"),
                ]
                for person in found
            ],
        )


@command("otp", example="agentvault tenant user otp alice", prints_data=True)
@click.argument("name")
@pass_session
def new_otp(session: Session, name: str) -> None:
    """Give a person a new one-time code seed; the old one ends, and any lock."""
    with _users(session) as users:
        secret, uri = users.reset_otp(name)
    if session.json:
        session.out.json({"user": name, "otp_secret": secret, "otpauth_uri": uri})
    else:
        _print_otp(session.out, secret, uri)


@command("rotate-keys", example="agentvault tenant rotate-keys", prints_data=True)
@click.option(
    "--revoke",
    is_flag=True,
    help="Replace every key, and accept nothing that was signed before.",
)
@pass_session
def rotate(session: Session, revoke: bool) -> None:
    """Sign with a new key from now on; the tenant may run or not.

    The old key's private part is deleted at once. What it signed is accepted until the
    last of it lapses: minutes for sign-ins, as long as an API's tokens live for those.

    If a key may have been stolen, use --revoke, and restart the broker: it can know the
    old keys for an hour. Refresh tokens are not signed and go on.
    """
    _only_embedded(session, "signing keys")
    clock = lazily("agentvault_tui.clock", "SystemClock")()
    done = lazy_room("tenant.keys").rotate_keys(session.home, clock, revoke=revoke)
    out = session.out
    until = lazily("agentvault_tui.clock", "iso")(done.retired_until)
    if session.json:
        out.json(
            {
                "current": done.current,
                "next": done.next,
                "retired": done.retired,
                "retired_until": until,
            }
        )
        return
    out.fields(
        [
            ("signs now", out.cell(done.current, "strong")),
            ("next", out.cell(done.next)),
            ("revoked" if revoke else "retired", out.cell(done.retired)),
            ("accepted until", out.cell(until[:19] + "Z")),
        ]
    )


for _command in (add_user, list_users, new_otp):
    user.add_command(_command)
for _member in (user, activate, rotate):
    tenant.add_command(_member)


def _only_embedded(session: Session, what: str) -> None:
    if session.settings.tenant.issuer:
        raise UsageError(
            f"{what} are kept by the tenant {session.settings.tenant.issuer}",
            "manage them there; these commands are for the embedded tenant",
        )


def _users(session: Session) -> Any:
    _only_embedded(session, "people")
    return lazy_room("tenant.users").UserStore(session.home)


def _shape(person: Any) -> dict[str, Any]:
    return {
        "sub": person.sub,
        "name": person.name,
        "approver": person.approver,
        "roles": list(person.roles),
        "created_at": person.created_at,
    }


def _print_otp(out: Output, secret: str, uri: str) -> None:
    out.fields(
        [("one-time code seed", secret), ("for an app", out.cell(uri, limit=500))]
    )
    print_qr(out, uri)
    out.note("this is shown once: scan or keep it now")
