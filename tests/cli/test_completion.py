"""`agentvault completion`: scripts that real shells read."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Answer, Broker
from support.needs import program

Run = Callable[..., Answer]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_its_script(shell: str, cli: Run) -> None:
    """The script is of that shell's language."""
    script = cli("completion", shell).out
    assert f"{shell}_complete" in script
    subprocess.run([program(shell), "-n"], input=script, text=True, check=True)


def test_install_writes_where_bash_looks(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bash-completion reads a file of the program's name below XDG_DATA_HOME."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert cli("completion", "bash", "--install").code == 0
    file = tmp_path / "bash-completion" / "completions" / "agentvault"
    assert "_AGENTVAULT_COMPLETE" in file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("revoke", "compl"), {"completes-names"}),
        (("scopes", "li"), {"list"}),
        (("agents", "grant", "x", "send:pay"), {"send:payment"}),
        (("agents", "add", "x", "--scope", "send:pay"), {"send:payment"}),
        (("token", "--agent", "compl"), {"completes-names"}),
        (("agents", "rename", "compl"), {"completes-names"}),
    ],
)
def test_names_are_completed(
    words: tuple[str, ...],
    offered: set[str],
    broker: Broker,
    av: Run,
    process: Callable[..., Answer],
) -> None:
    """An agent, a command and a scope are completed; no broker means no names.

    A shell inserts a name without quotes and runs what is in it.
    """
    names = (
        "completes-names",
        "completes-$(touch${IFS}x)",
        "completes;x",
        "completes x",
    )
    for name in names:
        av("agents", "add", name, "--owner", "alice", "--scope", "read:calendar")
    line = " ".join(("agentvault", *words))
    env = {
        "_AGENTVAULT_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    found = process(AGENTVAULT_HOME=str(broker.home), **env)
    assert {one.partition(",")[2] for one in found.out.splitlines()} == offered
    alone = process(AGENTVAULT_HOME="/nonexistent", **env)
    assert (alone.code, alone.err) == (0, "")
