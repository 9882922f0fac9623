"""The pages on which people approve away from the console, updated as they change."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.usecases.approvals import pages_at
from agentvault_tui.broker.usecases.change_basis import is_current
from agentvault_tui.broker.usecases.stepup import offer
from agentvault_tui.clock import iso
from agentvault_tui.encoder import to_json
from agentvault_tui.errors import LedgerError, TenantError, TenantRefusedError
from agentvault_tui.model import AgentStatus, StepUp, StepUpId, StepUpStatus
from agentvault_tui.web.public import PublicAddress

_LOOK: Final = 0.25
"""Seconds between two looks at the waiting step-ups."""
_REST: Final = 5.0
"""Seconds until a step-up is offered again after a try that failed."""
log = logging.getLogger("agentvault.stepup")


def approval_page(broker: Broker, stepup: StepUp) -> str | None:
    """Return the link that opens exactly *stepup* on a phone.

    Args:
        broker: the broker.
        stepup: undecided.

    Returns:
        on the embedded tenant its approval page; on Auth0 the page of the device flow,
        while one is under way; None where no other machine can open one.
    """
    settings = broker.settings.tenant
    if public := PublicAddress.of(broker.home, settings):
        return f"{public.url}approve/{stepup.id}"
    if settings.issuer and stepup.device is not None:
        return stepup.device.verification_uri_complete
    return None


class ApprovalPageOffers:
    """Gives each step-up its page at the embedded tenant, and its result.

    A page needs a device code (RFC 8628): it is how the tenant knows the step-up, and
    how its answer comes back. One is asked for as soon as the step-up waits, so that a
    link in an alert works before anybody is at the console.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sent: dict[StepUpId, StepUpStatus] = {}
        self._rests: dict[StepUpId, float] = {}
        """Not before when, in boot seconds, each is offered again."""

    async def run(self) -> None:
        """Look after the pages until cancelled, if there are any."""
        if not pages_at(self._broker):
            return
        while True:
            try:
                await self.look()
            except (TenantError, LedgerError) as error:
                log.warning("approval pages wait: %s", error.what)
                await asyncio.sleep(_REST)
            except Exception:
                log.exception("approval pages failed")
                await asyncio.sleep(_REST)
            await asyncio.sleep(_LOOK)

    async def look(self) -> None:
        """Offer waiting step-ups without a page, and send the decisions.

        Raises:
            TenantError: the tenant does not take it; the next look tries again.
        """
        stepups = self._broker.stepups
        # Of a team's brokers one offers: a new code ends the one before.
        # Without an address for phones a page begins with a person's own code.
        offers = self._broker.team.brokers.works() and self._broker.settings.tenant.url
        for stepup in stepups.open() if offers else ():
            if self._is_due(stepup):
                try:
                    await offer(self._broker, stepup)
                except TenantRefusedError as error:
                    # For example, a person begins to approve it at another broker.
                    log.info("%s has no page yet: %s", stepup.id, error.what)
        for stepup_id, flow in list(stepups.codes.items()):
            waiting = stepups.find(stepup_id)
            if waiting is not None and waiting.status.open:
                continue
            if waiting is not None and self._sent.get(stepup_id) is not waiting.status:
                await self._broker.reaching.tenant.tell_outcome(
                    flow, _outcome(self._broker, waiting)
                )
                self._sent[stepup_id] = waiting.status
            if waiting is None or waiting.status is not StepUpStatus.APPROVED:
                del stepups.codes[stepup_id]
                self._sent.pop(stepup_id, None)
                self._rests.pop(stepup_id, None)

    def _is_due(self, stepup: StepUp) -> bool:
        """Check whether *stepup* is to be offered now; then it rests for a while."""
        broker, now = self._broker, self._broker.clock.boot()
        rests = self._rests.get(stepup.id, 0.0) > now
        if (rests or stepup.id in broker.stepups.flows) and is_current(broker, stepup):
            return False
        if stepup.status is not StepUpStatus.PENDING:
            return False
        self._rests[stepup.id] = now + _REST
        return True


def _outcome(broker: Broker, stepup: StepUp) -> str:
    people = stepup.confirmed or ([stepup.decided_by] if stepup.decided_by else [])
    by = ", ".join(one.name for one in people)
    info: dict[str, object] = {"status": stepup.status.value, "by": by}
    info["why"] = stepup.denial or stepup.problem
    info["at"] = iso(stepup.decided_at) if stepup.decided_at else None
    agent = broker.registry.find_agent(stepup.agent_id)
    info["stopped"] = agent is not None and agent.status is AgentStatus.REVOKED
    return to_json(info)
