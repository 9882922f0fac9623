"""``agentvault policy``: check, test, show, write and explain the rules."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import click

from agentvault_tui.broker.policy_files import load_policy
from agentvault_tui.cli.framework import FILE, group, pass_session
from agentvault_tui.cli.lookup import agent_names, find_agent, scope_names
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.policy_cases import test as test_cases
from agentvault_tui.cli.policy_new import new
from agentvault_tui.cli.policy_plan import candidate, plan, replay, shadow, text_of
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    ConflictError,
    PolicyError,
    SettingsError,
    UsageError,
)
from agentvault_tui.home import put_private
from agentvault_tui.ledger.docs import read_agent
from agentvault_tui.ledger.schema import open_reader
from agentvault_tui.model import Agent
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.planning import ExplainInfo, PolicyInfo
from agentvault_tui.operator_api.shapes import Json
from agentvault_tui.policy import Catalogue, Policy
from agentvault_tui.policy.texts import SCOPES_FOLDER, shipped_policy, shipped_scopes
from agentvault_tui.presenters.moments import plural


@group("policy", example="agentvault policy check")
def policy() -> None:
    """Check and test the policy, and explain its answers."""


policy.add_command(test_cases)
policy.add_command(new)
policy.add_command(plan)
policy.add_command(replay)
policy.add_command(shadow)


@policy.command("check", on_home=True, example="agentvault policy check policy.cedar")
@click.argument("file", required=False, type=FILE)
@click.option("--strict", is_flag=True, help="Let warnings fail the check too.")
@pass_session
def check(session: CliSession, file: Path | None, *, strict: bool) -> int:
    """Check FILE, or the active policy, without applying anything.

    FILE is a policy or, if its name ends in .toml, a catalogue, limits, or a file of
    own scopes in a folder called scopes.d. Where the home has registered agents, ids
    and granted scopes are compared with them. Needs no broker. Exits 1 if a rule can
    never match, names something that does not exist, or the policy could not be
    applied. A rule that never decides is a warning.
    """
    out = session.out
    try:
        if file is None:
            check_there(session)
        loaded = _load(session, file)
    except PolicyError as error:
        if not session.json:
            raise
        out.json({"ok": False, "problem": error.diagnosis(), "problems": []})
        return 1
    agents = _registered(session)
    ids = None if agents is None else [agent.id for agent in agents]
    faults = loaded.problems(ids)
    problems: list[dict[str, Any]] = [
        {
            "line": one.line,
            "rule": one.rule,
            "problem": one.what,
            "severity": "error" if one.is_error else "warning",
        }
        for one in faults
    ]
    orphans = [*_orphans(session, loaded.catalogue, agents or ())]
    problems += [
        {"line": None, "rule": None, "problem": what, "severity": "error"}
        for what in orphans
    ]
    failed = any(strict or one["severity"] == "error" for one in problems)
    summary = {
        "ok": not failed,
        "source": loaded.source,
        "version": loaded.version,
        "problems": problems,
        "rules": [
            {"rule": rule.id, "obligation": rule.obligation.value, "why": rule.why}
            for rule in loaded.rules
        ],
        "scopes": [
            {"scope": scope.name, "risk": scope.risk.value, "text": scope.description}
            for scope in loaded.catalogue
        ],
    }
    if not out.print_json(summary):
        for sentence in (*(f"{loaded.source} {one}" for one in faults), *orphans):
            out.line(out.cell(sentence, limit=1000))
        if not failed:
            _print_check(out, summary, loaded)
    return 1 if failed else 0


def _print_check(out: Output, summary: dict[str, Any], policy: Policy) -> None:
    source = out.cell(summary["source"])
    out.line(out.word("ok"), f": {len(summary['rules'])} rules from ", source)
    if (limits := policy.limits).version:
        hooks = plural(len(limits.hooks), "call-out")
        out.line(out.word("ok"), f": {plural(len(limits.limits), 'limit')}, {hooks}")
    out.line()
    out.table(
        ("RULE", "ANSWER", "WHY"),
        [
            [out.cell(value, limit=120) for value in rule.values()]
            for rule in summary["rules"]
        ],
    )
    out.line()
    out.table(
        ("SCOPE", "RISK", "MEANS"),
        [
            [out.cell(s["scope"], "strong"), out.word(s["risk"]), out.cell(s["text"])]
            for s in summary["scopes"]
        ],
    )


@policy.command(
    "explain",
    example="agentvault policy explain --agent payments-agent --action send:payment "
    '--parameters \'{"amount":4200,"currency":"USD"}\'',
)
@click.option(
    "--agent", required=True, help="Id or unique name.", shell_complete=agent_names
)
@click.option(
    "--action",
    required=True,
    help="The scope it would use.",
    shell_complete=scope_names,
)
@click.option("--resource", help="What it would use it on.")
@click.option("--parameters", help="A JSON object, as in authorization_details.")
@click.option("--unit", type=click.Choice(["minor", "major"]), help="Of the amount.")
@click.option("--at", "now", help="When it would ask; now if not given.")
@click.option("--source", help="The address it would ask from; else this machine.")
@click.option("--country", help="The country of the source, such as DE.")
@click.option("--depth", type=click.IntRange(0, 100), help="How often delegated.")
@pass_session
def explain(
    session: CliSession,
    /,
    agent: str,
    action: str,
    resource: str | None,
    parameters: str | None,
    **environment: Any,
) -> None:
    """Show policy's answer to a request, its rule, and what would alter it."""
    given = _parameters(parameters) if parameters is not None else {}
    client = session.client
    body = requests.ExplainRequest(
        agent_id=find_agent(client, agent).id,
        scope=action,
        action=action,
        resource=resource or "",
        parameters=given,
        **{name: value for name, value in environment.items() if value is not None},
    )
    answer = client.call(calls.EXPLAIN, body)
    if not session.out.print_json(answer):
        _print_answer(session.out, answer)


@policy.command("show", example="agentvault policy show --version 0f3a5c7e9b1d")
@click.option("--version", default="", help="The policy that was in force as this.")
@pass_session
def show(session: CliSession, version: str) -> None:
    """Print the rules in effect; with no broker running, those of the home's files.

    With --version the rules that decided then; --json has all texts of that version.
    """
    client = session.client
    if version:
        answer = client.call(calls.POLICY, requests.PolicyQuery(version=version))
    elif client.reachable():
        answer = client.call(calls.POLICY)
    else:
        loaded = load_policy(session.home)
        answer = PolicyInfo(
            version=loaded.version, source=loaded.source, text=loaded.text, catalogue={}
        )
    if session.out.print_json(answer):
        return
    source = session.out.cell(answer.source)
    session.out.line("// ", source, f", version {answer.version}")
    if answer.problem:
        session.out.line("// ", session.out.cell(answer.problem, limit=400))
    for line in answer.text.splitlines():
        session.out.line(session.out.cell(line, limit=1000))


@policy.command("init", on_home=True, example="agentvault policy init")
@click.option("--scopes", is_flag=True, help="Write scopes.toml too.")
@pass_session
def init(session: CliSession, *, scopes: bool) -> None:
    """Write the shipped policy.cedar into the home directory, to edit.

    Never replaces a file. A running broker then uses your file, which decides as the
    shipped one until you change it. Put scopes of your own into scopes.d/NAME.toml; a
    scopes.toml replaces the shipped catalogue as a whole.
    """
    home = session.home
    texts = {home.policy_file: shipped_policy()}
    if scopes:
        texts[home.scopes_file] = shipped_scopes()
    there = [str(path) for path in texts if path.exists()]
    if there:
        raise ConflictError(
            f"already there: {' and '.join(there)}, so nothing was written",
            "edit it, or move it away first",
        )
    home.prepare()
    for path, text in texts.items():
        put_private(path, text.encode(), replace=False)
    if session.out.print_json({"written": [str(path) for path in texts]}):
        return
    for path in texts:
        session.out.line("wrote ", session.out.cell(str(path), limit=1000))


@policy.command(
    "apply", example='agentvault policy apply new.cedar --reason "No mail to lists."'
)
@click.argument("file", type=FILE)
@click.option("--limits", type=FILE, help="Replaces limits.toml too.")
@click.option("--plan", help="Refuse unless it is the plan of this digest.")
@click.option("--strict", is_flag=True, help="Refuse warnings of policy check too.")
@click.option("--reason", default="", help="Why, for the record.")
@pass_session
def apply(
    session: CliSession,
    file: Path,
    limits: Path | None,
    plan: str | None,
    reason: str,
    *,
    strict: bool,
) -> None:
    """Replace the home's policy.cedar with FILE and activate it, on the record.

    File and record change in one step: who, why, and the digest of the plan. An error
    of policy check is refused.
    """
    body = requests.ApplyRequest(
        policy=text_of(file) or "",
        limits=text_of(limits),
        plan=plan,
        strict=strict,
        reason=reason,
    )
    answer = session.client.call(calls.APPLY_POLICY, body)
    _print_in_force(session, answer)


@policy.command("reset", example="agentvault policy reset")
@pass_session
def reset(session: CliSession) -> None:
    """Let the shipped files count again in the place of those that are gone."""
    _print_in_force(session, session.client.call(calls.RESET_POLICY))


def _print_in_force(session: CliSession, answer: PolicyInfo) -> None:
    summary = {
        "version": answer.version,
        "source": answer.source,
        "warnings": list(answer.warnings),
    }
    if session.out.print_json(summary):
        return
    source = session.out.cell(answer.source)
    for warning in answer.warnings:
        session.out.line(source, " ", session.out.cell(warning, limit=1000))
    session.out.line("in force: ", source, f", version {answer.version}")


def check_there(session: CliSession) -> None:
    """Check that no file of the active policy is gone from the home.

    A team's homes have copies, which a broker writes again.

    Raises:
        PolicyError: one is: its last version stays active, and nothing replaces it.
    """
    from agentvault_tui.broker.usecases.policy_change import last_texts

    if not session.settings.store.url:
        load_policy(session.home, last_texts(session.home))


def check_granted(session: CliSession, catalogue: Catalogue) -> list[str]:
    """Say which scopes were granted, or stand for a connection, and have no entry."""
    return list(_orphans(session, catalogue, _registered(session) or ()))


def _load(session: CliSession, file: Path | None) -> Policy:
    """Read the policy to check, misspellings included."""
    if file is None or file.suffix != ".toml":
        return candidate(session, file, None, strict=False)
    # Both are TOML: a catalogue has scopes, and limits say so in name or tables.
    text = text_of(file) or ""
    if file.absolute().parent.name == SCOPES_FOLDER:
        return candidate(session, None, None, own=(file.name, text), strict=False)
    if "limits" in file.name or re.search(r"(?m)^\[\[(limits|hooks)", text):
        return candidate(session, None, None, file, strict=False)
    return candidate(session, None, file, strict=False)


def _registered(session: CliSession) -> list[Agent] | None:
    """Read the home's agents; None without a database."""
    database = session.home.database
    if not database.exists():
        return None
    try:
        with closing(open_reader(database)) as db:
            rows = db.execute("SELECT doc FROM agents ORDER BY id").fetchall()
    except sqlite3.Error:
        return None
    agents = (read_agent(doc) for (doc,) in rows)
    return [agent for agent in agents if agent.removed_at is None]


def _orphans(
    session: CliSession, catalogue: Catalogue, agents: Iterable[Agent]
) -> Iterator[str]:
    """Say which scopes were given out and are not in the catalogue."""
    held: dict[str, list[str]] = defaultdict(list)
    for agent in agents:
        for scope in agent.scopes:
            if scope not in catalogue:
                held[scope].append(agent.name)
    for scope, names in held.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield (
            f"the catalogue of scopes lacks {scope}, which was granted to"
            f" {', '.join(names[:3])}{more}: every use of it is denied"
        )
    try:
        catalogue.check_connections(session.settings.connection_scopes)
    except SettingsError as error:
        yield error.diagnosis()


def _parameters(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--parameters is not JSON ({error})", "write it like '{\"amount\":4200}'"
        ) from error
    except RecursionError as error:
        raise UsageError("--parameters is nested too deeply") from error
    if not isinstance(value, dict):
        raise UsageError("--parameters is no object", "write it like '{\"count\":1}'")
    return cast("Json", value)


def _print_answer(out: Output, answer: ExplainInfo) -> None:
    out.fields(
        [
            ("decision", out.word(answer.decision)),
            ("rule", answer.rule),
            ("why", answer.why),
            ("reason", answer.reason),
            ("risk", out.word(answer.risk)),
            ("the agent reads", answer.message),
            ("policy", answer.policy_version),
        ]
    )
    for limit in answer.limits:
        left = f"{limit.allows}: {limit.standing}"
        out.line("limit ", out.cell(limit.id), "  ", out.cell(left))
    if answer.would_change:
        out.line()
        for sentence in answer.would_change:
            out.line("- ", out.cell(sentence, limit=1000))
