"""Which live tokens were passed on, by the token that each was exchanged for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final

from agentvault_tui.model import AgentId, Token, TokenId

MOST_PASSED_ON: Final = 10_000
"""Live tokens that one agent may have passed on, over all of its tokens: a revocation
ends them in one turn of the event loop, and their holders' memory pays for them."""


class Delegations:
    """Parents and children of tokens, each until it is forgotten (RFC 8693).

    A delegated token lives as long as its parent, which `Registry` checks at each use:
    so the end of the parent ends all below it at once.
    """

    def __init__(self) -> None:
        self._parents: dict[TokenId, Token] = {}
        self._children: dict[TokenId, dict[TokenId, Token]] = {}
        self._from: dict[AgentId, dict[TokenId, Token]] = defaultdict(dict)
        """Tokens by the agent that passed them on."""
        self.given: dict[AgentId, Counter[AgentId]] = defaultdict(Counter)
        """How many tokens each agent passed on to each other."""
        self.got: dict[AgentId, Counter[AgentId]] = defaultdict(Counter)
        """How many it has of each."""
        self.under: Counter[AgentId] = Counter()
        """How many of other agents' were exchanged for its own, also further."""

    def __len__(self) -> int:
        """Return how many tokens there are that were passed on."""
        return len(self._parents)

    def roots(self) -> list[Token]:
        """Return the tokens that others were exchanged for, and that were asked for."""
        parents = {one.id: one for one in self._parents.values() if not one.chain}
        return list(parents.values())

    def add(self, token: Token, parent: Token) -> None:
        """Record that *token* was exchanged for *parent*."""
        if token.id not in self._parents:
            self._count(token, 1)
        self._parents[token.id] = parent
        self._children.setdefault(parent.id, {})[token.id] = token
        self._from[parent.agent_id][token.id] = token

    def remove(self, token: Token) -> None:
        """Remove a token; those exchanged for it stay until they are removed."""
        if (parent := self._parents.pop(token.id, None)) is None:
            return
        del self._children[parent.id][token.id]
        del self._from[parent.agent_id][token.id]
        self._count(token, -1)
        if not self._children[parent.id]:
            del self._children[parent.id]
        if not self._from[parent.agent_id]:
            del self._from[parent.agent_id]

    def _count(self, token: Token, sign: int) -> None:
        *_, giver = token.chain
        self.under.update(dict.fromkeys(token.chain, sign))
        for counts, key in (
            (self.given[giver], token.agent_id),
            (self.got[token.agent_id], giver),
        ):
            counts[key] += sign
            if not counts[key]:
                del counts[key]

    def parent(self, token: Token) -> Token | None:
        """Return the token that *token* was exchanged for, if both are known."""
        return self._parents.get(token.id)

    def children(self, token: Token) -> list[Token]:
        """Return the tokens that were exchanged for *token*."""
        return list(self._children.get(token.id, {}).values())

    def passed_on_by(self, agent_id: AgentId) -> list[Token]:
        """Return the tokens that the agent passed on, its children's not included."""
        return list(self._from.get(agent_id, {}).values())

    def below(self, tokens: Iterable[Token]) -> list[Token]:
        """Return all that was exchanged for one of *tokens*, directly or further."""
        descendants: list[Token] = []
        waiting = list(tokens)
        while waiting:
            children = self.children(waiting.pop())
            descendants += children
            waiting += children
        return descendants

    def family(self, token: Token) -> list[Token]:
        """Return the other tokens of the tree that *token* is in."""
        root = token
        while (parent := self.parent(root)) is not None:
            root = parent
        return [one for one in (root, *self.below([root])) if one.id != token.id]
