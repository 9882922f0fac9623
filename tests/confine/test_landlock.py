"""Without namespaces, Landlock and a filter keep what they are said to keep."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.needs import need

from agentvault_tui.confine import landlock
from agentvault_tui.confine.landlock import Restriction, abi, weaker_than_promised
from agentvault_tui.confine.protected import Protection
from agentvault_tui.confine.syscalls import build_filter
from agentvault_tui.confine.view import View
from agentvault_tui.errors import NotConfinedError

INSIDE = """
import ctypes, json, os, resource, socket, sys
told = json.loads(sys.argv[1])
def outcome(do):
    try: do()
    except OSError as error: return type(error).__name__
    return "reached"
def tcp(port): socket.create_connection(("127.0.0.1", port), 2).close()
def unix(): socket.socket(socket.AF_UNIX).connect(told["socket"])
def fast(): socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", told["port"]))
def memory():
    if ctypes.CDLL(None).shmget(0, 4096, 0o1600) < 0: raise PermissionError
print(json.dumps({
    "allowed": outcome(lambda: tcp(told["allowed"])),
    "port": outcome(lambda: tcp(told["port"])),
    "fast": outcome(fast),
    "udp": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "mptcp": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)),
    "unix": outcome(unix),
    "secret": outcome(lambda: open(told["secret"]).read()),
    "outside": outcome(lambda: open(told["outside"], "w")),
    "own": outcome(lambda: open("own", "w").write("x")),
    "device": outcome(lambda: open("/dev/null", "w").write("x")),
    "environment": outcome(lambda: open(f"/proc/{told['pid']}/environ").read()),
    "signal": outcome(lambda: os.kill(told["pid"], 0)),
    "bind": outcome(lambda: socket.socket().bind(("127.0.0.1", 0))),
    "listen": outcome(lambda: socket.socket().listen()),
    "limit": outcome(lambda: resource.prlimit(told["pid"], 7, (64, 64))),
    "processor": outcome(lambda: os.sched_setaffinity(told["pid"], {0})),
    "priority": outcome(lambda: os.setpriority(os.PRIO_PROCESS, told["pid"], 1)),
    "group": outcome(lambda: os.setpriority(os.PRIO_PGRP, 0, 1)),
    "memory": outcome(memory),
    "set-id": outcome(lambda: os.chmod("own", 0o4755)),
    "own priority": outcome(lambda: os.setpriority(os.PRIO_PROCESS, 0, 1)),
}))
"""


def test_a_command_reaches_two_ports_and_its_folders(tmp_path: Path) -> None:
    """Another port, other protocols, Unix sockets and other files do not open."""
    version = abi()
    need(version >= landlock.LEAST, "Landlock of Linux 6.7 or later")
    project, secret = tmp_path / "project", tmp_path / "secret"
    project.mkdir()
    secret.write_text("secret")
    view = View(project, project, (), (project,), (), Protection())
    with ExitStack() as opened:
        servers = [
            opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(2)
        ]
        victim = opened.enter_context(subprocess.Popen(["/bin/sleep", "60"]))
        opened.callback(victim.kill)
        local = opened.enter_context(socket.socket(socket.AF_UNIX))
        local.bind("\0" + str(tmp_path))
        local.listen()
        ports = [one.getsockname()[1] for one in servers]
        told = {
            "allowed": ports[0],
            "port": ports[1],
            "socket": "\0" + str(tmp_path),
            "secret": str(secret),
            "outside": str(tmp_path / "outside"),
            "pid": victim.pid,
        }
        code = build_filter(tcp_only=True)
        restriction = Restriction(view, [ports[0]], code)
        done = subprocess.run(
            ["/usr/bin/python3", "-c", INSIDE, json.dumps(told)],
            cwd=project,
            preexec_fn=restriction.apply,
            capture_output=True,
            text=True,
            check=False,
        )
        restriction.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reached = {name for name, outcome in found.items() if outcome == "reached"}
    expected = {"allowed", "own", "device", "own priority"}
    assert reached - {"signal"} == expected, found
    assert ("signal" in reached) is (version < 6)


def test_what_does_not_hold_is_said() -> None:
    """Each in a sentence, with the ports; an older kernel keeps less."""
    said = weaker_than_promised(7, [7718, 7717])
    assert said[0] == "TCP to ports 7718 and 7717 of every machine is open"
    assert said[1] == "other processes are seen"
    older = weaker_than_promised(4, [1])
    assert older[1] == "other processes are seen and can be sent signals"


def test_an_older_kernel_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before ABI 4 there are no rules for TCP, so nothing would be confined."""
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    view = View(tmp_path, tmp_path, (), (tmp_path,), (), Protection())
    with pytest.raises(NotConfinedError, match=r"Linux 6\.7"):
        Restriction(view, [1], b"")
    assert sys.platform == "linux"


def test_a_folder_that_became_a_link_is_refused(tmp_path: Path) -> None:
    """A command that works there exchanges it between the check and the rule."""
    need(abi() >= landlock.LEAST, "Landlock of Linux 6.7 or later")
    (tmp_path / "folder").symlink_to("/usr")
    own = tmp_path / "own"
    own.mkdir()
    missing = tmp_path / "missing"
    for read, write in (((tmp_path / "folder",), ()), ((), (tmp_path / "folder/x",))):
        view = View(own, own, read, (own, *write), (missing,), Protection())
        with pytest.raises(NotConfinedError, match="folder"):
            Restriction(view, [1], b"")
    names = ((tmp_path / "folder", Path("/usr")),)
    view = View(own, own, (), (own,), (tmp_path / "folder",), Protection(), links=names)
    Restriction(view, [1], b"").close()
