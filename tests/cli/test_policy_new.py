"""`agentvault policy new`: three answers become a rule and its test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer
from support.terminal import Terminal

from agentvault_tui.policy import shipped_policy

Run = Callable[..., Answer]


@pytest.fixture
def new(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a ``policy`` command in an empty folder, on a home without a policy."""
    monkeypatch.chdir(tmp_path)
    return lambda *line: cli("--home", str(tmp_path / "home"), "policy", *line)


@pytest.mark.parametrize(
    ("scope", "answer", "when"),
    [
        ("payments", "deny", "amount > 1000000"),
        ("payments", "deny", "currency != EUR"),
        ("deletions", "deny", "always"),
        ("sends", "ask", "hour >= 18"),
        ("sends", "ask", "weekday > 5"),
        ("sends", "deny", "recipients == 7"),
        ("read:files, read:calendar", "deny", "resource like files:secret/*"),
        ("reads", "ask", 'owner like "*@contractor.test"'),
        ("read:files", "allow", "always"),
    ],
)
def test_a_rule_and_its_test_are_written(
    new: Run, tmp_path: Path, scope: str, answer: str, when: str
) -> None:
    """The rule decides as asked, and its test fails without the rule."""
    line = ("new", "mine", "--scope", scope, "--answer", answer, "--when", when)
    told = new(*line)
    assert (told.code, "apply it: agentvault policy apply" in told.out) == (0, True)
    assert (tmp_path / "mine.cedar").read_text().endswith(shipped_policy())
    assert not (tmp_path / "home" / "policy.cedar").exists()
    cases = (tmp_path / "mine.cases.toml").read_text()
    assert cases.count("[[cases]]") == 1 + (when != "always")
    assert new("test", "mine.cases.toml", "--policy", "mine.cedar").code == 0
    assert new("test", "mine.cases.toml").code == 1
    assert new("check", "mine.cedar").code == 0


def test_a_rule_that_does_not_decide_is_reported(new: Run) -> None:
    """A stricter rule covers it: the answer names that rule, and the exit code is 1."""
    line = ("--scope", "payments", "--answer", "allow", "--when", "amount <= 50")
    told = new("new", "small", *line)
    assert told.code == 1
    assert "small never decides: payments-need-step-up asks a person" in told.out
    assert "expected allowed, small" in told.out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("../out", "reads", "deny", "always"), "cannot be used"),
        (("payments-need-step-up", "reads", "deny", "always"), "already"),
        (("mine", "raeds:x", "deny", "always"), "is no scope"),
        (("mine", " ", "deny", "always"), "no scope"),
        (("mine", "reads", "permit", "always"), "is no answer"),
        (("mine", "reads", "deny", "amuont > 3"), "is no condition"),
        (("mine", "reads", "deny", "amount > 3; true"), "is no condition"),
    ],
)
def test_other_answers_write_nothing(
    new: Run, tmp_path: Path, given: tuple[str, ...], says: str
) -> None:
    """A name, scope, answer or condition that does not exist is refused in words."""
    name, scope, answer, when = given
    told = new("new", name, "--scope", scope, "--answer", answer, "--when", when)
    assert (told.code != 0, says in told.err) == (True, True)
    assert not list(tmp_path.rglob("*.cedar"))


def test_text_in_a_condition_stays_a_text(new: Run, tmp_path: Path) -> None:
    """A quote in it ends no literal of the rule."""
    when = 'resource == a" && true && "b'
    told = new("new", "mine", "--scope", "reads", "--answer", "deny", "--when", when)
    assert told.code == 0
    assert r'== "a\" && true && \"b" }' in (tmp_path / "mine.cedar").read_text()


def test_what_is_there_is_never_replaced(new: Run, tmp_path: Path) -> None:
    """Neither file is written if one of the two exists."""
    (tmp_path / "mine.cases.toml").write_text("mine")
    line = ("--scope", "reads", "--answer", "deny", "--when", "always")
    assert new("new", "mine", *line).code == 1
    assert not (tmp_path / "mine.cedar").exists()
    assert (tmp_path / "mine.cases.toml").read_text() == "mine"


def test_the_three_answers_are_asked_for_at_a_terminal(
    new: Run, tmp_path: Path
) -> None:
    """Without a terminal they have to be given."""
    assert "give --scope, --answer and --when" in new("new", "mine").err
    line = [sys.executable, "-m", "agentvault_tui.cli"]
    line += ["--home", str(tmp_path / "home"), "policy", "new", "mine"]
    with Terminal(line, {**os.environ, "TERM": "xterm"}) as terminal:
        for question, answer in (
            ("Which scopes or groups", "payments"),
            ("What is the answer", "deny"),
            ("When: always", "amount > 1000000"),
        ):
            terminal.see(question)
            terminal.write(f"{answer}\n")
        assert terminal.finish() == 0
    assert 'Action::"payments"' in (tmp_path / "mine.cedar").read_text()
