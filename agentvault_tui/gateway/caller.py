"""The maker of a call, and the permit that lets one go out."""

from __future__ import annotations

from typing import NamedTuple

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.revocations import Grant
from agentvault_tui.broker.usecases.decide import Request, foresee
from agentvault_tui.model import Action, Agent, Token, Verdict


class Caller(NamedTuple):
    """Who shows which live token; see `Token.principal`."""

    agent: Agent
    token: Token
    source: str | None = None
    """The address they ask from, if that is known."""

    def foresee(self, broker: Broker, action: Action) -> Verdict:
        """Say how *action* would be answered now; see `decide.foresee`."""
        chain = self.token.chain
        return foresee(broker, self.agent, action, self.source, chain=chain)


class Permit(NamedTuple):
    """The permission for one call, and its time."""

    request: Request
    verdict: Verdict
    grant: Grant
    spends: Token | None = None
    """Used up by this call: good for one action."""
