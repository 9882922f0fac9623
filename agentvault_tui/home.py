"""The folders of one vault, every path in them, and their modes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import platformdirs

from agentvault_tui.errors import SettingsError
from agentvault_tui.trusted_path import check_trusted

_SOCKET_PATH_CAP: Final = 100
"""``sun_path`` holds 108 bytes on Linux and 104 on macOS, with a closing NUL."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one vault, and every path in them."""

    data: Path
    config: Path

    @classmethod
    def locate(cls, home: str | Path | None = None) -> Home:
        """Use *home*, else ``AGENTVAULT_HOME``, else platformdirs' two folders.

        Raises:
            SettingsError: someone else could put another home in its place.
        """
        chosen = home or os.environ.get("AGENTVAULT_HOME")
        if chosen:
            path = Path(chosen).expanduser().absolute()
            check_trusted(path)
            return cls(path, path)
        dirs = platformdirs.PlatformDirs("agentvault", appauthor=False)
        for folder in (dirs.user_data_path, dirs.user_config_path):
            check_trusted(folder, may_be_link=True)
        return cls(dirs.user_data_path, dirs.user_config_path)

    @property
    def database(self) -> Path:
        """State and ledger."""
        return self.data / "agentvault.db"

    @property
    def head_file(self) -> Path:
        """The ledger's last known head, kept outside the database."""
        return self.keys / "ledger-head.json"

    @property
    def cut_journal(self) -> Path:
        """Cuts in force that the ledger has not recorded."""
        return self.data / "cuts.journal"

    @property
    def start_space(self) -> Path:
        """Space that is given up for a start on a full disk."""
        return self.data / "start.reserve"

    @property
    def cut_marker(self) -> Path:
        """Says that every cut is in the ledger or in the journal."""
        return self.keys / "cuts-kept"

    @property
    def config_file(self) -> Path:
        """``config.toml``."""
        return self.config / "config.toml"

    @property
    def policy_file(self) -> Path:
        """The policy that replaces the shipped one, if present."""
        return self.config / "policy.cedar"

    @property
    def scopes_file(self) -> Path:
        """The catalogue that replaces the shipped one, if present."""
        return self.config / "scopes.toml"

    @property
    def keys(self) -> Path:
        """Keys and other things kept apart from the database."""
        return self.data / "keys"

    @property
    def tenant(self) -> Path:
        """The embedded tenant's own store."""
        return self.data / "tenant"

    @property
    def vault_users(self) -> Path:
        """The refresh tokens of agents' vault users, sealed."""
        return self.data / "vault-users.json"

    @property
    def run(self) -> Path:
        """Sockets and the lock."""
        return self.data / "run"

    @property
    def socket(self) -> Path:
        """The operators' socket."""
        return self.run / "agentvault.sock"

    @property
    def lock_file(self) -> Path:
        """Held by the one broker of this home; says which process that is."""
        return self.run / "broker.lock"

    def prepare(self, socket: Path | None = None) -> None:
        """Make the folders, 0700 whatever the umask.

        Args:
            socket: where operators will connect, if not at the usual place.

        Raises:
            SettingsError: the socket's path would be too long for the system.
        """
        check_socket_path(socket or self.socket)
        for folder in (self.data, self.config, self.keys, self.tenant, self.run):
            private_folder(folder)


def private_folder(folder: Path) -> None:
    """Make *folder* and give it mode 0700, under any umask.

    Raises:
        SettingsError: it cannot be made, or belongs to someone else.
    """
    try:
        # Each parent we make is private too: whoever may rename it owns the home.
        for parent in reversed(folder.parents):
            if not parent.exists():
                parent.mkdir(mode=0o700)
                parent.chmod(0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"cannot use the folder {folder} ({error.strerror})",
            "choose one you own with --home",
        ) from error


def private_file(path: Path) -> None:
    """Make *path* if it is missing, with mode 0600 under any umask."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def replace_private(path: Path, text: str) -> None:
    """Put *text* at *path*, as `put_private` does, in place of what was there."""
    put_private(path, text.encode(), replace=True)


def put_private(path: Path, content: bytes, *, replace: bool) -> None:
    """Put *content* at *path*, 0600, whole or not at all; on disk when this returns.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
    """
    with private_draft(path, replace=replace) as file:
        file.write(content)


@contextmanager
def private_draft(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Yield a file that becomes *path* when the block ends without an error.

    Args:
        path: where it will be, mode 0600, on disk.
        replace: whether a file that is there is replaced.

    Raises:
        FileExistsError: there is a file, and it is not to be replaced.
    """
    # mkstemp gives 0600 under any umask; a rename or a link is all or nothing, so no
    # process ever reads half a key.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(draft).replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink(missing_ok=True)
    # The name is on disk with its folder: without, a power cut brings the old file.
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make what was created, renamed or deleted in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_socket_path(path: Path) -> None:
    """Refuse a socket path the system would cut.

    Raises:
        SettingsError: it is too long, with the remedy.
    """
    length = len(os.fsencode(path))
    if length > _SOCKET_PATH_CAP:
        raise SettingsError(
            f"the socket path {path} has {length} bytes, over the system's limit",
            "use a shorter --home, or give --socket a short path",
        )
