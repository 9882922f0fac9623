"""Sealed secrets: the credentials that the gateway attaches, at rest in one file.

Each secret is sealed under a key of its own, which is wrapped by one root key: the
home's (``keys/secrets.key``), or one that systemd hands over from its credentials
(``LoadCredential=agentvault-secrets-key``). Both boxes are bound to the secret's name
and to a version that no other row ever has, so none opens in another's place.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import ClassVar, Final

import msgspec

from agentvault_tui.broker.policy_files import NAME
from agentvault_tui.broker.team_copies import MEMBER
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import (
    ConflictError,
    NotFoundError,
    SealedError,
    ServiceError,
    SettingsError,
    UsageError,
)
from agentvault_tui.home import Home, file_stamp, fsync_folder, put_private
from agentvault_tui.model import Actor, Draft, EventType
from agentvault_tui.sealing import KEY_BYTES, Seal, team_keys
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted
from agentvault_tui.vault import Secret

MAX_SECRET: Final = 4000
_KIND: Final = "secret"
_CREDENTIAL: Final = "agentvault-secrets-key"
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class SecretsSeal(Seal):
    """The seal of the file."""

    WHOSE: ClassVar[str] = "secrets"
    LOST: ClassVar[str] = "every secret has to be set again"


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed secret."""

    version: int
    key: bytes
    """The key it is sealed under, wrapped by the root key."""
    box: bytes
    created_at: str
    changed_at: str
    changed_by: str


class _Content(msgspec.Struct, frozen=True):
    """The file."""

    key: str = ""
    """The id of the root key."""
    last: int = 0
    """The last version there was; each change of the file has a larger one."""
    secrets: dict[str, SecretRow] = {}


@dataclass(frozen=True, slots=True)
class SecretChange:
    """A change that is prepared: first its event is recorded, then it is written."""

    draft: Draft
    write: Callable[[], None]


class Secrets:
    """The secrets of one home.

    One process at a time changes them: the broker, or where none runs whoever holds
    the ledger. Everybody reads the file again when it is another.
    """

    def __init__(
        self,
        home: Home,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
        *,
        shared: bool = False,
    ) -> None:
        """Read nothing yet.

        Args:
            home: whose secrets.
            clock: the time.
            environ: names systemd's credentials directory.
            shared: whether they are a team's, and sealed with its key.
        """
        self._home = home
        self._shared = shared
        self._file = home.secrets_file
        self._clock = clock
        folder = environ.get("CREDENTIALS_DIRECTORY")
        self._credentials = Path(folder) if folder else None
        self._seen: tuple[int, ...] | None = None
        self._content = _Content()
        self._seal: SecretsSeal | None = None
        self._turn = asyncio.Lock()
        self._team: TeamFiles | None = None

    def follow(self, team: TeamFiles) -> None:
        """Have *team* hold the file in step."""
        self._team = team
        team.copies.track(self._file.name, self._file, self._check)

    def _check(self, _: str, __: str) -> None:
        """Refuse members of a file that the team's other brokers could not open.

        What is sealed with a key that is not here may be removed all the same. A file
        that no change of the team's made, such as one from a backup, is outdated.
        """
        content, member = self._read(), f"{self._file.name}{MEMBER}"
        if self._team and content.last <= int(self._team.text(f"{member}last") or -1):
            raise ConflictError("the team has had this version of the secrets")
        key = content.key if content.secrets else ""
        shared = self._team and self._team.text(f"{member}key")
        if key and self.root() != "team" and shared != f'"{key}"':
            raise ServiceError(
                "it is not sealed with the team's key", "agentvault team key new"
            )

    def get(self, name: str) -> Secret:
        """Return a secret, which is opened when it is sent.

        Raises:
            NotFoundError: there is none of that name.
            ServiceError: it, or the key it is wrapped by, cannot be read.
            SealedError: the team's key, which it is wrapped by, is not here.
        """
        row = self._read().secrets.get(name)
        if row is None:
            raise NotFoundError(
                f"there is no secret {name}", f"agentvault secrets set {name}"
            )
        seal = self._root()
        self._open(seal, name, row)
        return Secret(lambda: self._open(seal, name, row))

    def row(self, name: str) -> SecretRow | None:
        """Return a secret as it is sealed: another object once it was changed.

        Raises:
            ServiceError: the file cannot be read.
        """
        return self._read().secrets.get(name)

    def rows(self) -> dict[str, SecretRow]:
        """Return the secrets as they are sealed, by name.

        Raises:
            ServiceError: the file cannot be read.
        """
        return dict(sorted(self._read().secrets.items()))

    def root(self) -> str:
        """Return whose key wraps them: ``home``, ``systemd``, ``team``, or nobody's.

        Raises:
            ServiceError: the file or a key cannot be read.
        """
        whose, _ = self._roots().get(self._read().key, ("", None))
        return whose

    async def change(
        self,
        prepare: Callable[[], SecretChange | None],
        record: Callable[[Draft], Awaitable[object]],
    ) -> None:
        """Prepare a change, record it and write it, if there is one, in turn.

        Raises:
            AgentVaultError: it may not be made, or cannot be recorded or written.
        """
        async with self._turn:
            change = await asyncio.to_thread(prepare)
            if change is None:
                return
            await record(change.draft)
            if self._team is None:
                await asyncio.to_thread(change.write)
            else:
                await self._team.publish(lambda: _write(prepare))

    def set(self, name: str, value: str, actor: Actor) -> SecretChange:
        """Prepare to keep *value*, in place of any other of that name.

        Raises:
            UsageError: the name is none, or no request can carry the value.
            ServiceError: the file or its key cannot be used.
            SealedError: the team's key is not here.
        """
        if not NAME.fullmatch(name):
            raise UsageError(
                "that is no name for a secret",
                "use lower-case letters, digits, - and _, at most 63",
            )
        if not value or len(value) > MAX_SECRET or _UNSENDABLE.search(value):
            raise UsageError(
                "the value is empty, too long, or holds control characters",
                f"give one line of at most {MAX_SECRET} characters",
            )
        content = self._read()
        before = content.secrets.get(name)
        seal = self._root()
        if self._shared and self.root() not in {"", "team"}:
            # This home joined the team, and nobody has sealed them anew since.
            seal = SecretsSeal.of(self._home, shared=True)
            content = self._sealed_anew(content, self._root(), seal)
        version = content.last + 1
        now = iso(self._clock.now())
        wrapped, box = seal.wrap(_KIND, name, version, value.encode())
        row = SecretRow(
            version=version,
            key=wrapped,
            box=box,
            created_at=before.created_at if before else now,
            changed_at=now,
            changed_by=actor.name,
        )
        changed = _Content(seal.key_id, version, {**content.secrets, name: row})
        word = "replaced" if before else "set"
        return SecretChange(
            _draft(actor, word, name, version), lambda: self._write(changed)
        )

    def remove(self, name: str, actor: Actor) -> SecretChange:
        """Prepare to forget a secret.

        Raises:
            NotFoundError: there is none of that name.
            ServiceError: the file cannot be read.
        """
        content = self._read()
        kept = dict(content.secrets)
        row = kept.pop(name, None)
        if row is None:
            raise NotFoundError(f"there is no secret {name}", "agentvault secrets list")
        changed = msgspec.structs.replace(content, last=content.last + 1, secrets=kept)
        return SecretChange(
            _draft(actor, "removed", name, row.version), lambda: self._write(changed)
        )

    def rotate_key(self, actor: Actor) -> SecretChange:
        """Prepare to seal every secret anew, under a new root key.

        That is systemd's where it hands one over that is not in use, else a new one of
        the home's, which takes the old one's place.

        Raises:
            UsageError: systemd's is in use, and it handed no other one over; or they
                are a team's.
            ServiceError: a secret cannot be opened, or a key cannot be used.
        """
        if self._shared:
            raise UsageError(
                "the secrets are sealed with the team's key", "agentvault team key new"
            )
        content = self._read()
        old = self._root()
        given = self._credential(_CREDENTIAL)
        if given is not None and given.key_id == old.key_id:
            raise UsageError(
                "the secrets are wrapped by systemd's key, and it hands no other over",
                f"load the new one as {_CREDENTIAL}, and this one as"
                f" {_CREDENTIAL}-previous",
            )
        key = token_bytes(KEY_BYTES)
        new = given or SecretsSeal(key)
        changed = self._sealed_anew(content, old, new)
        keys = self._home.keys
        current, following = keys / "secrets.key", keys / "secrets-next.key"

        def write() -> None:
            """Put key and secrets in place so that a crash leaves a key that opens."""
            stopped = _key_file(following)
            if stopped is not None and stopped.key_id == old.key_id:
                following.replace(current)  # what a rotation before did not get to
                fsync_folder(keys)
            if given is None:
                put_private(following, key, replace=True)
            self._write(changed)
            # The file names the new key: the old one opens nothing any more.
            if given is None:
                following.replace(current)
            else:
                current.unlink(missing_ok=True)
            fsync_folder(keys)

        return SecretChange(_rotated(actor, old, new, changed.last), write)

    def seal_anew(self, actor: Actor) -> SecretChange | None:
        """Prepare to seal with the team's key in force what another key sealed.

        Raises:
            ServiceError: a secret cannot be opened, or a key cannot be used.
            SealedError: the team's key is not here.
        """
        content, new = self._read(), SecretsSeal.of(self._home, shared=True)
        if not content.secrets or content.key == new.key_id:
            return None
        old, whose = self._root(), self.root()
        changed = self._sealed_anew(content, old, new)

        def write() -> None:
            self._write(changed)
            if whose == "home":  # it opens nothing any more
                (self._home.keys / "secrets.key").unlink(missing_ok=True)

        return SecretChange(_rotated(actor, old, new, changed.last), write)

    def _sealed_anew(
        self, content: _Content, old: SecretsSeal, new: SecretsSeal
    ) -> _Content:
        last, rows = content.last, {}
        for name, row in content.secrets.items():
            last += 1
            value = self._open(old, name, row).encode()
            wrapped, box = new.wrap(_KIND, name, last, value)
            rows[name] = msgspec.structs.replace(
                row, version=last, key=wrapped, box=box
            )
        return _Content(new.key_id, last, rows)

    def _open(self, seal: SecretsSeal, name: str, row: SecretRow) -> str:
        try:
            return seal.unwrap(_KIND, name, row.version, row.key, row.box).decode()
        except (SealedError, ValueError):
            raise ServiceError(
                f"the secret {name} does not open: it was changed or moved",
                f"set it again: agentvault secrets set {name}",
            ) from None

    def _root(self) -> SecretsSeal:
        """Return the seal under the key that the file names; of an empty one, any."""
        content = self._read()
        named = content.key if content.secrets else ""
        if self._seal is not None and self._seal.key_id == named:
            return self._seal
        if named:
            roots = self._roots()
            if named not in roots and self._shared:
                raise SealedError(
                    f"the team's key {named}, which the secrets are sealed with, is not"
                    " here",
                    "bring it here: agentvault team key import FILE",
                )
            if named not in roots:
                raise ServiceError(
                    f"the key {named}, which the secrets are wrapped by, is not here",
                    "restore keys/secrets.key, or run where systemd hands its"
                    " credential over: with a broker there, ask it",
                )
            self._seal = roots[named][1]
        elif self._shared:
            return SecretsSeal.of(self._home, shared=True)
        else:
            try:
                self._seal = self._credential(_CREDENTIAL) or SecretsSeal.of(self._home)
            except SealedError as error:
                raise ServiceError(error.what, error.remedy) from None
        return self._seal

    def _roots(self) -> dict[str, tuple[str, SecretsSeal]]:
        """Return the root keys there are, by their ids, and whose each is."""
        found = {}
        for name in (_CREDENTIAL, f"{_CREDENTIAL}-previous"):
            if seal := self._credential(name):
                found[seal.key_id] = "systemd", seal
        # The second was made by a rotation that did not get to its end.
        for name in ("secrets.key", "secrets-next.key"):
            if seal := _key_file(self._home.keys / name):
                found[seal.key_id] = "home", seal
        for key in team_keys(self._home):
            seal = SecretsSeal(key)
            found[seal.key_id] = "team", seal
        return found

    def _credential(self, name: str) -> SecretsSeal | None:
        return _key_file(self._credentials / name) if self._credentials else None

    def _read(self) -> _Content:
        """Return what the file says, read again when it is another."""
        path = self._file
        try:
            seen = file_stamp(path)
            if seen is None or seen != self._seen:
                content = read_trusted(path, self._home.data)
                if content is None:
                    return _Content()
                self._content = msgspec.json.decode(content, type=_Content)
                self._seen = seen
        except (SettingsError, ValueError, RecursionError) as error:
            raise ServiceError(
                f"{path} cannot be read ({visible(error, 100)})",
                "restore it, or move it away and set every secret again",
            ) from None
        return self._content

    def _write(self, content: _Content) -> None:
        path = self._file
        try:
            text = msgspec.json.format(msgspec.json.encode(content), indent=1)
            put_private(path, text, replace=True)
        except OSError as error:
            raise ServiceError(
                f"{path} cannot be written ({error.strerror})",
                "make room, or look at its folder",
            ) from error


def _write(prepare: Callable[[], SecretChange | None]) -> None:
    """Write a change that is prepared anew: the file may be another by now."""
    with suppress(NotFoundError):  # removed by another broker as well
        if (change := prepare()) is not None:
            change.write()


def _rotated(actor: Actor, old: SecretsSeal, new: SecretsSeal, last: int) -> Draft:
    draft = _draft(actor, "key rotated", None, last)
    draft.detail |= {"before": old.key_id, "after": new.key_id}
    return draft


def _draft(actor: Actor, word: str, name: str | None, version: int) -> Draft:
    detail = {"secret": name, "version": version}
    kind = EventType.SECRET_CHANGED
    return Draft(kind, actor, resource=name, reason=word, detail=detail)


def _key_file(path: Path) -> SecretsSeal | None:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServiceError(
            f"the key {path} cannot be read ({error.strerror})",
            "look at its owner and its mode",
        ) from None
    if len(key) != KEY_BYTES:
        raise ServiceError(
            f"the key {path} has not {KEY_BYTES} bytes", "restore it from a backup"
        )
    return SecretsSeal(key)
