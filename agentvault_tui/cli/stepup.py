"""``agentvault stepup``: list step-ups, show, approve and deny them."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click
from msgspec.structs import asdict

from agentvault_tui.cli.agent_scopes import say_recorded
from agentvault_tui.cli.device import followed, print_device
from agentvault_tui.cli.framework import (
    RenamedOption,
    TimeSpan,
    group,
    pass_session,
)
from agentvault_tui.cli.lookup import agent_names, find_agent, stepup_ids
from agentvault_tui.cli.output import Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.model import repeat_words
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.gateway import HeldBody
from agentvault_tui.operator_api.sessions import DeskInfo
from agentvault_tui.operator_api.stepups import StepUpInfo, people
from agentvault_tui.presenters.records import (
    STEPUP_WORDS,
    stepup_state,
)
from agentvault_tui.text import visible

_BRIEF: Final = requests.StepUpShowQuery(body=False)
_GRANTED: Final = frozenset({"approved", "redeemed", "applied"})
_BEGUN_ELSEWHERE: Final = (
    "another broker of the team began this, and the code is shown there: this waits "
    "for what becomes of it"
)


@group("stepup", example="agentvault stepup list")
def stepup() -> None:
    """Decide the requests that policy puts before a person."""


@stepup.command("list", example="agentvault stepup list --status waiting")
@click.option(
    "--status", help="Only those: waiting, verifying, approved, denied and so on."
)
@click.option(
    "--agent",
    help="Only this agent's: id or unique name.",
    shell_complete=agent_names,
)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50)
@pass_session
def list_stepups(
    session: CliSession, status: str | None, agent: str | None, limit: int
) -> None:
    """List the waiting requests, then the last decisions."""
    client, out = session.client, session.out
    agent_id = find_agent(client, agent).id if agent else None
    wire = {word: name for name, word in STEPUP_WORDS.items()}
    status = wire.get(status, status) if status else None
    query = requests.StepUpQuery(status=status, agent=agent_id, limit=limit)
    answer = client.call(calls.STEPUPS, query)
    if out.print_json(answer):
        return
    if not answer.stepups:
        out.line("nothing waits for a person")
        return
    from agentvault_tui.presenters.intake import Intake
    from agentvault_tui.presenters.stepups import subject

    read = Intake(ascii_only=out.ascii_only).stepup
    out.table(
        ("ID", "STATUS", "AGENT", "RISK", "FINGERPRINT", "EXPIRES", "WANTS", "ON"),
        [
            [
                item.id,
                out.word(stepup_state(item.status)),
                out.cell(item.agent_name, "strong", 40),
                out.word(item.risk),
                *(item.fingerprint, short_time(item.expires_at)),
                out.cell(
                    subject(row)
                    if row.is_change
                    else f"{row.action} {row.gist}".strip(),
                    limit=60,
                ),
                out.cell("NOTHING LIMITS IT", "bad")
                if item.unlimited
                else out.cell(item.resource, limit=40),
            ]
            for item, row in zip(answer.stepups, map(read, answer.stepups), strict=True)
        ],
        keep=("WANTS", "ON"),
    )


_OTP: Final = re.compile(r"[0-9]{6}")
_LINE: Final = 300
"""Characters of a line of standard input that are read."""
_HEX_BYTES: Final = 256
"""Bytes of a body that is no text, so that the facts above them stay on the screen."""


@stepup.command("show", example="agentvault stepup show sup_8m1c4tq9x2w7k3zn")
@click.argument("stepup_id", metavar="ID", shell_complete=stepup_ids)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a held call's body to this new file, byte for byte.",
)
@pass_session
def show_stepup(session: CliSession, stepup_id: str, save: Path | None) -> None:
    """Show the exact request, its fingerprint, and earlier decisions."""
    client, out = session.client, session.out
    brief = None if session.json else _BRIEF  # text is written from the bytes
    info = client.call(calls.STEPUP, brief, id=stepup_id)
    if save is not None:
        body = client.call(calls.STEPUP_BODY, id=stepup_id)
        opaque = info.request is not None and info.request.body_kind == "opaque"
        _save_body(body, save, opaque=opaque)
    if session.json:
        before = client.call(calls.BEFORE, id=stepup_id).stepups
        out.json({**asdict(info), "before": before})
    else:
        print_all(session, info)


@stepup.command("approve", example="agentvault stepup approve sup_8m1c4tq9x2w7k3zn")
@click.argument("stepup_id", metavar="ID", shell_complete=stepup_ids)
@click.option(
    "--repeat", "count", type=click.IntRange(1, 20), help="Approve N more like it."
)
@click.option(
    "--for",
    "--within",
    "within",
    cls=RenamedOption,
    type=TimeSpan(most=3600),
    help="How long these may come: 10m, an hour at most.",
)
@click.option(
    "--bound",
    "bounds",
    multiple=True,
    metavar="NAME=MAX",
    help="Where those may differ, up to MAX: amount, count, recipients; repeat it.",
)
@click.option(
    "--here",
    is_flag=True,
    help="Ask for a one-time code here, where you have signed in; no other device.",
)
@click.option(
    "--key",
    "by_key",
    is_flag=True,
    help="Sign with the security key at this machine, where you have signed in.",
)
@pass_session
def approve_stepup(
    session: CliSession,
    stepup_id: str,
    *,
    count: int | None,
    within: int | None,
    bounds: tuple[str, ...],
    here: bool,
    by_key: bool,
) -> int:
    """Approve with a second factor: prints the code and waits for the tenant.

    With --here the one-time code of the person who did `agentvault login` approves. It
    is asked for, or read from standard input: one line, and the password on a second if
    the sign-in is older than eight hours.

    With --key a security key of that person approves. Its PIN is asked for, or read
    from standard input, and is sent only to the key; then the key waits to be touched.

    With --repeat and --for the next ones like it need no person: equal but for the
    parameters that --bound names, until one deviates. `stepup deny` ends the rest of
    them.

    Exits 0 when approved, or recorded as one of several approvals, else 1. Leaving
    with Ctrl-C stops the waiting, not the sign-in.
    """
    if here and by_key:
        raise UsageError("--here and --key are two ways to approve", "give one")
    client, out = session.client, session.out
    repeat = _repeat(count, within, bounds)
    waiting = client.call(calls.STEPUP, _BRIEF, id=stepup_id)
    if not session.json:
        print_all(session, waiting)
    # The digest of what was printed above, not of whatever stands there by now.
    approval = requests.DecisionRequest(
        id=waiting.id,
        decision="approve",
        digest=waiting.digest,
        repeat=repeat,
        factor=_typed(session) if here else None,
    )
    if by_key:
        approval.factor = _signed(session, approval)
    started = client.call(calls.DECIDE, approval)
    if session.json:
        out.json(started)
    elif started.device and started.repeat is not None:
        most = {n: one["max"] for n, one in started.repeat.bounds.items()}
        series = repeat_words(started.repeat.count, started.repeat.within, most)
        out.line("with ", out.cell(series))
        out.line("fingerprint ", out.cell(started.fingerprint, "strong"))
    if approval.factor is not None:
        started.device = None  # nobody needs its code any more
    ended, code = follow_approval(session, waiting, started)
    if not out.print_json(ended):
        print_end(out, ended)
    return code


def _typed(session: CliSession) -> requests.Factor:
    """Read the typed factor of an approval here: never an argument, never shown.

    Raises:
        UsageError: no person is signed in here, or it is no code.
    """
    desk = _desk(session)
    due = datetime.now(UTC) >= parse_iso(desk.fresh_until)
    if sys.stdin.isatty():
        otp = click.prompt(f"One-time code of {visible(desk.name, 40)}", err=True)
        hidden = partial(click.prompt, hide_input=True, err=True)
        password = hidden("Password") if due else ""
    else:
        otp, password = (sys.stdin.readline(_LINE).strip() for _ in range(2))
    otp = str(otp).replace(" ", "")
    if not _OTP.fullmatch(otp):
        raise UsageError("a one-time code has six digits")
    return requests.Factor(otp=otp, password=str(password))


def _signed(session: CliSession, approval: requests.DecisionRequest) -> requests.Factor:
    """Have the security key of the signed-in person sign for exactly this approval.

    Raises:
        UsageError: no person is signed in here.
        SecurityKeyError: the key signed nothing.
    """
    from agentvault_tui.operator_api.security_key import (
        PIN_LENGTH,
        SecurityKeys,
    )

    _desk(session)
    keys, pin = SecurityKeys(), ""
    if asyncio.run(keys.needs_pin()):
        if sys.stdin.isatty():
            pin = click.prompt("PIN of your security key", hide_input=True, err=True)
        else:
            pin = sys.stdin.readline(PIN_LENGTH + 1).strip("\n")
    subject = requests.KeyRequest(
        id=approval.id, digest=approval.digest, repeat=approval.repeat
    )
    wanted = session.client.call(calls.KEY_CHALLENGE, subject)
    touch = partial(session.out.note, "Touch the security key: it approves this alone.")
    return requests.Factor(passkey=asyncio.run(keys.sign(wanted, pin, touch)))


def _desk(session: CliSession) -> DeskInfo:
    """Return the person who has signed in here.

    Raises:
        UsageError: no person has.
    """
    desk = session.client.call(calls.ME).desk
    if desk is None:
        raise UsageError("nobody is signed in here", "agentvault login")
    return desk


def follow_approval(
    session: CliSession,
    stepup: StepUpInfo | ChangeInfo,
    started: StepUpInfo | ChangeInfo,
) -> tuple[StepUpInfo, int]:
    """Print the place of the second factor, and wait for the result.

    Args:
        session: the command's session.
        stepup: the request before.
        started: the answer to the decision.

    Returns:
        the request then; and 0 where it was approved, or this approval recorded as
        one of several, else 1.

    Raises:
        UnreachableError: the broker does not answer.
    """
    client = session.client
    if started.device and not session.json:
        print_device(session, started.device)
    elif started.status == "authorizing" and not started.device:
        session.out.note(_BEGUN_ELSEWHERE)
    ended = followed(
        session,
        lambda: client.call(calls.STEPUP, _BRIEF, id=stepup.id),
        lambda item: item.status == "authorizing",
    )
    before, now = (
        one.approvals.have if one.approvals else 0 for one in (stepup, ended)
    )
    is_recorded = ended.status == "pending" and now > before
    return ended, 0 if ended.status in _GRANTED or is_recorded else 1


@stepup.command(
    "deny", example="agentvault stepup deny sup_8m1c4tq9x2w7k3zn --reason 'no invoice'"
)
@click.argument("stepup_id", metavar="ID", shell_complete=stepup_ids)
@click.option("--reason", default="", help="Why; the agent reads it.")
@pass_session
def deny_stepup(session: CliSession, stepup_id: str, reason: str) -> None:
    """Say no; needs no second factor, and works while someone is approving."""
    denial = requests.DecisionRequest(id=stepup_id, decision="deny", reason=reason)
    denied = session.client.call(calls.DECIDE, denial)
    if not session.out.print_json(denied):
        print_end(session.out, denied)
        say_recorded(session.out, denied)


def _repeat(
    count: int | None, within: int | None, bounds: tuple[str, ...]
) -> requests.RepeatRequest | None:
    """Return the repeat in the options; without them there is none."""
    if count is None and within is None and not bounds:
        return None
    if count is None or within is None:
        raise UsageError("give --repeat N and --for TIME together")
    try:
        return requests.RepeatRequest.of(count, within, bounds)
    except ValueError as error:
        raise UsageError(str(error)) from None


def print_all(session: CliSession, item: StepUpInfo) -> None:
    """Print a request with the broker's facts about it."""
    client = session.client
    before = client.call(calls.BEFORE, id=item.id).stepups
    owner = ""
    if item.agent_id:  # else a change, which no agent asks for
        owner = client.call(calls.AGENT, id=item.agent_id).owner
    body = None
    if item.request is not None:
        try:
            body = client.call(calls.STEPUP_BODY, id=item.id)
        except UnreachableError:
            raise
        except AgentVaultError as error:  # another broker of the team has it
            session.out.note(f"the body cannot be shown here: {error.diagnosis()}")
    print_stepup(session.out, item, before, owner, body)


def print_stepup(
    out: Output,
    item: StepUpInfo,
    before: Iterable[StepUpInfo],
    owner: str = "",
    body: HeldBody | None = None,
) -> None:
    """Print everything a decision is about; the agent's own words stand last."""
    from agentvault_tui.presenters.body import body_view
    from agentvault_tui.presenters.intake import Intake
    from agentvault_tui.presenters.stepup_rows import PastDecisions, StepUpFacts, whole

    intake = Intake(ascii_only=out.ascii_only)
    row, shown = intake.stepup(item), None
    if row.request is not None and body is not None:
        shown = body_view(
            row.request, body, ascii_only=out.ascii_only, hex_bytes=_HEX_BYTES
        )
    past = PastDecisions(tuple(map(intake.stepup, before)))
    facts = StepUpFacts(row, intake.shown(owner), past, SystemClock().now(), shown)
    rows, _ = whole(facts, out.pen, out.width or 100)
    out.rows(rows)


def _save_body(answer: HeldBody, file: Path, *, opaque: bool) -> None:
    """Write a body to a new file that its owner alone can read."""
    if answer.base64 is None and opaque:
        raise NotFoundError(
            "AgentVault hands out no content that it cannot read",
            "compare the SHA-256 with that of the file that the agent sends",
        )
    if answer.base64 is None:
        raise NotFoundError(
            "the body of that call is not in memory: it was decided, or the broker "
            "restarted",
            "the agent has to ask again",
        )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot write {file}: {error.strerror}", "name another"
        ) from None
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(base64.b64decode(answer.base64))


def print_end(out: Output, item: StepUpInfo | ChangeInfo) -> None:
    """Print the state of a request after a decision."""
    out.line(out.word(stepup_state(item.status)), " ", out.cell(item.id))
    if by := people(item.decided_by):
        out.line("by ", out.cell(by, limit=500))
    if item.approvals and item.status == "pending":
        out.line("recorded, ", out.cell(item.approvals.words, limit=500))
    if item.problem:
        out.line("problem: ", out.cell(item.problem, limit=500))
