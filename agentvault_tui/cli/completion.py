"""``agentvault completion``: the script by which a shell completes commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UsageError

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_AGENTVAULT_COMPLETE"


@command(
    "completion", prints_data=False, example="agentvault completion bash --install"
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--install", is_flag=True, help="Write it where the shell looks.")
@pass_session
def completion(session: CliSession, shell: str, *, install: bool) -> None:
    """Print the script that completes commands, options, agents and step-ups.

    With --install, it is written to a file that new shells read. zsh reads it if
    ~/.zfunc is in its fpath.
    """
    from agentvault_tui.cli.app import root

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"click completes nothing for {shell}", "use another shell")
    script = kind(root, {}, "agentvault", VARIABLE).source()
    if not install:
        click.echo(script)
        return
    file = script_path(shell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script, "utf-8")
    session.out.line("wrote ", session.out.cell(file))
    if shell == "zsh":
        session.out.note("put this into ~/.zshrc, before compinit: fpath+=(~/.zfunc)")
    session.out.line("new shells complete `agentvault`")


def script_path(shell: str) -> Path:
    """Return where a shell looks for the completions of a program."""
    home = Path.home()
    if shell == "zsh":
        return home / ".zfunc" / "_agentvault"
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish" / "completions" / "agentvault.fish"
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "bash-completion" / "completions" / "agentvault"
