"""click with our manners: ``--home`` anywhere, an example in every help, lazy rooms."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

from agentvault_tui.cli.session import CliSession

pass_session = click.make_pass_decorator(CliSession, ensure=True)

_HELP_NAMES = {"help_option_names": ["-h", "--help"], "max_content_width": 96}


def _remember_home(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(CliSession).home_option = value


def _remember_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(CliSession).json = True


def _remember_link(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(CliSession).link = value


link_option = click.option(
    "--link",
    type=click.Choice(["fast", "slow"]),
    expose_value=False,
    callback=_remember_link,
    help="How often the console repaints a stream, instead of console.link.",
)
"""For what opens the console."""


def _home_option() -> click.Option:
    return click.Option(
        ["--home"],
        metavar="DIR",
        expose_value=False,
        callback=_remember_home,
        help="The vault's folder, instead of AGENTVAULT_HOME or your user folders.",
    )


def _json_option() -> click.Option:
    return click.Option(
        ["--json"],
        is_flag=True,
        expose_value=False,
        callback=_remember_json,
        help="Print JSON for a program.",
    )


class CliCommand(click.Command):
    """A command with ``--home``, and an example below its options."""

    def __init__(
        self,
        *args: Any,
        example: str = "",
        prints_data: bool = False,
        **kwargs: Any,
    ) -> None:
        """Add the shared options; *prints_data* gives it ``--json``."""
        super().__init__(*args, **kwargs)
        self.context_settings = {**_HELP_NAMES, **self.context_settings}
        self.example = example
        self.params += [_json_option()] if prints_data else []
        self.params.append(_home_option())

    def get_short_help_str(
        self,
        limit: int = 0,  # noqa: ARG002 - click's, who would cut the sentence there
    ) -> str:
        """Return the first sentence whole: the table of commands wraps it."""
        return super().get_short_help_str(1000)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example, as it is typed."""
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(CliCommand, click.Group):
    """A group of commands, with what every command has."""

    command_class = CliCommand

    def list_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
    ) -> list[str]:
        """Keep the order in which the commands were written down."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the nearest.

        Raises:
            UsageError: there is no such command.
        """
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], names, n=1)
            hint = f"did you mean {near[0]}" if near else f"known: {', '.join(names)}"
            raise click.UsageError(f"no such command '{args[0]}': {hint}", ctx=ctx)
        return super().resolve_command(ctx, args)


class Room(NamedTuple):
    """Where a top-level command lives, and its line in the help."""

    module: str
    attribute: str
    help: str


class LazyGroup(Group):
    """A group that imports a command's module when that command is called."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, Room]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.rooms = {
            name: room for rooms in sections.values() for name, room in rooms.items()
        }

    def list_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
    ) -> list[str]:
        """Name every command without importing any."""
        return list(self.rooms)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the command."""
        room = self.rooms.get(cmd_name)
        if room is None:
            return None
        found = getattr(importlib.import_module(room.module), room.attribute)
        assert isinstance(found, click.Command)  # noqa: S101 - a table of ours
        return found

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table by heading, from the table alone."""
        for heading, rooms in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name, room.help) for name, room in rooms.items()])


def command(
    name: str, *, example: str, prints_data: bool = False
) -> Callable[[Callable[..., object]], CliCommand]:
    """Make a command from a function, with its example."""

    def make(function: Callable[..., object]) -> CliCommand:
        return click.command(
            name, cls=CliCommand, example=example, prints_data=prints_data
        )(function)

    return make


def group(name: str, *, example: str) -> Callable[[Callable[..., object]], Group]:
    """Make a group of commands from a function."""

    def make(function: Callable[..., object]) -> Group:
        return click.group(name, cls=Group, example=example)(function)

    return make
