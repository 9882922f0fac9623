"""The link to the broker: follows it into the mirror for as long as the console runs.

Unconfirmed data makes the link stale or lost, and then decisions are refused here,
before they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from agentvault_tui.console.link.memory import HeadStore, SeenLedger
from agentvault_tui.console.state.link_state import LinkState
from agentvault_tui.console.state.mirror import RING, AgentRoster, Mirror
from agentvault_tui.errors import AgentVaultError, NotFoundError, RefusedError
from agentvault_tui.operator_api import calls
from agentvault_tui.operator_api.advice import AdviceInfo, AdviceList, AdviceQuery
from agentvault_tui.operator_api.alerts import RetryAlertRequest
from agentvault_tui.operator_api.async_client import AsyncOperatorClient
from agentvault_tui.operator_api.calls import AnswerT, ApiCall
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.history import (
    EventInfo,
    EventPageInfo,
    LinkList,
    PastInfo,
)
from agentvault_tui.operator_api.planning import PlanInfo, PlanRequest, PolicyInfo
from agentvault_tui.operator_api.requests import (
    AgentQuery,
    AuditQuery,
    BeforeQuery,
    DecisionRequest,
    Factor,
    KeyRequest,
    LinksQuery,
    LookRequest,
    PastQuery,
    RepeatRequest,
    RestoreRequest,
    RevokeRequest,
    StepUpShowQuery,
    TreeQuery,
)
from agentvault_tui.operator_api.sessions import KeyChallenge, MeInfo
from agentvault_tui.operator_api.shapes import (
    AgentPage,
    HeadInfo,
    PresenceInfo,
    WireShape,
)
from agentvault_tui.presenters.limits import LimitRows
from agentvault_tui.presenters.records import (
    AlertRows,
    BodyView,
    EventPage,
    EventRow,
    HeldRequest,
    ServiceRows,
    StepUpRow,
    TreeRow,
    UpstreamStep,
)
from agentvault_tui.presenters.revocations import DeniedRow, Revoked, unrecorded

if TYPE_CHECKING:
    from agentvault_tui.operator_api.proof import Proof
    from agentvault_tui.operator_api.remote import BrokerAddress
    from agentvault_tui.presenters.activity import ActivityRow

STALL: Final = 3.0
"""Seconds without a beat after which this process itself must have stood still."""
_BLIND: Final = 1.0
"""Seconds a terminal may owe reading before its content is no basis for decisions."""
_BEAT: Final = 1.0
_PAUSE: Final = 0.1
"""Seconds between reads of a busy stream, so that many frames cost one wake-up."""
_CHECK_BEATS: Final = 5
"""The broker is asked for its status this often: a frozen one says nothing."""
_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
_PAGE: Final = 500
"""Agents a page of the first reading has."""
_AT_ONCE: Final = 100
"""Agents read again by one request."""


class _ResyncError(Exception):
    """The content has to be read again, at once."""


class BrokerLink:
    """Follow the broker, read on demand, and send decisions while the state is live."""

    def __init__(
        self,
        mirror: Mirror,
        broker: BrokerAddress,
        memory: HeadStore,
        *,
        read_only: bool = False,
        pause: float = _PAUSE,
    ) -> None:
        self.mirror = mirror
        self.read_only = read_only
        self.screen_waits: Callable[[], float] = lambda: 0.0
        """For how many seconds the operator has not seen the events."""
        self._client = AsyncOperatorClient(broker, pause)
        self._heartbeat_at = mirror.clock.boot()
        self._looked = asyncio.Event()
        self.face = "console"
        """This client's kind for the other operators."""
        self._seen = SeenLedger(mirror, memory, self._client)
        self.accept_ledger = self._seen.accept
        self.loaded: Callable[[], object] = lambda: None
        """Called when everything has been read again."""
        self._resync: asyncio.Future[None] | None = None
        self._wanted = asyncio.Event()
        mirror.wanted = self._wanted.set

    # Following

    async def run(self) -> None:
        """Follow the broker until cancelled; come back whenever it does."""
        self._seen.tidy()
        failures = 0
        try:
            while True:
                try:
                    await self._session()
                except _ResyncError as why:
                    self.mirror.set_link(LinkState.STALE, str(why))
                    continue
                except AgentVaultError as error:
                    if self.mirror.link.live:
                        failures = 0
                    self.mirror.set_link(LinkState.LOST, error.diagnosis())
                await asyncio.sleep(_WAITS[min(failures, len(_WAITS) - 1)])
                failures += 1
        finally:
            self._seen.keep()
            await self._client.aclose()

    async def _session(self) -> None:
        """Read everything, then follow until something ends it."""
        self.heartbeat()
        await self._snapshot()
        self.loaded()
        # However long that took: what came meanwhile is read from where it ends.
        self.heartbeat()
        self._resync = asyncio.get_running_loop().create_future()
        parts = (self._watch(), self._follow(), self._reread(), self._report_looks())
        tasks = {self._resync, *map(asyncio.ensure_future, parts)}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _snapshot(self) -> None:
        """Read all there is; show the first agents before the others are read.

        While one page of agents is taken in, the next one is on its way.
        """
        mirror, client = self.mirror, self._client
        status = await client.call(calls.STATUS)
        reading = asyncio.ensure_future(self._page(AgentQuery(limit=_PAGE)))
        try:
            head = status.ledger.head
            await self._seen.compare(head)
            if not 0 <= head - mirror.last_seq <= RING or not mirror.last_seq:
                query = AuditQuery(before=head + 1, limit=200)
                events = (await client.call(calls.AUDIT, query)).events
                mirror.load_events(reversed(events), after=head)
            mirror.intake.learn((await client.call(calls.POLICY)).catalogue)
            stepups = (await client.call(calls.STEPUPS)).stepups
            with contextlib.suppress(NotFoundError):  # a broker without a gateway
                mirror.load_calls((await client.call(calls.IN_FLIGHT)).calls)
            roster = AgentRoster(mirror.intake)
            while True:
                page = await reading
                if following := page.next:
                    query_on = AgentQuery(limit=_PAGE, after=following)
                    reading = asyncio.ensure_future(self._page(query_on))
                    await asyncio.sleep(0)  # let it be sent
                roster.take(page.agents, page.head)
                if not following:
                    break
                if not mirror.agents:
                    mirror.load(status, roster, stepups, whole=False)
                    await asyncio.sleep(0)  # let it be shown
        finally:
            reading.cancel()
        mirror.load(status, roster, stepups)

    async def _page(self, query: AgentQuery) -> AgentPage:
        return await self._client.call(calls.AGENTS, query)

    async def _reread(self) -> None:
        """Read the tokens that are looked at and not held."""
        wants = self.mirror.wants
        while True:
            if not wants:
                self._wanted.clear()
                await self._wanted.wait()
            wants_now = list(wants)[:_AT_ONCE]
            try:
                await self._read_agents(wants_now, tokens=True)
            finally:
                wants.difference_update(wants_now)

    async def _read_agents(self, ids: list[str], *, tokens: bool) -> None:
        query = AgentQuery(ids=",".join(ids), tokens=tokens)
        for agent in (await self._page(query)).agents:
            self.mirror.take(agent)
        self.mirror.versions.held += tokens
        self.mirror.notify()

    async def _report_looks(self) -> None:
        """Report the step-up that is open here; repeat it to a seat that is new."""
        presence, seen_row = self.mirror.presence, LookRequest(seat="")
        while True:
            self._looked.clear()
            look = LookRequest(seat=presence.you, looking_at=presence.looking_at)
            fresh = look.seat != seen_row.seat
            if look.seat and (
                look.looking_at is not None if fresh else look != seen_row
            ):
                seen_row = look
                with contextlib.suppress(AgentVaultError):
                    await self._client.call(calls.LOOK, look)
            await self._looked.wait()

    async def _follow(self) -> None:
        mirror = self.mirror
        async for message in self._client.events(mirror.last_seq, self.face):
            mirror.set_link(LinkState.LIVE)
            for each in message:
                self._take(each)
            mirror.notify()

    def _take(self, message: WireShape) -> None:
        if type(message) is EventInfo:
            if message.seq > self.mirror.last_seq + 1:
                raise _ResyncError("events were missed; reading them")
            self.mirror.take(message)
            if message.type == "clock.jump":
                raise _ResyncError("the clock was set; reading all ends again")
            return
        if isinstance(message, HeadInfo):
            self._seen.warn_replaced(
                "the broker does not know the last event seen here"
            )
            self.mirror.last_seq = 0
            raise _ResyncError("the ledger is another one; reading it anew")
        self.mirror.take(message)
        if isinstance(message, PresenceInfo):
            self._looked.set()

    async def _watch(self) -> None:
        """Detect that this process stalled, or that the broker does."""
        beats = 0
        while True:
            await asyncio.sleep(_BEAT)
            if (still := self.stalled_for()) > STALL:
                raise _ResyncError(f"this console stood still for {still:.0f} s")
            self.heartbeat()
            beats += 1
            if beats % _CHECK_BEATS == 0:
                status = await self._client.call(calls.STATUS)
                self.mirror.apply(status)
                self._seen.keep()
                self.heartbeat()
            if ids := list(self.mirror.stale)[:_AT_ONCE]:
                self.mirror.stale.difference_update(ids)
                await self._read_agents(ids, tokens=False)

    def terminal_stalled(self, seconds: float) -> None:
        """Read everything again when the operator's screen stood still for long.

        Keys typed meanwhile arrive now, and were meant for the earlier content.
        """
        if seconds > STALL and self._resync is not None and not self._resync.done():
            why = f"the terminal stood still for {seconds:.0f} s"
            self.mirror.set_link(LinkState.STALE, why)
            self._resync.set_exception(_ResyncError(why))

    # Reading: what comes back has passed the mirror's intake

    async def activity(self, agent_id: str) -> ActivityRow:
        # Loaded by whoever shows it; the first frame does without.
        from agentvault_tui.presenters.activity import read_activity  # noqa: PLC0415

        answer = await self._client.call(calls.ACTIVITY, id=agent_id)
        return read_activity(self.mirror.intake, answer)

    async def audit(self, query: AuditQuery) -> EventPage:
        page = await self.audit_page(query)
        return EventPage(tuple(map(self.mirror.intake.event, page.events)), page.next)

    async def audit_page(self, query: AuditQuery) -> EventPageInfo:
        return await self._client.call(calls.AUDIT, query)

    async def past(self, moment: PastQuery) -> PastInfo:
        return await self._client.call(calls.PAST, moment)

    async def link_list(self, query: LinksQuery) -> LinkList:
        return await self._client.call(calls.LINKS, query)

    async def links(self, seqs: Iterable[int]) -> list[Proof]:
        """Read the proofs of events, to verify their links of the chain."""
        from agentvault_tui.operator_api.proof import Proof  # noqa: PLC0415 - as above

        links = await self.link_list(LinksQuery(seq=",".join(map(str, seqs))))
        return [Proof.read(link, links.ledger) for link in links.links]

    async def story(self, seq: int) -> tuple[list[EventRow], bool]:
        """Read the events that share a decision; also whether that is all."""
        story = await self._client.call(calls.STORY, seq=seq)
        return list(map(self.mirror.intake.event, story.events)), story.complete

    async def limits(self) -> LimitRows:
        """Read limits, their uses, and call-outs."""
        answer = await self._client.call(calls.LIMITS)
        return self.mirror.intake.read(answer, LimitRows)

    async def alerts(self) -> AlertRows:
        """Read where alerts go, and which did not arrive."""
        answer = await self._client.call(calls.ALERTS)
        return self.mirror.intake.read(answer, AlertRows)

    async def retry_alert(self, alert_id: str) -> str:
        """Send an alert again; return in words how that went."""
        body = RetryAlertRequest(id=alert_id)
        answer = await self._client.call(calls.RETRY_ALERT, body)
        shown = self.mirror.intake.shown
        sink = shown(answer.sink, 60)
        if answer.ok:
            return f"Sent again: {sink} took it."
        return f"{sink} did not take it: {shown(answer.problem, 200)}"

    async def services(self) -> ServiceRows:
        answer = await self._client.call(calls.SERVICES)
        return self.mirror.intake.read(answer, ServiceRows)

    async def policy(self) -> PolicyInfo:
        """Read the active policy, and its shadow's counts."""
        return await self._client.call(calls.POLICY)

    async def plan(self, text: str) -> PlanInfo:
        """Have the recorded history decided by the rules *text*."""
        return await self._client.call(calls.PLAN, PlanRequest(policy=text))

    async def advice(self, window: int) -> AdviceList:
        """Read the unneeded permissions, by so many seconds of the history."""
        return await self._client.call(calls.ADVICE, AdviceQuery(window=window))

    async def take(self, advice_id: str, call: ApiCall[AdviceInfo]) -> AdviceInfo:
        """Begin a trial of advice, restore its permission, or dismiss it, by *call*.

        Without a body each of the three uses its defaults.
        """
        self.check()
        return await self._client.call(call, id=advice_id)

    async def before(self, stepup_id: str, limit: int = 5) -> tuple[StepUpRow, ...]:
        """Read the last decisions about the same agent and action, latest first."""
        answer = await self._client.call(
            calls.BEFORE, BeforeQuery(limit=limit), id=stepup_id
        )
        return tuple(map(self.mirror.intake.stepup, answer.stepups))

    async def tree(self, agent_id: str | None) -> tuple[TreeRow, ...]:
        """Read the delegated tokens, with those they came from.

        Of one agent: those that are its own or end with its own.
        """
        query = TreeQuery(agent=agent_id)
        tree = self.mirror.intake.tree(await self._client.call(calls.TREE, query))
        if agent_id is None:
            return tree
        rows: list[TreeRow] = []
        under = -1
        for row in tree:  # each parent stands before its children
            if row.depth <= under:
                under = -1
            if under < 0 and row.agent.id == agent_id:
                under = row.depth
            if under >= 0:
                rows.append(row)
        return tuple(rows)

    async def body(self, stepup_id: str, request: HeldRequest) -> BodyView:
        """Read the body of a held call; it is made readable off the event loop."""
        # Loaded by whoever shows it.
        from agentvault_tui.presenters.body import body_view  # noqa: PLC0415

        answer = await self._client.call(calls.STEPUP_BODY, id=stepup_id)
        ascii_only = self.mirror.intake.ascii_only
        return await asyncio.to_thread(
            body_view, request, answer, ascii_only=ascii_only
        )

    async def change(self, change_id: str) -> ChangeInfo:
        """Read a change that waits, with the lines of its texts that differ."""
        return await self._client.call(calls.CHANGE, id=change_id)

    # Deciding

    def look(self, stepup_id: str | None) -> None:
        """Report which step-up is open here, or that none is."""
        self.mirror.presence.looking_at = stepup_id
        self._looked.set()

    async def approve(
        self,
        stepup_id: str,
        digest: str,
        repeat: RepeatRequest | None = None,
        factor: Factor | None = None,
    ) -> StepUpRow:
        """Begin the second factor for exactly the request with that *digest*.

        With *repeat* the next ones like it are approved too, under a digest of both.
        With a *factor* that was typed here no other device is needed.

        Raises:
            FactorRefusedError: it is wrong, or not enough.
        """
        body = DecisionRequest(
            id=stepup_id,
            decision="approve",
            digest=digest,
            repeat=repeat,
            factor=factor,
        )
        answer, _ = await self._send(calls.DECIDE, body, None)
        self.mirror.apply(answer)
        return self.mirror.intake.stepup(answer)

    async def key_challenge(
        self, stepup_id: str, digest: str, repeat: RepeatRequest | None
    ) -> KeyChallenge:
        """Begin to approve as `approve` does, and read a security key's challenge.

        Raises:
            FactorRefusedError: the person has no passkey.
        """
        self.check()
        body = KeyRequest(id=stepup_id, digest=digest, repeat=repeat)
        return await self._client.call(calls.KEY_CHALLENGE, body)

    async def me(self) -> MeInfo:
        """Read who is signed in here."""
        return await self._client.call(calls.ME)

    async def waiting(self, change_id: str) -> StepUpRow:
        """Read a change that waits, and list it."""
        answer = await self._client.call(
            calls.STEPUP, StepUpShowQuery(body=False), id=change_id
        )
        self.mirror.apply(answer)
        return self.mirror.intake.stepup(answer)

    async def deny(self, stepup_id: str, reason: str) -> DeniedRow:
        """Turn a request down; *reason* reaches the agent."""
        body = DecisionRequest(id=stepup_id, decision="deny", reason=reason)
        answer, _ = await self._send(calls.DECIDE, body, stepup_id)
        self.mirror.apply(answer)
        return DeniedRow(self.mirror.intake.stepup(answer), unrecorded(answer))

    async def revoke(self, agent_id: str, reason: str) -> Revoked:
        body = RevokeRequest(agent_id=agent_id, reason=reason)
        revoked = await self._revoke(body, agent_id)
        self.mirror.cuts[agent_id] = revoked.answer.effective_ms
        self.mirror.versions.agents += 1
        return revoked

    async def cut(self, call_id: str) -> None:
        """Cut one call; a held one goes on waiting for a retry."""
        self.check()
        answer = await self._client.call(calls.CUT_CALL, id=call_id)
        self.mirror.apply(answer)

    async def panic(self, reason: str) -> Revoked:
        return await self._revoke(RevokeRequest(all=True, reason=reason), "")

    async def _revoke(self, body: RevokeRequest, agent_id: str) -> Revoked:
        answer, took = await self._send(calls.REVOKE, body, agent_id)
        if answer.agent:
            self.mirror.apply(answer.agent)
        return Revoked(
            answer, took, self.mirror.intake.read_all(answer.upstream, UpstreamStep)
        )

    async def restore(self, agent_id: str) -> float:
        """Serve an agent again; return the milliseconds it took."""
        body = RestoreRequest(agent_id=agent_id)
        answer, took = await self._send(calls.RESTORE, body, agent_id)
        self.mirror.cuts.pop(agent_id, None)
        if answer.agent:
            self.mirror.apply(answer.agent)
        return took

    async def lift(self) -> float:
        """Lift the panic; return the milliseconds it took."""
        _, took = await self._send(calls.RESTORE, RestoreRequest(all=True), "")
        return took

    async def _send(
        self, call: ApiCall[AnswerT], body: WireShape, about: str | None
    ) -> tuple[AnswerT, float]:
        """Send a decision; return the answer and the milliseconds it took.

        Its event, *about* its subject, is no news here; None if none follows.
        """
        self.check()
        started = self.mirror.clock.boot()
        if about is not None:
            self.mirror.presence.deciding(about)
        answer = await self._client.call(call, body)
        return answer, (self.mirror.clock.boot() - started) * 1000

    def check(self) -> None:
        """Refuse to decide on data that the broker has not confirmed."""
        if self.read_only:
            raise RefusedError("this console is read-only")
        link = self.mirror.link
        if self.screen_waits() > _BLIND:
            raise RefusedError("the terminal does not show what happens now")
        if self.stalled_for() > STALL:
            # Keys typed into a frozen terminal arrive before the heart beats again.
            self.mirror.set_link(LinkState.STALE, "this console stood still")
        elif link.live:
            return
        raise RefusedError(
            f"the link is {self.mirror.link.state.value}, so nothing is decided",
            "what is shown may be old; agentvault agents revoke works without it",
        )

    def heartbeat(self) -> None:
        """Note that this process runs and has read its input."""
        self._heartbeat_at = self.mirror.clock.boot()

    def stalled_for(self) -> float:
        """Return the seconds since the last heartbeat."""
        return self.mirror.clock.boot() - self._heartbeat_at
