"""Finds in the recorded history the rights that agents do not need.

One pass over the chain counts uses by agent and scope. A call, an evaluation, the use
of a token and a token for one scope are uses of it; a token for several is none of any
before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec

from agentvault_tui.clock import iso, parse_iso
from agentvault_tui.ledger.docs import read_agent
from agentvault_tui.ledger.places import head_seq
from agentvault_tui.model import (
    DECISION_TYPES,
    Agent,
    AgentStatus,
    EventType,
    Outcome,
)
from agentvault_tui.model.waiting import BOUNDED
from agentvault_tui.operator_api.advice import (
    AdviceEvidence,
    AdviceInfo,
    AdvisedChange,
)
from agentvault_tui.operator_api.planning import AmountSpanInfo
from agentvault_tui.policy import Inputs, Policy
from agentvault_tui.policy.limits import RULE
from agentvault_tui.policy.rules import Obligation, PolicyRule
from agentvault_tui.watch.amount_spans import widen
from agentvault_tui.watch.history import Decider, bodies, records

_USED: Final = frozenset({EventType.TOKEN_USED, EventType.TOKEN_REDEEMED})
_ENDED: Final = frozenset(
    {EventType.STEPUP_APPROVED, EventType.STEPUP_DENIED, EventType.STEPUP_EXPIRED}
)
_READ: Final = (
    *DECISION_TYPES,
    *_USED,
    *_ENDED,
    EventType.STEPUP_REQUESTED,
    EventType.STEPUP_CANCELLED,
    EventType.AGENT_REGISTERED,
    EventType.AGENT_SCOPES_CHANGED,
)
_PERIODS: Final = {"daily": 1, "weekly": 7, "monthly": 31}
_PATIENCE: Final = 2.5
"""Periods of its rhythm that a scope is left unused before it is called so."""
_DAYS: Final = 3
"""Days of use from which on there is a rhythm."""
_EXAMPLES: Final = 20
_RESOURCES: Final = 3
"""Resources that a rule is narrowed to, at most."""
_LONGEST: Final = 256
"""Characters of a resource or parameter in a rule that is advised."""
_LONGEST_RULE: Final = 2_500
"""So that the whole advice is in its event."""
_OFTEN: Final = 20
"""Uses from which on narrower resources, or growth, are reported."""
_APPROVALS: Final = 5
"""Approvals, with no other end, from which on a prompt is not needed."""
_GROWN: Final = 1.5
_ROOM: Final = 4
"""A limit of so many times the most that was used is lowered to twice that."""
_EFFECT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|\bpermit\b')
_PARTS: Final = 4
_RULES: Final = 4
"""Rules that ask for a person about one request, at most."""


class _Event(msgspec.Struct):
    """An event, as far as advice reads it."""

    time: str
    type: str
    outcome: str | None = None
    rule: str | None = None
    agent_id: str | None = None
    action: str | None = None
    resource: str | None = None
    detail: Any = None


_EVENT: Final = msgspec.json.Decoder(_Event)


class _ScopeUse:
    """How an agent used one scope."""

    __slots__ = ("count", "days", "last", "parts", "per_day", "resources")

    def __init__(self) -> None:
        self.days: set[str] = set()
        self.last = ""
        self.count = 0
        self.parts = [0] * _PARTS
        """Uses in each quarter of the window."""
        self.per_day: Counter[str] = Counter()
        """Uses on each day of the window's first quarter."""
        self.resources: Counter[str | None] = Counter()
        """Of the window; no more than needed to see that they are too many."""


_NUMBERS: Final = (*BOUNDED, "amount_major")


class _Asked:
    """How a person answered the step-ups of an agent, scope and rule in the window."""

    __slots__ = (
        *("amounts", "approved", "currencies", "facts", "numbers", "otherwise"),
        "resources",
    )

    def __init__(self) -> None:
        self.approved = self.otherwise = 0
        self.facts: dict[str, Any] | None = None
        """Of the last that was approved."""
        self.resources: set[str | None] = set()
        self.numbers: dict[str, set[object]] = {name: set() for name in _NUMBERS}
        """As policy read them; None where a request had none."""
        self.amounts: list[AmountSpanInfo] = []
        self.currencies: set[object] = set()


class Window(NamedTuple):
    """The time that counts as now."""

    since: datetime
    until: datetime


class UseHistory:
    """The result of one pass over the chain."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.uses: dict[tuple[str, str], _ScopeUse] = {}
        self.asks: Counter[tuple[str, str]] = Counter()
        """Requests in the window that were not denied and are no uses: escalated, or
        for several scopes at once."""
        self.limited: set[tuple[str, str]] = set()
        """Agents and scopes that a limit stopped in the window: they are needed."""
        self.waiting: dict[str, tuple[str, str]] = {}
        """The same of undecided step-ups, by step-up."""
        self.examples: dict[tuple[str, str], list[int]] = {}
        self.granted: dict[tuple[str, str], str] = {}
        """When each scope was granted last."""
        self.seen: dict[str, str] = {}
        """When each agent asked for anything last."""
        self.held: dict[str, int] = {}
        """By its name in Cedar: the most that a window of each limit held."""
        self.decided: Counter[str] = Counter()
        """How many decisions each limit was asked about."""
        self.begun = "~"
        """The time of the first event that was read."""
        self.rules: Counter[str] = Counter()
        self.prompts: dict[tuple[str, str, str], _Asked] = {}
        self._open: dict[str, tuple[tuple[str, str, str], _Event]] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        """Of decisions whose step-up is open."""
        self._since, self._until = iso(window.since), iso(window.until)
        part = (window.until - window.since) / _PARTS
        self._edges = [iso(window.since + part * n) for n in range(1, _PARTS)]

    def read(self, db: sqlite3.Connection) -> None:
        """Read the whole chain as it is now."""
        decisions = frozenset(kind.value for kind in DECISION_TYPES)
        for seq, body in bodies(db, _READ, 0, head_seq(db)):
            event = _EVENT.decode(body)
            self.begun = min(self.begun, event.time)
            if event.type in decisions:
                self._decision(seq, event)
            else:
                self._other(event)

    def _decision(self, seq: int, event: _Event) -> None:
        agent, now = event.agent_id or "", event.time >= self._since
        self.seen[agent] = event.time
        if now and event.rule:
            self.rules[event.rule] += 1
            self._hold(event)
        scopes = _scopes(event)
        if event.outcome == Outcome.ALLOWED and len(scopes) == 1:
            self._use(agent, scopes[0], event)
        elif event.outcome == Outcome.DENIED:
            if now and (event.rule or "").startswith(RULE):
                self.limited.update((agent, scope) for scope in scopes)
        elif now:
            if event.outcome == Outcome.ESCALATED and "facts" in event.detail:
                stepup = str(event.detail.get("stepup_id"))
                self._facts.setdefault(stepup, event.detail["facts"])
            for scope in scopes:
                self.asks[agent, scope] += 1
                events = self.examples.setdefault((agent, scope), [])
                if len(events) < _EXAMPLES:
                    events.append(seq)

    def _hold(self, event: _Event) -> None:
        """Note the highest use of the windows of limits with allowed requests."""
        facts = event.detail.get("facts") or {}
        for name, held in facts.get("limits", {}).items():
            self.decided[name] += 1
            own = 1 if event.outcome == Outcome.ALLOWED else 0
            self.held[name] = max(self.held.get(name, 0), held["count"] + own)

    def _use(self, agent: str, scope: str, event: _Event) -> None:
        use = self.uses.get((agent, scope))
        if use is None:
            use = self.uses[agent, scope] = _ScopeUse()
        use.last, day = event.time, event.time[:10]
        use.days.add(day)
        if event.time < self._since:
            return
        use.count += 1
        part = sum(event.time >= edge for edge in self._edges)
        use.parts[part] += 1
        if part == 0:
            use.per_day[day] += 1
        if len(use.resources) <= _RESOURCES:
            use.resources[event.resource] += 1

    def _other(self, event: _Event) -> None:
        agent, detail = event.agent_id or "", event.detail
        if event.type in _USED:
            for scope in (event.action or "").split():
                self._use(agent, scope, event)
        elif event.type == EventType.AGENT_REGISTERED:
            for scope in detail.get("scopes", ()):
                self.granted[agent, str(scope)] = event.time
        elif event.type == EventType.AGENT_SCOPES_CHANGED:
            for scope in detail.get("granted", ()):
                self.granted[agent, str(scope)] = event.time
        else:
            self._stepup(agent, event)

    def _stepup(self, agent: str, event: _Event) -> None:
        stepup = str(event.detail.get("stepup_id"))
        self.waiting.pop(stepup, None)
        if event.type == EventType.STEPUP_REQUESTED:
            self.waiting[stepup] = agent, event.action or ""
            if event.time >= self._since:
                key = agent, event.action or "", event.rule or ""
                self._open[stepup] = key, event
            return
        begun, facts = self._open.pop(stepup, None), self._facts.pop(stepup, None)
        if begun is None or event.type == EventType.STEPUP_CANCELLED:
            return
        key, request = begun
        prompts = self.prompts.setdefault(key, _Asked())
        if event.type != EventType.STEPUP_APPROVED:
            prompts.otherwise += 1
            return
        prompts.approved += 1
        prompts.facts = facts
        if len(prompts.resources) > _RESOURCES:
            return
        prompts.resources.add(request.resource)
        given = facts or {"unclear": True}
        for name, values in prompts.numbers.items():
            # What is unclear has no bound, and so no rule.
            values.add(_plain(() if given["unclear"] else given.get(name)))
        prompts.currencies.add(_plain(given.get("currency")))
        widen(prompts.amounts, given)


def advise(db: sqlite3.Connection, policy: Policy, window: Window) -> list[AdviceInfo]:
    """Return all advice that the recorded history gives.

    All of it is open; who takes it keeps its status.
    """
    history = UseHistory(window)
    history.read(db)
    agents = [read_agent(doc) for (doc,) in db.execute("SELECT doc FROM agents")]
    advice: list[AdviceInfo] = []
    for agent in agents:
        if agent.status is AgentStatus.ACTIVE and not agent.resource_server:
            advice += _about(history, agent)
    sql = "SELECT coalesce(max(time), '') FROM events WHERE type = ?"
    (changed,) = db.execute(sql, (EventType.POLICY_CHANGED,)).fetchone()
    advice += _about_rules(history, policy)
    # A policy that is newer than the window, or was hardly asked, says nothing of it.
    old = (changed or history.begun) <= iso(window.since)
    if old and history.rules.total() >= _OFTEN:
        advice += _never_matched(db, history, policy)
    return advice


def _about(history: UseHistory, agent: Agent) -> Iterator[AdviceInfo]:
    """Yield the unneeded rights of one agent."""
    if _is_idle(history, agent):
        last = [use.last for (who, _), use in history.uses.items() if who == agent.id]
        change = AdvisedChange(revoke=True)
        advice = _advice(history, "idle_agent", agent.id, "", change)
        advice.evidence.last_used_at = max(last, default=None)
        yield advice
        return
    for scope in agent.scopes:
        use = history.uses.get((agent.id, scope))
        if _is_unused(history, agent, scope):
            change = AdvisedChange(ungrant=[scope])
            advice = _advice(history, "unused_scope", agent.id, scope, change)
            advice.evidence.would_have_refused = history.asks[agent.id, scope]
            advice.evidence.refused = history.examples.get((agent.id, scope), [])
            yield advice
        elif use is not None and use.count >= _OFTEN:
            if _grows(use):
                change = AdvisedChange(limit=_limit(agent, scope, use))
                yield _advice(history, "growth", agent.id, scope, change)
            elif not history.asks[agent.id, scope] and (
                rule := _narrowed(agent.id, scope, use)
            ):
                change = AdvisedChange(rule=rule)
                yield _advice(history, "narrower_resource", agent.id, scope, change)


def _never_matched(
    db: sqlite3.Connection, history: UseHistory, policy: Policy
) -> Iterator[AdviceInfo]:
    """Yield the allowing rules whose contrary would have refused nothing.

    A record names the strictest rule alone, so each record is decided again with the
    contraries: a rule may match next to a stricter one.
    """
    contraries = {
        name: (rule, _forbidding(rule, name))
        for rule in policy.rules
        if rule.obligation is Obligation.ALLOW
        and not history.rules[rule.id]
        and len(rule.source) <= _LONGEST_RULE
        for name in (_id("rule_never_matched", "", rule.id),)
    }
    # Of several that refuse a record the first is named: until none is, take them out.
    while contraries and (matched := _refusing(db, history, policy, contraries)):
        contraries = {n: one for n, one in contraries.items() if n not in matched}
    for rule, written in contraries.values():
        change = AdvisedChange(rule=written)
        yield _advice(history, "rule_never_matched", "", rule.id, change)


def _with(policy: Policy, text: str) -> Policy:
    """Return *policy* with other rules."""
    return Policy(text, policy.catalogue, limits=policy.limits, strict=False)


def _refusing(
    db: sqlite3.Connection,
    history: UseHistory,
    policy: Policy,
    contraries: Mapping[str, tuple[PolicyRule, str]],
) -> set[str]:
    """Return the names of those of *contraries* that refuse a recorded request."""
    text = "\n".join([policy.text, *(written for _, written in contraries.values())])
    decider = Decider(_with(policy, text))
    matched = {
        decider.decide(record).rule
        for record in records(db, history.window.since)
        if record.has_facts
    }
    return {name for name in contraries if f"advice:{name}" in matched}


def _about_rules(history: UseHistory, policy: Policy) -> Iterator[AdviceInfo]:
    """Yield limits that are far away, and unneeded prompts."""
    for limit in policy.limits.limits:
        held = history.held.get(limit.attribute, 0)
        often = history.decided[limit.attribute] >= _OFTEN
        if often and limit.currency is None and held * _ROOM <= limit.most:
            table = {"id": limit.id, "within": limit.span, "count": max(1, held * 2)}
            change = AdvisedChange(limit=table)
            advice = _advice(history, "lower_limit", "", limit.id, change)
            advice.evidence.count = history.decided[limit.attribute]
            yield advice
    for (agent, scope, name), prompts in history.prompts.items():
        exists = policy.rule(name) is not None
        if not exists or prompts.otherwise or prompts.approved < _APPROVALS:
            continue
        if spared := _sparing(policy, agent, scope, prompts):
            change = AdvisedChange(rule=spared)
            advice = _advice(history, "always_approved", agent, scope, change)
            advice.evidence.prompts_saved = prompts.approved
            advice.evidence.amounts = prompts.amounts
            yield advice


def rhythm_of(days: set[str]) -> tuple[str, float]:
    """Return how regularly something was used on these dates, and the period in days.

    The word goes by the median gap between days of use. The period is that gap, or the
    word's where that is longer; below three days they are ``none`` and 0.
    """
    if len(days) < _DAYS:
        return "none", 0.0
    ordered = sorted(date.fromisoformat(day).toordinal() for day in days)
    gap = median(b - a for a, b in pairwise(ordered))
    word = "daily" if gap <= 3 else "weekly" if gap <= 14 else "monthly"
    return word, max(float(gap), float(_PERIODS[word]))


def _is_unused(history: UseHistory, agent: Agent, scope: str) -> bool:
    if (key := (agent.id, scope)) in {*history.limited, *history.waiting.values()}:
        return False
    use = history.uses.get(key)
    granted = history.granted.get(key, iso(agent.created_at))
    return _quiet(history, max(granted, use.last if use else ""), use)


def _is_idle(history: UseHistory, agent: Agent) -> bool:
    last = max(history.seen.get(agent.id, ""), iso(agent.created_at))
    uses = [use for (who, _), use in history.uses.items() if who == agent.id]
    return _quiet(history, last, None) and all(
        _quiet(history, max(last, use.last), use) for use in uses
    )


def _quiet(history: UseHistory, last: str, use: _ScopeUse | None) -> bool:
    """Check whether nothing since *last* is longer than the window and the rhythm."""
    if last >= iso(history.window.since):
        return False
    _, period = rhythm_of(use.days if use else set())
    waited = history.window.until - parse_iso(last)
    return waited >= timedelta(days=_PATIENCE * period)


def _grows(use: _ScopeUse) -> bool:
    parts = use.parts
    rises = all(a < b for a, b in pairwise(parts))
    return rises and parts[0] > 0 and parts[-1] >= _GROWN * parts[0]


def _limit(agent: Agent, scope: str, use: _ScopeUse) -> dict[str, object]:
    """Return the limit that its use was below before it grew."""
    name = f"{agent.name}-{scope}".replace(":", "-")
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())
    return {
        "id": f"advice-{'-'.join(filter(None, plain.split('-')))}"[:64].rstrip("-"),
        "scopes": [scope],
        "agents": [agent.name],
        "per": "agent",
        "within": "24h",
        "count": max(use.per_day.values(), default=1),
        "over": "step_up",
    }


def _narrowed(agent: str, scope: str, use: _ScopeUse) -> str | None:
    """Return the rule that leaves the few resources that are used, if they are few."""
    names = sorted(name for name in use.resources if name is not None)
    if len(names) != len(use.resources) or len(names) > _RESOURCES:
        return None
    quoted = [_quoted(name) for name in names]
    if None in quoted:
        return None
    listed = " || ".join(f"context.resource == {name}" for name in quoted)
    return (
        f'@id("advice:{_id("narrower_resource", agent, scope)}")\n'
        f'@why("It used {scope} on nothing else.")\n'
        f'forbid (principal == Agent::"{agent}", action == Action::"{scope}",'
        " resource)\n"
        f"unless {{ context has resource && ({listed}) }};\n"
    )


def _forbidding(rule: PolicyRule, name: str) -> str:
    """Return a rule that forbids exactly the requests that *rule* allows."""
    effect = next(m for m in _EFFECT.finditer(rule.source) if m[0] == "permit")
    body = rule.source[effect.end() :]
    return f'@id("advice:{name}")\n@why("{rule.id} never matched.")\nforbid{body}\n'


def _sparing(policy: Policy, agent: str, scope: str, prompts: _Asked) -> str | None:
    """Return the rules of *policy* without an always approved prompt, and one for it.

    Nothing, where these would not have allowed it.
    """
    spared = _approved(agent, scope, prompts)
    if spared is None or prompts.facts is None:
        return None
    inputs = Inputs.read(agent, prompts.facts)
    allows = (
        f'@id("advice:{_id("always_approved", agent, scope)}")\n'
        '@why("A person approved all of these.")\n@obligation("allow")\n'
        f"permit (principal, action, resource)\nwhen {{ {spared} }};\n"
    )
    text, written = f"{policy.text.rstrip()}\n\n{allows}", [allows]
    for _ in range(_RULES):
        verdict = _with(policy, text).answer(inputs)
        if verdict.outcome is Outcome.ALLOWED:
            whole = "\n".join(written)
            return whole if len(whole) <= _LONGEST_RULE else None
        rule = policy.rule(verdict.rule)
        if rule is None or rule.source not in text:
            return None
        source = rule.source.rstrip().removesuffix(";").rstrip()
        without = f"{source}\nunless {{ {spared} }};"
        text = text.replace(rule.source, without)
        written.insert(-1, f"{without}\n")
    return None


def _approved(agent: str, scope: str, prompts: _Asked) -> str | None:
    """Return the condition that all approved requests meet, if it is narrow.

    Each number is bounded by the most that was approved: a person who approved twelve
    recipients five times has not approved a million.
    """
    conditions = [f'principal == Agent::"{agent}"', f'action == Action::"{scope}"']
    names = [_quoted(name) for name in prompts.resources if name is not None]
    if None in prompts.resources or None in names or len(names) > _RESOURCES:
        return None
    same = [f"context.resource == {name}" for name in sorted(map(str, names))]
    conditions.append(f"context has resource && ({' || '.join(same)})")
    majors = prompts.numbers["amount_major"]
    if majors != {None}:
        if not all(isinstance(one, str) for one in majors):
            return None
        most = max(map(str, majors), key=Decimal)
        conditions.append(
            "context has amount_major && context.amount_major.lessThanOrEqual"
            f'(decimal("{most}"))'
        )
    for name in BOUNDED:
        values = prompts.numbers[name]
        if values == {None}:  # a rule that reads it escalates what lacks it
            continue
        if name == "amount" and majors != {None}:
            continue
        numbers = [one for one in values if isinstance(one, int)]
        if len(numbers) != len(values):
            return None
        conditions.append(f"context has {name} && context.{name} <= {max(numbers)}")
    if prompts.currencies != {None}:
        coins = [_quoted(one) for one in prompts.currencies if isinstance(one, str)]
        if len(coins) != 1 or len(prompts.currencies) != 1:
            return None
        conditions.append(f"context has currency && context.currency == {coins[0]}")
    return " && ".join(conditions)


def _quoted(text: str) -> str | None:
    """Return *text* as a Cedar string, unless it is not plain enough to be one."""
    plain = text.isascii() and text.isprintable() and len(text) <= _LONGEST
    return json.dumps(text) if plain and "\\" not in text and '"' not in text else None


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | None) else ()


def _scopes(event: _Event) -> list[str]:
    scope = event.detail.get("scope") if isinstance(event.detail, dict) else None
    return scope.split() if isinstance(scope, str) else [event.action or ""]


def _id(kind: str, agent: str, scope: str) -> str:
    digest = hashlib.sha256(json.dumps([kind, agent, scope]).encode())
    return f"adv_{digest.hexdigest()[:12]}"


def _advice(
    history: UseHistory, kind: str, agent: str, scope: str, change: AdvisedChange
) -> AdviceInfo:
    """Return advice with the history's evidence about that agent and scope."""
    use = history.uses.get((agent, scope))
    return AdviceInfo(
        id=_id(kind, agent, scope),
        kind=kind,
        agent_id=agent,
        scope=scope,
        evidence=AdviceEvidence(
            since=iso(history.window.since),
            until=iso(history.window.until),
            count=use.count if use else 0,
            last_used_at=use.last if use else None,
            rhythm=rhythm_of(use.days)[0] if use else "none",
        ),
        change=change,
    )
