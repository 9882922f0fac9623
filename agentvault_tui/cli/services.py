"""``agentvault services``: the upstream APIs agents reach, their routes, a dry run."""

from __future__ import annotations

import base64
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentvault_tui.amounts import shown_parameters
from agentvault_tui.cli.config_files import (
    check_config_file,
    config_files,
    notes_of,
    print_checks,
    write_config_file,
)
from agentvault_tui.cli.framework import FILE, group, pass_session
from agentvault_tui.cli.lookup import agent_names, find_agent, service_names
from agentvault_tui.cli.output import Output, short_time
from agentvault_tui.cli.session import CliSession
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import NotFoundError, UsageError
from agentvault_tui.model import Money
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.gateway import RouteInfo, ServiceInfo, TryInfo
from agentvault_tui.operator_api.requests import TryRequest

if TYPE_CHECKING:
    from agentvault_tui.gateway import Service

MAX_BODY = 40_000
"""Bytes of a body that is tried: in Base64 it has to fit an operator's request."""


@group("services", example="agentvault services list")
def services() -> None:
    """Show the agents' services, and try requests."""


@services.command("list", example="agentvault services list")
@pass_session
def list_services(session: CliSession) -> None:
    """List the services in effect: origin, credential, health, last use."""
    out = session.out
    listing = session.client.call(calls.SERVICES)
    if out.print_json(listing):
        return
    broken = [one for one in listing.services if one.health == "broken"]
    problems = {f"{one.name}.toml": one.problem for one in broken}
    for file, problem in sorted((problems | listing.problems).items()):
        out.line(
            out.word("fault"), " ", out.cell(file), ": ", out.cell(problem, limit=400)
        )
    if not listing.services:
        out.line("no services: agentvault services import NAME")
        return
    rows = [
        [
            out.cell(one.name, "strong"),
            out.cell(one.origin),
            out.cell(one.credential.kind),
            out.cell(sum(not each.when for each in one.routes)),
            out.word(one.health),
            short_time(one.last_used_at),
        ]
        for one in listing.services
    ]
    headers = ("NAME", "ORIGIN", "CREDENTIAL", "ROUTES", "HEALTH", "LAST USED")
    out.table(headers, rows)


@services.command("show", example="agentvault services show stripe")
@click.argument("name", shell_complete=service_names)
@pass_session
def show(session: CliSession, name: str) -> None:
    """Show one service: its routes, and where their parameters are read."""
    out = session.out
    service = session.client.call(calls.SERVICE, name=name)
    if out.print_json(service):
        return
    credential = service.credential
    named = credential.secret or credential.connection
    out.fields(
        [
            ("service", out.cell(service.name, "strong")),
            ("origin", service.origin),
            ("credential", f"{credential.kind} {named}" if named else credential.kind),
            ("health", out.word(service.health)),
            *([("problem", service.problem)] if service.problem else ()),
            ("last used", service.last_used_at),
            ("unmatched", service.unmatched),
            ("private addresses", "may be reached" if service.allow_private else "no"),
        ]
    )
    out.line()
    _print_routes(out, service)
    _print_unlisted(out, service)


def _print_unlisted(out: Output, service: ServiceInfo) -> None:
    if not service.unlisted:
        return
    out.line()
    out.line("Not listed, in the last day; add a line to the route or the file:")
    rows = [
        [
            out.cell(one.name),
            out.word("refused") if one.refused else out.cell("dropped"),
            out.cell(one.calls),
            out.cell(one.add or "no line allows it"),
        ]
        for one in service.unlisted
    ]
    out.table(("HEADER OR TYPE", "WAS", "CALLS", "LINE"), rows, keep=("LINE",))


def _print_routes(out: Output, service: ServiceInfo) -> None:
    rows = [
        [
            out.cell(one.method),
            out.cell(f"{one.path} if {one.when}" if one.when else one.path),
            out.cell(one.scope, "strong"),
            out.cell(", ".join((one.resource or f"{service.name}:PATH", *one.also))),
            out.cell(_parameters(one)),
        ]
        for one in service.routes
    ]
    if rows:
        out.table(("METHOD", "PATH", "SCOPE", "RESOURCE", "PARAMETERS"), rows)


def _parameters(one: RouteInfo) -> str:
    places = dict(one.parameters)
    if one.unit and "amount" in places:
        places["amount"] += f" ({one.unit} units)"
    return ", ".join(f"{name} = {where}" for name, where in places.items())


@services.command("check", on_home=True, example="agentvault services check stripe")
@click.argument("what", metavar="[NAME|FILE]", required=False)
@click.option(
    "--probe",
    is_flag=True,
    help="Have the running broker send NAME requests whose bodies look like requests.",
)
@pass_session
def check(session: CliSession, what: str | None, *, probe: bool) -> int:
    """Check service files without putting anything in effect; needs no broker.

    Without an argument: all files of the home. Exits 1 when one could not be put in
    force.

    With --probe: the running broker sends the service a few requests, without a
    credential, for paths that it does not have. Exits 1 when the service leaves a
    body unread and takes it for another request. If nothing is shown, that proves
    nothing.
    """
    if probe:
        return _probe(session, what)
    return print_checks(
        session,
        "services",
        [check_file(session, path) for path in config_files(session, "services", what)],
        summary=lambda one: f"{one['routes']} routes",
        none="no service files: agentvault services import NAME",
    )


def _probe(session: CliSession, name: str | None) -> int:
    """Probe one service; return 1 where it is shown to leave bodies unread."""
    if name is None:
        raise UsageError("--probe needs the name of a service")
    result = session.client.call(calls.PROBE, name=name)
    out = session.out
    if not out.print_json(result):
        rows = [
            [out.cell(one.method), out.cell(one.status or ""), out.cell(one.outcome)]
            for one in result.probes
        ]
        out.table(("METHOD", "STATUS", "OUTCOME"), rows, keep=("METHOD",))
        if result.leaves_unread:
            out.line(
                out.word("fault"),
                " this service takes a body that it did not read for another request:",
                " leave drains_bodies out",
            )
        else:
            out.line(
                "nothing was shown, which proves nothing: another path, method or"
                " server of this service may still leave a body unread"
            )
    return 1 if result.leaves_unread else 0


def check_file(session: CliSession, path: Path) -> dict[str, Any]:
    """Check one file; return its faults and notes."""
    from agentvault_tui.gateway.services import parse_service

    report, service = check_config_file(session, path, parse_service, {"routes": 0})
    if service is not None:
        report["routes"] = len(service.routes)
        report["notes"] = [*notes_of(session, service), *_refused_now(session, service)]
    return report


def _refused_now(session: CliSession, service: Service) -> list[str]:
    """Say which calls of the last 30 days the file would refuse now."""
    from agentvault_tui.gateway.past_calls import recorded_calls, refused_now
    from agentvault_tui.ledger.schema import open_reader

    database = session.home.database
    if not database.exists():
        return []
    since = SystemClock().now() - timedelta(days=30)
    with closing(open_reader(database)) as db:
        return refused_now(service, recorded_calls(db, service.name, since))


@services.command(
    "try",
    example="agentvault services try stripe POST /v1/transfers/acct_42 "
    "--body transfer.json --agent payments-agent",
)
@click.argument("name", shell_complete=service_names)
@click.argument("method")
@click.argument("path")
@click.option(
    "--agent", required=True, help="Id or unique name.", shell_complete=agent_names
)
@click.option("--body", type=FILE, help="A file; - is stdin.")
@click.option("--content-type", help="Else JSON or a form, by how the body begins.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE")
@pass_session
def attempt(
    session: CliSession,
    name: str,
    method: str,
    path: str,
    *,
    agent: str,
    body: Path | None,
    content_type: str | None,
    headers: tuple[str, ...],
) -> int:
    """Say which action a request would be, and how policy would answer.

    Nothing is sent, issued or recorded. PATH has its query. Exits 1 when the gateway
    would refuse the request before policy is asked.
    """
    sent = dict(_header(one) for one in headers)
    content = _body(body) if body is not None else b""
    if content:
        kind = "json" if content.lstrip()[:1] in b"{[" else "x-www-form-urlencoded"
        sent.setdefault("content-type", content_type or f"application/{kind}")
    client = session.client
    trial = TryRequest(
        agent_id=find_agent(client, agent).id,
        service=name,
        method=method,
        path=path,
        headers=sent,
        body=base64.b64encode(content).decode() if content else None,
    )
    answer = client.call(calls.TRY, trial)
    if not session.out.print_json(answer):
        _print_try(session.out, answer)
    return 1 if answer.error else 0


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("a header has no colon", "write --header 'X-Tag: blue'")
    return name.strip().lower(), value.strip()


def _body(path: Path) -> bytes:
    with click.open_file(str(path), "rb") as file:
        content: bytes = file.read(MAX_BODY + 1)
    if len(content) > MAX_BODY:
        raise UsageError(f"the body is larger than {MAX_BODY} bytes")
    return content


def _print_try(out: Output, answer: TryInfo) -> None:
    if answer.error:
        description = out.cell(answer.description, limit=400)
        out.line(out.word("refused"), " ", out.cell(answer.error), ": ", description)
        return
    one = answer.route
    stated = shown_parameters(answer.parameters, Money.read(answer.money))
    out.fields(
        [
            (
                "route",
                f"{one.method} {one.path}" if one else "none: the unmatched scope",
            ),
            ("action", out.cell(answer.scope, "strong")),
            ("resource", answer.resource),
            *((name, _shown(value)) for name, value in stated.items()),
        ]
    )
    if (decision := answer.decision) is not None:
        out.fields(
            [
                ("decision", out.word(decision.decision)),
                ("rule", decision.rule),
                ("why", decision.why),
                ("reason", decision.reason),
            ]
        )


def _shown(value: object) -> object:
    return "unclear" if value is None else value


@services.command("learn", on_home=True, example="agentvault services learn stripe")
@click.argument("name", shell_complete=service_names)
@pass_session
def learn(session: CliSession, name: str) -> None:
    """Draft routes of NAME for calls of the last day that no route matched.

    Prints them as tables of a service's file, with a guessed scope, for a person to
    finish: nothing is written.
    """
    from agentvault_tui.broker.policy_files import load_policy, read_text
    from agentvault_tui.gateway.learning import draft_text, learn_routes
    from agentvault_tui.gateway.past_calls import recorded_calls
    from agentvault_tui.gateway.services import parse_service
    from agentvault_tui.ledger.schema import read_home
    from agentvault_tui.model import EventType

    home, out = session.home, session.out
    (path,) = config_files(session, "services", name)
    text = read_text(path, home.config) or ""
    service = parse_service(path.stem, text, load_policy(home).catalogue, home.config)
    if not home.database.exists():
        raise NotFoundError(f"there is no ledger at {home.database}")
    since = SystemClock().now() - timedelta(days=1)
    with read_home(home) as db:
        kinds = EventType.GATEWAY_REFUSED, EventType.GATEWAY_ATTEMPT
        rows = [
            one
            for kind in kinds
            for one in recorded_calls(db, service.name, since, kind)
        ]
    routes = learn_routes(service, rows)
    if not out.print_json({"routes": [asdict(one) for one in routes]}):
        if routes:
            out.raw(draft_text(routes).rstrip())
        else:
            out.note(f"every call of {service.name} in the last day has its route")


@services.command("import", on_home=True, example="agentvault services import stripe")
@click.argument("name", shell_complete=service_names)
@click.option(
    "--openapi",
    type=FILE,
    help="Make a route of each operation of this OpenAPI 3 document.",
)
@click.option(
    "--shipped", help="Copy this shipped file, instead of the one called NAME."
)
@click.option("--origin", help="Scheme, host and port, instead of the document's.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@pass_session
def import_service(
    session: CliSession,
    name: str,
    *,
    openapi: Path | None,
    shipped: str | None,
    origin: str | None,
    force: bool,
) -> None:
    """Write services/NAME.toml: a shipped file, or the routes of an OpenAPI document.

    Without --openapi it is the shipped file of that name: github, github-git, gmail,
    google-calendar, slack, stripe or workspace. A running broker has it in effect at
    once; finish it, and set the secret that it names.
    """
    from agentvault_tui.broker.policy_files import NAME, load_policy
    from agentvault_tui.gateway.openapi import service_file
    from agentvault_tui.gateway.services import parse_service
    from agentvault_tui.gateway.shipped import shipped_file

    if not NAME.fullmatch(name):
        raise UsageError(
            "that is no name for a service",
            "use lower-case letters, digits, - and _, at most 63",
        )
    if openapi is not None and shipped:
        raise UsageError("--openapi and --shipped exclude each other")
    if openapi is not None:
        text = service_file(name, openapi, origin)
    else:
        text = shipped_file(shipped or name, origin)
    home = session.home
    service = parse_service(name, text, load_policy(home).catalogue, home.config)
    path = write_config_file(home, "services", name, text, replace=force)
    missing = list(service.credential.secrets)
    summary = {"written": str(path), "routes": len(service.routes), "secrets": missing}
    if session.out.print_json(summary):
        return
    out = session.out
    out.line(
        "wrote ", out.cell(str(path), limit=1000), f": {len(service.routes)} routes"
    )
    for secret in missing:
        out.note(f"set its secret: agentvault secrets set {secret}")
