"""The broker in one line: tenant, ledger, panic, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import UNSET

from agentvault_tui import __version__
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.cuts import Kept
from agentvault_tui.broker.shapes import panic_info, shape_from
from agentvault_tui.clock import iso
from agentvault_tui.operator_api import shapes
from agentvault_tui.policy.texts import is_policy_file
from agentvault_tui.text import visible

_PLACES: Final = {
    Kept.LEDGER: "they are on their way.",
    Kept.JOURNAL: "they are kept in the cut journal and hold over a restart.",
    Kept.STOP: "they hold in memory, and the next start stops everything.",
    Kept.MEMORY: "they are in memory alone: a restart would lose them.",
}


def status_info(broker: Broker) -> shapes.StatusInfo:
    """Return the answer of ``GET /api/status``."""
    reaching = broker.reaching
    ledger, verified = broker.ledger, broker.health.verified
    return shapes.StatusInfo(
        version=__version__,
        tenant=shapes.TenantInfo(
            issuer=reaching.tenant.issuer,
            kind=reaching.kind,
            reachable=bool(reaching.tenant.reachable),
            way=reaching.tenant.way,
        ),
        ledger=shapes.LedgerInfo(
            head=ledger.head.seq,
            hash=ledger.head.hash,
            writable=ledger.writable,
            verified=shape_from(shapes.VerifiedInfo, verified, at=iso(verified.at))
            if verified
            else None,
            fault=ledger.fault,
        ),
        panic=panic_info(broker.registry.revocations.panic),
        agents=broker.registry.agent_count,
        stepups_pending=broker.stepups.open_count,
        alerts_dead=broker.health.alerts_dead,
        policy_version=broker.deciding.policy.version,
        warnings=tuple(warnings(broker)),
        agents_url=broker.admitting.url or UNSET,
        team=_team(broker) if broker.team.brokers.id else UNSET,
        stale=True if ledger.store_problem else UNSET,
    )


def _team(broker: Broker) -> shapes.TeamInfo:
    team = broker.team.brokers
    return shapes.TeamInfo(
        name=broker.settings.team.name,
        store="postgresql",
        broker=team.id,
        brokers=tuple(
            shapes.MemberInfo(
                id=one.id,
                host=one.beat.host,
                version=one.beat.version,
                since=one.beat.since,
                last_seen_at=iso(one.seen_at),
                alive=one.alive,
                in_step=why is None,
                reason=why,
            )
            for one, why in team.standing()
        ),
    )


def warnings(broker: Broker) -> list[str]:
    """Return warnings for an operator, in sentences."""
    extensions = broker.extensions
    notices = list(_ledger_warnings(broker))
    notices += _team_warnings(broker)
    notices += _file_warnings(broker)
    cuts, policy = broker.recording.cuts, broker.deciding.state
    if cuts.waiting:
        notices.append(
            f"In force and not in the ledger yet: {cuts.waiting} cut(s); "
            f"{_PLACES[cuts.durability]}"
        )
    journal = cuts.journal
    if journal is not None and journal.problem is not None and journal.lasting:
        notices.append(
            f"The next start stops everything, until agentvault agents restore --all: "
            f"{journal.problem}."
        )
    if policy.problem:
        notices.append(
            f"The policy on disk cannot be put in force, the one before decides: "
            f"{policy.problem}"
        )
    if policy.held and (edit := broker.stepups.find(policy.held)):
        word = "waits for an approver" if edit.status.open else f"is {edit.status}"
        notices.append(
            f"An edit of the policy that loosens it {word}, and the version before"
            f" decides: agentvault stepup show {edit.id}"
        )
    for extension in extensions.rooms:
        notices += extension.warnings
    if extensions.gateway is not None:
        notices += extensions.gateway.notices
    notices += broker.admitting.issuers.problems
    given_up = [s for s in broker.registry.steps() if s.status == "failed"]
    if given_up:
        notices.append(
            f"{len(given_up)} steps of revocations were given up at the tenant, "
            f"such as {given_up[0].step}: {given_up[0].problem}"
        )
    if broker.reaching.tenant.reachable is False:
        notices.append(
            "The tenant does not answer: nothing that needs a person can be."
        )
    elif broker.health.log_problem:
        notices.append(
            f"The tenant's own log cannot be read: {broker.health.log_problem}"
        )
    return notices


def _team_warnings(broker: Broker) -> Iterator[str]:
    for one, why in broker.team.brokers.standing():
        if why is not None:
            yield f"The broker {one.id} on {visible(one.beat.host, 60)}: {why}."
    if broker.team.key is not None and broker.team.key.problem:
        yield f"What the team seals: {broker.team.key.problem}."
    if (shared := broker.ledger.shared) is not None and shared.listener.flooded:
        yield (
            "Too many notifications of the store reached this broker: for a while it"
            " polls the store instead, every 50 ms. Only a role with rights to the"
            " store can send them: find out which one did."
        )


def _file_warnings(broker: Broker) -> Iterator[str]:
    if broker.team.files is None:
        return
    for file, why in sorted(broker.team.files.copies.problems.items()):
        if is_policy_file(file):
            continue  # told as the policy's problem
        yield f"{visible(file, 120)} is not in force as this home has it: {why}"
    for path in broker.team.files.copies.aside:
        yield (
            f"{path} is an edit that another broker of the team overtook: make it anew,"
            " or remove it."
        )


def _ledger_warnings(broker: Broker) -> Iterator[str]:
    ledger = broker.ledger
    if broker.health.state_problem:
        yield broker.health.state_problem
    if ledger.unverified:
        yield f"The ledger {ledger.unverified}. Nothing is granted until it is."
    elif broker.health.unverified:
        yield f"The ledger is not verified: {broker.health.unverified}."
    if ledger.writable or ledger.fault or ledger.unverified:
        return
    what = (
        "Nothing is granted, revocations are recorded:"
        if ledger.takes_cuts
        else "The ledger cannot be written: nothing is issued, revoking works."
    )
    yield f"{what} {ledger.problem or ''}".strip()
