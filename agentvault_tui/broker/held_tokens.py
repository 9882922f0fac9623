"""The tokens of one agent, in the order in which they end, and those that ended."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from heapq import merge
from itertools import chain, islice, takewhile
from typing import Final
from weakref import WeakSet

from agentvault_tui.clock import Clock
from agentvault_tui.model import AgentId, Token, TokenId, TokenKind

_TOKEN_BYTES: Final = 700
_AGENTS_KEPT: Final = 20_000
"""Ended tokens whose agents are remembered."""


class HeldTokens:
    """The tokens of one agent that have not ended, in order of their ends.

    Counting them, dropping one and reading the next to end take the same time however
    many there are. They stay in a few sequences (`_lanes`), each in the order of both
    clocks: one for tokens of an hour, one for elevated tokens, another where a setting
    or a clock was changed.
    """

    __slots__ = ("__weakref__", "_lanes", "elevated", "weight")

    def __init__(self) -> None:
        self._lanes: list[dict[TokenId, Token]] = []
        self.elevated = 0
        self.weight = 0
        """Bytes in memory."""

    def __len__(self) -> int:
        """Return how many there are; those that ended since `prune` still count."""
        return sum(map(len, self._lanes))

    def __iter__(self) -> Iterator[Token]:
        """Yield them, the next to end first."""
        if len(self._lanes) == 1:
            return iter(self._lanes[0].values())
        lanes = (lane.values() for lane in self._lanes)
        return merge(*lanes, key=lambda token: token.expires.wall)

    def unordered(self) -> list[Token]:
        """Return those there are now; a hundred thousand in about a millisecond."""
        return list(chain.from_iterable(lane.values() for lane in self._lanes))

    def __contains__(self, token: Token) -> bool:
        return any(token.id in lane for lane in self._lanes)

    def add(self, token: Token) -> None:
        """Hold *token*, in place of one with its id."""
        self.drop(token)
        self._count(token, 1)
        for lane in self._lanes:
            if not lane or _ends_later(token, lane[next(reversed(lane))]):
                lane[token.id] = token
                return
        self._lanes.append({token.id: token})

    def drop(self, token: Token) -> Token | None:
        """Let go of the token with the id of *token*; return it if it was held."""
        for lane in self._lanes:
            if dropped := lane.pop(token.id, None):
                self._count(dropped, -1)
                return dropped
        return None

    def prune(self, clock: Clock) -> list[Token]:
        """Let go of those that have ended, and return them."""
        ended: list[Token] = []
        for lane in self._lanes:
            first = next(iter(lane.values()), None)
            if first is None or not first.expires.passed(clock):
                continue
            gone = list(
                takewhile(lambda token: token.expires.passed(clock), lane.values())
            )
            for token in gone:
                del lane[token.id]
                self._count(token, -1)
            ended += gone
        if ended:
            self._lanes = [lane for lane in self._lanes if lane]
        return ended

    def _count(self, token: Token, sign: int) -> None:
        self.weight += sign * _weight(token)
        if token.kind is TokenKind.ELEVATED:
            self.elevated += sign


class EndedTokens:
    """Tokens that were cut, until they are out of all indexes, and their agents."""

    def __init__(self) -> None:
        self.agents: OrderedDict[str, AgentId] = OrderedDict()
        """The agents of the latest, by the hashes."""
        self._waiting: deque[HeldTokens] = deque()
        self._counted = WeakSet[HeldTokens]()
        """Those that a revocation counts, for as long as it does."""

    def add(self, held: HeldTokens) -> None:
        """Take over the tokens that an agent held."""
        self._waiting.append(held)
        self._counted.add(held)

    def drop(self, token: Token) -> list[Token]:
        """Let no revocation count *token*; return it, if one did."""
        return [one for held in self._counted if (one := held.drop(token))]

    def slices(self, size: int) -> Iterator[list[Token]]:
        """Yield the tokens, *size* at a time, to be removed from indexes."""
        while self._waiting:
            tokens = iter(self._waiting.popleft().unordered())
            while part := list(islice(tokens, size)):
                self.agents.update((one.sha256, one.agent_id) for one in part)
                while len(self.agents) > _AGENTS_KEPT:
                    self.agents.popitem(last=False)
                yield part


def _ends_later(token: Token, last: Token) -> bool:
    """Check whether *token* cannot end before *last*, whichever clock is asked."""
    one, other = token.expires, last.expires
    return (
        one.boot_id == other.boot_id
        and one.wall >= other.wall
        and one.boot >= other.boot
    )


def _weight(token: Token) -> int:
    """Return the bytes a token takes in memory: an agent chooses how long it is.

    Details are ASCII, a byte a character; a resource of other characters takes four
    each, and four more once it was encoded.
    """
    texts = (token.scope, token.resource or "", token.authorization_details or "")
    return _TOKEN_BYTES + sum(len(t) * (1 if t.isascii() else 8) for t in texts)
