"""Attempts to leave a confinement, run as a program of its own: standard library alone.

``python -m confine.escapes TARGETS`` makes every attempt in a process of its own, and
prints a JSON object with the outcome of each: ``reached``, or why it failed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

from confine.escapes_files import ATTEMPTS, Attempt, Targets, attempt, checked, libc

WAIT_S = 3
X86 = os.uname().machine == "x86_64"


def call(number: int, *arguments: Any) -> int:
    """Make a system call; raise OSError where it fails."""
    return checked(libc.syscall(ctypes.c_long(number), *arguments))


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(family, kind) as opened:
        opened.settimeout(1)
        opened.connect(address)
        if kind == socket.SOCK_DGRAM:
            opened.send(b"out")
        assert opened.recv(16) == b"outside"


# The network.


@attempt
def tcp_to_another_port(told: Targets) -> None:
    connect(socket.AF_INET, ("127.0.0.1", told["tcp"]))


@attempt
def tcp_to_another_loopback_address(told: Targets) -> None:
    connect(socket.AF_INET, ("127.0.0.2", told["tcp"]))


@attempt
def tcp_to_this_machines_own_address(told: Targets) -> None:
    connect(socket.AF_INET, (told["lan"], told["tcp"]))


@attempt
def tcp_by_ipv6(told: Targets) -> None:
    connect(socket.AF_INET6, ("::1", told["tcp6"]))


@attempt
def tcp_by_a_mapped_address(told: Targets) -> None:
    connect(socket.AF_INET6, ("::ffff:127.0.0.1", told["tcp"]))


@attempt
def tcp_fast_open(told: Targets) -> None:
    with socket.socket() as opened:
        opened.settimeout(1)
        opened.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", told["tcp"]))
        assert opened.recv(16) == b"outside"


@attempt
def multipath_tcp(told: Targets) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as opened:
        opened.settimeout(1)
        opened.connect(("127.0.0.1", told["tcp"]))
        assert opened.recv(16) == b"outside"


@attempt
def udp(told: Targets) -> None:
    connect(socket.AF_INET, ("127.0.0.1", told["udp"]), socket.SOCK_DGRAM)


@attempt
def udp_to_this_machines_own_address(told: Targets) -> None:
    connect(socket.AF_INET, (told["lan"], told["udp"]), socket.SOCK_DGRAM)


@attempt
def icmp_echo(told: Targets) -> None:
    ping = struct.pack("!BBHHH", 8, 0, 0, 1, 1)
    kinds = socket.SOCK_DGRAM, socket.SOCK_RAW
    for kind in kinds:
        with (
            suppress(PermissionError),
            socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as opened,
        ):
            opened.settimeout(1)
            checksum = ~sum(struct.unpack("!4H", ping)) & 0xFFFF
            packet = ping[:2] + struct.pack("!H", checksum) + ping[4:]
            opened.sendto(packet, (told["lan"], 0))
            opened.recv(64)
            return
    raise PermissionError("no kind of socket for it")


@attempt
def raw_socket(_: Targets) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()


@attempt
def packet_socket(_: Targets) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) as opened:
        opened.bind(("lo", 3))


@attempt
def vsock(_: Targets) -> None:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()


@attempt
def vsock_with_high_bits(_: Targets) -> None:
    os.close(call(41 if X86 else 198, ctypes.c_long(40 | 1 << 32), 1, 0))


@attempt
def kernel_crypto_socket(_: Targets) -> None:
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()


@attempt
def device_events_by_netlink(_: Targets) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as opened:
        opened.bind((0, 1))


# Sockets of this machine.


@attempt
def unix_socket_in_the_folder(_: Targets) -> None:
    connect(socket.AF_UNIX, "stream.sock")


@attempt
def unix_socket_elsewhere(told: Targets) -> None:
    connect(socket.AF_UNIX, f"{told['outside']}/stream.sock")


@attempt
def abstract_unix_socket(told: Targets) -> None:
    connect(socket.AF_UNIX, f"\0{told['abstract']}")


@attempt
def datagram_pair_to_a_path(_: Targets) -> None:
    one, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"out", "datagram.sock")


@attempt
def datagram_pair_with_flags(_: Targets) -> None:
    pair = (ctypes.c_int * 2)()
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    call(53 if X86 else 199, 1, kind, 0, pair)
    socket.socket(fileno=pair[0]).sendto(b"out", "datagram.sock")


@attempt
def sequenced_pair_to_a_path(_: Targets) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.sendto(b"out", "datagram.sock")
    other.settimeout(1)
    if other.recv(16) == b"out":
        raise ConnectionError("it went to its peer")


@attempt
def pair_that_connects_again(_: Targets) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        one, other = socket.socketpair(socket.AF_UNIX, kind)
        other.close()
        with suppress(OSError):
            libc.connect(one.fileno(), b"\0" * 16, 16)  # AF_UNSPEC dissolves others
        one.connect("stream.sock")


@attempt
def io_uring(_: Targets) -> None:
    parameters = ctypes.create_string_buffer(120)
    os.close(call(425, 1, parameters))


# Other processes.


@attempt
def another_process_is_seen(told: Targets) -> None:
    line = Path(f"/proc/{told['victim']}/cmdline").read_bytes()
    assert told["mark"].encode() in line


@attempt
def environment_of_another_process(told: Targets) -> None:
    found = Path(f"/proc/{told['victim']}/environ").read_bytes()
    assert told["mark"].encode() in found


@attempt
def root_of_another_process(told: Targets) -> None:
    inner = Path(f"/proc/{told['victim']}/root{told['outside']}/secret")
    assert inner.read_text() == told["mark"]


@attempt
def memory_of_another_process(told: Targets) -> None:
    maps = Path(f"/proc/{told['victim']}/maps").read_text()
    start = int(maps.partition("-")[0], 16)
    with open(f"/proc/{told['victim']}/mem", "rb") as memory:
        memory.seek(start)
        assert memory.read(4) == b"\x7fELF"


@attempt
def signal_to_another_process(told: Targets) -> None:
    os.kill(told["victim"], 0)


@attempt
def signal_to_every_process(told: Targets) -> None:
    os.killpg(os.getpgid(told["victim"]), 0)


@attempt
def trace_another_process(told: Targets) -> None:
    victim = told["victim"]
    checked(libc.ptrace(16, victim, None, None))
    os.waitpid(victim, 0)
    checked(libc.ptrace(17, victim, None, None))


@attempt
def descriptor_of_another_process(told: Targets) -> None:
    pidfd = os.pidfd_open(told["victim"])
    os.close(call(438, pidfd, 0, 0))


@attempt
def limits_of_another_process(told: Targets) -> None:
    resource.prlimit(told["victim"], resource.RLIMIT_NOFILE)


@attempt
def namespace_of_another_process(told: Targets) -> None:
    with open(f"/proc/{told['victim']}/ns/net") as namespace:
        checked(libc.setns(namespace.fileno(), 0))


@attempt
def system_v_shared_memory(told: Targets) -> None:
    checked(libc.shmget(told["shm_key"], 0, 0o600))


@attempt
def posix_shared_memory(told: Targets) -> None:
    assert Path("/dev/shm", told["shm_name"]).read_text() == told["mark"]


@attempt
def inherited_descriptor(told: Targets) -> None:
    assert os.pread(told["descriptor"], 64, 0).decode() == told["mark"]


@attempt
def session_keyring(_: Targets) -> None:
    number = 248 if X86 else 217
    call(number, b"user", b"confine-test", b"x", 1, ctypes.c_int(-3))


@attempt
def keys_by_keyctl(_: Targets) -> None:
    call(250 if X86 else 219, 0, ctypes.c_int(-3), 0)


# The terminal.


def typed_at_a_terminal(request: int) -> None:
    """Type at a terminal that is the caller's own, as a command's is."""
    outer, inner = os.openpty()
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
    call(16 if X86 else 29, inner, ctypes.c_long(request), b"x")
    os.close(outer)


@attempt
def terminal_input(_: Targets) -> None:
    typed_at_a_terminal(termios.TIOCSTI)


@attempt
def terminal_input_with_high_bits(_: Targets) -> None:
    typed_at_a_terminal(termios.TIOCSTI | 1 << 32)


@attempt
def mode_of_a_device(told: Targets) -> None:
    status = os.stat("/dev/full")
    assert [status.st_dev, status.st_ino] == told["device"]
    os.chmod("/dev/full", status.st_mode & 0o7777)


@attempt
def lease_that_delays_a_program(_: Targets) -> None:
    with open("/usr/bin/factor", "rb") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


# Privileges, namespaces and other processors' calls.


@attempt
def new_user_namespace(_: Targets) -> None:
    checked(libc.unshare(0x10000000))


@attempt
def new_namespace_by_clone(_: Targets) -> None:
    child = call(56 if X86 else 220, 0x10000000 | signal.SIGCHLD, None, None, None, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attempt
def new_namespace_by_clone3(_: Targets) -> None:
    arguments = struct.pack("=8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    child = call(435, arguments, len(arguments))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attempt
def new_time_namespace(_: Targets) -> None:
    checked(libc.unshare(0x80))


@attempt
def setuid_program(_: Targets) -> None:
    found = subprocess.run(["./id", "-u"], capture_output=True, check=True)
    assert os.getuid() != 0
    assert found.stdout == b"0\n"


@attempt
def become_another_user(_: Targets) -> None:
    os.setgroups([])
    os.setuid(1)


@attempt
def mount(told: Targets) -> None:
    place = f"{told['outside']}/mounted".encode()
    checked(libc.mount(b"none", place, b"tmpfs", 0, None))
    checked(libc.umount(place))


@attempt
def mount_by_the_new_calls(_: Targets) -> None:
    os.close(call(430, b"tmpfs", 0))


@attempt
def change_root(told: Targets) -> None:
    os.chroot(told["outside"])


@attempt
def device_node(_: Targets) -> None:
    os.mknod("node", 0o20600, os.makedev(1, 5))
    try:
        assert os.open("node", os.O_RDONLY)
    finally:
        os.unlink("node")


@attempt
def disk(_: Targets) -> None:
    os.close(os.open(next(map(str, Path("/dev").glob("[sv]da"))), os.O_RDONLY))


@attempt
def kernel_log(_: Targets) -> None:
    checked(libc.klogctl(3, ctypes.create_string_buffer(64), 64))


@attempt
def extended_bpf(_: Targets) -> None:
    attributes = struct.pack("=4I", 2, 4, 4, 1) + bytes(112)
    os.close(call(321 if X86 else 280, 0, attributes, len(attributes)))


@attempt
def performance_events(_: Targets) -> None:
    attributes = struct.pack("=IIQ", 1, 128, 1) + bytes(112)
    os.close(call(298 if X86 else 241, attributes, 0, -1, -1, 0))


@attempt
def file_by_handle(told: Targets) -> None:
    handle = ctypes.create_string_buffer(bytes.fromhex(told["handle"]))
    folder = os.open(".", os.O_RDONLY)
    os.close(checked(libc.open_by_handle_at(folder, handle, os.O_RDONLY)))


def machine_code(code: bytes) -> int:
    """Run instructions; return what they leave in the register of results."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


@attempt
def calls_of_32_bits(_: Targets) -> None:
    assert X86
    # mov eax, 20 (getpid); int 0x80; ret
    assert machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3") == os.getpid()


@attempt
def unix_socket_by_a_call_of_32_bits(_: Targets) -> None:
    assert X86
    # push rbx; mov eax, 359 (socket); mov ebx, 1; mov ecx, 1; xor edx, edx; int 0x80;
    # pop rbx; ret
    code = "53b867010000bb01000000b90100000031d2cd805bc3"
    assert machine_code(bytes.fromhex(code)) >= 0


def outcome(function: Attempt, told: Targets) -> str:
    """Make an attempt in a process of its own, which a filter may kill."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(WAIT_S)
        try:
            function(told)
            os.write(writing, b"reached")
        except BaseException as error:  # noqa: BLE001 - each way to fail counts
            os.write(writing, f"{type(error).__name__}: {error}"[:300].encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""
    return said or ended or "it said nothing"


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps({name: outcome(one, given) for name, one in ATTEMPTS.items()}))
