"""Calls of all brokers of a team: listed, followed, cut and read at any of them.

Brokers reach each other through the store alone. Each broker publishes its own calls
there twice a second, or ten times while a console listens anywhere; a call that has
begun and ended in between is not published without a listener. A cancellation, and a
request for a held body, go to the broker that has the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from itertools import islice
from typing import ClassVar, Final

import msgspec

from agentvault_tui import sealing
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.team import LEASE, Team
from agentvault_tui.errors import (
    LedgerBusyError,
    LedgerError,
    NotFoundError,
    SealedError,
)
from agentvault_tui.gateway.call import Call
from agentvault_tui.gateway.calls import Calls
from agentvault_tui.ledger.store_calls import SharedCall, StoreCalls
from agentvault_tui.model import Actor, ActorKind, new_id
from agentvault_tui.operator_api.codec import encode
from agentvault_tui.operator_api.gateway import CallInfo

_OFTEN: Final = 0.1
_SELDOM: Final = 0.5
"""Seconds between two tellings, while a console listens and while none does."""
_RETENTION_S: Final = 2.5
"""Seconds after which an ended call's row is deleted."""
_WHOLE: Final = 2.0
"""Seconds between two readings of all calls: one of a broker that died has no end in
them."""
_AT_ONCE: Final = 256
"""Calls in one telling; an agent has no more at once."""
_PATH: Final = 1_000
"""Characters of a path in messages to others."""
_UNSEALED: Final = b"!"
"""The answer of a broker that has a body, and no key of the team to seal it with."""
log = logging.getLogger("agentvault.calls")


class HeldBodySeal(sealing.Seal):
    """The seal of a held call's body on its way through the store."""

    WHOSE: ClassVar[str] = "held"
    LOST: ClassVar[str] = "bodies of held calls are shown by the broker that has them"


class Ask(msgspec.Struct):
    """A request of one broker to the others."""

    what: str
    """``cut`` a call, or hand out the ``body`` of a step-up's."""
    id: str
    by: tuple[ActorKind, str, str] | None = None
    """Who cuts: kind, id and name."""


class TeamCalls:
    """The team's calls, as one broker tells and knows of them."""

    def __init__(
        self,
        broker: Broker,
        team: Team,
        store: StoreCalls,
        calls: Calls,
        tell: Callable[[str, Callable[[], CallInfo]], None] | None,
    ) -> None:
        """Publish *calls*, once `run` runs.

        Args:
            broker: the broker.
            team: its brokers.
            store: the place of the messages.
            calls: this broker's own.
            tell: sends a call to the listening consoles.
        """
        self._broker = broker
        self._team = team
        self._store = store
        self._calls = calls
        self._tell = tell
        self._changed: dict[str, Call] = {}
        self._published: set[str] = set()
        """Calls that are in the store as not ended."""
        self._anew = True
        """Whether this broker's rows in the store do not hold."""
        self._put_at = self._whole_at = float("-inf")
        self._delete_at: float | None = None
        self._others: dict[str, CallInfo] = {}
        self._numbers: dict[str, int] = {}
        self._question_waits = False
        self._woken = asyncio.Event()
        calls.share = self._share

    async def run(self) -> None:
        """Publish, answer, and follow the others' messages; until cancelled."""
        problem = ""
        while True:
            try:
                await self._turn()
                problem = ""
            except LedgerError as error:
                self._anew = True
                if error.what != problem:
                    problem = error.what
                    log.warning("other brokers' calls are not known: %s", problem)
            except Exception:
                log.exception("telling other brokers of calls failed")
            often = self._team.watching() or self._watched
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OFTEN if often else _SELDOM):
                    await self._woken.wait()
            self._woken.clear()

    def wake(self) -> None:
        """Answer another broker's request, at once."""
        self._question_waits = True
        self._woken.set()

    async def all(self) -> list[CallInfo] | None:
        """Return the calls of all brokers, oldest first; None: the store is away."""
        own = [self._calls.info(call) for call in self._calls]
        try:
            rows = await self._store.read(LEASE)
        except LedgerError as error:
            log.warning("other brokers' calls are not known: %s", error.what)
            return None
        infos = [one for row in rows if not row.ended and (one := _read(row))]
        return sorted([*own, *infos], key=lambda one: one.started_at)

    async def cut(self, call_id: str, operator: Actor) -> CallInfo:
        """Have the broker that has a call cut it, as *operator* asks.

        Raises:
            NotFoundError: no broker that lives has it.
            LedgerError: the store is away; or a broker does not answer, and cuts it
                when it does, or when its lease ends.
        """
        by = operator.kind, operator.id, operator.name
        answer = await self._ask(Ask("cut", call_id, by))
        if not answer:
            raise NotFoundError("no call in flight has that id", "agentvault calls")
        return msgspec.json.decode(answer, type=CallInfo)

    async def body(self, stepup_id: str) -> bytes | None:
        """Return the body of another broker's held call; None: none has it.

        Raises:
            SealedError: the team's key is missing here or there.
            LedgerError: the store is away, or a broker does not answer.
        """
        seal = HeldBodySeal.of(self._broker.home, shared=True)
        answer = await self._ask(Ask("body", stepup_id))
        if answer == _UNSEALED:
            raise SealedError(
                "the broker that has this body has no key of the team",
                "look at it there, or give it the key: agentvault team key import FILE",
            )
        return seal.open("body", stepup_id, 1, answer) if answer else None

    # Telling others

    @property
    def _watched(self) -> bool:
        """Whether a console listens at another broker."""
        return any(one.beat.watching for one in self._team.others())

    def _share(self, call: Call) -> None:
        """Publish *call* to others; of the ones without a listener, few have ended."""
        over = call.ended is not None and call.id not in self._published
        if over and not (self._watched and len(self._changed) < _AT_ONCE):
            self._changed.pop(call.id, None)
        else:
            self._changed[call.id] = call

    async def _turn(self) -> None:
        if self._question_waits:
            self._question_waits = False
            for name, doc in await self._store.requested():
                await self._store.answer(name, self._answer(doc))
        await self._publish()
        await self._follow()

    async def _publish(self) -> None:
        now, anew = self._broker.clock.boot(), self._anew
        if anew:
            self._changed = {call.id: call for call in self._calls}
            self._published = set()
        due = self._published and now >= self._put_at + _SELDOM
        delete = self._delete_at is not None and now >= self._delete_at
        if not (anew or self._changed or due or delete):
            return
        if delete:
            self._delete_at = None
        rows = []
        for call in list(islice(self._changed.values(), _AT_ONCE)):
            del self._changed[call.id]
            info = self._calls.info(call)
            info.path = info.path[:_PATH]
            rows.append((call.id, info.state == "ended", encode(info)))
        ended = {call_id for call_id, over, _ in rows if over}
        before, self._anew = len(self._published), True
        # One may end while it is told of: known here, that is told of next.
        self._published |= {call_id for call_id, _, _ in rows} - ended
        rows_put = await self._store.put(rows, anew=anew)
        self._published -= ended
        # Another count: a crash or failover of the store has emptied it.
        self._anew = rows_put != before and not anew
        self._put_at = now
        if ended:
            self._delete_at = now + _RETENTION_S

    # Following others

    async def _follow(self) -> None:
        """Send other brokers' messages to the consoles here."""
        if self._tell is None or not self._team.watching():
            self._others, self._numbers = {}, {}
            self._whole_at = float("-inf")
            return
        now = self._broker.clock.boot()
        whole = now >= self._whole_at + _WHOLE
        rows = await self._store.read(LEASE, {} if whole else self._numbers)
        gone, before = dict(self._others) if whole else {}, dict(self._numbers)
        self._whole_at = now if whole else self._whole_at
        for row in rows:
            self._numbers[row.run] = row.n
            if row.ended and row.n <= before.get(row.run, 0):
                continue
            if (info := _read(row)) is not None:
                gone.pop(info.id, None)
                self._take(info)
        for one in gone.values():
            self._take(msgspec.structs.replace(one, state="ended", ended="unknown"))

    def _take(self, info: CallInfo) -> None:
        if self._tell is None or self._others.get(info.id) == info:
            return
        if info.state != "ended":
            self._others[info.id] = info
        elif self._others.pop(info.id, None) is None and info.ended is None:
            return
        self._tell("call", lambda: info)

    # Asking and answering

    async def _ask(self, ask: Ask) -> bytes:
        """Ask all others; return the answer of the one that has it, empty if none has.

        Raises:
            LedgerError: the store is away, or a broker that lives does not answer.
        """
        name, answers = new_id("ask"), dict[str, bytes]()

        async def answered() -> set[str]:
            answers.update(await self._store.answers(name))
            if any(answers.values()):
                return {one.id for one in self._team.members}
            return set(answers)

        others = [one.id for one in self._team.others()]
        if not others:
            return b""
        await self._store.ask(name, others, msgspec.json.encode(ask))
        try:
            await self._team.heard(answered)
        finally:
            with contextlib.suppress(LedgerError):
                # A call is cut also by who was late; nothing is read any more.
                await self._store.forget(name, whole=ask.what != "cut")
        if answer := next(filter(None, answers.values()), b""):
            return answer
        alive = {one.id for one in self._team.others()}
        if silent := sorted(alive & set(others) - answers.keys()):
            raise LedgerBusyError(
                f"the broker {silent[0]} does not answer", "ask again shortly"
            )
        return b""

    def _answer(self, doc: bytes) -> bytes:
        """Carry out another broker's request; empty if the call is not ours."""
        try:
            ask = msgspec.json.decode(doc, type=Ask)
        except msgspec.DecodeError:
            return b""  # of another version
        if ask.what == "cut" and ask.by is not None:
            with contextlib.suppress(NotFoundError):
                call = self._calls.cut_one(ask.id, Actor(*ask.by))
                return encode(self._calls.info(call))
        if ask.what == "body":
            body = self._calls.bodies.of(ask.id)
            if body is None:
                return b""
            try:
                seal = HeldBodySeal.of(self._broker.home, shared=True)
                return seal.close("body", ask.id, 1, body)
            except SealedError as error:
                log.warning("a held body stays here: %s", error.diagnosis())
                return _UNSEALED
        return b""


def _read(row: SharedCall) -> CallInfo | None:
    """Return a call of another broker's message; None: it is of another version."""
    try:
        info = msgspec.json.decode(row.doc, type=CallInfo)
    except msgspec.DecodeError:
        return None
    info.broker = row.broker
    return info
