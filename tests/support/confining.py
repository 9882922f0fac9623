"""A small machine to be kept out of: servers, files and a process, and who tries.

`try_in` builds it in a network namespace of its own, becomes the user that the spec
names, and runs a command in it, confined or not. It is in a forked process, since it
gives up root.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401 - another user may not read it later
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from support.forked import Forked
from support.patience import PATIENT

from agentvault_tui.confine import (
    Endpoint,
    ViewOptions,
    bubblewrap,
    build_view,
    confined_command,
    find_layers,
    remember_given,
)
from agentvault_tui.errors import NotConfinedError
from agentvault_tui.home import Home

MARK = "confine-mark-4f1c"
LAN = "198.51.100.7"
EVERY = "0.0.0.0"  # noqa: S104 - in a network namespace of its own
SYSTEM_PYTHON = "/usr/bin/python3"
libc = ctypes.CDLL(None, use_errno=True)


@cache
def why_not() -> str:
    """Return why nothing can be confined here; empty if it can."""
    try:
        find_layers()
    except NotConfinedError as error:
        return error.diagnosis()
    return ""


def need_confinement() -> None:
    """Skip the test that runs now where nothing can be confined."""
    from support.needs import need  # noqa: PLC0415 - pytest, which who tries has not

    need(not why_not(), f"a whole confinement ({why_not()})")


@contextmanager
def small_machine(uid: int) -> Iterator[Path]:
    """Yield a folder with the files of a machine, which belong to *uid*."""
    with tempfile.TemporaryDirectory(prefix="c-") as name:
        base = Path(name)
        base.chmod(0o755)
        project = base / "project"
        for folder in (project, base / "outside/mounted", base / "read"):
            folder.mkdir(parents=True)
        for folder in ("agt_1", "agt_2"):
            (base / "vault/homes" / folder).mkdir(parents=True)
        (base / "vault/run").mkdir()
        (base / "vault/agentvault.db").write_text(MARK)
        (base / "outside/secret").write_text(MARK)
        for place in ("", "below/repo", ".git/modules/part"):
            bare = ["--bare"] if place.startswith(".git") else []
            line = ["git", "init", "-q", *bare, str(project / place)]
            subprocess.run(line, check=True, env={"PATH": os.environ["PATH"]})
        (project / ".claude").mkdir()
        (project / ".claude/settings.json").write_text("{}")
        shutil.copy("/usr/bin/id", project / "id")
        if os.geteuid() == 0:
            for path in (base, *base.rglob("*")):
                os.chown(path, uid, uid, follow_symlinks=False)
            os.chown(project / "id", 0, 0)
            (project / "id").chmod(0o4755)
        (base / "vault").chmod(0o700)
        yield base


def run_in(base: Path, uid: int, words: Sequence[str], **more: Any) -> str:
    """Run a command in the project of *base* as *uid*; return what it printed."""
    code, out, err = ended(started_in(base, uid, words, **more))
    assert code == 0, err
    return out


def started_in(base: Path, uid: int, words: Sequence[str], **more: Any) -> Forked:
    """Start a command in the project of *base* as *uid*."""
    spec = {"base": str(base), "uid": uid, "words": words, **more}
    return Forked((json.dumps(spec),), os.environ, begin=try_in)


def ended(process: Forked) -> tuple[int, str, str]:
    """Return the exit code of a process that ends, and what it printed."""
    out, err = process.communicate()
    return process.wait(), out, err


def wait_for(path: Path) -> None:
    """Wait until a command has written into a file."""
    ends = time.monotonic() + PATIENT
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < ends, "it did not begin"
        time.sleep(0.01)


def try_in(text: str) -> NoReturn:
    """Be the process that tries, and exit with the command's code."""
    sys.exit(_code_of(json.loads(text)))


def _code_of(spec: dict[str, Any]) -> int:
    base, uid = Path(spec["base"]), int(spec["uid"])
    os.chdir(base / "project")
    with ExitStack() as opened:
        lan = _own_network() if os.geteuid() == 0 else ""
        if os.geteuid() == 0 and uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        told = _targets(opened, base, lan, sockets=spec.get("sockets", True))
        if spec.get("told", True):
            Path("targets.json").write_text(json.dumps(told))
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(base / "vault/homes/agt_1")}
        if not spec.get("confined"):
            line = list(spec["words"])
            return subprocess.call(line, env=environment, close_fds=False)
        vault = Home(base / "vault", base / "vault")
        options = ViewOptions(
            Path.cwd(), (base / "read",), local_sockets=bool(spec.get("local_sockets"))
        )
        home = vault.homes / "agt_1"
        view = build_view(
            options,
            vault,
            home,
            programs=[Path(spec["words"][0])],
            path=environment["PATH"],
        )
        remember_given(view, vault)
        layers = find_layers()
        assert layers.bubblewrap is not None
        program = layers.bubblewrap
        program = program._replace(version=spec.get("version") or program.version)
        if spec.get("exchanged"):
            _exchange_at_start(*map(Path, spec["exchanged"]))
        command = opened.enter_context(
            confined_command(
                program,
                view,
                spec["words"],
                environment,
                endpoints=[Endpoint("127.0.0.1", told["proxy"])],
                records=vault.stand_ins,
                local_sockets=options.local_sockets,
            )
        )
        if spec.get("killed") == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        process = command.begin()
        if spec.get("killed") == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        print("begun", file=sys.stderr, flush=True)
        code = process.wait()
    if command.watch.lost:
        print("lost", command.watch.lost, file=sys.stderr)
    if spec.get("attempts") == "total" and command.log:
        print(command.log.total)
    elif spec.get("attempts") and command.log:
        print(json.dumps([one for one, _ in command.log.take()]))
    return code


def _exchange_at_start(place: Path, link: Path) -> None:
    """Exchange a path for a link while bubblewrap looks where it is, as a command can.

    The link leads to a copy with a secret. The kernel notes when the link is read: then
    the path is put back.
    """
    start, copy = bubblewrap.subprocess.Popen, link.readlink()

    def exchange() -> None:
        flags, here = 2, -100  # RENAME_EXCHANGE, AT_FDCWD
        names = bytes(place), bytes(link)
        assert libc.renameat2(here, names[0], here, names[1], flags) == 0

    def exchange_back() -> None:
        ends, read = time.monotonic() + 1, place.lstat().st_atime_ns
        while place.lstat().st_atime_ns == read and time.monotonic() < ends:
            pass
        exchange()

    def exchanged(*words: Any, **more: Any) -> subprocess.Popen[bytes]:
        bubblewrap.subprocess.Popen = start  # type: ignore[misc]
        subprocess.check_call(["/bin/cp", "-a", place, copy])
        (copy / "secret" if copy.is_dir() else copy).write_text(MARK)
        exchange()
        threading.Thread(target=exchange_back).start()
        return start(*words, **more)

    bubblewrap.subprocess.Popen = exchanged  # type: ignore[misc,assignment]


def _own_network() -> str:
    """Move into a network of one device, with an address besides loopback's."""
    if libc.unshare(0x40000000) != 0:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        up = struct.pack("16sH14x", b"lo", 0x49)
        fcntl.ioctl(opened, 0x8914, up)  # SIOCSIFFLAGS
        address = struct.pack("16sHH4s8x", b"lo:1", 2, 0, socket.inet_aton(LAN))
        fcntl.ioctl(opened, 0x8916, address)  # SIOCSIFADDR
    return LAN


def _targets(
    opened: ExitStack, base: Path, lan: str, *, sockets: bool
) -> dict[str, Any]:
    """Start what the attempts are for, and return where it is."""
    own, outside = base / "project", base / "outside"
    ipv4, ipv6, unix = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    ports = {
        name: _serve(opened, family, kind, (host, 0))[1]
        for name, family, kind, host in (
            ("tcp", ipv4, stream, EVERY if lan else "127.0.0.1"),
            ("tcp6", ipv6, stream, "::1"),
            ("udp", ipv4, datagram, EVERY if lan else "127.0.0.1"),
            ("proxy", ipv4, stream, "127.0.0.1"),
        )
    }
    paths = [(outside / "stream.sock", stream)]
    if sockets:
        paths += [(own / "stream.sock", stream), (own / "datagram.sock", datagram)]
    for path, kind in paths:
        path.unlink(missing_ok=True)
        _serve(opened, unix, kind, str(path))
    _serve(opened, unix, stream, f"\0{base}")
    victim = subprocess.Popen(
        [MARK, "600"],
        executable="/bin/sleep",
        env={"SECRET": MARK},
        process_group=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: libc.prctl(1, 9, 0, 0, 0),  # noqa: PLW1509 - ends with us
    )
    opened.callback(victim.wait)
    opened.callback(victim.kill)
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    number = ctypes.c_int()
    place = os.fsencode(outside / "secret")
    libc.name_to_handle_at(-100, place, handle, ctypes.byref(number), 0)
    temporary = tempfile.NamedTemporaryFile("w", dir="/dev/shm", prefix="c-")
    shared = opened.enter_context(temporary)
    shared.write(MARK)
    shared.flush()
    key = os.getpid()
    memory = libc.shmget(key, 4096, 0o1600)
    opened.callback(libc.shmctl, memory, 0, None)
    descriptor = os.open(outside / "secret", os.O_RDONLY)
    opened.callback(os.close, descriptor)
    os.set_inheritable(descriptor, True)
    return ports | {
        "mark": MARK,
        "lan": lan,
        "device": [*attrgetter("st_dev", "st_ino")(Path("/dev/full").stat())],
        "abstract": str(base),
        "victim": victim.pid,
        "outside": str(outside),
        "read": str(base / "read"),
        "vault": str(base / "vault"),
        "handle": handle.raw.hex(),
        "shm_name": Path(shared.name).name,
        "shm_key": key,
        "descriptor": descriptor,
    }


def _serve(opened: ExitStack, family: int, kind: int, address: Any) -> tuple[str, int]:
    """Say ``outside`` to each who connects or sends; return the address."""
    server = opened.enter_context(socket.socket(family, kind))
    server.bind(address)
    if kind == socket.SOCK_STREAM:
        server.listen()

    def answer() -> None:
        with suppress(OSError):
            while True:
                if kind == socket.SOCK_DGRAM:
                    _, sender = server.recvfrom(64)
                    if sender:
                        server.sendto(b"outside", sender)
                    continue
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.sendall(b"outside")

    threading.Thread(target=answer, daemon=True).start()
    found = server.getsockname()
    return found if isinstance(found, tuple) else (str(found), 0)
