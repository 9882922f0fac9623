"""Read recorded decisions in the order of the chain, and decide them again.

A record has all that its verdict was made from in ``detail.facts``, so a policy gives
the same answer to it whenever it is asked. Records of equal facts are decided once: of
the time and the source of a request only the parts that rules of that policy read are
compared. The windows of a policy's limits are counted over the history again.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from agentvault_tui.broker.limit_uses import UseWindow
from agentvault_tui.clock import parse_iso
from agentvault_tui.errors import LedgerDamagedError, NotFoundError, PolicyError
from agentvault_tui.ledger.places import first_at, head_seq
from agentvault_tui.ledger.texts import read_texts
from agentvault_tui.ledger.uses import WindowKey, micros
from agentvault_tui.model import DECISION_TYPES, EventType, Outcome, Verdict
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.engine import ToldApart
from agentvault_tui.policy.facts import PARAMETERS, read_fact
from agentvault_tui.policy.inputs import ENVIRONMENT, LACKS_SCOPE, NARROWED, Inputs
from agentvault_tui.policy.limits import Limit

_CHUNK: Final = 2_000
"""Records of one snapshot: a longer one would prevent the broker's log from
shrinking."""
_CACHED_ANSWERS: Final = 200_000
"""Answers that are cached for records of equal facts."""
_OPEN: Final = 10_000
"""Step-ups that may wait at a time; the oldest are forgotten."""
_NAME: Final = "a kept policy"
_READABLE: Final = PARAMETERS | ENVIRONMENT
INSUFFICIENT: Final = "insufficient_scope"
"""The reason of a call that needs a token with its scope (RFC 6750 section 3.1)."""
_LACKS: Final = f'"{LACKS_SCOPE}":true'.encode()


class _Who(msgspec.Struct):
    kind: str


class _Said(msgspec.Struct):
    outcome: str
    reason: str
    rule: str | None = None


class _Detail(msgspec.Struct):
    """The detail for deciding again; ``Any`` may have been truncated."""

    scope: Any = ""
    policy_version: str | None = None
    facts: msgspec.Raw = msgspec.Raw()
    verdict: _Said | None = None
    """Policy's answer, where another one was given for a reason next to policy."""
    parameters: msgspec.Raw = msgspec.Raw()
    money: Any = None
    resource_indicator: Any = None
    """The resource of the request (RFC 8707), where its action names none."""
    stepup_id: str | None = None
    for_: Any = msgspec.field(default=None, name="for")
    """The step-up that a document was fetched for, of the gateway's own request."""
    count: int | None = None
    """Of a request that collapsed into a step-up that waited already."""


class RecordedDecision(msgspec.Struct):
    """A decision as the ledger has it."""

    seq: int
    time: str
    type: str
    actor: _Who
    outcome: str | None = None
    """None where a step-up's token was fetched."""
    reason: str | None = None
    rule: str | None = None
    agent_id: str = ""
    action: str | None = None
    resource: str | None = None
    detail: _Detail = msgspec.field(default_factory=_Detail)

    @property
    def scope(self) -> str:
        """The scopes that were asked for."""
        scope = self.detail.scope
        return scope if isinstance(scope, str) else self.action or ""

    @property
    def has_facts(self) -> bool:
        """Check whether policy answered it, and its facts were stored."""
        return self.rule is not None and bool(self.detail.facts)


_RECORD: Final = msgspec.json.Decoder(RecordedDecision)
_FACTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def bodies(
    db: sqlite3.Connection, kinds: Iterable[EventType], after: int, upto: int
) -> Iterator[tuple[int, bytes]]:
    """Yield number and body of each event of *kinds* behind *after*, in order."""
    wanted = ",".join(f"'{kind.value}'" for kind in kinds)
    sql = (
        # Without the plus SQLite would go by the index of types, and then sort.
        f"SELECT seq, body FROM events WHERE +type IN ({wanted})"  # noqa: S608
        " AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    )
    while rows := db.execute(sql, (after, upto, _CHUNK)).fetchall():
        yield from rows
        after = rows[-1][0]


def records(
    db: sqlite3.Connection,
    since: datetime | None = None,
    after: int = 0,
    upto: int | None = None,
    *,
    delivered: bool = False,
) -> Iterator[RecordedDecision]:
    """Yield the decisions recorded up to now, in order and with flat memory.

    The broker may go on writing. Records before *since*, up to event *after*, or behind
    event *upto* are left out. *delivered* asks for the fetching of step-ups' tokens,
    which has no outcome, too.
    """
    upto = head_seq(db) if upto is None else upto
    if since is not None:
        after = max(after, first_at(db, since, 1, upto + 1) - 1)
    more = (EventType.TOKEN_DELIVERED,) if delivered else ()
    for _, body in bodies(db, (*DECISION_TYPES, *more), after, upto):
        yield _RECORD.decode(body)


def _apart(
    record: RecordedDecision, facts: dict[str, msgspec.Raw], apart: ToldApart
) -> Iterator[Hashable]:
    """Yield the differences that a policy can see in a record with these *facts*."""
    if apart.by_principal:
        yield record.agent_id
        yield bytes(facts["principal"])
    else:
        yield bytes(_FACTS.decode(facts["principal"])["scopes"])
    for name, raw in facts.items():
        if name in apart.classes:
            value = read_fact(name, msgspec.json.decode(raw))
            yield name
            for distinguish in apart.classes[name]:
                yield distinguish(value)
        elif name != "principal" and (name in apart.read or name not in _READABLE):
            yield name
            yield bytes(raw)


def _token_request(record: RecordedDecision) -> RecordedDecision | None:
    """Return the request for a token with a call's scope, if the call's lacks it.

    Not of a call that a person approved: the request to that person is counted already.
    """
    approved = record.outcome == Outcome.ALLOWED and record.detail.stepup_id
    if approved or _LACKS not in bytes(record.detail.facts):
        return None
    facts = _FACTS.decode(record.detail.facts)
    if LACKS_SCOPE not in facts:
        return None
    first_scope = msgspec.json.decode(facts["scopes"])[:1]
    facts_kept = {
        name: facts[name] for name in facts if name in {"principal", *ENVIRONMENT}
    }
    asks = facts_kept | {"scopes": first_scope, "named": True, "unclear": []}
    detail = msgspec.structs.replace(
        record.detail, facts=msgspec.Raw(msgspec.json.encode(asks))
    )
    return msgspec.structs.replace(record, detail=detail)


def _is_narrowed(record: RecordedDecision) -> bool:
    return NARROWED in _FACTS.decode(record.detail.facts)


class Decider:
    """One policy that answers records; equal facts are decided once."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.made = 0
        """How many answers were made, and not taken from records of equal facts."""
        self._differences: dict[bytes, ToldApart] = {}
        """By scopes: the differences that their rules can see."""
        self._answers: dict[tuple[object, ...], Verdict] = {}

    def answer(self, record: RecordedDecision) -> Verdict:
        """Answer a *record* that has facts as its door would.

        The gateway refuses a call whose token lacks its scope if policy would issue a
        token with that scope; otherwise it decides about each call, and a token with
        fewer scopes than its agent could have needs a person.

        Raises:
            LedgerDamagedError: its facts are none.
        """
        plain = _token_request(record)
        issued = plain is not None and self.decide(plain).outcome is Outcome.ALLOWED
        verdict = self.decide(record)
        alone = plain is not None and verdict.outcome is Outcome.ALLOWED
        refused = issued or (alone and _is_narrowed(record))
        if not refused or verdict.outcome is Outcome.DENIED:
            return verdict
        return verdict._replace(outcome=Outcome.DENIED, reason=INSUFFICIENT)

    def decide(self, record: RecordedDecision) -> Verdict:
        """Answer a *record* that has facts by policy.

        Raises:
            LedgerDamagedError: its facts are none.
        """
        try:
            facts = _FACTS.decode(record.detail.facts)
            scopes = bytes(facts["scopes"])
            apart = self._differences.get(scopes)
            if apart is None:
                apart = self.policy.told_apart(msgspec.json.decode(scopes))
                self._differences[scopes] = apart
            key = tuple(_apart(record, facts, apart))
            verdict = self._answers.get(key)
            if verdict is None:
                whole = msgspec.json.decode(record.detail.facts)
                verdict = self.policy.answer(Inputs.read(record.agent_id, whole))
                self.made += 1
                if len(self._answers) >= _CACHED_ANSWERS:
                    self._answers.clear()
                    self._differences.clear()
                self._answers[key] = verdict
        except (LookupError, ValueError, TypeError) as error:
            raise LedgerDamagedError(
                f"event {record.seq} has facts that no decision is made from"
                f" ({error!r:.100})",
                "agentvault audit verify",
            ) from error
        return verdict


class LimitedDecider(Decider):
    """A policy whose windows hold the uses that it would have allowed itself.

    That is in the order, and by the time, of the ledger. An approved step-up counts
    when its token was fetched.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._windows: dict[WindowKey, UseWindow] = defaultdict(UseWindow)
        self._inputs: Inputs | None = None
        self._open: dict[str, Inputs] = {}
        self._latest = 0
        """In microseconds; see `_now`."""

    def decide(self, record: RecordedDecision) -> Verdict:
        """Answer a record; its limits hold the uses counted before it."""
        facts = msgspec.json.decode(record.detail.facts)
        inputs = Inputs.read(record.agent_id, {**facts, "limits": {}})
        limits = self.policy.limits_for(inputs)
        self._inputs = inputs if limits else None
        if not limits:
            return super().decide(record)
        now = self._now(record)
        held = {}
        for limit in limits:
            windows = self._windows_of(limit, inputs)
            count = max(one.count(now, limit.micros) for one in windows)
            held[limit.attribute] = count, max(0, limit.most - count)
        environment = inputs.environment._replace(limits=held)
        self.made += 1
        return self.policy.answer(inputs._replace(environment=environment))

    def settle(self, record: RecordedDecision, outcome: str) -> None:
        """Count *record*, which was decided last, if it would have been allowed."""
        if self._inputs is None or self._inputs.exempt:
            return
        if outcome == Outcome.ALLOWED:
            self._count(self._inputs, record)
        elif outcome == Outcome.ESCALATED and (stepup := record.detail.stepup_id):
            self._open[stepup] = self._inputs
            if len(self._open) > _OPEN:
                del self._open[next(iter(self._open))]

    def delivered(self, record: RecordedDecision) -> None:
        """Count the step-up whose token was fetched."""
        if inputs := self._open.pop(record.detail.stepup_id or "", None):
            self._count(inputs, record)

    def _count(self, inputs: Inputs, record: RecordedDecision) -> None:
        for limit in self.policy.limits.applying(inputs):
            units = limit.units(inputs) or 0
            for window in self._windows_of(limit, inputs):
                window.add(self._now(record), units)

    def _windows_of(self, limit: Limit, inputs: Inputs) -> list[UseWindow]:
        windows = limit.windows_of(inputs, inputs.facts.fold)
        return [self._windows[one] for one in windows]

    def _now(self, record: RecordedDecision) -> int:
        """Return the latest time so far: a clock set back opens no window again."""
        self._latest = max(self._latest, micros(parse_iso(record.time)))
        return self._latest


class KeptPolicies:
    """The policies that records name, made again of the stored texts."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Read texts from *db* when a record needs them."""
        self._db = db
        self._made: dict[str, Decider | str] = {}

    def decider(self, version: str) -> Decider | str:
        """Return the decider of *version*, or the reason why there is none."""
        decider = self._made.get(version)
        if decider is None:
            decider = self._made[version] = self._make(version)
        return decider

    @property
    def made(self) -> int:
        """How many answers were made."""
        return sum(one.made for one in self._made.values() if isinstance(one, Decider))

    def _make(self, version: str) -> Decider | str:
        try:
            texts = read_texts(self._db, version)
            policy = Policy.of(PolicyTexts(**texts), (_NAME,) * 3, strict=False)
        except NotFoundError:
            return "its texts were not kept"
        except PolicyError as error:
            return f"its texts are no policy any more: {error.diagnosis()}"
        if policy.version != version:
            return "it was decided by another engine"
        return Decider(policy)
