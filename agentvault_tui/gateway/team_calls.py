"""Calls of all brokers of a team: listed, followed, cut and read at any of them.

Brokers reach each other through the store alone. Each tells there of its own calls
twice a second, or ten times while a console listens anywhere; of one that has begun and
ended in between nothing is told where nobody listens. What is cut, and the body that a
person decides about, are asked of the broker that has the call.
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
_KEPT: Final = 2.5
"""Seconds after which what was told of an ended call is deleted."""
_WHOLE: Final = 2.0
"""Seconds between two readings of all calls: one of a broker that died is not told of
as ended."""
_AT_ONCE: Final = 256
"""Calls in one telling; an agent has no more at once."""
_PATH: Final = 1_000
"""Characters of a path that others are told of."""
_UNSEALED: Final = b"!"
"""The answer of a broker that has a body, and no key of the team to seal it with."""
log = logging.getLogger("agentvault.calls")


class HeldBodySeal(sealing.Seal):
    """The seal of a held call's body on its way through the store."""

    WHOSE: ClassVar[str] = "held"
    LOST: ClassVar[str] = "bodies of held calls are shown by the broker that has them"


class Ask(msgspec.Struct):
    """What one broker asks the others."""

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
        """Tell of *calls*, once `run` runs.

        Args:
            broker: whose.
            team: its brokers.
            store: where they tell each other.
            calls: this broker's own.
            tell: sends a call to the consoles that listen.
        """
        self._broker = broker
        self._team = team
        self._store = store
        self._calls = calls
        self._tell = tell
        self._changed: dict[str, Call] = {}
        self._told: set[str] = set()
        """Calls that are in the store as not ended."""
        self._anew = True
        """Whether what is in the store of this broker does not hold."""
        self._put_at = self._whole_at = float("-inf")
        self._delete_at: float | None = None
        self._others: dict[str, CallInfo] = {}
        self._known: dict[str, int] = {}
        self._asked = False
        self._woken = asyncio.Event()
        calls.share = self._share

    async def run(self) -> None:
        """Tell, answer, and follow what others tell; until cancelled."""
        said = ""
        while True:
            try:
                await self._turn()
                said = ""
            except LedgerError as error:
                self._anew = True
                if error.what != said:
                    said = error.what
                    log.warning("other brokers' calls are not known: %s", said)
            except Exception:
                log.exception("telling other brokers of calls failed")
            often = self._team.watching() or self._watched
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OFTEN if often else _SELDOM):
                    await self._woken.wait()
            self._woken.clear()

    def wake(self) -> None:
        """Answer what another broker asks, at once."""
        self._asked = True
        self._woken.set()

    async def all(self) -> list[CallInfo] | None:
        """Return the calls of all brokers, oldest first; None: the store is away."""
        own = [self._calls.info(call) for call in self._calls]
        try:
            rows = await self._store.read(LEASE)
        except LedgerError as error:
            log.warning("other brokers' calls are not known: %s", error.what)
            return None
        told = [one for row in rows if not row.ended and (one := _read(row))]
        return sorted([*own, *told], key=lambda one: one.started_at)

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
        return any(one.said.watching for one in self._team.others())

    def _share(self, call: Call) -> None:
        """Have others told of *call*; of those that nobody saw, few have ended."""
        over = call.ended is not None and call.id not in self._told
        if over and not (self._watched and len(self._changed) < _AT_ONCE):
            self._changed.pop(call.id, None)
        else:
            self._changed[call.id] = call

    async def _turn(self) -> None:
        if self._asked:
            self._asked = False
            for name, doc in await self._store.asked():
                await self._store.answer(name, self._answer(doc))
        await self._put()
        await self._follow()

    async def _put(self) -> None:
        now, anew = self._broker.clock.boot(), self._anew
        if anew:
            self._changed = {call.id: call for call in self._calls}
            self._told = set()
        due = self._told and now >= self._put_at + _SELDOM
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
        before, self._anew = len(self._told), True
        # One may end while it is told of: known here, that is told of next.
        self._told |= {call_id for call_id, _, _ in rows} - ended
        found = await self._store.put(rows, anew=anew)
        self._told -= ended
        # Another count: a crash or failover of the store has emptied it.
        self._anew = found != before and not anew
        self._put_at = now
        if ended:
            self._delete_at = now + _KEPT

    # Following others

    async def _follow(self) -> None:
        """Tell the consoles here of what other brokers told."""
        if self._tell is None or not self._team.watching():
            self._others, self._known = {}, {}
            self._whole_at = float("-inf")
            return
        now = self._broker.clock.boot()
        whole = now >= self._whole_at + _WHOLE
        rows = await self._store.read(LEASE, {} if whole else self._known)
        gone, before = dict(self._others) if whole else {}, dict(self._known)
        self._whole_at = now if whole else self._whole_at
        for row in rows:
            self._known[row.run] = row.n
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
        """Ask all others; return what the one that has it says, empty if none has.

        Raises:
            LedgerError: the store is away, or a broker that lives does not answer.
        """
        name, found = new_id("ask"), dict[str, bytes]()

        async def answered() -> set[str]:
            found.update(await self._store.answers(name))
            if any(found.values()):
                return {one.id for one in self._team.members}
            return set(found)

        asked = [one.id for one in self._team.others()]
        if not asked:
            return b""
        await self._store.ask(name, asked, msgspec.json.encode(ask))
        try:
            await self._team.heard(answered)
        finally:
            with contextlib.suppress(LedgerError):
                # A call is cut also by who was late; nothing is read any more.
                await self._store.forget(name, whole=ask.what != "cut")
        if answer := next(filter(None, found.values()), b""):
            return answer
        alive = {one.id for one in self._team.others()}
        if silent := sorted(alive & set(asked) - found.keys()):
            raise LedgerBusyError(
                f"the broker {silent[0]} does not answer", "ask again shortly"
            )
        return b""

    def _answer(self, doc: bytes) -> bytes:
        """Do what another broker asks; return what it is told, empty if not ours."""
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
    """Return a call that another broker told of; None: it is of another version."""
    try:
        info = msgspec.json.decode(row.doc, type=CallInfo)
    except msgspec.DecodeError:
        return None
    info.broker = row.broker
    return info
