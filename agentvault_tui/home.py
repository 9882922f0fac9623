"""The vault's folders: their paths, modes, and who may write in them.

A home that somebody else could fill, swap or take away is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import platformdirs

from agentvault_tui.errors import SettingsError
from agentvault_tui.trusted_files import check_file, check_trusted

_SOCKET_PATH_CAP: Final = 100
"""``sun_path`` holds 108 bytes on Linux and 104 on macOS, with a closing NUL."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OPEN_FILES: Final = "/proc/self/fd"
_FOLDERS: Final = tuple(
    "services mcp hosts scopes.d tls keys tenant run".split()  # noqa: SIM905
)
_WRITTEN_BY_PEOPLE: Final = frozenset((".toml", ".cedar"))
_log = logging.getLogger("agentvault.home")


class _PathIn:
    """A path in one of a home's folders, read as an attribute of the home."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, name

    def __get__(self, home: Home, _: type[Home]) -> Path:
        """Return the path in *home*."""
        return Path(getattr(home, self._folder), self._name)


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one vault, and every path in them."""

    data: Path
    config: Path
    database = _PathIn("data", "agentvault.db")
    """State and ledger."""
    head_file = _PathIn("keys", "ledger-head.json")
    """The ledger's last known head, outside the database."""
    copied_file = _PathIn("data", "store-copied.json")
    """Says where the ledger was copied to, once it was."""
    broker_id_file = _PathIn("data", "broker.id")
    """The name that this home's broker has in its team."""
    connected_file = _PathIn("data", "connected.json")
    """Names the files of agent hosts that `connect` wrote."""
    team_files = _PathIn("data", "team-files.json")
    """Says which files were last in step with the team's."""
    cut_journal = _PathIn("data", "cuts.journal")
    """Cuts in effect that the ledger has not recorded."""
    start_space = _PathIn("data", "start.reserve")
    """Space that is given up for a start on a full disk."""
    unfinished = _PathIn("data", ".restore")
    """The unpacked files of a restore that are not yet in place."""
    stop_order = _PathIn("data", "stop.order")
    """The order to stop everything, left where the broker did not answer."""
    cut_marker = _PathIn("keys", "cuts-kept")
    """Says that every cut is in the ledger or in the journal."""
    config_file = _PathIn("config", "config.toml")
    """``config.toml``."""
    policy_file = _PathIn("config", "policy.cedar")
    """The policy that replaces the shipped one, if present."""
    alerts_file = _PathIn("config", "alerts.toml")
    """Where alerts and events go, if present."""
    scopes_file = _PathIn("config", "scopes.toml")
    """The catalogue that replaces the shipped one, if present."""
    scopes_folder = _PathIn("config", "scopes.d")
    """Files that add scopes to the catalogue."""
    limits_file = _PathIn("config", "limits.toml")
    """The limits and call-outs, if there are any."""
    keys = _PathIn("data", "keys")
    """Keys and other files outside the database."""
    team_key = _PathIn("keys", "team.key")
    """The team's key, and the one before it while it is changed."""
    team_key_next = _PathIn("keys", "team-next.key")
    """A key that was made for the team, until the ledger names it."""
    tenant = _PathIn("data", "tenant")
    """The embedded tenant's own store."""
    vault_users = _PathIn("data", "vault-users.json")
    """The refresh tokens of agents' vault users, sealed."""
    secrets_file = _PathIn("data", "secrets.json")
    """The gateway's credentials, sealed."""
    demo_approve = _PathIn("data", "demo/approve")
    """The script of a demo's home that signs its approver in."""
    run = _PathIn("data", "run")
    """Sockets and the lock."""
    homes = _PathIn("data", "homes")
    """Home directories of confined commands, one an agent."""
    given_folders = _PathIn("homes", "given.json")
    """Which folders confined commands may have changed."""
    stand_ins = _PathIn("run", "stand-ins")
    """Which files and folders confined commands hold the place of."""
    socket = _PathIn("run", "agentvault.sock")
    """The operators' socket."""
    socket_pointer = _PathIn("run", "operator-socket")
    """Names the operators' socket where it is not at its usual place."""
    lock_file = _PathIn("run", "broker.lock")
    """Held by the one broker of this home; says which process that is."""

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
    def operator_socket(self) -> Path:
        """Where a broker listens: the usual place, or its ``--socket``."""
        try:
            named = self.socket_pointer.read_text("utf-8").strip()
        except (OSError, ValueError):
            return self.socket
        return Path(named) if named and not self.socket.exists() else self.socket

    def prepare(self, socket: Path | None = None) -> None:
        """Make the folders, 0700 whatever the umask.

        Args:
            socket: where operators will connect, if not at the usual place.

        Raises:
            SettingsError: the socket's path would be too long for the system, or others
                could have written a file of the home.
        """
        check_socket_path(socket or self.socket)
        for notice in self.check_files():
            _log.warning("%s", notice)
        for folder in (self.data, self.config, self.keys, self.tenant, self.run):
            private_folder(folder)
        for name in ("services", "mcp", "hosts", "scopes.d"):
            # For people to write files in. One that is there stays as they have it: it
            # may be a link to a folder under version control.
            if not os.path.lexists(self.config / name):
                private_folder(self.config / name)

    def check_files(self, *, private: bool = False) -> list[str]:
        """Close files that others may write, while it is safe to believe them.

        Call it before anything changes the mode of the home: it checks whether others
        could reach the files.

        Args:
            private: whether to close settings and policy also where others only read
                them.

        Returns:
            a warning for each that was closed.

        Raises:
            SettingsError: others could have written one.
        """
        problems = (self.check_file(path, private=private) for path in self.files())
        return [notice for notice in problems if notice]

    def check_file(self, path: Path, *, private: bool) -> str | None:
        """Check one of the home's files; see `trusted_files.check_file`."""
        private = private and path.suffix in _WRITTEN_BY_PEOPLE
        return check_file(path, self.folder_of(path), private=private)

    def folder_of(self, path: Path) -> Path:
        """Return which of the home's two folders holds *path*."""
        return self.data if path.is_relative_to(self.data) else self.config

    def files(self) -> Iterator[Path]:
        """Yield each file of the home."""
        for folder in dict.fromkeys((self.data, self.config)):
            for place in (folder, *(folder / name for name in _FOLDERS)):
                try:
                    paths = sorted(place.iterdir())
                except OSError:
                    continue  # not made yet, or not ours to read
                for path in paths:
                    if not path.name.startswith(".") and path.is_file():
                        yield path


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


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock *folder* for a change to files in it, against other processes.

    Raises:
        SettingsError: it cannot be made, or belongs to someone else.
    """
    private_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_own(path: Path, most: int) -> bytes:
    """Read the first *most* bytes of a file that is no other party's to read.

    Raises:
        SettingsError: it is, or it cannot be read.
    """
    try:
        # Not to wait for whoever opens the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError(f"{path} is no file")
            if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                raise SettingsError(
                    f"{path} is open to others (mode {mode})"
                    if status.st_mode & _OTHERS
                    else f"{path} belongs to uid {status.st_uid}, not to you",
                    f"have a file of your own, with: chmod 600 {path}",
                )
            return file.read(most)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror})") from error


def private_file(path: Path) -> None:
    """Make *path* if it is missing, with mode 0600 under any umask."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def file_stamp(path: Path) -> tuple[int, ...] | None:
    """Return a value that differs once a file was changed; None: no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    where = status.st_dev, status.st_ino, status.st_size
    return (*where, status.st_mtime_ns, status.st_ctime_ns)


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
    # A rename or a link is all or nothing, so no process ever reads half a key.
    if not replace and (unnamed := _open_unnamed(path.parent)) is not None:
        with os.fdopen(unnamed, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            # With a folder's descriptor it is linkat(2) and follows the link.
            number, folder = str(file.fileno()), os.open(_OPEN_FILES, os.O_RDONLY)
            try:
                os.link(number, path, src_dir_fd=folder)
            finally:
                os.close(folder)
        fsync_folder(path.parent)
        return
    # mkstemp gives 0600 under any umask.
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


def _open_unnamed(folder: Path) -> int | None:
    """Open a file that is gone with its process until it is given a name (open(2)).

    Returns:
        its descriptor; None where the system or the file system has no such files, or
        `process.harden` took the way to name it.
    """
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not os.access(_OPEN_FILES, os.X_OK):
        return None
    try:
        descriptor = os.open(folder, os.O_WRONLY | flag, 0o600)
    except OSError:
        return None
    os.fchmod(descriptor, 0o600)
    return descriptor


def fsync_folder(folder: Path) -> None:
    """Make created, renamed and deleted files in *folder* durable."""
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
