"""Service files that come with applied files: recorded first, then written."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentvault_tui.authorities import read_source, split_source
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.policy_files import MAX_FILE, NAME, read_text
from agentvault_tui.errors import ConflictError, PolicyError, ServiceError
from agentvault_tui.gateway.body import WORKERS
from agentvault_tui.gateway.refusals import CallRefusedError
from agentvault_tui.gateway.services import Services, check_service
from agentvault_tui.gateway.shipped.earlier import successor
from agentvault_tui.home import put_private
from agentvault_tui.ledger import EventQuery, Meta
from agentvault_tui.model import EventType, sha256_hex
from agentvault_tui.text import visible

log = logging.getLogger("agentvault.gateway")

APPLYING: Final = "services_applying"
"""Set from the record of applied service files until they are written: the SHA-256 of
the texts before and after, by name."""

_OPERATORS: Final = "operators"
"""The name under which operators' jobs have their turns among those of agents."""


class AppliedServices:
    """Puts texts into the folder ``services`` of the home."""

    def __init__(self, broker: Broker, services: Services) -> None:
        """Write nothing yet."""
        self._broker = broker
        self._services = services
        self._folder = broker.home.config / "services"

    def texts(self) -> dict[str, str]:
        """Return the active texts, by name.

        A file on disk may have another one, which is broken or waits for an approver.
        """
        active = self._services.texts()
        return {
            one.name: split_source(active[f"services/{one.name}.toml"])[0]
            for one in self._services
        }

    async def changed(self, wanted: Mapping[str, str]) -> dict[str, str | None]:
        """Return the active texts of files that would change, by name.

        Raises:
            ServiceError: one of them cannot be put in effect.
            ConflictError: a file in the home is a symbolic link.
        """
        changes = await asyncio.to_thread(self._compare, wanted, self.texts())
        catalogue, base = (
            self._broker.deciding.policy.catalogue,
            self._broker.home.config,
        )
        for name in changes:
            shown = f"services/{name}.toml"
            try:
                # An operator without a factor may send it: the time that a long text
                # takes to parse is not the broker's.
                await WORKERS.run(
                    _OPERATORS, check_service, name, wanted[name], catalogue, base
                )
            except ServiceError as error:
                raise ServiceError(f"{shown}: {error.what}", error.remedy) from None
            except CallRefusedError:
                raise ServiceError(f"{shown} takes too long to read") from None
        return changes

    def _compare(
        self, wanted: Mapping[str, str], active: Mapping[str, str]
    ) -> dict[str, str | None]:
        """Return the active texts of files that differ, by name."""
        changes: dict[str, str | None] = {}
        for name, text in wanted.items():
            shown = f"services/{visible(name, 80)}.toml"
            if not NAME.fullmatch(name):
                form = "lower-case letters, digits, - and _"
                raise ServiceError(f"{shown} cannot be called that", form)
            if len(text.encode()) > MAX_FILE:
                raise ServiceError(f"{shown} is larger than {MAX_FILE // 1024} KiB")
            if active.get(name) == text == self._text(name):
                continue
            if (self._folder / f"{name}.toml").is_symlink():
                raise ConflictError(
                    f"{shown} in the home is a symbolic link",
                    "change the file that it points to",
                )
            changes[name] = active.get(name)
        return changes

    def digests(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Return the SHA-256 of *texts*, each with its ``ca_file``, by path.

        Raises:
            ServiceError: a ``ca_file`` cannot be used.
        """
        base = self._broker.home.config
        return {
            f"services/{name}.toml": sha256_hex(read_source(text, base))
            for name, text in texts.items()
        }

    def mark(self, texts: Mapping[str, str]) -> Meta:
        """Return the row that lets the next start write *texts*, if this one cannot."""
        befores = {name: self._text(name) for name in texts}
        marked = {
            name: [None if before is None else sha256_hex(before), texts[name]]
            for name, before in befores.items()
        }
        return Meta(APPLYING, json.dumps(marked, ensure_ascii=False))

    def write(self, texts: Mapping[str, str]) -> None:
        """Replace files, each atomically.

        Raises:
            ConflictError: one cannot be written.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for name, text in texts.items():
                path = self._folder / f"{name}.toml"
                put_private(path, text.encode(), replace=True)
        except OSError as error:
            raise ConflictError(
                f"service files were recorded and cannot be written ({error.strerror})",
                "when there is room, apply again",
            ) from None

    def renew(self) -> None:
        """Replace copies of an earlier version's shipped files, at the start.

        In a team an operator applies the new ones: the store's texts count there.
        """
        if self._broker.team.files is not None:
            return
        for path in sorted(self._folder.glob("[!.]*.toml")):
            try:
                text = None if path.is_symlink() else self._read(path)
                new = None if text is None else successor(text)
                if new is not None:
                    put_private(path, new.encode(), replace=True)
                    log.info("renewed %s, a copy of a shipped file", path.name)
            except (OSError, PolicyError) as error:
                log.warning("%s is not renewed: %s", path.name, error)

    async def finish(self) -> None:
        """Write recorded but unwritten texts, if the process ended in between.

        Files that were changed since are left as they are, and so are texts that the
        chain does not name last.
        """
        marked = self._broker.recording.meta.pop(APPLYING, None)
        if marked is None:
            return
        marks: dict[str, tuple[str | None, str]] = json.loads(marked)
        query = EventQuery(type=EventType.SERVICE_CHANGED, limit=1000)
        named: dict[object, object] = {}
        for event in (await self._broker.ledger.events(query)).events:
            named.setdefault(event.resource, event.detail.get("after"))
        texts = {}
        for name, (was, text) in marks.items():
            before = self._text(name)
            same = was == (None if before is None else sha256_hex(before))
            with suppress(ServiceError):
                ((path, digest),) = self.digests({name: text}).items()
                if same and named.get(path) == digest:
                    texts[name] = text
        try:
            self.write(texts)
        except ConflictError as error:
            log.warning("%s", error.diagnosis())
            return
        await self._broker.record(changes=[Meta(APPLYING, None)])

    def _text(self, name: str) -> str | None:
        if self._broker.team.files is not None:
            return self._broker.team.files.text(f"services/{name}.toml")
        return self._read(self._folder / f"{name}.toml")

    def _read(self, path: Path) -> str | None:
        return read_text(path, self._broker.home.config)
