"""``agentvault tenant``: the embedded tenant's people, second devices, and keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from agentvault_tui.cli.activate import activate
from agentvault_tui.cli.device import print_qr
from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession, lazily, lazy_room
from agentvault_tui.errors import UnreachableError, UsageError
from agentvault_tui.home import user_name
from agentvault_tui.model import Actor, ActorKind, Draft
from agentvault_tui.model.people import user_changed
from agentvault_tui.model.role import Role
from agentvault_tui.operator_api import calls, requests

if TYPE_CHECKING:
    from agentvault_tui.tenant.people import User
    from agentvault_tui.tenant.users import UserStore

_ROLE = click.Choice([role.value for role in Role])


@group("tenant", example="agentvault tenant user add alice --approver")
def tenant() -> None:
    """Manage the embedded tenant's people and keys; approve without a browser."""


@group("user", example="agentvault tenant user list")
def user() -> None:
    """Add, list, change and remove people; each change is in the audit.

    Where `[operators] roles` is `claim`, a change needs somebody signed in who has the
    role approver, once anybody has it.
    """


@command("add", example="agentvault tenant user add alice --approver", prints_data=True)
@click.argument("name")
@click.option("--approver", is_flag=True, help="The same as --role approver.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=_ROLE,
    help="What they may do once signed in; each includes those before it.",
)
@pass_session
def add_user(
    session: CliSession, name: str, approver: bool, roles: tuple[str, ...]
) -> None:
    """Add a person; password and one-time code seed are shown this once."""
    held = [*roles, *([Role.APPROVER.value] if approver else [])]
    with _users(session) as users:
        _record(session, users, "added", users.free(name), held)
        added = users.add(name, roles=held)
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
def list_users(session: CliSession) -> None:
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
def new_otp(session: CliSession, name: str) -> None:
    """Give a person a new one-time code seed; the old one ends, and any lock."""
    with _users(session) as users:
        person = users.named(name)
        _record(session, users, "factor", person)
        secret, uri = users.reset_otp(name)
    if session.json:
        session.out.json({"user": name, "otp_secret": secret, "otpauth_uri": uri})
    else:
        _print_otp(session.out, secret, uri)


@command("password", example="agentvault tenant user password alice", prints_data=True)
@click.argument("name")
@pass_session
def new_password(session: CliSession, name: str) -> None:
    """Give a person a new password, shown this once; the old one ends."""
    with _users(session) as users:
        person = users.named(name)
        _record(session, users, "password", person)
        password = users.reset_password(name)
    if session.json:
        session.out.json({"user": person.name, "password": password})
    else:
        session.out.fields([("password", password)])
        session.out.note("this is shown once: keep it now")


@command("role", example="agentvault tenant user role alice approver", prints_data=True)
@click.argument("name")
@click.argument("roles", nargs=-1, type=_ROLE)
@click.option("--none", is_flag=True, help="Take every role away.")
@pass_session
def set_roles(
    session: CliSession, name: str, roles: tuple[str, ...], none: bool
) -> None:
    """Give a person exactly these ROLES; whoever is signed in as them is signed out."""
    if none == bool(roles):
        raise UsageError("name the roles they shall have", "or --none")
    with _users(session) as users:
        person = users.named(name)
        _record(session, users, "role", person, roles)
        person = users.set_roles(name, roles)
    if session.json:
        session.out.json(_shape(person))
    else:
        session.out.line(f"{person.name}: {', '.join(person.roles) or 'no role'}")


@command("remove", example="agentvault tenant user remove alice", prints_data=True)
@click.argument("name")
@pass_session
def remove_user(session: CliSession, name: str) -> None:
    """Remove a person: they sign in no more, and what was issued to them ends."""
    with _users(session) as users:
        person = users.named(name)
        _record(session, users, "removed", person)
        users.remove(name)
    if session.json:
        session.out.json({"user": person.name, "sub": person.sub, "removed": True})
    else:
        session.out.line(f"removed {person.name}")


@command("rotate-keys", example="agentvault tenant rotate-keys", prints_data=True)
@click.option(
    "--revoke",
    is_flag=True,
    help="Replace every key, and accept nothing that was signed before.",
)
@pass_session
def rotate(session: CliSession, revoke: bool) -> None:
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


for _command in (add_user, list_users, new_otp, new_password, set_roles, remove_user):
    user.add_command(_command)
for _member in (user, activate, rotate):
    tenant.add_command(_member)


def _only_embedded(session: CliSession, what: str) -> None:
    if session.settings.tenant.issuer:
        raise UsageError(
            f"{what} are kept by the tenant {session.settings.tenant.issuer}",
            "manage them there; these commands are for the embedded tenant",
        )


def _users(session: CliSession) -> UserStore:
    _only_embedded(session, "people")
    store: UserStore = lazy_room("tenant.users").UserStore(session.home)
    return store


def _record(
    session: CliSession,
    users: UserStore,
    change: str,
    person: User | str,
    roles: Iterable[str] = (),
) -> None:
    """Record a change of people before it is made; whoever may not make it is refused.

    A running broker judges and records it. With none running it goes into the ledger
    from here, and where a change needs a role there is nobody to show it to.

    Raises:
        AgentVaultError: it may not be made, or cannot be recorded.
    """
    name, sub = (person, "") if isinstance(person, str) else (person.name, person.sub)
    held = list(roles)
    try:
        changed = requests.PeopleRequest(
            change=change, user=name, sub=sub, roles=tuple(held)
        )
        session.client.call(calls.PEOPLE, changed)
    except UnreachableError as error:
        bound = session.settings.operators.by_claim
        if bound and any(one.approver and not one.blocked for one in users.list()):
            raise UnreachableError(
                f"{error.what}, and changing people takes an approver who signs in "
                "there ([operators] roles is claim)",
                "agentvault serve, then agentvault login",
            ) from None
        uid = os.getuid()
        actor = Actor(ActorKind.OPERATOR, f"uid:{uid}", user_name(uid))
        asyncio.run(_commit(session, user_changed(actor, change, name, sub, held)))


async def _commit(session: CliSession, draft: Draft) -> None:
    """Write an event into the ledger of a home that no broker has.

    Raises:
        HomeInUseError: a broker has it, and does not answer.
        LedgerError: it cannot be written.
    """
    clock = lazily("agentvault_tui.clock", "SystemClock")()
    ledger = await lazy_room("ledger").Ledger.open(session.home, clock=clock)
    try:
        await ledger.commit(draft)
    finally:
        await ledger.close()


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
