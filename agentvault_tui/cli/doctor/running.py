"""The doctor on what runs: the broker, its tenant, and who can approve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agentvault_tui import __version__
from agentvault_tui.cli.session import Session, lazy_room
from agentvault_tui.clock import SystemClock
from agentvault_tui.errors import UnreachableError
from agentvault_tui.model.finding import Finding, fault, ok, warning


def check_broker(session: Session) -> Iterator[Finding]:
    """Ask the broker how it is."""
    status = _status(session)
    if status is None:
        yield ok(f"none runs at {session.client.path}; `agentvault serve` starts one")
        return
    what = f"version {status['version']}, {status['agents']} agents"
    if status["version"] == __version__:
        yield ok(f"{what}, {status['stepups_pending']} step-ups waiting")
    else:
        yield warning(
            f"{what}; this command line is {__version__}", "restart the broker"
        )
    if status["panic"]["on"]:
        yield warning(
            f"everything is stopped since {status['panic']['since']}, by "
            f"{status['panic']['by']}: {status['panic']['reason']}",
            "agentvault agents restore --all",
        )
    if not status["ledger"]["writable"]:
        yield fault(
            "the ledger cannot be written: nothing is issued, revoking works",
            "make room on the disk, check its modes; it recovers by itself",
        )
    for sentence in status["warnings"]:
        yield warning(sentence)


def check_tenant(session: Session) -> Iterator[Finding]:
    """Ask the tenant for its discovery document, as the broker would."""
    status = _status(session)
    issuer = status["tenant"]["issuer"] if status else session.settings.tenant.issuer
    if not issuer:
        yield ok("embedded; it runs while a broker does")
        return
    kind = status["tenant"]["kind"] if status else "configured"
    if asyncio.run(_answers(issuer)):
        yield ok(f"{issuer} ({kind}) answers with its discovery document")
    else:
        yield fault(
            f"{issuer} ({kind}) does not answer, or not as that issuer",
            f"look at {issuer.rstrip('/')}/.well-known/openid-configuration",
        )


def check_people(session: Session) -> Iterator[Finding]:
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


def _status(session: Session) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = session.client.get("/api/status")
    except UnreachableError:
        return None
    return status


async def _answers(issuer: str) -> bool:
    client = lazy_room("vault").TenantClient(issuer, "doctor", SystemClock())
    try:
        return bool(await client.probe())
    finally:
        await client.aclose()
