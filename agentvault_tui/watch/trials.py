"""Take authority away on trial, and give it back; the ledger's events are the state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

import msgspec

from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.riders import riding
from agentvault_tui.broker.usecases.policy_apply import apply_policy
from agentvault_tui.broker.usecases.revoke import FAILED, restore_agent, revoke_agent
from agentvault_tui.broker.usecases.scopes import change_scopes
from agentvault_tui.broker.usecases.timed_grants import ends_of
from agentvault_tui.clock import iso
from agentvault_tui.errors import ConflictError, NotFoundError
from agentvault_tui.ledger import EventQuery
from agentvault_tui.model import (
    Actor,
    AgentId,
    AgentStatus,
    Draft,
    Event,
    EventType,
)
from agentvault_tui.operator_api.advice import AdviceInfo, HitRateInfo
from agentvault_tui.text import visible

_TYPES: Final = (
    EventType.ADVICE_APPLIED,
    EventType.ADVICE_GIVEN_BACK,
    EventType.ADVICE_DISMISSED,
)
_STATUS: Final = {
    EventType.ADVICE_APPLIED: "on_trial",
    EventType.ADVICE_GIVEN_BACK: "given_back",
    EventType.ADVICE_DISMISSED: "dismissed",
}
_NONE: Final = frozenset[str]()


@dataclass(slots=True)
class _Taken:
    """The last that was decided about a piece of advice."""

    info: AdviceInfo
    status: str
    at: str
    seq: int
    by: Actor


class Trials:
    """The decisions about advice, by the events."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._taken: dict[str, _Taken] = {}
        self.hits = HitRateInfo()

    async def restore(self) -> None:
        """Read the trials from the ledger, and mark refusals by them."""
        events: list[Event] = []
        for kind in _TYPES:
            after: int | None = 0
            while after is not None:
                query = EventQuery(type=kind, after=after, limit=1000)
                page = await self._broker.ledger.events(query)
                events += page.events
                after = page.next
        for event in sorted(events, key=lambda one: one.seq):
            self._learn(event)

    def _learn(self, event: Event) -> None:
        try:
            info = msgspec.convert(event.detail["advice"], AdviceInfo)
        except (msgspec.ValidationError, LookupError):
            return
        status = _STATUS[event.type]
        self._taken[info.id] = _Taken(
            info, status, iso(event.time), event.seq, event.actor
        )
        self.hits.applied += status == "on_trial"
        self.hits.given_back += status == "given_back"

    def of(self, agent: AgentId) -> list[AdviceInfo]:
        """Return the permissions of an agent removed on trial, the first to end first.

        By a rule of the policy, too, where the advice was about that agent.
        """
        infos = (self._info(one) for one in self._taken.values())
        trials = [o for o in infos if o.agent_id == agent and o.status == "on_trial"]
        return sorted(trials, key=lambda one: one.trial_ends_at or "")

    def covers(self, agent: AgentId, scopes: Sequence[str], rule: str | None) -> bool:
        """Check whether the requested permission was removed, and is on trial now."""
        now = iso(self._broker.clock.now())
        for taken in self._taken.values():
            info, change = taken.info, taken.info.change
            if taken.status != "on_trial" or (info.trial_ends_at or "") <= now:
                continue
            if rule == f"advice:{info.id}":
                return True
            if info.agent_id == agent and (
                change.revoke is True
                or (change.ungrant and not set(scopes).isdisjoint(change.ungrant))
            ):
                return True
        return False

    def merge(self, advice: Sequence[AdviceInfo], *, every: bool) -> list[AdviceInfo]:
        """Return the history's advice now, with the decisions about it.

        Trials come first, then open advice. With *every* also ended ones: kept, given
        back, dismissed.
        """
        merged: dict[str, AdviceInfo] = {}
        for taken in self._taken.values():
            merged[taken.info.id] = self._info(taken)
        for info in advice:
            trial = self._taken.get(info.id)
            # Used since, and then not any more: it is advice anew.
            if trial is None or (info.evidence.last_used_at or "") > trial.at:
                merged[info.id] = info
        order = ("on_trial", "open", "kept", "given_back", "dismissed")
        shown = order if every else order[:2]
        listed = [one for one in merged.values() if one.status in shown]
        return sorted(
            listed,
            key=lambda one: (
                order.index(one.status),
                one.evidence.would_have_refused,
                one.kind,
                one.agent_id,
                one.scope,
            ),
        )

    def _info(self, taken: _Taken) -> AdviceInfo:
        ends, status = taken.info.trial_ends_at or "", taken.status
        if status == "on_trial" and ends <= iso(self._broker.clock.now()):
            status = "kept"
        ends_at = taken.info.trial_ends_at if status in {"on_trial", "kept"} else None
        return msgspec.structs.replace(taken.info, status=status, trial_ends_at=ends_at)

    async def apply(
        self, info: AdviceInfo, operator: Actor, seconds: int
    ) -> AdviceInfo:
        """Remove the permissions that *info* advises, on trial for so many *seconds*.

        Raises:
            NotFoundError: there is no such agent.
            ConflictError: it is on trial already, gives more than it takes, or takes
                what is gone already or ends by itself.
        """
        if (now := self._taken.get(info.id)) and self._info(now).status == "on_trial":
            raise ConflictError(f"{info.id} is on trial already")
        if info.kind == "always_approved" or info.change.limit:
            raise ConflictError(
                f"{info.kind} is applied by changing the file itself",
                "put what it shows into the policy or limits.toml, and try it:"
                " agentvault policy plan",
            )
        broker, change = self._broker, info.change
        gone = frozenset(change.ungrant or ())
        if gone or change.revoke:
            agent = broker.registry.agent(info.agent_id)
            if agent.status is not AgentStatus.ACTIVE or not gone <= set(agent.scopes):
                # Given back, more would come back than the trial removed.
                raise ConflictError(
                    "another decision has revoked the agent, or removed the scope",
                    "agentvault advise lists what is left",
                )
            if gone & ends_of(broker, agent).keys():
                # Given back, it would last.
                raise ConflictError(
                    "it was granted for a time, and ends by itself",
                    "to end it now: agentvault agents ungrant",
                )
        ends = broker.clock.now() + timedelta(seconds=seconds)
        info = msgspec.structs.replace(info, trial_ends_at=iso(ends))
        # Recorded first: whoever is refused is to be told why from the beginning.
        await self._record(EventType.ADVICE_APPLIED, info, operator)
        reason = f"advice {info.id}: {info.kind}"
        if gone:
            await change_scopes(broker, info.agent_id, _NONE, gone, operator)
        elif change.revoke:
            await revoke_agent(broker, info.agent_id, reason, operator)
        elif change.rule:
            text = f"{broker.deciding.policy.text.rstrip()}\n\n{change.rule}"
            await apply_policy(
                *(broker, {"policy": text}, operator, None, reason), may_loosen=False
            )
        return self._info(self._taken[info.id])

    async def give_back(self, advice_id: str, operator: Actor) -> AdviceInfo:
        """Restore the removed permissions, and end the trial.

        Raises:
            NotFoundError: there is no such advice, or it was not applied.
            ConflictError: something else removed the same since.
        """
        taken = self._taken.get(advice_id)
        if taken is None or taken.status != "on_trial":
            raise NotFoundError(f"nothing was taken away by {advice_id}")
        broker, change = self._broker, taken.info.change
        draft = _draft(EventType.ADVICE_GIVEN_BACK, taken.info, operator)
        if (rider := riding()) is not None:
            rider.more = (draft,)
        if change.ungrant:
            again = frozenset(change.ungrant)
            await change_scopes(
                *(broker, taken.info.agent_id, again, _NONE, operator),
                check=partial(self.check_removed_by_trial, advice_id),
            )
        elif change.revoke:
            await restore_agent(
                *(broker, taken.info.agent_id, operator),
                check=lambda _: self.check_removed_by_trial(advice_id),
            )
        elif (text := self.without_rule(advice_id)) is not None:
            reason = f"advice {advice_id} given back"
            await apply_policy(broker, {"policy": text}, operator, None, reason)
        if rider is not None and rider.done is not None:
            events = await rider.done
        else:  # it was given back already
            if rider is not None:
                rider.more = ()
            events = await broker.record(draft)
        for event in events:
            if event.type is EventType.ADVICE_GIVEN_BACK:
                self._learn(event)
        return self._info(self._taken[advice_id])

    async def check_removed_by_trial(self, advice_id: str) -> None:
        """Refuse to restore permissions that something else removed since the trial.

        Args:
            advice_id: advice that was applied; of other advice nothing is refused.

        Raises:
            ConflictError: another decision revoked the agent, or removed the scope.
        """
        taken = self._taken.get(advice_id)
        if taken is None or taken.status != "on_trial" or taken.info.change.rule:
            return
        gone, revokes = set(taken.info.change.ungrant or ()), taken.info.change.revoke
        kind = EventType.AGENT_REVOKED if revokes else EventType.AGENT_SCOPES_CHANGED
        await self._broker.recording.cuts.record_missed()
        await self._broker.ledger.confirm()
        removals = [
            one
            async for one in self._events(taken, kind, after=taken.seq)
            if one.reason != FAILED
            and (revokes or not gone.isdisjoint(one.detail.get("ungranted", ())))
        ]
        if removals and removals[0].actor.id == taken.by.id:  # the trial's own
            del removals[0]
        if not removals:
            removals = await self._removed_before(taken)
        if removals:
            raise ConflictError(
                f"{visible(removals[-1].actor.name, 60)} removed the same besides"
                f" {advice_id}, which does not end with its trial",
                "agentvault agents restore, or agents grant",
            )

    async def _removed_before(self, taken: _Taken) -> list[Event]:
        """Find the removals that were recorded before a trial, and not taken back then.

        Another broker may have recorded one that this broker had not followed.
        """
        if taken.info.change.revoke:
            async for one in self._events(taken, EventType.AGENT_REVOKED):
                if one.reason != FAILED:
                    async for back in self._events(taken, EventType.AGENT_RESTORED):
                        return [one] if back.seq < one.seq else []
                    return [one]
            return []
        gone = set(taken.info.change.ungrant or ())
        async for one in self._events(taken, EventType.AGENT_SCOPES_CHANGED):
            if not gone.isdisjoint(one.detail.get("ungranted", ())):
                return [one]
            gone -= set(one.detail.get("granted", ()))
            if not gone:
                break
        return []

    async def _events(
        self, taken: _Taken, kind: EventType, after: int | None = None
    ) -> AsyncIterator[Event]:
        """Read events of a trial's agent: *after* one, or back from the trial."""
        query = EventQuery(
            agent=AgentId(taken.info.agent_id),
            type=kind,
            after=after,
            before=taken.seq if after is None else None,
            limit=1000,
        )
        while True:
            page = await self._broker.ledger.events(query)
            for event in page.events:
                yield event
            if page.next is None:
                return
            if after is None:
                query = replace(query, before=page.next)
            else:
                query = replace(query, after=page.next)

    def without_rule(self, advice_id: str) -> str | None:
        """Return the policy without the rule of *advice_id*; None: it has none."""
        policy = self._broker.deciding.policy
        if (rule := policy.rule(f"advice:{advice_id}")) is None:
            return None
        return policy.text.replace(rule.source, "", 1).rstrip() + "\n"

    async def dismiss(self, info: AdviceInfo, operator: Actor) -> AdviceInfo:
        """Leave it as it is, until it is used and then unused again.

        Raises:
            ConflictError: it is on trial: it would have to be given back.
        """
        if (now := self._taken.get(info.id)) and now.status == "on_trial":
            raise ConflictError(f"{info.id} was applied", "give it back instead")
        await self._record(EventType.ADVICE_DISMISSED, info, operator)
        return self._info(self._taken[info.id])

    async def _record(self, kind: EventType, info: AdviceInfo, operator: Actor) -> None:
        (event,) = await self._broker.record(_draft(kind, info, operator))
        self._learn(event)


def _draft(kind: EventType, info: AdviceInfo, operator: Actor) -> Draft:
    return Draft(
        kind,
        operator,
        agent_id=AgentId(info.agent_id) or None,
        action=info.scope or None,
        reason=info.kind,
        detail={"advice": msgspec.to_builtins(info)},
    )
