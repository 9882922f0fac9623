"""``agentvault changes``: list changes, show, approve and deny them.

Also waits for a change that a command became: a loosening needs an approver's factor.
"""

from __future__ import annotations

from typing import Final

import click

from agentvault_tui.cli.device import followed
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import change_ids
from agentvault_tui.cli.output import Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.stepup import follow_approval, print_all, print_end
from agentvault_tui.errors import (
    AgentVaultError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.changes import ChangeDecision, ChangeInfo, ChangeQuery
from agentvault_tui.operator_api.stepups import OPEN, StepUpInfo
from agentvault_tui.presenters.records import STEPUP_WORDS, stepup_state

_DIFF: Final = {"+": "good", "-": "bad"}
_LINE: Final = 8_000
"""Characters of a line that are printed: as many as a rule may have."""


@group("changes", example="agentvault changes list")
def changes() -> None:
    """Decide the changes that wait for an approver's second factor."""


@changes.command("list", example="agentvault changes list --status waiting")
@click.option(
    "--status", help="Only this status: waiting, verifying, applied, denied ..."
)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50)
@pass_session
def list_changes(session: CliSession, status: str | None, limit: int) -> None:
    """List waiting changes, then the latest decided ones."""
    out, wire = session.out, {word: name for name, word in STEPUP_WORDS.items()}
    status = wire.get(status, status) if status else None
    answer = session.client.call(calls.CHANGES, ChangeQuery(status=status, limit=limit))
    if out.print_json(answer):
        return
    if not answer.changes:
        out.line("no change waits" if status is None else "no such change")
        return
    out.table(
        (
            *("ID", "STATUS", "EXPIRES", "FINGERPRINT", "APPROVED"),
            *("REQUESTED BY", "CHANGE"),
        ),
        [
            [
                item.id,
                out.word(stepup_state(item.status)),
                short_time(item.expires_at),
                *(item.fingerprint, f"{item.have} of {item.need}"),
                out.cell(item.requested_by.name, "strong", 40),
                out.cell(item.summary, limit=120),
            ]
            for item in answer.changes
        ],
        keep=("CHANGE",),
    )


@changes.command("show", example="agentvault changes show chg_8m1c4tq9x2w7k3zn")
@click.argument("change_id", metavar="ID", shell_complete=change_ids)
@pass_session
def show_change(session: CliSession, change_id: str) -> None:
    """Show the exact change, its fingerprint, and its possible approvers.

    The answer of an applied change is shown once, as `result`, and only to the session
    that asked for it.
    """
    client, out = session.client, session.out
    if session.json:
        out.json(client.call(calls.CHANGE, id=change_id))
        return
    print_all(session, _named(session, change_id))
    info = client.call(calls.CHANGE, id=change_id)
    print_texts(out, info)
    if info.result is not None:
        out.line()
        out.line("result")
        out.json(info.result)


@changes.command("approve", example="agentvault changes approve chg_8m1c4tq9x2w7k3zn")
@click.argument("change_id", metavar="ID", shell_complete=change_ids)
@pass_session
def approve_change(session: CliSession, change_id: str) -> int:
    """Approve with a second factor: prints the code and waits for the tenant.

    Exits 0 when applied, or recorded as one of several approvals, else 1. Leaving
    with Ctrl-C stops the waiting, not the sign-in.
    """
    client, out = session.client, session.out
    change = _named(session, change_id)
    if not session.json:
        print_all(session, change)
        if change.status in OPEN:  # else its answer might be given away here
            print_texts(out, client.call(calls.CHANGE, id=change_id))
    # The digest of what was printed above, not of whatever is there by now.
    approval = ChangeDecision(id=change.id, decision="approve", digest=change.digest)
    started = client.call(calls.DECIDE_CHANGE, approval)
    if session.json:
        out.json(started)
    ended, code = follow_approval(session, change, started)
    if not out.print_json(ended):
        print_end(out, ended)
    return code


@changes.command(
    "deny", example="agentvault changes deny chg_8m1c4tq9x2w7k3zn --reason 'not now'"
)
@click.argument("change_id", metavar="ID", shell_complete=change_ids)
@click.option("--reason", default="", help="Why; the requester reads it.")
@pass_session
def deny_change(session: CliSession, change_id: str, reason: str) -> None:
    """Deny; needs no second factor, and works while someone is approving."""
    denial = ChangeDecision(id=change_id, decision="deny", reason=reason)
    denied = session.client.call(calls.DECIDE_CHANGE, denial)
    if not session.out.print_json(denied):
        print_end(session.out, denied)


def print_texts(out: Output, change: ChangeInfo) -> None:
    """Print the differing lines of each text that is replaced."""
    for text in change.texts:
        if text.diff:
            out.line()
            out.line(out.cell(text.name, "strong"))
            for line in str(text.diff).split("\n"):
                out.line(out.cell(line, _DIFF.get(line[:1], "quiet"), limit=_LINE))


def _named(session: CliSession, change_id: str) -> StepUpInfo:
    """Return the change as a step-up: reading that gives no answer away.

    Raises:
        NotFoundError: no change has that id.
    """
    if not change_id.startswith("chg_"):
        raise NotFoundError("no change has that id", "agentvault changes list")
    return session.client.call(calls.STEPUP, id=change_id)


def wait_for(session: CliSession, change: ChangeInfo) -> object:
    """Begin to approve *change*, and wait until it is decided.

    Leaving with Ctrl-C stops the waiting; the change waits on.

    Args:
        session: the command's session.
        change: as it was asked for.

    Returns:
        the answer of the call, once it was carried out.

    Raises:
        RefusedError: it was denied, expired or cancelled; or its code ended unused.
        UnreachableError: the broker does not answer.
    """
    client, out = session.client, session.out
    out.note(
        f"{change.summary}: this needs an approver's factor ({change.id}, fingerprint"
        f" {change.fingerprint})"
    )
    approval = ChangeDecision(id=change.id, decision="approve", digest=change.digest)
    again = f"agentvault changes approve {change.id}"
    try:
        started = client.call(calls.DECIDE_CHANGE, approval)
    except UnreachableError:
        raise
    except AgentVaultError as error:  # such as no_self: another person has to
        out.note(f"{error.what}; elsewhere: {again}")
    else:
        if session.json and (device := started.device):
            # The command's own data is all there is on stdout.
            out.note(f"open {device.verification_uri} and enter {device.user_code}")
        tried, code = follow_approval(session, change, started)
        if code and tried.status == "pending":
            raise RefusedError(
                f"{tried.problem or 'not approved'}; the change {change.id} still"
                f" waits, until {short_time(change.expires_at)}",
                f"{again} makes a new code",
            )
    ended = followed(
        session,
        lambda: client.call(calls.CHANGE, id=change.id),
        lambda now: now.status in OPEN,
    )
    if ended.status != "applied":
        why = ended.denial or ended.problem
        raise RefusedError(
            f"the change {change.id} is {ended.status}" + (f": {why}" if why else "")
        )
    if ended.problem:
        raise RefusedError(f"the change {change.id} is applied: {ended.problem}")
    if ended.result is None:
        raise AgentVaultError(
            f"the change {change.id} is applied; its answer is only for the command"
            " that asked for it, once"
        )
    return ended.result
