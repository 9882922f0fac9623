"""Conversion of the broker's answers to records, every foreign text to `Shown`.

Unknown words of a broker are shown as they are, and bad moments count as none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET
from msgspec.structs import asdict

from agentvault_tui.amounts import shown_parameters
from agentvault_tui.clock import span
from agentvault_tui.headline import gist, wish
from agentvault_tui.model import (
    Money,
    detail_members,
    limits_nothing,
    other_details,
)
from agentvault_tui.operator_api.access import DelegationTree
from agentvault_tui.operator_api.displayer import EPOCH, Displayer, moment
from agentvault_tui.operator_api.history import ActorInfo, EventInfo
from agentvault_tui.operator_api.shapes import (
    OUTCOMES,
    AgentInfo,
    PastAgentInfo,
    ScopeInfo,
    TokenInfo,
)
from agentvault_tui.operator_api.stepups import WHOLE, StepUpInfo
from agentvault_tui.presenters.changes import change_parts, loosened
from agentvault_tui.presenters.moments import size
from agentvault_tui.presenters.outcomes import outcome_word, reason_words
from agentvault_tui.presenters.records import (
    RISKS,
    AgentRow,
    EventRow,
    LiveToken,
    ScopeRow,
    StepUpRow,
    TextRow,
    TokenScope,
    TreeRow,
)
from agentvault_tui.presenters.stepups import rank
from agentvault_tui.text import Shown

REFUSED: Final = "gateway.refused"
RESULTS: Final = frozenset({"gateway.result", "gateway.tunnel"})
_NAME: Final = 80
_TEXT: Final = 4000
_WORDS: Final = 24_000
"""Agents' sets of scopes, and kinds of tokens, that are remembered."""
_NOTHING: Final = Shown("")
_NO_DETAIL: Final[dict[str, object]] = {}
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
            risk = scope.risk if scope.risk in RISKS else "high"
            row = self.extend(scope, ScopeRow, name=self.word(name), risk=risk)
            self._catalogue[name] = row

    @property
    def scopes(self) -> set[Shown]:
        return {row.name for row in self._catalogue.values()}

    def scope(self, name: str) -> ScopeRow:
        """Return the facts of a scope; an unknown one counts as high risk."""
        entry = self._catalogue.get(name)
        return entry or ScopeRow(
            name=self.word(name), risk="high", description=_UNKNOWN, revoking=_NOTHING
        )

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
            row, token = rows.get(path), self.extend(one, TreeRow)
            if row is None:
                rows[path] = token
                continue
            row.tokens += 1
            row.below += token.below
            row.expires_at = max(row.expires_at, token.expires_at)
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
        money, about = Money.read(info.money), None
        others = other_details(info.authorization_details)
        request = (info.resource, info.parameters)
        bare = not info.is_change and limits_nothing(*request, others, info.connection)
        if info.is_change:
            (details, texts), about = change_parts(info), info.why
        else:
            details, texts = shown_parameters(info.parameters, money), []
        how: dict[str, Any] = {"unlimited": bare, "change": about}
        row = self.extend(
            info,
            StepUpRow,
            scope=self.shown(info.scope or info.action, WHOLE),
            risk=info.risk if info.risk in RISKS else "high",
            unlimited=bare,
            parameters={},
            authorization_details=None,
            members=self._rows(sorted(details.items(), key=rank)),
            others=self._others(info),
            texts=tuple(
                TextRow(*(self.shown(part, _TEXT) for part in text)) for text in texts
            ),
            gist=self.shown(gist(info.parameters, money), _NAME),
            wish=self.shown(
                wish(info.action, *request, money, connection=info.connection, **how)
            ),
        )
        if row.request is not None:
            row.request.body = UNSET
        return row

    def event(self, info: EventInfo) -> EventRow:
        """Convert an event; repeated words are cached, for the hot path."""
        word, detail, much = self.word, info.detail, ""
        if parameters := detail.get("parameters"):
            much = gist(parameters, Money.read(detail.get("money")))
        elif info.type == REFUSED:
            much = _request(info)
        came = _ended(info) if info.type in RESULTS else ""
        by = info.actor
        return EventRow(
            seq=info.seq,
            time=moment(info.time) or EPOCH,
            type=word(info.type),
            actor=ActorInfo(kind=word(by.kind), id=word(by.id), name=word(by.name)),
            agent_id=word(info.agent_id),
            action=word(info.action),
            resource=word(info.resource),
            outcome=Shown(info.outcome if info.outcome in OUTCOMES else ""),
            reason=self.shown(came or info.reason or loosened(info)),
            rule=word(info.rule),
            decision_id=self.shown(info.decision_id, _NAME),
            detail=_NO_DETAIL,
            hash=self.shown(info.hash, _NAME),
            note=self.shown(much, _NAME) if much else _NOTHING,
            word=outcome_word(info.type, info.outcome, info.reason, detail),
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
                return self.shown(raw, WHOLE)
            text = json.dumps(raw, ensure_ascii=False, separators=(", ", ": "))
            return self.shown(text, WHOLE)

        return tuple((self.shown(name, WHOLE), value(raw)) for name, raw in rows)


def token_key(token_id: str) -> int:
    """Return 32 bits of the hash of a token's id."""
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
