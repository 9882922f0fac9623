"""``agentvault policy new``: ask three questions, and write a rule with its test."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.lookup import scope_names
from agentvault_tui.cli.policy_cases import print_failed, run_cases
from agentvault_tui.cli.policy_plan import candidate
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import ConflictError, UsageError
from agentvault_tui.home import put_private
from agentvault_tui.policy import Catalogue, Policy
from agentvault_tui.policy.catalogue import action_groups
from agentvault_tui.text import visible

_ANSWERS: Final = {
    "allow": ("permit", "allowed", "is allowed"),
    "ask": ("permit", "escalated", "waits for a person"),
    "deny": ("forbid", "denied", "is denied"),
}
"""Of each answer Cedar's word, the decision, and how the reason says it."""
_NUMBERS: Final = ("amount", "count", "recipients", "hour", "weekday")
_TEXTS: Final = ("currency", "resource", "owner")
_CONDITION: Final = re.compile(
    r"(?P<name>[a-z]+)\s*(?P<op><=|>=|==|!=|<|>|like)\s*(?P<value>\S.*)"
)
_FORM: Final = (
    f"NAME OPERATOR VALUE, such as amount > 5000 or resource like files:public/*;"
    f" names: {', '.join((*_NUMBERS, *_TEXTS))}"
)
_SAMPLES: Final[Mapping[str, Callable[[int], tuple[int, int]]]] = {
    "<": lambda n: (n - 1, n),
    "<=": lambda n: (n, n + 1),
    ">": lambda n: (n + 1, n),
    ">=": lambda n: (n, n - 1),
    "==": lambda n: (n, n + 1),
    "!=": lambda n: (n + 1, n),
}
"""A number that meets the comparison with *n*, and one that does not."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """One comparison, and two values of which it holds for the first."""

    cedar: str
    name: str
    yes: int | str
    no: int | str

    def request(self, value: int | str, zone: ZoneInfo) -> dict[str, Any]:
        """Return the members of a case that has *value* there."""
        monday = datetime(2027, 3, 1, tzinfo=zone)
        if self.name == "hour":
            return {"now": monday + timedelta(hours=int(value), minutes=30)}
        if self.name == "weekday":
            return {"now": monday + timedelta(days=int(value) - 1, hours=12)}
        if self.name == "resource":
            return {"resource": value}
        if self.name == "owner":
            return {"agent": {"owner": value}}
        return {"parameters": {self.name: value}}


@command(
    "new",
    on_home=True,
    example="agentvault policy new large-payments --scope payments --answer deny"
    " --when 'amount > 1000000'",
)
@click.argument("name")
@click.option(
    "--scope",
    help="Scopes or groups the rule is about; asked if left out.",
    shell_complete=scope_names,
)
@click.option("--answer", help="allow, ask or deny; asked if left out.")
@click.option("--when", help="A condition, or always; asked if left out.")
@click.option("--why", default="", help="The sentence that an approver reads.")
@pass_session
def new(
    session: CliSession,
    name: str,
    *,
    scope: str | None,
    answer: str | None,
    when: str | None,
    why: str,
) -> int:
    """Ask three questions, and write a rule NAME with its test.

    NAME.cedar is the home's policy with the rule at its top, and NAME.cases.toml the
    test of the rule; both are written into the current folder. Nothing is applied.
    Exits 1 if the rule does not decide as it was asked for.
    """
    before = candidate(session, None, None)
    if before.rule(name):
        raise ConflictError(f"there is a rule {name} already", "choose another name")
    scopes = _scopes(_answer(scope, "Which scopes or groups is it about?"), before)
    answer = _answer(answer, f"What is the answer: {', '.join(_ANSWERS)}?").strip()
    if answer not in _ANSWERS:
        shown = visible(answer, 40)
        raise UsageError(f"'{shown}' is no answer", f"write {', '.join(_ANSWERS)}")
    when = _answer(when, "When: always, or a condition such as amount > 5000?").strip()
    condition = None if when in {"", "always"} else _condition(when)
    rule = _rule(name, scopes, answer, condition, why or _reason(scopes, answer, when))
    files = Path(f"{name}.cedar"), Path(f"{name}.cases.toml")
    texts = before.texts._replace(policy=f"{rule}\n{before.text}")
    policy = Policy.of(texts, (str(files[0]),), strict=False)
    zone = ZoneInfo(session.settings.policy.timezone)
    scope = _members(scopes, before.catalogue)[0]
    decided = {"expect": _ANSWERS[answer][1], "rule": name}
    cases = [{"name": f"{name} decides", "scope": scope, **decided}]
    if condition:
        cases[0] |= condition.request(condition.yes, zone)
        other = {"name": f"{name} does not decide", "scope": scope, "expect": "denied"}
        other |= condition.request(condition.no, zone)
        # The rest of the policy answers as it did without the rule.
        (result,) = run_cases(before, zone, {"cases": [other]}, "")
        other |= {
            "expect": result["answer"]["decision"],
            "rule": result["answer"]["rule"],
        }
        cases.append(other)
    _write(files, (policy.text, _toml_of(cases)))
    results = run_cases(policy, zone, {"cases": cases}, str(files[1]))
    return _report(session, policy, name, files, results)


def _answer(given: str | None, question: str) -> str:
    """Return *given*, else the answer of the person at the terminal."""
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask at", "give --scope, --answer and --when"
        )
    return str(click.prompt(question, err=True))


def _scopes(text: str, policy: Policy) -> list[str]:
    """Split the first answer, and refuse scopes that the catalogue lacks."""
    words = text.replace(",", " ").split()
    for word in words:
        if not _members([word], policy.catalogue):
            near = " or ".join(policy.catalogue.nearest(word))
            groups = ", ".join(action_groups(policy.catalogue))
            raise UsageError(
                f"'{visible(word, 60)}' is no scope and no group of scopes",
                f"did you mean {near}" if near else f"groups: {groups}",
            )
    if not words:
        raise UsageError("the rule is about no scope", "name a scope, or a group")
    return words


def _members(words: list[str], catalogue: Catalogue) -> list[str]:
    return [
        one.name
        for one in catalogue
        if any(catalogue.in_group(one.name, word) for word in words)
    ]


def _condition(text: str) -> _Condition:
    """Parse ``NAME OPERATOR VALUE``."""
    match = _CONDITION.fullmatch(text.strip())
    name, op, value = match.groups() if match else ("", "", "")
    value = value.strip("\"'")
    if name in _NUMBERS and op in _SAMPLES and re.fullmatch("[0-9]{1,15}", value):
        yes, no = _SAMPLES[op](int(value))
        clock = name in {"hour", "weekday"}
        there = "" if clock else f"context has {name} && "
        return _Condition(f"{there}context.{name} {op} {int(value)}", name, yes, no)
    if name in _TEXTS and op in {"==", "!=", "like"}:
        sample, other = value.replace("*", "x"), "XXX" if name == "currency" else "x:y"
        yes_text, no_text = (other, sample) if op == "!=" else (sample, other)
        # JSON's escapes of quotes and backslashes are Cedar's too.
        literal = json.dumps(value, ensure_ascii=False)
        subject = "principal.owner" if name == "owner" else f"context.{name}"
        there = "" if name == "owner" else f"context has {name} && "
        cedar = f"{there}{subject} {op} {literal}"
        return _Condition(cedar, name, yes_text, no_text)
    raise UsageError(f"'{visible(text, 80)}' is no condition", f"write {_FORM}")


def _reason(scopes: list[str], answer: str, when: str) -> str:
    what = " and ".join(scopes)
    tail = "" if when in {"", "always"} else f" when {when}"
    return f"Anything under {what} {_ANSWERS[answer][2]}{tail}."


def _rule(
    name: str, scopes: list[str], answer: str, condition: _Condition | None, why: str
) -> str:
    """Write the rule in Cedar."""
    actions = [f'Action::"{one}"' for one in scopes]
    action = f"in {actions[0]}" if len(actions) == 1 else f"in [{', '.join(actions)}]"
    obligation = {"allow": "allow", "ask": "step_up"}.get(answer)
    return "\n".join(
        (
            f'@id("{name}")',
            f"@why({json.dumps(why, ensure_ascii=False)})",
            *([f'@obligation("{obligation}")'] if obligation else ()),
            f"{_ANSWERS[answer][0]} (principal, action {action}, resource)"
            + (f"\nwhen {{ {condition.cedar} }};\n" if condition else ";\n"),
        )
    )


def _write(files: tuple[Path, Path], texts: tuple[str, str]) -> None:
    """Write both files, or none if one exists."""
    for file in files:
        if file.exists():
            raise ConflictError(
                f"{file} exists already", "move it away, or choose another name"
            )
    for file, text in zip(files, texts, strict=True):
        put_private(file, text.encode(), replace=False)


def _toml_of(cases: list[dict[str, Any]]) -> str:
    """Encode cases as ``policy test`` reads them."""
    lines: list[str] = []
    for case in cases:
        lines += ["[[cases]]", *(f"{key} = {_toml(one)}" for key, one in case.items())]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inside} }}"
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


def _report(
    session: CliSession,
    policy: Policy,
    name: str,
    files: tuple[Path, Path],
    results: list[dict[str, Any]],
) -> int:
    """Print how the rule decides its test, and the next commands."""
    out, (rules, cases) = session.out, files
    faults = [one for one in policy.problems() if one.rule == name]
    failed = any(not one["ok"] for one in results) or any(f.is_error for f in faults)
    summary = {
        "ok": not failed,
        "written": [str(file) for file in files],
        "problems": [str(one) for one in faults],
        "cases": results,
    }
    if out.print_json(summary):
        return int(failed)
    for file in files:
        out.line("wrote ", out.cell(str(file)))
    for one in faults:
        out.line(out.cell(str(rules)), " ", out.cell(str(one), limit=1000))
    print_failed(out, results)
    out.line(f"test it:  agentvault policy test {cases} --policy {rules}")
    out.line(f"plan it:  agentvault policy plan {rules}")
    out.line(f"apply it: agentvault policy apply {rules}")
    return int(failed)
