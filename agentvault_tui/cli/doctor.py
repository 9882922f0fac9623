"""``agentvault doctor``: check the installation and name each remedy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any, Final

from agentvault_tui import __version__
from agentvault_tui.cli.doctor_files import check_files, check_user
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.lookup import agent_pages
from agentvault_tui.cli.output import Output, ascii_terminal
from agentvault_tui.cli.proxy_port import check_agents_port, check_proxy_port
from agentvault_tui.cli.session import CliSession
from agentvault_tui.cli.store import check_store
from agentvault_tui.clock import SystemClock, iso, parse_iso
from agentvault_tui.errors import (
    AgentVaultError,
    NotConfinedError,
    SettingsError,
    UnreachableError,
)
from agentvault_tui.model.finding import Finding, Level, fault, ok, warning
from agentvault_tui.operator_api.calls import STATUS
from agentvault_tui.operator_api.shapes import StatusInfo
from agentvault_tui.text import visible

_AREA: Final = 10
_WITHOUT_HOME: Final = ("versions", "user", "files", "terminal")
"""The checks if the home is refused; ``files`` has the reason."""


@command("doctor", on_home=True, example="agentvault doctor")
@pass_session
def doctor(session: CliSession) -> int:
    """Check everything, and print each fault with its remedy.

    Each line is ok, warning or fault. Exits 1 when there is a fault.
    """
    findings: list[tuple[str, Finding]] = []
    checks = {area: _CHECKS[area] for area in _WITHOUT_HOME}
    with contextlib.suppress(SettingsError):  # of a home that is not ours
        _ = session.home
        checks = _CHECKS
    for area, check in checks.items():
        for finding in _examine(session, check):
            if any(finding == other for _, other in findings):
                continue  # a fault in the settings stops several checks
            findings.append((area, finding))
            if not session.json:
                print_finding(session.out, area, finding)
    return end_report(session, findings)


def end_report(session: CliSession, entries: Sequence[tuple[str, Finding]]) -> int:
    """Print findings for ``--json``; return 1 when there is a fault."""
    healthy = all(finding.level is not Level.FAULT for _, finding in entries)
    if session.json:
        findings = [{"area": area, **finding.shape()} for area, finding in entries]
        session.out.json({"ok": healthy, "findings": findings})
    return 0 if healthy else 1


def _examine(
    session: CliSession, check: Callable[[CliSession], Iterator[Finding]]
) -> Iterator[Finding]:
    """Run one check; an error in it is a finding."""
    try:
        yield from check(session)
    except AgentVaultError as error:
        yield Finding(Level.FAULT, error.what, error.remedy)
    except OSError as error:
        yield Finding(Level.FAULT, f"it cannot be looked at ({error})")


def print_finding(out: Output, area: str, finding: Finding) -> None:
    """Print one line of a report, and its remedy below it."""
    out.row(
        (8, out.word(finding.level.value)),
        (_AREA, out.cell(area, "quiet")),
        (0, out.cell(finding.what, limit=500)),
    )
    if finding.remedy:
        out.row(
            (20, out.cell(" ")), (0, out.cell(f"-> {finding.remedy}", "strong", 500))
        )


def check_settings(session: CliSession) -> Iterator[Finding]:
    """Check the settings."""
    settings = session.settings
    source = session.home.config_file
    where = f"{source}" if source.exists() else "defaults and environment"
    tenant = settings.tenant.issuer or "embedded"
    yield ok(f"from {where}: listen {settings.broker.listen}, tenant {tenant}")
    if settings.tenant.issuer and not settings.tenant.client_id:
        from agentvault_tui.vault.kept_clients import ClientSecretsFile

        if not ClientSecretsFile(session.home, settings.tenant.issuer).client_id(
            "console"
        ):
            yield fault(
                "tenant.issuer is set, and no application of it is known",
                "agentvault auth0 apply makes one; or set tenant.client_id",
            )


def check_policy(session: CliSession) -> Iterator[Finding]:
    """Check policy and catalogue."""
    from agentvault_tui.broker.policy_files import load_policy
    from agentvault_tui.cli.policy import check_granted, check_there

    policy = load_policy(session.home)
    check_there(session)
    policy.catalogue.check_connections(session.settings.connection_scopes)
    yield ok(
        f"{len(policy.rules)} rules from {policy.source}, version {policy.version}"
    )
    for what in check_granted(session, policy.catalogue):
        yield warning(what, "put the scope back into its file, or ungrant it")


def check_services(session: CliSession) -> Iterator[Finding]:
    """Check service files as the broker would."""
    from agentvault_tui.cli.config_files import config_files
    from agentvault_tui.cli.services import check_file

    for report in (
        check_file(session, path) for path in config_files(session, "services")
    ):
        yield from _file_findings("services", report, f"{report['routes']} routes")


def check_mcp(session: CliSession) -> Iterator[Finding]:
    """Check the files of MCP servers as the broker would."""
    from agentvault_tui.cli.config_files import config_files
    from agentvault_tui.cli.mcp import check_file

    for report in (check_file(session, path) for path in config_files(session, "mcp")):
        yield from _file_findings("mcp", report, f"{len(report['tools'])} tools")


def check_secrets(session: CliSession) -> Iterator[Finding]:
    """Check where alerts and decision webhooks send their secrets.

    Services and MCP servers are checked with their files.
    """
    from agentvault_tui.cli.secrets import home_secrets, home_uses
    from agentvault_tui.gateway.secret_origins import use_problem

    secrets, refused = home_secrets(session), False
    for use in home_uses(session):
        problem = use_problem(secrets, use) if use.kind in {"sink", "hook"} else None
        if problem is not None:
            refused = True
            yield warning(f"{use.kind} {use.name} gets no secret: {problem}")
    if not refused:
        yield ok(f"{len(secrets.rows())} encrypted, each for origins of its own")


def _file_findings(area: str, report: dict[str, Any], size: str) -> Iterator[Finding]:
    name = f"{area}/{report['name']}.toml"
    for problem in report["problems"]:
        yield fault(f"{name}: {problem}", f"agentvault {area} check")
    for note in report["notes"]:
        yield warning(f"{name}: {note}")
    if report["ok"]:
        yield ok(f"{name}: {size}")


def check_hosts(session: CliSession) -> Iterator[Finding]:
    """Check the files that map the tools of agent hosts, as the broker would."""
    from agentvault_tui.broker.policy_files import load_policy, read_text
    from agentvault_tui.gateway.tools import parse_tools

    catalogue = load_policy(session.home).catalogue
    for path in sorted((session.home.config / "hosts").glob("*.toml")):
        name = f"hosts/{path.name}"
        try:
            text = read_text(path, session.home.config) or ""
            parsed = parse_tools(path.stem, text, catalogue)
        except AgentVaultError as error:
            yield fault(f"{name}: {error.what}", error.remedy or "mend the file")
        else:
            yield ok(f"{name}: {len(parsed.rules)} tools")


def check_confine(_: CliSession) -> Iterator[Finding]:
    """Check whether `agentvault run --confine` works, by a real start."""
    from agentvault_tui.confine import find_layers, watches_attempts

    try:
        layers = find_layers()
        assert layers.bubblewrap is not None  # noqa: S101 - of namespaces
        seen = watches_attempts(layers.bubblewrap)
    except NotConfinedError as error:
        yield warning(f"cannot: {error.what}", error.remedy)
        return
    recorded = "names and addresses are" if seen else "what the proxy sees is"
    yield ok(f"ready ({', '.join(layers.names)}; {recorded} recorded)")


_LIBRARIES: Final = ("textual", "httpx", "authlib", "joserfc", "cedarpy", "aiosqlite")
_RESET_RACE: Final = (3, 7, 0)
_RESET_FIXED: Final = (3, 51, 3)
_RESET_BACKPORTS: Final = ((3, 44, 6), (3, 50, 7))
_LEAST_CELLS: Final = (80, 24)


def check_versions(_: CliSession) -> Iterator[Finding]:
    """Report versions and their known defects."""
    yield ok(
        f"AgentVault {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}"
    )
    yield ok(", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES))
    if "PYTHONPATH" in os.environ:
        yield warning(
            "PYTHONPATH is set: who can write to its folders has AgentVault run code",
            "start AgentVault with PYTHONPATH unset",
        )
    version = sqlite3.sqlite_version_info
    if resets_can_race(version):
        # Named as a warning although we avoid it: other programs on the file do not.
        yield warning(
            f"SQLite {sqlite3.sqlite_version} can lose a commit when two connections "
            "reset the write-ahead log at once (fixed in 3.51.3); avoided here, "
            "as only its writer checkpoints",
            "open agentvault.db with no other program while the broker runs",
        )
    else:
        yield ok(f"SQLite {sqlite3.sqlite_version}, without the WAL-reset race")


def resets_can_race(version: tuple[int, int, int]) -> bool:
    """Check whether this SQLite has the WAL-reset race (3.7.0 to 3.51.2)."""
    if not _RESET_RACE <= version < _RESET_FIXED:
        return False
    return not any(
        version[:2] == fixed[:2] and version >= fixed for fixed in _RESET_BACKPORTS
    )


def check_terminal(_: CliSession) -> Iterator[Finding]:
    """Check the console's drawing here."""
    environ = os.environ
    term = environ.get("TERM", "")
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        yield ok("not a terminal: the console works here with --plain only")
        return
    if term in {"", "dumb"}:
        yield warning(
            f"TERM is '{term}': the console works here with --plain only",
            "set TERM to what the terminal is, such as xterm-256color",
        )
        return
    columns, rows = shutil.get_terminal_size()
    size = f"{columns}x{rows}"
    if columns < _LEAST_CELLS[0] or rows < _LEAST_CELLS[1]:
        yield warning(f"{term}, {size}", "the console wants 80x24 or more")
    else:
        yield ok(f"{term}, {size}, {_colours()}")
    if ascii_terminal():
        yield warning(
            "the locale is not UTF-8: the console draws in ASCII",
            "set LANG to a UTF-8 locale, such as C.UTF-8",
        )
    if environ.get("TMUX"):
        yield warning(
            "inside tmux: copying from the console needs two lines in tmux.conf",
            "set -g set-clipboard on; set -g allow-passthrough on",
        )


def _colours() -> str:
    if os.environ.get("NO_COLOR"):
        return "NO_COLOR is set"
    if os.environ.get("COLORTERM") in {"truecolor", "24bit"}:
        return "true colour"
    return "256 colours" if "256" in os.environ.get("TERM", "") else "16 colours"


_TAIL: Final = 1000
_JITTER: Final = timedelta(seconds=5)
_ODD_YEAR: Final = 2026
"""No clock of a machine that runs this can be before its first release."""


def check_ledger(session: CliSession) -> Iterator[Finding]:
    """Verify the end of the chain against the head stored outside the database."""
    from agentvault_tui.ledger import opening
    from agentvault_tui.ledger.batch import read_tip
    from agentvault_tui.ledger.headfile import read_witness
    from agentvault_tui.ledger.schema import read_home
    from agentvault_tui.ledger.verify import check_tail

    home = session.home
    if not home.database.exists():
        yield ok("not made yet")
        return
    with read_home(home) as db:
        ledger_id = opening.read_ledger_id(db, home.database)
        # The head kept outside is read first: beside a broker it can only be behind.
        outside = read_witness(home.head_file)
        head = read_tip(db, ledger_id).head
        bad = check_tail(db, ledger_id, _TAIL)
        if bad is not None:
            yield fault(bad, "agentvault audit verify names all that is wrong")
            return
        seen = min(head.seq, _TAIL)
        yield ok(f"{head.seq} events; the last {seen} follow from each other")
        opening.compare(db, outside, ledger_id, head)
    if outside is not None:
        yield ok(f"it holds the head kept outside the database ({outside.head.seq})")


def check_clock(session: CliSession) -> Iterator[Finding]:
    """Compare the clock with the last recorded time."""
    now = SystemClock().now()
    if now.year < _ODD_YEAR:
        yield fault(f"the clock says {iso(now)}", "set it: timedatectl")
        return
    last = _last_time(session)
    if last is not None and last > now + _JITTER:
        yield warning(
            f"the clock says {iso(now)}, before the last recorded event ({iso(last)})",
            "one of the two was wrong: check time synchronisation (timedatectl)",
        )
    else:
        yield ok(f"{iso(now)}, not before anything recorded")


def _last_time(session: CliSession) -> datetime | None:
    from agentvault_tui.ledger.places import head_seq, time_at
    from agentvault_tui.ledger.schema import read_home

    if not session.home.database.exists():
        return None
    with read_home(session.home) as db:
        head = head_seq(db)
        return parse_iso(time_at(db, head)) if head else None


def check_broker(session: CliSession) -> Iterator[Finding]:
    """Check the broker's status."""
    status = _status(session)
    if status is None:
        yield ok(f"none runs at {session.client.broker}; `agentvault serve` starts one")
        yield from _kept_cuts(session)
        yield from check_agents_port(session)
        yield from check_proxy_port(session)
        return
    agents, waiting = status.agents, status.stepups_pending
    what = f"version {status.version}, {agents} agent{'s' * (agents != 1)}"
    if status.version == __version__:
        yield ok(f"{what}, {waiting} step-up{'s' * (waiting != 1)} waiting")
    else:
        yield warning(
            f"{what}; this command line is {__version__}", "restart the broker"
        )
    if status.panic.on:
        yield warning(
            f"everything is stopped since {status.panic.since},{status.panic.cause}",
            "agentvault agents restore --all",
        )
    if verified := status.ledger.verified:
        how = "all of the ledger" if verified.complete else "so far the ledger"
        yield ok(f"it verified {how} up to event {verified.seq}, {verified.at}")
    if problem := status.ledger.fault:
        yield fault(
            f"the ledger {problem}: nothing is granted, revoking works",
            "stop the broker, keep a copy as evidence, then agentvault audit accept"
            " --reason WHY",
        )
    elif status.ledger.writable is False:
        yield fault(
            "the ledger cannot be written: nothing is issued, revoking works",
            "make room on the disk, or bring the team's store back: see the warnings",
        )
    for sentence in status.warnings:
        yield warning(sentence)


def check_servers(session: CliSession) -> Iterator[Finding]:
    """Warn of resource servers that see every token."""
    if _status(session) is None:
        return
    for page in agent_pages(session.client):
        for agent in page.agents:
            served = agent.serves or agent.resources
            if not agent.resource_server or agent.status != "active" or served:
                continue
            yield warning(
                f"the resource server {visible(agent.name, 60)} sees every token, "
                "and consumes those meant for other servers",
                "agentvault agents set-serves NAME SCOPE --resource URI",
            )


def _kept_cuts(session: CliSession) -> Iterator[Finding]:
    """Report revocations that the next start applies from the journal."""
    from agentvault_tui.ledger import CutJournal
    from agentvault_tui.ledger.opening import read_ledger_id
    from agentvault_tui.ledger.schema import open_reader

    home = session.home
    if not (home.cut_journal.exists() or home.cut_marker.exists()):
        return  # none was ever needed, or the next start misses it and says so
    with closing(open_reader(home.database)) as db:
        ledger_id = read_ledger_id(db, home.database)
    journal = CutJournal.open(home, ledger_id, expected=True, fresh=False)
    if journal.entries:
        yield warning(
            f"in the cut journal, not in the ledger: {len(journal.entries)} cut(s)",
            "the next start applies and records them",
        )
    if journal.problem is not None:
        yield fault(
            f"the next start stops everything: {journal.problem}",
            "then look at every agent, and agentvault agents restore --all",
        )


def check_tenant(session: CliSession) -> Iterator[Finding]:
    """Check DNS, TLS, issuer and clock of the tenant."""
    status = _status(session)
    issuer = status.tenant.issuer if status else session.settings.tenant.issuer
    if not issuer:
        yield ok("embedded; it runs while a broker does")
        return
    if status and status.tenant.kind == "embedded":
        # That it is reached by http goes without saying.
        yield from (one for one in _reach(issuer) if one.level is not Level.WARNING)
    else:
        if status:
            # A service has another environment than the shell this runs in.
            yield ok(f"the broker reaches it {status.tenant.way or 'unsaid'}")
        yield from _reach(issuer)


def check_people(session: CliSession) -> Iterator[Finding]:
    """Check that somebody can approve."""
    settings, home = session.settings, session.home
    if settings.tenant.issuer:
        yield ok(f"kept by {settings.tenant.issuer}")
        return
    from agentvault_tui.tenant.file_store import is_kept
    from agentvault_tui.tenant.users import UserStore

    remedy = "agentvault tenant user add NAME --approver"
    if not is_kept(home, settings):
        yield warning("nobody can approve yet", remedy)
        return
    with UserStore(home, settings) as users:
        people = users.all()
    approvers = [person.name for person in people if person.approver]
    named = settings.stepup.approvers
    if named:
        names = {word for person in people for word in (person.name, person.sub)}
        approvers = [word for word in named if word in names]
    if approvers:
        yield ok(f"{len(people)} can sign in; may approve: {', '.join(approvers)}")
    else:
        yield warning(f"{len(people)} can sign in, nobody may approve", remedy)


def _status(session: CliSession) -> StatusInfo | None:
    try:
        return session.client.call(STATUS)
    except UnreachableError:
        return None


def _reach(issuer: str) -> list[Finding]:
    from agentvault_tui.vault import Tenant
    from agentvault_tui.vault.provision import checks

    async def look() -> list[Finding]:
        tenant = Tenant(issuer, SystemClock())
        async with aclosing(tenant), aclosing(checks.reach(tenant)) as reached:
            return [finding async for _, finding in reached]

    return asyncio.run(look())


_SOON: Final = timedelta(days=30)
_RENEW: Final = "renew it where it was made"


def check_tls(session: CliSession) -> Iterator[Finding]:
    """Check that the certificate is valid for the address agents use."""
    from agentvault_tui.web.local_ca import CaFiles, chosen_files
    from agentvault_tui.web.tls import read_certificate, server_context

    yield from _check_public(session)
    settings = session.settings.broker
    files = chosen_files(session.home, settings)
    if files is None:
        yield ok("none: agents use plain http, only on loopback")
        return
    server_context(files)
    own = CaFiles.of(session.home)
    ours = files == own.leaf
    renew = "agentvault tls init" if ours else _RENEW
    certificate = read_certificate(files.cert)
    yield _lifetime(str(files.cert), certificate.starts, certificate.ends, renew)
    host, _ = settings.address
    if host not in certificate.names:
        yield warning(
            f"{files.cert} is not for {host}, where agents ask: "
            f"it is for {', '.join(certificate.names) or 'no name'}",
            f"agentvault tls init --name {host}" if ours else renew,
        )
    if ours:
        ends = read_certificate(own.ca)
        renew = "agentvault tls init --new-ca, and give agents the new one"
        yield _lifetime(str(own.ca), ends.starts, ends.ends, renew)


def _check_public(session: CliSession) -> Iterator[Finding]:
    """Check the certificate for phones and remote operators."""
    from agentvault_tui.web.public import PublicAddress
    from agentvault_tui.web.tls import read_certificate

    wanted = (session.settings.tenant, session.settings.operators)
    phones, operators = (PublicAddress.of(session.home, one) for one in wanted)
    for public in filter(None, (phones, operators)):
        public.tls(SystemClock())
        certificate, cert = read_certificate(public.files.cert), str(public.files.cert)
        yield _lifetime(cert, certificate.starts, certificate.ends, _RENEW)
    if phones is not None and not phones.named:
        yield warning(
            f"{phones.url} names no host: nobody can have a passkey",
            "give tenant.url a host name that phones resolve",
        )


def _lifetime(path: str, starts: datetime, ends: datetime, renew: str) -> Finding:
    now = SystemClock().now()
    if ends <= now:
        return fault(f"{path} ended on {ends:%Y-%m-%d}: agents refuse it", renew)
    if starts > now:
        return fault(
            f"{path} begins on {starts:%Y-%m-%d %H:%M}Z: agents refuse it",
            "see whether the clock is right",
        )
    if ends - now < _SOON:
        return warning(f"{path} ends on {ends:%Y-%m-%d}", renew)
    return ok(f"{path} is good until {ends:%Y-%m-%d}")


_CHECKS: Final[dict[str, Callable[[CliSession], Iterator[Finding]]]] = {
    "versions": check_versions,
    "user": check_user,
    "files": check_files,
    "settings": check_settings,
    "policy": check_policy,
    "services": check_services,
    "mcp": check_mcp,
    "hosts": check_hosts,
    "confine": check_confine,
    "secrets": check_secrets,
    "tls": check_tls,
    "broker": check_broker,
    "servers": check_servers,
    "tenant": check_tenant,
    "people": check_people,
    "ledger": check_ledger,
    "store": check_store,
    "clock": check_clock,
    "terminal": check_terminal,
}
