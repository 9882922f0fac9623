"""Where a browser ends: another local process must not keep it from us."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from agentvault_tui.cli import callback
from agentvault_tui.cli.callback import listening
from agentvault_tui.errors import RefusedError


def test_a_trickle_does_not_hold_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte now and then is hung up on as a whole, however soon each byte comes."""
    monkeypatch.setattr(callback, "_SLOWEST", 0.2)
    cut = threading.Event()

    def drip(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as rogue:
            try:
                for _ in range(200):
                    rogue.sendall(b"G")
                    rogue.settimeout(0.05)
                    try:
                        if rogue.recv(1) == b"":
                            break
                    except TimeoutError:
                        continue
                else:
                    return
            except OSError:
                pass
            cut.set()

    with Path(os.devnull).open() as nothing, listening(0) as back:
        monkeypatch.setattr("sys.stdin", nothing)
        port = int(back.address.split(":")[2].split("/")[0])
        rogue = threading.Thread(target=drip, args=(port,))
        rogue.start()
        with pytest.raises(RefusedError):
            back.next(1.0)
        rogue.join(20)
    assert cut.is_set()
