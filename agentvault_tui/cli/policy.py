"""``agentvault policy``: is it sound, and why would it answer so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import click

from agentvault_tui.cli.framework import command, group, pass_session
from agentvault_tui.cli.lookup import find_agent
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import Session, lazy_room
from agentvault_tui.errors import NotFoundError, PolicyError, UsageError


@group("policy", example="agentvault policy check")
def policy() -> None:
    """Check the policy, and explain its answers."""


@command("check", example="agentvault policy check policy.cedar", prints_data=True)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@pass_session
def check(session: Session, file: Path | None) -> int:
    """Check FILE, or the policy in force, without putting anything in force.

    Needs no broker. Exits 1 when the policy could not be put in force.
    """
    out = session.out
    try:
        found = _load(session, file)
    except PolicyError as error:
        if not session.json:
            raise
        out.json({"ok": False, "problem": error.diagnosis()})
        return 1
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
                "ok": True,
                "source": found.source,
                "version": found.version,
                "rules": rules,
                "scopes": scopes,
            }
        )
        return 0
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
    room = lazy_room("policy")
    if file is None:
        return room.Policy.load(session.home)
    files = lazy_room("policy.files")
    text = files.read_text(file)
    if text is None:
        raise NotFoundError(f"there is no file {file}", "check the path")
    return room.Policy(text, files.home_catalogue(session.home), str(file))


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
