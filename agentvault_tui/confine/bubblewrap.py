"""Starts a command in namespaces of its own, by bubblewrap."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIG_IGN
from typing import Final, NamedTuple

from agentvault_tui.confine.guard import Guard
from agentvault_tui.confine.paths import FileId, open_unlinked
from agentvault_tui.confine.syscalls import build_filter
from agentvault_tui.confine.view import View, system_mounts
from agentvault_tui.errors import NotConfinedError

PROGRAM_FOLDERS: Final = ("/usr/bin", "/usr/local/bin", "/run/current-system/sw/bin")
"""Where programs that start outside are looked for: a command's folder may be on
``PATH``."""
_LEAST: Final = (0, 8, 0)
"""The first version with ``--disable-userns``."""
_OF_DESCRIPTORS: Final = (0, 12, 0)
"""The first version that mounts descriptors, and makes no file outside where a folder
that it mounts has links (GHSA-pxhw-h44j-8pfx)."""
_WRITABLE_BY_ROOT: Final = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi")
"""In /proc: root may write there without any capability, for the whole machine."""
_DEVICES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
"""In /dev: the major and minor numbers (Linux, admin-guide/devices.txt)."""
_FURTHER: Final = (Path("/var/lib"), Path("/root"))
"""Where root makes devices if the file system of AgentVault's home allows none. Only
root writes there."""
_COMMANDS_OWN: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Signals that bubblewrap's own processes ignore: with them, all would end at once.

A terminal sends them to each process in its foreground.
"""
_RESET: Final = ("/usr/bin/env", "--default-signal=HUP,INT,QUIT,TERM")
"""Has the command not ignore them; of GNU coreutils 8.31 or later."""
_MOST_WORDS: Final = 8_990
"""bubblewrap takes 9,000 (MAX_ARGS); its command line has the others."""
_STARTS_S: Final = 20.0
_ENDS_S: Final = 5.0


class Bubblewrap(NamedTuple):
    """The program on this machine."""

    path: str
    version: str
    resets_signals: bool = False
    """Whether a program is there by which the command gets its signals."""

    @property
    def mounts_descriptors(self) -> bool:
        """Check whether it mounts open descriptors; an older one follows paths."""
        return tuple(map(int, self.version.split("."))) >= _OF_DESCRIPTORS


def find_bubblewrap(folders: Sequence[str] = PROGRAM_FOLDERS) -> Bubblewrap:
    """Find bubblewrap, and check its version and mode.

    Raises:
        NotConfinedError: there is none, or it is too old or setuid.
    """
    path = shutil.which("bwrap", path=os.pathsep.join(folders))
    if path is None:
        raise NotConfinedError(
            "bubblewrap is not installed",
            "install it: apt-get install bubblewrap, or dnf install bubblewrap",
        )
    if Path(path).stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise NotConfinedError(
            f"{path} is setuid",
            f"remove the bit: chmod u-s,g-s {path}",
        )
    done = subprocess.run([path, "--version"], env={}, capture_output=True, check=False)
    match = re.match(rb"\D*(\d+)\.(\d+)\.(\d+)", done.stdout)
    version = tuple(map(int, match.groups())) if match else (0, 0, 0)
    text = ".".join(map(str, version))
    if version < _LEAST:
        raise NotConfinedError(
            f"bubblewrap {text} is too old",
            "install 0.12.0 or later (0.8.0 works for one command at a time)",
        )
    return Bubblewrap(path, text)


def probe(bubblewrap: Bubblewrap) -> Bubblewrap:
    """Start a program in new namespaces, to check whether that works here.

    Returns:
        bubblewrap, with its abilities.

    Raises:
        NotConfinedError: it does not work, with the reason and the remedy.
    """
    options = [*_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    with ExitStack() as opened:
        passed = _Passed(opened)
        options += ["--seccomp", str(passed.memory(build_filter()))]
        line = [bubblewrap.path, *options, "--", *_RESET, "/usr/bin/true"]
        done = subprocess.run(
            line,
            capture_output=True,
            text=True,
            env={},
            stdin=subprocess.DEVNULL,
            pass_fds=passed.descriptors,
            timeout=_STARTS_S,
            check=False,
        )
    if done.returncode and done.stderr.startswith("bwrap:"):
        raise explain(done.stderr)
    return bubblewrap._replace(resets_signals=done.returncode == 0)


_NAMESPACES: Final = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net"),
    *("--unshare-uts", "--unshare-cgroup-try", "--disable-userns"),
    *("--die-with-parent", "--cap-drop", "ALL"),
)


@dataclass(slots=True)
class ConfinedProcess:
    """A command that waits to be released, or runs, in namespaces of its own."""

    process: subprocess.Popen[bytes]
    """bubblewrap's; it has the command's exit code."""
    inside: int
    """The process with number 1 in the command's namespace."""
    places: Mapping[Path, FileId]
    """Its mount points, and the files and folders that must be there."""
    _guard: Guard

    def release(self) -> None:
        """Let the command begin."""
        self._guard.release()

    def kill(self) -> None:
        """End all processes of the command at once."""
        self._guard.end()
        try:
            self.process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def send(self, number: int) -> bool:
        """Send a signal to the command itself; SIGKILL ends all of it.

        Returns:
            whether there was a process to send it to.
        """
        if self.process.poll() is not None:
            return False
        if number == signal.SIGKILL:
            self._guard.end()
            return True
        children = Path(f"/proc/{self.inside}/task/{self.inside}/children")
        with suppress(OSError):
            pids = children.read_text("ascii").split()
            for pid in pids[:1]:
                os.kill(int(pid), number)
            return bool(pids)
        return False


def start(
    bubblewrap: Bubblewrap,
    view: View,
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    files: Mapping[str, bytes],
    local_sockets: bool,
    streams: Sequence[int] = (0, 1, 2),
    devices: Path | None = None,
) -> ConfinedProcess:
    """Start a command that waits until it is released.

    Args:
        bubblewrap: the program.
        view: the command's files.
        words: the command line.
        environment: the command's variables.
        files: further files by path, read-only, that are nowhere on disk.
        local_sockets: whether Unix sockets work.
        streams: the descriptors of its three standard streams. A terminal among them
            becomes the one of its session.
        devices: what `own_devices` made.

    Raises:
        NotConfinedError: bubblewrap ended before the command could begin.
    """
    report, info = os.pipe()
    waiting, gate = os.pipe()
    with ExitStack() as failed, ExitStack() as opened:
        passed = _Passed(opened, info, waiting)
        guard = Guard(report, gate)
        failed.callback(guard.end)
        of_descriptors = bubblewrap.mounts_descriptors
        options = [*_options(view, passed, of_descriptors, devices)]
        options += ["--info-fd", str(info), "--block-fd", str(waiting)]
        code = build_filter(local_sockets=local_sockets)
        options += ["--seccomp", str(passed.memory(code))]
        for place, content in files.items():
            options += ["--ro-bind-data", str(passed.memory(content)), place]
        options += ["--remount-ro", "/", "--chdir", str(view.folder)]
        arguments = passed.words([*options, *_variables(environment)])
        reset, ignored = _signals(bubblewrap, words[0])
        line = [bubblewrap.path, "--args", str(arguments), "--", *reset]
        with _ignored_signals(ignored):
            process = _spawn([*line, *words], passed.descriptors, streams)
        failed.pop_all()
    inside = guard.first_process()
    if inside is None:
        guard.end()
        process.kill()
        process.wait()
        raise NotConfinedError(
            "bubblewrap ended before the command began", "see its message above"
        )
    return ConfinedProcess(process, inside, passed.places, guard)


@contextmanager
def own_devices(folder: Path) -> Iterator[Path | None]:
    """Make devices for a block, if root runs the command.

    root owns the machine's own: it changes their modes without any capability.

    Args:
        folder: where they are made, and removed afterwards; another folder is taken if
            its file system has no devices (``nodev``).

    Returns:
        the folder; None if the user is another, or may not make devices.
    """
    with ExitStack() as opened:
        made: Path | None = None
        for place in (folder, *_FURTHER) if os.geteuid() == 0 else ():
            path = place if place is folder else place / f"agentvault-{folder.name}"
            opened.callback(shutil.rmtree, path, ignore_errors=True)
            if _make_devices(path):
                made = path
                break
        yield made


def _make_devices(folder: Path) -> bool:
    """Make each device; return whether they can be opened there."""
    try:
        folder.mkdir(mode=0o700)
        for name, (major, minor) in _DEVICES.items():
            os.mknod(folder / name, stat.S_IFCHR, os.makedev(major, minor))
            (folder / name).chmod(0o666)
        os.close(os.open(folder / "null", os.O_RDWR))
    except OSError:
        return False
    return True


def _spawn(
    line: Sequence[str], descriptors: Sequence[int], streams: Sequence[int]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        line,
        env={},
        pass_fds=descriptors,
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        # Its signals, its nice value and its foreground are those of a session.
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread has started yet
    )


def _take_terminal() -> None:
    """Make a terminal among the standard streams the terminal of this new session."""
    for number in (0, 1, 2):
        if os.isatty(number):
            fcntl.ioctl(number, termios.TIOCSCTTY, 0)
            break


def _variables(environment: Mapping[str, str]) -> Iterator[str]:
    # Not as bubblewrap's own: it starts outside, where LD_PRELOAD would load a library
    # of the project's.
    for name, value in environment.items():
        yield from ("--setenv", name, value)


def _signals(
    bubblewrap: Bubblewrap, program: str
) -> tuple[list[str], list[signal.Signals]]:
    """Return the words before a program that has its signals, and those to ignore."""
    ignored = [one for one in _COMMANDS_OWN if signal.getsignal(one) != SIG_IGN]
    main = threading.current_thread() is threading.main_thread()  # see signal(2)
    if not (bubblewrap.resets_signals and main and ignored) or "=" in program:
        return [], []
    names = ",".join(one.name.removeprefix("SIG") for one in ignored)
    return [_RESET[0], f"--default-signal={names}"], ignored


def _options(
    view: View, passed: _Passed, of_descriptors: bool, devices: Path | None
) -> Iterator[str]:
    yield from _NAMESPACES
    for mount in system_mounts():
        yield from mount
    yield from ("--dev", "/dev", "--proc", "/proc")
    for name in _DEVICES if devices else ():
        yield from ("--dev-bind", f"{devices}/{name}", f"/dev/{name}")
    for name in _WRITABLE_BY_ROOT:
        path = f"/proc/{name}"
        if Path(path).exists():
            yield from ("--ro-bind", path, path)
    # The first process ends all others with `run`: who writes its memory ends that.
    yield from ("--tmpfs", "/proc/1", "--remount-ro", "/proc/1")
    yield from ("--tmpfs", "/tmp", "--dir", "/run", "--dir", "/var")  # noqa: S108
    yield from ("--symlink", "/tmp", "/var/tmp")  # noqa: S108
    for link, real in view.links:
        yield from ("--symlink", str(real), str(link))
    for kind, place in view.mounts():
        opened = passed.place(place)
        if of_descriptors:
            passed.add(opened)
            yield from (f"--{kind}-fd", str(opened), str(place))
        else:
            # Not passed: only an option that takes a descriptor closes it, and by one
            # of a folder the command would leave its view.
            yield from (f"--{kind}", str(place), str(place))


class _Passed:
    """Descriptors that a program gets, closed here when it has started."""

    def __init__(self, opened: ExitStack, *descriptors: int) -> None:
        self._opened = opened
        self.places: dict[Path, FileId] = {}
        self.descriptors: list[int] = []
        for one in descriptors:
            self._opened.callback(os.close, one)
            self.add(one)

    def memory(self, content: bytes) -> int:
        """Return a descriptor from which *content* is read."""
        descriptor = os.memfd_create("confine", os.MFD_CLOEXEC)
        self._opened.callback(os.close, descriptor)
        self.add(descriptor)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def words(self, options: Sequence[str]) -> int:
        """Return a descriptor from which bubblewrap reads options.

        Raises:
            NotConfinedError: there are more than it takes.
        """
        if len(options) > _MOST_WORDS:
            raise NotConfinedError(
                f"{len(self.places)} paths are to be protected, more than bubblewrap"
                " takes",
                "give folders with fewer git repositories: about 100 are possible",
            )
        return self.memory(b"".join(os.fsencode(one) + b"\0" for one in options))

    def place(self, path: Path) -> int:
        """Open a file or folder, whatever becomes of its path; it is not passed yet.

        Raises:
            NotConfinedError: it cannot be opened without a link.
        """
        try:
            descriptor = open_unlinked(path)
        except OSError as error:
            remedy = "look at it: a command that works there may have exchanged it"
            if error.errno == errno.EMFILE:
                remedy = "ulimit -n 65536, or give a folder with fewer repositories"
            why = f"{path} cannot be opened ({error.strerror})"
            raise NotConfinedError(why, remedy) from None
        self._opened.callback(os.close, descriptor)
        self.places[path] = FileId.of(descriptor)
        return descriptor

    def add(self, descriptor: int) -> None:
        """Pass an open descriptor, which an option of bubblewrap takes and closes."""
        self.descriptors.append(descriptor)


@contextmanager
def _ignored_signals(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    before = {one: signal.signal(one, SIG_IGN) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


_CONTAINER: Final = (
    "in a container, put the agent into an internal network with AgentVault alone on it"
    " (docs/confine.md), or run it outside of the container"
)


def explain(message: str) -> NotConfinedError:
    """Return why bubblewrap failed, by its message and this machine's settings."""
    last = message.strip().splitlines()[-1:] or ["it said nothing"]
    mapping = "uid map" in message
    restricted = _setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
    if restricted and ("RTM_NEWADDR" in message or mapping):
        return NotConfinedError(
            "AppArmor does not let bubblewrap use user namespaces",
            "apt-get install apparmor-profiles, then load its profile: apparmor_parser"
            " -r /usr/share/apparmor/extra-profiles/bwrap-userns-restrict",
        )
    if mapping and os.geteuid() == 0:
        return NotConfinedError(
            "root lacks the capability CAP_SETFCAP here",
            "add that capability, or run as an ordinary user",
        )
    off = "0" in {
        _setting("user/max_user_namespaces"),
        _setting("kernel/unprivileged_userns_clone") if os.geteuid() else "1",
    }
    if "namespace" in message and (off or "ENOSPC" in message):
        return NotConfinedError(
            "user namespaces are off",
            "sysctl -w user.max_user_namespaces=10000, and where it is there"
            " kernel.unprivileged_userns_clone=1",
        )
    if "namespace" in message or "slave" in message or "mount" in message:
        layer = "AppArmor" if "slave" in message or "mount" in message else "seccomp"
        return NotConfinedError(
            f"the container's {layer} does not let bubblewrap work ({last[0]})",
            _CONTAINER,
        )
    if "seccomp" in message.lower():
        return NotConfinedError(
            "the kernel has no seccomp filters", "use one with CONFIG_SECCOMP_FILTER"
        )
    return NotConfinedError(f"bubblewrap does not start ({last[0]})", _CONTAINER)


def _setting(name: str) -> str:
    try:
        return Path(f"/proc/sys/{name}").read_text("ascii").strip()
    except OSError:
        return ""
