"""``agentvault policy plan`` and ``replay``: decide the recorded history again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click

from agentvault_tui.amounts import render_spans
from agentvault_tui.broker.policy_files import load_policy, read_own_scopes, read_text
from agentvault_tui.cli.event_search import Moment
from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.ledger.docs import read_agent
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.planning import (
    PlanInfo,
    PlannedChangeInfo,
    PlanRequest,
    ShadowAnswer,
    ShadowRequest,
)
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.texts import pack_files, unpack_files


@command("plan", example="agentvault policy plan new.cedar --since 30d")
@click.argument("file", type=FILE)
@click.option("--since", type=Moment(), help="Not before: a time, or 10m, 2h, 3d ago.")
@click.option("--limits", type=FILE, help="Instead of the home's.")
@pass_session
def plan(
    session: CliSession, file: Path, since: str | None, limits: Path | None
) -> int:
    """Decide the recorded history by FILE, and show the different answers.

    Changes nothing. Works next to a running broker, without slowing it down.
    Exits 1 when something that was allowed would not be.
    """
    from agentvault_tui.watch.plan import plan as planned
    from agentvault_tui.watch.plan import stricter

    client = session.client
    if session.remote:
        if limits is not None:
            raise UsageError("--limits works on a home", "plan without it")
        body = PlanRequest(policy=text_of(file) or "", since=since or "")
        planned_info = client.call(calls.PLAN, body)
        names = {one.id: one.name for one in client.call(calls.AGENTS).agents}
    else:
        new = candidate(session, file, None, limits)
        in_force = (
            client.call(calls.POLICY)
            if client.reachable()
            else load_policy(session.home)
        )
        lasts = timedelta(seconds=session.settings.stepup.expires_in)
        start = parse_iso(since) if since else None
        with _history(session) as db:
            planned_info = planned(db, new, in_force.version, lasts=lasts, since=start)
            names = dict(_names(db))
    if not session.out.print_json(planned_info):
        _print_plan(session.out, planned_info, names)
    return 1 if stricter(planned_info.changes) else 0


@command("replay", on_home=True, example="agentvault policy replay")
@pass_session
def replay(session: CliSession) -> int:
    """Decide the whole history again under the texts that were in effect.

    Each decision follows from the facts in its record; exits 1 when one does not.
    """
    from agentvault_tui.watch.plan import replay as replayed

    with _history(session) as db:
        result = replayed(db)
    out = session.out
    if not out.print_json(result):
        wrong = result.mismatches
        out.line(
            out.word("fault" if wrong else "ok"),
            f": {result.decisions} decisions, {wrong} that do not follow from their"
            f" facts; {result.made} were made, the others met the same facts again",
        )
        if first := result.first:
            cells = (first.fact, out.cell(first.recorded), out.cell(first.decided))
            out.line(
                f"event {first.seq}: {cells[0]} ", cells[1], ", decided ", cells[2]
            )
        _print_apart(out, result.apart)
    return 1 if result.mismatches else 0


def candidate(
    session: CliSession,
    rules: Path | None,
    scopes: Path | None,
    limits: Path | None = None,
    *,
    own: tuple[str, str] | None = None,
    strict: bool = True,
) -> Policy:
    """Build a policy from the named files, and the home's for the rest.

    Args:
        session: the command's.
        rules: a policy.
        scopes: a catalogue, for the shipped one or scopes.toml.
        limits: limits.
        own: name and text of a file of scopes.d.
        strict: refuse misspelt names; else `Policy.problems` lists them.

    Raises:
        PolicyError: it cannot be applied.
    """
    home = session.home
    sources = (
        str(rules or home.policy_file),
        str(scopes or home.scopes_file),
        str(limits or home.limits_file),
        str(home.scopes_folder),
    )
    texts = PolicyTexts(
        text_of(rules) or read_text(home.policy_file, home.config),
        text_of(scopes) or read_text(home.scopes_file, home.config),
        text_of(limits) or read_text(home.limits_file, home.config),
        read_own_scopes(home),
    )
    if own is not None:
        files = {**unpack_files(texts.own_scopes), own[0]: own[1]}
        texts = texts._replace(own_scopes=pack_files(files))
    return Policy.of(texts, sources, strict=strict)


def text_of(file: Path | None) -> str | None:
    """Read a file that was named on the command line."""
    if file is None:
        return None
    text = read_text(file, None)
    if text is None:
        raise NotFoundError(f"there is no file {file}", "check the path")
    return text or "\n"


@command("shadow", example="agentvault policy shadow new.cedar")
@click.argument("file", required=False, type=FILE)
@click.option("--limits", type=FILE, help="Instead of the home's.")
@click.option("--off", is_flag=True, help="Decide beside the policy no more.")
@pass_session
def shadow(
    session: CliSession, file: Path | None, limits: Path | None, *, off: bool
) -> None:
    """Let FILE decide next to the policy in effect: it answers nothing, and is counted.

    The windows of --limits begin empty. Without FILE it shows the counts, by agent and
    scope.
    """
    if off and file is not None:
        raise UsageError("give FILE or --off, not both")
    if limits is not None and file is None:
        raise UsageError("--limits goes with FILE", "name the policy's file too")
    client, out = session.client, session.out
    if off or file is not None:
        body = ShadowRequest(policy=text_of(file) or "", limits=text_of(limits))
        state = client.call(calls.SHADOW, body).shadow
    else:
        state = client.call(calls.POLICY).shadow
    if out.print_json(ShadowAnswer(shadow=state)):
        return
    if state is None:
        out.line("no policy decides next to the active one")
        return
    out.line(
        f"{state.version} decides next to the active one since {state.since}:"
        f" {state.decisions} decisions, {state.differences} of them otherwise"
    )
    if state.by:
        names = {one.id: one.name for one in client.call(calls.AGENTS).agents}
        print_changes(out, state.by, names)


@contextmanager
def _history(session: CliSession) -> Iterator[sqlite3.Connection]:
    """Yield a connection that reads the home's ledger, also next to a broker."""
    path = session.home.database
    if not path.exists():
        raise NotFoundError(f"there is no ledger at {path}", "start the broker first")
    with read_home(session.home) as db:
        yield db


def _names(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for agent_id, doc in db.execute("SELECT id, doc FROM agents"):
        yield agent_id, read_agent(doc).name


def _print_plan(out: Output, plan_info: PlanInfo, names: dict[str, str]) -> None:
    print_changes(out, plan_info.changes, names)
    prompts = plan_info.prompts_per_day
    out.line(
        f"{plan_info.decisions} decisions over {plan_info.days:.1f} days;"
        f" prompts a day: {prompts.now:.1f} now, {prompts.then:.1f} then"
    )
    out.line(f"{plan_info.made} answers were made; the others met the same facts again")
    _print_apart(out, plan_info.apart)
    if plan_info.mismatches:
        out.line(
            out.word("fault"),
            f": {plan_info.mismatches} records do not follow from their facts: ",
            "agentvault policy replay",
        )
    out.line(f"digest {plan_info.digest}")


def print_changes(
    out: Output, changes: list[PlannedChangeInfo], names: dict[str, str]
) -> None:
    """Print the different answers, or that there are none."""
    if not changes:
        out.line(out.word("ok"), ": nothing would be answered otherwise")
        return
    with_amounts = any(one.amounts for one in changes)
    rows = [
        [
            out.cell(names.get(one.agent, one.agent)),
            out.cell(one.scope),
            out.word(one.was),
            out.cell(f"{one.to}: {one.reason}") if one.reason else out.word(one.to),
            out.cell(one.count),
            *([out.cell(render_spans(one.amounts), limit=60)] if with_amounts else ()),
            out.cell(", ".join(map(str, one.examples))),
        ]
        for one in changes
    ]
    amounts = ("AMOUNTS",) if with_amounts else ()
    headers = ("AGENT", "SCOPE", "WAS", "WOULD BE", "COUNT", *amounts, "EVENTS")
    out.table(headers, rows)


def _print_apart(out: Output, apart: dict[str, int]) -> None:
    for why, count in apart.items():
        out.line(f"{count} left out: ", out.cell(why, limit=300))
