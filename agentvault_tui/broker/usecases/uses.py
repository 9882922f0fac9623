"""Which tokens a resource server sees, and how often it was told that one is active."""

from __future__ import annotations

import json
from itertools import islice
from typing import Final

from agentvault_tui.broker.core import Broker, TokenUse
from agentvault_tui.model import DETAIL_TYPE, Agent, Draft, EventType, Token, TokenKind
from agentvault_tui.policy.resources import canonical

_EVERY: Final = 60.0
"""Seconds between two records of one token's uses at one resource server."""
_BATCH: Final = 100
"""Records in one transaction: more would hold up the event loop."""


def seen_by(server: Agent, token: Token) -> Token | None:
    """Return *token* as a resource server sees it, if it is one of those it serves.

    A server registered without scopes and resources sees every token. One that serves
    scopes sees, of a token's, those alone (RFC 7662 section 2.2 lets a server limit
    them), and nothing of a token whose action is another's. One that serves resources
    sees tokens of these, and none that names no resource.
    """
    if not (server.serves or server.resources):
        return token
    details = json.loads(token.authorization_details or "[]")
    named = [one for one in details if one.get("type") == DETAIL_TYPE]
    if server.resources:
        said = [token.resource, *(one.get("resource") for one in named)]
        resources = {str(one) for one in said if one is not None}
        if not resources or not all(
            any(_is_below(resource, own) for own in server.resources)
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


def _is_below(resource: str, served: str) -> bool:
    """Tell whether *resource* is *served*, or lies below it."""
    if resource == served:
        return True
    below = served if served.endswith(("/", ":")) else f"{served}/"
    # What programs read in several ways, such as "..", has no canonical form.
    return resource.startswith(below) and canonical(resource) == resource


def is_single_use(broker: Broker, token: Token) -> bool:
    """Tell whether the first active answer to a resource server consumes *token*.

    The catalogue in force counts beside the one the token was issued under.
    """
    return (
        token.kind is TokenKind.ELEVATED
        or token.single_use
        or broker.policy.catalogue.is_single_use(token.scope.split())
    )


def count_use(broker: Broker, token: Token, server: Agent) -> None:
    """Count one active answer about *token* to *server*, in memory."""
    key = token.id, server.id
    use = broker.uses_told.get(key) or broker.uses_new.get(key)
    if use is None:
        use = broker.uses_new[key] = TokenUse(
            token.id, token.agent_id, token.scope, token.resource, broker.actor(server)
        )
    use.count += 1


async def record_uses(broker: Broker, *, ending: bool = False) -> None:
    """Record the uses that were not told within the last minute.

    Args:
        broker: the broker.
        ending: the broker stops: record all there are.

    Raises:
        LedgerError: not now; they are kept for the next time.
    """
    now = broker.clock.boot()
    told = broker.uses_told
    while told:
        # In the order they were recorded, so that those due lie first.
        key, use = next(iter(told.items()))
        if not ending and now - use.recorded_at < _EVERY:
            break
        del told[key]
        if use.count:
            broker.uses_new[key] = use
    left = len(broker.uses_new)
    while left > 0:
        due = list(islice(broker.uses_new.items(), min(left, _BATCH)))
        counts = [use.count for _, use in due]
        await broker.record(*(_draft(use) for _, use in due))
        for (key, use), count in zip(due, counts, strict=True):
            use.count -= count
            use.recorded_at = now
            told[key] = broker.uses_new.pop(key)
        left -= len(due)


def _draft(use: TokenUse) -> Draft:
    return Draft(
        EventType.TOKEN_USED,
        use.server,
        agent_id=use.agent_id,
        action=use.scope,
        resource=use.resource,
        reason="introspected " + ("once" if use.count == 1 else f"{use.count:,} times"),
        detail={"token_id": use.token_id, "count": use.count},
    )
