"""The team's key at this broker: make a new one, encrypt with it, retire the old one.

The key is in each home (``keys/team.key``) and never in the store, which names the key
in effect and, while the team changes it, the one before. Each broker says in its
heartbeat which key it has. Once all have the new one, one of them encrypts the shared
data again, and records that it is done; each then encrypts its own home's data again,
and removes the old key. Each step reads the present state, so that a broker that was
killed in between continues at its next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Any, Final, Self

import msgspec

from agentvault_tui.broker.team import Team
from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    LedgerError,
    OvertakenError,
    SealedError,
    UsageError,
)
from agentvault_tui.home import Home, file_stamp, locked_folder, put_private
from agentvault_tui.ledger import Ledger, Meta
from agentvault_tui.ledger.schema import read_home
from agentvault_tui.ledger.state import read_meta
from agentvault_tui.model import Actor, Draft, EventType
from agentvault_tui.sealing import KEY_BYTES, key_ids, read_keys, team_keys

TEAM_KEY: Final = "team_key"
"""The name in the ledger of which key is in effect."""
_IMPORT: Final = "bring it here: agentvault team key import FILE"
log = logging.getLogger("agentvault.team_key")


class KeyRecord(msgspec.Struct, frozen=True):
    """Which key the team has, by the ids that `key_ids` returns."""

    key: str = ""
    """The one in effect; empty where the team never had one."""
    before: str = ""
    """The one before, until all that it sealed is encrypted again."""

    @classmethod
    def read(cls, value: str | None) -> Self:
        """Return the ledger's record; SealedError: it is damaged."""
        try:
            return cls() if value is None else msgspec.json.decode(value, type=cls)
        except msgspec.MsgspecError:
            what = "the ledger's record of the team's key is damaged"
            raise SealedError(what, "agentvault store check") from None

    def change(self, actor: Actor, after: KeyRecord, word: str) -> tuple[Draft, Meta]:
        """Return the record that *after* takes this one's place."""
        before = self.before if self.key == after.key else self.key
        detail = {"before": before or None, "after": after.key}
        draft = Draft(EventType.SECRET_CHANGED, actor, reason=word, detail=detail)
        return draft, Meta(TEAM_KEY, msgspec.json.encode(after).decode())

    def problem(self, here: list[str]) -> SealedError | None:
        """Word the problem of a home with the keys *here*."""
        if not self.key or here[:1] == [self.key]:
            return None
        if not here:
            return SealedError("the team's key is not in this home", _IMPORT)
        return SealedError(
            "this home's keys/team.key is not the key that the team has in force",
            _IMPORT,
        )


def recorded(home: Home) -> KeyRecord:
    """Return which key the team has, as far as this home knows."""
    if not home.database.exists():
        return KeyRecord()
    with read_home(home) as db:
        return KeyRecord.read(read_meta(db, TEAM_KEY))


Records = Callable[..., Awaitable[object]]
"""Records events and changed rows, as `Broker.record` does."""


async def make_key(
    home: Home, ledger: Ledger, actor: Actor, *, lost: bool, by: Records | None = None
) -> KeyRecord:
    """Make another key for the team, and record that it is in effect.

    Args:
        home: where it is made; the others import it.
        ledger: the team's.
        actor: who decided.
        lost: whether the key in effect is in no home any more.
        by: records events and rows, if not `Ledger.commit`.

    Returns:
        the record now.

    Raises:
        ConflictError: the team is changing its key already, or whether it does is not
            known; or *by* refuses.
        SealedError: the key in effect is not in this home.
        LedgerError: it cannot be recorded.
    """
    record = KeyRecord.read(await ledger.read(read_meta, TEAM_KEY))
    if ledger.store_problem is None:
        settle(home, record)
    here = key_ids(await asyncio.to_thread(team_keys, home))
    if not lost:
        if record.before:
            raise ConflictError(
                "the team is changing its key already",
                "import it where status names a broker that has it not",
            )
        if problem := record.problem(here):
            raise problem
    elif record.key in here:
        raise UsageError("the key in force is in this home", "leave out --lost")
    key = token_bytes(KEY_BYTES)
    after = KeyRecord(key_ids([key])[0], here[0] if here else "")
    draft, meta = record.change(actor, after, "team key made")
    # Before the record: a key that is named and in no home would be lost.
    try:
        put_private(home.team_key_next, key, replace=False)
    except FileExistsError:
        raise ConflictError(
            "whether the key that was made last is recorded is not known yet",
            "try again when the team's store is back",
        ) from None
    try:
        await (by or ledger.commit)(draft, changes=[meta])
    except ConflictError:
        home.team_key_next.unlink()
        raise
    except OvertakenError:
        home.team_key_next.unlink()
        raise ConflictError(
            "another broker made a key for the team at the same time",
            "import that one: agentvault team key import FILE",
        ) from None
    settle(home, after)
    return after


def settle(home: Home, record: KeyRecord) -> None:
    """Put a key that was made in effect, if the ledger names it, else remove it."""
    if not home.team_key_next.exists():
        return
    with locked_folder(home.keys):
        (key,) = read_keys(home.team_key_next)
        if key_ids([key]) == [record.key]:
            before = [one for one in team_keys(home)[:1] if one != key]
            put_private(home.team_key, b"".join([key, *before]), replace=True)
        home.team_key_next.unlink()


class TeamKey:
    """Follows the ledger's record of the key, and the file with it."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        actor: Actor,
        publish: Callable[[], Awaitable[object]],
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        """Know nothing yet.

        Args:
            home: where the key is.
            ledger: the team's.
            actor: who records that the key was changed.
            publish: awaited once all is encrypted again; the other brokers get it.
            notify: called when `problem` changed.
        """
        self.seals_anew: list[Callable[[], Awaitable[None]]] = []
        """Each encrypts the data of a room again, with the active key."""
        self.team: Team | None = None
        """The brokers, once this one has joined them."""
        self.problem: str | None = None
        """Why the encrypted value does not open here, or is not encrypted again."""
        self.publish = publish
        self.changed: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        """Awaited once the key in effect is the only one of this home."""
        self._notify = notify
        self._home, self._ledger, self._actor = home, ledger, actor
        self._record = KeyRecord()
        self._stamp: tuple[int, ...] | None = None
        self._here: list[str] = []
        self._done = ""
        """The key under which everything of this home is sealed."""
        self._turn = asyncio.Lock()

    def announcement(self) -> tuple[str, str]:
        """Return the ids of the key that is here, and of the one in effect."""
        return self._here[0] if self._here else "", self._record.key

    async def make(self, actor: Actor, *, lost: bool, **more: Any) -> KeyRecord:
        """Make another key; see `make_key`."""
        async with self._turn:
            made = await make_key(self._home, self._ledger, actor, lost=lost, **more)
            await self._look()
        return made

    async def look(self) -> None:
        """Take the next step there is."""
        async with self._turn:
            await self._look()

    async def _look(self) -> None:
        problem = None
        try:
            await self.read()
            await self._seal_anew(self._record)
        except LedgerError as error:
            log.info("the team's key waits for the ledger: %s", error.what)
            return
        except AgentVaultError as error:
            problem = error.diagnosis()
        except OSError as error:
            problem = f"its file cannot be written ({error.strerror}): make room"
        if problem != self.problem:
            self.problem = problem
            if problem:
                log.warning("%s", problem)
            self._notify()

    async def read(self) -> None:
        """Read the ledger's record, and the present keys.

        Raises:
            SealedError: the key in effect is not here.
        """
        home, ledger = self._home, self._ledger
        record = self._record = KeyRecord.read(await ledger.read(read_meta, TEAM_KEY))
        if ledger.store_problem is None:
            await asyncio.to_thread(settle, home, record)
        stamp = file_stamp(home.team_key)
        if stamp != self._stamp:
            here = key_ids(await asyncio.to_thread(team_keys, home))
            self._stamp, self._here, self._done = stamp, here, ""
        if record.key in self._here[1:]:  # an older export was imported
            await asyncio.to_thread(self._put_first, record.key)
            await self.read()
            return
        if problem := record.problem(self._here):
            raise problem

    def _put_first(self, key: str) -> None:
        home = self._home
        with locked_folder(home.keys):
            keys = sorted(team_keys(home), key=lambda one: key_ids([one]) != [key])
            put_private(home.team_key, b"".join(keys), replace=True)

    async def _seal_anew(self, record: KeyRecord) -> None:
        """Seal again, put the key before away, and record that where it is due."""
        if not record.key or self._done == record.key or self._ledger.store_problem:
            return
        if record.before and not self._is_turn(record):
            return
        for seal_anew in self.seals_anew:
            await seal_anew()
        await self.publish()
        if record.before:
            after = KeyRecord(record.key)
            draft, meta = record.change(self._actor, after, "team key changed")
            await self._ledger.commit(draft, changes=[meta])
            self._record = after
        await asyncio.to_thread(self._put_away)
        await self.changed()
        self._done = record.key

    def _is_turn(self, record: KeyRecord) -> bool:
        """Check whether all have the new key, and this broker does the single work."""
        team = self.team
        if team is None or not team.members:
            return False
        return team.works() and all(one.beat.key == record.key for one in team.members)

    def _put_away(self) -> None:
        home = self._home
        with locked_folder(home.keys):
            keys = team_keys(home)
            if len(keys) > 1 and key_ids(keys) == self._here:
                put_private(home.team_key, keys[0], replace=True)
