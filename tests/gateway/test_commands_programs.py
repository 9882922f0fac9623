"""What the entries of command lines say of options, held against the real programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib import resources
from itertools import product
from pathlib import Path

import pytest

from agentvault_tui.gateway.commands import CommandEntry, CommandTable, parse_entry
from agentvault_tui.policy import shipped_catalogue

TEXT = (resources.files("agentvault_tui.gateway") / "hosts/commands.toml").read_text()
SHIPPED = [
    parse_entry(CommandTable(**one), shipped_catalogue(), "commands")
    for one in tomllib.loads(TEXT)["commands"]
]
BUNDLING = [one for one in SHIPPED if one.bundles and one.scope != "run:tests"]


@pytest.mark.slow
@pytest.mark.parametrize("one", BUNDLING, ids=lambda one: max(one.programs))
def test_no_two_letters_of_an_entry_write_together(
    one: CommandEntry, tmp_path: Path
) -> None:
    """The real program takes them as getopt does: it changes no file, and adds none."""
    program = shutil.which(max(one.programs))
    if program is None:
        pytest.skip(f"needs {max(one.programs)}")
    short = re.compile("-[A-Za-z0-9]")
    letters = sorted(x[1] for x in one.flags | one.valued if short.fullmatch(x))
    pairs = ["".join(both) for both in product(letters, repeat=2)]
    start = [program, *one.subcommand]
    if _changes(tmp_path / "all", start, pairs):
        assert [p for p in pairs if _changes(tmp_path / p, start, [p])] == []
        pytest.fail(f"some of {pairs} do together")


def _changes(folder: Path, start: list[str], pairs: list[str]) -> bool:
    """Run a program with each pair of letters, and tell whether files changed."""
    (folder / "d").mkdir(parents=True)
    for name in ("a", "b", "1"):
        (folder / name).write_text("1\n2\n")
    if Path(start[0]).name == "git":
        subprocess.run([start[0], "init", "-q"], cwd=folder, check=True)
    before = _contents(folder)
    script = 'for pair in $0; do "$@" "-$pair" 1 a b; done </dev/null >/dev/null 2>&1'
    subprocess.run(
        ["/bin/sh", "-c", script, " ".join(pairs), *start],
        cwd=folder,
        check=False,
        timeout=60,
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
    )
    return _contents(folder) != before


def _contents(folder: Path) -> dict[str, bytes]:
    found = (one for one in folder.rglob("*") if ".git" not in one.parts)
    return {str(one): one.read_bytes() for one in found if one.is_file()}
