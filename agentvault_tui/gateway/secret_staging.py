"""A change of the secrets' file: recorded first, then written, also after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from agentvault_tui.errors import ServiceError, SettingsError
from agentvault_tui.gateway.secret_rows import SecretsContent
from agentvault_tui.home import Home, fsync_folder, put_private
from agentvault_tui.ledger import Meta
from agentvault_tui.model import Draft, Event, sha256_hex
from agentvault_tui.sealing import KEY_BYTES, Seal
from agentvault_tui.text import visible
from agentvault_tui.trusted_files import read_trusted

_DIGEST: Final = "file"
"""The member of an event's detail with the SHA-256 of the file after the change."""


class SecretsSeal(Seal):
    """The seal of the file."""

    WHOSE: ClassVar[str] = "secrets"
    LOST: ClassVar[str] = "every secret has to be set again"


@dataclass(frozen=True, slots=True)
class SecretChange:
    """A change that is prepared: first its event is recorded, then it is written."""

    draft: Draft
    content: SecretsContent
    write: Callable[[], None]
    changes: tuple[Meta, ...] = ()
    stage_key: Callable[[], None] = lambda: None
    """Keeps the key of the new content, before the record: a start may need it."""


class SecretStaging:
    """Keeps the content that a change will write, until it is written."""

    def __init__(self, home: Home) -> None:
        """Read nothing yet."""
        self._home = home
        self._file = home.secrets_file
        self._staged = self._file.with_name("secrets-next.json")
        self.warnings: tuple[str, ...] = ()

    def stage(self, change: SecretChange) -> None:
        """Keep the content of a change, and name it in its event.

        Raises:
            ServiceError: it cannot be written.
        """
        text = content_text(change.content)
        change.draft.detail[_DIGEST] = sha256_hex(text.decode())
        try:
            change.stage_key()
            put_private(self._staged, text, replace=True)
        except OSError as error:
            raise unwritable(self._staged, error) from error

    def clear(self) -> None:
        """Forget the content: it was written."""
        self._staged.unlink(missing_ok=True)
        self.warnings = ()

    def finish(self, last: Event) -> None:
        """Write the content that *last* names, if that was not done.

        Content that no event names is removed: its change was not recorded.

        Args:
            last: the latest event that a secret changed.

        Raises:
            ServiceError: a file cannot be read or written.
        """
        recorded = last.detail.get(_DIGEST)
        try:
            staged = read_trusted(self._staged, self._home.data)
            if staged is not None and sha256_hex(staged.decode()) == recorded:
                put_private(self._file, staged, replace=True)
                self._finish_rotation(staged)
            self._staged.unlink(missing_ok=True)
            now = read_trusted(self._file, self._home.data)
        except (OSError, SettingsError, ValueError) as error:
            raise ServiceError(
                f"a change of {self._file} was recorded and is not finished"
                f" ({visible(error, 100)})",
                "look at its folder, and start the broker again",
            ) from error
        if recorded is None:
            return  # an earlier version recorded it
        if now is None or sha256_hex(now.decode()) != recorded:
            warning = (
                f"{self._file.name} is not as its last change was recorded: compare"
                " `agentvault secrets list` with the events, and set what differs"
            )
            self.warnings = (warning,)

    def _finish_rotation(self, written: bytes) -> None:
        """Put the new root key in the place of the old one, if that is left to do."""
        keys = self._home.keys
        following = key_file(keys / "secrets-next.key")
        key = msgspec.json.decode(written, type=SecretsContent).key
        if following is not None and following.key_id == key:
            (keys / "secrets-next.key").replace(keys / "secrets.key")
            fsync_folder(keys)


def content_text(content: SecretsContent) -> bytes:
    """Return the file's text."""
    return msgspec.json.format(msgspec.json.encode(content), indent=1)


def unwritable(path: Path, error: OSError) -> ServiceError:
    """Return the error that a file cannot be written."""
    return ServiceError(
        f"{path} cannot be written ({error.strerror})",
        "make room, or look at its folder",
    )


def key_file(path: Path) -> SecretsSeal | None:
    """Return the seal under the root key in a file, if there is one.

    Raises:
        ServiceError: the file cannot be read, or has no key.
    """
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
