"""The console's read model: plain Python, no Textual, no I/O.

`link` feeds it; screens, widgets and dialogs read it and compare version counters
before they repaint.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from agentvault_tui.clock import Clock
from agentvault_tui.console.state.changes import Loosenings
from agentvault_tui.console.state.link_state import LinkState, LinkView
from agentvault_tui.console.state.presence import DECISIONS, OperatorsPresent
from agentvault_tui.console.state.tallies import ExpiryQueue, RatesByName, TokenStore
from agentvault_tui.model.event import LOOSENED
from agentvault_tui.operator_api.gateway import CallInfo
from agentvault_tui.operator_api.history import EventInfo, LoosenedInfo
from agentvault_tui.operator_api.shapes import (
    AgentInfo,
    CountsInfo,
    Json,
    LedgerInfo,
    PanicInfo,
    PastAgentInfo,
    PresenceInfo,
    StatusInfo,
    TenantInfo,
    TokenInfo,
    WireShape,
)
from agentvault_tui.operator_api.stepups import StepUpInfo
from agentvault_tui.presenters.directory import Directory
from agentvault_tui.presenters.intake import Intake, token_key
from agentvault_tui.presenters.records import (
    AgentRow,
    CallRow,
    DeviceRow,
    EventRow,
    LiveToken,
    StatusRow,
    StepUpRow,
)
from agentvault_tui.text import Shown

RING: Final = 2_000
"""Recent events held here; older ones are read from the broker when needed."""
_DECIDED_KEPT: Final = 200
_CUT_OFF: Final = frozenset({"agent_revoked", "panic"})
"""Reasons of denials that say nothing about how an agent behaves."""
_CLOSING: Final = (
    *("stepup.approved", "stepup.denied", "stepup.expired", "stepup.cancelled"),
    "change.applied",
)
"""Events that end a request's wait."""


class Versions(Struct):
    """Counters that grow with every change of their subject."""

    agents: int = 0
    """Agents, their tokens and their counts."""
    roster: int = 0
    """Which agents there are, and how they stand."""
    stepups: int = 0
    calls: int = 0
    events: int = 0
    held: int = 0
    """Tokens came that were asked for because somebody looks at them."""
    status: int = 0
    """The broker's status, the link, and warnings."""
    ledger: int = 0
    """Another ledger is in the place of the one seen here."""


_NO_STATUS: Final[StatusRow] = StatusInfo(
    version=Shown(""),
    tenant=TenantInfo(issuer=Shown(""), kind=Shown("")),
    ledger=LedgerInfo(head=0, hash=Shown("")),
    panic=PanicInfo(on=False),
    agents=0,
    stepups_pending=0,
    warnings=(),
)
"""The status before one was read."""


def token_store(intake: Intake, info: PastAgentInfo) -> TokenStore:
    """Convert an agent's tokens: the list, or only the next to expire."""
    listed, elevated = info.listed_tokens, 0
    if isinstance(info, AgentInfo):
        elevated = info.tokens_elevated
        listed = listed or ((info.next_token,) if info.next_token else ())
    return TokenStore(map(intake.token, listed), info.live_tokens, elevated)


class AgentRoster:
    """Agents read again, page by page, to replace those that are shown all at once."""

    def __init__(
        self, intake: Intake, agents: Iterable[PastAgentInfo] = (), head: int = 0
    ) -> None:
        self._intake = intake
        self.agents: dict[str, AgentRow] = {}
        self.counts: dict[str, CountsInfo] = {}
        self.tokens: dict[str, TokenStore] = defaultdict(TokenStore)
        self.counted_to: dict[str, int] = {}
        """Up to which event each agent's counts are true."""
        self.take(agents, head)

    def take(self, agents: Iterable[PastAgentInfo], head: int) -> None:
        for data in agents:
            agent = self._intake.agent(data)
            self.agents[agent.id] = agent
            self.counts[agent.id] = data.counts
            self.tokens[agent.id] = token_store(self._intake, data)
            self.counted_to[agent.id] = head


class Mirror(Directory):
    """The broker's state as this console last read it."""

    def __init__(self, clock: Clock, *, ascii_only: bool = False) -> None:
        super().__init__(clock, ascii_only=ascii_only)
        self.versions = Versions()
        self.loosenings = Loosenings(clock, self.intake.shown)
        self.loaded = False
        """Whether a snapshot was read: until then nothing is known to be none."""
        self.partial = False
        """Whether these are the first agents of a snapshot that is still being read."""
        self.revoked: set[str] = set()
        self.servers: set[str] = set()
        """Clients that are resource servers: they check others' tokens."""
        self.stepups: dict[str, StepUpRow] = {}
        self._codes: dict[str, tuple[str, DeviceRow]] = {}
        """Codes of this console, each with the digest that it is for."""
        self.calls: dict[str, CallRow] = {}
        """Those that are held or in flight."""
        self.events: deque[EventRow] = deque(maxlen=RING)
        """The latest, oldest first."""
        self.presence = OperatorsPresent(clock, self.intake)
        self.status: StatusRow = _NO_STATUS
        self.link = LinkView()
        self.warnings: dict[str, Shown] = {}
        """The console's own, by kind; they stay until their cause ends."""
        self.cuts: dict[str, float] = {}
        """Revocations this console asked for: milliseconds here, steps elsewhere."""
        self.restarted_at: datetime | None = None
        """When the broker last started while this console watched."""
        self.last_seq, self.last_hash, self.read_from = 0, "", 0
        """The last: after which event every one was seen here."""
        self.revoked_by: dict[str, int] = {}
        """The last event that revoked an agent, of those seen here."""
        self.wants: set[str] = set()
        """Agents whose tokens are looked at and not held; `link` reads and empties."""
        self.stale: set[str] = set()
        """Agents of whom so little is held that their numbers may be wrong; same."""
        self.wanted: Callable[[], object] = lambda: None
        """Called when an agent is wanted."""
        self.listeners: set[Callable[[], object]] = set()
        """Called whenever something may have changed."""
        self._counts: dict[str, CountsInfo] = {}
        self._counted_to: dict[str, int] = {}
        """Up to which event each agent's counts were when they were read."""
        self._counted_all = 0
        """From this event on, all counts grow with their events."""
        self._tokens: dict[str, TokenStore] = defaultdict(TokenStore)
        self._endings, self._requested = ExpiryQueue(), dict[str, datetime]()
        self._status: StatusInfo | None = None
        """The status as it came."""
        self._readers: Final[dict[str, Callable[[EventRow, EventInfo], None]]] = {
            **dict.fromkeys(("token.revoked", "token.redeemed"), self._end_token),
            "token.delegated": self._take_delegation,
            **dict.fromkeys(("agent.revoked", "agent.restored"), self._set_revoked),
            **dict.fromkeys(("panic.on", "panic.off"), self._set_panic),
            **dict.fromkeys(_CLOSING, self._close_stepup),
            "broker.started": self._take_start,
        }
        self._reset_rates()

    _behind: tuple[int, float] | None = None
    """An event that was recorded and has not come, and since when, by boot."""

    def _reset_rates(self) -> None:
        self._decided, self._allowed, self._denied = (RatesByName() for _ in range(3))

    # What screens ask

    def tokens(self, agent_id: str) -> list[LiveToken]:
        """Return the live tokens held of an agent, the soonest to expire first.

        Asks for more where few are held.
        """
        tokens = self._tokens[agent_id]
        if tokens.short:
            self._want(agent_id)
        return tokens.rows

    def live_tokens(self, agent_id: str) -> int:
        return self._tokens[agent_id].live

    def elevated(self, agent_id: str) -> int:
        return self._tokens[agent_id].elevated

    def soonest(self, agent_id: str) -> LiveToken | None:
        """Return the agent's token that expires next; asks for it if it is not held."""
        tokens = self._tokens[agent_id]
        if tokens.more and tokens.ends is None:
            self._want(agent_id)
        return tokens.soonest

    def counts(self, agent_id: str) -> CountsInfo:
        """Return an agent's counts; the object grows with its decisions."""
        return self._counts.get(agent_id) or CountsInfo()

    def paces(self) -> Mapping[str, int]:
        """Return each agent's tokens in the last minute, if any."""
        return self._allowed.minute(self.clock.now().timestamp())

    def denials(self) -> Mapping[str, int]:
        """Return each agent's denials in the last minute, if any."""
        return self._denied.minute(self.clock.now().timestamp())

    def decisions(self) -> int:
        """Return the number of decisions in the last minute."""
        return self._decided.minute(self.clock.now().timestamp()).get("", 0)

    def ending(self, moment: datetime) -> set[str]:
        """Return the agents with a token that expires before *moment*."""
        return self._endings.before(moment.timestamp())

    def last_seen(self, agent_id: str) -> datetime | None:
        """Return when an agent last asked, as far as is known here."""
        agent, ours = self.agents.get(agent_id), self._requested.get(agent_id)
        recorded = agent.last_seen_at if agent else None
        return max(ours, recorded) if ours and recorded else ours or recorded

    def open_stepups(self, agent_id: str | None = None) -> list[StepUpRow]:
        """Return undecided step-ups, the longest wait first."""
        rows = (row for row in self.stepups.values() if row.open)
        if agent_id is not None:
            rows = (row for row in rows if row.agent_id == agent_id)
        return sorted(rows, key=lambda row: (row.requested_at, row.id))

    # What the link feeds

    def load(
        self,
        status: StatusInfo,
        roster: AgentRoster,
        stepups: Iterable[StepUpInfo],
        *,
        whole: bool = True,
    ) -> None:
        """Replace all but events by a snapshot: *whole*, or the agents so far."""
        self.loaded, self.partial = whole, not whole
        self._endings.clear()
        self.wants.clear()
        self.stale.clear()
        self.stepups.clear()
        self.agents, self._counts = dict(roster.agents), dict(roster.counts)
        self._tokens = roster.tokens.copy()
        self._counted_to = dict(roster.counted_to)
        self._counted_all = max(roster.counted_to.values(), default=0)
        rows = self.agents.values()
        self.revoked = {agent.id for agent in rows if agent.revoked}
        self.servers = {agent.id for agent in rows if agent.resource_server}
        for agent_id in self.agents:
            self._check_tokens(agent_id)
        for stepup in stepups:
            self._take_stepup(stepup)
        self._take_status(status)
        self.versions.agents += 1
        self.versions.roster += 1
        self.notify()

    def load_events(self, events: Iterable[EventInfo], *, after: int) -> None:
        """Replace the recent events; the stream continues *after* that number."""
        self.events.clear()
        self.last_seq = self._counted_all = 0
        self._counted_to.clear()
        self._reset_rates()
        self.last_hash = ""
        for event in events:
            row = self.intake.event(event)
            self._remember(row)
            self.loosenings.note(event, row.time, live=False)
            self.last_hash = event.hash
        self.last_seq = self.read_from = after
        self.revoked_by.clear()
        self.versions.events += 1

    def apply(self, message: WireShape) -> None:
        """Apply one frame of the stream, and notify the listeners."""
        self.take(message)
        self.notify()

    def take(self, message: WireShape) -> None:
        """Apply one shape of the stream; `notify` tells the listeners."""
        if type(message) is EventInfo:  # these two come five hundred times a second
            self._take_event(message)
            return
        if type(message) is TokenInfo:
            self._take_token(message)
            return
        match message:
            case LoosenedInfo():
                event = message.event
                at = self.intake.event(event).time
                self.versions.status += self.loosenings.note(event, at, live=False)
            case AgentInfo():
                self._take_agent(message)
            case StepUpInfo():
                self._take_stepup(message)
            case CallInfo():
                self._take_call(message)
            case StatusInfo():
                self._take_status(message)
            case TenantInfo() if self._status is not None:
                self._take_status(replace(self._status, tenant=message))
            case PresenceInfo():
                self.presence.take(message)
                self.versions.status += 1

    def notify(self) -> None:
        for listener in self.listeners:
            listener()

    def tick(self, now: datetime) -> None:
        moment = now.timestamp()
        for agent_id in self._endings.due(moment):
            if self._tokens[agent_id].expire(moment):
                self.versions.agents += 1
            self._check_tokens(agent_id)

    def behind_s(self) -> float:
        """Return for how many seconds the feed has been behind the ledger."""
        if not self.link.live:
            since = self.link.since
            lost = self.link.state is LinkState.LOST and self.loaded and since
            return (self.clock.now() - since).total_seconds() if lost and since else 0.0
        if self._behind is None or self.last_seq >= self._behind[0]:
            return 0.0
        return self.clock.boot() - self._behind[1]

    def set_link(self, state: LinkState, reason: str = "") -> None:
        if state is self.link.state and reason == self.link.reason:
            return
        self.link = LinkView(state, self.intake.shown(reason), self.clock.now())
        if state is LinkState.LOST:
            self.presence.forget()
        self.versions.status += 1
        self.notify()

    def warn(self, kind: str, text: str) -> None:
        """Show a warning on the screen until `unwarn`."""
        self.warnings[kind] = self.intake.shown(text, 400)
        self.versions.status += 1

    def unwarn(self, kind: str) -> None:
        if self.warnings.pop(kind, None) is not None:
            self.versions.status += 1

    # One reader a kind of frame

    def _take_agent(self, data: AgentInfo) -> None:
        agent = self.intake.agent(data)
        before = self.agents.get(agent.id)
        if data.removed_at is not None:
            self.agents.pop(agent.id, None)
            self.revoked.discard(agent.id)
            self.servers.discard(agent.id)
            self.versions.agents += 1
            self.versions.roster += 1
            return
        self.agents[agent.id] = agent
        # Every decision after the snapshot is counted from its own event: an agent
        # frame of a busy moment may already hold counts whose events come later.
        self._counts.setdefault(agent.id, data.counts)
        self._tokens[agent.id] = token_store(self.intake, data)
        self._check_tokens(agent.id)
        (self.revoked.add if agent.revoked else self.revoked.discard)(agent.id)
        (self.servers.add if agent.resource_server else self.servers.discard)(agent.id)
        self.versions.agents += 1
        # One that was only read anew moves no list of many.
        self.versions.roster += before is None or _listed(before) != _listed(agent)

    def _take_token(self, data: TokenInfo) -> None:
        agent_id = self.intake.word(data.agent_id)
        tokens = self._tokens[agent_id]
        tokens.add(self.intake.token(data))
        self._endings.note(agent_id, tokens.ends)
        self.versions.agents += 1

    def _with_own_code(self, row: StepUpRow) -> StepUpRow:
        """Return *row* with the code that this console was given for it, if any.

        Answers to this console have it; the stream, which all share, has no codes.
        """
        own = self._codes.pop(row.id, None)
        if row.status != "authorizing":
            return row
        if row.device is None and own is not None:
            digest, device = own
            if digest == row.digest and device.expires_at > self.clock.now():
                row = replace(row, device=device)
        if row.device is not None:
            self._codes[row.id] = (row.digest, row.device)
        return row

    def _take_stepup(self, data: StepUpInfo) -> None:
        row = self._with_own_code(self.intake.stepup(data))
        self.stepups[row.id] = row
        if len(self.stepups) > 2 * _DECIDED_KEPT:
            decided = [row for row in self.stepups.values() if not row.open]
            decided.sort(key=lambda row: row.decided_at or row.requested_at)
            for old in decided[:-_DECIDED_KEPT]:
                del self.stepups[old.id]
        self.versions.stepups += 1
        self.versions.agents += 1

    def load_calls(self, calls: Iterable[CallInfo]) -> None:
        """Replace the calls in flight by those there are."""
        rows = self.intake.read_all(calls, CallRow)
        self.calls = {row.id: row for row in rows}
        self.versions.calls += 1

    def _take_call(self, data: CallInfo) -> None:
        if data.state != "ended":
            self.calls[data.id] = self.intake.read(data, CallRow)
        elif self.calls.pop(data.id, None) is None:
            return  # begun and ended since the last frame
        self.versions.calls += 1

    def _take_status(self, data: StatusInfo) -> None:
        self._status = data
        head = data.ledger.head
        if head <= self.last_seq:
            self._behind = None
        elif self._behind is None or self.last_seq >= self._behind[0]:
            self._behind = head, self.clock.boot()
        status = self.intake.read(data, StatusRow)
        if status != self.status:
            self.status = status
            self.versions.status += 1

    def _take_event(self, data: EventInfo) -> None:
        if data.seq <= self.last_seq:
            return
        row, versions = self.intake.event(data), self.versions
        self.last_seq = row.seq
        self.last_hash = data.hash
        self._remember(row)
        versions.events += 1
        if LOOSENED in data.detail:
            versions.status += self.loosenings.note(data, row.time, live=True)
        if row.outcome:
            self._count(row)
        if row.type in DECISIONS:
            self._take_decision(row, data.detail)
        if (reader := self._readers.get(row.type)) is not None:
            reader(row, data)

    def _take_start(self, row: EventRow, data: EventInfo) -> None:
        del data
        self.restarted_at = row.time
        self.versions.status += 1

    def _take_delegation(self, row: EventRow, data: EventInfo) -> None:
        del data
        self.stale.add(row.agent_id)  # the broker counts what it delegated

    # An object's own frame is sent before its event, and may hold an older state: so
    # events set what they report as well.

    def _set_revoked(self, row: EventRow, data: EventInfo) -> None:
        del data
        at = row.time if row.type == "agent.revoked" else None
        agent_id, agent = row.agent_id, self.agents.get(row.agent_id)
        self.versions.agents += 1
        if at:
            self.revoked_by[agent_id] = row.seq
            self._tokens[agent_id].clear()
            self._endings.note(agent_id, None)
        if agent is None or agent.revoked is (at is not None):
            return
        self.agents[agent_id] = replace(
            agent, status="revoked" if at else "active", revoked_at=at
        )
        (self.revoked.add if at else self.revoked.discard)(agent_id)
        self.versions.roster += 1

    def _set_panic(self, row: EventRow, data: EventInfo) -> None:
        on, since = row.type == "panic.on", data.time
        if self._status and self.status.panic.on is not on:
            panic = PanicInfo(on=False)
            if on:
                panic = PanicInfo(
                    on=True, since=since, by=data.actor.name, reason=data.reason
                )
            self._take_status(replace(self._status, panic=panic))
        if on:
            for tokens in self._tokens.values():
                tokens.clear()
            self._endings.clear()
            self.versions.agents += 1

    def _close_stepup(self, row: EventRow, data: EventInfo) -> None:
        stepup = self.stepups.get(str(data.detail.get("stepup_id")))
        if stepup is None or not stepup.open:
            return
        status = self.intake.shown(row.type.rpartition(".")[2], 20)
        self.stepups[stepup.id] = replace(stepup, status=status, decided_at=row.time)
        self.versions.stepups += 1
        self.versions.agents += 1

    def _take_decision(self, row: EventRow, detail: Json) -> None:
        """Note another operator's decision, with its subject."""
        if not row.type.startswith(("stepup.", "change.")):
            what = self.agent_name(row.agent_id) if row.agent_id else ""
            self.presence.heard(row, row.agent_id, what)
            return
        about = detail.get("stepup_id")
        stepup = self.stepups.get(str(about))
        if row.type == "change.applied" and stepup is None:
            return  # a file brought it, and nobody approved
        mark = stepup.fingerprint if stepup else self.intake.shown("a step-up")
        of = f" of {self.agent_name(row.agent_id)}" if row.agent_id else ""
        what = f"{mark}, {row.action}{of}"
        self.presence.heard(row, str(about), what)

    def _remember(self, row: EventRow) -> None:
        self.events.append(row)
        if not row.outcome:
            return
        self._requested[row.agent_id] = row.time
        at = row.time.timestamp()
        self._decided.add("", at)
        if row.outcome == "allowed":
            self._allowed.add(row.agent_id, at)
        elif row.outcome == "denied" and row.reason not in _CUT_OFF:
            self._denied.add(row.agent_id, at)

    def _count(self, row: EventRow) -> None:
        if self._counted_to:
            if row.seq <= self._counted_to.get(row.agent_id, 0):
                return
            if row.seq > self._counted_all:
                self._counted_to.clear()  # every count is behind its agent's events now
        if (counts := self._counts.get(row.agent_id)) is None:
            counts = self._counts[row.agent_id] = CountsInfo()
        setattr(counts, row.outcome, getattr(counts, row.outcome) + 1)
        self.versions.agents += 1

    def _end_token(self, row: EventRow, data: EventInfo) -> None:
        agent_id, token_id = row.agent_id, data.detail.get("token_id")
        has_id = isinstance(token_id, str)
        if not has_id or not self._tokens[agent_id].drop(token_key(str(token_id))):
            self.stale.add(agent_id)
        if has_id:
            self._check_tokens(agent_id)
            self.versions.agents += 1

    def _check_tokens(self, agent_id: str) -> None:
        """Note which token expires next, and whether tokens are missing."""
        tokens = self._tokens[agent_id]
        self._endings.note(agent_id, tokens.ends)
        if tokens.more and tokens.ends is None:
            self.stale.add(agent_id)

    def _want(self, agent_id: str) -> None:
        if agent_id not in self.wants:
            self.wants.add(agent_id)
            self.wanted()


def _listed(agent: AgentRow) -> tuple[object, ...]:
    texts = (agent.name, agent.owner, agent.purpose)
    return *texts, agent.scopes, agent.revoked, agent.upstream, agent.connections
