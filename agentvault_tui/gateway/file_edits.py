"""Edits of service, MCP and host files wait for an approver, where a factor is asked.

Such a file says where a secret goes, and which requests are which actions. A new text
counts once it is recorded or approved; until then the last version stays active, after
a restart too. A removal counts at once if it only refuses more. It waits as well if the
shipped map of a host counts then, or if the service's host is one of
``gateway.pass_through``: agents would reach it through the proxy, unread.
"""

from __future__ import annotations

import json
import logging
import shlex
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from agentvault_tui.authorities import render_source, split_source
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.riders import text_change
from agentvault_tui.broker.socket_factor import asks_factor
from agentvault_tui.broker.team_copies import digest_of
from agentvault_tui.broker.team_files import Loosens
from agentvault_tui.broker.usecases.changes import Asker, Wanted, ask
from agentvault_tui.errors import AgentVaultError, ConflictError
from agentvault_tui.gateway.config_folder import ConfigFolder
from agentvault_tui.gateway.tools import SHIPPED, shipped_tools
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Actor, ActorKind, sha256_hex
from agentvault_tui.origins import ServerOrigin
from agentvault_tui.text import visible

log = logging.getLogger("agentvault.gateway")

EDIT: Final = "EDIT file"
"""Names the carrier of such a change, next to those of calls."""
_FILE: Final = Actor(ActorKind.SYSTEM, "file", "file")
_KIND: Final = "edited file"
RECORDED: Final = "gateway_files"
"""The name in the ledger of the digests of the files that counted last, by path."""
TEXT: Final = "gateway_text:"
"""Begins the name in the ledger of the text that counted last; its path follows."""
_KINDS: Final = ("services",)
_DENIES: Final = 'unmatched = "deny"\n'
"""Counts for a host's map whose last active text is lost or does not parse any more."""


class FileEdits:
    """Decides which texts of the gateway's files count."""

    def __init__(
        self,
        broker: Broker,
        folders: tuple[ConfigFolder[Any], ...],
        read_again: Callable[[], Awaitable[None]],
    ) -> None:
        """Admit every text until `look` is called.

        Args:
            broker: the broker.
            folders: the folders of the files.
            read_again: reads all files, and records those that count.
        """
        self._broker, self._folders, self._read_again = broker, folders, read_again
        self._approved: set[tuple[str, str | None]] = set()
        """Path and SHA-256 of a text while its approved change is carried out; None of
        a file that was removed."""
        self._asks = self._looked = False
        for folder in folders:
            folder.admits = self._admits
        broker.extensions.states[_KIND] = self._on_disk
        broker.extensions.carriers[EDIT] = self._carry
        if broker.team.files is not None:
            names = (folder.name for folder in folders)
            broker.team.files.judges.update(dict.fromkeys(names, self._judge))

    async def look(self) -> None:
        """See whether new texts have to wait now, before files are read.

        In a team the store's texts count, and an edit waits before it is the store's
        (`team_edits`).
        """
        broker = self._broker
        recorded = broker.team.files is None and RECORDED in broker.recording.meta
        if recorded and any(folder.changed() for folder in self._folders):
            self._asks = await asks_factor(broker)
            if self._asks and not self._looked:
                self._restore()
            self._looked = True

    def _restore(self) -> None:
        """Let the texts that counted last count again: the disk may have others."""
        last = {
            path: self._broker.recording.meta.get(f"{TEXT}{path}")
            for path in self._recorded_digests
        }
        for folder in self._folders:
            known_here = {path for path in last if path.startswith(f"{folder.name}/")}
            texts = {
                path: text
                for path, text in last.items()
                if text is not None
                and path in known_here
                and sha256_hex(text) == self._recorded_digests[path]
            }
            folder.restore(texts)
            if (
                folder.name == "hosts"
            ):  # the shipped map, which may allow more, is not it
                lost = known_here - folder.texts().keys()
                folder.restore(dict.fromkeys(lost, _DENIES))

    async def ask(self) -> None:
        """Ask a person about each text that waits."""
        for folder in self._folders:
            for path, text in folder.held.items():
                before = folder.texts().get(path)
                loosens = self._judge(path, before or "", text) or Loosens(_KINDS)
                verb, after = "edited", text
                if text is None:
                    verb, after = "removed", loosens.instead
                shown = replace(
                    text_change(path, _shown(before), _shown(after)),
                    before=self._recorded_digests.get(path),
                    after=digest_of(after),
                )
                wanted = Wanted(
                    _KINDS,
                    f"{verb} on the broker's machine: {path}",
                    path,
                    (f"{_KIND}:{path}",),
                    (shown,),
                    loosens.details,
                )
                body = {"file": path, "sha256": digest_of(text)}
                request, asker = {"path": {}, "body": body}, Asker(_FILE, _FILE)
                try:
                    await ask(self._broker, EDIT, request, wanted, asker)
                except AgentVaultError as error:  # the next look asks again
                    log.warning("an edit of %s waits: %s", path, error.what)

    def rows(self) -> list[Meta]:
        """Return the record of the active texts, as far as the ledger lacks them."""
        now: dict[str, str | None] = {}
        for folder in self._folders:
            now |= folder.texts()
        recorded = self._broker.recording.meta
        now |= {
            key.removeprefix(TEXT): None
            for key in recorded
            if key.startswith(TEXT) and key.removeprefix(TEXT) not in now
        }
        return [
            Meta(f"{TEXT}{path}", text)
            for path, text in now.items()
            if recorded.get(f"{TEXT}{path}") != text
        ]

    @property
    def notices(self) -> list[str]:
        """Say which edits wait, or were not approved."""
        return [
            f"An edit of {path} counts only once an approver has proven a factor for"
            " it: agentvault stepup list"
            for path in self._held()
        ]

    def _held(self) -> list[str]:
        files = self._broker.team.files
        held = [path for folder in self._folders for path in folder.held]
        return held + sorted(files.waiting if files is not None else ())

    def _judge(
        self, path: str, before: str | None, after: str | None
    ) -> Loosens | None:
        """Judge an edit of a team's file."""
        if after is None:
            return self.opened_by(path, before)
        return Loosens(_KINDS, _destination(after))

    def opened_by(self, path: str, before: str | None = None) -> Loosens | None:
        """Return the loosening by the removal of a file, if it is one.

        Args:
            path: the file's, in the home directory.
            before: its active text; the recorded one if None.

        Returns:
            its loosening; None: nothing.
        """
        folder, _, file = path.partition("/")
        name = file.removesuffix(".toml")
        if folder == "hosts" and name in SHIPPED:
            then = {"then": "the shipped map of this host counts"}
            return Loosens(_KINDS, then, shipped_tools(name))
        text = before or self._broker.recording.meta.get(f"{TEXT}{path}")
        if folder != "services" or not text:
            return None
        table = tomllib.loads(split_source(text)[0])
        origin = ServerOrigin.of(urlsplit(table["origin"]))
        passed = self._broker.settings.gateway.passed
        if not any(one.covers(origin.host, origin.port) for one in passed):
            return None
        then = {"then": f"agents reach {origin.host} through the proxy, unread"}
        return Loosens(_KINDS, then)

    @property
    def _recorded_digests(self) -> dict[str, str]:
        recorded: dict[str, str] = json.loads(
            self._broker.recording.meta.get(RECORDED, "{}")
        )
        return recorded

    def _admits(self, path: str, sha256: str | None) -> bool:
        if not self._asks or (path, sha256) in self._approved:
            return True
        if sha256 is None:
            folders = (one.texts().get(path) for one in self._folders)
            return self.opened_by(path, next(filter(None, folders), None)) is None
        return self._recorded_digests.get(path) == sha256

    def _on_disk(self, path: str) -> str:
        name, _, file = path.partition("/")
        (folder,) = (one for one in self._folders if one.name == name)
        return f"{digest_of(folder.source(file))} {self._recorded_digests.get(path)}"

    async def _carry(self, request: Mapping[str, Any], _: Actor) -> bytes:
        approved = str(request["body"].get("file")), request["body"]["sha256"]
        path, sha256 = approved
        name = path.partition("/")[0]
        (folder,) = (one for one in self._folders if one.name == name)
        before = folder.texts().get(path)
        self._approved.add(approved)
        try:
            for one in self._folders:
                one.parse_again()
            await self._read_again()
        finally:
            # Once: a text that is replaced and comes back is another change.
            self._approved.discard(approved)
            if not (recorded := self._recorded_digests.get(path) == sha256):
                folder.restore({path: before})
                folder.parse_again()
        if not recorded:
            raise ConflictError(
                f"the edit of {path} could not be recorded, and is not in effect",
                "approve it when it is asked for again",
            )
        return b"{}"


def _shown(source: str | None) -> str | None:
    return None if source is None else render_source(source)


def _destination(source: str) -> dict[str, str]:
    """Word where a file sends requests or what it starts, for its approver."""
    table = tomllib.loads(split_source(source)[0])
    if command := table.get("command"):
        words = shlex.join(map(str, command))
        return {"starts": visible(f"{words} (as the broker's user)", 500)}
    origin = table.get("origin") or table.get("url")
    return {"origin": visible(str(origin), 200)} if origin else {}
