"""Admit agents' requests: few in a turn of the event loop, refusals counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from agentvault_tui.broker.assertion import ReplayStore
from agentvault_tui.broker.floods import Floods
from agentvault_tui.broker.issuers import Issuers
from agentvault_tui.broker.rates import Rates
from agentvault_tui.clock import Clock
from agentvault_tui.web.admission import AdmissionQueue
from agentvault_tui.web.shares import SharedPlaces

_DECISIONS_A_TURN: Final = 2
"""Requests decided in a turn of the event loop, about a millisecond."""
_CALLS_A_TURN: Final = 1
"""Steps of calls, each a quarter of a millisecond: a revocation waits for few turns,
and for all that is in them."""
_OTHERS_A_TURN: Final = 8
_PIECES_A_TURN: Final = 2
"""Of some hundred kilobytes, each about half a millisecond."""
_PARTS_A_TURN: Final = 1
"""Of an operator's answer, each a millisecond or two."""
_MOST_WAITING: Final = 512
"""Evaluations that wait for a person: half of a listener's connections."""


class Admitting:
    """The queues in front of the broker's work, and the counts of each requester."""

    def __init__(
        self, clock: Clock, issuers: Issuers, decisions_wait: Callable[[], bool]
    ) -> None:
        """Begin without requests.

        Args:
            clock: the clock.
            issuers: those whose tokens authenticate agents.
            decisions_wait: whether records of decisions wait for the ledger; calls and
                answers go behind them, so that they slow no decision or revocation.
        """
        self.requests = AdmissionQueue(_DECISIONS_A_TURN)
        """Admits agents' requests for tokens."""
        self.others = AdmissionQueue(_OTHERS_A_TURN)
        """Admits all their other requests, so that neither delays the other."""
        self.calls = AdmissionQueue(_CALLS_A_TURN, decisions_wait)
        """Admits calls through the gateway to each of their steps."""
        self.pieces = AdmissionQueue(_PIECES_A_TURN, decisions_wait)
        """Admits pieces of the long bodies of calls that are under way."""
        self.answers = AdmissionQueue(_PARTS_A_TURN, decisions_wait)
        """Admits operators' readings, and the parts of long answers."""
        self.waiting = SharedPlaces(_MOST_WAITING, clock.boot)
        """Evaluations that wait for a person with their connection open."""
        self.url = ""
        """The issuer's URL that agents reach, once they can."""
        self.floods = Floods(clock)
        self.rates = Rates(clock)
        self.issuers = issuers
        self.replays = ReplayStore()
        """Assertions that were used."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause admission: no agent's request begins during the block."""
        queues = self.requests, self.others, self.calls, self.pieces, self.answers
        with ExitStack() as paused:
            for queue in queues:
                paused.enter_context(queue.paused())
            yield
