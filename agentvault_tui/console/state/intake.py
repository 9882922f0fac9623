"""The border: the broker's JSON becomes records, and every foreign text `Shown`.

A broker of another version may send less or more: what is missing takes a plain
default, what is unknown is passed over, and nothing here raises on odd values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from agentvault_tui.clock import parse_iso
from agentvault_tui.console.state.records import (
    OUTCOMES,
    RISKS,
    AgentRow,
    AtProvider,
    Counts,
    DeciderRow,
    DeviceRow,
    EventRow,
    Json,
    Panic,
    ScopeRow,
    SharedAccount,
    StatusRow,
    StepUpRow,
    TokenKind,
    TokenRow,
    UpstreamStep,
)
from agentvault_tui.console.state.tokens import TokenShelf
from agentvault_tui.model import detail_members, limits_nothing, other_details
from agentvault_tui.text import Shown, visible

_WHOLE: Final = 700_000
"""More cells than the largest field the broker lets in can become."""
_NAME: Final = 80
_LINE: Final = 200
_WORDS: Final = 24_000
"""Short texts remembered with what they become: ids and names of 10,000 agents fit."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = Shown("")
_UNKNOWN: Final = Shown("not in the catalogue")


class Intake:
    """Makes records; knows the catalogue, and whether the terminal is ASCII only."""

    def __init__(self, *, ascii_only: bool = False) -> None:
        self._ascii = ascii_only
        self._catalogue: dict[str, ScopeRow] = {}
        self._granted: dict[tuple[str, ...], tuple[ScopeRow, ...]] = {}
        self._words: dict[object, Shown] = {}
        self._kinds: dict[tuple[Shown, bool], TokenKind] = {}

    def shown(self, raw: object, limit: int = _LINE) -> Shown:
        """Make anything displayable; nothing becomes the empty text."""
        if raw is None:
            return _NOTHING
        if isinstance(raw, str) and len(raw) <= limit and not self._ascii:  # noqa: SIM102
            if raw.isascii() and raw.isprintable():
                return Shown(raw)  # as `visible` does, without its calls: four an event
        return visible(raw, limit, ascii_only=self._ascii)

    def word(self, raw: object) -> Shown:
        """Make a short text displayable, by memory if it was seen before."""
        try:
            return self._words[raw]
        except (KeyError, TypeError):  # new, or nothing that can be remembered
            known = self.shown(raw, _NAME)
        if raw is None or (isinstance(raw, str) and len(raw) <= _NAME):
            if len(self._words) >= _WORDS:
                self._words.clear()
            self._words[raw] = known
        return known

    def learn(self, catalogue: object) -> None:
        """Take the scopes of ``GET /api/policy``."""
        self._granted.clear()
        for name, raw in _mapping(catalogue).items():
            entry = _mapping(raw)
            risk = entry.get("risk")
            self._catalogue[str(name)] = ScopeRow(
                self.shown(name, _NAME),
                risk if risk in RISKS else "high",
                self.shown(entry.get("description")),
                self.shown(entry.get("revoking"), 400),
            )

    @property
    def scopes(self) -> set[Shown]:
        return {row.name for row in self._catalogue.values()}

    def scope(self, name: object) -> ScopeRow:
        """Return what is known about a scope; an unknown one counts as high risk."""
        known = self._catalogue.get(str(name))
        return known or ScopeRow(self.shown(name, _NAME), "high", _UNKNOWN, Shown(""))

    def agent(self, data: Json) -> AgentRow:
        live = data.get("tokens_live")
        return AgentRow(
            id=self.shown(data.get("id"), _NAME),
            name=self.shown(data.get("name"), _NAME),
            owner=self.shown(data.get("owner"), _NAME),
            purpose=self.shown(data.get("purpose"), 400),
            scopes=self._scopes(data.get("scopes")),
            revoked=data.get("status") == "revoked",
            resource_server=data.get("resource_server") is True,
            serves=tuple(
                self.shown(each, _NAME)
                for name in ("serves", "resources")
                for each in _list(data.get(name))
            ),
            created_at=moment(data.get("created_at")) or _EPOCH,
            revoked_at=moment(data.get("revoked_at")),
            last_seen_at=moment(data.get("last_seen_at")),
            tokens_live=_number(live, len(_list(data.get("tokens")))),
            at_tenant=tuple(map(self.word, _list(data.get("at_tenant")))),
            upstream=self.upstream(data.get("upstream")),
            outside_until=moment(data.get("outside_until")),
            connections=self._named(data.get("connections"), "connection"),
            shared_with=self._named(data.get("shared_with"), "name"),
            at_providers=tuple(self._at_providers(data.get("connections"))),
            shared=tuple(self._shared(data.get("connections"))),
        )

    def _scopes(self, names: object) -> tuple[ScopeRow, ...]:
        """Return scopes, the riskiest first; agents that may the same share them."""
        key = tuple(map(str, _list(names)))
        known = self._granted.get(key)
        if known is None:
            if len(self._granted) >= _WORDS:
                self._granted.clear()
            rows = map(self.scope, key)
            known = self._granted[key] = tuple(
                sorted(rows, key=lambda row: (-RISKS.index(row.risk), row.name))
            )
        return known

    def _at_providers(self, rows: object) -> Iterator[AtProvider]:
        """Read what is ahead of accounts; an earlier broker says nothing of it."""
        for row in map(_mapping, _list(rows)):
            if ahead := _mapping(row.get("at_provider")):
                yield AtProvider(
                    self.shown(row.get("connection"), _NAME),
                    ahead.get("known") is True,
                    self._named(ahead.get("kept_for"), "name"),
                    self._named(ahead.get("may_cut"), "name"),
                )

    def _shared(self, rows: object) -> Iterator[SharedAccount]:
        for row in map(_mapping, _list(rows)):
            if agents := self._named(row.get("shared_with"), "name"):
                yield SharedAccount(self.shown(row.get("connection"), _NAME), agents)

    def _named(self, rows: object, member: str) -> tuple[Shown, ...]:
        return tuple(
            self.shown(_mapping(row).get(member), _NAME) for row in _list(rows)
        )

    def counts(self, data: Json) -> Counts:
        counts = _mapping(data.get("counts"))
        return Counts(*(_number(counts.get(word)) for word in OUTCOMES))

    def token(self, data: Json) -> TokenRow:
        """Read a Token; on the hot path, so what it is good for is kept."""
        scope, elevated = self.word(data.get("scope")), data.get("kind") == "elevated"
        kind = self._kinds.get((scope, elevated))
        if kind is None:
            if len(self._kinds) >= _WORDS:
                self._kinds.clear()
            kind = TokenKind(scope, elevated)
            self._kinds[kind] = kind
        ends = moment(data.get("expires_at")) or _EPOCH
        return TokenRow(token_key(data.get("id")), kind, ends.timestamp())

    def shelf(self, data: Json, live: int) -> TokenShelf:
        """Read an Agent's tokens: the list, or the next to end alone."""
        listed = _list(data.get("tokens")) or [data.get("next_token")]
        rows = (self.token(row) for row in listed if isinstance(row, dict))
        return TokenShelf(rows, live, _number(data.get("tokens_elevated")))

    def stepup(self, data: Json) -> StepUpRow:
        """Read a StepUp, whole."""
        risk = data.get("risk")
        return StepUpRow(
            id=self.shown(data.get("id"), _NAME),
            agent_id=self.shown(data.get("agent_id"), _NAME),
            agent_name=self.shown(data.get("agent_name"), _WHOLE),
            action=self.shown(data.get("action"), _WHOLE),
            scope=self.shown(data.get("scope") or data.get("action"), _WHOLE),
            resource=self.shown(data.get("resource"), _WHOLE),
            parameters=self._parameters(data.get("parameters")),
            reason=self.shown(data.get("reason"), _WHOLE),
            rule=self.shown(data.get("rule")),
            why=self.shown(data.get("why"), 1000),
            risk=risk if risk in RISKS else "high",
            digest=self.shown(data.get("digest")),
            fingerprint=self.shown(data.get("fingerprint"), 8),
            ttl=_number(data.get("ttl"), 300),
            count=_number(data.get("count"), 1),
            problem=self.shown(data.get("problem"), 400),
            requested_at=moment(data.get("requested_at")) or _EPOCH,
            expires_at=moment(data.get("expires_at")) or _EPOCH,
            status=self.shown(data.get("status"), 20),
            decided_by=self._decider(data.get("decided_by")),
            decided_at=moment(data.get("decided_at")),
            denial=self.shown(data.get("denial"), 400),
            device=self._device(data.get("device")),
            gist=self.shown(_gist(data.get("parameters")), _NAME),
            begun_at=moment(data.get("begun_at")),
            redeemed_at=moment(data.get("redeemed_at")),
            connection=self.shown(data.get("connection"), _NAME),
            others=self._others(data),
            unlimited=limits_nothing(
                data.get("resource"),
                _mapping(data.get("parameters")),
                _other_details(data),
                data.get("connection"),
            ),
        )

    def event(self, data: Json) -> EventRow:
        """Read an Event; on the hot path, so words that come again are kept."""
        get, word, actor, detail = (
            data.get,
            self.word,
            data.get("actor"),
            data.get("detail"),
        )
        outcome = get("outcome")
        parameters = detail.get("parameters") if isinstance(detail, dict) else None
        return EventRow(
            _number(get("seq")),
            moment(get("time")) or _EPOCH,
            word(get("type")),
            word(get("agent_id")),
            word(actor.get("name") if isinstance(actor, dict) else None),
            word(get("action")),
            word(get("resource")),
            outcome if outcome in OUTCOMES else "",
            self.shown(get("reason")),
            word(get("rule")),
            self.shown(get("decision_id"), _NAME),
            self.shown(_gist(parameters), _NAME) if parameters else _NOTHING,
            self.shown(get("hash"), _NAME),
        )

    def status(self, data: Json) -> StatusRow:
        """Read ``GET /api/status``."""
        tenant, ledger = _mapping(data.get("tenant")), _mapping(data.get("ledger"))
        panic = _mapping(data.get("panic"))
        issuer = str(tenant.get("issuer") or "")
        return StatusRow(
            version=self.shown(data.get("version"), 20),
            tenant=self.shown(_host(issuer), 60),
            tenant_reachable=tenant.get("reachable") is not False,
            head=_number(ledger.get("head")),
            head_hash=str(ledger.get("hash") or ""),
            writable=ledger.get("writable") is not False,
            panic=Panic(
                panic.get("on") is True,
                moment(panic.get("since")),
                self.shown(panic.get("by"), _NAME),
                self.shown(panic.get("reason")),
            ),
            warnings=tuple(self.shown(item) for item in _list(data.get("warnings"))),
        )

    def upstream(self, data: object) -> tuple[UpstreamStep, ...]:
        """Read the steps of a revocation at the tenant and at providers."""
        steps = (_mapping(item) for item in _list(data))
        return tuple(
            UpstreamStep(
                self.shown(step.get("step"), _NAME),
                self.shown(step.get("status"), 20),
                ms if isinstance(ms := step.get("ms"), int | float) else None,
                _number(step.get("attempts")),
                self.shown(step.get("problem")),
                self.shown(step.get("connection"), _NAME),
                self.shown(step.get("reason"), _NAME),
                moment(step.get("next_at")),
            )
            for step in steps
        )

    def _others(self, data: Json) -> tuple[tuple[Shown, Shown], ...]:
        rows = detail_members(_other_details(data))
        indicator = data.get("resource_indicator")
        if indicator is not None and indicator != data.get("resource"):
            rows.append(("resource indicator", indicator))
        return self._rows(rows)

    def _parameters(self, data: object) -> tuple[tuple[Shown, Shown], ...]:
        return self._rows(_mapping(data).items())

    def _rows(self, rows: Iterable[tuple[str, Any]]) -> tuple[tuple[Shown, Shown], ...]:
        def value(raw: Any) -> Shown:
            if isinstance(raw, str):
                return self.shown(raw, _WHOLE)
            text = json.dumps(raw, ensure_ascii=False, separators=(", ", ": "))
            return self.shown(text, _WHOLE)

        return tuple((self.shown(name, _WHOLE), value(raw)) for name, raw in rows)

    def _decider(self, data: object) -> DeciderRow | None:
        if not isinstance(data, Mapping):
            return None
        return DeciderRow(
            self.shown(data.get("name") or data.get("sub"), _NAME),
            tuple(self.shown(method, 20) for method in _list(data.get("amr"))),
            moment(data.get("auth_time")),
        )

    def _device(self, data: object) -> DeviceRow | None:
        if not isinstance(data, Mapping):
            return None
        return DeviceRow(
            self.shown(data.get("user_code"), 40),
            self.shown(data.get("verification_uri"), 1000),
            self.shown(data.get("verification_uri_complete"), 1000),
            moment(data.get("expires_at")) or _EPOCH,
        )


def moment(raw: object) -> datetime | None:
    """Read a moment of the wire; what is none gives none."""
    if not isinstance(raw, str):
        return None
    try:
        return parse_iso(raw)
    except ValueError:
        return None


def token_key(token_id: object) -> int:
    """Return 32 bits that stand for a token's id, which no screen shows."""
    return hash(token_id) & 0xFFFF_FFFF if isinstance(token_id, str) else 0


def _gist(parameters: object) -> str:
    """Say in a few words how much an action moves: what a reader looks for first."""
    known = _mapping(parameters)
    amount, currency = known.get("amount"), known.get("currency")
    recipients = known.get("recipients")
    words = []
    if isinstance(amount, int | float) and isinstance(currency, str):
        words.append(f"{amount:,} {currency}")
    if isinstance(recipients, list):
        recipients = len(recipients)
    if isinstance(recipients, int):
        words.append(f"{recipients:,} recipient{'s' * (recipients != 1)}")
    if isinstance(count := known.get("count"), int):
        words.append(f"{count:,} item{'s' * (count != 1)}")
    return ", ".join(words)


def _host(issuer: str) -> str:
    try:
        return urlsplit(issuer).netloc or issuer
    except ValueError:
        return issuer


def _other_details(data: Json) -> tuple[Mapping[str, Any], ...]:
    return other_details(map(_mapping, _list(data.get("authorization_details"))))


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _list(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _number(raw: object, default: int = 0) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else default
