"""The embedded tenant as a process of its own, as empty as an Auth0 tenant that is new.

It has no application of ours: one client may use the Management API, and that is all.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.command_line import plain_environment


@contextmanager
def empty_tenant(
    home: Path, credential: Mapping[str, str], scopes: Collection[str]
) -> Iterator[str]:
    """Run one on *home*, and yield its issuer.

    Args:
        home: a folder of its own, no vault's.
        credential: ``client_id`` and ``client_secret`` of the management client.
        scopes: what that client may do.
    """
    management = {**credential, "scopes": sorted(scopes)}
    said = json.dumps({"client_id": "", "management": management}).encode()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [said], [])
        with subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "agentvault_tui.tenant"),
                *("--home", str(home), "--parent-fd", str(theirs.fileno())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=plain_environment(),
            pass_fds=(theirs.fileno(),),
        ) as process:
            try:
                assert process.stdout is not None
                yield json.loads(process.stdout.readline())["issuer"]
            finally:
                process.terminate()
