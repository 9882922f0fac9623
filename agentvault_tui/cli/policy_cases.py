"""``agentvault policy test``: decide the cases of a file, and compare the answers."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import click

from agentvault_tui.broker.surroundings import LOCAL, plain_address
from agentvault_tui.cli.framework import FILE, command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.policy_plan import candidate, text_of
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UsageError
from agentvault_tui.model import Action, Agent, AgentId, Money
from agentvault_tui.policy import Catalogue, Environment, Policy
from agentvault_tui.text import visible
from agentvault_tui.toml_table import read_members


@command("test", on_home=True, example="agentvault policy test cases.toml")
@click.argument("file", type=FILE)
@click.option("--policy", "rules", type=FILE, help="Instead of the home's.")
@click.option("--scopes", type=FILE, help="Instead of the home's.")
@pass_session
def test(
    session: CliSession, file: Path, rules: Path | None, scopes: Path | None
) -> int:
    """Run the cases of FILE: requests, each with the answer that is expected.

    FILE is TOML, or JSON when its name ends in .json; docs/policy.md has its form.
    Needs no broker. Exits 1 when a case is answered otherwise.
    """
    out = session.out
    policy = candidate(session, rules, scopes)
    zone = ZoneInfo(session.settings.policy.timezone)
    results = run_cases(policy, zone, _read(file), str(file))
    failed = sum(not one["ok"] for one in results)
    if session.json:
        out.json(
            {
                "ok": not failed,
                "passed": len(results) - failed,
                "failed": failed,
                "source": policy.source,
                "version": policy.version,
                "cases": results,
            }
        )
        return 1 if failed else 0
    print_failed(out, results)
    word = out.word("fault") if failed else out.word("ok")
    source = out.cell(policy.source)
    out.line(word, f": {len(results) - failed} of {len(results)} cases, by ", source)
    return 1 if failed else 0


def print_failed(out: Output, results: list[dict[str, Any]]) -> None:
    """Print each case that was answered otherwise than it expects."""
    for one in results:
        if not one["ok"]:
            wanted = ", ".join(str(value) for value in one["expected"].values())
            got, name = one["answer"], out.cell(one["name"], limit=120)
            out.line(out.word("fault"), " ", name, ": expected ", out.cell(wanted))
            answer = f"{got['decision']}, rule {got['rule']}, reason {got['reason']}"
            out.line("      got ", out.cell(answer, limit=200))
            out.line("      ", out.cell(got["message"], limit=600))


def run_cases(
    policy: Policy, zone: ZoneInfo, table: object, source: str
) -> list[dict[str, Any]]:
    """Decide the cases of a file.

    Args:
        policy: the policy that decides.
        zone: the time zone of its clock.
        table: the cases, as they are written in the file.
        source: the name of the file in errors.

    Returns:
        name, expectation and answer of each, and whether these agree (``ok``).

    Raises:
        UsageError: a case in it is malformed.
    """
    cases = _cases(table, source, policy.catalogue)
    return [_decide(policy, zone, *case) for case in cases]


@dataclass
class _Cases:
    """A file of cases: ``agent`` holds for each that says no other."""

    agent: dict[str, Any]
    cases: list[dict[str, Any]]


@dataclass
class _CaseAgent:
    """The agent of a case."""

    id: str
    name: str
    owner: str
    scopes: tuple[str, ...]
    age_days: int = 0


@dataclass
class _Case:
    """A request, and the expected answer."""

    name: str
    expect: Literal["allowed", "denied", "escalated"]
    scope: str = ""
    action: str = ""
    resource: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    unit: Literal["minor", "major"] | None = None
    agent: dict[str, Any] = field(default_factory=dict)
    rule: str | None = None
    reason: str | None = None
    now: datetime | None = None
    source: str | None = None
    country: str | None = None
    depth: int = 0


def _read(file: Path) -> object:
    """Parse a file of cases."""
    text = text_of(file) or ""
    try:
        return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read ({visible(error)})") from error


def _cases(
    read: object, file: str, catalogue: Catalogue
) -> Iterator[tuple[_Case, _CaseAgent]]:
    """Yield the cases of a file, each with its agent."""
    table = read_members(_Cases, read, "the table", file)
    shared = {
        "id": "agt_0000000000000000",
        "name": "agent",
        "owner": "owner@example.test",
        "scopes": [scope.name for scope in catalogue],
        **read_members(_CaseAgent, table.get("agent", {}), "agent", file),
    }
    if not table.get("cases"):
        raise UsageError(f"{file} has no cases", "write each as [[cases]]")
    for number, given in enumerate(table["cases"], start=1):
        name = f"case {number}"
        members = read_members(_Case, given, name, file)
        if "expect" not in members:
            raise UsageError(
                f"{name} in {file} has no 'expect'", "allowed, denied or escalated"
            )
        case = _Case(**{"name": name, **members})
        agent = {**shared, **case.agent}
        who = _CaseAgent(**read_members(_CaseAgent, agent, f"{name}.agent", file))
        scopes = case.scope.split()
        for scope in scopes or [""]:
            if scope not in catalogue:
                near = " or ".join(catalogue.nearest(scope))
                what = f"{name} in {file}: unknown scope '{visible(scope, 60)}'"
                raise UsageError(what, f"did you mean {near}" if near else "")
        if case.action and case.action not in scopes:
            raise UsageError(f"{name} in {file}: 'action' is one of the scopes")
        yield case, who


def _decide(
    policy: Policy, zone: ZoneInfo, case: _Case, who: _CaseAgent
) -> dict[str, Any]:
    """Decide one case and compare the answer."""
    scopes = tuple(case.scope.split())
    now = (case.now or datetime.now(UTC)).astimezone(UTC)
    agent = Agent(
        id=AgentId(who.id),
        client_id=who.id,
        name=who.name,
        owner=who.owner,
        purpose="",
        scopes=who.scopes,
        created_at=now - timedelta(days=who.age_days),
    )
    action = Action(
        scopes,
        case.action or scopes[0],
        case.resource or None,
        case.parameters,
        named=bool(case.action) or len(scopes) == 1,
        money=Money.of(case.unit, case.parameters),
    )
    environment = Environment.at(
        now,
        zone,
        source=plain_address(case.source) if case.source else LOCAL,
        country=case.country,
        delegated=case.depth > 0,
        depth=case.depth,
    )
    verdict = policy.decide(agent, action, environment)
    answer = {
        "decision": verdict.outcome.value,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "message": verdict.message,
    }
    expected = {"decision": case.expect, "rule": case.rule, "reason": case.reason}
    expected = {key: value for key, value in expected.items() if value is not None}
    ok = all(answer[key] == value for key, value in expected.items())
    return {"name": case.name, "ok": ok, "expected": expected, "answer": answer}
