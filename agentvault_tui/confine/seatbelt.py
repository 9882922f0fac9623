"""The profile by which macOS confines a command (sandbox-exec(1)).

It is written and tested as a text; no macOS was there to run it. The rules follow those
of Apple's own profiles in /System/Library/Sandbox/Profiles: the last match counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentvault_tui.confine.view import View

PROGRAM: Final = "/usr/bin/sandbox-exec"
WEAKER: Final = (
    "loopback is this machine's own, where the command reaches two ports",
    "other processes are seen",
    "a daemon of the command may live on after the run",
    "attempts to reach something else are seen at the proxy only",
    "this profile has not been run by AgentVault's own tests",
)
"""Each promise that does not hold, in a sentence."""
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/System", "/Library/Frameworks"),
    *("/Library/Apple", "/Library/Developer", "/opt/homebrew"),
    *("/private/etc/ssl", "/private/etc/shells", "/private/etc/localtime"),
    *("/private/var/db/timezone", "/private/var/select", "/private/var/db/dyld"),
)
_DEVICES: Final = ("null", "zero", "random", "urandom", "tty", "ptmx", "dtracehelper")
_SERVICES: Final = (
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.system.notification_center",
)
"""Without mDNSResponder (names leak by it), trustd, launch services and Apple events,
by which others would act for the command."""


def build_profile(view: View, ports: Iterable[int]) -> str:
    """Return the profile for a command.

    Args:
        view: the files that it sees; links are resolved.
        ports: ports of loopback that it may connect to.

    Returns:
        the profile's text, for ``sandbox-exec -p``.
    """
    readable = [*_SYSTEM, *map(str, (*view.runtime, *view.read, *view.own))]
    writable = [*map(str, (view.home, *view.write))]
    protection = view.protection
    closed = [*map(str, (*protection.read_only, *protection.missing))]
    services = " ".join(f"(global-name {_quoted(one)})" for one in _SERVICES)
    devices = " ".join(f'(literal "/dev/{name}")' for name in _DEVICES)
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-exec process-fork)",
        "(allow signal process-info* (target same-sandbox))",
        "(allow sysctl-read)",
        f"(allow mach-lookup {services})",
        '(allow file-read* (literal "/"))',
        f"(allow file-read-metadata {_places(_parents([*readable, *writable]))})",
        f"(allow file-read* {_below([*readable, *writable])})",
        f"(allow file-write* {_below(writable)})",
        f"(allow file-read* file-write-data file-ioctl {devices})",
        '(allow file-read* file-write* file-ioctl (regex #"^/dev/ttys[0-9]+$"))',
        *(f'(allow network-outbound (remote ip "localhost:{port}"))' for port in ports),
    ]
    if closed:
        lines.append(f"(deny file-write* {_below(closed)})")
    if protection.pinned:
        pinned = _places(map(str, protection.pinned))
        lines.append(f"(deny file-write-unlink {pinned})")
    return "\n".join(lines) + "\n"


def _below(paths: Iterable[str]) -> str:
    return " ".join(f"(subpath {_quoted(one)})" for one in paths)


def _places(paths: Iterable[str]) -> str:
    return " ".join(f"(literal {_quoted(one)})" for one in paths)


def _parents(paths: Iterable[str]) -> list[str]:
    return sorted({str(above) for one in paths for above in Path(one).parents})


def _quoted(text: str) -> str:
    """Return a string of the profile's language, which is Scheme's."""
    return json.dumps(text, ensure_ascii=False)
