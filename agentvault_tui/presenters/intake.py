"""Conversion of the broker's answers to records, every foreign text to `Shown`.

Unknown words of a broker are shown as they are, and bad moments count as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import asdict

from agentvault_tui.amounts import render_units, shown_parameters
from agentvault_tui.clock import parse_iso, span
from agentvault_tui.headline import gist, wish
from agentvault_tui.held_body import Described, HeldRequestInfo
from agentvault_tui.model import (
    Money,
    detail_members,
    limits_nothing,
    other_details,
    repeat_words,
)
from agentvault_tui.operator_api.access import DelegationTree
from agentvault_tui.operator_api.displayer import EPOCH, Displayer, moment
from agentvault_tui.operator_api.gateway import broker_names
from agentvault_tui.operator_api.history import EventInfo
from agentvault_tui.operator_api.limits import LimitList, LimitUseInfo
from agentvault_tui.operator_api.shapes import (
    OUTCOMES,
    AgentInfo,
    ApprovalsInfo,
    DeciderInfo,
    PastAgentInfo,
    RepeatInfo,
    ScopeInfo,
    StatusInfo,
    StepUpInfo,
    TokenInfo,
)
from agentvault_tui.presenters.changes import ChangeParts, loosened
from agentvault_tui.presenters.moments import plural, size
from agentvault_tui.presenters.outcomes import outcome_word, reason_words
from agentvault_tui.presenters.records import (
    RISKS,
    AgentRow,
    DeciderRow,
    DeviceRow,
    EventRow,
    HeldRequest,
    LimitRow,
    LiveToken,
    PanicRow,
    RepeatRow,
    ScopeRow,
    StatusRow,
    StepUpRow,
    TokenScope,
    TreeRow,
    host_of,
    whose_limit,
)
from agentvault_tui.presenters.stepups import rank
from agentvault_tui.text import Shown

REFUSED: Final = "gateway.refused"
RESULTS: Final = frozenset({"gateway.result", "gateway.tunnel"})
_WHOLE: Final = 700_000
"""More cells than the largest field the broker lets in can become."""
_NAME: Final = 80
_LINE: Final = 200
_WORDS: Final = 24_000
"""Agents' sets of scopes, and kinds of tokens, that are remembered."""
_NOTHING: Final = Shown("")
_UNKNOWN: Final = Shown("not in the catalogue")


class Intake(Displayer):
    """Convert the broker's answers to records; every text becomes displayable."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__(ascii_only=ascii_only)
        self._catalogue: dict[str, ScopeRow] = {}
        self._granted: dict[tuple[str, ...], tuple[ScopeRow, ...]] = {}
        self._kinds: dict[tuple[str, bool], TokenScope] = {}

    def learn(self, catalogue: Mapping[str, ScopeInfo]) -> None:
        """Take the scopes of ``GET /api/policy``."""
        self._granted.clear()
        for name, scope in catalogue.items():
            self._catalogue[name] = ScopeRow(
                self.shown(name, _NAME),
                scope.risk if scope.risk in RISKS else "high",
                self.shown(scope.description),
                self.shown(scope.revoking, 400),
            )

    @property
    def scopes(self) -> set[Shown]:
        return {row.name for row in self._catalogue.values()}

    def scope(self, name: str) -> ScopeRow:
        """Return the facts of a scope; an unknown one counts as high risk."""
        entry = self._catalogue.get(name)
        return entry or ScopeRow(self.shown(name, _NAME), "high", _UNKNOWN, Shown(""))

    def agent(self, info: PastAgentInfo) -> AgentRow:
        """Convert an agent, now or in the past."""
        if not isinstance(info, AgentInfo):
            info = AgentInfo(**asdict(info))
        row = self.read(info, AgentRow)
        row.tokens = row.next_token = UNSET
        row.tokens_live = info.live_tokens
        return row

    def tree(self, info: DelegationTree) -> tuple[TreeRow, ...]:
        """Convert delegation trees, each parent before the tokens exchanged for it.

        Tokens of one holder for the same, delegated by one that are alike, are one row.
        """
        rows: dict[tuple[object, ...], TreeRow] = {}
        path: tuple[object, ...] = ()
        for one in info.tokens:
            path = (*path[: one.depth], (one.agent.id, one.scope, one.resource))
            ends, row = moment(one.expires_at) or EPOCH, rows.get(path)
            if row is not None:
                rows[path] = row._replace(
                    tokens=row.tokens + 1,
                    below=row.below + one.below,
                    expires_at=max(row.expires_at, ends),
                )
                continue
            rows[path] = TreeRow(
                id=self.shown(one.id, _NAME),
                agent_id=self.shown(one.agent.id, _NAME),
                name=self.shown(one.agent.name, _NAME),
                depth=one.depth,
                scope=self.shown(one.scope, _WHOLE),
                resource=self.shown(one.resource, _WHOLE),
                below=one.below,
                expires_at=ends,
            )
        rank = {path: number for number, path in enumerate(rows)}

        def place(path: tuple[object, ...]) -> list[int]:
            return [rank[path[:depth]] for depth in range(1, len(path) + 1)]

        return tuple(rows[path] for path in sorted(rows, key=place))

    def grants(self, agent: AgentRow) -> tuple[ScopeRow, ...]:
        """Return an agent's scopes, the riskiest first; shared by those with the same.

        They are described as the catalogue does now.
        """
        names = agent.scopes
        granted = self._granted.get(names)
        if granted is None:
            if len(self._granted) >= _WORDS:
                self._granted.clear()
            rows = map(self.scope, names)
            granted = self._granted[names] = tuple(
                sorted(rows, key=lambda row: (-RISKS.index(row.risk), row.name))
            )
        return granted

    def token(self, info: TokenInfo) -> LiveToken:
        """Convert a token; its scope and kind are shared, for the hot path."""
        key = info.scope, info.kind == "elevated"
        if (kind := self._kinds.get(key)) is None:
            if len(self._kinds) >= _WORDS:
                self._kinds.clear()
            kind = self._kinds[key] = TokenScope(self.word(info.scope), key[1])
        ends = moment(info.expires_at) or EPOCH
        return LiveToken(token_key(info.id), kind, ends.timestamp())

    def stepup(self, info: StepUpInfo) -> StepUpRow:
        """Convert a step-up; the content of a decision stays whole."""
        change, money = ChangeParts.of(info), Money.read(info.money)
        details, others = change.details, other_details(info.authorization_details)
        request, about = (info.resource, info.parameters), None
        bare = limits_nothing(*request, others, info.connection)
        if change.is_change:
            bare, about = False, info.why
        else:
            details = shown_parameters(details, money)
        how: dict[str, Any] = {"unlimited": bare, "change": about}
        return StepUpRow(
            id=self.shown(info.id, _NAME),
            agent_id=self.shown(info.agent_id, _NAME),
            agent_name=self.shown(info.agent_name, _WHOLE),
            action=self.shown(info.action, _WHOLE),
            scope=self.shown(info.scope or info.action, _WHOLE),
            resource=self.shown(info.resource, _WHOLE),
            parameters=self._rows(sorted(details.items(), key=rank)),
            reason=self.shown(info.reason, _WHOLE),
            rule=self.shown(info.rule),
            why=self.shown(info.why, 1000),
            risk=info.risk if info.risk in RISKS else "high",
            digest=self.shown(info.digest),
            fingerprint=self.shown(info.fingerprint, 8),
            ttl=info.ttl,
            count=info.count,
            problem=self.shown(info.problem, 400),
            requested_at=moment(info.requested_at) or EPOCH,
            expires_at=moment(info.expires_at) or EPOCH,
            status=self.shown(info.status, 20),
            decided_by=self._decider(info.decided_by),
            decided_at=moment(info.decided_at),
            denial=self.shown(info.denial, 400),
            device=self.read(info.device, DeviceRow) if info.device else None,
            gist=self.shown(gist(info.parameters, money), _NAME),
            wish=self.shown(
                wish(info.action, *request, money, connection=info.connection, **how)
            ),
            begun_at=moment(info.begun_at),
            redeemed_at=moment(info.redeemed_at),
            connection=self.shown(info.connection, _NAME),
            others=self._others(info),
            unlimited=bare,
            request=self._request(info.request),
            evaluation=info.evaluation,
            repeat=self._repeat(info.repeat),
            approvals=self._approvals(info.approvals) or self.shown(change.may),
            texts=change.rows(self.shown),
        )

    def _repeat(self, info: RepeatInfo | None) -> RepeatRow | None:
        if info is None:
            return None
        bounds = {name: one.get("max", 0) for name, one in info.bounds.items()}
        words = repeat_words(info.count, info.within, bounds)
        return RepeatRow(self.shown(words, _NAME), info.left, moment(info.expires_at))

    def _request(self, info: HeldRequestInfo | None) -> HeldRequest | None:
        if info is None:
            return None
        return HeldRequest(
            self.shown(info.method, _NAME),
            self.shown(info.url, _WHOLE),
            self._rows(info.headers.items()),
            Described.of(asdict(info)),
            info.references,
        )

    def event(self, info: EventInfo) -> EventRow:
        """Convert an event; repeated words are cached, for the hot path."""
        word, detail, much = self.word, info.detail, ""
        if parameters := detail.get("parameters"):
            much = gist(parameters, Money.read(detail.get("money")))
        elif info.type == REFUSED:
            much = _request(info)
        came = _ended(info) if info.type in RESULTS else ""
        try:
            at = parse_iso(info.time)
        except ValueError:
            at = EPOCH
        return EventRow(
            info.seq,
            at,
            word(info.type),
            word(info.agent_id),
            word(info.actor.name),
            word(info.action),
            word(info.resource),
            info.outcome if info.outcome in OUTCOMES else "",
            self.shown(came or info.reason or loosened(info)),
            word(info.rule),
            self.shown(info.decision_id, _NAME),
            self.shown(much, _NAME) if much else _NOTHING,
            self.shown(info.hash, _NAME),
            outcome_word(info.type, info.outcome, info.reason, detail),
        )

    def limits(self, info: LimitList) -> tuple[list[LimitRow], Shown]:
        """Convert the uses of limits, and why their file is not in effect."""
        rows = []
        for limit in info.limits:
            most = render_units(limit.most, limit.currency, in_major=limit.in_major)
            allows = self.shown(f"{most} in {limit.within}", 40)
            beyond = self.shown("a person" if limit.over == "step_up" else "denied", 9)
            uses: list[LimitUseInfo | None] = [
                use for use in info.uses if use.limit == limit.id
            ]
            for use in uses or (None,):
                left = limit.most if use is None else use.left
                whose = whose_limit(limit, use)
                rows.append(
                    LimitRow(
                        self.shown(f"{limit.id} {whose}", _NAME * 2),
                        self.shown(limit.id, _NAME),
                        self.shown(whose, _NAME),
                        left,
                        self.shown(
                            f"{left:,}"
                            if not limit.in_major
                            else render_units(
                                left, limit.currency, in_major=limit.in_major
                            ),
                            40,
                        ),
                        allows,
                        None if use is None else moment(use.frees_at),
                        beyond,
                        left * 5 <= limit.most,
                        self.word(use and use.agent_id),
                    )
                )
        return rows, self.shown(info.problem, 200)

    def status(self, info: StatusInfo) -> StatusRow:
        """Convert the broker's status; a missing member means no fault."""
        dead = info.alerts_dead
        brokers = info.team.brokers if info.team else ()
        names = broker_names(brokers).items()
        return StatusRow(
            version=self.shown(info.version, 20),
            tenant=self.shown(host_of(info.tenant.issuer), 60),
            tenant_reachable=info.tenant.reachable is not False,
            head=info.ledger.head,
            writable=info.ledger.writable is not False,
            fault=bool(info.ledger.fault),
            panic=self.read(info.panic, PanicRow),
            warnings=tuple(map(self.shown, info.warnings)),
            undelivered=f"{plural(dead, 'alert')} did not arrive" if dead else "",
            brokers=sum(one.alive for one in brokers),
            broker_names=tuple((self.word(i), self.word(name)) for i, name in names),
            separated=info.stale is True,
        )

    def _others(self, info: StepUpInfo) -> tuple[tuple[Shown, Shown], ...]:
        rows = detail_members(other_details(info.authorization_details))
        indicator = info.resource_indicator
        if indicator is not None and indicator != info.resource:
            rows.append(("resource indicator", indicator))
        return self._rows(rows)

    def _rows(
        self, rows: Iterable[tuple[str, object]]
    ) -> tuple[tuple[Shown, Shown], ...]:
        def value(raw: object) -> Shown:
            if isinstance(raw, str):
                return self.shown(raw, _WHOLE)
            text = json.dumps(raw, ensure_ascii=False, separators=(", ", ": "))
            return self.shown(text, _WHOLE)

        return tuple((self.shown(name, _WHOLE), value(raw)) for name, raw in rows)

    def _decider(
        self, infos: DeciderInfo | tuple[DeciderInfo, ...] | None
    ) -> DeciderRow | None:
        """Convert who decided: of several people all names, and the last proof."""
        people = infos if isinstance(infos, tuple) else (infos,) if infos else ()
        if not people:
            return None
        return DeciderRow(
            self.shown(", ".join(one.name or one.sub for one in people), _NAME),
            tuple(self.shown(method, 20) for method in people[-1].amr),
            moment(people[-1].auth_time),
        )

    def _approvals(self, info: ApprovalsInfo | None) -> Shown:
        """Say who has approved, and who may still."""
        if info is None:
            return _NOTHING
        names = ", ".join(one.name or one.sub for one in info.by)
        has = f"{info.have} of {info.need}{f' ({names})' if names else ''}"
        return self.shown(f"{has}; may still: {info.may}", _WHOLE)


def token_key(token_id: str) -> int:
    """Return 32 bits that stand for a token's id."""
    return hash(token_id) & 0xFFFF_FFFF


def _request(event: EventInfo) -> str:
    """Name the request or tool of a refused call without an action; else empty."""
    tool, method, path = map(event.detail.get, ("tool", "method", "path"))
    if event.action or not path:
        return ""
    at = event.detail.get("service") or event.detail.get("server")
    parts = (at, tool, "") if tool else (method, at, path)
    return " ".join(str(part) for part in parts if part)


def _ended(result: EventInfo) -> str:
    """Say how a call ended, next to its outcome word: status, time and bytes."""
    detail = result.detail
    ended, status = detail.get("ended"), detail.get("status")
    came, took = detail.get("bytes_in"), detail.get("ms")
    if ended == "unknown":
        return reason_words(result.reason or "") or "the broker stopped"
    bytes_in = size(came) if isinstance(came, int) else "nothing"
    if ended == "cut":
        who = detail.get("cut_by")
        # Records of earlier versions have the name alone.
        name = who.get("name") if isinstance(who, dict) else who
        by = f", by {name}" if name else ""
        return f"after {bytes_in}{by}"
    if ended == "failed":
        why = reason_words(result.reason or "") or "the connection broke"
        return f"{why}, after {bytes_in}"
    ms = took if isinstance(took, int) else 0
    within = f"{ms} ms" if ms < 10_000 else span(ms / 1000)
    return f"{status or 'ended'} in {within}, {bytes_in}"
