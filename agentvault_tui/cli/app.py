"""The root command; turns errors into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import sys
from collections.abc import Sequence
from errno import EACCES, EISDIR, EPERM
from typing import Any, Final, NoReturn, cast

import click

from agentvault_tui.cli.framework import (
    CliCommand,
    Group,
    link_option,
    pass_session,
)
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError

INTERRUPTED: Final = 128 + 2
PIPE_CLOSED: Final = 128 + 13
_REMEDIES: Final[dict[int | None, str]] = {
    **dict.fromkeys((EACCES, EPERM), "check its owner and mode"),
    EISDIR: "name a file",
}


SECTIONS: Final = {
    "Watch and serve": {
        "console": "Open the console on a running broker.",
        "demo": "Watch example agents, with a broker of their own.",
        "serve": "Run the broker in the foreground.",
        "backup": "Back up the home directory to one file.",
        "restore": "Restore a backup into an empty directory.",
        "systemd": "Run the broker as a service.",
        "store": "Show, check and copy the store of state and ledger.",
        "team": "Manage the key that a team's brokers share.",
        "tls": "Make certificates, so that agents use https.",
    },
    "Put agents behind it": {
        "connect": "Configure an agent host, such as Claude Code.",
        "disconnect": "Remove AgentVault from a host's configuration.",
        "hook": "Decide a tool call of an agent host.",
        "run": "Run a command as an agent.",
        "token": "Print a live token of an agent.",
    },
    "Stop and decide": {
        "revoke": "Revoke an agent at once.",
        "restore-agent": "Restore a revoked agent.",
        "panic": "Stop every agent at once (kill switch).",
        "lift-panic": "End a panic.",
        "approve": "Approve a step-up.",
        "deny": "Deny a step-up.",
        "stepup": "Show the requests that wait for a person.",
        "changes": "Show the changes that wait for an approver.",
    },
    "Manage": {
        "agents": "Register agents, revoke and restore them.",
        "tokens": "List live tokens, revoke one.",
        "scopes": "List the scopes of the catalogue.",
        "connections": "Connect and disconnect accounts that agents use.",
        "calls": "List calls in flight and held.",
        "limits": "Show how much of each limit is used and left.",
        "mcp": "Manage MCP servers that agents reach.",
        "services": "Manage APIs that agents reach by the gateway.",
        "secrets": "Store API keys and other secrets, encrypted.",
        "policy": "Check the policy, explain an answer.",
        "advise": "Find permissions that agents do not need.",
        "apply": "Apply agents that are described in files.",
        "export-config": "Write the active configuration to files.",
    },
    "Look back": {
        "status": "Show the state of the broker and its team.",
        "alerts": "List, test and resend alerts.",
        "audit": "Read, search, export, verify the audit log.",
        "doctor": "Find faults and their remedies.",
        "uninstall": "Remove hooks, scripts, units and certificates.",
    },
    "Who you are": {
        "login": "Sign in by device flow.",
        "logout": "Sign out.",
        "whoami": "Show who is signed in.",
        "tenant": "Manage the embedded tenant's people and keys.",
        "auth0": "Set up and check an Auth0 tenant.",
        "completion": "Complete commands and names in your shell.",
        "man": "Manual pages.",
    },
}
"""Each command's line in the help; it is the attribute of its name in its module."""
_MODULES: Final = {
    "apply": "files",
    "calls": "status",
    "connect": "hosts",
    "demo": "console",
    "export-config": "files",
    "hook": "hosts",
    "lift-panic": "stop",
    "limits": "status",
    "logout": "login",
    "panic": "stop",
    "restore": "backup",
    "scopes": "tokens",
    "token": "hosts",
    "whoami": "login",
}
"""Commands that are in the module of another."""
_WORDS: Final = {
    "revoke": "agents revoke",
    "restore-agent": "agents restore",
    "approve": "stepup approve",
    "deny": "stepup deny",
}
"""Commands of a group that are top-level words as well."""
_FORMER: Final = {
    one.removesuffix("s") if one.endswith("s") else f"{one}s": one
    for one in (
        *("agents", "alerts", "calls", "changes", "connections", "limits", "scopes"),
        *("secrets", "services", "stepup"),
    )
}
"""The singular or plural of each group, which is the same command."""


class _Root(Group):
    """The root group: imports a command's module when that command is called.

    A closed pipe and Ctrl-C end it without a word.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Name every command without importing any."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if path := _WORDS.get(cmd_name):
            group, _, name = path.partition(" ")
            parent = cast("Group", self.get_command(ctx, group))
            command = cast("CliCommand", copy.copy(parent.commands[name]))
            command.name = cmd_name
            command.example = command.example.replace(path, cmd_name)
            return command
        cmd_name = self.former.get(cmd_name, cmd_name)
        if cmd_name not in self.list_commands(ctx):
            return None
        module = f"agentvault_tui.cli.{_MODULES.get(cmd_name, cmd_name)}"
        attribute = cmd_name.replace("-", "_")
        loaded: click.Command = getattr(importlib.import_module(module), attribute)
        return loaded

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table by heading, from the table alone."""
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(list(commands.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            from agentvault_tui.cli.output import discard_output

            discard_output()
            return PIPE_CLOSED
        except KeyboardInterrupt:
            return INTERRUPTED
        return result


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Print the version and end, if ``--version`` was given."""
    if value and not ctx.resilient_parsing:
        from agentvault_tui.cli.version import describe

        for line in describe(verbose=ctx.params["verbose"]):
            click.echo(line)
        ctx.exit()


@click.group(
    "agentvault",
    cls=_Root,
    former=_FORMER,
    invoke_without_command=True,
    example="agentvault demo\nagentvault revoke calendar-agent",
)
@link_option
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option(
    "--verbose",
    is_flag=True,
    is_eager=True,  # so that --version knows it
    help="With --version: the commit, the SBOM's digest and locked versions.",
)
@pass_session
@click.pass_context
def root(ctx: click.Context, session: CliSession, *, verbose: bool) -> int | None:
    """Watch AI agents' authorizations, decide the risky ones, revoke any agent.

    Without a command, opens the console of the running broker, or starts a broker
    for as long as the console is open.
    """
    if verbose:
        raise click.UsageError("--verbose goes with --version", ctx)
    if ctx.invoked_subcommand is None:
        from agentvault_tui.cli.console import open_or_start

        return open_or_start(session)
    return None


def _wait_for(session: CliSession, change: Any) -> object:
    from agentvault_tui.cli.changes import wait_for

    return wait_for(session, change)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; say errors on stderr."""
    try:
        result = root.main(
            args=None if argv is None else list(argv),
            prog_name="agentvault",
            standalone_mode=False,
            obj=CliSession(waits=_wait_for),
        )
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        # Its message is the whole help, which a line cannot hold.
        click.echo(error.message, err=True)
        return 2
    except click.UsageError as error:
        _say(_usage_line(error))
        return 2
    except click.ClickException as error:
        _say(error.format_message())
        return 2
    except AgentVaultError as error:
        _say(error.diagnosis())
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
        _say(
            f"{message}: {remedy}"
            if (remedy := _REMEDIES.get(error.errno))
            else message
        )
        return 2 if error.errno == EISDIR else 1
    except Exception as error:
        if os.environ.get("AGENTVAULT_DEBUG") == "1":
            raise
        _say(
            f"this is a fault in agentvault ({type(error).__name__}: {error}): "
            "run it again with AGENTVAULT_DEBUG=1 and report the traceback to the "
            "project, as its README says"
        )
        return 1
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """Run the ``agentvault`` program."""
    sys.exit(run())


def _usage_line(error: click.UsageError) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    command = error.ctx.command_path if error.ctx else "agentvault"
    return f"{text} (see {command} --help)"


def _say(line: str) -> None:
    """Print one line on stderr; quotes in it may be hostile."""
    from agentvault_tui.cli.output import one_line

    with contextlib.suppress(OSError):
        click.echo(f"agentvault: {one_line(line)}", err=True)
