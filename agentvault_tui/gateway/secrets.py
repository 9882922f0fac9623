"""Sealed secrets: the credentials that the gateway attaches, at rest in one file.

Each secret is sealed under a key of its own, which is wrapped by one root key: the
home's (``keys/secrets.key``), or one that systemd hands over from its credentials
(``LoadCredential=agentvault-secrets-key``). Both boxes are bound to the secret's name,
to a version that no other row ever has, so none opens in another's place, and to the
origins that the secret may be sent to: who changes these has to know the value.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes
from typing import Final, Protocol

import msgspec
from msgspec import UNSET

from agentvault_tui.broker.team_copies import MEMBER, put
from agentvault_tui.broker.team_files import TeamFiles
from agentvault_tui.clock import Clock, iso
from agentvault_tui.errors import (
    ConflictError,
    NotForOriginError,
    NotFoundError,
    SealedError,
    ServiceError,
    SettingsError,
    UsageError,
)
from agentvault_tui.gateway.secret_rows import (
    LISTED,
    SecretRow,
    SecretsContent,
    check_secret,
    listed_text,
    url_origin,
)
from agentvault_tui.gateway.secret_staging import (
    SecretChange,
    SecretsSeal,
    SecretStaging,
    content_text,
    key_file,
    unwritable,
)
from agentvault_tui.home import Home, file_stamp, fsync_folder, put_private
from agentvault_tui.ledger import EventQuery, Ledger, Meta
from agentvault_tui.model import Actor, Draft, EventType
from agentvault_tui.origins import NOWHERE, ServerOrigin
from agentvault_tui.sealing import KEY_BYTES, team_keys
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted
from agentvault_tui.vault import Secret

_KIND: Final = "secret"
_CREDENTIAL: Final = "agentvault-secrets-key"


class RecordsChange(Protocol):
    """Records events and rows in one transaction."""

    def __call__(
        self, *drafts: Draft, changes: Sequence[Meta] = ()
    ) -> Awaitable[object]:
        """Return the future that is done once it is durable."""


class Secrets:
    """The secrets of one home.

    One process at a time changes them: the broker, or if none runs the holder of the
    ledger. Everybody reads the file again when it is another.
    """

    def __init__(
        self,
        home: Home,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
        *,
        shared: bool = False,
        cached: dict[str, str] | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            home: the home.
            clock: the time.
            environ: names systemd's credentials directory.
            shared: whether they are a team's, and sealed with its key.
            cached: the ledger's small values, with the origins of secrets that
                are sealed without them; a change is put there once it is recorded.
        """
        self._home = home
        self._shared = shared
        self._cached = {} if cached is None else cached
        self.seals_origins = not shared
        """Whether origins are sealed: in a team, once no broker of a version lives that
        could not open such a row."""
        self._file = home.secrets_file
        self._staging = SecretStaging(home)
        self._clock = clock
        folder = environ.get("CREDENTIALS_DIRECTORY")
        self._credentials = Path(folder) if folder else None
        self._seen: tuple[int, ...] | None = None
        self._content = SecretsContent()
        self._seal: SecretsSeal | None = None
        self._turn = asyncio.Lock()
        self._team: TeamFiles | None = None

    def follow(self, team: TeamFiles) -> None:
        """Have *team* hold the file in step."""
        self._team = team
        team.copies.track(self._file.name, self._file, self._check)

    def _check(self, _: str, __: str) -> None:
        """Refuse members of a file that the team's other brokers could not open.

        A secret whose key is not here may be removed all the same. A file that no
        change of the team's made, such as one from a backup, is outdated.
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

    def open(self, name: str, to: Sequence[ServerOrigin] | None) -> Secret:
        """Return a secret, which is opened when it is sent; see `OpenSecret`.

        Raises:
            NotFoundError: there is none of that name.
            NotForOriginError: it may not be sent there.
            ServiceError: it, or the key it is wrapped by, cannot be read.
            SealedError: the team's key, which it is wrapped by, is not here.
        """
        if to is not None:
            self.check(name, to)
        row = self._named(name)
        seal = self._root()
        value = self._open(seal, name, row)
        if to is None:
            self.check(name, [url_origin(name, value)])
        return Secret(lambda: self._open(seal, name, row))

    def check(self, name: str, to: Iterable[ServerOrigin]) -> None:
        """Refuse a secret that may not be sent to one of several origins.

        Raises:
            NotFoundError: there is no such secret.
            NotForOriginError: says where it may be sent.
            ServiceError: the file cannot be read.
        """
        self._named(name)
        allowed = self.origins(name) or ()
        for origin in map(str, to):
            if origin not in allowed:
                raise NotForOriginError(
                    f"the secret {name} is not for {origin}: it is for"
                    f" {', '.join(allowed) or NOWHERE}",
                    f"give its value again: agentvault secrets set {name}"
                    f" --for {origin}",
                )

    def origins(self, name: str) -> tuple[str, ...] | None:
        """Return the origins of a secret; None if they were never listed.

        Raises:
            ServiceError: the file cannot be read.
        """
        row = self._read().secrets.get(name)
        if row is None:
            return None
        if row.bound is not None:
            return row.bound
        listed = self._cached.get(f"{LISTED}{name}")
        return None if listed is None else tuple(msgspec.json.decode(listed))

    def origin_of_url(self, name: str) -> ServerOrigin | None:
        """Return the origin of a secret that is a URL, if it opens and is one."""
        row = self._read().secrets.get(name)
        if row is not None:
            with suppress(ServiceError, SealedError, NotForOriginError):
                return url_origin(name, self._open(self._root(), name, row))
        return None

    def _named(self, name: str) -> SecretRow:
        row = self._read().secrets.get(name)
        if row is None:
            raise NotFoundError(
                f"there is no secret {name}", f"agentvault secrets set {name}"
            )
        return row

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
        """Return the owner of the wrapping key: ``home``, ``systemd``, ``team``.

        Raises:
            ServiceError: the file or a key cannot be read.
        """
        whose, _ = self._roots().get(self._read().key, ("", None))
        return whose

    async def change(
        self, prepare: Callable[[], SecretChange | None], record: RecordsChange
    ) -> None:
        """Prepare a change, record it and write it, if there is one, in turn.

        Raises:
            AgentVaultError: it may not be made, or cannot be recorded or written.
        """
        async with self._turn:
            change = await asyncio.to_thread(prepare)
            if change is None:
                return
            if self._team is None:
                await asyncio.to_thread(self._staging.stage, change)
            await record(change.draft, changes=change.changes)
            for listed in change.changes:
                put(self._cached, listed.key, listed.value)
            if self._team is None:
                await asyncio.to_thread(change.write)
                self._staging.clear()
            else:
                await self._team.publish(lambda: _write(prepare))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say that the file is not as its last change was recorded, if so."""
        return self._staging.warnings

    async def finish(self, ledger: Ledger) -> None:
        """Write a change that was recorded, if the process ended before it was written.

        Raises:
            ServiceError: a file cannot be read or written.
        """
        query = EventQuery(type=EventType.SECRET_CHANGED, limit=1)
        events = (await ledger.events(query)).events
        if self._team is None and events:
            async with self._turn:
                await asyncio.to_thread(self._staging.finish, events[0])

    def set(
        self, name: str, value: str, actor: Actor, origins: Sequence[str] = ()
    ) -> SecretChange:
        """Prepare to store *value*, in place of any other of that name.

        Args:
            name: of the secret.
            value: one line.
            actor: who sets it.
            origins: where it may be sent, as `read_origins` returns them.

        Raises:
            UsageError: the name is none, or no request can carry the value.
            ServiceError: the file or its key cannot be used.
            SealedError: the team's key is not here.
        """
        check_secret(name, value)
        content = self._read()
        before = content.secrets.get(name)
        seal = self._root()
        if self._shared and self.root() not in {"", "team"}:
            # This home joined the team, and nobody has sealed them anew since.
            seal = SecretsSeal.of(self._home, shared=True)
            content = self._sealed_anew(content, self._root(), seal)
        version = content.last + 1
        now = iso(self._clock.now())
        bound = tuple(origins) if self.seals_origins else None
        wrapped, box = seal.wrap(_KIND, name, version, value.encode(), bound=bound)
        row = SecretRow(
            version=version,
            key=wrapped,
            box=box,
            created_at=before.created_at if before else now,
            changed_at=now,
            changed_by=actor.name,
            origins=UNSET if bound is None else bound,
        )
        changed = SecretsContent(seal.key_id, version, {**content.secrets, name: row})
        draft = secret_draft(actor, "replaced" if before else "set", name, version)
        draft.detail["for"] = list(origins) or [NOWHERE]
        listed = Meta(f"{LISTED}{name}", listed_text(origins))
        changes = () if self.seals_origins else (listed,)
        return SecretChange(draft, changed, lambda: self._write(changed), changes)

    def remove(self, name: str, actor: Actor) -> SecretChange:
        """Prepare to forget a secret.

        Raises:
            NotFoundError: there is none of that name.
            ServiceError: the file cannot be read.
        """
        content = self._read()
        remaining = dict(content.secrets)
        row = remaining.pop(name, None)
        if row is None:
            raise NotFoundError(f"there is no secret {name}", "agentvault secrets list")
        changed = msgspec.structs.replace(
            content, last=content.last + 1, secrets=remaining
        )
        changes = (Meta(f"{LISTED}{name}", None),) if row.bound is None else ()
        return SecretChange(
            secret_draft(actor, "removed", name, row.version),
            changed,
            lambda: self._write(changed),
            changes,
        )

    def rotate_key(self, actor: Actor) -> SecretChange:
        """Prepare to seal every secret again, under a new root key.

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

        def stage_key() -> None:
            """Keep the new key next to the old one, which opens the file until then."""
            stopped = key_file(following)
            if stopped is not None and stopped.key_id == old.key_id:
                following.replace(current)  # what a rotation before did not get to
                fsync_folder(keys)
            if given is None:
                put_private(following, key, replace=True)

        def write() -> None:
            """Put key and secrets in place so that a crash leaves a key that opens."""
            stage_key()
            self._write(changed)
            # The file names the new key: the old one opens nothing any more.
            if given is None:
                following.replace(current)
            else:
                current.unlink(missing_ok=True)
            fsync_folder(keys)

        draft = _rotated(actor, old, new, changed.last)
        return SecretChange(draft, changed, write, stage_key=stage_key)

    def seal_anew(self, actor: Actor) -> SecretChange | None:
        """Prepare to encrypt with the team's active key the values of another key.

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

        draft = _rotated(actor, old, new, changed.last)
        return SecretChange(draft, changed, write)

    def seal_origins(self, actor: Actor) -> SecretChange | None:
        """Prepare to seal the origins that were listed for secrets before, with them.

        A secret for which nothing was listed stays as it is: it is sent nowhere.

        Raises:
            ServiceError: a secret cannot be opened, or a key cannot be used.
            SealedError: the team's key is not here.
        """
        content = self._read()
        origins = {
            name: listed
            for name, row in content.secrets.items()
            if row.bound is None and (listed := self.origins(name)) is not None
        }
        if not origins:
            return None
        root = self._root()
        changed = self._sealed_anew(content, root, root, origins)
        draft = secret_draft(actor, "origins sealed", None, changed.last)
        draft.detail["secrets"] = sorted(origins)
        return SecretChange(draft, changed, lambda: self._write(changed))

    def _sealed_anew(
        self,
        content: SecretsContent,
        old: SecretsSeal,
        new: SecretsSeal,
        listed: Mapping[str, tuple[str, ...]] | None = None,
    ) -> SecretsContent:
        """Return the file under another key, or with origins that are *listed*."""
        last, rows = content.last, dict(content.secrets)
        for name, row in content.secrets.items():
            if listed is not None and name not in listed:
                continue
            last += 1
            value = self._open(old, name, row).encode()
            bound = row.bound if listed is None else listed[name]
            wrapped, box = new.wrap(_KIND, name, last, value, bound=bound)
            rows[name] = msgspec.structs.replace(
                row,
                version=last,
                key=wrapped,
                box=box,
                origins=UNSET if bound is None else bound,
            )
        return SecretsContent(new.key_id, last, rows)

    def _open(self, seal: SecretsSeal, name: str, row: SecretRow) -> str:
        sealed = row.version, row.key, row.box
        try:
            return seal.unwrap(_KIND, name, *sealed, bound=row.bound).decode()
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
        """Return the present root keys, by their ids, and the owner of each."""
        roots = {}
        for name in (_CREDENTIAL, f"{_CREDENTIAL}-previous"):
            if seal := self._credential(name):
                roots[seal.key_id] = "systemd", seal
        # The second was made by a rotation that did not get to its end.
        for name in ("secrets.key", "secrets-next.key"):
            if seal := key_file(self._home.keys / name):
                roots[seal.key_id] = "home", seal
        for key in team_keys(self._home):
            seal = SecretsSeal(key)
            roots[seal.key_id] = "team", seal
        return roots

    def _credential(self, name: str) -> SecretsSeal | None:
        return key_file(self._credentials / name) if self._credentials else None

    def _read(self) -> SecretsContent:
        """Return the file's content, read again when it changed."""
        path = self._file
        try:
            seen = file_stamp(path)
            if seen is None or seen != self._seen:
                content = read_trusted(path, self._home.data)
                if content is None:
                    return SecretsContent()
                self._content = msgspec.json.decode(content, type=SecretsContent)
                self._seen = seen
        except (SettingsError, ValueError, RecursionError) as error:
            raise ServiceError(
                f"{path} cannot be read ({visible(error, 100)})",
                "restore it, or move it away and set every secret again",
            ) from None
        return self._content

    def _write(self, content: SecretsContent) -> None:
        try:
            put_private(self._file, content_text(content), replace=True)
        except OSError as error:
            raise unwritable(self._file, error) from error


def _write(prepare: Callable[[], SecretChange | None]) -> None:
    """Write a change that is prepared again: the file may be another by now."""
    with suppress(NotFoundError):  # removed by another broker as well
        if (change := prepare()) is not None:
            change.write()


def _rotated(actor: Actor, old: SecretsSeal, new: SecretsSeal, last: int) -> Draft:
    draft = secret_draft(actor, "key rotated", None, last)
    draft.detail |= {"before": old.key_id, "after": new.key_id}
    return draft


def secret_draft(actor: Actor, word: str, name: str | None, version: int) -> Draft:
    """Return the event that a secret, or all of them, changed."""
    detail = {"secret": name, "version": version}
    kind = EventType.SECRET_CHANGED
    return Draft(kind, actor, resource=name, reason=word, detail=detail)
