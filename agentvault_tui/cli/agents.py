"""``agentvault agents``: register, list, revoke and restore agents, grant scopes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click
from msgspec import to_builtins

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_pages, find_agent
from agentvault_tui.cli.output import Cell, Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.console.draw.glyphs import (
    ASCII_LEVELS,
    UNICODE_LEVELS,
    bars,
    fold_for,
    folded,
)
from agentvault_tui.console.state.intake import Intake
from agentvault_tui.console.state.moments import plural
from agentvault_tui.console.state.records import QUARTERS
from agentvault_tui.console.state.revocations import elsewhere
from agentvault_tui.errors import NotFoundError, SettingsError, UsageError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    QuartersInfo,
)
from agentvault_tui.operator_api.requests import (
    AgentRequest,
    DelegatesRequest,
    NewSecretRequest,
    RestoreRequest,
    RevokeRequest,
    ScopesRequest,
    StepUpQuery,
    TreeQuery,
)
from agentvault_tui.operator_api.shapes import (
    OUTCOMES,
    AgentInfo,
    NewAgentInfo,
    RevokeAnswer,
    ScopeInfo,
    ScopesAnswer,
    StepUpInfo,
)
from agentvault_tui.text import visible

_BESIDE: Final = 24
"""Cells beside the bars of a day: the word, and the largest number."""
_KEY_CAP: Final = 64 * 1024
_KEPT: Final = {
    "journal": "the cut journal keeps it, also over a restart",
    "stop": "the next start of the broker stops everything",
    "memory": "a restart of the broker would lose it",
}
"""Where a cut is until the ledger can write."""


@group("agents", example="agentvault agents list")
def agents() -> None:
    """Register agents, look at them, cut them off, let them back in.

    ID is an agent's id, or its name where only one has it.
    """


@agents.command("list", example="agentvault agents list --json")
@pass_session
def list_agents(session: CliSession) -> None:
    """List every agent with its live tokens and how it was answered."""
    out = session.out
    pages = list(agent_pages(session.client, tokens=session.json))
    agents = [agent for page in pages for agent in page.agents]
    if out.print_json({"agents": agents, "head": pages[0].head}):
        return
    panic = session.client.call(calls.STATUS).panic
    if panic.on:
        out.note(
            f"everything is stopped by {panic.by}, for: {panic.reason or '-'}; "
            "`agentvault agents restore --all` ends it"
        )
    if not agents:
        out.line("no agents yet: `agentvault agents add NAME --owner O --scope S`")
        return
    rows = [
        [
            out.cell(agent.name, "strong", 40),
            agent.id,
            out.cell(agent.owner, limit=40),
            out.word(
                "stopped" if panic.on and agent.status == "active" else agent.status
            ),
            agent.live_tokens,
            *(getattr(agent.counts, word) for word in OUTCOMES),
            f"serves {' '.join(agent.serves) or 'every scope'}"
            if agent.resource_server
            else " ".join(agent.scopes),
        ]
        for agent in agents
    ]
    counts = map(str.upper, OUTCOMES)
    out.table(("NAME", "ID", "OWNER", "STATUS", "TOKENS", *counts, "SCOPES"), rows)


@agents.command("show", example="agentvault agents show calendar-agent")
@click.argument("ref", metavar="ID")
@pass_session
def show_agent(session: CliSession, ref: str) -> None:
    """Show one agent: what it may do, what it holds, what it did, and how often."""
    client = session.client
    agent = find_agent(client, ref)
    activity = client.call(calls.ACTIVITY, id=agent.id)
    if not session.out.print_json({**to_builtins(agent), "activity": activity}):
        catalogue = client.call(calls.POLICY).catalogue
        stepups = client.call(calls.STEPUPS, StepUpQuery(agent=agent.id)).stepups
        _print_agent(session.out, agent, activity, catalogue, stepups)


@agents.command(
    "add",
    example="agentvault agents add calendar-agent --owner alice@acme.test "
    "--scope read:calendar --scope write:calendar",
)
@click.argument("name")
@click.option("--owner", required=True, help="Who answers for it.")
@click.option(
    "--scope", "scopes", multiple=True, help="A scope it may ask for; repeat it."
)
@click.option("--purpose", default="", help="What it is for.")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Its public key, PEM or JWK, instead of a secret.",
)
@click.option(
    "--subject",
    metavar="ISSUER:SUBJECT",
    help="Whose tokens of its platform it shows instead of a secret.",
)
@click.option(
    "--resource-server",
    is_flag=True,
    help="It may introspect, and so consume, other agents' tokens.",
)
@click.option(
    "--serves",
    multiple=True,
    help="A scope a resource server serves: it sees tokens of these alone; repeat it.",
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    help="A resource it serves, a URI such as stripe:acct_42; repeat it.",
)
@pass_session
def add_agent(session: CliSession, /, scopes: tuple[str, ...], **given: Any) -> None:
    """Register an agent and print how it authenticates, once.

    A resource server without --serves and --resource sees, and consumes, every token.
    """
    key, serves = given.pop("public_key"), _split(given.pop("serves"))
    wanted = AgentRequest(
        scopes=_split(scopes),
        serves=serves,
        public_key=_read_key(key) if key else None,
        **given,
    )
    _tell_new(session, session.client.call(calls.REGISTER, wanted))


@agents.group("secret", example="agentvault agents secret new calendar-agent")
def secret_group() -> None:
    """Client secrets of agents that are registered."""


@secret_group.command("new", example="agentvault agents secret new calendar-agent")
@click.argument("ref", metavar="ID")
@pass_session
def new_secret(session: CliSession, ref: str) -> None:
    """Make a client secret and print it, once; the one before stops working.

    For an agent that has none yet, or whose secret may be known to others. Tokens it
    has live on until they end, or it is revoked.
    """
    agent = find_agent(session.client, ref)
    asked = NewSecretRequest(agent_id=agent.id)
    _tell_new(session, session.client.call(calls.NEW_SECRET, asked))


def _tell_new(session: CliSession, agent: NewAgentInfo) -> None:
    """Print how an agent authenticates from now on."""
    secret, out = agent.client_secret, session.out
    if session.json:
        answer = {"id": agent.id, "client_id": agent.client_id}
        out.json({**answer, "client_secret": secret} if secret else answer)
        return
    out.fields(
        [
            ("agent", out.cell(agent.name, "strong")),
            ("id", agent.id),
            ("client id", agent.client_id),
            ("client secret", secret) if secret else None,
            ("subject", out.cell(agent.subject)) if agent.subject else None,
            ("scopes", " ".join(agent.scopes)),
            *_serving(agent),
        ]
    )
    if agent.resource_server and not (agent.serves or agent.resources):
        out.note(
            "without --serves and --resource it sees every token, and consumes those "
            "meant for other servers"
        )
    if secret:
        out.note("the secret is shown this once: put it where the agent reads it")
        if not _speaks_tls(session):
            out.note(
                "while the broker is down any user of this machine can take its port "
                "and be sent the secret: after `agentvault tls init` agents can tell"
            )


@agents.command(
    "revoke",
    example="agentvault agents revoke calendar-agent --reason 'runaway bookings'",
)
@click.argument("ref", metavar="ID", required=False)
@click.option("--all", "everyone", is_flag=True, help="The panic switch: every agent.")
@click.option("--reason", default="", help="Why; it is recorded.")
@pass_session
def revoke_agent(
    session: CliSession, ref: str | None, everyone: bool, reason: str
) -> None:
    """Cut an agent off: no token of it is worth anything once this returns."""
    _one_or_all(ref, everyone=everyone)
    if everyone and not reason.strip():
        raise UsageError("stopping every agent is recorded with a reason", "--reason R")
    client, out = session.client, session.out
    if everyone:
        asked = RevokeRequest(all=True, reason=reason)
    else:
        asked = RevokeRequest(agent_id=find_agent(client, str(ref)).id, reason=reason)
    answer = client.call(calls.REVOKE, asked)
    if out.print_json(answer):
        return
    who = (
        _name_and_id(out, answer.agent)
        if answer.agent
        else [f"every agent ({answer.agents})"]
    )
    out.line(Cell(out.shown("revoked "), "bad"), *who)
    out.line(
        f"closed here in {answer.effective_ms:.1f} ms: "
        f"{plural(answer.tokens_revoked, 'token')} and "
        f"{plural(answer.stepups_cancelled, 'step-up')} ended"
    )
    if answer.agent and answer.delegated_revoked:
        passed = plural(answer.delegated_revoked, "token")
        out.line(f"{passed} of other agents ended that were passed on from those")
    _say_cut(out, answer)
    if answer.agent:
        print_elsewhere(out, answer.agent)
    if not answer.recorded:
        kept = _KEPT.get(answer.kept, _KEPT["memory"])
        out.note(f"in force, and not in the ledger yet: {kept}")
    if everyone:
        out.line("nothing is issued until `agentvault agents restore --all`")


def _say_cut(out: Output, answer: RevokeAnswer | ScopesAnswer) -> None:
    if answer.calls_cut:
        out.line(
            f"{plural(answer.calls_cut, 'call')} cut in flight, of which the service "
            f"had {answer.calls_sent} whole"
        )


@agents.command("restore", example="agentvault agents restore --all")
@click.argument("ref", metavar="ID", required=False)
@click.option("--all", "everyone", is_flag=True, help="Lift the panic switch.")
@pass_session
def restore_agent(session: CliSession, ref: str | None, everyone: bool) -> None:
    """Serve an agent again; tokens revoked before stay revoked."""
    _one_or_all(ref, everyone=everyone)
    client, out = session.client, session.out
    if everyone:
        asked = RestoreRequest(all=True)
    else:
        asked = RestoreRequest(agent_id=find_agent(client, str(ref)).id)
    answer = client.call(calls.RESTORE, asked)
    if session.json:
        out.json(answer)
    elif answer.agent:
        out.line(Cell(out.shown("restored "), "good"), *_name_and_id(out, answer.agent))
    else:
        out.line(
            f"the panic is over: {plural(answer.agents or 0, 'agent')} served; "
            "agents revoked singly stay revoked"
        )


_scope_option = click.option("--scope", "named", multiple=True, help="The same as S.")


@agents.command("grant", example="agentvault agents grant calendar-agent read:contacts")
@click.argument("ref", metavar="ID")
@click.argument("scopes", metavar="S...", nargs=-1)
@_scope_option
@pass_session
def grant_scopes(
    session: CliSession, ref: str, scopes: tuple[str, ...], named: tuple[str, ...]
) -> None:
    """Let an agent ask for more scopes."""
    _change_scopes(session, ref, grant=_split(scopes + named))


@agents.command(
    "ungrant", example="agentvault agents ungrant calendar-agent write:calendar"
)
@click.argument("ref", metavar="ID")
@click.argument("scopes", metavar="S...", nargs=-1)
@_scope_option
@pass_session
def ungrant_scopes(
    session: CliSession, ref: str, scopes: tuple[str, ...], named: tuple[str, ...]
) -> None:
    """Take scopes away, and end the live tokens that carry them."""
    _change_scopes(session, ref, ungrant=_split(scopes + named))


@agents.command(
    "serves",
    example="agentvault agents serves payments-api send:payment"
    " --resource stripe:acct_42",
)
@click.argument("ref", metavar="ID")
@click.argument("scopes", metavar="S...", nargs=-1)
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
    """Say what a resource server serves, in place of what it did.

    It sees, and consumes, tokens of that alone.
    """
    if everything == bool(scopes or resources):
        raise UsageError(
            "say which scopes or resources it serves, or --all, and not both"
        )
    agent = find_agent(session.client, ref)
    asked = ScopesRequest(agent_id=agent.id, serves=_split(scopes), resources=resources)
    changed = session.client.call(calls.SCOPES, asked)
    out = session.out
    if not out.print_json(changed):
        out.fields(
            [("agent", out.cell(changed.name, "strong", 60)), *_serving(changed)]
        )


@agents.command(
    "delegates",
    example="agentvault agents delegates planner-agent --to search-agent"
    " --scope read:calendar",
)
@click.argument("ref", metavar="ID")
@click.option("--to", "other", required=True, help="The agent it may pass tokens to.")
@click.option("--scope", "scopes", multiple=True, help="A scope of them; repeat it.")
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
    asked = DelegatesRequest(agent_id=agent.id, to=to.id, scopes=_split(scopes))
    changed = client.call(calls.DELEGATES, asked)
    if out.print_json(changed):
        return
    told = next((one.scopes for one in changed.delegates if one.id == to.id), ())
    out.line(
        *_name_and_id(out, changed),
        " may pass on to ",
        *_name_and_id(out, to),
        ": ",
        out.cell(" ".join(told) or "nothing", limit=2000),
    )
    if changed.delegated_revoked:
        out.line(f"{plural(changed.delegated_revoked, 'token')} ended that came of it")
    _say_cut(out, changed)


@agents.command("tree", example="agentvault agents tree planner-agent")
@click.argument("ref", metavar="ID", required=False)
@pass_session
def show_tree(session: CliSession, ref: str | None) -> None:
    """Show the live tokens that agents passed on, and what would end with each."""
    client, out = session.client, session.out
    query = TreeQuery(agent=find_agent(client, ref).id if ref else None)
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
            one.expires_at,
            one.resource,
            one.scope,
        ]
        for one in tree.tokens
    ]
    out.table(("AGENT", "TOKEN", "BELOW", "EXPIRES", "RESOURCE", "SCOPES"), rows)
    if more := tree.total - len(tree.tokens):
        out.note(f"{plural(more, 'more token')}: name an agent to see its trees alone")


def _change_scopes(session: CliSession, ref: str, **change: tuple[str, ...]) -> None:
    if not any(change.values()):
        raise UsageError("no scope was named", "for example write:calendar")
    agent = find_agent(session.client, ref)
    if missing := set(change.get("ungrant", ())) - set(agent.scopes):
        raise NotFoundError(
            f"{agent.name} was not granted {', '.join(sorted(missing))}",
            f"it has {', '.join(agent.scopes) or 'no scope'}",
        )
    asked = ScopesRequest(agent_id=agent.id, **change)
    changed = session.client.call(calls.SCOPES, asked)
    if not session.out.print_json(changed):
        out = session.out
        out.line(
            *_name_and_id(out, changed),
            " may ask for ",
            out.cell(" ".join(changed.scopes) or "nothing", limit=2000),
        )


def _name_and_id(out: Output, agent: AgentInfo) -> list[Cell | str]:
    return [out.cell(agent.name, "strong", 60), " (", out.cell(agent.id), ")"]


def _one_or_all(ref: str | None, *, everyone: bool) -> None:
    if everyone == (ref is not None):
        raise UsageError("say which agent, or --all, and not both")


def _split(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Accept scopes one by one, or several in one word as OAuth writes them."""
    found = [word.replace(",", " ").split() for word in scopes]
    if not all(found):  # no scope at all would stand for every scope
        raise UsageError("a scope is empty", "is a variable not set?")
    return tuple(scope for word in found for scope in word)


def _read_key(path: Path) -> str:
    """Read a public key; refuse a private one."""
    try:
        with click.open_file(str(path), encoding="utf-8") as file:
            text = str(file.read(_KEY_CAP))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the key file {path} cannot be read", "give a PEM or JWK text file"
        ) from error
    if "PRIVATE KEY" in text or '"d"' in text:
        raise UsageError(
            f"{path} holds a private key", "give its public half; keep this one"
        )
    return text


def _speaks_tls(session: CliSession) -> bool:
    """Tell whether agents can authenticate the broker they send secrets to."""
    from agentvault_tui.web.local_ca import chosen_files

    with contextlib.suppress(SettingsError):
        if session.remote:
            return True  # it is not this home's settings that say so
        return chosen_files(session.home, session.settings.broker) is not None
    return False


def _print_agent(
    out: Output,
    agent: AgentInfo,
    activity: ActivityInfo,
    catalogue: dict[str, ScopeInfo],
    waiting: Iterable[StepUpInfo],
) -> None:
    """Print everything that is known of one agent, as the console's rows say it."""
    from agentvault_tui.console.draw.agent import AgentContext, facts
    from agentvault_tui.console.state.activity import read_activity
    from agentvault_tui.console.state.mirror import Mirror

    mirror = Mirror(SystemClock(), ascii_only=out.ascii_only)
    mirror.intake.learn(catalogue)
    for told in (agent, *waiting):
        mirror.take(told)
    (row,) = mirror.agents.values()
    _identity(out, agent)
    out.line()
    did = read_activity(mirror.intake, activity)
    out.rows(facts(out.pen, AgentContext(mirror, row, did), out.width or 100))
    _day(out, activity.quarters)
    if agent.listed_tokens:
        out.line()
        tokens = [(t.id, t.kind, t.expires_at, t.scope) for t in agent.listed_tokens]
        out.table(("TOKEN", "KIND", "EXPIRES", "SCOPE"), tokens)


def _identity(out: Output, agent: AgentInfo) -> None:
    counts = agent.counts
    out.fields(
        [
            ("agent", out.cell(agent.name, "strong")),
            ("id", agent.id),
            ("owner", agent.owner),
            ("purpose", agent.purpose),
            *([("subject", out.cell(agent.subject))] if agent.subject else []),
            ("status", out.word(agent.status)),
            ("registered", agent.created_at),
            ("last seen", agent.last_seen_at),
            (
                "answers",
                ", ".join(f"{getattr(counts, word)} {word}" for word in OUTCOMES),
            ),
            ("live tokens", agent.live_tokens),
            *_serving(agent),
        ]
    )


def _serving(agent: AgentInfo) -> list[tuple[str, object]]:
    """Return what a resource server serves; nothing for other agents."""
    if not agent.resource_server:
        return []
    serves = " ".join(agent.serves) or "every scope"
    resources = " ".join(agent.resources) or "every resource"
    return [("serves", serves), ("serves on", resources)]


def print_elsewhere(out: Output, agent: AgentInfo) -> None:
    """Print how far the tenant and providers are with an agent that was revoked."""
    row = Intake(ascii_only=out.ascii_only).agent(agent)
    for line in elsewhere(row, SystemClock().now()):
        out.line(line.strip())


def _day(out: Output, day: QuartersInfo) -> None:
    """Print the last 24 hours, a row an outcome, folded to the terminal's width."""
    fold = fold_for((out.width or QUARTERS + _BESIDE) - _BESIDE)
    levels = ASCII_LEVELS if out.ascii_only else UNICODE_LEVELS
    out.line()
    minutes = fold * day.seconds // 60
    out.line(
        out.cell(
            f"last 24 hours, {minutes} min a mark, from {day.start[:16]}Z", "quiet"
        )
    )
    for word in OUTCOMES:
        numbers = folded(getattr(day, word), fold)
        total = f"  {sum(numbers)}, at most {max(numbers)}" if any(numbers) else "  0"
        out.line(
            out.cell(word.ljust(9), "quiet"),
            "  ",
            bars(numbers, levels),
            out.cell(total),
        )
