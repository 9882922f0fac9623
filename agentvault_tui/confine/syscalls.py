"""The system calls that a confined command is refused, as a filter for seccomp.

libseccomp writes the filter. It is called by ctypes: pyseccomp, which would do that,
has had no release since January 2021 and starts ``ldconfig`` or ``gcc`` to find it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from functools import cache
from typing import Final, NamedTuple

from agentvault_tui.errors import NotConfinedError

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""By the name that uname(2) has, the value of seccomp(2)'s ``arch``."""
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_BAD_ARCHITECTURE: Final = 2  # SCMP_FLTATR_ACT_BADARCH
_NE, _LT, _EQ, _GT, _MASKED_EQ = 1, 2, 4, 6, 7  # enum scmp_compare

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _SEQPACKET = 1, 5
_TYPE: Final = 0xF
"""The part of a socket's type without SOCK_CLOEXEC and SOCK_NONBLOCK."""
_TCP: Final = 6
_FAST_OPEN: Final = 0x20000000
_NAMESPACES: Final = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000),
    *(0x10000000, 0x20000000, 0x40000000),
)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (clone(2))."""
_NEW_TIME: Final = 0x80
"""CLONE_NEWTIME, which clone(2) reads as a part of the signal."""
_TERMINAL_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type at the terminal (CVE-2017-5226)."""
_FILE_COMMANDS: Final = (1024, 1026)
"""F_SETLEASE and F_NOTIFY (fcntl(2)). A lease delays programs outside that open the
file, also if the file is read-only for the command."""
_ON_PROCESSES: Final = {
    "ptrace": 1,
    "process_vm_readv": 0,
    "process_vm_writev": 0,
}
"""Calls that change another process, and the argument that is its number. They are
refused on the first one, which ends all others when `run` is killed."""
_FILE_MODES: Final = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
"""Calls that change a file's mode, and the argument that is the mode. A file that is
created with such a bit loses it when its first byte is written (chmod(2), write(2))."""
_SET_ID_BITS: Final = (0o4000, 0o2000)
_NUMBERS: Final = {"fchmodat2": 452}
"""Calls that libseccomp may be too old to know; both processors have the number."""
_ABSENT: Final = (
    "clone3",  # its flags are in memory, which a filter cannot read: libc uses clone
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),  # opens sockets
)
_DENIED: Final = (
    *("setns", "mount", "umount2", "pivot_root", "open_tree", "move_mount"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
    *("add_key", "keyctl", "request_key"),  # keys of the session outside
    *("bpf", "perf_event_open", "userfaultfd", "open_by_handle_at", "syslog"),
    *("init_module", "finit_module", "delete_module"),
    *("kexec_load", "kexec_file_load", "acct", "swapon", "swapoff", "reboot"),
)


_SERVING: Final = ("listen", "accept", "accept4")
"""Without bind(2), listen(2) takes a port itself, which Landlock does not see."""
_SHARED_MEMORY: Final = (
    *("shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl"),
    *("msgget", "msgsnd", "msgrcv", "msgctl"),
)
"""System V IPC (sysvipc(7)): of all processes, without an IPC namespace."""
_ON_OTHERS: Final = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
"""Calls that change a process, and the argument that is its number: 0 for its own."""
_OF_GROUPS: Final = {"setpriority": 0, "ioprio_set": 1}
"""Calls that may be about more than a process, and the value of an argument that says
that it is one: PRIO_PROCESS and IOPRIO_WHO_PROCESS."""


class Condition(NamedTuple):
    """A comparison of one argument (struct scmp_arg_cmp)."""

    argument: int
    comparison: int
    value: int
    second: int = 0


class CallRule(NamedTuple):
    """A system call that fails with an error where all conditions hold."""

    call: str
    error: int
    conditions: tuple[Condition, ...] = ()


class _CComparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def check_machine() -> None:
    """Check that a filter can be written here.

    Raises:
        NotConfinedError: the processor is another one, or libseccomp is missing.
    """
    if platform.machine() not in ARCHITECTURES:
        raise NotConfinedError(
            f"this processor is {platform.machine()}",
            "run it on x86_64 or aarch64",
        )
    _library()


def build_filter(
    *, local_sockets: bool = False, tcp_only: bool = False, architecture: str = ""
) -> bytes:
    """Return the filter as instructions for seccomp(2).

    Args:
        local_sockets: whether Unix sockets work.
        tcp_only: whether the command is in no namespace of its own: outgoing TCP is
            its only network, and it changes no other process.
        architecture: a key of `ARCHITECTURES`; empty for this machine's.

    Returns:
        an array of struct sock_filter.

    Raises:
        NotConfinedError: libseccomp is missing or too old.
    """
    library = _library()
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    descriptor = os.memfd_create("filter")
    try:
        if architecture and architecture != platform.machine():
            _check(library.seccomp_arch_add(context, ARCHITECTURES[architecture]))
            own = ARCHITECTURES[platform.machine()]
            _check(library.seccomp_arch_remove(context, own))
        # 32-bit calls and x32 have other numbers, so they would pass.
        _check(library.seccomp_attr_set(context, _BAD_ARCHITECTURE, _KILL_PROCESS))
        for rule in _rules(local_sockets=local_sockets, tcp_only=tcp_only):
            number = library.seccomp_syscall_resolve_name(rule.call.encode())
            number = _NUMBERS.get(rule.call, number) if number == -1 else number
            conditions = (_CComparison * len(rule.conditions))(
                *(_CComparison(*one) for one in rule.conditions)
            )
            action = 0x00050000 | rule.error
            _check(
                library.seccomp_rule_add_array(
                    context, action, number, len(conditions), conditions
                )
            )
        _check(library.seccomp_export_bpf(context, descriptor))
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
        library.seccomp_release(context)


def _rules(*, local_sockets: bool, tcp_only: bool) -> list[CallRule]:
    rules = [CallRule(name, errno.ENOSYS) for name in _ABSENT]
    rules += [CallRule(name, errno.EPERM) for name in _DENIED]
    for name, flags in (("clone", ()), ("unshare", (_NEW_TIME,))):
        rules += [
            CallRule(name, errno.EPERM, (Condition(0, _MASKED_EQ, flag, flag),))
            for flag in (*_NAMESPACES, *flags)
        ]
    # The kernel reads 32 bits of these: higher ones must not make them something else.
    rules += [
        CallRule(name, errno.EPERM, (Condition(argument, _MASKED_EQ, 0xFFFFFFFF, 1),))
        for name, argument in _ON_PROCESSES.items()
    ]
    rules += [
        CallRule(name, errno.EPERM, (Condition(1, _MASKED_EQ, 0xFFFFFFFF, request),))
        for name, requests in (("ioctl", _TERMINAL_INPUT), ("fcntl", _FILE_COMMANDS))
        for request in requests
    ]
    rules += [
        CallRule(name, errno.EPERM, (Condition(argument, _MASKED_EQ, bit, bit),))
        for name, argument in _FILE_MODES.items()
        for bit in _SET_ID_BITS
    ]
    families = {_INET, _INET6, _NETLINK} | ({_UNIX} if local_sockets else set())
    rules += [
        CallRule("socket", errno.EAFNOSUPPORT, (condition,))
        for condition in (
            *(Condition(0, _EQ, n) for n in range(_NETLINK) if n not in families),
            Condition(0, _GT, _NETLINK),
        )
    ]
    netlink = Condition(0, _EQ, _NETLINK), Condition(2, _NE, 0)  # NETLINK_ROUTE is 0
    rules.append(CallRule("socket", errno.EPROTONOSUPPORT, netlink))
    rules.append(
        CallRule("socketpair", errno.EAFNOSUPPORT, (Condition(0, _NE, _UNIX),))
    )
    if not local_sockets:
        # A pair of datagram sockets sends to any path (sendto(2)). Connected ones do
        # not: Linux takes their peer, and none connects again (unix_seqpacket_sendmsg,
        # unix_stream_connect). Rust starts processes by a sequenced pair.
        rules += [
            CallRule("socketpair", errno.EPROTONOSUPPORT, (_is_type(1, kind),))
            for kind in range(_TYPE + 1)
            if kind not in {_STREAM, _SEQPACKET}
        ]
    return rules + (_tcp_rules() + _process_rules() if tcp_only else [])


def _tcp_rules() -> list[CallRule]:
    """Return rules that leave TCP alone, and each connection to connect(2).

    Landlock sees no other protocol, and no connection that sendto(2) opens.
    """
    rules = [CallRule(name, errno.EPERM) for name in _SERVING]
    rules += [
        CallRule(
            "socket", errno.EPROTONOSUPPORT, (Condition(0, _EQ, family), condition)
        )
        for family in (_INET, _INET6)
        for condition in (
            *(_is_type(1, kind) for kind in range(_TYPE + 1) if kind != _STREAM),
            *(Condition(2, _EQ, number) for number in range(1, _TCP)),
            Condition(2, _GT, _TCP),
        )
    ]
    flag = _FAST_OPEN
    for name, argument in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        fast = Condition(argument, _MASKED_EQ, flag, flag)
        rules.append(CallRule(name, errno.EOPNOTSUPP, (fast,)))
    return rules


def _process_rules() -> list[CallRule]:
    """Return rules that protect other processes and their shared memory."""
    rules = [CallRule(name, errno.EPERM) for name in _SHARED_MEMORY]
    # The kernel reads 32 bits of a number: each of them must be 0.
    rules += [
        CallRule(name, errno.EPERM, (Condition(argument, _MASKED_EQ, bit, bit),))
        for name, argument in _ON_OTHERS.items()
        for bit in (1 << number for number in range(32))
    ]
    return rules + [
        CallRule(name, errno.EPERM, (Condition(0, _NE, own),))
        for name, own in _OF_GROUPS.items()
    ]


def _is_type(argument: int, kind: int) -> Condition:
    return Condition(argument, _MASKED_EQ, _TYPE, kind)


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise NotConfinedError(
            "libseccomp is not installed",
            "install it: apt-get install libseccomp2, or dnf install libseccomp",
        ) from None
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    library.seccomp_init.restype = pointer
    library.seccomp_init.argtypes = (number,)
    library.seccomp_release.argtypes = (pointer,)
    library.seccomp_release.restype = None
    library.seccomp_arch_add.argtypes = (pointer, number)
    library.seccomp_arch_remove.argtypes = (pointer, number)
    library.seccomp_attr_set.argtypes = (pointer, ctypes.c_int, number)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        *(pointer, number, ctypes.c_int, ctypes.c_uint),
        pointer,
    )
    library.seccomp_export_bpf.argtypes = (pointer, ctypes.c_int)
    return library


def _check(result: int) -> None:
    if result < 0:
        raise NotConfinedError(
            f"libseccomp cannot write the filter ({os.strerror(-result)})",
            "install libseccomp 2.5 or later",
        )
