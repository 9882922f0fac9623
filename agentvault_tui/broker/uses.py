"""The tokens that resource servers see, and the count of active answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from agentvault_tui.clock import Clock, iso
from agentvault_tui.ledger import Ledger
from agentvault_tui.model import (
    DETAIL_TYPE,
    Actor,
    ActorKind,
    Agent,
    AgentId,
    Draft,
    EventType,
    Token,
    TokenId,
)
from agentvault_tui.policy.resources import canonical

_EVERY: Final = 60.0
"""Seconds between two records of one token's uses at one resource server."""
_BATCH: Final = 100
"""Records in one transaction: more would hold up the event loop."""


def seen_by(server: Agent, token: Token) -> Token | None:
    """Return *token* as a resource server sees it, if it is one of those it serves.

    A server registered without scopes and resources sees every token. A server with
    scopes sees only these of a token's (RFC 7662 section 2.2 lets a server limit them),
    and nothing of a token whose action is another's. One that serves resources sees
    tokens of these, and none that names no resource.
    """
    if not (server.serves or server.resources):
        return token
    details = json.loads(token.authorization_details or "[]")
    named = [one for one in details if one.get("type") == DETAIL_TYPE]
    if server.resources:
        resource_names = [token.resource, *(one.get("resource") for one in named)]
        resources = {str(one) for one in resource_names if one is not None}
        if not resources or not all(
            any(is_below(resource, own) for own in server.resources)
            for resource in resources
        ):
            return None
    if server.serves:
        scopes = [name for name in token.scope.split() if name in server.serves]
        actions = {one["action"] for one in named if "action" in one}
        if not scopes or not actions <= set(server.serves):
            return None
        return token._replace(scope=" ".join(scopes))
    return token


def is_below(resource: str, served: str) -> bool:
    """Check whether *resource* is *served*, or lies below it."""
    if resource == served:
        return True
    below = served if served.endswith(("/", ":")) else f"{served}/"
    # What programs read in several ways, such as "..", has no canonical form.
    return resource.startswith(below) and canonical(resource) == resource


def token_detail(token: Token) -> dict[str, Any]:
    """Return the event's detail about a token, besides actor and reason."""
    detail = {"token_id": token.id, "expires_at": iso(token.expires.wall)}
    return detail | ({"stepup_id": token.stepup_id} if token.stepup_id else {})


def revoked_draft(token: Token, actor: Actor, reason: str) -> Draft:
    """Return the event of a token that was revoked."""
    return Draft(
        EventType.TOKEN_REVOKED,
        actor,
        agent_id=token.agent_id,
        action=token.scope,
        reason=reason,
        decision_id=token.decision_id,
        detail=token_detail(token),
    )


@dataclass(slots=True)
class TokenUse:
    """Active answers about one token to one resource server, not recorded yet."""

    token: Token
    server: Actor
    count: int = 0
    recorded_at: float = 0.0
    """Boot seconds of the last record."""

    def draft(self) -> Draft:
        """Return the event that tells of them."""
        times = "once" if self.count == 1 else f"{self.count:,} times"
        return Draft(
            EventType.TOKEN_USED,
            self.server,
            agent_id=self.token.agent_id,
            action=self.token.scope,
            resource=self.token.resource,
            reason=f"introspected {times}",
            decision_id=self.token.decision_id,
            detail={"token_id": self.token.id, "count": self.count},
        )


class TokenUses:
    """Counts active answers, and records them once a minute a token and server."""

    def __init__(self, clock: Clock, ledger: Ledger) -> None:
        self._clock = clock
        self._ledger = ledger
        self._new: dict[tuple[TokenId, AgentId], TokenUse] = {}
        """Those to be recorded at the next look."""
        self._reported: dict[tuple[TokenId, AgentId], TokenUse] = {}
        """Those recorded within the last minute, in that order; they count on."""
        self._servers: dict[TokenId, list[AgentId]] = {}
        """Who asked about each of these tokens."""

    def count(self, token: Token, server: Agent) -> None:
        """Count one active answer about *token* to *server*, in memory."""
        key = token.id, server.id
        use = self._reported.get(key) or self._new.get(key)
        if use is None:
            actor = Actor(ActorKind.AGENT, server.id, server.name)
            use = self._new[key] = TokenUse(token, actor)
            self._servers.setdefault(token.id, []).append(server.id)
        use.count += 1

    def ended(self, token: Token) -> list[Draft]:
        """Return the uses of *token* that are to be recorded with its end."""
        drafts = []
        for server in self._servers.get(token.id, ()):
            use = self._reported.get((token.id, server)) or self._new[token.id, server]
            if use.count:
                drafts.append(use.draft())
                use.count = 0
        return drafts

    async def record(self, *, ending: bool = False) -> None:
        """Record the uses not reported within the last minute; all if *ending*."""
        now = self._clock.boot()
        while self._reported:
            # In the order they were recorded, so that those due lie first.
            key, use = next(iter(self._reported.items()))
            if not ending and now - use.recorded_at < _EVERY:
                break
            self._new[key] = self._reported.pop(key)
        for key in [key for key, use in self._new.items() if not use.count]:
            self._forget(key)
        left = len(self._new)
        while left > 0:
            due = list(islice(self._new.items(), min(left, _BATCH)))
            counts = [use.count for _, use in due]
            drafts = [use.draft() for _, use in due if use.count]
            # Not counted twice if a token ends while this is written.
            for _, use in due:
                use.count = 0
            try:
                if drafts:
                    await self._ledger.commit(*drafts)
            except BaseException:
                for (_, use), count in zip(due, counts, strict=True):
                    use.count += count
                raise
            for key, use in due:
                use.recorded_at = now
                self._reported[key] = self._new.pop(key)
            left -= len(due)

    def _forget(self, key: tuple[TokenId, AgentId]) -> None:
        del self._new[key]
        servers = self._servers[key[0]]
        servers.remove(key[1])
        if not servers:
            del self._servers[key[0]]
