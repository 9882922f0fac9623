"""Finds the layers by which this machine can confine a command."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from agentvault_tui.confine import landlock, seatbelt
from agentvault_tui.confine.bubblewrap import Bubblewrap, find_bubblewrap, probe
from agentvault_tui.confine.syscalls import check_machine
from agentvault_tui.errors import NotConfinedError


class Means(Enum):
    """The means by which a command is confined."""

    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    SEATBELT = "seatbelt"


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers that confine a command on this machine."""

    kind: Means
    names: tuple[str, ...]
    bubblewrap: Bubblewrap | None = None
    """Of `Means.NAMESPACES`."""
    because: str = ""
    """Why there are no namespaces, and the remedy."""

    def weaker(self, ports: Sequence[int]) -> tuple[str, ...]:
        """Return each promise that does not hold, in a sentence.

        Args:
            ports: TCP ports that the command reaches.
        """
        if self.kind is Means.LANDLOCK:
            return landlock.weaker_than_promised(landlock.abi(), ports)
        return seatbelt.WEAKER if self.kind is Means.SEATBELT else ()


def find_layers() -> Layers:
    """Find all that a whole confinement takes, by a real start.

    Returns:
        the layers.

    Raises:
        NotConfinedError: a layer is missing; with the remedy.
    """
    if sys.platform != "linux":
        raise NotConfinedError(
            f"{platform.system()} has no namespaces",
            "--confine=best confines it less, with sandbox-exec"
            if sys.platform == "darwin"
            else "run it on Linux",
        )
    if is_first_wsl(platform.release()):
        raise NotConfinedError(
            "this is WSL 1, whose kernel has no namespaces",
            "convert it: wsl --set-version DISTRIBUTION 2",
        )
    check_machine()
    bubblewrap = probe(find_bubblewrap())
    names = f"bubblewrap {bubblewrap.version}", "seccomp"
    return Layers(Means.NAMESPACES, names, bubblewrap)


def find_strongest() -> Layers:
    """Find the strongest layers there are.

    Returns:
        the layers; which promises they do not hold, `Layers.weaker` says.

    Raises:
        NotConfinedError: there are none that confine at all.
    """
    try:
        return find_layers()
    except NotConfinedError as error:
        why = error
    if sys.platform == "darwin" and os.access(seatbelt.PROGRAM, os.X_OK):
        return Layers(Means.SEATBELT, ("sandbox-exec",), because=why.diagnosis())
    if sys.platform != "linux":
        raise why
    check_machine()
    version = landlock.abi()
    if version < landlock.LEAST:
        raise why
    names = f"Landlock ABI {version}", "seccomp"
    return Layers(Means.LANDLOCK, names, because=why.diagnosis())


def is_first_wsl(release: str) -> bool:
    """Check whether a kernel's release is the one of WSL 1."""
    return release.endswith("-Microsoft")
