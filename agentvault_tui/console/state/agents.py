"""The listed agents: misbehaving ones first, and the cursor's place.

Misbehaving agents stay on top, and recently revoked ones near them, until the operator
acknowledges them: they must not disappear before a look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct

from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.presenters.filters import Filter
from agentvault_tui.presenters.moments import SOON
from agentvault_tui.presenters.records import AgentRow

_BURST: Final = 10
_BURST_FACTOR: Final = 3
_MANY_DENIALS: Final = 3
_MARKED: Final = timedelta(seconds=60)
"""So long after its end a misbehaviour ranks an agent."""
_LATELY: Final = timedelta(minutes=10)
"""For so long a revoked agent stays near the misbehaving ones."""


_QUIETEST: Final = 6
_PINNED: Final = 2
"""The ranks of an agent without a mark, and of the last that needs a look now."""


class Misbehaviour(NamedTuple):
    """A burst of tokens, or many denials, that is not acknowledged yet."""

    what: str
    """``burst`` or ``denied``."""
    most: int
    """So many within a minute."""
    began: datetime
    last: datetime
    """When it still went on."""


class Attention(Struct, frozen=True):
    """Why an agent is ranked where it is; all False and 0 is an inconspicuous one."""

    waiting: int = 0
    """Step-ups that wait for a person."""
    ends: datetime | None = None
    """When the first of them ends."""
    burst: int = 0
    """Tokens got in the last minute, when that is unlike itself and its peers."""
    threshold: float = 0.0
    """A burst has to stay above half of this, its size at the beginning."""
    denials: int = 0
    """Denials in the last minute, when they are many."""
    soon: bool = False
    """Its last token but none after it ends within a minute."""
    revoked: bool = False
    misbehaved: Misbehaviour | None = None
    over: bool = False
    """Whether that ended more than a minute ago: then it is a mark alone."""
    revoked_lately: bool = False
    """Whether it was revoked a moment ago, and that is not acknowledged."""

    @property
    def rank(self) -> int:
        """Order agents: 0 first."""
        if self.revoked and not self.revoked_lately:
            return _QUIETEST + 1
        now = self.misbehaved if not self.over else None
        reasons = (
            self.waiting,
            now and now.what == "denied",
            now,
            self.revoked_lately,
            self.soon,
            self.misbehaved,
        )
        return next((n for n, reason in enumerate(reasons) if reason), _QUIETEST)

    @property
    def needs_look(self) -> bool:
        """Whether it stays in sight at the top of a list that is scrolled."""
        return self.rank <= _PINNED

    @property
    def order(self) -> tuple[int, float]:
        """Order agents: by rank, and those that wait by how long they have."""
        return self.rank, self.ends.timestamp() if self.ends else 0.0


_QUIET: Final = Attention()
_REVOKED: Final = Attention(revoked=True)
_REVOKED_LATELY: Final = Attention(revoked=True, revoked_lately=True)


def survey(
    mirror: Mirror,
    before: Mapping[str, Attention] = MappingProxyType({}),
    acknowledged: Mapping[str, datetime] = MappingProxyType({}),
) -> dict[str, Attention]:
    """Look at every agent that may need a look, and leave the quiet ones out.

    *before* is the last result. A burst goes on until it is half over: its own tokens
    become the agent's habit, and its peers' usual pace, while it lasts. A misbehaviour
    that began before it was *acknowledged* is not brought up again.
    """
    now, never = mirror.clock.now(), datetime.min.replace(tzinfo=UTC)
    waiting: dict[str, list[datetime]] = {}
    for stepup in mirror.open_stepups():
        waiting.setdefault(stepup.agent_id, []).append(stepup.expires_at)
    paces, denials = mirror.paces(), mirror.denials()
    usual = sorted(paces.values())[(len(paces) - 1) // 2] if len(paces) > 1 else 0
    hasty = max(_BURST, _BURST_FACTOR * usual)
    ending = mirror.ending(now + timedelta(seconds=SOON))
    statuses = dict.fromkeys(mirror.revoked, _REVOKED)
    for agent_id in mirror.revoked & mirror.agents.keys():
        at = mirror.agents[agent_id].revoked_at
        if at and at > max(now - _LATELY, acknowledged.get(agent_id, never)):
            statuses[agent_id] = _REVOKED_LATELY
    suspects = {
        *waiting,
        *ending,
        *(agent_id for agent_id, pace in paces.items() if pace >= hasty),
        *(id_ for id_, look in before.items() if look.burst or look.misbehaved),
        *(agent_id for agent_id, count in denials.items() if count >= _MANY_DENIALS),
    }
    for agent_id in suspects - mirror.revoked:
        if (agent := mirror.agents.get(agent_id)) is None:
            continue
        waits, pace = waiting.get(agent_id, ()), paces.get(agent_id, 0)
        denied = denials.get(agent_id, 0)
        threshold = before.get(agent_id, _QUIET).threshold
        if pace < threshold / 2:
            threshold = 0.0
        if not threshold and pace >= hasty:
            usually = _BURST_FACTOR * _habit(mirror, agent, pace, now)
            threshold = max(hasty, usually) if pace >= usually else 0.0
        burst = pace if threshold else 0
        many = denied if denied >= _MANY_DENIALS else 0
        misbehaved = _misbehaved(before.get(agent_id, _QUIET), burst, many, now)
        if misbehaved and misbehaved.began <= acknowledged.get(agent_id, never):
            misbehaved = None
        look = Attention(
            waiting=len(waits),
            ends=min(waits, default=None),
            burst=burst,
            threshold=threshold,
            denials=many,
            soon=agent_id in ending and mirror.live_tokens(agent_id) == 1,
            misbehaved=misbehaved,
            over=bool(misbehaved and now - misbehaved.last > _MARKED),
        )
        if look != _QUIET:
            statuses[agent_id] = look
    return statuses


def _misbehaved(
    before: Attention, burst: int, denials: int, now: datetime
) -> Misbehaviour | None:
    """Return an earlier misbehaviour in its present state; or a new or worse one."""
    misbehaved = before.misbehaved
    if not (burst or denials):
        return misbehaved
    what, count = ("denied", denials) if denials else ("burst", burst)
    if not (before.denials if denials else before.burst or before.denials):
        return Misbehaviour(what, count, now, now)
    if misbehaved is None or what != misbehaved.what:
        return misbehaved and misbehaved._replace(last=now)
    return misbehaved._replace(most=max(misbehaved.most, count), last=now)


def _habit(mirror: Mirror, agent: AgentRow, pace: int, now: datetime) -> float:
    """Return the agent's tokens a minute before the last one."""
    minutes = (now - agent.created_at).total_seconds() / 60 - 1
    if minutes < 1:
        return 0.0
    return max(mirror.counts(agent.id).allowed - pace, 0) / minutes


STILL: Final = 5.0
"""Seconds after the operator's last key in which the order stays as it is."""


class AgentView:
    """The list behind the agent pane."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self.filter = Filter()
        self.order: list[str] = []
        self.cursor: str | None = None
        self.held = 0
        """New agents that wait until the order may change."""
        self.attention: dict[str, Attention] = {}
        self.acknowledged: dict[str, datetime] = {}
        """When the operator last said of an agent that its state is known."""
        self._moved_at = self._held_at = float("-inf")
        self._names: list[str] = []
        self._roster = -1
        self._partial = False
        """Whether agents were still being read at the last look."""

    @property
    def hidden(self) -> int:
        return len(self._mirror.agents) - len(self.order) - self.held

    @property
    def index(self) -> int:
        """The row of the cursor; 0 in an empty list."""
        return self.order.index(self.cursor) if self.cursor in self.order else 0

    @property
    def still(self) -> bool:
        """Check whether the operator moves, so that rows must not."""
        last = max(self._moved_at, self._held_at)
        return self._mirror.clock.boot() - last < STILL

    def hold(self) -> None:
        """Let rows stay in place for a while: a key was pressed."""
        self._held_at = self._mirror.clock.boot()

    @property
    def pinned(self) -> int:
        """How many rows at the top need a look now."""
        looks = (self.look(agent_id) for agent_id in self.order)
        return sum(1 for _ in takewhile(lambda look: look.needs_look, looks))

    def look(self, agent_id: str) -> Attention:
        return self.attention.get(agent_id, _QUIET)

    def update(self) -> None:
        """Follow the mirror; rows stay in place while the operator moves among them."""
        self.attention = survey(self._mirror, self.attention, self.acknowledged)
        self._arrange(keep=self.cursor)

    def narrow(self, wanted: Filter) -> None:
        """Apply the operator's filter; the cursor stays if its agent does."""
        self.filter = wanted
        self._moved_at = self._held_at = float("-inf")
        self._arrange(keep=None)

    def move(self, rows: int) -> None:
        self.put(self.index + rows)

    def put(self, index: int) -> None:
        """Move the cursor to the row *index*, or the nearest there is."""
        self._moved_at = self._mirror.clock.boot()
        if self.order:
            self.cursor = self.order[min(max(index, 0), len(self.order) - 1)]

    def go(self, agent_id: str) -> None:
        """Move the cursor to an agent, listed or not."""
        if agent_id not in self._mirror.agents:
            return
        self._moved_at = self._mirror.clock.boot()
        self.cursor = agent_id
        if agent_id not in self.order:
            self.order.append(agent_id)

    def acknowledge(self, agent_id: str) -> bool:
        """Let an agent leave the top; return whether it was there unacknowledged."""
        look = self.look(agent_id)
        if look.misbehaved or look.revoked_lately:
            self.acknowledged[agent_id] = self._mirror.clock.now()
            self._moved_at = self._held_at = float("-inf")
            self.update()
        return bool(look.misbehaved or look.revoked_lately)

    def status(self, agent_id: str) -> str:
        look = self.look(agent_id)
        if look.revoked:
            return "revoked"
        return "waiting" if look.waiting else "active"

    def _arrange(self, keep: str | None) -> None:
        wanted = self._sorted(keep)
        if self.still:
            listed = set(self.order)
            allowed = set(wanted)
            new = len(allowed - listed)
            self.order = [each for each in self.order if each in allowed]
            self.held = new
        else:
            self.order, self.held = wanted, 0
        # Among the first agents that were read it is on the first one there is, not yet
        # on an identity, which the others would come before.
        unplaced = self._partial and self._moved_at == float("-inf")
        self._partial = self._mirror.partial
        if self.cursor not in self.order or unplaced:
            self.cursor = self.order[0] if self.order else None

    def _sorted(self, keep: str | None) -> list[str]:
        agents, attention = self._mirror.agents, self.attention
        listed = self._by_name()
        if wanted := self.filter:
            waiting = {each for each, look in attention.items() if look.waiting}
            listed = [
                each
                for each in listed
                if each == keep
                or wanted.agent(
                    agents[each], self._mirror, waiting, self._mirror.counts(each)
                )
            ]
        marked = [agent_id for agent_id in listed if agent_id in attention]
        if not marked:
            return list(listed)
        marked.sort(key=lambda agent_id: attention[agent_id].order)  # names stay so
        first = sum(attention[agent_id].rank < _QUIET.rank for agent_id in marked)
        quiet = [agent_id for agent_id in listed if agent_id not in attention]
        return marked[:first] + quiet + marked[first:]

    def _by_name(self) -> list[str]:
        """List agents, then resource servers, by name; sorted again after a change."""
        if self._roster != self._mirror.versions.roster:
            self._roster = self._mirror.versions.roster
            rows: Iterable[AgentRow] = self._mirror.agents.values()
            rows = sorted(rows, key=lambda r: (r.resource_server, r.name, r.id))
            self._names = [row.id for row in rows]
        return self._names
