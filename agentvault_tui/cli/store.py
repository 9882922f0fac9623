"""``agentvault store``: where state and ledger are, for one broker or for a team."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentvault_tui.cli.framework import group, pass_session
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import (
    RefusedError,
    SealedError,
    SettingsError,
    UsageError,
)
from agentvault_tui.model.finding import Finding, fault, ok, warning

if TYPE_CHECKING:
    from agentvault_tui.home import Home
    from agentvault_tui.ledger import Change
    from agentvault_tui.settings import Settings
    from agentvault_tui.store_connection import Connector


@group("store", on_home=True, example="agentvault store info")
def store() -> None:
    """Show, check and copy the store of state and ledger; prepare a team's."""


@store.command("info", example="agentvault store info --json")
@pass_session
def info(session: CliSession) -> None:
    """Show the store, its schema, head, size, brokers and durability."""
    if not session.settings.store.url:
        _info_of_home(session)
        return
    from agentvault_tui.ledger.store_admin import store_info

    info_of_store = asyncio.run(store_info(connector_of(session)))
    brokers = [
        {"id": name, "seen_seconds_ago": round(ago, 1)} | json.loads(doc)
        for name, doc, ago in info_of_store.brokers
    ]
    for one in brokers:
        one.pop("channel", None)  # for roles with rights to the store alone
    summary = {"store": session.settings.store.url} | asdict(info_of_store)
    if session.out.print_json(summary | {"brokers": brokers}):
        return
    out = session.out
    out.line("store       ", out.cell(session.settings.store.url, limit=300))
    out.line(
        f"server      PostgreSQL {info_of_store.server}, schema {info_of_store.version}"
    )
    out.line(
        "team        ",
        out.cell(info_of_store.team),
        "  ledger ",
        out.cell(info_of_store.ledger),
    )
    out.line(f"head        {info_of_store.head}  sha256:{info_of_store.hash}")
    out.line(f"size        {info_of_store.size / 1024 / 1024:.1f} MiB")
    out.line(f"durability  {info_of_store.durability}")
    if info_of_store.fault:
        out.line("fault       ", out.cell(info_of_store.fault, limit=500))
    if brokers:
        rows = [(one["id"], f"{one['seen_seconds_ago']} s ago") for one in brokers]
        out.table(("BROKER", "SEEN"), rows)
    else:
        out.line("brokers     none")


def _info_of_home(session: CliSession) -> None:
    """Return the same as `info` for a home's own file."""
    from agentvault_tui.errors import NotFoundError
    from agentvault_tui.ledger.batch import read_tip
    from agentvault_tui.ledger.opening import read_ledger_id
    from agentvault_tui.ledger.schema import VERSION, read_home

    path = session.home.database
    if not path.exists():
        raise NotFoundError(f"there is no ledger at {path}")
    with read_home(session.home) as db:
        ledger = read_ledger_id(db, path)
        head = read_tip(db, ledger).head
    size = path.stat().st_size
    summary = {"store": f"sqlite:{path}", "version": VERSION, "ledger": ledger}
    more = {"head": head.seq, "hash": head.hash, "size": size, "durability": "single"}
    if session.out.print_json(summary | more):
        return
    out = session.out
    out.line("store       ", out.cell(path, limit=300))
    out.line(f"server      SQLite, schema {VERSION}")
    out.line("ledger      ", out.cell(ledger))
    out.line(f"head        {head.seq}  {head.hash}")
    out.line(f"size        {size / 1024 / 1024:.1f} MiB")
    out.line("durability  single")


@store.command("check", example="agentvault store check")
@pass_session
def check(session: CliSession) -> int:
    """Verify the whole chain, and compare the state with its events.

    A team's store is copied into a temporary folder for that; everything that its
    embedded tenant has encrypted must decrypt with the team's key. Exits 1 for a fault.
    """
    from agentvault_tui.ledger import verify_ledger

    tenant = None
    if not session.settings.store.url:
        report = verify_ledger(session.home)
    else:
        from agentvault_tui.home import Home
        from agentvault_tui.ledger.store_copying import read_into
        from agentvault_tui.tenant.copying import tenant_problem

        tenant = tenant_problem(session.home, session.settings)
        with tempfile.TemporaryDirectory(prefix="agentvault-") as folder:
            made = Home(Path(folder) / "home", Path(folder) / "home")
            asyncio.run(read_into(connector_of(session), made))
            report = verify_ledger(made)
    head = {"head": report.head.seq, "hash": report.head.hash}
    problem = report.problem or tenant
    summary = {"ok": not problem, "events": report.events, "problem": problem}
    if not session.out.print_json(summary | head):
        out = session.out
        if problem:
            out.line(out.word("fault"), ": ", out.cell(problem, limit=500))
        else:
            out.line(out.word("ok"), f": {report.events} events, state as they say")
    return 1 if problem else 0


@store.command("prepare", example="agentvault store prepare --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--finish",
    is_flag=True,
    help="Also remove parts for older versions; no broker of one may run.",
)
@click.option(
    "--broker",
    "role",
    metavar="ROLE",
    help="Grant this role, which owns nothing, what brokers need.",
)
@pass_session
def prepare(session: CliSession, *, yes: bool, finish: bool, role: str | None) -> None:
    """Create the team's schema in an empty PostgreSQL database, or upgrade it.

    Prints the statements, and asks. With --finish, brokers encrypt the origins of
    secrets with them, which those of an earlier version cannot decrypt.
    """
    from agentvault_tui.cli.output import confirm
    from agentvault_tui.ledger.store_admin import missing_statements, prepare_store
    from agentvault_tui.ledger.store_schema import grants

    connector = connector_of(session)
    missing = asyncio.run(missing_statements(connector, finish=finish))
    granted = grants(role, connector.database) if role else ()
    statements = (*missing, *granted)
    if not statements:
        state = "nothing to remove" if finish else "nothing to do"
        if not session.out.print_json({"statements": []}):
            session.out.line(f"the store is prepared for this version; {state}")
        return
    if not session.json:
        for sql in statements:
            click.echo(f"{sql.strip()};\n")
    if not yes:
        if session.json or not sys.stdin.isatty():
            raise RefusedError(
                "nothing was changed: these statements need a yes", "give --yes"
            )
        if not confirm(f"Run them as {connector.user} for the team {connector.team}?"):
            raise RefusedError("nothing was changed")
    asyncio.run(prepare_store(connector, missing, granted))
    if not session.out.print_json({"statements": statements}):
        session.out.line(
            "prepared: copy a home's ledger into it (agentvault store copy), or set "
            "store.url and team.name in each home's config.toml"
        )


@store.command(
    "copy", example="agentvault store copy --to 'postgresql://av@/team?host=/run/pg'"
)
@click.option(
    "--to",
    metavar="URL",
    required=True,
    help="A prepared, empty PostgreSQL, or sqlite:FOLDER without a ledger.",
)
@pass_session
def copy(session: CliSession, *, to: str) -> None:
    """Copy the store into an empty one; no broker may use it meanwhile.

    Copies events byte for byte and verifies the copy, with the embedded tenant's people
    and keys, encrypted for the target. The source stays; to serve it afterwards, start
    `serve` with --again once.
    """
    from agentvault_tui.clock import SystemClock
    from agentvault_tui.home import Home
    from agentvault_tui.ledger.store_copying import copy_to_home, copy_to_store
    from agentvault_tui.settings import Settings, StoreSettings

    here = session.settings.store.url
    if to.startswith("sqlite:"):
        if not here:
            raise UsageError(
                "both are SQLite", "to copy a home, use agentvault backup and restore"
            )
        path = Path(to.removeprefix("sqlite:")).expanduser().absolute()
        path = path.parent if path.suffix == ".db" else path
        made = Home(path, path)
        people = partial(_copy_tenant, session, made, Settings())
        work = copy_to_home(
            *(connector_of(session), made, session.operator, SystemClock()),
            copy_tenant=people,
            convert=_home_rows,
        )
    elif here:
        raise UsageError(
            "both are PostgreSQL",
            "leave store.url empty to copy this home's own ledger; a store is copied"
            " to sqlite:FOLDER, and from there",
        )
    else:
        settings = replace(session.settings, store=StoreSettings(url=to))
        connector = connector_of(session, to)
        people = partial(_copy_tenant, session, session.home, settings)
        work = copy_to_store(
            *(session.home, connector, to, session.operator),
            copy_tenant=people,
            convert=_team_rows,
        )
    head = asyncio.run(work)
    if not session.out.print_json({"to": to, "head": head.seq, "hash": head.hash}):
        session.out.line(f"copied and verified; event {head.seq} there says so")


def _team_rows(values: Mapping[str, str]) -> list[Change]:
    """Return the rows that make the active texts of a home's files a team's.

    The files on disk are not these texts where an edit waits for an approver. A
    ``ca_file`` is each broker's own, and no part of a team's text. Settings of a team
    before are no start before: the first start is compared with this home's.
    """
    from agentvault_tui.authorities import split_source
    from agentvault_tui.broker.settings_record import SETTINGS
    from agentvault_tui.broker.team_files import ROW
    from agentvault_tui.gateway.file_edits import RECORDED, TEXT
    from agentvault_tui.ledger import Meta
    from agentvault_tui.watch.alerts import RECORDED_FILE

    alerts = json.loads(values.get(RECORDED_FILE, "{}")).get("text")
    sources = {key: text for key, text in values.items() if key.startswith(TEXT)}
    texts = {key: split_source(source)[0] for key, source in sources.items()}
    ended = [key for key in (RECORDED, RECORDED_FILE) if key in values]
    ended += (key for key in values if key.startswith(f"{SETTINGS} "))
    return [
        *(Meta(f"{ROW}{key.removeprefix(TEXT)}", text) for key, text in texts.items()),
        *([Meta(f"{ROW}alerts.toml", split_source(alerts)[0])] if alerts else ()),
        *(Meta(key, None) for key in (*texts, *ended)),
    ]


def _home_rows(values: Mapping[str, str]) -> list[Change]:
    """Return the rows that make the texts of a team's files a home's, likewise."""
    from agentvault_tui.broker.settings_record import SETTINGS
    from agentvault_tui.broker.team_files import ROW
    from agentvault_tui.gateway.file_edits import RECORDED, TEXT
    from agentvault_tui.ledger import Meta
    from agentvault_tui.model import sha256_hex
    from agentvault_tui.watch.alerts import RECORDED_FILE

    rows = {key for key in values if key.startswith(ROW)}
    texts = {key.removeprefix(ROW): values[key] for key in rows}
    alerts = texts.get("alerts.toml")
    digests = {
        path: sha256_hex(text)
        for path, text in texts.items()
        if path.startswith(("services/", "mcp/", "hosts/"))
    }
    changes = [Meta(key, None) for key in (*rows, *{SETTINGS} & values.keys())]
    changes += [Meta(f"{TEXT}{path}", texts[path]) for path in digests]
    if alerts:
        record = {"sha256": sha256_hex(alerts), "text": alerts}
        changes.append(Meta(RECORDED_FILE, json.dumps(record)))
    return [*changes, Meta(RECORDED, json.dumps(digests))]


def _copy_tenant(session: CliSession, home: Home, settings: Settings) -> None:
    """Copy the embedded tenant's rows, if it ever ran; they are replaced until used."""
    from agentvault_tui.tenant.copying import copy_tenant

    source = session.home, session.settings
    try:
        copied = copy_tenant(source, (home, settings), anew=True)
    except SealedError as error:
        if session.home.team_key.exists():
            raise
        raise SealedError(
            error.what, "make it first: agentvault team key new"
        ) from None
    if copied:
        session.out.note("the embedded tenant's people are copied; sessions end")


def check_store(session: CliSession) -> Iterator[Finding]:
    """Examine the team's store for `agentvault doctor`."""
    if not session.settings.store.url:
        yield ok("this home's own file, for one broker")
        return
    from agentvault_tui.broker.team_key import recorded
    from agentvault_tui.ledger.store_admin import store_info
    from agentvault_tui.sealing import key_ids, team_keys

    record = recorded(session.home)
    if problem := record.problem(key_ids(team_keys(session.home))):
        yield fault(problem.what, problem.remedy)
    elif record.key:
        yield ok(f"the team's key {record.key} is here")
    info = asyncio.run(store_info(connector_of(session)))
    yield ok(f"PostgreSQL {info.server}, schema {info.version}, head {info.head}")
    if info.fault:
        yield fault(info.fault, "agentvault audit accept --reason WHY")
    if info.public:
        yield warning(
            f"every role of the server may {' and '.join(info.public)} on the database"
            " of the team's store",
            "agentvault store prepare, as the owner of the database",
        )
    if info.durability == "asynchronous":
        yield warning(
            "replicas of the store lag behind it: a failover loses what was answered",
            "name one in synchronous_standby_names",
        )
    else:
        yield ok(f"durability {info.durability}")


def connector_of(session: CliSession, url: str = "") -> Connector:
    """Return the connector of the store of the settings, or at *url*."""
    settings = session.settings
    if not (url or settings.store.url):
        raise SettingsError(
            "store.url is not set: this home's store is its own file",
            "set it to the PostgreSQL of the team",
        )
    if not settings.team.name:
        raise SettingsError("team.name is not set", "give the team a name")
    from agentvault_tui.store_url import require_library

    require_library()
    from agentvault_tui.store_connection import Connector

    return Connector(url or settings.store.url, settings.team.name)
