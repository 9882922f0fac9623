"""``agentvault tenant``: the embedded tenant's users, approvals and signing keys."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from agentvault_tui.cli.device import followed, print_qr
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.output import Cell, Output, confirm, short_time
from agentvault_tui.cli.people import (
    change_person,
    only_embedded,
    open_users,
    record_keys,
)
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SharedClock, SystemClock, iso
from agentvault_tui.errors import (
    SealedError,
    TenantRefusedError,
    UsageError,
)
from agentvault_tui.model import CHANGE_ID
from agentvault_tui.model.role import Role
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import StepUpQuery, StepUpShowQuery
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.text import clip

if TYPE_CHECKING:
    from agentvault_tui.tenant.device_page_client import Details
    from agentvault_tui.web.public import LocalSite

_TRIES: Final = 3
_AGAIN: Final = frozenset({"wrong_sign_in", "wrong_otp", "used_otp"})
_OUTCOMES: Final = {
    "approved": "the broker accepted it",
    "confirmed": "what asked for the code shows whether it was accepted",
}
_PASSWORD_CAP: Final = 4096
_SHAPE: Final = (
    *("user_code", "fingerprint", "agent_id", "agent_name", "action", "scope"),
    *("resource", "unlimited", "risk", "connection", "repeat"),
)
_ROLE = click.Choice([role.value for role in Role])


@group("tenant", on_home=True, example="agentvault tenant user add alice --approver")
def tenant() -> None:
    """Manage the embedded tenant's people and keys; approve without a browser."""


@tenant.group("user", example="agentvault tenant user list")
def user() -> None:
    """Add, list, change and remove people; each change is in the audit log.

    If `[operators] roles` is `claim`, a change needs a signed-in approver as soon as
    there is one.
    """


@tenant.command("activate", example="agentvault tenant activate KDRT-WZNB --user alice")
@click.argument("user_code")
@click.option("--user", "user", required=True, help="Your user name at the tenant.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A private file with the password, or - for standard input.",
)
@click.option("--otp", help="The one-time code; otherwise it is asked for.")
@click.option("--yes", is_flag=True, help="Approve what is shown without asking.")
@pass_session
def activate(session: CliSession, /, user_code: str, user: str, **given: Any) -> int:
    """Sign in for USER_CODE and approve, without a browser.

    Shows the request and its fingerprint: compare it with the screen that asked. Then
    waits for the broker: exits 0 if it accepted the approval, and 1 if it did not, or
    if you or the tenant refused.
    """
    from agentvault_tui.tenant.device_page_client import Activation

    if not (given["yes"] or sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask yes or no at", "give --yes")
    path = given["password_file"]
    password = _read_password(path) if path else None
    issuer = _local(session)  # first: it says whether this home has a tenant at all
    with Activation(prove=_prover(session)) as page:
        details = page.open(issuer, user_code)
        stepup = _waiting(session, details)
        if not session.json:
            _print_details(session.out, details, _held_facts(session, details, stepup))
            _print_change(session, details, stepup)
        _factor("password", password, lambda word: page.sign_in(user, word))
        _factor("one-time code", given["otp"], page.one_time_code)
        agreed = given["yes"] or confirm("Approve exactly this?")
        if agreed:
            page.confirm()
        else:
            page.cancel()
    answer, problem = _accepted(session, stepup) if agreed else ("cancelled", None)
    if session.json:
        session.out.json(
            {"answer": answer, "problem": problem, **_activation_shape(details)}
        )
    else:
        session.out.line(session.out.word(answer))
        refused = f"the broker refused it: {problem}" if problem else ""
        if note := _OUTCOMES.get(answer, refused):
            session.out.note(note)
    return 0 if answer in _OUTCOMES else 1


def _waiting(session: CliSession, details: Details) -> StepUpInfo | None:
    """Return the step-up that waits for the code of *details*; None for a sign-in.

    This one has no code of a step-up that was begun at another broker of the team:
    agent and fingerprint identify it.
    """
    waiting = session.client.call(calls.STEPUPS, StepUpQuery(status="authorizing"))
    for item in waiting.stepups:
        if item.device is None:
            match = (item.agent_id, item.fingerprint)
            if match == (details.agent_id, details.fingerprint):
                return item
        elif item.device.user_code == details.user_code:
            return item
    return None


def _held_facts(
    session: CliSession, details: Details, stepup: StepUpInfo | None
) -> list[tuple[str, str]]:
    """Return the facts of a held call that the page does not show, with a label each.

    The broker is asked for headers and body. They count where the fingerprint is the
    page's, and the body has the length and SHA-256 that the page shows.
    """
    if not details.request:
        return []
    sent: dict[str, str] = {f"{name}": value for name, value in details.request}
    if stepup is not None and stepup.fingerprint == details.fingerprint:
        from agentvault_tui.presenters.body import body_view
        from agentvault_tui.presenters.intake import Intake
        from agentvault_tui.presenters.stepup_rows import request_facts, unreadable

        row = Intake(ascii_only=session.out.ascii_only).stepup(stepup)
        if (held := row.request) and (
            held.body_sha256,
            f"{held.described.size}",
        ) == (
            sent.get("body_sha256"),
            sent.get("body_bytes"),
        ):
            answer = session.client.call(calls.STEPUP_BODY, id=stepup.id)
            body = body_view(held, answer, ascii_only=session.out.ascii_only)
            width = session.out.width or 100
            warned = unreadable(held, session.out.pen)
            first = [("Warning", warned)] if warned else []
            return [*first, *request_facts(row, body, width)]
    sent_body = f"{sent.get('body_bytes')} bytes, SHA-256 {sent.get('body_sha256')}"
    return [
        ("Body", sent_body),
        ("  but", "headers and body cannot be shown here: read them in the console"),
    ]


def _print_change(
    session: CliSession, details: Details, stepup: StepUpInfo | None
) -> None:
    """Print the lines that a change replaces, which its fingerprint covers."""
    if not (details.action or "").startswith("change:"):
        return
    if stepup is not None and stepup.fingerprint == details.fingerprint:
        from agentvault_tui.cli.changes import print_texts

        print_texts(session.out, session.client.call(calls.CHANGE, id=stepup.id))
    else:
        session.out.note(
            "the lines that differ cannot be shown here: read them on the approval"
            " page, or in the console of the broker that asked"
        )


def _accepted(session: CliSession, stepup: StepUpInfo | None) -> tuple[str, str | None]:
    """Wait for the broker's judgement of the sign-in."""
    if stepup is None:
        return "confirmed", None
    brief = StepUpShowQuery(body=False)
    ended = followed(
        session,
        lambda: session.client.call(calls.STEPUP, brief, id=stepup.id),
        lambda item: item.status == "authorizing",
    )
    if ended.status in {"approved", "redeemed", "applied"}:
        return "approved", None
    return "refused", ended.problem or ended.status


def _prover(session: CliSession) -> Callable[[str], str] | None:
    """Return the function that proves to the tenant that its home's owner asks."""
    from agentvault_tui.tenant.signin import proof_of
    from agentvault_tui.tenant.store import TenantSeal

    try:
        seal = TenantSeal.of(session.home, shared=bool(session.settings.store.url))
    except SealedError:
        return None
    return lambda user_code: proof_of(seal, user_code)


def _local(session: CliSession) -> str:
    """Return where the running embedded tenant is on loopback."""
    from agentvault_tui.tenant.parts import HOST, PORT_FILE

    tenant = session.client.call(calls.STATUS).tenant
    if tenant.kind != "embedded":
        raise UsageError(
            f"the tenant is {tenant.issuer}, whose pages need a browser",
            "open the link the console shows",
        )
    port = (session.home.tenant / PORT_FILE).read_text("ascii")
    return f"http://{HOST}:{port}/"


def _factor(name: str, given: str | None, send: Callable[[str], None]) -> None:
    """Send one factor; ask again after a mistake."""
    for left in reversed(range(_TRIES)):
        try:
            send(given if given is not None else _ask(name))
        except TenantRefusedError as error:
            if given is not None or left == 0 or error.error not in _AGAIN:
                raise
            click.echo(f"{error.diagnosis()} Try again.", err=True)
        else:
            return


def _ask(name: str) -> str:
    """Ask at the terminal, without echo."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"the {name} is needed, and there is no terminal to ask at",
            "give --password-file and --otp",
        )
    return str(click.prompt(name.capitalize(), hide_input=True, err=True))


def _read_password(path: Path) -> str:
    """Read the first line of a private file, or of standard input."""
    if str(path) == "-":
        return sys.stdin.readline(_PASSWORD_CAP).rstrip("\r\n")
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            # A pipe or /dev/fd/N has no mode worth asking about.
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
                raise UsageError(
                    f"others can read {path}", f"chmod 600 {path}, then again"
                )
            password = file.readline(_PASSWORD_CAP).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the password file {path} cannot be read", "check its path and owner"
        ) from error
    if not password:
        raise UsageError(f"the password file {path} is empty", "write it in one line")
    return password


def _print_details(
    out: Output, details: Details, held: Iterable[tuple[str, str]]
) -> None:
    """Print the content of the code's approval; texts are `Shown` already."""
    if details.agent_id is None:
        out.line("This signs you in as an operator; it approves no agent's action.")
        if details.requested_on:
            out.line("On another machine: ", out.cell(details.requested_on, "strong"))
            out.line("Continue only if `agentvault login` shows you exactly this.")
        return

    def cell(text: str | None, style: str = "") -> Cell:
        # The page has spelled out what is hidden: only the alphabet is left.
        if text and not out.ascii_only:
            return Cell(clip(text, 2000), style)
        return out.cell(text, style, 2000)

    if details.unlimited:
        warning = (
            f"NOTHING LIMITS THIS: {details.agent_name} may use {details.action} for "
            f"anything, once, within {details.ttl} s."
        )
        out.line(cell(warning, "bad"))
    if details.repeat:
        out.line(cell(f"NOT ONCE: this also approves {details.repeat}.", "bad"))
    sent: dict[str, str] = {f"{name}": value for name, value in details.request}
    out.fields(
        [
            ("fingerprint", cell(details.fingerprint, "strong")),
            (
                "requested by"
                if details.agent_id.startswith(f"{CHANGE_ID}_")
                else "agent",
                cell(f"{details.agent_name} ({details.agent_id})"),
            ),
            ("wants to", cell(details.action, "strong")),
            ("scopes", cell(details.scope)) if details.scope else None,
            ("on", cell(details.resource)),
            ("hands out", cell(f"a token of the account at {details.connection}"))
            if details.connection
            else None,
            *(
                ("with", cell(f"{name} = {value}"))
                for name, value in details.parameters
            ),
            *(("also", cell(f"{name} = {value}")) for name, value in details.others),
            ("request", cell(f"{sent.get('method')} {sent.get('url')}", "strong"))
            if sent
            else None,
            *((label.strip().lower(), cell(value)) for label, value in held),
            ("risk", out.word(details.risk)),
            ("why ask", cell(details.why)),
            ("asked", cell(f"{details.requested_at} on {details.requested_on}")),
        ]
    )
    out.line("Compare the fingerprint with the screen that asked.")


def _activation_shape(details: Details) -> dict[str, object]:
    """Return the approval's content for ``--json``."""
    parameters = zip(details.parameters, details.values, strict=True)
    return {
        **{name: getattr(details, name) for name in _SHAPE},
        "parameters": {name: value for (name, _), value in parameters},
        "other_details": [list(row) for row in details.others],
        "request": dict(details.request) or None,
    }


@user.command("add", example="agentvault tenant user add alice --approver")
@click.argument("name")
@click.option("--approver", is_flag=True, help="The same as --role approver.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=_ROLE,
    help="Their role once signed in; each includes those before it.",
)
@pass_session
def add_user(
    session: CliSession, name: str, approver: bool, roles: tuple[str, ...]
) -> None:
    """Add a person; password and one-time code seed are shown only once."""
    from agentvault_tui.tenant.users import checked_roles

    held = [*roles, *([Role.APPROVER.value] if approver else [])]
    with open_users(session) as users:
        name, held = users.free(name), [*checked_roles(held)]
        made = change_person(session, users, "added", name, roles=held)
    out = session.out
    if not out.print_json({"user": name, **made}):
        roles_given = ("roles", ", ".join(held))
        password = ("password", made["password"])
        _print_otp(out, made, ("user", out.cell(name, "strong")), roles_given, password)


@user.command("list", example="agentvault tenant user list --json")
@pass_session
def list_users(session: CliSession) -> None:
    """List the people who can sign in."""
    with open_users(session) as users:
        people = users.all()
        passkeys = {one.sub: users.passkeys(sub=one.sub) for one in people}
    out = session.out
    if session.json:
        shapes = [_shape(one) | {"passkeys": passkeys[one.sub]} for one in people]
        out.json({"users": shapes})
    elif not people:
        out.line("nobody yet: `agentvault tenant user add NAME --approver`")
    else:
        out.table(
            ("NAME", "ROLES", "SUBJECT", "ADDED", "PASSKEYS"),
            [
                [
                    out.cell(person.name, "strong"),
                    ", ".join(person.roles),
                    *(person.sub, short_time(person.created_at)),
                    " ".join(str(one["id"]) for one in passkeys[person.sub]),
                ]
                for person in people
            ],
            keep=("SUBJECT", "PASSKEYS"),
        )


@user.command("otp", example="agentvault tenant user otp alice")
@click.argument("name")
@pass_session
def new_otp(session: CliSession, name: str) -> None:
    """Replace a person's one-time code seed (lost phone); also ends a lock."""
    with open_users(session) as users:
        person = users.named(name)
        made = change_person(session, users, "factor", person)
    if not session.out.print_json({"user": name, **made}):
        _print_otp(session.out, made)


@user.command("passkey", example="agentvault tenant user passkey alice")
@click.argument("name")
@click.option(
    "--remove", metavar="ID", help="Delete this passkey; `user list` shows ids."
)
@pass_session
def passkey(session: CliSession, name: str, remove: str | None) -> None:
    """Print a link that adds a passkey for NAME in the browser that opens it.

    It works once, within ten minutes, for anybody who has it: give it only to NAME.
    With [tenant] listen and url, and a host name, phones can open it. Without them it
    is for browsers of this machine, at http://localhost, while the broker runs.
    """
    from agentvault_tui.tenant.users import LINK_SECONDS

    with open_users(session) as users:
        person = users.named(name)
        if remove is not None:
            change_person(session, users, "passkey_removed", person, passkey=remove)
            if not session.out.print_json({"user": person.name, "removed": remove}):
                session.out.line(f"removed a passkey of {person.name}")
            return
        from agentvault_tui.web.public import PublicAddress

        public = PublicAddress.of(session.home, session.settings.tenant)
        site = public or _on_this_machine(session)
        if not site.named:
            raise UsageError(
                "phones do not reach the tenant by a host name",
                "set listen, url, tls_cert and tls_key of [tenant] in config.toml",
            )
        made = change_person(session, users, "passkey", person)
        link = f"{site.url}passkey/{made['token']}"
    summary = {"user": person.name, "link": link, "expires_in": LINK_SECONDS}
    if session.out.print_json(summary):
        return
    if public is not None:
        print_qr(session.out, link)
    session.out.line(session.out.cell(link, "strong", 500))
    where = "on this machine" if public is None else "on the phone that opens it"
    session.out.note(f"good once, for 10 minutes, {where}")


def _on_this_machine(session: CliSession) -> LocalSite:
    """Return where the tenant's pages are for browsers of this machine.

    Raises:
        UnreachableError: no broker runs, so they are not served.
    """
    from agentvault_tui.web.public import LocalSite

    page = session.client.call(calls.ME).page
    port = urlsplit(page or "").port
    if port is None:
        raise UsageError(
            "the tenant has no pages on this machine", "agentvault tenant user list"
        )
    return LocalSite(port)


@user.command("password", example="agentvault tenant user password alice")
@click.argument("name")
@pass_session
def new_password(session: CliSession, name: str) -> None:
    """Reset a person's password; the new one is shown only once."""
    with open_users(session) as users:
        person = users.named(name)
        made = change_person(session, users, "password", person)
    if not session.out.print_json({"user": person.name, **made}):
        session.out.fields([("password", made["password"])])
        session.out.note("this is shown once: keep it now")


@user.command("role", example="agentvault tenant user role alice approver")
@click.argument("name")
@click.argument("roles", nargs=-1, type=_ROLE)
@click.option("--none", is_flag=True, help="Remove every role.")
@pass_session
def set_roles(
    session: CliSession, name: str, roles: tuple[str, ...], none: bool
) -> None:
    """Give a person exactly these ROLES, and sign them out."""
    if none == bool(roles):
        raise UsageError("name the roles they shall have", "or --none")
    with open_users(session) as users:
        person = users.named(name)
        change_person(session, users, "role", person, roles=roles)
        person = users.named(name)
    if not session.out.print_json(_shape(person)):
        session.out.line(f"{person.name}: {', '.join(person.roles) or 'no role'}")


@user.command("remove", example="agentvault tenant user remove alice")
@click.argument("name")
@pass_session
def remove_user(session: CliSession, name: str) -> None:
    """Remove a person: they cannot sign in, and their sessions and tokens end."""
    with open_users(session) as users:
        person = users.named(name)
        change_person(session, users, "removed", person)
    if not session.out.print_json(
        {"user": person.name, "sub": person.sub, "removed": True}
    ):
        session.out.line(f"removed {person.name}")


@tenant.command("rotate-keys", example="agentvault tenant rotate-keys")
@click.option(
    "--revoke",
    is_flag=True,
    help="Replace every key, and accept nothing that was signed before.",
)
@pass_session
def rotate(session: CliSession, revoke: bool) -> None:
    """Sign with a new key from now on; the tenant need not run.

    The old key's private part is deleted at once. Its tokens are accepted until they
    expire: minutes for sign-ins, the lifetime of an API's tokens for those.

    If a key may have been stolen, use --revoke, and restart the broker: it can cache
    the old keys for an hour. Refresh tokens are not signed and stay valid.
    """
    from agentvault_tui.tenant.keys import rotate_keys

    only_embedded(session, "signing keys")
    clock = SharedClock(SystemClock())
    record_keys(session, revoke=revoke)
    done = rotate_keys(session.home, session.settings, clock, revoke=revoke)
    out, until = session.out, iso(done.retired_until)
    if out.print_json(asdict(done) | {"retired_until": until}):
        return
    out.fields(
        [
            ("signs now", out.cell(done.current, "strong")),
            ("next", out.cell(done.next)),
            ("revoked" if revoke else "retired", out.cell(done.retired)),
            ("accepted until", out.cell(until[:19] + "Z")),
        ]
    )


def _shape(person: Any) -> dict[str, Any]:
    return {
        "sub": person.sub,
        "name": person.name,
        "approver": person.approver,
        "roles": list(person.roles),
        "created_at": person.created_at,
    }


def _print_otp(out: Output, made: Mapping[str, Any], *facts: Any) -> None:
    """Print the QR code first, so that *facts* stay on a small screen."""
    uri = str(made["otpauth_uri"])
    print_qr(out, uri)
    seed = ("one-time code seed", made["otp_secret"])
    out.fields([*facts, seed, ("for an app", out.cell(uri, limit=500))])
    out.note("this is shown once: scan or keep it now")
