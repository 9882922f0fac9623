"""``agentvault agents``: register, list, revoke and restore agents, grant scopes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click
from msgspec import to_builtins
from msgspec.structs import replace

from agentvault_tui.cli.agent_scopes import (
    grant_scopes,
    name_and_id,
    rate_text,
    remove,
    rename,
    serving,
    set_delegates,
    set_rate,
    set_served,
    show_tree,
    split_scopes,
    ungrant_scopes,
)
from agentvault_tui.cli.event_search import Moment
from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.lookup import agent_names, agent_pages, find_agent, scope_names
from agentvault_tui.cli.output import Cell, Output, short_time
from agentvault_tui.cli.revoking import (
    chosen_agents,
    nothing_revoked,
    print_revoked,
    restore_agents,
    revoke_chosen,
)
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.stop import stop_all
from agentvault_tui.clock import SystemClock, parse_iso
from agentvault_tui.errors import SettingsError, UsageError
from agentvault_tui.operator_api import calls, requests
from agentvault_tui.operator_api.history import (
    ActivityInfo,
    QuartersInfo,
)
from agentvault_tui.operator_api.shapes import (
    OUTCOMES,
    AgentInfo,
    NewAgentInfo,
    ScopeInfo,
)
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.glyphs import (
    ASCII,
    UNICODE,
    bars,
    fold_for,
    folded,
)
from agentvault_tui.presenters.moments import FORMS_AHEAD, plural
from agentvault_tui.presenters.records import QUARTERS
from agentvault_tui.text import visible

_BESIDE: Final = 24
"""Cells next to the bars of a day: the word, and the largest number."""
_KEY_CAP: Final = 64 * 1024


@group(
    "agents",
    example="agentvault agents list",
    former={"serves": "set-serves", "delegates": "set-delegates"},
)
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
            _standing(out, agent, stopped=panic.on),
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
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@pass_session
def show_agent(session: CliSession, ref: str) -> None:
    """Show one agent: its permissions, tokens, actions, and rate."""
    client = session.client
    agent = find_agent(client, ref)
    activity = client.call(calls.ACTIVITY, id=agent.id)
    if not session.out.print_json({**to_builtins(agent), "activity": activity}):
        catalogue = client.call(calls.POLICY).catalogue
        stepups = client.call(
            calls.STEPUPS, requests.StepUpQuery(agent=agent.id)
        ).stepups
        _print_agent(session.out, agent, activity, catalogue, stepups)


@agents.command(
    "add",
    example="agentvault agents add calendar-agent --owner alice@acme.test "
    "--scope read:calendar --scope write:calendar",
)
@click.argument("name")
@click.option("--owner", default="", help="Who answers for it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope it may ask for; repeat it.",
    shell_complete=scope_names,
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
    "--until",
    type=Moment(ahead=True),
    help=f"When it is revoked by itself: in {FORMS_AHEAD}.",
)
@click.option(
    "--template", is_flag=True, help="Others are made from it; it is never served."
)
@click.option(
    "--from",
    "from_template",
    metavar="TEMPLATE",
    help="Give it the scopes, owner and delegates of a template, and end it with that.",
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
    key, serves = given.pop("public_key"), split_scopes(given.pop("serves"))
    origin = given.pop("from_template")
    if not (given["owner"] or origin):
        raise UsageError("who answers for it?", "give --owner")
    wanted = requests.AgentRequest(
        scopes=split_scopes(scopes),
        serves=serves,
        public_key=_read_key(key) if key else None,
        from_template=find_agent(session.client, origin).id if origin else None,
        **given,
    )
    _tell_new(session, session.client.call(calls.REGISTER, wanted))


@agents.group("secret", example="agentvault agents secret new calendar-agent")
def secret_group() -> None:
    """Client secrets of agents that are registered."""


@secret_group.command("new", example="agentvault agents secret new calendar-agent")
@click.argument("ref", metavar="ID", shell_complete=agent_names)
@pass_session
def new_secret(session: CliSession, ref: str) -> None:
    """Make a client secret and print it, once; the one before stops working.

    For an agent that has none yet, or whose secret may be known to others. Tokens it
    has live on until they end, or it is revoked.
    """
    agent = find_agent(session.client, ref)
    body = requests.NewSecretRequest(agent_id=agent.id)
    _tell_new(session, session.client.call(calls.NEW_SECRET, body))


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
            *_ending(agent),
            *serving(agent),
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
                "while the broker is down, any user of this machine can listen on its "
                "port and receive the secret; with TLS (`agentvault tls init`) the "
                "agent checks the certificate first"
            )


def _at_most_one(
    _: click.Context, __: click.Parameter, refs: tuple[str, ...]
) -> str | None:
    """Return the agent that is named, if one is."""
    if len(refs) > 1:
        raise UsageError("one agent at a time", "for several give --owner or --scope")
    return refs[0] if refs else None


@agents.command(
    "revoke",
    example="agentvault agents revoke calendar-agent --reason 'runaway bookings'",
)
@click.argument(
    "ref", metavar="[ID]", nargs=-1, callback=_at_most_one, shell_complete=agent_names
)
@click.option("--all", "everyone", is_flag=True, help="The panic switch: every agent.")
@click.option("--owner", help="Every agent of this owner; shown first, and asked once.")
@click.option(
    "--scope",
    help="Every agent with this scope; with --owner: of these.",
    shell_complete=scope_names,
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why; it is recorded.")
@click.option("--plan", is_flag=True, help="Say what would end, and revoke nothing.")
@pass_session
def revoke_agent(
    session: CliSession,
    /,
    *,
    ref: str | None,
    everyone: bool,
    owner: str | None,
    scope: str | None,
    yes: bool,
    reason: str,
    plan: bool,
) -> int:
    """Revoke an agent: none of its tokens is worth anything once this returns.

    With a template all agents end that were made from it. With --owner, --scope or both
    the agents are listed with their tokens, and all end after one question.
    """
    if owner is not None or scope is not None:
        if ref is not None or everyone:
            raise UsageError(
                "--owner and --scope choose agents", "leave out ID and --all"
            )
        with nothing_revoked(session):
            chosen = chosen_agents(session.client, owner, scope)
        return revoke_chosen(session, chosen, reason, plan=plan, yes=yes)
    _one_or_all(ref, everyone=everyone)
    if plan:
        _plan_revocation(session, ref)
        return 0
    if everyone and not reason.strip():
        raise UsageError("stopping every agent is recorded with a reason", "--reason R")
    if everyone:
        return stop_all(session, reason)
    with nothing_revoked(session):
        agent = find_agent(session.client, str(ref))
    body = requests.RevokeRequest(agent_id=agent.id, reason=reason)
    print_revoked(session, session.client.call(calls.REVOKE, body), agent.revoked_at)
    return 0


def _plan_revocation(session: CliSession, ref: str | None) -> None:
    """Print the effect of revoking one agent."""
    if ref is None:
        raise UsageError("--plan is for one agent", "everything ends with --all")
    agent, out = find_agent(session.client, ref), session.out
    if out.print_json(agent):
        return
    out.line(*name_and_id(out, agent), f": {plural(agent.live_tokens, 'token')}")
    if agent.delegated_below:
        below = plural(agent.delegated_below, "token")
        out.line(f"{below} of other agents that were passed on from those")
    if agent.template:
        out.line(f"{plural(agent.derived_total, 'agent')} made from it:")
        for one in agent.derived:
            out.line("  ", out.cell(one.name, "strong", 60), f" ({one.id})")
        if more := agent.derived_total - len(agent.derived):
            out.line(f"  and {more} more")


@agents.command("restore", example="agentvault agents restore --all")
@click.argument("ref", metavar="ID", required=False, shell_complete=agent_names)
@click.option("--all", "everyone", is_flag=True, help="Lift the panic switch.")
@click.option(
    "--until",
    type=Moment(ahead=True),
    help="When it is revoked by itself; needed where its time was over.",
)
@pass_session
def restore_agent(
    session: CliSession, ref: str | None, everyone: bool, until: str | None
) -> None:
    """Serve an agent again; tokens revoked before stay revoked.

    Where loosening changes need an approver's second factor, this prints a code and
    waits for it.
    """
    _one_or_all(ref, everyone=everyone)
    restore_agents(session, ref, until)


def _one_or_all(ref: str | None, *, everyone: bool) -> None:
    if everyone == (ref is not None):
        raise UsageError("say which agent, or --all, and not both")


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
    """Check whether agents can authenticate the broker they send secrets to."""
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
    """Print all facts about one agent, in the console's words."""
    from agentvault_tui.presenters.activity import read_activity
    from agentvault_tui.presenters.agent import AgentContext, facts
    from agentvault_tui.presenters.directory import Directory

    directory = Directory(SystemClock(), ascii_only=out.ascii_only)
    intake = directory.intake
    intake.learn(catalogue)
    alone: dict[str, Any] = dict.fromkeys(
        ("until", "from_template", "subject", "removed_at")
    )
    shown = replace(agent, template=False, **alone)  # `_identity` tells these
    seen = AgentContext(
        directory=directory,
        agent=directory.add(shown),
        tokens=sorted(
            map(intake.token, agent.listed_tokens), key=lambda token: token.ends
        ),
        live=agent.live_tokens,
        elevated=agent.tokens_elevated,
        stepups=sorted(map(intake.stepup, waiting), key=lambda one: one.requested_at),
        activity=read_activity(intake, activity),
    )
    _identity(out, agent)
    out.line()
    out.rows(facts(out.pen, seen, out.width or 100))
    _day(out, activity.quarters)
    if agent.listed_tokens:
        out.line()
        tokens = [
            (t.id, t.kind, short_time(t.expires_at), t.scope)
            for t in agent.listed_tokens
        ]
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
            ("removed", agent.removed_at) if agent.removed_at else None,
            ("registered", agent.created_at),
            ("last seen", agent.last_seen_at),
            (
                "answers",
                ", ".join(f"{getattr(counts, word)} {word}" for word in OUTCOMES),
            ),
            ("live tokens", agent.live_tokens),
            *([("a second", rate)] if (rate := rate_text(agent)) else []),
            *_ending(agent),
            *serving(agent),
        ]
    )


def _ending(agent: AgentInfo) -> list[tuple[str, object]]:
    from agentvault_tui.presenters.agent import ending

    names = [visible(one.name, 40) for one in agent.derived]
    note = ending(
        parse_iso(agent.until) if agent.until else None,
        SystemClock().now(),
        agent.from_template,
        names if agent.template else None,
        agent.derived_total - len(names),
    )
    return [(label.lower(), text) for label, text in note]


def _standing(out: Output, agent: AgentInfo, *, stopped: bool) -> Cell:
    """Return the state of an agent, with the time that it has left."""
    if stopped and agent.status == "active":
        return out.word("stopped")
    if agent.until and agent.status != "revoked":
        from agentvault_tui.presenters.agent import ends_in

        left = ends_in(parse_iso(agent.until), SystemClock().now())
        return out.cell(f"{agent.status}, ends {left}")
    return out.word(agent.status)


def _day(out: Output, day: QuartersInfo) -> None:
    """Print the last 24 hours, a row an outcome, folded to the terminal's width."""
    fold = fold_for((out.width or QUARTERS + _BESIDE) - _BESIDE)
    levels = (ASCII if out.ascii_only else UNICODE).levels
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


agents.add_command(rename)
agents.add_command(remove)
agents.add_command(grant_scopes)
agents.add_command(ungrant_scopes)
agents.add_command(set_served)
agents.add_command(set_delegates)
agents.add_command(set_rate)
agents.add_command(show_tree)
