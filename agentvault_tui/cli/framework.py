"""click commands with ``--home`` and ``--json`` anywhere and an example in the help."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import seconds_of
from agentvault_tui.errors import SettingsError

pass_session = click.make_pass_decorator(CliSession, ensure=True)

FILE: Final = click.Path(path_type=Path)

_HELP_NAMES = {"help_option_names": ["-h", "--help"], "max_content_width": 96}


_OPPOSITES: Final = tuple(
    frozenset(pair.split())
    for pair in (
        *("revoke restore-agent", "revoke restore", "panic lift-panic", "approve deny"),
        *("grant ungrant", "connect disconnect", "backup restore", "add remove"),
        *("login logout", "apply give-back", "apply reset"),
    )
)
_NEGATING: Final = ("un", "dis", "de", "lift", "no-", "in")


def _remember(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Store a shared option in the session."""
    if value not in (None, False):
        setattr(ctx.ensure_object(CliSession), str(parameter.name), value)


link_option = click.option(
    "--link",
    type=click.Choice(["fast", "slow"]),
    expose_value=False,
    callback=_remember,
    help="fast or slow: how often the console repaints, instead of console.link.",
)
"""For commands that open the console."""


class RenamedOption(click.Option):
    """An option whose former names still work and are not in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the line of the help, with the first name alone."""
        every, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


class TimeSpan(click.ParamType[int]):
    """An option that is a length of time: ``30d``; a bare number is in seconds."""

    name = "time"

    def __init__(self, most: int = 0) -> None:
        """Accept at most *most* seconds; 0 for any number."""
        self.most = most

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return it in seconds; fail with the accepted form."""
        text = str(value)
        bare = text.isascii() and text.isdecimal() and len(text) < 12
        seconds = int(text) if bare else seconds_of(text)
        if seconds is None:
            self.fail(f"'{value}' is no length of time: write 30d, 12h, 5m", param, ctx)
        if self.most and not 0 < seconds <= self.most:
            self.fail(f"'{value}' is not between 1 and {self.most} s", param, ctx)
        return seconds


def _shared(*names: str, **attrs: Any) -> click.Option:
    """Return an option of every command, whose value the session stores."""
    return click.Option(names, expose_value=False, callback=_remember, **attrs)


def _lineage(ctx: click.Context | None) -> Iterator[click.Context]:
    """Yield the contexts of a command and of the groups that it is in."""
    while ctx is not None:
        yield ctx
        ctx = ctx.parent


class CliCommand(click.Command):
    """A command with ``--home``, and an example below its options."""

    def __init__(
        self,
        *args: Any,
        example: str = "",
        prints_data: bool = True,
        on_home: bool = False,
        always_answers: bool = False,
        **kwargs: Any,
    ) -> None:
        """Add the shared options; *prints_data* gives it ``--json``.

        With *on_home* it works on a home, not on a running broker wherever that is; so
        does each command of such a group. One that *always_answers* a program, which
        might take silence for a yes, is not stopped where a broker elsewhere is meant.
        """
        super().__init__(*args, **kwargs)
        self.context_settings = {**_HELP_NAMES, **self.context_settings}
        self.example = example
        self.on_home = on_home
        self.always_answers = always_answers
        if prints_data:
            help_text = "Print JSON for a program."
            self.params.append(_shared("--json", is_flag=True, help=help_text))
        help_text = (
            "The home directory, instead of AGENTVAULT_HOME or your user folders."
        )
        home = _shared("--home", "home_option", metavar="DIR", help=help_text)
        self.params.append(home)
        if not on_home:
            help_text = "URL of a remote broker, instead of operators.connect."
            self.params.append(_shared("--connect", metavar="URL", help=help_text))
            help_text = "Certificate authorities for it (PEM), instead of the system's."
            self.params.append(_shared("--ca-file", metavar="FILE", help=help_text))

    def invoke(self, ctx: click.Context) -> object:
        """Refuse to work on a home where a broker elsewhere is meant."""
        named = [each.command for each in _lineage(ctx)]
        # A group's own turn comes before the options of its command are known.
        leaf = not isinstance(self, click.Group) and not self.always_answers
        if leaf and any(isinstance(one, CliCommand) and one.on_home for one in named):
            session = ctx.ensure_object(CliSession)
            with contextlib.suppress(SettingsError):  # the command says so itself
                _ = session.own_home
        return super().invoke(ctx)

    def get_short_help_str(
        self,
        limit: int = 0,  # noqa: ARG002 - click's, who would cut the sentence there
    ) -> str:
        """Return the first sentence uncut."""
        return super().get_short_help_str(1000)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example verbatim."""
        super().format_epilog(ctx, formatter)
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(CliCommand, click.Group):
    """A group of commands, with the common parts of every command."""

    command_class = CliCommand
    group_class = type

    def __init__(
        self, *args: Any, former: Mapping[str, str] | None = None, **kwargs: Any
    ) -> None:
        """Make a group; *former* maps names that go on working to those in the help."""
        super().__init__(*args, **{"prints_data": False, **kwargs})
        self.former = former or {}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name or a former one."""
        return super().get_command(ctx, self.former.get(cmd_name, cmd_name))

    def list_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
    ) -> list[str]:
        """List commands in the order of definition."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command; suggest the nearest to an unknown one."""
        names = self.list_commands(ctx)
        exists = args[0] in names or args[0] in self.former
        if not exists and not args[0].startswith("-"):
            near = _meant(args[0], names)
            hint = f"did you mean {near}" if near else f"known: {', '.join(names)}"
            raise click.UsageError(f"no such command '{args[0]}': {hint}", ctx=ctx)
        return super().resolve_command(ctx, args)


def _meant(word: str, names: Sequence[str]) -> str | None:
    """Return the nearest name, unless a mistake might mean its opposite."""
    near = difflib.get_close_matches(word, names, n=1)
    if not near or any(
        word.startswith(prefix) and not near[0].startswith(prefix)
        for prefix in _NEGATING
    ):
        return None
    (name,) = near
    likely = {name, *difflib.get_close_matches(word, names, n=len(names))}
    return None if any(pair <= likely for pair in _OPPOSITES if name in pair) else name


def command(
    name: str, **attrs: Any
) -> Callable[[Callable[..., object]], click.Command]:
    """Return a decorator for a top-level command."""
    return click.command(name, cls=CliCommand, **attrs)


def group(name: str, **attrs: Any) -> Callable[[Callable[..., object]], Group]:
    """Return a decorator for a group of commands."""
    return click.group(name, cls=Group, **attrs)
