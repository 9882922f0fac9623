"""``agentvault man``: manual pages, made of the ``--help`` texts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from agentvault_tui import __version__
from agentvault_tui.cli.framework import FILE, CliCommand, Group, command, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import UsageError

_EXITS: Final = (
    ("0", "It is done, or what was asked for is so."),
    ("1", "It was refused, or what was asked for is not so."),
    ("2", "The command line, a setting or a file is wrong."),
    ("3", "The broker does not answer."),
    ("4", "What was named does not exist."),
)
_LITERAL: Final = re.compile(r"``?([^`]+)``?")


@command("man", prints_data=False, on_home=True, example="agentvault man agents grant")
@click.argument("words", metavar="COMMAND...", nargs=-1)
@click.option("--install", is_flag=True, help="Write all pages where man looks.")
@click.option("--to", type=FILE, metavar="DIR", help="Write all pages into it.")
@pass_session
def man(
    session: CliSession, words: tuple[str, ...], to: Path | None, *, install: bool
) -> None:
    """Print the manual page of a command, or write all pages.

    With --install they are files of yours: man reads ~/.local/share/man.
    """
    from agentvault_tui.cli.app import root

    if words and (install or to):
        raise UsageError("all pages are written", "leave out COMMAND, or --install")
    if not (install or to):
        click.echo(_page(*_find_command(root, words)), nl=False)
        return
    folder = to or pages_folder()
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"-".join(ctx.command_path.split()): (ctx, one) for ctx, one in _all(root)}
    for name, page in pages.items():
        (folder / f"{name}.1").write_text(_page(*page), "utf-8")
    session.out.line(f"wrote {len(pages)} pages to ", session.out.cell(folder))


def pages_folder() -> Path:
    """Return where man looks for pages of the user's own."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "man" / "man1"


def _find_command(
    root: click.Command, words: tuple[str, ...]
) -> tuple[click.Context, click.Command]:
    """Return the command that *words* name, with its context."""
    ctx, command = _context(root, None, "agentvault"), root
    for word in words:
        below = command.get_command(ctx, word) if isinstance(command, Group) else None
        if below is None:
            raise UsageError(
                f"there is no command {ctx.command_path} {word}",
                f"{ctx.command_path} --help lists them",
            )
        ctx, command = _context(below, ctx, below.name or word), below
    return ctx, command


def _context(
    one: click.Command, parent: click.Context | None, name: str
) -> click.Context:
    return click.Context(one, parent=parent, info_name=name, **one.context_settings)


def _all(
    one: click.Command, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield a command and all below it, each with its context."""
    ctx = _context(one, parent, one.name or "agentvault")
    yield ctx, one
    if isinstance(one, Group):
        for name in one.list_commands(ctx):
            below = one.get_command(ctx, name)
            if below is not None and not below.hidden:
                yield from _all(below, ctx)


def _page(ctx: click.Context, one: click.Command) -> str:
    """Return the page of a command in the man(7) macros."""
    name = "-".join(ctx.command_path.split())
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    date = datetime.fromtimestamp(epoch, UTC) if epoch else datetime.now(UTC)
    head = f'.TH "{name.upper()}" 1 "{date:%Y-%m-%d}" "agentvault {__version__}"'
    summary, *rest = re.split(r"\n\s*\n", (one.help or "").strip())
    usage = one.collect_usage_pieces(ctx)
    lines = [
        *(head, ".SH NAME", f"{_roff(name)} \\- {_prose(summary)}"),
        *(".SH SYNOPSIS", f".B {_roff(ctx.command_path)}", _roff(" ".join(usage))),
        *(".SH DESCRIPTION", _prose(summary)),
    ]
    for paragraph in rest:
        lines += [".PP", _prose(paragraph)]
    options = filter(None, (each.get_help_record(ctx) for each in one.get_params(ctx)))
    lines += [".SH OPTIONS", *_terms(options)]
    if isinstance(one, Group):
        below = [(word, one.get_command(ctx, word)) for word in one.list_commands(ctx)]
        shown = ((w, c.get_short_help_str()) for w, c in below if c and not c.hidden)
        lines += [".SH COMMANDS", *_terms(shown)]
    if isinstance(one, CliCommand) and one.example:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, one.example.splitlines()), ".fi"]
    lines += [".SH EXIT STATUS", *_terms(_EXITS)]
    if ctx.parent is not None:
        above = "-".join(ctx.parent.command_path.split())
        lines += [".SH SEE ALSO", f".BR {_roff(above)} (1)"]
    return "\n".join(lines) + "\n"


def _terms(pairs: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    """Return a list of terms, each with its meaning."""
    return [line for term, text in pairs if text for line in _term(term, text)]


def _term(term: str, text: str) -> tuple[str, str, str]:
    return ".TP", f"\\fB{_roff(term)}\\fR", _prose(text)


def _prose(text: str) -> str:
    """Return a paragraph on one line, with quoted code in bold."""
    line = _roff(" ".join(text.replace("\b", "").split()))
    return _LITERAL.sub(r"\\fB\1\\fR", line)


def _roff(text: str) -> str:
    """Escape *text* for roff: no line of it is a request (groff(7))."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped
