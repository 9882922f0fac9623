"""`agentvault man`: each page says what `--help` says, and man can read it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer

from agentvault_tui.cli.app import SECTIONS
from agentvault_tui.cli.man import _roff

Run = Callable[..., Answer]


@pytest.mark.parametrize("line", [(), ("revoke",), ("agents", "grant"), ("policy",)])
def test_a_page_has_what_the_help_has(cli: Run, line: tuple[str, ...]) -> None:
    """Each option and command of the help, and the example."""
    page = cli("man", *line).out
    words = cli(*line, "--help").out.split()
    names = {one.strip(",") for one in words if one.startswith("--")}
    assert {one for one in names if _roff(one) not in page} == set()
    assert page.startswith('.TH "AGENTVAULT')
    for part in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"):
        assert f".SH {part}\n" in page


def test_the_first_page_lists_every_command(cli: Run) -> None:
    """As the help does."""
    page = cli("man").out
    for name in (name for commands in SECTIONS.values() for name in commands):
        assert f"\\fB{_roff(name)}\\fR" in page


def test_a_command_that_does_not_exist_has_no_page(cli: Run) -> None:
    """It is wrong usage."""
    assert cli("man", "agents", "nonsense").code == 2
    assert cli("man", "agents", "--install").code == 2


def test_no_text_is_a_request_of_roff() -> None:
    """A line that begins with a dot, a backslash or a hyphen is printed as it is."""
    assert _roff(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert _roff("a\\fB-x") == "a\\efB\\-x"


def test_install_writes_a_page_of_each_command(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below XDG_DATA_HOME, where man looks; groff finds nothing to warn of."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert cli("man", "--install").code == 0
    pages = {one.name: one for one in (tmp_path / "man" / "man1").iterdir()}
    assert {"agentvault.1", "agentvault-agents-rename.1"} <= pages.keys()
    if (groff := shutil.which("groff")) is None:
        pytest.skip("needs groff: apt-get install groff")
    line = [groff, "-man", "-Tutf8", "-ww", "-P-cbou", *map(str, pages.values())]
    made = subprocess.run(line, capture_output=True, text=True, check=True)
    assert made.stderr == ""
    text = " ".join(made.stdout.split())  # groff justifies lines
    assert "agentvault-agents-rename - Give an agent another name" in text
