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
@pytest.mark.parametrize("one", BUNDLING, ids=lambda one: min(one.programs))
def test_no_two_letters_of_an_entry_write_together(
    one: CommandEntry, tmp_path: Path
) -> None:
    """The real program takes them as getopt does: it changes no file, and adds none."""
    program = shutil.which(min(one.programs))
    if program is None:
        pytest.skip(f"needs {min(one.programs)}")
    (tmp_path / "d").mkdir()
    for name in ("a", "b", "1"):
        (tmp_path / name).write_text("1\n2\n")
    if min(one.programs) == "git":
        subprocess.run([program, "init", "-q"], cwd=tmp_path, check=True)
    before = _contents(tmp_path)
    short = re.compile("-[A-Za-z0-9]")
    letters = sorted(x[1] for x in one.flags | one.valued if short.fullmatch(x))
    for first, second in product(letters, repeat=2):
        words = [*one.subcommand, f"-{first}{second}", "1", "a", "b"]
        subprocess.run(
            [program, *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
            env={"PATH": os.defpath, "HOME": "/nonexistent"},
        )
        assert _contents(tmp_path) == before, words


def _contents(folder: Path) -> dict[str, bytes]:
    found = (one for one in folder.rglob("*") if ".git" not in one.parts)
    return {str(one): one.read_bytes() for one in found if one.is_file()}
