"""Write the pages that only the site has: commands, scopes, changelog.

They come from the command line's own help, the shipped catalogue and the root folder.
They are not in the repository, so that they cannot differ from the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from agentvault_tui.cli.app import root
from agentvault_tui.policy import shipped_catalogue


def write_references(docs: Path) -> None:
    """Write the generated pages into the folder ``generated`` of *docs*."""
    (folder := docs / "generated").mkdir(exist_ok=True)
    (folder / "commands.md").write_text("\n".join(commands()))
    (folder / "scopes.md").write_text("\n".join(scopes()))
    for name in ("CHANGELOG.md", "SECURITY.md"):
        text = (docs.parent / name).read_text()
        (folder / name.lower()).write_text(text.replace("](docs/", "](../"))


def commands() -> Iterator[str]:
    """Yield the lines of the page of all commands, each with its ``--help``."""
    yield "# Commands\n"
    yield "Every command has `--help`. This page has all of them.\n"
    for context in _contexts(click.Context(root, info_name=root.name or "agentvault")):
        depth = len(context.command_path.split())
        yield f"{'#' * min(depth + 1, 4)} {context.command_path}\n"
        yield f"```text\n{context.command.get_help(context)}\n```\n"


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the contexts of a command and of all commands below it, in order."""
    yield context
    if isinstance(group := context.command, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _contexts(
                    click.Context(command, parent=context, info_name=name)
                )


def scopes() -> Iterator[str]:
    """Yield the lines of the page of the shipped scopes."""
    yield "# Scopes\n"
    yield "These scopes ship with AgentVault. `agentvault scopes list` shows yours.\n"
    yield "| scope | risk | allows |\n| --- | --- | --- |"
    for scope in shipped_catalogue():
        yield f"| `{scope.name}` | {scope.risk} | {scope.description} |"
