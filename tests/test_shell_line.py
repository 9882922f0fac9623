"""A command line is read only if every shell runs exactly the words that were read."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentvault_tui.shell_line import (
    LONGEST_LINE,
    MOST_COMMANDS,
    MOST_WORDS,
    SimpleCommand,
    parse_line,
)

PROGRAMS = ("ls", "git", "cat", "rg")
STUB = '#!/bin/sh\nprintf \'%s\\0\' "${0##*/}" "$@" >> "$RECORDED/$$"\n'
SHELLS = [shell for shell in ("bash", "dash", "zsh") if shutil.which(shell)]


@pytest.fixture(scope="module")
def stubs() -> Iterator[Path]:
    """A folder of programs that write down with which words they were run."""
    with tempfile.TemporaryDirectory() as folder:
        for name in PROGRAMS:
            (Path(folder) / name).write_text(STUB)
            (Path(folder) / name).chmod(0o755)
        yield Path(folder)


def executed(shell: str, line: str, stubs: Path) -> list[tuple[str, ...]]:
    """Run *line* in a folder with files that a glob would find."""
    with tempfile.TemporaryDirectory() as place:
        recorded, folder = Path(place, "recorded"), Path(place, "folder")
        recorded.mkdir()
        folder.mkdir()
        for name in ("a", "b", "a1", "-l"):
            (folder / name).touch()
        subprocess.run(
            [shutil.which(shell) or shell, "-c", line],
            cwd=folder,
            env={"PATH": str(stubs), "RECORDED": str(recorded), "HOME": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert sorted(one.name for one in folder.iterdir()) == ["-l", "a", "a1", "b"]
        texts = [one.read_text() for one in recorded.iterdir()]
    return sorted(tuple(text.split("\0")[:-1]) for text in texts)


def expected(commands: tuple[SimpleCommand, ...]) -> list[tuple[str, ...]]:
    """Return what runs where every program succeeds: nothing after ``||``."""
    ran, skipped = [], False
    for one in commands:
        skipped = one.joined == "||" or (one.joined == "|" and skipped)
        if not skipped:
            ran.append(one.words)
    return sorted(ran)


ODD = "abz01 -=~./:,+@%_#!$`\\\"'*?[]{}()<>&|;^\t\né\u00a0\u200b"
WORDS = st.one_of(
    st.text("ab01-./:=~,+@%_", min_size=1, max_size=6),
    st.text(ODD, max_size=5).map(lambda text: f"'{text}'"),
    st.text(ODD, max_size=5).map(lambda text: f'"{text}"'),
    st.text(ODD, min_size=1, max_size=3),
    st.sampled_from(["2>&1", ">/dev/null", "2>/dev/null", "1> /dev/null", "a~1", "~"]),
)
COMMANDS = st.builds(
    lambda program, words: " ".join([program, *words]),
    st.sampled_from(PROGRAMS),
    st.lists(WORDS, max_size=4),
)
LINES = st.lists(
    st.tuples(
        st.sampled_from(["|", "&&", "||", ";", " | ", " && ", "&", "\n"]), COMMANDS
    ),
    min_size=1,
    max_size=3,
).map(lambda parts: "".join(a + b for a, b in parts).lstrip("|&; \n"))


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
    ],
)
@given(LINES)
def test_a_shell_runs_exactly_the_words_that_were_read(
    stubs: Path, shell: str, line: str
) -> None:
    """Whatever the line: if it is read, these programs run with these words alone."""
    commands = parse_line(line)
    if commands is None or not all(one.words[0] in PROGRAMS for one in commands):
        return
    assert executed(shell, line, stubs) == expected(commands)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ls", [["ls"]]),
        ("ls -la src", [["ls", "-la", "src"]]),
        ("cat 'a b'\"c d\"e", [["cat", "a bc de"]]),
        ("rg \"a\\|b\" '$x'", [["rg", "a\\|b", "$x"]]),
        ("git show HEAD~1 2>&1 | cat", [["git", "show", "HEAD~1"], ["cat"]]),
        ("cd src && ls >/dev/null", [["cd", "src"], ["ls"]]),
        ("ls;cat a||rg b", [["ls"], ["cat", "a"], ["rg", "b"]]),
        ("ls ''", [["ls", ""]]),
        ("ls --color=never", [["ls", "--color=never"]]),
        ("  ls\t-l  ", [["ls", "-l"]]),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_plain_lines_are_read(
    stubs: Path, shell: str, line: str, words: list[list[str]]
) -> None:
    """Words, quotes, operators, and output that is thrown away."""
    commands = parse_line(line)
    assert commands is not None
    assert [list(one.words) for one in commands] == words
    if "cd" not in line:
        assert executed(shell, line, stubs) == expected(commands)


@pytest.mark.parametrize(
    "line",
    [
        *("", " ", ";", "ls;", "ls;;ls", "| ls", "ls |", "ls && ", "ls &", "ls & rm x"),
        *(
            "ls\nrm x",
            "ls\rrm x",
            "ls \\\n x",
            "ls #x",
            "ls a#b",
            "# ls",
            "!ls",
            "! ls",
        ),
        *(
            "ls $HOME",
            'ls "$HOME"',
            "ls $(rm x)",
            "ls `rm x`",
            'ls "`rm x`"',
            "ls ${x}",
        ),
        *(
            "ls <(rm x)",
            "ls >(rm x)",
            "ls > x",
            "ls >> x",
            "ls < x",
            "ls << x",
            "ls >x",
        ),
        *("ls 2>x", "ls >/dev/nullx", "ls >/dev/null/../x", "ls>/dev/null", "ls &>x"),
        *("ls >&2", "ls 3>&1", "a2>&1", "ls >| x", "ls <> x", "ls |& rm x", "ls 2>&1x"),
        *(
            "ls *",
            "ls a?",
            "ls [a]",
            "ls {a,b}",
            "ls ~",
            "ls ~ann/x",
            "ls x=~",
            "ls a~b",
        ),
        *("A=1 ls", "A+=1 ls", "A= ls", "'A'=1", "ls() { rm x; }", "{ ls; }", "(ls)"),
        *(
            "if ls",
            "while ls",
            "for x in y",
            "case x in",
            "function f",
            "time ls",
            "[[ x",
        ),
        *(
            "ls 'x",
            'ls "x',
            "ls \\x",
            "ls 'a\\'",
            'ls "a\\$b"',
            'ls "a\\"b"',
            'ls "!x"',
        ),
        *(
            "=ls",
            "ls =x",
            "ls x^y",
            "coproc ls",
            "''",
            "'' ls",
            "ls \x00",
            "ls \x1b[2J",
        ),
        *(
            "ls é",
            "ls \u00a0x",
            "ls '\u200b'",
            "ls '\u202e'",
            "ls x\u2028rm",
            "ls $'x'",
        ),
        *(">/dev/null", "2>&1", "ls '" + "x" * LONGEST_LINE + "'"),
        ";".join(["ls"] * (MOST_COMMANDS + 1)),
        "ls " + "a " * (MOST_WORDS + 1),
    ],
)
def test_anything_else_of_the_language_is_not_read(line: str) -> None:
    """It is refused, and never guessed at."""
    assert parse_line(line) is None


@given(st.text(ODD + "ls;&|", max_size=40))
def test_no_text_makes_it_fail(line: str) -> None:
    """A parsed command has words, none of them with a control character."""
    for command in parse_line(line) or ():
        assert command.words[0]
        assert all("\n" not in word and "\0" not in word for word in command.words)
