"""The doctor on what runs: the broker, its tenant, and who can approve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing

from agentvault_tui import __version__
from agentvault_tui.cli.lookup import agent_pages
from agentvault_tui.cli.session import CliSession, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import UnreachableError
from agentvault_tui.model.finding import Finding, Level, fault, ok, warning
from agentvault_tui.operator_api.calls import STATUS
from agentvault_tui.operator_api.shapes import StatusInfo
from agentvault_tui.text import visible


def check_broker(session: CliSession) -> Iterator[Finding]:
    """Ask the broker how it is."""
    status = _status(session)
    if status is None:
        yield ok(f"none runs at {session.client.path}; `agentvault serve` starts one")
        yield from _kept_cuts(session)
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
            f"everything is stopped since {status.panic.since}, by "
            f"{status.panic.by}: {status.panic.reason}",
            "agentvault agents restore --all",
        )
    if verified := status.ledger.verified:
        how = "all of the ledger" if verified.complete else "so far the ledger"
        yield ok(f"it verified {how} up to event {verified.seq}, {verified.at}")
    if problem := status.ledger.fault:
        yield fault(
            f"the ledger {problem}: nothing is granted, revoking works",
            "keep it as evidence, put the newest good copy back, then agentvault audit"
            " accept --reason WHY",
        )
    elif status.ledger.writable is False:
        yield fault(
            "the ledger cannot be written: nothing is issued, revoking works",
            "make room on the disk, check its modes; it recovers by itself",
        )
    for sentence in status.warnings:
        yield warning(sentence)


def check_servers(session: CliSession) -> Iterator[Finding]:
    """Name the resource servers that see tokens meant for others."""
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
                "register it anew with --serves, then revoke this one",
            )


def _kept_cuts(session: CliSession) -> Iterator[Finding]:
    """Say what the next start will do about cuts that are not in the ledger."""
    home = session.home
    if not (home.cut_journal.exists() or home.cut_marker.exists()):
        return  # none was ever needed, or the next start misses it and says so
    opening = lazy_room("ledger.opening")
    with closing(lazy_room("ledger.schema").open_reader(home.database)) as db:
        ledger_id = opening.read_ledger_id(db, home.database)
    journal = lazy_room("ledger.journal").CutJournal.open(
        home, ledger_id, expected=True, fresh=False
    )
    if journal.found:
        yield warning(
            f"in the cut journal, not in the ledger: {len(journal.found)} cut(s)",
            "the next start applies and records them",
        )
    if journal.problem is not None:
        yield fault(
            f"the next start stops everything: {journal.problem}",
            "then look at every agent, and agentvault agents restore --all",
        )


def check_tenant(session: CliSession) -> Iterator[Finding]:
    """Look from the outside in, as the broker would: DNS, https, issuer, clock."""
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
    """See whether anyone could approve."""
    settings, home = session.settings, session.home
    if settings.tenant.issuer:
        yield ok(f"kept by {settings.tenant.issuer}")
        return
    if not (home.tenant / "tenant.db").exists():
        yield warning(
            "nobody can approve yet", "agentvault tenant user add NAME --approver"
        )
        return
    with lazy_room("tenant.users").UserStore(home) as users:
        people = users.list()
    approvers = [person.name for person in people if person.approver]
    named = settings.stepup.approvers
    if named:
        known = {word for person in people for word in (person.name, person.sub)}
        approvers = [word for word in named if word in known]
    if approvers:
        yield ok(f"{len(people)} can sign in; may approve: {', '.join(approvers)}")
    else:
        yield warning(
            f"{len(people)} can sign in, nobody may approve",
            "agentvault tenant user add NAME --approver",
        )


def _status(session: CliSession) -> StatusInfo | None:
    try:
        return session.client.call(STATUS)
    except UnreachableError:
        return None


def _reach(issuer: str) -> list[Finding]:
    async def look() -> list[Finding]:
        tenant = lazy_room("vault").Tenant(issuer, SystemClock())
        try:
            found = lazy_room("vault.provision.checks").reach(tenant)
            async with aclosing(found) as checks:
                return [finding async for _, finding in checks]
        finally:
            await tenant.aclose()

    return asyncio.run(look())
