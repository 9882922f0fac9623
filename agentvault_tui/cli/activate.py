"""``agentvault tenant activate``: the second device for people without a browser."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from agentvault_tui.cli.device import followed
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.cli.terminal import confirm
from agentvault_tui.errors import TenantError, TenantRefusedError, UsageError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.requests import StepUpQuery
from agentvault_tui.text import clip

_TRIES: Final = 3
_AGAIN: Final = frozenset({"wrong_sign_in", "wrong_otp"})
_OUTCOMES: Final = {
    "approved": "the broker accepted it",
    "confirmed": "what asked for the code shows whether it was accepted",
}
_PASSWORD_CAP: Final = 4096


@command(
    "activate",
    example="agentvault tenant activate KDRT-WZNB --user alice",
    prints_data=True,
)
@click.argument("user_code")
@click.option("--user", "user", required=True, help="Who you are at the tenant.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A private file with the password, or - for standard input.",
)
@click.option("--otp", help="The one-time code; otherwise it is asked for.")
@click.option("--yes", is_flag=True, help="Approve what is shown without asking.")
@pass_session
def activate(session: CliSession, /, user_code: str, user: str, **given: Any) -> int:
    """Sign in for USER_CODE and approve, over the HTTP a browser would speak.

    Shows what is being approved and its fingerprint: compare it with the screen that
    asked. Then waits for the broker: exits 0 when it accepted the approval, 1 when it
    did not, or when you or the tenant say no.
    """
    if not (given["yes"] or sys.stdin.isatty()):
        raise UsageError("there is no terminal to ask yes or no at", "give --yes")
    room = lazy_room("tenant.device_page_client")
    path = given["password_file"]
    password = _read_password(path) if path else None
    issuer = _issuer(session)  # first: it says whether this home has a tenant at all
    with room.Activation(prove=_prover(session)) as page:
        details = page.open(issuer, user_code)
        if not session.json:
            _print_details(session.out, details)
        _factor("password", password, lambda word: page.sign_in(user, word))
        _factor("one-time code", given["otp"], page.one_time_code)
        agreed = given["yes"] or confirm("Approve exactly this?")
        asked = _waiting(session, details.user_code)
        if agreed:
            page.confirm()
        else:
            page.cancel()
    answer, problem = _accepted(session, asked) if agreed else ("cancelled", None)
    if session.json:
        session.out.json({"answer": answer, "problem": problem, **_shape(details)})
    else:
        session.out.line(session.out.word(answer))
        refused = f"the broker refused it: {problem}" if problem else ""
        if note := _OUTCOMES.get(answer, refused):
            session.out.note(note)
    return 0 if answer in _OUTCOMES else 1


def _waiting(session: CliSession, user_code: str) -> str | None:
    """Return the id of the step-up that waits for *user_code*; None for a login."""
    waiting = session.client.call(calls.STEPUPS, StepUpQuery(status="authorizing"))
    for item in waiting.stepups:
        if item.device and item.device.user_code == user_code:
            return item.id
    return None


def _accepted(session: CliSession, stepup_id: str | None) -> tuple[str, str | None]:
    """Wait for what the broker makes of the sign-in: only it knows who may approve."""
    if stepup_id is None:
        return "confirmed", None
    ended = followed(
        session,
        lambda: session.client.call(calls.STEPUP, id=stepup_id),
        lambda item: item.status == "authorizing",
    )
    if ended.status in {"approved", "redeemed"}:
        return "approved", None
    return "refused", ended.problem or ended.status


def _prover(session: CliSession) -> Callable[[str], str] | None:
    """Return what shows the tenant that this is its home's owner, if it is."""
    try:
        seal = lazy_room("tenant.sealing").Seal.of(session.home)
    except TenantError:
        return None
    proof_of = lazy_room("tenant.lanes").proof_of
    return lambda user_code: str(proof_of(seal, user_code))


def _issuer(session: CliSession) -> str:
    """Return where the tenant is, as the running broker says."""
    tenant = session.client.call(calls.STATUS).tenant
    if tenant.kind != "embedded":
        raise UsageError(
            f"the tenant is {tenant.issuer}, whose pages need a browser",
            "open the link the console shows",
        )
    return tenant.issuer


def _factor(name: str, given: str | None, send: Callable[[str], None]) -> None:
    """Send one factor; what was typed wrong may be typed again."""
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
    """Read the first line of a file nobody else can read, or of standard input."""
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


def _print_details(out: Output, details: Any) -> None:
    """Show what the tenant says this code is for; it is `Shown` already."""
    if details.agent_id is None:
        out.line("This signs you in as an operator; it approves no agent's action.")
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
    out.fields(
        [
            ("fingerprint", cell(details.fingerprint, "strong")),
            ("agent", cell(f"{details.agent_name} ({details.agent_id})")),
            ("wants to", cell(details.action, "strong")),
            *([("grants", cell(details.scope))] if details.scope else []),
            ("on", cell(details.resource)),
            *(
                [("hands out", cell(f"a token of the account at {details.connection}"))]
                if details.connection
                else []
            ),
            *(
                ("with", cell(f"{name} = {value}"))
                for name, value in details.parameters
            ),
            *(("also", cell(f"{name} = {value}")) for name, value in details.others),
            ("risk", out.word(details.risk)),
            ("why ask", cell(details.why)),
            ("asked", cell(f"{details.requested_at} on {details.requested_on}")),
        ]
    )
    out.line("Compare the fingerprint with the screen that asked.")


def _shape(details: Any) -> dict[str, Any]:
    return {
        "user_code": details.user_code,
        "fingerprint": details.fingerprint,
        "agent_id": details.agent_id,
        "agent_name": details.agent_name,
        "action": details.action,
        "scope": details.scope,
        "resource": details.resource,
        "parameters": {
            name: value
            for (name, _), value in zip(details.parameters, details.values, strict=True)
        },
        "other_details": [list(row) for row in details.others],
        "unlimited": details.unlimited,
        "risk": details.risk,
        "connection": details.connection,
    }
