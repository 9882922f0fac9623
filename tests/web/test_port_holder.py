"""Which process listens at a port is found out where the kernel shows it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from agentvault_tui.web import loopback_pair
from agentvault_tui.web.port_holder import port_holder

ROW = "  0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 0:0 0 {uid} 0 {inode} 1 0"


def proc_of(folder: Path, *rows: str) -> Path:
    (folder / "net").mkdir()
    (folder / "net" / "tcp").write_text("\n".join(["  sl  local_address …", *rows]))
    return folder


def process(proc: Path, pid: int, name: str, inode: int) -> None:
    files = proc / str(pid) / "fd"
    files.mkdir(parents=True)
    (files / "0").symlink_to("/dev/null")
    (files / "3").symlink_to(f"socket:[{inode}]")
    (proc / str(pid) / "comm").write_text(f"{name}\n")


def test_this_process_is_found_by_its_own_port() -> None:
    """A listener is named with its pid, at either loopback address."""
    for host in ("127.0.0.1", "::1"):
        bound, held = loopback_pair(host, 0)
        try:
            found = port_holder(int(bound.getsockname()[1]))
            assert found.endswith(f" (pid {os.getpid()})")
        finally:
            for one in (bound, held):
                if one is not None:
                    one.close()


def test_another_users_process_is_named_by_its_user(tmp_path: Path) -> None:
    """If the process's files cannot be read, the table still names the user."""
    row = ROW.format(port=7718, state="0A", uid=0, inode=42)
    proc = proc_of(tmp_path, row, "what is no row")
    assert port_holder(7718, proc) == (
        "a process of the user root, not readable from here"
    )
    process(proc, 812, "ngi\x1b[31mnx", 42)
    assert port_holder(7718, proc) == "ngi⟦U+001B⟧[31mnx (pid 812)"
    assert "an unknown process" in port_holder(7719, proc)


def test_connections_are_no_listeners(tmp_path: Path) -> None:
    """A client whose own port is that number has not taken it."""
    row = ROW.format(port=7718, state="01", uid=0, inode=42)
    assert "an unknown process" in port_holder(7718, proc_of(tmp_path, row))
    assert "an unknown process" in port_holder(7718, tmp_path / "none")


def test_a_socket_that_does_not_listen_is_not_found_out() -> None:
    """It is bound, so that the port is taken, and it is in no table."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "an unknown process" in port_holder(bound.getsockname()[1])
