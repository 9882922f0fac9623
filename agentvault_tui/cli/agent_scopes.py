"""``agentvault agents``: scopes, served scopes, delegation, and rate."""

from __future__ import annotations

import re
from typing import Final

import click

from agentvault_tui.cli.framework import TimeSpan, command, pass_session
from agentvault_tui.cli.lookup import agent_names, find_agent, scope_names
from agentvault_tui.cli.output import Cell, Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.ending import (
    Ended,
    RevokeAnswer,
    ScopesAnswer,
    TokenRevokeAnswer,
)
from agentvault_tui.operator_api.shapes import AgentInfo
from agentvault_tui.presenters.moments import plural
from agentvault_tui.presenters.revocations import cancelled, unrecorded
from agentvault_tui.text import visible

_MOST_A_SECOND: Final = 1_000_000
_scope_option = click.option(
    "--scope", "named", multiple=True, help="The same as S.", shell_complete=scope_names
)


@command("grant", example="agentvault agents grant calendar-agent read:contacts")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.argument("scopes", metavar="S...", nargs=-1, shell_complete=scope_names)
@_scope_option
@click.option(
    "--for",
    "seconds",
    metavar="TIME",
    type=TimeSpan(366 * 24 * 3600),
    help="They end by themselves after this time, such as 7d.",
)
@pass_session
def grant_scopes(
    session: CliSession,
    ref: str,
    scopes: tuple[str, ...],
    named: tuple[str, ...],
    seconds: int | None,
) -> None:
    """Let an agent ask for more scopes, with --for until their time is over."""
    _change_scopes(session, ref, seconds, grant=split_scopes(scopes + named))


@command("ungrant", example="agentvault agents ungrant calendar-agent write:calendar")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.argument("scopes", metavar="S...", nargs=-1, shell_complete=scope_names)
@_scope_option
@pass_session
def ungrant_scopes(
    session: CliSession, ref: str, scopes: tuple[str, ...], named: tuple[str, ...]
) -> None:
    """Take scopes away, and end the live tokens that carry them."""
    _change_scopes(session, ref, ungrant=split_scopes(scopes + named))


@command(
    "set-serves",
    example="agentvault agents set-serves payments-api send:payment"
    " --resource stripe:acct_42",
)
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.argument("scopes", metavar="S...", nargs=-1, shell_complete=scope_names)
@click.option(
    "--resource", "resources", multiple=True, help="A resource it serves; repeat it."
)
@click.option("--all", "everything", is_flag=True, help="It serves, and sees, all.")
@pass_session
def set_served(
    session: CliSession,
    ref: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    everything: bool,
) -> None:
    """Set the scopes and resources of a resource server.

    It sees, and consumes, tokens of that alone.
    """
    if everything == bool(scopes or resources):
        raise UsageError(
            "say which scopes or resources it serves, or --all, and not both"
        )
    agent = find_agent(session.client, ref)
    body = requests.ScopesRequest(
        agent_id=agent.id, serves=split_scopes(scopes), resources=resources
    )
    changed = session.client.call(calls.SCOPES, body)
    out = session.out
    if not out.print_json(changed):
        out.fields([("agent", out.cell(changed.name, "strong", 60)), *serving(changed)])


@command("rename", example="agentvault agents rename calendar-agent meetings-agent")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.argument("name")
@pass_session
def rename(session: CliSession, ref: str, name: str) -> None:
    """Give an agent another name; its id, tokens and history stay.

    Refused for an agent that is in a file which `agentvault apply` read. Rules of the
    policy that compare principal.name then no longer match it.
    """
    agent, out = find_agent(session.client, ref), session.out
    body = requests.RenameRequest(agent_id=agent.id, name=name)
    renamed = session.client.call(calls.RENAME_AGENT, body)
    if not out.print_json(renamed):
        out.line(out.cell(agent.name, limit=60), " is now ", *name_and_id(out, renamed))


@command("remove", example="agentvault agents remove calendar-agent")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@pass_session
def remove(session: CliSession, ref: str) -> None:
    """Take a revoked agent out of all lists, for good; its history stays.

    Its name may be given to another agent afterwards.
    """
    agent, out = find_agent(session.client, ref), session.out
    body = requests.AgentRemoveRequest(agent_id=agent.id)
    removed = session.client.call(calls.REMOVE_AGENT, body)
    if not out.print_json(removed):
        out.line("removed ", *name_and_id(out, removed))


@command("set-rate", example="agentvault agents set-rate calendar-agent 500")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.argument("number", metavar="N")
@pass_session
def set_rate(session: CliSession, ref: str, number: str) -> None:
    """Set how many decisions that need no person an agent is permitted a second.

    N is a number, 0 for no bound, or `default` for as many as the settings say.
    """
    wanted = None
    if number != "default":
        if not re.fullmatch("[0-9]{1,7}", number) or int(number) > _MOST_A_SECOND:
            raise UsageError(
                "N is no number of decisions a second",
                f"give 1 to {_MOST_A_SECOND}, 0 for no bound, or default",
            )
        wanted = int(number)
    agent, out = find_agent(session.client, ref), session.out
    body = requests.RateRequest(agent_id=agent.id, decisions_a_second=wanted)
    changed = session.client.call(calls.RATE, body)
    if not out.print_json(changed):
        text = rate_text(changed) or "as many as the settings say"
        out.line(*name_and_id(out, changed), f" may be permitted {text} a second")


def rate_text(agent: AgentInfo) -> str:
    """Return how many decisions a second an agent is permitted; empty for the usual."""
    if agent.decisions_a_second is None:
        return ""
    return f"{agent.decisions_a_second:,}" if agent.decisions_a_second else "any number"


@command(
    "set-delegates",
    example="agentvault agents set-delegates planner-agent --to search-agent"
    " --scope read:calendar",
)
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@click.option("--to", "other", required=True, help="The agent it may pass tokens to.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope of them; repeat it.",
    shell_complete=scope_names,
)
@click.option("--remove", is_flag=True, help="Nothing any more; what came of it ends.")
@pass_session
def set_delegates(
    session: CliSession, ref: str, other: str, scopes: tuple[str, ...], remove: bool
) -> None:
    """Say which scopes an agent may pass on to another, in place of those it could.

    An agent passes on less than it has by a token exchange (RFC 8693).
    """
    if remove == bool(scopes):
        raise UsageError("say which scopes with --scope, or --remove, and not both")
    client, out = session.client, session.out
    agent, to = find_agent(client, ref), find_agent(client, other)
    body = requests.DelegatesRequest(
        agent_id=agent.id, to=to.id, scopes=split_scopes(scopes)
    )
    changed = client.call(calls.DELEGATES, body)
    if out.print_json(changed):
        return
    delegated = next((one.scopes for one in changed.delegates if one.id == to.id), ())
    out.line(
        *name_and_id(out, changed),
        " may pass on to ",
        *name_and_id(out, to),
        ": ",
        out.cell(" ".join(delegated) or "nothing", limit=2000),
    )
    if changed.delegated_revoked:
        out.line(f"{plural(changed.delegated_revoked, 'token')} ended that came of it")
    say_cut(out, changed)
    say_recorded(out, changed)


@command("tree", example="agentvault agents tree planner-agent")
@click.argument("ref", metavar="ID", required=False, shell_complete=agent_names)
@pass_session
def show_tree(session: CliSession, ref: str | None) -> None:
    """Show the live delegated tokens as trees; each ends with the one above it."""
    client, out = session.client, session.out
    query = requests.TreeQuery(agent=find_agent(client, ref).id if ref else None)
    tree = client.call(calls.TREE, query)
    if out.print_json(tree):
        return
    if not tree.tokens:
        out.line("no agent holds a token that was passed on")
        return
    rows = [
        [
            out.cell("  " * one.depth + visible(one.agent.name, 40), "strong", 60),
            one.id,
            one.below,
            short_time(one.expires_at),
            one.resource,
            one.scope,
        ]
        for one in tree.tokens
    ]
    out.table(("AGENT", "TOKEN", "BELOW", "EXPIRES", "RESOURCE", "SCOPES"), rows)
    if more := tree.total - len(tree.tokens):
        out.note(f"{plural(more, 'more token')}: name an agent to see its trees alone")


def _change_scopes(
    session: CliSession,
    ref: str,
    seconds: int | None = None,
    **change: tuple[str, ...],
) -> None:
    if not any(change.values()):
        raise UsageError("no scope was named", "for example write:calendar")
    agent = find_agent(session.client, ref)
    if missing := set(change.get("ungrant", ())) - set(agent.scopes):
        raise NotFoundError(
            f"{agent.name} was not granted {', '.join(sorted(missing))}",
            f"it has {', '.join(agent.scopes) or 'no scope'}",
        )
    body = requests.ScopesRequest(agent_id=agent.id, seconds=seconds, **change)
    changed = session.client.call(calls.SCOPES, body)
    if not session.out.print_json(changed):
        out = session.out
        out.line(
            *name_and_id(out, changed),
            " may ask for ",
            out.cell(" ".join(changed.scopes) or "nothing", limit=2000),
        )
        say_recorded(out, changed)


def say_cut(
    out: Output, answer: RevokeAnswer | ScopesAnswer | TokenRevokeAnswer
) -> None:
    """Print how many calls were cancelled, and how many may have taken effect."""
    if calls := cancelled(answer):
        out.line(f"cancelled: {calls}")


def say_recorded(out: Output, answer: Ended) -> None:
    """Print which other brokers of a team follow it, and where it is durable."""
    for text in unrecorded(answer):
        out.note(out.shown(text, 500))
    done = [one.ms for one in answer.brokers or () if one.confirmed]
    if answer.brokers and not answer.others:
        several = plural(len(answer.brokers), "other broker")
        within = f" within {max(done):.1f} ms" if done else ""
        out.line(f"confirmed by {len(done)} of {several}{within}")


def name_and_id(out: Output, agent: AgentInfo) -> list[Cell | str]:
    """Return how an agent is named in a line."""
    return [out.cell(agent.name, "strong", 60), " (", out.cell(agent.id), ")"]


def split_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Accept scopes one by one, or several in one word as OAuth writes them."""
    words = [word.replace(",", " ").split() for word in scopes]
    if not all(words):  # an empty list would mean every scope
        raise UsageError("a scope is empty", "is a variable not set?")
    return tuple(scope for word in words for scope in word)


def serving(agent: AgentInfo) -> list[tuple[str, object]]:
    """Return the scopes of a resource server; nothing for other agents."""
    if not agent.resource_server:
        return []
    serves = " ".join(agent.serves) or "every scope"
    resources = " ".join(agent.resources) or "every resource"
    return [("serves", serves), ("serves on", resources)]
