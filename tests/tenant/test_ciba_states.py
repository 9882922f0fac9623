"""A CIBA request over any order of events: decided once, spent once, never revived."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.tenant_thread import START

from agentvault_tui.clock import ManualClock
from agentvault_tui.home import Home
from agentvault_tui.tenant.ciba.requests import CibaRequest, CibaRequests
from agentvault_tui.tenant.clients import Client
from agentvault_tui.tenant.oauth.wire import LaterError
from agentvault_tui.tenant.store import Store

URSULA, MALLORY = "agentvault|ursula", "agentvault|mallory"
LIFETIME = 300


class Requests(RuleBasedStateMachine):
    """Two connections to one store, as after a restart; a model of one request."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ciba"))
        self.clock = ManualClock(START)
        home = Home.locate(self.folder)
        self.stores = [Store(home, checkpoints=n == 0) for n in range(2)]
        self.sides = [CibaRequests(store, self.clock) for store in self.stores]
        self.token = ""
        self.state = "none"
        self.left = 0.0
        self.started: list[float] = []

    def found(self, side: int) -> CibaRequest:
        found = self.sides[side].by_token(self.token)
        assert found is not None
        return found

    @rule(side=st.integers(0, 1))
    def start(self, side: int) -> None:
        """A sixth request within a minute is refused; any other is kept."""
        now = self.clock.boot()
        recent = [at for at in self.started if at > now - 60]
        if len(recent) == 5:
            with pytest.raises(LaterError) as caught:
                self._start(side)
            assert 1 <= caught.value.seconds <= 60
            return
        token, found = self._start(side)
        assert found.state == "pending"
        self.started.append(now)
        self.token, self.state, self.left = token, "pending", float(LIFETIME)

    def _start(self, side: int) -> tuple[str, CibaRequest]:
        return self.sides[side].start(
            Client("app_1", {}),
            URSULA,
            scope="openid",
            audience=None,
            binding_message="7F3A",
            details=[],
            lifetime=LIFETIME,
        )

    @precondition(lambda self: self.token)
    @rule(side=st.integers(0, 1), sub=st.sampled_from([URSULA, MALLORY]),
          age=st.sampled_from([0, 400]))  # fmt: skip
    def accept(self, side: int, sub: str, age: int) -> None:
        """A yes counts while it waits, from its person, with a factor since."""
        at = int(self.clock.now().timestamp()) - age
        fresh = self.found(side).created.timestamp() <= at
        counts = self.state == "pending" and self.left > 0 and sub == URSULA and fresh
        assert self.sides[side].accept(self.found(side), sub, at) is counts
        self.state = "accepted" if counts else self.state

    @precondition(lambda self: self.token)
    @rule(side=st.integers(0, 1))
    def reject(self, side: int) -> None:
        """A no counts while it waits."""
        seen = self.found(side)
        if seen.state != "pending":
            return
        counts = self.left > 0
        assert self.sides[side].reject(seen) is counts
        self.state = "rejected" if counts else self.state

    @precondition(lambda self: self.token and self.state != "spent")
    @rule()
    def spend(self) -> None:
        """Of two that saw the same request, one spends it."""
        seen = [self.found(side) for side in range(2)]
        spent = [self.sides[side].spend(seen[side]) for side in range(2)]
        assert spent == [True, False]
        self.state = "spent"

    @rule(seconds=st.sampled_from([1, 40, 61, 299]))
    def wait(self, seconds: int) -> None:
        """Time passes on both clocks."""
        self.clock.advance(seconds)
        self.left -= seconds

    @rule()
    def set_back(self) -> None:
        """Setting the wall clock back revives nothing."""
        self.clock.jump_wall(-7200)

    @invariant()
    def both_sides_see_the_model(self) -> None:
        """State, openness and inbox are the model's, whichever side looks."""
        for side in range(2) if self.token else ():
            found = self.found(side)
            assert found.state == self.state
            waits = self.state == "pending" and self.left > 0
            assert self.sides[side].open(found) is waits
            listed = {one.key for one in self.sides[side].waiting(URSULA)}
            assert (found.key in listed) is waits
            assert self.sides[side].waiting(MALLORY) == []

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=25, stateful_step_count=20)
