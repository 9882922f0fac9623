"""``agentvault policy``: is it sound, and why would it answer so."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import click

from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session, lazy_room
from agentvault_tui.errors import (
    NotFoundError,
    PolicyError,
    SettingsError,
    UsageError,
)


@group("policy", example="agentvault policy check")
def policy() -> None:
    """Check the policy, and explain its answers."""


@command("check", example="agentvault policy check policy.cedar", prints_data=True)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@pass_session
def check(session: Session, file: Path | None) -> int:
    """Check FILE, or the policy in force, without putting anything in force.

    FILE is a policy, or a catalogue of scopes when its name ends in .toml. Where the
    home has registered agents, ids and granted scopes are compared with them. Needs no
    broker. Exits 1 when something can never match, names what is not there, or could
    not be put in force.
    """
    out = session.out
    try:
        found = _load(session, file)
    except PolicyError as error:
        if not session.json:
            raise
        out.json({"ok": False, "problem": error.diagnosis(), "problems": []})
        return 1
    agents = _registered(session)
    problems = [
        {"line": one.line, "rule": one.rule, "problem": one.what}
        for one in found.problems(agents and [agent.id for agent in agents])
    ]
    problems += [
        {"line": None, "rule": None, "problem": what}
        for what in _orphans(session, found.catalogue, agents or ())
    ]
    rules = [
        {"rule": rule.id, "obligation": rule.obligation.value, "why": rule.why}
        for rule in found.rules
    ]
    scopes = [
        {"scope": scope.name, "risk": scope.risk.value, "text": scope.description}
        for scope in found.catalogue
    ]
    if session.json:
        out.json(
            {
                "ok": not problems,
                "source": found.source,
                "version": found.version,
                "problems": problems,
                "rules": rules,
                "scopes": scopes,
            }
        )
        return 1 if problems else 0
    if problems:
        for one in problems:
            line, rule, what = (out.cell(one[key], limit=400) for key in one)
            place = (" line ", line, ": the rule ", rule) if one["rule"] else ()
            out.line(out.cell(found.source), *place, ": ", what)
        return 1
    out.line(out.word("ok"), f": {len(rules)} rules from ", out.cell(found.source))
    out.line()
    out.table(
        ("RULE", "ANSWER", "WHY"),
        [[out.cell(value, limit=120) for value in rule.values()] for rule in rules],
    )
    out.line()
    out.table(
        ("SCOPE", "RISK", "MEANS"),
        [
            [out.cell(s["scope"], "strong"), out.word(s["risk"]), out.cell(s["text"])]
            for s in scopes
        ],
    )
    return 0


@command(
    "explain",
    example="agentvault policy explain --agent payments-agent --action send:payment "
    '--parameters \'{"amount":4200,"currency":"USD"}\'',
    prints_data=True,
)
@click.option("--agent", required=True, help="Id or unique name.")
@click.option("--action", required=True, help="The scope it would use.")
@click.option("--resource", help="What it would use it on.")
@click.option("--parameters", help="A JSON object, as in authorization_details.")
@pass_session
def explain(
    session: Session,
    agent: str,
    action: str,
    resource: str | None,
    parameters: str | None,
) -> None:
    """Say how a request would be answered, by which rule, and what would change it."""
    given = _parameters(parameters) if parameters is not None else {}
    client = session.client
    answer = client.post(
        "/api/policy/explain",
        agent_id=find_agent(client, agent)["id"],
        scope=action,
        action=action,
        resource=resource,
        parameters=given,
    )
    if session.json:
        session.out.json(answer)
    else:
        _print_answer(session.out, answer)


for _command in (check, explain):
    policy.add_command(_command)


def _load(session: Session, file: Path | None) -> Any:
    """Read what is to be checked, without refusing what is misspelt in it."""
    room, files = lazy_room("policy"), lazy_room("policy.files")
    text = None if file is None else files.read_text(file)
    if file is not None and text is None:
        raise NotFoundError(f"there is no file {file}", "check the path")
    if file is not None and file.suffix == ".toml":
        catalogue, text, file = room.Catalogue.parse(text, str(file)), None, None
    else:
        catalogue = files.home_catalogue(session.home)
    if text is None:
        text = files.read_text(session.home.policy_file)
        file = session.home.policy_file if text is not None else None
    if text is None:
        return room.Policy(room.shipped_policy(), catalogue, strict=False)
    return room.Policy(text, catalogue, str(file), strict=False)


def _registered(session: Session) -> list[Any] | None:
    """Read the agents of the home's database; nothing when it has none yet."""
    database = session.home.database
    if not database.exists():
        return None
    schema, docs = lazy_room("ledger.schema"), lazy_room("ledger.docs")
    try:
        with closing(schema.open_reader(database)) as db:
            rows = db.execute("SELECT doc FROM agents ORDER BY id").fetchall()
    except sqlite3.Error:
        return None
    return [docs.read_agent(doc) for (doc,) in rows]


def _orphans(session: Session, catalogue: Any, agents: Iterable[Any]) -> Iterator[str]:
    """Say which scopes were given out and are not in the catalogue."""
    held: dict[str, list[str]] = defaultdict(list)
    for agent in agents:
        for scope in agent.scopes:
            if scope not in catalogue:
                held[scope].append(agent.name)
    for scope, names in held.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield (
            f"the catalogue lacks {scope}, which was granted to"
            f" {', '.join(names[:3])}{more}: every use of it is denied"
        )
    try:
        check = lazy_room("policy.connections").check_connections
        check(session.settings.connections, catalogue)
    except SettingsError as error:
        yield error.diagnosis()


def _parameters(text: str) -> dict[str, Any]:
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
    return cast("dict[str, Any]", value)


def _print_answer(out: Output, answer: dict[str, Any]) -> None:
    out.fields(
        [
            ("decision", out.word(answer["decision"])),
            ("rule", answer["rule"]),
            ("why", answer["why"]),
            ("reason", answer["reason"]),
            ("risk", out.word(answer["risk"])),
            ("the agent reads", answer["message"]),
            ("policy", answer["policy_version"]),
        ]
    )
    if answer["would_change"]:
        out.line()
        for sentence in answer["would_change"]:
            out.line("- ", out.cell(sentence, limit=1000))
