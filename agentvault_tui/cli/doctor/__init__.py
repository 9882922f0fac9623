"""``agentvault doctor``: what is wrong here, and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agentvault_tui.cli.doctor.files import check_files, check_policy, check_settings
from agentvault_tui.cli.doctor.machine import check_terminal, check_versions
from agentvault_tui.cli.doctor.record import check_clock, check_ledger
from agentvault_tui.cli.doctor.running import (
    check_broker,
    check_people,
    check_servers,
    check_tenant,
)
from agentvault_tui.cli.doctor.tls import check_tls
from agentvault_tui.cli.framework import command, pass_session
from agentvault_tui.cli.output import Output
from agentvault_tui.cli.session import CliSession
from agentvault_tui.errors import AgentVaultError, SettingsError
from agentvault_tui.model.finding import Finding, Level

_CHECKS: Final[tuple[tuple[str, Callable[[CliSession], Iterator[Finding]]], ...]] = (
    ("versions", check_versions),
    ("files", check_files),
    ("settings", check_settings),
    ("policy", check_policy),
    ("tls", check_tls),
    ("broker", check_broker),
    ("servers", check_servers),
    ("tenant", check_tenant),
    ("people", check_people),
    ("ledger", check_ledger),
    ("clock", check_clock),
    ("terminal", check_terminal),
)
_AREA: Final = 10
_WITHOUT_HOME: Final = frozenset({"versions", "files", "terminal"})
"""What is looked at where the home is refused; ``files`` says why it was."""


@command("doctor", example="agentvault doctor", prints_data=True)
@pass_session
def doctor(session: CliSession) -> int:
    """Look at everything, and say what is wrong and what to do about it.

    Each line is ok, warning or fault. Exits 1 when there is a fault.
    """
    found: list[tuple[str, Finding]] = []
    for area, check in _checks(session):
        for finding in _examine(session, check):
            if any(finding == known for _, known in found):
                continue  # a fault in the settings stops several checks
            found.append((area, finding))
            if not session.json:
                print_finding(session.out, area, finding)
    healthy = all(finding.level is not Level.FAULT for _, finding in found)
    if session.json:
        findings = [{"area": area, **finding.shape()} for area, finding in found]
        session.out.json({"ok": healthy, "findings": findings})
    return 0 if healthy else 1


def _checks(
    session: CliSession,
) -> Iterator[tuple[str, Callable[[CliSession], Iterator[Finding]]]]:
    """Yield what can be looked at: in a home that is not ours, nothing."""
    try:
        home = session.home
    except SettingsError:
        home = None
    for area, check in _CHECKS:
        if home is not None or area in _WITHOUT_HOME:
            yield area, check


def _examine(
    session: CliSession, check: Callable[[CliSession], Iterator[Finding]]
) -> Iterator[Finding]:
    """Run one check; that it cannot be done is itself a finding."""
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
            (8, out.cell(" ")),
            (_AREA, out.cell(" ")),
            (0, out.cell(f"-> {finding.remedy}", "strong", 500)),
        )
