"""A step-up: one exact action that waits for one person and their second factor."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from agentvault_tui.clock import Clock, Deadline
from agentvault_tui.model.decision import Action, Risk, limits_nothing, other_details
from agentvault_tui.model.ids import AgentId, DecisionId, StepUpId, requester_of
from agentvault_tui.model.money import Money
from agentvault_tui.model.waiting import Repeat, StepUpStatus


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """The approver's way to the tenant (RFC 8628 section 3.2)."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    """Seconds the code lives, counted from when it was given."""
    interval: int
    expires_at: datetime


class Evidence(NamedTuple):
    """The decider, and the proof."""

    sub: str
    """The tenant's subject for an approver; ``uid:1000`` for a local operator."""
    name: str
    amr: tuple[str, ...] = ()
    """RFC 8176 methods; holds ``mfa`` for every approval."""
    auth_time: datetime | None = None
    by_role: bool = False
    """Whether they had the approver role: it counts where no list of approvers is."""
    email: str | None = None
    """Verified, in small letters: that list may name it."""


@dataclass(frozen=True, slots=True)
class ChangedText:
    """A text that a change replaces, by the SHA-256 of before and after."""

    name: str
    before: str | None
    """None where there was none."""
    after: str | None
    """None where it is removed, or is secret: the change's HMAC covers it."""
    diff: str = ""
    """Lines of a unified diff; the digest of the change covers it. Empty if the texts
    are not known where the change is asked for."""


@dataclass(frozen=True, slots=True)
class WaitingChange:
    """A loosening that waits for a person: the part that no agent's step-up has."""

    kinds: tuple[str, ...]
    """Of `CHANGE_KINDS`; the first names it."""
    summary: str
    call: str
    """The call that carries it out: method and path of the operators' API."""
    sub: str
    """Who asked: their subject, or ``uid:`` and a number at the socket."""
    name: str
    seat: str
    """Where they asked from: the key of their session, or the local user, with the
    SHA-256 of a claim if the program sent one."""
    texts: tuple[ChangedText, ...]
    body_hmac: str
    """Of the request, under the home directory's key or the team's."""
    sealed: str
    """The request, encrypted, in Base64; empty once it is over."""
    result: str = ""
    """The answer of the call, encrypted, until the session that asked has read it."""


@dataclass(frozen=True, slots=True)
class StepUp:
    """A request held for a person; the digest fixes the content of the decision."""

    id: StepUpId
    agent_id: AgentId
    agent_name: str
    scope: str
    """The one scope the elevated token will carry: its action's.

    Of a provider's token: all that the connection represents. Of a request with
    several actions: those of all, its action's first.
    """
    action: str
    resource: str | None
    parameters_json: str
    """The action's parameters, an object, as JSON text: agents choose its size."""
    reason: str | None
    """The agent's own words."""
    rule: str
    why: str
    risk: Risk
    policy_version: str
    nonce: str
    digest: str
    """``sha256:…`` over the canonical action."""
    decision_id: DecisionId
    ttl: int
    """Seconds the elevated token will live."""
    requested_at: datetime
    expires: Deadline
    count: int = 1
    """How often the same request has come in."""
    status: StepUpStatus = StepUpStatus.PENDING
    problem: str | None = None
    """Why the last try at approving did not lead to a decision."""
    decided_by: Evidence | None = None
    decided_at: datetime | None = None
    denial: str | None = None
    """The operator's reason, for the agent."""
    device: DeviceCode | None = None
    begun_at: datetime | None = None
    """When the tenant gave the last code for it."""
    begun_by: str = ""
    """In a team, the run of the broker that follows that code; see `Said.run`."""
    redeemed_at: datetime | None = None
    """When its token was used."""
    authorization_details: str | None = None
    """RFC 9396, exactly as the elevated token and its introspection will say it, as
    JSON text."""
    resource_indicator: str | None = None
    """RFC 8707, as the agent sent it."""
    fetched_at: datetime | None = None
    """When the agent was given the approved token."""
    connection: str | None = None
    """Of the provider whose token is requested; else the token is our own."""
    request_json: str | None = None
    """The HTTP request a held call would send, without its credential, as JSON text:
    ``method``, ``url``, ``headers``, ``body_sha256``, ``body_bytes``, and
    ``configuration_sha256`` of the file that says where it goes."""

    need: int = 1
    """How many different people have to approve it."""
    owners: tuple[str, ...] = ()
    """Who may not, case-folded: owners in the delegation chain, if a rule says so."""
    approvers: tuple[tuple[str, ...], ...] = ()
    """Who alone may: of each list at least one name has to be theirs."""
    confirmed: tuple[Evidence, ...] = ()
    """Who approved it, where several have to, in that order."""
    evaluation: bool = False
    """Whether it was asked by an evaluation: the same one spends the approval."""
    source: str | None = None
    """The address it was asked from, if that is known."""
    chain: tuple[AgentId, ...] = ()
    """Agents that passed on the token of the request, in order."""

    repeat: Repeat | None = None
    """How often more the same is approved, where that is asked for."""
    repeat_of: StepUpId | None = None
    """The approval that stood in for a person here."""
    change: WaitingChange | None = None
    """The change, if an operator asks and not an agent.

    `policy_version` is then the digest of the changed text.
    """
    money: Money | None = None
    """How the amount is written, if the service of the request says so."""

    @property
    def requester(self) -> str:
        """Return the requester that it counts for; see `requester_of`."""
        return requester_of(self.agent_id, self.chain)

    def repeats(self, clock: Clock) -> bool:
        """Check whether its approval still replaces a person."""
        repeat = self.repeat
        return (
            repeat is not None
            and self.status in {StepUpStatus.APPROVED, StepUpStatus.REDEEMED}
            and repeat.left > 0
            and repeat.expires is not None
            and not repeat.expires.passed(clock)
        )

    def used_again(self) -> StepUp:
        """Return it with one repeat less."""
        if self.repeat is None:
            return self
        left = self.repeat.left - 1
        return replace(self, repeat=replace(self.repeat, left=left))

    def repeated_no_more(self) -> StepUp:
        """Return it with the rest of its repeats ended."""
        if self.repeat is None:
            return self
        return replace(self, repeat=replace(self.repeat, left=0))

    @property
    def fetched(self) -> bool:
        """Check whether the agent fetches a token; else it repeats the request."""
        held = self.evaluation or self.request_json is not None
        return not held and self.change is None

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the action's parameters, read again each time."""
        parameters: dict[str, Any] = json.loads(self.parameters_json)
        return parameters

    @property
    def details(self) -> tuple[dict[str, Any], ...] | None:
        """Return `authorization_details`, read again each time."""
        text = self.authorization_details
        return None if text is None else tuple(json.loads(text))

    @property
    def request(self) -> dict[str, Any] | None:
        """Return the request of a held call, read again each time."""
        text = self.request_json
        return None if text is None else json.loads(text)

    @property
    def requested(self) -> Action:
        """Return the action as policy decides about it."""
        return Action(
            tuple(self.scope.split()),
            self.action,
            self.resource,
            self.parameters,
            self.reason,
            # Each of several scopes is decided as if the action were its own.
            named=self.connection is None and " " not in self.scope,
            money=self.money,
        )

    @property
    def unlimited(self) -> bool:
        """Check whether only the scope limits the use of the token."""
        if self.request_json is not None or self.change is not None:
            return False
        others = other_details(self.details)
        return limits_nothing(self.resource, self.parameters, others, self.connection)


def fingerprint(digest: str) -> str:
    """Return the four characters a person compares: the digest's first, in capitals.

    Args:
        digest: ``sha256:`` and hexadecimal digits.

    Returns:
        four hexadecimal digits.
    """
    return digest.removeprefix("sha256:")[:4].upper()
