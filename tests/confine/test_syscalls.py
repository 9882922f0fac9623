"""The filter of system calls, run on both processors by an interpreter of its own."""

from __future__ import annotations

import errno
import operator
import struct
from typing import Any

import pytest

from agentvault_tui.confine import syscalls
from agentvault_tui.confine.syscalls import ARCHITECTURES, build_filter
from agentvault_tui.errors import NotConfinedError

ALLOW, KILL = "allow", "kill"
NUMBERS = {
    "x86_64": {
        "read": 0,
        "socket": 41,
        "socketpair": 53,
        "sendto": 44,
        "clone": 56,
        "unshare": 272,
        "ioctl": 16,
        "fcntl": 72,
        "keyctl": 250,
        "setns": 308,
        "io_uring_setup": 425,
        "clone3": 435,
        "ptrace": 101,
    },
    "aarch64": {
        "read": 63,
        "socket": 198,
        "socketpair": 199,
        "sendto": 206,
        "clone": 220,
        "unshare": 97,
        "ioctl": 29,
        "fcntl": 25,
        "keyctl": 219,
        "setns": 268,
        "io_uring_setup": 425,
        "clone3": 435,
        "ptrace": 117,
    },
}
UNIX, INET, INET6, NETLINK, PACKET, VSOCK = 1, 2, 10, 16, 17, 40
STREAM, DGRAM, RAW, SEQPACKET, CLOEXEC = 1, 2, 3, 5, 0o2000000
HIGH = 1 << 32
JUMPS = {0x15: operator.eq, 0x25: operator.gt, 0x35: operator.ge, 0x45: operator.and_}


def evaluate(code: bytes, data: bytes) -> str:
    """Run a filter (bpf(4), seccomp(2)) over a struct seccomp_data."""
    program = [struct.unpack_from("=HBBI", code, at) for at in range(0, len(code), 8)]
    at = accumulator = 0
    while True:
        operation, true, false, value = program[at]
        at += 1
        if operation == 0x06:
            return action(value)
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        else:
            at += true if JUMPS[operation](accumulator, value) else false


def action(value: int) -> str:
    """Return what a filter's answer means."""
    if value & 0xFFFF0000 == 0x00050000:
        return errno.errorcode[value & 0xFFFF]
    return {0x7FFF0000: ALLOW, 0x80000000: KILL}[value]


class Machine:
    """Asks a filter about system calls by their names."""

    def __init__(self, architecture: str, **options: Any) -> None:
        self.code = build_filter(architecture=architecture, **options)
        self.architecture = architecture

    def __call__(self, name: str, *arguments: int) -> str:
        return self.number(NUMBERS[self.architecture][name], *arguments)

    def number(self, number: int, *arguments: int, other: int = 0) -> str:
        given = (*arguments, *(0,) * (6 - len(arguments)))
        architecture = other or ARCHITECTURES[self.architecture]
        return evaluate(
            self.code, struct.pack("=IIQ6Q", number, architecture, 0, *given)
        )


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(request.param)


def test_only_the_internet_and_routes_have_sockets(machine: Machine) -> None:
    """Every other family is refused, also one with high bits, and one of tomorrow."""
    for family in range(64):
        fine = family in {INET, INET6, NETLINK}
        expected = ALLOW if fine else "EAFNOSUPPORT"
        assert machine("socket", family, STREAM) == expected, family
    assert machine("socket", HIGH | UNIX, STREAM) == "EAFNOSUPPORT"
    assert machine("socket", HIGH | VSOCK, STREAM) == "EAFNOSUPPORT"
    assert machine("socket", 0xFFFFFFFF, STREAM) == "EAFNOSUPPORT"
    assert machine("socket", INET, DGRAM) == ALLOW
    assert machine("socket", NETLINK, RAW, 0) == ALLOW
    assert machine("socket", NETLINK, RAW, 15) == "EPROTONOSUPPORT"


def test_pairs_are_connected(machine: Machine) -> None:
    """A pair of datagram sockets sends to any path; flags do not hide its type."""
    assert machine("socketpair", UNIX, STREAM) == ALLOW
    assert machine("socketpair", UNIX, STREAM | CLOEXEC) == ALLOW
    assert machine("socketpair", UNIX, SEQPACKET | CLOEXEC) == ALLOW
    for kind in (DGRAM, RAW, DGRAM | CLOEXEC, HIGH | DGRAM, 0):
        assert machine("socketpair", UNIX, kind) == "EPROTONOSUPPORT", kind
    assert machine("socketpair", INET, STREAM) == "EAFNOSUPPORT"


def test_local_sockets_open_that_family_alone() -> None:
    """With the option Unix sockets work, and no other family more."""
    machine = Machine("x86_64", local_sockets=True)
    assert machine("socket", UNIX, DGRAM) == ALLOW
    assert machine("socketpair", UNIX, DGRAM) == ALLOW
    assert machine("socket", VSOCK, STREAM) == "EAFNOSUPPORT"
    assert machine("socket", PACKET, RAW) == "EAFNOSUPPORT"


def test_without_a_namespace_there_is_tcp_alone() -> None:
    """No datagrams, no multipath, and no connection that sendto opens."""
    machine = Machine("x86_64", tcp_only=True)
    assert machine("socket", INET, STREAM | CLOEXEC, 0) == ALLOW
    assert machine("socket", INET6, STREAM, 6) == ALLOW
    for kind in (DGRAM, RAW, SEQPACKET):
        assert machine("socket", INET, kind) == "EPROTONOSUPPORT", kind
    for protocol in (1, 17, 132, 262, 255):
        assert machine("socket", INET, STREAM, protocol) == "EPROTONOSUPPORT"
    assert machine("sendto", 3, 0, 0, 0) == ALLOW
    assert machine("sendto", 3, 0, 0, 0x20000000) == errno.errorcode[errno.EOPNOTSUPP]


def test_no_namespace_is_made_or_joined(machine: Machine) -> None:
    """By no flag alone and no two, and threads and processes still start."""
    thread = 0x003D0F00
    assert machine("clone", thread) == ALLOW
    assert machine("clone", 17) == ALLOW
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert machine("clone", 1 << bit | 17) == "EPERM", bit
        assert machine("unshare", 1 << bit | 0x200) == "EPERM", bit
    assert machine("unshare", 0x80) == "EPERM"
    assert machine("unshare", 0x200) == ALLOW  # CLONE_FS
    assert machine("clone3") == "ENOSYS"
    assert machine("setns", 3, 0) == "EPERM"


def test_nothing_is_typed_at_a_terminal(machine: Machine) -> None:
    """Whatever the bits are that the kernel does not read."""
    for request in (0x5412, 0x541C):
        assert machine("ioctl", 0, request) == "EPERM"
        assert machine("ioctl", 0, HIGH | request) == "EPERM"
        assert machine("ioctl", 0, (0xFFFFFFFF << 32) | request) == "EPERM"
    assert machine("ioctl", 0, 0x5413) == ALLOW  # TIOCGWINSZ


def test_no_lease_holds_up_who_opens_a_file(machine: Machine) -> None:
    """F_SETLEASE and F_NOTIFY are refused, and locks are not."""
    for command in (1024, 1026):
        assert machine("fcntl", 3, command) == "EPERM"
        assert machine("fcntl", 3, HIGH | command) == "EPERM"
    assert machine("fcntl", 3, 6) == ALLOW  # F_SETLK


def test_other_ways_past_the_filter_are_closed(machine: Machine) -> None:
    """io_uring is absent, keys are refused, and another processor's calls kill."""
    assert machine("io_uring_setup") == "ENOSYS"
    assert machine.number(426) == "ENOSYS"
    assert machine.number(427) == "ENOSYS"
    assert machine("keyctl") == "EPERM"
    assert machine("read") == ALLOW
    assert machine("ptrace", 16, 2) == ALLOW  # of its own processes
    assert machine("ptrace", 16, 1) == machine("ptrace", 0x4206, HIGH | 1) == "EPERM"
    for other in (0x40000003, 0x40000028, 0xC00000F3):
        assert machine.number(1, other=other) == KILL


def test_calls_of_x32_kill() -> None:
    """Their numbers have a bit that none of the rules knows."""
    assert Machine("x86_64").number(0x40000000 | 41, UNIX, STREAM) == KILL


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no filter, so nothing starts there."""
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "riscv64")
    with pytest.raises(NotConfinedError, match="riscv64"):
        syscalls.check_machine()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages that have it."""
    syscalls._library.cache_clear()

    def absent(_: str) -> None:
        raise OSError

    monkeypatch.setattr(syscalls.ctypes, "CDLL", absent)
    with pytest.raises(NotConfinedError, match="libseccomp") as caught:
        syscalls.check_machine()
    assert "libseccomp2" in caught.value.remedy
    monkeypatch.undo()
    syscalls._library.cache_clear()
